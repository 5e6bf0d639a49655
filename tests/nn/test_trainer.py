"""Training as its users see it: it learns, repeats itself, allocates nothing, and names every mistake."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import gpunet as gn
from gpunet.errors import DataError, DivergedError, InputError, ShapeError
from gpunet.nn.callbacks import Callback
from gpunet.nn.trainer import CHECK_EVERY
from gpunet.progress import Progress
from gpunet.testing import StrictBackend

from ..conftest import slow_on_the_stand_in


def blobs(rng, n=300, features=8, classes=3, dtype="float32"):
    """Classes around corners that a linear model separates."""
    labels = np.arange(n) % classes
    x = rng.normal(size=(n, features)) * 0.3
    x[np.arange(n), labels] += 2
    return x.astype(dtype), labels


def trainer(device="numpy", seed=0, classes=3, **options):
    model = gn.Sequential([gn.Dense(16, "relu"), gn.Dense(classes)])
    return gn.Trainer(model, optimizer=gn.Adam(1e-2), device=device, seed=seed, **options)


LOSSES = [("softmax_cross_entropy", None), ("binary_cross_entropy", "sigmoid"), ("squared_error", "sigmoid")]


@slow_on_the_stand_in
@pytest.mark.parametrize(("loss", "activation"), LOSSES)
def test_it_learns(backend, rng, loss, activation):
    x, y = blobs(rng)
    model = gn.Sequential([gn.Dense(16, "relu"), gn.Dense(3, activation)])
    learner = gn.Trainer(model, loss, gn.Adam(1e-2), device=backend)
    history = learner.fit(x[:200], y[:200], epochs=20, batch_size=32, validation_data=(x[200:], y[200:]))
    assert history["train_loss"][-1] < history["train_loss"][0] / 4
    assert history["validation_accuracy"][-1] > 0.97
    assert all(seconds > 0 for seconds in history["seconds"])
    assert len(history.epochs) == 20
    np.testing.assert_array_equal(learner.predict(x[200:]), learner.outputs(x[200:]).argmax(axis=1))
    accuracy = float((learner.predict(x[200:]) == y[200:]).mean())
    assert learner.evaluate(x[200:], y[200:])["accuracy"] == pytest.approx(accuracy)


@slow_on_the_stand_in
@pytest.mark.parametrize("loss", ["binary_cross_entropy", "squared_error"])
def test_one_output_answers_yes_or_no(backend, rng, loss):
    x, y = blobs(rng, classes=2)
    learner = gn.Trainer(
        gn.Sequential([gn.Dense(8, "relu"), gn.Dense(1, "sigmoid")]), loss, gn.Adam(0.02), device=backend
    )
    learner.fit(x, y, epochs=20, batch_size=32)
    assert set(learner.predict(x)) == {0, 1}
    assert learner.evaluate(x, y)["accuracy"] > 0.98
    assert float((learner.predict(x) == y).mean()) == pytest.approx(learner.evaluate(x, y)["accuracy"])


def test_the_same_seed_gives_the_same_bits(backend, rng):
    x, y = blobs(rng)
    weights = []
    for seed in (5, 5, 6):
        learner = trainer(backend, seed)
        learner.fit(x, y, epochs=2, batch_size=32)
        weights.append(
            np.concatenate([np.array(backend.to_host(p)).ravel() for p in learner.model.parameters.values()])
        )
    np.testing.assert_array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])


def test_devices_start_from_the_same_weights_and_batches(backend, rng):
    """Within rounding the whole course of training agrees with plain NumPy's."""
    x, y = blobs(rng)
    reference, other = trainer("numpy"), trainer(backend)
    reference.prepare((8,)), other.prepare((8,))
    for name, parameter in reference.model.parameters.items():
        np.testing.assert_array_equal(parameter, other.backend.to_host(other.model.parameters[name]))
    a, b = (t.fit(x, y, epochs=3, batch_size=32)["train_loss"] for t in (reference, other))
    np.testing.assert_allclose(a, b, rtol=1e-4)


def test_epochs_in_one_call_or_in_several(rng):
    x, y = blobs(rng)
    once, twice = trainer(), trainer()
    once.fit(x, y, epochs=4, batch_size=32)
    twice.fit(x, y, epochs=1, batch_size=32)
    twice.fit(x, y, epochs=3, batch_size=32)
    np.testing.assert_array_equal(once.model.flat[0], twice.model.flat[0])


@pytest.mark.parametrize("batch", [1, 7, 32, 300, 1000])
def test_batches_cover_every_sample_once(rng, batch):
    """With η → 0 the mean loss over an epoch is the loss of the untrained model, whatever the batch size."""
    x, y = blobs(rng, n=100)
    learner = gn.Trainer(gn.Sequential([gn.Dense(3)]), optimizer=gn.SGD(1e-30), device="numpy", dtype="float64")
    learner.prepare((8,))
    before = learner.evaluate(x, y)
    history = learner.fit(x, y, epochs=1, batch_size=batch)
    assert history["train_loss"][0] == pytest.approx(before["loss"], rel=1e-12)
    assert history["train_accuracy"][0] == before["accuracy"]


def test_uint8_is_divided_by_255(backend, rng):
    x = rng.integers(0, 256, (50, 8), dtype=np.uint8)
    learner = trainer(backend)
    learner.prepare((8,))
    np.testing.assert_allclose(learner.outputs(x), learner.outputs((x / 255).astype("float32")), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("device", ["numpy", "cpu"])
@pytest.mark.parametrize(("loss", "activation"), LOSSES)
@pytest.mark.parametrize("optimizer", [lambda: gn.SGD(0.1, l2=1e-4), lambda: gn.SGD(0.1, 0.9), lambda: gn.Adam(1e-3)])
def test_a_step_allocates_nothing(rng, device, loss, activation, optimizer):
    """100 steps neither keep memory nor make temporaries: the peak stays far below one activation (154 kB)."""
    x = rng.integers(0, 256, (900, 100), dtype=np.uint8)
    y = np.arange(900) % 5
    model = gn.Sequential([gn.Dense(128, "relu"), gn.Dense(64, "sigmoid"), gn.Dense(5, activation)])
    learner = gn.Trainer(model, loss, optimizer(), device=device)
    data = learner.samples(x, y)
    learner._workspace(300)
    order = learner.upload_order(np.arange(900))

    def epoch():
        learner.tally.reset()
        for _ in range(2):
            learner.step(data, order, 300)
        learner.step(data, order, 100)

    with learner.backend.session():
        for _ in range(20):  # Python specialises what it runs often: a few kB, once
            epoch()
        tracemalloc.start()
        start = tracemalloc.get_traced_memory()[0]
        for _ in range(34):
            epoch()
        now, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert now - start < 10_000
    assert peak - start < 40_000


@pytest.mark.parametrize(("loss", "activation"), LOSSES)
@pytest.mark.parametrize("optimizer", [lambda: gn.SGD(0.1), lambda: gn.SGD(0.1, 0.9, l2=1e-3), lambda: gn.Adam(1e-3)])
def test_a_step_could_be_captured(rng, loss, activation, optimizer):
    """On the strict backend in capture mode: no allocation, no host read, no random numbers; inputs are not written."""
    strict = StrictBackend()
    x, y = blobs(rng)
    model = gn.Sequential([gn.Dense(16, "relu"), gn.Dense(8, "sigmoid", trainable=False), gn.Dense(3, activation)])
    learner = gn.Trainer(model, loss, optimizer(), device=strict)
    data = learner.samples(x, y)
    learner._workspace(32)
    order = strict.asarray(np.arange(300))
    learner.tally.reset()
    learner.step(data, order, 32)
    with strict.capture(), strict.session():
        for _ in range(5):
            learner.step(data, order, 32)


class Recorder(Callback):
    def __init__(self, at):
        self.at, self.calls = at, []

    def on_fit_begin(self, trainer):
        self.calls.append("begin")

    def steps(self, total):
        self.total = total
        return self.at

    def on_step(self, trainer, step):
        self.calls.append(step)

    def on_epoch_end(self, trainer, epoch, logs):
        self.calls.append(f"epoch {epoch}")
        logs["extra"] = 1.0

    def on_fit_end(self, trainer):
        self.calls.append("end")


def test_callbacks(rng):
    x, y = blobs(rng, n=100)
    recorder = Recorder([0, 3, 4, 7])
    history = trainer().fit(x, y, epochs=2, batch_size=25, callbacks=[recorder])
    assert recorder.total == 8
    assert recorder.calls == ["begin", 0, 3, "epoch 0", 4, 7, "epoch 1", "end"]
    assert history["extra"] == [1.0, 1.0]


def test_training_stops_when_a_callback_says_so(rng):
    class Stop(Callback):
        def on_fit_begin(self, trainer):
            self.asked = (len(trainer.plan.train), trainer.plan.epochs, trainer.plan.per_epoch, trainer.plan.total)

        def on_epoch_end(self, trainer, epoch, logs):
            if epoch == 1:
                trainer.stop("enough")

    x, y = blobs(rng, n=100)
    learner, recorder, stop = trainer(), Recorder([]), Stop()
    history = learner.fit(x, y, epochs=5, batch_size=30, callbacks=[stop, recorder])
    assert stop.asked == (100, 5, 4, 20)
    assert (len(history.epochs), learner.epoch, learner.stopped) == (2, 2, "enough")
    assert recorder.calls == ["begin", "epoch 0", "epoch 1", "end"]
    assert not hasattr(learner, "plan"), "it holds the data"
    learner.fit(x, y, epochs=3, batch_size=30)
    assert (learner.epoch, learner.stopped) == (5, "")


@pytest.mark.usefixtures("session")
def test_without_shuffling_samples_come_as_they_lie(backend, rng):
    x, y = blobs(rng, n=50)
    learner, by_hand = trainer(backend), trainer(backend)
    learner.fit(x, y, epochs=2, batch_size=16, shuffle=False)
    data = by_hand.samples(x, y)
    by_hand._workspace(16)
    order = backend.asarray(np.arange(50))
    for _ in range(2):
        by_hand.tally.reset()
        for n in (16, 16, 16, 2):
            by_hand.step(data, order, n)
    np.testing.assert_array_equal(*(backend.to_host(t.model.flat[0]) for t in (learner, by_hand)))
    shuffled = trainer(backend)
    shuffled.fit(x, y, epochs=2, batch_size=16)
    assert not np.array_equal(*(backend.to_host(t.model.flat[0]) for t in (learner, shuffled)))


def test_progress_counts_every_step(rng):
    class Counter(Progress):
        started, done, notes = 0, 0, ()

        def start(self, what, total):
            self.started += total

        def advance(self, parts=1, note=""):
            self.done += parts
            self.notes = (*self.notes, note)

    x, y = blobs(rng, n=CHECK_EVERY + 10)
    bar = Counter()
    bar.start("outer", 0)
    trainer().fit(x, y, epochs=2, batch_size=1, progress=bar)
    assert bar.done == 2 * (CHECK_EVERY + 10)
    assert all("loss" in note for note in bar.notes)


def test_frozen_layers_stay_and_need_no_gradient(backend, rng):
    x, y = blobs(rng)
    model = gn.Sequential([gn.Dense(16, "relu", trainable=False), gn.Dense(3)])
    learner = gn.Trainer(model, optimizer=gn.Adam(0.05, l2=0.1), device=backend)
    learner.prepare((8,))
    before = np.array(backend.to_host(model.parameters["0.weight"]))
    learner.fit(x, y, epochs=3, batch_size=32)
    np.testing.assert_array_equal(before, backend.to_host(model.parameters["0.weight"]))
    assert set(model.gradients) == {"2.weight", "2.bias"}
    assert learner.evaluate(x, y)["accuracy"] > 0.9


def test_divergence_names_epoch_step_and_learning_rate(backend, rng):
    x, y = blobs(rng, n=320)
    learner = gn.Trainer(gn.Sequential([gn.Dense(3, "relu"), gn.Dense(3)]), optimizer=gn.SGD(1e25), device=backend)
    with pytest.raises(DivergedError, match=r"epoch 1, step \d+, at learning rate 1e\+25: lower"):
        learner.fit(x, y, epochs=3, batch_size=10)


def test_divergence_names_the_right_step(rng):
    x, y = blobs(rng, n=100)
    learner = gn.Trainer(gn.Sequential([gn.Dense(3)]), optimizer=gn.SGD(1e-30), device="numpy")

    class Poison(Callback):
        def steps(self, total):
            return [13]

        def on_step(self, trainer, step):
            trainer.model.parameters["0.weight"][0, 0] = np.nan

    with pytest.raises(DivergedError, match=r"epoch 2, step 4, "):
        learner.fit(x, y, epochs=3, batch_size=10, callbacks=[Poison()])


X, Y = np.zeros((10, 4), "float32"), np.arange(10) % 3
NAN, INF = X.copy(), X.astype("float64")
NAN[6, 2], INF[3, 0] = np.nan, -np.inf


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        (X, Y[:9], DataError, "10 samples and 9 labels"),
        (X[:0], Y[:0], DataError, "no samples"),
        (X, Y + 1, DataError, r"label 3 in row 2 is out of range: expected 0 to 2"),
        (X, Y - 1, DataError, r"label -1 in row 0"),
        (X, Y + 0.5, DataError, "integer class numbers"),
        (X, np.full(10, "cat"), DataError, "integer class numbers"),
        (X, np.eye(10)[:, :3], DataError, r"shape \(10, 3\)"),
        (NAN, Y, DataError, "training data row 6, feature 2, is nan in float32"),
        (INF, Y, DataError, "training data row 3, feature 0, is -inf in float64"),
        (X[:, 0], Y, ShapeError, r"expected \(samples, features\)"),
        (X.astype(object), Y, InputError, "object"),
        (np.full((10, 4), "a"), Y, InputError, "expected real numbers"),
        (np.zeros((10, 2, 2)), Y, ShapeError, "put Flatten"),
    ],
)
def test_bad_data(x, y, error, message):
    with pytest.raises(error, match=message):
        trainer().fit(x, y)


def test_two_trainers_may_share_a_model(rng):
    x, y = blobs(rng)
    first = trainer()
    first.fit(x, y, epochs=3, batch_size=32)
    second = gn.Trainer(first.model, optimizer=gn.SGD(0.01), device="numpy")
    assert second.evaluate(x, y) == first.evaluate(x, y)
    second.fit(x, y, epochs=1, batch_size=7)
    assert second.evaluate(x, y) == first.evaluate(x, y)
    with pytest.raises(InputError, match="holds float32 weights on cpu, the trainer was asked for float64"):
        gn.Trainer(first.model, device="numpy", dtype="float64").predict(x)


def test_a_model_that_ends_in_images():
    learner = gn.Trainer(gn.Sequential([gn.Conv2D(2, 3)]), device="numpy")
    with pytest.raises(ShapeError, match=r"the model gives samples of shape \(2, 4, 4\), expected a row of outputs"):
        learner.fit(np.zeros((5, 1, 6, 6), np.float32), [0] * 5)


def test_data_of_another_shape_than_before(rng):
    learner = trainer()
    learner.fit(X, Y)
    with pytest.raises(ShapeError, match=r"samples have shape \(5,\), the model was built for \(4,\)"):
        learner.predict(np.zeros((3, 5)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gn.Dense(0), "whole number of units"),
        (lambda: gn.Dense(2.5), "whole number of units"),
        (lambda: gn.Dense(3, "gelu"), r"Dense's activation is 'gelu', .* put gn.GELU\(\) after it"),
        (lambda: gn.GELU("erf"), "GELU's approximate is 'erf': expected one of none, tanh"),
        (lambda: gn.Dense(3, "elu"), "Dense's activation is 'elu': expected one of identity, relu, sigmoid"),
        (lambda: gn.Dense(3, weight="magic"), "unknown initial weights 'magic'"),
        (lambda: gn.Activation("swish"), "activation is 'swish'"),
        (lambda: gn.Sequential([]), "at least one layer"),
        (lambda: gn.Sequential([3]), "expected layers such as"),
        (lambda: gn.Sequential([layer := gn.Dense(3), layer]), "stands twice"),
        (lambda: trainer(dtype="float16"), "float32"),
        (lambda: gn.Trainer(gn.Sequential([gn.Dense(2)]), "hinge"), "unknown loss 'hinge'"),
        (
            lambda: gn.SoftmaxCrossEntropy("total"),
            "SoftmaxCrossEntropy's reduction is 'total': expected one of mean, sum",
        ),
        (lambda: trainer(seed=-1).fit(X, Y), "Trainer's seed is -1: expected a whole number ≥ 0"),
        (lambda: trainer().fit(X, Y, epochs=-1), "epochs ≥ 0"),
        (lambda: trainer().fit(X, Y, batch_size=0), "batch_size ≥ 1"),
        (
            lambda: gn.Trainer(gn.Sequential([gn.Dense(3, "sigmoid")])).fit(X, Y),
            "SoftmaxCrossEntropy needs a last layer with activation 'identity', this model's has 'sigmoid'",
        ),
        (lambda: gn.Trainer(gn.Sequential([gn.Dense(3)]), "binary_cross_entropy").fit(X, Y), "activation 'sigmoid'"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize("device", ["numpy", "cpu"])
def test_an_order_that_the_data_does_not_have_is_refused(rng, device):
    x, y = blobs(rng)
    learner = gn.Trainer(gn.Sequential([gn.Dense(3)]), device=device)
    data = learner.samples(x, y)
    learner._workspace(16)
    for order in ([-1, 0], [0.5], [[0]], [], "x", None):
        with pytest.raises(InputError, match="order is"):
            learner.upload_order(order)
    for last in (len(x), np.uint64(2**63 + 5)):
        order = learner.upload_order(np.array([0, 1, last], np.uint64))
        with pytest.raises(InputError, match=f"order names sample {last}: expected numbers from 0 to {len(x) - 1}"):
            learner.step(data, order, 2)
    order = learner.upload_order(np.arange(4))
    learner.tally.reset()
    with pytest.raises(InputError, match="16 samples were asked for, and 4 of the order's 4 are left"):
        learner.step(data, order, 16)
    learner.tally.reset()
    learner.step(data, order, 3)
    with pytest.raises(InputError, match="2 samples were asked for, and 1 of the order's 4 are left"):
        learner.step(data, order, 2)
