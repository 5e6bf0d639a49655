"""PyTorch's modules, to be cut: nn.Linear and nn.Conv2d become an nn.Sequential of two."""

from __future__ import annotations

import contextlib
import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from gpunet.compression.networks import Network, check_data, patch_rows
from gpunet.compression.weights import Factors, Weight
from gpunet.errors import InputError, shown
from gpunet.nn.trainer import EVAL_BATCH


def is_module(model: Any) -> bool:
    """Whether it is an nn.Module; torch is not imported for the question."""
    return any(
        f"{kind.__module__}.{kind.__qualname__}" == "torch.nn.modules.module.Module" for kind in type(model).__mro__
    )


NO_NUMBERS = "its weight has no numbers"


class Torch(Network):
    """A `torch.nn.Module`. Shared weights, subclasses and what a parent reads past the layer's forward are kept."""

    def __init__(self, module: Any) -> None:
        import torch

        self.torch, self.model = torch, module
        self.weights, self.kept = {}, {}
        owners = Counter(id(p) for _, p in module.named_parameters(remove_duplicate=False))
        places = Counter(id(m) for _, m in module.named_modules(remove_duplicate=False))
        for name, layer in module.named_modules(remove_duplicate=False):
            if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d) or type(layer).__name__.startswith("Parametrized"):
                parent = module.get_submodule(name.rpartition(".")[0]) if name else None
                if why := self._why_kept(layer, parent, owners, places):
                    self.kept[name] = why
                    if why.startswith(NO_NUMBERS):
                        continue
                self.weights[name] = Weight(name, _matrix(layer.weight), bias=layer.bias is not None)

    def _why_kept(self, layer: Any, parent: Any, owners: Counter[int], places: Counter[int]) -> str:
        """Why a layer cannot be cut; "" where it can."""
        nn = self.torch.nn
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
        if layer.weight.is_meta:
            return f"{NO_NUMBERS}: it is on the meta device"
        if not layer.weight.is_floating_point() or layer.weight.element_size() < 2:
            return f"{NO_NUMBERS}: it is quantised ({str(layer.weight.dtype).removeprefix('torch.')})"
        return ""

    def batches(self, data: Any, size: int = EVAL_BATCH) -> Iterator[Any]:
        if isinstance(data, tuple) or hasattr(data, "shape"):
            x = check_data(data)
            for start in range(0, len(x), size):
                yield x[start : start + size]
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
        given = batch[0] if isinstance(batch, list | tuple) else batch
        given = self._on_device(given)
        with self._evaluating(model):
            found = model(**given) if isinstance(given, Mapping) else model(given)
        if self.torch.cuda.is_available():
            self.torch.cuda.synchronize()
        return found

    @contextlib.contextmanager
    def _evaluating(self, model: Any) -> Iterator[None]:
        """Evaluation mode, without gradients; then each module has its mode of before."""
        before = [(m, m.training) for m in model.modules()]
        model.eval()
        try:
            with self.torch.no_grad():
                yield
        finally:
            for m, mode in before:
                m.training = mode

    def watching(self, names: Iterable[str], see: Callable[[str, Any], None], batch: Any) -> int:
        hooks = []
        for name in names:

            def hook(_module: Any, given: Any, _name: str = name) -> None:
                see(_name, given[0].detach().cpu())

            hooks.append(self.model.get_submodule(name).register_forward_pre_hook(hook))
        try:
            self.run(self.model, batch)
        finally:
            for each in hooks:
                each.remove()
        given = batch[0] if isinstance(batch, list | tuple) else batch
        return len(next(iter(given.values())) if isinstance(given, Mapping) else given)

    def rows(self, name: str, given: Any) -> Iterator[Any]:
        layer = self.model.get_submodule(name)
        numbers = (given if given.dtype == self.torch.float64 else given.float()).numpy()
        if not isinstance(layer, self.torch.nn.Conv2d):
            return iter([numbers.reshape(-1, numbers.shape[-1])])
        return patch_rows(numbers, layer.kernel_size, layer.stride, _padding(layer), layer.dilation)

    def rebuilt(self, factors: Mapping[str, Factors]) -> Any:
        made = copy.deepcopy(self.model)
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
        if isinstance(layer, nn.Linear):
            first = nn.Linear(layer.in_features, cut.rank, bias=False, **kind)
            second = nn.Linear(cut.rank, layer.out_features, bias=layer.bias is not None, **kind)
        else:
            first = nn.Conv2d(
                layer.in_channels, cut.rank, layer.kernel_size, layer.stride, layer.padding, layer.dilation, bias=False,
                **kind,
            )  # fmt: skip
            second = nn.Conv2d(cut.rank, layer.out_channels, 1, bias=layer.bias is not None, **kind)
        two = nn.Sequential(first, second)
        with self.torch.no_grad():
            for new, values in ((first.weight, cut.right), (second.weight, cut.left)):
                wide = values.astype(np.float32) if values.dtype.itemsize < 4 else np.ascontiguousarray(values)
                new.copy_(self.torch.from_numpy(wide).reshape(new.shape))
            if layer.bias is not None:
                shift = 0 if cut.shift is None else self.torch.from_numpy(cut.shift).to(w.device)
                second.bias.copy_(layer.bias.double() + shift)
        for p in two.parameters():
            p.requires_grad_(w.requires_grad)
        return two.train(layer.training)

    def size(self, model: Any) -> int:
        return sum(p.numel() for p in model.parameters())

    def layer(self, name: str, factors: Factors | None, batch: Any) -> Callable[[], object]:
        layer, given = self.model.get_submodule(name), []
        hook = layer.register_forward_pre_hook(lambda _module, args: given.append(args[0].detach().clone()))
        try:
            self.run(self.model, batch)
        finally:
            hook.remove()
        made = layer if factors is None else self._two(layer, factors)

        def run() -> None:
            with self.torch.no_grad():
                made(given[0])
            if given[0].is_cuda:
                self.torch.cuda.synchronize()

        return run

    def accuracy(self, model: Any, x: Any, y: Any) -> np.ndarray[Any, Any]:
        labels = [self.run(model, batch).argmax(-1).cpu().numpy() for batch in self.batches((x, y))]
        return np.asarray(np.concatenate(labels) == np.asarray(y).reshape(-1), np.float64)


def _matrix(weight: Any) -> Any:
    """A parameter as rows of numbers, in its dtype."""
    import ml_dtypes
    import torch

    host = weight.detach().cpu().contiguous()
    numbers = host.view(torch.int16).numpy().view(ml_dtypes.bfloat16) if host.dtype == torch.bfloat16 else host.numpy()
    return numbers.reshape(len(host), -1)


def _padding(layer: Any) -> tuple[int, int]:
    """What stands around the images, in numbers."""
    if layer.padding == "valid":
        return 0, 0
    if layer.padding == "same":
        each = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        return each[0] // 2, each[1] // 2
    return int(layer.padding[0]), int(layer.padding[1])
