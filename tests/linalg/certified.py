"""Certificates of the SVD and PCA engine, held against singular values and vectors better than they are narrow.

A certificate's bounds are a few ε σ₁ wide, so LAPACK's float64 cannot refute one. `Reference` decomposes in longdouble.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

WIDE = np.longdouble
IS_WIDE = bool(np.finfo(WIDE).eps < 2.0**-60)  # 80 bits on x86; elsewhere it may be float64 itself
MOST = 420  # columns up to which it takes a second or two
NARROW = 32  # columns up to which long ones are factored first, in longdouble, and not multiplied as they are
PASSES = 16
MISSED = 0.72  # beyond 45° more of a leading vector lies outside of the span than within
BITS, TERMS = 22, 2048  # products of integers of ±2²¹, and sums of so many, are exact in float64


def lapack(b: Any, vectors: bool = True) -> Any:
    """numpy's SVD, by LAPACK's other driver where gesdd does not converge."""
    try:
        return np.linalg.svd(b, full_matrices=False, compute_uv=vectors)
    except np.linalg.LinAlgError:
        return scipy.linalg.svd(b, full_matrices=False, compute_uv=vectors, lapack_driver="gesvd")


class Reference:
    """Singular values and vectors of a matrix (m, n) of longdouble, or of LAPACK's where that takes too long.

    s: (min(m, n),) longdouble, descending; error: what they may be off by, and any vector's residual, absolute; by:
    "longdouble" or "lapack".

    LAPACK's V, made orthonormal in longdouble, leaves W = X V with WᵀW diagonal to ε σ₁ max(‖w_i‖, ‖w_j‖). What is left
    is taken out by rotations that first-order perturbation theory gives where columns differ in length, and by LAPACK's
    eigenvectors of WᵀW's own block where they do not, until no more than a few 2⁻⁶² σ₁ is left: each pass squares what
    was there, or takes 2⁻³² of it (Ogita and Aishima, Iterative refinement for singular value decomposition based on
    matrix multiplication, 2020). Products are summed exactly: `product`.
    floor: what `a` itself may be off by, absolute.
    """

    def __init__(self, a: Any, floor: float = 0.0) -> None:
        self.flipped = a.shape[0] < a.shape[1]
        self.x = a.T if self.flipped else a
        columns = self.x.shape[1]
        found = _decomposed(self.x.astype(WIDE)) if IS_WIDE and columns <= MOST else None
        if found is not None:
            self.by, share = "longdouble", 2.0**-60 * (columns + 15) ** 0.5
            self.s, self.v = found
        else:
            self.by, share = "lapack", 2.0**-52 * (8 + 2 * columns**0.5)
            _, s, vt = lapack(shortened(self.x.astype(np.float64), 256))
            self.s, self.v = s.astype(WIDE), vt.T.astype(WIDE)
        self.error = share * float(self.s[0]) + floor

    def sigma(self, i: int) -> Any:
        """The i-th singular value, from 0; 0 beyond the last."""
        return self.s[i] if i < len(self.s) else WIDE(0)

    def sine(self, w: Any, right: bool) -> tuple[float, float] | None:
        """(the sine of the largest angle between the span of w's k columns and the true leading one, its error).

        None where there is no such span: no gap behind the k-th singular value that `error` leaves visible.
        """
        size, k = w.shape
        if k == size:
            return 0.0, 0.0
        gap = float(self.sigma(k - 1) - self.sigma(k))
        if gap <= 2 * self.error:
            return None
        own = self.v[:, :k]
        if right == self.flipped:
            own = product(self.x, own) / self.s[:k]
        outside = w - product(own, product(own.T, w))
        square = product(w.T, w).astype(np.float64)  # w is orthonormal to its own precision alone
        straight = scipy.linalg.solve_triangular(np.linalg.cholesky(square), outside.T.astype(np.float64), lower=True)
        return min(1.0, float(np.linalg.norm(straight, 2))), 2 * self.error / gap + 2.0**-60 * k**0.5


def _decomposed(x: Any) -> tuple[Any, Any] | None:
    """(s, V) of a tall x in longdouble; None where that does not converge."""
    columns, size = x.shape[1], np.abs(x).max(initial=0)
    if not size:
        return np.zeros(columns, WIDE), np.eye(columns, dtype=WIDE)
    power = int(np.frexp(size)[1])
    x = np.ldexp(shortened(x, 32) if columns <= NARROW else x, -power)
    v = _straightened(lapack(shortened(x.astype(np.float64), 256))[2].T.astype(WIDE))
    sliced = _slices(x)
    for _ in range(PASSES):
        w = _multiplied(sliced, _slices(v.T))
        gram = product(w.T, w)
        squares = np.diagonal(gram).copy()
        length = np.sqrt(squares)
        size, apart = np.abs(gram), np.abs(squares[:, None] - squares)
        wrong = size > 2.0**-63 * (columns + 15) ** 0.5 * length.max() * np.maximum(length[:, None], length)
        np.fill_diagonal(wrong, False)
        if not wrong.any():
            order = np.argsort(-length, kind="stable")
            return np.ldexp(length[order], power), v[:, order]
        count, part = connected_components(csr_array(wrong & (size > 2.0**-20 * apart)), directed=False)
        if count < columns:
            for c in np.flatnonzero(np.bincount(part) > 1):
                v[:, part == c] = product(v[:, part == c], _turn(gram[np.ix_(part == c, part == c)]))
        else:
            turn = np.where(wrong, gram, 0) / np.where(wrong, squares - squares[:, None], 1)
            v = v + product(v, turn)
        v = _straightened(v)
    return None


def _turn(block: Any) -> Any:
    """Eigenvectors of a block of WᵀW whose diagonal hardly differs."""
    block = block - np.eye(len(block), dtype=WIDE) * np.diagonal(block).mean()
    power = int(np.frexp(np.abs(block).max())[1])
    return np.linalg.eigh(np.ldexp(block, -power).astype(np.float64))[1].astype(WIDE)


def _straightened(v: Any) -> Any:
    """The orthonormal columns nearest to some that are so to less than 2⁻³² (Newton and Schulz)."""
    return product(v, 1.5 * np.eye(v.shape[1], dtype=WIDE) - 0.5 * product(v.T, v))


def product(a: Any, b: Any) -> Any:
    """A B in longdouble, off by 2⁻⁶⁵ of A's rows' and B's columns' largest elements, at BLAS's speed.

    Both are cut into integers of 22 bits, whose products float64 sums exactly (Ozaki, Ogita, Oishi and Rump, Error-free
    transformations of matrix multiplication, 2012).
    """
    if a.size * b.shape[1] < 1 << 12:
        return a.astype(WIDE, copy=False) @ b
    return _multiplied(_slices(a), _slices(b.T))


def _slices(a: Any) -> tuple[list[Any], Any]:
    """(q, f (rows, 1)): a is Σ_i q_i 2^(−22 i) f to 2⁻⁶⁶ of its rows' largest elements, q integers in float64."""
    e = np.frexp(np.abs(a).max(axis=1, keepdims=True, initial=0))[1] - (BITS - 1)
    rest, found = np.ldexp(a, -e), []
    for _ in range(3):
        whole = np.rint(rest)
        found.append(whole.astype(np.float64, copy=False))
        rest = ((rest - whole) * 2.0**BITS).astype(np.float64, copy=False)  # below ½: what 53 bits lose is 2⁻⁷⁴ of a's
    return found, np.ldexp(WIDE(1), e)


def _multiplied(a: Any, b: Any) -> Any:
    """A Bᵀ of two that were sliced."""
    (a, factor), (b, other) = a, b
    total: Any = None
    for start in range(0, a[0].shape[1], TERMS):
        (a0, a1, a2), (b0, b1, b2) = ([q[:, start : start + TERMS] for q in each] for each in (a, b))
        low = (a0 @ b2.T + a1 @ b1.T + a2 @ b0.T) * 2.0**-BITS
        part = (a0 @ b1.T).astype(WIDE)
        part += a1 @ b0.T
        part += low
        part *= 2.0**-BITS
        part += a0 @ b0.T
        total = part if total is None else total + part
    total *= factor
    total *= other.T
    return total


def shortened(x: Any, rows: int) -> Any:
    """Some R with RᵀR = xᵀx, of not many more rows than columns, by partial factors of `rows` or somewhat more.

    LAPACK's Householder vectors are as long as x, and on a flat picture of 634,725 rows its σ₂ is 1e-12 σ₁ off; of
    equal rows, QR of 700 loses 20 ε, of 16 one.
    """
    columns = x.shape[1]
    block = max(3 * columns, rows)
    while len(x) > 2 * columns + rows:
        whole = max(len(x) // block * block, min(len(x), block))
        factors = _factor(x[:whole].reshape(-1, min(whole, block), columns)).reshape(-1, columns)
        x = np.concatenate([factors, x[whole:]])
    return x


def _factor(x: Any) -> Any:
    """The triangular factors R of a stack (…, m, n), m ≥ n, by Householder's reflections in x's precision."""
    if x.dtype == np.float64:
        return np.linalg.qr(x, mode="r")
    x = x.copy()
    columns = x.shape[-1]
    for j in range(columns):
        v = x[..., j:, j].copy()
        length = np.sqrt(np.einsum("...i,...i->...", v, v))
        v[..., 0] += np.copysign(length, v[..., 0])
        square = np.einsum("...i,...i->...", v, v)
        rest = x[..., j:, j:]
        v = v / np.sqrt(np.where(square > 0, square / 2, 1))[..., None]
        rest -= v[..., None] * np.matmul(v[..., None, :], rest)
    return np.triu(x[..., :columns, :])


class Bounds(NamedTuple):
    """How near a certificate is to the truth: bound over error, the median of its σ; of the sine; inf where none is.

    σ: max(upper − σ, σ − lower) over max(|s − σ|, ½ ulp of s in the result's dtype); sine: over max(sine, the dtype's
    ε). sine is None where there is nothing to bound: all vectors of a space, or no gap behind them.
    """

    sigma: float
    sine: float | None
    complete: bool
    by: str


def judge(
    truth: Reference, e: int, certificate: Any, s: Any, sides: list[tuple[Any, bool]], dtype: Any
) -> tuple[list[str], Bounds]:
    """(what is refuted, `Bounds`) of a certificate (σ's bounds (k, 2), sine, complete, beyond) of truth's matrix · 2ᵉ.

    s: (k,) as returned, longdouble times 2⁻ᵉ; sides: [(vectors (size, k), whether right)]; dtype: of the result.
    Where only LAPACK knows the truth, its error is no proof: nothing is refuted by less.
    """
    k, error = len(s), truth.error
    bounds, sine, complete, beyond = certificate
    if bounds.shape != (k, 2) or bounds.dtype != np.float64:
        return [f"sigma is {bounds.dtype}{bounds.shape}, expected float64{(k, 2)}"], Bounds(np.inf, None, False, "none")
    (low, high), beyond = np.ldexp(bounds.astype(WIDE), -e).T, np.ldexp(WIDE(beyond), -e)
    sine, complete = float(sine), bool(complete)
    sigma, following = np.array([truth.sigma(i) for i in range(k)]), truth.sigma(k)
    behind = f"with σ_k+1 = {following:.6g}, σ_k = {sigma[-1]:.6g}, σ_1 = {sigma[0]:.6g}"
    found = []
    for i in np.flatnonzero(~((low - error <= sigma) & (sigma <= high + error)))[:1]:  # nor where NaN
        by = max(low[i] - sigma[i], sigma[i] - high[i])
        found.append(f"σ_{i + 1} = {sigma[i]:.12g} outside [{low[i]:.12g}, {high[i]:.12g}] by {by:.2g}, {behind}")
    if not following <= beyond + error:
        found.append(f"σ_k+1 = {following:.12g} beyond {beyond:.12g} by {following - beyond:.2g}, {behind}")
    angles = [truth.sine(w, right) for w, right in sides]
    known = [a for a in angles if a is not None]
    if not sine >= 0:
        found.append(f"sine is {sine}")
    elif sine < 1 and len(known) < len(angles) and truth.by == "longdouble":
        found.append(f"sine at most {sine:.3g} where there is no gap, {behind}")
    elif (worst := max((a - unsure for a, unsure in known), default=0.0)) > sine:
        found.append(f"sine {worst:.3g} of at most {sine:.3g}, {behind}")
    elif complete and k < len(truth.s) and worst > MISSED:
        found.append(f"complete, and a vector is missed: sine {worst:.3g}, {behind}")
    if complete and k < len(truth.s):
        rounding = np.ldexp(WIDE(np.finfo(dtype).smallest_subnormal), -e) + s[-1] * WIDE(np.finfo(dtype).eps)
        last = min(s[-1] + rounding / 2, sigma[-1])  # s is rounded to its dtype
        if following >= (last - error if truth.by == "longdouble" else last + error):
            found.append(f"complete, and σ_k+1 = {following:.12g} beside s_k = {s[-1]:.12g}, {behind}")
    return found, Bounds(*_tightness(low, high, s, sigma, sine, sides, known, dtype), complete, truth.by)


def _tightness(
    low: Any, high: Any, s: Any, sigma: Any, sine: float, sides: Any, known: Any, dtype: Any
) -> tuple[float, float | None]:
    eps = float(np.finfo(dtype).eps)
    wide = np.maximum(np.maximum(high - sigma, sigma - low), 0)
    off = np.maximum(np.abs(s - sigma), eps / 4 * sigma)
    ratio = np.divide(wide, off, out=np.where(wide > 0, np.inf, 1).astype(WIDE), where=off > 0)
    if len(known) < len(sides) or all(w.shape[0] == w.shape[1] for w, _ in sides):
        return float(np.median(ratio)), None
    return float(np.median(ratio)), float(sine / max(eps, *(a for a, _ in known))) if sine < 1 else np.inf
