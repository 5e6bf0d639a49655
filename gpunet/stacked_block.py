"""One step of some of a stack's nets: document 003's forward pass, its recursion backwards, and the descent.

Nothing here allocates after it was made. Samples are columns, as (nets, units, samples): every product is one small
product a net, and all else is element-wise or runs over one net's samples, so that a net's bits are its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float64]
Floats: TypeAlias = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Scratch:
    """What a step works in, with room for the largest block; all blocks share it."""

    outputs: Sequence[Floats]
    deltas: Sequence[Floats]
    gradients: Sequence[Floats]
    squares: Floats


class Block:
    """The nets start … stop of a stack.

    weights: (nets, out, in) a layer, the stack's own memory; x (nets or 1, features, samples), targets (nets, 1,
    samples), all C-contiguous and of one dtype.
    """

    def __init__(self, start: int, weights: Sequence[Floats], x: Floats, targets: Floats, scratch: Scratch) -> None:
        n = len(weights[0])
        self.start, self.stop, self.weights, self.targets = start, start + n, weights, targets
        self.outputs, self.deltas, self.gradients = (
            [array[:n] for array in arrays] for arrays in (scratch.outputs, scratch.deltas, scratch.gradients)
        )
        self.squares, self.largest = scratch.squares[:n], np.empty((n, 1), x.dtype)
        self.below = np.empty((n, 1), np.bool_)
        inputs = [x, *self.outputs[:-1]]
        self.forwards = list(zip(weights, self.gradients, inputs, self.outputs, strict=True))
        self.input_t, self.weight_t = ([np.swapaxes(a, 1, 2) for a in arrays] for arrays in (inputs, weights))

    def forward(self) -> None:
        """Y = σ(W Z) layer by layer; then y − t and its square."""
        for weight, halved, h, y in self.forwards:  # σ(z) = ½ tanh(z/2) + ½, z halved in the smaller factor
            np.multiply(weight, 0.5, out=halved)
            np.matmul(halved, h, out=y)
            np.tanh(y, out=y)
            np.multiply(y, 0.5, out=y)
            np.add(y, 0.5, out=y)
        np.subtract(y, self.targets, out=self.deltas[-1])
        np.multiply(self.deltas[-1], self.deltas[-1], out=self.squares)

    def count_below(self, bound: float) -> int:
        """How many nets have every (y − t)² below the bound."""
        np.maximum.reduce(self.squares, axis=2, out=self.largest)
        np.less(self.largest, bound, out=self.below)
        return int(np.count_nonzero(self.below))

    def backward(self) -> Iterator[tuple[int, Floats]]:
        """(layer, ∂L/∂W) from the last layer to the first, after `forward`; the weights of a layer may change then.

        Equation 5: ∂L/∂Ỹ = ∂L/∂Y ∘ y(1 − y), ∂L/∂W = ∂L/∂Ỹ Zᵀ, ∂L/∂Z = Wᵀ ∂L/∂Ỹ, with L = ½ Σ (y − t)².
        """
        for layer in reversed(range(len(self.weights))):
            y, delta, gradient = self.outputs[layer], self.deltas[layer], self.gradients[layer]
            np.multiply(delta, y, out=delta)
            np.subtract(1, y, out=y)
            np.multiply(delta, y, out=delta)
            np.matmul(delta, self.input_t[layer], out=gradient)
            if layer and len(delta[0]) == 1:  # an outer product: half of matmul's time; multiply would allocate buffers
                np.einsum("noi,nos->nis", self.weights[layer], delta, out=self.deltas[layer - 1])
            elif layer:
                np.matmul(self.weight_t[layer], delta, out=self.deltas[layer - 1])
            yield layer, gradient

    def descend(self, rate: float) -> None:
        """W −= rate · ∂L/∂W."""
        for layer, gradient in self.backward():
            np.multiply(gradient, rate, out=gradient)
            np.subtract(self.weights[layer], gradient, out=self.weights[layer])
