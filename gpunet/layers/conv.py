"""The convolutional layer."""

from __future__ import annotations

from typing import Any

from gpunet.backend.base import ACTIVATIONS, Array
from gpunet.errors import InputError, ShapeError, shown
from gpunet.init import Drawing, resolve
from gpunet.layers.base import Parameter, Shape, Spec
from gpunet.layers.fitted import FittedLayer, Floats
from gpunet.layers.pool import check_images, check_whole, pooled_shape


class Conv2D(FittedLayer):
    """Convolution with activation and max-pooling, y = maxpool(f(x ⋆ W + b)), ⋆ PyTorch's cross-correlation, stride 1.

    weight: (filters, channels, kernel, kernel), bias: (filters,);
    x: (batch, channels, rows, columns) -> y: (batch, filters, rows', columns').

    `kernel` is odd. `padding` "same" keeps rows and columns, "valid" loses kernel − 1 of each. `pool` is the size of a
    max-pooling: Conv2D(8, 3, "relu", pool=2) is Conv2D(8, 3, "relu") and MaxPool2D(2) in one pass, faster and without
    memory for the maps between. In PyTorch it is Conv2d, ReLU and MaxPool2d, a slot each.

    `weight` and `bias` say how they start: a name of `gpunet.init`, a function of (shape, generator), or an array.
    A layer that is not `trainable` keeps its parameters and costs no gradient.
    Raises InputError for a bad argument, ShapeError where the input is not images that are large enough.
    """

    weight: Array
    bias: Array
    d_weight: Array
    d_bias: Array

    def __init__(
        self,
        filters: int,
        kernel: int = 3,
        activation: str | None = None,
        *,
        pool: int = 1,
        padding: str = "valid",
        weight: Drawing = "he_normal",
        bias: Drawing = "zeros",
        trainable: bool = True,
    ) -> None:
        self.activation = activation or "identity"
        check_whole("Conv2D's filters", filters)
        check_whole("Conv2D's kernel", kernel)
        check_whole("Conv2D's pool", pool, most=15)
        if kernel % 2 == 0:
            raise InputError(f"Conv2D takes odd kernels, got {kernel}: use {kernel - 1} or {kernel + 1}")
        if self.activation not in ACTIVATIONS:
            raise InputError(f"unknown activation {shown(activation)}: expected one of {', '.join(ACTIVATIONS)}")
        if padding not in ("valid", "same"):
            raise InputError(f"Conv2D's padding is 'valid' or 'same', got {shown(padding)}")
        self.filters, self.kernel, self.pool, self.padding = filters, kernel, pool, padding
        self.trainable = trainable
        self._zeros = kernel // 2 if padding == "same" else 0  # on each side
        self._draw = {"weight": resolve(weight), "bias": resolve(bias)}

    @property
    def slots(self) -> int:
        return super().slots + (self.pool > 1)

    def spec(self, input_shape: Shape) -> Spec:
        check_images("Conv2D", input_shape)
        channels, rows, columns = input_shape
        lost = self.kernel - 1 - 2 * self._zeros
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

    def bind(self, y: Array, dx: Array | None) -> None:
        learns = self.d_weight is not None or dx is not None
        self._place = self.ops.empty(y.shape, "uint8") if learns and self.pool > 1 else None
        super().bind(y, dx)

    def use(self, n: int) -> None:
        super().use(n)
        self.place = None if self._place is None else self._place[:n]

    def forward(self, x: Array) -> Array:
        self.x = x
        self.ops.conv2d(x, self.weight, self.bias, self.applied, self._zeros, self.pool, self.y, self.place)
        return self.y

    def shaped(self, vectors: Floats) -> Floats:
        self.filters = len(vectors)
        return vectors.reshape(self.filters, -1, self.kernel, self.kernel)

    @property
    def patches(self) -> tuple[int, int]:
        return self.kernel, self._zeros

    def backward(self, dy: Array) -> Array | None:  # f and the maximum commute, so f' comes first, on fewer numbers
        self.ops.activation_backward(self.applied, self.y, dy, dy, None)
        self.ops.conv2d_backward(
            self.x, self.weight, self._zeros, self.pool, self.place, dy, self.d_weight, self.d_bias, self.dx
        )
        return self.dx
