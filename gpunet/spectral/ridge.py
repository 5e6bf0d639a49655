"""Ridge regression on features, in closed form: a classifier without a single gradient step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunet.backend import Backend
from gpunet.checks import check_labels, check_lengths, on_device, on_host, real_array
from gpunet.errors import InputError, ShapeError
from gpunet.linalg.device import CPU, computing_on, device_of, is_gpu
from gpunet.linalg.matrix import result_dtype
from gpunet.linalg.moments import Centred, block, chunks, diagonal, merge

Batches = Iterable[tuple[Any, NDArray[np.int64]]]  # features (n, F) on the host or a GPU, labels (n,) on the host
PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # relative to the features' mean variance
ROWS = 8192  # of features that are multiplied at a time, since no eigenvectors depend on the last digits
HELD_OUT = 0.1  # of the samples, to choose the penalty
WRONG = 1e-8  # of a matrix: how far Cholesky's factor may be from it


@dataclass(frozen=True)
class Ridge:
    """scores = x weightᵀ + bias; weight (classes, F), bias (classes,), float64; the penalty λ that was chosen."""

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    penalty: float

    def correct(self, x: Any, labels: Any, device: Backend | None = None) -> int:
        """How many of the samples x, which lie on `device`, get the largest score where their label is.

        Scores are float64: where the mean is far larger than the spread, what decides is what two large numbers leave.
        """
        x, labels = real_array(x, "features"), check_labels(labels, None, "ridge regression")
        check_lengths(x, labels, "ridge regression")
        backend = _device_of(x, device)
        with computing_on(backend) as xp:
            weight, bias = backend.asarray(self.weight.T), backend.asarray(self.bias)
            parts = chunks(xp, x, None, 8)
            guesses = [on_host(xp.argmax(xp.astype(part, xp.float64) @ weight + bias, axis=1)) for part in parts]
        return int((np.concatenate(guesses) == labels).sum())


class Moments:
    """Moments of samples and their classes together, from which ridge regression follows.

    The scatter of (x, onehot(y)), (features + classes)², is accumulated by blocks, each centred by its own mean before
    it is multiplied (`linalg.moments.Centred`), float32 samples in float32: a mean a million times the spread does no
    harm. It is kept, and the equations are solved, where the samples lie. device: that device, where it is known.
    """

    def __init__(self, features: int, classes: int, device: Backend | None = None) -> None:
        self.features, self.classes, self.device = features, classes, device
        self.joint: Centred | None = None

    def update(self, x: Any, labels: Any) -> Moments:
        """Add samples x (n, features), float32 or float64, with labels (n,), integers below `classes`.

        Raises ShapeError for other widths and InputError for NaN, infinities and other labels; then nothing is added.
        """
        x, labels = real_array(x, "features"), check_labels(labels, self.classes, "ridge regression")
        if x.ndim != 2 or x.shape[1] != self.features:
            raise ShapeError(f"features have shape {x.shape}: expected (n, {self.features})")
        check_lengths(x, labels, "ridge regression")
        members, backend = np.arange(self.classes) == labels[:, None], _device_of(x, self.device)
        with computing_on(backend) as xp, np.errstate(over="ignore", invalid="ignore"):
            new = self._block(xp, x, backend.asarray(members))
        self.joint = _together(self.joint, new, self.device, overwrite=True)
        return self

    def _block(self, xp: Any, x: Any, members: Any) -> Centred:
        dtype = xp.float64 if result_dtype(x.dtype) == np.float64 else xp.float32
        both = xp.empty((x.shape[0], self.features + self.classes), dtype=dtype)
        both[:, : self.features] = x
        both[:, self.features :] = members
        found = block(xp, both, True, ROWS)
        if not np.isfinite(float(xp.sum(diagonal(xp, found.scatter)))):
            raise InputError("features hold NaN, infinity or numbers whose squares overflow: expected finite numbers")
        return found

    def __add__(self, other: Moments) -> Moments:
        """All samples of both; neither is changed."""
        if (other.features, other.classes) != (self.features, self.classes):
            raise ShapeError(
                f"moments of {other.features} features and {other.classes} classes cannot be added to those of "
                f"{self.features} and {self.classes}"
            )
        total = Moments(self.features, self.classes, self.device)
        total.joint = self.joint if other.joint is None else _together(self.joint, other.joint, self.device)
        return total

    def solve(self, penalty: float) -> Ridge:
        """W = argmin Σ ‖W x + b − onehot(y)‖² + λ‖W‖²: (X'X + λ) Wᵀ = X'Y of centred X and Y, by Cholesky.

        λ is `penalty` times the mean of the diagonal of X'X. Raises InputError where that is not positive definite.
        """
        if self.joint is None:
            raise InputError("ridge regression has seen no samples: call update(x, labels) first")
        joint, features = self.joint.about(True), self.features
        cross = on_host(joint[features:, :features])
        middle = on_host(self.joint.mean + self.joint.mean_low)
        backend = _device_of(joint, self.device)
        try:
            if not is_gpu(backend):
                scatter = joint[:features, :features].copy()
                scatter.flat[:: features + 1] += penalty * np.trace(scatter) / features
                weight = _solve(scatter, cross)
            else:
                with computing_on(backend) as xp:
                    weight = backend.to_host(_solve_on_gpu(xp, backend, joint[:features, :features], penalty, cross))
        except (np.linalg.LinAlgError, ValueError) as error:
            raise InputError(
                f"ridge regression with penalty {penalty:g} is not solvable ({error}): the features are constant, not "
                "finite, or the penalty is too small"
            ) from None
        return Ridge(weight, middle[features:] - weight @ middle[:features], penalty)


def _together(a: Centred | None, b: Centred, device: Backend | None, overwrite: bool = False) -> Centred:
    """Both moments, on a GPU where one of them lies there."""
    if a is None:
        return b
    lie_on = [_device_of(each.scatter, device) for each in (b, a)]
    backend = next(filter(is_gpu, lie_on), CPU)
    with computing_on(backend):
        if is_gpu(backend):
            a, b = (each.moved(backend.asarray) for each in (a, b))
        return merge(a, b, overwrite)


def _device_of(x: Any, device: Backend | None) -> Backend:
    """The device on which x lies; features that were too many for a GPU lie on the host, whatever computed them."""
    return device_of(x, device, "x") if on_device(x) else CPU


def _solve(scatter: NDArray[np.float64], cross: NDArray[np.float64]) -> NDArray[np.float64]:
    """W (classes, F) of scatter Wᵀ = crossᵀ; scatter is overwritten."""
    from scipy.linalg import cho_factor, cho_solve

    factor = cho_factor(scatter, lower=True, overwrite_a=True, check_finite=True)
    weight: NDArray[np.float64] = cho_solve(factor, cross.T, overwrite_b=True).T
    return weight


def _solve_on_gpu(xp: Any, backend: Backend, scatter: Any, penalty: float, cross: Any) -> Any:
    """As `_solve`. CuPy does not say where a matrix is not positive definite: the factor is held against it."""
    features = scatter.shape[0]
    identity = xp.eye(features, dtype=xp.float64)
    scatter = scatter + identity * (penalty * xp.sum(scatter * identity) / features)
    factor = xp.linalg.cholesky(scatter)
    probe = backend.asarray(np.cos(np.arange(4 * features, dtype=np.float64)).reshape(-1, 4))
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
    solved: list[Ridge] = []
    for penalty in penalties:
        try:
            solved.append(fitted.solve(penalty))
        except InputError:  # a penalty too small for features that depend on each other; a larger one will do
            if penalty == penalties[-1] and not solved:
                raise
    correct = [0] * len(solved)
    for x, labels in held_out():
        other.update(x, labels)
        correct = [before + each.correct(x, labels, device) for before, each in zip(correct, solved, strict=True)]
    return (fitted + other).solve(solved[int(np.argmax(correct))].penalty)


def ridge_of_rows(
    features: Callable[[NDArray[np.intp]], Any],
    labels: NDArray[np.int64],
    rows: NDArray[np.intp],
    width: int,
    classes: int,
    penalties: Sequence[float] = PENALTIES,
    device: Backend | None = None,
    block: int = 4096,
) -> Ridge:
    """`ridge` on samples that are asked for by their places: the first tenth of `rows`, shuffled ones, is held out.

    features: of places in ascending order, at most `block` of them, (n, width); labels (samples,): of all.
    """

    def batches(part: NDArray[np.intp]) -> Iterator[tuple[Any, NDArray[np.int64]]]:
        for start in range(0, len(part), block):
            chosen = np.sort(part[start : start + block])
            yield features(chosen), labels[chosen]

    held_out, rest = (partial(batches, part) for part in np.split(rows, [math.ceil(HELD_OUT * len(rows))]))
    return ridge(rest, held_out, width, classes, penalties, device)
