"""The ways to the singular value decomposition of one matrix on the CPU, and to eigenvectors of its Gram matrix.

A route takes a `TallMatrix` X (long, short), k ≥ 1, whether u is wanted, and the residual to reach, and returns
u (long, k), s (k,), v (short, k) of X v = u diag(s), descending, s and v in float64; u may be None where it is not
wanted. None of them judges its result: `verify` does. Those that cannot finish raise NotConverged or LinAlgError.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpunet.backend.blas import interruptible, leading_eigh, product, sturdy_svd
from gpunet.linalg.matrix import CHUNK_BYTES, EPS, Floats, RunningSum, TallMatrix, gram
from gpunet.linalg.verify import tolerance
from gpunet.rng import LINALG, stream

Triples = tuple[Floats | None, Floats, Floats]
Route = Callable[..., Triples]  # (x, k, long_side, limit)


@dataclass(frozen=True)
class Rates:
    """Seconds for one operation of a kind; of products, one multiplication and addition.

    The defaults were fitted by hand to times of products, eigh and svd on two cores with OpenBLAS 0.3.31, the best of a
    few runs, good to a factor of 1.5. Only their ratios matter.
    """

    product: float = 1 / 60e9  # of large matrices in float64; float32 takes half of everything that is a product
    square: float = 1 / 85e9  # the same of AᵀA, of which BLAS computes half
    read: float = 1 / 4e9  # to read one number of a large matrix, in either precision
    eigh: tuple[float, float] = (8e-11, 4e-8)  # of n³ and n²: all eigenvectors of a symmetric matrix
    leading: tuple[float, float] = (3e-11, 2.5e-8)  # an eighth of them, or fewer
    gesdd: tuple[float, float, float] = (1e-10, 6e-8, 7e-11)  # of n³, n² and m n²: LAPACK's SVD of m×n
    call: float = 2e-5  # to start anything


RATES = Rates()
STAKE = 0.5  # of the sure way's time, that may still lie ahead of an iteration: what lies behind is spent either way
STEPS = 8  # blocks of the Krylov space before it starts again, at least
LONGEST = 80  # times k vectors before it gives up
SAME = 64.0  # times what a Ritz value's residual may be: values nearer to each other count as equal
ROUNDING = 4.0  # ‖Gv − λv‖/(ε λ₁) of LAPACK's eigenvectors: 3 on average, 9 at most, for 5 to 1500 columns
HOPE = 0.25  # the same where the values fall: for a try, since the result is verified
LEVELS = 16
QR_BYTES = 8 << 20
TURNED = 64  # columns of u that are turned at once


class NotConverged(Exception):  # noqa: N818 (a message between routes, not an error a caller sees)
    """An iteration that will not reach its tolerance in the work it may do."""


# -- what LAPACK and an iteration are expected to take ----------------------------------------------------------------


def few_of_many(n: int, k: int) -> bool:
    """Whether syevr, which computes no eigenvectors but the k asked for, saves more than it costs."""
    return n >= 1024 and 8 * k <= n


def eigh_seconds(n: int, k: int, rates: Rates = RATES) -> float:
    """What LAPACK is expected to take for the k leading eigenvectors of a symmetric matrix n×n."""
    cubes, squares = rates.leading if few_of_many(n, k) else rates.eigh
    return cubes * n**3 + squares * n**2


def krylov_seconds(elements: int, n: int, k: int, single: bool, rates: Rates = RATES) -> float:
    """What one block of a Krylov iteration is expected to take: `elements` are multiplied, and kept blocks of n rows.

    A mean of the STEPS after which it starts again.
    """
    width = block_width(k)
    size = basis_size(k, width)
    rate = (0.5 if single else 1.0) * rates.product * (2 if width < k else 1)  # thin beside k: half of the speed
    product = (rates.read + rate * width) * elements
    inner = 5.5 * rates.product * n * size * width + rates.eigh[0] * size**2 * width
    return product + inner + 6 * rates.call


def block_width(k: int) -> int:
    """Of the blocks in which k eigenvectors are iterated for.

    Of a few wider than k, so that values that repeat are found as often. Of many an eighth: the space in which they
    are found has 2.5 to 3 k dimensions, with blocks of k it has 7 k, and products with blocks this wide are fast.
    """
    return wide_block(k) if k <= 32 else max(32, k // 8)


def wide_block(k: int) -> int:
    """A few more vectors than k."""
    return k + max(4, k // 8)


def basis_size(k: int, width: int) -> int:
    """The vectors that an iteration for k of them, in blocks of `width`, keeps before it starts again."""
    return max(STEPS * width, 4 * k)


def good_blocks(k: int, single: bool) -> int:
    """Blocks that an iteration takes where it goes well."""
    width = block_width(k)
    return (7 if single else 13) if width >= k else (3 if single else 4) * k // width


def iterates(n: int, k: int) -> bool:
    """Whether the k leading eigenvectors of n×n are iterated for before LAPACK is asked."""
    if 25 * k <= n:
        return n >= 200
    block, sure = krylov_seconds(n * n, n, k, False), eigh_seconds(n, k)
    return few_of_many(n, k) and block_width(k) < k and pays(block, k, False, sure, sure)


def pays(block: float, k: int, single: bool, saved: float, sure: float, also: bool = False) -> bool:
    """Whether an iteration whose blocks take `block` seconds is worth a try, if going well saves `saved` of `sure`.

    That it goes badly is seen after two blocks, half as much again by measurement; of narrow ones when half of them are
    done, of which a third is lost where the sure way would begin by iterating, too: it is then told not to.
    """
    wasted = 3 * block / sure if block_width(k) >= k else 1 / 3 if also else 1.0
    return good_blocks(k, single) * block * (1 + wasted) < saved


# -- eigenvectors of a Gram matrix ------------------------------------------------------------------------------------


def leading(gram: Floats, k: int, tol: float = 1e-12, rank: int | None = None, more: int = 0) -> tuple[Floats, Floats]:
    """The k largest eigenvalues, descending, and their vectors (n, k), by the way expected to be the cheaper.

    rank: what that of the matrix is at most, k at least, where that is known: the number of samples, say.
    more: pairs beyond those k to return where LAPACK computes them anyway.
    Two cores, MNIST's Gram (784): k = 5, 10, 20 by iteration 9, 11, 26 ms to 1e-7; all by eigh 50 ms.
    """
    n = len(gram)
    if iterates(n, k) and (rank is None or 2 * k < rank):
        patience = STAKE * eigh_seconds(n, k) / krylov_seconds(n * n, n, k, False)
        try:
            return leading_by_lanczos(lambda q: product(gram, q), n, k, tol, patience=patience)
        except NotConverged:
            pass
    return leading_by_eigh(gram, k + more, rank)


def leading_by_eigh(gram: Floats, k: int, rank: int | None = None) -> tuple[Floats, Floats]:
    """The k largest eigenvalues, descending, and their vectors (n, k), by LAPACK.

    Few of many by relatively robust representations, which compute no others (syevr): 100 of 4096 in 2.2 s instead of
    5.5. Else by divide and conquer (syevd). Of a matrix whose rank is far below n, at most `rank`, which is at least k,
    products with so many random vectors span all that there is (Halko, Martinsson & Tropp 2011, section 4), and in
    their basis it is small: 2 n² rank multiplications and some 5 rank³ in place of some 5 n³.
    """
    n = len(gram)
    if rank is not None and 4 * rank <= n:
        basis, _ = _qr(product(gram, stream(0, LINALG, 3).standard_normal((n, rank))))
        values, mix = leading_by_eigh(product(basis.T, product(gram, basis)), k)
        return values, product(basis, mix)
    found = None
    if few_of_many(n, k):
        with contextlib.suppress(np.linalg.LinAlgError):  # of values that are equal it may find too few
            found = interruptible(n**3, leading_eigh, gram, k)
    values, vectors = found or interruptible(n**3, np.linalg.eigh, gram)
    return np.maximum(values[::-1][:k], 0), vectors[:, ::-1][:, :k]


def leading_by_lanczos(
    apply: Callable[[Floats], Floats],
    n: int,
    k: int,
    tol: float,
    floor: float = 1e-15,
    dtype: type = np.float64,
    patience: float = math.inf,
    width: int = 0,
) -> tuple[Floats, Floats]:
    """The k largest eigenvalues, descending, and their vectors (n, k), by thick-restarted block Lanczos iteration.

    apply: q (n, b) -> G q, b = `width`, by default `block_width(k)`. It stops when
    max_j ‖Gv_j − θ_j v_j‖ ≤ max(tol·θ_k, floor·θ_1).

    G Q = Q T + Q₊ B Eᵀ with Q of orthonormal blocks (Golub & Underwood 1977; every block orthogonalised against all
    earlier ones): Ritz vectors Q m of T m = θ m have the residual ‖B (last block of m)‖, so that convergence costs
    next to nothing to see. Where the basis is full, the Ritz vectors that lead take its place, and the last block goes
    on (Wu & Simon 2000). As soon as it is seen that it will not get there in some LONGEST k vectors, or not within
    `patience` more blocks, which another way would cost, and where n has no room for a few, it raises NotConverged.

    A block narrower than k, which needs far fewer products, holds no more copies of a value that repeats than it has
    columns: where so many Ritz values are equal to what they are good to, there may be more, and wide ones look again.
    """
    width = width or block_width(k)
    narrow = width < k
    room = min(n - width, basis_size(k, width))  # beside a full basis there is still room for a block
    if room < (k + 2 * width if narrow else 2 * width):
        raise NotConverged(f"{n} dimensions have no room for blocks of {width} vectors")
    rng, eps = stream(0, LINALG), float(np.finfo(dtype).eps)
    q = _qr(rng.standard_normal((n, width)).astype(dtype))[0]
    basis: Floats = np.empty((n, room), dtype, order="F")
    t, size = np.zeros((room, room)), 0
    seen: list[tuple[int, float]] = []  # (how far, residual / target)
    due = 3 * k // 2 if narrow else 0  # the number of them to look at next
    for made in range(width, LONGEST * (k + width), width):
        new, old = slice(size, size + width), slice(0, size + width)
        size += width
        basis[:, new] = q
        y: Floats = apply(q).astype(dtype, copy=False)
        for _ in range(2):  # twice is enough: after once an error of ε‖y‖ is left, large beside a small y
            overlap = product(basis[:, old].T, y)
            y = y - product(basis[:, old], overlap)
            t[old, new] += overlap
        t[new, old] = t[old, new].T
        q, b = _next_block(y, basis[:, old], 10 * eps * np.abs(t[old, old]).max(), rng)
        full, early = size + width > room, made <= 2 * width
        if made < due and not full and (narrow or not early):  # the first two blocks tell noise from values that fall
            continue
        theta, mix = interruptible(size**3, np.linalg.eigh, t[old, old])
        theta, mix = np.maximum(theta[::-1], 0), mix[:, ::-1]
        residual = float(np.linalg.norm(b @ mix[new, :k].astype(dtype), axis=0).max())
        target = max(tol * theta[k - 1], floor * theta[0])
        if residual <= target and early and not full:
            continue  # of a matrix near c·1 everything looks converged, and what leads may be missing yet
        if residual <= target and not early:
            if narrow and (theta[: k - width + 1] - theta[width - 1 : k]).min() <= SAME * target:
                wide = wide_block(k)
                return leading_by_lanczos(apply, n, k, tol, floor, dtype, patience * width / wide, wide)
            return theta[:k], product(basis[:, old], mix[:, :k].astype(dtype))
        # θ_k still grows in the first blocks, and the residual with it. Of narrow ones log(residual) then falls with
        # the square of the vectors beyond k, for noise as for values that fall.
        way = (made - k) ** 2 if narrow else made
        seen.append((way, max(residual / target, 1.0)))
        left = steps_left(seen[-2:])
        left = (math.sqrt(way + left) - math.sqrt(way) if narrow else left) / width
        if left > patience or (full and made + left / 2 * width > LONGEST * (k + width)):
            raise NotConverged(f"residual {residual / (theta[0] or 1):.2g} λ₁ after {made // width} blocks")
        if narrow:  # a look costs as much as a block or two
            due = made + max(k // 2 if len(seen) < 2 else k // 4, width)
        else:
            due = made + width * max(1, int(min(0.75 * left, STEPS)))
        if full:
            size = k + width if narrow else width
            basis[:, :size] = product(basis[:, old], mix[:, :size].astype(dtype))
            t[...] = 0
            np.fill_diagonal(t[:size, :size], theta[:size])
    raise NotConverged(f"residual {residual / (theta[0] or 1):.2g} λ₁ after {made // width} blocks")


def steps_left(seen: list[tuple[int, float]]) -> float:
    """How many steps more to the target at the pace between the last two looks; 0 where it is not known."""
    if len(seen) < 2:
        return 0.0
    (first, before), (last, now) = seen
    return math.log(now) * (last - first) / math.log(before / now) if now < before else math.inf


def _next_block(y: Floats, basis: Floats, tiny: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """y (n, width) = q b, q orthonormal and orthogonal to the basis, as y is but for rounding.

    Columns of y that nearly depend on each other leave little after QR but rounding, which points anywhere: such q
    are made orthogonal to the basis once more. Where y has lost rank, the space holds an eigenvector in full, and
    fresh random directions take the place of what would be rounding alone.
    """
    q, b = _qr(y)
    size = np.abs(np.diagonal(b))
    if size.min() > max(tiny, 0.05 * size.max()):
        return q, b
    p, s, wt = np.linalg.svd(b)
    q, b = q @ p, s[:, None] * wt
    lost = s <= tiny
    q[:, lost] = rng.standard_normal((len(q), int(lost.sum())))
    b[lost] = 0
    for _ in range(2):
        q -= basis @ (basis.T @ q)
        q, r = np.linalg.qr(q)  # the lost are last, s descends: those before are turned by rounding alone
        b = r @ b
    return q, b


def _qr(y: Floats) -> tuple[Floats, Floats]:
    """y (n, width) = q b. By Cholesky, twice, where that is as good: products, a tenth of the time of reflections."""
    if len(y.T) < 16:
        return np.linalg.qr(y)
    q, b, least = y, np.eye(len(y.T), dtype=y.dtype), 64 * float(np.finfo(y.dtype).eps) ** 0.5
    for _ in range(2):
        try:
            lower = _cholesky(q.T @ q)
        except np.linalg.LinAlgError:
            return _by_reflections(y)
        size = np.diagonal(lower)
        if not size.min() > least * size.max():  # the first leaves ε κ², which the second mends
            return _by_reflections(y)
        q, b = q @ inverse(lower).T, lower.T @ b
    return q, b


def _by_reflections(y: Floats) -> tuple[Floats, Floats]:
    q, b = interruptible(y.size * len(y.T), np.linalg.qr, y)
    return q, b


def _svd(a: Floats, full: bool = False) -> tuple[Floats, Floats, Floats]:
    u, s, vt = interruptible(a.size * min(a.shape), np.linalg.svd, a, full_matrices=full)
    return u, s, vt


def _cholesky(a: Floats) -> Floats:
    return interruptible(a.size * len(a) // 16, np.linalg.cholesky, a)  # which takes so much less than eigenvectors


def inverse(lower: Floats) -> Floats:
    """The inverse of a lower triangular matrix, by halves: products, where NumPy's LAPACK would factor it again."""
    n = len(lower)
    if n <= 64:
        return np.asarray(np.linalg.inv(lower))
    out, half = np.zeros_like(lower), slice(0, n // 2)
    rest = slice(n // 2, n)
    out[half, half], out[rest, rest] = inverse(lower[half, half]), inverse(lower[rest, rest])
    out[rest, half] = product(-out[rest, rest], product(lower[rest, half], out[half, half]))
    return out


# -- routes -----------------------------------------------------------------------------------------------------------


def full(x: TallMatrix, k: int, long_side: bool, limit: float) -> Triples:
    """LAPACK's gesdd of the whole, in float64; gesvd, slower and sturdier, where gesdd does not converge."""
    x.rescale()
    dense = x.dense(np.float64)
    try:
        u, s, vt = _svd(dense)
    except np.linalg.LinAlgError:
        u, s, vt = interruptible(dense.size * min(dense.shape), sturdy_svd, dense)
    return u[:, :k].astype(x.dtype), s[:k], vt[:k].T


def by_gram(x: TallMatrix, k: int, long_side: bool, limit: float) -> Triples:
    """Eigenvectors of XᵀX, its products in the data's own precision.

    σ carries an error of ε σ₁²/σ, ε that of the products. NotConverged is raised where that is seen to be too much, and
    of float32 products where σ_k < 0.01 σ₁: at that point they are good to 0.03 % of σ_k, and the residual test would
    let it pass far below.
    """
    if x.float64_products:
        return by_gram64(x, k, long_side, limit)
    least = max(1e-4, k * (2 * HOPE * 2.0**-23 / limit) ** 2)
    if not conditioned(gram(x, "float32"), k, least):
        raise NotConverged("float32 products resolve 0.01 σ₁, and σ_k is below")
    values, v = eigen(x, "float32", k)
    _check_resolved(values, True, limit)
    return finish(x, np.sqrt(values), v, long_side, limit)


def by_gram64(x: TallMatrix, k: int, long_side: bool, limit: float) -> Triples:
    """`by_gram` with float64 products whatever the data's dtype.

    Of all triples none is lost, and X v is at hand to tell how good they are: that is not foretold.
    """
    values, v = eigen(x, "float64", k)
    if k < x.short or not long_side:
        _check_resolved(values, False, limit)
    return finish(x, np.sqrt(values), v, long_side, limit)


def by_levels(x: TallMatrix, k: int, long_side: bool, limit: float) -> Triples:
    """Eigenvectors of XᵀX from products in float64, level by level; u is always computed, as only it can be judged by.

    An eigenvector with λ_j far below λ₁ is wrong by rounding: ‖XᵀX v − λv‖ = ε λ₁ is a residual of ε σ₁²/σ_j. The
    space that the resolved ones leave is right all the same. So X is multiplied with a basis of that space, the Gram
    matrix of the product is decomposed in its turn, to ε of *its* largest value, and so on down to the rounding of X
    itself: the accuracy of a QR decomposition, by products alone. Where X v is computed as a whole anyway, `finish`
    does the same without another pass over X.
    """
    values, v = eigen(x, "float64", x.short)
    found = resolved(values, ROUNDING * EPS, limit)
    if k < x.short:
        for _ in range(LEVELS):
            if found >= k:
                break
            rest = v[:, found:]
            total = RunningSum((rest.shape[1], rest.shape[1]))
            for _, part in x.chunks(np.float64, _rows_beside(x, rest.shape[1])):
                image = product(part, rest)
                total.add_inner(image, image)
            own, mix = leading_by_eigh(total.value, rest.shape[1])
            v, values = (
                np.concatenate([v[:, :found], product(rest, mix)], axis=1),
                np.concatenate([values[:found], own]),
            )
            if own[0] <= _vanishing(x, values[0]) ** 2:
                break
            found += max(1, resolved(own, ROUNDING * EPS, limit))
    zero = max(0, k - int(np.count_nonzero(np.diagonal(gram(x, "float64")))))
    return finish(x, np.sqrt(values[:k]), v[:, :k], True, limit, found, zero)


def by_subspace(x: TallMatrix, k: int, long_side: bool, limit: float) -> Triples:
    """The leading eigenvectors of XᵀX by block Lanczos iteration."""
    precise = x.float64_products
    g = gram(x, "float64" if precise else "float32")
    values, v = leading_by_lanczos(lambda q: product(g, q), x.short, k, _eigen_tol(x, k))
    _check_resolved(values, not precise, limit)
    return finish(x, np.sqrt(values), v, long_side, limit)


def randomized(x: TallMatrix, k: int, long_side: bool, limit: float, patience: float = math.inf) -> Triples:
    """Randomised block Krylov iteration on X itself from a seeded Gaussian block, without forming XᵀX.

    (Musco & Musco 2015, algorithm 2; the last step from v to both sides is Halko, Martinsson & Tropp 2011, 5.1.)
    In the data's own precision.
    """
    x.rescale()
    single = not x.float64_products
    tol, floor = (1e-5, 1e-8) if single else (_eigen_tol(x, k), 1e-15)
    dtype = np.float32 if single else np.float64
    try:
        values, v = leading_by_lanczos(x.normal_times, x.short, k, tol, floor, dtype, patience)
    except NotConverged:
        x.iterates = False
        raise
    _check_resolved(values, single, limit)
    u, _, _ = finish(x, np.sqrt(values), v, True, limit)
    assert u is not None
    v, s, wt = _svd(x.transposed_times(u))
    _rotate(u, wt.T, 0)
    return u, s, v


def by_qr(x: TallMatrix, k: int, long_side: bool, limit: float) -> Triples:
    """R of X = QR, chunk after chunk without ever keeping Q, then the SVD of R: LAPACK's accuracy in small memory.

    (Demmel, Grigori, Hoemmen & Langou 2012, sequential TSQR.)
    """
    x.rescale()
    r = np.zeros((0, x.short))
    for _, chunk in x.chunks(np.float64, min(x.long, max(3 * x.short, QR_BYTES // (8 * x.short)))):
        both = np.concatenate([r, chunk])
        r = np.asarray(interruptible(both.size * x.short, np.linalg.qr, both, mode="r"))
    _, s, vt = _svd(r)
    return finish(x, s[:k], vt[:k].T, True, limit)  # u, too: only by it small ones can be judged


ROUTES: dict[str, Route] = {
    "full": full,
    "gram": by_gram,
    "gram64": by_gram64,
    "gram-levels": by_levels,
    "subspace": by_subspace,
    "qr": by_qr,
    "randomized": randomized,
}


def eigen(x: TallMatrix, precision: str, k: int) -> tuple[Floats, Floats]:
    """The k largest eigenvalues (k,) of XᵀX, descending, and vectors (short, k); kept, not to be written to.

    Those of columns that are zero, as pixels at a margin are, are known: they come last, where all are wanted.
    """
    values, v = x.eigen.get(precision, (np.empty(0), np.empty((0, 0))))
    if len(values) < k:
        g = gram(x, precision)
        some = np.flatnonzero(np.diagonal(g))
        if 0 < len(some) < k:
            values, v = np.zeros(k), np.zeros((len(g), k))
            values[: len(some)], v[some, : len(some)] = leading_by_eigh(g[np.ix_(some, some)], len(some))
            v[np.delete(np.arange(len(g)), some)[: k - len(some)], np.arange(len(some), k)] = 1
        else:
            more = int(k < len(g) and not few_of_many(len(g), k))  # one, which the certificate takes for a hint
            iterated = x.iterates and leading(g, k, _eigen_tol(x, k), more=more)
            values, v = iterated or leading_by_eigh(g, k + more)
        x.eigen[precision] = values, v
    return values[:k], v[:, :k]


def conditioned(g: Floats, k: int, least: float) -> bool:
    """Whether all eigenvalues of g reach the share `least` of the largest; True where k leaves out many of them.

    Cholesky's factorisation of g less that multiple of 1 tells, in a tenth of the time that the eigenvectors take.
    """
    if 2 * k <= len(g) or len(g) < 64:
        return True
    v = np.ones(len(g))
    for _ in range(8):  # the largest, by the power method, from below: near enough
        v = g @ v
        top = float(np.linalg.norm(v))
        if not 0 < top < np.inf:
            return True  # zero, or beyond the range: not for this to say
        v /= top
    try:
        _cholesky(g - np.eye(len(g)) * (least * top))
    except np.linalg.LinAlgError:
        return False
    return True


def resolved(values: Floats, eps: float, limit: float) -> int:
    """How many leading eigenpairs of a Gram matrix that are good to ε λ₁ are singular triples to half of `limit`.

    The residual of the j-th is ε σ₁/σ_j of σ₁, of some together the norm of those; and u = X v/σ stays near enough to
    orthogonal, ε λ₁/λ_j apart, to be straightened.
    """
    k, first, last = len(values), float(values[0]), float(values[-1])
    if not first or (
        last > 0 and max(2 * eps * math.sqrt(k * first / last) / limit, EPS * 80 * k**0.5 * first / last) < 1
    ):
        return k  # as most are: without the arrays
    spread = first / np.maximum(values, max(1e-300 * first, 1e-307))
    good = eps * np.sqrt(np.cumsum(spread)) <= limit / 2
    good &= EPS * 80 * k**0.5 * spread <= 1
    return int(np.argmin(good)) if not good.all() else k


def _check_resolved(values: Floats, single: bool, limit: float) -> None:
    """Raises NotConverged where XᵀX, multiplied in float32 or float64, says too little of the last σ² asked for.

    A residual alone does not: a σ lost in rounding leaves none, and another is taken for it.
    """
    if single and values[-1] < 1e-4 * values[0]:
        raise NotConverged(f"float32 products resolve 0.01 σ₁, and σ_k/σ₁ = {np.sqrt(values[-1] / values[0]):.2g}")
    found = resolved(values, HOPE * (2.0**-23 if single else EPS), limit)
    if found < len(values):
        raise NotConverged(f"float{32 if single else 64} products resolve {found} of {len(values)} triples")


def _eigen_tol(x: TallMatrix, k: int) -> float:
    """‖Gv − λv‖/λ_k that meets the default tolerance of the triples at any σ_k, and turns no vector by much."""
    return min(1e-7, tolerance(x.dtype, x.short, k) / (4 * float(np.sqrt(k))))


def _vanishing(x: TallMatrix, top: float) -> float:
    """The singular value below which nothing is left but rounding, of σ₁² = top."""
    return max(8 * EPS, float(np.finfo(x.dtype).eps) / 16) * float(np.sqrt(top))


# -- from right vectors to both sides ---------------------------------------------------------------------------------


def finish(
    x: TallMatrix, s: Floats, v: Floats, long_side: bool, limit: float, found: int | None = None, zero: int = 0
) -> Triples:
    """The triples from orthonormal right vectors v (short, k) and their σ, u where it is wanted: X v = u diag(s).

    Every column of X v carries a rounding error of order ε σ₁, so u = X v / s is orthogonal to ε σ₁/σ_j at most, and
    where v is not `found` to be right, less so. `_resolve` says from the small matrix uᵀu how to turn u and v into what
    they should be. Where σ vanishes beside rounding any unit vector will do that is orthogonal to the others; X v of
    the last `zero` is known to be 0.
    """
    if not long_side:
        return None, s, v
    wanted, k, floor = len(s), max(1, len(s) - zero), _vanishing(x, s[0] ** 2)
    s, v, known = s[:k], v[:, :k], v[:, k:]
    if found is None or s[-1] <= 64 * floor:
        found = int((s[:found] > 64 * floor).sum())
    # Float32 products of X v cost half, but then all of u is to be straightened; float64 ones leave it straight where
    # σ is large.
    single = not x.small and x.dtype == np.float32 and 3 * k <= x.short and s[-1] > 1e-3 * s[0]
    straight = 0
    if not single:
        least = s[0] * math.sqrt(8 * ROUNDING * EPS * k**0.5 / limit)
        straight = k if found >= k and s[-1] >= least else int((s[:found] >= least).sum())
        if 3 * straight < k:
            straight = 0  # the products of all columns with all are symmetric, and cost half
    size = s if s[-1] > floor else np.where(s > floor, s, 1)
    scaled = (v / size).astype(np.float32 if single else np.float64, copy=False)
    if x.small and straight == wanted:
        return (x.whole() @ scaled).astype(x.dtype, copy=False), s, v
    u, overlap = np.empty((x.long, wanted), x.dtype), RunningSum((k, k - straight))
    direct = u.dtype == np.result_type(scaled, np.float64 if x.small else scaled)
    for where, part in x.chunks(scaled.dtype, _rows_beside(x, 0 if direct else k)):
        own = product(part, scaled, u[where, :k] if direct else None)
        if not direct:
            u[where, :k] = own
        if straight < k:
            own = own.astype(np.float64, copy=False)
            overlap.add_inner(own, own[:, straight:])
    if straight == wanted:
        return u, s, v
    kept = k
    if straight < k:
        turn, s, mix, loss = _resolve(overlap.value, size, found, limit, floor, x.dtype)
        kept, fixed = straight + turn.shape[1], k - mix.shape[1]
        v = np.concatenate([v[:, :fixed], product(v, mix)], axis=1)
        _rotate(u, turn, straight)
        _straighten(u, kept, straight, loss, limit)
    _complete(u, kept, limit)
    v, s = np.concatenate([v, known], axis=1), np.concatenate([s, np.zeros(wanted - k)])
    return u, np.sort(s)[::-1], v  # swaps only what rounding swapped


def _rows_beside(x: TallMatrix, columns: int) -> int:
    """Rows of a chunk such that it and two products of `columns` take CHUNK_BYTES."""
    return int(max(64, min(x.long, CHUNK_BYTES // (8 * (x.short + 2 * columns)))))


def _resolve(
    overlap: Floats, size: Floats, found: int, limit: float, floor: float, dtype: np.dtype[Any]
) -> tuple[Floats, Floats, Floats, Floats]:
    """How to turn u and v of X v = u diag(size), from the last columns of uᵀu (k, k − straight).

    Returns turn (k, kept − straight), such that u turn is orthonormal, and orthogonal to the straight columns; s (k,)
    of X v = u diag(s) then, descending, where v mix are the last columns of v, mix (k, k − those that stay); and for
    each column of turn what rounding leaves of orthogonality.

    Cholesky's factor of uᵀu = RᵀR makes u R⁻¹ orthonormal: it corrects small triples by large ones, never the other way
    round (a symmetric step would carry σ₁'s share into them). (Cholesky QR: Yamamoto, Nakatsukasa, Yanagisawa & Fukaya
    2015.)
    """
    k, straight = len(overlap), len(overlap) - overlap.shape[1]
    gram = np.eye(k)
    gram[:, straight:], gram[straight:, :straight] = overlap, overlap[:straight].T
    length = np.sqrt(np.diagonal(gram))
    size = size * length
    length = np.where(length > 0, length, 1)
    gram /= length
    gram /= length[:, None]
    turn, s, mix = _at_once(gram, size, straight, found, limit, floor) or _by_levels(
        gram, size, straight, found, limit, floor
    )
    turn = turn[:, straight:]
    return turn / length[:, None], s, mix, _loss(turn, dtype)


def _loss(turn: Floats, dtype: np.dtype[Any]) -> Floats:
    """What rounding leaves of orthogonality in a product with `turn`, were all columns like this one, for each.

    ε κ² of the overlap, and ε κ of u, in its dtype, in as many columns on both sides of uᵀu.
    """
    grown = (turn**2).sum(axis=0)
    rounded = float(np.finfo(dtype).eps) / 2 * (2 * turn.shape[1]) ** 0.5
    return np.asarray(EPS * len(turn) ** 0.5 * grown + rounded * np.sqrt(grown))


def _at_once(
    gram: Floats, size: Floats, straight: int, found: int, limit: float, floor: float
) -> tuple[Floats, Floats, Floats] | None:
    """`_resolve` of columns that are far from depending on each other, as nearly all are; None of others.

    X v = (u R⁻¹) T, T = R diag(size). What T holds off its diagonal is the residual, row by row: from where on that is
    too much, T's own singular vectors turn u and v.
    """
    k, bad = len(gram), size <= floor
    try:
        if found < k:
            more = gram.copy()
            np.fill_diagonal(more, np.diagonal(gram) + 8 * EPS * k)  # enough for what rounding makes negative
            bad |= np.diagonal(_cholesky(more)) < 0.1
        alive = int(bad.argmax()) if bad.any() else k
        lower = _cholesky(gram[:alive, :alive])
    except np.linalg.LinAlgError:
        return None
    turn = np.zeros((k, alive))
    turn[:alive] = inverse(lower).T
    r = np.concatenate([lower.T, product(turn[:alive].T, gram[:alive, alive:])], axis=1)
    left = size[alive:] * np.sqrt(np.maximum(1 - (r[:, alive:] ** 2).sum(axis=0), 0))
    if not (left <= floor).all():
        return None
    t = np.multiply(r, size, out=r)
    s = np.concatenate([np.diagonal(t), left])
    np.fill_diagonal(t, 0)
    beside = np.cumsum(np.einsum("ij,ij->i", t, t))
    np.fill_diagonal(t, s[:alive])
    first = max(straight, int((beside <= (limit / 8 * s[0]) ** 2).sum()))
    mix = np.eye(k, k - first, -first)
    if first < alive:
        own, s[first:alive], other = _svd(t[first:, first:], full=True)
        turn[:, first:], mix[first:] = product(turn[:, first:], own), other.T
    return turn, s, mix


def _by_levels(
    gram: Floats, size: Floats, straight: int, found: int, limit: float, floor: float
) -> tuple[Floats, Floats, Floats]:
    """`_resolve` of any columns.

    Of those beyond the `found`, what they share with the found is taken away, and the Gram matrix of the remainder
    decomposed, level by level as in `by_levels`.
    """
    k = len(gram)
    turn, s, mix = np.eye(k, straight), size[:straight], np.eye(k, straight)
    rest, own, values = np.eye(k)[:, straight:], np.eye(k - straight), size[straight:] ** 2
    good = found - straight
    while rest.shape[1]:
        image = size[:, None] * rest
        for _ in range(2 if turn.shape[1] else 0):
            image = image - product(turn, product(turn.T, product(gram, image)))
        if not good:
            values, own = leading_by_eigh(product(image.T, product(gram, image)), rest.shape[1])
            good = min(max(1, resolved(values, ROUNDING * EPS, limit)), int((values > floor**2).sum()))
        if not good:
            s, mix = np.concatenate([s, np.sqrt(values)]), np.concatenate([mix, product(rest, own)], axis=1)
            break
        new = product(image, own[:, :good] / np.sqrt(values[:good]))
        lower = _cholesky(product(new.T, product(gram, new)))
        turn = np.concatenate([turn, product(new, inverse(lower).T)], axis=1)
        s = np.concatenate([s, np.sqrt(values[:good]) * np.diagonal(lower)])
        rest = product(rest, own)
        mix, rest = np.concatenate([mix, rest[:, :good]], axis=1), rest[:, good:]
        good = 0
    return turn, s, mix[:, straight:]


def _straighten(u: Floats, kept: int, straight: int, loss: Floats, limit: float) -> None:
    """Make the first `kept` columns of u orthonormal where more than rounding is left; twice is enough for most."""
    for _ in range(4):
        bad = np.flatnonzero(loss > limit / 8)
        if not len(bad):
            return
        straight += int(bad[0])
        turn, _, _, loss = _resolve(_overlap(u, kept, straight), np.ones(kept), kept, np.inf, 0.0, u.dtype)
        _rotate(u, turn, straight)


def _by_parts(u: Floats) -> Iterator[Floats]:
    step = max(64, CHUNK_BYTES // (16 * u.shape[1]))
    for start in range(0, len(u), step):
        yield u[start : start + step]


def _overlap(u: Floats, k: int, first: int) -> Floats:
    """The first k columns of u times those from `first` on, (k, k − first), in float64."""
    total = RunningSum((k, k - first))
    for part in _by_parts(u):
        own = part[:, :k].astype(np.float64, copy=False)
        total.add_inner(own, own[:, first:])
    return total.value


def _rotate(u: Floats, turn: Floats, first: int) -> None:
    """The columns of u from `first` on become u turn, by parts, to spare the memory of a second u.

    Of a triangular turn, as most are, half the products: columns by columns, the last ones first.
    """
    turn = turn.astype(u.dtype)
    columns = turn.shape[1]
    last = len(turn) - (turn[::-1] != 0).argmax(axis=0)  # the rows that count, of each column
    blocks, start = list[tuple[int, int]](), 0
    while start < columns:
        stop = min(start + TURNED, columns)
        if last[start:stop].max() > first + stop:
            stop = columns
        blocks.append((start, stop))
        start = stop
    for part in _by_parts(u):
        for start, stop in reversed(blocks):
            rows = int(last[start:stop].max())
            part[:, first + start : first + stop] = part[:, :rows] @ turn[:rows, start:stop]


def _complete(u: Floats, kept: int, limit: float) -> None:
    """Fill the columns of u (long, k) from `kept` on with unit vectors orthogonal to each other and those before.

    Random in every row: where u is constant, what is made of it alone is too, and sums of equal numbers go astray.
    """
    long, k = u.shape
    if kept == k:
        return
    rng, scale = stream(0, LINALG, 2), np.float32((12 / long) ** 0.5)  # to length 1
    for part in _by_parts(u):
        part[:, kept:] = (rng.random((len(part), k - kept), dtype=np.float32) - np.float32(0.5)) * scale
    overlap = _overlap(u, k, kept)
    shared, own = overlap[:kept], overlap[kept:]
    turn = inverse(_cholesky(own - product(shared.T, shared))).T
    turn = np.concatenate([product(-shared, turn), turn])
    _rotate(u, turn, kept)
    _straighten(u, k, kept, _loss(turn, u.dtype), limit)
