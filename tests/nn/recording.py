"""Trainers with and without recorded steps, on devices that record: what the tests of graphs share."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import gpunet as gn
from gpunet.backend.cupy_backend import CupyBackend
from gpunet.testing import StrictBackend

from ..cuda.host_module import why_not
from ..cuda.pretend import pretend

OPTIMISERS = {
    "sgd": lambda: gn.SGD(0.05),
    "momentum": lambda: gn.SGD(0.05, momentum=0.9, l2=1e-3),
    "adam": lambda: gn.Adam(1e-2, l2=1e-3),
    "adamw": lambda: gn.AdamW(1e-2, weight_decay=0.1),
}


class Counted:
    """Counts recordings, and the steps that ran by replay and operation by operation."""

    recorded = replayed = ticks = 0

    def record(self, work):
        before = self.ticks
        replay = super().record(work)
        steps, self.ticks = self.ticks - before, before
        self.recorded += 1

        def counted():
            self.replayed += steps
            replay()

        return counted

    def take_batch(self, *args):
        self.ticks += args[-1] is not None
        super().take_batch(*args)


class Counting(Counted, StrictBackend):
    pass


class PretendGpu(Counted, CupyBackend):
    def __init__(self, like=None):
        super().__init__(module=like.cp if like else pretend())


def another(backend):
    """Another backend for the same device."""
    return PretendGpu(backend) if isinstance(backend, PretendGpu) else Counting()


needs_compiler = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")
on_devices = pytest.mark.parametrize(
    "device", [pytest.param(Counting, id="strict"), pytest.param(PretendGpu, id="pretend GPU", marks=needs_compiler)]
)
with_optimisers = pytest.mark.parametrize(
    ("device", "optimizer"),
    [
        *(pytest.param(Counting, each, id=f"strict-{each}") for each in OPTIMISERS),
        pytest.param(PretendGpu, "adam", id="pretend GPU-adam", marks=needs_compiler),
    ],
)


def samples(n=70, features=6, classes=3, seed=0, dtype="float32"):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    x = rng.normal(size=(n, features))
    x[np.arange(n), labels] += 2
    return (x * 40 + 128).clip(0, 255).astype("uint8") if dtype == "uint8" else x.astype(dtype), labels


def made(graphs="auto", optimizer="adam", *, backend=None, layers=None, loss="softmax_cross_entropy", seed=0):
    layers = layers() if layers else [gn.Dense(12, "relu"), gn.Dense(10, "sigmoid"), gn.Dense(3)]
    own = OPTIMISERS[optimizer]() if isinstance(optimizer, str) else optimizer
    device = backend or Counting()
    return gn.Trainer(gn.Sequential(layers), copy.copy(loss), own, device=device, seed=seed, graphs=graphs)


def state_of(trainer):
    """Every bit that training changes: parameters, the optimiser's state and clocks."""
    found = dict(trainer.model.parameters)
    found |= {f"state {name}": value for name, value in trainer.optimizer.state.items()}
    found |= {f"clock {i}": clock for i, clock in enumerate(trainer.optimizer._clocks)}
    return {name: np.array(trainer.backend.to_host(value)) for name, value in found.items()}


def same_bits(first, second):
    """Two trainers are in one state, and their histories agree but for times."""
    a, b = state_of(first), state_of(second)
    assert a.keys() == b.keys()
    for name, value in a.items():
        np.testing.assert_array_equal(value, b[name], err_msg=name)
    kept = [[{k: v for k, v in e.items() if k != "seconds"} for e in t.history.epochs] for t in (first, second)]
    assert kept[0] == kept[1]


def both(scenario, device=Counting, **options):
    """The scenario with recordings and without; both end in the same state, and the first did replay."""
    trainers = [made(graphs, backend=device(), **options) for graphs in ("auto", "off")]
    for trainer in trainers:
        scenario(trainer)
    replaying, plain = trainers
    assert replaying.graphs.reason == ""
    assert replaying.backend.replayed > 0
    assert (plain.backend.recorded, plain.graphs.reason) == (0, "graphs are switched off")
    same_bits(replaying, plain)
    if device is PretendGpu:
        replaying.backend.cp.machine.check_guards()
    return replaying


class Weighted(gn.SoftmaxCrossEntropy):
    """A loss with a number of its own."""

    def __init__(self):
        super().__init__()
        self.factor = 1.0

    def __call__(self, z, labels, dz, totals):
        self.ops.softmax_cross_entropy(z, labels, self.scale(len(z)) * self.factor, dz, totals)


# -- what callbacks and users do to a trainer between steps ------------------------------------------------------------


def another_loss(trainer):
    trainer.loss = gn.SoftmaxCrossEntropy("sum")
    trainer.loss.attach(trainer.backend, "identity")


def attached_afresh(trainer):
    trainer.optimizer.attach(trainer.backend, *trainer.model.flat)


def another_optimiser(trainer):
    trainer.optimizer = gn.SGD(0.2)
    attached_afresh(trainer)


def replaced(trainer):
    weight, bias = (trainer.backend.to_host(trainer.model.parameters[f"2.{name}"]) for name in ("weight", "bias"))
    trainer.model.replace("2", gn.Dense(10, "sigmoid", weight=weight, bias=bias))
