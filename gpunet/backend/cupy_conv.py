"""Convolution and pooling in CuPy: a first cut with CuPy's own array functions, right before fast."""

from __future__ import annotations

from typing import Any

from gpunet.backend.base import Array, Backend, In, Out


class CupyConv(Backend):
    """The image operations of CupyBackend; see `Backend` for what each means."""

    cp: Any

    def conv2d(
        self, x: In, weight: In, bias: In, activation: str, padding: int, pool: int, out: Out, place: Out
    ) -> None:
        z = self.cp.tensordot(weight, self._patches(x, weight.shape[2], padding), axes=3).transpose(1, 0, 2, 3)
        if bias is not None:
            z = z + bias[:, None, None]
        if pool > 1:
            self.maxpool2d(z, pool, out, place)
            z = out
        self.activate(activation, z, out)

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
        cp, k = self.cp, weight.shape[2]
        patches = self._patches(x, k, padding)
        if pool > 1:
            pooled, dz = dz, cp.zeros((len(x), len(weight), *patches.shape[4:]), x.dtype)
            self.maxpool2d_backward(pooled, place, pool, dz)
        if weight_grad is not None:
            weight_grad[...] = cp.tensordot(dz, patches, axes=((0, 2, 3), (3, 4, 5)))
            bias_grad[...] = dz.sum(axis=(0, 2, 3))
        if dx is not None:
            margin = k - 1 - padding  # the filters turned by half a turn, slid over dz
            wide = cp.pad(dz, ((0, 0), (0, 0), (margin, margin), (margin, margin)))
            turned = weight.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1]
            dx[...] = cp.tensordot(turned, self._patches(wide, k, 0), axes=3).transpose(1, 0, 2, 3)

    def maxpool2d(self, x: In, size: int, out: Out, place: Out) -> None:
        cells = self._cells(x, size, out.shape)
        out[...] = cells.max(axis=-1)
        if place is not None:
            place[...] = cells.argmax(axis=-1)

    def maxpool2d_backward(self, dy: In, place: In, size: int, dx: Out) -> None:
        cp, (n, c, height, width) = self.cp, dy.shape
        cells = cp.where(place[..., None] == cp.arange(size * size), dy[..., None], 0)
        by_row = cells.reshape(n, c, height, width, size, size).transpose(0, 1, 2, 4, 3, 5)
        dx[...] = 0
        dx[:, :, : height * size, : width * size] = by_row.reshape(n, c, height * size, width * size)

    def _patches(self, x: Array, k: int, padding: int) -> Array:
        """View (c, k, k, n, h', w') of x (n, c, h, w): what each tap of a filter sees."""
        if padding:
            x = self.cp.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
        n, c, height, width = x.shape
        of_image, of_plane, of_row, of_column = x.strides
        shape = (c, k, k, n, height - k + 1, width - k + 1)
        strides = (of_plane, of_row, of_column, of_image, of_row, of_column)
        return self.cp.lib.stride_tricks.as_strided(x, shape, strides)

    @staticmethod
    def _cells(x: Array, size: int, shape: tuple[int, ...]) -> Array:
        """The windows of x, (n, c, height, width, size²), whole ones only."""
        n, c, height, width = shape
        whole = x[:, :, : height * size, : width * size].reshape(n, c, height, size, width, size)
        return whole.transpose(0, 1, 2, 4, 3, 5).reshape(n, c, height, width, size * size)
