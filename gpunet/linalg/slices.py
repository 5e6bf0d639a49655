"""Sums of products that are the same bits for any batch size, order, number of threads, device and merge.

Numbers are cut into slices on one absolute grid: slice b of x is a whole number of units 2^(21 b − 12), at most 2²⁰ of
them, the nearest to what the slices above it left. Products of slices are whole numbers that float64 sums exactly, a
thousand rows at a time, and int64 beyond: no order leaves a trace. A column's slices are counted from its top, the one
that its largest |x| needs. Products s_t s_u are summed by t + u; when a column's top rises by c, so do its products'
places, and what passes the last, `DEPTH`, is dropped: exactly what is left out from the beginning had the largest
number come first. And x has nothing in slices above the top that it needs itself, as they hold what is nearest: it does
not matter where one begins. This is the indexed sum of Demmel & Nguyen (2015, Parallel reproducible summation), of
products.

What is dropped is below 2⁻¹²⁴ of two columns' largest numbers, and nothing at all of bits within 2⁻⁶³ of them. Of
float32's 24 bits two slices are full and those below nearly empty, which sparse products make use of. With
(s_t + s_u)(s_t + s_u)ᵀ a cross product costs what a square does.

Products of 21 bits by 21 are nine of int8: 23 ms with VNNI where BLAS takes 17 in float64 (1337×784, one core of an
EPYC). So no integer engine is asked; float64 is one.
"""

from __future__ import annotations

import functools
import operator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunet.backend.blas import compressed, inner_of
from gpunet.checks import on_host
from gpunet.linalg.matrix import Floats
from gpunet.linalg.moments import Centred, two_sum

WIDTH, OFFSET = 21, -12  # bits of a slice; the exponent of slice 0's unit
DEPTH = 8  # t + u of the products that are kept is below
ROWS = 1 << 13  # of products of at most 2⁴⁰: 2⁵³
LOWEST = -47  # top slice, whose unit is 2⁻⁹⁹⁹: what others are multiplied by is float64, too
NOWHERE = 1 << 20  # `Slices.lowest` of columns that are 0
CUT_BYTES = 10 << 20  # of one slice of the rows that are multiplied at a time on the CPU, there are three to five …
GPU_CUT_BYTES = 64 << 20  # … and on a GPU
PENDING = 1 << 18  # samples of whose products, 2⁴³ each, two sums together fit an int64
CARRY = 2 * WIDTH  # bits that stay when the others are carried
LOW = (1 << CARRY) - 1
STRIPE = 1 << 15  # elements that are read at a time: their digits lie in the cache

Integers = NDArray[np.int64]
Products = dict[int, Integers]
Number = dict[int, Any]  # Σ_k number[k] 2^(−21 k): arrays of int64, or Python's integers


@dataclass(frozen=True)
class Slices:
    """Exact sums of slices, and of their products.

    count: samples; largest: (features,), max|x| of each column; lowest: (features,), the slice of whose units all
    numbers of the column are multiples, or one below those that are kept; products: k -> Σ s_t s_uᵀ over t + u = k
    (features, features), slices counted from each column's top, where it is not 0; carries: what of that was carried,
    in units of 2⁴²; pending: samples since; sums: (slices, features), Σ s_t. All on the host.
    """

    count: int
    largest: Floats
    lowest: Integers
    products: Products
    carries: Products
    pending: int
    sums: Integers

    def __add__(self, other: Slices) -> Slices:
        """Both, neither of which is changed."""
        largest = np.maximum(self.largest, other.largest)
        a, b = self._raised(largest), other._raised(largest)
        products, carries = _added(a.products, b.products), _added(a.carries, b.carries)
        pending = a.pending + b.pending
        if pending > PENDING:
            carries = _added(carries, {k: each >> CARRY for k, each in products.items()})
            products = {k: each & LOW for k, each in products.items()}
            pending = 1
        lowest = np.minimum(self.lowest, other.lowest)
        return Slices(a.count + b.count, largest, lowest, products, carries, pending, a.sums + b.sums)

    def _raised(self, largest: Floats) -> Slices:
        """The same, counted from the tops of columns that may be larger."""
        up = _tops(largest) - _tops(self.largest)
        if not up.any():
            return self
        below = np.arange(DEPTH)[:, None] - up
        sums = np.where(below >= 0, np.take_along_axis(self.sums, np.maximum(below, 0), axis=0), 0)
        products, carries = (_lowered(each, up) for each in (self.products, self.carries))
        return replace(self, products=products, carries=carries, sums=sums)

    def centred(self) -> Centred:
        """As moments: n Σ (x−m)(x−m)ᵀ = n Σ x xᵀ − r rᵀ, r = Σ x, in whole numbers, then rounded to two float64."""
        features, n = len(self.largest), self.count
        unit = 2.0 ** (WIDTH * _tops(self.largest) + OFFSET)
        count, total = _digits({0: n}), _digits(dict(enumerate(self.sums)))
        scatter, low = np.empty((2, features, features))
        step = max(1, STRIPE // features)
        for start in range(0, features, step):
            rows = slice(start, start + step)
            found: Number = {}
            for high, products in ((0, self.products), (2, self.carries)):
                for k, each in products.items():
                    _put(found, k - high, each[rows] & LOW)
                    _put(found, k - high - 2, each[rows] >> CARRY)
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
        top = float(self.largest.max())
        return Centred(scatter, low, mean, mean_low, n, 2.0**-96, top, dropped=self.dropped())

    def dropped(self) -> float:
        """`Centred.dropped`: what products of numbers with deep slices are beyond the last, four times."""
        tops = _tops(self.largest)
        unit = 2.0 ** (WIDTH * tops + OFFSET)
        deep = np.where(2 * (tops - self.lowest) >= DEPTH, unit, 0)  # else t + u is below
        share = 4 * (DEPTH + 2) * self.count * 2.0 ** (2 * (WIDTH - 1) - WIDTH * DEPTH)
        with np.errstate(over="ignore"):
            return share * float(np.linalg.norm(unit)) * float(np.linalg.norm(deep))


def slices(xp: Any, x: Any) -> Slices:
    """`Slices` of x (n, features) of any real dtype, finite and at most 2⁵⁰⁰."""
    if x.shape[0] > PENDING:
        starts = range(0, x.shape[0], PENDING)
        return functools.reduce(operator.add, (slices(xp, x[start : start + PENDING, :]) for start in starts))
    features, on_cpu = x.shape[1], xp is np
    step = max(64, (CUT_BYTES if on_cpu else GPU_CUT_BYTES) // (8 * features))
    step = min(ROWS // 4, x.shape[0], step)  # of products of sums of two slices
    few = max(16, 4 * STRIPE // features) if on_cpu else step
    parts = [x[start : start + step, :] for start in range(0, x.shape[0], step)]
    largest = np.zeros(features)
    for part in parts:
        for end in (xp.max(part, axis=0), xp.min(part, axis=0)):
            largest = np.maximum(largest, np.abs(on_host(end).astype(np.float64)))
    tops = _tops(largest)
    exponents = -(WIDTH * tops + OFFSET)
    scale, fades = xp.asarray(2.0**exponents), x.dtype == xp.float64 and exponents.min() < 0
    sums, last = np.zeros((DEPTH, features), np.int64), np.zeros(features, np.int64)
    products, cut = _Pending(xp), [xp.empty((step, features))]
    for part in parts:
        used = 1
        for start in range(0, part.shape[0], few):
            some = part[start : start + few, :]
            here, left = slice(start, start + some.shape[0]), xp.astype(some, xp.float64) * scale
            if fades:  # 1e-300 beside 1e100
                last[on_host(xp.any((some != 0) & (left == 0), axis=0))] = DEPTH
            for t in range(DEPTH):
                if t == used:
                    used += 1
                    if t == len(cut):
                        cut.append(xp.empty((step, features)))
                    cut[t][:start, :] = 0
                whole = xp.round(left)
                cut[t][here, :] = whole
                left -= whole
                left *= 2.0**WIDTH
                rest = on_host(xp.any(left != 0, axis=0))
                if not rest.any():
                    for below in cut[t + 1 : used]:
                        below[here, :] = 0
                    break
                last[rest] = np.maximum(last[rest], t + 1)
        own = [each[: part.shape[0], :] for each in cut[:used]]
        for t, each in enumerate(own):
            sums[t] += on_host(xp.sum(each, axis=0)).astype(np.int64)
        products.add(own)
    lowest = np.where(largest > 0, tops - last, NOWHERE)
    return Slices(x.shape[0], largest, lowest, products.all(), {}, x.shape[0], sums)


class _Pending:
    """Products of slices by t + u: in float64 as long as that is exact, then in int64.

    Those of two slices are kept as they are, (t + u, True), or with their transposes, (t + u, False).
    """

    def __init__(self, xp: Any) -> None:
        self.xp, self.rows = xp, dict[tuple[int, bool], int]()
        self.recent, self.total = dict[tuple[int, bool], Any](), dict[tuple[int, bool], Any]()

    def add(self, cut: list[Any]) -> None:
        """Those of some rows: of slices (rows, features)."""
        rows, on_cpu = cut[0].shape[0], self.xp is np
        own = [compressed(each) for each in cut] if on_cpu else cut
        multiply = inner_of if on_cpu else lambda a, b: self.xp.matmul(a.T, b)
        squares = {t: multiply(each, each) for t, each in enumerate(own) if 2 * t < DEPTH}
        for t, each in enumerate(own):
            for u in range(t + 1, min(len(own), DEPTH - t)):
                if each is cut[t] and own[u] is cut[u] and u in squares:
                    both = cut[t] + cut[u]
                    cross = multiply(both, both)
                    cross -= squares[t]
                    cross -= squares[u]
                    self._put((t + u, False), cross, 2 * rows)
                else:
                    self._put((t + u, True), multiply(each, own[u]), rows)
        for t, square in squares.items():
            self._put((2 * t, False), square, rows)

    def _put(self, key: tuple[int, bool], part: Any, rows: int) -> None:
        """part: nobody else's, sums of at most so many products of 2⁴⁰."""
        if self.rows.get(key, 0) + rows > ROWS:
            self._settle(key)
        if key in self.recent:
            self.recent[key] += part
        else:
            self.recent[key] = part
        self.rows[key] = self.rows.get(key, 0) + rows

    def _settle(self, key: tuple[int, bool]) -> None:
        whole = self.xp.astype(self.recent.pop(key), self.xp.int64)
        if key in self.total:
            self.total[key] += whole
        else:
            self.total[key] = whole
        self.rows[key] = 0

    def all(self) -> Products:
        """So far, on the host."""
        found: Products = {}
        for key in [key for key, rows in self.rows.items() if rows]:
            self._settle(key)
        for (k, crossed), each in sorted(self.total.items()):
            whole = on_host(each)
            whole = whole + whole.T if crossed else whole
            found[k] = found[k] + whole if k in found else whole
        return found


def with_root(moments: Centred) -> tuple[Centred, float]:
    """(`Centred` with a root of its scatter, R of a Cholesky factorisation with pivots in pairs of float64; by how much
    RᵀR is off the scatter in the 2-norm, but for the rounding of R to float64).

    Rows below what pairs round, 2⁻¹⁰⁴ of the columns' sizes, are left out. They and the rounding of pairs are at most
    8 features 2⁻¹⁰⁴ ‖R‖_F². 784 features take 3 s on one core.
    """  # noqa: D205
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
    off = 8 * features * 2.0**-104 * float(np.vdot(root, root)) + moments.dropped
    return replace(moments, roots=(root,)), off


def _tops(largest: Floats) -> Integers:
    """Each column's highest slice b: |x| ≤ 2^(21 (b+1) − 13), half a unit of the next."""
    return np.maximum(-((OFFSET - 1 - _exponents(largest)) // WIDTH) - 1, LOWEST)


def _exponents(largest: Floats) -> Integers:
    """The least e with |x| ≤ 2^e."""
    fraction, exponent = np.frexp(largest)
    return np.where(largest > 0, exponent - (fraction == 0.5), -2000).astype(np.int64)


def _added(a: Products, b: Products) -> Products:
    return {k: a[k] + b[k] if k in a and k in b else (a | b)[k] for k in a | b}


def _lowered(products: Products, up: Integers) -> Products:
    """Products of slices whose tops rose by so many: those of i and j are up_i + up_j places further."""
    groups = [(int(by), np.flatnonzero(up == by)) for by in np.unique(up) if by < DEPTH]
    found: Products = {}
    for k in range(DEPTH):
        new = np.zeros((len(up), len(up)), np.int64)
        for by, mine in groups:
            for other, yours in groups:
                if (old := products.get(k - by - other)) is not None:
                    new[np.ix_(mine, yours)] = old[np.ix_(mine, yours)]
        if new.any():
            found[k] = new
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
