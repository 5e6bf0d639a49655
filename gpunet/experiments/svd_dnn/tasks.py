"""The three tasks of document 001, and the variants of each that are trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

import gpunet as gn
from gpunet.backend import Backend
from gpunet.errors import DataError
from gpunet.experiments.svd_dnn import Meaning, Settings
from gpunet.factorise import speed_up
from gpunet.linalg.rank import RankRule
from gpunet.migration import State
from gpunet.samples import Samples
from gpunet.train import Trainer

RULES: dict[Meaning, Callable[[float], RankRule]] = {"dimension": gn.DimensionFraction, "break-even": gn.BreakEven}
SWEEP_ALPHAS = (0.125, 0.25, 0.5, 0.75)
SWEEP_PHIS = (0.0, 0.05, 0.1, 0.25, 0.5)


@dataclass(frozen=True)
class Task:
    """Network and training of one section of the document; batch_size and epochs are those for `samples` samples."""

    name: str
    hidden: tuple[int, ...]
    loss: str
    adam: bool
    learning_rate: float
    batch_size: int
    epochs: int
    samples: int
    alphas: tuple[float, ...] = (0.5,)
    small: tuple[int, ...] = ()  # hidden layers of the counter-example (section 4.3)

    def fit_batch(self, samples: int) -> int:
        """The batch size; on fewer samples one that keeps the document's number of steps, but at least 16."""
        steps = math.ceil(self.samples / self.batch_size)
        return self.batch_size if samples >= self.samples else max(min(self.batch_size, 16), samples // steps)

    def outputs(self, data: Any) -> int:
        """Outputs of the network; DataError where a task of two classes is given more."""
        if self.loss == "softmax_cross_entropy":
            return int(data.classes)
        if data.classes != 2:
            raise DataError(
                f"the task {self.name} has one output for two classes, {data.name} has {data.classes} classes: "
                "use --task mnist"
            )
        return 1


TASKS: dict[str, Task] = {
    task.name: task
    for task in [
        Task("xor", (20, 20), "binary_cross_entropy", False, 0.01, 1, 800, 4),
        Task("cats", (100,), "binary_cross_entropy", False, 0.001, 1, 100, 209),
        Task("mnist", (512, 256), "softmax_cross_entropy", True, 3e-4, 2048, 20, 60_000, (0.5, 0.25, 0.125), (50,)),
    ]
}


@dataclass(frozen=True)
class Variant:
    """One network to train: dense where alpha is None, else cut after the share `phi` of the steps."""

    phi: float = 1.0
    alpha: float | None = None
    meaning: Meaning = "dimension"
    hidden: tuple[int, ...] = ()  # () the task's
    state: State = "restart"

    @property
    def name(self) -> str:
        """The row's name, stable between versions."""
        size = f" {'-'.join(map(str, self.hidden))} units" if self.hidden else ""
        if self.alpha is None:
            return f"dense{size}"
        carried = {"restart": "", "carry": " carried", "carry-both": " carried both"}[self.state]
        return f"svd phi={self.phi:g} alpha={self.alpha:g} {self.meaning}{carried}{size}"

    @property
    def rule(self) -> RankRule | None:
        """The rank rule; None for a dense network."""
        return None if self.alpha is None else RULES[self.meaning](self.alpha)


def variants(settings: Settings) -> list[Variant]:
    """What a run trains: dense; every α in both meanings; φ = 0; the state carried over; the counter-example.

    The first α is the one that φ = 0, the carried state and the counter-example are tried with. A sweep trains dense,
    and every φ with every α.
    """
    task, phi, meanings = TASKS[settings.task], settings.phi, settings.meanings
    alphas = settings.alphas or task.alphas
    first = alphas[0]
    if settings.sweep_alpha or settings.sweep_phi:
        phis = SWEEP_PHIS if settings.sweep_phi else (phi,)
        alphas = (settings.alphas or SWEEP_ALPHAS) if settings.sweep_alpha else (first,)
        listed = [Variant(p, alpha, meaning) for meaning in meanings for alpha in alphas for p in phis if p < 1]
    else:
        states: tuple[State, ...] = ("carry", "carry-both") if task.adam else ()  # plain SGD has no state
        listed = [Variant(phi, alpha, meaning) for meaning in meanings for alpha in alphas]
        listed += [Variant(0.0, first, meaning) for meaning in meanings]
        listed += [Variant(phi, first, meaning, state=state) for meaning in meanings for state in states]
        if task.small:
            listed += [Variant(hidden=task.small), *(Variant(phi, first, meaning, task.small) for meaning in meanings)]
    return list(dict.fromkeys([Variant(), *listed]))


@dataclass(frozen=True)
class Problem:
    """A task on a data set, on the device."""

    task: Task
    train: Samples
    test: Samples
    outputs: int
    batch: int
    epochs: int

    def shapes(self, variant: Variant) -> list[tuple[int, int]]:
        """(out, in) of a variant's weights."""
        widths = [int(np.prod(self.train.shape)), *(variant.hidden or self.task.hidden), self.outputs]
        return [(out, inner) for inner, out in pairwise(widths)]

    def allowed(self, variant: Variant) -> float:
        """The speed-up that the document's count of multiplications allows after the cut."""
        shapes, rule = self.shapes(variant), variant.rule
        return speed_up(shapes, [*(rule(shape) if rule else None for shape in shapes[:-1]), None])

    def trainer(self, variant: Variant, seed: int, backend: Backend, *, cut: bool = False) -> Trainer:
        """A new trainer for a variant's network, dense; cut: its layers as they are after the cut, drawn at random."""
        task, rule = self.task, variant.rule if cut else None
        hidden = [
            gn.LowRankDense(shape[0], rule(shape), "relu") if rule else gn.Dense(shape[0], "relu")
            for shape in self.shapes(variant)[:-1]
        ]
        head = gn.Dense(self.outputs, None if self.outputs > 1 else "sigmoid")
        optimizer = gn.Adam(task.learning_rate) if task.adam else gn.SGD(task.learning_rate)
        return Trainer(gn.Sequential([*hidden, head]), task.loss, optimizer, device=backend, seed=seed)


def prepare(data: Any, settings: Settings, backend: Backend) -> Problem:
    """The task on a data set; raises DataError where they do not fit."""
    task = TASKS[settings.task]
    outputs = task.outputs(data)
    classes = max(2, outputs)
    train = Samples.of(backend, data.x_train, data.y_train, classes, "training data", copy=False)
    test = Samples.of(backend, data.x_test, data.y_test, classes, "test data", copy=False)
    batch = min(settings.batch_size or task.fit_batch(len(train)), len(train))
    task = replace(task, learning_rate=settings.learning_rate or task.learning_rate)
    return Problem(task, train, test, outputs, batch, settings.epochs or task.epochs)
