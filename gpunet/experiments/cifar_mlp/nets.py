"""The net of cifar-mlp, how it is trained, and what became of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

import gpunet as gn
from gpunet.backend import Backend
from gpunet.errors import DivergedError
from gpunet.experiments.cifar_mlp import EPOCHS, Settings
from gpunet.experiments.cifar_mlp.data import Problem
from gpunet.experiments.framework import Measured, Precision, trained_in
from gpunet.nn.callbacks import Callback
from gpunet.nn.init import normal
from gpunet.nn.trainer import Trainer
from gpunet.progress import Progress

STD = 0.1  # of weights and biases (equation 1)
DIVERGED = 3.0  # times the cost before training
COSTS = ("train_cost", "validation_cost")

EpochEnd = Callable[[Trainer, int, dict[str, float]], None]


@dataclass(frozen=True)
class Recipe:
    """A net and its training; the defaults are the document's final setting.

    hidden: units of the ReLU layer, 0 for a net without one; init: "normal" N(0, 0.1²) for W and b, "he" He's for W
    and b = 0; decay: η is multiplied by it after each epoch; cycle: η goes up from a tenth and down again, twice in
    all epochs; patience: stop after so many epochs without a lower validation loss, and keep the best; precision: of
    training, as of `gn.Trainer`.
    """

    learning_rate: float = Settings.final_rate
    l2: float = Settings.final_l2
    momentum: float = Settings.momentum
    batch_size: int = Settings.batch_size
    epochs: int = EPOCHS
    hidden: int = Settings.hidden
    init: Literal["normal", "he"] = "normal"
    decay: float = 1.0
    cycle: bool = False
    shuffle: bool = True
    patience: int | None = None
    precision: Precision = "float32"

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
        return Trainer(
            self.model(classes), optimizer=optimizer, device=backend, seed=seed, precision=self.precision
        )  # fmt: skip

    def fit(
        self, problem: Problem, seed: int, backend: Backend, look: EpochEnd, *, validate: bool
    ) -> tuple[Trainer, bool]:
        """Train a new net, `look` after each epoch; and whether it diverged, which is no error."""
        trainer, looking = self.trainer(problem.classes, seed, backend), Callback()
        looking.on_epoch_end = look  # type: ignore[assignment,method-assign]
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
                problem.train, epochs=self.epochs, batch_size=self.batch_size, shuffle=self.shuffle,
                validation_data=problem.validation if validate else None, callbacks=[*callbacks, looking],
            )  # fmt: skip
        except DivergedError:
            return trainer, True
        return trainer, False


def train(problem: Problem, recipe: Recipe, seed: int, backend: Backend, bar: Progress, early: int = 0) -> Measured:
    """Train one net: costs (the L2 term included, as the document's) and accuracies by epoch, and of the net it left.

    Of a net that has diverged the accuracies are chance and the costs NaN, as are all curves after the last epoch that
    there was. early: an epoch whose test accuracy is kept, too; 0 for none.
    """
    curves: dict[str, list[float]] = {name: [] for name in (*COSTS, "validation_accuracy", "test_accuracy")}

    def look(trainer: Trainer, epoch: int, logs: dict[str, float]) -> None:
        params, _, decayed = trainer.model.flat
        term = recipe.l2 * float((params[:decayed].astype(np.float64) ** 2).sum())
        curves["train_cost"].append(trainer.evaluate(problem.train)["loss"] + term)
        curves["validation_cost"].append(logs["validation_loss"] + term)
        curves["validation_accuracy"].append(logs["validation_accuracy"])
        curves["test_accuracy"].append(trainer.evaluate(problem.test)["accuracy"])
        bar.advance(1, f"epoch {epoch + 1}  cost {curves['train_cost'][-1]:.4g}")

    trainer, diverged = recipe.fit(problem, seed, backend, look, validate=True)
    done = len(curves["test_accuracy"])
    bar.advance(recipe.epochs - done)
    stops_early, chance = recipe.patience is not None and not diverged, 1 / problem.classes
    kept = int(np.argmin(trainer.history["validation_loss"])) if stops_early else -1  # the best weights came back
    metrics = {name: chance if diverged else curves[name][kept] for name in ("test_accuracy", "validation_accuracy")}
    if early:
        gone = diverged and done < early
        metrics["test_accuracy_early"] = chance if gone else curves["test_accuracy"][:early][-1]
    metrics |= {name: math.nan if diverged else curves[name][kept] for name in COSTS}
    metrics |= {"diverged": float(diverged), "epochs": float(done)}
    filled = {name: curve + [math.nan] * (recipe.epochs - done) for name, curve in curves.items()}
    return Measured(metrics, filled, {"run": sum(trainer.history["seconds"])}, trained_in(trainer))
