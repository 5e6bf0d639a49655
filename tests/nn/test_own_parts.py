"""Layers, losses and optimisers of one's own: whatever they override is what a trainer's step runs."""

from __future__ import annotations

import numpy as np
import pytest

import gpunet as gn

from .recording import Counting, Weighted, made, on_devices, same_bits, samples


class Doubling:
    def __call__(self, z, labels, dz, totals):
        self.ops.softmax_cross_entropy(z, labels, self.scale(len(z)) * 2, dz, totals)


class Mixed(Doubling, gn.SoftmaxCrossEntropy):
    pass


class Inheriting(Mixed):
    pass


class CountingLayers(gn.SoftmaxCrossEntropy):
    """Overrides both ways in."""

    layers = 0

    def __call__(self, z, labels, dz, totals):
        Doubling.__call__(self, z, labels, dz, totals)

    def of_layer(self, layer, *args):
        self.layers += 1
        super().of_layer(layer, *args)


class Twofold(Weighted):
    def __init__(self):
        super().__init__()
        self.factor = 2.0


@on_devices
@pytest.mark.parametrize("loss", [Mixed, Inheriting, CountingLayers])
def test_a_loss_is_computed_by_its_own_call_wherever_that_comes_from(device, loss):
    x, y = samples()
    own, expected = (made("off", backend=device(), loss=each()) for each in (loss, Twofold))
    for trainer in (own, expected):
        trainer.fit(x, y, epochs=2, batch_size=16)
    same_bits(own, expected)
    assert getattr(own.loss, "layers", 10) == 10


class Lookahead(gn.SGD):
    """Steps as SGD does, and counts how often."""

    def __init__(self):
        super().__init__(0.05)
        self.calls = []

    def step(self):
        self.calls.append(self.learning_rate)
        super().step()


class Uncounted(gn.Optimizer):
    def __init__(self):
        super().__init__(0.05)

    def step(self):
        for part in self.ranges:
            self.ops.sgd(part.params, part.grads, part.scalars, part.decayed)


@on_devices
@pytest.mark.parametrize(("own", "counted"), [(Lookahead, 10), (Uncounted, 0)])
def test_an_optimizer_with_a_step_of_its_own_makes_that_step_and_counts_itself(device, own, counted):
    x, y = samples()

    def trained(optimizer):
        trainer = made("off", optimizer, backend=device())
        trainer.fit(x, y, epochs=2, batch_size=16)
        clock = trainer.backend.to_host(trainer.optimizer.clocks)[0]
        return np.array(trainer.backend.to_host(trainer.model.flat[0])), clock[gn.backend.base.STEP]

    weights, steps = trained(optimizer := own())
    assert steps == counted
    assert len(getattr(optimizer, "calls", range(10))) == 10
    np.testing.assert_array_equal(weights, trained(gn.SGD(0.05))[0])


class Switching(gn.Callback):
    """Sets `graphs` before step 10, and the loss's factor before step 13."""

    def __init__(self, word):
        self.word = word

    def steps(self, total):
        return [10, 13]

    def on_step(self, trainer, step):
        if step == 10:
            trainer.graphs = self.word
        else:
            trainer.loss.factor = 5.0


@pytest.mark.parametrize(("first", "then", "replayed"), [("auto", "off", 9), ("auto", "auto", 22), ("off", "auto", 13)])
def test_graphs_that_a_callback_sets_hold_from_the_next_step_on(first, then, replayed):
    """Of 25 steps the first of each Graphs runs by operations, and so does the first with the new factor."""
    x, y = samples(n=200)

    def run(first, then):
        trainer = made(first, backend=Counting(), loss=Weighted())
        trainer.fit(x, y, epochs=1, batch_size=8, callbacks=[Switching(then)])
        return trainer

    trainer = run(first, then)
    assert trainer.backend.replayed == replayed
    same_bits(trainer, run("off", "off"))
