"""The CPU's operations in plain NumPy, and the reference that every other backend is held against.

Passes over large arrays go block by block, so that the second and third touch of an element find it in the cache.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import numpy as np

from gpunet.backend import base, onednn
from gpunet.backend import numpy_conv as conv
from gpunet.backend.base import (
    BFLOAT16,
    GOLDEN,
    MIX_1,
    MIX_2,
    NAN_BITS,
    WORDS,
    Array,
    Backend,
    In,
    Out,
    dropout_start,
    dropout_threshold,
)
from gpunet.backend.blas import apart, multiply
from gpunet.checks import as_array, on_device
from gpunet.errors import DataError, InputError, MemoryFullError, shown
from gpunet.extras import install, optional

ALIGNMENT = 64  # bytes: without it NumPy's AVX-512 loops took twice as long (65,536 float32: np.add 8.3 µs, then 16.3)
BLOCK = 131072  # elements; with its neighbours this about fits a 2 MB second-level cache, and calls stay few
OPTIMISER_BLOCK = 65536  # parameters at a time; five float32 arrays of it take 1.3 MB
FILTERS = 512  # whose maps are averaged at a time: of 27 × 27 positions 1.5 MB, half of it to a core
ROOM = 1 << 26  # elements of all threads' maps that are averaged
COLUMNS = 196608  # elements of im2col at a time: they stay in the second-level cache (twice as many cost 10 %)
INT64, UINT64 = np.dtype(np.int64), np.dtype(np.uint64)
ONE_STEP = np.isin(np.arange(base.N_SCALARS), (base.STEP, base.SECOND_STEP)).astype(np.float64)
CUBIC, STEEP = 0.044715, math.sqrt(2 / math.pi)  # of GELU's approximation
GELU_END = 40.0  # from there on the normal distribution is 0 or 1, and its density 0, in float64
MINUS_ZERO, INFINITE = np.uint16(0x8000), np.uint16(0x7F80)  # bits of −0 and ∞ in bfloat16
DECADES = 12  # how far a moment may decay between two looks for denormals


@cache
def row_blocks(rows: int, width: int, block: int = BLOCK) -> tuple[slice, ...]:
    """Slices that cut `rows` rows of `width` elements into blocks of about `block` elements."""
    step = max(1, block // max(1, width))
    return tuple(slice(start, min(start + step, rows)) for start in range(0, rows, step))


class NumpyBackend(Backend):
    """NumPy on the CPU; see `Backend` for what each operation means."""

    name = "cpu"
    kernels = "numpy"
    xp: Any = np

    least_bfloat16 = 1_000_000

    @property
    def bfloat16(self) -> onednn.OneDnn | None:
        """What multiplies bfloat16; where there is nothing float32 numbers stand for it, for the same sums."""
        return onednn.engine()[0]

    @property
    def mixes_with(self) -> str:  # type: ignore[override]
        return f"oneDNN {self.bfloat16.version}" if self.bfloat16 else ""

    @property
    def slow_bfloat16(self) -> str:  # type: ignore[override]  # looked for when somebody asks
        if (why := onednn.engine()[1]) or self.kernels != "numpy":
            return why
        return f"without numba the passes beside the products take longer than bfloat16 saves: {install('fast')}"

    # -- memory ---------------------------------------------------------------------------------------------------

    def session(self) -> AbstractContextManager[Any]:
        return np.errstate(all="ignore")

    def empty(self, shape: int | tuple[int, ...], dtype: Any = "float32") -> Array:
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        dtype = np.dtype(dtype)
        nbytes = math.prod(shape) * dtype.itemsize
        try:
            raw = np.empty(nbytes + ALIGNMENT, np.uint8)
        except (MemoryError, OverflowError, ValueError):  # NumPy calls a size beyond all addresses a bad value
            raise MemoryFullError(
                f"no room in main memory for an array of shape {shown(shape)}, {dtype.name}, "
                f"{min(nbytes, 1e300) / (1 << 30):.3g} GiB; take a smaller batch, or less data at a time"
            ) from None
        start = -raw.ctypes.data % ALIGNMENT
        return raw[start : start + nbytes].view(dtype).reshape(shape)

    def asarray(self, host: Any, dtype: Any = None) -> Array:
        host = as_array(host, "the array")
        if on_device(host):
            raise InputError(f"the array {host.shape} lies on a GPU and the device is {self.name}: copy it with .get()")
        return np.ascontiguousarray(host, dtype=dtype)

    def to_host(self, array: Array) -> Any:
        return np.asarray(array)

    def synchronize(self) -> None:
        """NumPy has finished whatever it was asked by the time it returns."""

    def memory(self) -> dict[str, int]:
        try:
            import resource
        except ImportError:  # Windows
            return {"peak": 0, "total": 0}
        unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is bytes there, kilobytes elsewhere
        return {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "total": 0}

    def copy(self, source: In, out: Out) -> None:
        np.copyto(out, source, casting="unsafe")

    # -- products -------------------------------------------------------------------------------------------------

    def gemm(self, a: In, b: In, out: Out, transpose_a: bool = False, transpose_b: bool = False) -> None:
        if a.dtype is BFLOAT16:
            self._mixed_product(a, b, out, transpose_a, transpose_b)
            return
        multiply(b.size * len(out), a.T if transpose_a else a, b.T if transpose_b else b, out)

    def affine(self, x: In, weight: In, bias: In, activation: str, out: Out) -> None:
        if x.dtype is BFLOAT16:
            self._mixed_affine(x, weight, bias, activation, out)
            return
        multiply(weight.size * len(x), x, weight.T, out)
        self._add_and_activate(out, bias, activation)

    def _add_and_activate(self, out: Array, bias: Array | None, activation: str) -> None:
        for rows in row_blocks(*out.shape):
            block = out[rows]
            if bias is not None:
                np.add(block, bias, out=block)
            self.activate(activation, block, block)

    def to_bfloat16(self, x: In, out: Out) -> None:
        source, target = x.reshape(-1), out.reshape(-1)
        for part in row_blocks(source.size, 1):
            bits, last = source[part].view(np.uint32), self.scratch("last bits", BLOCK, np.uint32)
            last = np.bitwise_and(np.right_shift(bits, 16, out=last[: len(bits)]), 1, out=last[: len(bits)])
            np.add(last, 0x7FFF, out=last)  # a tie goes up where that makes the result even
            np.add(last, bits, out=last)
            missing = np.isnan(source[part], out=self.scratch("missing", BLOCK, np.bool_)[: len(bits)])
            np.copyto(last, NAN_BITS, where=missing)
            np.right_shift(last, 16, out=last)
            np.copyto(target[part], last, casting="unsafe")

    def _from_bfloat16(self, x: Array, purpose: str) -> Array:
        """The same numbers in float32, in scratch memory."""
        out = self.scratch_up_to(f"{purpose} in float32", x.shape, np.float32)
        np.left_shift(x, 16, out=out.view(np.uint32), dtype=np.uint32)
        return out

    def _mixed_product(
        self, a: Array, b: Array, out: Array, transpose_a: bool, transpose_b: bool, bias: Array | None = None
    ) -> None:
        """The product of bfloat16 numbers in float32, plus the bias, and then rounded where `out` is bfloat16."""
        library = self.bfloat16 if a.size and b.size else None
        if library is not None:
            library.product(self.pool, a, b, out, transpose_a, transpose_b, bias)
            return
        a, b = self._from_bfloat16(a, "left"), self._from_bfloat16(b, "right")
        found = out if out.dtype != BFLOAT16 else self.scratch_up_to("product", out.shape, np.float32)
        self.gemm(a, b, found, transpose_a, transpose_b)
        if bias is not None:
            np.add(found, bias, out=found)
        if found is not out:
            self.to_bfloat16(found, out)

    def _mixed_affine(self, x: Array, weight: Array, bias: Array | None, activation: str, out: Array) -> None:
        if activation == "identity" or (activation == "relu" and out.dtype == BFLOAT16):
            self._mixed_product(x, weight, out, False, True, bias)
            if activation == "relu":  # of a rounded number it is its rounded relu
                self._relu_of_bfloat16(out)
            return
        found = out if out.dtype != BFLOAT16 else self.scratch_up_to("scores", out.shape, np.float32)
        self._mixed_product(x, weight, found, False, True, bias)
        self._add_and_activate(found, None, activation)
        if found is not out:
            self.to_bfloat16(found, out)

    def _relu_of_bfloat16(self, y: Array) -> None:
        """In place; numbers of bits from 0x8000 to 0xFF80 are −0 to −∞."""
        for rows in row_blocks(*y.shape):
            bits = np.subtract(y[rows], MINUS_ZERO, out=self.scratch_up_to("magnitudes", y[rows].shape, np.uint16))
            np.copyto(y[rows], 0, where=np.less_equal(bits, INFINITE, out=self.scratch("negative", bits.shape, "bool")))

    # -- images ---------------------------------------------------------------------------------------------------

    def conv2d(
        self, x: In, weight: In, bias: In, activation: str, padding: int, pool: int, out: Out, place: Out
    ) -> None:
        windows = conv.windows_of(x.shape[1:], weight.shape[2], padding, pool)
        filters = self.scratch("filters", (len(weight), windows.taps + 1), x.dtype)
        filters[:, :-1] = weight.reshape(len(weight), -1)
        filters[:, -1] = 0 if bias is None else bias
        for images in row_blocks(len(x), windows.size, COLUMNS):
            columns = conv.im2col(x[images], windows, self.scratch_up_to)
            z = self.scratch_up_to("planes", (len(weight), columns.shape[1], windows.plane), x.dtype)
            conv.product(filters, columns, z)
            self._pool_and_activate(z, windows, activation, out[images], None if place is None else place[images])

    def conv2d_backward(
        self, x: In, weight: In, padding: int, pool: int, place: In, dz: In, weight_grad: Out, bias_grad: Out, dx: Out
    ) -> None:
        windows = conv.windows_of(x.shape[1:], weight.shape[2], padding, pool)
        u, taps = len(weight), windows.taps
        total = self.scratch("filter gradients", (u, taps + 1), x.dtype)
        total.fill(0)
        for images in row_blocks(len(x), windows.size, COLUMNS):
            count = images.stop - images.start
            planes = self.scratch_up_to("planes", (u, count, windows.plane), x.dtype)
            self._spread(dz[images], None if place is None else place[images], windows, planes)
            if weight_grad is not None:
                columns = conv.im2col(x[images], windows, self.scratch_up_to)
                conv.filter_gradients(planes, columns, total, self.scratch_up_to)
            if dx is not None:
                d_columns = self.scratch_up_to("column gradients", (taps, count, windows.plane), x.dtype)
                conv.product(weight.reshape(u, taps).T, planes, d_columns)
                self._col2im(d_columns, windows, dx[images])
        if weight_grad is not None:
            weight_grad.reshape(u, taps)[...] = total[:, :-1]
            bias_grad[...] = total[:, -1]

    def maxpool2d(self, x: In, size: int, out: Out, place: Out) -> None:
        for images in row_blocks(len(x), x[:1].size):
            conv.pool_windows(
                x[images], size, out[images], None if place is None else place[images], self.scratch_up_to
            )

    def maxpool2d_backward(self, dy: In, place: In, size: int, dx: Out) -> None:
        for images in row_blocks(len(dx), dx[:1].size):
            dx[images].fill(0)
            conv.unpool(dy[images], place[images], size, dx[images], self.scratch_up_to)

    def conv2d_avgpool(
        self, x: In, weight: In, bias: In, activation: str, padding: int, size: int, stride: int, out: Out
    ) -> None:
        windows = conv.windows_of(x.shape[1:], weight.shape[2], padding, 1)
        positions = windows.rows * windows.columns
        mirrored = self._mirrored(weight)
        filters = weight.reshape(len(weight), -1)[: len(weight) // 2 if mirrored else len(weight)]
        shifts = self.scratch("shifts", len(weight), x.dtype)
        shifts[...] = 0 if bias is None else bias
        width = min(len(filters), FILTERS)

        def average(images: slice) -> None:
            columns = conv.image_columns(x[images], windows, self.scratch_up_to)
            for part in row_blocks(len(filters), 1, width):
                z = self.scratch_up_to("maps", (len(columns), positions, part.stop - part.start), x.dtype)
                multiply(positions * filters[part].size, columns.transpose(0, 2, 1), filters[part].T, z)
                maps = z.reshape(len(z), windows.rows, windows.columns, -1)
                if mirrored:  # before z may be overwritten
                    other = slice(part.start + len(filters), part.stop + len(filters))
                    self._average_maps(maps, True, shifts[other], activation, size, stride, out[images, other])
                self._average_maps(maps, False, shifts[part], activation, size, stride, out[images, part])

        elements = positions * max(width, windows.taps)  # of an image
        apart(len(x) * positions * filters.size, row_blocks(len(x), elements), average, max(1, ROOM // elements))

    def _mirrored(self, weight: Array) -> bool:
        """Whether the second half of the filters is the first one negated: their maps are so, too, bit for bit."""
        half = len(weight) // 2
        if len(weight) % 2 or half < 2:  # a product with a lone filter is one with a vector, which adds up otherwise
            return False
        opposite = self.scratch("opposite filters", (half, *weight.shape[1:]), weight.dtype)
        equal = self.scratch("equal filters", opposite.shape, np.bool_)
        return bool(np.equal(np.negative(weight[:half], out=opposite), weight[half:], out=equal).all())

    def _average_maps(
        self, z: Array, negated: bool, shift: Array, activation: str, size: int, stride: int, out: Array
    ) -> None:
        """out (images, u, h', w') = avgpool(f(±z + shift)), z (images, rows, columns, u): lost where not negated."""
        y = self._activated_maps(z, negated, shift, activation)
        conv.average_positions(y, size, stride, out, self.scratch_up_to)

    def _activated_maps(self, z: Array, negated: bool, shift: Array, activation: str) -> Array:
        """f(z + shift) in z's memory, or f(−z + shift) beside it."""
        if negated:
            y = np.subtract(shift, z, out=self.scratch_up_to("negated maps", z.shape, z.dtype))
        else:
            y = np.add(z, shift, out=z)
        self.activate(activation, y, y)
        return y

    def avgpool2d(self, x: In, size: int, stride: int, out: Out) -> None:
        for images in row_blocks(len(x), x[:1].size):
            conv.average(x[images], size, stride, out[images], self.scratch_up_to)

    def avgpool2d_backward(self, dy: In, size: int, stride: int, dx: Out) -> None:
        for images in row_blocks(len(dx), dx[:1].size):
            conv.spread_evenly(dy[images], size, stride, dx[images], self.scratch_up_to)

    def _pool_and_activate(
        self, z: Array, windows: conv.Windows, activation: str, out: Array, place: Array | None
    ) -> None:
        """out = f(maxpool(z)), z (u, images, plane)."""
        planes = conv.by_row(z, windows)
        if windows.pool == 1:
            self.activate(activation, planes[..., : windows.columns].transpose(1, 0, 2, 3), out)
            return
        where = None if place is None else place.transpose(1, 0, 2, 3)
        conv.pool_windows(planes, windows.pool, out.transpose(1, 0, 2, 3), where, self.scratch_up_to)
        self.activate(activation, out, out)

    def _spread(self, dz: Array, place: Array | None, windows: conv.Windows, planes: Array) -> None:
        """planes (u, images, plane) = dz (images, u, h', w') where the maxima stood, zero elsewhere and in the junk."""
        planes.fill(0)
        slopes = dz.transpose(1, 0, 2, 3)
        if place is None:
            np.copyto(conv.by_row(planes, windows)[..., : windows.columns], slopes)
        else:
            where = place.transpose(1, 0, 2, 3)
            conv.unpool(slopes, where, windows.pool, conv.by_row(planes, windows), self.scratch_up_to)

    def _col2im(self, d_columns: Array, windows: conv.Windows, dx: Array) -> None:
        conv.col2im(d_columns, windows, dx, self.scratch_up_to)

    # -- element-wise ---------------------------------------------------------------------------------------------

    def activate(self, activation: str, z: In, out: Out) -> None:
        if activation == "relu":
            np.maximum(z, 0, out=out)
        elif activation == "sigmoid":  # σ(z) = ½ tanh(z/2) + ½ cannot overflow, and tanh is vectorised
            np.multiply(z, 0.5, out=out)
            np.tanh(out, out=out)
            np.multiply(out, 0.5, out=out)
            np.add(out, 0.5, out=out)
        elif activation == "tanh":
            np.tanh(z, out=out)
        elif activation == "leaky_relu":
            small = self.scratch_up_to("leaked", z.shape, z.dtype)
            np.multiply(z, base.LEAK, out=small)
            np.maximum(z, small, out=out)
        elif out is not z:
            np.copyto(out, z)

    def activation_backward(self, activation: str, y: In, dy: In, dz: Out, bias_grad: Out) -> None:
        if dz.dtype is BFLOAT16:
            found = self.scratch_up_to("slopes of outputs", dz.shape, np.float32)
            self.activation_backward(activation, y, dy, found, bias_grad)
            self.to_bfloat16(found, dz)
            return
        if y.dtype is BFLOAT16:
            y = self._from_bfloat16(y, "outputs")
        if activation != "identity":
            for rows in row_blocks(len(dz), dz[:1].size):
                self._chain(activation, y[rows], dy[rows], dz[rows])
        elif dz is not dy:
            np.copyto(dz, dy)
        if bias_grad is not None:
            ones = self.constant("ones", (len(dz), dz.dtype), lambda: np.ones(len(dz), dz.dtype))
            np.dot(ones, dz, out=bias_grad)  # twice as fast as add.reduce

    def _chain(self, activation: str, y: Array, dy: Array, dz: Array) -> None:
        """One block of dz = dy ∘ f'(z)."""
        if activation == "relu":
            mask = self.scratch("mask", y.shape, np.bool_)
            np.greater(y, 0, out=mask)
            np.multiply(dy, mask, out=dz)
            return
        slope = self.scratch("slope", y.shape, y.dtype)
        if activation == "sigmoid":
            np.subtract(1, y, out=slope)
            np.multiply(slope, y, out=slope)
        elif activation == "tanh":
            np.multiply(y, y, out=slope)
            np.subtract(1, slope, out=slope)
        else:  # [y > 0], and LEAK where that is less
            np.greater(y, 0, out=slope, casting="unsafe")
            np.maximum(slope, base.LEAK, out=slope)
        np.multiply(dy, slope, out=dz)

    def gelu(self, x: In, by_tanh: bool, out: Out) -> None:
        for rows in row_blocks(len(x), x[:1].size):
            share, _ = self._below(x[rows], by_tanh)
            np.multiply(x[rows], share, out=out[rows])

    def gelu_backward(self, x: In, dy: In, by_tanh: bool, dx: Out) -> None:
        for rows in row_blocks(len(x), x[:1].size):
            share, near = self._below(x[rows], by_tanh)
            work = self.scratch_up_to("slope", near.shape, near.dtype)
            np.multiply(near, near, out=work)
            if by_tanh:  # share' = 2 share (1 − share) √(2/π) (1 + 3·0.044715 x²)
                np.multiply(work, 3 * CUBIC, out=work)
                np.add(work, 1, out=work)
                np.multiply(work, 2 * STEEP, out=work)
                np.multiply(work, share, out=work)
                np.multiply(near, work, out=near)
                np.subtract(1, share, out=work)
            else:  # φ(x) = e^(−x²/2)/√(2π)
                np.multiply(work, -0.5, out=work)
                np.exp(work, out=work)
                np.multiply(work, STEEP / 2, out=work)
            np.multiply(near, work, out=work)
            np.add(share, work, out=work)
            np.multiply(dy[rows], work, out=dx[rows])

    def _below(self, x: Array, by_tanh: bool) -> tuple[Array, Array]:
        """Φ(x), or its approximation, of one block; and x within where that changes. NaN stays NaN."""
        share, near = (self.scratch_up_to(purpose, x.shape, x.dtype) for purpose in ("share", "near"))
        np.clip(x, -GELU_END, GELU_END, out=near)
        if not by_tanh:
            return _normal()(x, out=share), near
        np.multiply(near, near, out=share)
        np.multiply(share, CUBIC, out=share)
        np.add(share, 1, out=share)
        np.multiply(share, near, out=share)
        np.multiply(share, STEEP, out=share)
        self.activate("tanh", share, share)
        np.multiply(share, 0.5, out=share)
        return np.add(share, 0.5, out=share), near

    def dropout(self, x: In, rate: float, draw: In, out: Out) -> None:
        start, threshold = dropout_start(draw), dropout_threshold(rate)
        source, target = x.reshape(-1), out.reshape(-1)
        scale = target.dtype.type(1 / (1 - rate))
        for part in row_blocks(target.size, 1, BLOCK // 4):  # beside it lie words, and those shifted
            block = target[part]
            np.multiply(source[part], scale, out=block)
            kept = self.scratch("kept", BLOCK // 4, np.bool_)[: block.size]
            words = self._words((start + part.start // 2 * GOLDEN) % WORDS).view(np.uint32)
            np.greater_equal(words[: block.size], np.uint32(threshold), out=kept)
            bits = block.view(f"u{block.itemsize}")  # 0 times a NaN's bits is 0; and `where=` takes ten times as long
            np.multiply(bits, kept, out=bits)

    def _words(self, start: int) -> Array:
        """The words of `dropout` for one block of elements, uint64."""
        count = BLOCK // 8
        steps = self.constant("steps", (count,), lambda: np.arange(1, count + 1, dtype=np.uint64) * np.uint64(GOLDEN))
        words, shifted = (self.scratch(purpose, count, np.uint64) for purpose in ("words", "shifted"))
        np.add(steps, np.uint64(start), out=words)
        for shift, factor in ((30, MIX_1), (27, MIX_2), (31, 1)):
            np.right_shift(words, np.uint64(shift), out=shifted)
            np.bitwise_xor(words, shifted, out=words)
            if factor != 1:
                np.multiply(words, np.uint64(factor), out=words)
        return words

    def redraw(self, draws: Out) -> None:
        np.add(draws[:, 1], 1, out=draws[:, 1])

    def gather(self, dataset: In, order: In, cursor: In, scale: float, out: Out) -> None:
        start = int(cursor[0])
        rows = order[start : start + len(out)]
        if len(rows) < len(out):
            raise InputError(f"{len(out)} samples were asked for, and {len(rows)} of the order's {len(order)} are left")
        if out.dtype is BFLOAT16:
            found = self.scratch_up_to("samples", out.shape, np.float32)
            self.gather(dataset, order, cursor, scale, found)
            self.to_bfloat16(found, out)
            return
        if dataset.dtype == out.dtype:  # mode="clip" because "raise" would buffer the output
            dataset.take(rows, 0, out, "clip")  # np.take(…) is half a microsecond more
            if scale != 1:
                np.multiply(out, scale, out=out)
            return
        for block in row_blocks(len(out), out[:1].size):
            target = out[block]
            staged = self.scratch("staged", target.shape, dataset.dtype)
            dataset.take(rows[block], 0, staged, "clip")
            np.copyto(target, staged, casting="unsafe")
            if scale != 1:
                np.multiply(target, scale, out=target)

    def tick(self, scalars: Out) -> None:
        np.add(scalars, ONE_STEP, out=scalars)

    # -- batch normalisation: two passes, both in float64 --------------------------------------------------------------

    def batch_statistics(
        self, x: In, of_batch: bool, momentum: float, epsilon: float, running_mean: Out, running_var: Out,
        statistics: Out,
    ) -> None:  # fmt: skip
        mean, variance = statistics
        if of_batch:
            count = x.size // len(mean)
            near, off, part = (self._of_channels(purpose, len(mean)) for purpose in ("near", "off", "part"))
            np.copyto(near, _planes(x)[0, :, 0])  # a shift to one of the numbers: what follows keeps its digits
            self._channel_sums(_planes(x), near, None, off, variance)
            np.divide(off, count, out=off)
            np.add(near, off, out=mean)
            np.divide(variance, count, out=variance)
            np.subtract(variance, np.multiply(off, off, out=off), out=variance)
            np.maximum(variance, 0, out=variance)
            for running, now, factor in ((running_mean, mean, 1.0), (running_var, variance, count / max(count - 1, 1))):
                np.subtract(np.multiply(now, factor, out=part), running, out=part)
                np.multiply(part, momentum, out=part)
                np.add(running, part, out=running, casting="same_kind")
        else:
            mean[...], variance[...] = running_mean, running_var
        np.add(variance, epsilon, out=variance)
        np.sqrt(variance, out=variance)
        np.reciprocal(variance, out=variance)

    def normalise(self, x: In, statistics: In, weight: In, bias: In, out: Out) -> None:
        mean, scale = statistics
        slope, shift = (self._of_channels(purpose, len(mean)) for purpose in ("near", "off"))
        np.multiply(scale, weight, out=slope)
        np.copyto(shift, bias)
        self._channel_lines(_planes(x), mean, slope, shift, None, slope, _planes(out))

    def normalise_backward(
        self, x: In, statistics: In, weight: In, dy: In, of_batch: bool, weight_grad: Out, bias_grad: Out, dx: Out
    ) -> None:
        mean, scale = statistics
        level, tilt, part = (self._of_channels(purpose, len(mean)) for purpose in ("near", "off", "part"))
        self._channel_sums(_planes(x), mean, _planes(dy), level, tilt)
        np.multiply(tilt, scale, out=tilt)
        if weight_grad is not None:
            weight_grad[...], bias_grad[...] = tilt, level
        if dx is None:
            return
        np.multiply(scale, weight, out=part)
        np.multiply(tilt, scale, out=tilt)
        for sums in (level, tilt):  # dx = part (dy + level + tilt (x − μ))
            np.multiply(sums, -len(mean) / x.size if of_batch else 0, out=sums)
            np.multiply(sums, part, out=sums)
        self._channel_lines(_planes(x), mean, tilt, level, _planes(dy), part, _planes(dx))

    def _of_channels(self, purpose: str, channels: int) -> Array:
        return self.scratch(f"{purpose} of channels", channels, np.float64)

    def _channel_sums(self, x: Array, origin: Array, by: Array | None, sums: Array, products: Array) -> None:
        """Over each channel of (n, c, s): sums = Σ by, products = Σ by (x − origin); by None: x − origin itself."""
        sums[...], products[...] = 0, 0
        part = self._of_channels("sums", len(sums))
        for block, rows in self._apart(x, origin):
            factor = block if by is None else by[rows]
            np.add(sums, np.add.reduce(factor, axis=(0, 2), dtype=np.float64, out=part), out=sums)
            np.multiply(block, factor, out=block)
            np.add(products, np.add.reduce(block, axis=(0, 2), out=part), out=products)

    def _channel_lines(
        self, x: Array, origin: Array, slope: Array, shift: Array, dy: Array | None, factor: Array, out: Array
    ) -> None:
        """out = slope (x − origin) + shift + factor dy, numbers of each channel; without dy without that."""
        for block, rows in self._apart(x, origin):
            np.multiply(block, slope[:, None], out=block)
            np.add(block, shift[:, None], out=block)
            if dy is not None:
                more = self.scratch_up_to("more", block.shape, np.float64)
                np.add(block, np.multiply(dy[rows], factor[:, None], out=more), out=block)
            np.copyto(out[rows], block, casting="same_kind")

    def _apart(self, x: Array, origin: Array) -> Iterator[tuple[Array, slice]]:
        """x − origin by blocks of rows of (n, c, s), each with its rows; the memory of one is that of the next."""
        for rows in row_blocks(len(x), x[:1].size, BLOCK // 4):
            block = self.scratch_up_to("apart", x[rows].shape, np.float64)
            yield np.subtract(x[rows], origin[:, None], out=block), rows

    # -- losses: value, gradient and count of correct answers in one operation each --------------------------------
    # A loss starts from z, the outputs before the last activation: softmax and sigmoid can then be joined with their
    # logarithms, which neither overflow nor lose the small probabilities.

    def softmax_cross_entropy(self, z: In, labels: In, scale: float, dz: Out, totals: Out) -> None:
        # Classes as rows: over a handful of classes NumPy's loops along the last axis are too short to be fast.
        n, k = z.shape
        self._check_classes(labels, k)
        work, row = self.scratch("classes as rows", (k, n), z.dtype), self.scratch("per sample", n, z.dtype)
        np.copyto(work, z.T)
        np.maximum.reduce(work, axis=0, out=row)
        np.subtract(work, row, out=work)
        places = self.scratch("places", n, np.int64)
        np.multiply(labels, n, out=places)
        np.add(places, self.constant("range", (n,), lambda: np.arange(n)), out=places)
        picked, flat = self.scratch("picked", n, z.dtype), work.reshape(-1)
        np.take(flat, places, out=picked, mode="clip")
        loss, correct = -float(np.add.reduce(picked)), self._count_largest(work, picked, z, labels)
        np.exp(work, out=work)
        np.add.reduce(work, axis=0, out=row)
        np.log(row, out=picked)
        loss += float(np.add.reduce(picked))
        np.divide(scale, row, out=row)
        np.multiply(work, row, out=work)
        np.take(flat, places, out=picked, mode="clip")
        np.subtract(picked, scale, out=picked)
        np.put(flat, places, picked, mode="clip")  # ∂L/∂z = softmax(z) − onehot(label)
        np.copyto(dz, work.T)
        self._add(totals, n, loss, correct)

    def _count_largest(self, below_top: Array, at_label: Array, z: Array, labels: Array) -> int:
        """How many labels have the largest output, the first of several equal ones; both relative to it, so ≤ 0.

        A sample with a NaN among its outputs has none: they are all NaN relative to it.
        """
        mask = self.scratch("is largest", below_top.shape, np.bool_)
        np.equal(below_top, 0, out=mask)
        if np.count_nonzero(mask) == len(at_label):  # no ties: `argmax` would be slower
            return len(at_label) - int(np.count_nonzero(at_label))
        answers = np.argmax(z, axis=1, out=self.scratch("answers", len(z), np.int64))
        right = np.equal(answers, labels, out=self.scratch("right", len(z), np.bool_))
        numbers = np.equal(at_label, at_label, out=self.scratch("numbers", len(z), np.bool_))
        return int(np.count_nonzero(np.logical_and(right, numbers, out=right)))

    def binary_cross_entropy(self, z: In, labels: In, scale: float, dz: Out, totals: Out) -> None:
        self._check_classes(labels, max(2, z.shape[1]))
        # −t log σ(z) − (1−t) log(1−σ(z)) = max(z, 0) + log(1 + e^−|z|) − t z
        np.abs(z, out=dz)
        np.negative(dz, out=dz)
        np.exp(dz, out=dz)
        np.add(dz, 1, out=dz)
        np.log(dz, out=dz)
        loss = float(np.add.reduce(dz, axis=None))
        np.maximum(z, 0, out=dz)
        loss += float(np.add.reduce(dz, axis=None)) - self._target_dot(z, labels)
        self.activate("sigmoid", z, dz)
        self._subtract_targets(dz, labels)  # equation (4) of document 000: ∂L/∂z = x² − y
        if scale != 1:
            np.multiply(dz, scale, out=dz)
        self._count(totals, loss, z, labels, threshold=0.0)

    def squared_error(self, activation: str, z: In, labels: In, scale: float, dz: Out, totals: Out) -> None:
        valued = labels.ndim == 2
        if not valued:
            self._check_classes(labels, max(2, z.shape[1]))
        y = self.scratch("outputs", z.shape, z.dtype)
        self.activate(activation, z, y)
        difference = self.scratch("difference", z.shape, z.dtype)
        if valued:
            np.subtract(y, labels, out=difference)
        else:
            np.copyto(difference, y)
            self._subtract_targets(difference, labels)
        flat = difference.reshape(-1)
        loss = 0.5 * float(np.dot(flat, flat))
        self.activation_backward(activation, y, difference, dz, None)
        if scale != 1:
            np.multiply(dz, scale, out=dz)
        if valued:
            self._add(totals, len(z), loss, 0)
        else:
            self._count(totals, loss, y, labels, threshold=0.5)

    @staticmethod
    def _check_classes(labels: Array, classes: int) -> None:
        """DataError for a label that is none of the classes, which as a place would lie anywhere."""
        unsigned = labels.view(UINT64) if labels.dtype is INT64 else labels.astype(UINT64)  # −1 is huge
        if len(labels) and unsigned[row := unsigned.argmax()] >= classes:  # argmax: half the time of max
            raise DataError(f"label {labels[row]} of sample {row} of a batch: expected 0 to {classes - 1}")

    # -- targets: one-hot labels, or the label itself when there is one output ---------------------------------------

    def _label_places(self, a: Array, labels: Array) -> Array:
        """Places of a[i, labels[i]] in a.ravel()."""
        n, k = a.shape
        starts = self.constant("row starts", (n, k), lambda: np.arange(0, n * k, k, dtype=np.int64))
        return np.add(starts, labels, out=self.scratch("places", n, np.int64))

    def _subtract_targets(self, a: Array, labels: Array) -> None:
        """a −= t."""
        if a.shape[1] == 1:
            np.subtract(a[:, 0], labels, out=a[:, 0], casting="same_kind")
            return
        places = self._label_places(a, labels)
        picked = np.take(a.reshape(-1), places, out=self.scratch("picked", len(a), a.dtype), mode="clip")
        np.subtract(picked, 1, out=picked)
        np.put(a, places, picked, mode="clip")

    def _target_dot(self, z: Array, labels: Array) -> float:
        """Σ t z."""
        picked = self.scratch("picked", len(z), z.dtype)
        if z.shape[1] > 1:
            np.take(z.reshape(-1), self._label_places(z, labels), out=picked, mode="clip")
        else:
            np.multiply(z[:, 0], labels, out=picked, casting="same_kind")
        return float(np.add.reduce(picked))

    def _count(self, totals: Array, loss: float, scores: Array, labels: Array, threshold: float) -> None:
        """Add one batch to the totals; a lone output answers 1 above `threshold`, and NaN is no answer."""
        n, k = scores.shape
        answers = self.scratch("answers", n, np.int64)
        if k > 1:
            np.argmax(scores, axis=1, out=answers)
        else:
            np.greater(scores[:, 0], threshold, out=answers, casting="unsafe")
        right = np.equal(answers, labels, out=self.scratch("right", n, np.bool_))
        if not math.isfinite(loss):
            right &= ~np.isnan(scores).any(axis=1)
        self._add(totals, n, loss, int(np.count_nonzero(right)))

    @staticmethod
    def _add(totals: Array, n: int, loss: float, correct: int) -> None:
        """Add a batch of n to the totals, and mark it if it is the first whose loss is not finite."""
        if not math.isfinite(loss) and totals[base.FIRST_BAD] < 0:
            totals[base.FIRST_BAD] = totals[base.SAMPLES]
        totals[base.LOSS_SUM] += loss
        totals[base.CORRECT] += correct
        totals[base.SAMPLES] += n

    # -- optimisers: one pass over flat arrays, block by block: all touches but the first hit the cache --------------

    def sgd(self, params: Out, grads: In, scalars: In, decayed: int, rounded: Out = None) -> None:
        rate, _, _, _, l2, *_ = scalars.tolist()
        for part, twice_l2 in self._parts(len(params), decayed, l2):
            p, g, work = params[part], grads[part], self._step(params, part)
            np.multiply(self._with_l2(p, g, twice_l2), rate, out=work)
            np.subtract(p, work, out=p)
            self._round(params, part, rounded)

    def momentum(self, params: Out, grads: In, velocity: Out, scalars: In, decayed: int, rounded: Out = None) -> None:
        rate, beta, _, _, l2, step, *_ = scalars.tolist()
        for part, twice_l2 in self._parts(len(params), decayed, l2):
            p, v, work = params[part], velocity[part], self._step(params, part)
            np.multiply(v, beta, out=v)
            np.add(v, self._with_l2(p, grads[part], twice_l2), out=v)
            np.multiply(v, rate, out=work)
            np.subtract(p, work, out=p)
            self._round(params, part, rounded)
        self._flush_denormals(velocity, beta, flush_period(beta), step)

    def adam(
        self, params: Out, grads: In, first: Out, second: Out, scalars: In, decayed: int, decoupled: bool = False,
        rounded: Out = None,
    ) -> None:  # fmt: skip
        rate, beta1, beta2, _, l2, step, second_step, *_ = scalars.tolist()
        scale, epsilon = adam_factors(scalars)
        for part, twice_l2 in self._parts(len(params), decayed, l2):
            p, m, v, work = params[part], first[part], second[part], self._step(params, part)
            g = grads[part] if decoupled else self._with_l2(p, grads[part], twice_l2)
            if decoupled and twice_l2:
                np.multiply(p, 1 - rate * (twice_l2 / 2), out=p)
            np.multiply(m, beta1, out=m)
            np.add(m, g, out=m)
            np.multiply(v, beta2, out=v)
            np.multiply(g, g, out=work)
            np.add(v, work, out=v)
            np.sqrt(v, out=work)
            np.add(work, epsilon, out=work)
            np.divide(m, work, out=work)
            np.multiply(work, scale, out=work)
            np.subtract(p, work, out=p)
            self._round(params, part, rounded)
        period = flush_period(beta1)
        self._flush_denormals(first, beta1, period, step)
        self._flush_denormals(second, beta2, period, second_step)

    def _parts(self, size: int, decayed: int, l2: float) -> Iterator[tuple[slice, float]]:
        return parts_of(size, decayed, l2, OPTIMISER_BLOCK)

    def _round(self, params: Array, part: slice, rounded: Array | None) -> None:
        if rounded is not None:
            self.to_bfloat16(params[part], rounded[part])

    def _step(self, params: Array, part: slice) -> Array:
        return self.scratch("step", OPTIMISER_BLOCK, params.dtype)[: part.stop - part.start]

    def _with_l2(self, p: Array, g: Array, twice_l2: float) -> Array:
        """g + 2λp."""
        if not twice_l2:
            return g
        out = self.scratch("decayed", OPTIMISER_BLOCK, p.dtype)[: len(p)]
        np.multiply(p, twice_l2, out=out)
        np.add(out, g, out=out)
        return out

    def _flush_denormals(self, state: Array, beta: float, period: int, step: float) -> None:
        """Zero what would decay below the normal numbers before the next call.

        The moment of a weight whose input is rarely lit decays by β a step into the denormals, where arithmetic is up
        to 40 times slower. A pass every `period` steps keeps it out of there without one in every step.
        """
        if period == 0 or step % period:
            return
        tiny = 2 * float(np.finfo(state.dtype).tiny) / beta**period
        for part, _ in self._parts(len(state), 0, 0.0):
            size = self._step(state, part)
            np.abs(state[part], out=size)
            small = self.scratch("small", OPTIMISER_BLOCK, np.bool_)[: len(size)]
            np.less(size, tiny, out=small)
            np.copyto(state[part], 0, where=small)


def parts_of(size: int, decayed: int, l2: float, block: int) -> Iterator[tuple[slice, float]]:
    """Blocks of [0, size), each with its 2λ: those of the decayed parameters, and the others."""
    first = decayed if l2 else 0  # without the term they are all alike
    for low, high, twice_l2 in ((0, first, 2 * l2), (first, size, 0.0)):
        for start in range(low, high, block):
            yield slice(start, min(start + block, high)), twice_l2


def _planes(x: Array) -> Array:
    """(n, c, …) as (n, c, s)."""
    return x.reshape(*x.shape[:2], -1)


@cache
def _normal() -> Any:
    """Φ: SciPy's, imported neither at start-up nor where nobody asks for it; without SciPy `normal_by_number`."""
    special = optional("scipy.special")
    return normal_by_number if special is None else special.ndtr


def normal_by_number(x: Array, out: Array) -> Array:
    """Φ(x) = erfc(−x/√2)/2 by the C library, a number at a time: 0.1 µs each, ten times as long as SciPy's."""
    np.copyto(out, np.frompyfunc(math.erfc, 1, 1)(x.astype(np.float64) * -math.sqrt(0.5)), casting="unsafe")
    return np.multiply(out, 0.5, out=out)


def flush_period(beta: float) -> int:
    """Steps in which βᵗ falls by 12 decades: how often `_flush_denormals` is worth its pass."""
    return max(16, int(DECADES * math.log(10) / -math.log(beta))) if 0 < beta < 1 else 0


def adam_factors(scalars: Array) -> tuple[float, float]:
    """(c, ε') such that η·m̂/(√v̂ + ε) = c·M/(√V + ε') with M = m/(1−β₁), V = v/(1−β₂)."""
    rate, beta1, beta2, epsilon, _, step, second_step, *_ = scalars.tolist()
    spread = math.sqrt((1 - beta2) / (1 - beta2**second_step))
    return rate * (1 - beta1) / ((1 - beta1**step) * spread), epsilon / spread
