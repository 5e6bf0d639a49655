"""Moments of samples by blocks: each is centred by its own mean before it is multiplied, and merged without loss.

Bytes are summed exactly instead. All takes the array namespace as `xp`: NumPy's and a GPU's moments are the same code.
On a GPU the data stays where it lies, and as it is: a chunk at a time is converted. Everything but bytes is multiplied
in float64, which GPUs made for computing do as fast as float32 (H200: 67 TFLOP/s both, so that 784×784 of 60,000
samples take 1 to 2 ms), others at a 32nd or 64th of that. Rows are picked by an index array there, or all with None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpunet.backend.blas import interruptible, product
from gpunet.linalg import matrix
from gpunet.linalg.matrix import (
    EPS,
    EXACT_ROWS,
    HALF,
    WHOLE,
    Floats,
    RunningSum,
    TallMatrix,
    shifted_scatter,
    whole_mean,
)

FEW_FEATURES = 64  # whose products in float64 are summed …
FEW_ROWS = 128  # … of so few at a time: BLAS adds 1000 rows of −m to one of 1e4 with errors that all go one way
ROOT_ROWS = 4096  # beyond them, and four times the features, the pieces of a root are folded …
FOLD_ROWS = 256  # … so many at a time: a Householder vector over 600,000 equal rows loses 1e-12, over 2700 4e-14
HOT = 1 << 14  # float64 that lie in the cache
COARSE = 1e-8  # `rounding` of products of float32, not of float64
CHUNK_BYTES = 8 << 20  # of float64 that are centred at a time on the CPU …
GPU_CHUNK_BYTES = 64 << 20  # … and on a GPU
FLOAT32_SQUARES = (1e-20, 1e30)  # the largest sum of squares with which float32 products lose nothing
PIECES = 64  # of a root, of which batches of one row make many
FAR = 2.0**150  # fourth powers of what lies within [1/FAR, FAR], and what residuals are of them, are float64


@dataclass(frozen=True)
class Centred:
    """Σ (x−m)(x−m)ᵀ and the mean m of n samples: all that a covariance or a density matrix follows from.

    scatter + scatter_low (features, features, or 0) and mean + mean_low (features,), float64, NumPy's or a GPU's: what
    adding lost is kept (Møller 1965), so that the error grows with no number of blocks, and the mean is good to a
    rounding of the samples' spread, however large it is. count: samples; largest: |x| of any of them, or above it.

    roots: where they are kept, pieces (…, features) of a matrix A with AᵀA = Σ (x−m)(x−m)ᵀ: centred samples, what
    merging adds, and R of their QR where that became too long (Demmel, Grigori, Hoemmen & Langou 2012, sequential
    TSQR). They show what squares do not. folds: how many QRs one after the other made them.

    dropped: a bound in the 2-norm of what was left out of the scatter (`slices`).

    rounding: γ of |E_ij| ≤ γ √(scatter_ii scatter_jj), E the scatter's error. A sum of b products in precision u is
    off by at most γ_b = b u/(1 − b u) of their sizes (Higham 2002, Accuracy and Stability of Numerical Algorithms,
    ch. 3), by √b u as a rule of thumb (ibid. 2.8; Higham & Mary 2019 prove it for errors of mean zero). Here b is at
    most EXACT_ROWS and γ = (√b + 4) u. Measured with OpenBLAS and 1024 rows, in float32: 0.5 u on average and 16 u at
    worst for normal samples; 1 u and 64 u for samples of two values, whose errors may all go one way.
    """

    scatter: Any
    scatter_low: Any
    mean: Any
    mean_low: Any
    count: int
    rounding: float
    largest: float = 0.0
    roots: tuple[Any, ...] = ()
    folds: int = 0
    dropped: float = 0.0

    def about(self, center: bool) -> Any:
        """Σ (x−m)(x−m)ᵀ, or Σ x xᵀ = Σ (x−m)(x−m)ᵀ + n m mᵀ; (features, features), a new array."""
        scatter = self.scatter + self.scatter_low
        if not center:
            root = (self.mean + self.mean_low) * self.count**0.5
            scatter += root[:, None] * root
        return scatter

    def times(self, factor: float) -> Centred:
        """The moments of factor · x, factor > 0: exactly where it is a power of two."""
        square, lost = factor * factor, 0.0 if np.frexp(factor)[0] == 0.5 else 2 * EPS
        return replace(
            self, scatter=self.scatter * square, scatter_low=self.scatter_low * square, mean=self.mean * factor,
            mean_low=self.mean_low * factor, rounding=self.rounding + lost, largest=self.largest * factor,
            roots=tuple(each * factor for each in self.roots), dropped=self.dropped * square,
        )  # fmt: skip

    def moved(self, put: Callable[[Any], Any]) -> Centred:
        """The same with each array as `put` makes it, on another device."""
        low = self.scatter_low if isinstance(self.scatter_low, float) else put(self.scatter_low)
        return replace(
            self, scatter=put(self.scatter), scatter_low=low, mean=put(self.mean), mean_low=put(self.mean_low),
            roots=tuple(put(each) for each in self.roots),
        )  # fmt: skip


@dataclass(frozen=True)
class Sums:
    """Σ (x−128)(x−128)ᵀ (features, features), Σ (x−128) (features,) and the number of samples of bytes.

    Exact integers in float64, NumPy's or a GPU's: their sums are exact, too.
    """

    products: Any
    total: Any
    count: int

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.products + other.products, self.total + other.total, self.count + other.count)

    def centred(self, xp: Any) -> Centred:
        """As moments. In one sum a mean near 0 would lose its digits to the 128."""
        c, rest = whole_mean(self.total, self.count)
        mean, low = two_sum(c + 128, rest / self.count)
        scatter = shifted_scatter(self.products, self.total, self.count, None, xp)
        return Centred(scatter, 0.0, mean, low, self.count, EPS if self.count <= WHOLE else 2 * EPS, 255.0)

    def moved(self, put: Callable[[Any], Any]) -> Sums:
        """The same with each array as `put` makes it, on another device."""
        return Sums(put(self.products), put(self.total), self.count)


def merge(a: Centred | None, b: Centred, overwrite: bool = False) -> Centred:
    """The moments of two sets of samples together (Chan, Golub & LeVeque 1983).

    M = M_a + M_b + (m_b − m_a)(m_b − m_a)ᵀ n_a n_b / n,  m = m_a + (m_b − m_a) n_b / n.
    New arrays; overwrite: b's may be written into.
    """
    if a is None:
        return b
    count = a.count + b.count
    delta = (b.mean - a.mean) + (b.mean_low - a.mean_low)
    mean, mean_low = two_sum(a.mean, a.mean_low + delta * (b.count / count))
    delta = delta * (a.count * b.count / count) ** 0.5
    scatter, low = _add(a, b, delta, overwrite)
    roots = (*a.roots, *b.roots, delta[None, :]) if a.roots and b.roots else ()
    roots, folds = folded(roots, max(a.folds, b.folds))
    rounding, largest = max(a.rounding, b.rounding, EPS), max(a.largest, b.largest)
    dropped = a.dropped + b.dropped
    return Centred(scatter, low, mean, mean_low, count, rounding, largest, roots, folds, dropped)


def folded(roots: tuple[Any, ...], folds: int, rows: int = ROOT_ROWS) -> tuple[tuple[Any, ...], int]:
    """(the pieces, or where they have more than `rows` R of their QR; how many QRs one after the other that took).

    Blocks are factored first, and their factors again. None is left on a GPU, where QR takes far longer than products.
    """
    short = sum(each.shape[0] for each in roots) <= max(rows, 4 * roots[0].shape[1]) if roots else True
    if short and len(roots) <= PIECES:
        return roots, folds
    if not isinstance(roots[0], np.ndarray):
        return (), 0
    a: Floats = np.concatenate(roots)
    if short:
        return (a,), folds
    most = max(FOLD_ROWS, 4 * a.shape[1])
    while len(a) > most:
        whole, folds = len(a) // most * most, folds + 1
        parts = a[:whole].reshape(-1, most, a.shape[1])
        factors: Any = interruptible(whole * a.shape[1] ** 2, np.linalg.qr, parts, mode="r")
        a = np.concatenate([factors.reshape(-1, a.shape[1]), a[whole:]])
    return (a,), folds


def _add(a: Centred, b: Centred, delta: Any, overwrite: bool) -> tuple[Any, Any]:
    """(M_a + M_b + δ δᵀ, what rounding lost of it).

    By parts that lie in the cache, a fifth of the time of the whole. Beside what products of float32 have lost, even a
    billion additions lose nothing.
    """
    coarse = min(a.rounding, b.rounding) > COARSE
    if not isinstance(a.scatter, np.ndarray) or a.scatter.size <= HOT:
        term = b.scatter + delta[:, None] * delta
        if coarse:
            return a.scatter + term, a.scatter_low + b.scatter_low
        scatter, low = two_sum(a.scatter, term)
        return scatter, low + a.scatter_low + b.scatter_low
    scatter = b.scatter if overwrite else b.scatter.copy()
    low = a.scatter_low + b.scatter_low if coarse else np.empty(scatter.shape)
    step = max(1, HOT // len(delta))
    for start in range(0, len(delta), step):
        part = slice(start, start + step)
        scatter[part] += delta[part, None] * delta
        if coarse:
            scatter[part] += a.scatter[part]
            continue
        scatter[part], lost = two_sum(a.scatter[part], scatter[part])
        for each in (a.scatter_low, b.scatter_low):
            lost += each[part] if isinstance(each, np.ndarray) else each
        low[part] = lost
    return scatter, low


def diagonal(xp: Any, a: Any) -> Any:
    """Of a matrix (d, d)."""
    return xp.reshape(a, (-1,))[:: a.shape[0] + 1]


def two_sum(a: Any, b: Any) -> tuple[Any, Any]:
    """(a + b rounded, what rounding lost), exactly (Knuth 1969)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def block(xp: Any, x: Any, overwrite: bool = False, rows: int = EXACT_ROWS, root: bool = False) -> Centred:
    """The moments of x (n, features), float32 or float64, multiplied in its dtype and summed in float64.

    x is centred by its own mean m rounded to its dtype, and what is left of it, r, subtracted afterwards:
    Σ (x−m−r)(x−m−r)ᵀ = Σ (x−m)(x−m)ᵀ − n r rᵀ. Float32 is multiplied by a power of two where its squares would leave
    its range. NaN and infinities come out as NaN. overwrite: x may be written into. rows: as in `split_products`.
    root: keep `Centred.roots`; on a GPU only of no more samples than features, but multiply exactly there.
    """
    n, narrow = x.shape[0], x.dtype == xp.float32
    if not narrow and x.shape[1] <= FEW_FEATURES:
        rows = min(rows, FEW_ROWS)
    first = xp.astype(_column_sums(xp, x) / n, x.dtype)
    if overwrite:
        x -= first
        centred = x
    else:
        centred = x - first
    exact = root and xp is not np
    scatter = exact_products(xp, centred) if exact else split_products(xp, centred, rows)
    if narrow:
        top = float(xp.max(diagonal(xp, scatter)))
        if not FLOAT32_SQUARES[0] < top < FLOAT32_SQUARES[1]:
            x = xp.astype(centred, xp.float64) + xp.astype(first, xp.float64) if overwrite else x
            size = float(xp.max(xp.abs(x)))
            if 0 < size < np.inf and not 0.25 < size < 4:
                factor = 2.0 ** float(np.frexp(size)[1])
                scaled = xp.astype(xp.astype(x, xp.float64) / factor, xp.float32)
                return block(xp, scaled, True, rows).times(factor)
    rest = _column_sums(xp, centred) / n
    mean, low = two_sum(xp.astype(first, xp.float64), rest)
    roots, folds = folded((centred - rest,) if root and (not exact or n <= x.shape[1]) else (), 0)
    rest = rest * n**0.5
    terms = n / rows if exact else min(n, rows)
    rounding = (terms**0.5 + 4) * float(np.finfo(np.float32 if narrow else np.float64).eps) / 2
    if xp is not np or (rest * rest > 1e-3 * rounding * np.diagonal(scatter)).any():  # else it is nothing
        scatter = less(xp, scatter, rest[None, :], rounding)
    return Centred(scatter, 0.0, mean, low, n, rounding, roots=roots, folds=folds)


def less(xp: Any, scatter: Any, left: Any, rounding: float) -> Any:
    """scatter − leftᵀ left, left (…, features) what a mean rounded to the samples' dtype left of the samples.

    Features that are constant become 0, not the rounding of this difference, of either sign: samples that are not lie
    on a grid of that dtype, so that their own scatter is at least as large as what is taken away.
    """
    taken = left.T @ left
    scatter = scatter - taken
    some = xp.astype(diagonal(xp, scatter) > 4 * rounding * diagonal(xp, taken), xp.float64)
    return scatter * (some[:, None] * some)


def _column_sums(xp: Any, x: Any) -> Any:
    """Σ x over the rows (features,), float64, EXACT_ROWS at a time: NumPy adds the rows one after the other."""
    whole = x.shape[0] // EXACT_ROWS * EXACT_ROWS
    total = xp.sum(x[whole:, :], axis=0, dtype=xp.float64)
    if whole:
        parts = xp.sum(xp.reshape(x[:whole, :], (-1, EXACT_ROWS, x.shape[1])), axis=1, dtype=xp.float64)
        total = total + xp.sum(parts, axis=0)
    return total


def blocks(xp: Any, x: Any, rows: Any = None, scale: float = 1.0, root: bool = False) -> Centred:
    """The moments of scale · x (n, features) of any dtype, or of some rows of it; products in float64.

    root: as in `block`.
    """
    total: Centred | None = None
    for chunk in chunks(xp, x, rows, 8):
        part = xp.astype(chunk, xp.float64)  # a copy
        total = merge(total, block(xp, part * scale if scale != 1 else part, True, root=root), overwrite=True)
    assert total is not None
    return total


def chunks(xp: Any, x: Any, rows: Any, item: int) -> Iterator[Any]:
    """Some rows of x at a time, as they are: so many that a chunk holds them at `item` bytes an element."""
    bytes_each = CHUNK_BYTES if xp is np else GPU_CHUNK_BYTES
    step = max(EXACT_ROWS, bytes_each // (item * x.shape[1]) // EXACT_ROWS * EXACT_ROWS)
    count = x.shape[0] if rows is None else rows.shape[0]
    for start in range(0, count, step):
        stop = min(start + step, count)
        yield x[start:stop, :] if rows is None else xp.take(x, rows[start:stop], axis=0)


def split_products(xp: Any, a: Any, rows: int = EXACT_ROWS) -> Any:
    """AᵀA (features, features), float64, of A (n, features): of `rows` rows each in A's dtype, then summed.

    EXACT_ROWS are so few that of bytes less 128 they are exact in float32, and others are good to 32 roundings.
    """
    if xp is np:
        if len(a) <= rows:
            return product(a.T, a).astype(np.float64, copy=False)
        total = RunningSum((a.shape[1], a.shape[1]))
        for start in range(0, len(a), rows):
            total.add_inner(a[start : start + rows], a[start : start + rows])
        return total.value
    whole, found = a.shape[0] // rows * rows, 0.0
    if whole:
        stack = xp.reshape(a[:whole, :], (-1, rows, a.shape[1]))
        found = xp.sum(xp.matmul(xp.permute_dims(stack, (0, 2, 1)), stack), axis=0, dtype=xp.float64)
    if whole < a.shape[0]:
        rest = a[whole:, :]
        found = found + xp.astype(xp.matmul(rest.T, rest), xp.float64)
    return found


def exact_products(xp: Any, a: Any) -> Any:
    """AᵀA of float64, rounded as it is summed, not as it is multiplied, at three times the work.

    A = H + L, H the leading 21 bits of each column: EXACT_ROWS products of H are exact (2¹⁰ · 2⁴² < 2⁵³), and what the
    others round is 2⁻²¹ of it (Ozaki, Ogita, Oishi & Rump 2012).
    """
    top = xp.max(xp.abs(a), axis=0)
    power = xp.ceil(xp.log2(xp.where(top > 0, top, xp.ones_like(top)))) + 1
    big = HALF * 2.0 ** (power - 21)
    high = (a + big) - big
    low = a - high
    cross = xp.matmul(high.T, low)
    return split_products(xp, high) + (cross + cross.T + xp.matmul(low.T, low))


def exact_sums(xp: Any, x: Any, rows: Any = None) -> Sums:
    """`Sums` of bytes (n, features), or of some rows of them."""
    features = x.shape[1]
    if xp is np:
        return Sums(*matrix.exact_sums(TallMatrix(x, rows, tall=True)), len(x if rows is None else rows))
    total = xp.zeros((features, features), dtype=xp.float64)
    first, count = xp.zeros(features, dtype=xp.float64), 0
    for chunk in chunks(xp, x, rows, 4 * max(1, features // EXACT_ROWS)):
        shifted = xp.astype(chunk, xp.float32) - 128
        total = total + split_products(xp, shifted)
        first = first + xp.sum(shifted, axis=0, dtype=xp.float64)
        count += shifted.shape[0]
    return Sums(total, first, count)


def sums(xp: Any, x: Any, rows: Any = None, scale: float = 1.0) -> Centred:
    """The moments of scale · x (n, features), or of some rows of it; bytes, which no scale changes, exactly."""
    if x.dtype == xp.uint8:
        return exact_sums(xp, x, rows).centred(xp)
    return blocks(xp, x, rows, scale)


def safe_scale(top: float) -> float:
    """The power of two that brings numbers of up to `top` near 1; 1 where fourth powers are in range anyway."""
    return 1.0 if 1 / FAR < top < FAR or not top else float(2.0 ** -np.clip(np.frexp(top)[1], -1000, 1000))
