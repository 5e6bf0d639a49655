"""Callbacks that end training before its last epoch: it no longer improves, or it diverges."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gpunet.callbacks import Callback, settings
from gpunet.checks import check_flag, check_number, check_range, check_text, check_whole, setting
from gpunet.errors import DivergedError, InputError, shown
from gpunet.interrupts import undivided
from gpunet.samples import Samples
from gpunet.serialize import arrays_of, put_back

if TYPE_CHECKING:
    from gpunet.train import Trainer

LOOKED_AT = 1000  # samples whose cost DivergenceGuard compares


class EarlyStopping(Callback):
    """Stops when `metric` of the history has not improved for `patience` epochs; the model keeps its best weights.

    metric: smaller is better, or larger where it ends in "accuracy"; an improvement is one by more than `least`.
    restore_best: when training ends, for whatever reason, the model is what it was after its best epoch, in the layers
    that it had then. `epoch` (counted from 0) and `best` say which that was. Put it before `Factorise` in the list of
    callbacks, so that factors are merged last. Another metric set in mid-training is judged from its first epoch on.
    Raises InputError for settings out of range, and for a metric that the history does not have.
    """

    metric: str = setting(check_text)
    patience: int = setting(check_whole, of=" of epochs")
    least: float = setting(check_range, least=0)
    restore_best: bool = setting(check_flag)

    def __init__(
        self, metric: str = "validation_loss", patience: int = 5, *, least: float = 0.0, restore_best: bool = True
    ) -> None:
        self.metric, self.patience, self.least, self.restore_best = metric, patience, least, restore_best

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Forget an earlier fit."""
        if self.metric in ("validation_loss", "validation_accuracy") and trainer.plan.validation is None:
            raise InputError(f"early stopping looks at {self.metric}: give fit its validation_data, too")
        self.best: float | None = None
        self.epoch, self.waited, self._judged = -1, 0, self.metric
        self._config: list[dict[str, Any]] = []
        self._weights: dict[str, Any] = {}

    def on_epoch_end(self, trainer: Trainer, epoch: int, logs: dict[str, float]) -> None:
        """Keep the weights of a better epoch, count a worse one."""
        if self.metric not in logs:
            raise InputError(f"early stopping looks at {shown(self.metric)}, the history has {', '.join(logs)}")
        if self.metric != self._judged:
            self.best, self._judged = None, self.metric
        value = check_number(f"{shown(self.metric)} in the history", logs[self.metric])
        sign = 1 if self.metric.endswith("accuracy") else -1
        if math.isfinite(value) and (self.best is None or sign * (value - self.best) > self.least):
            with undivided():
                self.best, self.epoch, self.waited = value, epoch, 0
                if self.restore_best:
                    self._config = trainer.model.config()
                    self._weights = {name: np.array(array) for name, array in arrays_of(trainer.model).items()}
        else:
            self.waited += 1
        if self.waited >= self.patience:
            trainer.stop(f"{self.metric} has not improved for {self.waited} epochs")

    def on_fit_end(self, trainer: Trainer) -> None:
        """Give the model its best weights back."""
        if self.restore_best and self._weights:
            put_back(trainer.model, self._config, self._weights)

    def config(self) -> dict[str, Any]:
        """All settings."""
        return settings(self)

    def state(self) -> dict[str, Any]:
        """The best epoch, its weights, and how long ago that was."""
        kept = {"best": self.best, "epoch": self.epoch, "waited": self.waited, "config": self._config}
        return kept | {"judged": self._judged} | {f"weights/{name}": array for name, array in self._weights.items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        for name, least in (("epoch", -1), ("waited", 0), *([] if state["best"] is None else [("best", -math.inf)])):
            check_range(name, state[name], least=least)
        self.best, self.epoch, self.waited = state["best"], state["epoch"], state["waited"]
        self._judged = state.get("judged", self.metric)
        self._config = state["config"]
        prefix = "weights/"
        self._weights = {name.removeprefix(prefix): a for name, a in state.items() if name.startswith(prefix)}


class DivergenceGuard(Callback):
    """Raises DivergedError after an epoch with the training cost above `times` its start, or not a number.

    The cost is the loss (without the L2 term) over the same samples before and after: 1000 of the training data, evenly
    spaced, or all. A loss that becomes NaN or infinite in mid-epoch raises the same error without this callback.
    """

    times: float = setting(check_range, above=1)

    def __init__(self, times: float = 3.0) -> None:
        self.times = times

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Look at the cost before training."""
        train, xp = trainer.plan.train, trainer.backend.xp
        every = -(-len(train) // LOOKED_AT)
        x, labels = (xp.ascontiguousarray(array[::every]) for array in (train.x, train.labels))
        self._looked_at: Samples = replace(train, x=x, labels=labels)
        self.start = trainer.evaluate(self._looked_at)["loss"]

    def on_epoch_end(self, trainer: Trainer, epoch: int, logs: dict[str, float]) -> None:
        """Look again."""
        cost = trainer.evaluate(self._looked_at)["loss"]
        if not cost <= self.times * self.start:
            raise DivergedError(
                f"the training cost after epoch {epoch + 1} is {cost:.4g}, above {self.times:g} times the "
                f"{self.start:.4g} before training, at learning rate {trainer.optimizer.learning_rate:g}: lower it"
            )

    def on_fit_end(self, trainer: Trainer) -> None:
        """Let go of the samples."""
        del self._looked_at

    def config(self) -> dict[str, Any]:
        """All settings."""
        return settings(self)

    def state(self) -> dict[str, Any]:
        """The cost before training."""
        return {"start": self.start}

    def restore(self, state: dict[str, Any]) -> None:
        """Compare with that."""
        check_range("start", state["start"])
        self.start = state["start"]
