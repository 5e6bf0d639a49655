"""Learning rates that change while training: callbacks that write one number to the device.

Decays and cycles count the epochs of the trainer over all calls of `fit`, as the batches do. When training ends the
optimiser has its own learning rate again.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from gpunet.callbacks import Callback, settings
from gpunet.checks import check_flag, check_range, check_whole, setting
from gpunet.interrupts import undivided

if TYPE_CHECKING:
    from gpunet.train import Trainer


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
        """Every step, or none: epochs begin in `on_fit_begin` and `on_epoch_end`."""
        self.total = total
        return range(total) if self.each_step else ()

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Set the first rate."""
        self._trainer, self._optimizer, self.base = trainer, trainer.optimizer, trainer.optimizer.learning_rate
        self.first = trainer.epoch * trainer.plan.per_epoch  # step of the trainer's life that this fit begins with
        self._set(trainer, self.first if self.each_step else trainer.epoch)

    def on_step(self, trainer: Trainer, step: int) -> None:
        """Set the step's rate."""
        self._set(trainer, self.first + step)

    def on_epoch_end(self, trainer: Trainer, epoch: int, logs: dict[str, float]) -> None:
        """Note the rate that the epoch ended with, and set the next one's."""
        logs["learning_rate"] = trainer.last_rate
        if not self.each_step:
            self._set(trainer, epoch + 1)

    def on_fit_end(self, trainer: Trainer) -> None:
        """Give the optimiser its own rate back."""
        self._optimizer.learning_rate = self.base
        self._trainer = self._optimizer = None

    def config(self) -> dict[str, Any]:
        """All settings."""
        return settings(self)

    def state(self) -> dict[str, Any]:
        """The rate to go back to, and where this fit began."""
        self._follow()
        return {"base": self.base, "first": self.first}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from there; the rate itself is in the optimiser."""
        check_range("base", state["base"], above=0)
        check_range("first", state["first"], least=0)
        self._follow()
        self.base, self.first = state["base"], state["first"]

    def _set(self, trainer: Trainer, place: int) -> None:
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
        """η·dᵉ."""
        return self.base * self.factor**place


class StepDecay(Schedule):
    """η·d^⌊e/k⌋ in epoch e: times d after every k epochs, 0 < d ≤ 1."""

    factor: float = setting(check_range, above=0, most=1)
    every: int = setting(check_whole)

    def __init__(self, factor: float, every: int) -> None:
        self.factor, self.every = factor, every

    def rate(self, place: int) -> float:
        """η·d^⌊e/k⌋."""
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
        """low + (high − low)·(1 − |t/half − 1|), t the step within its cycle of 2·half."""
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
        """Half a cosine from η almost to `least`."""
        done = (place - self.first) / max(1, self.total)
        return self.least + (self.base - self.least) * (1 + math.cos(math.pi * done)) / 2
