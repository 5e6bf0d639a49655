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
from gpunet.backend.blas import interruptible, product, solve_factored
from gpunet.checks import check_labels, check_lengths, on_device, on_host, real_array
from gpunet.errors import InputError, ShapeError
from gpunet.linalg.device import CPU, computing_on, device_of, is_gpu
from gpunet.linalg.matrix import result_dtype
from gpunet.linalg.moments import Centred, block, chunks, diagonal, merge
from gpunet.reprs import sizes

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

    def __repr__(self) -> str:
        return f"<Ridge: weight {sizes(self.weight)}, penalty {self.penalty:.4g}>"

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

    No more samples than features are kept as they are, beside onehot(y). Of more, the scatter of (x, onehot(y)),
    (features + classes)², is accumulated by blocks, each centred by its own mean before it is multiplied
    (`linalg.moments.Centred`), float32 samples in float32: a mean a million times the spread does no harm. Both are
    kept, and the equations are solved, where the samples lie. device: that device, where it is known.
    """

    def __init__(self, features: int, classes: int, device: Backend | None = None) -> None:
        self.features, self.classes, self.device = features, classes, device
        self.few: tuple[Any, ...] = ()  # samples beside their classes (n, features + classes), or …
        self.joint: Centred | None = None  # … the moments of all

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
            both = _beside(xp, x, backend.asarray(members))
            if self.joint is None and sum(each.shape[0] for each in (*self.few, both)) <= self.features:
                _check_squares(xp.sum(_centred(xp, both)[0] ** 2))
                self.few = (*self.few, both)
                return self
            new = block(xp, both, True, ROWS)
            _check_squares(xp.sum(diagonal(xp, new.scatter)))
        joint = self.joint
        for each in self.few:
            with computing_on(_device_of(each, self.device)) as xp:
                joint = _together(joint, block(xp, each, rows=ROWS), self.device)
        self.joint, self.few = _together(joint, new, self.device), ()
        return self

    def solve(self, penalty: float) -> Ridge:
        """`Equations.solve` of these samples; InputError where there are none."""
        return self.equations().solve(penalty)

    def equations(self) -> Equations:
        """What is solved, to be solved for several penalties."""
        features, joint = self.features, self.joint
        if joint is not None:
            backend, matrix = _where(self.device, joint.scatter), joint.about(True)
            with computing_on(backend) as xp:
                total = float(xp.sum(diagonal(xp, matrix)[:features]))
            a, right = matrix[:features, :features], matrix[features:, :features].T
            return Equations(backend, a, right, None, joint.mean + joint.mean_low, total / features)
        if not self.few:
            raise InputError("ridge regression has seen no samples: call update(x, labels) first")
        backend = _where(self.device, *self.few)
        with computing_on(backend) as xp:
            both, mean = _centred(xp, xp.concat([backend.asarray(each) for each in self.few]))
            x = both[:, :features]
            matrix = product(x, x.T) if xp is np else xp.matmul(x, x.T)
            total = float(xp.sum(diagonal(xp, matrix)))
        return Equations(backend, matrix, both[:, features:], x, mean, total / features)


@dataclass(frozen=True)
class Equations:
    """(A + λ) Z = B of centred samples X and classes Y: A = X'X, B = X'Y and Wᵀ = Z.

    Of no more samples than features A = X X', B = Y and Wᵀ = X'Z, since (X'X + λ)⁻¹X' = X'(X X' + λ)⁻¹ (Saunders,
    Gammerman & Vovk 1998): n² F + n³/3 multiplications instead of n F² + F³/3.

    matrix: A (n, n), which is written to meanwhile; right: B (n, C); x: X in the second case; mean: of X and Y, one
    after the other; unit: the mean of the diagonal of X'X. The arrays are float64, and lie on `backend`.
    """

    backend: Backend
    matrix: Any
    right: Any
    x: Any
    mean: Any
    unit: float

    def solve(self, penalty: float) -> Ridge:
        """W = argmin Σ ‖W x + b − onehot(y)‖² + λ‖W‖², by Cholesky; λ is `penalty` times `unit`.

        Raises InputError where A + λ is not positive definite.
        """
        solve = _solve_on_gpu if is_gpu(self.backend) else _solve
        with computing_on(self.backend) as xp:
            try:
                solved = solve(xp, self.matrix, penalty * self.unit, self.right)
            except (np.linalg.LinAlgError, ValueError) as error:
                raise InputError(
                    f"ridge regression with penalty {penalty:g} is not solvable ({error}): the features are constant, "
                    "not finite, or the penalty is too small"
                ) from None
            weight = on_host(solved if self.x is None else xp.matmul(self.x.T, solved)).T
        middle = on_host(self.mean)
        features = len(middle) - len(weight)
        return Ridge(weight, middle[features:] - weight @ middle[:features], penalty)


def _beside(xp: Any, x: Any, members: Any) -> Any:
    """(x, members) as one array of floats, which is nobody else's."""
    features = x.shape[1]
    dtype = xp.float64 if result_dtype(x.dtype) == np.float64 else xp.float32
    both = xp.empty((x.shape[0], features + members.shape[1]), dtype=dtype)
    both[:, :features] = x
    both[:, features:] = members
    return both


def _centred(xp: Any, both: Any) -> tuple[Any, Any]:
    """(samples less their mean, the mean), float64; of samples that are alike exactly 0."""
    both = xp.astype(both, xp.float64)
    first = both[:1, :]
    both = both - first
    rest = xp.sum(both, axis=0) / both.shape[0]
    return both - rest, first[0, :] + rest


def _check_squares(total: Any) -> None:
    if not np.isfinite(float(total)):
        raise InputError("features hold NaN, infinity or numbers whose squares overflow: expected finite numbers")


def _together(a: Centred | None, b: Centred, device: Backend | None) -> Centred:
    """Both moments, on a GPU where one of them lies there; b is written to."""
    if a is None:
        return b
    backend = _where(device, b.scatter, a.scatter)
    with computing_on(backend):
        if is_gpu(backend):
            a, b = (each.moved(backend.asarray) for each in (a, b))
        return merge(a, b, overwrite=True)


def _where(device: Backend | None, *arrays: Any) -> Backend:
    """The GPU on which one of the arrays lies, or the CPU."""
    return next(filter(is_gpu, (_device_of(each, device) for each in arrays)), CPU)


def _device_of(x: Any, device: Backend | None) -> Backend:
    """The device on which x lies; features that were too many for a GPU lie on the host, whatever computed them."""
    return device_of(x, device, "x") if on_device(x) else CPU


def _solve(xp: Any, matrix: Any, shift: float, right: Any) -> Any:
    """Z (n, C) of (matrix + shift) Z = right; raises LinAlgError where the sum is not positive definite."""
    own = np.einsum("ii->i", matrix)  # the diagonal itself
    before = own.copy()
    own += shift  # in place: a copy may take as much memory as all else
    try:
        lower = interruptible(len(matrix) ** 3 // 16, np.linalg.cholesky, matrix)
    finally:
        own[...] = before
    return solve_factored(lower, right)


def _solve_on_gpu(xp: Any, matrix: Any, shift: float, right: Any) -> Any:
    """As `_solve`. CuPy does not say where a matrix is not positive definite: the factor is held against it."""
    matrix = matrix + xp.eye(matrix.shape[0], dtype=xp.float64) * shift
    factor = xp.linalg.cholesky(matrix)
    probe = xp.asarray(np.cos(np.arange(4 * matrix.shape[0], dtype=np.float64)).reshape(-1, 4))
    image = matrix @ probe
    if not bool(xp.max(xp.abs(factor @ (factor.T @ probe) - image)) <= WRONG * xp.max(xp.abs(image))):
        raise np.linalg.LinAlgError("the matrix is not positive definite")
    return xp.linalg.solve(factor.T, xp.linalg.solve(factor, right))


def ridge(
    train: Callable[[], Batches],
    held_out: Callable[[], Batches],
    features: int,
    classes: int,
    penalties: Sequence[float] = PENALTIES,
    device: Backend | None = None,
) -> Ridge:
    """Ridge regression on training and held-out batches, with the penalty that is best on the held-out ones.

    Each is called for its batches once. The returned weights are those of all samples, held-out ones included, at the
    penalty chosen without them.
    """
    if not penalties or min(penalties) <= 0:
        raise InputError(f"penalties are {list(penalties)}: expected at least one, all above 0")
    moments = Moments(features, classes, device)
    for x, labels in train():
        moments.update(x, labels)
    equations, solved = moments.equations(), list[Ridge]()
    for penalty in penalties:
        try:
            solved.append(equations.solve(penalty))
        except InputError:  # a penalty too small for features that depend on each other; a larger one will do
            if penalty == penalties[-1] and not solved:
                raise
    del equations  # as large as the moments
    correct = [0] * len(solved)
    for x, labels in held_out():
        moments.update(x, labels)
        correct = [before + each.correct(x, labels, device) for before, each in zip(correct, solved, strict=True)]
    return moments.solve(solved[int(np.argmax(correct))].penalty)


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
