"""Training in mixed precision: the roundings, who makes them, and all that stays float32."""

from __future__ import annotations

import copy
import multiprocessing as mp
import os
import pickle
import threading
import warnings
from itertools import pairwise

import ml_dtypes
import numpy as np
import pytest

import gpunet as gn
from gpunet.backend import onednn
from gpunet.backend.base import BFLOAT16
from gpunet.backend.numpy_backend import NumpyBackend
from gpunet.errors import InputError
from gpunet.testing import StrictBackend

from .recording import both, on_devices, samples, state_of

DENSE = lambda: [gn.Dense(12, "relu"), gn.Dense(10, "relu"), gn.Dense(3)]  # noqa: E731
NETS = {
    "dense": DENSE,
    "curved": lambda: [gn.Dense(12, "tanh"), gn.Dense(10, "sigmoid"), gn.Dense(8, "leaky_relu"), gn.Dense(3)],
    "factored": lambda: [gn.LowRankDense(12, 4, "relu"), gn.LowRankDense(10, 9, "relu"), gn.Dense(3)],
    "between": lambda: [gn.Dense(12, "relu"), gn.Dropout(0.3), gn.Dense(10), gn.BatchNorm(), gn.GELU(), gn.Dense(3)],
    "images": lambda: [gn.Reshape((1, 2, 3)), gn.Conv2D(4, 1, "relu"), gn.Flatten(), gn.Dense(8, "relu"), gn.Dense(3)],
    "flattened": lambda: [gn.Reshape((1, 2, 3)), gn.Flatten(), gn.Dense(8, "relu"), gn.Dense(3)],
    "frozen": lambda: [gn.Dense(12, "relu", trainable=False), gn.Dense(10, "relu"), gn.Dense(3)],
    "frozen head": lambda: [gn.Dense(12, "relu"), gn.LowRankDense(10, 2, "relu", trainable=False),
                            gn.Dense(3, trainable=False)],
}  # fmt: skip


def rounded(x):
    return np.asarray(x, np.float32).astype(ml_dtypes.bfloat16).astype(np.float64)


def trainer(net=DENSE, device=None, precision="mixed", optimizer=None, **options):
    optimizer = optimizer or gn.Adam(1e-2)
    return gn.Trainer(
        gn.Sequential(net()), optimizer=optimizer, device=device or StrictBackend(), precision=precision, **options
    )


class Numpy(NumpyBackend):
    """Mixes precisions on every machine, and for small nets."""

    bfloat16, slow_bfloat16, least_bfloat16 = None, "", 0


CPUS = [Numpy]
if gn.get_backend("cpu").kernels == "numba":
    from gpunet.backend.numba_backend import NumbaBackend

    class Numba(NumbaBackend):
        """The same with fused passes."""

        bfloat16, slow_bfloat16, least_bfloat16 = None, "", 0

    class Library(NumbaBackend):
        """With oneDNN's products, where there is oneDNN."""

        slow_bfloat16, least_bfloat16 = "", 0

    CPUS += [Numba, Library]

on_cpus = pytest.mark.parametrize("kind", CPUS, ids=lambda kind: kind.__name__)


class ByHand:
    """A net of Dense layers with ReLU between them and squared error, its step written down once more, sums in float64.

    Operands of products are rounded, nothing else is.
    """

    def __init__(self, weights, biases):
        self.weights, self.biases = weights, biases

    def gradients(self, x, targets):
        inputs, x = [], rounded(x)
        for number, (w, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            inputs.append(x)
            z = x @ rounded(w).T + b
            x = rounded(np.maximum(z, 0)) if number < len(self.weights) - 1 else z
        dz, found = (z - targets) / len(x), []
        for number in reversed(range(len(self.weights))):
            bias = dz.sum(axis=0)  # before they are rounded
            dz = rounded(dz)
            found[:0] = [(dz.T @ inputs[number], bias)]
            dz = (dz @ rounded(self.weights[number])) * (inputs[number] > 0)
        return found


def one_step(device, weights, biases, x, targets):
    """Our gradients of one step, on a batch."""
    layers = [gn.Dense(len(w), "relu", weight=w, bias=b) for w, b in zip(weights, biases, strict=True)]
    layers[-1] = gn.Dense(len(weights[-1]), weight=weights[-1], bias=biases[-1])
    own = gn.Trainer(
        gn.Sequential(layers, scale=1), "squared_error", gn.SGD(1e-6), device=device, precision="mixed"
    )  # fmt: skip
    own.fit(x, targets, batch_size=len(x), shuffle=False)
    return {name: np.array(own.backend.to_host(view)) for name, view in own.model.gradients.items()}


def drawn(rng, widths, draw):
    weights = [draw((out, inner)) for inner, out in pairwise(widths)]
    return weights, [draw(out) for out in widths[1:]]


DEVICES = [StrictBackend, *CPUS]


@pytest.mark.parametrize("device", DEVICES, ids=lambda kind: kind.__name__)
def test_a_step_of_numbers_whose_sums_are_exact_is_the_same_to_the_last_bit(device, rng):
    weights, biases = drawn(rng, (8, 6, 5, 3), lambda shape: rng.integers(-3, 4, shape) / 4)
    x, targets = rng.integers(0, 8, (4, 8)) / 8 + 1 / 512, rng.integers(-2, 3, (4, 3)) / 2  # x is to be rounded
    weights, biases, x, targets = (
        [each.astype(np.float32) for each in weights], [each.astype(np.float32) for each in biases],
        x.astype(np.float32), targets.astype(np.float32),
    )  # fmt: skip
    expected = ByHand(weights, biases).gradients(x, targets)
    found = one_step(device(), weights, biases, x, targets)
    for number, (weight, bias) in enumerate(expected):
        assert (weight == weight.astype(np.float32)).all()  # so they are exact
        name = str(2 * number)
        np.testing.assert_array_equal(found[f"{name}.weight"], weight)
        np.testing.assert_array_equal(found[f"{name}.bias"], bias)


@pytest.mark.parametrize("device", DEVICES, ids=lambda kind: kind.__name__)
def test_a_step_is_that_by_hand_but_for_ties_that_the_order_of_sums_decides(device, rng):
    weights, biases = drawn(rng, (30, 24, 20, 4), lambda shape: rng.normal(size=shape).astype(np.float32) / 4)
    x, targets = (rng.normal(size=(64, width)).astype(np.float32) for width in (30, 4))
    plain = {}
    for number, (weight, bias) in enumerate(ByHand(weights, biases).gradients(x, targets)):
        plain |= {f"{2 * number}.weight": weight, f"{2 * number}.bias": bias}
    for name, value in one_step(device(), weights, biases, x, targets).items():
        # A number that lies at a tie may be rounded to its other neighbour, 2⁻⁸ of it away, and is one of 64 in a sum.
        assert np.abs(value - plain[name]).max() <= 2**-8 * np.abs(plain[name]).max() / 8, name


@pytest.mark.parametrize("name", NETS)
@on_cpus
def test_every_net_learns_as_in_float32(kind, name):
    x, y = samples(120)
    losses = []
    for precision in ("float32", "mixed"):
        own = trainer(NETS[name], kind(), precision)
        losses.append(own.fit(x / 64 - 2, y, epochs=6, batch_size=32)["train_loss"])
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.02)
    assert losses[1] != losses[0]  # something was rounded


@pytest.mark.parametrize("name", NETS)
@on_devices
def test_recorded_steps_are_the_same_bit_for_bit(device, name):
    x, y = samples(70, dtype="uint8")

    def scenario(own):
        vars(own)["precision"] = "mixed"
        own.fit(x, y, epochs=3, batch_size=16, validation_data=(x, y))
        own.fit(x, y, epochs=1, batch_size=35)
        assert own.model._mixed

    both(scenario, device, layers=NETS[name])


@on_cpus
def test_what_is_looked_at_is_of_float32(kind):
    x, y = samples()
    own = trainer(device=kind())
    own.fit(x, y, epochs=2, batch_size=16)
    plain = gn.Trainer(copy.deepcopy(own.model), device=own.backend)
    assert own.evaluate(x, y) == plain.evaluate(x, y)
    np.testing.assert_array_equal(own.outputs(x), plain.outputs(x))
    np.testing.assert_array_equal(own.model.outputs(x), plain.outputs(x))
    assert own.model.parameters["0.weight"].dtype == np.float32


@on_cpus
def test_evaluating_between_steps_changes_no_bit(kind):
    x, y = samples()
    found = []
    for validation in (None, (x, y)):
        own = trainer(NETS["between"], kind())
        own.fit(x, y, epochs=3, batch_size=16, validation_data=validation)
        found.append(state_of(own))
    for name, value in found[0].items():
        np.testing.assert_array_equal(value, found[1][name])


class Rewrites(gn.Callback):
    def steps(self, total):
        return range(1, total, 3)

    def on_step(self, trainer, step):
        trainer.model.parameters["0.weight"][...] *= 0.5


@on_cpus
def test_weights_that_a_callback_writes_count_in_the_next_step(kind):
    x, y = samples()
    own = trainer(device=kind())
    own.fit(x, y, epochs=1, batch_size=16, callbacks=Rewrites())
    check_rounded(own)
    own.model.parameters["2.weight"] = np.ones((10, 12), np.float32)
    own.fit(x, y, epochs=1, batch_size=16)
    check_rounded(own)


def check_rounded(own):
    """The bfloat16 of each trained parameter is that of now."""
    store = own.model._arenas
    size = len(own.model.flat[0])
    given = own.backend.to_host(own.model.flat[0])
    expected = np.array(given).astype(ml_dtypes.bfloat16).view(np.uint16)
    np.testing.assert_array_equal(own.backend.to_host(store.rounded.flat[:size]), expected)


class Halving(gn.SGD):
    """An optimiser that knows nothing of bfloat16."""

    def update(self, part):
        part.params[...] -= 0.01 * part.grads


class Twice(gn.Adam):
    """One with a step of its own, twice the usual one."""

    def step(self):
        super().step()
        super().step()


class Clips:
    """A part for optimisers, which goes on where they have rounded."""

    def update(self, part):
        super().update(part)
        np.clip(part.params, -0.1, 0.1, out=part.params)


class Clipped(Clips, gn.Adam):
    """Has no `update` in its own body."""


OPTIMISERS = [
    lambda: gn.SGD(0.1), lambda: gn.SGD(0.1, momentum=0.9), gn.Adam, gn.AdamW, lambda: Halving(0.1), Twice, Clipped,
]  # fmt: skip


@on_cpus
@pytest.mark.parametrize("optimizer", OPTIMISERS)
def test_every_optimiser_leaves_the_weights_rounded(kind, optimizer):
    own = trainer(device=kind(), optimizer=optimizer())
    own.fit(*samples(), epochs=2, batch_size=16)
    check_rounded(own)


def test_who_rounds():
    assert [each.rounds for each in (gn.SGD, gn.Adam, gn.AdamW)] == [True] * 3
    assert not Halving.rounds
    assert not Twice.rounds
    assert not Clipped.rounds
    assert type("Named", (gn.Adam,), {}).rounds


class Stop(gn.Callback):
    """Ends a run as Ctrl-C does, once; of the same settings as one that does not."""

    def __init__(self, step):
        self.step = step

    def config(self):
        return {}

    def steps(self, total):
        return [self.step]

    def on_step(self, trainer, step):
        if step:
            raise KeyboardInterrupt


@on_cpus
@pytest.mark.parametrize("name", ["dense", "factored", "between"])
def test_a_run_that_is_taken_up_again_has_the_same_bits(kind, name, tmp_path):
    x, y = samples(90)
    whole, first, again = (trainer(NETS[name], kind()) for _ in range(3))
    whole.fit(x, y, epochs=4, batch_size=16)
    about = {"epochs": 4, "batch_size": 16, "checkpoint": tmp_path, "checkpoint_every": 0.5}
    with pytest.raises(KeyboardInterrupt):
        first.fit(x, y, callbacks=Stop(16), **about)
    again.fit(x, y, callbacks=Stop(0), resume=True, **about)
    for found, value in state_of(whole).items():
        np.testing.assert_array_equal(value, state_of(again)[found])


@on_cpus
def test_a_run_of_another_precision_is_another_run(kind, tmp_path):
    x, y = samples(90)
    trainer(device=kind()).fit(x, y, epochs=1, batch_size=16, checkpoint=tmp_path)
    with pytest.raises(InputError, match="precision"):
        trainer(device=kind(), precision="float32").fit(x, y, epochs=1, batch_size=16, checkpoint=tmp_path, resume=True)


def pickled(own):
    return pickle.loads(pickle.dumps(own))  # noqa: S301


@on_cpus
@pytest.mark.parametrize("how", [copy.deepcopy, pickled])
def test_a_copy_goes_on_as_the_trainer_would(kind, how):
    x, y = samples()
    own = trainer(NETS["factored"], kind())
    own.fit(x, y, epochs=1, batch_size=16)
    twin = how(own)
    for each in (own, twin):
        each.fit(x, y, epochs=1, batch_size=16)
    for name, value in state_of(own).items():
        np.testing.assert_array_equal(value, state_of(twin)[name])


@on_cpus
def test_factorised_in_mid_training(kind):
    x, y = samples()
    own = trainer(device=kind())
    seen = []

    class Look(gn.Callback):
        def on_epoch_end(self, trainer, epoch, logs):
            seen.append([type(layer) for layer in trainer.model.layers])
            check_rounded(trainer)

    own.fit(x, y, epochs=4, batch_size=16, callbacks=[gn.Factorise(0.5, gn.FixedRank(3)), Look()])
    assert gn.LowRankDense in seen[-1]
    assert gn.LowRankDense not in seen[0]


@on_cpus
def test_freezing_and_replacing_between_fits(kind):
    x, y = samples()
    own = trainer(device=kind())
    own.fit(x, y, batch_size=16)
    own.model.layers[0].trainable = False
    before = np.array(own.model.parameters["0.weight"])
    own.fit(x, y, batch_size=16)
    np.testing.assert_array_equal(own.model.parameters["0.weight"], before)
    own.model.replace("2", gn.Dense(10, "relu"))
    own.fit(x, y, batch_size=16)
    check_rounded(own)


@on_cpus
def test_trainers_of_both_precisions_take_turns_at_one_model(kind):
    x, y = samples()
    backend = kind()
    model = gn.Sequential(DENSE())
    mixed, plain = (gn.Trainer(model, optimizer="adam", device=backend, precision=p) for p in ("mixed", "float32"))
    mixed.fit(x, y, batch_size=16)
    assert model._mixed
    plain.fit(x, y, batch_size=16)
    assert not model._mixed
    assert not any(layer.low for layer in model.layers)
    mixed.fit(x, y, batch_size=16)
    check_rounded(mixed)
    for each in (plain, mixed, plain):  # and step by step
        rows = each.upload_order(np.arange(len(x)))
        each.tally.reset()
        each.step(each.samples(x, y), rows, 16)
        assert model._mixed == (each is mixed)


@on_cpus
def test_weights_that_somebody_writes_between_steps_count_in_the_next(kind):
    x, y = samples(64)
    own, twin = (trainer(device=kind(), optimizer=gn.SGD(0.1)) for _ in range(2))
    for each, afresh in ((own, False), (twin, True)):
        each.fit(x, y, batch_size=16)
        data, rows = each.samples(x, y), each.upload_order(np.arange(64))
        each.tally.reset()
        each.step(data, rows, 16)
        each.model.parameters["0.weight"][...] *= -1
        if afresh:  # which makes all anew
            rows = each.upload_order(np.arange(64))
        each.step(data, rows, 16)
    for name, value in own.model.parameters.items():
        np.testing.assert_array_equal(value, twin.model.parameters[name])


@on_cpus
def test_trainers_of_both_precisions_that_take_turns_at_every_step(kind):
    x, y = samples(64)
    backend, model = kind(), gn.Sequential(DENSE())
    mixed, plain = (gn.Trainer(model, optimizer="adam", device=backend, precision=p) for p in ("mixed", "float32"))
    orders = {}
    for each in (mixed, plain):
        each.fit(x, y, batch_size=16)
        orders[each] = each.upload_order(np.arange(64))
        each.tally.reset()
    data = mixed.samples(x, y)
    for _ in range(3):
        for each in (mixed, plain):
            each.step(data, orders[each], 16)
            assert model._mixed == (each is mixed)
        mixed.step(data, orders[mixed], 1)
        mixed.tally.reset()
        plain.tally.reset()
    check_rounded(mixed)


@on_cpus
def test_a_forward_pass_of_a_model_in_training_mode_sees_the_weights_of_now(kind):
    x, y = samples(64)
    own = trainer(device=kind())
    own.fit(x, y, batch_size=16)
    model, rows = own.model, (x[:16] / 64 - 2).astype(np.float32)
    for name in ("0.weight", "2.weight", "4.weight"):
        model.parameters[name][...] *= -2
    model.train().set_batch_size(16)
    scores = np.array(model.forward(model.backend.asarray(rows)))
    expected = model.outputs(rows)
    assert np.abs(scores - expected).max() < 0.05 * np.abs(expected).max()


def test_steps_are_recorded_once_whatever_epochs_and_checkpoints_there_are(tmp_path):
    x, y = samples(160)
    counts = []
    for precision in ("float32", "mixed"):
        own, recorded = trainer(precision=precision), []
        record = own.backend.record
        own.backend.record = lambda step, record=record, recorded=recorded: recorded.append(step) or record(step)
        own.fit(x, y, epochs=6, batch_size=16, checkpoint=tmp_path / precision, checkpoint_every=1)
        counts.append(len(recorded))
    assert counts[0] == counts[1] > 0


def trained_in_a_child(sender):
    x, y = samples(2000, 64)  # for products that have two threads
    own = gn.Trainer(gn.Sequential([gn.Dense(512, "relu"), gn.Dense(3)]), device=Library(), precision="mixed")
    own.fit(x, y, batch_size=1000)
    sender.send(own.history["train_loss"])


@pytest.mark.skipif(not hasattr(os, "fork") or len(CPUS) < 2, reason="needs fork and numba")
def test_a_forked_process_trains_on(monkeypatch):
    monkeypatch.setattr(onednn, "current_threads", lambda: 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a fork beside threads
        receiver, sender = mp.Pipe(duplex=False)
        trained_in_a_child(sender)
        first = receiver.recv()
        child = mp.get_context("fork").Process(target=trained_in_a_child, args=(sender,))
        child.start()
        assert receiver.poll(60)
        assert receiver.recv() == pytest.approx(first, rel=1e-3)
        child.join(60)
    assert child.exitcode == 0


class Doubled(gn.Dense):
    """A layer of one's own that knows nothing of bfloat16."""

    def forward(self, x):
        y = super().forward(x)
        y *= 2
        return y

    def backward(self, dy):
        dy *= 2
        return super().backward(dy)


class Seen(gn.Dense):
    """One that changes no numbers, and says that it mixes."""

    joins = mixes = True
    kinds_seen: list[str] = []  # noqa: RUF012

    def forward(self, x):
        self.kinds_seen.append(x.dtype.name)
        return super().forward(x)


@on_cpus
def test_layers_of_ones_own(kind):
    x, y = samples()
    nets = [lambda: [gn.Dense(9, "relu"), Doubled(8), gn.Dense(3)], lambda: [Doubled(9), gn.Dense(3)]]
    for net in nets:
        mixed, plain = trainer(net, kind()), trainer(net, kind(), "float32")
        histories = [own.fit(x / 64 - 2, y, epochs=3, batch_size=16)["train_loss"] for own in (mixed, plain)]
        np.testing.assert_allclose(*histories, rtol=0.02)
    Seen.kinds_seen.clear()
    trainer(lambda: [gn.Dense(9, "relu"), Seen(8, "relu"), gn.Dense(3)], kind()).fit(x, y, batch_size=64)
    assert BFLOAT16 in Seen.kinds_seen


class Halved(gn.Flatten):
    """A layer of one's own that reshapes, and computes."""

    def reserve(self, y, dx):
        self.halves = np.empty(y.shape, y.dtype)

    def forward(self, x):
        return np.multiply(super().forward(x), np.float32(0.5), out=self.halves[: len(x)])


@on_cpus
def test_a_layer_that_computes_while_it_reshapes_gets_float32(kind):
    x, y = samples()
    net = lambda: [Halved(), gn.Dense(8, "relu"), gn.Dense(3)]  # noqa: E731
    losses = [
        trainer(net, kind(), p).fit(x / 64 - 2, y, epochs=3, batch_size=16)["train_loss"] for p in ("mixed", "float32")
    ]
    np.testing.assert_allclose(*losses, rtol=0.02)


class Bounded(gn.Dense):
    """A layer whose own attributes begin as those of mixed precision do."""

    def __init__(self, units, **options):
        super().__init__(units, **options)
        self.lower, self.rounded_to, self.low_pass = 3, 2, 1


@pytest.mark.parametrize("how", [copy.deepcopy, lambda own: pickle.loads(pickle.dumps(own))])  # noqa: S301
def test_a_layers_own_attributes_stay_with_its_copies(how):
    twin = how(Bounded(4))
    assert (twin.lower, twin.rounded_to, twin.low_pass) == (3, 2, 1)
    own = trainer(lambda: [gn.LowRankDense(9, 2), gn.Dense(3)])
    own.fit(*samples(), batch_size=16)
    assert not {name for name in own.model.layers[0].__getstate__() if name.startswith(("low", "rounded"))}


def test_bad_words_and_dtypes():
    with pytest.raises(InputError, match="precision is 'half': expected"):
        trainer(precision="half")
    with pytest.raises(InputError, match="float32 weights"):
        trainer(dtype="float64")
    own = trainer(precision="float32")
    with pytest.raises(InputError, match="make another trainer"):
        own.precision = "mixed"


def test_a_machine_without_units_says_so_and_takes_float32():
    class Old(StrictBackend):
        slow_bfloat16 = "this CPU has no units for products of bfloat16"

    x, y = samples()
    with pytest.warns(UserWarning, match="training in float32, not mixed: this CPU has no units") as told:
        own = trainer(device=Old())
    assert len(told) == 1
    assert told[0].filename == __file__
    assert (own.precision, own.trained_in) == ("mixed", "float32")
    own.fit(x, y, batch_size=16)
    plain = trainer(precision="float32")
    plain.fit(x, y, batch_size=16)
    for name, value in state_of(plain).items():
        np.testing.assert_array_equal(value, state_of(own)[name])


def test_tf32_is_of_gpus():
    with pytest.warns(UserWarning, match="not tf32: TF32 is a format of NVIDIA"):
        own = trainer(precision="tf32")
    assert (own.precision, own.trained_in) == ("tf32", "float32")


def test_tf32_is_of_one_threads_products():
    """Trainers in two threads may share a backend, of which one trains in float32."""
    backend, seen = StrictBackend(), []
    backend.tf32 = True
    other = threading.Thread(target=lambda: (seen.append(backend.tf32), setattr(backend, "tf32", False)))
    other.start()
    other.join()
    assert (seen, backend.tf32) == ([False], True)


def test_a_net_too_small_to_gain_says_so_once():
    class Large(StrictBackend):
        least_bfloat16 = 10_000

    x, y = samples()
    own = trainer(device=Large())
    with pytest.warns(UserWarning, match="1,920 multiplications with batches of 16"):
        own.fit(x, y, batch_size=16)
    own.fit(x, y, batch_size=16)  # says nothing more: a warning would be an error
    assert not own.model._mixed
    own.fit(*samples(2000), batch_size=1000)
    assert own.model._mixed


def test_a_trainer_says_what_it_trained_in_last():
    """Of its own steps, whoever trains the model in between; a net that is too small now may be large enough later."""

    class Large(StrictBackend):
        least_bfloat16 = 10_000

    own, (x, y) = trainer(device=Large()), samples()
    plain = gn.Trainer(own.model, device=own.backend)
    with pytest.warns(UserWarning, match="training in float32, not mixed"):
        own.fit(x, y, batch_size=16)
    assert (own.precision, own.trained_in) == ("mixed", "float32")
    own.fit(*samples(2000), batch_size=1000)
    plain.fit(x, y, batch_size=16)
    assert (own.trained_in, plain.trained_in) == ("mixed", "float32")
    assert copy.deepcopy(own).trained_in == "mixed"
