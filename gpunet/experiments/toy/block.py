"""One step of some of a stack's nets: document 003's forward pass, its recursion backwards, and the descent.

Nothing here allocates after it was made. Samples are columns, as (nets, units, samples): every product is one small
product a net, and all else is element-wise or runs over one net's samples, so that a net's bits are its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from gpunet.backend.base import Array

if TYPE_CHECKING:
    from gpunet.experiments.toy.stack import Stack


class Block:
    """The live nets of a stack from `start` on, at most its width: views of the stack's arrays, which hold all state.

    weights: (nets, out, in) a layer; x (nets or 1, features, samples), targets (nets, 1, samples), all C-contiguous
    and of one dtype.
    """

    def __init__(self, stack: Stack, start: int) -> None:
        self.xp, self.start, self.stop = stack.backend.xp, start, min(start + stack.width, stack.live)
        self.on_host, n, nets = self.xp is np, self.stop - start, slice(start, self.stop)
        self.weights = [w[nets] for w in stack.weights]
        x, self.targets = (stack.x, stack.targets[:n]) if stack.shared else (stack.x[nets], stack.targets[nets])
        self.outputs, self.deltas, self.gradients = (
            [array[:n] for array in arrays] for arrays in (stack.outputs, stack.deltas, stack.gradients)
        )
        self.squares, self.largest, self.below, self.rates = (
            array[:n] for array in (stack.squares, stack.largest, stack.below, stack.rates)
        )
        self.live, self.steps = stack.on_way[nets], stack.steps[nets]
        inputs = [x, *self.outputs[:-1]]
        self.forwards = list(zip(self.weights, self.gradients, inputs, self.outputs, strict=True))
        self.input_t, self.weight_t = ([self.xp.swapaxes(a, 1, 2) for a in arrays] for arrays in (inputs, self.weights))

    def forward(self) -> None:
        """Y = σ(W Z) layer by layer; then y − t and its square."""
        xp = self.xp
        for weight, halved, h, y in self.forwards:  # σ(z) = ½ tanh(z/2) + ½, z halved in the smaller factor
            xp.multiply(weight, 0.5, out=halved)
            xp.matmul(halved, h, out=y)
            xp.tanh(y, out=y)
            xp.multiply(y, 0.5, out=y)
            xp.add(y, 0.5, out=y)
        xp.subtract(y, self.targets, out=self.deltas[-1])
        xp.multiply(self.deltas[-1], self.deltas[-1], out=self.squares)

    def look(self, bound: float) -> bool:
        """Find the nets whose every (y − t)² is below the bound. On the CPU, whether there are any.

        On a GPU nobody waits for that: what is found takes these nets out of the descent, and stops the count of their
        steps, until somebody reads it.
        """
        self.squares.max(axis=2, out=self.largest)
        self.xp.less(self.largest, bound, out=self.below)
        if self.on_host:
            return bool(np.count_nonzero(self.below))
        self.xp.greater(self.live, self.below, out=self.live)  # live, and not below
        self.xp.add(self.steps, self.live, out=self.steps)
        return False

    def backward(self) -> Iterator[tuple[int, Array]]:
        """(layer, ∂L/∂W) from the last layer to the first, after `forward`; the weights of a layer may change then.

        Equation 5: ∂L/∂Ỹ = ∂L/∂Y ∘ y(1 − y), ∂L/∂W = ∂L/∂Ỹ Zᵀ, ∂L/∂Z = Wᵀ ∂L/∂Ỹ, with L = ½ Σ (y − t)².
        """
        xp = self.xp
        for layer in reversed(range(len(self.weights))):
            y, delta, gradient = self.outputs[layer], self.deltas[layer], self.gradients[layer]
            xp.multiply(delta, y, out=delta)
            xp.subtract(1, y, out=y)
            xp.multiply(delta, y, out=delta)
            xp.matmul(delta, self.input_t[layer], out=gradient)
            if layer and self.on_host and len(delta[0]) == 1:
                # An outer product: half of matmul's time; multiply would allocate buffers, CuPy's einsum has no out.
                np.einsum("noi,nos->nis", self.weights[layer], delta, out=self.deltas[layer - 1])
            elif layer:
                xp.matmul(self.weight_t[layer], delta, out=self.deltas[layer - 1])
            yield layer, gradient

    def descend(self, rate: float) -> None:
        """W −= rate · ∂L/∂W, of the nets that have not converged."""
        xp, masked = self.xp, rate
        if not self.on_host:
            self.rates.fill(rate)
            masked = xp.multiply(self.rates, self.live, out=self.rates)[:, :, None]
        for layer, gradient in self.backward():
            xp.multiply(gradient, masked, out=gradient)
            xp.subtract(self.weights[layer], gradient, out=self.weights[layer])
