"""A training run as callbacks see it, and the callbacks: learning rates, early ends, and what may be your own."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from gpunet.backend.base import CORRECT, FIRST_BAD, LOSS_SUM, N_TOTALS, SAMPLES, Array, Backend
from gpunet.checks import Dtype, check_flag, check_number, check_range, check_text, check_whole, setting
from gpunet.errors import DivergedError, InputError, shown
from gpunet.interrupts import undivided
from gpunet.nn.history import History
from gpunet.nn.losses import Loss
from gpunet.nn.model import Sequential
from gpunet.nn.optim import Optimizer
from gpunet.nn.samples import Samples
from gpunet.nn.serialize import arrays_of, put_back
from gpunet.reprs import as_call, settings
from gpunet.rng import BATCHES, stream

EMPTY = np.where(np.arange(N_TOTALS) == FIRST_BAD, -1.0, 0.0)


@dataclass(frozen=True)
class Plan:
    """The data, and how to go through it."""

    train: Samples
    validation: Samples | None
    epochs: int
    batch_size: int
    shuffle: bool

    @cached_property
    def per_epoch(self) -> int:
        """Steps an epoch."""
        return self.train.batches(self.batch_size)

    @property
    def total(self) -> int:
        """Steps in all."""
        return self.epochs * self.per_epoch

    def order(self, seed: int, epoch: int) -> np.ndarray[Any, Any]:
        """The numbers of the samples, in the order in which the epoch takes them."""
        n = len(self.train)
        return stream(seed, BATCHES, epoch).permutation(n) if self.shuffle else np.arange(n)


class EpochTotals:
    """What one pass over a data set adds up, and how far it has come, on the device: `totals` and `cursor`."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.totals = backend.zeros(N_TOTALS, "float64")
        self.cursor = backend.zeros(1, "int64")

    def reset(self) -> None:
        """Begin a pass."""
        self.backend.copy(EMPTY, self.totals)
        self.backend.copy(0, self.cursor)

    def means(self) -> tuple[float, float]:
        """(loss, accuracy) over the samples so far; waits for the device."""
        totals = self.backend.to_host(self.totals)
        return float(totals[LOSS_SUM] / totals[SAMPLES]), float(totals[CORRECT] / totals[SAMPLES])

    def first_bad(self) -> int:
        """Index of the first sample of the first batch whose loss was not finite, or −1; waits for the device."""
        return int(self.backend.to_host(self.totals)[FIRST_BAD])


class Training(Protocol):
    """The trainer as callbacks see it, which are called between the steps of its `fit`: see `gn.Trainer`."""

    model: Sequential
    backend: Backend
    dtype: Dtype
    seed: int
    plan: Plan
    history: History  # of the fit that runs; an epoch's entry is added before its callbacks are called
    epoch: int  # trained so far, over all calls of fit
    batch_size: int
    last_rate: float  # the learning rate of the last step of the last epoch
    seconds: float  # of the epoch that runs, up to the last pause for callbacks
    stopped: str  # why it ends early
    tally: EpochTotals

    @property
    def precision(self) -> str: ...
    @property
    def _plain_step(self) -> Callable[..., int]: ...  # `step`, where nobody writes parameters between two
    @property
    def trained_in(self) -> str: ...  # what it is in fact
    @property
    def loss(self) -> Loss: ...
    @property
    def optimizer(self) -> Optimizer: ...
    def stop(self, reason: str) -> None: ...
    def evaluate(self, x: Any, y: Any = None) -> dict[str, float]: ...
    def finite(self) -> bool: ...
    def look_at(self, train: Samples, order: Array) -> None: ...
    def _step_objects(self, order: Array) -> tuple[Any, ...]: ...
    def _in_order(self) -> bool: ...
    def export(self) -> tuple[dict[str, Any], dict[str, int]]: ...
    def restore(self, settings: Mapping[str, float], arrays: Mapping[str, Any], ages: Mapping[str, int]) -> None: ...


# -- what may happen between the steps --------------------------------------------------------------------------------


class Callback:
    """Base of all callbacks: override what you need. Time spent here is not counted as training time.

    A callback may read `trainer.plan`, what `fit` was asked to do, and end training early with `trainer.stop(reason)`.
    Raises InputError where something that cannot be called is set in place of a method.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if inspect.isfunction(getattr(type(self), name, None)) and not callable(value):
            raise InputError(f"{name} of a {type(self).__name__} is a method: expected a function, got {shown(value)}")
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        return as_call(self, settings(self))

    def config(self) -> dict[str, Any]:
        """What a resumed run must share with the one it goes on from: `settings(self)` where all of them matter."""
        return {}

    def on_fit_begin(self, trainer: Training) -> None:
        """Parameters are drawn, nothing has been trained. Ctrl-C waits for its end; a second one does not."""

    def steps(self, total: int) -> Iterable[int]:
        """Steps (0 … total − 1 of this fit) before which `on_step` is to be called; `total` steps are planned."""
        return ()

    def on_step(self, trainer: Training, step: int) -> None:
        """Called before each step that `steps` named."""

    def on_epoch_end(self, trainer: Training, epoch: int, logs: dict[str, float]) -> None:
        """The epoch's entry of the history, which may be added to; `epoch` counts from 0, over all fits."""

    def on_fit_end(self, trainer: Training) -> None:
        """Training has ended: all epochs are done, or `stop`, an error or Ctrl-C has ended it.

        Called once after each `on_fit_begin` that came to its end. Errors raised here are not in the others' way, and
        Ctrl-C waits for its end; a second one does not.
        """

    def state(self) -> dict[str, Any]:
        """What a checkpoint must keep so that `restore` can go on from here: arrays, and values that JSON can hold.

        Saving raises InputError for others, and for arrays of what is no real number.
        """
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned, after `on_fit_begin`; tuples come back as lists."""


class Schedule(Callback):
    """Base of all schedules: `rate(place)` is η in an epoch, or with `each_step` in a step; both are counted from 0.

    An optimizer that a callback exchanges in mid-training has the rates that follow from its own as soon as the next
    one is set; the one before has its own rate again. Put callbacks that do so first. Raises InputError for a rate that
    is no finite number ≥ 0.
    """

    each_step = False
    _trainer: Any = None  # while it trains, and the optimizer that has the rate
    _optimizer: Any = None

    def rate(self, place: int) -> float:
        """The learning rate; `self.base` is the optimiser's own, `self.total` the steps of this fit."""
        raise NotImplementedError

    def steps(self, total: int) -> Iterable[int]:
        self.total = total
        return range(total) if self.each_step else ()  # epochs begin in `on_fit_begin` and `on_epoch_end`

    def on_fit_begin(self, trainer: Training) -> None:
        self._trainer, self._optimizer, self.base = trainer, trainer.optimizer, trainer.optimizer.learning_rate
        self.first = trainer.epoch * trainer.plan.per_epoch  # step of the trainer's life that this fit begins with
        self._set(trainer, self.first if self.each_step else trainer.epoch)

    def on_step(self, trainer: Training, step: int) -> None:
        self._set(trainer, self.first + step)

    def on_epoch_end(self, trainer: Training, epoch: int, logs: dict[str, float]) -> None:
        logs["learning_rate"] = trainer.last_rate
        if not self.each_step:
            self._set(trainer, epoch + 1)

    def on_fit_end(self, trainer: Training) -> None:
        self._optimizer.learning_rate = self.base
        self._trainer = self._optimizer = None

    config = settings

    def state(self) -> dict[str, Any]:
        self._follow()
        return {"base": self.base, "first": self.first}

    def restore(self, state: dict[str, Any]) -> None:
        check_range("base", state["base"], above=0)
        check_range("first", state["first"], least=0)
        self._follow()
        self.base, self.first = state["base"], state["first"]

    def _set(self, trainer: Training, place: int) -> None:
        self._follow()
        rate = check_range(f"{type(self).__name__}.rate({place})", self.rate(place), least=0)
        rate = max(sys.float_info.min, rate)  # a decay may underflow
        trainer.optimizer._set("learning_rate", rate)  # which Ctrl-C may divide: at the end it is set again

    def _follow(self) -> None:
        """Where a callback has exchanged the optimizer: the one before has its own rate again."""
        optimizer = self._trainer and self._trainer.optimizer
        if optimizer is not self._optimizer:
            with undivided():
                self._optimizer.learning_rate = self.base
                self._optimizer, self.base = optimizer, optimizer.learning_rate


class ExponentialDecay(Schedule):
    """η·dᵉ in epoch e, 0 < d ≤ 1."""

    factor: float = setting(check_range, above=0, most=1)

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def rate(self, place: int) -> float:
        return self.base * self.factor**place


class StepDecay(Schedule):
    """η·d^⌊e/k⌋ in epoch e: times d after every k epochs, 0 < d ≤ 1."""

    factor: float = setting(check_range, above=0, most=1)
    every: int = setting(check_whole)

    def __init__(self, factor: float, every: int) -> None:
        self.factor, self.every = factor, every

    def rate(self, place: int) -> float:
        return self.base * self.factor ** (place // self.every)


class CyclicalRate(Schedule):
    """From `low` to `high` in `half` steps and back in as many, again and again (Smith 2017, "triangular").

    The optimiser's own rate plays no part. halve: each triangle is half as high as the one before ("triangular2").
    """

    each_step = True
    low: float = setting(check_range, above=0, most=lambda cycle: vars(cycle).get("high", math.inf))
    high: float = setting(check_range, least=lambda cycle: cycle.low)
    half: int = setting(check_whole)
    halve: bool = setting(check_flag)

    def __init__(self, low: float, high: float, half: int, *, halve: bool = False) -> None:
        self.low, self.high, self.half, self.halve = low, high, half, halve

    def rate(self, place: int) -> float:
        # low + (high − low)·(1 − |t/half − 1|), t the step within its cycle of 2·half
        cycle, t = divmod(place, 2 * self.half)
        height = (self.high - self.low) * (0.5**cycle if self.halve else 1.0)
        return self.low + height * (1 - abs(t / self.half - 1))


class CosineDecay(Schedule):
    """least + ½(η − least)(1 + cos πt/T) in step t of the T of one fit (Loshchilov & Hutter 2017, without restarts)."""

    each_step = True
    least: float = setting(check_range, least=0)

    def __init__(self, least: float = 0.0) -> None:
        self.least = least

    def rate(self, place: int) -> float:
        done = (place - self.first) / max(1, self.total)
        return self.least + (self.base - self.least) * (1 + math.cos(math.pi * done)) / 2


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

    def on_fit_begin(self, trainer: Training) -> None:
        if self.metric in ("validation_loss", "validation_accuracy") and trainer.plan.validation is None:
            raise InputError(
                f"early stopping looks at {self.metric}: give fit validation_data or validation_split, too"
            )
        self.best: float | None = None
        self.epoch, self.waited, self._judged = -1, 0, self.metric
        self._config: list[dict[str, Any]] = []
        self._weights: dict[str, Any] = {}

    def on_epoch_end(self, trainer: Training, epoch: int, logs: dict[str, float]) -> None:
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

    def on_fit_end(self, trainer: Training) -> None:
        if self.restore_best and self._weights:
            put_back(trainer.model, self._config, self._weights)

    config = settings

    def state(self) -> dict[str, Any]:
        kept = {"best": self.best, "epoch": self.epoch, "waited": self.waited, "config": self._config}
        return kept | {"judged": self._judged} | {f"weights/{name}": array for name, array in self._weights.items()}

    def restore(self, state: dict[str, Any]) -> None:
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

    def on_fit_begin(self, trainer: Training) -> None:
        self._looked_at = trainer.plan.train.spaced(LOOKED_AT)
        self.start = trainer.evaluate(self._looked_at)["loss"]

    def on_epoch_end(self, trainer: Training, epoch: int, logs: dict[str, float]) -> None:
        cost = trainer.evaluate(self._looked_at)["loss"]
        if not cost <= self.times * self.start:
            raise DivergedError(
                f"the training cost after epoch {epoch + 1} is {cost:.4g}, above {self.times:g} times the "
                f"{self.start:.4g} before training, at learning rate {trainer.optimizer.learning_rate:g}: lower it"
            )

    def on_fit_end(self, trainer: Training) -> None:
        del self._looked_at

    config = settings

    def state(self) -> dict[str, Any]:
        return {"start": self.start}

    def restore(self, state: dict[str, Any]) -> None:
        check_range("start", state["start"])
        self.start = state["start"]
