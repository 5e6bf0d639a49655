"""Convolution in plain NumPy, and the layout that numba's passes share.

Images stay (n, c, h, w), PyTorch's order. With a plane's rows written one after the other, a filter's tap is one shift
of the whole plane: output position j reads input position j + row · pitch + column. So im2col copies runs of a whole
plane (958 floats for a 32×32 one) instead of patch rows of three, and the product with the filters comes out as planes
again; the k − 1 last columns of each row are junk that nobody reads. Measured on 64 images, im2col and product: 0.42 ms
for 32×32, 3 channels to 8 filters 3×3, against 1.33 with the channels innermost; 0.50 against 0.71 for 15×15, 8 to 30.

A last row of ones in the columns carries the bias forward and its gradient back, without a pass of their own.
"""

from __future__ import annotations

import numpy as np

from gpunet.backend.base import Array, In, Out
from gpunet.backend.blas import multiply
from gpunet.backend.conv_windows import Windows
from gpunet.backend.numpy_pool import NumpyPool

SMALL = 1_000_000  # multiplications: up to here OpenBLAS does not pack operands, so one image at a time is best


class NumpyConv(NumpyPool):
    """The convolutions of NumpyBackend."""

    def conv2d(
        self, x: In, weight: In, bias: In, activation: str, padding: int, pool: int, out: Out, place: Out
    ) -> None:
        windows = Windows.of(x, weight, padding, pool)
        filters = self.scratch("filters", (len(weight), windows.taps + 1), x.dtype)
        filters[:, :-1] = weight.reshape(len(weight), -1)
        filters[:, -1] = 0 if bias is None else bias
        for block in windows.blocks(len(x)):
            columns = self._columns(x[block], windows)
            z = self._room("planes", (len(weight), columns.shape[1], windows.plane), x.dtype)
            _product(filters, columns, z)
            self._finish(z, windows, activation, out[block], None if place is None else place[block])

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
        windows = Windows.of(x, weight, padding, pool)
        u, taps = len(weight), windows.taps
        total = self.scratch("filter gradients", (u, taps + 1), x.dtype)
        total.fill(0)
        for block in windows.blocks(len(x)):
            images = len(x[block])
            planes = self._room("planes", (u, images, windows.plane), x.dtype)
            self._spread(dz[block], None if place is None else place[block], windows, planes)
            if weight_grad is not None:
                self._filter_gradients(planes, self._columns(x[block], windows), total)
            if dx is not None:
                d_columns = self._room("column gradients", (taps, images, windows.plane), x.dtype)
                _product(weight.reshape(u, taps).T, planes, d_columns)
                self._fold(d_columns, windows, dx[block])
        if weight_grad is not None:
            weight_grad.reshape(u, taps)[...] = total[:, :-1]
            bias_grad[...] = total[:, -1]

    # -- the steps, one block of images each ----------------------------------------------------------------------

    def _columns(self, x: Array, windows: Windows) -> Array:
        """im2col: (taps + 1, images, plane), the last row all ones."""
        images, (c, k) = len(x), (windows.c, windows.k)
        if windows.padding or not x.flags.c_contiguous:
            inside = slice(windows.padding, windows.padding + windows.height)
            across = slice(windows.padding, windows.padding + windows.width)
            framed = self._room("framed", (images, c, windows.padded, windows.pitch), x.dtype)
            framed.fill(0)
            framed[:, :, inside, across] = x
            x = framed
        out = self._room("columns", (windows.taps + 1, images, windows.plane), x.dtype)
        of_image, of_plane, of_row, step = x.strides
        shape, strides = (c, k, k, images, windows.run), (of_plane, of_row, step, of_image, step)
        shifted: Array = np.ndarray(shape, x.dtype, x, 0, strides)  # as_strided takes ten times as long
        np.copyto(out[:-1].reshape(c, k, k, images, -1)[..., : windows.run], shifted)
        out[:-1, :, windows.run :] = 0  # BLAS reads these too: no stray NaN there
        out[-1] = 1
        return out

    def _finish(self, z: Array, windows: Windows, activation: str, out: Array, place: Array | None) -> None:
        """out = f(maxpool(z)), z (u, images, plane)."""
        planes, by_plane = _by_row(z, windows), out.transpose(1, 0, 2, 3)
        if windows.pool == 1:
            self.activate(activation, planes[..., : windows.columns].transpose(1, 0, 2, 3), out)
            return
        self._pool(planes, windows.pool, by_plane, None if place is None else place.transpose(1, 0, 2, 3))
        self.activate(activation, out, out)

    def _spread(self, dz: Array, place: Array | None, windows: Windows, planes: Array) -> None:
        """planes (u, images, plane) = dz (images, u, h', w') where the maxima stood, zero elsewhere and in the junk."""
        planes.fill(0)
        if place is None:
            np.copyto(_by_row(planes, windows)[..., : windows.columns], dz.transpose(1, 0, 2, 3))
        else:
            pooled, where = dz.transpose(1, 0, 2, 3), place.transpose(1, 0, 2, 3)
            self._unpool(pooled, where, windows.pool, _by_row(planes, windows))

    def _filter_gradients(self, dz: Array, columns: Array, total: Array) -> None:
        """total (u, taps + 1) += Σ over images of dz columnsᵀ."""
        part = self.scratch("filter gradients of a block", total.shape, total.dtype)
        size = total.size * dz.shape[2]
        if size > SMALL:
            multiply(size * dz.shape[1], dz.reshape(len(dz), -1), columns.reshape(len(columns), -1).T, part)
        else:
            parts = self._room("filter gradients of images", (dz.shape[1], *total.shape), total.dtype)
            multiply(size, dz.transpose(1, 0, 2), columns.transpose(1, 2, 0), parts)
            np.add.reduce(parts, axis=0, out=part)
        np.add(total, part, out=total)

    def _fold(self, d_columns: Array, windows: Windows, dx: Array) -> None:
        """col2im: dx (images, c, h, w) = for every pixel the sum over the columns' copies of it."""
        images, (c, k, p) = len(dx), (windows.c, windows.k, windows.padding)
        framed = self._room("framed", (images, c, windows.padded, windows.pitch), dx.dtype) if p else dx
        framed.fill(0)
        flat = framed.reshape(images, c, -1)
        by_tap = d_columns.reshape(c, k, k, images, -1)
        for row in range(k):
            for column in range(k):
                start = row * windows.pitch + column
                target = flat[:, :, start : start + windows.run]
                np.add(target, by_tap[:, row, column, :, : windows.run].transpose(1, 0, 2), out=target)
        if p:
            dx[...] = framed[:, :, p : p + windows.height, p : p + windows.width]


def _product(a: Array, planes: Array, out: Array) -> None:
    """out[:, i] = a planes[:, i] for every image i; one product for all of them where they are large."""
    size = a.size * planes.shape[2]
    if size > SMALL:
        multiply(size * planes.shape[1], a, planes.reshape(len(planes), -1), out.reshape(len(out), -1))
    else:
        multiply(size, a, planes.transpose(1, 0, 2), out.transpose(1, 0, 2))


def _by_row(planes: Array, windows: Windows) -> Array:
    """(u, images, plane) as (u, images, rows, pitch)."""
    return planes.reshape(*planes.shape[:2], windows.rows, windows.pitch)
