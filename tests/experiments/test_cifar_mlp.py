"""cifar-mlp: its rows, its splits, what diverges, its searches; on small data, and (slow) the real data."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pytest

import gpunet as gn
from gpunet.backend import get_backend
from gpunet.errors import DataError, InputError
from gpunet.experiments import cifar_mlp
from gpunet.experiments.cifar_mlp import Settings
from gpunet.experiments.cifar_mlp import search as cifar_mlp_search
from gpunet.experiments.cifar_mlp.body import PARTS, resolved
from gpunet.experiments.cifar_mlp.data import Problem, Split
from gpunet.experiments.cifar_mlp.nets import Recipe, train
from gpunet.experiments.claims import judge
from gpunet.experiments.framework import Run
from gpunet.progress import Progress

from ..datasets.cifar_writer import write_cifar10
from .made import dataset
from .schema import check_document, rows

RATES = (0.02, 0.5)
QUICK = Settings(epochs=4, batch_size=15, hidden=6, learning_rates=RATES, trials=4, wide_trials=3)
NETS = [
    "searched", "final", "final no momentum", "one layer", "final fixed order", "final cyclical", "final he",
    "final decay", "final decay early stopping", "final he decay", "found",
]  # fmt: skip


def result(data, settings=QUICK, seeds=(0,)):
    made = Run(cifar_mlp.x, data, settings, list(seeds)).compute("numpy").to_json()
    check_document(made)
    return made


def batches(tmp_path, monkeypatch, count=12):
    """CIFAR-10 in small: the images by batch."""
    monkeypatch.setenv("GPUNET_DATA", str(tmp_path))
    return write_cifar10(tmp_path / "cifar10", count)


def in_float64(data):
    return dataclasses.replace(data, x_train=data.x_train.astype("f8"), x_test=data.x_test.astype("f8"))


@pytest.fixture(scope="module")
def two_seeds():
    return result(dataset(), seeds=(0, 1))


def test_the_rows_are_all_parts(two_seeds):
    assert list(rows(two_seeds)) == [
        *(f"gradient-check {name}" for name in ("W1", "b1", "W2", "b2")),
        *(f"eta={rate:g}{kind}" for kind in ("", " no momentum") for rate in RATES), *NETS,
    ]  # fmt: skip
    for name, metrics in rows(two_seeds).items():
        if name.startswith("gradient"):
            assert set(metrics) == {"relative_error", "elementwise_error", "corners", "largest_gradient"}
            assert max(metrics["relative_error"]["values"]) < 1e-6
            continue
        assert set(metrics) >= {"test_accuracy", "validation_accuracy", "diverged", "epochs"}
        early = name.startswith("eta") or name in ("final", "final no momentum")
        assert ("test_accuracy_early" in metrics) == early
        if not any(metrics["diverged"]["values"]):
            assert set(metrics) >= {"train_cost", "validation_cost"}
    for name in [f"eta={rate:g}" for rate in RATES] + NETS:
        epochs = 12 if name == "final decay early stopping" else 4
        for curve in two_seeds["curves"][name].values():
            assert [len(run) for run in curve] == [epochs, epochs]
        assert two_seeds["notes"]["recipes"][name]["epochs"] == epochs
    assert two_seeds["notes"]["early"] == 1
    assert two_seeds["notes"]["samples"] == {"train": 48, "validation": 12, "test": 30}


def test_the_recipes_are_what_the_rows_say(two_seeds):
    kept = two_seeds["notes"]["recipes"]
    base = kept["final"]
    assert (base["learning_rate"], base["l2"], base["momentum"]) == (0.020815, 0.00012554, 0.9)
    differences = {name: {k: v for k, v in kept[name].items() if v != base[k]} for name in kept}
    assert differences["final no momentum"] == {"momentum": 0}
    assert differences["one layer"] == {"hidden": 0}
    assert differences["final fixed order"] == {"shuffle": False}
    assert differences["final cyclical"] == {"cycle": True}
    assert differences["final he"] == {"init": "he"}
    assert differences["final decay"] == {"decay": pytest.approx(0.9**2.5)}  # 4 epochs instead of 10
    assert differences["eta=0.5 no momentum"] == {"learning_rate": 0.5, "l2": 1e-6, "momentum": 0}
    assert differences["searched"] == two_seeds["notes"]["search"]["best"]
    assert differences["found"] | {"batch_size": kept["found"]["batch_size"]} == {
        "init": "he", **two_seeds["notes"]["wide_search"]["best"]
    }  # fmt: skip


def test_the_same_seed_gives_the_same_bits(two_seeds):
    again = result(dataset(), seeds=(0, 1))
    for key in ("settings", "seeds", "rows", "notes", "curves"):
        assert again[key] == two_seeds[key]
    one = result(dataset(), dataclasses.replace(QUICK, parts=("rates", "final")), seeds=(1,))
    for name, metrics in rows(one).items():
        assert {m: v["values"] for m, v in metrics.items()} == {
            m: v["values"][1:] for m, v in rows(two_seeds)[name].items()
        }


@pytest.mark.parametrize("part", [part for part in PARTS if part != "full"])
def test_each_part_alone(part):
    settings = dataclasses.replace(QUICK, parts=(part,), trials=2, wide_trials=2)
    names = set(rows(result(dataset(), settings)))
    assert names == {
        "gradient": {f"gradient-check {name}" for name in ("W1", "b1", "W2", "b2")},
        "rates": {f"eta={rate:g}{kind}" for kind in ("", " no momentum") for rate in RATES},
        "search": {"searched"}, "final": set(NETS[1:4]), "better": set(NETS[4:]),
    }[part]  # fmt: skip


def test_small_data_get_more_epochs():
    problem = Problem.of(Split.of(dataset()), get_backend("numpy"))
    assert resolved(Settings(), problem).epochs == 40
    assert resolved(Settings(epochs=7), problem).epochs == 7
    many = dataclasses.replace(problem, train=dataclasses.replace(problem.train, x=np.zeros((10_000, 2), "f4")))
    assert resolved(Settings(), many).epochs == 10


@pytest.mark.parametrize(
    ("given", "wide"), [({}, 25), ({"trials": 20}, 5), ({"trials": 3}, 1), ({"wide_trials": 7}, 7)]
)
def test_the_wider_search_takes_a_quarter(problem, given, wide):
    assert resolved(Settings(**given), problem).wide_trials == wide


# -- splits -----------------------------------------------------------------------------------------------------------


def test_the_documents_split_is_by_batches(tmp_path, monkeypatch):
    images = batches(tmp_path, monkeypatch)
    split = Split.batches()
    for part, name in (("train", "data_batch_1"), ("validation", "data_batch_2"), ("test", "test_batch")):
        planes = images[name].transpose(0, 3, 1, 2).reshape(12, 3072)
        x, y = getattr(split, part)
        np.testing.assert_array_equal(x, planes)
        np.testing.assert_array_equal(y, np.arange(12) % 10)
    assert (split.name, split.classes, split.full) == ("cifar10", 10, None)


def test_all_batches_but_a_hold_out(tmp_path, monkeypatch):
    images = batches(tmp_path, monkeypatch)
    whole = Split.batches(full=True).full
    everything = np.concatenate([images[f"data_batch_{i}"] for i in range(1, 6)]).transpose(0, 3, 1, 2).reshape(60, -1)
    assert (len(whole.train[0]), len(whole.validation[0])) == (54, 6)
    found = {x.tobytes() for x in np.concatenate([whole.train[0], whole.validation[0]])}
    assert found == {x.tobytes() for x in everything}
    labels = {x.tobytes(): i % 12 % 10 for i, x in enumerate(everything)}
    for x, y in (whole.train, whole.validation):
        assert [labels[row.tobytes()] for row in x] == y.tolist()


@pytest.mark.parametrize("missing", ["data_batch_1", "data_batch_2", "test_batch", "data_batch_4"])
def test_a_missing_batch_is_named(tmp_path, monkeypatch, missing):
    batches(tmp_path, monkeypatch)
    (tmp_path / "cifar10" / "cifar-10-batches-bin" / f"{missing}.bin").unlink()
    with pytest.raises(DataError, match=rf"cifar10: not in .*: .*{missing}\.bin; run `gpunet data fetch cifar10`"):
        Split.batches(full=True)
    if missing == "data_batch_4":
        assert len(Split.batches().train[0]) == 12


def test_other_data_hold_a_fifth_out():
    data = dataset(train=61)
    split = Split.of(data)
    assert (len(split.train[0]), len(split.validation[0])) == (49, 12)
    rows_found = np.concatenate([split.train[0], split.validation[0]])
    assert {x.tobytes() for x in rows_found} == {x.tobytes() for x in data.x_train}
    pairs = {x.tobytes(): y for x, y in zip(data.x_train, data.y_train, strict=True)}
    for x, y in itertools.chain(zip(*split.train, strict=True), zip(*split.validation, strict=True)):
        assert pairs[x.tobytes()] == y
    np.testing.assert_array_equal(Split.of(data).validation[0], split.validation[0])
    assert split.test[0] is data.x_test


def test_one_sample_cannot_be_split():
    data = dataset(train=60)
    one = dataclasses.replace(data, x_train=data.x_train[:1], y_train=data.y_train[:1])
    with pytest.raises(DataError, match="own has 1 training sample: at least two are needed"):
        Split.of(one)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_the_mean_image_is_the_training_sets(dtype):
    split = Split.of(in_float64(dataset()) if dtype == "float64" else dataset(dtype=dtype))
    assert split.test[0].dtype == dtype
    problem = Problem.of(split, get_backend("numpy"))
    scale = 255 if dtype == "uint8" else 1
    mean = split.train[0].astype("f8").mean(axis=0) / scale
    for part in ("train", "validation", "test"):
        found = getattr(problem, part)
        assert found.x.dtype == np.float32
        x, y = getattr(split, part)
        np.testing.assert_allclose(found.x, x / scale - mean, atol=1e-6)
        np.testing.assert_array_equal(found.labels, y)
    assert np.abs(problem.validation.x.mean(axis=0)).max() > 1e-3


def test_values_too_large_for_float32():
    data = in_float64(dataset())
    data.x_test[3, 2] = 1e300
    with pytest.raises(DataError, match="test data row 3, feature 2, is inf in float32"):
        Problem.of(Split.of(data), get_backend("numpy"))


# -- training ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def problem():
    return Problem.of(Split.of(dataset()), get_backend("numpy"))


def small(**changes):
    return Recipe(**{"epochs": 5, "hidden": 6, "batch_size": 15, "l2": 0.01} | changes)


def trained(problem, recipe, early=0):
    return train(problem, recipe, 0, get_backend("numpy"), Progress(), early)


def test_costs_have_the_l2_term(problem):
    recipe = small(epochs=3)
    outcome = trained(problem, recipe)
    trainer = recipe.trainer(problem.classes, 0, get_backend("numpy"))
    for epoch in range(3):
        trainer.fit(problem.train, epochs=1, batch_size=15)
        term = 0.01 * sum(
            float((w.astype("f8") ** 2).sum()) for n, w in trainer.model.parameters.items() if "weight" in n
        )
        for part in ("train", "validation"):
            wanted = trainer.evaluate(getattr(problem, part))["loss"] + term
            assert outcome.curves[f"{part}_cost"][epoch] == pytest.approx(wanted, rel=1e-6)
        assert outcome.curves["test_accuracy"][epoch] == trainer.evaluate(problem.test)["accuracy"]
    last = {name: curve[-1] for name, curve in outcome.curves.items()}
    assert outcome.metrics == last | {"diverged": 0, "epochs": 3}
    for early, found in ((2, outcome.curves["test_accuracy"][1]), (99, outcome.curves["test_accuracy"][2])):
        assert trained(problem, recipe, early=early).metrics["test_accuracy_early"] == found


def test_weights_are_drawn_as_the_document_says(problem):
    trainer = Recipe(hidden=400).trainer(10, 0, get_backend("numpy"))
    trainer.prepare((300,))
    for name, value in trainer.model.parameters.items():
        assert value.std() == pytest.approx(0.1, rel=0.1 if value.size > 300 else 0.6), name
    he = Recipe(hidden=400, init="he").trainer(10, 0, get_backend("numpy"))
    he.prepare((300,))
    assert he.model.parameters["0.weight"].std() == pytest.approx((2 / 300) ** 0.5, rel=0.02)
    assert not he.model.parameters["0.bias"].any()


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({"shuffle": False}, {"shuffle": False}),
        ({"decay": 0.5}, {"callbacks": lambda: [gn.ExponentialDecay(0.5)]}),
        ({"cycle": True}, {"callbacks": lambda: [gn.CyclicalRate(0.0020815, 0.020815, 5)]}),
        ({"patience": 1, "learning_rate": 0.5}, {"callbacks": lambda: [gn.EarlyStopping(patience=1)]}),
        ({"batch_size": 7}, {"batch_size": 7}),
    ],
    ids=["shuffle", "decay", "cycle", "patience", "batch size"],
)
def test_options_reach_the_trainer(problem, changes, options):
    """Five epochs of four batches, as `Recipe` says and by hand."""
    recipe = small(**changes)
    trainer = recipe.trainer(problem.classes, 0, get_backend("numpy"))
    given = {"batch_size": 15} | options
    callbacks = given.pop("callbacks", list)()
    trainer.fit(problem.train, epochs=5, validation_data=problem.validation, callbacks=callbacks, **given)
    found = trained(problem, recipe).metrics
    assert found["test_accuracy"] == trainer.evaluate(problem.test)["accuracy"]
    plain = trained(problem, small(learning_rate=recipe.learning_rate)).metrics
    assert found["train_cost"] != plain["train_cost"]
    costs = found["train_cost"] - trainer.evaluate(problem.train)["loss"]
    params, _, decayed = trainer.model.flat
    assert costs == pytest.approx(0.01 * float((params[:decayed].astype("f8") ** 2).sum()), rel=1e-4)


@pytest.mark.parametrize("rate", [1e3, 1e30])
def test_a_net_that_diverges_is_reported_and_no_error(rate):
    made = result(dataset(), dataclasses.replace(QUICK, parts=("rates",), learning_rates=(0.02, rate)), seeds=(0, 1))
    found = rows(made)[f"eta={rate:g}"]
    assert found["diverged"]["values"] == [1, 1]
    for name in ("test_accuracy", "validation_accuracy", "test_accuracy_early"):
        assert found[name]["values"] == [1 / 3, 1 / 3]
    assert "train_cost" not in found
    assert made["curves"][f"eta={rate:g}"]["train_cost"] == [[None] * 4, [None] * 4]
    assert rows(made)["eta=0.02"]["diverged"]["values"] == [0, 0]
    assert rows(made)["eta=0.02"]["train_cost"]["mean"] > 0


def test_diverging_late_leaves_what_was_there_before(problem):
    """A cyclical rate that rises: the first epochs are sound, later ones are not."""
    recipe = small(epochs=8, learning_rate=10, cycle=True, l2=0)
    outcome = trained(problem, recipe)
    assert outcome.metrics["diverged"]
    assert (outcome.metrics["test_accuracy"], outcome.metrics["validation_accuracy"]) == (1 / 3, 1 / 3)
    assert np.isnan([outcome.metrics["train_cost"], outcome.metrics["validation_cost"]]).all()
    kept = int(outcome.metrics["epochs"])
    assert 0 < kept < 8
    for curve in outcome.curves.values():
        assert np.isnan(curve).tolist() == [False] * kept + [True] * (8 - kept)
    early = {at: trained(problem, recipe, early=at).metrics["test_accuracy_early"] for at in (kept, kept + 1, 8)}
    assert early == {kept: outcome.curves["test_accuracy"][kept - 1], kept + 1: 1 / 3, 8: 1 / 3}


def test_progress_ends_also_where_training_ends_early(problem):
    class Counting(Progress):
        done = 0

        def advance(self, parts=1, note=""):
            self.done += parts

    for changes in ({}, {"learning_rate": 1e30}, {"patience": 1, "learning_rate": 0.5, "epochs": 30}):
        bar, recipe = Counting(), small(**changes)
        train(problem, recipe, 0, get_backend("numpy"), bar)
        assert bar.done == recipe.epochs


def test_early_stopping_keeps_the_best(problem):
    recipe = small(epochs=60, patience=3, learning_rate=0.3, l2=0)
    outcome = trained(problem, recipe)
    costs = outcome.curves["validation_cost"][: int(outcome.metrics["epochs"])]
    assert len(costs) < 60
    assert outcome.metrics["validation_cost"] == pytest.approx(min(costs), rel=1e-6)
    assert min(costs) == costs[-4]
    best = costs.index(min(costs))
    assert outcome.metrics["test_accuracy"] == outcome.curves["test_accuracy"][best]


# -- searches ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_documents_search_is_drawn_as_it_says(two_seeds):
    curve = two_seeds["curves"]["search"]
    assert curve["stage"] == [1] * 4 + [2] * 4
    rates = two_seeds["notes"]["search"]["spaces"][0][0]
    listed = [float(rate) for rate in rates.removeprefix("learning_rate=").split(",")]
    assert len(listed) == 5
    assert all(0.02 <= rate <= 0.03 for rate in listed)
    assert set(curve["learning_rate"]) <= set(listed)
    assert all(1e-6 <= l2 <= 0.1 for l2 in curve["l2"])
    made = result(dataset(), dataclasses.replace(QUICK, parts=("search",), trials=100))["curves"]["search"]
    first = [(rate, l2) for rate, l2, stage in zip(made["learning_rate"], made["l2"], made["stage"], strict=True)
             if stage == 1]  # fmt: skip
    assert [sum(rate == each for rate, _ in first) for each in sorted({rate for rate, _ in first})] == [20] * 5
    decades = np.floor(np.log10([l2 for _, l2 in first]))
    assert [int((decades == d).sum()) for d in range(-6, -1)] == [20] * 5  # evenly on the logarithmic scale


def test_nothing_is_chosen_by_the_test_set():
    """Other test labels, the same choices."""
    data = dataset()
    other = dataclasses.replace(data, y_test=(data.y_test + 1) % 3, x_test=data.x_test[::-1].copy())
    settings = dataclasses.replace(QUICK, parts=("search", "better"))
    one, two = result(data, settings), result(other, settings)
    assert one["settings"] == two["settings"]
    assert one["notes"] == two["notes"]
    assert one["curves"]["search"] == two["curves"]["search"]
    assert one["curves"]["wide search"] == two["curves"]["wide search"]
    assert rows(one)["found"]["validation_accuracy"] == rows(two)["found"]["validation_accuracy"]
    assert rows(one)["found"]["test_accuracy"] != rows(two)["found"]["test_accuracy"]


def test_the_best_trial_is_the_one_with_the_best_validation_accuracy(two_seeds):
    for name, kept in (("search", "search"), ("wide search", "wide_search")):
        curve, best = two_seeds["curves"][name], two_seeds["notes"][kept]["best"]
        place = int(np.argmax(curve["validation_accuracy"]))
        assert best == {key: curve[key][place] for key in best}


def evaluate(parameters, settings=None, report=lambda step, cost: False):
    return cifar_mlp_search.evaluate(parameters, {"dataset": "digits", "device": "numpy"} | (settings or {}), report)


def test_a_trial_is_a_training_run_judged_by_validation():
    costs = []
    found = evaluate(
        {"learning_rate": 0.1, "l2": 1e-4}, {"epochs": 3, "hidden": 9, "trial_seed": 5},
        lambda step, cost: costs.append((step, cost)),
    )  # fmt: skip
    problem = Problem.of(Split.of(gn.datasets.load("digits")), get_backend("numpy"))
    trainer = Recipe(0.1, 1e-4, hidden=9).trainer(10, 5, get_backend("numpy"))
    history = trainer.fit(problem.train, epochs=3, batch_size=64)
    assert found == {"value": trainer.evaluate(problem.validation)["accuracy"], "diverged": 0}
    assert costs == list(enumerate(history["train_loss"], start=1))


def test_a_trial_that_is_given_up_stops():
    seen = []

    def report(step, cost):
        seen.append(step)
        return step == 2

    evaluate({}, {"epochs": 6, "hidden": 4}, report)
    assert seen == [1, 2]


def test_a_trial_that_diverges_counts_as_chance():
    assert evaluate({"learning_rate": 1e30}, {"epochs": 2}) == {"value": 0.1, "diverged": 1}


def test_a_parameter_that_is_none():
    with pytest.raises(InputError, match="unknown parameter rate: expected some of batch_size, cycle, decay"):
        evaluate({"rate": 1})


def test_trials_can_be_run_by_the_sweep_alone(tmp_path, monkeypatch):
    from gpunet.sweep import parse_parameter, search

    batches(tmp_path, monkeypatch)
    table = search(
        cifar_mlp_search.FUNCTION, {"epochs": 1, "device": "numpy", "hidden": 3}, [parse_parameter("l2=1e-6,1e-3")],
        trials=2, stages=1,
    )  # fmt: skip
    assert [row["state"] for row in table] == ["complete"] * 2
    cifar_mlp_search._prepared.clear()


def test_where_everything_diverges_there_still_is_a_result():
    """Features in the millions, as they are."""
    data = dataset()
    wild = dataclasses.replace(data, x_train=1e9 * data.x_train, x_test=1e9 * data.x_test)
    made = result(wild, QUICK)
    assert {m["diverged"]["mean"] for n, m in rows(made).items() if n.startswith("eta")} == {1}
    assert rows(made)["found"]["test_accuracy"]["mean"] == pytest.approx(1 / 3)


# -- all batches ------------------------------------------------------------------------------------------------------


def test_full_trains_on_all_batches(tmp_path, monkeypatch):
    batches(tmp_path, monkeypatch)
    settings = Settings(parts=("full",), epochs=2, hidden=4)
    made = result(Split.batches(full=True), settings)
    assert set(rows(made)) == {"final full", "full"}
    assert made["notes"]["full_samples"] == {"train": 54, "validation": 6}
    assert made["notes"]["recipes"]["full"] == dataclasses.asdict(
        Recipe(0.025, 8e-4, batch_size=100, epochs=4, hidden=4, init="he", decay=0.85**5)
    )
    assert rows(made)["full"]["epochs"]["mean"] == 4


def test_full_wants_batches():
    with pytest.raises(
        DataError, match=r"the part full trains on all batches of cifar10.*own has one.*leave out --full"
    ):
        result(dataset(), dataclasses.replace(QUICK, full=True))


# -- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"parts": ("rates", "sweep")}, "parts is 'sweep': expected one of gradient, rates, search, final, better,"),
        ({"parts": ()}, "parts is empty: expected at least one"),
        ({"full": 1}, "full is 1: expected True or False"),
        ({"learning_rates": ()}, "learning_rates is empty: expected at least one"),
        ({"learning_rates": (0.1, 0.0)}, "learning_rates cannot be 0.0: expected a finite number > 0"),
        ({"learning_rates": (float("nan"),)}, "learning_rates cannot be nan"),
        ({"final_rate": -1.0}, "final_rate cannot be -1.0"),
        ({"momentum": 1.0}, "momentum cannot be 1.0: expected a finite number ≥ 0 and < 1"),
        ({"final_l2": -1e-3}, "final_l2 cannot be -0.001"),
        ({"hidden": 0}, "hidden is a whole number ≥ 1, got 0"),
        ({"hidden": 1.5}, "hidden is a whole number ≥ 1, got 1.5"),
        ({"batch_size": 0}, "batch_size is a whole number ≥ 1, got 0"),
        ({"epochs": 0}, "epochs is a whole number ≥ 1, got 0"),
        ({"trials": 0}, "trials is a whole number ≥ 1, got 0"),
        ({"wide_trials": 0}, "wide_trials is a whole number ≥ 1, got 0"),
    ],
)  # fmt: skip
def test_settings_out_of_range(settings, message):
    with pytest.raises(InputError, match=message):
        Settings(**settings)


# -- the real data ----------------------------------------------------------------------------------------------------


@pytest.fixture
def cifar(real_data, monkeypatch):
    if not (real_data / "cifar10" / "cifar-10-batches-bin").is_dir():
        pytest.skip("no CIFAR-10 in the folder with the real data")
    monkeypatch.setenv("GPUNET_DATA", str(real_data))
    return Split.batches(full=True)


@pytest.mark.slow
def test_the_final_setting_reaches_what_the_document_reaches(cifar):
    made = Run(cifar_mlp.x, cifar, Settings(parts=("gradient", "final")), [0, 1, 2]).compute("numpy")
    assert made.mean("final", "test_accuracy") >= 0.42
    verdicts = {claim.id: claim.verdict for claim in judge(cifar_mlp.x, made)}
    assert (verdicts["final-test-accuracy"], verdicts["gradient-check"]) == ("reproduced", "reproduced")
    json.dumps(made.to_json(), allow_nan=False)


@pytest.mark.slow
def test_more_data_reach_more(cifar):
    made = result(cifar, Settings(parts=("full",)))
    assert rows(made)["full"]["test_accuracy"]["mean"] >= 0.505
