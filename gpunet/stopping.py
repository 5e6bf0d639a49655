"""Callbacks that end training before its last epoch: it no longer improves, or it diverges."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from gpunet.callbacks import Callback
from gpunet.checks import check_range
from gpunet.errors import DivergedError, InputError, shown
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
    callbacks, so that factors are merged last.
    Raises InputError for settings out of range, and for a metric that the history does not have.
    """

    def __init__(
        self, metric: str = "validation_loss", patience: int = 5, *, least: float = 0.0, restore_best: bool = True
    ) -> None:
        if isinstance(patience, bool) or not isinstance(patience, int) or patience < 1:
            raise InputError(f"patience is {shown(patience)}: expected a whole number of epochs ≥ 1")
        check_range("least", least, least=0)
        self.metric, self.patience, self.least, self.restore_best = metric, patience, float(least), restore_best
        self._sign = 1 if metric.endswith("accuracy") else -1

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Forget an earlier fit."""
        if self.metric in ("validation_loss", "validation_accuracy") and trainer.plan.validation is None:
            raise InputError(f"early stopping looks at {self.metric}: give fit its validation_data, too")
        self.best: float | None = None
        self.epoch, self.waited = -1, 0
        self._config: list[dict[str, Any]] = []
        self._weights: dict[str, Any] = {}

    def on_epoch_end(self, trainer: Trainer, epoch: int, logs: dict[str, float]) -> None:
        """Keep the weights of a better epoch, count a worse one."""
        if self.metric not in logs:
            raise InputError(f"early stopping looks at {shown(self.metric)}, the history has {', '.join(logs)}")
        value = logs[self.metric]
        if math.isfinite(value) and (self.best is None or self._sign * (value - self.best) > self.least):
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
        if self._weights:
            put_back(trainer.model, self._config, self._weights)

    def state(self) -> dict[str, Any]:
        """The best epoch, its weights, and how long ago that was."""
        kept = {"best": self.best, "epoch": self.epoch, "waited": self.waited, "config": self._config}
        return kept | {f"weights/{name}": array for name, array in self._weights.items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.best, self.epoch, self.waited = state["best"], state["epoch"], state["waited"]
        self._config = state["config"]
        prefix = "weights/"
        self._weights = {name.removeprefix(prefix): a for name, a in state.items() if name.startswith(prefix)}


class DivergenceGuard(Callback):
    """Raises DivergedError after an epoch with the training cost above `times` its start, or not a number.

    The cost is the loss (without the L2 term) over the same samples before and after: 1000 of the training data, evenly
    spaced, or all. A loss that becomes NaN or infinite in mid-epoch raises the same error without this callback.
    """

    def __init__(self, times: float = 3.0) -> None:
        check_range("times", times, above=1)
        self.times = float(times)

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Look at the cost before training."""
        train, xp = trainer.plan.train, trainer.backend.xp
        every = -(-len(train) // LOOKED_AT)
        x, labels = (xp.ascontiguousarray(array[::every]) for array in (train.x, train.labels))
        self._looked_at = Samples(x, labels, train.scale)
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

    def state(self) -> dict[str, Any]:
        """The cost before training."""
        return {"start": self.start}

    def restore(self, state: dict[str, Any]) -> None:
        """Compare with that."""
        self.start = state["start"]
