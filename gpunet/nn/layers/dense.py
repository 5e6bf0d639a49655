"""The fully connected layer."""

from __future__ import annotations

from typing import Any

from gpunet.backend.base import Activation, Array
from gpunet.checks import check_whole, setting
from gpunet.errors import ShapeError
from gpunet.nn.init import Drawing, resolve
from gpunet.nn.layers.base import Parameter, Shape, Spec, check_activation
from gpunet.nn.layers.mixing import Mixing


class Dense(Mixing):
    """Affine layer with activation, y = f(x Wᵀ + b).

    weight: (out, in), bias: (out,); x: (batch, in) -> y: (batch, out).

    `weight` and `bias` say how they start: a name of `gpunet.nn.init`, a function of (shape, generator), or an array.
    A layer that is not `trainable` keeps its parameters and costs no gradient.
    Raises InputError for a bad argument, ShapeError where the input is not a row of features.
    """

    joins = mixes = True
    units: int = setting(check_whole, of=" of units")
    activation: Activation = setting(check_activation)
    weight: Array
    bias: Array
    d_weight: Array
    d_bias: Array

    def __init__(
        self,
        units: int,
        activation: Activation | None = None,
        *,
        weight: Drawing = "glorot_uniform",
        bias: Drawing = "zeros",
        trainable: bool = True,
    ) -> None:
        self.units, self.trainable = units, trainable
        self.activation = activation  # type: ignore[assignment]  # the setting knows None
        self._draw = {"weight": resolve(weight), "bias": resolve(bias)}

    def spec(self, input_shape: Shape) -> Spec:
        if len(input_shape) != 1:
            raise ShapeError(
                f"Dense takes rows of features, got samples of shape {input_shape}: put Flatten() before it"
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
        self.ops.affine(*self.operands(x), self.applied, self.out)
        return self.out

    def operands(self, x: Array) -> tuple[Array, Array, Array]:
        self.x = self.taken(x)
        return self.x, self.rounded["weight"] if self.low else self.weight, self.bias

    def backward(self, dy: Array) -> Array | None:  # dz = dy ∘ f'(z), dW = dzᵀ x, db = Σ dz, dx = dz W
        weight, dx = (self.rounded["weight"], self.low_dx) if self.low else (self.weight, self.dx)
        self.ops.affine_backward(self.handed(dy), self.x, weight, self.d_weight, dx, *self.below)
        if not self.joins:  # a subclass may go on with the gradients
            self.ops.join()
        return dx
