"""toy: its result, its claims, its settings, its figures' data."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import gpunet as gn
from gpunet.datasets.arrays import from_arrays
from gpunet.errors import DataError, InputError
from gpunet.experiments.claims import judge
from gpunet.experiments.framework import Run
from gpunet.experiments.result import Metric, Result, Row
from gpunet.experiments.toy import Settings, nets, x
from gpunet.experiments.toy.claims import steps_told
from gpunet.experiments.toy.nets import Variant, prepare, variants
from gpunet.experiments.toy.stack import draw_weights, sigmoid_outputs, train
from gpunet.experiments.toy.tables import rows_of

from .made import arrays, dataset
from .schema import check_document

WORDS = ["", "zeros", "glorot", "mean", "unhalved", "rate=0.1", "rate=0.2", "rate=0.4", "rate=1.6", "rate=3.2"]
METRICS = {"converged", "steps", "train_loss", "largest_loss", "train_accuracy", "test_accuracy"}
OURS, QUICK = Settings(), Settings(limit=300)


def both():
    return [gn.datasets.load(name) for name in ("linear", "xor-easy")]


def result(data=None, settings=QUICK, seeds=range(4)):
    made = Run(x, data or both(), settings, list(seeds)).compute("cpu").to_json()
    check_document(made)
    return made


def judged(made):
    """The verdicts on what was written."""
    given = {key: made[key] for key in ("experiment", "dataset", "device", "settings", "seeds", "notes")}
    every = [Row(name, {m: Metric(v) for m, v in each.items()}) for name, each in rows(made).items()]
    return judge(x, Result(**given, rows=every))


def rows(made):
    return {row["name"]: {m: v["values"] for m, v in row["metrics"].items()} for row in made["rows"]}


@pytest.fixture(scope="module")
def four_seeds():
    return result()


def nets_of(data, seeds, **settings):
    run = Run(x, None, Settings(**settings), seeds)
    run.backend, run.bar = gn.get_backend("numpy"), gn.progress.Progress()
    return prepare(run, gn.datasets.load(data) if isinstance(data, str) else data)


def own(dtype="float32", features=2, classes=2):
    return dataset("own", dtype=dtype, features=features, classes=classes)


# -- the result --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits_also_among_other_seeds(four_seeds):
    again = result()
    for key in ("settings", "seeds", "rows", "notes", "curves"):
        assert again[key] == four_seeds[key]
    one = result(seeds=[2])
    for name, metrics in rows(one).items():
        assert metrics == {metric: values[2:3] for metric, values in rows(four_seeds)[name].items()}


@pytest.mark.slow
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
    problem = nets_of("linear", [0, 5])
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
    assert sorted(timings) == sorted(rows(four_seeds))
    for name, times in timings.items():
        assert set(times) == ({"stack", "step_alone"} if name in ("linear", "xor-easy") else {"stack"})
        assert all(len(seconds) == 1 and seconds[0] > 0 for seconds in times.values())


def test_nets_that_would_all_be_the_same_are_trained_once(monkeypatch):
    trained, alone = [], nets.train
    monkeypatch.setattr(nets, "train", lambda w, *a, **k: (trained.append(len(w[0])), alone(w, *a, **k))[1])
    some = nets_of("xor-easy", [0, 1, 2], limit=20)
    zeros = Variant("zeros", 0.8, 0.04, initial="zeros")
    found, _ = some.train(zeros)
    assert trained == [1]
    weights = draw_weights((2, 3, 3, 1), [0, 1, 2], "zeros")
    each = alone(weights, some.x, some.labels, learning_rate=0.8, threshold=0.04, limit=20)
    for field in dataclasses.fields(each):
        mine, theirs = getattr(found, field.name), getattr(each, field.name)
        for a, b in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_wrong_gradient_is_found(monkeypatch):
    some = nets_of("linear", range(5))
    weights = some.start(variants([0.8], 0.04)[0])
    assert some.gradient_errors(weights).max() < 1e-8
    right = nets.gradients
    monkeypatch.setattr(nets, "gradients", lambda *given: [1.0001 * g for g in right(*given)])
    assert some.gradient_errors(weights).max() > 1e-6


# -- own data and settings ---------------------------------------------------------------------------------------------


def test_own_data_have_a_test_set_and_are_judged_for_themselves():
    made = result([own()], Settings(limit=60, learning_rates=(0.05,)))
    assert list(rows(made)) == [f"own {word}".strip() for word in WORDS[:5]]
    assert (made["notes"]["datasets"], made["notes"]["features"]) == (["own"], {"own": 2})
    claims = {claim.id: claim for claim in judged(made)}
    assert list(claims) == [f"own-{what}" for what in CLAIMS]
    verdicts = {name: claim.verdict for name, claim in claims.items()}
    assert verdicts == dict.fromkeys(claims, "not tested") | {"own-gradient": "reproduced"}  # within 60 steps, one rate
    assert claims["own-gradient"].here
    main, data = rows(made)["own"], own()
    weights = [np.array(w) for w in made["curves"]["own"]["weights"]]
    said = sigmoid_outputs(weights, data.x_test) > 0.5
    np.testing.assert_allclose(main["test_accuracy"], (said == data.y_test).mean(axis=1))
    assert main["test_accuracy"] != main["train_accuracy"]


def test_bytes_are_divided_by_255_and_only_planes_are_drawn():
    data = from_arrays("own", **arrays("uint8", classes=2, features=5), source="own.npz")
    np.testing.assert_array_equal(nets_of(data, [0]).x, data.x_train / 255)
    assert "weights" not in result([data], Settings(limit=5))["curves"]["own"]


def test_two_classes_are_wanted():
    with pytest.raises(DataError, match="own has 3 classes: toy is for 2, and no others"):
        result([own(classes=3)], QUICK, [0])


def test_a_parameter_sweep_hands_one_data_set():
    assert rows(result(own(), Settings(limit=5))) == rows(result([own()], Settings(limit=5)))


@pytest.mark.parametrize("hidden", [(), (1,), (4, 3, 2)])
def test_any_depth(hidden):
    made = result([gn.datasets.load("xor-easy")], Settings(hidden=hidden, limit=20), seeds=[0])
    shapes = [np.shape(w)[1:] for w in made["curves"]["xor-easy"]["weights"]]
    assert shapes == list(zip((*hidden, 1), (2, *hidden), strict=True))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden": (3, 0)}, "hidden is a whole number ≥ 1, got 0"),
        ({"hidden": (3.5,)}, "hidden is a whole number ≥ 1, got 3.5"),
        ({"threshold": 0}, "threshold cannot be 0: expected a finite number > 0"),
        ({"threshold": float("nan")}, "threshold cannot be nan"),
        ({"dtype": "float16"}, "dtype is 'float16': expected one of float32, float64"),
        ({"learning_rates": ()}, "learning_rates is empty: expected at least one"),
        ({"learning_rates": (0.8, -0.1)}, "learning_rates cannot be -0.1"),
        ({"limit": 0}, "limit is a whole number ≥ 1, got 0"),
        ({"limit": 2.5}, "limit is a whole number ≥ 1, got 2.5"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(InputError, match=message):
        Settings(**settings)


def test_rates_given_twice_are_one():
    assert [v.word for v in variants((0.8, 0.8, 0.1), 0.04)] == [*WORDS[:5], "rate=0.1"]


def test_rows_of_a_data_set():
    made = Result("toy", "a+a-b", "cpu", {}, [0])
    for name in ("a", "a zeros", "a-b", "a-b rate=0.1"):
        made.row(name)
    assert rows_of(made, "a") == {"a": "", "a zeros": "zeros"}
    assert rows_of(made, "a-b") == {"a-b": "", "a-b rate=0.1": "rate=0.1"}


# -- claims ------------------------------------------------------------------------------------------------------------

CLAIMS = ("converges", "accuracy", "zeros", "learning-rate", "gradient")


def made_up(settings=OURS, seeds=12, features=(("linear", 2), ("xor-easy", 2)), **changes):
    """A result in which every claim holds for every seed, but for what `changes` sets: {row: {metric: values}}."""
    made = Result("toy", "+".join(dict(features)), "cpu", dataclasses.asdict(settings), list(range(seeds)))
    made.notes |= {"datasets": list(dict(features)), "features": dict(features)}
    good = {"converged": 1.0, "steps": 100.0, "train_accuracy": 1.0, "gradient_error": 1e-9}
    for data, _ in features:
        slow = {f"{data} zeros": {"converged": 0.0, "steps": 300.0, "train_accuracy": 0.5},
                f"{data} rate=0.1": {"steps": 250.0}}  # fmt: skip
        for variant in variants(settings.learning_rates, settings.threshold):
            name = f"{data} {variant.word}".strip()
            values = good | slow.get(name, {}) | changes.get(name, {})
            for seed in range(seeds):
                made.row(name).add(**{k: v[seed] if isinstance(v, list) else v for k, v in values.items()})
    return made


def found(made):
    return {claim.id: (claim.verdict, claim.measured) for claim in judge(x, made)}


def test_claims_have_ids_of_their_own():
    assert list(found(made_up())) == [f"{data}-{what}" for data in ("linear", "xor-easy") for what in CLAIMS]
    assert list(found(made_up(features=(("moons", 2),)))) == [f"own-{what}" for what in CLAIMS]
    assert list(found(made_up(features=(("linear", 2),)))) == [f"linear-{what}" for what in CLAIMS]


def test_where_all_holds_all_is_reproduced():
    assert {verdict for verdict, _ in found(made_up()).values()} == {"reproduced"}
    assert not any(claim.here for claim in judge(x, made_up()))
    assert all(claim.here for claim in judge(x, made_up(features=(("moons", 2),))))


def test_three_nets_are_too_few_for_a_share():
    """But what holds whatever the seed is told of one net, too."""
    few = {name: verdict for name, (verdict, _) in found(made_up(seeds=3)).items()}
    assert [few[f"linear-{what}"] for what in CLAIMS] == [*["inconclusive"] * 2, *["reproduced"] * 3]
    assert found(made_up(seeds=1))["linear-learning-rate"][0] == "inconclusive"


@pytest.mark.parametrize(
    ("claim", "changes", "verdict", "said"),
    [
        ("linear-converges", {"linear": {"converged": [1] * 4 + [0] * 8, "steps": [9] * 4 + [10_000] * 8}},
         "not reproduced", "4 of 12 nets stop within 10,000 steps, median > 10,000"),
        ("linear-converges", {"linear": {"converged": [1] * 8 + [0] * 4, "steps": [9] * 8 + [10_000] * 4}},
         "inconclusive", "8 of 12 nets stop within 10,000 steps, median 9"),
        ("xor-easy-converges", {"xor-easy": {"converged": 0, "steps": 10_000}},
         "not reproduced", "0 of 12 nets stop within 10,000 steps, median > 10,000"),
        ("xor-easy-accuracy", {"xor-easy": {"train_accuracy": [1] * 3 + [0.9] * 9}},
         "not reproduced", "3 of 12 nets predict all, mean accuracy 92.50%"),
        ("linear-zeros", {"linear zeros": {"steps": [50] * 11 + [100], "converged": 1}}, "not reproduced",
         "from zeros 12 of 12 converge, accuracy 50%; from drawn weights 12; 0.53 times as many steps, paired by seed"),
        ("linear-learning-rate", {"linear rate=0.1": {"steps": 199.0}},
         "not reproduced", "median 100 steps at 0.8, 199 at 0.1; 2 times as many steps, paired by seed"),
        ("linear-learning-rate", {"linear rate=0.1": {"steps": [120.0, 600.0] * 6}},
         "inconclusive", "median 100 steps at 0.8, 120 at 0.1; 2.7 times as many steps, paired by seed"),
        ("xor-easy-gradient", {"xor-easy": {"gradient_error": [1e-9] * 11 + [2e-6]}},
         "not reproduced", "largest error 2.0e-06"),
        ("xor-easy-gradient", {"xor-easy": {"gradient_error": float("nan")}}, "not tested", None),
    ],
)  # fmt: skip
def test_a_claim_that_fails_is_reported_as_failing(claim, changes, verdict, said):
    every = found(made_up(**changes))
    assert every[claim] == (verdict, said)
    assert {verdict for name, (verdict, _) in every.items() if name.split("-")[0] != claim.split("-")[0]} == {
        "reproduced"
    }


def test_a_run_of_one_data_set_does_not_judge_the_other():
    made = judged(result([gn.datasets.load("linear")], Settings(limit=50, learning_rates=(0.8,)), seeds=[0]))
    verdicts = {claim.id: claim.verdict for claim in made}
    assert list(verdicts) == [f"linear-{what}" for what in CLAIMS]
    assert (verdicts["linear-learning-rate"], verdicts["linear-gradient"]) == ("not tested", "reproduced")
    assert not any(claim.here for claim in made)


def test_nets_given_up_early_say_nothing_of_converging():
    """A limit below ours that most nets meet; the gradient does not ask how long a net was trained."""
    given_up = {"steps": [5] * 12, "converged": 0, "train_accuracy": 0.5}
    every = found(made_up(dataclasses.replace(QUICK, limit=5), **{"linear": given_up}))
    of_linear = {name: verdict for name, (verdict, _) in every.items() if name.startswith("linear-")}
    assert of_linear == dict.fromkeys(of_linear, "not tested") | {"linear-gradient": "reproduced"}
    rows = ("linear", "linear zeros", *(f"linear rate={rate:g}" for rate in OURS.learning_rates[1:]))
    met = found(made_up(**dict.fromkeys(rows, given_up | {"steps": [OURS.limit] * 12})))
    assert met["linear-converges"][0] == "not reproduced"
    assert [met[f"linear-{what}"][0] for what in ("zeros", "learning-rate")] == ["not tested"] * 2


@pytest.mark.parametrize("changed", [{"hidden": (4,)}, {"threshold": 0.01}, {"learning_rates": (0.5, 0.8)}])
def test_other_settings_than_the_documents_are_judged_for_themselves(changed):
    made = made_up(dataclasses.replace(QUICK, **changed))
    assert all(claim.here for claim in judge(x, made) if claim.verdict != "not tested")
    assert x.departure(made).startswith("this run has other settings than the document: ")
    assert x.departure(made_up(dataclasses.replace(QUICK, limit=9, dtype="float64"))) == ""


def test_the_statement_names_the_threshold_and_the_data_as_they_are():
    told = [claim.statement for claim in judge(x, made_up(dataclasses.replace(QUICK, threshold=0.1)))]
    assert told[0] == "linear: training converges until every sample's loss is below 0.1"
    told = [claim.statement for claim in judge(x, made_up(features=(("my{limit}", 2),)))]
    assert told[1] == "my{limit}: the trained net predicts all points"


def test_an_empty_result_is_not_tested():
    empty = Result("toy", "linear", "cpu", dataclasses.asdict(QUICK), [0])
    assert {claim.verdict for claim in judge(x, empty)} == {"not tested"}
    assert x.tables(empty) == []


def test_steps_at_the_limit_are_more():
    assert [steps_told(n, 10_000) for n in (0, 9_999, 10_000)] == ["0", "9,999", "> 10,000"]
