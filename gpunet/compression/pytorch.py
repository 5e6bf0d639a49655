"""PyTorch's modules, to be cut: nn.Linear and nn.Conv2d become an nn.Sequential of two."""

from __future__ import annotations

import contextlib
import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import numpy as np

from gpunet.compression.networks import Network, given_of, length, patch_rows
from gpunet.compression.tensors import from_torch
from gpunet.compression.weights import Factors, Weight
from gpunet.errors import InputError, first_line, shown
from gpunet.interrupts import contextmanager, undivided
from gpunet.nn.predict import EVAL_BATCH


def is_module(model: Any) -> bool:
    """Whether it is an nn.Module; torch is not imported for the question."""
    return any(
        f"{kind.__module__}.{kind.__qualname__}" == "torch.nn.modules.module.Module" for kind in type(model).__mro__
    )


@contextmanager
def evaluating(module: Any) -> Iterator[None]:
    """A block in which the module is not trained and nothing is recorded; afterwards each part has its own mode."""
    import torch

    before = [(part, part.training) for part in module.modules()]
    with undivided() as signals:
        try:
            module.eval()
            with torch.no_grad(), signals.heard():
                yield
        finally:
            for part, mode in before:
                part.training = mode


@contextmanager
def hooked(*hooks: Callable[[], Any]) -> Iterator[None]:
    """A block with hooks, given as calls that register them; however it ends none is left."""
    with undivided() as signals, contextlib.ExitStack() as stack:
        for register in hooks:
            stack.enter_context(register())
        with signals.heard():
            yield


NO_NUMBERS = "its weight has no numbers"
READ = {"weight", "bias", "in_features", "out_features", "in_channels", "out_channels", "kernel_size", "stride"}


class Torch(Network):
    """A `torch.nn.Module`. Shared weights, subclasses and what a parent reads past the layer's forward are kept."""

    def __init__(self, module: Any) -> None:
        import torch

        module = getattr(module, "_orig_mod", module)  # of torch.compile
        self.torch, self.model = torch, module
        self.weights, self.kept = {}, {}
        owners = Counter(id(p) for _, p in module.named_parameters(remove_duplicate=False))
        places = Counter(id(m) for _, m in module.named_modules(remove_duplicate=False))
        with evaluating(module):  # else a spectral norm, read, changes
            for name, layer in module.named_modules(remove_duplicate=False):
                if not isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
                    continue
                parent = module.get_submodule(name.rpartition(".")[0]) if name else None
                if why := self._why_kept(layer, parent, owners, places):
                    self.kept[name] = why
                    if why.startswith(NO_NUMBERS):
                        continue
                bias = None if layer.bias is None else _matrix(layer.bias)[:, 0]
                self.weights[name] = Weight(name, _matrix(layer.weight), bias=bias is not None, offset=bias)

    def _why_kept(self, layer: Any, parent: Any, owners: Counter[int], places: Counter[int]) -> str:
        """Why a layer cannot be cut; "" where it can."""
        nn = self.torch.nn
        weight = layer.weight
        if nn.parameter.is_lazy(weight):
            return f"{NO_NUMBERS} yet: run a batch through it first"
        if weight.is_meta:
            return f"{NO_NUMBERS}: it is on the meta device"
        if not weight.numel():
            return f"{NO_NUMBERS}: its shape is {tuple(weight.shape)}"
        if not weight.is_floating_point():
            return f"{NO_NUMBERS} that are real: it is {str(weight.dtype).removeprefix('torch.')}"
        if weight.element_size() < 2 or weight.layout != self.torch.strided:
            return f"{NO_NUMBERS} as it is: it is quantised or sparse"
        if type(layer) not in (nn.Linear, nn.Conv2d):
            return f"it is a {type(layer).__name__}, which may compute something else"
        if isinstance(layer, nn.Conv2d) and (layer.groups != 1 or layer.padding_mode != "zeros"):
            return f"it has groups={layer.groups}, padding_mode={layer.padding_mode!r}"
        if isinstance(layer, nn.Conv2d) and layer.padding == "same" and any(n % 2 == 0 for n in layer.kernel_size):
            return "its kernel is even, and padding='same'"
        if places[id(layer)] > 1:
            return "the same module stands in several places"
        if "weight" not in layer._parameters or layer.weight is None:
            return "its weight is computed from others"
        if owners[id(layer.weight)] > 1:
            return "its weight is shared with another module's"
        if layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks:
            return "it has hooks, which would be lost"
        if isinstance(parent, nn.TransformerEncoderLayer):
            return "nn.TransformerEncoderLayer reads its weight past its forward"
        if "forward" in vars(layer):
            return "its forward was replaced, which would be lost"
        return ""

    def batches(self, data: Any, size: int = EVAL_BATCH) -> Iterator[Any]:
        if isinstance(data, tuple) or hasattr(data, "shape"):
            yield from super().batches(data, size)
        else:
            if not isinstance(data, Iterable):
                raise InputError(
                    f"data is {shown(data)}: expected an array, (x, y) or batches as a DataLoader has them"
                )
            yield from data

    def _on_device(self, given: Any) -> Any:
        """A batch as the module takes it: tensors on its device, floats in its dtype."""
        torch = self.torch
        if isinstance(given, Mapping):
            return {name: self._on_device(value) for name, value in given.items()}
        if not isinstance(given, torch.Tensor):
            try:
                given = torch.as_tensor(np.ascontiguousarray(given))
            except (TypeError, ValueError) as error:
                raise InputError(f"a batch is {shown(given)}: expected a tensor or an array ({error})") from None
        first = next((p for p in self.model.parameters()), None)
        if first is None:
            return given
        return given.to(first.device, first.dtype if given.is_floating_point() else None)

    def run(self, model: Any, batch: Any) -> Any:
        given = self._on_device(given_of(batch))
        with self.evaluating(model):
            found = model(**given) if isinstance(given, Mapping) else model(given)
        if self.torch.cuda.is_available():
            self.torch.cuda.synchronize()
        return found

    def evaluating(self, model: Any) -> AbstractContextManager[Any]:
        return evaluating(model)

    def watching(self, names: Iterable[str], see: Callable[[str, Any], None], batch: Any) -> int:
        def hook(name: str) -> Callable[[], Any]:
            def seen(_module: Any, given: Any, named: Any) -> None:
                see(name, (given[0] if given else named["input"]).detach().cpu())

            return partial(self.model.get_submodule(name).register_forward_pre_hook, seen, with_kwargs=True)

        with hooked(*map(hook, names)):
            self.run(self.model, batch)
        return length(batch)

    def rows(self, name: str, given: Any) -> Iterator[Any]:
        layer = self.model.get_submodule(name)
        numbers = (given if given.dtype == self.torch.float64 else given.float()).numpy()
        if not isinstance(layer, self.torch.nn.Conv2d):
            return iter([numbers.reshape(-1, numbers.shape[-1])])
        return patch_rows(numbers, layer.kernel_size, layer.stride, _padding(layer), layer.dilation)

    def rebuilt(self, factors: Mapping[str, Factors]) -> Any:
        try:
            made = copy.deepcopy(self.model)
        except Exception as error:  # of the module's own code
            raise InputError(f"the module cannot be copied: {first_line(error)}") from error
        for name, cut in factors.items():
            two = self._two(made.get_submodule(name), cut)
            if not name:
                return two
            parent, _, own = name.rpartition(".")
            setattr(made.get_submodule(parent), own, two)
        return made

    def _two(self, layer: Any, cut: Factors) -> Any:
        """The layer, cut."""
        nn, w = self.torch.nn, layer.weight
        kind = {"device": w.device, "dtype": w.dtype}
        made = nn.utils.skip_init  # draws no numbers
        if isinstance(layer, nn.Linear):
            first = made(nn.Linear, layer.in_features, cut.rank, bias=False, **kind)
            second = made(nn.Linear, cut.rank, layer.out_features, bias=layer.bias is not None, **kind)
        else:
            first = made(
                nn.Conv2d, layer.in_channels, cut.rank, layer.kernel_size, layer.stride, layer.padding, layer.dilation,
                bias=False, **kind,
            )  # fmt: skip
            second = made(nn.Conv2d, cut.rank, layer.out_channels, 1, bias=layer.bias is not None, **kind)
        two = nn.Sequential(first, second)
        with self.torch.no_grad():
            for new, values in ((first.weight, cut.right), (second.weight, cut.left)):
                wide = values.astype(np.float32) if values.dtype.itemsize < 4 else np.ascontiguousarray(values)
                new.copy_(self.torch.from_numpy(wide).reshape(new.shape))
            if layer.bias is not None:
                shift = 0 if cut.shift is None else self.torch.from_numpy(cut.shift).to(w.device)
                second.bias.copy_(layer.bias.double() + shift)
        two.requires_grad_(w.requires_grad)
        if layer.bias is not None:
            second.bias.requires_grad_(layer.bias.requires_grad)
        return two.train(layer.training)

    def size(self, model: Any) -> int:
        return sum(p.numel() for p in model.parameters() if not self.torch.nn.parameter.is_lazy(p))

    def layer(self, name: str, factors: Factors | None, batch: Any) -> Callable[[], object]:
        layer, given = self.model.get_submodule(name), list[Any]()

        def seen(_: Any, args: Any, named: Any) -> None:
            given.append((args[0] if args else named["input"]).detach().clone())

        with hooked(partial(layer.register_forward_pre_hook, seen, with_kwargs=True)):
            self.run(self.model, batch)
        if not given:
            raise InputError(f"the first batch does not come to the layer {name!r}: leave it out with layers=")
        made = layer if factors is None else self._two(layer, factors)

        def run() -> None:
            with self.torch.no_grad():
                made(given[0])
            if given[0].is_cuda:
                self.torch.cuda.synchronize()

        return run

    def scores(self, found: Any) -> Any:
        found = getattr(found, "logits", found)  # of transformers
        if not isinstance(found, self.torch.Tensor):
            raise InputError(
                f"the network gives {shown(found)}: evaluate=(x, y) takes the largest of several outputs of a sample "
                "for its class; give evaluate a function of the model"
            )
        return (found if found.element_size() >= 4 else found.float()).cpu().numpy()

    def untouched(self) -> AbstractContextManager[Any]:
        return self.torch.random.fork_rng(devices=[])  # type: ignore[no-any-return]

    def watching_weights(self, batch: Any) -> None:
        """Keep the layers whose weight or settings something else reads while a batch runs, past their own forward.

        A Sequential in their place has none. For that run each is of a class that tells.
        """
        inside: list[Any] = []
        read: set[int] = set()
        layers = {name: self.model.get_submodule(name) for name in self.open}

        def told(layer: Any, name: str) -> Any:
            if name in READ and not any(each is layer for each in inside):
                read.add(id(layer))
            return object.__getattribute__(layer, name)

        with undivided() as signals, contextlib.ExitStack() as stack:
            for layer in layers.values():
                stack.enter_context(layer.register_forward_pre_hook(lambda layer, _: inside.append(layer)))
                stack.enter_context(layer.register_forward_hook(lambda *_: inside.pop() and None))
                kind = type(layer)
                stack.callback(object.__setattr__, layer, "__class__", kind)
                layer.__class__ = type(kind.__name__, (kind,), {"__getattribute__": told})
            with signals.heard():
                self.run(self.model, batch)
        for name, layer in layers.items():
            if id(layer) in read:
                self.kept[name] = "the network reads its weight or sizes past its forward"

    def check(self, model: Any, names: Iterable[str], batch: Any) -> None:
        left = set(names)
        hooks = [
            partial(model.get_submodule(name).register_forward_hook, lambda *_, name=name: left.discard(name))
            for name in names
        ]
        try:
            with hooked(*hooks):
                self.run(model, batch)
        except Exception as error:  # of the model's own code
            raise InputError(
                f"the network cannot be run with {', '.join(map(repr, names))} cut: {first_line(error)}; leave some "
                "out with layers="
            ) from error
        if left:
            raise InputError(
                f"the network runs the layer {min(left)!r} by another way than its name, so that it cannot be cut: "
                "leave it out with layers="
            )


def _matrix(weight: Any) -> Any:
    """A parameter as rows of numbers, in its dtype."""
    numbers = from_torch(weight)
    return numbers.reshape(len(numbers), -1)


def _padding(layer: Any) -> tuple[int, int]:
    """What stands around the images, in numbers."""
    if layer.padding == "valid":
        return 0, 0
    if layer.padding == "same":
        each = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        return each[0] // 2, each[1] // 2
    return int(layer.padding[0]), int(layer.padding[1])
