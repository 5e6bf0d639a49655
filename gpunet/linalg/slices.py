"""Sums of products that are the same bits for any batch size, order, number of threads, device and merge.

Numbers are cut into slices on one absolute grid: slice b of x is a whole number of units 2^(21 b − 12), at most 2²⁰ of
them, the nearest to what the slices above it left. Products of slices are whole numbers that float64 sums exactly, 8192
at a time, and int64 beyond: no order leaves a trace. A column keeps the slices from its top, the one that its largest
|x| needs, down to a bottom that follows from the same number. Both only rise when a larger value comes; what is dropped
then had been dropped as well had it come first. And x has nothing in slices above the top that it needs itself, as they
hold what is nearest: it does not matter where one begins. This is the indexed sum of Demmel & Nguyen (2015, Parallel
reproducible summation), of products.

So Σ x̂ x̂ᵀ is exact, x̂ the samples rounded to 2⁻³⁰ of their column's largest, of float64 2⁻⁶⁰ (`PRECISION`). Of float32
columns with a largest number of 1/16 to 256 take two slices, others three; of float64 three or four.

Products of 21 bits by 21 are nine of int8: 23 ms with VNNI where BLAS takes 17 in float64 (1337×784, one core of an
EPYC). So no integer engine is asked; float64 is one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunet.backend.blas import product
from gpunet.checks import on_host
from gpunet.linalg.matrix import Floats
from gpunet.linalg.moments import CHUNK_BYTES, GPU_CHUNK_BYTES, Centred, two_sum

WIDTH, OFFSET = 21, -12  # bits of a slice; the exponent of slice 0's unit
ROWS = 1 << 13  # of products of at most 2⁴⁰: 2⁵³
LOWEST = -47  # top slice, whose unit is 2⁻⁹⁹⁹: what others are multiplied by is float64, too
PRECISION = {"float32": 30, "float64": 60}  # bits below a column's largest number that are kept at least
LENGTH = {name: 1 - (-bits // WIDTH) for name, bits in PRECISION.items()}  # slices that they take at most
PENDING = 1 << 21  # samples of whose products, 2⁴⁰ each, two sums together fit an int64
CARRY = 2 * WIDTH  # bits that stay when the others are carried
LOW = (1 << CARRY) - 1
STRIPE = 1 << 15  # elements that are read at a time: their digits lie in the cache

Integers = NDArray[np.int64]
Products = dict[tuple[int, int], Integers]
Number = dict[int, Any]  # Σ_k number[k] 2^(−21 k): arrays of int64, or Python's integers


@dataclass(frozen=True)
class Slices:
    """Exact sums of slices, and of their products.

    precision: of `PRECISION`; count: samples; largest: (features,), max|x| of each column; products: (t, u), t ≤ u, ->
    Σ s_t s_uᵀ (features, features), slices counted from each column's top, where it is not 0; carries: what of that was
    carried, in units of 2⁴²; pending: samples since; sums: (slices, features), Σ s_t; lost: (features,), whether
    rounding has changed a number of the column. All on the host.
    """

    precision: str
    count: int
    largest: Floats
    products: Products
    carries: Products
    pending: int
    sums: Integers
    lost: NDArray[np.bool_]

    def __add__(self, other: Slices) -> Slices:
        """Both, neither of which is changed."""
        largest = np.maximum(self.largest, other.largest)
        a, b = self._raised(largest), other._raised(largest)
        products, carries = _added(a.products, b.products), _added(a.carries, b.carries)
        pending = a.pending + b.pending
        if pending > PENDING:
            carries = _added(carries, {pair: each >> CARRY for pair, each in products.items()})
            products = {pair: each & LOW for pair, each in products.items()}
            pending = 4
        return Slices(
            a.precision, a.count + b.count, largest, products, carries, pending, a.sums + b.sums, a.lost | b.lost
        )

    def _raised(self, largest: Floats) -> Slices:
        """The same, counted from the tops of columns that may be larger."""
        up, length = _tops(largest) - _tops(self.largest), len(self.sums)
        if not up.any():
            return self
        below = np.arange(length)[:, None] - up
        sums = np.where(below >= 0, np.take_along_axis(self.sums, np.maximum(below, 0), axis=0), 0)
        products, carries = (_lowered(each, up, length) for each in (self.products, self.carries))
        return replace(self, products=products, carries=carries, sums=sums, lost=self._lost(length - up))

    def _lost(self, kept: Integers) -> NDArray[np.bool_]:
        """`lost` where each column keeps no more than so many slices."""
        lost = self.lost
        for t in range(len(self.sums)):
            for each in (self.products, self.carries):
                if (t, t) in each:
                    lost = lost | ((np.diagonal(each[t, t]) != 0) & (t >= kept))
        return lost

    def rounded(self) -> Slices:
        """Without what lies below the bottoms, of samples that came when they were lower."""
        kept = _tops(self.largest) - _bottoms(self.largest, self.precision) + 1
        below = np.arange(len(self.sums))[:, None] >= kept

        def some(products: Products) -> Products:
            return {
                (t, u): np.where(below[t][:, None] | below[u], 0, each) if below[[t, u]].any() else each
                for (t, u), each in products.items()
            }

        return replace(
            self, products=some(self.products), carries=some(self.carries), sums=np.where(below, 0, self.sums),
            lost=self._lost(kept),
        )  # fmt: skip

    def finer(self) -> Slices:
        """The same of precision float64."""
        missing = LENGTH["float64"] - len(self.sums)
        sums = np.concatenate([self.sums, np.zeros((missing, len(self.largest)), np.int64)])
        return replace(self.rounded(), precision="float64", sums=sums)

    def centred(self) -> Centred:
        """As moments: n Σ (x−m)(x−m)ᵀ = n Σ x xᵀ − r rᵀ, r = Σ x, in whole numbers, then rounded to two float64."""
        own, features, n = self.rounded(), len(self.largest), self.count
        unit = 2.0 ** (WIDTH * _tops(self.largest) + OFFSET)
        count, total = _digits({0: n}), _digits(dict(enumerate(own.sums)))
        scatter, low = np.empty((2, features, features))
        step = max(1, STRIPE // features)
        for start in range(0, features, step):
            rows = slice(start, start + step)
            found: Number = {}
            for high, products in ((0, own.products), (2, own.carries)):
                for (t, u), each in products.items():
                    for part in (each[rows], each.T[rows])[: 1 + (t != u)]:
                        _put(found, t + u - high, part & LOW)
                        _put(found, t + u - high - 2, part >> CARRY)
            difference: Number = {}
            for k, each in _digits(found).items():
                for p, digit in count.items():
                    _put(difference, k + p, each * digit)
            for p, mine in total.items():
                for q, each in total.items():
                    _put(difference, p + q, mine[rows, None] * -each)
            for out, each in zip((scatter, low), _quotient(_digits(difference), n), strict=True):
                out[rows] = each * unit[rows, None] * unit
        mean, mean_low = (np.zeros(features) + each * unit for each in _quotient(total, n))
        half = np.where(own.lost, 2.0 ** (WIDTH * _bottoms(self.largest, self.precision) + OFFSET - 1), 0)
        return Centred(
            scatter, low, mean, mean_low, n, 2.0**-96, float(self.largest.max()),
            rounded=float(np.linalg.norm(half) * n**0.5),
        )  # fmt: skip


def slices(xp: Any, x: Any, precision: str) -> Slices:
    """`Slices` of x (n, features) of any real dtype, finite and at most 2⁵⁰⁰."""
    if x.shape[0] > PENDING:
        return slices(xp, x[:PENDING, :], precision) + slices(xp, x[PENDING:, :], precision)
    features, on_cpu = x.shape[1], xp is np
    step = min(ROWS, max(256, (CHUNK_BYTES if on_cpu else GPU_CHUNK_BYTES) // (8 * features)))
    few = max(16, 4 * STRIPE // features) if on_cpu else step
    parts = [x[start : start + step, :] for start in range(0, x.shape[0], step)]
    largest = np.zeros(features)
    for part in parts:
        for end in (xp.max(part, axis=0), xp.min(part, axis=0)):
            largest = np.maximum(largest, np.abs(on_host(end).astype(np.float64)))
    tops, length = _tops(largest), LENGTH[precision]
    kept, lost = tops - _bottoms(largest, precision), np.zeros(features, bool)
    columns = [np.flatnonzero(kept >= t) for t in range(int(kept.max()) + 1)]
    picks = [None if len(each) == features else xp.asarray(each) for each in columns]
    cut = [xp.empty((min(step, x.shape[0]), len(each))) for each in columns]
    exponents = -(WIDTH * tops + OFFSET)
    scale, fades = xp.asarray(2.0**exponents), precision == "float64" and exponents.min() < 0
    multiply = product if on_cpu else xp.matmul
    found: dict[tuple[int, int], Any] = {}
    total: dict[tuple[int, int], Any] = {}
    sums, rows = np.zeros((length, features), np.int64), 0
    for number, part in enumerate(parts):
        depth = 1
        for start in range(0, part.shape[0], few):
            some = part[start : start + few, :]
            here, left = slice(start, start + some.shape[0]), xp.astype(some, xp.float64) * scale
            if fades:  # 1e-300 beside 1e100
                lost |= on_host(xp.any((some != 0) & (left == 0), axis=0))
            for t, pick in enumerate(picks):
                whole = xp.round(left)
                cut[t][here, :] = whole if pick is None else xp.take(whole, pick, axis=1)
                left = (left - whole) * 2.0**WIDTH
                rest = on_host(xp.any(left != 0, axis=0))
                lost |= rest & (kept == t)
                if rest.any():  # else the slices below are 0
                    depth = max(depth, min(t + 2, len(cut)))
        own = [each[: part.shape[0], :] for each in cut[:depth]]
        for t, each in enumerate(own):
            sums[t, columns[t]] += on_host(xp.sum(each, axis=0)).astype(np.int64)
            for u in range(t, depth):
                new = multiply(each.T, own[u])
                found[t, u] = found[t, u] + new if (t, u) in found else new
        rows += part.shape[0]
        if rows + step > ROWS or number + 1 == len(parts):
            for pair, each in found.items():
                whole = xp.astype(each, xp.int64)
                total[pair] = total[pair] + whole if pair in total else whole
            found, rows = {}, 0
    products: Products = {}
    for (t, u), each in total.items():
        products[t, u] = np.zeros((features, features), np.int64)
        products[t, u][np.ix_(columns[t], columns[u])] = on_host(each)
    return Slices(precision, x.shape[0], largest, products, {}, x.shape[0], sums, lost)


def with_root(moments: Centred) -> Centred:
    """`Centred` with a root of its scatter: R of a Cholesky factorisation with pivots, in pairs of float64.

    Rows below what pairs round, 2⁻¹⁰⁴ of the columns' sizes, are left out. They and the rounding of squares hide at
    most 2⁻⁵² √features ‖R‖_F of the root, which becomes part of `rounded`. 784 features take 3 s on one core.
    """
    features = len(moments.mean)
    size = 2.0 ** (np.frexp(np.diagonal(moments.scatter))[1] // 2)
    a, b = (each / size / size[:, None] for each in (moments.scatter, moments.scatter_low))
    order, root = np.arange(features), np.zeros((features, features))
    for row in range(features):
        pivot = int(np.argmax(np.diagonal(a)))
        if not a[pivot, pivot] > features * 2.0**-104:
            break
        for each in (a, b):
            each[[0, pivot]] = each[[pivot, 0]]
            each[:, [0, pivot]] = each[:, [pivot, 0]]
        order[[row, row + pivot]] = order[[row + pivot, row]]
        # (f, g) = √(d, e) and (high, low) = (a, b) / (f, g): what the first of each leaves gives the second.
        d, e = a[0, 0], b[0, 0]
        f = d**0.5
        g = (_less(d, f, f) + e) / (2 * f)
        high = a[0] / f
        high, low = two_sum(high, (_less(a[0], high, f) + b[0] - high * g) / f)
        root[row, order[row:]] = high
        a, b, high, low = a[1:, 1:], b[1:, 1:], high[1:], low[1:]
        step = max(1, STRIPE // max(1, len(a)))
        for start in range(0, len(a), step):
            rows = slice(start, start + step)
            whole, rest = two_sum(a[rows], -(high[rows, None] * high))
            lost = _less(high[rows, None] * high, high[rows, None], high)
            lost = lost - high[rows, None] * low - low[rows, None] * high
            a[rows], b[rows] = two_sum(whole, rest + b[rows] + lost)
    root *= size
    hidden = 2.0**-52 * features**0.5 * float(np.linalg.norm(root))
    return replace(moments, roots=(root,), rounded=float(np.hypot(moments.rounded, hidden)))


def together(a: tuple[Slices, ...], b: tuple[Slices, ...]) -> tuple[Slices, ...]:
    """The sums of both, of each precision, float32 first."""
    found: dict[str, Slices] = {}
    for each in (*a, *b):
        found[each.precision] = found[each.precision] + each if each.precision in found else each
    return tuple(found[name] for name in PRECISION if name in found)


def all_of(sums: tuple[Slices, ...]) -> Slices:
    """One sum of those of both precisions, as the finer."""
    return sums[0] if len(sums) == 1 else sums[0].finer() + sums[1]


def _tops(largest: Floats) -> Integers:
    """Each column's highest slice b: |x| ≤ 2^(21 (b+1) − 13), half a unit of the next."""
    return np.maximum(-((OFFSET - 1 - _exponents(largest)) // WIDTH) - 1, LOWEST)


def _bottoms(largest: Floats, precision: str) -> Integers:
    """Each column's lowest slice: half its unit is at most 2^−PRECISION of the largest |x|."""
    bits = PRECISION[precision]
    return np.maximum((_exponents(largest) - bits - OFFSET) // WIDTH, LOWEST + 1 - LENGTH[precision])


def _exponents(largest: Floats) -> Integers:
    """The least e with |x| ≤ 2^e."""
    fraction, exponent = np.frexp(largest)
    return np.where(largest > 0, exponent - (fraction == 0.5), -2000).astype(np.int64)


def _added(a: Products, b: Products) -> Products:
    return {pair: a[pair] + b[pair] if pair in a and pair in b else (a | b)[pair] for pair in a | b}


def _lowered(products: Products, up: Integers, length: int) -> Products:
    """Products of slices whose tops rose by so many: t is now t + up, and what falls below the last is dropped."""
    groups = [(int(by), np.flatnonzero(up == by)) for by in np.unique(up) if by < length]
    found: Products = {}
    for t in range(length):
        for u in range(t, length):
            new = np.zeros((len(up), len(up)), np.int64)
            for by, mine in groups:
                for other, yours in groups:
                    a, b = t - by, u - other
                    old = products.get((a, b)) if a <= b else products.get((b, a))
                    if old is not None:
                        where = np.ix_(mine, yours)
                        new[where] = (old if a <= b else old.T)[where]
            if new.any():
                found[t, u] = new
    return found


def _put(number: Number, k: int, value: Any) -> None:
    """Add value 2^(−21 k)."""
    number[k] = number[k] + value if k in number else value


def _digits(number: Number) -> Number:
    """The same number by its only digits in [−2²⁰, 2²⁰), from the last to the first."""
    found: Number = {}
    k, carry = max(number, default=0), 0
    while k >= min(number, default=0) or np.any(carry):
        value = number.get(k, 0) + carry
        carry = (value + (1 << WIDTH - 1)) >> WIDTH
        digit = value - (carry << WIDTH)
        if np.any(digit):
            found[k] = digit
        k -= 1
    return found


def _quotient(digits: Number, n: int) -> tuple[Any, Any]:
    """(number / n, what rounding lost of it), float64, of `_digits`."""
    high: Any = 0.0
    low: Any = 0.0
    for k in sorted(digits):
        high, lost = two_sum(high, digits[k] * 2.0 ** (-WIDTH * k))
        low = low + lost
    first = high / n
    return two_sum(first, (_less(high, first, float(n)) + low) / n)


def _less(a: Any, x: Any, y: Any) -> Any:
    """A − x y, with x y exactly (Dekker 1971), of a near it."""
    (b, c), (d, e) = _halves(x), _halves(y)
    whole = x * y
    return (a - whole) - (((b * d - whole) + b * e + c * d) + c * e)


def _halves(a: Any) -> tuple[Any, Any]:
    """26 bits of a, and the others."""
    high = a * (2.0**27 + 1)
    high = high - (high - a)
    return high, a - high
