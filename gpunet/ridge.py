"""Ridge regression on features, in closed form: a classifier without a single gradient step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunet.backend import Backend
from gpunet.errors import InputError
from gpunet.linalg.place import computing_on, gpu_for, on_device

Batches = Iterable[tuple[Any, NDArray[np.int64]]]  # features (n, F) on the host or a GPU, labels (n,) on the host
PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # relative to the features' mean variance
WRONG = 1e-8  # of a matrix: how far Cholesky's factor may be from it


@dataclass(frozen=True)
class Ridge:
    """scores = x weightᵀ + bias; weight (classes, F), bias (classes,), float64; the penalty λ that was chosen."""

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    penalty: float

    def correct(self, x: Any, labels: NDArray[np.int64], device: Backend | None = None) -> int:
        """How many of the samples x, which lie on `device`, get the largest score where their label is."""
        weight, bias = self.weight.T.astype(x.dtype), self.bias.astype(x.dtype)
        backend = _gpu_of(x, device)
        if backend is None:
            return int(((x @ weight + bias).argmax(axis=1) == labels).sum())
        with computing_on(backend):
            scores = x @ backend.asarray(weight) + backend.asarray(bias)
            return int((scores.argmax(axis=1) == backend.asarray(labels)).sum())


class Moments:
    """Sums from which ridge regression follows: Σ x xᵀ, Σ x by class, and counts; float32 products.

    Σ x xᵀ is kept, and the equations are solved, where the samples lie. device: that device, where it is known.
    """

    def __init__(self, features: int, classes: int, device: Backend | None = None) -> None:
        self.device = device
        self.gram: Any = np.zeros((features, features))
        self.by_class = np.zeros((classes, features))
        self.counts = np.zeros(classes)

    def update(self, x: Any, labels: NDArray[np.int64]) -> Moments:
        """Add samples x (n, F) with labels (n,)."""
        backend = _gpu_of(x, self.device)
        if backend is not None:
            with computing_on(backend) as xp:
                self._update_on_gpu(xp, backend, x, labels)
            return self
        self.gram += x.T @ x
        for label in np.unique(labels):
            own = x[labels == label]
            self.by_class[label] += own.sum(axis=0, dtype=np.float64)
            self.counts[label] += len(own)
        return self

    def _update_on_gpu(self, xp: Any, backend: Backend, x: Any, labels: NDArray[np.int64]) -> None:
        self.gram = backend.asarray(self.gram) + xp.astype(xp.matmul(x.T, x), xp.float64)
        members = np.arange(len(self.counts)) == labels[:, None]
        own = xp.matmul(backend.asarray(members.T.astype(np.float64)), xp.astype(x, xp.float64))
        self.by_class += backend.to_host(own)
        self.counts += members.sum(axis=0)

    def __add__(self, other: Moments) -> Moments:
        total = Moments(0, 0, self.device)
        total.gram, total.by_class = self.gram + other.gram, self.by_class + other.by_class
        total.counts = self.counts + other.counts
        return total

    def solve(self, penalty: float) -> Ridge:
        """W = argmin Σ ‖W x + b − onehot(y)‖² + λ‖W‖²: (X'X + λ) Wᵀ = X'Y of centred X and Y, by Cholesky.

        λ is `penalty` times the mean of the diagonal of X'X. Raises InputError where that is not positive definite.
        """
        n = self.counts.sum()
        mean, share = self.by_class.sum(axis=0) / n, self.counts / n
        cross = self.by_class - np.outer(self.counts, mean)
        backend = _gpu_of(self.gram, self.device)
        try:
            if backend is None:
                scatter = self.gram - np.outer(mean * n, mean)
                scatter.flat[:: len(scatter) + 1] += penalty * np.trace(scatter) / len(scatter)
                weight = _solve(scatter, cross)
            else:
                with computing_on(backend) as xp:
                    weight = backend.to_host(_solve_on_gpu(xp, backend, self.gram, mean, n, penalty, cross))
        except (np.linalg.LinAlgError, ValueError) as error:
            raise InputError(
                f"ridge regression with penalty {penalty:g} is not solvable ({error}): the features are constant, not "
                "finite, or the penalty is too small"
            ) from None
        return Ridge(weight, share - weight @ mean, penalty)


def _gpu_of(x: Any, device: Backend | None) -> Backend | None:
    """The GPU on which x lies; features that were too many for it lie on the host, whatever computed them."""
    return gpu_for(x, device, "x") if on_device(x) else None


def _solve(scatter: NDArray[np.float64], cross: NDArray[np.float64]) -> NDArray[np.float64]:
    """W (classes, F) of scatter Wᵀ = crossᵀ; scatter is overwritten."""
    from scipy.linalg import cho_factor, cho_solve

    factor = cho_factor(scatter, lower=True, overwrite_a=True, check_finite=True)
    weight: NDArray[np.float64] = cho_solve(factor, cross.T, overwrite_b=True).T
    return weight


def _solve_on_gpu(
    xp: Any, backend: Backend, gram: Any, mean: NDArray[np.float64], n: float, penalty: float, cross: Any
) -> Any:
    """As `_solve`. CuPy does not say where a matrix is not positive definite: the factor is held against it."""
    there, identity = backend.asarray(mean), xp.eye(len(mean), dtype=xp.float64)
    scatter = gram - (there * n)[:, None] * there
    scatter = scatter + identity * (penalty * xp.sum(scatter * identity) / len(mean))
    factor = xp.linalg.cholesky(scatter)
    probe = backend.asarray(np.cos(np.arange(4 * len(mean), dtype=np.float64)).reshape(-1, 4))
    image = scatter @ probe
    if not bool(xp.max(xp.abs(factor @ (factor.T @ probe) - image)) <= WRONG * xp.max(xp.abs(image))):
        raise np.linalg.LinAlgError("the matrix is not positive definite")
    return xp.linalg.solve(factor.T, xp.linalg.solve(factor, backend.asarray(np.ascontiguousarray(cross.T)))).T


def ridge(
    train: Callable[[], Batches],
    held_out: Callable[[], Batches],
    features: int,
    classes: int,
    penalties: Sequence[float] = PENALTIES,
    device: Backend | None = None,
) -> Ridge:
    """Ridge regression on training and held-out batches, with the penalty that is best on the held-out ones.

    Each is called for its batches as often as needed; Gram matrices are formed once. The returned weights are those of
    all samples, held-out ones included, at the penalty chosen without them.
    """
    if not penalties or min(penalties) <= 0:
        raise InputError(f"penalties are {list(penalties)}: expected at least one, all above 0")
    fitted, other = Moments(features, classes, device), Moments(features, classes, device)
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
        found[penalty] = sum(solved.correct(x, y, device) for x, y in kept)
    return every.solve(max(found, key=lambda penalty: found[penalty]))
