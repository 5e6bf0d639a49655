"""Whether singular triples are what they claim to be, for far less than computing them cost."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunet.linalg.matrix import Floats, TallMatrix
from gpunet.rng import LINALG, stream

PROBES = 8


def tolerance(dtype: Any, short: int, k: int) -> float:
    """The default tolerance of residual and orthogonality, ε (128 + 3 √(k · short)).

    k columns of `short` elements, each element good to a few ε; LAPACK's own iteration stops at about 90 ε (bdsqr),
    and measures up to a third of this. float32, 784 and 100 triples: 1.2e-4; float64: 2.2e-13.
    """
    return float(np.finfo(dtype).eps) * (128 + 3 * float(np.sqrt(k * short)))


def probes(k: int) -> tuple[Floats, float]:
    """(w (k, p), factor): factor·‖R w‖_F is ‖R‖_F for k ≤ PROBES, and estimates it from random signs beyond.

    E‖R w‖² = ‖R‖_F² for a column w of independent signs, with no spread at all where a single triple is bad.
    """
    if k <= PROBES:
        return np.eye(k), 1.0
    return stream(0, LINALG, 1).integers(0, 2, (k, PROBES)) * 2.0 - 1, PROBES**-0.5


def measure(x: TallMatrix, u: Floats | None, s: Floats, v: Floats) -> tuple[float, float]:
    """(residual, orthogonality) of the triples, in one pass over X.

    residual = max(‖X V − U S‖_F, ‖Xᵀ U − V S‖_F) / σ₁; without u, ‖(XᵀX V − V S²) S⁻¹‖_F / σ₁.
    orthogonality = max(‖UᵀU − I‖_F, ‖VᵀV − I‖_F).
    """
    w, factor = probes(len(s))
    s, v = s.astype(np.float64), v.astype(np.float64)
    top = float(s[0]) or 1.0
    orthogonality = _norm(v.T @ (v @ w) - w)
    if u is None:
        image = x.normal_times(v @ (w / s[:, None]))
        return factor * _norm(image - v @ (s[:, None] * w)) / top, factor * orthogonality
    vw, sw = (v @ w).astype(x.dtype), (s[:, None] * w).astype(x.dtype)
    small = w.astype(x.dtype)
    right, gram, left = -v @ (s[:, None] * w), -w, 0.0
    for where, part in x.chunks(rows=x.hot_rows()):
        uw = u[where] @ small
        right += part.T @ uw
        gram += u[where].T @ uw
        left += _norm(part @ vw - u[where] @ sw) ** 2
    return factor * max(_norm(right), left**0.5) / top, factor * max(_norm(gram), orthogonality)


def fix_signs(v: Floats) -> tuple[Floats, Floats]:
    """(v with each column's largest element made positive, the signs (k,)).

    The largest is the first within one part in a thousand, so that rounding cannot decide between equals.
    """
    size = np.abs(v)
    pick = np.argmax(size >= (1 - 1e-3) * size.max(axis=0), axis=0)
    signs = np.where(v[pick, np.arange(v.shape[1])] < 0, -1, 1).astype(v.dtype)
    return v * signs, signs


def _norm(a: Floats) -> float:
    return float(np.sqrt(np.einsum("ij,ij->", a, a, dtype=np.float64)))
