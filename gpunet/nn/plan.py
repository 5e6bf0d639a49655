"""What a call of `Trainer.fit` was asked to do, and what comes of it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import numpy as np

from gpunet.checks import as_list, check_whole, is_one_of
from gpunet.errors import InputError, shown
from gpunet.nn.callbacks import Callback
from gpunet.nn.samples import Samples
from gpunet.rng import BATCHES, stream

Events = dict[int, list[Callback]]


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


def events(callbacks: Sequence[Callback], total: int) -> Events:
    """For each step of `total`, the callbacks that asked for it."""
    found: Events = {}
    for callback in callbacks:
        name, steps = f"{type(callback).__name__}.steps()", cast(Any, callback.steps(total))
        if not isinstance(steps, range):
            steps = as_list(name, steps, "whole numbers of steps")
        for step in (*steps[:1], *steps[-1:]) if isinstance(steps, range) else steps:  # of a range the ends tell all
            check_whole(f"a step of {name}", step, least=0, most=sys.maxsize)
        for step in steps:
            found.setdefault(int(step), []).append(callback)
    return found
