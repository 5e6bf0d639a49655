"""A training run as callbacks, checkpoints and recordings see it: what it was asked, how far it is, what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from gpunet.backend.base import CORRECT, FIRST_BAD, LOSS_SUM, N_TOTALS, SAMPLES, Array, Backend
from gpunet.checks import is_one_of
from gpunet.errors import InputError, shown
from gpunet.nn.losses import Loss
from gpunet.nn.model import Sequential
from gpunet.nn.optim import Optimizer
from gpunet.nn.samples import Samples
from gpunet.rng import BATCHES, stream

EMPTY = np.where(np.arange(N_TOTALS) == FIRST_BAD, -1.0, 0.0)


@dataclass
class History:
    """One entry an epoch: `history["train_loss"]` is a list; `seconds` is training time, validation not counted."""

    epochs: list[dict[str, float]] = field(default_factory=list)

    def __getitem__(self, metric: str) -> list[float]:
        for epoch in self.epochs:
            if not is_one_of(metric, epoch):
                raise InputError(f"the history has no {shown(metric)}: it has {', '.join(epoch)}")
        return [epoch[metric] for epoch in self.epochs]


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
    dtype: str
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
    def loss(self) -> Loss: ...
    @property
    def optimizer(self) -> Optimizer: ...
    def stop(self, reason: str) -> None: ...
    def evaluate(self, x: Any, y: Any = None) -> dict[str, float]: ...
    def finite(self) -> bool: ...
    def step(self, train: Samples, order: Array, n: int) -> int: ...
    def look_at(self, train: Samples, order: Array) -> None: ...
    def _step_objects(self, order: Array) -> tuple[Any, ...]: ...
    def _in_order(self) -> bool: ...
    def export(self) -> tuple[dict[str, Any], dict[str, int]]: ...
    def restore(self, settings: Mapping[str, float], arrays: Mapping[str, Any], ages: Mapping[str, int]) -> None: ...
