"""Layers, losses and optimisers of one's own: whatever they override is what a trainer's step runs."""

from __future__ import annotations

import numpy as np
import pytest

import gpunet as gn
from gpunet.backend.numpy_backend import NumpyBackend
from gpunet.spectral.factorise import _step

from .recording import Counting, PretendGpu, Weighted, both, made, needs_compiler, on_devices, same_bits, samples


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


def test_a_layer_that_has_left_its_model_computes_its_own_slopes(rng):
    x, y = samples(dtype="float64")
    trainer = gn.Trainer(gn.Sequential([gn.Dense(8, "sigmoid"), gn.Dense(3)]), device="numpy", dtype="float64")
    trainer.fit(x, y)
    layer = trainer.model.layers[0]
    trainer.model.replace("0", gn.Dense(8, "sigmoid"))
    layer.bind(np.empty((4, 8)), None)
    outputs, slopes = layer.forward(x[:4]), rng.normal(size=(4, 8))
    z_slopes = slopes * outputs * (1 - outputs)
    layer.backward(slopes)
    np.testing.assert_allclose(layer.d_weight, z_slopes.T @ x[:4], rtol=0, atol=1e-14)
    np.testing.assert_allclose(layer.d_bias, z_slopes.sum(axis=0), rtol=0, atol=1e-14)


# -- beside a forked branch ------------------------------------------------------------------------------------------


class Pruned(gn.Dense):
    """A part of its weights has no gradient."""

    def attach(self, backend, parameters, gradients):
        super().attach(backend, parameters, gradients)
        self.kept = backend.asarray(np.diag(np.arange(self.weight.shape[1]) % 2.0), str(self.weight.dtype))
        self.room = backend.zeros(self.weight.shape, str(self.weight.dtype))

    def backward(self, dy):
        dx = super().backward(dy)
        self.ops.gemm(self.d_weight, self.kept, self.room)
        self.ops.activate("identity", self.room, self.d_weight)
        return dx


class PrunedFactors(gn.LowRankDense):
    """One of its factors has no gradient."""

    def backward(self, dy):
        dx = super().backward(dy)
        self.ops.activation_backward("relu", self.none, self.d_right, self.d_right, None)
        return dx

    def attach(self, backend, parameters, gradients):
        super().attach(backend, parameters, gradients)
        self.none = backend.zeros(self.right.shape, str(self.right.dtype))


class Untidy(gn.Activation):
    """Works on its gradient where its outputs lie."""

    def backward(self, dy):
        self.ops.activation_backward(self.applied, self.y, dy, self.y, None)
        self.ops.activate("identity", self.y, self.dx)
        return self.dx


@needs_compiler
@pytest.mark.parametrize(
    "layers",
    [
        lambda: [gn.Dense(20, "relu"), Pruned(18, "relu"), gn.Dense(20), gn.Dense(3)],
        lambda: [gn.Dense(40, "relu"), PrunedFactors(40, 17, "sigmoid"), gn.Dense(20), gn.Dense(3)],
        lambda: [gn.Dense(20), Untidy("sigmoid"), gn.Dense(20, "relu"), gn.Dense(3)],
        lambda: [gn.Dense(20, "relu"), gn.Dropout(0.4), gn.Dense(20), gn.Dropout(0.1), gn.Dense(3)],
    ],
)
def test_layers_that_go_on_with_gradients_or_write_to_outputs_wait_for_the_branch(layers, monkeypatch):
    monkeypatch.setenv("GPUNET_FORK", "on")

    def late():
        backend = PretendGpu()
        backend.cp.machine.late = True
        return backend

    x, y = samples()
    both(lambda trainer: trainer.fit(x, y, epochs=3, batch_size=16), late, layers=layers)


@needs_compiler
def test_a_timed_step_updates_after_its_branch(monkeypatch):
    monkeypatch.setenv("GPUNET_FORK", "on")
    weights = []
    for backend in (PretendGpu(), NumpyBackend()):
        if backend.records:
            backend.cp.machine.late = True
        layer = gn.Dense(20, "sigmoid")  # whose slopes, and with them the gradients, shrink from step to step
        step = _step(layer, 24, 8, gn.SGD(0.1), backend, "float64", needs_dx=True)
        for _ in range(2 if backend.records else 3):  # one has run before the recording
            step()
        weights.append(np.array(backend.to_host(layer.weight)))
    np.testing.assert_allclose(*weights, rtol=0, atol=1e-12)
