"""The ways to the singular value decomposition of one matrix on the CPU.

Each takes a `TallMatrix` X (long, short) and k ≥ 1 and returns u (long, k), s (k,), v (short, k) of
X v = u diag(s), descending. u is None where the caller needs the short side alone and s is accurate without it.
None of them judges its result: `verify` does. Those that cannot finish raise NotConverged.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gpunet.linalg.eigen import NotConverged, leading_by_eigh, leading_by_lanczos
from gpunet.linalg.matrix import Floats, TallMatrix
from gpunet.linalg.moments import safe_sums
from gpunet.linalg.verify import tolerance

Triples = tuple[Floats | None, Floats, Floats]
Route = Callable[[TallMatrix, int, bool], Triples]


def full(x: TallMatrix, k: int, long_side: bool = True) -> Triples:
    """LAPACK's gesdd of the whole; gesvd, slower and sturdier, where gesdd does not converge."""
    x.rescale()
    dense = x.dense()
    try:
        u, s, vt = np.linalg.svd(dense, full_matrices=False)
    except np.linalg.LinAlgError:
        from scipy.linalg import svd as scipy_svd

        try:
            u, s, vt = scipy_svd(dense, full_matrices=False, lapack_driver="gesvd", check_finite=False)
        except np.linalg.LinAlgError as error:
            raise NotConverged(f"gesdd and gesvd: {error}") from error
    return u[:, :k], s[:k], vt[:k].T


def by_gram(x: TallMatrix, k: int, long_side: bool = True, products: str | None = None) -> Triples:
    """Eigenvectors of XᵀX: σ carries an error of ε σ₁²/σ, ε that of the products."""
    values, v = leading_by_eigh(safe_sums(x, products=products, mean=False)[0], k)
    if products is None:
        resolvable(x, values)
    return finish(x, values, v, long_side)


def by_gram64(x: TallMatrix, k: int, long_side: bool = True) -> Triples:
    """`by_gram` with float64 products whatever the data's dtype."""
    return by_gram(x, k, long_side, "float64")


def by_subspace(x: TallMatrix, k: int, long_side: bool = True) -> Triples:
    """The leading eigenvectors of XᵀX by block Lanczos iteration."""
    g = safe_sums(x, mean=False)[0]
    values, v = leading_by_lanczos(lambda q: g @ q, x.short, k, _eigen_tol(x, k))
    resolvable(x, values)
    return finish(x, values, v, long_side)


def by_qr(x: TallMatrix, k: int, long_side: bool = True) -> Triples:
    """R of X = QR, chunk after chunk without ever keeping Q, then the SVD of R: LAPACK's accuracy in small memory.

    (Demmel, Grigori, Hoemmen & Langou 2012, sequential TSQR.)
    """
    x.rescale()
    r = np.zeros((0, x.short), x.dtype)
    for _, chunk in x.chunks(rows=min(x.long, max(2 * x.short, x.chunk_rows(x.dtype)))):
        r = np.asarray(np.linalg.qr(np.concatenate([r, chunk]), mode="r"))
    _, s, vt = np.linalg.svd(r, full_matrices=False)
    return finish(x, s[:k].astype(np.float64) ** 2, vt[:k].T, long_side)


def randomized(x: TallMatrix, k: int, long_side: bool = True) -> Triples:
    """Randomised block Krylov iteration on X itself, QR-stabilised, from a seeded Gaussian block.

    (Musco & Musco 2015, algorithm 2; the last step from v to both sides is Halko, Martinsson & Tropp 2011, 5.1.)
    In the data's own precision, and without forming XᵀX.
    """
    x.rescale()
    tol, floor = (1e-5, 1e-7) if x.dtype == np.float32 else (_eigen_tol(x, k), 1e-15)
    values, v = leading_by_lanczos(x.normal_times, x.short, k, tol, floor, x.dtype.type)
    resolvable(x, values)
    q = np.linalg.qr(x.times(v))[0]
    v, s, wt = np.linalg.svd(x.transposed_times(q).astype(x.dtype), full_matrices=False)
    return q @ wt.T, s, v


def resolvable(x: TallMatrix, values: Floats) -> None:
    """Raises NotConverged where float32 products, good to 6e-8 σ₁², say little about the last σ².

    At σ_k = 0.01 σ₁ that is 0.03 % of σ_k, and the residual test would let it pass far below.
    """
    if x.dtype == np.float32 and x.x.dtype != np.uint8 and values[-1] < 1e-4 * values[0]:
        raise NotConverged(f"σ_k/σ₁ = {np.sqrt(values[-1] / values[0]):.2g}, float32 products resolve 0.01")


def _eigen_tol(x: TallMatrix, k: int) -> float:
    """‖Gv − λv‖/λ_k that meets the default tolerance of the triples at any σ_k, and turns no vector by much."""
    return min(1e-7, tolerance(x.dtype, x.short, k) / (4 * float(np.sqrt(k))))


def finish(x: TallMatrix, values: Floats, v: Floats, long_side: bool) -> Triples:
    """The singular values and u from orthonormal right vectors v (short, k) and their σ²: X v = u diag(s).

    Every column of X v carries a rounding error of order ε σ₁, so u = X v / s is orthogonal to E = ε σ₁/σ_j. Where
    E² is below rounding, one step towards Cholesky's factor of uᵀu = I + E = RᵀR, u (I − triu(E)), mends that: it
    corrects small triples by large ones, never the other way round (a symmetric step would carry σ₁'s share of E
    into them). Where it is larger, X v = Q R and R = P diag(s) Wᵀ make u = Q P and v W orthonormal, and
    X (v W) = u diag(s) holds again.
    """
    v = v.astype(x.dtype, copy=False)
    if not long_side and values[-1] > 1e-4 * values[0]:
        return None, np.sqrt(values).astype(x.dtype), v
    u = x.times(v)
    s = np.sqrt(np.einsum("ij,ij->j", u, u, dtype=np.float64))
    if s[-1] > 1e-3 * s[0]:
        order = np.argsort(-s, kind="stable")
        if (np.diff(order) < 0).any():
            u, s, v = u[:, order], s[order], v[:, order]
        s = s.astype(x.dtype)
        u /= s
        error = u.T @ u - np.eye(len(s), dtype=x.dtype)
        size = float(np.linalg.norm(error))
        if size < np.finfo(x.dtype).eps ** 0.5:
            correction = np.triu(error, 1) + np.diag(np.diagonal(error) / 2)
            step = max(1, (1 << 20) // len(s))
            for start in range(0, x.long, step):  # by parts, to spare the memory of a second u
                u[start : start + step] -= u[start : start + step] @ correction
            return u, s, v
        u *= s
    q, r = np.linalg.qr(u)
    p, s, wt = np.linalg.svd(r)
    return q @ p, s, v @ wt.T


ROUTES: dict[str, Route] = {
    "full": full,
    "gram": by_gram,
    "gram64": by_gram64,
    "subspace": by_subspace,
    "qr": by_qr,
    "randomized": randomized,
}
