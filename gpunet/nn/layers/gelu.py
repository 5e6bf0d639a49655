"""The Gaussian error linear unit."""

from __future__ import annotations

from typing import Any, Literal, get_args

from gpunet.backend.base import Array
from gpunet.checks import check_one_of, setting
from gpunet.nn.layers.base import Layer, Shape, Spec

Approximate = Literal["none", "tanh"]


class GELU(Layer):
    """y = x Φ(x), Φ the normal distribution's (Hendrycks & Gimpel 2016), element by element; any one shape (batch, …).

    approximate "none" is exact, "tanh" has ½ (1 + tanh(√(2/π) (x + 0.044715 x³))) for Φ, as GPT-2 does; as PyTorch's.
    Its slope does not follow from y, so it is a layer after a `Dense` without activation, and no name of one.
    Raises InputError for another word.
    """

    approximate: Approximate = setting(check_one_of, known=get_args(Approximate))

    def __init__(self, approximate: Approximate = "none") -> None:
        self.approximate = approximate

    def spec(self, input_shape: Shape) -> Spec:
        return Spec(output=input_shape)

    def config(self) -> dict[str, Any]:
        return {"approximate": self.approximate}

    def forward(self, x: Array) -> Array:
        self.x = x
        self.ops.gelu(x, self.approximate == "tanh", self.y)
        return self.y

    def backward(self, dy: Array) -> Array | None:  # dx = dy ∘ (Φ(x) + x φ(x))
        if self.dx is not None:
            self.ops.gelu_backward(self.x, dy, self.approximate == "tanh", self.dx)
        return self.dx
