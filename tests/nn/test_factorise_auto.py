"""Factorise("auto"): when it cuts, which layers and to which rank, and that it says why."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

import gpunet as gn
from gpunet.errors import InputError
from gpunet.nn.callbacks import Callback
from gpunet.spectral import auto

EPOCHS, BATCH = 20, 30


def learner(widths=(60, 40), seed=0, optimizer=None, device="numpy"):
    layers = [*(gn.Dense(width, "relu") for width in widths), gn.Dense(3)]
    return gn.Trainer(gn.Sequential(layers), optimizer=optimizer or gn.Adam(2e-2), device=device, seed=seed)


@pytest.fixture
def data(rng):
    labels = np.arange(120) % 3
    x = rng.normal(size=(120, 50)) * 0.4
    x[np.arange(120), labels] += 2
    return x.astype("float32"), labels


@pytest.fixture
def clock(monkeypatch):
    """A stopwatch that takes no time: `ratio(name, rank)` is what it says, and in `asked` stands what it was asked."""

    class Clock:
        asked = []  # noqa: RUF012
        ratio = staticmethod(lambda name, rank: 0.5)

        def __call__(self, layer, rank, batch, optimizer, backend, *, dtype, needs_dx):
            self.asked.append((layer.name, rank))
            return self.ratio(layer.name, rank), self.ratio(layer.name, rank)

    clock = Clock()
    clock.asked = []
    monkeypatch.setattr("gpunet.spectral.factorise.payoff", clock)
    monkeypatch.setattr(auto, "SHARE", math.inf)
    return clock


class Weights(Callback):
    """A copy of each weight before every step, float64, and the kinds of the layers."""

    def steps(self, total):
        self.seen, self.kinds = [], []
        return range(total)

    def on_step(self, trainer, step):
        layers = trainer.model.layers
        self.kinds.append("".join("F" if isinstance(each, gn.LowRankDense) else "D" for each in layers))
        self.seen.append([np.array(each.weight, "float64") if isinstance(each, gn.Dense) else None for each in layers])


def fit(data, cut, *more, epochs=EPOCHS, trainer=None, **options):
    trainer = trainer or learner()
    trainer.fit(*data, epochs=epochs, batch_size=BATCH, callbacks=[*more, cut], **options)
    return trainer


# -- the formulas, computed by other means ----------------------------------------------------------------------------


def stable(weight):
    s = np.linalg.svd(weight, compute_uv=False)
    return float((s**2).sum() / s[0] ** 2)


def test_ranks_are_those_of_the_papers_formula(data):
    """ξ‖W‖_F²/σ₁² from LAPACK in float64, of the weights that training has before the step of the cut."""
    cut, weights = gn.Factorise("auto", policy="count"), Weights()
    fit(data, cut, weights)
    assert [each.converted for each in cut.conversions] == [True, True]
    for place, layer in ((0, "0"), (1, "2")):
        done = next(each for each in cut.conversions if each.layer == layer)
        first, now = weights.seen[0][place], weights.seen[done.step][place]
        xi = min(now.shape) / stable(first)
        assert done.rank == math.ceil(xi * stable(now)) < min(now.shape)
        assert gn.ScaledStableRank(xi)(now.shape, np.linalg.svd(now, compute_uv=False)) == done.rank
        assert [kinds[place] for kinds in weights.kinds] == ["D"] * (done.step + 1) + ["F"] * (79 - done.step)


@pytest.mark.parametrize("epsilon", [None, 1e9])
def test_a_scale_that_is_given_is_the_one_that_is_used(data, epsilon):
    for scale in (0.5, 3.0, 1e9):
        rule, weights = gn.ScaledStableRank(scale, epsilon), Weights()
        cut = gn.Factorise("auto", rule, policy="count", merge=False)
        fit(data, cut, weights)
        assert cut.conversions
        for done in cut.conversions:
            now = weights.seen[min(done.step, len(weights.seen) - 1)][("0", "2").index(done.layer)]
            assert done.rank == min(*now.shape, math.ceil(scale * stable(now)))


def savings(shape, ranks, before, at, following, total):
    """What is saved by a cut now, and by one at the next look, in dense steps of the layer; exact."""
    m, n = shape
    ahead = max(1, ranks[-1] + (following - at) * Fraction(ranks[-1] - ranks[-2], at - before))
    now, later = (1 - Fraction(rank * (m + n), m * n) for rank in (ranks[-1], ahead))
    return now * (total - at), later * (total - following)


def test_a_layer_is_cut_as_soon_as_waiting_costs_more_than_it_saves(rng):
    cut_at = []
    for _ in range(200):
        total, shape = int(rng.integers(40, 5000)), tuple(int(d) for d in rng.integers(20, 300, 2))
        places = sorted({total * k // 20 for k in range(16)})
        assert auto.steps(total) == places
        full = min(shape)
        curve = 1 + (rng.uniform(2, full) - 1) * np.exp(-np.arange(16) / rng.uniform(0.5, 10))
        watch, looks = auto.Watch(), []
        for i, step in enumerate(places):
            looks.append(float(curve[i]))
            rule = gn.ScaledStableRank(epsilon=None)
            due = watch.due(plan_of(total), step, {"a": (shape, looks[-1], rule)})
            if i == 0:
                assert due == {}
                continue
            ranks = [math.ceil(full * (value / looks[0])) for value in looks]
            now, later = savings(shape, ranks, places[i - 1], step, (*places, total)[i + 1], total)
            assert due == ({"a": ranks[-1]} if now >= later else {})
            if due:
                cut_at.append(i)
                break
    assert len(set(cut_at)) > 5  # sooner and later


class plan_of:  # noqa: N801
    """As much of a plan as is asked for."""

    def __init__(self, total, per_epoch=10):
        self.total, self.per_epoch = total, per_epoch


@pytest.mark.parametrize("per_epoch", [3, 10, 50, 400])
def test_with_epsilon_all_are_cut_when_none_has_moved_by_more_in_an_epoch(rng, per_epoch):
    total, rule = 1000, gn.ScaledStableRank()
    assert rule.epsilon == 0.1
    found = set()
    for _ in range(60):
        watch, curves = auto.Watch(), {}
        for name in "ab":
            speed, size = rng.uniform(0.2, 6), rng.uniform(1, 30)
            curves[name] = lambda step, v=speed, c=size: 3 + c * math.exp(-step / (60 * v))
        for step in auto.steps(total):
            due = watch.due(plan_of(total, per_epoch), step, {n: ((30, 40), curves[n](step), rule) for n in curves})
            earlier = [at for at in auto.steps(total) if step - at >= per_epoch]
            slopes = [
                (curve(earlier[-1]) - curve(step)) / ((step - earlier[-1]) / per_epoch) if earlier else math.inf
                for curve in curves.values()
            ]
            assert set(due) == (set("ab") if max(slopes) <= 0.1 else set())
            for name, rank in due.items():
                assert rank == math.ceil(30 * curves[name](step) / curves[name](0))
            found.add(bool(due))
    assert True in found
    assert False in found


def test_a_rank_of_an_initial_weight_is_full_and_more_than_full_is_none():
    assert auto.scaled_rank((30, 20), [(0, 7.3)]) == 20
    assert auto.scaled_rank((30, 20), [(0, 7.3), (5, 9.0)]) == 20
    assert auto.scaled_rank((30, 20), [(0, 10.0), (5, 1.0)]) == 2


# -- the fit ----------------------------------------------------------------------------------------------------------


def test_looking_changes_no_bits(data):
    plain, watched = learner(), learner()
    plain.fit(*data, epochs=EPOCHS, batch_size=BATCH)
    cut = gn.Factorise("auto", gn.ScaledStableRank(epsilon=0), policy="count")
    fit(data, cut, trainer=watched)
    np.testing.assert_array_equal(plain.outputs(data[0]), watched.outputs(data[0]))
    assert [(each.layer, each.converted, each.step) for each in cut.conversions] == [("0", False, 60), ("2", False, 60)]
    assert all("moves by" in each.reason for each in cut.conversions)
    assert cut.seconds > 0


def test_the_same_seed_gives_the_same_bits(data):
    outputs, found = [], []
    for _ in range(2):
        cut = gn.Factorise("auto", policy="count")
        outputs.append(fit(data, cut).outputs(data[0]))
        found.append([(each.layer, each.rank, each.step) for each in cut.conversions])
    np.testing.assert_array_equal(*outputs)
    assert found[0] == found[1]


def test_by_default_the_clock_decides(data, clock):
    trainer, cut = learner(), gn.Factorise("auto")
    assert (cut.policy, cut.rank, gn.Factorise().policy) == ("measured", gn.ScaledStableRank(epsilon=None), "count")
    fit(data, cut, trainer=trainer)
    assert [(each.layer, each.rank) for each in cut.conversions] == clock.asked
    assert all(each.converted and "takes 0.50× the time at batch 30" in each.reason for each in cut.conversions)
    assert {type(layer) for layer in trainer.model.layers} == {gn.Dense}, "merged"
    assert trainer.evaluate(*data)["accuracy"] > 0.95


def test_nothing_is_cut_where_the_clock_says_no_and_it_is_asked_seldom(data, clock):
    clock.ratio = lambda name, rank: 1.0
    plain = learner()
    plain.fit(*data, epochs=EPOCHS, batch_size=BATCH)
    cut = gn.Factorise("auto")
    watched = fit(data, cut)
    np.testing.assert_array_equal(plain.outputs(data[0]), watched.outputs(data[0]))
    assert clock.asked
    assert not any(each.converted for each in cut.conversions)
    for name in ("0", "2"):
        ranks = [rank for layer, rank in clock.asked if layer == name]
        assert all(later <= 0.75 * earlier for earlier, later in pairwise(ranks))


def test_a_layer_that_does_not_pay_leaves_the_others_theirs(data, clock):
    clock.ratio = lambda name, rank: 0.6 if name == "2" else 1.2
    cut, weights = gn.Factorise("auto", merge=False), Weights()
    fit(data, cut, weights)
    assert weights.kinds[-1] == "DFD"
    assert {(each.layer, each.converted) for each in cut.conversions} == {("0", False), ("2", True)}


def test_a_fit_too_short_to_measure_in_stays_dense(data, monkeypatch):
    monkeypatch.setattr("gpunet.spectral.factorise.payoff", lambda *args, **kwargs: pytest.fail("measured"))
    cut = gn.Factorise("auto")
    fit(data, cut, epochs=3)
    assert [(each.converted, each.reason) for each in cut.conversions] == [
        (False, "the fit is too short, or too far on, to measure whether factors pay")
    ] * 2


@pytest.mark.parametrize("steps_an_epoch", [1, 4, 40])
def test_one_epoch_is_enough_where_it_has_steps_enough(data, clock, steps_an_epoch):
    cut, trainer = gn.Factorise("auto", merge=False), learner()
    trainer.fit(*data, epochs=1, batch_size=120 // steps_an_epoch, callbacks=[cut])
    assert {each.layer for each in cut.conversions} == {"0", "2"}
    assert all(each.step < max(1, 0.8 * steps_an_epoch) for each in cut.conversions)
    assert any(each.converted for each in cut.conversions) == (steps_an_epoch == 40)


def test_stopped_before_any_cut_what_was_waited_for_is_told(data, clock):
    class Stop(Callback):
        def on_epoch_end(self, trainer, epoch, logs):
            trainer.stop("enough")

    cut = gn.Factorise("auto")
    trainer = fit(data, cut, Stop())
    assert trainer.epoch == 1
    assert [(each.layer, each.converted) for each in cut.conversions] == [("0", False), ("2", False)]
    assert all("worth waiting for" in each.reason for each in cut.conversions)


def test_early_stopping_brings_the_dense_layer_back(data, clock):
    cut, stop = gn.Factorise("auto"), gn.EarlyStopping("train_loss", patience=3, least=10)
    trainer = fit(data, cut, stop)
    assert trainer.epoch == 4
    assert all(isinstance(layer, gn.Dense) for layer in trainer.model.layers)


def test_every_fit_has_looks_of_its_own(data, clock):
    cut, trainer = gn.Factorise("auto"), learner()
    fit(data, cut, trainer=trainer)
    first = cut.conversions
    assert any(each.converted for each in first)
    fit(data, cut, trainer=trainer, epochs=5)
    assert cut.conversions is not first
    assert all(each.step < 20 for each in cut.conversions)
    other = gn.Factorise("auto")
    fit(data, other)
    assert [(each.layer, each.rank, each.step) for each in other.conversions] == [
        (each.layer, each.rank, each.step) for each in first
    ]


@pytest.mark.slow
@pytest.mark.parametrize("at", [1, 9, 16, 30, 55, 79])
def test_resumed_it_gives_the_same_bits(data, clock, at, tmp_path):
    class Kill(Callback):
        def __init__(self, at):
            self.at = at

        def steps(self, total):
            return (self.at,)

        def on_step(self, trainer, step):
            if self.at:
                raise KeyboardInterrupt

    undisturbed, cut = learner(), gn.Factorise("auto", state="carry")
    fit(data, cut, Kill(0), trainer=undisturbed)
    assert any(each.converted for each in cut.conversions)
    with pytest.raises(KeyboardInterrupt):
        fit(data, gn.Factorise("auto", state="carry"), Kill(at), checkpoint=tmp_path, checkpoint_every=0.25)
    again, resumed = gn.Factorise("auto", state="carry"), learner()
    fit(data, again, Kill(0), trainer=resumed, checkpoint=tmp_path, checkpoint_every=0.25, resume=True)
    np.testing.assert_array_equal(resumed.outputs(data[0]), undisturbed.outputs(data[0]))
    told, told_too = ([replace(each, svd={}) for each in one.conversions] for one in (again, cut))
    assert told == told_too
    assert again.state()["watch"] == cut.state()["watch"]


def test_layers_and_rules_by_name(data, clock):
    cut = gn.Factorise("auto", layers=["2", "4"], merge=False)
    fit(data, cut)
    assert {each.layer for each in cut.conversions} == {"2", "4"}
    cut = gn.Factorise("auto", {"0": gn.ScaledStableRank(epsilon=1e9)})
    fit(data, cut)
    assert [(each.layer, each.step) for each in cut.conversions] == [("0", 4)]  # an epoch old


def test_a_layer_with_its_own_forward_stays(data, clock):
    class Doubled(gn.Dense):
        def forward(self, x):
            y = super().forward(x)
            y *= 2
            return y

    model = gn.Sequential([Doubled(60, "relu"), gn.Dense(40, "relu"), gn.Dense(3)])
    cut = gn.Factorise("auto")
    fit(data, cut, trainer=gn.Trainer(model, optimizer=gn.Adam(2e-2), device="numpy"))
    assert {(each.layer, each.converted) for each in cut.conversions} == {("0", False), ("2", True)}
    assert "0" not in [name for name, _ in clock.asked]


def test_a_weight_of_zeros_and_one_that_is_frozen_stay_dense(data, clock):
    layers = [gn.Dense(60, "relu", weight=np.zeros((60, 50))), gn.Dense(40, "relu", trainable=False), gn.Dense(3)]
    model = gn.Sequential(layers)
    cut = gn.Factorise("auto")
    fit(data, cut, trainer=gn.Trainer(model, optimizer=gn.Adam(2e-2), device="numpy"))
    assert [(each.layer, each.converted, each.rank) for each in cut.conversions] == [("0", False, 50), ("2", False, 40)]


def test_a_weight_that_is_not_finite_is_told_with_its_layer(data, clock):
    class Broken(Callback):
        def steps(self, total):
            return (8,)

        def on_step(self, trainer, step):
            trainer.model.layers[1].weight[0, 0] = np.nan

    with pytest.raises(InputError, match=r"^the layer '2' \(Dense\): its weight holds nan at \[0, 0\]"):
        fit(data, gn.Factorise("auto"), Broken())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gn.Factorise("atuo"), "pretrain cannot be 'atuo': expected 'auto', or a share of the steps from 0"),
        (lambda: gn.Factorise(b"auto"), "pretrain cannot be b'auto'"),
        (lambda: gn.Factorise("auto", policy="measure"), "policy is 'measure': expected one of count, measured"),
        (lambda: gn.ScaledStableRank(0), "scale cannot be 0"),
        (lambda: gn.ScaledStableRank("x"), "scale cannot be 'x'"),
        (lambda: gn.ScaledStableRank(2, -1), "epsilon cannot be -1"),
        (lambda: gn.ScaledStableRank(2, float("nan")), "epsilon cannot be nan"),
        (lambda: gn.ScaledStableRank()((2, 3), np.ones(2)), r"scale is None, which Factorise\('auto'\) alone can find"),
    ],
)  # fmt: skip
def test_settings_out_of_range(make, message):
    with pytest.raises(InputError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (lambda: gn.Factorise("auto", 3), r"Factorise\('auto'\) cannot have rank=FixedRank\(rank=3\): expected"),
        (lambda: gn.Factorise("auto", {"2": gn.Energy(0.9)}), r"Factorise\('auto'\) cannot have rank=Energy"),
        (lambda: gn.Factorise(0.1, gn.ScaledStableRank()), r"Factorise\(0.1\) cannot have rank=ScaledStableRank"),
        (lambda: gn.Factorise("auto", layers=["7"]), "no layer '7'"),
    ],
)
def test_what_does_not_go_together_is_told_before_training(data, cut, message):
    trainer = learner()
    with pytest.raises(InputError, match=message):
        fit(data, cut(), trainer=trainer)
    assert trainer.epoch == 0


def test_a_rank_set_late_is_refused_as_one_set_before(data, clock):
    class Change(Callback):
        def steps(self, total):
            return (4,)

        def on_step(self, trainer, step):
            cut.rank = 3

    cut = gn.Factorise("auto")
    with pytest.raises(InputError, match=r"Factorise\('auto'\) cannot have rank=FixedRank"):
        fit(data, cut, Change())


def test_a_scale_that_is_given_is_a_rule_like_others(data):
    cut = gn.Factorise(0.5, gn.ScaledStableRank(2.0), policy="always")
    weights = Weights()
    fit(data, cut, weights)
    assert [each.rank for each in cut.conversions] == [math.ceil(2 * stable(weight)) for weight in weights.seen[40][:2]]
    assert [each.step for each in cut.conversions] == [40, 40]
    for s in ([1, 0.5, 0.5, 0], [1, 1, 1, 1], [5, 1e-17, 0, 0], [0, 0, 0, 0]):
        s = np.array(s, "float64")
        assert gn.ScaledStableRank(1.0)((4, 9), s) == gn.StableRank()((4, 9), s)
        assert gn.ScaledStableRank(100.0)((4, 9), s) == (4 if s.any() else 1)
