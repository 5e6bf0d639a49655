"""The input of a decomposition, checked, and seen as one tall matrix that is read in chunks.

The routes never touch the caller's array directly: `TallMatrix` hides its dtype (uint8 images stay uint8), its
strides, which side is the longer, and a power-of-two scaling that keeps squares from overflow and underflow.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunet.errors import InputError, ShapeError
from gpunet.linalg.place import on_device

Array = NDArray[Any]
Floats = NDArray[Any]  # float32 or float64, as the caller's dtype asks

CHUNK_BYTES = 22 << 20  # of converted floats: a class of MNIST is one product, and far below the promised 64 MB
LARGEST_INTEGER = 2**53  # float64 counts no further


def result_dtype(dtype: Any) -> np.dtype[Any]:
    """float32 for float16, float32, bool and integers of up to 16 bits, all exact in it; else float64."""
    kind, size = np.dtype(dtype).kind, np.dtype(dtype).itemsize
    small = size <= 2 if kind in "iu" else size <= 4
    return np.dtype(np.float32 if small else np.float64)


def check_matrix(a: Any, what: str = "a") -> Any:
    """`a` as an array (NumPy's, or CuPy's as it is) of a real dtype, of two or more dimensions, none of them 0.

    Raises InputError for other dtypes and for integers that float64 cannot hold, ShapeError for other shapes.
    NaN and infinities are found later, by whoever reads the values first.
    """
    array = a if on_device(a) else np.asarray(a)
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise InputError(
            f"{what} has dtype {array.dtype}: expected real numbers (float32, float64, uint8, integers); "
            "convert it, say with .astype('float64')"
        )
    if array.ndim < 2:
        raise ShapeError(
            f"{what} has shape {array.shape}: expected a matrix (m, n) or a stack (…, m, n); "
            "give it a second dimension, say with [None, :]"
        )
    if 0 in array.shape:
        raise ShapeError(f"{what} is empty, shape {array.shape}: expected at least one row and one column")
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8:
        furthest = max(-int(array.min()), int(array.max()))
        if furthest > LARGEST_INTEGER:
            raise InputError(
                f"{what} holds integers as large as {furthest}, beyond 2**53 where float64 rounds them: "
                "scale them down, or convert with .astype('float64') to accept the rounding"
            )
    return array


def largest(a: Array, what: str = "a") -> float:
    """max|a| of floats. Raises InputError naming the place of the first NaN or infinity."""
    top = max(abs(float(a.max())), abs(float(a.min())))  # NaN and infinities pass through both
    if not np.isfinite(top):
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(a))[0])
        raise InputError(
            f"{what} holds {a[where]} at {list(where)}: expected finite numbers; remove or replace such values"
        )
    return top


HOT_ELEMENTS = 1 << 19  # 2 MB of float32
VIEW_ROWS = 16_384  # few enough that a float32 sums them well, enough to run BLAS at full speed


class TallMatrix:
    """One matrix (m, n), seen as X (long, short), times the factor `scale`; never copied as a whole.

    rows: picks rows of X (a class of samples) without copying them. tall: X is `a` as it stands, even where it is
    wide. dtype: of the results, float32 or float64. flipped: X is aᵀ.
    """

    def __init__(self, a: Array, rows: NDArray[np.intp] | None = None, tall: bool = False, what: str = "a") -> None:
        self.flipped = not tall and a.shape[0] < a.shape[1]
        self.x = a.T if self.flipped else a
        self.what = what
        self.dtype = result_dtype(a.dtype)
        self.scale = 1.0
        self.rows = rows
        self.long = len(self.x) if rows is None else len(rows)
        self.short: int = self.x.shape[1]
        # Chunks are laid out as the source is, so that converting them reads and writes in order.
        self._by_column = self.x.strides[0] < self.x.strides[1]

    def rescale(self) -> None:
        """Set `scale` to the power of two that brings max|X| near 1; raises InputError for NaN and infinities."""
        if self.x.dtype.kind != "f":
            return
        top = largest(self.x.T if self.flipped else self.x, self.what)  # as the caller wrote it, for the message
        limit = 126 if self.dtype == np.float32 else 1000
        self.scale = float(2.0 ** -np.clip(np.frexp(top)[1], -limit, limit)) if top else 1.0

    def chunk_rows(self, dtype: Any) -> int:
        """Rows of a chunk of CHUNK_BYTES; more where chunks are views, which take no memory."""
        if self.rows is None and self.scale == 1 and self.x.dtype == dtype:
            return min(self.long, VIEW_ROWS)
        return int(max(1, min(self.long, CHUNK_BYTES // (self.short * np.dtype(dtype).itemsize))))

    def hot_rows(self) -> int:
        """Rows of a chunk that a second product finds in the cache."""
        return min(self.chunk_rows(self.dtype), max(64, HOT_ELEMENTS // self.short))

    def chunks(self, dtype: Any = None, rows: int | None = None, shift: bool = False) -> Iterator[tuple[slice, Floats]]:
        """(rows of X, those rows as floats, valid until the next); `shift` reads uint8 x as x − 128."""
        dtype = np.dtype(dtype or self.dtype)
        step = rows or self.chunk_rows(dtype)
        plain = self.x.dtype == dtype and self.scale == 1
        buffer: Floats | None = None
        takes = self.rows is not None and self.x.flags.c_contiguous  # of other layouts `take` would copy the whole
        picked = np.empty((min(step, self.long), self.short), self.x.dtype) if takes else None
        for start in range(0, self.long, step):
            where = slice(start, min(start + step, self.long))
            if self.rows is None:
                part = self.x[where]
            elif picked is None:
                part = self.x[self.rows[where]]
            else:  # into memory that is warm: a new array a chunk costs its page faults; "raise" would buffer
                part = np.take(self.x, self.rows[where], axis=0, out=picked[: where.stop - start], mode="clip")
            if plain:
                yield where, part
                continue
            if buffer is None:
                shape = (len(part), self.short)
                buffer = np.empty(shape[::-1], dtype).T if self._by_column else np.empty(shape, dtype)
            out = buffer[: len(part)]
            if shift:  # in two's complement x ^ 128 read as int8 is x − 128
                np.copyto(out, (part ^ np.uint8(128)).view(np.int8))
            elif self.scale != 1:
                np.multiply(part, dtype.type(self.scale), out=out, casting="unsafe")
            else:
                np.copyto(out, part, casting="unsafe")
            yield where, out

    def dense(self) -> Floats:
        """X as a whole, in `dtype`."""
        out = np.empty((self.long, self.short), self.dtype)
        for where, part in self.chunks():
            out[where] = part
        return out

    def times(self, v: Floats) -> Floats:
        """X v, (long, k)."""
        v = v.astype(self.dtype, copy=False)
        out = np.empty((self.long, v.shape[1]), self.dtype)
        for where, part in self.chunks():
            np.matmul(part, v, out=out[where])
        return out

    def normal_times(self, v: Floats) -> Floats:
        """Xᵀ(X v), (short, k), in one pass over X, the chunks summed in float64."""
        total = np.zeros((self.short, v.shape[1]))
        v = v.astype(self.dtype, copy=False)
        for _, part in self.chunks(rows=self.hot_rows()):
            total += part.T @ (part @ v)
        return total

    def transposed_times(self, u: Floats) -> Floats:
        """Xᵀ u, (short, k), the chunks summed in float64."""
        total = np.zeros((self.short, u.shape[1]))
        for where, part in self.chunks():
            total += part.T @ u[where]
        return total
