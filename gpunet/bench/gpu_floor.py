"""What lies under a training step on a GPU: the bytes it moves, the device's bandwidth, and what each stage takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

import gpunet as gn
from gpunet.backend import Backend
from gpunet.bench.gpu_train import RATE, layers
from gpunet.bench.train import Case
from gpunet.samples import Samples
from gpunet.train import Trainer


def least_bytes(widths: Sequence[int], batch: int) -> int:
    """Bytes that a step moves at least: Adam's four arrays, weights, activations and their gradients, and the batch.

    Weights are read forward and, above the first layer, backward; gradients written and read once; outputs written
    and read once in each direction; the data is uint8.
    """
    sizes = [a * b + b for a, b in pairwise(widths)]
    weights = 7 * sum(sizes) + sum(sizes) + sum(sizes[1:]) + sum(sizes)
    activations = batch * (2 * widths[0] + 4 * sum(widths[1:]))
    return 4 * (weights + activations) + batch * widths[0]


def bandwidth(backend: Backend, size: int) -> float:
    """Bytes a second, read and written, of copies of `size` floats on the device."""
    source, out = backend.zeros(size), backend.zeros(size)
    with backend.session():
        backend.copy(source, out)
        backend.synchronize()
        began = time.perf_counter()
        for _ in range(10):
            backend.copy(source, out)
        backend.synchronize()
    return 10 * 8 * size / (time.perf_counter() - began)


def stages(case: Case, backend: Backend, x: Any, y: Any, replays: int = 200) -> dict[str, float]:
    """Microseconds of a whole recorded step ("whole"), and what it saves to leave one stage out of the recording."""
    trainer = Trainer(gn.Sequential(layers(case)), optimizer=gn.Adam(RATE), device=backend)
    data = trainer.samples(x, y)
    trainer._workspace(case.batch)
    trainer.model.use(case.batch)
    order = backend.asarray(np.random.default_rng(1).permutation(len(x)))
    parts = _parts(trainer, data, order, case.batch)

    def without(left_out: str) -> float:
        def work() -> None:
            for name, part in parts.items():
                if name != left_out:
                    part()

        with backend.session():
            work()
            step = backend.record(work) if backend.records else work
            seconds = []
            for _ in range(5):
                backend.synchronize()
                began = time.perf_counter()
                for _ in range(replays):
                    step()
                backend.synchronize()
                seconds.append((time.perf_counter() - began) / replays)
        return 1e6 * float(np.median(seconds))

    trainer.tally.reset()
    whole = without("")
    return {"whole": whole} | {name: whole - without(name) for name in parts}


def _parts(trainer: Trainer, data: Samples, order: Any, n: int) -> dict[str, Callable[[], Any]]:
    """The stages of `Trainer.step`, the cursor left where it is."""
    ops, model, x, labels = trainer.backend, trainer.model, trainer._x[:n], trainer._labels[:n]
    cursor = trainer.tally.cursor

    def gather() -> None:
        ops.gather(data.x, order, cursor, data.scale, x)
        ops.gather(data.labels, order, cursor, 1, labels)

    with ops.session():
        gather()
        scores = model.forward(x)
    return {
        "gather": gather,
        "forward": lambda: model.forward(x),
        "loss": lambda: trainer.loss(scores, labels, model.d_scores, trainer.tally.totals),
        "backward": lambda: model.backward(model.d_scores),
        "update": trainer.optimizer.step,
    }
