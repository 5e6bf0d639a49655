"""Layers that only change the shape of a sample: rows of features to images and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gpunet.backend.base import Array
from gpunet.checks import check_shape, setting
from gpunet.errors import InputError, ShapeError, shown
from gpunet.nn.layers.base import Layer, Shape, Spec


class Reshape(Layer):
    """Samples in another shape, in the same order: Reshape((3, 32, 32)) makes images of rows of 3072 features.

    x: (batch, …) -> y: (batch, *shape), a view of x. In PyTorch: torch.nn.Unflatten(1, shape).
    Raises ShapeError for a bad shape, and where it does not hold a sample's numbers.
    """

    shape: Shape = setting(check_shape)

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = shape  # type: ignore[assignment]  # the setting makes a tuple of it

    def spec(self, input_shape: Shape) -> Spec:
        shape = self.target(input_shape)
        if math.prod(shape) != math.prod(input_shape):
            raise ShapeError(
                f"samples of shape {input_shape} hold {math.prod(input_shape)} numbers and do not fit shape {shape}, "
                f"which holds {math.prod(shape)}: give Reshape the shape of one sample"
            )
        return Spec(output=shape)

    def target(self, input_shape: Shape) -> Shape:
        """The shape that a sample gets."""
        return self.shape

    def config(self) -> dict[str, Any]:
        return {"shape": list(self.shape)}

    def forward(self, x: Array) -> Array:
        return x.reshape(self.y.shape)

    def backward(self, dy: Array) -> Array | None:  # a copy: the layer below writes over the buffer where dy lies
        if self.dx is not None:
            self.ops.activate("identity", dy.reshape(self.dx.shape), self.dx)
        return self.dx


def _check_empty(name: str, shape: Any) -> Shape:
    if not isinstance(shape, tuple) or shape:
        raise InputError(f"{name} follows from the input: it cannot be set to {shown(shape)}")
    return ()


class Flatten(Reshape):
    """Samples as rows of features: (batch, channels, rows, columns) -> (batch, channels · rows · columns).

    The order is PyTorch's, so the weights of a Dense above it agree. y is a view of x.
    """

    shape: Shape = setting(_check_empty)

    def __init__(self) -> None:
        self.shape = ()

    def target(self, input_shape: Shape) -> Shape:
        return (math.prod(input_shape),)

    def config(self) -> dict[str, Any]:
        return {}
