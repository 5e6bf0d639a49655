"""Which modules of a network an adapter can change, and how PEFT finds them again."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpunet.checks import as_list, check_flag
from gpunet.compression.lora.adapter import FLOATS
from gpunet.compression.tensors import Tensors
from gpunet.errors import DataError, InputError, shown
from gpunet.linalg.matrix import Floats

WEIGHT = ".weight"
EMBEDDING = re.compile(r"(^|_)(embed(ding)?s?(_(in|tokens|positions))?|w[tp]e|shared)$")  # the ends of their names
ATTENTIONS = "NonDynamicallyQuantizableLinear"  # of torch's own attention, which reads its weight and does not call it
HEADS = ("lm_head", "embed_out")  # the last layers, which make words of what comes out


@dataclass(frozen=True)
class Layer:
    """A module with a weight that has a matrix: transposed and embedding as `Pair` has them."""

    name: str
    shape: tuple[int, ...]
    transposed: bool = False
    embedding: bool = False

    @property
    def weight(self) -> str:
        """The name of its weight."""
        return self.name + WEIGHT

    @property
    def inner(self) -> int:
        """Numbers that go into each output: in, or in · kernel."""
        return self.shape[0] if self.transposed else int(np.prod(self.shape[1:]))

    @property
    def out(self) -> int:
        """Outputs."""
        return self.shape[-1] if self.transposed else self.shape[0]

    def matrix(self, weight: Any, less: Any = 0) -> Floats:
        """The weight, `less` subtracted, as a matrix (out, inner) in float64."""
        exact = np.array(weight, np.float64)
        exact -= less
        return exact.T if self.transposed else exact.reshape(len(exact), -1)

    def halves(self, left: Any, right: Any) -> tuple[Any, Any]:
        """B and A in PEFT's shapes, of matrices (out, r) and (r, inner)."""
        more = () if self.transposed else self.shape[2:]
        inner = (self.inner,) if self.transposed else self.shape[1:]
        return left.reshape(*left.shape, *(1,) * len(more)), right.reshape(len(right), *inner)


def layers_of(source: Any, tensors: Tensors, fan_in_fan_out: bool) -> dict[str, Layer]:
    """The modules whose weight is a matrix by their names, in order.

    Of a torch.nn.Module by their classes: Linear, transformers' Conv1D, Embedding itself, convolutions of one group. Of
    tensors alone by shapes and names: 2-D ones are of linear layers, (out, in), or fan_in_fan_out (in, out), or of
    embeddings where they are called so; those of 3 to 5 dimensions of convolutions.
    """
    other = check_flag("fan_in_fan_out", fan_in_fan_out)
    modules = dict(source.named_modules()) if hasattr(source, "named_modules") else None
    found = {}
    for name in tensors.names:
        module, shape = name.removesuffix(WEIGHT), tuple(tensors.shape(name))
        if not (
            name.endswith(WEIGHT) and module and 2 <= len(shape) <= 5 and all(shape) and tensors.dtype(name) in FLOATS
        ):
            continue
        if modules is None:
            embedding = len(shape) == 2 and bool(EMBEDDING.search(module.rpartition(".")[2].lower()))
            found[module] = Layer(module, shape, embedding or (other and len(shape) == 2), embedding)
        elif module in modules:
            kinds = [each.__name__ for each in type(modules[module]).__mro__]
            linear = ("Linear" in kinds or "Conv1D" in kinds) and kinds[0] != ATTENTIONS
            embedding = kinds[0] == "Embedding"  # others scale what they look up, or number places by themselves
            conv = "_ConvNd" in kinds and "_ConvTransposeNd" not in kinds and modules[module].groups == 1
            if linear or embedding or conv:
                found[module] = Layer(module, shape, embedding or "Conv1D" in kinds, embedding)
    return found


def usual(layers: Mapping[str, Layer]) -> list[str]:
    """Linear layers but the last one, as PEFT's "all-linear" has them."""
    return [
        name
        for name, each in layers.items()
        if len(each.shape) == 2 and not each.embedding and name.rpartition(".")[2] not in HEADS
    ]


def chosen(layers: Mapping[str, Layer], patterns: Any, tensors: Tensors) -> list[str]:
    """Modules that a pattern fits, in order: a name, the end of one such as "q_proj", or with * and ?.

    InputError for a pattern that fits none, with names near to it.
    """
    given = [patterns] if isinstance(patterns, str) else as_list("modules", patterns, "names such as 'q_proj'", str)
    fits: set[str] = set()
    for pattern in given:
        some = [n for n in layers if fnmatch.fnmatchcase(n, pattern) or fnmatch.fnmatchcase(n, f"*.{pattern}")]
        if not some:
            ends = list(dict.fromkeys(end for name in layers for end in (name, name.rpartition(".")[2])))
            near = difflib.get_close_matches(pattern, ends, 3, 0.5) or ends[:3]
            raise InputError(
                f"modules has {shown(pattern)}, which fits no module of {tensors} whose weight is a matrix: it has "
                f"{', '.join(near) or 'none'}{', …' * (len(ends) > len(near))}"
            )
        fits.update(some)
    if not fits:
        raise InputError(f"modules is {shown(patterns)}: expected at least one name such as 'q_proj'")
    return [name for name in layers if name in fits]


def check_finite(tensor: Any, tensors: Tensors, name: str) -> Any:
    """The tensor; DataError where it holds NaN or infinity."""
    if not np.isfinite(tensor).all():
        raise DataError(f"{tensors}: {name} holds NaN or infinity: expected finite numbers")
    return tensor


def check_exact(tensors: Tensors) -> None:
    """InputError for a network with weights that are quantised."""
    if found := tensors.quantised():
        name, kind = next(iter(found.items()))
        raise InputError(f"{tensors}: {name} is quantised ({kind}): expected the weights from before that")


def names_of(source: Any, tensors: Tensors) -> set[str]:
    """All modules, those that hold others, too, as far as they can be told."""
    if hasattr(source, "named_modules"):
        return {name for name, _ in source.named_modules() if name}
    found = set()
    for name in tensors.names:
        parts = name.split(".")[:-1]
        found |= {".".join(parts[: i + 1]) for i in range(len(parts))}
    return found


def targets(wanted: Sequence[str], everything: Iterable[str]) -> list[str] | str:
    """What PEFT's target_modules has to be, so that it finds the wanted modules and no others.

    The shortest ends of their names that no other module's name has, numbers alone not among them, since modules
    without weights may be called so; where there are none, a pattern of whole names.
    """
    others = set(everything) - set(wanted)
    taken = {end for name in others for end in _ends(name)}
    found = []
    for name in wanted:
        fit = next((end for end in _ends(name) if end not in taken and re.search(r"[^\d.]", end)), None)
        if fit is None:
            return "|".join(map(re.escape, wanted))
        found.append(fit)
    return sorted(set(found))


def _ends(name: str) -> list[str]:
    """The ends of a name at its dots, the shortest first."""
    parts = name.split(".")
    return [".".join(parts[-i:]) for i in range(1, len(parts) + 1)]
