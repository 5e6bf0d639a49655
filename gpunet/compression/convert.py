"""Networks to and from PyTorch: chains of layers, by what a module really runs, whatever its parts are called."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from gpunet.backend import Backend, get_backend
from gpunet.backend.base import LEAK
from gpunet.checks import Dtype, check_shape
from gpunet.compression.pytorch import hooked
from gpunet.errors import DataError, GpunetError, InputError, first_line, shown
from gpunet.extras import load
from gpunet.nn.layers import (
    GELU,
    Activation,
    AvgPool2D,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Layer,
    LowRankDense,
    MaxPool2D,
    Reshape,
)
from gpunet.nn.layers.base import Shape
from gpunet.nn.model import Sequential, check_model
from gpunet.nn.serialize import arrays_of

RECORDED, CHECKED = 5, 7  # samples; two numbers, so that a batch size that a forward has built in is found
CLOSE = {"float64": 1e-9, "float32": 1e-4}  # of the largest output, by the dtype that the module is run in
FACTORED = {"right": "0.weight", "left": "1.weight", "bias": "1.bias"}  # parameters in a Sequential of two Linears
# What only looks at a tensor's description, by name; is_contiguous and its like as well.
LOOKS = {
    "size", "shape", "dim", "ndim", "ndimension", "numel", "nelement", "dtype", "device", "stride", "layout",
    "requires_grad", "element_size", "get_device", "__len__",
}  # fmt: skip
SAME = {"contiguous", "clone", "detach", "float", "double", "to", "type", "type_as", "cpu"}
SHAPING = {"flatten", "view", "reshape", "unflatten", "squeeze", "unsqueeze", "ravel"}
NORMS = "of norms only a BatchNorm with running statistics is known"
POOLS = "gpunet's pools are MaxPool2d(k) with stride k and AvgPool2d(k, stride), square and without padding"
ACTIVATIONS = {"relu": "ReLU", "sigmoid": "Sigmoid", "tanh": "Tanh", "leaky_relu": "LeakyReLU"}  # modules of torch.nn
KNOWN = (
    "what can is a chain of Linear, Conv2d, BatchNorm, activations, MaxPool2d, AvgPool2d, Dropout and changes of shape"
)
RECURRENT = {"lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"}
ADVICE = {  # by the functions' names
    "leave it off: gpunet's loss 'softmax_cross_entropy' applies it": "softmax log_softmax",
    "gpunet's activations are relu, sigmoid, tanh, leaky_relu and gelu": "silu elu selu celu prelu relu6 hardtanh "
    "softplus mish clamp clamp_min hardsigmoid hardswish",
    NORMS: "layer_norm group_norm instance_norm batch_norm rms_norm local_response_norm",
    POOLS: "adaptive_avg_pool2d adaptive_max_pool2d lp_pool2d",
    "put a Dropout or an Identity there": "dropout1d dropout2d dropout3d alpha_dropout feature_dropout",
    "only zeros around images are known: use Conv2d's own padding, with padding_mode='zeros'": "pad",
}


def from_torch(module: Any, input_shape: Shape | None = None, device: str | Backend = "auto") -> Sequential:
    """The `gn.Sequential` that equals a `torch.nn.Module` in evaluation mode, on `device`, with copies of its weights.

    The module's forward must be a chain of Linear, Conv2d (stride 1, padding none or, of an odd kernel,
    (kernel − 1)/2), ReLU, Sigmoid, Tanh, LeakyReLU (slope 0.01), GELU, MaxPool2d, AvgPool2d, Flatten, Unflatten, view,
    reshape, Dropout, BatchNorm with running statistics: as modules of any names, however nested, or functions. What it
    runs is recorded from a few random samples, so that weights computed from others (weight_norm, spectral_norm,
    pruned) come as they are. A BatchNorm right after a Linear or Conv2d is folded into it: W' = γ/√(σ² + ε) · W,
    b' = γ/√(σ² + ε) · (b − μ) + β. Two Linears with nothing between, the first without bias, are a LowRankDense where
    their inner size is no larger than the outer ones.

    input_shape: of one sample, such as (1, 28, 28); it may be left out where the first layer is a Linear. float32 and
    float64 are kept, float16 and bfloat16 become float32. A Linear without bias gets one of zeros. A weight that is
    used twice becomes two, which training moves apart; what is frozen (requires_grad) is not trainable. The module is
    left as it is: a copy in float64 on the host is run, and the outputs of both are compared before anything is given.

    Raises InputError naming the first part that cannot be converted, with what to put there, or where the outputs
    differ; DataError where a weight is not finite; InputError where PyTorch is not installed.
    """
    torch = _torch()
    backend = get_backend(device)
    # Nor are the caller's random numbers moved, where the forward draws some.
    with (
        torch.random.fork_rng(devices=[]),
        torch.inference_mode(False),
    ):  # with gradients, to see of weights that are computed whether they are trained
        own, dtype = _copied(torch, module)
        shape = _first_shape(torch, own) if input_shape is None else check_shape("input_shape", input_shape)
        parts, precision = _recorded(torch, own, shape, guessed=input_shape is None)
    parts = _pooled(_factored(parts))
    model = Sequential([part.made() for part in parts])
    _build(model, parts, shape, get_backend("numpy"), "float64")
    with torch.random.fork_rng(devices=[]):
        _compare(torch, own, model, precision)
    _build(model, parts, shape, backend, dtype)
    return model


def to_torch(model: Sequential) -> Any:
    """The `torch.nn.Sequential` that equals a built model, on the host, with copies of its weights: only PyTorch in it.

    Its state has the names of `model.parameters`; a LowRankDense "2", y = f((x Rᵀ) Lᵀ + b), is an `nn.Sequential` of
    two Linears there: "2.0.weight" R (l, in), "2.1.weight" L (out, l) and "2.1.bias". It gives the model's outputs:
    scores where the loss is a softmax's, as `torch.nn.CrossEntropyLoss` takes them. It is given samples times the
    model's `scale`. dtype and training mode are the model's; what is not trainable does not require gradients, and a
    BatchNorm of that kind is in evaluation mode.
    Raises InputError for a model without weights, or with layers of other classes than gpunet's own.
    """
    torch = _torch()
    if not check_model(model).built:
        raise InputError("the model has no weights yet: fit it, or build it, before converting it")
    if type(model).forward is not Sequential.forward:
        raise InputError(f"the model is a {type(model).__name__} with its own forward, which PyTorch would not run")
    parts: list[Any] = []
    for layer, shape in zip(model.layers, [model.input_shape, *model.shapes(model.input_shape)], strict=False):
        parts += _parts(torch, layer, shape, model.dtype)
    network, arrays = torch.nn.Sequential(*parts), arrays_of(model)
    for layer in model.layers:
        if isinstance(layer, LowRankDense):
            for own, theirs in FACTORED.items():
                arrays[f"{layer.name}.{theirs}"] = arrays.pop(f"{layer.name}.{own}")
        parts[int(layer.name)].requires_grad_(layer.trainable)
    network.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    network.train(model.training)
    for layer in model.layers:
        if isinstance(layer, BatchNorm) and not layer.trainable:
            parts[int(layer.name)].eval()
    return network


@dataclass
class _Part:
    """A layer to be made: its class and settings, and its parameters in float64 (bias None: zeros, and foldable)."""

    kind: type[Layer]
    settings: dict[str, Any]
    arrays: dict[str, Any] = field(default_factory=dict)

    def made(self) -> Layer:
        return self.kind(**self.settings)


class _Recorder:
    """What a module's forward does to the samples, function by function; InputError for what no layer of ours does."""

    def __init__(self, torch: Any, x: Any) -> None:
        self.torch, self.current, self.parts = torch, x, list[_Part]()
        self.seen = {id(x): x}  # all that was computed from the samples: kept alive, so that an id is one tensor's
        self.inside = ["the module"]  # the modules whose forward runs, outermost first
        self.known: dict[str, Callable[..., None]] = {
            "linear": self.linear, "conv2d": self.conv2d, "relu": self.relu, "sigmoid": self.sigmoid,
            "tanh": self.tanh, "leaky_relu": self.leaky_relu, "gelu": self.gelu,
            "max_pool2d": self.max_pool2d, "avg_pool2d": self.avg_pool2d, "dropout": self.dropout,
            "torch.nn.functional.batch_norm": self.batch_norm,
        }  # fmt: skip

    def called(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a function of PyTorch's, and note what it is where it gets what the samples have become."""
        given = [each for each in self._tensors((args, kwargs)) if id(each) in self.seen]
        if not given:
            return function(*args, **kwargs)
        full = self.torch.overrides.resolve_name(function) or getattr(function, "__name__", "an unknown function")
        name = full.removesuffix(".__get__").rpartition(".")[2]
        name = name if name.startswith("__") else name.rstrip("_")
        if name in RECURRENT:
            raise self.refused("gpunet has no recurrent layers", KNOWN)
        if len(given) > 1:
            raise self.refused(f"{name} joins two paths", "only a chain can be converted, without residuals")
        before = given[0].shape
        found = function(*args, **kwargs)
        if not isinstance(found, self.torch.Tensor):
            if name in LOOKS or (name.startswith("is_") and name != "is_nonzero"):
                return found
            raise self.refused(f"{name} is no function of a layer", self._advice(name))
        if given[0] is not self.current:
            raise self.refused(f"{name} takes what another part has taken already", "only a chain can be converted")
        if (args[0] if args else kwargs.get("input")) is not given[0]:
            raise self.refused(f"{name} takes the samples as its weight", "only a chain of layers can be converted")
        rest = {key: value for key, value in kwargs.items() if key != "input"}
        if name in SHAPING:
            self.shaped(before, found.shape)
        elif name not in SAME:
            known = self.known.get(full) or self.known.get(name)
            if known is None:
                raise self.refused(f"gpunet has no layer that does {name}", self._advice(name))
            known(before, *args[1:], **rest)
        self.current = self.seen[id(found)] = found
        return found

    def _tensors(self, given: Any) -> Iterator[Any]:
        if isinstance(given, self.torch.Tensor):
            yield given
        elif isinstance(given, dict | list | tuple):
            for each in given.values() if isinstance(given, dict) else given:
                yield from self._tensors(each)

    @staticmethod
    def _advice(name: str) -> str:
        return next((advice for advice, names in ADVICE.items() if name in names.split()), KNOWN)

    def refused(self, what: str, advice: str) -> InputError:
        """The error to raise."""
        return InputError(f"{self.inside[-1]} cannot be converted: {what}; {advice}")

    def add(self, kind: type[Layer], arrays: dict[str, Any] | None = None, **settings: Any) -> None:
        """One more layer."""
        part = _Part(kind, settings, arrays or {})
        try:
            part.made()
        except InputError as error:
            raise self.refused(str(error), "change it before converting") from None
        self.parts.append(part)

    @property
    def affine(self) -> _Part | None:
        """The last part, where it has weights, and no activation yet."""
        last = self.parts[-1] if self.parts else None
        return last if last and last.kind in (Dense, Conv2D) and "activation" not in last.settings else None

    # -- functions, as PyTorch calls them; x is the shape of what they get ------------------------------------------

    def linear(self, x: Any, weight: Any, bias: Any = None) -> None:
        if len(x) != 2:
            raise self.refused(f"a Linear takes samples of shape {tuple(x[1:])}", "put a Flatten before it")
        self.add(Dense, _arrays(weight, bias), units=len(weight), trainable=_trainable(weight, bias))

    def conv2d(
        self, x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
        groups: int = 1,
    ) -> None:  # fmt: skip
        kernel, step, apart = tuple(weight.shape[2:]), _pair(stride), _pair(dilation)
        half = (kernel[0] // 2, kernel[1] // 2)
        around = {"valid": (0, 0), "same": half}[padding] if isinstance(padding, str) else _pair(padding)
        plain = step == apart == (1, 1) and groups == 1 and kernel[0] == kernel[1]
        if not plain or around not in ((0, 0), half if kernel[0] % 2 else (0, 0)):
            raise self.refused(
                f"a Conv2d has kernel {kernel}, stride {step}, padding {around}, dilation {apart} and groups={groups}",
                "gpunet's has a square kernel, stride 1, padding none or (odd kernel − 1)/2, dilation 1 and one group",
            )
        self.add(
            Conv2D, _arrays(weight, bias), filters=len(weight), kernel=kernel[0], trainable=_trainable(weight, bias),
            padding="same" if any(around) else "valid",
        )  # fmt: skip

    def relu(self, x: Any, inplace: bool = False) -> None:
        self.activation("relu")

    def sigmoid(self, x: Any) -> None:
        self.activation("sigmoid")

    def tanh(self, x: Any) -> None:
        self.activation("tanh")

    def leaky_relu(self, x: Any, negative_slope: float = LEAK, inplace: bool = False) -> None:
        if negative_slope != LEAK:
            raise self.refused(f"its leaky_relu has slope {negative_slope:g}", f"gpunet's has slope {LEAK:g}")
        self.activation("leaky_relu")

    def gelu(self, x: Any, approximate: str = "none") -> None:
        self.add(GELU, approximate=approximate)

    def activation(self, name: str) -> None:
        if self.affine:
            self.affine.settings["activation"] = name
        else:
            self.add(Activation, activation=name)

    def max_pool2d(
        self, x: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: Any = False,
        return_indices: Any = False,
    ) -> None:  # fmt: skip
        size, around, apart = _pair(kernel_size), _pair(padding), _pair(dilation)
        step = _pair(stride) if stride else size  # torch.max_pool2d has an empty list for that
        if len({*size, *step}) > 1 or around != (0, 0) or apart != (1, 1) or ceil_mode or len(x) != 4:
            raise self.refused(
                f"a pool has windows {size}, stride {step}, padding {around}, dilation {apart}, ceil_mode={ceil_mode}",
                POOLS,
            )
        self.add(MaxPool2D, size=size[0])

    def avg_pool2d(
        self, x: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: Any = False,
        count_include_pad: Any = True, divisor_override: Any = None,
    ) -> None:  # fmt: skip
        size, around = _pair(kernel_size), _pair(padding)
        step = _pair(stride) if stride else size
        square = size[0] == size[1] and step[0] == step[1] and len(x) == 4
        if not square or around != (0, 0) or ceil_mode or divisor_override is not None:
            raise self.refused(
                f"a pool has windows {size}, stride {step}, padding {around}, ceil_mode={ceil_mode}, "
                f"divisor_override={divisor_override}",
                POOLS,
            )
        self.add(AvgPool2D, size=size[0], stride=None if step == size else step[0])

    def dropout(self, x: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> None:
        if training:
            raise self.refused("it drops in evaluation mode as well", "call dropout with training=self.training")
        self.add(Dropout, rate=p)

    def batch_norm(
        self, x: Any, mean: Any, var: Any, weight: Any = None, bias: Any = None, training: bool = False,
        momentum: Any = None, eps: float = 1e-5,
    ) -> None:  # fmt: skip
        if training:
            raise self.refused("its BatchNorm has no running statistics", NORMS)
        shift = _host(mean) * 0 if bias is None else _host(bias)
        factor = _host(var) * 0 + 1 if weight is None else _host(weight)
        if self.affine is None:
            arrays = {"weight": factor, "bias": shift, "running_mean": _host(mean), "running_var": _host(var)}
            trainable = weight is not None and _trainable(weight, bias)
            self.add(BatchNorm, arrays, momentum=momentum, epsilon=eps, trainable=trainable)
            return
        scale = factor / np.sqrt(_host(var) + eps)
        arrays = self.affine.arrays
        w, b = arrays["weight"], 0 if arrays["bias"] is None else arrays["bias"]
        arrays.update(weight=w * scale.reshape(-1, *[1] * (w.ndim - 1)), bias=scale * (b - _host(mean)) + shift)

    def shaped(self, x: Any, y: Any) -> None:
        if len(y) < 2 or y[0] != x[0] or math.prod(y) != math.prod(x):
            raise self.refused(
                f"samples of shape {tuple(x[1:])} become {tuple(y)} in a batch of {x[0]}",
                "a change of shape keeps the first axis, the samples, and another one",
            )
        if len(y) == 2:
            self.add(Flatten)
        elif x != y:
            self.add(Reshape, shape=tuple(y[1:]))


def _recorded(torch: Any, module: Any, shape: Shape, guessed: bool) -> tuple[list[_Part], str]:
    """The layers that the module runs, and the dtype that it can be run in: float64 where its forward allows it."""
    failed = Exception()
    for precision in CLOSE:
        x = _samples(torch, RECORDED, shape, precision)
        recorder = _Recorder(torch, x)

        class Mode(torch.overrides.TorchFunctionMode):  # type: ignore[misc]
            def __torch_function__(
                self, function: Any, types: Any, args: Any = (), kwargs: Any = None, recorder: _Recorder = recorder
            ) -> Any:
                return recorder.called(function, args, kwargs or {})

        try:
            with _telling(module.to(getattr(torch, precision)), recorder), Mode():
                y = module(x)
        except GpunetError:
            raise
        except Exception as error:
            failed = error  # the last, in float32: that is how it is meant to run
            continue
        if not isinstance(y, torch.Tensor):
            raise InputError(f"the module's forward gives {shown(y)}: expected one tensor")
        if y is not recorder.current:
            raise InputError("the module's forward gives something else than what it computed last: expected a chain")
        if not recorder.parts:
            raise InputError(f"the module {shown(module)} does nothing: expected at least one layer")
        return recorder.parts, precision
    advice = "pass input_shape, the shape of one sample" if guessed else "input_shape is to be that of one sample"
    raise InputError(
        f"running the module on samples of shape {shape} failed: {first_line(failed)}; {advice}"
    ) from failed


def _telling(module: Any, recorder: _Recorder) -> AbstractContextManager[None]:
    """A block in which the recorder is told which part runs."""
    hooks: list[Callable[[], Any]] = []
    for name, part in module.named_modules():
        called = f"{name!r} ({type(part).__name__})" if name else f"the forward of {type(part).__name__}"
        hooks.append(partial(part.register_forward_pre_hook, lambda *_, called=called: recorder.inside.append(called)))
        hooks.append(partial(part.register_forward_hook, lambda *_: recorder.inside.pop() and None))
    return hooked(*hooks)


def _factored(parts: list[_Part]) -> list[_Part]:
    """Two Linears with nothing between, the first without bias, as one in factored form: W = L R."""
    found: list[_Part] = []
    for part in parts:
        last = found[-1] if found else None
        if (
            last
            and last.kind is part.kind is Dense
            and last.arrays["bias"] is None
            and "activation" not in last.settings
        ):
            right, left = last.arrays["weight"], part.arrays["weight"]
            rank = len(right)
            if rank <= min(len(left), right.shape[1]) and last.settings["trainable"] == part.settings["trainable"]:
                arrays = {"left": left, "right": right, "bias": part.arrays["bias"]}
                found[-1] = _Part(LowRankDense, {**part.settings, "rank": rank}, arrays)
                continue
        found.append(part)
    return found


def _build(model: Sequential, parts: list[_Part], shape: Shape, backend: Backend, dtype: Dtype) -> None:
    """Build the model with the parts' weights."""
    model.build(shape, backend, dtype=dtype)
    for layer, part in zip(model.layers, parts, strict=True):
        for name, array in part.arrays.items():
            setattr(layer, name, np.zeros(getattr(layer, name).shape) if array is None else array)


def _compare(torch: Any, module: Any, model: Sequential, precision: str) -> None:
    """InputError where the outputs of the two differ."""
    x = _samples(torch, CHECKED, model.input_shape, precision)
    try:
        with torch.no_grad():
            theirs = module(x).double().numpy()
    except Exception as error:
        raise InputError(
            f"the module takes batches of {RECORDED}, and none of {CHECKED} ({first_line(error)}): expected one that "
            "takes any number of samples"
        ) from error
    model.bind(CHECKED)
    ours = model.activate_scores(model.forward(np.asarray(x.numpy(), np.float64)))
    off = np.abs(ours - theirs).max() if ours.shape == theirs.shape else math.inf
    if not off <= CLOSE[precision] * max(np.abs(theirs).max(), float(np.finfo(np.float32).tiny)):
        raise InputError(
            f"the model gives other outputs than the module, off by {off:.2g} of {np.abs(theirs).max():.2g}: its "
            "forward does what PyTorch does not tell (a hook, values looked at): write it as a plain chain of layers"
        )


def _samples(torch: Any, n: int, shape: Shape, dtype: str) -> Any:
    return torch.from_numpy(np.random.default_rng(n).standard_normal((n, *shape)).astype(dtype))


def _copied(torch: Any, module: Any) -> tuple[Any, Dtype]:
    """A copy of the module on the host in evaluation mode, and the dtype that the model gets."""
    nn = torch.nn
    if not isinstance(module, nn.Module):
        raise InputError(f"module is {shown(module)}: expected a torch.nn.Module, such as nn.Sequential(...)")
    module = getattr(module, "_orig_mod", module)  # of torch.compile
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        module = module.module
    for name, part in module.named_modules():
        scripted = isinstance(part, torch.jit.ScriptModule)
        if scripted or ".quantized." in type(part).__module__:
            kind = f"{type(part).__name__}, {'scripted' if scripted else 'quantised'}"
            raise InputError(f"{name or 'the module'} is a {kind}: pass the module as it was before that")
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        _check_tensor(torch, name, tensor, parameter=isinstance(tensor, nn.Parameter))
    dtypes = {each.dtype for each in module.parameters()}
    # What a forward has computed (pruned weights, say) can be copied only as plain numbers.
    memo = {
        id(each): each.detach().clone()
        for part in module.modules()
        for each in vars(part).values()
        if isinstance(each, torch.Tensor) and not each.is_leaf
    }
    try:
        own = copy.deepcopy(module, memo).cpu().eval()
    except Exception as error:
        raise InputError(f"the module {type(module).__name__} cannot be copied: {first_line(error)}") from error
    return own, "float64" if torch.float64 in dtypes else "float32"


def _check_tensor(torch: Any, name: str, tensor: Any, parameter: bool) -> None:
    """Raises where a parameter or a buffer has no numbers that can be taken over."""
    if torch.nn.parameter.is_lazy(tensor):
        raise InputError(f"{name} has no shape yet: run a batch through the module before converting it")
    if tensor.is_meta:
        raise InputError(f"{name} lies on the meta device and has no numbers: load the module's weights first")
    if tensor.layout != torch.strided:
        raise InputError(f"{name} is sparse: expected dense numbers; convert it with .to_dense()")
    real = tensor.is_floating_point() and tensor.element_size() > 1
    if tensor.is_quantized or (parameter and not real):
        raise InputError(
            f"{name} is {shown(tensor.dtype)}: expected floats of 16 bits or more; pass the module that was quantised"
        )
    if parameter and not bool(torch.isfinite(tensor.detach()).all()):
        raise DataError(f"{name} holds NaN or infinity: expected finite numbers")


def _pooled(parts: list[_Part]) -> list[_Part]:
    """The same with pools that come right after a convolution in it; averages of an activation not at the very end."""
    found: list[_Part] = []
    for part in parts:
        conv = found[-1] if found else None
        last_averages = part.kind is AvgPool2D and part is parts[-1]
        pools = part.kind in (AvgPool2D, MaxPool2D) and not last_averages
        if not pools or conv is None or conv.kind is not Conv2D or "pool" in conv.settings:
            found.append(part)
            continue
        conv.settings["pool"] = part.settings["size"]
        if part.kind is AvgPool2D:
            conv.settings |= {"pool_stride": part.settings["stride"], "pooling": "average"}
    return found


def _first_shape(torch: Any, module: Any) -> Shape:
    """The shape of a sample, where the first layer says it."""
    nn = torch.nn
    for part in module.modules():
        if isinstance(part, nn.Linear):
            return (part.in_features,)
        if isinstance(part, nn.Conv2d):
            raise InputError(f"input_shape is needed: pass the shape of one image, ({part.in_channels}, rows, columns)")
    raise InputError("input_shape is needed: pass the shape of one sample, such as (784,)")


def _parts(torch: Any, layer: Any, shape: Shape, dtype: str) -> list[Any]:
    """What equals the layer, a module for each of its slots; weights are not set yet."""
    nn, kind = torch.nn, type(layer)

    def affine(of: Any, *args: Any, **options: Any) -> Any:
        return nn.utils.skip_init(of, *args, dtype=getattr(torch, dtype), **options)

    parts: list[Any]
    if kind is Dense:
        parts = [affine(nn.Linear, shape[0], layer.units)]
    elif kind is LowRankDense:
        first, second = affine(nn.Linear, shape[0], layer.rank, bias=False), affine(nn.Linear, layer.rank, layer.units)
        parts = [nn.Sequential(first, second)]
    elif kind is Conv2D:
        parts = [affine(nn.Conv2d, shape[0], layer.filters, layer.kernel, padding=layer.zeros)]
    elif kind is MaxPool2D:
        parts = [nn.MaxPool2d(layer.size)]
    elif kind is AvgPool2D:
        parts = [nn.AvgPool2d(layer.size, layer.step)]
    elif kind is Dropout:
        parts = [nn.Dropout(layer.rate)]
    elif kind is GELU:
        parts = [nn.GELU(approximate=layer.approximate)]
    elif kind is BatchNorm and len(shape) < 5:
        of = nn.BatchNorm1d if len(shape) < 3 else nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm3d
        parts = [affine(of, shape[0], eps=layer.epsilon, momentum=layer.momentum)]
    elif kind is Flatten or (kind is Reshape and len(layer.shape) == 1):
        parts = [nn.Flatten()]
    elif kind is Reshape:
        rows = nn.Unflatten(1, layer.shape)
        parts = [rows if len(shape) == 1 else nn.Sequential(nn.Flatten(), rows)]
    elif kind is Activation:
        parts = [nn.Identity()] if layer.activation == "identity" else []
    else:
        raise InputError(f"{layer.called} is none of gpunet's own layers: PyTorch has no module that equals it")
    if layer.activation != "identity":
        parts.append(getattr(nn, ACTIVATIONS[layer.activation])())
    if kind is Conv2D and layer.pools:
        of_maps = nn.AvgPool2d(layer.pool, layer.step) if layer.pooling == "average" else nn.MaxPool2d(layer.pool)
        parts.append(of_maps)
    return parts


def _arrays(weight: Any, bias: Any) -> dict[str, Any]:
    return {"weight": _host(weight), "bias": None if bias is None else _host(bias)}


def _host(tensor: Any) -> Any:
    return tensor.detach().double().numpy()


def _trainable(weight: Any, bias: Any) -> bool:
    return bool(weight.requires_grad or (bias is not None and bias.requires_grad))


def _pair(size: Any) -> tuple[int, int]:
    """What PyTorch takes as one number or two."""
    if isinstance(size, int):
        return size, size
    one, *more = size
    return one, more[0] if more else one


def _torch() -> Any:
    return load("a network of PyTorch's", "torch")
