"""The input of a decomposition, checked, and seen as one tall matrix that is read in chunks; its Gram matrix.

The routes never touch the caller's array directly: `TallMatrix` hides its dtype (uint8 images stay uint8), its
strides, which side is the longer, a mean to be subtracted, and a power-of-two scaling that keeps squares from overflow
and underflow. What is summed over the long side is summed in float64, by `RunningSum` from chunk to chunk: a sum of a
million equal numbers is as good as one of ten.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunet.backend import integers
from gpunet.backend.blas import product
from gpunet.checks import check_exact, is_bfloat16, on_host, real_array
from gpunet.errors import InputError, ShapeError
from gpunet.linalg.sources import READ_BYTES, Source, ahead, in_one_go, spans

Array = NDArray[Any]
Floats = NDArray[Any]  # float32 or float64, as the caller's dtype asks
CHUNK_BYTES = 22 << 20  # of converted numbers: a class of MNIST is one product, and far below the promised 64 MB
VIEW_ROWS = 16_384  # of chunks that are views, which take no memory: enough to run BLAS at full speed
PART_ROWS = 256  # that one sum of a thin matrix takes
SMALL_KERNEL = 1 << 20  # multiplications up to which OpenBLAS may add up any number of rows one after the other
THIN = 256  # sums that BLAS may take in one go, and does where it multiplies with a vector
HOT_ELEMENTS = 1 << 20  # 8 MB of float64: what a second product finds in the cache, and rows enough for BLAS
WHOLE_ELEMENTS = 1 << 18  # up to 2 MB of float64 are converted once, and kept: then nothing is gained by chunks
EXACT_ROWS = 1024  # rows of (uint8 − 128)² ≤ 2¹⁴ that a float32 sums exactly: 2¹⁰ · 2¹⁴ = 2²⁴
# Below this width EXACT_ROWS are too little work for one call; float64 products of long chunks are faster, as exact.
NARROW = 128
WHOLE = 1 << 23  # samples of which n Σ (y−c)(y−c)ᵀ, at most 2¹⁶ n², fits an int64, as does 2¹⁶ n² d up to WHOLE²
HALF = 3 * 2.0**51  # c + HALF − HALF is c rounded to a whole number
EPS = float(np.finfo(np.float64).eps)


@cache
def result_dtype(dtype: Any) -> np.dtype[Any]:
    """float32 for float16, float32, bool and integers of up to 16 bits, all exact in it; else float64."""
    kind, size = np.dtype(dtype).kind, np.dtype(dtype).itemsize
    small = size <= 2 if kind in "iu" else size <= 4
    return np.dtype(np.float32 if small else np.float64)


def check_matrix(a: Any, what: str = "a", narrow: bool = False) -> Any:
    """`a` as an array (NumPy's, or CuPy's or a `Source` as it is) of a real dtype, of two or more dimensions, none 0.

    narrow: a matrix of bfloat16 stays one, for `TallMatrix` to convert a chunk at a time, as it does float16.

    Raises InputError for other dtypes and for integers that float64 cannot hold, ShapeError for other shapes.
    NaN and infinities are found later, by whoever reads the values first.
    """
    as_it_is = isinstance(a, Source) or (narrow and type(a) is np.ndarray and a.ndim == 2 and is_bfloat16(a.dtype))
    array: Any = a if as_it_is else real_array(a, what)
    if array.ndim < 2:
        raise ShapeError(
            f"{what} has shape {array.shape}: expected a matrix (m, n) or a stack (…, m, n); "
            "give it a second dimension, say with [None, :]"
        )
    if 0 in array.shape:
        raise ShapeError(f"{what} is empty, shape {array.shape}: expected at least one row and one column")
    if not isinstance(a, Source):  # which looks as it reads
        check_exact(array, what)
    return array


def largest(xp: Any, a: Any, what: str = "a", rows: Any = None) -> float:
    """max|a| of a matrix, or of some of its rows; of a GPU two numbers a chunk are read back, at once.

    Raises InputError that says where the first NaN or infinity of `a` stands.
    """
    if a.dtype == xp.uint8:
        return 255.0
    parts: Iterable[Any] = [a]
    if rows is not None:
        step = max(1, CHUNK_BYTES // (a.dtype.itemsize * a.shape[1]))
        parts = (xp.take(a, rows[start : start + step], axis=0) for start in range(0, rows.shape[0], step))
    ends = xp.stack([end for part in parts for end in (xp.max(part), xp.min(part))])
    top = float(np.max(np.abs(on_host(ends).astype(np.float64))))  # NaN wins
    if not np.isfinite(top):
        bad = xp.astype(~xp.isfinite(a), xp.int8)
        row, column = divmod(int(xp.argmax(xp.reshape(bad, (-1,)))), a.shape[1])
        raise InputError(
            f"{what} holds {float(a[row, column])} at [{row}, {column}]: expected finite numbers; remove or replace "
            "such values"
        )
    return top


def inner(a: Floats, b: Floats, out: Floats | None = None) -> Floats:
    """aᵀb (n, p) of a (rows, n) and b (rows, p), perhaps in `out`; long sums by parts, and the parts in pairs.

    BLAS adds up as many rows as its kernels like, those of thin matrices one after the other: rounding errors of equal
    numbers then all go one way, n ε/4 instead of √n ε. Of wide ones it takes a few hundred at a time.
    """
    rows, n, p = len(a), a.shape[1], b.shape[1]
    thin = n * p <= THIN or min(n, p) == 1 or rows * n * p <= SMALL_KERNEL
    if rows <= 4 * PART_ROWS or not thin:
        return product(a.T, b, out)
    count, rest = divmod(rows, PART_ROWS)
    parts = np.matmul(
        a[: rows - rest].reshape(count, PART_ROWS, n).transpose(0, 2, 1), b[: rows - rest].reshape(count, PART_ROWS, p)
    )
    total = np.zeros((n, p))
    while len(parts) > 1:
        half = len(parts) // 2
        if len(parts) % 2:
            total += parts[-1]
        parts = parts[:half] + parts[half : 2 * half]
    return np.asarray(parts[0] + (total + a[rows - rest :].T @ b[rows - rest :]))


class RunningSum:
    """A sum of arrays in float64 whose error does not grow with their number.

    What an addition lost goes into the next (Kahan 1965), of AT_ONCE parts together, which then costs next to nothing.
    """

    AT_ONCE = 32

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._recent, self._count = np.zeros(shape), 0
        self._product: Floats | None = None
        self._total: Floats | None = None
        self._lost: Floats | None = None

    def add(self, part: Floats) -> None:
        """Add one array; it is not kept."""
        if self._count == self.AT_ONCE:
            self._settle()
        self._recent += part
        self._count += 1

    def add_inner(self, a: Floats, b: Floats) -> None:
        """Add aᵀb, of the shape of the sum, in the precision of a and b."""
        dtype = np.result_type(a, b)
        if self._count == 0 and self._total is None and dtype == np.float64:
            self._recent, self._count = inner(a, b, self._recent), 1
            return
        if self._product is None:
            self._product = np.empty(self._recent.shape, dtype)
        self.add(inner(a, b, self._product))

    def _settle(self) -> None:
        if self._total is None or self._lost is None:
            self._total, self._lost = self._recent.copy(), np.zeros(self._recent.shape)
        else:
            y = self._recent - self._lost
            total = self._total + y
            self._lost = (total - self._total) - y
            self._total = total
        self._recent[...] = 0
        self._count = 0

    @property
    def value(self) -> Floats:
        """The sum so far; not to be written to."""
        if self._total is None:
            return self._recent
        self._settle()
        return self._total


class TallMatrix:
    """One matrix (samples, features) as X (long, short), times the factor `scale`; never copied as a whole.

    rows: picks rows of `a` (a class of samples) without copying them. mean: (features,), float64, is subtracted from
    every row. tall: X is `a` as it stands, even where it is wide. dtype: of the results, float32 or float64. flipped:
    X is the transpose. Of a `Source`, which is read again for every pass, neither rows nor a mean can be given.
    """

    def __init__(
        self,
        a: Any,
        rows: NDArray[np.intp] | None = None,
        tall: bool = False,
        what: str = "a",
        mean: NDArray[np.float64] | None = None,
    ) -> None:
        count, features = int(a.shape[0] if rows is None else len(rows)), int(a.shape[1])
        self.flipped = not tall and count < features
        self.long, self.short = (features, count) if self.flipped else (count, features)
        self.a: Array = a
        self.rows, self.what, self.mean = rows, what, mean
        self.source = a if isinstance(a, Source) else None
        self.x: Array = a.T if self.flipped and not self.source else a
        self.dtype = result_dtype(a.dtype)
        self.scale = 1.0
        # Chunks are laid out as the source is, so that converting them reads and writes in order.
        strides = a.strides[::-1] if self.flipped else a.strides
        self._by_column = strides[0] < strides[1]
        self.small = self.long * self.short <= WHOLE_ELEMENTS  # kept as a whole, in float64, whatever is asked for
        self._whole: Floats | None = None
        # By the precision of the products; routes share them.
        self.grams: dict[str, Floats] = {}
        self.eigen: dict[str, tuple[Floats, Floats]] = {}
        self.iterates = True  # until an iteration on it was seen to go badly

    @property
    def exact(self) -> bool:
        """Whether X is bytes as they are, whose Gram matrix is exact."""
        return self.a.dtype == np.uint8

    @property
    def floats(self) -> bool:
        """Whether X may hold NaN and infinities, or what is out of range."""
        return self.a.dtype.kind == "f" or is_bfloat16(self.a.dtype)

    @property
    def float64_products(self) -> bool:
        """Whether its products are as good as those in float64 anyway."""
        return self.exact or self.small or self.dtype == np.float64

    def finest(self) -> str:
        """The precision of the best Gram matrix at hand."""
        return "float64" if "float64" in self.grams else "float32"

    def eigenvalues(self, precision: str) -> Floats | None:
        """Those of XᵀX that were computed, the largest first."""
        return self.eigen[precision][0] if precision in self.eigen else None

    def rescale(self) -> None:
        """Set `scale` to the power of two that brings max|a| near 1, where σ⁴ might leave the range of numbers.

        Elsewhere it stays 1, and passes over X copy nothing. Raises InputError for NaN and infinities.
        """
        if not self.floats:
            return
        top = self.source.largest() if self.source else largest(np, self.a, self.what, self.rows)
        limit, safe = (126, 1e4) if self.dtype == np.float32 else (1000, 1e50)
        if not top or 1 / safe < top < safe:
            return
        self.scale = float(2.0 ** -np.clip(np.frexp(top)[1], -limit, limit))
        self._whole = None
        self.grams.clear()
        self.eigen.clear()

    def as_it_lies(self, dtype: Any) -> bool:
        """Whether chunks of this dtype are views, which take neither time nor memory."""
        as_it_is = self.rows is None and self.mean is None and self.scale == 1 and self.a.dtype == dtype
        return as_it_is and not self.source

    def chunk_rows(self, dtype: Any) -> int:
        """Rows of a chunk of CHUNK_BYTES; more where chunks are views, which take no memory."""
        if self.as_it_lies(dtype):
            return min(self.long, VIEW_ROWS)
        return int(max(1, min(self.long, CHUNK_BYTES // (self.short * np.dtype(dtype).itemsize))))

    def hot_rows(self) -> int:
        """Rows of a chunk that a second product finds in the cache."""
        return min(self.long, max(64, HOT_ELEMENTS // self.short))

    def chunks(self, dtype: Any = None, rows: int | None = None, shift: bool = False) -> Iterator[tuple[slice, Floats]]:
        """(rows of X, those rows as floats, valid until the next); `shift` reads uint8 a as a − 128, mean and all."""
        dtype = np.dtype(dtype or self.dtype)
        if self.small and not shift:
            yield slice(0, self.long), self.whole()
        else:
            yield from self._parts(dtype, rows or self.chunk_rows(dtype), shift)

    def whole(self) -> Floats:
        """X of a `small` one, in float64."""
        if self._whole is None:
            self._whole = next(self._parts(np.dtype(np.float64), self.long, False))[1]
        return self._whole

    def _parts(self, dtype: np.dtype[Any], step: int, shift: bool) -> Iterator[tuple[slice, Floats]]:
        plain = self.mean is None and self.scale == 1 and self.a.dtype == dtype
        buffer: Floats | None = None
        takes = (
            self.rows is not None and not self.flipped and self.a.flags.c_contiguous
        )  # of others it copies the whole
        picked = np.empty((min(step, self.long), self.short), self.a.dtype) if takes else None
        for where, part in self.pieces(step, picked):
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
            if self.mean is not None and not shift:
                mean = self.mean * self.scale
                np.subtract(out, mean[where, None] if self.flipped else mean, out=out, casting="unsafe")
            yield where, out

    def pieces(self, step: int, picked: Array | None = None) -> Iterator[tuple[slice, Array]]:
        """(rows of X, those rows as they are); of a source several steps are read in one go, ahead of what is done."""
        if self.source is None:
            for start in range(0, self.long, step):
                where = slice(start, min(start + step, self.long))
                yield where, self.some(where, picked)
            return
        read = self.source.columns if self.flipped else self.source.rows
        most = in_one_go(self.short * self.a.dtype.itemsize, step)
        for (begin, end), block in ahead(read, spans(0, self.long, most)):
            for start, stop in spans(begin, end, step):
                own = slice(start - begin, stop - begin)
                yield slice(start, stop), block[:, own].T if self.flipped else block[own]

    def some(self, where: slice, picked: Array | None = None) -> Array:
        """Rows of X as they are, in `picked` where it is given."""
        if self.rows is None:
            return self.x[where]
        if self.flipped:
            return self.a[:, where][self.rows].T
        rows = self.rows[where]
        if picked is None:
            return self.a[rows]
        # Into memory that is warm: a new array a chunk costs its page faults; mode "raise" would buffer.
        return np.take(self.a, rows, axis=0, out=picked[: len(rows)], mode="clip")

    def row_mean(self) -> NDArray[np.float64]:
        """The mean of the samples (features,), in float64. Raises InputError for NaN and infinities."""
        for _ in range(2):
            with np.errstate(over="ignore", invalid="ignore"):
                mean = self._row_mean()
            if np.isfinite(mean).all():
                break
            self.rescale()  # for sums that overflow; raises for NaN
        return mean / self.scale

    def _row_mean(self) -> NDArray[np.float64]:
        parts = self.chunks(np.float64, self.hot_rows())
        if self.flipped:
            return np.concatenate([part.mean(axis=1) for _, part in parts])
        total = RunningSum((self.short,))
        for _, part in parts:
            total.add(inner(np.ones((len(part), 1)), part)[0])
        return np.asarray(total.value / self.long)

    def energy(self) -> float:
        """‖X‖²_F, of X as it is scaled now."""
        for precision in ("float64", "float32"):
            if precision in self.grams:
                return float(np.trace(self.grams[precision]))
        total = RunningSum(())
        for _, part in self.chunks(np.float64, self.hot_rows()):
            total.add(np.einsum("ij,ij->", part, part))
        return float(total.value)

    def dense(self, dtype: Any = None) -> Floats:
        """X as a whole."""
        out = np.empty((self.long, self.short), dtype or self.dtype)
        for where, part in self.chunks(out.dtype):
            out[where] = part
        return out

    def normal_times(self, v: Floats) -> Floats:
        """Xᵀ(X v), (short, k), in one pass over X; products in `dtype`, summed in float64."""
        total = RunningSum((self.short, v.shape[1]))
        v = v.astype(np.float64 if self.small else self.dtype, copy=False)
        for _, part in self.chunks(self.dtype, self.hot_rows()):
            total.add_inner(part, part @ v)
        return total.value

    def transposed_times(self, u: Floats) -> Floats:
        """Xᵀ u, (short, k), in float64."""
        total = RunningSum((self.short, u.shape[1]))
        for where, part in self.chunks(np.float64, self.hot_rows()):
            total.add_inner(part, u[where])
        return total.value


def gram(x: TallMatrix, precision: str) -> Floats:
    """XᵀX (short, short), float64, from products in `precision`; of bytes it is exact.

    X is rescaled where its squares would leave the range of a float32: a look at the diagonal tells, and saves a pass
    over X. Raises InputError for NaN and infinities, which the diagonal shows too. Kept: routes share it.
    """
    if precision in x.grams:
        return x.grams[precision]
    if x.exact:
        total = _gram_of_bytes(x)
    else:
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            total = _gram_of_floats(x, precision)
            top = float(np.diagonal(total).max())  # NaN wins
        if x.floats and x.scale == 1 and not 1e-20 < top < 1e30:
            x.rescale()
            if x.scale != 1:
                total = _gram_of_floats(x, precision)
    x.grams[precision] = total
    return total


def _gram_of_floats(x: TallMatrix, precision: str) -> Floats:
    if x.small:
        return inner(x.whole(), x.whole())
    total = RunningSum((x.short, x.short))
    for _, chunk in x.chunks(precision):
        total.add_inner(chunk, chunk)
    return total.value


def _gram_of_bytes(x: TallMatrix) -> Floats:
    """From the exact sums of a − 128; about the mean of the samples, which are X's rows, or columns where flipped."""
    raw, sums = exact_sums(x)
    if x.mean is None or not x.flipped:
        return np.asarray(shifted_scatter(raw, sums, x.long, 0.0 if x.mean is None else None))
    n = x.short
    if n * n * x.long > WHOLE**2:  # a Gram matrix of gigabytes
        means = raw.mean(axis=0)
        return np.asarray(raw - means[:, None] - means + means.mean())
    whole = raw.astype(np.int64)  # n² (1 − 11ᵀ/n) raw (1 − 11ᵀ/n) is whole: of dark pictures little of raw is left
    rows = whole.sum(axis=0)
    whole *= n * n
    whole += rows.sum()
    rows *= n
    whole -= rows[:, None]
    whole -= rows
    return np.asarray(whole / n**2)


def exact_sums(x: TallMatrix) -> tuple[Floats, Floats]:
    """Σ (x−128)(x−128)ᵀ (short, short) and Σ (x−128) (short,) of uint8 data, both exact integers in float64.

    x − 128 lies in [−128, 127], so a float32 sums EXACT_ROWS products of it exactly, whatever the order, and the
    chunks' sums are added in float64: half the time of float64 products, no rounding at all. An integer engine takes
    a third of that. Of a source block by block, which changes no bit.
    """
    if x.source:
        total, sums = np.zeros((x.short, x.short)), np.zeros(x.short)
        for _, block in x.pieces(max(1, READ_BYTES // x.short)):
            one, other = exact_sums(TallMatrix(block, tall=True))
            total += one
            sums += other
        return total, sums
    if integers.pays(x.long, x.short):
        return integers.byte_sums(x.some, x.long, x.short)
    wide = x.short >= NARROW
    dtype = np.float32 if wide else np.float64
    rows = min(x.long, EXACT_ROWS if wide else x.chunk_rows(dtype))
    total = np.zeros((x.short, x.short))
    sums = np.zeros(x.short)
    part: Floats = np.empty((x.short, x.short), dtype)
    ones = np.ones(rows, dtype)
    for _, chunk in x.chunks(dtype, rows=rows, shift=True):
        product(chunk.T, chunk, part)
        total += part
        sums += np.matmul(ones[: len(chunk)], chunk)
    return total, sums


def shifted_scatter(raw: Any, sums: Any, count: int, about: float | None, xp: Any = np) -> Any:
    """Σ (x−about)(x−about)ᵀ from `exact_sums`; about the mean when None.

    With y = x − 128 and y − c = x − about: Σ (y−c)(y−c)ᵀ = Σ y yᵀ − c (Σy 1ᵀ + 1 Σyᵀ) + n c² 11ᵀ. About the mean, c is
    first the whole numbers nearest to it. That is exact, and n Σ (x−m)(x−m)ᵀ = n Σ (y−c)(y−c)ᵀ − r rᵀ with r = Σ (y−c)
    is a whole number again, computed as one where it fits: every element is good to ε of its own size.
    """
    if about is not None:
        c = about - 128
        return raw - c * (sums[:, None] + sums[None, :]) + c * c * count
    c, rest = whole_mean(sums, count)
    raw = raw - (c[:, None] * sums + sums[:, None] * c) + (c * count)[:, None] * c
    if count > WHOLE:
        return raw - rest[:, None] * (rest / count)
    r = xp.astype(rest, xp.int64)
    return xp.astype(xp.astype(raw, xp.int64) * count - r[:, None] * r, xp.float64) / count


def whole_mean(sums: Any, count: int) -> tuple[Any, Any]:
    """(c, Σ − n c): the whole numbers nearest to a mean of whole numbers, and what they leave, exactly."""
    c = (sums / count + HALF) - HALF
    return c, sums - c * count
