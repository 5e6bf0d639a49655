"""The claims of document 004 on results made by hand."""

from __future__ import annotations

import dataclasses

import pytest

from gpunet.experiments.cifar_mlp import Settings, x
from gpunet.experiments.cifar_mlp.claims import FINAL, RATES
from gpunet.experiments.claims import judge
from gpunet.experiments.result import Result

CLAIMS = 24
NUMBERS = {*(f"eta-{rate:g}-test-accuracy" for rate in RATES), "final-test-accuracy", "above-45"}


def empty(seeds=3, **settings) -> Result:
    known = dataclasses.asdict(Settings(epochs=10)) | settings
    return Result("cifar-mlp", "cifar10", "cpu", known, list(range(seeds)), notes={"early": 3})


def made(**changes) -> Result:
    """A run on cifar10 that agrees with the document; `changes`: test accuracies of single nets, one or one a seed."""
    result = empty()
    for rate, accuracy in RATES.items():
        for kind in ("", " no momentum"):
            gone = float(rate >= 0.3 and not kind)
            row(result, f"eta={rate:g}{kind}", accuracy - 0.01 * bool(kind), diverged=gone, early=True)
            cost = 2.0 + 0.1 * bool(kind)
            result.curves[f"eta={rate:g}{kind}"] = {
                "train_cost": [[cost] * 10 for _ in range(3)], "validation_accuracy": [[accuracy] * 10] * 3,
            }  # fmt: skip
    nets = {
        "final": FINAL, "one layer": 0.35, "final he": 0.44, "final decay early stopping": 0.44, "final full": 0.49,
        "found": 0.46,
    }  # fmt: skip
    for name, accuracy in (nets | {name.replace("_", " "): value for name, value in changes.items()}).items():
        row(result, name, accuracy)
    for short in ("W1", "b1", "W2", "b2"):
        for _ in range(3):
            result.row(f"gradient-check {short}").add(relative_error=1e-9, elementwise_error=1e-3, corners=1)
    trials = [(stage, rate, l2) for stage in (1, 2) for rate in (0.02, 0.025, 0.03) for l2 in (1e-6, 1e-5, 1e-4, 5e-2)]
    trials = [(stage, rate, l2 / (100 if stage == 2 else 1)) for stage, rate, l2 in trials]
    result.curves["search"] = {
        "stage": [t[0] for t in trials], "learning_rate": [t[1] for t in trials], "l2": [t[2] for t in trials],
        "validation_accuracy": [0.3 if t[2] > 1e-2 else 0.4 + 0.1 * t[1] for t in trials],
    }  # fmt: skip
    return result


def row(result, name, accuracy, diverged=0.0, early=False):
    for each in accuracy if isinstance(accuracy, list) else [accuracy] * 3:
        extra = {"test_accuracy_early": each} if early else {}
        result.row(name).add(test_accuracy=each, validation_accuracy=each, diverged=diverged, **extra)


def changed(result, name, metric, values) -> Result:
    result.metric(name, metric).values[:] = values
    return result


def found(result):
    return {claim.id: claim for claim in judge(x, result)}


def test_a_run_that_agrees():
    claims = found(made())
    assert len(claims) == CLAIMS
    assert {name: claim.verdict for name, claim in claims.items() if claim.verdict != "reproduced"} == {}
    assert not any(claim.here for claim in claims.values())
    assert "without momentum" in claims["eta-0.02-test-accuracy"].note
    assert "after 10" in claims["eta-0.02-test-accuracy"].note
    assert claims["eta-0.02-test-accuracy"].statement == "η = 0.02, λ = 1e-06: accuracy"
    assert "relative to the parameter's largest gradient" in claims["gradient-check"].note
    assert claims["large-l2-hurts"].note.startswith("true for 3 of 3 learning rates; difference ")
    assert claims["more-data-helps"].measured == "test accuracy 49.00% (final full), 42.55% (final): +6.45 points"


@pytest.mark.parametrize(
    ("changes", "id_", "verdict"),
    [
        ({"final": 0.40}, "final-test-accuracy", "not reproduced"),
        ({"final": 0.435}, "final-test-accuracy", "reproduced"),
        ({"final": 0.44}, "final-test-accuracy", "exceeded"),
        ({"final": [0.38, 0.40, 0.42]}, "final-test-accuracy", "inconclusive"),
        ({"final_he": FINAL}, "he-helps", "not reproduced"),
        ({"final_he": [0.425, 0.43, 0.46]}, "he-helps", "inconclusive"),
        ({"final_full": 0.42}, "more-data-helps", "not reproduced"),
        ({"found": 0.45}, "above-45", "not reproduced"),
        ({"found": [0.44, 0.47, 0.47]}, "above-45", "inconclusive"),
        ({"one_layer": 0.43}, "better-than-one-layer", "not reproduced"),
        ({"final_decay_early_stopping": 0.42}, "annealing-helps", "not reproduced"),
    ],
)
def test_nets_that_do_not_agree(changes, id_, verdict):
    assert found(made(**changes))[id_].verdict == verdict


@pytest.mark.parametrize(
    ("rate", "accuracy", "verdict"),
    [
        (0.02, 0.4131 - 0.0301, "not reproduced"), (0.02, 0.4131 + 0.0299, "reproduced"),
        (0.02, 0.4131 + 0.0301, "exceeded"), (0.001, 0.29, "exceeded"),
    ],
)  # fmt: skip
def test_the_eta_table_has_a_tolerance_of_three_points(rate, accuracy, verdict):
    result = changed(made(), f"eta={rate:g}", "test_accuracy_early", [accuracy] * 3)
    assert found(result)[f"eta-{rate:g}-test-accuracy"].verdict == verdict


@pytest.mark.parametrize(
    ("accuracies", "verdict"),
    [([0.1, 0.1, 0.1], "reproduced"), ([0.1, 0.1, 0.3], "inconclusive"), ([0.3, 0.31, 0.32], "not reproduced")],
)
def test_a_rate_that_diverges_has_to(accuracies, verdict):
    gone = [float(each == 0.1) for each in accuracies]
    result = changed(changed(made(), "eta=0.3", "diverged", gone), "eta=0.3", "test_accuracy", accuracies)
    claim = found(result)["eta-0.3-test-accuracy"]
    assert claim.verdict == verdict
    assert claim.measured == pytest.approx(sum(accuracies) / 3)
    assert claim.note.startswith(f"{sum(gone):g} of 3 diverged; margin ±0.03")


@pytest.mark.parametrize(("costs", "verdict"), [([2.2] * 3, "not reproduced"), ([1.9, 2.0, 2.12], "inconclusive")])
def test_momentum_that_does_not_help_at_one_rate(costs, verdict):
    result = made()
    for run, cost in zip(result.curves["eta=0.02"]["train_cost"], costs, strict=True):
        run[2] = cost  # after the early epochs
    claim = found(result)["momentum-faster"]
    assert claim.verdict == verdict
    assert f"lower by {2.1 - sum(costs) / 3:.3f} at η 0.02 and 0.100 at η 0.03 after 3 epochs" in claim.measured
    assert "41.70% with (η 0.03), 40.70% without (η 0.03)" in claim.measured


def test_momentum_cannot_be_told_where_a_net_diverged():
    result = made()
    result.curves["eta=0.03 no momentum"]["train_cost"][1][2] = float("nan")
    claim = found(result)["momentum-faster"]
    assert (claim.verdict, claim.note) == ("not tested", "a net with η 0.03 diverged")


def test_nets_that_diverged_compare_nothing():
    """Their accuracy is chance, by decree."""
    result = changed(changed(made(), "final he", "diverged", [0.0, 0.0, 1.0]), "eta=0.001", "diverged", [1.0] * 3)
    result.curves["search"]["validation_accuracy"] = [0.1] * 24
    claims = found(result)
    assert (claims["he-helps"].verdict, claims["he-helps"].note) == ("not tested", "a net “final he” diverged")
    assert claims["small-rate-slow"].note == "a net “eta=0.001” diverged"
    of_search = ("large-l2-hurts", "rates-alike", "small-l2-best", "fine-stabilises")
    assert {claims[name].verdict for name in of_search} == {"not tested"}
    assert claims["more-data-helps"].verdict == "reproduced"


def test_gradients_that_are_wrong():
    result = changed(made(), "gradient-check b1", "relative_error", [2e-6, 1e-9, 1e-9])
    assert found(result)["gradient-check"].verdict == "not reproduced"


@pytest.mark.parametrize(
    ("where", "value", "id_", "verdict"),
    [
        (lambda t: t["l2"] > 1e-2, 0.37, "large-l2-hurts", "not reproduced"),
        (lambda t: t["l2"] > 1e-2 and t["learning_rate"] == 0.03, 0.4, "large-l2-hurts", "inconclusive"),
        (
            lambda t: t["learning_rate"] == 0.03 and t["l2"] < 1e-2 and t["stage"] == 1, 0.42, "rates-alike",
            "not reproduced",
        ),
        (lambda t: t["stage"] == 2 and t["learning_rate"] == 0.03, 0.45, "fine-stabilises", "not reproduced"),
        (lambda t: t["l2"] > 1e-2, 0.5, "small-l2-best", "not reproduced"),
    ],
)  # fmt: skip
def test_searches_that_do_not_agree(where, value, id_, verdict):
    result = made()
    curve = result.curves["search"]
    if id_ == "small-l2-best":
        result.curves["search"] = curve = {key: list(values) * 2 for key, values in curve.items()}
    for i in range(len(curve["stage"])):
        if where({key: values[i] for key, values in curve.items()}):
            curve["validation_accuracy"][i] = value
    claims = found(result)
    assert claims[id_].verdict == verdict, claims[id_]


def test_a_search_of_few_nets_says_what_it_lacks():
    result = made()
    result.curves["search"] = {key: values[:1] for key, values in result.curves["search"].items()}
    claims = found(result)
    for id_, why in {
        "large-l2-hurts": "no η with both a small and a large λ", "rates-alike": "fewer than two η",
        "small-l2-best": "1 nets in its first stage", "fine-stabilises": "too few nets in a stage",
    }.items():  # fmt: skip
        assert claims[id_].verdict == "not tested"
        assert why in claims[id_].note


def test_the_best_rate_elsewhere():
    result = made()
    result.curves["eta=0.1"]["validation_accuracy"] = [[0.5] * 10] * 3
    assert found(result)["rate-region"].verdict == "not reproduced"
    assert found(result)["rate-region"].measured.startswith("validation accuracy by η is best at 0.1 (0.001: ")
    result.curves["eta=0.1"]["validation_accuracy"] = [[0.35] * 10, [0.45] * 10, [0.5] * 10]
    assert found(result)["rate-region"].verdict == "inconclusive"


@pytest.mark.parametrize(("accuracy", "verdict"), [(0.4, "not reproduced"), (0.36, "reproduced")])
def test_a_small_rate_that_is_nearly_as_good(accuracy, verdict):
    result = changed(made(), "eta=0.001", "test_accuracy_early", [accuracy] * 3)
    assert found(result)["small-rate-slow"].verdict == verdict


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"epochs": 9}, "epochs 9 for 10"), ({"hidden": 51}, "hidden 51 for 50"),
        ({"batch_size": 65}, "batch size 65 for 64"), ({"momentum": 0.8}, "momentum 0.8 for 0.9"),
        ({"final_l2": 0.0, "table_l2": 1e-5}, "table l2 1e-05 for 1e-06, final l2 0 for 0.00012554"),
    ],
)  # fmt: skip
def test_with_other_settings_numbers_are_not_judged_and_orderings_are_about_them(settings, said):
    result = made()
    result.settings |= settings
    claims = found(result)
    for name in NUMBERS:
        note = f"not applicable: this run has other settings than the document: {said}"
        assert (claims[name].verdict, claims[name].here, claims[name].note) == ("not tested", False, note)
    assert claims["final-test-accuracy"].measured == pytest.approx(FINAL)
    others = {(claim.verdict, claim.here) for name, claim in claims.items() if name not in NUMBERS}
    assert others == {("reproduced", True)}


def test_what_was_searched_and_tabulated_is_no_other_setting():
    result = made()
    result.settings |= {"trials": 3, "learning_rates": [0.1], "parts": ["final"], "full": True}
    assert x.departure(result) == ""


def test_on_other_data_the_first_ordering_tells_the_difference():
    result = made()
    result.dataset = "digits"
    claims = found(result)
    assert {claims[name].note for name in NUMBERS} == {"not applicable: the document speaks of cifar10"}
    first, *others = [claim for name, claim in claims.items() if name not in NUMBERS]
    assert {claim.here for claim in (first, *others)} == {True}
    assert first.measured.startswith("momentum: training cost lower by 0.100 at η 0.02 and 0.100 at η 0.03")


def test_what_was_not_run_is_not_tested():
    claims = found(empty())
    assert len(claims) == CLAIMS
    assert {(claim.verdict, claim.measured) for claim in claims.values()} == {("not tested", None)}


def test_where_every_rate_diverged():
    result = made()
    for rate in RATES:
        for kind in ("", " no momentum"):
            changed(result, f"eta={rate:g}{kind}", "diverged", [1.0] * 3)
    claim = found(result)["rate-region"]
    assert (claim.verdict, claim.note) == ("not tested", "nets diverged with every learning rate")
