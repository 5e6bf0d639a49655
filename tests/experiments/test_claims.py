"""The rules of the verdicts, against SciPy's own tests and on findings made by hand; what is judged where."""

from __future__ import annotations

import math
from statistics import fmean, stdev

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gpunet.experiments.claims import (
    check_clock,
    counted,
    equal,
    exceeds,
    fact,
    greater,
    interval,
    judge,
    one_run,
    peak,
    rises,
    share,
    swept,
)
from gpunet.experiments.framework import Experiment, Job, Paper, Settings
from gpunet.experiments.result import Metric, NotMeasuredError, Result

SEEDS = st.lists(st.floats(-1, 1), min_size=2, max_size=8).filter(lambda v: stdev(v) > 1e-6)


# -- the rules --------------------------------------------------------------------------------------------------------


@given(SEEDS)
def test_the_interval_is_students(values):
    found = stats.t.interval(0.9, len(values) - 1, fmean(values), stats.sem(values))
    assert interval(values) == pytest.approx(found, rel=1e-9, abs=1e-12)


def test_one_seed_tells_nothing():
    assert interval([0.5]) == (-math.inf, math.inf)
    assert equal([0.5], 0.5, 0.1).verdict == "inconclusive"
    assert one_run([0.5], 0.5, 0.1).verdict == "inconclusive"
    assert greater([0.5], "more").verdict == "inconclusive"
    assert "one seed" in equal([0.5], 0.5, 0.1).note
    assert share([True], "so").verdict == "inconclusive"


@given(SEEDS, st.floats(-1, 1), st.floats(0.01, 1), st.booleans())
def test_equality_is_two_one_sided_tests(values, claimed, margin, lower):
    """Reproduced where both of Schuirmann's tests reject at 5 %, exceeded or not where the other side of one does."""

    def p(bound, way):
        return stats.ttest_1samp(values, bound, alternative=way).pvalue

    ends = [(p(claimed - margin, "greater"), p(claimed + margin, "less")),
            (p(claimed + margin, "greater"), p(claimed - margin, "less"))]  # fmt: skip
    if any(abs(each - 0.05) < 1e-9 for pair in ends for each in pair):
        return
    within, above, below = max(ends[0]) < 0.05, ends[1][0] < 0.05, ends[1][1] < 0.05
    better = above if not lower else below
    wanted = (
        "reproduced" if within else "exceeded" if better else "not reproduced" if above or below else "inconclusive"
    )
    found = equal(values, claimed, margin, lower_is_better=lower)
    assert (found.measured, found.verdict) == (fmean(values), wanted)


@pytest.mark.parametrize(
    ("values", "verdict", "where_less_is_better"),
    [
        ([0.5, 0.5], "reproduced", "reproduced"),
        ([0.74, 0.75, 0.7501], "inconclusive", "inconclusive"),
        ([0.80, 0.81, 0.79], "exceeded", "not reproduced"),
        ([0.20, 0.21, 0.19], "not reproduced", "exceeded"),
        ([0.1, 0.9], "inconclusive", "inconclusive"),
    ],
)
def test_seeds_against_a_number(values, verdict, where_less_is_better):
    assert equal(values, 0.5, 0.25).verdict == verdict
    assert "0.25" in equal(values, 0.5, 0.25).note
    assert equal(values, 0.5, 0.25, lower_is_better=True).verdict == where_less_is_better


def test_what_is_not_finite_is_no_measurement():
    for rule in (lambda v: equal(v, 0.5, 0.1), lambda v: one_run(v, 0.5, 0.1), lambda v: greater(v, "more")):
        for values in ([math.nan, 0.5], [math.inf, 0.5], [math.nan]):
            with pytest.raises(NotMeasuredError, match="not finite"):
                rule(values)


def test_one_run_may_lie_two_deviations_off_or_the_floor():
    noisy = [0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0]  # deviation 0.527, half an interval 0.305
    assert one_run(noisy, 0.5 + 0.7, 0.1).verdict == "reproduced"
    assert one_run(noisy, 0.5 + 0.8, 0.1).verdict == "inconclusive"
    assert one_run(noisy, 0.5 + 1.4, 0.1).verdict == "not reproduced"
    assert one_run([0.5] * 3, 0.59, 0.1).verdict == "reproduced"
    assert one_run([0.5] * 3, 0.61, 0.1).verdict == "not reproduced"


def test_runs_that_differ_by_as_much_as_the_number_reproduce_nothing():
    """A mean cost of 0.035 was called the document's 0.009, since ours differ by more than either."""
    costs = [0.0204, 0.0806, 0.0078, 0.0075, 0.0339, 0.0226, 0.0146, 0.0251, 0.006, 0.1312]
    found = one_run(costs, 0.00897, 0.002, lower_is_better=True)
    assert (found.verdict, found.note.partition(";")[0]) == (
        "inconclusive", "single runs differ by as much as the number",
    )  # fmt: skip
    assert one_run([cost / 100 + 0.009 for cost in costs], 0.00897, 0.002).verdict == "reproduced"
    assert one_run([9.0, 9.1, 8.9], 0.1, 0.01).verdict == "exceeded"
    assert one_run([0.0, 0.0, 0.0], 0.0, 0.002).verdict == "reproduced"  # by the floor: there is no noise


@given(SEEDS, st.floats(-0.5, 0.5))
def test_a_difference_beyond_noise(values, least):
    more, less = (stats.ttest_1samp(values, least, alternative=way).pvalue for way in ("greater", "less"))
    if min(abs(more - 0.05), abs(less - 0.05)) < 1e-9:
        return
    wanted = "reproduced" if more < 0.05 else "not reproduced" if less < 0.05 else "inconclusive"
    assert greater(values, "text", least).verdict == wanted


def test_where_no_side_is_better_nothing_is_exceeded():
    for values in ([0.9, 0.91], [0.1, 0.11]):
        assert equal(values, 0.5, 0.01, lower_is_better=None).verdict == "not reproduced"
    assert equal([0.5, 0.501], 0.5, 0.01, lower_is_better=None).verdict == "reproduced"


def test_a_difference_within_noise_is_not_told_as_one():
    """What ended 0.0204506 against 0.0204537 was called lower, of one seed."""
    assert greater([0.0204537 - 0.0204506], "lower").verdict == "inconclusive"
    assert greater([3e-6, -2e-3, 1e-3], "lower").verdict == "inconclusive"
    level = greater([0.0, 0.0], "more")  # of nets that all answer one class
    assert level.verdict == "not reproduced"
    assert level.note.startswith("nothing differs at all, as where nothing is learnt; true for 0 of 2")
    assert "at all" not in greater([0.0, 0.1], "more").note
    assert greater([0.1, 0.1], "more").verdict == "reproduced"
    assert greater([0.1, 0.1], "more", 0.2).verdict == "not reproduced"
    assert "for 2 of 3 seeds" in greater([3e-6, -2e-3, 1e-3], "lower").note


@pytest.mark.parametrize("n", [1, 3, 7, 8, 20, 100])
def test_a_share_by_clopper_and_pearson(n):
    for k in range(n + 1):
        low, high = stats.binomtest(k, n).proportion_ci(0.9, "exact")
        wanted = "reproduced" if low > 2 / 3 else "not reproduced" if high < 2 / 3 else "inconclusive"
        found = share([True] * k + [False] * (n - k), "text")
        assert found.verdict == wanted
        assert f"{k} of {n} seeds" in found.note


def test_eight_seeds_of_eight_are_a_share_seven_are_none():
    assert share([True] * 7, "text").verdict == "inconclusive"
    assert share([True] * 8, "text").verdict == "reproduced"
    assert share([False] * 3, "text").verdict == "not reproduced"


def test_a_peak_needs_to_stand_out():
    curve = {0.1: [0.5, 0.52, 0.48], 0.5: [0.9, 0.92, 0.88], 0.9: [0.7, 0.72, 0.68]}
    assert peak(curve, 0.4, 0.6, "text").verdict == "reproduced"
    assert peak(curve, 0.8, 1.0, "text").verdict == "not reproduced"
    level = {at: [0.5 + noise for noise in (0.01, -0.01, at / 1e3)] for at in (0.1, 0.5, 0.9)}
    assert peak(level, 0.4, 0.6, "text").verdict == "inconclusive"
    for low, high in ((0.2, 0.3), (0.0, 1.0)):
        with pytest.raises(NotMeasuredError, match="no points inside and outside"):
            peak(curve, low, high, "text")


def test_a_curve_that_rises_does_so_at_every_step():
    assert rises({2: [0.6, 0.61], 1: [0.5, 0.52], 3: [0.7, 0.72]}, "text").verdict == "reproduced"
    assert rises({1: [0.5, 0.52], 2: [0.6, 0.61], 3: [0.55, 0.57]}, "text").verdict == "not reproduced"
    with pytest.raises(NotMeasuredError, match="a single point"):
        rises({1: [0.5]}, "text")


def measured(**rows):
    """Of two seeds, the second a thousandth better."""
    result = Result("mine", "mnist", "cpu", {}, [0, 1])
    for name, metrics in rows.items():
        for seed in result.seeds:
            result.row(name).add(**{metric: value + seed / 1000 for metric, value in metrics.items()})
    return result


def test_one_row_exceeds_another():
    result = measured(a={"test_accuracy": 0.6, "train_loss": 0.2}, b={"test_accuracy": 0.5, "train_loss": 0.3})
    better, lower = exceeds(result, "a", "b"), exceeds(result, "b", "a", "train_loss", label="the {}".format)
    assert better.measured == "test accuracy 60.05% (a), 50.05% (b): +10.00 points"
    assert lower.measured == "train loss 0.3005 (the b), 0.2005 (the a): +0.1"
    assert (better.verdict, lower.verdict) == ("reproduced", "reproduced")
    assert exceeds(result, "a", "b", least=0.1).verdict == exceeds(result, "b", "a").verdict == "not reproduced"
    with pytest.raises(NotMeasuredError, match="test accuracy of c"):
        exceeds(result, "a", "c")


def test_what_was_swept_is_told_by_number():
    rows = {name: {"test_accuracy": 0.5} for name in ("T=1", "T=0.1", "T=1e-05", "T=none", "T=e", "T=2 frozen", "aT=3")}
    assert list(swept(measured(**rows), "T")) == [1e-5, 0.1, 1]
    with pytest.raises(NotMeasuredError, match="this run swept no ε"):
        swept(measured(**rows), "ε")


def test_a_clock_that_says_more_than_the_count_of_operations_is_not_believed():
    check_clock(7.3, 7.3)
    check_clock(1.26, 1.24)  # caches
    with pytest.raises(NotMeasuredError, match=r"timing unreliable: 60\.1× was measured, .* allows 7\.3×"):
        check_clock(60.1, 7.3)


# -- what is judged where ---------------------------------------------------------------------------------------------

PAPER = Paper("9", "A. Author", "A title", "paper", ("One.", "Two.", "Three."), ())


def experiment(test=None, stated=None, **known) -> Experiment:
    """Of two claims, a number and an ordering."""
    x = Experiment("mine", "a summary", PAPER, Settings, full=[Job(("mnist",), 3)], quick=[], package=__name__)
    x._part = lambda name: None
    x.stated(lambda result: stated or {})
    x.claim("a-number", "a number after {epochs} epochs", "Table 1", 0.5, on="mnist")(
        test or (lambda result: equal(result.values("a", "test_accuracy"), 0.5, 0.1))
    )
    x.claim("an-order", "a exceeds b", "Figure 1", "more", **{"on": "mnist", **known})(
        lambda r: greater(
            list(np.subtract(r.values("a", "test_accuracy"), r.values("b", "test_accuracy"))), "+10 points"
        )
    )
    return x


def result(dataset="mnist", **rows) -> Result:
    made = Result("mine", dataset, "cpu", {"epochs": 60}, [0, 1])
    for name, values in rows.items():
        made.row(name).metrics["test_accuracy"] = Metric(values)
    return made


BOTH = {"a": [0.9, 0.91], "b": [0.8, 0.81]}


def test_on_the_documents_data():
    number, order = judge(experiment(), result(**BOTH))
    assert (number.id, number.statement, number.where) == ("a-number", "a number after 60 epochs", "Table 1")
    assert (number.claimed, number.measured, number.verdict, number.here) == (0.5, 0.905, "exceeded", False)
    assert (order.measured, order.verdict, order.here) == ("+10 points", "reproduced", False)


def test_on_other_data_orderings_are_judged_and_numbers_are_not():
    number, order = found = judge(experiment(), result("my", **BOTH))
    assert (number.measured, number.verdict, number.here) == (0.905, "not tested", False)
    assert number.note == "not applicable: the document speaks of mnist"
    assert (order.measured, order.verdict, order.here) == ("+10 points", "reproduced", True)
    assert counted(found) == {
        "reproduced": 0, "exceeded": 0, "not reproduced": 0, "inconclusive": 0, "not tested": 1
    }  # fmt: skip


def test_with_other_settings_than_the_documents():
    apart = "this run has other settings than the document: epochs 60 for 5"
    number, order = judge(experiment(stated={"epochs": 5, "layers": (3, 3)}), result(**BOTH))
    assert (number.verdict, number.note) == ("not tested", f"not applicable: {apart}")
    assert (order.verdict, order.here) == ("reproduced", True)


def test_what_was_not_measured_is_not_tested_and_says_what():
    number, order = judge(experiment(), result(a=[0.5, 0.5]))
    assert (order.measured, order.verdict) == (None, "not tested")
    assert order.note == "this run did not measure test accuracy of b"
    assert number.verdict == "reproduced"


def test_what_is_not_finite_was_not_measured():
    number, order = judge(experiment(), result(a=[0.5, math.nan], b=[0.8, 0.81]))
    assert {number.verdict, order.verdict} == {"not tested"}
    with pytest.raises(NotMeasuredError, match="not finite"):
        peak({0.8: [0.5, 0.5], 0.7: [math.nan, math.nan], 0.1: [0.1, 0.1]}, 0.7, 0.9, "text")
    with pytest.raises(NotMeasuredError, match="timing unreliable"):
        check_clock(math.nan, 1.0)


def test_a_claim_on_several_data_sets_is_named_by_each_and_told_once_elsewhere():
    x = experiment(on=("mnist", "cifar10"))
    assert [claim.id for claim in judge(x, result("cifar10", **BOTH))] == ["an-order-cifar10"]
    assert [claim.id for claim in judge(x, result("my", **BOTH))] == ["a-number", "an-order"]


def test_a_claim_of_other_settings_is_not_listed():
    assert [c.id for c in judge(experiment(given={"epochs": 5}), result(**BOTH))] == ["a-number"]
    assert len(judge(experiment(given={"epochs": 60}), result(**BOTH))) == 2


def test_a_fact():
    assert fact(True, "said", "a note").verdict == "reproduced"
    assert fact(False, "said", "a note").verdict == "not reproduced"
