"""Does a factored layer pay on this device? Asked of the clock, at the real batch size."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

import numpy as np

from gpunet.backend.base import Backend
from gpunet.errors import CaptureError
from gpunet.layers import Dense, Layer, LowRankDense
from gpunet.optim import Optimizer
from gpunet.parameters import Parameters
from gpunet.rng import DATA, stream
from gpunet.timing import interleave

ROUNDS = 9
LEAST = 0.01  # seconds that one timing lasts at least: many steps of a small layer


def payoff(
    dense: Dense, rank: int, batch: int, optimizer: Optimizer, backend: Backend, *, dtype: str, needs_dx: bool
) -> tuple[float, float]:
    """Time of a step in factored form over its time in dense form: (median, upper quartile) over rounds.

    A step is forward, backward (with the input's gradient where `needs_dx`) and the optimiser's update of the layer
    alone, on `batch` random samples. The layer itself is not touched.
    """
    out, inner = dense.weight.shape
    rivals: dict[str, Layer] = {
        "dense": Dense(out, dense.activation),
        "factored": LowRankDense(out, rank, dense.activation),
    }
    steps = {
        name: _step(layer, inner, batch, copy.copy(optimizer), backend, dtype, needs_dx)
        for name, layer in rivals.items()
    }
    with backend.session():
        count = _repeats(steps["dense"], backend)
        runs = {name: _repeated(step, count, backend) for name, step in steps.items()}
        times = interleave(runs, ROUNDS, pause=0)
    return times.ratio("factored", "dense"), times.spread("factored", "dense")[1]


def _step(
    layer: Layer, inner: int, batch: int, optimizer: Optimizer, backend: Backend, dtype: str, needs_dx: bool
) -> Callable[[], None]:
    """One step of a layer that stands alone, on random numbers."""
    rng = stream(0, DATA)

    def array(*shape: int) -> object:
        return backend.asarray((rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(dtype))

    declared = {f"0.{name}": (layer, parameter) for name, parameter in layer.spec((inner,)).parameters.items()}
    parameters = Parameters([layer], declared, backend, dtype)
    parameters.attach()
    for view in parameters.views.values():
        backend.copy(array(*view.shape), view)
    optimizer.attach(backend, *parameters.flat)
    if isinstance(layer, LowRankDense):  # the factors will be younger than the bias: two ranges to update
        optimizer.age_apart(parameters.n_decayed)
    units = declared["0.bias"][1].shape[0]
    layer.bind(backend.empty((batch, units), dtype), backend.empty((batch, inner), dtype) if needs_dx else None)
    x, dy = array(batch, inner), array(batch, units)

    def step() -> None:
        layer.forward(x)
        layer.backward(dy)
        backend.join()
        optimizer.step()

    return _recorded(step, backend)


def _recorded(step: Callable[[], None], backend: Backend) -> Callable[[], None]:
    """The step as a trainer runs it: recorded and replayed where the device can."""
    if not backend.records:
        return step
    with backend.session():
        step()  # operations may allocate at their first call
        try:
            replay = backend.record(step)
        except CaptureError:
            return step

    def run(_kept: Callable[[], None] = step) -> None:  # a recording knows its arrays by their places alone
        replay()

    return run


def _repeats(step: Callable[[], None], backend: Backend) -> int:
    """How many steps take LEAST seconds."""
    step()
    backend.synchronize()
    began = time.perf_counter()
    step()
    backend.synchronize()
    return max(1, int(LEAST / max(1e-7, time.perf_counter() - began)))


def _repeated(step: Callable[[], None], count: int, backend: Backend) -> Callable[[], None]:
    def run() -> None:
        for _ in range(count):
            step()
        backend.synchronize()

    return run
