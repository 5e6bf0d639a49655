"""Whether singular triples are what they claim to be, for far less than computing them cost."""

from __future__ import annotations

import math
from functools import cache, lru_cache
from typing import Any

import numpy as np

from gpunet.backend.blas import product
from gpunet.linalg.matrix import Floats, RunningSum, TallMatrix, inner
from gpunet.rng import LINALG, stream

PROBES = 8
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


def measure(x: TallMatrix, u: Floats | None, s: Floats, v: Floats, limit: float) -> tuple[float, float]:
    """(residual, orthogonality) of the triples, in one pass over X.

    residual = max(‖X V − U S‖_F, ‖Xᵀ U − V S‖_F) / σ₁. Without u it is that of u = X v / s, which is
    ‖(XᵀX V − V S²) S⁻¹‖_F / σ₁, but for those σ that vanish beside `limit`, for which any u will do: ‖X V‖_F + ‖S‖_F.
    orthogonality = max(‖UᵀU − I‖_F, ‖VᵀV − I‖_F).
    In float64 whatever the dtype, so that no long sum of float32 is taken for an error of the triples; but of a large
    float32 X in float32 first, which takes half the time and decides, to one ε more, where both are far below the
    limit. What an estimate finds near the limit is measured triple by triple.
    """
    s, v = s.astype(np.float64, copy=False), v.astype(np.float64, copy=False)
    exact = x.small and len(s) <= FEW
    w, factor = (identity(len(s)), 1.0) if exact else probes(len(s))
    if not x.small and x.dtype == np.float32:
        residual, orthogonality = _measured(x, u, s, v, limit, w, factor, x.dtype)
        if residual <= limit / 8 and orthogonality <= limit / 8:
            return residual + EPS32, orthogonality + EPS32
    found = _measured(x, u, s, v, limit, w, factor, np.dtype(np.float64))
    if factor != 1 and limit / 2 < max(found) < 10 * limit:
        found = _measured(x, u, s, v, limit, np.eye(len(s)), 1.0, np.dtype(np.float64))
    return found


def _measured(
    x: TallMatrix, u: Floats | None, s: Floats, v: Floats, limit: float, w: Floats, factor: float, dtype: np.dtype[Any]
) -> tuple[float, float]:
    """`measure` by the columns of w (k, p), in `dtype`."""
    top, orthogonality = float(s[0]) or 1.0, norm(product(v.T, v if factor == 1 else v @ w) - w)
    if u is None:
        residual = _one_sided(x, s, v, w, limit * top, dtype)
        return factor * residual / top, factor * orthogonality
    if x.small and factor == 1:
        part, own = x.whole(), u.astype(np.float64, copy=False)
        residual = max(norm(part @ v - own * s), norm(inner(part, own) - v * s))
        straight = norm(inner(own, own) - w)
    else:
        residual, straight = _two_sided(x, u, s, v, w, dtype)
    return factor * residual / top, factor * max(orthogonality, straight)


def _two_sided(
    x: TallMatrix, u: Floats, s: Floats, v: Floats, w: Floats, precision: np.dtype[Any]
) -> tuple[float, float]:
    """(max(‖(X V − U S) W‖_F, ‖(Xᵀ U − V S) W‖_F), ‖(UᵀU − 1) W‖_F), by chunks."""
    vw, sw, small = (v @ w).astype(precision), (s[:, None] * w).astype(precision), w.astype(precision)
    right, gram, left = RunningSum(vw.shape), RunningSum(w.shape), 0.0
    for where, part in x.chunks(precision, x.hot_rows()):
        own = u[where].astype(precision, copy=False)
        uw = own @ small
        right.add_inner(part, uw)
        gram.add_inner(own, uw)
        left += norm(part @ vw - own @ sw) ** 2
    return max(math.sqrt(left), norm(right.value - v @ (s[:, None] * w))), norm(gram.value - w)


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
    """‖a‖_F of a contiguous array."""
    return math.sqrt(np.vdot(a, a))
