"""svd-init on small data: what it measures is held against plain formulas, and the same seed gives the same bits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gpunet.backend import get_backend
from gpunet.datasets import Dataset
from gpunet.errors import DataError, DivergedError, InputError
from gpunet.experiments.claims import judge
from gpunet.experiments.framework import Run
from gpunet.experiments.result import Metric, NotMeasuredError, Result
from gpunet.experiments.svd_init import Settings, body, x
from gpunet.experiments.svd_init.body import ALL_KINDS, default_epochs, first_weights, train_once
from gpunet.experiments.svd_init.claims import TABLE_1, _rank_correlation
from gpunet.experiments.svd_init.data import default_units, normalise, prepare
from gpunet.progress import Progress

from .made import KINDS, check_result, dataset, repeatable

SETTINGS = Settings(epochs=2, batch_size=16)


def compute(data, settings, seeds, progress=None):
    return Run(x, data, settings, seeds).compute("numpy", progress)


def result(seeds, data=None, settings=SETTINGS, **kwargs):
    made = compute(data or dataset(), settings, list(seeds), **kwargs).to_json()
    check_result(made)
    return made


@pytest.fixture(scope="module")
def two_seeds():
    return result([0, 1])


# -- the same seed, the same bits -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_same_seed_twice(two_seeds):
    assert repeatable(result([0, 1])) == repeatable(two_seeds)


def test_a_seed_does_not_know_which_others_run(two_seeds):
    alone = result([1])
    for row, both in zip(alone["rows"], two_seeds["rows"], strict=True):
        for name, metric in row["metrics"].items():
            assert metric["values"] == both["metrics"][name]["values"][1:], (row["name"], name)
    for name, curves in alone["curves"].items():
        assert curves == {key: runs[1:] for key, runs in two_seeds["curves"][name].items()}


def test_another_seed_gives_other_numbers(two_seeds):
    for row in two_seeds["rows"]:
        first, second = row["metrics"]["train_loss"]["values"]
        assert first != second, row["name"]


def test_progress_changes_nothing(two_seeds):
    class Counting(Progress):
        started, parts = 0, 0

        def start(self, what, total):
            assert self.parts == self.started
            self.started += total

        def advance(self, parts=1, note=""):
            self.parts += parts

    bar = Counting()
    assert repeatable(result([0, 1], progress=bar)) == repeatable(two_seeds)
    assert bar.parts == bar.started == 19 * 2 * 2 * 4  # runs, seeds, epochs, steps


def test_settings_are_written_as_they_were_used(two_seeds):
    assert two_seeds["settings"]["hidden"] == 6  # seven features less the mean that was taken away
    assert two_seeds["settings"]["epochs"] == 2
    assert two_seeds["seeds"] == [0, 1]
    assert (two_seeds["experiment"], two_seeds["dataset"], two_seeds["device"]) == ("svd-init", "own", "cpu")
    other = result([0], settings=dataclasses.replace(SETTINGS, hidden=3))
    assert other["settings"]["hidden"] == 3


def test_the_notes_say_how_the_data_was_decomposed(two_seeds):
    found = two_seeds["notes"]["svd"]
    assert {which: len(parts) for which, parts in found.items()} == {"whole": 1, "each": 3}
    for part in (*found["whole"], *found["each"]):
        assert part["route"]
        assert 0 <= part["residual"] <= part["tol"]
    assert two_seeds["notes"]["blas_threads"]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["uint8", "float64"])
def test_bytes_and_floats(dtype):
    made = result([0], dataset(dtype=dtype), dataclasses.replace(SETTINGS, epochs=60))
    accuracy = {row["name"]: row["metrics"]["test_accuracy"]["mean"] for row in made["rows"]}
    assert min(accuracy[kind] for kind in KINDS) > 0.8  # three clusters: chance is 1/3


# -- normalise --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_normalised_rows_have_mean_0_and_norm_1(rng, dtype):
    x = rng.integers(0, 256, (50, 13)).astype(dtype)
    kept = x.copy()
    out = normalise(x, chunk=7)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out.sum(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(out, axis=1), 1, rtol=1e-6)
    centred = kept.astype(float) - kept.astype(float).mean(axis=1, keepdims=True)
    np.testing.assert_allclose(out, centred / np.linalg.norm(centred, axis=1, keepdims=True), rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(x, kept)
    np.testing.assert_array_equal(normalise(x), out)  # the chunks do not show


@pytest.mark.parametrize("value", [0.0, 0.1, -1 / 3, 1e30, 1e-30, 255.0])
def test_a_sample_without_direction_becomes_zero(value):
    x = np.full((3, 784), value)
    x[1] = np.arange(784)
    out = normalise(x)
    np.testing.assert_array_equal(out[[0, 2]], 0)
    assert np.linalg.norm(out[1]) == pytest.approx(1, rel=1e-6)


def test_rows_of_any_size_side_by_side(rng):
    """One huge sample must not make its neighbours look like zeros."""
    direction = rng.normal(size=9)
    x = np.outer([1e300, 1e38, 1.0, 1e-5, 1e-38, 1e-300], direction)
    out = normalise(x)
    np.testing.assert_allclose(out, np.tile(normalise(direction[None]), (6, 1)), rtol=1e-6)


# -- what is measured -------------------------------------------------------------------------------------------------


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


@pytest.fixture
def trained(monkeypatch):
    """Train one kind; returns its outcome, the first weights as drawn, and the model as it ends."""
    made = []
    original = body.network
    monkeypatch.setattr(body, "network", lambda *args, **kwargs: made.append(original(*args, **kwargs)) or made[-1])

    def train(kind, variant="", settings=SETTINGS, data=None, device="numpy"):
        backend = get_backend(device)
        problem = prepare(data or dataset(), settings.hidden, backend)
        w1 = body.first_weights(problem, settings, kind, 0)
        outcome = train_once(problem, settings, kind, 0, backend, Progress(), variant)
        return outcome, w1, {name: np.array(value) for name, value in made[-1].parameters.items()}

    return train


@pytest.mark.parametrize("kind", KINDS)
def test_dependency_and_hidden_squares_by_brute_force(trained, kind):
    outcome, w, end = trained(kind)
    x = normalise(dataset().x_train).astype(float)
    x_square = np.mean([sample @ sample for sample in x])

    def ratio(w, b):
        z_square = np.mean([np.sum((w @ sample + b) ** 2) for sample in x])
        energy = np.sum(w * w) * x_square
        return (z_square - energy / w.shape[1]) / energy

    found = outcome.metrics
    assert found["dependency_initial"] == pytest.approx(ratio(w, 0), rel=1e-5, abs=1e-6)
    trained_weight, bias = end["0.weight"].astype(float), end["0.bias"].astype(float)
    assert found["dependency_final"] == pytest.approx(ratio(trained_weight, bias), rel=1e-5, abs=1e-6)
    linear = np.mean([np.sum((w @ sample / 4 + 0.5) ** 2) for sample in x])
    assert found["hidden_square_linear"] == pytest.approx(linear, rel=1e-6)
    measured = np.mean([np.sum(sigmoid(w @ sample) ** 2) for sample in x])
    assert found["hidden_square_measured"] == pytest.approx(measured, rel=1e-6)
    independent = len(w) / 4 + np.sum(w * w) / w.shape[1] * x_square / 16
    assert found["hidden_square_independent"] == pytest.approx(independent, rel=1e-6)
    assert found["weight_mean_over_std"] == pytest.approx(trained_weight.mean() / trained_weight.std(), rel=1e-6)


def test_the_accuracies_and_losses_are_those_of_the_model_as_it_ends(trained):
    outcome, _, end = trained("orth-each", settings=dataclasses.replace(SETTINGS, epochs=20))
    data = dataset()
    for split in ("train", "test"):
        x, y = normalise(getattr(data, f"x_{split}")).astype(float), getattr(data, f"y_{split}")
        w1, b1, w2, b2 = end.values()
        out = sigmoid(sigmoid(x @ w1.T + b1) @ w2.T + b2)
        wanted = np.eye(3)[y]
        loss = -np.mean(np.sum(wanted * np.log(out) + (1 - wanted) * np.log(1 - out), axis=1))
        assert outcome.metrics[f"{split}_accuracy"] == np.mean(out.argmax(axis=1) == y)
        assert outcome.metrics[f"{split}_loss"] == pytest.approx(loss, rel=1e-5)


def test_first_biases_and_second_weights_are_the_documents():
    backend = get_backend("numpy")
    problem = prepare(dataset(), SETTINGS.hidden, backend)

    def parameters(seed):
        model = body.network(np.ones((6, 7)), problem, SETTINGS, seed, frozen=False)
        model.build((7,), backend)
        return [np.array(value) for value in model.parameters.values()]

    w1, b1, w2, b2 = parameters(3)
    np.testing.assert_array_equal(w1, 1)
    np.testing.assert_array_equal(b1, 0)
    np.testing.assert_allclose(b2, -0.5 * w2.sum(axis=1), rtol=1e-5)
    np.testing.assert_array_equal(parameters(3)[2], w2)
    assert not np.allclose(parameters(4)[2], w2)
    second = np.concatenate([parameters(seed)[2].ravel() for seed in range(100)])
    assert abs(second.mean()) < 4 * 0.3 / np.sqrt(len(second))
    assert second.var() == pytest.approx(0.09, rel=0.15)
    drawn = np.concatenate([body.first_weights(problem, SETTINGS, "random", seed).ravel() for seed in range(100)])
    assert abs(drawn.mean()) < 4 * 0.3 / np.sqrt(len(drawn))
    assert drawn.var() == pytest.approx(0.09, rel=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_frozen_means_frozen(trained, kind):
    free, w1, end = trained(kind)
    assert not np.array_equal(end["0.weight"], w1.astype(np.float32))
    assert end["0.bias"].any()
    frozen, w1, end = trained(kind, "frozen")
    np.testing.assert_array_equal(end["0.weight"], w1.astype(np.float32))
    np.testing.assert_array_equal(end["0.bias"], 0)
    assert frozen.metrics["dependency_final"] == frozen.metrics["dependency_initial"]
    assert frozen.metrics["train_loss"] != free.metrics["train_loss"]
    assert frozen.curves["train_loss"][1] < frozen.curves["train_loss"][0]  # the second layer learns


@pytest.mark.parametrize("kind", ["random", "scale-each"])
def test_the_norms_are_held(trained, kind):
    settings = dataclasses.replace(SETTINGS, epochs=10)

    def norms(parameters):
        return np.array([np.linalg.norm(value) for name, value in parameters.items() if name.endswith("weight")])

    _, w1, free = trained(kind, settings=settings)
    _, _, held = trained(kind, "norm held", settings)
    w2 = body.stream(0, body.WEIGHTS, 101).normal(0.0, 0.3, (3, len(w1)))
    start = np.array([np.linalg.norm(w1), np.linalg.norm(w2)])
    np.testing.assert_allclose(norms(held), start, rtol=1e-6)
    assert (np.abs(norms(free) / start - 1) > 1e-3).all()
    assert not np.allclose(held["0.weight"], w1)


def test_on_every_backend(backend):
    settings = dataclasses.replace(SETTINGS, epochs=3)
    problem = prepare(dataset(), settings.hidden, backend)
    there = train_once(problem, settings, "orth-each", 0, backend, Progress(), "norm held").metrics
    numpy_ = get_backend("numpy")
    here = train_once(
        prepare(dataset(), settings.hidden, numpy_), settings, "orth-each", 0, numpy_, Progress(), "norm held"
    ).metrics
    for name in there:
        assert there[name] == pytest.approx(here[name], rel=1e-3, abs=1e-4), name


# -- settings and mistakes --------------------------------------------------------------------------------------------


def test_default_epochs():
    assert default_epochs(60_000, 100) == 5  # the document's
    assert default_epochs(6_000, 100) == 50
    assert default_epochs(60, 100) == 60
    assert default_epochs(10**6, 1) == 5


def test_default_units():
    everywhere = np.ones(100)
    assert default_units(everywhere, np.full(10, 6000)) == 100
    assert default_units(everywhere, np.array([7, 50, 50])) == 21  # the smallest class gives seven
    assert default_units(np.array([1.0, 1, 1, 0]), np.array([50, 50])) == 3  # the rank
    assert default_units(np.ones(2), np.array([50, 50])) == 2


def test_few_wide_samples_are_decomposed_by_their_number(monkeypatch):
    """48 photos of 3,000 features: nothing of 3,000×3,000 goes to LAPACK."""
    sizes = []
    for name in ("eigh", "eigvalsh", "svd", "qr", "cholesky"):
        found = getattr(np.linalg, name)
        monkeypatch.setattr(
            np.linalg, name, lambda a, *args, found=found, **how: sizes.append(min(a.shape)) or found(a, *args, **how)
        )
    rng = np.random.default_rng(5)
    x, y = rng.integers(0, 256, (48, 3000), dtype=np.uint8), np.arange(48) % 3
    problem = prepare(Dataset("photos", x, y, x, y, (3000,), 3, "here"), None, get_backend("numpy"))
    assert problem.units == 47 or problem.units == 48
    assert max(sizes) <= 100


@pytest.mark.parametrize("change", [{"hidden": 0}, {"epochs": 0}, {"batch_size": 0}, {"batch_size": -3}])
def test_settings_that_cannot_be(change):
    with pytest.raises(InputError, match=f"{next(iter(change))} .*got {next(iter(change.values()))}"):
        Settings(**change)


def test_samples_that_are_all_flat():
    data = dataset()
    flat = dataclasses.replace(data, x_train=np.ones_like(data.x_train))
    with pytest.raises(DataError, match="all features equal"):
        compute(flat, SETTINGS, [0])


def test_weights_that_cannot_be_made_are_named_before_anything_is_trained():
    class NothingStarts(Progress):
        def start(self, what, total):
            pytest.fail(f"{what} was started")

    with pytest.raises(InputError, match="singular value 7 of 7 is zero"):  # seven features less their mean: rank six
        compute(dataset(), dataclasses.replace(SETTINGS, hidden=7), [0], NothingStarts())


@pytest.mark.parametrize("rate", [1e30, 1e60])
def test_a_rate_that_is_too_high_is_named(rate):
    with pytest.raises(DivergedError, match=r"epoch \d, step \d.*learning rate 1e\+[36]0"):
        compute(dataset(), dataclasses.replace(SETTINGS, learning_rate=rate, epochs=4), [0])


# -- real MNIST -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_mnist(real_data):
    """One seed of the document's five epochs: what the issue asks of the mean of five, less what one seed may stray."""
    from gpunet.datasets import load

    data, settings = load("mnist", data_dir=real_data), Settings(epochs=5)
    problem = prepare(data, settings.hidden, backend := get_backend("cpu"))
    assert problem.units == 100
    accuracy = {
        kind: train_once(problem, settings, kind, 0, backend, Progress()).metrics["test_accuracy"]
        for kind in ("random", "orth-each")
    }
    assert accuracy["orth-each"] >= 0.92
    assert accuracy["random"] >= 0.90
    assert accuracy["orth-each"] > accuracy["random"]


def test_a_class_of_repeated_samples_lowers_the_default_units():
    """Class 1 has many samples but two directions: the default takes two units a class; asked for, it is an error."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(90, 12)).astype("float32")
    y = np.arange(90) % 3
    x[y == 1] = x[y == 1][:2][np.arange(30) % 2]
    data = Dataset("own", x, y, x, y, (12,), 3, "here")
    problem = prepare(data, None, get_backend("numpy"))
    assert problem.units == 6
    for kind in ALL_KINDS:
        assert np.isfinite(first_weights(problem, Settings(), kind, 0)).all()
    with pytest.raises(InputError, match="ask for fewer units"):
        first_weights(prepare(data, 9, get_backend("numpy")), Settings(), "scale-each", 0)


# -- claims -----------------------------------------------------------------------------------------------------------


def full(changes=None) -> Result:
    """A run of three seeds that finds exactly what the document states, but for `changes`: {(row, metric): values}."""
    made = Result("svd-init", "mnist", "cpu", {"epochs": 5}, [0, 1, 2])
    for place, (row, (loss, train, test)) in enumerate(TABLE_1.items()):
        dependency = {
            "random": 0.0,
            "scale-whole": -0.01,
            "orth-whole": 0.02,
            "scale-each": 0.03,
            "orth-each": 0.07,
        }[row]
        for _ in made.seeds:
            made.row(row).add(train_loss=loss, train_accuracy=train, test_accuracy=test)
            made.row(row).add(dependency_initial=dependency, dependency_final=dependency + 0.01)
            made.row(row).add(weight_mean_over_std=0.001 * place)
            made.row(f"{row} frozen").add(test_accuracy=test - 0.1)
    for dep, accuracy in ((0, 0.9), (0.02, 0.91), (0.05, 0.92), (0.1, 0.93)):
        made.row(f"orth-each dep={dep:g}").metrics["test_accuracy"] = Metric([accuracy] * 3)
    made.timings = {"whole": {"svd": [1.0]}, "each": {"svd": [1.1]}}
    for row in TABLE_1:
        made.timings |= {row: {"epoch": [2.0] * 3}, f"{row} frozen": {"epoch": [1.1] * 3}}
    for (row, metric), values in (changes or {}).items():
        made.row(row).metrics[metric] = Metric(list(values))
    return made


def verdicts(made: Result) -> dict[str, str]:
    return {found.id: found.verdict for found in judge(x, made)}


def test_a_run_like_the_document_reproduces_every_claim():
    found = verdicts(full())
    assert set(found.values()) == {"reproduced"}
    assert len(found) == 15 + 8


def test_statements_say_how_long_was_trained():
    made = full()
    made.settings["epochs"] = 60
    assert judge(x, made)[0].statement == "train loss of random weights after 60 epochs"


def test_table_claims_are_judged_each_by_its_own_metric_and_direction():
    better = verdicts(full({("orth-each", "test_accuracy"): [0.95] * 3, ("orth-each", "train_loss"): [0.3] * 3}))
    assert better["table1-orth-each-test-accuracy"] == better["table1-orth-each-train-loss"] == "exceeded"
    assert better["table1-orth-each-train-accuracy"] == "reproduced"
    numbers = {"test_accuracy": 0.85, "train_loss": 1.0, "train_accuracy": 0.8}
    worse = verdicts(full({("random", metric): [value] * 3 for metric, value in numbers.items()}))
    assert {worse[f"table1-random-{m}"] for m in ("test-accuracy", "train-loss", "train-accuracy")} == {
        "not reproduced"
    }
    assert worse["table1-orth-whole-test-accuracy"] == "reproduced"


@pytest.mark.parametrize(
    ("id_", "verdict", "changes"),
    [
        ("orth-each-best", "inconclusive", {("orth-whole", "test_accuracy"): [0.935, 0.91, 0.91]}),
        ("orth-each-best", "not reproduced", {("orth-whole", "test_accuracy"): [0.935] * 3}),
        ("scaling-no-gain", "not reproduced", {("scale-whole", "test_accuracy"): [0.92] * 3}),
        ("dependency-helps", "not reproduced", {("orth-each dep=0.1", "test_accuracy"): [0.91] * 3}),
        ("dependency-helps", "inconclusive", {("orth-each dep=0.1", "test_accuracy"): [0.92, 0.95, 0.95]}),
        ("dependency-helps-across-kinds", "not reproduced", {("orth-each", "dependency_initial"): [-0.5] * 3}),
        ("dependency-rises", "not reproduced", {("random", "dependency_final"): [0.0] * 3}),
        ("weights-mean-zero", "not reproduced", {(row, "weight_mean_over_std"): [0.06] * 3 for row in TABLE_1}),
        ("weights-mean-zero", "not reproduced", {(row, "weight_mean_over_std"): [-0.06] * 3 for row in TABLE_1}),
    ],
)
def test_each_ordering_can_fail_alone(id_, verdict, changes):
    found = verdicts(full(changes))
    assert found[id_] == verdict
    others = {name for name, each in found.items() if each != "reproduced" and not name.startswith("table1")}
    assert others == {id_}


def test_kinds_are_ranked_with_ties_as_scipy_ranks_them():
    from scipy.stats import spearmanr

    for a, b in (((1, 2, 3, 4, 5), (0.9, 0.9, 0.9, 0.9, 0.95)), ((3, 1, 2, 2, 5), (0.1, 0.2, 0.2, 0.4, 0.3))):
        assert _rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)
    with pytest.raises(NotMeasuredError, match="the same accuracy"):
        _rank_correlation((1, 2, 3), (0.9, 0.9, 0.9))


def test_claims_about_time():
    made = full()
    made.timings["each"]["svd"] = [1.6]
    for row in TABLE_1:
        made.timings[f"{row} frozen"]["epoch"] = [2.1] * 3
    found = verdicts(made)
    assert found["svd-each-costs-same"] == found["frozen-is-cheaper"] == "not reproduced"
    for row in TABLE_1:
        made.timings[f"{row} frozen"]["epoch"] = [0.2] * 3  # a tenth, where half of the products remain
    found = {each.id: each for each in judge(x, made)}
    assert found["frozen-is-cheaper"].verdict == "not tested"
    assert "timing unreliable" in found["frozen-is-cheaper"].note


def test_what_was_not_measured_is_not_tested():
    found = judge(x, Result("svd-init", "mnist", "cpu", {"epochs": 5}, [0]))
    assert {(each.verdict, each.measured) for each in found} == {("not tested", None)}


def test_on_other_data_orderings_are_judged_and_the_documents_numbers_are_not():
    made = full()
    made.dataset = "digits"
    found = judge(x, made)
    numbers = [each for each in found if each.id.startswith("table1")]
    assert {(each.verdict, each.here, each.note) for each in numbers} == {
        ("not tested", False, "not applicable: the document speaks of mnist")
    }
    assert all(type(each.measured) is float for each in numbers)
    orderings = [each for each in found if each not in numbers]
    assert {(each.verdict, each.here) for each in orderings} == {("reproduced", True)}
    assert orderings[0].measured.startswith("class-wise vectors: +2.05 points over random weights")
