"""Ridge regression on features, in closed form: a classifier without a single gradient step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunet.errors import InputError

Batches = Iterable[tuple[Any, NDArray[np.int64]]]  # features (n, F) on the host, labels (n,)
PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # relative to the features' mean variance


@dataclass(frozen=True)
class Ridge:
    """scores = x weightᵀ + bias; weight (classes, F), bias (classes,), float64; the penalty λ that was chosen."""

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    penalty: float

    def correct(self, x: Any, labels: NDArray[np.int64]) -> int:
        """How many of the samples get the largest score where their label is."""
        scores = x @ self.weight.T.astype(x.dtype) + self.bias.astype(x.dtype)
        return int((scores.argmax(axis=1) == labels).sum())


class Moments:
    """Sums from which ridge regression follows: Σ x xᵀ, Σ x, Σ x by class, and counts; float32 products."""

    def __init__(self, features: int, classes: int) -> None:
        self.gram = np.zeros((features, features))
        self.by_class = np.zeros((classes, features))
        self.counts = np.zeros(classes)

    def update(self, x: Any, labels: NDArray[np.int64]) -> Moments:
        """Add samples x (n, F) with labels (n,)."""
        self.gram += x.T @ x
        for label in np.unique(labels):
            own = x[labels == label]
            self.by_class[label] += own.sum(axis=0, dtype=np.float64)
            self.counts[label] += len(own)
        return self

    def __add__(self, other: Moments) -> Moments:
        total = Moments(0, 0)
        total.gram, total.by_class = self.gram + other.gram, self.by_class + other.by_class
        total.counts = self.counts + other.counts
        return total

    def solve(self, penalty: float) -> Ridge:
        """W = argmin Σ ‖W x + b − onehot(y)‖² + λ‖W‖²: (X'X + λ) Wᵀ = X'Y of centred X and Y, by Cholesky.

        λ is `penalty` times the mean of the diagonal of X'X. Raises InputError where that is not positive definite.
        """
        from scipy.linalg import cho_factor, cho_solve

        n = self.counts.sum()
        mean, share = self.by_class.sum(axis=0) / n, self.counts / n
        scatter = self.gram - np.outer(mean * n, mean)
        scatter.flat[:: len(scatter) + 1] += penalty * np.trace(scatter) / len(scatter)
        cross = self.by_class - np.outer(self.counts, mean)
        try:
            factor = cho_factor(scatter, lower=True, overwrite_a=True, check_finite=True)
        except (np.linalg.LinAlgError, ValueError) as error:
            raise InputError(
                f"ridge regression with penalty {penalty:g} is not solvable ({error}): the features are constant, not "
                "finite, or the penalty is too small"
            ) from None
        weight = cho_solve(factor, cross.T, overwrite_b=True).T
        return Ridge(weight, share - weight @ mean, penalty)


def ridge(
    train: Callable[[], Batches],
    held_out: Callable[[], Batches],
    features: int,
    classes: int,
    penalties: Sequence[float] = PENALTIES,
) -> Ridge:
    """Ridge regression on training and held-out batches, with the penalty that is best on the held-out ones.

    Each is called for its batches as often as needed; Gram matrices are formed once. The returned weights are those of
    all samples, held-out ones included, at the penalty chosen without them.
    """
    if not penalties or min(penalties) <= 0:
        raise InputError(f"penalties are {list(penalties)}: expected at least one, all above 0")
    fitted, other = Moments(features, classes), Moments(features, classes)
    for x, labels in train():
        fitted.update(x, labels)
    kept = []
    for x, labels in held_out():
        other.update(x, labels)
        kept.append((x, labels))
    every = fitted + other
    found: dict[float, int] = {}
    for penalty in penalties:
        try:
            solved = fitted.solve(penalty)
        except InputError:  # a penalty too small for features that depend on each other; a larger one will do
            if penalty == penalties[-1] and not found:
                raise
            continue
        found[penalty] = sum(solved.correct(x, y) for x, y in kept)
    return every.solve(max(found, key=lambda penalty: found[penalty]))
