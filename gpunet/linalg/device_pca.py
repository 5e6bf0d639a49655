"""PCA of some Gram matrices at once on a GPU, and class PCA of data that lies there: what `pca` is on the CPU.

Results are NumPy arrays on the host, as on the CPU: k vectors a class. Data and Gram matrices never leave the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunet.errors import ConvergenceError, InputError
from gpunet.linalg.decompose import PCA, reached
from gpunet.linalg.device_moments import safe_scale, sums
from gpunet.linalg.eigen_stack import leading_stack
from gpunet.linalg.place import on_host
from gpunet.linalg.verify import fix_signs

ROUNDING = 1e-11  # of the largest eigenvalue, far above what eigh leaves
GROUP_BYTES = 1 << 30  # of Gram matrices that are decomposed as one stack


def decompose_stack(
    xp: Any,
    scatter: Any,
    means: Sequence[NDArray[np.float64]],
    counts: Sequence[int],
    k: int | None,
    variance: float | None,
    tol: float = 1e-12,
    scale: float = 1.0,
) -> list[PCA]:
    """`decompose` of every matrix of a stack (B, features, features) on a GPU; at most as many vectors as its count."""
    n = scatter.shape[1]
    totals = on_host(xp.sum(scatter * xp.eye(n, dtype=scatter.dtype), axis=(1, 2)))
    if not np.isfinite(totals).all():
        raise InputError("the squares of the samples overflow float64: scale the samples down")
    wanted = n if k is None or variance is not None else k
    for sturdy in (False, True):
        values, vectors = leading_stack(xp, scatter, wanted, tol, sturdy)
        wrong = xp.matmul(scatter, vectors) - vectors * values[:, None, :]
        residuals, found = on_host(xp.sqrt(xp.sum(wrong * wrong, axis=1))), np.maximum(on_host(values), 0)
        reach = (residuals / np.where(found[:, :1] > 0, found[:, :1], 1)).max(axis=1)
        if (reach <= max(2 * tol, ROUNDING)).all():
            break
    else:
        raise ConvergenceError(
            f"the eigenvectors of matrix {int(np.argmax(reach))} of {len(counts)}, {n}×{n}, have a residual of "
            f"{reach.max():.2g} of the largest eigenvalue on a GPU: expected {max(2 * tol, ROUNDING):.2g}; "
            "compute them with device='cpu'"
        )
    ranks = [
        min(len(v) if variance is None else reached(v, variance, t), count)
        for v, t, count in zip(found, totals, counts, strict=True)
    ]
    vectors = on_host(vectors[:, :, : max(ranks)])
    parts = []
    for c, rank in enumerate(ranks):
        own = found[c, :rank]
        parts.append(
            PCA(
                components=fix_signs(vectors[c, :, :rank])[0].T.copy(),
                explained_variance=own / scale / scale / counts[c],
                explained_variance_ratio=own / totals[c] if totals[c] else np.zeros(rank),
                mean=means[c] / scale,
                count=counts[c],
                residual=float(residuals[c, :rank].max() / (own[0] or 1.0)),
            )
        )
    return parts


def class_parts(
    xp: Any, x: Any, rows: Sequence[NDArray[np.intp]], k: int | None, variance: float | None, center: bool, tol: float
) -> list[PCA]:
    """PCA of x[rows] for each class's rows; x (n, features) on the device.

    Memory: a Gram matrix of float64 a class, in groups of GROUP_BYTES, beside chunks.
    """
    scale, features = safe_scale(xp, x, "x"), x.shape[1]
    parts: dict[int, PCA] = {}
    wide = [c for c, own in enumerate(rows) if len(own) >= features]
    group = max(1, GROUP_BYTES // (8 * features**2))
    for start in range(0, len(wide), group):
        chosen = wide[start : start + group]
        found = [sums(xp, x, xp.asarray(rows[c]), center, scale) for c in chosen]
        means, counts = [on_host(each[1]) for each in found], [each[2] for each in found]
        stack = xp.stack([each[0] for each in found])
        parts |= dict(zip(chosen, decompose_stack(xp, stack, means, counts, k, variance, tol, scale), strict=True))
    for c, own in enumerate(rows):
        if c not in parts:
            parts[c] = _few(xp, x, own, k, variance, center, scale)
    return [parts[c] for c in range(len(rows))]


def _few(
    xp: Any, x: Any, rows: NDArray[np.intp], k: int | None, variance: float | None, center: bool, scale: float
) -> PCA:
    """Of fewer samples than features, as `pca._few`: from X Xᵀ w = n λ w, v = Xᵀw / √(nλ)."""
    dense = xp.astype(xp.take(x, xp.asarray(rows), axis=0), xp.float64) * scale
    mean = xp.mean(dense, axis=0)
    if center:
        dense = dense - mean
    (found,) = decompose_stack(
        xp, xp.matmul(dense, dense.T)[None, :, :], [on_host(mean)], [len(rows)], k, variance, scale=scale
    )
    q, r = xp.linalg.qr(xp.matmul(dense.T, xp.asarray(np.ascontiguousarray(found.components.T))))
    return replace(found, components=fix_signs(on_host(xp.matmul(q, xp.linalg.svd(r)[0])))[0].T)
