"""Is backprop right? Each element of the gradient against a central difference, in float64."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpunet.backend import Backend, get_backend
from gpunet.backend.base import LOSS_SUM, Array
from gpunet.checks import check_range
from gpunet.errors import InputError
from gpunet.nn.losses import Loss, LossName, resolve
from gpunet.nn.model import Sequential, check_model
from gpunet.nn.serialize import arrays_of
from gpunet.nn.trainer import Evaluator
from gpunet.reprs import columns, table_html

SUSPICIOUS = 1e-7  # of the parameter's largest gradient: what differs by more is looked at again
FINER = (0.1, 0.01)  # of the step, for that second look
ROUNDING = 4 * float(np.finfo(np.float64).eps)  # of a cost, relative to what it is made of: up to 1.3 ε were seen


@dataclass(frozen=True)
class Check:
    """One parameter's gradient a beside central differences n.

    relative_error: max |a − n| / max(|a| + |n|), on the scale of the parameter's largest gradient, corners resolved;
    |a − n| counts as far as it is more than the rounding of the difference, of which `rounding` is the largest: where
    it is no smaller than `largest`, the check shows nothing.
    elementwise_error: max of |a − n| / (|a| + |n|), each element on its own scale and as the first step gave it, which
    is document 004's measure: it also shows the rounding of differences that are nearly zero, and corners of ReLU.
    corners: elements whose difference changed with a finer step.
    """

    shape: tuple[int, ...]
    largest: float
    rounding: float
    relative_error: float
    elementwise_error: float
    corners: int


@dataclass(frozen=True, repr=False)
class GradientTable:
    """What `gradient_check` found: a `Check` for each trained parameter, by name; it shows itself as a table."""

    step: float
    parameters: dict[str, Check]

    @property
    def relative_error(self) -> float:
        """The largest of all parameters; NaN where a gradient or cost is not finite."""
        return float(np.max([check.relative_error for check in self.parameters.values()]))

    def __repr__(self) -> str:
        return columns(*self._table(), left=7)

    def _repr_html_(self) -> str:
        return table_html(*self._table(), left=7)

    def _table(self) -> tuple[tuple[str, ...], Sequence[tuple[str, ...]]]:
        head = ("parameter", "shape", "largest", "rounding", "relative error", "by element", "corners")
        rows = [
            (name, "×".join(map(str, c.shape)), f"{c.largest:.1e}", f"{c.rounding:.1e}", f"{c.relative_error:.1e}",
             f"{c.elementwise_error:.1e}", str(c.corners))
            for name, c in self.parameters.items()
        ]  # fmt: skip
        return head, rows


def gradient_check(
    model: Sequential,
    loss: LossName | Loss,
    x: Any,
    labels: Any,
    *,
    step: float = 1e-5,
    device: str | Backend = "numpy",
    seed: int = 0,
) -> GradientTable:
    """Compare the gradient of the mean loss (or its sum, as the loss' reduction says) with (J(w+h) − J(w−h)) / 2h.

    model: with or without weights (then they are drawn from `seed`); a copy in float64 is checked, the model itself is
    left alone. It is checked in training mode, where layers that draw draw the same each time. x (samples, …) of floats
    or uint8 and labels (samples,), or targets (samples, outputs): a few are enough, since every element of every
    trained parameter costs two forward passes over all of them.

    Where an element differs by more than 1e-7 of its parameter's largest gradient, the difference is taken again with
    steps of h/10 and h/100, and the nearest counts: a corner of ReLU or of pooling within the first step then no longer
    matters, while a gradient that is wrong stays as wrong as it was. Costs are rounded, so a difference shows nothing
    below 4 ε (|J| + Σ|z|)/h, z the scores that J is made of: that much is taken off each |a − n|, and a larger step
    shows more. Not seen are corners at the very point, such as zero biases under inputs of zero. The L2 term is
    the optimiser's and not part of the loss.

    Raises InputError for a model without trained parameters or a step ≤ 0, and its kin for data that does not fit.

    >>> import gpunet as gn
    >>> data = gn.datasets.load("digits")
    >>> model = gn.Sequential([gn.Dense(8, "sigmoid"), gn.Dense(10)])
    >>> table = gradient_check(model, "softmax_cross_entropy", data.x_train[:5], data.y_train[:5])
    >>> table.relative_error < 1e-6
    True
    """
    step = check_range("step", step, above=0)
    check_model(model)
    backend = get_backend(device)
    looker = Evaluator(
        _in_float64(model, backend), copy.copy(resolve(loss)), device=backend, dtype="float64", seed=seed
    )
    cost, learn = _cost(looker, x, labels)
    model = looker.model
    if not model.gradients:
        raise InputError("the model has no trained parameter whose gradient could be checked")
    with backend.session(), np.errstate(all="ignore"):  # what is not finite shows in the table
        learn()
        analytic = {name: np.array(backend.to_host(gradient)) for name, gradient in model.gradients.items()}
        found = {
            name: _check(_Difference(backend, cost, parameter), analytic[name], step)
            for name, parameter in model.parameters.items()
            if name in analytic
        }
    return GradientTable(step, found)


def _in_float64(model: Sequential, backend: Backend) -> Sequential:
    """A copy on that device; where the model has no weights yet, without any."""
    try:
        made = copy.deepcopy(model)
    except TypeError as error:  # of a lock, say
        raise InputError(f"a layer of the model cannot be copied: {error}") from error
    if model.built:
        made.build(model.input_shape, backend, dtype="float64")
        made._sees_as(model)
        made._write({name: value.astype(np.float64) for name, value in arrays_of(model).items()})
    return made


def _cost(looker: Evaluator, x: Any, labels: Any) -> tuple[Callable[[], tuple[float, float]], Callable[[], None]]:
    """The cost by the weights as they stand, with the size of what it is made of; and what fills the gradients.

    The cost may be a small difference of large scores. Gradients are those of a training step, fused where that is so,
    and in training mode.
    """
    backend = looker.backend
    data = looker._labelled(x, labels, "gradient check")
    n, model, loss = len(data), looker.model, looker.loss
    model.bind(n)
    model.set_batch_size(n)
    inputs, zero = backend.empty((n, *data.shape), "float64"), backend.zeros(1, "int64")
    with backend.session():
        backend.gather(data.x, backend.asarray(np.arange(n)), zero, model._scale_of(data.x), inputs)
    totals = looker._looking.totals

    model.train()

    def cost() -> tuple[float, float]:
        model._begin_draws(looker.seed)  # the same masks each time
        looker._looking.reset()
        scores = model.forward(inputs)
        loss(scores, data.labels, model.d_scores, totals)
        found = float(backend.to_host(totals)[LOSS_SUM])
        return found * loss.scale(n), (abs(found) + float(np.abs(backend.to_host(scores)).sum())) * loss.scale(n)

    def learn() -> None:
        model._begin_draws(looker.seed)
        model._learn(inputs, data.labels, loss, totals)

    return cost, learn


class _Difference:
    """Central differences of the cost in the elements of one parameter."""

    def __init__(self, backend: Backend, cost: Callable[[], tuple[float, float]], parameter: Array) -> None:
        self.backend, self.cost, self.flat = backend, cost, parameter.reshape(-1)
        self.start = np.array(backend.to_host(self.flat))

    def __call__(self, element: int, step: float) -> tuple[float, float]:
        """The difference, and how much of it may be rounding."""
        place, at = self.flat[element : element + 1], float(self.start[element])
        costs, ends = [], (at + step, at - step)
        for moved in ends:
            self.backend.copy(moved, place)
            costs.append(self.cost())
        self.backend.copy(at, place)
        apart = ends[0] - ends[1]
        if not apart:  # a weight too large for the step
            return math.nan, math.nan
        (above, size), (below, other) = costs
        return (above - below) / apart, 2 * ROUNDING * max(size, other) / apart


def _check(difference: _Difference, gradient: Any, step: float) -> Check:
    analytic = gradient.reshape(-1)
    numeric, noise = np.array([difference(element, step) for element in range(len(analytic))]).T
    scale = float(np.max(np.abs(analytic) + np.abs(numeric)))
    own = np.abs(analytic) + np.abs(numeric)
    by_element = np.abs(analytic - numeric) / np.where(own > 0, own, 1)
    corners, apart = 0, np.maximum(np.abs(analytic - numeric) - noise, 0)
    for element in np.flatnonzero(apart > SUSPICIOUS * scale):
        finer = [difference(int(element), share * step)[0] for share in FINER]
        corners += bool(abs(finer[-1] - numeric[element]) > SUSPICIOUS * scale)
        apart[element] = min(apart[element], *(abs(analytic[element] - each) for each in finer))
    relative = float(np.max(apart)) / (scale if scale > 0 else 1.0)
    largest, rounding = float(np.abs(analytic).max()), float(noise.max())
    return Check(gradient.shape, largest, rounding, relative, float(by_element.max()), corners)
