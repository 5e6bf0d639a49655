"""Learning rates that change, training that stops early, and the guard against divergence."""

from __future__ import annotations

import numpy as np
import pytest

import gpunet as gn
from gpunet.backend.numpy_backend import NumpyBackend
from gpunet.errors import DivergedError, InputError
from gpunet.nn.callbacks import Callback, Schedule


class Rates(Callback):
    """The rate on the device at each step; stands after the schedule in the list."""

    def steps(self, total):
        self.seen = []
        return range(total)

    def on_step(self, trainer, step):
        (clock,) = {float(part.scalars[0]) for part in trainer.optimizer.ranges}
        assert clock == trainer.optimizer.learning_rate
        self.seen.append(clock)


def made(rate=0.5, momentum=0.0, seed=0, device="numpy", layers=None):
    model = gn.Sequential(layers or [gn.Dense(8, "relu"), gn.Dense(3)])
    return gn.Trainer(model, optimizer=gn.SGD(rate, momentum), device=device, seed=seed)


@pytest.fixture
def data(rng):
    labels = np.arange(40) % 3
    x = rng.normal(size=(40, 6)) * 0.5
    x[np.arange(40), labels] += 1.5
    return x.astype("float32"), labels


def rates(schedule, data, epochs=6, trainer=None):
    """Of each of the 4 steps of each epoch."""
    seen = Rates()
    (trainer or made()).fit(*data, epochs=epochs, batch_size=10, callbacks=[schedule, seen])
    return seen.seen


# -- schedules --------------------------------------------------------------------------------------------------------

TORCH = {  # by ours: PyTorch's, and whether it goes by steps
    "exponential": (lambda: gn.ExponentialDecay(0.8), lambda s, o: s.ExponentialLR(o, 0.8), False),
    "step": (lambda: gn.StepDecay(0.1, 2), lambda s, o: s.StepLR(o, 2, 0.1), False),
    "cosine": (lambda: gn.CosineDecay(0.01), lambda s, o: s.CosineAnnealingLR(o, 24, 0.01), True),
    "triangular": (
        lambda: gn.CyclicalRate(0.01, 0.3, 5), lambda s, o: s.CyclicLR(o, 0.01, 0.3, 5, cycle_momentum=False), True,
    ),
    "triangular2": (
        lambda: gn.CyclicalRate(0.01, 0.3, 3, halve=True),
        lambda s, o: s.CyclicLR(o, 0.01, 0.3, 3, mode="triangular2", cycle_momentum=False), True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TORCH)
def test_rates_are_pytorchs(name, data):
    torch = pytest.importorskip("torch")
    ours, theirs, by_step = TORCH[name]
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    schedule, want = theirs(torch.optim.lr_scheduler, optimizer), []
    for step in range(24):
        want.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if by_step or step % 4 == 3:
            schedule.step()
    np.testing.assert_allclose(rates(ours(), data), want, rtol=1e-12)


def test_rates_are_the_formulas(data):
    epoch = np.repeat(np.arange(6), 4)
    step = np.arange(24)
    np.testing.assert_allclose(rates(gn.ExponentialDecay(0.9), data), 0.5 * 0.9**epoch, rtol=1e-12)
    np.testing.assert_allclose(rates(gn.StepDecay(0.5, 4), data), np.where(epoch < 4, 0.5, 0.25), rtol=1e-12)
    np.testing.assert_allclose(rates(gn.CosineDecay(), data), 0.25 * (1 + np.cos(np.pi * step / 24)), rtol=1e-12)
    triangle = [1, 2, 3, 4, 3, 2] * 4
    np.testing.assert_allclose(rates(gn.CyclicalRate(1, 4, 3), data), triangle, rtol=1e-12)


def test_the_rate_reaches_the_weights(data):
    """Each epoch with the rate set by hand."""
    scheduled, by_hand = made(momentum=0.9), made(momentum=0.9)
    scheduled.fit(*data, epochs=4, batch_size=10, callbacks=[gn.ExponentialDecay(0.5)])
    for epoch in range(4):
        by_hand.optimizer.learning_rate = 0.5 * 0.5**epoch
        by_hand.fit(*data, epochs=1, batch_size=10)
    np.testing.assert_array_equal(scheduled.model.flat[0], by_hand.model.flat[0])


@pytest.mark.parametrize("name", ["exponential", "step", "triangular", "triangular2"])
def test_decays_and_cycles_go_on_over_calls_of_fit(name, data):
    schedule, trainer = TORCH[name][0], made()
    parts = [rate for epochs in (1, 3, 2) for rate in rates(schedule(), data, epochs, trainer)]
    np.testing.assert_allclose(parts, rates(schedule(), data), rtol=1e-12)


class Sets(Callback):
    """Sets attributes of another callback after an epoch."""

    def __init__(self, other, epoch, **values):
        self.other, self.epoch, self.values = other, epoch, values

    def on_epoch_end(self, trainer, epoch, logs):
        if epoch == self.epoch:
            for name, value in self.values.items():
                setattr(self.other, name, value)


def test_settings_of_schedules_take_effect_when_they_are_set(data):
    def of(schedule, **values):
        seen = Rates()
        made().fit(*data, epochs=3, batch_size=10, callbacks=[Sets(schedule, 0, **values), schedule, seen])
        return seen.seen[4:]

    epoch, step = np.repeat([1, 2], 4), np.arange(4, 12)
    np.testing.assert_allclose(of(gn.ExponentialDecay(0.9), factor=0.2), 0.5 * 0.2**epoch, rtol=1e-12)
    np.testing.assert_allclose(of(gn.StepDecay(0.1, 9), factor=0.5, every=1), 0.5 * 0.5**epoch, rtol=1e-12)
    cosine = 0.2 + 0.15 * (1 + np.cos(np.pi * step / 12))
    np.testing.assert_allclose(of(gn.CosineDecay(), least=0.2), cosine, rtol=1e-12)
    cycle = of(gn.CyclicalRate(1, 4, 3), high=14, low=11, half=1)
    np.testing.assert_allclose(cycle, [11, 14] * 4, rtol=1e-12)


@pytest.mark.parametrize("name", TORCH)
def test_the_optimiser_gets_its_own_rate_back(name, data):
    trainer = made()
    history = trainer.fit(*data, epochs=3, batch_size=10, callbacks=[TORCH[name][0]()])
    assert trainer.optimizer.learning_rate == 0.5
    assert len(history["learning_rate"]) == 3
    assert all(float(part.scalars[0]) == 0.5 for part in trainer.optimizer.ranges)


def test_the_rate_reaches_every_age_of_factored_layers(data):
    schedule, seen, trainer = gn.CyclicalRate(0.01, 0.1, 3), Rates(), made(momentum=0.9)
    cut = gn.Factorise(0.5, 2, state="carry", policy="always", merge=False)
    trainer.fit(*data, epochs=2, batch_size=10, callbacks=[cut, schedule, seen])
    assert len(seen.seen) == 8


def test_a_decay_may_underflow(data):
    assert rates(gn.ExponentialDecay(1e-200), data)[-1] > 0


@pytest.mark.parametrize("rate", [float("nan"), float("inf"), -1e-9, "x", None, True])
def test_a_rate_that_is_none_is_named(rate, data):
    class Own(Schedule):
        def rate(self, place):
            return rate if place == 2 else 0.1

    trainer = made()
    with pytest.raises(InputError, match=r"Own\.rate\(2\) cannot be .*: expected a finite number ≥ 0"):
        trainer.fit(*data, epochs=3, batch_size=10, callbacks=[Own()])
    assert trainer.optimizer.learning_rate == 0.5


def test_an_optimizer_that_is_exchanged_has_the_rates_of_its_own(data):
    class Exchange(Callback):
        def on_epoch_end(self, trainer, epoch, logs):
            trainer.optimizer = {1: second, 3: first}.get(epoch, trainer.optimizer)

    cosine = (1 + np.cos(np.pi * np.arange(20) / 20)) / 2
    exponential = np.repeat(0.9 ** np.arange(5), 4)
    base = np.repeat([0.5, 0.5, 0.2, 0.2, 0.5], 4)
    for before, schedule, factor in (
        (False, gn.CosineDecay(), cosine), (True, gn.CosineDecay(), cosine),
        (True, gn.ExponentialDecay(0.9), exponential),
    ):  # fmt: skip
        trainer, seen = made(), Rates()
        first, second = trainer.optimizer, gn.SGD(0.2)
        callbacks = [Exchange(), schedule] if before else [schedule, Exchange()]
        trainer.fit(*data, epochs=5, batch_size=10, callbacks=[*callbacks, seen])
        np.testing.assert_allclose(seen.seen, base * factor, rtol=1e-12)
        assert (first.learning_rate, second.learning_rate) == (0.5, 0.2)


def test_a_rate_for_each_step_does_not_wait_for_the_device(data):
    """As often as training without a schedule reads from the device, or waits for it."""

    class Counting(NumpyBackend):
        waits = 0

        def to_host(self, array):
            self.waits += 1
            return super().to_host(array)

        def synchronize(self):
            self.waits += 1

    waits = []
    for callbacks in ([], [gn.CyclicalRate(0.01, 0.1, 3)], [gn.CosineDecay()], [gn.ExponentialDecay(0.9)]):
        trainer = made(device=Counting())
        trainer.fit(*data, epochs=2, batch_size=2, callbacks=callbacks)
        waits.append(trainer.backend.waits)
    assert len(set(waits)) == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gn.ExponentialDecay(0), "factor cannot be 0"),
        (lambda: gn.ExponentialDecay(1.1), "factor cannot be 1.1"),
        (lambda: gn.StepDecay(0.5, 0), "every is 0: expected a whole number ≥ 1"),
        (lambda: gn.StepDecay(0.5, 1.5), "every is 1.5"),
        (lambda: gn.StepDecay(-1, 2), "factor cannot be -1"),
        (lambda: gn.CyclicalRate(0, 1, 3), "low cannot be 0"),
        (lambda: gn.CyclicalRate(0.2, 0.1, 3), "high cannot be 0.1: expected a finite number ≥ 0.2"),
        (lambda: gn.CyclicalRate(0.1, 0.2, 0), "half is 0"),
        (lambda: gn.CosineDecay(-1), "least cannot be -1"),
        (lambda: gn.EarlyStopping(patience=0), "patience is 0: expected a whole number of epochs ≥ 1"),
        (lambda: gn.EarlyStopping(patience=True), "patience is True"),
        (lambda: gn.EarlyStopping(least=-1), "least cannot be -1"),
        (lambda: gn.DivergenceGuard(1), "times cannot be 1: expected a finite number > 1"),
        (lambda: gn.DivergenceGuard(float("nan")), "times cannot be nan"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(InputError, match=message):
        make()


# -- early stopping ---------------------------------------------------------------------------------------------------


class Script(Callback):
    """Writes a metric as it is told, and keeps the weights of each epoch."""

    def __init__(self, name, values):
        self.name, self.values, self.weights = name, values, []

    def on_epoch_end(self, trainer, epoch, logs):
        logs[self.name] = self.values[epoch]
        self.weights.append({name: value.copy() for name, value in trainer.model.parameters.items()})


@pytest.mark.parametrize(
    ("metric", "values", "options", "epochs", "best"),
    [
        ("error", [5, 4, 3, 3, 3, 1, 0], {"patience": 3}, 7, 6),
        ("error", [5, 4, 3, 3, 4, 3, 0], {"patience": 3}, 6, 2),
        ("error", [5, 4, 3, 3, 4, 3, 0], {"patience": 4}, 7, 6),
        ("error", [1, 2, 3, 4, 5, 6, 7], {"patience": 1}, 2, 0),
        ("error", [5, 4.5, 4, 3.5, 3, 2.5, 2], {"patience": 2, "least": 0.6}, 7, 6),
        ("error", [5, 4.9, 4.8, 4.7, 0, 0, 0], {"patience": 2, "least": 0.6}, 3, 0),
        ("some_accuracy", [1, 2, 3, 2, 3, 9, 9], {"patience": 2}, 5, 2),
        ("error", [float("nan"), 3, float("nan"), float("inf"), -float("inf"), 0, 0], {"patience": 3}, 5, 1),
        ("error", [float("nan")] * 7, {"patience": 3}, 3, None),
        ("error", [7, 6, 5, 4, 3, 2, 1], {"patience": 1}, 7, 6),
        ("error", [7, 1, 5, 4, 3, 2, 1], {"patience": 9}, 7, 1),
        ("error", [1, 2, 3, 4, 5, 6, 7], {"patience": 1, "restore_best": False}, 2, 1),
    ],
)
def test_it_stops_after_the_patience_and_restores_the_best(metric, values, options, epochs, best, data):
    script, stopping, trainer = Script(metric, values), gn.EarlyStopping(metric, **options), made()
    history = trainer.fit(*data, epochs=7, batch_size=10, callbacks=[script, stopping])
    assert len(history.epochs) == epochs
    waited = options["patience"]
    assert trainer.stopped == (f"{metric} has not improved for {waited} epochs" if waited < 8 and epochs < 7 else "")
    if options.get("restore_best", True) and best is not None:
        assert (stopping.epoch, stopping.best) == (best, values[best])
    for name, value in trainer.model.parameters.items():
        np.testing.assert_array_equal(value, script.weights[epochs - 1 if best is None else best][name])


@pytest.mark.parametrize("value", ["high", np.ones(2), None, True])
def test_a_metric_that_is_no_number_is_named(value, data):
    with pytest.raises(InputError, match=r"'score' in the history is .*: expected a number"):
        made().fit(*data, callbacks=[Script("score", [value]), gn.EarlyStopping("score")])
    with pytest.raises(InputError, match=r"validation_loss in the history is .*: expected a number"):
        made().fit(*data, callbacks=[Script("validation_loss", [value])])


@pytest.mark.parametrize("steps", [[-1], [10**30], [True], [1.0], ["x"], range(-2, 3), range(10**30)])
def test_steps_that_are_none_are_named(steps, data):
    class Asks(Callback):
        def steps(self, total):
            return steps

    with pytest.raises(InputError, match=r"a step of Asks\.steps\(\) is .*: expected a whole number from 0"):
        made().fit(*data, callbacks=[Asks()])


@pytest.mark.parametrize(
    ("values", "epochs", "best"),
    [
        ({"patience": 4}, 7, 6), ({"patience": 1}, 4, 2), ({"restore_best": False}, 6, None),
        ({"metric": "other_accuracy"}, 7, 6), ({"least": 3.5}, 6, 2),
    ],
)  # fmt: skip
def test_settings_of_early_stopping_take_effect_in_mid_training(values, epochs, best, data):
    """Another metric is not compared with the best of the one before."""
    script, other = Script("error", [5, 4, 3, 3, 4, 3, 0]), Script("other_accuracy", [9, 9, 9, 0, 0.1, 0.2, 0.3])
    stopping, trainer = gn.EarlyStopping("error", 3), made()
    late = Sets(stopping, 2, **values)
    history = trainer.fit(*data, epochs=7, batch_size=10, callbacks=[script, other, stopping, late])
    assert len(history.epochs) == epochs
    for name, value in trainer.model.parameters.items():
        np.testing.assert_array_equal(value, script.weights[epochs - 1 if best is None else best][name])


def test_an_overfitted_net_is_as_good_as_in_its_best_epoch(backend, rng):
    x, y = rng.normal(size=(60, 20)).astype("float32"), rng.integers(0, 3, 60)
    trainer = gn.Trainer(gn.Sequential([gn.Dense(64, "relu"), gn.Dense(3)]), optimizer=gn.Adam(0.02), device=backend)
    held_out = (x[40:], y[40:])
    history = trainer.fit(
        x[:40], y[:40], epochs=50, batch_size=10, validation_data=held_out, callbacks=[gn.EarlyStopping(patience=3)]
    )
    assert len(history.epochs) < 50
    assert trainer.evaluate(*held_out)["loss"] == min(history["validation_loss"]) < history["validation_loss"][-1]


@pytest.mark.parametrize(("pretrain", "kind"), [(0.75, gn.Dense), (0.1, gn.LowRankDense)])
def test_the_best_epoch_comes_back_in_its_own_layers(pretrain, kind, data):
    script, trainer = Script("error", [3, 2, 1, 4]), made()
    cut = gn.Factorise(pretrain, 2, policy="always", merge=False)
    trainer.fit(*data, epochs=4, batch_size=10, callbacks=[script, gn.EarlyStopping("error"), cut])
    assert isinstance(trainer.model.layers[0], kind)
    assert {type(layer) for layer in trainer.model.layers[1:]} == {gn.Dense}
    for name, value in trainer.model.parameters.items():
        np.testing.assert_array_equal(value, script.weights[2][name])
    trainer.fit(*data, epochs=1, batch_size=10)  # and training goes on


@pytest.mark.parametrize("pretrain", [0.1, 0.75])
def test_factors_are_merged_after_the_best_epoch_came_back(pretrain, data):
    script, trainer = Script("error", [3, 2, 1, 4]), made()
    cut = gn.Factorise(pretrain, 2, policy="always")
    trainer.fit(*data, epochs=4, batch_size=10, callbacks=[script, gn.EarlyStopping("error"), cut])
    best = script.weights[2]
    want = best["0.weight"] if pretrain == 0.75 else best["0.left"] @ best["0.right"]
    np.testing.assert_allclose(trainer.model.parameters["0.weight"], want, rtol=1e-6, atol=1e-7)


def test_a_metric_that_is_not_there(data):
    trainer = made()
    with pytest.raises(InputError, match="looks at validation_loss: give fit validation_data or validation_split, too"):
        trainer.fit(*data, callbacks=[gn.EarlyStopping()])
    assert trainer.epoch == 0
    with pytest.raises(InputError, match="looks at 'loss', the history has train_loss, train_accuracy, seconds"):
        trainer.fit(*data, callbacks=[gn.EarlyStopping("loss")])


# -- divergence -------------------------------------------------------------------------------------------------------


def test_a_cost_above_three_times_its_start_is_divergence(backend, data):
    """A cost that stays finite: the guard looks, not the check for NaN."""
    wild = made(60.0, device=backend)
    with pytest.raises(DivergedError, match=r"after epoch 1 is .*, above 3 times the .* before .* rate 60: lower"):
        wild.fit(*data, epochs=5, batch_size=10, callbacks=[gn.DivergenceGuard()])
    assert np.isfinite(wild.evaluate(*data)["loss"])
    tame = made(0.1, device=backend)
    tame.fit(*data, epochs=5, batch_size=10, callbacks=[guard := gn.DivergenceGuard()])
    assert guard.start == pytest.approx(made(device=backend).evaluate(*data)["loss"], rel=1e-6)


@pytest.mark.parametrize(("factor", "diverges"), [(0.99, True), (1.01, False)])
def test_the_factor_is_that_of_the_cost_over_its_start(factor, diverges, data):
    trainer = made(20.0)
    trainer.prepare((6,))
    start = trainer.evaluate(*data)["loss"]
    trainer.fit(*data, batch_size=10)
    ratio = trainer.evaluate(*data)["loss"] / start
    assert ratio > 1.1
    trainer = made(20.0)
    guarded = [gn.DivergenceGuard(ratio * factor)]
    if diverges:
        with pytest.raises(DivergedError, match="after epoch 1"):
            trainer.fit(*data, batch_size=10, callbacks=guarded)
    else:
        trainer.fit(*data, batch_size=10, callbacks=guarded)


def test_the_guard_looks_at_samples_of_every_class_of_a_large_set(rng):
    """2500 samples sorted by class: every third is looked at."""
    x, y = rng.normal(size=(2500, 6)).astype("float32"), np.sort(np.arange(2500) % 3)
    trainer, guard = made(1e-30), gn.DivergenceGuard()
    trainer.fit(x, y, batch_size=500, callbacks=[guard])
    assert guard.start == pytest.approx(made().evaluate(x[::3], y[::3])["loss"], rel=1e-5)


def test_weights_that_are_not_numbers_are_divergence(data):
    class Poison(Callback):
        def on_epoch_end(self, trainer, epoch, logs):
            trainer.model.parameters["2.bias"][0] = np.nan

    with pytest.raises(DivergedError, match="training cost after epoch 1 is nan"):
        made().fit(*data, batch_size=10, callbacks=[Poison(), gn.DivergenceGuard()])


def test_the_guard_changes_nothing(data):
    plain, guarded = made(), made()
    plain.fit(*data, epochs=3, batch_size=7)
    guarded.fit(*data, epochs=3, batch_size=7, callbacks=[gn.DivergenceGuard()])
    np.testing.assert_array_equal(plain.model.flat[0], guarded.model.flat[0])
