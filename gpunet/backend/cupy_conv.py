"""Convolution and pooling on the GPU: one launch forward, two backward, and nothing written between."""

from __future__ import annotations

import numpy as np

from gpunet.backend.base import Array, In, Out
from gpunet.backend.cuda_kernels import BLOCK, CODES, NULL, SUFFIXES, ceil_div, lanes_for
from gpunet.backend.cupy_launch import CupyLaunch

FILTERS = 8  # as in conv.cuh: filters of a thread's registers
SHARES = 64  # parts of the images, at most, whose contributions to the filters' gradients are added up last
ROOM = 1 << 22  # elements of those contributions, at most


class CupyConv(CupyLaunch):
    """The image operations of CupyBackend."""

    def conv2d(
        self, x: In, weight: In, bias: In, activation: str, padding: int, pool: int, out: Out, place: Out
    ) -> None:
        sizes = _sizes(x, weight, padding, pool, out)
        positions = len(x) * out.shape[2] * out.shape[3]
        if positions == 0:
            return
        self.launcher.launch(
            f"conv_{SUFFIXES[x.dtype.name]}", (ceil_div(positions, BLOCK), ceil_div(len(weight), FILTERS)), (BLOCK,),
            self._dense(x, "images"), weight, NULL if bias is None else bias, CODES[activation], out,
            NULL if place is None else place, *sizes,
        )  # fmt: skip

    def conv2d_backward(
        self,
        x: In,
        weight: In,
        padding: int,
        pool: int,
        place: In,
        dz: In,
        weight_grad: Out,
        bias_grad: Out,
        dx: Out,
    ) -> None:
        sizes, suffix = _sizes(x, weight, padding, pool, dz), SUFFIXES[x.dtype.name]
        where = NULL if place is None else place
        if weight_grad is not None:
            taps = weight[0].size + 1
            most = max(1, min(SHARES, ROOM // (len(weight) * taps)))
            lanes = lanes_for(taps)
            grid = (ceil_div(taps, lanes), len(weight), max(1, min(len(x), most)))
            parts = self.scratch("filter gradients", (most, len(weight) * taps), x.dtype.name)
            self.launcher.launch(
                f"conv_filters_{suffix}", grid, (lanes, BLOCK // lanes), self._dense(x, "images"), dz, where,
                weight_grad, bias_grad, parts, self._tickets(grid[0] * grid[1]), *sizes,
            )  # fmt: skip
        if dx is not None and dx.size:
            blocks = ceil_div(dx.size // dx.shape[1], BLOCK), ceil_div(dx.shape[1], FILTERS)
            self.launcher.launch(f"conv_inputs_{suffix}", blocks, (BLOCK,), dz, where, weight, dx, *sizes)

    def maxpool2d(self, x: In, size: int, out: Out, place: Out) -> None:
        x = self._dense(x, "images")
        self._pool("maxpool", (x, out, NULL if place is None else place), x, out, size, out.shape[2] * out.shape[3])

    def maxpool2d_backward(self, dy: In, place: In, size: int, dx: Out) -> None:
        self._pool("maxpool_backward", (dy, place, dx), dx, dy, size, dx.shape[2] * dx.shape[3])

    def _pool(self, name: str, arrays: tuple[Array, ...], whole: Array, pooled: Array, size: int, items: int) -> None:
        planes = whole.shape[0] * whole.shape[1]
        if planes == 0 or items == 0:
            return
        dimensions = map(np.int32, (*whole.shape[2:], *pooled.shape[2:], size))
        self.launcher.by_row(
            f"{name}_{SUFFIXES[whole.dtype.name]}", planes, items, *arrays, np.int64(planes), *dimensions
        )


def _sizes(x: Array, weight: Array, padding: int, pool: int, pooled: Array) -> tuple[np.int32, ...]:
    """`struct Sizes` of conv.cuh."""
    numbers = (*x.shape, len(weight), weight.shape[2], padding, pool, *pooled.shape[2:])
    return tuple(np.int32(number) for number in numbers)
