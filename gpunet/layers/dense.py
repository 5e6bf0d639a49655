"""The fully connected layer."""

from __future__ import annotations

from typing import Any

from gpunet.backend.base import ACTIVATIONS, Array
from gpunet.errors import InputError, ShapeError
from gpunet.init import Drawing, resolve
from gpunet.layers.base import Layer, Parameter, Shape, Spec


class Dense(Layer):
    """Affine layer with activation, y = f(x Wᵀ + b).

    weight: (out, in), bias: (out,); x: (batch, in) -> y: (batch, out).

    `weight` and `bias` say how they start: a name of `gpunet.init`, a function of (shape, generator), or an array.
    A layer that is not `trainable` keeps its parameters and costs no gradient.
    Raises InputError for a bad argument, ShapeError where the input is not a row of features.
    """

    weight: Array
    bias: Array
    d_weight: Array
    d_bias: Array

    def __init__(
        self,
        units: int,
        activation: str | None = None,
        *,
        weight: Drawing = "glorot_uniform",
        bias: Drawing = "zeros",
        trainable: bool = True,
    ) -> None:
        self.activation = activation or "identity"
        if isinstance(units, bool) or not isinstance(units, int) or units < 1:
            raise InputError(f"Dense needs a whole number of units ≥ 1, got {units!r}")
        if self.activation not in ACTIVATIONS:
            raise InputError(f"unknown activation {activation!r}: expected one of {', '.join(ACTIVATIONS)}")
        self.units = units
        self.trainable = trainable
        self._draw = {"weight": resolve(weight), "bias": resolve(bias)}

    def spec(self, input_shape: Shape) -> Spec:
        if len(input_shape) != 1:
            raise ShapeError(
                f"Dense takes rows of features, got samples of shape {input_shape}: reshape with x.reshape(len(x), -1)"
            )
        return Spec(
            output=(self.units,),
            parameters={
                "weight": Parameter((self.units, input_shape[0]), self._draw["weight"]),
                "bias": Parameter((self.units,), self._draw["bias"], decay=False),
            },
        )

    def config(self) -> dict[str, Any]:
        return {"units": self.units, "activation": self.activation, "trainable": self.trainable}

    def forward(self, x: Array) -> Array:
        self.x = x
        self.ops.affine(x, self.weight, self.bias, self.applied, self.y)
        return self.y

    def backward(self, dy: Array) -> Array | None:  # dz = dy ∘ f'(z), dW = dzᵀ x, db = Σ dz, dx = dz W
        self.ops.activation_backward(self.applied, self.y, dy, dy, self.d_bias)
        if self.d_weight is not None:
            self.ops.gemm(dy, self.x, self.d_weight, transpose_a=True)
        if self.dx is not None:
            self.ops.gemm(dy, self.weight, self.dx)
        return self.dx
