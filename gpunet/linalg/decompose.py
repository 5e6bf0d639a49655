"""PCA of one density matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpunet.errors import InputError
from gpunet.linalg.eigen import leading
from gpunet.linalg.matrix import Floats
from gpunet.linalg.verify import fix_signs


@dataclass(frozen=True)
class PCA:
    """The leading eigenvectors of a density matrix (1/n) Σ x xᵀ, or of the covariance when centred.

    components: (k, features), rows orthonormal, float64, each row's largest element positive;
    explained_variance: (k,), eigenvalues, descending; explained_variance_ratio: (k,), their share of the trace;
    mean: (features,), of the samples, subtracted only when centred; count: samples;
    residual: max over j of ‖ρ v_j − λ_j v_j‖ / λ_1.
    """

    components: Floats
    explained_variance: Floats
    explained_variance_ratio: Floats
    mean: Floats
    count: int
    residual: float


def decompose(
    scatter: Floats,
    mean: Floats,
    count: int,
    k: int | None,
    variance: float | None,
    tol: float = 1e-12,
    scale: float = 1.0,
) -> PCA:
    """`PCA` of Σ x xᵀ (features, features): k components, or as many as explain the share `variance`.

    tol: of ‖ρv − λv‖ over λ_k, where an iteration is used. scale: the factor that the samples were multiplied by.
    """
    total = float(np.trace(scatter))
    if not np.isfinite(total):
        raise InputError("the squares of the samples overflow float64: scale the samples down")
    values, vectors = leading(scatter, len(scatter) if k is None else k, tol)
    if variance is not None:
        k = reached(values, variance, total)
        values, vectors = values[:k], vectors[:, :k]
    residual = float(np.linalg.norm(scatter @ vectors - vectors * values, axis=0).max())
    return PCA(
        components=fix_signs(vectors)[0].T.copy(),
        explained_variance=values / scale / scale / count,
        explained_variance_ratio=values / total if total else np.zeros(len(values)),
        mean=mean / scale,
        count=count,
        residual=residual / (float(values[0]) or 1.0),
    )


def reached(values: Floats, variance: float, total: float) -> int:
    """How many of the values, descending, make the share `variance` of their total.

    The share is compared a rounding error below, so that variance=1 ends where the trace is exhausted.
    """
    enough = np.cumsum(values) >= variance * total * (1 - 1e-12)
    return int(np.argmax(enough)) + 1 if enough.any() else len(values)


def check_count(k: int | None, variance: float | None, most: int) -> None:
    """Raises InputError unless at most one of k in [1, most] and variance in (0, 1] is given."""
    if k is not None and variance is not None:
        raise InputError(f"got components={k} and variance={variance}: give one of them")
    if k is not None and (isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 1 <= k <= most):
        raise InputError(f"components is {k!r}: expected an integer from 1 to {most}")
    if variance is not None and not 0 < variance <= 1:
        raise InputError(f"variance is {variance!r}: expected a share of the variance in (0, 1], say 0.98")
