"""Gram matrices that grow: data larger than memory, or split over processes, gives what one piece would."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpunet.errors import InputError, ShapeError
from gpunet.linalg.eigen import leading
from gpunet.linalg.matrix import Floats, TallMatrix, check_matrix, largest
from gpunet.linalg.moments import centred_sums, exact_sums, merge_centred, shifted_scatter
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
        # The share is compared a rounding error below, so that variance=1 ends where the trace is exhausted.
        reached = np.cumsum(values) >= variance * total * (1 - 1e-12)
        k = int(np.argmax(reached)) + 1 if reached.any() else len(values)
        values, vectors = values[:k], vectors[:, :k]
    residual = float(np.linalg.norm(scatter @ vectors - vectors * values, axis=0).max())
    return PCA(
        components=fix_signs(vectors)[0].T.copy(),
        explained_variance=values / scale**2 / count,
        explained_variance_ratio=values / total if total else np.zeros(len(values)),
        mean=mean / scale,
        count=count,
        residual=residual / (float(values[0]) or 1.0),
    )


class StreamingGram:
    """Σ x xᵀ and the mean of samples that arrive in batches (n, features).

    uint8 batches are summed exactly, so any order and any split give the same bits. Others are summed in float64,
    each batch centred by its own mean before it is multiplied (`moments.merge_centred`), so a mean far larger than
    the signal does no harm. It only ever adds: `reset()` is the one way back to zero.

    center: whether `gram`, `density` and `components` are taken about the mean.
    """

    def __init__(self, *, center: bool = False) -> None:
        self.center = center
        self.reset()

    def reset(self) -> StreamingGram:
        """Forget every sample."""
        self.features: int | None = None
        self._exact: tuple[Floats, Floats, int] | None = None  # Σ(x−128)(x−128)ᵀ, Σ(x−128), samples
        self._centred: tuple[Floats, Floats, int] | None = None  # Σ(x−m)(x−m)ᵀ, m, samples
        return self

    @property
    def count(self) -> int:
        """Samples seen."""
        return sum(part[2] for part in (self._exact, self._centred) if part is not None)

    def update(self, batch: Any) -> StreamingGram:
        """Add samples (n, features); n = 0 adds nothing. Raises InputError for NaN, infinities and other widths."""
        if getattr(batch, "ndim", 0) == 2 and len(batch) == 0:
            return self
        array = check_matrix(batch, "batch")
        if array.ndim != 2:
            raise ShapeError(f"batch has shape {array.shape}: expected (samples, features); reshape it")
        self._fits(array.shape[1], "batch")
        x = TallMatrix(array, tall=True)
        if array.dtype == np.uint8:
            self._exact = _add(self._exact, (*exact_sums(x), x.long))
        else:
            largest(array, "batch")
            with np.errstate(over="ignore", invalid="ignore"):  # `decompose` says what to do about it
                self._centred = merge_centred(self._centred, (*centred_sums(x), x.long))
        return self

    def merge(self, other: StreamingGram) -> StreamingGram:
        """Add everything `other` has seen; `other` stays as it is."""
        if other.features is not None:
            self._fits(other.features, "the other StreamingGram")
        if other._exact is not None:
            self._exact = _add(self._exact, other._exact)
        if other._centred is not None:
            self._centred = merge_centred(self._centred, other._centred)
        return self

    @property
    def mean(self) -> Floats:
        """(features,), float64."""
        return self._total()[1]

    def gram(self) -> Floats:
        """Σ x xᵀ, or Σ (x − mean)(x − mean)ᵀ when centred; (features, features), float64."""
        if self._centred is None and self._exact is not None and not self.center:
            return shifted_scatter(*self._exact, 0.0)
        scatter, mean, count = self._total()
        with np.errstate(over="ignore", invalid="ignore"):
            return scatter if self.center else scatter + np.outer(mean * count, mean)

    def density(self) -> Floats:
        """`gram` over the number of samples: document 002's ρ, or the covariance."""
        return self.gram() / self.count

    def components(self, k: int | None = None, *, variance: float | None = None) -> PCA:
        """The k leading eigenvectors, or as many as explain the share `variance` of the trace; all by default."""
        scatter = self.gram()
        check_count(k, variance, len(scatter))
        return decompose(scatter, self.mean, self.count, k, variance)

    def _total(self) -> tuple[Floats, Floats, int]:
        exact = None
        if self._exact is not None:
            raw, sums, count = self._exact
            exact = shifted_scatter(raw, sums, count, None), sums / count + 128, count
        total = merge_centred(exact, self._centred) if self._centred is not None else exact
        if total is None:
            raise InputError("StreamingGram has seen no samples: call update(batch) first")
        return total

    def _fits(self, features: int, what: str) -> None:
        if self.features not in (None, features):
            raise ShapeError(f"{what} has {features} features: this StreamingGram holds {self.features}")
        self.features = features


def check_count(k: int | None, variance: float | None, most: int) -> None:
    """Raises InputError unless at most one of k in [1, most] and variance in (0, 1] is given."""
    if k is not None and variance is not None:
        raise InputError(f"got components={k} and variance={variance}: give one of them")
    if k is not None and (isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 1 <= k <= most):
        raise InputError(f"components is {k!r}: expected an integer from 1 to {most}")
    if variance is not None and not 0 < variance <= 1:
        raise InputError(f"variance is {variance!r}: expected a share of the variance in (0, 1], say 0.98")


def _add(a: tuple[Floats, Floats, int] | None, b: tuple[Floats, Floats, int]) -> tuple[Floats, Floats, int]:
    return b if a is None else (a[0] + b[0], a[1] + b[1], a[2] + b[2])
