"""The three tasks of document 001, and the variants of each that are trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise, product
from typing import Any

import gpunet as gn
from gpunet.backend import Backend
from gpunet.errors import DataError
from gpunet.experiments.svd_dnn import Meaning, Settings
from gpunet.linalg.rank import RankRule
from gpunet.nn.losses import LossName
from gpunet.nn.migration import State
from gpunet.nn.samples import Samples
from gpunet.nn.trainer import Trainer

RULES: dict[Meaning, Callable[[float], RankRule]] = {"dimension": gn.DimensionFraction, "break-even": gn.BreakEven}
SWEEP_ALPHAS = (0.125, 0.25, 0.5, 0.75)
SWEEP_PHIS = (0.0, 0.05, 0.1, 0.25, 0.5)


@dataclass(frozen=True)
class Task:
    """Network and training of one section of the document; batch_size and epochs are those for `samples` samples."""

    hidden: tuple[int, ...]
    loss: LossName
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


TASKS = {
    "xor": Task((20, 20), "binary_cross_entropy", False, 0.01, 1, 800, 4),
    "cats": Task((100,), "binary_cross_entropy", False, 0.001, 1, 100, 209),
    "mnist": Task((512, 256), "softmax_cross_entropy", True, 3e-4, 2048, 20, 60_000, (0.5, 0.25, 0.125), (50,)),
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
    def rule(self) -> RankRule:
        """How much rank each hidden layer keeps."""
        return RULES[self.meaning](self.alpha or 1)


def variants(settings: Any) -> list[Variant]:
    """What a run trains: dense; every α in both meanings; φ = 0; the state carried over; the counter-example.

    The first α is the one that φ = 0, the carried state and the counter-example are tried with. A sweep trains dense,
    and every φ with every α.
    """
    task, phis = TASKS[settings.task], SWEEP_PHIS if settings.sweep_phi else (settings.phi,)
    grid = product(settings.meanings, settings.alphas, phis)
    listed = [Variant(), *(Variant(phi, alpha, meaning) for meaning, alpha, phi in grid)]
    if not (settings.sweep_alpha or settings.sweep_phi):
        mains = [Variant(settings.phi, settings.alphas[0], meaning) for meaning in settings.meanings]
        states: tuple[State, ...] = ("carry", "carry-both") if task.adam else ()  # plain SGD has no state
        listed += [replace(main, phi=0.0) for main in mains]
        listed += [replace(main, state=state) for main in mains for state in states]
        listed += [replace(each, hidden=task.small) for each in (Variant(), *mains) if task.small]
    return list(dict.fromkeys(listed))


@dataclass(frozen=True)
class Problem:
    """A task on a data set, on the device; settings: with what None stands for."""

    task: Task
    settings: Any
    train: Samples
    test: Samples
    outputs: int

    def layers(self, variant: Variant) -> list[tuple[tuple[int, int], int | None]]:
        """(out, in) of each weight of a variant, and the rank that it is cut to; the last stays dense."""
        widths = [math.prod(self.train.shape), *(variant.hidden or self.task.hidden), self.outputs]
        shapes = [(out, inner) for inner, out in pairwise(widths)]
        ranks = [variant.rule(shape) if variant.alpha else None for shape in shapes[:-1]]
        return list(zip(shapes, [*ranks, None], strict=True))

    def trainer(self, variant: Variant, seed: int, backend: Backend, *, cut: bool = False) -> Trainer:
        """A new trainer for a variant's network, dense; cut: its layers as they are after the cut, drawn at random."""
        hidden = [
            gn.LowRankDense(out, rank, "relu") if cut and rank else gn.Dense(out, "relu")
            for (out, _), rank in self.layers(variant)[:-1]
        ]
        head = gn.Dense(self.outputs, None if self.outputs > 1 else "sigmoid")
        optimizer = (gn.Adam if self.task.adam else gn.SGD)(self.settings.learning_rate)
        return Trainer(
            gn.Sequential([*hidden, head]), self.task.loss, optimizer, device=backend, seed=seed,
            precision=self.settings.precision,
        )  # fmt: skip


def prepare(data: Any, settings: Settings, backend: Backend) -> Problem:
    """The task on a data set; raises DataError where they do not fit."""
    task = TASKS[settings.task]
    several = task.loss == "softmax_cross_entropy"
    if not several and data.classes != 2:
        raise DataError(
            f"the task {settings.task} has one output for two classes, {data.name} has {data.classes} classes: "
            "use --task mnist"
        )
    train, test = (
        Samples.of(backend, x, labels, data.classes, f"{what} data", copy=False)
        for x, labels, what in ((data.x_train, data.y_train, "training"), (data.x_test, data.y_test, "test"))
    )
    alphas = settings.alphas or (SWEEP_ALPHAS if settings.sweep_alpha else task.alphas)
    if settings.sweep_phi and not settings.sweep_alpha:
        alphas = alphas[:1]
    settings = replace(
        settings, alphas=tuple(dict.fromkeys(alphas)), epochs=settings.epochs or task.epochs,
        batch_size=min(settings.batch_size or task.fit_batch(len(train)), len(train)),
        learning_rate=settings.learning_rate or task.learning_rate,
    )  # fmt: skip
    return Problem(task, settings, train, test, data.classes if several else 1)
