"""The Factorise callback: when it cuts, what it cuts, what it leaves, and that it says so."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import gpunet as gn
from gpunet.backend import get_backend
from gpunet.errors import InputError
from gpunet.nn.callbacks import Callback
from gpunet.spectral import factorise as payoff_module
from gpunet.spectral.factorise import multiplications, speed_up


class Kinds(Callback):
    """The kinds of layers before each step, one letter each."""

    def steps(self, total):
        self.seen = []
        return range(total)

    def on_step(self, trainer, step):
        self.seen.append("".join("F" if isinstance(layer, gn.LowRankDense) else "D" for layer in trainer.model.layers))


def learner(widths=(30, 20), features=16, seed=0, optimizer=None):
    layers = [*(gn.Dense(width, "relu") for width in widths), gn.Dense(3)]
    return gn.Trainer(gn.Sequential(layers), optimizer=optimizer or gn.Adam(1e-2), device="numpy", seed=seed)


@pytest.fixture
def data(rng):
    labels = np.arange(120) % 3
    x = rng.normal(size=(120, 16)) * 0.4
    x[np.arange(120), labels] += 2
    return x.astype("float32"), labels


@pytest.mark.parametrize(("pretrain", "dense_steps"), [(0, 0), (0.1, 2), (0.5, 10), (0.99, 20), (1, 20)])
def test_it_cuts_after_the_share_of_steps(data, pretrain, dense_steps):
    trainer, kinds = learner(), Kinds()
    cut = gn.Factorise(pretrain, 3, merge=False)
    trainer.fit(*data, epochs=5, batch_size=30, callbacks=[cut, kinds])  # 4 steps an epoch
    assert kinds.seen == ["DDD"] * dense_steps + ["FFD"] * (20 - dense_steps)
    assert [c.layer for c in cut.conversions] == (["0", "2"] if dense_steps < 20 else [])
    assert [c.shape for c in cut.conversions] == ([(30, 16), (20, 30)] if dense_steps < 20 else [])


def test_the_factors_are_multiplied_back_and_the_model_has_learned(data):
    trainer = learner()
    cut = gn.Factorise(0.1, gn.BreakEven(0.5))
    trainer.fit(*data, epochs=20, batch_size=30, callbacks=[cut])
    assert all(isinstance(layer, gn.Dense) for layer in trainer.model.layers)
    assert np.linalg.matrix_rank(trainer.model.parameters["0.weight"], tol=1e-4) == cut.conversions[0].rank == 5
    assert trainer.evaluate(*data)["accuracy"] > 0.95
    assert cut.seconds > 0
    trainer.fit(*data, epochs=2, batch_size=30, callbacks=[cut])  # and may be cut again
    assert [c.converted for c in cut.conversions] == [True, True]


def test_with_all_steps_dense_nothing_differs_from_a_run_without(data):
    results = []
    for callbacks in ([], [gn.Factorise(1, 3)]):
        trainer = learner()
        trainer.fit(*data, epochs=3, batch_size=30, callbacks=callbacks)
        results.append(trainer.outputs(data[0]))
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("state", ["restart", "carry", "carry-both"])
def test_the_same_seed_gives_the_same_bits(data, state):
    results = []
    for _ in range(2):
        trainer = learner(seed=3)
        trainer.fit(*data, epochs=4, batch_size=32, callbacks=[gn.Factorise(0.3, 4, state=state)])
        results.append(trainer.outputs(data[0]))
    np.testing.assert_array_equal(*results)


def test_state_carried_and_restarted_differ(data):
    results = []
    for state in ("restart", "carry", "carry-both"):
        trainer = learner()
        trainer.fit(*data, epochs=4, batch_size=32, callbacks=[gn.Factorise(0.3, 4, state=state)])
        results.append(trainer.outputs(data[0]))
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(results[one] - results[other]).max() > 1e-6


def test_moments_of_rarely_lit_inputs_survive_being_carried(data):
    """A surprise worth a test: with Adam, "carry" divides a moment that went on by one that did not."""
    x, y = data[0].copy(), data[1]
    x[:, 5] = 0
    x[::10, 5] = 1  # lit in few batches: its gradient is zero right after the cut
    losses = {}
    for state in ("restart", "carry", "carry-both"):
        trainer = learner()
        trainer.fit(x, y, epochs=8, batch_size=4, callbacks=[gn.Factorise(0.5, 4, state=state, split="left")])
        losses[state] = trainer.evaluate(x, y)["loss"]
    assert losses["carry-both"] < 3 * losses["restart"] + 0.05
    assert losses["carry"] > 2 * losses["carry-both"]


def test_layers_and_ranks_by_name(data):
    trainer, kinds = learner(), Kinds()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer.fit(*data, epochs=1, batch_size=30, callbacks=[gn.Factorise(0, {"2": 4}, merge=False), kinds])
    assert kinds.seen[-1] == "DFD"
    trainer, kinds = learner(), Kinds()
    trainer.fit(*data, epochs=1, batch_size=30, callbacks=[gn.Factorise(0, 1, layers=["0", "4"], merge=False), kinds])
    assert kinds.seen[-1] == "FDF"  # the last layer, too, where it is asked for


def test_a_rank_set_late_is_the_one_that_is_cut_to(data):
    for rank, layers, found in ((3, None, "FFD"), ({"2": 4}, None, "DFD"), (4, ["2"], "DFD"), ({}, ["2"], None)):
        trainer, kinds, cut = learner(), Kinds(), gn.Factorise(0, {"0": 2}, merge=False)
        cut.rank, cut.layers = rank, layers
        if found is None:
            with pytest.raises(InputError, match="no rank for the layer '2'"):
                trainer.fit(*data, batch_size=30, callbacks=[cut])
            continue
        trainer.fit(*data, epochs=1, batch_size=30, callbacks=[cut, kinds])
        assert kinds.seen[-1] == found
        assert {c.rank for c in cut.conversions} == {3 if rank == 3 else 4}
    cut = gn.Factorise(0, {"0": 2})
    cut.rank["0"] = 3
    learner().fit(*data, batch_size=30, callbacks=[cut])
    assert [(c.layer, c.rank) for c in cut.conversions] == [("0", 3)]


@pytest.mark.parametrize("policy", ["always", "count"])
@pytest.mark.parametrize("rank", [3, gn.BreakEven(0.5), gn.Energy(0.5), gn.StableRank(), gn.GavishDonoho()])
def test_a_weight_is_decomposed_once_and_how_is_told(data, monkeypatch, rank, policy):
    """Also where the rule reads the spectrum: by the one decomposition that is then cut."""
    made = []

    def counted(a, *args, **kwargs):
        made.append((a.shape, gn.svd(a, *args, **kwargs)))
        return made[-1][1]

    monkeypatch.setattr("gpunet.linalg.rank.svd", counted)
    trainer, cut = learner(), gn.Factorise(0, rank, merge=False, policy=policy)
    trainer.fit(*data, batch_size=30, callbacks=[cut])
    assert all(c.converted for c in cut.conversions)
    assert [shape for shape, _ in made] == [c.shape for c in cut.conversions] == [(30, 16), (20, 30)]
    assert [c.svd for c in cut.conversions] == [found.summary for _, found in made]
    assert all(0 <= c.svd["residual"] <= c.svd["tol"] and c.svd["route"] for c in cut.conversions)
    assert [trainer.model.layer(c.layer).rank for c in cut.conversions] == [c.rank for c in cut.conversions]


def test_a_layer_that_stays_dense_is_decomposed_only_for_its_spectrum(data, recwarn):
    for rank, told in ((11, False), (gn.Energy(1.0), True)):
        cut = gn.Factorise(0, {"0": rank}, merge=False)
        learner().fit(*data, batch_size=30, callbacks=[cut])
        assert [(c.converted, bool(c.svd)) for c in cut.conversions] == [(False, told)]


@pytest.mark.parametrize("rule", [gn.Energy(0.8), gn.StableRank(), gn.GavishDonoho()])
def test_the_callback_cuts_as_the_layer_does(data, rule):
    """To the bit: both cut the same decomposition at the same rank."""
    by_callback, by_hand = learner(), learner()
    callback = gn.Factorise(0, rule, merge=False, policy="always")
    by_callback.fit(*data, epochs=2, batch_size=30, callbacks=[callback])
    by_hand.prepare((16,))
    for name in ("0", "2"):
        by_hand.model.replace(name, gn.factorise(by_hand.model.layer(name), rule))
    by_hand.fit(*data, epochs=2, batch_size=30)
    np.testing.assert_array_equal(by_callback.outputs(data[0]), by_hand.outputs(data[0]))


def test_layers_that_do_not_pay_stay_dense_and_are_named(data):
    trainer = learner()
    cut = gn.Factorise(0.5, {"0": 11, "2": 4}, merge=False)  # break-even of 30×16: 10.4
    with pytest.warns(UserWarning, match=r"left dense: layer '0' 30×16: rank 11 ≥ mn/\(m \+ n\) = 10.43"):
        trainer.fit(*data, epochs=1, batch_size=30, callbacks=[cut])
    assert [c.converted for c in cut.conversions] == [False, True]
    trainer = learner()
    cut = gn.Factorise(0.5, {"0": 11, "2": 4}, merge=False, policy="always")
    trainer.fit(*data, epochs=1, batch_size=30, callbacks=[cut])
    assert [c.converted for c in cut.conversions] == [True, True]


def test_policy_measured_goes_by_the_clock(data, monkeypatch):
    asked = []

    def clock(layer, rank, batch, optimizer, backend, *, dtype, needs_dx):
        asked.append((layer.name, rank, batch, dtype, needs_dx))
        return (0.7, 0.9) if layer.name == "2" else (0.9, 1.01)

    monkeypatch.setattr("gpunet.spectral.factorise.payoff", clock)
    trainer = learner()
    cut = gn.Factorise(0, 2, merge=False, policy="measured")
    with pytest.warns(UserWarning, match="layer '0' 30×16: rank 2 takes 0.90× the time at batch 24"):
        trainer.fit(*data, epochs=1, batch_size=24, callbacks=[cut])
    assert asked == [("0", 2, 24, "float32", False), ("2", 2, 24, "float32", True)]
    assert [c.converted for c in cut.conversions] == [False, True]


def test_the_clock_tells_large_savings_from_large_losses(rng):
    for shape, rank, cheaper in (((600, 600), 5, True), ((40, 40), 40, False)):
        model = gn.Sequential([gn.Dense(shape[1]), gn.Dense(shape[0], "relu"), gn.Dense(2)])
        backend = gn.get_backend("numpy")
        model.build((shape[1],), backend)
        before = {name: value.copy() for name, value in model.parameters.items()}
        median, upper = payoff_module.payoff(
            model.layers[1], rank, 128, gn.Adam(), backend, dtype="float32", needs_dx=True
        )
        assert (median < 1) == cheaper
        assert upper >= median
        for name, value in model.parameters.items():
            np.testing.assert_array_equal(value, before[name])


def test_counts_are_those_of_the_document():
    shapes = [(512, 784), (256, 512), (10, 256)]
    assert multiplications((512, 784)) == 401408
    assert multiplications((512, 784), 256) == 331776
    assert speed_up(shapes, [256, 128, None]) == pytest.approx(1.24, abs=0.005)
    assert speed_up(shapes, [154, 85, None]) == pytest.approx(2.0, abs=0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pretrain": -0.1}, "pretrain cannot be -0.1: expected a finite number ≥ 0 and ≤ 1"),
        ({"pretrain": 1.5}, "pretrain cannot be 1.5"),
        ({"pretrain": "half"}, "pretrain cannot be 'half'"),
        ({"pretrain": float("nan")}, "pretrain cannot be nan"),
        ({"rank": 0}, "rank is 0: expected an integer ≥ 1"),
        ({"rank": -2}, "rank is -2"),
        ({"rank": 2.5}, "rank is 2.5"),
        ({"rank": {"0": 0}}, "rank is 0"),
        ({"rank": 2, "split": "right"}, "split is 'right': expected one of left, balanced"),
        ({"rank": 2, "state": "keep"}, "optimizer_state is 'keep': expected one of restart, carry, carry-both"),
        ({"rank": 2, "policy": "hope"}, "policy is 'hope': expected one of count, measured, always"),
    ],
)
def test_settings_out_of_range(arguments, message):
    with pytest.raises(InputError, match=message):
        gn.Factorise(**arguments)


@pytest.mark.parametrize("rule", [gn.DimensionFraction, gn.BreakEven])
@pytest.mark.parametrize("alpha", [0, -0.5, 1.5])
def test_alpha_is_above_zero(rule, alpha):
    with pytest.raises(InputError, match="alpha"):
        rule(alpha)


def test_a_layer_that_is_named_twice_is_cut_once(data):
    cut = gn.Factorise(0, 2, layers=["0", "0"], policy="always")
    learner().fit(*data, epochs=1, batch_size=30, callbacks=[cut])
    assert [(each.layer, each.converted) for each in cut.conversions] == [("0", True)]


def test_what_the_model_does_not_have_is_named_before_training(data):
    for cut, message in (
        (gn.Factorise(0.5, 17), r"rank 17 exceeds min\(m, n\) = 16"),
        (gn.Factorise(0.5, 2, layers=["7"]), "no layer '7': it has '0'"),
        (gn.Factorise(0.5, {"0": 2}, layers=["0", "2"]), "no rank for the layer '2'"),
    ):
        trainer = learner()
        with pytest.raises(InputError, match=message):
            trainer.fit(*data, epochs=1, batch_size=30, callbacks=[cut])
        assert trainer.epoch == 0
    trainer = learner()
    trainer.fit(*data, epochs=1, batch_size=30, callbacks=[gn.Factorise(0, 2, merge=False)])
    with pytest.raises(InputError, match=r"'0' \(LowRankDense\) is factored already"):
        trainer.fit(*data, epochs=1, batch_size=30, callbacks=[gn.Factorise(0, 2, layers=["0"])])


# -- layers of one's own, and weights that are not finite ------------------------------------------------------------


class Doubled(gn.Dense):
    """Computes something else."""

    def forward(self, x):
        y = super().forward(x)
        y *= 2
        return y


class Frozen(gn.Dense):
    """Has a backward pass of its own."""

    def backward(self, dy):
        dx = super().backward(dy)
        self.d_weight[...] = 0
        return dx


class Named(gn.Dense):
    """A Dense layer by another name, with a setting of its own."""

    def config(self):
        return super().config() | {"note": "mine"}


class Turned(gn.LowRankDense):
    def forward(self, x):
        return super().forward(-x)


def built(layer):
    model = gn.Sequential([layer, gn.Dense(3)])
    model.build((16,), get_backend("numpy"))
    return model.layers[0]


@pytest.mark.parametrize(("kind", "method"), [(Doubled, "forward"), (Frozen, "backward")])
def test_a_layer_that_computes_something_else_is_not_factorised(kind, method, data):
    layer = built(kind(12))
    with pytest.raises(InputError, match=rf"'0' \({kind.__name__}\) has its own {method}, which .* expected a Dense"):
        gn.factorise(layer, 2)
    model = gn.Sequential([kind(30), gn.Dense(20, "relu"), gn.Dense(3)])
    trainer = gn.Trainer(model, device="numpy")
    cut = gn.Factorise(0, 3, merge=False)
    with pytest.warns(UserWarning, match=rf"left dense: layer '0' 30×16: it has its own {method}, which factors would"):
        trainer.fit(*data, epochs=1, batch_size=30, callbacks=[cut])
    assert [type(each) for each in model.layers] == [kind, gn.LowRankDense, gn.Dense]
    with pytest.raises(InputError, match=f"has its own {method}"):
        trainer.fit(*data, epochs=1, batch_size=30, callbacks=[gn.Factorise(0, 3, layers=["0"])])


def test_what_is_set_on_the_layer_itself_counts_as_its_own():
    layer = built(gn.Dense(12))
    layer.forward = lambda x: x[:, :12]
    with pytest.raises(InputError, match="has its own forward"):
        gn.factorise(layer, 2)


def test_a_subclass_that_computes_the_same_is_factorised():
    layer = built(Named(12, "relu"))
    found = gn.factorise(layer, 12)
    np.testing.assert_allclose(
        found._draw["left"](None, None) @ found._draw["right"](None, None), layer.weight, atol=1e-6
    )


def test_factors_that_compute_something_else_are_not_merged():
    with pytest.raises(InputError, match=r"'0' \(Turned\) has its own forward, which .* expected a LowRankDense layer"):
        gn.merge(built(Turned(12, 2)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_told_with_its_layer(bad, data):
    layer = built(gn.Dense(12))
    layer.weight.ravel()[37] = bad  # as training may leave it: setting it would be refused
    with pytest.raises(
        InputError, match=rf"^the layer '0' \(Dense\): its weight holds {bad} at \[2, 5\]: expected finite"
    ):
        gn.factorise(layer, 2)
    layer.weight.ravel()[37], layer.bias[4] = 0, bad
    with pytest.raises(InputError, match=rf"^the layer '0' \(Dense\): its bias holds {bad} at \[4\]: expected finite"):
        gn.factorise(layer, 2)
    factors = built(gn.LowRankDense(12, 2))
    factors.left[1, 1] = bad
    with pytest.raises(
        InputError, match=rf"^the layer '0' \(LowRankDense\): its left holds {bad} at \[1, 1\]: expected"
    ):
        gn.merge(factors)

    class Broken(Callback):
        def steps(self, total):
            return (1,)

        def on_step(self, trainer, step):
            trainer.model.layers[1].weight[0, 0] = bad

    with pytest.raises(InputError, match=rf"^the layer '2' \(Dense\): its weight holds {bad} at \[0, 0\]"):
        learner().fit(*data, epochs=1, batch_size=30, callbacks=[Broken(), gn.Factorise(0.25, 3)])
