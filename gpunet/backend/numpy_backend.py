"""The CPU's operations in plain NumPy, and the reference that every other backend is held against.

Passes over large arrays go block by block, so that the second and third touch of an element find it in the cache.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from gpunet.backend.base import Array, In, Out
from gpunet.backend.blas import multiply
from gpunet.backend.numpy_conv import NumpyConv
from gpunet.backend.numpy_losses import NumpyLosses
from gpunet.backend.numpy_optimisers import NumpyOptimisers
from gpunet.errors import InputError

BLOCK = 131072  # elements; with its neighbours this about fits a 2 MB second-level cache, and calls stay few


@cache
def row_blocks(rows: int, width: int) -> tuple[slice, ...]:
    """Slices that cut `rows` rows of `width` elements into blocks of about BLOCK elements."""
    step = max(1, BLOCK // max(1, width))
    return tuple(slice(start, min(start + step, rows)) for start in range(0, rows, step))


class NumpyBackend(NumpyLosses, NumpyOptimisers, NumpyConv):
    """NumPy on the CPU; see `Backend` for what each operation means."""

    name = "cpu"
    kernels = "numpy"

    # -- products -------------------------------------------------------------------------------------------------

    def gemm(self, a: In, b: In, out: Out, transpose_a: bool = False, transpose_b: bool = False) -> None:
        multiply(b.size * len(out), a.T if transpose_a else a, b.T if transpose_b else b, out)

    def affine(self, x: In, weight: In, bias: In, activation: str, out: Out) -> None:
        multiply(weight.size * len(x), x, weight.T, out)
        if out.size <= BLOCK:
            if bias is not None:
                np.add(out, bias, out=out)
            self.activate(activation, out, out)
            return
        for rows in row_blocks(*out.shape):
            block = out[rows]
            if bias is not None:
                np.add(block, bias, out=block)
            self.activate(activation, block, block)

    # -- element-wise ---------------------------------------------------------------------------------------------

    def activate(self, activation: str, z: In, out: Out) -> None:
        if activation == "relu":
            np.maximum(z, 0, out=out)
        elif activation == "sigmoid":  # σ(z) = ½ tanh(z/2) + ½ cannot overflow, and tanh is vectorised
            np.multiply(z, 0.5, out=out)
            np.tanh(out, out=out)
            np.multiply(out, 0.5, out=out)
            np.add(out, 0.5, out=out)
        elif out is not z:
            np.copyto(out, z)

    def activation_backward(self, activation: str, y: In, dy: In, dz: Out, bias_grad: Out) -> None:
        if activation != "identity":
            if dz.size <= BLOCK:
                self._chain(activation, y, dy, dz)
            else:
                for rows in row_blocks(len(dz), dz.size // len(dz)):
                    self._chain(activation, y[rows], dy[rows], dz[rows])
        elif dz is not dy:
            np.copyto(dz, dy)
        if bias_grad is not None:
            ones = self.constant("ones", (len(dz), dz.dtype), lambda: np.ones(len(dz), dz.dtype))
            np.dot(ones, dz, out=bias_grad)  # twice as fast as add.reduce

    def _chain(self, activation: str, y: Array, dy: Array, dz: Array) -> None:
        """One block of dz = dy ∘ f'(z): relu' = [y > 0], σ' = y(1 − y)."""
        if activation == "relu":
            mask = self.scratch("mask", y.shape, np.bool_)
            np.greater(y, 0, out=mask)
            np.multiply(dy, mask, out=dz)
        else:
            slope = self.scratch("slope", y.shape, y.dtype)
            np.subtract(1, y, out=slope)
            np.multiply(slope, y, out=slope)
            np.multiply(dy, slope, out=dz)

    def gather(self, dataset: In, order: In, cursor: In, scale: float, out: Out) -> None:
        start = int(cursor[0])
        rows = order[start : start + len(out)]
        if len(rows) < len(out):
            raise InputError(f"{len(out)} samples were asked for, and {len(rows)} of the order's {len(order)} are left")
        if dataset.dtype == out.dtype:  # mode="clip" because "raise" would buffer the output
            dataset.take(rows, 0, out, "clip")  # np.take(…) is half a microsecond more
            if scale != 1:
                np.multiply(out, scale, out=out)
            return
        for block in row_blocks(len(out), out.size // max(1, len(out))):
            target = out[block]
            staged = self.scratch("staged", target.shape, dataset.dtype)
            dataset.take(rows[block], 0, staged, "clip")
            np.copyto(target, staged, casting="unsafe")
            if scale != 1:
                np.multiply(target, scale, out=target)
