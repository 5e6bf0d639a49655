"""The rules of the verdicts, on findings made by hand; and the claims of document 000 on results made by hand."""

from __future__ import annotations

import pytest

from gpunet.experiments.claims import Claim, Finding, compare, judge, ordering, told_once
from gpunet.experiments.schema import Metric, Result
from gpunet.experiments.svd_init_claims import CLAIMS, TABLE_1

HAIR = 2.0**-50


@pytest.mark.parametrize(
    ("value", "verdict", "where_less_is_better"),
    [
        (0.5, "reproduced", "reproduced"),
        (0.75, "reproduced", "reproduced"),
        (0.25, "reproduced", "reproduced"),
        (0.75 + HAIR, "exceeded", "not reproduced"),
        (0.25 - HAIR, "not reproduced", "exceeded"),
        (1.0, "exceeded", "not reproduced"),
        (0.0, "not reproduced", "exceeded"),
    ],
)
def test_one_seed_against_a_number(value, verdict, where_less_is_better):
    found = compare([value], 0.5, 0.25)
    assert (found.measured, found.verdict) == (value, verdict)
    assert "0.25" in found.note
    assert compare([value], 0.5, 0.25, lower_is_better=True).verdict == where_less_is_better


@pytest.mark.parametrize(
    ("claimed", "verdict"),
    [(1.5, "reproduced"), (1.5 + 1e-9, "not reproduced"), (-0.5, "reproduced"), (-0.5 - 1e-9, "exceeded")],
)
def test_two_standard_errors_where_they_are_more_than_the_tolerance(claimed, verdict):
    # 0 and 1: mean ½, deviation √½, standard error ½
    assert compare([0.0, 1.0], claimed, 0.1) == Finding(0.5, verdict, "within ±1 counts as reproduced")


def test_the_tolerance_where_it_is_more_than_two_standard_errors():
    assert compare([0.4999, 0.5001], 0.75, 0.25).verdict == "reproduced"
    assert compare([0.4999, 0.5001], 0.751, 0.25).verdict == "not reproduced"


@pytest.mark.parametrize(
    ("yes", "no", "verdict"),
    [(1, 0, "reproduced"), (0, 1, "not reproduced"), (2, 1, "not reproduced"), (3, 1, "reproduced"),
     (4, 2, "not reproduced"), (5, 0, "reproduced"), (4, 1, "reproduced"), (3, 2, "not reproduced")],
)  # fmt: skip
def test_an_ordering_holds_for_more_than_two_thirds(yes, no, verdict):
    found = ordering([True] * yes + [False] * no, "text")
    assert found == Finding("text", verdict, f"holds for {yes} of {yes + no} seeds")


def claim(test, dataset="mnist") -> Claim:
    return Claim("an-id", "a statement", "a place", 0.5, dataset, test)


def result(dataset="mnist", **rows) -> Result:
    made = Result("svd-init", dataset, "cpu", {}, [0])
    for name, values in rows.items():
        made.row(name).metrics["test_accuracy"] = Metric(values)
    return made


def test_judge():
    def test(r):
        values = r.values("a", "test_accuracy")
        return compare(values, 0.5, 0.1) if values else None

    (found,) = judge([claim(test)], result(a=[0.9]))
    assert (found.id, found.statement, found.where) == ("an-id", "a statement", "a place")
    assert (found.claimed, found.measured, found.verdict) == (0.5, 0.9, "exceeded")
    (found,) = judge([claim(test)], result("digits", a=[0.9]))
    assert (found.measured, found.verdict) == (0.9, "not tested")
    assert "mnist" in found.note
    assert "digits" in found.note
    for dataset in ("mnist", "digits"):
        (found,) = judge([claim(test)], result(dataset))
        assert (found.measured, found.verdict, found.note) == (
            None,
            "not tested",
            "this run did not measure it",
        )


# -- document 000 -------------------------------------------------------------------------------------------------


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
    made.timings = {"svd-whole": 1.0, "svd-each": 1.1}
    made.timings["seconds_per_epoch"] = {row: [2.0] * 3 for row in TABLE_1} | {
        f"{row} frozen": [1.0] * 3 for row in TABLE_1
    }
    for (row, metric), values in (changes or {}).items():
        made.row(row).metrics[metric] = Metric(list(values))
    return made


def verdicts(made: Result) -> dict[str, str]:
    return {found.id: found.verdict for found in judge(CLAIMS, made)}


def test_a_run_like_the_document_reproduces_every_claim():
    found = verdicts(full())
    assert set(found.values()) == {"reproduced"}
    assert len(found) == 15 + 8


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
    ("id_", "changes"),
    [
        (
            "orth-each-best",
            {("orth-whole", "test_accuracy"): [0.935, 0.91, 0.91]},
        ),  # two of three seeds are not enough
        ("scaling-no-gain", {("scale-whole", "test_accuracy"): [0.92] * 3}),
        ("dependency-helps", {("orth-each dep=0.1", "test_accuracy"): [0.92, 0.95, 0.95]}),
        ("dependency-helps-across-kinds", {("orth-each", "dependency_initial"): [-0.5] * 3}),
        ("dependency-rises", {("random", "dependency_final"): [0.0] * 3}),
        ("weights-mean-zero", {(row, "weight_mean_over_std"): [0.06] * 3 for row in TABLE_1}),
        ("weights-mean-zero", {(row, "weight_mean_over_std"): [-0.06] * 3 for row in TABLE_1}),
    ],
)
def test_each_ordering_can_fail_alone(id_, changes):
    found = verdicts(full(changes))
    assert found[id_] == "not reproduced"
    others = {name for name, verdict in found.items() if verdict == "not reproduced" and not name.startswith("table1")}
    assert others == {id_}


def test_claims_about_time():
    made = full()
    made.timings["svd-each"] = 1.6
    made.timings["seconds_per_epoch"]["random frozen"] = [2.1] * 3
    made.timings["seconds_per_epoch"]["orth-whole frozen"] = [2.1] * 3
    found = verdicts(made)
    assert found["svd-each-costs-same"] == found["frozen-is-cheaper"] == "not reproduced"


def test_what_was_not_measured_is_not_tested():
    found = judge(CLAIMS, Result("svd-init", "mnist", "cpu", {}, [0]))
    assert {(each.verdict, each.measured) for each in found} == {("not tested", None)}


def test_nothing_is_judged_on_other_data():
    made = full()
    made.dataset = "digits"
    found = judge(CLAIMS, made)
    assert {each.verdict for each in found} == {"not tested"}
    assert {each.note for each in found} == {"the document speaks of mnist, this run used digits"}
    assert all(each.measured is not None for each in found)


def test_a_claim_counts_where_it_can_be_tested_and_else_once():
    claims = [
        ("dmn", "mnist", "reproduced"), ("dmn", "cifar", "not tested"), ("dmn", "never", "not tested"),
        ("dmn", "mnist", "not tested"), ("dmn", "cifar", "not reproduced"), ("dmn", "never", "not tested"),
        ("toy", "never", "not tested"),
    ]  # fmt: skip
    assert told_once(claims) == [True, False, True, False, True, False, True]
