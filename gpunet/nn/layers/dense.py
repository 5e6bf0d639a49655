"""The fully connected layer, and what layers with affine maps share: products in bfloat16, in mixed precision."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from gpunet.backend.base import BFLOAT16, Activation, Array
from gpunet.checks import check_whole, setting
from gpunet.errors import ShapeError
from gpunet.nn.init import Drawing, resolve
from gpunet.nn.layers.base import Layer, Parameter, Shape, Spec, check_activation

OF_A_STEP = [f"low_{name}" for name in ("x", "y", "dx", "dz", "h", "dh", "weight", "d_weight")]  # a layer's arrays


def halved(array: Array) -> Array:
    """Room for as many numbers in bfloat16, in the first half of the memory of an array of float32, in its shape."""
    return array.reshape(-1).view(BFLOAT16)[: math.prod(array.shape)].reshape(array.shape)


class Mixing(Layer):
    """Base of layers with affine maps, which take and give bfloat16 where `low`: in a training step, if that mixes.

    What products alone read is kept in bfloat16 alone: the input, the output where the layer above mixes, too, and
    ∂L/∂z. Outputs and slopes in bfloat16 lie where those in float32 do, which such a step does not read.
    """

    low: bool = False
    rounded: Mapping[str, Array] = MappingProxyType({})  # the parameters in bfloat16, by name
    _low: Mapping[str, Array | None] = MappingProxyType({})
    low_x: Array
    low_y: Array
    low_dx: Array
    low_dz: Array
    d_bias: Array

    def mix(
        self, rounded: Mapping[str, Array], x: Array | None, *, gives: bool, hands_down: bool, is_handed: bool
    ) -> None:
        """Receive what mixed precision needs, after `bind`.

        x: (batch, …), room for the input where it comes in float32. gives: whether the output is bfloat16; hands_down:
        whether dx is, as ∂L/∂z of the layer below; is_handed: whether ∂L/∂z comes so from the layer above.
        """
        self.rounded = rounded
        self._low = {
            "x": x,
            "y": halved(self._y) if gives else self._y,
            "dx": halved(self._dx) if hands_down else self._dx,
            "dz": None if is_handed else self.ops.empty(self._y.shape, BFLOAT16),
        }
        self.set_batch_size(len(self._y))

    def set_batch_size(self, n: int) -> None:
        super().set_batch_size(n)
        for name, array in self._low.items():
            setattr(self, f"low_{name}", None if array is None else array[:n])

    def __getstate__(self) -> dict[str, Any]:
        gone = {"low", "rounded", "_low", *OF_A_STEP}
        return {name: value for name, value in super().__getstate__().items() if name not in gone}

    def taken(self, x: Array) -> Array:
        """The input as the products of a step in mixed precision take it."""
        if x.dtype == BFLOAT16:
            return x
        self.ops.to_bfloat16(x, self.low_x)
        return self.low_x

    def handed(self, dy: Array) -> Array:
        """∂L/∂z as they take it, from what `backward` gets; the gradient of the bias is made where it was not."""
        if dy.dtype == BFLOAT16:
            return dy
        if self.joined:  # to a loss, say
            self.ops.to_bfloat16(dy, self.low_dz)
        else:
            self.ops.activation_backward(self.applied, self.low_y, dy, self.low_dz, self.d_bias)
        return self.low_dz


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
        out = self.low_y if self.low else self.y
        self.ops.affine(*self.operands(x), self.applied, out)
        return out

    def operands(self, x: Array) -> tuple[Array, Array, Array]:
        if self.low:
            self.x = self.taken(x)
            return self.x, self.rounded["weight"], self.bias
        self.x = x
        return x, self.weight, self.bias

    def backward(self, dy: Array) -> Array | None:  # dz = dy ∘ f'(z), dW = dzᵀ x, db = Σ dz, dx = dz W
        weight, dx = self.weight, self.dx
        if self.low:
            weight, dx, dy = self.rounded["weight"], self.low_dx, self.handed(dy)
        elif not self.joined:
            self.slopes(dy)
        self.ops.affine_backward(dy, self.x, weight, self.d_weight, dx, *self.below)
        if not self.joins:  # a subclass may go on with the gradients
            self.ops.join()
        return dx
