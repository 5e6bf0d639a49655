"""The net of cifar-mlp, how it is trained, and what became of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

import gpunet as gn
from gpunet.backend import Backend
from gpunet.callbacks import Callback
from gpunet.errors import DivergedError
from gpunet.experiments.cifar_mlp.data import Problem
from gpunet.experiments.framework import Measured
from gpunet.init import normal
from gpunet.progress import Progress
from gpunet.samples import Samples
from gpunet.train import Trainer

STD = 0.1  # of weights and biases (equation 1)
DIVERGED = 3.0  # times the cost before training
CURVES = ("train_cost", "validation_cost", "validation_accuracy", "test_accuracy")


@dataclass(frozen=True)
class Recipe:
    """A net and its training; the defaults are the document's final setting.

    hidden: units of the ReLU layer, 0 for a net without one; init: "normal" N(0, 0.1²) for W and b, "he" He's for W
    and b = 0; decay: η is multiplied by it after each epoch; cycle: η goes up from a tenth and down again, twice in
    all epochs; patience: stop after so many epochs without a lower validation loss, and keep the best.
    """

    learning_rate: float = 0.020815
    l2: float = 0.00012554
    momentum: float = 0.9
    batch_size: int = 64
    epochs: int = 10
    hidden: int = 50
    init: Literal["normal", "he"] = "normal"
    decay: float = 1.0
    cycle: bool = False
    shuffle: bool = True
    patience: int | None = None

    def model(self, classes: int) -> gn.Sequential:
        """A new net, its weights not drawn yet."""
        drawing: dict[str, Any] = {"weight": "he_normal"}
        if self.init == "normal":
            drawing = {"weight": normal(STD), "bias": normal(STD)}
        hidden = [gn.Dense(self.hidden, "relu", **drawing)] if self.hidden else []
        return gn.Sequential([*hidden, gn.Dense(classes, **drawing)])

    def trainer(self, classes: int, seed: int, backend: Backend) -> Trainer:
        """A new trainer of a new net."""
        optimizer = gn.SGD(self.learning_rate, self.momentum, self.l2)
        return Trainer(self.model(classes), optimizer=optimizer, device=backend, seed=seed)

    def fit(
        self, problem: Problem, seed: int, backend: Backend, watching: Callback, validation: Samples | None
    ) -> tuple[Trainer, bool]:
        """Train a new net, and whether it diverged, which is no error."""
        trainer = self.trainer(problem.classes, seed, backend)
        callbacks: list[Callback] = [gn.DivergenceGuard(DIVERGED)]
        if self.decay < 1:
            callbacks.append(gn.ExponentialDecay(self.decay))
        if self.cycle:
            half = max(1, self.epochs * problem.train.batches(self.batch_size) // 4)
            callbacks.append(gn.CyclicalRate(self.learning_rate / 10, self.learning_rate, half))
        if self.patience is not None:
            callbacks.append(gn.EarlyStopping(patience=self.patience))
        try:
            trainer.fit(
                problem.train, epochs=self.epochs, batch_size=self.batch_size, validation_data=validation,
                shuffle=self.shuffle, callbacks=[*callbacks, watching],
            )  # fmt: skip
        except DivergedError:
            return trainer, True
        return trainer, False


class Course(Callback):
    """Cost (the L2 term included, as the document's) and accuracies after each epoch."""

    def __init__(self, problem: Problem, l2: float, bar: Progress) -> None:
        self.problem, self.l2, self.bar = problem, l2, bar
        self.curves: dict[str, list[float]] = {name: [] for name in CURVES}

    def on_epoch_end(self, trainer: Trainer, epoch: int, logs: dict[str, float]) -> None:
        known = {"loss": logs["validation_loss"], "accuracy": logs["validation_accuracy"]}
        found = looked_at(trainer, self.problem, self.l2, known)
        for name, value in found.items():
            self.curves[name].append(value)
        self.bar.advance(1, f"epoch {epoch + 1}  cost {found['train_cost']:.4g}")


def looked_at(
    trainer: Trainer, problem: Problem, l2: float, validation: dict[str, float] | None = None
) -> dict[str, float]:
    """The numbers of CURVES for the weights as they stand."""
    params, _, decayed = trainer.model.flat
    term = l2 * float((params[:decayed].astype(np.float64) ** 2).sum())
    validation = validation or trainer.evaluate(problem.validation)
    return {
        "train_cost": trainer.evaluate(problem.train)["loss"] + term,
        "validation_cost": validation["loss"] + term,
        "validation_accuracy": validation["accuracy"],
        "test_accuracy": trainer.evaluate(problem.test)["accuracy"],
    }


@dataclass
class Outcome:
    """One training run: curves by epoch, metrics of the net at the end, and the epoch (from 1) in which it diverged.

    A net that has diverged has no metrics; curves end before that epoch, or where training was stopped early.
    """

    curves: dict[str, list[float]]
    metrics: dict[str, float]
    diverged: int | None
    seconds: float

    def test_accuracy(self, epoch: int, chance: float) -> float:
        """After an epoch (from 1), or the last one there was; `chance` where the net has diverged by then."""
        if self.diverged is not None and self.diverged <= epoch:
            return chance
        return self.curves["test_accuracy"][:epoch][-1]


def train(problem: Problem, recipe: Recipe, seed: int, backend: Backend, bar: Progress) -> Outcome:
    """Train one net; that it diverges is an outcome, not an error."""
    bar.seed(seed)
    course = Course(problem, recipe.l2, bar)
    trainer, diverged = recipe.fit(problem, seed, backend, course, problem.validation)
    done = len(course.curves["test_accuracy"])
    bar.advance(recipe.epochs - done)
    metrics = {} if diverged else {name: curve[-1] for name, curve in course.curves.items()}
    if not diverged and recipe.patience is not None:  # the best epoch's weights came back
        metrics = looked_at(trainer, problem, recipe.l2)
    return Outcome(course.curves, metrics, done + 1 if diverged else None, sum(trainer.history["seconds"]))


def measured(outcomes: list[Outcome], recipe: Recipe, chance: float, early: int) -> list[Measured]:
    """What every seed gave; curves are filled up with NaN.

    Of diverged nets the accuracies are chance; costs are there if no seed diverged. early: an epoch whose test accuracy
    is kept, too; 0 for none.
    """
    found, finite = [], all(outcome.diverged is None for outcome in outcomes)
    for outcome in outcomes:
        metrics = {metric: outcome.metrics.get(metric, chance) for metric in ("test_accuracy", "validation_accuracy")}
        if early:
            metrics["test_accuracy_early"] = outcome.test_accuracy(early, chance)
        if finite:
            metrics |= {metric: outcome.metrics[metric] for metric in ("train_cost", "validation_cost")}
        done = len(outcome.curves[CURVES[0]])
        metrics |= {"diverged": float(outcome.diverged is not None), "epochs": float(done)}
        curves = {name: curve + [math.nan] * (recipe.epochs - done) for name, curve in outcome.curves.items()}
        found.append(Measured(metrics, curves, {"run": outcome.seconds}))
    return found
