"""Whether singular triples are what they claim to be, for far less than computing them cost."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any

import numpy as np

from gpunet.backend.blas import product
from gpunet.linalg.matrix import Floats, RunningSum, TallMatrix, inner
from gpunet.rng import LINALG, stream

PROBES = 8
SURELY = 20.0  # what norms from so many Gaussian vectors are multiplied by, to be bounds
EPS32 = float(np.finfo(np.float32).eps)
FEW = 16  # triples of a small matrix that are measured one by one


@cache
def tolerance(dtype: Any, short: int, k: int) -> float:
    """The default tolerance of residual and orthogonality, ε (128 + 3 √(k · short)).

    k columns of `short` elements, each element good to a few ε; LAPACK's own iteration stops at about 90 ε (bdsqr),
    and measures up to a third of this. float32, 784 and 100 triples: 1.2e-4; float64: 2.1e-13.
    """
    return float(np.finfo(dtype).eps) * (128 + 3 * float(np.sqrt(k * short)))


@lru_cache(maxsize=16)
def probes(k: int) -> tuple[Floats, float]:
    """(w (k, p), factor): factor·‖R w‖_F is ‖R‖_F for k ≤ PROBES, and estimates it from random signs beyond.

    E‖R w‖² = ‖R‖_F² for a column w of independent signs, with no spread at all where a single triple is bad.
    w is made once, and not to be written to.
    """
    if k <= PROBES:
        return np.eye(k), 1.0
    return stream(0, LINALG, 1).integers(0, 2, (k, PROBES)) * 2.0 - 1, PROBES**-0.5


@lru_cache(maxsize=16)
def gaussians(k: int) -> tuple[Floats, float]:
    """(w (k, p), factor): factor·‖R w‖_F is at least ‖R‖₂: it is ‖R‖_F for k ≤ PROBES, and beyond, of Gaussian w, it is
    too little for one R of rank 1 in two thousand million, and of higher rank for fewer (χ² of PROBES degrees).
    """  # noqa: D205
    if k <= PROBES:
        return np.eye(k), 1.0
    return stream(0, LINALG, 5).standard_normal((k, PROBES)), SURELY / PROBES**0.5


@dataclass(frozen=True)
class Measured:
    """residual, orthogonality: as `measure` has them. Of large X with u: left ≥ ‖X V − U S‖₂, right ≥ ‖Xᵀ U − V S‖₂ and
    straight ≥ ‖UᵀU − 1‖₂ by `gaussians`, but for the rounding of products in `dtype`.
    """  # noqa: D205

    residual: float
    orthogonality: float
    left: float = math.inf
    right: float = math.inf
    straight: float = math.inf
    dtype: Any = np.float64


def measure(x: TallMatrix, u: Floats | None, s: Floats, v: Floats, limit: float) -> tuple[float, float]:
    """(residual, orthogonality) of the triples, in one pass over X.

    residual = max(‖X V − U S‖_F, ‖Xᵀ U − V S‖_F) / σ₁. Without u it is that of u = X v / s, which is
    ‖(XᵀX V − V S²) S⁻¹‖_F / σ₁, but for those σ that vanish beside `limit`, for which any u will do: ‖X V‖_F + ‖S‖_F.
    orthogonality = max(‖UᵀU − I‖_F, ‖VᵀV − I‖_F).
    In float64 whatever the dtype, so that no long sum of float32 is taken for an error of the triples; but of a large
    float32 X in float32 first, which takes half the time and decides, to one ε more, where both are far below the
    limit. What an estimate finds near the limit is measured triple by triple.
    """
    found = measured(x, u, s, v, limit)
    return found.residual, found.orthogonality


def measured(x: TallMatrix, u: Floats | None, s: Floats, v: Floats, limit: float, *, precise: bool = False) -> Measured:
    """`measure`, and bounds of the norms for certificates; precise: in float64 at once, which makes them narrower."""
    s, v = s.astype(np.float64, copy=False), v.astype(np.float64, copy=False)
    exact = x.small and len(s) <= FEW
    w, factor = (identity(len(s)), 1.0) if exact else probes(len(s))
    if not (x.small or precise) and x.dtype == np.float32:
        found = _measured(x, u, s, v, limit, w, factor, x.dtype)
        if found.residual <= limit / 8 and found.orthogonality <= limit / 8:
            return replace(found, residual=found.residual + EPS32, orthogonality=found.orthogonality + EPS32)
    found = _measured(x, u, s, v, limit, w, factor, np.dtype(np.float64))
    if factor != 1 and limit / 2 < max(found.residual, found.orthogonality) < 10 * limit:
        found = _measured(x, u, s, v, limit, np.eye(len(s)), 1.0, np.dtype(np.float64))
    return found


def _measured(
    x: TallMatrix, u: Floats | None, s: Floats, v: Floats, limit: float, w: Floats, factor: float, dtype: np.dtype[Any]
) -> Measured:
    """`measured` by the columns of w (k, p), in `dtype`."""
    top, orthogonality = float(s[0]) or 1.0, norm(product(v.T, v if factor == 1 else v @ w) - w)
    if u is None:
        residual = _one_sided(x, s, v, w, limit * top, dtype)
        return Measured(factor * residual / top, factor * orthogonality)
    if x.small and factor == 1:
        part, own = x.whole(), u.astype(np.float64, copy=False)
        residual = max(norm(part @ v - own * s), norm(inner(part, own) - v * s))
        return Measured(residual / top, max(orthogonality, norm(inner(own, own) - w)))
    more, enough = gaussians(len(s)) if factor != 1 and not x.small else (w[:, :0], 1.0)
    lefts, *others = _two_sided(x, u, s, v, w, more, dtype)
    left, (right, straight) = lefts[0], (norm(each[:, : w.shape[1]]) for each in others)
    sure = left, right, straight  # of estimates of a small X nobody asks
    if more.size:
        back, loss = (enough * norm(each[:, w.shape[1] :]) for each in others)
        sure = enough * lefts[1], back, loss
    return Measured(factor * max(left, right) / top, factor * max(orthogonality, straight), *sure, dtype)


def _two_sided(
    x: TallMatrix, u: Floats, s: Floats, v: Floats, w: Floats, more: Floats, precision: np.dtype[Any]
) -> tuple[list[float], Floats, Floats]:
    """[‖(X V − U S) W‖_F, the same of `more`], and (Xᵀ U − V S) and (UᵀU − 1) times both, by chunks."""
    left, columns, w = [0.0, 0.0], w.shape[1], np.hstack([w, more]) if more.size else w
    vw, sw, small = (v @ w).astype(precision), (s[:, None] * w).astype(precision), w.astype(precision)
    right, gram = RunningSum(vw.shape), RunningSum(w.shape)
    for where, part in x.chunks(precision, x.hot_rows()):
        own = u[where].astype(precision, copy=False)
        uw = own @ small
        right.add_inner(part, uw)
        gram.add_inner(own, uw)
        wrong = part @ vw - own @ sw
        left[0] += norm(wrong[:, :columns]) ** 2
        left[1] += norm(wrong[:, columns:]) ** 2
    return [math.sqrt(each) for each in left], right.value - v @ (s[:, None] * w), gram.value - w


def _one_sided(x: TallMatrix, s: Floats, v: Floats, w: Floats, small: float, precision: np.dtype[Any]) -> float:
    """The residual of `measure` without u, times σ₁."""
    good = s > small / (2 * len(s) ** 0.5)
    basis = np.concatenate([(v[:, good] / s[good]) @ w[good], v[:, ~good] @ w[~good]], axis=1).astype(precision)
    right, left, p = RunningSum((x.short, w.shape[1])), 0.0, w.shape[1]
    for _, part in x.chunks(precision, x.hot_rows()):
        image = part @ basis[:, :p]
        right.add_inner(part, image)
        if not good.all():
            left += norm(part @ basis[:, p:]) ** 2
    wrong = right.value - v[:, good] @ (s[good, None] * w[good])
    return float(np.hypot(norm(wrong), left**0.5 + norm(s[~good, None] * w[~good])))


@lru_cache(maxsize=16)
def identity(k: int, dtype: Any = np.float64) -> Floats:
    """1 (k, k), for matrices so small that making one takes time; not to be written to."""
    return np.eye(k, dtype=dtype)


def fix_signs(v: Floats) -> tuple[Floats, Floats]:
    """(v with each column's largest element made positive, the signs (k,)).

    The largest is the first within one part in a thousand, so that rounding cannot decide between equals.
    """
    size = np.abs(v)
    first = (size >= (1 - 1e-3) * size.max(axis=0)).argmax(axis=0)
    signs = np.copysign(v.dtype.type(1), v[first, np.arange(v.shape[1])])
    return v * signs, signs


def norm(a: Floats) -> float:
    """‖a‖_F; vdot copies what is not contiguous."""
    return math.sqrt(np.vdot(a, a))
