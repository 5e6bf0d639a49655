"""Pooling: maxima and averages."""

from __future__ import annotations

from typing import Any

from gpunet.backend.base import Array
from gpunet.checks import MOST, check_whole, setting
from gpunet.errors import ShapeError
from gpunet.nn.layers.base import Layer, Shape, Spec


def check_stride(name: str, stride: Any) -> int | None:
    """From one window to the next; None for its size."""
    return None if stride is None else check_whole(name, stride, most=MOST)


class MaxPool2D(Layer):
    """Maxima of windows of size × size, side by side; rows and columns that fill no window are dropped.

    x: (batch, channels, rows, columns) -> y: (batch, channels, rows // size, columns // size). The gradient goes to the
    first maximum of a window, row by row, as in PyTorch. Right after a `Conv2D`, its `pool` does the same faster.
    Raises InputError for a bad size, ShapeError where the input is not images, or smaller than a window.
    """

    size: int = setting(check_whole, most=15)

    def __init__(self, size: int = 2) -> None:
        self.size = size

    def spec(self, input_shape: Shape) -> Spec:
        check_images("MaxPool2D", input_shape)
        return Spec(output=pooled_shape(input_shape, self.size, self.size))

    def config(self) -> dict[str, Any]:
        return {"size": self.size}

    def reserve(self, y: Array, dx: Array | None) -> None:
        self._place = None if dx is None else self.ops.empty(y.shape, "uint8")

    def set_batch_size(self, n: int) -> None:
        super().set_batch_size(n)
        self.place = None if self._place is None else self._place[:n]

    def forward(self, x: Array) -> Array:
        self.ops.maxpool2d(x, self.size, self.y, self.place)
        return self.y

    def backward(self, dy: Array) -> Array | None:
        if self.dx is not None:
            self.ops.maxpool2d_backward(dy, self.place, self.size, self.dx)
        return self.dx


class AvgPool2D(Layer):
    """Averages of windows of size × size, `stride` rows and columns apart, as PyTorch's AvgPool2d without padding.

    x: (batch, channels, rows, columns) -> y: (batch, channels, (rows − size) // stride + 1, likewise of columns).
    `stride` None is `size`: windows stand side by side. With a smaller one they overlap; rows and columns that fill no
    window are dropped. Right after a `Conv2D` that does not learn, its `pool` with pooling="average" does the same
    without memory for the maps between.
    Raises InputError for a bad size or stride, ShapeError where the input is not images, or smaller than a window.
    """

    size: int = setting(check_whole)
    stride: int | None = setting(check_stride)

    def __init__(self, size: int = 2, stride: int | None = None) -> None:
        self.size, self.stride = size, stride

    @property
    def step(self) -> int:
        """From one window to the next."""
        return self.size if self.stride is None else self.stride

    def spec(self, input_shape: Shape) -> Spec:
        check_images("AvgPool2D", input_shape)
        return Spec(output=pooled_shape(input_shape, self.size, self.step))

    def config(self) -> dict[str, Any]:
        return {"size": self.size, "stride": self.stride}

    def forward(self, x: Array) -> Array:
        self.ops.avgpool2d(x, self.size, self.step, self.y)
        return self.y

    def backward(self, dy: Array) -> Array | None:
        if self.dx is not None:
            self.ops.avgpool2d_backward(dy, self.size, self.step, self.dx)
        return self.dx


def pooled_shape(shape: Shape, size: int, stride: int) -> Shape:
    """(channels, rows, columns) after pooling; ShapeError where not one window fits."""
    channels, rows, columns = shape
    if min(rows, columns) < size:
        raise ShapeError(f"maps of {rows}×{columns} are smaller than the {size}×{size} pool: use a smaller one")
    return channels, (rows - size) // stride + 1, (columns - size) // stride + 1


def check_images(layer: str, shape: Shape) -> None:
    """ShapeError where samples of this shape are not images."""
    if len(shape) != 3:
        hint = ", ".join(map(str, (1, *shape))) if len(shape) == 2 else "channels, rows, columns"
        raise ShapeError(
            f"{layer} takes images (channels, rows, columns), got samples of shape {shape}: "
            f"put Reshape(({hint})) before it"
        )
