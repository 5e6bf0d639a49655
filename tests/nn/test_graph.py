"""Recorded steps are the steps: the same bits as operation by operation, never a recording of something that is gone.

StrictBackend records as a CUDA graph does, places in memory and numbers of the time of recording, so what would go
wrong on a GPU goes wrong here. So does the pretend GPU, which runs the CUDA kernels on the host.
"""

from __future__ import annotations

import gc
import warnings
import weakref

import numpy as np
import pytest

import gpunet as gn
from gpunet.backend.numpy_backend import NumpyBackend
from gpunet.bench.train import stepping
from gpunet.errors import CaptureError, InputError, MemoryFullError
from gpunet.nn import replay as graph
from gpunet.nn.callbacks import Callback
from gpunet.nn.layers.base import Spec
from gpunet.testing import StrictBackend

from .recording import (
    OPTIMISERS,
    Counting,
    Weighted,
    another_loss,
    another_optimiser,
    attached_afresh,
    both,
    made,
    on_devices,
    replaced,
    same_bits,
    samples,
    with_optimisers,
)  # fmt: skip


class Steps(Callback):
    """Calls a function before some steps."""

    def __init__(self, steps, look):
        self._steps, self._look = steps, look

    def steps(self, total):
        return self._steps

    def on_step(self, trainer, step):
        self._look(trainer, step)


# -- what runs how ---------------------------------------------------------------------------------------------------


def test_first_by_operations_then_recorded_then_replayed_and_no_step_more_or_less():
    trainer = made()
    backend, (x, y) = trainer.backend, samples()
    trainer.fit(x, y, epochs=3, batch_size=16)  # 4 whole batches and one of 6 samples an epoch
    steps = 15
    assert trainer.optimizer._clocks[0][gn.backend.base.STEP] == steps
    assert backend.recorded == 3, "one and four whole batches, and the last short one"
    assert backend.replayed == steps - 2
    assert backend.ticks == 2, "the first of each kind"


@on_devices
@pytest.mark.parametrize("optimizer", OPTIMISERS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
def test_replays_are_the_same_bits(device, optimizer, dtype):
    x, y = samples(dtype=dtype)
    held_out = samples(n=150, seed=1, dtype=dtype)  # more than a batch

    def scenario(trainer):
        trainer.fit(x, y, epochs=3, batch_size=16, validation_data=held_out)

    both(scenario, device, optimizer=optimizer)


@on_devices
@pytest.mark.parametrize(
    "loss", [gn.SoftmaxCrossEntropy(), gn.SoftmaxCrossEntropy("sum"), gn.BinaryCrossEntropy(), gn.SquaredError("sum")]
)
def test_every_loss(device, loss):
    activation = None if isinstance(loss, gn.SoftmaxCrossEntropy) else "sigmoid"
    x, y = samples()

    def scenario(trainer):
        trainer.fit(x, y, epochs=2, batch_size=16)

    both(scenario, device, loss=loss, layers=lambda: [gn.Dense(5, "relu"), gn.Dense(3, activation)])


def test_frozen_layers_one_batch_and_no_shuffling():
    x, y = samples()

    def scenario(trainer):
        trainer.fit(x, y, epochs=4, batch_size=100, shuffle=False)
        trainer.fit(x, y, epochs=2, batch_size=1)

    layers = [gn.Dense(5, "relu"), gn.Dense(5, "sigmoid", trainable=False), gn.Dense(3)]
    both(scenario, layers=lambda: [type(layer)(**layer.config()) for layer in layers])


@on_devices
@pytest.mark.parametrize("pooling", ["max", "average"])
def test_images(device, pooling):
    x, y = samples(n=40, features=64)

    def layers():
        return [
            gn.Reshape((1, 8, 8)), gn.Conv2D(4, 3, "relu", pool=2, pooling=pooling, padding="same"),
            gn.Conv2D(3, 3, "sigmoid"), gn.MaxPool2D(2) if pooling == "max" else gn.AvgPool2D(2, 1), gn.Flatten(),
            gn.Activation("relu"), gn.Dense(3),
        ]  # fmt: skip

    both(lambda trainer: trainer.fit(x, y, epochs=3, batch_size=16), device, layers=layers)


def test_a_recording_takes_as_many_steps_as_leave_few_of_an_epoch_over():
    found = [graph.at_once(steps) for steps in (0, 1, 3, 4, 5, 8, 9, 10, 11, 12, 13, 23, 937, 938)]
    assert found == [1, 1, 1, 4, 5, 8, 8, 5, 5, 6, 6, 7, 8, 7]


@pytest.mark.slow
@on_devices
def test_callbacks_have_their_turn_between_the_steps_of_a_long_recording(device):
    """Whatever steps they ask for, recordings end before them."""
    x, y = samples(n=330)
    seen = []

    def scenario(trainer):
        def look(trainer, step):
            clock = trainer.backend.to_host(trainer.optimizer.clocks)[0, gn.backend.base.STEP]
            seen.append((step, int(clock)))
            trainer.optimizer.learning_rate *= 0.9

        trainer.fit(x, y, epochs=3, batch_size=16, callbacks=[Steps([1, 2, 9, 20, 21, 30, 41, 55], look)])

    both(scenario, device)
    assert all(step == clock for step, clock in seen)
    assert len(seen) == 16


def test_the_model_stands_at_the_batch_of_the_last_step():
    trainer = made()
    data = trainer.samples(*samples())
    trainer._workspace(16)
    order, step = trainer.upload_order(np.arange(70)), trainer.stepper()
    trainer.tally.reset()
    for n in (16, 6) * 4:
        trainer.tally.cursor[0] = 0
        step(data, order, n)
        assert (len(trainer.model.layers[0].y), len(trainer.model.d_scores)) == (n, n)
    assert trainer.backend.replayed == 6


@on_devices
def test_timed_steps_are_the_recorded_ones(device):
    x, y = samples()
    found = []
    for graphs in ("auto", "off"):
        trainer = made(graphs, backend=device())
        rows = np.random.default_rng(0)
        passes, steps = (
            stepping(trainer, trainer.samples(x, y), 16, lambda rows=rows: rows.permutation(70)) for _ in range(2)
        )
        for _ in range(3):
            passes()
            steps(13)
        found.append((trainer.evaluate(x, y)["loss"], trainer.backend.replayed > 30))
        assert trainer.backend.replayed in (0, 3 * (5 + 13) - trainer.backend.ticks)
    assert found == [(found[0][0], True), (found[0][0], False)]


# -- what callbacks do between the steps ------------------------------------------------------------------------------


class At(Callback):
    """Calls `work(trainer)` before some steps."""

    def __init__(self, work, *steps):
        self.work, self.at = work, steps

    def steps(self, total):
        return self.at or range(total)

    def on_step(self, trainer, step):
        self.work(trainer)


def scaled_in_place(trainer):
    for weight in trainer.model.parameters.values():
        weight *= 0.99


def evaluated(trainer):
    trainer.evaluate(*samples(n=90, seed=3))
    trainer.evaluate(*samples(n=5, seed=4))


CALLBACKS = {
    "exponential decay": lambda: [gn.ExponentialDecay(0.7)],
    "step decay": lambda: [gn.StepDecay(0.5, 2)],
    "cosine": lambda: [gn.CosineDecay()],
    "cyclical": lambda: [gn.CyclicalRate(1e-3, 1e-1, 3, halve=True)],
    "early stopping": lambda: [gn.EarlyStopping(patience=1, least=0.05)],
    "divergence guard": lambda: [gn.DivergenceGuard(50)],
    "weights changed in place": lambda: [At(scaled_in_place)],
    "evaluating in mid-epoch": lambda: [At(evaluated, 2, 7, 8, 13)],
    "looking at outputs": lambda: [At(lambda trainer: trainer.predict(samples(n=7)[0]), 3, 9, 12)],
    "optimiser's state set to zero": lambda: [At(lambda t: [v.fill(0) for v in t.optimizer.state.values()], 8)],
    "the loss's reduction": lambda: [At(lambda t: setattr(t.loss, "reduction", "sum"), 8)],
    "another loss": lambda: [At(another_loss, 8)],
    "optimiser attached afresh": lambda: [At(attached_afresh, 8)],
    "another optimiser": lambda: [At(another_optimiser, 8)],
    "a layer replaced by itself": lambda: [At(replaced, 8)],
    "a layer replaced twice": lambda: [At(lambda t: (replaced(t), replaced(t)), 8)],
    "replaced before each of three steps": lambda: [At(replaced, 7, 8, 9)],
}


@with_optimisers
@pytest.mark.parametrize("name", CALLBACKS)
def test_callbacks(device, name, optimizer):
    x, y = samples()

    def scenario(trainer):
        held_out = samples(n=33, seed=1)
        trainer.fit(x, y, epochs=4, batch_size=16, validation_data=held_out, callbacks=CALLBACKS[name]())

    both(scenario, device, optimizer=optimizer)


@with_optimisers
@pytest.mark.parametrize("state", ["restart", "carry", "carry-both"])
def test_factorising_in_mid_training_and_merging(device, optimizer, state):
    x, y = samples()

    def scenario(trainer):
        cut = gn.Factorise(0.4, 2, state=state, policy="always")
        trainer.fit(x, y, epochs=3, batch_size=16, callbacks=[cut])  # 15 steps, cut before the seventh
        assert all(done.converted for done in cut.conversions)
        trainer.fit(x, y, epochs=2, batch_size=16)

    trainer = both(scenario, device, optimizer=optimizer)
    assert trainer.backend.recorded >= 5, "two kinds before the cut, two after, and again merged"


@on_devices
def test_factorising_when_the_stable_ranks_say_so(device):
    x, y = samples()

    def scenario(trainer):
        cut = gn.Factorise("auto", {"0": gn.ScaledStableRank(epsilon=1e9)}, policy="always")
        trainer.fit(x, y, epochs=4, batch_size=16, callbacks=[cut])
        assert [(done.layer, done.step, done.converted) for done in cut.conversions] == [("0", 5, True)]

    trainer = both(scenario, device)
    assert trainer.backend.recorded >= 3, "two kinds before the cut, and again after it"


@on_devices
def test_a_replayed_step_leaves_what_a_step_leaves(device):
    """Activations and gradients of the last batch, a short one, for whoever looks at the model after an epoch."""

    class Look(Callback):
        def on_epoch_end(self, trainer, epoch, logs):
            found = {f"y {layer.name}": layer.y for layer in trainer.model.layers} | trainer.model.gradients
            found |= {"scores": trainer.model.d_scores, "batch": trainer._x[:6], "totals": trainer.tally.totals}
            for name, value in found.items():
                logs[name] = trainer.backend.to_host(value).tolist()

    both(lambda trainer: trainer.fit(*samples(), epochs=4, batch_size=16, callbacks=[Look()]), device)


class KilledError(Exception):
    pass


@pytest.mark.slow
@with_optimisers
@pytest.mark.parametrize("at", [3, 8])
def test_killed_and_resumed_in_mid_epoch(device, tmp_path, optimizer, at):
    x, y = samples()

    def killed(trainer):
        raise KilledError

    def fit(trainer, folder, *callbacks, resume=False):
        cut = gn.Factorise(0.5, 2, policy="always", merge=False)
        trainer.fit(
            x, y, epochs=3, batch_size=16, checkpoint=folder, checkpoint_every=0.2, resume=resume,
            callbacks=[cut, *callbacks],
        )  # fmt: skip

    def stopping(trainer):
        fit(trainer, tmp_path / trainer.graphs.reason, At(lambda t: None, 0))
        return trainer

    undisturbed = stopping(made("off", optimizer, backend=device()))
    folder = tmp_path / "killed"
    with pytest.raises(KilledError):
        fit(made("auto", optimizer, backend=device()), folder, At(killed, at))
    resumed = made("auto", optimizer, backend=device())
    fit(resumed, folder, At(lambda t: None, 0), resume=True)
    assert resumed.backend.replayed > 0
    same_bits(resumed, undisturbed)
    again = made("auto", optimizer, backend=device())  # a trainer that has recordings already takes the checkpoint up
    again.fit(x, y, epochs=2, batch_size=16)
    again.epoch = 0
    with pytest.raises(KilledError):
        fit(made("auto", optimizer, backend=device()), tmp_path / "twice", At(killed, at))
    fit(again, tmp_path / "twice", At(lambda t: None, 0), resume=True)
    same_bits(again, undisturbed)


# -- steps that cannot be recorded ------------------------------------------------------------------------------------


class Refusing(Counting):
    """A device that records nothing."""

    error = CaptureError("cublasGemmEx inside a recorded step")

    def record(self, work):
        self.recorded += 1
        raise self.error


@pytest.mark.parametrize("error", [CaptureError("cublasGemmEx refused"), MemoryFullError("no room for the graph")])
def test_what_cannot_be_recorded_runs_by_operations_and_is_said_once(error):
    backend = Refusing()
    backend.error = error
    trainer, plain = made(backend=backend), made("off")
    x, y = samples()
    with pytest.warns(UserWarning, match=f"run operation by operation on cpu, .* same results: {error}"):
        trainer.fit(x, y, epochs=3, batch_size=16)
    trainer.fit(x, y, epochs=1, batch_size=8)  # a second warning would be an error
    assert (backend.recorded, trainer.graphs.reason) == (1, str(error))
    plain.fit(x, y, epochs=3, batch_size=16)
    plain.fit(x, y, epochs=1, batch_size=8)
    same_bits(trainer, plain)


class Counts(gn.Activation):
    """A layer that counts its steps in Python."""

    def __init__(self, activation):
        super().__init__(activation)
        self.steps = 0

    def forward(self, x):
        self.steps += 1
        self.ops.activate("relu" if self.steps % 2 else "sigmoid", x, self.y)
        return self.y

    def spec(self, input_shape):
        return Spec(output=input_shape)


class Reads(gn.Activation):
    """A layer that reads a number back from the device."""

    def forward(self, x):
        self.largest = float(self.ops.to_host(x).max())
        return super().forward(x)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (Counts, "Counts.steps changes from step to step, and a recording would keep it as it is"),
        (Reads, "read back to the host inside a captured step"),
    ],
)
def test_layers_that_compute_in_python_are_not_recorded(layer, reason):
    x, y = samples()

    def layers():
        return [gn.Dense(5), layer("relu"), gn.Dense(3)]

    trainer, plain = made(layers=layers), made("off", layers=layers)
    with pytest.warns(UserWarning, match=reason):
        trainer.fit(x, y, epochs=3, batch_size=16)
    plain.fit(x, y, epochs=3, batch_size=16)
    assert trainer.graphs.reason == reason
    same_bits(trainer, plain)


def test_numbers_that_a_callback_changes_are_followed():
    """A loss annealed from epoch to epoch, to a number that may come again."""
    x, y = samples()

    class Annealed(Callback):
        def on_epoch_end(self, trainer, epoch, logs):
            trainer.loss.factor = [0.5, 0.5, 2.0][epoch % 3]

    both(lambda t: t.fit(x, y, epochs=7, batch_size=8, callbacks=[Annealed()]), loss=Weighted())


def test_switching_off(monkeypatch):
    x, y = samples()
    for word, switch in (("off", ""), ("auto", "off"), ("off", "auto")):
        monkeypatch.setenv("GPUNET_GRAPHS", switch)
        trainer = made(word)
        trainer.fit(x, y, epochs=2, batch_size=16)
        assert (trainer.backend.recorded, trainer.graphs.reason) == (0, "graphs are switched off")
    monkeypatch.setenv("GPUNET_GRAPHS", "never")
    with pytest.raises(InputError, match="GPUNET_GRAPHS is 'never': expected 'auto' or 'off'"):
        made()
    monkeypatch.delenv("GPUNET_GRAPHS")
    with pytest.raises(InputError, match="graphs is 'on': expected 'auto' or 'off'"):
        made("on")


def test_a_cpu_has_no_graphs_and_says_nothing():
    trainer = made(backend=NumpyBackend())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer.fit(*samples(), epochs=2, batch_size=16)
    assert trainer.graphs.reason == "cpu runs operations one by one: it has no graphs"
    assert trainer.stepper() == trainer.step


# -- memory ----------------------------------------------------------------------------------------------------------


def test_recordings_are_few():
    trainer = made()
    data = trainer.samples(*samples(n=40))
    for batch in range(1, 41):
        trainer.fit(data, epochs=3 if batch < 9 else 1, batch_size=batch)
        assert len(trainer.graphs._kinds) <= graph.MOST


def test_what_is_replaced_is_let_go_without_waiting_for_the_next_step():
    """The old parameters and workspace are freed when a callback or a fit that replaced a layer is over."""
    trainer = made()
    data = trainer.samples(*samples())
    trainer.fit(data, epochs=2, batch_size=16)
    before = [weakref.ref(trainer.model._store.flat[0].base), weakref.ref(trainer.model._d_scores)]
    assert all(ref() is not None for ref in before)
    gc.disable()
    try:
        trainer.fit(data, epochs=1, batch_size=16, callbacks=[gn.Factorise(0.5, 2, policy="always", merge=False)])
        assert [ref() for ref in before] == [None, None]
    finally:
        gc.enable()


def test_what_is_merged_when_a_fit_ends_is_let_go_then():
    trainer, factored = made(), []
    data = trainer.samples(*samples())
    look = At(lambda t: factored.append(weakref.ref(t.model._d_scores)), 4)
    gc.disable()
    try:
        trainer.fit(data, epochs=3, batch_size=16, callbacks=[gn.Factorise(0.1, 2, policy="always"), look])
        assert trainer.backend.replayed > 5
        assert factored[0]() is None
    finally:
        gc.enable()


def test_data_trainer_and_recordings_die_by_their_counts():
    """Nothing waits for the garbage collector: it may run late, and device memory is dear."""
    trainer = made()
    gc.disable()
    try:
        data = trainer.samples(*samples())
        trainer.fit(data, epochs=2, batch_size=16)
        assert len(trainer.graphs._kinds) == 2
        trainer.fit(*samples(seed=3), epochs=2, batch_size=16)
        assert {key[0] for key in trainer.graphs._kinds} == {id(data)}, "what fit made of arrays is gone"
        rows = weakref.ref(data.x)
        del data
        assert rows() is None
        assert not trainer.graphs._kinds
        trainer.fit(*samples(), epochs=2, batch_size=16)
        dead = [weakref.ref(trainer), weakref.ref(trainer.graphs), weakref.ref(trainer.model._d_scores)]
        del trainer
        assert [ref() for ref in dead] == [None, None, None]
    finally:
        gc.enable()


@pytest.mark.slow
def test_recordings_of_data_that_is_gone_are_destroyed_when_the_device_has_been_waited_for(monkeypatch):
    """A weak reference's callback may come at any time, inside a recording, too: it does not wait."""
    trainer, waits = made(), []
    data = trainer.samples(*samples())
    trainer.fit(data, epochs=2, batch_size=16)
    replay = weakref.ref(next(iter(trainer.graphs.recordings))[2])
    monkeypatch.setattr(trainer.backend, "synchronize", lambda: waits.append(replay() is not None))
    del data
    gc.collect()
    assert trainer.graphs.recordings == []
    assert waits == []
    assert replay() is not None
    trainer.graphs.drop()
    assert waits == [True]
    assert replay() is None


def test_dropping_by_hand():
    trainer, plain = made(), made("off")
    for each in (trainer, plain):
        data = each.samples(*samples())
        each.fit(data, epochs=2, batch_size=16)
        each.graphs.drop()
        assert not each.graphs._kinds
        each.fit(data, epochs=2, batch_size=16)
    assert trainer.backend.recorded == 6
    same_bits(trainer, plain)


# -- the strict backend's recordings ----------------------------------------------------------------------------------


def test_strict_recordings_hold_places_and_numbers():
    strict = StrictBackend()
    a, out, scale = np.ones((2, 2)), strict.zeros((2, 2), "float64"), 3.0
    order, cursor = strict.asarray(np.arange(2)), strict.zeros(1, "int64")
    strict.gather(a, order, cursor, 0, out)  # operations may allocate at their first call
    replay = strict.record(lambda: strict.gather(a, order, cursor, scale, out))
    np.testing.assert_array_equal(out, 0)  # recorded, not run
    replay()
    np.testing.assert_array_equal(out, 3)
    scale = 5.0
    a[...] = 2  # the same place, a new value
    replay()
    np.testing.assert_array_equal(out, 6)
    a = None
    with pytest.raises(ReferenceError, match=r"after its array of \(\(2, 2\), dtype\('float64'\)\) had been freed"):
        replay()


def test_strict_recordings_refuse_what_cuda_refuses_and_leave_the_backend_usable():
    strict, other = StrictBackend(), StrictBackend()
    x = strict.asarray(np.ones((2, 2)))
    for work in (
        lambda: strict.empty(3), lambda: other.empty(3), lambda: strict.to_host(x), lambda: np.random.default_rng(0),
        lambda: strict.copy(0, x), lambda: strict.record(lambda: None), strict.synchronize,
    ):  # fmt: skip
        with pytest.raises(CaptureError):
            strict.record(work)
    out = strict.empty((2, 2), "float64")
    strict.activate("relu", x, out)
    np.testing.assert_array_equal(out, 1)
    with pytest.raises(CaptureError, match="activate inside a captured step has not run on arrays of these shapes"):
        strict.record(lambda: strict.activate("relu", x[:1], out[:1]))
    strict.record(lambda: strict.activate("relu", x, out))()
