"""The convolutional layer."""

from __future__ import annotations

from typing import Any, Literal, get_args

from gpunet.backend.base import Activation, Array
from gpunet.checks import check_one_of, check_whole, setting
from gpunet.errors import InputError, ShapeError
from gpunet.nn.init import Drawing, resolve
from gpunet.nn.layers.base import Layer, Parameter, Shape, Spec, check_activation
from gpunet.nn.layers.pool import check_images, check_stride, pooled_shape

Padding = Literal["valid", "same"]
Pooling = Literal["max", "average"]
MOST_CELLS = 15  # of a max-pool's rows: where in its window a maximum stood is kept in a byte


def _check_kernel(name: str, kernel: Any, layer: Conv2D) -> int:
    return _fitting(name, check_whole(name, kernel), layer.padding)


def _check_padding(name: str, padding: Any, layer: Conv2D) -> Padding:
    found: Padding = check_one_of(name, padding, known=get_args(Padding))
    _fitting("Conv2D's kernel", vars(layer).get("kernel", 1), found)
    return found


def _fitting(name: str, kernel: int, padding: Padding) -> int:
    if kernel % 2 == 0 and padding == "same":
        raise InputError(
            f"{name} is {kernel} with padding='same': expected an odd one, such as {kernel - 1} or {kernel + 1}, or "
            "padding='valid'"
        )
    return kernel


class Conv2D(Layer):
    """Convolution with activation and pooling, y = pool(f(x ⋆ W + b)), ⋆ PyTorch's cross-correlation, stride 1.

    weight: (filters, channels, kernel, kernel), bias: (filters,);
    x: (batch, channels, rows, columns) -> y: (batch, filters, rows', columns').

    `padding` "same" keeps rows and columns and takes an odd `kernel`, "valid" loses kernel − 1 of each. `pool` is the
    size of a pooling: Conv2D(8, 3, "relu", pool=2) is Conv2D(8, 3, "relu") and MaxPool2D(2) in one pass, faster and
    without memory for the maps between. With `pooling` "average" it is AvgPool2D(pool, pool_stride): there are no maps
    either where neither the layer nor one below it learns, and outside training; elsewhere they are kept for the
    gradient. In PyTorch it is Conv2d, ReLU and MaxPool2d or AvgPool2d, a slot each.

    `weight` and `bias` say how they start: a name of `gpunet.nn.init`, a function of (shape, generator), or an array.
    A layer that is not `trainable` keeps its parameters and costs no gradient.
    Raises InputError for a bad argument, for averages after an activation in a model's last layer, and for maxima of
    windows that do not stand side by side; ShapeError where the input is not images that are large enough.
    """

    filters: int = setting(check_whole)
    kernel: int = setting(_check_kernel, layer=lambda layer: layer)
    activation: Activation = setting(check_activation)
    pool: int = setting(check_whole, most=lambda layer: MOST_CELLS if layer.pooling == "max" else None)
    padding: Padding = setting(_check_padding, layer=lambda layer: layer)
    pooling: Pooling = setting(check_one_of, known=get_args(Pooling))
    pool_stride: int | None = setting(check_stride)
    weight: Array
    bias: Array
    d_weight: Array
    d_bias: Array
    _maps: Array

    def __init__(
        self,
        filters: int,
        kernel: int = 3,
        activation: Activation | None = None,
        *,
        pool: int = 1,
        padding: Padding = "valid",
        pooling: Pooling = "max",
        pool_stride: int | None = None,
        weight: Drawing = "he_normal",
        bias: Drawing = "zeros",
        trainable: bool = True,
    ) -> None:
        self.activation = activation  # type: ignore[assignment]  # the setting knows None
        self.padding, self.pooling = padding, pooling  # which say what the others may be
        self.filters, self.kernel, self.pool, self.pool_stride = filters, kernel, pool, pool_stride
        self.trainable = trainable
        self._draw = {"weight": resolve(weight), "bias": resolve(bias)}
        self._check_pool()

    @property
    def slots(self) -> int:
        return super().slots + self.pools

    @property
    def zeros(self) -> int:
        """Around the image, on each side."""
        return self.kernel // 2 if self.padding == "same" else 0

    @property
    def step(self) -> int:
        """From one window of the pool to the next."""
        return self.pool if self.pool_stride is None else self.pool_stride

    @property
    def pools(self) -> bool:
        """Whether there is a pool: one of 1 × 1, side by side, leaves the maps as they are."""
        return max(self.pool, self.step) > 1

    def _check_pool(self) -> None:
        if self.pooling == "max" and (self.step != self.pool or self.pool > MOST_CELLS):
            raise InputError(
                f"Conv2D's max-pool has pool={self.pool} and pool_stride={self.step}: its windows stand side by side, "
                f"up to {MOST_CELLS} rows each; leave pool_stride off, or say pooling='average'"
            )

    def spec(self, input_shape: Shape) -> Spec:
        check_images("Conv2D", input_shape)
        self._check_pool()
        if self.head and self.pools and self.pooling == "average" and self.activation != "identity":
            raise InputError(
                f"{self.called} is the model's last one, whose activation comes after all else, its averages too: "
                "put gn.Flatten() after it"
            )
        channels, rows, columns = input_shape
        lost = self.kernel - 1 - 2 * self.zeros
        if min(rows, columns) <= lost:
            raise ShapeError(
                f"images of {rows}×{columns} are smaller than the {self.kernel}×{self.kernel} kernel: "
                "use a smaller one, or padding='same'"
            )
        maps = (self.filters, rows - lost, columns - lost)
        return Spec(
            output=pooled_shape(maps, self.pool, self.step),
            parameters={
                "weight": Parameter((self.filters, channels, self.kernel, self.kernel), self._draw["weight"]),
                "bias": Parameter((self.filters,), self._draw["bias"], decay=False),
            },
        )

    def config(self) -> dict[str, Any]:
        return {
            "filters": self.filters, "kernel": self.kernel, "activation": self.activation, "pool": self.pool,
            "padding": self.padding, "pooling": self.pooling, "pool_stride": self.pool_stride,
            "trainable": self.trainable,
        }  # fmt: skip

    def reserve(self, y: Array, dx: Array | None) -> None:
        self._zeros, self._averages = self.zeros, self.pools and self.pooling == "average"
        self._learns = self.d_weight is not None or dx is not None
        placed = self._learns and self.pool > 1 and not self._averages
        self._place = self.ops.empty(y.shape, "uint8") if placed else None
        self._maps = None  # and their slopes, made when they are first needed: in evaluation they never are

    def set_batch_size(self, n: int) -> None:
        super().set_batch_size(n)
        self.place = None if self._place is None else self._place[:n]

    def forward(self, x: Array) -> Array:
        self.x, self._kept = x, self._learns and self.training
        if not self._averages:
            self.ops.conv2d(x, self.weight, self.bias, self.applied, self._zeros, self.pool, self.y, self.place)
        elif self._kept:
            self.ops.avgpool2d(self._mapped(), self.pool, self.step, self.y)
        else:
            self.ops.conv2d_avgpool(
                x, self.weight, self.bias, self.applied, self._zeros, self.pool, self.step, self.y
            )  # fmt: skip
        return self.y

    def backward(self, dy: Array) -> Array | None:
        if self._averages:
            return self._backward_of_maps(dy)
        # f and the maximum commute, so f' comes first, on fewer numbers
        self.ops.activation_backward(self.applied, self.y, dy, dy, None)
        self.ops.conv2d_backward(
            self.x, self.weight, self._zeros, self.pool, self.place, dy, self.d_weight, self.d_bias, self.dx
        )
        return self.dx

    def _mapped(self) -> Array:
        """f(x ⋆ W + b), kept."""
        if self._maps is None:
            rows, columns = (n + 2 * self._zeros - self.kernel + 1 for n in self.x.shape[2:])
            self._maps = self.ops.empty((2, len(self._y), self.filters, rows, columns), self.y.dtype)
        maps = self._maps[0, : len(self.x)]
        self.ops.conv2d(self.x, self.weight, self.bias, self.applied, self._zeros, 1, maps, None)
        return maps

    def _backward_of_maps(self, dy: Array) -> Array | None:
        if not self._kept:  # of a forward pass in evaluation
            self._mapped()
        maps, slopes = self._maps[:, : len(dy)]
        self.ops.avgpool2d_backward(dy, self.pool, self.step, slopes)
        self.ops.activation_backward(self.applied, maps, slopes, slopes, None)
        self.ops.conv2d_backward(
            self.x, self.weight, self._zeros, 1, None, slopes, self.d_weight, self.d_bias, self.dx
        )  # fmt: skip
        return self.dx
