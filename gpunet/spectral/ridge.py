"""Ridge regression on features, in closed form: a classifier without a single gradient step.

There are two ways. `Moments` is exact to float64, keeps (features + classes)² of it and several copies, makes a
Cholesky factor for each penalty and once more with the held-out samples. `TiledMoments` is for features whose matrix is
large: features² float32 and nothing else of that size, one factor for all. Neither does for the other: float32 loses
the digits of features that depend on each other, float64 takes eight times the memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunet.backend import Backend
from gpunet.backend.blas import interruptible, product, solve_factored
from gpunet.checks import check_labels, check_lengths, check_range, check_whole, on_device, on_host, real_array
from gpunet.errors import InputError, ShapeError
from gpunet.linalg.device import CPU, computing_on, device_of, is_gpu
from gpunet.linalg.matrix import result_dtype
from gpunet.linalg.moments import Centred, block, chunks, diagonal, merge
from gpunet.progress import Progress
from gpunet.reprs import sizes
from gpunet.spectral.tiled import TILE, Tiled, cholesky

Batches = Iterable[tuple[Any, NDArray[np.int64]]]  # features (n, F) on the host or a GPU, labels (n,) on the host
PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # relative to the features' mean variance
ROWS = 8192  # of features that are multiplied at a time, since no eigenvectors depend on the last digits
HELD_OUT = 0.1  # of the samples, to choose the penalty
WIDE = 1e15  # features larger than it, or smaller than one over it, take float64 beside the ones of their classes
LARGEST = 1e30  # penalty
EXACT_BYTES = 1 << 30  # of features² in float64, or half of few samples: more is computed in float32
SMALLEST = 1e-30  # Σ (x−m)² of a feature whose products float32 still holds


@dataclass(frozen=True)
class Ridge:
    """scores = x weightᵀ + bias; weight (classes, F), bias (classes,), float64; the penalty λ that was chosen.

    residual: ‖(A + λ) Wᵀ − B‖ / ‖B‖ of the worst class where the equations were solved by steps, else None; refused:
    penalties that were tried and with which the equations could not be solved.
    """

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    penalty: float
    residual: float | None = None
    refused: tuple[float, ...] = ()

    def __repr__(self) -> str:
        return f"<Ridge: weight {sizes(self.weight)}, penalty {self.penalty:.4g}>"

    def correct(self, x: Any, labels: Any, device: Backend | None = None) -> int:
        """How many of the samples x, which lie on `device`, get the largest score where their label is.

        Scores are float64: where the mean is far larger than the spread, what decides is what two large numbers leave.
        """
        x, labels = _checked(x, labels, self.weight.shape[1], None)
        backend = _device_of(x, device)
        with computing_on(backend) as xp, np.errstate(over="ignore", invalid="ignore"):
            weight, bias = backend.asarray(self.weight.T), backend.asarray(self.bias)
            parts = chunks(xp, x, None, 8)
            scores = [xp.astype(part, xp.float64) @ weight + bias for part in parts]
            for each in scores:
                _check_squares(xp.sum(each))
            guesses = [on_host(xp.argmax(each, axis=1)) for each in scores]
        return int((np.concatenate(guesses) == labels).sum())


class Moments:
    """Moments of samples and their classes together, from which ridge regression follows.

    No more samples than features are kept as they are, beside onehot(y). Of more, the scatter of (x, onehot(y)),
    (features + classes)², is accumulated by blocks, each centred by its own mean before it is multiplied
    (`linalg.moments.Centred`), float32 samples in float32: a mean a million times the spread does no harm. Both are
    kept, and the equations are solved, where the samples lie. device: that device, where it is known. standardise:
    features are divided by their deviation first, so that λ weighs all alike; the weights are of features as given,
    0 of constant ones.
    """

    def __init__(self, features: int, classes: int, device: Backend | None = None, standardise: bool = False) -> None:
        self.features, self.classes = check_whole("features", features), check_whole("classes", classes)
        self.device, self.standardise = device, standardise
        self.few: tuple[Any, ...] = ()  # samples beside their classes (n, features + classes), or …
        self.joint: Centred | None = None  # … the moments of all

    def update(self, x: Any, labels: Any) -> Moments:
        """Add samples x (n, features), float32 or float64, with labels (n,), integers below `classes`.

        Raises ShapeError for other widths and InputError for NaN, infinities and other labels; then nothing is added.
        """
        x, labels = _checked(x, labels, self.features, self.classes)
        members, backend = _members(labels, self.classes), _device_of(x, self.device)
        with computing_on(backend) as xp, np.errstate(over="ignore", invalid="ignore"):
            both = _beside(xp, backend.asarray(x), backend.asarray(members))
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
            backend = _where(self.device, joint.scatter)
            with computing_on(backend) as xp:
                matrix, mean = joint.about(True), joint.mean + joint.mean_low
                a, right, scale = matrix[:features, :features], matrix[features:, :features].T, None
                squares = diagonal(xp, matrix)[:features]
                if self.standardise:
                    scale = _scale(xp, squares, joint.count)
                    right, squares = right * scale[:, None], squares * scale * scale
                    a *= scale[:, None]
                    a *= scale
                total = float(xp.sum(squares))
            return Equations(backend, a, right, None, mean, total / features, scale)
        if not self.few:
            raise InputError("ridge regression has seen no samples: call update(x, labels) first")
        backend = _where(self.device, *self.few)
        with computing_on(backend) as xp:
            both, mean = _centred(xp, xp.concat([backend.asarray(each) for each in self.few]))
            x, scale = both[:, :features], None
            if self.standardise:
                scale = _scale(xp, xp.sum(x * x, axis=0), x.shape[0])
                x *= scale
            matrix = product(x, x.T) if xp is np else xp.matmul(x, x.T)
            total = float(xp.sum(diagonal(xp, matrix)))
        return Equations(backend, matrix, both[:, features:], x, mean, total / features, scale)

    def solutions(self, penalties: Sequence[float]) -> list[Ridge]:
        """For each penalty that is large enough for features that depend on each other; InputError where none is."""
        equations, penalties = self.equations(), _some(penalties)
        solved, refused = list[Ridge](), dict[float, InputError]()
        for penalty in penalties:
            try:
                solved.append(equations.solve(penalty))
            except InputError as error:
                refused[penalty] = error
        if not solved:
            raise refused[penalties[-1]]
        return [replace(each, refused=tuple(refused)) for each in solved]


class TiledMoments:
    """Moments of many features and their classes, in one array of features² float32, and ridge regression from them.

    Each batch is centred by its own mean m_b and rounded to float32 once; products are computed and added in float32
    (`Tiled.add` tells what that loses: take batches of some thousand), all else in float64. What the means differ by,
    (m_b − m_a) √(n_a n_b / n), is one more row that is multiplied (Chan, Golub & LeVeque 1983), so that a mean that
    batches share does no harm, however large. On one device: `device`, or where the first batch lies. standardise: as
    in `Moments`.
    """

    def __init__(
        self,
        features: int,
        classes: int,
        device: Backend | None = None,
        standardise: bool = False,
        tile: int = TILE,
        progress: Progress | None = None,
    ) -> None:
        self.features, self.classes = check_whole("features", features), check_whole("classes", classes)
        self.device, self.standardise = device, standardise
        self.tile, self.progress, self.counts = tile, progress or Progress(), np.zeros(classes)
        self.products: Tiled | None = None
        self.scale: Any = None  # (F,) what features are multiplied by, from the first solutions on
        self.mean: Any = 0.0  # (F,), and …
        self.sums: Any = 0.0  # … Σ (x − mean) of each class (classes, F), both float64, of features times scale

    def update(self, x: Any, labels: Any) -> TiledMoments:
        """Add samples x (n, features) of any real dtype, with labels (n,), integers below `classes`.

        Raises as `Moments.update`.
        """
        x, labels = _checked(x, labels, self.features, self.classes)
        if self.products is None:
            self.products = Tiled(self.features, _device_of(x, self.device), self.tile, self.progress)
        products, backend, n, before = self.products, self.products.device, len(labels), self.counts.sum()
        own = np.bincount(labels, minlength=self.classes)
        with computing_on(backend) as xp, np.errstate(over="ignore", invalid="ignore"):
            x, members = backend.asarray(x), backend.asarray(_members(labels, self.classes).T.astype(float))
            near = xp.empty((n + 1, self.features), dtype=xp.float32)
            mean, squares = xp.empty(self.features, dtype=xp.float64), xp.empty(self.features, dtype=xp.float64)
            sums = xp.empty((self.classes, self.features), dtype=xp.float64)
            for part in products.tiles:
                wide = xp.astype(x[:, part], xp.float64)
                if self.scale is not None:
                    wide *= self.scale[part]
                first = wide[0] * 1.0  # so that the mean of features that are constant is exactly theirs
                wide -= first
                middle = xp.sum(wide, axis=0) / n
                mean[part] = first + middle
                near[:n, part] = wide - middle
                wide = xp.astype(near[:n, part], xp.float64)
                squares[part], sums[:, part] = xp.sum(wide * wide, axis=0), xp.matmul(members, wide)
            apart = (mean - self.mean) * (1.0 if before else 0.0)
            near[n] = apart * math.sqrt(before * n / (before + n))
            squares += xp.astype(near[n], xp.float64) ** 2
            _check_squares(xp.astype(xp.max(products.diagonal + squares), xp.float32))
            products.diagonal += squares
            shares = (backend.asarray(each)[:, None] for each in (own * before, self.counts * n))
            mine, others = (each / (before + n) * apart for each in shares)
            self.mean, self.sums = mean - apart * (before / (before + n)), self.sums + sums + (mine - others)
        self.counts = self.counts + own
        self.progress.advance(0, f"products of {int(self.counts.sum()):,} samples")
        products.add(near)
        return self

    def solve(self, penalty: float) -> Ridge:
        """`solutions` of one."""
        return self.solutions([penalty])[0]

    def solutions(self, penalties: Sequence[float]) -> list[Ridge]:
        """As `Moments.solutions`, all solved at once by `Tiled.solve`.

        The factor of the first time is used again, where it is good enough for the samples that were added since
        (`Tiled.solve`); so is what features are divided by, where none has half or twice that deviation now. Raises
        InputError, too, for features that are too small for float32.
        """
        products, counts, count, penalties = self.products, self.counts, self.counts.sum(), _some(penalties)
        if products is None:
            raise InputError("ridge regression has seen no samples: call update(x, labels) first")
        with computing_on(products.device) as xp:
            if not bool(xp.any(products.diagonal > 0)):
                raise _not_solvable(max(penalties), "none varies")
            self._rescale(xp, products)
            unit, right = float(xp.sum(products.diagonal)) / self.features, self.sums.T
            scale, mean = on_host(self.scale), on_host(self.mean)
        try:
            found, residuals = products.solve(right, [penalty * unit for penalty in penalties])
        except np.linalg.LinAlgError as error:
            raise _not_solvable(max(penalties), error) from None
        refused = tuple(each for each, residual in zip(penalties, residuals, strict=True) if not residual < np.inf)
        if len(refused) == len(penalties):
            raise _not_solvable(max(penalties), "no end of the steps")
        solved = list[Ridge]()
        for penalty, z, residual in zip(penalties, found, residuals.tolist(), strict=True):
            if residual < np.inf:
                bias = counts / count - z.T @ mean
                solved.append(Ridge(np.ascontiguousarray((z * scale[:, None]).T), bias, penalty, residual, refused))
        return solved

    def _rescale(self, xp: Any, products: Tiled) -> None:
        """Where features are to be divided by their deviation, divide what has been accumulated."""
        diagonal, first = products.diagonal, self.scale is None
        scale, least = xp.ones_like(diagonal), xp.max(diagonal)  # others are nothing beside it, …
        if self.standardise:  # … but for those that are made as large; constant ones may vary later, and stay
            vary = diagonal > 0
            scale = xp.where(vary, _scale(xp, diagonal, self.counts.sum()), scale)
            least = xp.min(xp.where(vary, diagonal, scale))
        if first and 0 < float(least) < SMALLEST:
            raise InputError(
                f"features have squares that sum to {float(least):.1g}: expected at least {SMALLEST:g}, of which "
                "float32 holds the products; multiply them, by 1e12 say"
            )
        if first:
            self.scale = xp.ones_like(diagonal)
        if self.standardise and (first or bool(xp.any((scale > 2) | (scale < 0.5)))):
            products.rescale(scale)
            self.mean, self.sums, self.scale = self.mean * scale, self.sums * scale, self.scale * scale


@dataclass(frozen=True)
class Equations:
    """(A + λ) Z = B of centred samples X and classes Y: A = X'X, B = X'Y and Wᵀ = Z.

    Of no more samples than features A = X X', B = Y and Wᵀ = X'Z, since (X'X + λ)⁻¹X' = X'(X X' + λ)⁻¹ (Saunders,
    Gammerman & Vovk 1998): n² F + n³/3 multiplications instead of n F² + F³/3.

    matrix: A (n, n), which is written to meanwhile; right: B (n, C); x: X in the second case; mean: of X and Y, one
    after the other; unit: the mean of the diagonal of X'X; scale: (F,) what the features were multiplied by, or None.
    The arrays are float64, and lie on `backend`.
    """

    backend: Backend
    matrix: Any
    right: Any
    x: Any
    mean: Any
    unit: float
    scale: Any = None

    def solve(self, penalty: float) -> Ridge:
        """W = argmin Σ ‖W x + b − onehot(y)‖² + λ‖W‖², by Cholesky; λ is `penalty` times `unit`.

        Raises InputError where A + λ is not positive definite.
        """
        solve = _solve_on_gpu if is_gpu(self.backend) else _solve
        with computing_on(self.backend) as xp:
            try:
                solved = solve(xp, self.matrix, penalty * self.unit, self.right)
            except (np.linalg.LinAlgError, ValueError) as error:
                raise _not_solvable(penalty, error) from None
            z = solved if self.x is None else xp.matmul(self.x.T, solved)
            weight = on_host(z if self.scale is None else z * self.scale[:, None]).T
        middle = on_host(self.mean)
        features = len(middle) - len(weight)
        return Ridge(weight, middle[features:] - weight @ middle[:features], penalty)


def _not_solvable(penalty: float, why: object) -> InputError:
    return InputError(
        f"ridge regression with penalty {penalty:g} is not solvable ({why}): the features are constant, not finite, or "
        "the penalty is too small"
    )


def _some(penalties: Any) -> list[float]:
    """Penalties, one at least."""
    if not np.iterable(penalties) or not len(found := list(penalties)):
        raise InputError(f"penalties are {penalties!r}: expected at least one, all above 0")
    return found


def _checked(x: Any, labels: Any, features: int, classes: int | None) -> tuple[Any, NDArray[np.int64]]:
    """Samples (n, features) and their labels (n,)."""
    x, labels = real_array(x, "features"), check_labels(labels, classes, "ridge regression")
    if x.ndim != 2 or x.shape[1] != features:
        raise ShapeError(f"features have shape {x.shape}: expected (n, {features})")
    check_lengths(x, labels, "ridge regression")
    return x, labels


def _members(labels: NDArray[np.int64], classes: int) -> NDArray[np.bool_]:
    """onehot(labels), (n, classes)."""
    members: NDArray[np.bool_] = np.arange(classes) == labels[:, None]
    return members


def _scale(xp: Any, squares: Any, count: float) -> Any:
    """1 / deviation (F,) from Σ (x−m)², 0 of features that are constant, whose squares are exactly 0."""
    some = squares > 0
    return xp.where(some, 1 / xp.sqrt(xp.where(some, squares, 1.0) / count), 0.0)


def _beside(xp: Any, x: Any, members: Any) -> Any:
    """(x, members) as one array of floats, which is nobody else's."""
    features = x.shape[1]
    dtype = xp.float32
    if result_dtype(x.dtype) == np.float64 or not _beside_ones(xp, x):
        dtype = xp.float64
    both = xp.empty((x.shape[0], features + members.shape[1]), dtype=dtype)
    both[:, :features] = x
    both[:, features:] = members
    return both


def _beside_ones(xp: Any, x: Any) -> bool:
    """Whether products of the features and of ones can be added up in one matrix of float32; NaN is told elsewhere."""
    sizes = xp.max(xp.abs(x), axis=0)
    some = sizes > 0
    return not bool(xp.any(some & ((sizes < 1 / WIDE) | (sizes > WIDE))))


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
    """As `_solve`."""
    factor = cholesky(xp, matrix + xp.eye(matrix.shape[0], dtype=xp.float64) * shift)
    return xp.linalg.solve(factor.T, xp.linalg.solve(factor, right))


def ridge(
    train: Callable[[], Batches],
    held_out: Callable[[], Batches],
    features: int,
    classes: int,
    penalties: Sequence[float] = PENALTIES,
    device: Backend | None = None,
    tiled: bool = False,
    standardise: bool = False,
    progress: Progress | None = None,
) -> Ridge:
    """Ridge regression on training and held-out batches, with the penalty that is best on the held-out ones.

    Each is called for its batches once. Of penalties that are as good as each other the first is taken, and the
    returned weights are those of all samples, held-out ones included, at the penalty chosen without them. tiled: by
    `TiledMoments`, and the largest of the best ones; `progress` is told how that goes. standardise: as in `Moments`.
    """
    penalties = [check_range("a penalty", each, above=0, most=LARGEST) for each in _some(penalties)]
    moments: Moments | TiledMoments
    if tiled:
        moments = TiledMoments(features, classes, device, standardise, progress=progress)
        penalties.sort(reverse=True)
    else:
        moments = Moments(features, classes, device, standardise)
    for x, labels in train():
        moments.update(x, labels)
    solved = moments.solutions(penalties)
    correct = [0] * len(solved)
    for x, labels in held_out():
        x, labels = _checked(x, labels, features, classes)
        moments.update(x, labels)
        correct = [before + each.correct(x, labels, device) for before, each in zip(correct, solved, strict=True)]
    best = solved[int(np.argmax(correct))]
    return replace(moments.solve(best.penalty), refused=best.refused)


def ridge_of_rows(
    features: Callable[[NDArray[np.intp]], Any],
    labels: NDArray[np.int64],
    rows: NDArray[np.intp],
    width: int,
    classes: int,
    penalties: Sequence[float] = PENALTIES,
    device: Backend | None = None,
    block: int = 4096,
    tiled: bool | None = None,
    standardise: bool = False,
    progress: Progress | None = None,
) -> Ridge:
    """`ridge` on samples that are asked for by their places: the first tenth of `rows`, shuffled ones, is held out.

    features: of places in ascending order, at most `block` of them, (n, width); labels (samples,): of all. tiled,
    standardise, progress: as for `ridge`; None: tiled where float64 would take more than EXACT_BYTES.
    """

    def batches(part: NDArray[np.intp]) -> Iterator[tuple[Any, NDArray[np.int64]]]:
        for start in range(0, len(part), block):
            chosen = np.sort(part[start : start + block])
            yield features(chosen), labels[chosen]

    block = check_whole("block", block)
    held_out, rest = np.split(rows, [math.ceil(HELD_OUT * len(rows))])
    if tiled is None:
        tiled = 8 * width * (width if len(rest) > width else len(rest) // 2) > EXACT_BYTES
    return ridge(
        partial(batches, rest), partial(batches, held_out), width, classes, penalties, device, tiled, standardise,
        progress,
    )  # fmt: skip
