"""toy: its result, its claims, its settings, its figures' data."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import gpunet as gn
from gpunet.datasets.convert import from_arrays
from gpunet.errors import DataError, InputError
from gpunet.experiments.claims import judge
from gpunet.experiments.result import Result
from gpunet.experiments.toy import Settings, run
from gpunet.experiments.toy_claims import CLAIMS, claims, steps_told, verdicts
from gpunet.experiments.toy_nets import Nets, Variant, pose, variants
from gpunet.report.toy_tables import rows_of
from gpunet.stacked import draw_weights, sigmoid_outputs, train

from .made import arrays, dataset
from .schema import check_document

WORDS = ["", "zeros", "glorot", "mean", "unhalved", "rate=0.1", "rate=0.2", "rate=0.4", "rate=1.6", "rate=3.2"]
METRICS = {"converged", "steps", "train_loss", "largest_loss", "train_accuracy", "test_accuracy"}
QUICK = Settings(limit=300)


def both():
    return [gn.datasets.load(name) for name in ("linear", "xor-easy")]


def result(data=None, settings=QUICK, seeds=range(4)):
    made = run(data or both(), settings, list(seeds), device="cpu").to_json()
    check_document(made)
    return made


def rows(made):
    return {row["name"]: {m: v["values"] for m, v in row["metrics"].items()} for row in made["rows"]}


@pytest.fixture(scope="module")
def four_seeds():
    return result()


def own(dtype="float32", features=2, classes=2):
    return dataset("own", dtype=dtype, features=features, classes=classes)


# -- the result --------------------------------------------------------------------------------------------------------


def test_the_rows_are_both_data_sets_and_all_variants(four_seeds):
    assert list(rows(four_seeds)) == [f"{data} {word}".strip() for data in ("linear", "xor-easy") for word in WORDS]
    for name, metrics in rows(four_seeds).items():
        assert set(metrics) == METRICS | ({"gradient_error"} if name in ("linear", "xor-easy") else set())
        assert set(metrics["converged"]) <= {0, 1}
        for steps, there, largest in zip(*(metrics[m] for m in ("steps", "converged", "largest_loss")), strict=True):
            assert steps == int(steps)
            assert 0 <= steps <= 300
            assert there or steps == 300
            assert there == (largest < (0.02 if "unhalved" in name else 0.04))
        assert metrics["train_accuracy"] == metrics["test_accuracy"]
    assert (four_seeds["dataset"], four_seeds["device"]) == ("linear+xor-easy", "cpu")


def test_curves_are_losses_at_marks(four_seeds):
    for name, curve in four_seeds["curves"].items():
        marks, losses = curve["steps"], curve["loss"]
        assert (marks[0], marks[-1]) == (0, 300)
        assert [len(run) for run in losses] == [len(marks)] * 4
        np.testing.assert_allclose(curve["loss_quartiles"], np.percentile(losses, (25, 50, 75), axis=0))
        np.testing.assert_allclose([run[-1] for run in losses], rows(four_seeds)[name]["train_loss"])


def test_the_same_seed_gives_the_same_bits_also_among_other_seeds(four_seeds):
    again = result()
    for key in ("settings", "seeds", "rows", "claims", "curves"):
        assert again[key] == four_seeds[key]
    one = result(seeds=[2])
    for name, metrics in rows(one).items():
        assert metrics == {metric: values[2:3] for metric, values in rows(four_seeds)[name].items()}


def test_rows_are_what_their_names_say():
    """Each variant against `train` called by hand, on seed 4."""
    data = gn.datasets.load("xor-easy")
    made, x, labels = rows(result([data], Settings(limit=800), [4])), data.x_train, data.y_train

    def steps_and_loss(initial="uniform_sigmoid", rate=0.8, threshold=0.04):
        weights = draw_weights((2, 3, 3, 1), [4], initial)
        done = train(weights, x, labels, learning_rate=rate, threshold=threshold, limit=800)
        return done.steps[0], done.loss[0]

    for name, expected in {
        "xor-easy": steps_and_loss(),
        "xor-easy zeros": steps_and_loss("zeros"),
        "xor-easy glorot": steps_and_loss("glorot_uniform"),
        "xor-easy mean": steps_and_loss(rate=0.8 / 21),
        "xor-easy unhalved": steps_and_loss(threshold=0.02),
        "xor-easy rate=1.6": steps_and_loss(rate=1.6),
    }.items():
        assert (made[name]["steps"][0], made[name]["train_loss"][0]) == expected, name
    assert made["xor-easy unhalved"]["steps"] > made["xor-easy"]["steps"]


def test_linear_draws_its_points_for_each_seed():
    problem = pose(gn.datasets.load("linear"), [0, 5])
    assert problem.x.shape == (2, 100, 2)
    for place, seed in enumerate((0, 5)):
        drawn = gn.datasets.linear(seed=seed)
        np.testing.assert_array_equal(problem.of(place)[0], drawn.x_train)
        np.testing.assert_array_equal(problem.of(place)[1], drawn.y_train)


def test_the_picture_has_the_learned_weights_and_the_first_nets_points(four_seeds):
    for data in ("linear", "xor-easy"):
        curve = four_seeds["curves"][data]
        weights = [np.array(w) for w in curve["weights"]]
        assert [w.shape for w in weights] == [(4, 3, 2), (4, 3, 3), (4, 1, 3)]
        x, labels = np.array(curve["x"]), np.array(curve["labels"])
        said = sigmoid_outputs(weights, x)[0] > 0.5
        assert np.mean(said == labels) == rows(four_seeds)[data]["train_accuracy"][0]
    assert "weights" not in four_seeds["curves"]["linear zeros"]


def test_seconds_are_told(four_seeds):
    timings = four_seeds["timings"]
    assert list(timings["seconds"]) == list(rows(four_seeds))
    assert list(timings["seconds_per_step_alone"]) == ["linear", "xor-easy"]
    assert all(seconds > 0 for each in timings.values() for seconds in each.values())


def test_nets_that_would_all_be_the_same_are_trained_once(monkeypatch):
    from gpunet.experiments import toy_nets

    trained, alone = [], toy_nets.train
    monkeypatch.setattr(toy_nets, "train", lambda w, *a, **k: (trained.append(len(w[0])), alone(w, *a, **k))[1])
    nets = Nets(pose(gn.datasets.load("xor-easy"), [0, 1, 2]), (3, 3), [0, 1, 2], 20)
    zeros = Variant("zeros", 0.8, 0.04, initial="zeros")
    found, _ = nets.train(zeros, gn.progress.Progress())
    assert trained == [1]
    weights = draw_weights((2, 3, 3, 1), [0, 1, 2], "zeros")
    each = alone(weights, nets.problem.x, nets.problem.labels, learning_rate=0.8, threshold=0.04, limit=20)
    for field in dataclasses.fields(each):
        mine, theirs = getattr(found, field.name), getattr(each, field.name)
        for a, b in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_wrong_gradient_is_found(monkeypatch):
    from gpunet.experiments import toy_nets

    nets = Nets(pose(gn.datasets.load("linear"), range(5)), (3, 3), range(5), 1)
    weights = nets.start(variants([0.8], 0.04)[0])
    assert nets.gradient_errors(weights).max() < 1e-8
    right = toy_nets.gradients
    monkeypatch.setattr(toy_nets, "gradients", lambda *given: [1.0001 * g for g in right(*given)])
    assert nets.gradient_errors(weights).max() > 1e-6


# -- own data and settings ---------------------------------------------------------------------------------------------


def test_own_data_have_a_test_set_and_no_verdicts():
    made = result([own()], Settings(limit=60, learning_rates=(0.05,)))
    assert list(rows(made)) == [f"own {word}".strip() for word in WORDS[:5]]
    assert made["settings"]["features"] == {"own": 2}
    assert {claim["verdict"] for claim in made["claims"]} == {"not tested"}
    main, data = rows(made)["own"], own()
    weights = [np.array(w) for w in made["curves"]["own"]["weights"]]
    said = sigmoid_outputs(weights, data.x_test) > 0.5
    np.testing.assert_allclose(main["test_accuracy"], (said == data.y_test).mean(axis=1))
    assert main["test_accuracy"] != main["train_accuracy"]


def test_bytes_are_divided_by_255_and_only_planes_are_drawn():
    data = from_arrays("own", **arrays("uint8", classes=2, features=5), source="own.npz")
    np.testing.assert_array_equal(pose(data, [0]).x, data.x_train / 255)
    assert "weights" not in result([data], Settings(limit=5))["curves"]["own"]


def test_two_classes_are_wanted():
    with pytest.raises(DataError, match="toy has one output for two classes, own has 3 classes"):
        run([own(classes=3)], QUICK, [0])


@pytest.mark.parametrize("hidden", [(), (1,), (4, 3, 2)])
def test_any_depth(hidden):
    made = result([gn.datasets.load("xor-easy")], Settings(hidden=hidden, limit=20), seeds=[0])
    shapes = [np.shape(w)[1:] for w in made["curves"]["xor-easy"]["weights"]]
    assert shapes == list(zip((*hidden, 1), (2, *hidden), strict=True))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden": (3, 0)}, r"hidden layers are \[3, 0\]: expected whole numbers of units ≥ 1"),
        ({"hidden": (3.5,)}, "hidden layers are"),
        ({"threshold": 0}, "threshold cannot be 0: expected a finite number > 0"),
        ({"threshold": float("nan")}, "threshold cannot be nan"),
        ({"learning_rates": ()}, "no learning rate is given"),
        ({"learning_rates": (0.8, -0.1)}, "learning_rate cannot be -0.1"),
        ({"limit": 0}, "limit is a whole number of steps ≥ 1, got 0"),
        ({"limit": 2.5}, "limit is a whole number of steps ≥ 1, got 2.5"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(InputError, match=message):
        Settings(**settings)


def test_rates_given_twice_are_one():
    assert [v.word for v in variants((0.8, 0.8, 0.1), 0.04)] == [*WORDS[:5], "rate=0.1"]


def test_rows_of_a_data_set():
    made = Result("toy", "a+a-b", "cpu", {"datasets": ["a", "a-b"]}, [0])
    for name in ("a", "a zeros", "a-b", "a-b rate=0.1"):
        made.row(name)
    assert rows_of(made, "a") == {"a": "", "a zeros": "zeros"}
    assert rows_of(made, "a-b") == {"a-b": "", "a-b rate=0.1": "rate=0.1"}


# -- claims ------------------------------------------------------------------------------------------------------------


def made_up(settings=QUICK, seeds=6, **changes):
    """A result in which every claim holds for every seed, but for what `changes` sets: {row: {metric: values}}."""
    features = {"linear": 2, "xor-easy": 2}
    told = dataclasses.asdict(settings) | {"datasets": list(features), "features": features}
    made = Result("toy", "linear+xor-easy", "cpu", told, list(range(seeds)))
    made.settings["as_in_the_document"] = settings.as_in_the_document
    good = {"converged": 1.0, "steps": 100.0, "train_accuracy": 1.0, "gradient_error": 1e-9}
    for data in features:
        slow = {f"{data} zeros": {"converged": 0.0, "steps": 300.0, "train_accuracy": 0.5},
                f"{data} rate=0.1": {"steps": 250.0}}  # fmt: skip
        for variant in variants(settings.learning_rates, settings.threshold):
            name = f"{data} {variant.word}".strip()
            values = good | slow.get(name, {}) | changes.get(name, {})
            for seed in range(seeds):
                made.row(name).add(**{k: v[seed] if isinstance(v, list) else v for k, v in values.items()})
    return made


def found(made):
    return {claim.id: (claim.verdict, claim.measured) for claim in verdicts(made)}


def test_claims_have_ids_of_their_own():
    assert len({claim.id for claim in CLAIMS}) == len(CLAIMS) == 10
    assert {claim.dataset for claim in CLAIMS} == {"linear", "xor-easy"}
    assert {claim.id for claim in claims("moons")} == {f"own-{c.id.removeprefix('linear-')}" for c in claims("linear")}


def test_where_all_holds_all_is_reproduced():
    assert {verdict for verdict, _ in found(made_up()).values()} == {"reproduced"}


@pytest.mark.parametrize(
    ("claim", "changes", "said"),
    [
        ("linear-converges", {"linear": {"converged": [1, 1, 1, 1, 0, 0], "steps": [9, 9, 9, 9, 300, 300]}},
         "4 of 6 within 300 steps, median 9"),
        ("xor-easy-converges", {"xor-easy": {"converged": 0, "steps": 300}}, "0 of 6 within 300 steps, median > 300"),
        ("xor-easy-accuracy", {"xor-easy": {"train_accuracy": [1, 1, 0.9, 0.9, 1, 1]}}, "4 of 6 all, mean 96.67%"),
        ("linear-zeros", {"linear zeros": {"steps": [300, 300, 300, 300, 99, 100], "converged": [0, 0, 0, 0, 1, 1]}},
         "zeros: 2 of 6 converge, accuracy 50%; drawn: 6"),
        ("linear-learning-rate", {"linear rate=0.1": {"steps": 199.0}}, "median 100 steps at 0.8, 199 at 0.1"),
        ("xor-easy-gradient", {"xor-easy": {"gradient_error": [1e-9, 1e-9, 1e-9, 1e-9, 2e-6, 2e-6]}},
         "largest error 2.0e-06"),
    ],
)  # fmt: skip
def test_a_claim_that_fails_is_reported_as_failing(claim, changes, said):
    judged = found(made_up(**changes))
    assert judged[claim] == ("not reproduced", said)
    others = {verdict for name, (verdict, _) in judged.items() if name.split("-")[0] != claim.split("-")[0]}
    assert others == {"reproduced"}


def test_a_run_of_one_data_set_does_not_judge_the_other():
    made = result([gn.datasets.load("linear")], Settings(limit=50, learning_rates=(0.8,)), seeds=[0])
    judged = {claim["id"]: claim["verdict"] for claim in made["claims"]}
    assert {v for k, v in judged.items() if k.startswith("xor-easy")} == {"not tested"}
    assert judged["linear-learning-rate"] == "not tested"
    assert judged["linear-gradient"] == "reproduced"


@pytest.mark.parametrize("changed", [{"hidden": (4,)}, {"threshold": 0.01}, {"learning_rates": (0.5, 0.8)}])
def test_other_settings_than_the_documents_get_no_verdicts(changed):
    judged = verdicts(made_up(dataclasses.replace(QUICK, **changed)))
    assert {claim.verdict for claim in judged} == {"not tested"}
    assert all("this run has others" in claim.note for claim in judged)
    assert {claim.measured is None for claim in judged} <= {False}


def test_an_empty_result_is_not_tested():
    empty = Result("toy", "linear", "cpu", {"learning_rates": (0.8, 0.1), "limit": 9}, [0])
    assert {claim.verdict for claim in judge(CLAIMS, empty)} == {"not tested"}


def test_steps_at_the_limit_are_more():
    assert [steps_told(n, 10_000) for n in (0, 9_999, 10_000)] == ["0", "9,999", "> 10,000"]
