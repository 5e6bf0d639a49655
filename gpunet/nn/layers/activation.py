"""An activation as a layer of its own."""

from __future__ import annotations

from typing import Any

from gpunet.backend import base
from gpunet.backend.base import Array
from gpunet.checks import setting
from gpunet.nn.layers.base import Layer, Shape, Spec, check_activation


class Activation(Layer):
    """y = f(x), element by element; x and y of any one shape (batch, …)."""

    activation: base.Activation = setting(check_activation)

    def __init__(self, activation: base.Activation) -> None:
        self.activation = activation

    @property
    def slots(self) -> int:
        return 1

    def spec(self, input_shape: Shape) -> Spec:
        return Spec(output=input_shape)

    def config(self) -> dict[str, Any]:
        return {"activation": self.activation}

    def forward(self, x: Array) -> Array:
        self.ops.activate(self.applied, x, self.y)
        return self.y

    def backward(self, dy: Array) -> Array | None:  # dx = dy ∘ f'(x)
        if self.dx is not None:
            self.ops.activation_backward(self.applied, self.y, dy, self.dx, None)
        return self.dx
