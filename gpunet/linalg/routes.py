"""The ways to the singular value decomposition of one matrix on the CPU.

Each takes a `TallMatrix` X (long, short), k ≥ 1, whether u is wanted, and the residual to reach, and returns
u (long, k), s (k,), v (short, k) of X v = u diag(s), descending, s and v in float64; u may be None where it is not
wanted. None of them judges its result: `verify` does. Those that cannot finish raise NotConverged or LinAlgError.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from gpunet.linalg.eigen import NotConverged, inverse, leading, leading_by_eigh, leading_by_lanczos
from gpunet.linalg.matrix import CHUNK_BYTES, Floats, RunningSum, TallMatrix, inner
from gpunet.linalg.moments import EPS, exact_sums, shifted_scatter
from gpunet.linalg.verify import tolerance
from gpunet.rng import LINALG, stream

Triples = tuple[Floats | None, Floats, Floats]
Route = Callable[..., Triples]  # (x, k, long_side, limit)

ROUNDING = 4.0  # ‖Gv − λv‖/(ε λ₁) of LAPACK's eigenvectors: 3 on average, 9 at most, for 5 to 1500 columns
HOPE = 0.25  # the same where the values fall: for a try, since the result is verified
LEVELS = 16
QR_BYTES = 8 << 20
TURNED = 64  # columns of u that are turned at once


def full(x: TallMatrix, k: int, long_side: bool, limit: float) -> Triples:
    """LAPACK's gesdd of the whole, in float64; gesvd, slower and sturdier, where gesdd does not converge."""
    x.rescale()
    dense = x.dense(np.float64)
    try:
        u, s, vt = np.linalg.svd(dense, full_matrices=False)
    except np.linalg.LinAlgError:
        from scipy.linalg import svd as scipy_svd

        u, s, vt = scipy_svd(dense, full_matrices=False, lapack_driver="gesvd", check_finite=False)
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
                image = part @ rest
                total.add_inner(image, image)
            own, mix = leading_by_eigh(total.value, rest.shape[1])
            v, values = np.concatenate([v[:, :found], rest @ mix], axis=1), np.concatenate([values[:found], own])
            if own[0] <= _vanishing(x, values[0]) ** 2:
                break
            found += max(1, resolved(own, ROUNDING * EPS, limit))
    zero = max(0, k - int(np.count_nonzero(np.diagonal(gram(x, "float64")))))
    return finish(x, np.sqrt(values[:k]), v[:, :k], True, limit, found, zero)


def by_subspace(x: TallMatrix, k: int, long_side: bool, limit: float) -> Triples:
    """The leading eigenvectors of XᵀX by block Lanczos iteration."""
    precise = x.float64_products
    g = gram(x, "float64" if precise else "float32")
    values, v = leading_by_lanczos(lambda q: g @ q, x.short, k, _eigen_tol(x, k))
    _check_resolved(values, not precise, limit)
    return finish(x, np.sqrt(values), v, long_side, limit)


def randomized(x: TallMatrix, k: int, long_side: bool, limit: float, patience: float = math.inf) -> Triples:
    """Randomised block Krylov iteration on X itself from a seeded Gaussian block, without forming XᵀX.

    (Musco & Musco 2015, algorithm 2; the last step from v to both sides is Halko, Martinsson & Tropp 2011, 5.1.)
    In the data's own precision.
    """
    x.rescale()
    single = not x.float64_products
    tol, floor = (1e-5, 1e-7) if single else (_eigen_tol(x, k), 1e-15)
    dtype = np.float32 if single else np.float64
    try:
        values, v = leading_by_lanczos(x.normal_times, x.short, k, tol, floor, dtype, patience)
    except NotConverged:
        x.iterates = False
        raise
    _check_resolved(values, single, limit)
    u, _, _ = finish(x, np.sqrt(values), v, True, limit)
    assert u is not None
    v, s, wt = np.linalg.svd(x.transposed_times(u), full_matrices=False)
    _rotate(u, wt.T, 0)
    return u, s, v


def by_qr(x: TallMatrix, k: int, long_side: bool, limit: float) -> Triples:
    """R of X = QR, chunk after chunk without ever keeping Q, then the SVD of R: LAPACK's accuracy in small memory.

    (Demmel, Grigori, Hoemmen & Langou 2012, sequential TSQR.)
    """
    x.rescale()
    r = np.zeros((0, x.short))
    for _, chunk in x.chunks(np.float64, min(x.long, max(3 * x.short, QR_BYTES // (8 * x.short)))):
        r = np.asarray(np.linalg.qr(np.concatenate([r, chunk]), mode="r"))
    _, s, vt = np.linalg.svd(r, full_matrices=False)
    return finish(x, s[:k], vt[:k].T, True, limit)  # u, too: only by it small ones can be judged


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
        if x.a.dtype.kind == "f" and x.scale == 1 and not 1e-20 < top < 1e30:
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
    means = raw.mean(axis=0)
    return np.asarray(raw - means[:, None] - means + means.mean())


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
            values, v = leading(g, k, _eigen_tol(x, k)) if x.iterates else leading_by_eigh(g, k)
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
        np.linalg.cholesky(g - np.eye(len(g)) * (least * top))
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
        own = np.matmul(part, scaled, out=u[where, :k] if direct else None)
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
        v = np.concatenate([v[:, :fixed], v @ mix], axis=1)
        _rotate(u, turn, straight)
        _straighten(u, kept, straight, loss, limit)
    _complete(u, kept, limit)
    v, s = np.concatenate([v, known], axis=1), np.concatenate([s, np.zeros(wanted - k)])
    return u, np.sort(s)[::-1], v  # swaps only what rounding swapped


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
            bad |= np.diagonal(np.linalg.cholesky(more)) < 0.1
        alive = int(bad.argmax()) if bad.any() else k
        lower = np.linalg.cholesky(gram[:alive, :alive])
    except np.linalg.LinAlgError:
        return None
    turn = np.zeros((k, alive))
    turn[:alive] = inverse(lower).T
    r = np.concatenate([lower.T, turn[:alive].T @ gram[:alive, alive:]], axis=1)
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
        own, s[first:alive], other = np.linalg.svd(t[first:, first:])
        turn[:, first:], mix[first:] = turn[:, first:] @ own, other.T
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
            image = image - turn @ (turn.T @ (gram @ image))
        if not good:
            values, own = leading_by_eigh(image.T @ (gram @ image), rest.shape[1])
            good = min(max(1, resolved(values, ROUNDING * EPS, limit)), int((values > floor**2).sum()))
        if not good:
            s, mix = np.concatenate([s, np.sqrt(values)]), np.concatenate([mix, rest @ own], axis=1)
            break
        new = image @ (own[:, :good] / np.sqrt(values[:good]))
        lower = np.linalg.cholesky(new.T @ (gram @ new))
        turn = np.concatenate([turn, new @ inverse(lower).T], axis=1)
        s = np.concatenate([s, np.sqrt(values[:good]) * np.diagonal(lower)])
        mix, rest = np.concatenate([mix, rest @ own[:, :good]], axis=1), rest @ own[:, good:]
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
    turn = inverse(np.linalg.cholesky(own - shared.T @ shared)).T
    turn = np.concatenate([-shared @ turn, turn])
    _rotate(u, turn, kept)
    _straighten(u, k, kept, _loss(turn, u.dtype), limit)


def _vanishing(x: TallMatrix, top: float) -> float:
    """The singular value below which nothing is left but rounding, of σ₁² = top."""
    return max(8 * EPS, float(np.finfo(x.dtype).eps) / 16) * float(np.sqrt(top))


def _rows_beside(x: TallMatrix, columns: int) -> int:
    """Rows of a chunk such that it and two products of `columns` take CHUNK_BYTES."""
    return int(max(64, min(x.long, CHUNK_BYTES // (8 * (x.short + 2 * columns)))))


def _eigen_tol(x: TallMatrix, k: int) -> float:
    """‖Gv − λv‖/λ_k that meets the default tolerance of the triples at any σ_k, and turns no vector by much."""
    return min(1e-7, tolerance(x.dtype, x.short, k) / (4 * float(np.sqrt(k))))


ROUTES: dict[str, Route] = {
    "full": full,
    "gram": by_gram,
    "gram64": by_gram64,
    "gram-levels": by_levels,
    "subspace": by_subspace,
    "qr": by_qr,
    "randomized": randomized,
}
