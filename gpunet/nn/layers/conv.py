"""The convolutional layer."""

from __future__ import annotations

from typing import Any, Literal, get_args

from gpunet.backend.base import Activation, Array
from gpunet.checks import check_one_of, check_whole, setting
from gpunet.errors import InputError, ShapeError
from gpunet.nn.init import Drawing, resolve
from gpunet.nn.layers.base import Layer, Parameter, Shape, Spec, check_activation
from gpunet.nn.layers.pool import check_images, pooled_shape


def _check_kernel(name: str, kernel: Any) -> int:
    size = check_whole(name, kernel)
    if size % 2 == 0:
        raise InputError(f"{name} is {size}: expected an odd one, such as {size - 1} or {size + 1}")
    return size


Padding = Literal["valid", "same"]


class Conv2D(Layer):
    """Convolution with activation and max-pooling, y = maxpool(f(x ⋆ W + b)), ⋆ PyTorch's cross-correlation, stride 1.

    weight: (filters, channels, kernel, kernel), bias: (filters,);
    x: (batch, channels, rows, columns) -> y: (batch, filters, rows', columns').

    `kernel` is odd. `padding` "same" keeps rows and columns, "valid" loses kernel − 1 of each. `pool` is the size of a
    max-pooling: Conv2D(8, 3, "relu", pool=2) is Conv2D(8, 3, "relu") and MaxPool2D(2) in one pass, faster and without
    memory for the maps between. In PyTorch it is Conv2d, ReLU and MaxPool2d, a slot each.

    `weight` and `bias` say how they start: a name of `gpunet.nn.init`, a function of (shape, generator), or an array.
    A layer that is not `trainable` keeps its parameters and costs no gradient.
    Raises InputError for a bad argument, ShapeError where the input is not images that are large enough.
    """

    filters: int = setting(check_whole)
    kernel: int = setting(_check_kernel)
    activation: Activation = setting(check_activation)
    pool: int = setting(check_whole, most=15)
    padding: Padding = setting(check_one_of, known=get_args(Padding))
    weight: Array
    bias: Array
    d_weight: Array
    d_bias: Array

    def __init__(
        self,
        filters: int,
        kernel: int = 3,
        activation: Activation | None = None,
        *,
        pool: int = 1,
        padding: Padding = "valid",
        weight: Drawing = "he_normal",
        bias: Drawing = "zeros",
        trainable: bool = True,
    ) -> None:
        self.activation = activation  # type: ignore[assignment]  # the setting knows None
        self.filters, self.kernel, self.pool, self.padding = filters, kernel, pool, padding
        self.trainable = trainable
        self._draw = {"weight": resolve(weight), "bias": resolve(bias)}

    @property
    def slots(self) -> int:
        return super().slots + (self.pool > 1)

    @property
    def zeros(self) -> int:
        """Around the image, on each side."""
        return self.kernel // 2 if self.padding == "same" else 0

    def spec(self, input_shape: Shape) -> Spec:
        check_images("Conv2D", input_shape)
        channels, rows, columns = input_shape
        lost = self.kernel - 1 - 2 * self.zeros
        if min(rows, columns) <= lost:
            raise ShapeError(
                f"images of {rows}×{columns} are smaller than the {self.kernel}×{self.kernel} kernel: "
                "use a smaller one, or padding='same'"
            )
        maps = (self.filters, rows - lost, columns - lost)
        return Spec(
            output=pooled_shape(maps, self.pool),
            parameters={
                "weight": Parameter((self.filters, channels, self.kernel, self.kernel), self._draw["weight"]),
                "bias": Parameter((self.filters,), self._draw["bias"], decay=False),
            },
        )

    def config(self) -> dict[str, Any]:
        return {
            "filters": self.filters, "kernel": self.kernel, "activation": self.activation, "pool": self.pool,
            "padding": self.padding, "trainable": self.trainable,
        }  # fmt: skip

    def reserve(self, y: Array, dx: Array | None) -> None:
        self._zeros = self.zeros
        learns = self.d_weight is not None or dx is not None
        self._place = self.ops.empty(y.shape, "uint8") if learns and self.pool > 1 else None

    def set_batch_size(self, n: int) -> None:
        super().set_batch_size(n)
        self.place = None if self._place is None else self._place[:n]

    def forward(self, x: Array) -> Array:
        self.x = x
        self.ops.conv2d(x, self.weight, self.bias, self.applied, self._zeros, self.pool, self.y, self.place)
        return self.y

    def backward(self, dy: Array) -> Array | None:  # f and the maximum commute, so f' comes first, on fewer numbers
        self.ops.activation_backward(self.applied, self.y, dy, dy, None)
        self.ops.conv2d_backward(
            self.x, self.weight, self._zeros, self.pool, self.place, dy, self.d_weight, self.d_bias, self.dx
        )
        return self.dx
