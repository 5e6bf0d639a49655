"""A model as a table: what each layer gives, and how many numbers it holds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from gpunet.nn.layers import LowRankDense
from gpunet.nn.layers.base import Layer, Parameter, Shape
from gpunet.reprs import columns, table_html


@dataclass(frozen=True)
class Line:
    """A layer: its name, the call that makes it, a sample's output shape, and its parameters, trained and frozen.

    dense: how many parameters a Dense of its size has, of a low-rank layer; else None.
    """

    name: str
    layer: str
    output: Shape
    trained: int
    frozen: int
    dense: int | None = None

    @property
    def parameters(self) -> int:
        """All of them."""
        return self.trained + self.frozen


@dataclass(frozen=True, repr=False)
class Summary:
    """What `Sequential.summary` returns: `print` shows it as a table, and so do a REPL and a notebook.

    lines: one a layer; input: shape of one sample; dtype: of the parameters.
    """

    lines: tuple[Line, ...]
    input: Shape
    dtype: str

    @property
    def trained(self) -> int:
        """Parameters that training changes."""
        return sum(line.trained for line in self.lines)

    @property
    def frozen(self) -> int:
        """Parameters that it does not change."""
        return sum(line.frozen for line in self.lines)

    @property
    def parameters(self) -> int:
        """All of them."""
        return self.trained + self.frozen

    @property
    def bytes(self) -> int:
        """What they take in memory, without the optimiser's state and a batch's activations."""
        return self.parameters * np.dtype(self.dtype).itemsize

    def __repr__(self) -> str:
        return f"{columns(*self._table(), left=2)}\n{self._total()}"

    def _repr_html_(self) -> str:
        return table_html(*self._table(), self._total(), left=2)

    def _table(self) -> tuple[list[str], list[list[str]]]:
        low_rank = any(line.dense for line in self.lines)
        head = ["name", "layer", "output", "parameters"] + ["of dense"] * low_rank + ["frozen"] * bool(self.frozen)
        rows = []
        for line in self.lines:
            row = [line.name, line.layer, str(line.output), f"{line.parameters:,}"]
            row += [f"{line.parameters / line.dense:.1%}" if line.dense else ""] * low_rank
            rows.append(row + [f"{line.frozen:,}" if line.frozen else ""] * bool(self.frozen))
        return head, rows

    def _total(self) -> str:
        size = next(f"{self.bytes / unit:.3g} {name}" for unit, name in UNITS if self.bytes >= unit or unit == 1)
        trained = f"{self.trained:,} of them trained, " if self.frozen else ""
        return f"{self.parameters:,} parameters, {trained}{size} in {self.dtype}, for samples of shape {self.input}"


UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "bytes"))


def counted(declared: Mapping[str, tuple[Layer, Parameter]], of: Layer | None = None) -> tuple[int, int]:
    """How many numbers declared parameters hold, trained and frozen: all, or those of one layer."""
    found = [0, 0]
    for layer, parameter in declared.values():
        if of is None or layer is of:
            found[not (layer.trainable and parameter.trained)] += math.prod(parameter.shape)
    return found[0], found[1]


def summarised(
    layers: Iterable[Layer],
    shapes: Iterable[Shape],
    declared: Mapping[str, tuple[Layer, Parameter]],
    input_shape: Shape,
    dtype: str,
) -> Summary:
    """The table of these layers, which give samples of these shapes and declare these parameters."""
    lines, below = [], input_shape
    for layer, output in zip(layers, shapes, strict=True):
        dense = layer.units * (below[0] + 1) if isinstance(layer, LowRankDense) else None
        lines.append(Line(layer.name, repr(layer), output, *counted(declared, layer), dense))
        below = output
    return Summary(tuple(lines), input_shape, dtype)
