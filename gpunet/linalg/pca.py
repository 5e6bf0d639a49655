"""PCA from accumulated moments: eigenvectors whose error in the samples' terms is known, and small.

Of moments or data on a GPU all classes are decomposed as stacks. Results are NumPy arrays on the host, k vectors a
class; the moments of a class whose eigenvectors are not good enough come to the host, to be decomposed as there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunet.backend import Backend
from gpunet.backend.blas import limited, product
from gpunet.checks import is_number, is_whole, on_host
from gpunet.errors import ConvergenceError, InputError, shown
from gpunet.linalg import stacked
from gpunet.linalg.certificate import (
    KEPT,
    Certificate,
    Certified,
    Proof,
    certify,
    gamma,
    later,
    of_gram,
    of_nearby,
    reshaped,
    scaled,
)
from gpunet.linalg.device import computing_on, is_gpu
from gpunet.linalg.matrix import EPS, EXACT_ROWS, Floats, largest, result_dtype
from gpunet.linalg.moments import COARSE, FOLD_ROWS, Centred, chunks, diagonal, folded, safe_scale, sums
from gpunet.linalg.slices import with_root
from gpunet.linalg.solvers import leading, leading_by_eigh
from gpunet.linalg.stacked import leading_stack
from gpunet.linalg.svd import svd
from gpunet.linalg.verify import fix_signs, tolerance
from gpunet.reprs import sizes

VANISHING = 2.0**-960  # a trace below which squares may have lost digits to underflow
GROUP_BYTES = 1 << 30  # of Gram matrices that are decomposed as one stack


@dataclass(frozen=True, repr=False)
class PCA(Certified):
    """The leading eigenvectors of a density matrix (1/n) Σ x xᵀ, or of the covariance when centred.

    components: (k, features), rows orthonormal, float64, each row's largest element positive;
    explained_variance: (k,), eigenvalues, descending; explained_variance_ratio: (k,), their share of the trace;
    mean: (features,), of the samples, subtracted only when centred; count: samples;
    residual: as of an `SVD` of the samples X (centred or not): with some unit u_j, all of ‖X v_j − σ_j u_j‖ and
    ‖Xᵀu_j − σ_j v_j‖ are at most so many σ₁, σ_j² = n λ_j. With u_j = X v_j / σ_j that is
    ‖ρ v_j − λ_j v_j‖ / √(λ_j λ_1). It is measured against the samples where they are at hand; of accumulated moments it
    includes what their rounding may add to ρ v_j, γ √(Σ_i s_ii Σ_i s_ii v_ij²), s_ii the variances: errors of
    independent signs of up to γ √(s_ii s_jj) (`Centred.rounding` has γ, and its source); where a root of the moments
    was kept (`by_root`), what its rounding may.
    route: how it was computed: "gram", as eigenvectors of Σ x xᵀ, "root", as `by_root`, or else as of an `SVD`.
    certificate: what is shown of them as singular triples of the samples: σ² = count · variance. As an `SVD`'s it is
    computed when it is read first.
    """

    components: Floats
    explained_variance: Floats
    explained_variance_ratio: Floats
    mean: Floats
    count: int
    residual: float
    route: str
    _proof: Proof = field(kw_only=True, repr=False, compare=False)

    def _told(self) -> dict[str, str]:
        explained = float(np.sum(self.explained_variance_ratio))
        return {
            "components": sizes(self.components), "explain": f"{100 * explained:.4g} %",
            "samples": f"{self.count:,}", "route": self.route, "residual": f"{self.residual:.2g}",
        }  # fmt: skip


def check_count(k: int | None, variance: float | None, most: int) -> None:
    """Raises InputError unless at most one of k in [1, most] and variance in (0, 1] is given."""
    if k is not None and variance is not None:
        raise InputError(f"got components={shown(k)} and variance={shown(variance)}: give one of them")
    if k is not None and not is_whole(k, 1, most):
        raise InputError(f"components is {shown(k)}: expected an integer from 1 to {most}")
    if variance is not None and not (is_number(variance) and 0 < variance <= 1):
        raise InputError(f"variance is {shown(variance)}: expected a share of the variance in (0, 1], say 0.98")


def decompose_on(
    device: Backend, moments: Sequence[Centred], whose: Sequence[str], k: int | None, variance: float | None,
    center: bool, dtype: Any, room: int,
) -> list[PCA]:  # fmt: skip
    """`decompose` of some classes' moments where they lie: one after the other, or on a GPU as one stack.

    room: bytes that they may keep together for their certificates.
    """
    if is_gpu(device):
        with computing_on(device) as xp:
            return decompose_stack(xp, moments, k, variance, center, dtype)
    return [
        limited(len(each.mean) ** 3, decompose, each, k, variance, center, dtype, what, room // len(moments))
        for each, what in zip(moments, whose, strict=True)
    ]


def decompose(
    moments: Centred, k: int | None, variance: float | None, center: bool, dtype: Any, what: str = "the samples",
    room: int = KEPT,
) -> PCA:  # fmt: skip
    """`PCA` of accumulated moments: k components, as many as explain the share `variance`, or all there are.

    dtype: of the samples, whose `tolerance` the residual has to meet; room: bytes that the result may keep for its
    certificate. Where the eigenvectors of the matrix itself do not, they are computed by way of `by_root`. Raises
    ConvergenceError where both fail, naming what was reached, and InputError where squares leave the range of float64.
    """
    total = check_trace(moments, float(np.trace(moments.about(center))), what)
    moments, total, scale = normalised(moments, total)
    scatter = moments.about(center)
    wanted = k if k is not None else available(moments, center)
    limit = tolerance(dtype, len(scatter), wanted)
    try:
        values, vectors = leading(scatter, wanted, min(1e-12, limit / 8), moments.count, more=1)
    except np.linalg.LinAlgError:
        return by_root(moments, scale, k, variance, center, dtype, what, room)
    if variance is not None:
        wanted = reached(values[:wanted], variance, total)
        limit = tolerance(dtype, len(scatter), wanted)
    known, values, vectors = values, values[:wanted], vectors[:, :wanted].copy()
    wrong = np.linalg.norm(product(scatter, vectors) - vectors * values, axis=0)
    wrong += noise(np, moments, vectors, scatter)
    residuals = relative(wrong, values)
    if not max(residuals.max(), hidden(values, len(scatter))) <= limit:
        return by_root(moments, scale, k, variance, center, dtype, what, room)
    prove = certified(np, moments, scatter, vectors, center, known)
    proof = later(len(scatter) ** 3, prove, scatter.nbytes + vectors.nbytes, room)
    return as_pca(moments, values, vectors, total, float(residuals.max()), scale, "gram", proof)


def by_root(
    moments: Centred, scale: float, k: int | None, variance: float | None, center: bool, dtype: Any, what: str,
    room: int = KEPT,
) -> PCA:  # fmt: skip
    """`decompose` from a matrix A of few rows with AᵀA = Σ x xᵀ: its SVD loses ε σ₁ where squares lose ε σ₁².

    Σ x xᵀ = Σ (x−m)(x−m)ᵀ + n m mᵀ, and Σ (x−m)(x−m)ᵀ = D C D with D² its diagonal and C = Q Λ Qᵀ the correlations.
    So A = [Λ^½ Qᵀ D; √n mᵀ] (features + 1, features), without the last row when centred: neither a mean far larger than
    the signal nor features of very different size drown what is small. Where `Centred.roots` were kept, they are A; of
    exact sums they are found (`with_root`). Of f QRs one after the other of r rows each A has an error of up to
    ε ((√f + 1) √r / 4 σ₁ + (√f + 2) ‖A‖_F), measured: the first where two rows repeat, 17 ε of 24 for r = 400; the
    second for noise, a fifth of it.
    """
    features, wanted = len(moments.mean), k if k is not None else available(moments, center)
    unseen = 0.0
    if moments.rounding < EPS:
        moments, unseen = with_root(moments)
    try:
        roots, folds = folded(moments.roots, moments.folds, FOLD_ROWS)
        root, left = _root(moments, roots, center)
        found = svd(root, wanted, method="full")
    except np.linalg.LinAlgError as error:
        raise ConvergenceError(
            f"the moments of {what} have no eigenvectors by LAPACK ({error}): expected it to converge; decompose all "
            "samples in one piece, with gn.class_pca or gn.svd"
        ) from None
    total = float(np.einsum("ij,ij->", root, root))
    rank = len(found.s) if variance is None else reached(found.s**2, variance, total)
    s, v = found.s[:rank].copy(), found.vt[:rank].T
    limit = tolerance(dtype, features, rank)
    if left is None:
        rows = max(FOLD_ROWS, 4 * features)
        lost_by_qr = (folds**0.5 + 1) * rows**0.5 / 4 + (folds**0.5 + 2) * total**0.5 / (s[0] or 1)
        residuals = np.full(rank, found.residual + EPS * lost_by_qr)
        away, squared = EPS * (lost_by_qr + 1) * float(s[0]), 0.0
    else:
        away, squared = EPS * total**0.5, float(np.linalg.norm(left) + lost(np, moments))
        wrong = np.linalg.norm(product(left, v), axis=0) + noise(np, moments, v)
        residuals = relative(wrong, s * s) + found.residual + EPS  # ε: of m, rounded
    residuals += np.minimum(unseen**0.5, unseen / np.maximum(s, 1e-300)) / (float(s[0]) or 1)
    bad = np.flatnonzero(~(residuals <= limit))
    if len(bad):
        narrow = moments.rounding > np.finfo(np.float32).eps
        shown = max(g for g in range(bad[0] + 1) if not (residuals[:g] > tolerance(dtype, features, g)).any())
        raise ConvergenceError(
            f"component {bad[0] + 1} of {rank} of {what} has a residual of {residuals[bad[0]]:.2g}: expected at most "
            f"{limit:.2g}; sums of squares show the first {shown}: ask for no more, or "
            + ("give float64 samples" if narrow else "decompose all samples in one piece, with gn.class_pca or gn.svd")
        )
    whole, shape = of_samples(moments.mean, moments.count, center), (moments.count, features)
    own = root[None], found.u[None, :, :rank].copy(), s[None], found.vt[None, :rank].copy()

    def prove() -> Certificate:
        return whole(of_nearby(reshaped(certify(np, *own)), shape, away, squared + unseen))

    proof = later(root.size * features, prove, sum(each.nbytes for each in own), room)
    return as_pca(moments, s * s, v, total, float(residuals.max()), scale, "root", proof)


def _root(moments: Centred, roots: tuple[Floats, ...], center: bool) -> tuple[Floats, Floats | None]:
    """(A of `by_root`, AᵀA − Σ x xᵀ as computed, or None where A is no root of Σ x xᵀ as computed)."""
    lost = None
    if roots:
        root = np.concatenate(roots)
    else:
        scatter = moments.about(True)
        size = np.sqrt(np.maximum(np.diagonal(scatter), 0))
        unit = np.where(size > 0, size, 1)
        rank = min(moments.count, len(size))
        values, q = leading_by_eigh(scatter / unit / unit[:, None], rank, rank)
        root = np.sqrt(values)[:, None] * q.T * size
        lost = product(root.T, root) - scatter
    if not center:
        root = np.concatenate([root, moments.count**0.5 * (moments.mean + moments.mean_low)[None, :]])
    return root, lost


def available(moments: Centred, center: bool) -> int:
    """How many components the samples have at most."""
    return max(1, min(len(moments.mean), moments.count - center))


def noise(xp: Any, moments: Centred, vectors: Any, summed: Any = None) -> Any:
    """(k,): what rounding may add to ‖Σ x xᵀ v − λ v‖, as `PCA.residual` says.

    summed: Σ x xᵀ, where the first is computed from it: making and adding n m mᵀ and multiplying by v round
    √features + 4 times.
    """

    def spread(matrix: Any) -> Any:
        sizes = xp.abs(diagonal(xp, matrix))  # of constant samples, ±rounding
        return xp.sqrt(xp.sum(sizes) * xp.sum(sizes[:, None] * vectors * vectors, axis=0))

    found = moments.rounding * spread(moments.scatter) + moments.dropped
    return found if summed is None else found + EPS * (summed.shape[0] ** 0.5 + 4) * spread(summed)


def certified(
    xp: Any, moments: Centred, summed: Any, vectors: Any, center: bool, known: Floats | None = None
) -> Callable[[], Certificate]:
    """How eigenvectors (features, k) of Σ x xᵀ = summed, by `moments`, about the mean or not, are."""
    error, whole = np.array([lost(xp, moments, summed)]), of_samples(moments.mean, moments.count, center)
    return lambda: whole(reshaped(of_gram(xp, summed[None, ...], error, vectors[None, ...], known)))


def of_samples(mean: Any, count: int, center: bool) -> Callable[[Certificate], Certificate]:
    """What makes one of Σ x xᵀ's that of the samples themselves, or less their mean, which is rounded."""
    mean, away = on_host(mean), 0.0
    if center and (size := float(np.abs(mean).max())):  # so that squares stay in range
        away += EPS * size * float(np.linalg.norm(mean / size)) * count**0.5
    shape = (count, len(mean))
    return lambda proof: of_nearby(proof, shape, away) if away else proof


def lost(xp: Any, moments: Centred, summed: Any = None) -> float:
    """What the error of Σ x xᵀ is at most, in the 2-norm, were all roundings of one sign: b u where `rounding` is √b u.

    So may be those of the mean, where summed has n m mᵀ in it, unless sums are exact: NumPy sums a column one number
    after the other, EXACT_ROWS at a time.
    """
    exact, unit = moments.rounding <= 2 * EPS, (EPS if moments.rounding < COARSE else 2.0**-23) / 2
    each = moments.rounding if exact else ((moments.rounding / unit - 4) ** 2 + 4) * unit
    found = each * float(xp.sum(xp.abs(diagonal(xp, moments.scatter))))
    if summed is not None:
        each = EPS * (summed.shape[0] ** 0.5 + 4) + (0 if exact else gamma(EXACT_ROWS))
        found += each * float(xp.sum(xp.abs(diagonal(xp, summed))))
    return found


def relative(wrong: Floats, values: Floats) -> Floats:
    """(k,) residuals of singular triples from wrong_j ≥ ‖Σ x xᵀ v_j − λ_j v_j‖: the better of two choices of u_j.

    With u = X v / σ it is wrong / (σ σ₁). With any u orthogonal to X's range, which will do where σ vanishes,
    ‖X v − σ u‖ ≤ √(λ + wrong) + σ.
    """
    top = float(values[0])
    if not top > 0:
        return np.where(wrong == 0, 0.0, np.inf)
    beside = 2 * np.sqrt((values + wrong) / top)
    some = values > 0
    beside[some] = np.minimum(beside[some], wrong[some] / np.sqrt(values[some]) / top**0.5)
    return beside


def hidden(values: Floats, features: int) -> float:
    """By how much, over σ₁, the first σ left out may exceed the last of those kept, true triples as these may be.

    `eigh` loses √features ε λ₁, say, and puts what lies below that in any order: of features of size 1, 1e-9 and 1e-60
    it may take the third for the second.
    """
    if len(values) == features or not values[0] > 0:
        return 0.0
    last = float(values[-1] / values[0])
    return float(np.sqrt(last + features**0.5 * EPS) - np.sqrt(last))


def check_trace(moments: Centred, total: float, what: str) -> float:
    """The trace. Raises InputError where squares of the samples left the range of float64."""
    if not np.isfinite(total):
        raise InputError(f"the squares of {what} overflow float64: scale the samples down")
    if total < VANISHING and 0 < moments.largest < 2.0**-450:
        raise InputError(f"the squares of {what}, at most {moments.largest:.2g}, underflow float64: scale them up")
    return total


def normalised(moments: Centred, total: float) -> tuple[Centred, float, float]:
    """(moments, trace, scale) of the samples times the power of two `scale` that brings the trace near 1.

    Residuals have squares of squares, which would leave the range of float64 where squares do not yet.
    """
    scale = 2.0 ** -(int(np.frexp(total)[1]) // 2)
    return moments.times(scale), total * scale * scale, scale


def as_pca(
    moments: Centred, values: Floats, vectors: Floats, total: float, residual: float, scale: float, route: str,
    proof: Proof,
) -> PCA:  # fmt: skip
    """The result, on the host. scale: what the samples were multiplied by; proof: of the samples so multiplied.

    Raises InputError where a variance leaves the range of float64.
    """
    variances = variances_of(values, moments.count, scale, f"samples of size {moments.largest / scale:.2g}")
    return PCA(
        components=fix_signs(vectors)[0].T.copy(),
        explained_variance=variances,
        explained_variance_ratio=values / total if total else np.zeros(len(values)),
        mean=on_host(moments.mean + moments.mean_low) / scale,
        count=moments.count,
        residual=residual,
        route=route,
        _proof=scaled(proof, 1 / scale),
    )


def variances_of(values: Floats, count: int, scale: float, what: str) -> Floats:
    """Eigenvalues of Σ x xᵀ over `count` and scale²; InputError where the largest leaves the range of float64."""
    with np.errstate(over="ignore", under="ignore"):
        variances = values / count / scale / scale
    if not np.isfinite(variances[0]) or (variances[0] < np.finfo(np.float64).tiny and values[0] > 0):
        raise InputError(f"the variance of {what} leaves the range of float64: scale the samples")
    return np.asarray(variances)


def reached(values: Floats, variance: float, total: float) -> int:
    """How many of the values, descending, make the share `variance` of their total.

    The share is compared a rounding error below, so that variance=1 ends where the trace is exhausted.
    """
    enough = np.cumsum(values) >= float(variance) * total * (1 - 1e-12)
    return int(np.argmax(enough)) + 1 if enough.any() else len(values)


# -- on a GPU ---------------------------------------------------------------------------------------------------------


def decompose_stack(
    xp: Any, moments: Sequence[Centred], k: int | None, variance: float | None, center: bool, dtype: Any
) -> list[PCA]:
    """`decompose` of some classes' moments on a GPU, as one stack."""
    traces = [float(xp.sum(diagonal(xp, each.about(center)))) for each in moments]
    found = [normalised(each, check_trace(each, t, "the samples")) for each, t in zip(moments, traces, strict=True)]
    moments, totals, scales = zip(*found, strict=True)
    stack = xp.stack([each.about(center) for each in moments])
    counts, features = [available(each, center) if k is None else k for each in moments], stack.shape[1]

    def judged(i: int, values: Any, vectors: Any) -> PCA | None:
        own, total = np.maximum(on_host(values), 0), totals[i]
        rank = counts[i] if variance is None else min(counts[i], reached(own, variance, total))
        own, v = own[:rank], vectors[:, :rank]
        wrong = xp.matmul(stack[i, ...], v) - v * values[None, :rank]
        wrong = xp.sqrt(xp.sum(wrong * wrong, axis=0)) + noise(xp, moments[i], v, stack[i, ...])
        residual = float(relative(on_host(wrong), own).max())
        if not max(residual, hidden(own, features)) <= tolerance(dtype, features, rank):  # NaN, too
            return None
        proof = certified(xp, moments[i], stack[i, ...], v, center)()
        return as_pca(moments[i], own, on_host(v), total, residual, scales[i], "gram", proof)

    return [
        good or by_root(moments[i].moved(on_host), scales[i], k, variance, center, dtype, f"class {i} of {len(counts)}")
        for i, good in enumerate(_by_eigenvectors(xp, stack, max(counts), dtype, judged))
    ]


def _by_eigenvectors(
    xp: Any, stack: Any, k: int, dtype: Any, judged: Callable[[int, Any, Any], PCA | None]
) -> list[PCA | None]:
    """What `judged` makes of each matrix's number and leading eigenpairs (k,), (n, k): of all as one stack, then of
    each that was not good enough by itself, in the way that cannot fail.
    """  # noqa: D205
    found: list[PCA | None] = [None] * stack.shape[0]
    tol = min(1e-12, tolerance(dtype, stack.shape[1], k) / 8)  # well below what lets them pass
    for sturdy in (False, True):
        todo = [i for i, each in enumerate(found) if each is None]
        for part in [[i] for i in todo] if sturdy else [todo]:
            some = stack[part[0] : part[-1] + 1, ...]
            with suppress(np.linalg.LinAlgError):
                values, vectors = leading_stack(xp, some, k, tol, sturdy)
                for j, i in enumerate(part):
                    found[i] = judged(i, values[j, ...], vectors[j, ...])
    return found


def class_parts(
    xp: Any, x: Any, rows: Sequence[NDArray[np.intp]], k: int | None, variance: float | None, center: bool
) -> list[PCA]:
    """PCA of x[rows] for each class's rows; x (n, features) on the device. Residuals are measured against x.

    Each class is scaled by itself. Where the eigenvectors of its Gram matrix do not meet the `tolerance` of x's dtype,
    its rows are decomposed by gesvd; raises ConvergenceError where that does not meet it either.
    Memory: a Gram matrix of float64 a class, in groups of GROUP_BYTES, beside chunks.
    """
    features, parts = x.shape[1], dict[int, PCA | None]()
    classes = [_Samples(xp, x, xp.asarray(own), k, variance, center) for own in rows]
    most = features if k is None or variance is not None else k
    wide, group = [c for c, own in enumerate(rows) if len(own) >= features], max(1, GROUP_BYTES // (8 * features**2))
    for start in range(0, len(wide), group):
        some = wide[start : start + group]
        stack, own = xp.stack([classes[c].gram() for c in some]), [classes[c] for c in some]

        def judged(i: int, values: Any, vectors: Any, own: list[_Samples] = own, stack: Any = stack) -> PCA | None:
            return own[i].judged(values, vectors, stack[i : i + 1, ...])

        parts |= dict(zip(some, _by_eigenvectors(xp, stack, most, result_dtype(x.dtype), judged), strict=True))
    for c in set(range(len(rows))) - set(wide):
        with suppress(np.linalg.LinAlgError):
            parts[c] = classes[c].judged(*classes[c].few(), None)
    return [parts.get(c) or classes[c].by_svd(f"class {c} of {len(rows)}") for c in range(len(rows))]


class _Samples:
    """One class's samples on a GPU, times a power of two of its own, and PCAs of them that are held against them."""

    def __init__(self, xp: Any, x: Any, rows: Any, k: int | None, variance: float | None, center: bool) -> None:
        self.xp, self.x, self.rows, self.k, self.variance, self.center = xp, x, rows, k, variance, center
        self.dtype, top = result_dtype(x.dtype), largest(xp, x, "x", rows)
        self.scale = safe_scale(top) if x.dtype.kind == "f" else 1.0
        zero = xp.zeros(x.shape[1], dtype=xp.float64)
        self.moments = Centred(None, None, zero, zero, rows.shape[0], 0.0, top * self.scale)
        self.total, self.lost = 0.0, 0.0

    def gram(self) -> Any:
        """Σ x xᵀ, about the mean when centred; the mean and the trace are kept."""
        found = sums(self.xp, self.x, self.rows, self.scale)
        self.moments = replace(self.moments, mean=found.mean, mean_low=found.mean_low)
        gram = found.about(self.center)
        self.total = float(self.xp.sum(diagonal(self.xp, gram)))
        self.lost = lost(self.xp, found, gram)
        return gram

    def dense(self) -> Any:
        """All samples in float64, less their mean when centred; the mean and the trace are kept."""
        xp = self.xp
        dense = xp.astype(xp.take(self.x, self.rows, axis=0), xp.float64) * self.scale
        first = xp.mean(dense, axis=0)
        rest = xp.mean(dense - first, axis=0)
        self.moments = replace(self.moments, mean=first, mean_low=rest)
        if self.center:
            dense = dense - first - rest
        self.total = float(xp.sum(dense * dense))
        return dense

    def few(self) -> tuple[Any, Any]:
        """Eigenpairs of Σ x xᵀ of fewer samples than features: X Xᵀ w = σ² w, Xᵀw = Q R, R = P diag(σ) ·, v = Q P.

        They are orthonormal also where σ is too small to divide by.
        """
        xp, dense = self.xp, self.dense()
        most = dense.shape[0] if self.k is None else self.k
        _, w = leading_stack(xp, xp.matmul(dense, dense.T)[None, ...], most, 1e-15)
        q, r = xp.linalg.qr(xp.matmul(dense.T, w[0, ...]))
        p, s, _ = xp.linalg.svd(r)
        return s * s, xp.matmul(q, p)

    def judged(self, values: Any, vectors: Any, gram: Any) -> PCA | None:
        """Eigenpairs of Σ x xᵀ as the result, or None where ‖Xᵀ(X v) − λ v‖ says that they are none.

        gram: that sum (1, features, features), or None where they are few samples', by whom they are certified.
        """
        xp, found = self.xp, np.maximum(on_host(values), 0)
        rank, limit = self._rank(found)
        v, image = vectors[:, :rank], 0.0
        for chunk in chunks(xp, self.x, self.rows, 8):
            part = xp.astype(chunk, xp.float64) * self.scale
            if self.center:
                part = part - self.moments.mean - self.moments.mean_low
            image = image + xp.matmul(part.T, xp.matmul(part, v))
        wrong = image - v * values[None, :rank]
        residual = float(relative(on_host(xp.sqrt(xp.sum(wrong * wrong, axis=0))), found[:rank]).max())
        if not max(residual, hidden(found[:rank], len(v))) <= limit:  # NaN, too
            return None
        if gram is not None:
            proof = of_gram(xp, gram, np.array([self.lost]), v[None, ...])
        else:
            dense, s = self.dense(), xp.sqrt(xp.asarray(found[:rank]))
            u = xp.matmul(dense, v) / xp.where(s > 0, s, xp.ones_like(s))
            proof = certify(xp, dense[None, ...], u[None, ...], s[None, ...], v.T[None, ...])
        return self._result(found[:rank], v, residual, "gram", proof)

    def by_svd(self, what: str) -> PCA:
        """The result by gesvd of the samples themselves."""
        xp, dense = self.xp, self.dense()
        most = min(dense.shape) if self.k is None else self.k
        try:
            u, s, vt, errors = stacked.solve(xp, dense[None, ...], most, "gesvd", np.dtype(np.float64))
        except np.linalg.LinAlgError as error:
            raise ConvergenceError(f"{what} has no SVD on a GPU, by gesvd ({error}): use device='cpu'") from None
        values, worst = on_host(s)[0] ** 2, float(errors.max())
        rank, limit = self._rank(values)
        if not worst <= limit:
            raise ConvergenceError(
                f"the components of {what}, {dense.shape[0]}×{dense.shape[1]}, have a residual of {worst:.2g} on a "
                f"GPU, by gesvd: expected {limit:.2g}; compute them with device='cpu'"
            )
        proof = certify(xp, dense[None, ...], u[:, :, :rank], s[:, :rank], vt[:, :rank, :])
        return self._result(values[:rank], vt[0, :rank, :].T, worst, "gesvd", proof)

    def _rank(self, values: NDArray[np.float64]) -> tuple[int, float]:
        """(how many components are wanted, the tolerance of so many)."""
        rank = len(values) if self.variance is None else reached(values, self.variance, self.total)
        rank = min(rank, self.moments.count)
        return rank, tolerance(self.dtype, self.x.shape[1], rank)

    def _result(
        self, values: NDArray[np.float64], vectors: Any, residual: float, route: str, proof: Certificate
    ) -> PCA:
        residual += float(np.finfo(self.dtype).eps)  # what is returned has the samples' precision
        proof = of_samples(self.moments.mean, self.moments.count, self.center)(reshaped(proof))
        return as_pca(self.moments, values, on_host(vectors), self.total, residual, self.scale, route, proof)
