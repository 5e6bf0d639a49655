"""Dropout."""

from __future__ import annotations

from typing import Any

from gpunet.backend.base import Array
from gpunet.checks import check_range, setting
from gpunet.nn.layers.base import Layer, Shape, Spec


class Dropout(Layer):
    """In training mode y = x ∘ m / (1 − rate), m drawn anew for each forward pass: 0 at `rate` of places, else 1.

    In evaluation mode y is x itself. x and y of any one shape (batch, …). After Srivastava et al. 2014, "Dropout: a
    simple way to prevent neural networks from overfitting"; scaled while training, as in PyTorch, so that means stay.

    A trainer's masks follow from its seed, the epoch and the step, a model's own from the seed that it was built with
    and the number of passes: the same on every device. A NaN that is dropped is 0.
    Raises InputError for a rate outside 0 ≤ rate < 1.
    """

    draws = True
    rate: float = setting(check_range, least=0, below=1)

    def __init__(self, rate: float = 0.5) -> None:
        self.rate = rate

    def spec(self, input_shape: Shape) -> Spec:
        return Spec(output=input_shape)

    def config(self) -> dict[str, Any]:
        return {"rate": self.rate}

    def forward(self, x: Array) -> Array:
        if not self.training:
            return x
        self.ops.dropout(x, self.rate, self.draw, self.y)
        return self.y

    def backward(self, dy: Array) -> Array | None:  # dx = dy ∘ m / (1 − rate), by the draw that made m
        if self.dx is not None:
            if self.training:
                self.ops.dropout(dy, self.rate, self.draw, self.dx)
            else:  # a copy: the layer below writes over the buffer where dy lies
                self.ops.activate("identity", dy, self.dx)
        return self.dx
