"""Max-pooling in plain NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpunet.backend.base import Array, In, Out
from gpunet.backend.cpu_memory import CpuMemory

BLOCK = 131072  # elements of input at a time, so that the passes over them stay in the second-level cache


class NumpyPool(CpuMemory):
    """The pooling of NumpyBackend."""

    def maxpool2d(self, x: In, size: int, out: Out, place: Out) -> None:
        for block in _blocks(x):
            self._pool(x[block], size, out[block], None if place is None else place[block])

    def maxpool2d_backward(self, dy: In, place: In, size: int, dx: Out) -> None:
        for block in _blocks(dx):
            dx[block].fill(0)
            self._unpool(dy[block], place[block], size, dx[block])

    def _room(self, purpose: str, shape: tuple[int, ...], dtype: Any) -> Array:
        """Scratch of this shape. Those of up to a power of two elements share it: short batches come in all sizes."""
        size = math.prod(shape)
        return self.scratch(purpose, 1 << (size - 1).bit_length(), dtype)[:size].reshape(shape)

    def _pool(self, x: Array, size: int, out: Array, place: Array | None) -> None:
        """`maxpool2d` of one block; x may have more columns than out takes, out and place may have strides."""
        if place is None:
            self._pool_values(x, size, out)
            return
        best, value = (self._room(name, out.shape, x.dtype) for name in ("best", "cell"))
        larger = self._room("larger", out.shape, np.bool_)
        number, last = (self._room(name, out.shape, np.uint8) for name in ("number", "last"))
        np.copyto(best, _cell(x, out, size, 0))
        last.fill(0)
        for cell in range(1, size * size):
            np.copyto(value, _cell(x, out, size, cell))
            np.greater(value, best, out=larger)
            np.multiply(larger.view(np.uint8), np.uint8(cell), out=number)
            np.maximum(last, number, out=last)  # cells come in rising order: the last that was larger stays
            np.maximum(best, value, out=best)
        np.copyto(out, best)
        np.copyto(place, last)

    def _pool_values(self, x: Array, size: int, out: Array) -> None:
        """Across whole rows first, junk and all: that loop is as long as the block, and leaves `size` times less."""
        rows, columns = out.shape[2] * size, x.shape[3] // size
        across = self._room("across", (*x.shape[:2], rows, columns), x.dtype)
        whole = x[:, :, :rows, : columns * size]
        np.maximum(whole[..., ::size], whole[..., size - 1 :: size], out=across)
        for column in range(1, size - 1):
            np.maximum(across, whole[..., column::size], out=across)
        down = across.reshape(*x.shape[:2], -1, size, columns)[..., : out.shape[3]]
        np.maximum(down[:, :, :, 0], down[:, :, :, -1], out=out)
        for row in range(1, size - 1):
            np.maximum(out, down[:, :, :, row], out=out)

    def _unpool(self, dy: Array, place: Array, size: int, dx: Array) -> None:
        """`maxpool2d_backward` of one block, where dx is zero already; dx may have strides."""
        here = self._room("larger", dy.shape, np.bool_)
        value = self._room("cell", dy.shape, dy.dtype)
        for cell in range(size * size):
            np.equal(place, cell, out=here)
            np.multiply(dy, here, out=value)
            np.copyto(_cell(dx, dy, size, cell), value)


def _cell(x: Array, pooled: Array, size: int, cell: int) -> Array:
    """Of every window of x the element number `cell`, in the shape of `pooled`."""
    row, column = divmod(cell, size)
    height, width = (n * size for n in pooled.shape[2:])
    return x[:, :, row:height:size, column:width:size]


def _blocks(x: Array) -> list[slice]:
    """Slices of images, about BLOCK elements each."""
    step = max(1, BLOCK // max(1, x[0].size))
    return [slice(start, start + step) for start in range(0, len(x), step)]
