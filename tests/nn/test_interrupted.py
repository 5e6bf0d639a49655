"""Fits that end early, by Ctrl-C or an error: what callbacks borrowed is given back, and the run can be resumed."""

import copy
import os
import signal
import sys

import numpy as np
import pytest

import gpunet as gn
from gpunet.errors import DivergedError, MemoryFullError
from gpunet.interrupts import undivided

X = np.random.default_rng(0).standard_normal((60, 5)).astype("float32")
Y = np.arange(60) % 3
pytestmark = pytest.mark.usefixtures("ctrl_c")


class StopError(Exception):
    pass


class Break(gn.Callback):
    """Raises before a step, at the end of an epoch, or when training begins."""

    def __init__(self, error, step=None, epoch=None, begin=False):
        self.error, self.step, self.epoch, self.begin = error, step, epoch, begin

    def on_fit_begin(self, trainer):
        if self.begin:
            raise self.error

    def steps(self, total):
        return () if self.step is None else (self.step,)

    def on_step(self, trainer, step):
        raise self.error

    def on_epoch_end(self, trainer, epoch, logs):
        if epoch == self.epoch:
            raise self.error


class Ends(gn.Callback):
    """Counts its ends; fails at them where told to."""

    def __init__(self, error=None):
        self.begun = self.ended = 0
        self.error = error

    def on_fit_begin(self, trainer):
        self.begun += 1

    def on_fit_end(self, trainer):
        self.ended += 1
        if self.error:
            raise self.error


def net(**kwargs):
    layers = [gn.Dense(8, "relu"), gn.Dense(6, "relu"), gn.Dense(3)]
    return gn.Trainer(gn.Sequential(layers), optimizer=gn.Adam(1e-2), device="numpy", **kwargs)


def weights(trainer):
    return {name: np.array(value) for name, value in trainer.model.parameters.items()}


def same(one, other):
    for name, value in weights(other).items():
        np.testing.assert_array_equal(weights(one)[name], value, err_msg=name)


BREAKS = [
    Break(KeyboardInterrupt(), step=5), Break(StopError(), epoch=1), Break(KeyboardInterrupt(), begin=True),
    Break(DivergedError("it did"), step=1),
]  # fmt: skip
SCHEDULES = [gn.ExponentialDecay(0.5), gn.StepDecay(0.1, 1), gn.CyclicalRate(0.1, 0.2, 3), gn.CosineDecay()]


@pytest.mark.parametrize("cause", BREAKS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_optimiser_has_its_own_rate_again(schedule, cause):
    for callbacks in ([schedule, cause], [cause, schedule]):
        trainer = net()
        with pytest.raises(type(cause.error)):
            trainer.fit(X, Y, epochs=4, batch_size=16, callbacks=callbacks)
        assert trainer.optimizer.learning_rate == 1e-2
        assert not hasattr(trainer, "plan")


@pytest.mark.parametrize("cause", BREAKS)
def test_every_callback_that_has_begun_comes_to_its_end_once(cause):
    first, bad, last = Ends(), Ends(ValueError("at the end")), Ends()
    with pytest.raises(type(cause.error)) as caught:
        net().fit(X, Y, epochs=4, batch_size=16, callbacks=[first, bad, cause, last])
    assert (first.begun, first.ended, bad.ended) == (1, 1, 1)
    assert last.ended == last.begun == (0 if cause.begin else 1)
    assert "Ends.on_fit_end failed, too: at the end" in caught.value.__notes__
    first, last = Ends(), Ends()
    with pytest.raises(ValueError, match="at the end"):
        net().fit(X, Y, callbacks=[first, bad, last])
    assert (first.ended, last.ended) == (1, 1)


def test_an_interruption_at_the_end_of_one_leaves_the_others_their_turn():
    trainer, last = net(), Ends()
    callbacks = [Ends(KeyboardInterrupt()), gn.CyclicalRate(0.1, 0.2, 3), gn.Factorise(0, 2, policy="always"), last]
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(X, Y, callbacks=callbacks)
    assert trainer.optimizer.learning_rate == 1e-2
    assert all(type(layer) is gn.Dense for layer in trainer.model.layers)
    assert last.ended == 1


def test_two_schedules_are_refused():
    with pytest.raises(gn.errors.InputError, match="2 schedules"):
        net().fit(X, Y, callbacks=[gn.CyclicalRate(0.1, 0.2, 3), gn.ExponentialDecay(0.5)])


@pytest.mark.parametrize("cause", [Break(KeyboardInterrupt(), step=7), Break(StopError(), epoch=2)])
def test_early_stopping_gives_the_best_weights_back(cause):
    best = {}

    class Watch(gn.Callback):
        def on_epoch_end(self, trainer, epoch, logs):
            best[logs["validation_loss"]] = weights(trainer)

    trainer, keeper = net(), gn.EarlyStopping(patience=9)
    with pytest.raises(BaseException):  # noqa: B017
        trainer.fit(
            X, Y, epochs=6, batch_size=16, validation_data=(X[:20], Y[20:40]), callbacks=[keeper, Watch(), cause]
        )
    for name, value in best[min(best)].items():
        np.testing.assert_array_equal(trainer.model.parameters[name], value)
    assert keeper.best == min(best)


def test_factors_are_merged_after_an_interruption():
    trainer = net()
    cut = gn.Factorise(0.1, 2, policy="always", state="carry-both")
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(X, Y, epochs=3, batch_size=16, callbacks=[cut, Break(KeyboardInterrupt(), step=9)])
    assert all(type(layer) is gn.Dense for layer in trainer.model.layers)
    trainer.fit(X, Y)


@pytest.mark.parametrize("cause", [Break(KeyboardInterrupt(), step=9), Break(StopError(), epoch=1)])
@pytest.mark.parametrize(
    "made",
    [
        lambda: [gn.ExponentialDecay(0.5)], lambda: [gn.CosineDecay(), gn.EarlyStopping("train_loss", 3)],
        lambda: [gn.Factorise(0.1, 2, policy="always")], lambda: [gn.StepDecay(0.5, 1), gn.DivergenceGuard(50)],
    ],
)  # fmt: skip
def test_the_same_trainer_resumes_bit_for_bit(tmp_path, made, cause):
    whole, broken = net(), net()
    options = {"epochs": 4, "batch_size": 16}
    whole.fit(X, Y, **options, callbacks=[*made(), Ends()])
    callbacks = made()
    with pytest.raises(type(cause.error)):
        broken.fit(X, Y, **options, checkpoint=tmp_path, checkpoint_every=0.5, callbacks=[*callbacks, cause])
    cause.error, kept = None, cause.error
    quiet = Break(None)
    broken.fit(X, Y, **options, checkpoint=tmp_path, resume=True, callbacks=[*callbacks, quiet])
    cause.error = kept
    same(broken, whole)
    assert broken.optimizer.learning_rate == whole.optimizer.learning_rate == 1e-2


# -- divergence -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["numpy", "cpu"])
@pytest.mark.parametrize("rate", [1e300, 1e25, 3e38])
@pytest.mark.parametrize("batch", [60, 30])
def test_divergence_in_the_last_step_is_seen(device, rate, batch):
    trainer = gn.Trainer(gn.Sequential([gn.Dense(8, "relu"), gn.Dense(3)]), optimizer=gn.SGD(rate), device=device)
    ends = Ends()
    with pytest.raises(DivergedError, match="learning rate") as caught:
        trainer.fit(X, Y, epochs=1, batch_size=batch, callbacks=[ends])
    assert "\n" not in str(caught.value)
    assert ends.ended == 1


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "squared_error"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_divergence_that_only_the_last_batch_shows_is_seen(loss, dtype):
    huge = 1e15 if dtype == "float32" else 1e150
    x = np.zeros((64, 4), dtype)
    x[32:] = np.abs(np.random.default_rng(0).standard_normal((32, 4))) * huge
    model = gn.Sequential([gn.Dense(3, weight="zeros")])
    trainer = gn.Trainer(model, loss, gn.SGD(huge / 1e3), device="numpy", dtype=dtype)
    with pytest.raises(DivergedError):
        trainer.fit(x, np.arange(64) % 3, batch_size=32, shuffle=False)


def test_the_checkpoint_before_divergence_stays(tmp_path):
    class Blow(gn.Callback):
        def steps(self, total):
            return (7,)

        def on_step(self, trainer, step):
            trainer.optimizer.learning_rate = 1e300

    trainer = gn.Trainer(gn.Sequential([gn.Dense(3)]), optimizer=gn.SGD(0.1), device="numpy")
    with pytest.raises(DivergedError):
        trainer.fit(X, Y, batch_size=16, epochs=4, checkpoint=tmp_path, checkpoint_every=0.25, callbacks=[Blow()])
    kept = gn.load(tmp_path / "checkpoint.safetensors", device="numpy")
    assert np.isfinite(kept.flat[0]).all()


def test_a_checkpoint_of_diverged_weights_is_not_written(tmp_path):
    trainer = gn.Trainer(gn.Sequential([gn.Dense(3)]), optimizer=gn.SGD(1e300), device="numpy")
    with pytest.raises(DivergedError):
        trainer.fit(X, Y, batch_size=60, checkpoint=tmp_path)
    assert not (tmp_path / "checkpoint.safetensors").exists()


@pytest.mark.parametrize("device", ["numpy", "cpu"])
@pytest.mark.parametrize("units", [1, 3])
def test_nan_scores_are_of_no_class(device, units):
    layers = [gn.Dense(units, "sigmoid" if units == 1 else None)]
    losses = ("squared_error", "binary_cross_entropy" if units == 1 else "softmax_cross_entropy")
    for loss in losses:
        trainer = gn.Trainer(gn.Sequential(copy.deepcopy(layers)), loss, device=device)
        labels = Y if units == 3 else Y % 2
        trainer.prepare((5,))
        trainer.model.parameters["0.weight"][:] = np.nan
        found = trainer.evaluate(X, labels)
        assert np.isnan(found["loss"])
        assert found["accuracy"] == 0
        with pytest.raises(DivergedError, match="sample 0"):
            trainer.predict(X)
        assert np.isnan(trainer.outputs(X)).all()
    trainer = gn.Trainer(gn.Sequential([gn.Dense(3)]), device=device)
    trainer.prepare((5,))
    trainer.model.parameters["0.bias"][1] = np.nan  # one class of three: no sample has a largest score
    assert trainer.evaluate(X, Y)["accuracy"] == 0


# -- Ctrl-C at any moment ----------------------------------------------------------------------------------------------


class PressedAt:
    """A trace function that sends SIGINT before the n-th line of gpunet's own code that runs."""

    def __init__(self, n):
        self.n, self.lines, self.source = n, 0, os.path.dirname(gn.__file__)

    def __call__(self, frame, event, arg):
        if not frame.f_code.co_filename.startswith(self.source):
            return None
        if event == "line":
            self.lines += 1
            if self.lines == self.n:
                self.where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
                signal.raise_signal(signal.SIGINT)
        return self

    def __enter__(self):
        self.before = sys.gettrace()
        sys.settrace(self)

    def __exit__(self, *_):
        sys.settrace(self.before)


def fit_with_all(trainer, folder, **options):
    callbacks = [
        gn.EarlyStopping("train_loss", 2), gn.Factorise(0.3, 2, policy="always"), gn.StepDecay(0.5, 1),
    ]  # fmt: skip
    return trainer.fit(
        X, Y, epochs=3, batch_size=16, callbacks=callbacks, checkpoint=folder, checkpoint_every=0.5, **options
    )


@pytest.mark.slow
@pytest.mark.parametrize("count", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_ctrl_c_on_any_line_leaves_a_run_that_goes_on(tmp_path, count):
    whole, counter = net(), PressedAt(0)
    fit_with_all(net(), tmp_path / "first")  # some lines run once in a process
    with counter:
        fit_with_all(whole, tmp_path / "whole")
    lines = np.random.default_rng(count).choice(counter.lines, count, replace=False) + 1
    for n in sorted(map(int, lines)):
        trainer, press, folder = net(), PressedAt(n), tmp_path / str(n)
        with pytest.raises(KeyboardInterrupt), press:
            fit_with_all(trainer, folder)
        assert trainer.optimizer.learning_rate == 1e-2, press.where
        assert all(type(layer) is gn.Dense for layer in trainer.model.layers), press.where
        assert [p.name for p in folder.glob(".*")] == [], press.where
        again = trainer if (folder / "checkpoint.safetensors").exists() else net()
        fit_with_all(again, folder, resume=True)
        same(again, whole)


CHANGES = {
    "beta1": lambda t: setattr(t.optimizer, "beta1", 0.5),
    "learning_rate": lambda t: setattr(t.optimizer, "learning_rate", 0.25),
    "restore": lambda t: t.optimizer.restore(
        {**t.optimizer.settings, "l2": 0.5}, *t.export(), t.model.trained_layout, t.model.flat
    ),
    "age_apart": lambda t: t.optimizer.age_apart(3),
    "another": lambda t: setattr(t, "optimizer", gn.SGD(0.1, momentum=0.5)),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_ctrl_c_on_any_line_leaves_an_optimizer_as_it_was_or_as_it_was_to_be(change):
    def everything(trainer):
        arrays, ages = trainer.optimizer.export(trainer.model.trained_layout)
        return {**trainer.optimizer.settings}, {name: array.tolist() for name, array in arrays.items()}, ages

    trained = net()
    trained.fit(X, Y)
    counter, changed = PressedAt(0), copy.deepcopy(trained)
    with counter:
        change(changed)
    ends = [everything(trained), everything(changed)]
    assert ends[0] != ends[1]
    for n in range(1, counter.lines + 1):
        trainer, press = copy.deepcopy(trained), PressedAt(n)
        with pytest.raises(KeyboardInterrupt), press:
            change(trainer)
        assert everything(trainer) in ends, press.where


def test_memory_that_was_full_or_an_interruption_leaves_no_room_that_is_not_there(monkeypatch):
    trainer, whole, empty = net(), net(), type(net().backend).empty
    for error in (MemoryFullError, KeyboardInterrupt):

        def full(backend, shape, dtype="float32", error=error):
            if (shape, dtype) == (16, "int64"):  # the batch's labels
                raise error
            return empty(backend, shape, dtype)

        with monkeypatch.context() as patch:
            patch.setattr(type(trainer.backend), "empty", full)
            with pytest.raises(error):
                trainer.fit(X, Y, batch_size=16)
    for each in (trainer, whole):
        each.fit(X, Y, batch_size=16)
    same(trainer, whole)


def test_a_second_ctrl_c_waits_with_the_first_and_a_late_one_breaks_in(monkeypatch):
    steps = []
    with pytest.raises(KeyboardInterrupt), undivided():  # noqa: PT012
        for turn in range(2):
            steps.append(turn)
            signal.raise_signal(signal.SIGINT)
    assert steps == [0, 1]
    monkeypatch.setattr("gpunet.interrupts.PATIENCE", 0.0)
    steps.clear()
    with pytest.raises(KeyboardInterrupt), undivided():  # noqa: PT012
        for turn in range(2):
            steps.append(turn)
            signal.raise_signal(signal.SIGINT)
        steps.append("not reached")
    assert steps == [0, 1]
    with pytest.raises(KeyboardInterrupt), undivided(), undivided():  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        steps.append("whole")
    assert steps == [0, 1, "whole"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("end", [True, False])
def test_a_handler_that_a_callback_installs_stays(end):
    """As of one's own way to end on Ctrl-C: whatever it finds and puts back, no signal is lost afterwards."""
    got = []

    class Graceful(gn.Callback):
        def on_fit_begin(self, trainer):
            self.before = signal.signal(signal.SIGINT, lambda *_: (got.append(1), trainer.stop("Ctrl-C")))

        def steps(self, total):
            return [1]

        def on_step(self, trainer, step):
            signal.raise_signal(signal.SIGINT)

        def on_fit_end(self, trainer):
            if end:
                signal.signal(signal.SIGINT, self.before)

    before = signal.getsignal(signal.SIGINT)
    try:
        for turn in range(3):
            trainer = net()
            trainer.fit(X, Y, epochs=3, batch_size=16, callbacks=Graceful())
            assert (len(got), trainer.epoch, trainer.stopped) == (turn + 1, 1, "Ctrl-C")
        if end:
            for _ in range(2):
                with pytest.raises(KeyboardInterrupt):
                    signal.raise_signal(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt), undivided():
                signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


class Reseeded(gn.Callback):
    """Sets seed or epoch in the middle of an epoch, and maybe back."""

    def __init__(self, name, values):
        self.name, self.values = name, values

    def steps(self, total):
        return [step for step in self.values if step < total]

    def on_step(self, trainer, step):
        setattr(trainer, self.name, self.values[step])


@pytest.mark.parametrize(
    ("name", "values", "stop"),
    [("seed", {5: 7, 7: 0}, 9), ("epoch", {5: 9}, 7), ("seed", {5: 7}, 7)],
)
def test_an_epoch_whose_order_nothing_tells_is_resumed_from_before_it(tmp_path, name, values, stop):
    def fit(folder, *others, **options):
        trainer = net()
        trainer.fit(
            X, Y, epochs=4, batch_size=16, checkpoint=folder, checkpoint_every=0.25,
            callbacks=[Reseeded(name, values), *others], **options,
        )  # fmt: skip
        return trainer

    whole = fit(tmp_path / "whole")
    quiet = Break(None)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "broken", Break(KeyboardInterrupt(), step=stop))
    same(fit(tmp_path / "broken", quiet, resume=True), whole)


def test_the_order_of_a_fit_is_its_own():
    class Other(gn.Callback):
        def steps(self, total):
            return [1]

        def on_step(self, trainer, step):
            trainer.upload_order(np.zeros(60, int))

    with pytest.raises(gn.errors.InputError, match="order cannot be lined up while a fit runs"):
        net().fit(X, Y, batch_size=16, callbacks=Other())


def test_a_late_one_breaks_into_blocks_within_blocks(monkeypatch):
    monkeypatch.setattr("gpunet.interrupts.PATIENCE", 0.0)
    steps = []
    with pytest.raises(KeyboardInterrupt), undivided(), undivided():  # noqa: PT012
        for turn in range(3):
            steps.append(turn)
            signal.raise_signal(signal.SIGINT)
    assert steps == [0, 1]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_process_forked_in_a_block_hears_signals():
    with undivided(), undivided():
        child = os.fork()
        if not child:
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                os._exit(7)
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_part_that_signals_divide_leaves_the_rest_whole():
    whole = []
    with pytest.raises(KeyboardInterrupt), undivided() as signals:  # noqa: PT012
        with signals.heard(), undivided():
            pass
        signal.raise_signal(signal.SIGINT)
        whole.append(1)
    with pytest.raises(KeyboardInterrupt), undivided() as signals:  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        whole.append(2)
        with signals.heard():
            whole.append("not reached")
    with pytest.raises(KeyboardInterrupt), undivided() as signals, signals.heard(), undivided():  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        whole.append(3)
    assert whole == [1, 2, 3]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_that_a_callback_puts_back_is_the_one_before():
    class Own(gn.Callback):
        def on_fit_begin(self, trainer):
            self.before = signal.signal(signal.SIGINT, lambda *_: trainer.stop("Ctrl-C"))

        def on_fit_end(self, trainer):
            signal.signal(signal.SIGINT, self.before)

    net().fit(X, Y, callbacks=Own())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


class Exchanged(gn.Callback):
    def on_fit_begin(self, trainer):
        trainer.optimizer = gn.SGD(0.1, 0.5)


def test_a_run_whose_optimizer_a_callback_gives_it_resumes_again_and_again(tmp_path):
    def fit(folder, epoch):
        trainer = net()
        callbacks = [Exchanged(), gn.ExponentialDecay(0.9), Break(StopError() if epoch < 8 else None, epoch=epoch)]
        try:
            trainer.fit(X, Y, epochs=8, batch_size=16, callbacks=callbacks, checkpoint=folder, resume=True)
        except StopError:
            return fit(folder, epoch + 2)
        return trainer

    same(fit(tmp_path / "broken", 2), fit(tmp_path / "whole", 8))


def test_the_rate_of_an_epoch_is_that_of_its_steps():
    class Exchange(gn.Callback):
        def on_epoch_end(self, trainer, epoch, logs):
            if epoch == 1:
                trainer.optimizer = gn.SGD(0.3)

    history = net().fit(X, Y, epochs=4, callbacks=[Exchange(), gn.ExponentialDecay(0.5)])
    np.testing.assert_allclose(history["learning_rate"], [0.01, 0.005, 0.075, 0.0375], rtol=1e-12)


def test_a_mistake_in_restore_is_no_damage_of_the_file(tmp_path):
    class Slip(gn.Callback):
        def state(self):
            return {"n": 1}

        def restore(self, state):
            self.n = state["m"]

    net().fit(X, Y, callbacks=Slip(), checkpoint=tmp_path)
    with pytest.raises(gn.errors.InputError, match=r"^Slip.restore\(\) failed: KeyError: 'm'; '.*' itself is whole$"):
        net().fit(X, Y, callbacks=Slip(), checkpoint=tmp_path, resume=True)


def test_a_metric_may_be_an_array_of_one():
    class Metric(gn.Callback):
        def on_epoch_end(self, trainer, epoch, logs):
            logs["m"] = np.array(0.5)

    stopping = gn.EarlyStopping("m", 1)
    net().fit(X, Y, epochs=3, callbacks=[Metric(), stopping])
    assert (stopping.best, stopping.epoch) == (0.5, 0)
