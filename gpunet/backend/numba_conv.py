"""Pooling and the passes around the products of a convolution, in numba; im2col and products stay NumPy's.

A direct 3×3 convolution in numba, the nine taps of four filters in one loop over a plane and pooling fused to it, was
no faster forward (64 images of 32×32, 3 channels to 8 filters: 0.72 ms against 0.75) and slower for wider layers
(15×15, 8 to 28: 1.38 against 0.77), since LLVM uses half of AVX-512 and OpenBLAS all of it. What was slow were the
passes with short rows, so these stand here. They run along whole planes where they can: LLVM does not vectorise a loop
over 15.

Two threads with half a batch each made plain NumPy slower (forward 1.4 ms to 2.5): its many short calls hand the
interpreter's lock back and forth. So everything here runs on one thread, save large products.
"""

from __future__ import annotations

import numpy as np

from gpunet.backend.base import Array, In, Out
from gpunet.backend.conv_windows import Windows
from gpunet.backend.numba_kernels import kernel
from gpunet.backend.numpy_conv import NumpyConv


class NumbaConv(NumpyConv):
    """The image operations of NumbaBackend: NumpyConv with these passes replaced."""

    def maxpool2d(self, x: In, size: int, out: Out, place: Out) -> None:
        planes = x.reshape(*x.shape[:2], -1)
        self._pool_planes(planes, x.shape[3], size, -np.inf, False, out, place)

    def maxpool2d_backward(self, dy: In, place: In, size: int, dx: Out) -> None:
        pitch = dx.shape[3]
        unpool(dy, place, pitch, size, self._offsets(pitch, size), False, dx.reshape(*dx.shape[:2], -1))

    def _finish(self, z: Array, windows: Windows, activation: str, out: Array, place: Array | None) -> None:
        if windows.pool == 1:
            super()._finish(z, windows, activation, out, place)
            return
        lowest = 0 if activation == "relu" else -np.inf
        self._pool_planes(z, windows.pitch, windows.pool, lowest, True, out, place)
        if activation == "sigmoid":
            self.activate(activation, out, out)

    def _spread(self, dz: Array, place: Array | None, windows: Windows, planes: Array) -> None:
        if place is None:
            super()._spread(dz, place, windows, planes)
            return
        unpool(dz, place, windows.pitch, windows.pool, self._offsets(windows.pitch, windows.pool), True, planes)

    def _fold(self, d_columns: Array, windows: Windows, dx: Array) -> None:
        p = windows.padding
        framed = dx
        if p:
            framed = self._room("framed", (*dx.shape[:2], windows.padded, windows.pitch), dx.dtype)
        by_tap = d_columns.reshape(windows.c, -1, *d_columns.shape[1:])
        fold(by_tap, windows.k, windows.pitch, windows.run, framed.reshape(*dx.shape[:2], -1))
        if p:
            np.copyto(dx, framed[:, :, p : p + windows.height, p : p + windows.width])

    def _pool_planes(
        self, planes: Array, pitch: int, size: int, lowest: float, swapped: bool, out: Array, place: Array | None
    ) -> None:
        best = self.scratch("best of a plane", planes.shape[2], planes.dtype)
        last = self.scratch("cells of a plane", planes.shape[2], np.uint8)
        if place is None:
            place = self._room("no place", out.shape, np.uint8)
        pool(planes, pitch, size, planes.dtype.type(lowest), swapped, best, last, out, place)

    def _offsets(self, pitch: int, size: int) -> Array:
        """Where in a plane the cells of a window lie, from its first."""
        return self.constant(
            "offsets", (pitch, size), lambda: np.add.outer(np.arange(size) * pitch, np.arange(size)).ravel()
        )


@kernel
def finite(values):  # type: ignore[no-untyped-def]
    """Whether there is no NaN and no infinity."""
    total = values.dtype.type(0)
    for j in range(values.size):
        total += values.dtype.type(0) * values[j]
    return total == 0


@kernel
def larger(values, cell, best, last):  # type: ignore[no-untyped-def]
    """best = max(best, values), last = cell where values were larger; NaN stays NaN."""
    for j in range(best.size):
        v, b = values[j], best[j]
        change = (v > b) | (v != v)
        best[j] = v if change else b
        last[j] = cell if change else last[j]


@kernel
def pairs_of(upper, lower, best, last):  # type: ignore[no-untyped-def]
    """`windows_of` for 2 × 2, of two rows of finite numbers."""
    for j in range(best.size):
        a, b, c, d = upper[j], upper[j + 1], lower[j], lower[j + 1]
        left = a if a >= b else b
        right = c if c >= d else d
        m = left if left >= right else right
        best[j] = m
        cell = np.uint8(3)
        cell = np.uint8(2) if c == m else cell
        cell = np.uint8(1) if b == m else cell
        last[j] = np.uint8(0) if a == m else cell


@kernel
def windows_of(plane, pitch, size, best, last):  # type: ignore[no-untyped-def]
    """The maximum of the window at every position of a plane, and the cell where it stands."""
    best[:] = plane[: best.size]
    last[:] = 0
    for row in range(size):
        for column in range(size):
            if row + column > 0:
                larger(plane[row * pitch + column :], np.uint8(row * size + column), best, last)


@kernel
def pool(planes, pitch, size, lowest, swapped, best, last, out, place):  # type: ignore[no-untyped-def]
    """out = max(maxpool(planes), lowest): planes (n, c, …), or (c, n, …) where swapped; out (n, c, height, width).

    The windows at every position are taken and those side by side picked: that is four times the work, vectorised.
    The loops over a row stand here twice, as a constant stride and no call for every row halve the time.
    """
    n, c, height, width = out.shape
    run = (height - 1) * size * pitch + (width - 1) * size + 1
    best, last = best[:run], last[:run]
    for i in range(n):
        for f in range(c):
            plane = planes[f, i] if swapped else planes[i, f]
            if size == 2 and finite(plane[: run + pitch + 1]):
                pairs_of(plane, plane[pitch:], best, last)
                for row in range(height):
                    start = 2 * row * pitch
                    picked, cell, values, cells = best[start:], last[start:], out[i, f, row], place[i, f, row]
                    for j in range(values.size):
                        v = picked[2 * j]
                        values[j] = lowest if v < lowest else v
                        cells[j] = cell[2 * j]
            else:
                windows_of(plane, pitch, size, best, last)
                for row in range(height):
                    start = size * row * pitch
                    picked, cell, values, cells = best[start:], last[start:], out[i, f, row], place[i, f, row]
                    for j in range(values.size):
                        v = picked[size * j]
                        values[j] = lowest if v < lowest else v
                        cells[j] = cell[size * j]


@kernel
def unpool(dy, place, pitch, size, offsets, swapped, planes):  # type: ignore[no-untyped-def]
    """planes = dy where the maxima stood, else 0; planes as in `pool_values`, offsets by cell."""
    for i in range(dy.shape[0]):
        for f in range(dy.shape[1]):
            plane = planes[f, i] if swapped else planes[i, f]
            plane[:] = 0
            for row in range(dy.shape[2]):
                window, values, cell = plane[row * size * pitch :], dy[i, f, row], place[i, f, row]
                for j in range(values.size):
                    window[size * j + offsets[cell[j]]] = values[j]


@kernel
def add_to(values, total):  # type: ignore[no-untyped-def]
    """Total += values."""
    for j in range(total.size):
        total[j] += values[j]


@kernel
def fold(by_tap, k, pitch, run, planes):  # type: ignore[no-untyped-def]
    """col2im: by_tap (c, k², n, …) summed into planes (n, c, …)."""
    for c in range(by_tap.shape[0]):
        for i in range(by_tap.shape[2]):
            plane = planes[i, c]
            plane[:] = 0
            for row in range(k):
                for column in range(k):
                    start = row * pitch + column
                    add_to(by_tap[c, row * k + column, i], plane[start : start + run])
