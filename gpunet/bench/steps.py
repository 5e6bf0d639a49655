"""Steps of a trainer as something to be timed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from gpunet.nn.samples import Samples
from gpunet.nn.trainer import Trainer

# A learning rate that hardly moves the weights, for nets timed on one batch: once that is known by heart, gradients are
# so small that their squares are denormal numbers, and Adam takes ten times as long.
STILL = 1e-7


def training(trainer: Trainer, data: Samples, batch: int, draw: Callable[[], Any]) -> Callable[[], None]:
    """A call that trains on the rows that `draw` returns, int (n,), `batch` at a time, and waits for the device.

    Each step is one of `Trainer.stepper`, as in `fit`; nothing else of `fit` runs.
    """
    trainer.prepare(data.shape)
    trainer._workspace(batch)
    backend = trainer.backend

    def run() -> None:
        order, step = trainer.upload_order(draw()), trainer.stepper()
        trainer.tally.reset()
        whole, short = divmod(len(order), batch)
        with backend.session():
            done = 0
            while done < whole:
                done += step(data, order, batch, whole - done)
            if short:
                step(data, order, short)
            backend.synchronize()

    return run


def some_steps(
    trainer: Trainer, x: Any, y: Any, batch: int, steps: int
) -> tuple[Callable[[], None], Callable[[], float]]:
    """(train `steps` steps on x, y, shuffled anew at the start of each pass; mean loss so far), as `fit` steps."""
    data, rng = trainer.samples(x, y), np.random.default_rng(1)
    batch = min(batch, len(data))
    trainer._workspace(batch)
    backend, per_epoch = trainer.backend, data.batches(batch)

    def run() -> None:
        step = trainer.stepper()
        with backend.session():
            count = 0
            while count < steps:
                place = count % per_epoch
                if place == 0:
                    order = trainer.upload_order(rng.permutation(len(data)))
                    trainer.tally.reset()
                most = min(len(data) // batch - place, steps - count)
                count += step(data, order, min(batch, len(data) - place * batch), most)
            backend.synchronize()

    return run, lambda: trainer.evaluate(data)["loss"]


def repeats(run: Callable[[], None], least: float) -> int:
    """How many calls take `least` seconds, told by the second one."""
    run()
    began = time.perf_counter()
    run()
    return max(1, math.ceil(least / max(1e-7, time.perf_counter() - began)))
