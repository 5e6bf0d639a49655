"""Checkpoints: a run that was interrupted anywhere ends as one that was not, and what does not fit is refused."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import pytest

import gpunet as gn
from gpunet.errors import DataError, DivergedError, InputError, OutputError
from gpunet.nn import checkpoint
from gpunet.nn.callbacks import Callback, Schedule
from gpunet.nn.checkpoint import FILE, KEY
from gpunet.progress import Progress
from gpunet.tensorfile import read, seal

N, BATCH, EPOCHS = 50, 16, 3  # 4 steps an epoch, the last on 2 samples


def data(dtype="float32", n=N, seed=7):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    x = rng.normal(size=(n, 8)) * 0.6
    x[np.arange(n), labels] += 1.5
    if dtype == "uint8":
        return np.clip(x * 40 + 90, 0, 255).astype("uint8"), labels
    return x.astype(dtype), labels


class Interrupted(Exception):  # noqa: N818
    pass


class Interrupt(Callback):
    """Raises right before one step."""

    def __init__(self, at=None):
        self.at = at

    def steps(self, total):
        return () if self.at is None else (self.at,)

    def on_step(self, trainer, step):
        raise Interrupted


def net():
    return [gn.Dense(12, "relu"), gn.Dense(10, "sigmoid"), gn.Dense(3)]


# Of each: optimiser, callbacks, and what differs from the usual.
RUNS = {
    "sgd": (lambda: gn.SGD(0.2), list, {}),
    "momentum float64 in order": (
        lambda: gn.SGD(0.1, 0.9, l2=1e-3), list, {"dtype": "float64", "shuffle": False},
    ),
    "adam uint8 frozen": (
        lambda: gn.Adam(0.02), list,
        {"x": "uint8", "layers": lambda: [gn.Dense(12, "relu", trainable=False), *net()[1:]]},
    ),
    "nothing trained": (
        lambda: gn.Adam(), list, {"layers": lambda: [gn.Dense(3, trainable=False)]},
    ),
    "dropout": (
        lambda: gn.Adam(0.02), lambda: [gn.StepDecay(0.5, 1)],
        {"validated": True, "layers": lambda: [gn.Dropout(0.1), net()[0], gn.Dropout(0.4), *net()[1:]]},
    ),
    "adam factorise restart": (lambda: gn.Adam(0.02, l2=1e-3), lambda: [gn.Factorise(0.4, 3)], {}),
    "adamw factorise": (lambda: gn.AdamW(0.02, weight_decay=0.1), lambda: [gn.Factorise(0.4, 3)], {}),
    "adam factorise carry": (lambda: gn.Adam(0.02), lambda: [gn.Factorise(0.3, 3, state="carry", merge=False)], {}),
    "momentum factorise carry-both": (
        lambda: gn.SGD(0.1, 0.9), lambda: [gn.Factorise(0.6, {"2": 2}, state="carry-both")], {},
    ),
    "factorise auto": (
        lambda: gn.Adam(0.1), lambda: [gn.Factorise("auto", policy="count", merge=False)], {"epochs": 5},
    ),
    "two factorisations": (
        lambda: gn.Adam(0.02),
        lambda: [gn.Factorise(0.2, {"0": 2}, state="carry", merge=False), gn.Factorise(0.7, {"2": 2}, merge=False)], {},
    ),
    "schedules": (lambda: gn.SGD(0.2, 0.9), lambda: [gn.ExponentialDecay(0.5)], {}),
    "cyclical": (lambda: gn.SGD(0.2, 0.9), lambda: [gn.CyclicalRate(0.01, 0.3, 3)], {}),
    "cosine guard": (lambda: gn.Adam(0.02), lambda: [gn.CosineDecay(), gn.DivergenceGuard()], {}),
    "early stopping": (
        lambda: gn.SGD(0.9, 0.9),
        lambda: [gn.EarlyStopping(patience=1), gn.StepDecay(0.5, 1), gn.Factorise(0.5, 2, policy="always")],
        {"validated": True, "epochs": 6},
    ),
}  # fmt: skip


def start(name="sgd", device="numpy", seed=3):
    """(trainer, its callbacks, call of fit) of a run by name; `fit` takes what else is to be given."""
    optimizer, callbacks, options = RUNS[name]
    dtype = options.get("dtype", "float32")
    model = gn.Sequential(options.get("layers", net)())
    trainer = gn.Trainer(model, optimizer=optimizer(), device=device, dtype=dtype, seed=seed)
    made = callbacks()
    x, y = data(options.get("x", dtype))
    held_out = data(options.get("x", dtype), n=21, seed=8) if options.get("validated") else None

    def fit(interrupt=None, **more):
        return trainer.fit(
            x, y, **{"epochs": options.get("epochs", EPOCHS), "batch_size": BATCH, "validation_data": held_out}
            | {"callbacks": [Interrupt(interrupt), *made], "shuffle": options.get("shuffle", True)} | more,
        )  # fmt: skip

    return trainer, made, fit


def everything(trainer):
    """All that a run leaves behind but its seconds: arrays by name, and the rest."""
    to_host, optimizer = trainer.backend.to_host, trainer.optimizer
    arrays = {name: np.array(to_host(p)) for name, p in trainer.model.parameters.items()}
    arrays |= {f"state {name}": np.array(to_host(state)) for name, state in optimizer.state.items()}
    arrays |= {f"scalars {i}": np.array(to_host(part.scalars)) for i, part in enumerate(optimizer.ranges)}
    history = [{key: value for key, value in epoch.items() if key != "seconds"} for epoch in trainer.history.epochs]
    rest = {
        "layers": trainer.model.config(), "history": history, "epoch": trainer.epoch, "stopped": trainer.stopped,
        "settings": dict(optimizer.settings), "ranges": [(len(part.params), part.decayed) for part in optimizer.ranges],
    }  # fmt: skip
    return arrays, rest


def assert_same(one, other):
    (arrays, rest), (arrays_too, rest_too) = one, other
    assert rest == rest_too
    assert arrays.keys() == arrays_too.keys()
    for name, array in arrays.items():
        assert array.dtype == arrays_too[name].dtype
        np.testing.assert_array_equal(array, arrays_too[name], err_msg=name)


# -- resuming ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RUNS)
def test_interrupted_before_any_step_it_ends_as_if_it_had_not_been(name, tmp_path):
    undisturbed, _, fit = start(name)
    fit()
    steps = 4 * len(undisturbed.history.epochs)
    assert steps >= 8
    want = everything(undisturbed)
    for at in range(1, steps):
        folder = tmp_path / str(at)
        with pytest.raises(Interrupted):
            start(name)[2](at, checkpoint=folder, checkpoint_every=at / 4)
        resumed, made, fit = start(name)
        fit(checkpoint=folder, checkpoint_every=9, resume=True)
        assert_same(everything(resumed), want)
        for callback in made:
            if isinstance(callback, gn.Factorise):
                assert callback.conversions
                assert isinstance(callback.conversions[0].shape, tuple)


@pytest.mark.parametrize("every", [0.01, 0.3, 0.5, 0.74, 1, 1.5, 2, 100])
def test_between_checkpoints_the_steps_are_done_again(every, tmp_path):
    undisturbed, _, fit = start("adam factorise carry")
    fit()
    for at in (5, 6, 8, 11):
        folder = tmp_path / str(at)
        with pytest.raises(Interrupted):
            start("adam factorise carry")[2](at, checkpoint=folder, checkpoint_every=every)
        assert (folder / FILE).exists() == (at >= max(1, round(4 * every)))
        resumed, _, fit = start("adam factorise carry")
        fit(checkpoint=folder, checkpoint_every=every, resume=True)
        assert_same(everything(resumed), everything(undisturbed))


@pytest.mark.parametrize("name", ["momentum float64 in order", "early stopping", "dropout"])
def test_on_every_backend(backend, name, tmp_path):
    undisturbed, _, fit = start(name, backend)
    fit()
    with pytest.raises(Interrupted):
        start(name, backend)[2](7, checkpoint=tmp_path, checkpoint_every=0.5)
    resumed, _, fit = start(name, backend)
    fit(checkpoint=tmp_path, resume=True)
    assert_same(everything(resumed), everything(undisturbed))


def test_saving_changes_nothing_and_leaves_one_file(tmp_path):
    plain, _, fit = start("early stopping")
    fit()
    saved, _, fit = start("early stopping")
    fit(checkpoint=tmp_path / "new" / "folder", checkpoint_every=0.25)
    assert_same(everything(saved), everything(plain))
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == [FILE]


def test_without_a_checkpoint_it_starts_at_the_beginning(tmp_path):
    plain, _, fit = start()
    fit()
    resumed, _, fit = start()
    fit(checkpoint=tmp_path, resume=True)
    assert_same(everything(resumed), everything(plain))


def test_a_finished_run_is_not_trained_again(tmp_path):
    first, _, fit = start("early stopping")
    fit(checkpoint=tmp_path)
    content = (tmp_path / FILE).read_bytes()
    again, made, fit = start("early stopping")
    assert fit(checkpoint=tmp_path, resume=True).epochs == first.history.epochs
    assert_same(everything(again), everything(first))
    assert again.stopped.startswith("validation_loss has not improved for 1 epochs")
    assert made[0].best == min(again.history["validation_loss"])
    assert (tmp_path / FILE).read_bytes() == content


def test_a_finished_run_goes_on_with_another_call(tmp_path):
    once, _, fit = start()
    fit()
    fit(epochs=2)
    start()[2](checkpoint=tmp_path)
    _, _, fit = start()
    fit(checkpoint=tmp_path, resume=True)
    with pytest.raises(Interrupted):
        fit(5, epochs=2, checkpoint=tmp_path, checkpoint_every=0.25)  # a run of its own: nothing to resume
    third, _, fit = start()
    assert len(fit(epochs=2, checkpoint=tmp_path, resume=True).epochs) == 2
    assert_same(everything(third), everything(once))


@pytest.mark.parametrize("name", ["cyclical", "cosine guard", "schedules"])
def test_a_second_fit_goes_on_in_a_new_trainer(name, tmp_path):
    """Callbacks begin in a trainer that has trained nothing, and must learn from the checkpoint that this one had."""
    once, made, fit = start(name)
    fit(epochs=2)
    fit()
    _, _, fit = start(name)
    fit(epochs=2)
    with pytest.raises(Interrupted):
        fit(5, checkpoint=tmp_path, checkpoint_every=0.25)
    resumed, made_too, fit = start(name)
    fit(checkpoint=tmp_path, resume=True)
    assert_same(everything(resumed), everything(once))
    for one, other in zip(made, made_too, strict=True):
        assert one.state() == other.state()


def test_a_layer_replaced_between_the_last_step_and_the_checkpoint(tmp_path):
    class Cut(Callback):
        def on_epoch_end(self, trainer, epoch, logs):
            if epoch == 0:
                trainer.model.replace("2", gn.factorise(trainer.model.layer("2"), 2), state="carry-both")

    undisturbed, _, fit = start("adam uint8 frozen")
    fit(callbacks=[Cut(), Interrupt()])
    with pytest.raises(Interrupted):
        start("adam uint8 frozen")[2](callbacks=[Cut(), Interrupt(4)], checkpoint=tmp_path)
    resumed, _, fit = start("adam uint8 frozen")
    fit(callbacks=[Cut(), Interrupt()], checkpoint=tmp_path, resume=True)
    assert_same(everything(resumed), everything(undisturbed))


def test_the_same_trainer_may_go_on(tmp_path):
    undisturbed, _, fit = start("adam uint8 frozen")
    fit()
    trainer, _, fit = start("adam uint8 frozen")
    with pytest.raises(Interrupted):
        fit(6, checkpoint=tmp_path, checkpoint_every=0.25)
    fit(checkpoint=tmp_path, resume=True)
    assert_same(everything(trainer), everything(undisturbed))


def test_an_epoch_in_which_a_callback_stops_is_finished(tmp_path):
    class Stop(Callback):
        def steps(self, total):
            return [5]

        def on_step(self, trainer, step):
            trainer.stop("enough")

    whole, _, fit = start()
    fit(callbacks=[Stop(), Interrupt()])
    assert (whole.stopped, len(whole.history.epochs), whole.epoch) == ("enough", 2, 2)
    for at in (5, 6, 7):
        with pytest.raises(Interrupted):
            start()[2](callbacks=[Stop(), Interrupt(at)], checkpoint=tmp_path / str(at), checkpoint_every=0.25)
        resumed, _, fit = start()
        fit(callbacks=[Stop(), Interrupt()], checkpoint=tmp_path / str(at), resume=True)
        assert_same(everything(resumed), everything(whole))


def test_training_time_is_counted_on(tmp_path):
    with pytest.raises(Interrupted):
        start()[2](6, checkpoint=tmp_path, checkpoint_every=0.25)
    _, metadata = read(tmp_path / FILE)
    saved = json.loads(metadata[KEY])
    assert (saved["step"], saved["epoch"], len(saved["history"])) == (6, 1, 1)
    assert saved["seconds"] > 0
    arrays, metadata = read(tmp_path / FILE)
    metadata[KEY] = json.dumps(saved | {"seconds": 1000.0})
    (tmp_path / FILE).write_bytes(seal(arrays, metadata))
    history = start()[2](checkpoint=tmp_path, resume=True)
    assert history["seconds"][0] == saved["history"][0]["seconds"] < 1000
    assert 1000 < history["seconds"][1] < 2000
    assert history["seconds"][2] < 1000


def test_progress_counts_the_steps_before(tmp_path):
    class Counter(Progress):
        done = 0

        def advance(self, parts=1, note=""):
            self.done += parts

    for at in (5, 8):
        with pytest.raises(Interrupted):
            start()[2](at, checkpoint=tmp_path, checkpoint_every=0.25)
        start()[2](checkpoint=tmp_path, resume=True, progress=(bar := Counter()))
        assert bar.done == 12


def test_a_diverged_run_keeps_its_last_good_checkpoint(tmp_path):
    class Poison(Callback):
        def steps(self, total):
            return [6]

        def on_step(self, trainer, step):
            trainer.model.parameters["4.bias"][0] = np.nan

    with pytest.raises(DivergedError):
        start()[2](callbacks=[Poison()], checkpoint=tmp_path, checkpoint_every=0.25)
    arrays, metadata = read(tmp_path / FILE)
    assert json.loads(metadata[KEY])["step"] == 6
    assert all(np.isfinite(array).all() for array in arrays.values())


def test_numpys_numbers_in_the_history_are_kept(tmp_path):
    class Looks(Callback):
        def on_epoch_end(self, trainer, epoch, logs):
            logs |= {"single": np.float32(0.1), "count": np.int64(epoch), "nothing": float("nan")}

    start()[2](callbacks=[Looks()], checkpoint=tmp_path)
    history = start()[2](callbacks=[Looks()], checkpoint=tmp_path, resume=True)
    assert history["single"] == [float(np.float32(0.1))] * 3
    assert history["count"] == [0, 1, 2]
    assert np.isnan(history["nothing"]).all()


def test_what_json_cannot_hold_is_named(tmp_path):
    class Odd(Callback):
        def state(self):
            return {"seen": {1, 2}}

    with pytest.raises(InputError, match=r"keeps numbers, text, lists and arrays, got set: \{1, 2\}"):
        start()[2](callbacks=[Odd()], checkpoint=tmp_path)


class Told(Callback):
    """Has the state and the configuration that it is given."""

    def __init__(self, state=None, config=None):
        self.told, self.own, self.found = state, {} if config is None else config, None

    def state(self):
        return self.told

    def restore(self, state):
        self.found = state

    def config(self):
        return self.own


circle: list = []
circle.append(circle)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (None, r"Told.state\(\) returned None: expected a dictionary whose keys are texts"),
        ([1, 2], r"Told.state\(\) returned \[1, 2\]: expected"),
        ({3: 4}, r"Told.state\(\) returned \{3: 4\}: expected"),
        ({"seen": np.array([None])}, r"Told.state\(\)\['seen'\] has dtype object: expected real numbers"),
        ({"seen": np.zeros(2, "M8[s]")}, r"Told.state\(\)\['seen'\] has dtype datetime64\[s\]: expected"),
        ({"seen": np.ma.array([1, 2], mask=[0, 1])}, r"Told.state\(\)\['seen'\] is a masked array"),
        ({"seen": [np.zeros(2)]}, r"Told.state\(\) cannot be kept: .* got ndarray"),
        ({"seen": {(1, 2): 3}}, r"Told.state\(\) cannot be kept: .* keys must be str"),
        ({"\ud800": np.zeros(2)}, r"Told.state\(\) cannot be kept: .*surrogates not allowed"),
        ({"seen": circle}, r"Told.state\(\) cannot be kept: .* Circular"),
    ],
)  # fmt: skip
def test_a_state_that_cannot_be_kept_is_named_at_the_first_save(state, message, tmp_path):
    with pytest.raises(InputError, match=message) as caught:
        start()[2](callbacks=[gn.Factorise(), Told(state)], checkpoint=tmp_path, checkpoint_every=0.25)
    assert str(caught.value).isprintable()
    assert not (tmp_path / FILE).exists()


def test_a_configuration_that_is_none_is_named(tmp_path):
    with pytest.raises(InputError, match=r"Told.config\(\) returned \[1\]: expected a dictionary"):
        start()[2](callbacks=[Told({}, [1])], checkpoint=tmp_path)


def test_a_state_comes_back_as_it_was(tmp_path):
    state = {"scalar": np.array(5.0), "none": np.zeros((0, 3), "int8"), "big": np.arange(3, dtype=">f4"), "word": "a"}
    start()[2](callbacks=[Told(state)], checkpoint=tmp_path)
    start()[2](callbacks=[told := Told(state)], checkpoint=tmp_path, resume=True)
    assert told.found.keys() == state.keys()
    assert told.found["word"] == "a"
    for name in ("scalar", "none", "big"):
        np.testing.assert_array_equal(told.found[name], state[name], strict=name != "big")


# -- exchanged in mid-training ----------------------------------------------------------------------------------------


class Change(Callback):
    """Changes the trainer after its first epoch, before a step, or as training begins."""

    def __init__(self, change, when="epoch"):
        self.change, self.when = change, when

    def on_fit_begin(self, trainer):
        if self.when == "begin":
            self.change(trainer)

    def steps(self, total):
        return () if isinstance(self.when, str) else (self.when,)

    def on_step(self, trainer, step):
        self.change(trainer)

    def on_epoch_end(self, trainer, epoch, logs):
        if (self.when, epoch) == ("epoch", 0):
            self.change(trainer)


# Of each: what a callback does, what a run has then, and how the difference from the beginning is named.
EXCHANGED = {
    "loss": (
        lambda t: setattr(t, "loss", "squared_error"), lambda: {"loss": "squared_error"},
        'loss class is "SoftmaxCrossEntropy" here and "SquaredError" there',
    ),
    "reduction": (
        lambda t: setattr(t.loss, "reduction", "sum"), lambda: {"loss": gn.SoftmaxCrossEntropy("sum")},
        'loss reduction is "mean" here and "sum" there',
    ),
    "seed": (lambda t: setattr(t, "seed", 9), lambda: {"seed": 9}, "seed is 3 here and 9 there"),
    "optimizer": (
        lambda t: setattr(t, "optimizer", gn.SGD(0.1, 0.9)), lambda: {"optimizer": gn.SGD(0.1, 0.9)},
        'optimizer class is "Adam" here and "SGD" there',
    ),
    "settings": (
        lambda t: setattr(t, "optimizer", gn.Adam(0.03, l2=1e-3)), lambda: {"optimizer": gn.Adam(0.03, l2=1e-3)},
        r"optimizer learning_rate is 0\.02 here and 0\.03 there",
    ),
}  # fmt: skip


def changing(change, interrupt=None, folder=None, when="epoch", loss="softmax_cross_entropy", optimizer=None, seed=3):
    """A run whose trainer is changed, saved before each step; resumed where its folder holds a checkpoint."""
    trainer = gn.Trainer(gn.Sequential(net()), loss, optimizer or gn.Adam(0.02), device="numpy", seed=seed)
    callbacks = [Change(change, when), gn.ExponentialDecay(0.7), Interrupt(interrupt)]
    options = {} if folder is None else {"checkpoint": folder, "checkpoint_every": 0.25, "resume": True}
    trainer.fit(*data(), epochs=3, batch_size=BATCH, callbacks=callbacks, **options)
    return trainer


@pytest.mark.parametrize("what", EXCHANGED)
def test_what_a_callback_exchanged_is_what_the_run_is_resumed_with(what, tmp_path):
    change, then, message = EXCHANGED[what]
    want = everything(changing(change))
    for at in (2, 4, 5, 8, 10):
        folder = tmp_path / str(at)
        with pytest.raises(Interrupted):
            changing(change, at, folder)
        if at > 3:
            with pytest.raises(InputError, match=rf"of another run: {message}; resume with what that run had, or"):
                changing(change, None, folder)
            with pytest.raises(InputError, match=r"of another run: loss (class|reduction) is .* here and .* there"):
                changing(change, None, folder, **then() | {"loss": gn.SquaredError("sum")})
            with pytest.raises(Interrupted):
                changing(change, at + 1, folder, **then())  # and be interrupted again
        assert_same(everything(changing(change, None, folder, **(then() if at > 3 else {}))), want)


@pytest.mark.parametrize("schedule", [gn.CosineDecay, lambda: gn.StepDecay(0.5, 1)], ids=["cosine", "step"])
def test_a_schedule_goes_on_from_the_exchanged_optimizers_own_rate(schedule, tmp_path):
    def run(interrupt=None, folder=None, optimizer=None):
        trainer = gn.Trainer(gn.Sequential(net()), optimizer=optimizer or gn.SGD(0.1), device="numpy")
        exchange = Change(lambda trainer: setattr(trainer, "optimizer", gn.SGD(0.3, 0.9)))
        options = {} if folder is None else {"checkpoint": folder, "checkpoint_every": 0.25, "resume": True}
        callbacks = [schedule(), exchange, Interrupt(interrupt)]
        trainer.fit(*data(), epochs=3, batch_size=BATCH, callbacks=callbacks, **options)
        assert trainer.optimizer.learning_rate == 0.3
        return trainer

    want = everything(run())
    for at in (2, 4, 5, 8, 10):  # at 4 the checkpoint is saved before the schedule has looked again
        with pytest.raises(Interrupted):
            run(at, tmp_path / str(at))
        assert_same(everything(run(None, tmp_path / str(at), gn.SGD(0.3, 0.9) if at > 3 else None)), want)


@pytest.mark.parametrize("what", EXCHANGED)
def test_what_is_exchanged_as_training_begins_is_exchanged_again(what, tmp_path):
    change, then, _ = EXCHANGED[what]
    want = everything(changing(change, when="begin"))
    for options in ({}, then()):
        folder = tmp_path / str(len(options))
        with pytest.raises(Interrupted):
            changing(change, 6, folder, "begin")
        assert_same(everything(changing(change, None, folder, "begin", **options)), want)


def test_a_seed_set_in_mid_epoch_is_saved_with_the_next_epoch(tmp_path):
    """The order of the epoch that runs is not what seed and epoch say."""
    change, then, _ = EXCHANGED["seed"]
    want = everything(changing(change, when=5))
    for at, step, options in ((7, 5, {}), (8, 8, then()), (9, 9, then()), (11, 11, then())):
        folder = tmp_path / str(at)
        with pytest.raises(Interrupted):
            changing(change, at, folder, when=5)
        assert json.loads(read(folder / FILE)[1][KEY])["step"] == step
        assert_same(everything(changing(change, None, folder, when=5, **options)), want)


def test_settings_of_the_same_optimizer_are_not_exchanged(tmp_path):
    def change(trainer):
        trainer.optimizer.learning_rate, trainer.optimizer.l2 = 0.05, 1e-3

    with pytest.raises(Interrupted):
        changing(change, 6, tmp_path)
    assert_same(everything(changing(change, None, tmp_path)), everything(changing(change)))


def test_a_checkpoint_that_does_not_say_what_was_exchanged(tmp_path):
    with pytest.raises(Interrupted):
        start()[2](6, checkpoint=tmp_path, checkpoint_every=0.25)
    arrays, metadata = read(tmp_path / FILE)
    saved = json.loads(metadata.pop(KEY))
    del saved["exchanged"]
    (tmp_path / FILE).write_bytes(seal(arrays, metadata | {KEY: json.dumps(saved)}))
    undisturbed, _, fit = start()
    fit()
    resumed, _, fit = start()
    fit(checkpoint=tmp_path, resume=True)
    assert_same(everything(resumed), everything(undisturbed))


# -- the file ---------------------------------------------------------------------------------------------------------


def test_the_model_is_read_from_a_checkpoint_in_mid_training(tmp_path):
    trainer, _, fit = start("adam factorise carry")
    with pytest.raises(Interrupted):
        fit(7, checkpoint=tmp_path, checkpoint_every=0.25)
    x = data()[0]
    model = gn.load(tmp_path / FILE, "numpy")
    assert isinstance(model.layers[0], gn.LowRankDense)
    np.testing.assert_array_equal(gn.Trainer(model, device="numpy").outputs(x), trainer.outputs(x))
    gn.save(model, tmp_path / "model")
    again = gn.load(tmp_path / "model", "numpy")
    np.testing.assert_array_equal(gn.Trainer(again, device="numpy").outputs(x), trainer.outputs(x))


def test_the_optimisers_state_lies_in_the_file_by_parameter(tmp_path):
    trainer, _, fit = start("adam factorise carry")
    fit(checkpoint=tmp_path)
    arrays, _ = read(tmp_path / FILE)
    assert set(arrays) == (
        set(trainer.model.parameters)
        | {f"optimizer/{kind}/{name}" for kind in ("first", "second") for name in trainer.model.gradients}
        | {"optimizer/clocks", "tally/totals", "tally/cursor"}
    )
    for name, value in trainer.model.parameters.items():
        np.testing.assert_array_equal(arrays[name], value)
        assert arrays[f"optimizer/first/{name}"].shape == value.shape
    assert arrays["optimizer/first/0.left"].any()


@pytest.mark.parametrize("moment", ["write", "fsync", "rename"])
def test_dying_while_saving_leaves_the_old_checkpoint(moment, tmp_path, monkeypatch):
    with pytest.raises(Interrupted):
        start()[2](3, checkpoint=tmp_path, checkpoint_every=0.25)
    old = (tmp_path / FILE).read_bytes()

    def die(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        if moment == "write":
            patched.setattr(os, "fdopen", HalfWritten)
        else:
            patched.setattr(os, {"fsync": "fsync", "rename": "replace"}[moment], die)
        with pytest.raises(KeyboardInterrupt):
            start()[2](checkpoint=tmp_path, checkpoint_every=0.25, resume=True)
    assert (tmp_path / FILE).read_bytes() == old
    undisturbed, _, fit = start()
    fit()
    resumed, _, fit = start()
    fit(checkpoint=tmp_path, resume=True)
    assert_same(everything(resumed), everything(undisturbed))
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


class HalfWritten:
    """A file whose writing stops in the middle."""

    def __init__(self, handle, mode):
        self.file = open(handle, mode)  # noqa: SIM115

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.file.close()

    def write(self, content):
        self.file.write(content[: len(content) // 2])
        raise KeyboardInterrupt


@pytest.mark.parametrize("room", ["never", "beside", "later"])
def test_a_disk_that_is_full_costs_no_training(tmp_path, monkeypatch, room):
    """It is said when it begins, and at the end where the last checkpoint could not be written either."""
    undisturbed, _, fit = start()
    fit()
    folder, calls, real = tmp_path / "run", [], os.fsync

    def full(handle):
        calls.append(handle)
        if room == "never" or (room == "beside" and len(calls) < 13) or len(calls) < 3:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(os, "fsync", full)
    trainer, _, fit = start()
    with pytest.warns(RuntimeWarning) as said:
        fit(checkpoint=folder, checkpoint_every=0.25)
    assert_same(everything(trainer), everything(undisturbed))
    first, *last = [str(each.message) for each in said]
    name = re.escape(str(folder / FILE))
    assert re.fullmatch(rf"no checkpoint: cannot write '{name}': No space left on device; training goes on, .*", first)
    ends = {"never": "; nor could it be kept .*", "beside": rf"; it is kept as '.*run-kept/{FILE}'"}
    if room == "later":
        assert (last, (folder / FILE).exists()) == ([], True)
    else:
        assert re.fullmatch(rf"the last checkpoint is missing: cannot write '{name}': .*{ends[room]}", last[0])
        assert len(last) == 1
        assert not (folder / FILE).exists()
    kept = {"never": [], "beside": ["run-kept"], "later": []}[room]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", *kept]
    if kept:
        resumed, _, fit = start()
        fit(checkpoint=tmp_path / "run-kept", checkpoint_every=0.25, resume=True)
        assert_same(everything(resumed), everything(undisturbed))


def test_a_folder_that_vanished_is_made_again(tmp_path):
    import shutil

    class Vandal(Callback):
        def on_epoch_end(self, trainer, epoch, logs):
            shutil.rmtree(tmp_path / "run")

    start()[2](checkpoint=tmp_path / "run", callbacks=[Vandal()])
    assert [path.name for path in (tmp_path / "run").iterdir()] == [FILE]


def test_two_runs_in_one_folder_at_once(tmp_path):
    """The second is told, and the first one's checkpoint is not touched; afterwards the folder is free."""

    class Second(Callback):
        def on_epoch_end(self, trainer, epoch, logs):
            other, _, fit = start()
            with pytest.raises(OutputError, match=rf"another training run is writing to '{tmp_path}': .* checkpoint$"):
                fit(checkpoint=tmp_path)
            assert other.epoch == 0

    _, _, fit = start()
    fit(callbacks=[Second()], checkpoint=tmp_path)
    with pytest.raises(Interrupted):
        start()[2](3, checkpoint=tmp_path)
    start()[2](checkpoint=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_file_is_told_before_training(tmp_path, kind):
    path = tmp_path / FILE
    {"link": lambda: path.symlink_to(tmp_path / "else"), "pipe": lambda: os.mkfifo(path), "folder": path.mkdir}[kind]()
    trainer, _, fit = start()
    with pytest.raises(OutputError, match="neither followed nor replaced"):
        fit(checkpoint=tmp_path, resume=True)
    assert (trainer.epoch, [each.name for each in tmp_path.iterdir()]) == (0, [FILE])


def test_a_folder_that_cannot_be_written_is_named_before_training(tmp_path):
    (tmp_path / "file").touch()
    trainer, _, fit = start()
    with pytest.raises(OutputError, match=r"cannot write to '.*file'"):
        fit(checkpoint=tmp_path / "file")
    assert trainer.epoch == 0


# -- refused ----------------------------------------------------------------------------------------------------------


def other_data():
    x, y = data()
    x[40, 3] += 1e-6
    return x, y


def other_labels():
    x, y = data()
    y[2] = 0
    return x, y


def run_with(layers=net, loss="softmax_cross_entropy", optimizer=None, dtype="float32", seed=3, xy=None, **options):
    trainer = gn.Trainer(
        gn.Sequential(layers()), loss, optimizer or gn.Adam(0.02), device="numpy", dtype=dtype, seed=seed
    )
    trainer.prepare((xy or data())[0].shape[1:])
    before = trainer.model.flat[0].copy()
    options = {"epochs": 3, "batch_size": 16, "callbacks": [gn.Factorise(0.4, 2)]} | options
    try:
        trainer.fit(*(xy or data()), **options)
    finally:
        if options.get("resume"):
            np.testing.assert_array_equal(trainer.model.flat[0], before)
            assert trainer.epoch == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": lambda: [gn.Dense(13, "relu"), *net()[1:]]}, "layers 0 units is 13 here and 12 there"),
        ({"layers": lambda: net()[1:]}, "layers are 2 here and 3 there"),
        ({"layers": lambda: [gn.Dense(12), *net()[1:]]}, 'layers 0 activation is "identity" here and "relu" there'),
        ({"loss": gn.SoftmaxCrossEntropy("sum")}, 'loss reduction is "sum" here and "mean" there'),
        ({"loss": "squared_error"}, 'loss class is "SquaredError" here and "SoftmaxCrossEntropy" there'),
        ({"optimizer": gn.SGD(0.02)}, 'optimizer class is "SGD" here and "Adam" there'),
        ({"optimizer": gn.Adam(0.02, beta2=0.99)}, r"optimizer beta2 is 0\.99 here and 0\.999 there"),
        ({"optimizer": gn.Adam(0.03)}, r"optimizer learning_rate is 0\.03 here and 0\.02 there"),
        ({"dtype": "float64"}, 'dtype is "float64" here and "float32" there'),
        ({"seed": 4}, "seed is 4 here and 3 there"),
        ({"batch_size": 10}, "batch_size is 10 here and 16 there"),
        ({"epochs": 4}, "epochs is 4 here and 3 there"),
        ({"shuffle": False}, "shuffle is false here and true there"),
        ({"xy": data(n=49)}, "data shape 0 is 49 here and 50 there"),
        ({"xy": data("float64")}, 'data dtype is "float64" here and "float32" there'),
        ({"xy": other_data()}, "data digest is"),
        ({"xy": other_labels()}, "data digest is"),
        ({"validation_data": data(n=9)}, r"validation_data is \{.*\} here and null there"),
        ({"callbacks": []}, "callbacks are 0 here and 1 there"),
        (
            {"callbacks": [gn.ExponentialDecay(0.9)]},
            'callbacks 0 class is "ExponentialDecay" here and "Factorise" there',
        ),
        ({"callbacks": [gn.Factorise(0.4, 3)]}, "callbacks 0 rank rank is 3 here and 2 there"),
        ({"callbacks": [gn.Factorise(0.4, gn.Energy(0.9))]}, 'callbacks 0 rank class is "Energy" here and "FixedRank"'),
        ({"callbacks": [gn.Factorise(0.4, {"0": 2})]}, "callbacks 0 rank 0 is given here and not there"),
        ({"callbacks": [gn.Factorise(0.5, 2)]}, "callbacks 0 pretrain is 0.5 here and 0.4 there"),
        ({"callbacks": [gn.Factorise(0.4, 2, state="carry")]}, 'callbacks 0 state is "carry" here and "restart" there'),
        ({"callbacks": [gn.Factorise(0.4, 2, merge=False)]}, "callbacks 0 merge is false here and true there"),
    ],
)
def test_another_run_is_refused_and_the_difference_named(change, message, tmp_path):
    run_with(checkpoint=tmp_path)
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(InputError, match=f"is of another run: {message}") as caught:
        run_with(**change, checkpoint=tmp_path, resume=True)
    assert "\n" not in str(caught.value)
    assert (tmp_path / FILE).read_bytes() == before


class Slower(Schedule):
    """A schedule of one's own."""

    def __init__(self, by):
        self.by = by

    def rate(self, place):
        return self.base / (1 + self.by * place)


@pytest.mark.parametrize(
    ("then", "now", "message"),
    [
        (gn.ExponentialDecay(0.5), gn.ExponentialDecay(0.9), "factor is 0.9 here and 0.5 there"),
        (gn.StepDecay(0.5, 1), gn.StepDecay(0.5, 2), "every is 2 here and 1 there"),
        (gn.CyclicalRate(0.01, 0.1, 4), gn.CyclicalRate(0.01, 0.1, 4, halve=True), "halve is true here and false"),
        (gn.CosineDecay(), gn.CosineDecay(1e-3), "least is 0.001 here and 0.0 there"),
        (gn.EarlyStopping("train_loss"), gn.EarlyStopping("train_accuracy"), 'metric is "train_accuracy" here and'),
        (gn.EarlyStopping("train_loss", 2), gn.EarlyStopping("train_loss", 3), "patience is 3 here and 2 there"),
        (gn.DivergenceGuard(9.0), gn.DivergenceGuard(8.0), "times is 8.0 here and 9.0 there"),
        (Slower(0.1), Slower(np.float64(0.2)), "by is 0.2 here and 0.1 there"),
    ],
)
def test_callbacks_with_other_settings_are_refused(then, now, message, tmp_path):
    run_with(callbacks=[gn.Factorise(0.4, 2), then], checkpoint=tmp_path)
    with pytest.raises(InputError, match=f"is of another run: callbacks 1 {message}"):
        run_with(callbacks=[gn.Factorise(0.4, 2), now], checkpoint=tmp_path, resume=True)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("kernels", "numba", 'kernels is "numpy" here and "numba" there'), ("threads", 64, "threads is"),
        ("numpy", "1.0", "numpy is"), ("device", "cuda:0", 'device is "cpu" here and "cuda:0" there'),
    ],
)  # fmt: skip
def test_other_bits_are_said_and_the_run_goes_on(name, value, message, tmp_path, monkeypatch):
    usual = checkpoint.machine
    monkeypatch.setattr(checkpoint, "machine", lambda *about: usual(*about) | {name: value})
    run_with(checkpoint=tmp_path)
    monkeypatch.undo()
    trainer = gn.Trainer(gn.Sequential(net()), optimizer=gn.Adam(0.02), device="numpy", seed=3)
    options = {"epochs": 3, "batch_size": 16, "callbacks": [gn.Factorise(0.4, 2)], "checkpoint": tmp_path}
    with pytest.warns(UserWarning, match=f"other bits are computed: {message}") as caught:
        history = trainer.fit(*data(), **options, resume=True)
    assert caught[0].filename == __file__
    assert len(history.epochs) == 3


def test_the_threads_of_numpys_products_are_told():
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        assert checkpoint.machine(gn.get_backend("cpu"))["threads"] == 1


def test_large_sets_are_looked_at_in_part(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "LOOKED_AT", 50 * 32 // 4)
    run_with(checkpoint=tmp_path)
    for row, found in ((39, False), (40, True)):
        x, y = data()
        x[row, 3] += 1
        if found:
            with pytest.raises(InputError, match="data digest"):
                run_with(xy=(x, y), checkpoint=tmp_path, resume=True)
        else:
            gn.Trainer(gn.Sequential(net()), optimizer=gn.Adam(0.02), device="numpy", seed=3).fit(
                x, y, epochs=3, batch_size=16, callbacks=[gn.Factorise(0.4, 2)], checkpoint=tmp_path, resume=True
            )


def refused(folder, message):
    """Resuming from the file there fails, and leaves it as it was."""
    before = (folder / FILE).read_bytes()
    with pytest.raises(DataError, match=message) as caught:
        run_with(checkpoint=folder, resume=True)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    assert (folder / FILE).read_bytes() == before


@pytest.mark.slow
def test_truncated_and_changed_files(tmp_path):
    run_with(checkpoint=tmp_path)
    whole = (tmp_path / FILE).read_bytes()
    for size in [0, 4, 8, 9, 100, *range(200, len(whole), len(whole) // 20), len(whole) - 1]:
        (tmp_path / FILE).write_bytes(whole[:size])
        refused(tmp_path, "not a readable safetensors file")
    for place in range(3, len(whole), len(whole) // 150):
        changed = bytearray(whole)
        changed[place] ^= 1
        (tmp_path / FILE).write_bytes(changed)
        refused(tmp_path, "is not a readable safetensors file|does not match its digest|is no checkpoint")
    (tmp_path / FILE).write_bytes(whole + b"\0")
    refused(tmp_path, "not a readable safetensors file")


def test_a_changed_weight_is_found_by_the_digest(tmp_path):
    run_with(checkpoint=tmp_path)
    changed = bytearray((tmp_path / FILE).read_bytes())
    changed[-3] ^= 64
    (tmp_path / FILE).write_bytes(changed)
    refused(tmp_path, "does not match its digest: it was cut short or changed; delete it to start afresh")


FORGED = {
    "rate": lambda saved, clocks: saved["optimizer"].update(learning_rate=-1.0),
    "rate everywhere": lambda saved, clocks: (saved["optimizer"].update(learning_rate=-1.0), clocks.put(0, -1.0)),
    "beta1": lambda saved, clocks: (saved["optimizer"].update(beta1=1.0), clocks.put(1, 1.0)),
    "other clock": lambda saved, clocks: clocks.put(1, 1.0),
    "text": lambda saved, clocks: saved["optimizer"].update(beta1="0.9"),
    "age below": lambda saved, clocks: saved["ages"].update({"0.weight": -1}),
    "age beyond": lambda saved, clocks: saved["ages"].update({"0.weight": 1}),
    "age": lambda saved, clocks: saved["ages"].update({"0.weight": False}),
    "negated": lambda saved, clocks: np.negative(clocks, out=clocks),
    "steps": lambda saved, clocks: clocks.put(5, -3.0),
    "seconds": lambda saved, clocks: saved.update(seconds=-1.0),
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
def test_a_forged_optimizer_is_refused_before_anything_is_changed(forge, tmp_path):
    run_with(checkpoint=tmp_path, callbacks=[])
    arrays, metadata = read(tmp_path / FILE)
    saved, arrays = json.loads(metadata.pop(KEY)), {name: np.array(array) for name, array in arrays.items()}
    assert len(arrays["optimizer/clocks"]) == 1
    forge(saved, arrays["optimizer/clocks"])
    metadata.pop("sha256")
    (tmp_path / FILE).write_bytes(seal(arrays, metadata | {KEY: json.dumps(saved)}))
    with pytest.raises(DataError, match="is damaged"):
        run_with(checkpoint=tmp_path, callbacks=[], resume=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, logs: setattr(t, "stopped", 5), "stopped is 5: expected a text"),
        (lambda t, logs: setattr(t, "seconds", -1), "seconds cannot be -1: expected a finite number ≥ 0"),
        (lambda t, logs: setattr(t, "history", []), "history of a Trainer cannot be set any more"),
        (lambda t, logs: logs.update(train_loss="low"), "train_loss in the history is 'low': expected a number"),
        (lambda t, logs: logs.pop("seconds"), "seconds in the history is None: expected a number"),
    ],
)  # fmt: skip
def test_what_a_resumed_run_would_call_damaged_is_not_saved(change, message, tmp_path):
    class Sets(Callback):
        def on_epoch_end(self, trainer, epoch, logs):
            change(trainer, logs) if epoch == 1 else None

    with pytest.raises(InputError, match=message):
        start()[2](callbacks=[Sets()], checkpoint=tmp_path)
    assert json.loads(read(tmp_path / FILE)[1][KEY])["step"] == 4


def test_files_of_another_kind(tmp_path):
    run_with(checkpoint=tmp_path)
    arrays, metadata = read(tmp_path / FILE)
    metadata.pop("sha256")
    other = {KEY: json.dumps(json.loads(metadata[KEY]) | {"format": 9})}
    (tmp_path / FILE).write_bytes(seal(arrays, metadata | other))
    refused(tmp_path, "has format 9, this gpunet reads 2")
    model = gn.Sequential(net())
    model.build((8,), gn.get_backend("numpy"))
    gn.save(model, tmp_path / FILE)
    refused(tmp_path, "is no checkpoint of a training run: choose another folder")
    (tmp_path / FILE).write_bytes(b"PK\x03\x04 something else entirely, and long enough")
    refused(tmp_path, "not a readable safetensors file")


def test_settings(tmp_path):
    for options, message in [
        ({"resume": True}, "resume=True needs the folder of the checkpoint"),
        ({"checkpoint": tmp_path, "checkpoint_every": 0}, "checkpoint_every cannot be 0"),
        ({"checkpoint": tmp_path, "checkpoint_every": "often"}, "checkpoint_every cannot be 'often'"),
    ]:
        with pytest.raises(InputError, match=message):
            start()[2](**options)


# -- killed -----------------------------------------------------------------------------------------------------------


class Beat(Callback):
    """A line before each step."""

    def steps(self, total):
        return range(total)

    def on_step(self, trainer, step):
        print(step, flush=True)


def killed_run(folder, resume=True):
    """The run of the kill test, 200 steps; in a process of its own it saves before each of them."""
    trainer = gn.Trainer(gn.Sequential(net()), optimizer=gn.Adam(0.01), device="numpy", seed=5)
    callbacks = [gn.ExponentialDecay(0.97), gn.Factorise(0.3, 3, state="carry-both"), *([Beat()] if resume else [])]
    trainer.fit(
        *data(n=80), epochs=40, batch_size=16, callbacks=callbacks, validation_data=data(n=21, seed=8),
        checkpoint=folder if resume else None, checkpoint_every=0.2, resume=resume,
    )  # fmt: skip
    return trainer


@pytest.mark.slow
@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_moments_it_ends_bit_for_bit_the_same(kills, tmp_path):
    arrays, rest = everything(killed_run(tmp_path, resume=False))
    chance = random.Random(kills)
    command = [sys.executable, "-W", "error", __file__, str(tmp_path)]
    began = []
    for _ in range(kills):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            began.append(int(process.stdout.readline()))
            for _ in range(chance.randint(1, 4)):
                process.stdout.readline()
            time.sleep(chance.uniform(0, 0.012))  # a step and its checkpoint take about 6 ms
            process.kill()
        assert process.returncode == -9
    assert began[0] == 0
    assert began == sorted(set(began)), "each process came further than the one before"
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[0]) > began[-1]
    with np.load(tmp_path / "result.npz") as found:
        result = {name: found[name] for name in found.files}
    assert_same((result, json.loads((tmp_path / "result.json").read_text())), (arrays, json.loads(json.dumps(rest))))


if __name__ == "__main__":
    to = Path(sys.argv[1])
    arrays, rest = everything(killed_run(to))
    np.savez(to / "result.npz", **arrays)
    (to / "result.json").write_text(json.dumps(rest))


# As msgspec has these types, which a plain install is without.
ORACLE = {
    "table": dict[str, Any], "count": Annotated[int, msgspec.Meta(ge=0)], "number": float, "text": str,
    "list of table": list[dict[str, Any]], "table of number": dict[str, float],
    "table of count": dict[str, Annotated[int, msgspec.Meta(ge=0)]],
}  # fmt: skip
VALUES = [
    None, True, False, 0, 1, -1, 2**70, 0.0, 1.0, 0.5, -0.5, "", "text", "1", [], {}, [1], [[]], [{}],
    [{}, {"a": 1}], [{}, 1],
    {"a": 1}, {"a": 0.5}, {"a": -1}, {"a": True}, {"a": "1"}, {"a": None}, {"a": {}},
    {"a": 1, "b": -1}, {"a": 1, "b": [2]},
]  # fmt: skip


@pytest.mark.parametrize("kind", sorted({*checkpoint.ENTRY.values()}))
def test_what_stands_in_a_checkpoint_is_held_against_its_kind_as_strictly_as_msgspec_does(kind):
    accepted = 0
    for value in VALUES:
        try:
            msgspec.convert(value, ORACLE[kind])
            right = True
        except msgspec.ValidationError:
            right = False
        ours = checkpoint._is(value, kind)
        accepted += ours
        assert right or not ours, (value, kind)
        integral = "count" in kind and "1.0" in repr(value)  # which msgspec takes for a whole number
        assert ours or not right or integral or value == 0.0, (value, kind)
    assert 2 <= accepted < len(VALUES) - 10
