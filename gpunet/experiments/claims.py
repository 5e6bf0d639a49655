"""Claims and verdicts: the rules by which a document's numbers and orderings are judged.

A verdict is a function of what a result holds, computed when it is read: it is stored nowhere that is read again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from statistics import fmean, stdev
from typing import Any, Literal, Protocol, get_args

from gpunet.experiments.result import NotMeasuredError, Result, Row

Curve = Mapping[float, Sequence[float]]  # a value a seed at each point
Verdict = Literal["reproduced", "exceeded", "not reproduced", "inconclusive", "not tested"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
LEVEL = 0.05  # of each one-sided test: intervals are of 90 %
SHARE = 2 / 3  # of seeds for which a statement has to hold
NOT_APPLICABLE = "not applicable"  # begins the note on a number of the document, on other data
SLACK = 1.05  # over the count of operations: what caches may add to a speed-up before the clock is not believed


@dataclass(frozen=True)
class Finding:
    """What a claim's test found."""

    measured: float | str
    verdict: Verdict
    note: str = ""


@dataclass(frozen=True)
class Claim:
    """One number, ordering or shape that a document states.

    `test` raises NotMeasuredError where the run did not measure what it needs. `on`: the data that the document speaks
    of; `number`: whether it states a number, which other data cannot have, where an ordering or a shape can be judged;
    `given`: the settings of the runs that it is about. The statement may name settings in braces.
    """

    id: str
    statement: str
    where: str
    claimed: float | str
    on: tuple[str, ...]
    test: Callable[[Result], Finding]
    number: bool = False
    given: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ClaimResult:
    """What a document claims, what we measured, and the verdict.

    here: whether an ordering was judged on other data or settings than the document's, so that the verdict is about
    them.
    """

    id: str
    statement: str
    where: str
    claimed: float | str
    measured: float | str | None
    verdict: Verdict
    note: str
    here: bool = False


class Claiming(Protocol):
    """What an experiment declares of its claims."""

    def claims(self, result: Result) -> list[Claim]:
        """Those that speak of what the result was asked to measure."""

    def departure(self, result: Result) -> str:
        """What its settings have other than the document states, in words; "" where nothing."""


def judge(experiment: Claiming, result: Result) -> list[ClaimResult]:
    """Every claim of an experiment with its verdict on a result; what is not finite was not measured."""
    finite = [
        Row(row.name, {name: each for name, each in row.metrics.items() if all(map(math.isfinite, each.values))})
        for row in result.rows
    ]
    seen = replace(result, rows=finite)
    departs = experiment.departure(result)
    return [_judged(claim, seen, departs) for claim in experiment.claims(result)]


def _judged(claim: Claim, result: Result, apart: str) -> ClaimResult:
    if result.dataset not in claim.on:
        apart = f"the document speaks of {' and '.join(claim.on)}"
    try:
        found = claim.test(result)
    except NotMeasuredError as missing:
        found = Finding("", "not tested", str(missing))
    if apart and claim.number:
        found = Finding(found.measured, "not tested", f"{NOT_APPLICABLE}: {apart}")
    name = claim.id if len(claim.on) == 1 or result.dataset not in claim.on else f"{claim.id}-{result.dataset}"
    return ClaimResult(
        name, claim.statement.format_map(result.settings), claim.where, claim.claimed,
        None if found.measured == "" else found.measured, found.verdict, found.note,
        bool(apart) and found.verdict != "not tested",
    )  # fmt: skip


def counted(claims: Sequence[ClaimResult], here: bool = False) -> dict[str, int]:
    """How many claims have each verdict: of those about the document's data, or of those judged on other (`here`)."""
    return {verdict: sum(c.verdict == verdict and c.here is here for c in claims) for verdict in VERDICTS}


def summed(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The counts of several runs together."""
    every = list(counts)
    return {verdict: sum(each[verdict] for each in every) for verdict in VERDICTS}


# -- rules ------------------------------------------------------------------------------------------------------------


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The 90 % interval of the mean by Student's t; of a single value all numbers."""
    from scipy.special import stdtrit

    _check_finite(values)
    n = len(values)
    if n < 2:
        return -math.inf, math.inf
    half = float(stdtrit(n - 1, 1 - LEVEL)) * stdev(values) / math.sqrt(n)
    return fmean(values) - half, fmean(values) + half


def equal(values: Sequence[float], claimed: float, margin: float, *, lower_is_better: bool | None = False) -> Finding:
    """Whether the mean over seeds is the claimed number within a margin: two one-sided tests of 5 % each.

    Reproduced where the 90 % interval of the mean lies within claimed ± margin (equivalence, Schuirmann 1987); where it
    lies beyond, exceeded on the better side and not reproduced on the worse, or on both where lower_is_better is None;
    else there are too few seeds to tell.
    """
    low, high = (end - claimed for end in interval(values))
    verdict: Verdict = "inconclusive"
    if -margin <= low and high <= margin:
        verdict = "reproduced"
    elif low > margin or high < -margin:
        better = lower_is_better is not None and (low > margin) != lower_is_better
        verdict = "exceeded" if better else "not reproduced"
    return Finding(fmean(values), verdict, f"margin ±{margin:.2g}, {_told(low, high, '{} from the document')}")


def one_run(values: Sequence[float], claimed: float, floor: float, *, lower_is_better: bool = False) -> Finding:
    """`equal` to a number that is one run: it may lie two of our deviations off, as one of ours may, or `floor`.

    Where single runs differ by as much as the number itself, hardly one could not be it: that reproduces nothing.
    """
    _check_finite(values)
    noise = 2 * stdev(values) if len(values) > 1 else 0.0
    found = equal(values, claimed, max(floor, noise), lower_is_better=lower_is_better)
    if found.verdict == "reproduced" and noise > floor and noise >= abs(claimed):
        return replace(found, verdict="inconclusive", note=f"single runs differ by as much as the number; {found.note}")
    return found


def greater(differences: Sequence[float], measured: str, least: float = 0.0, what: str = "seeds") -> Finding:
    """Whether a difference, paired by seeds or `what` else, exceeds `least` beyond noise: its 90 % interval does."""
    low, high = interval(differences)
    verdict: Verdict = "reproduced" if low > least else "not reproduced" if high <= least else "inconclusive"
    held = sum(each > least for each in differences)
    level = "" if any(differences) else "nothing differs at all, as where nothing is learnt; "
    return Finding(
        measured,
        verdict,
        f"{level}true for {held} of {len(differences)} {what}; {_told(low, high, 'difference {}')}, "
        f"above {least:.2g} counts",
    )


def share(holds: Sequence[bool], measured: str, least: float = SHARE, what: str = "seeds") -> Finding:
    """Whether a statement holds for more than a share of seeds, by the exact interval of a share (Clopper, Pearson)."""
    from scipy.special import betaincinv

    n, k = len(holds), sum(holds)
    low = float(betaincinv(k, n - k + 1, LEVEL)) if k else 0.0
    high = float(betaincinv(k + 1, n - k, 1 - LEVEL)) if k < n else 1.0
    verdict: Verdict = "reproduced" if low > least else "not reproduced" if high < least else "inconclusive"
    return Finding(measured, verdict, f"holds for {k} of {n} {what}; a share above {least:.2g} counts")


def fact(holds: bool, measured: str, note: str) -> Finding:
    """A statement of a run as a whole, which no seed can change."""
    return Finding(measured, "reproduced" if holds else "not reproduced", note)


def exceeds(
    result: Result, high: str, low: str, metric: str = "test_accuracy", least: float = 0.0,
    label: Callable[[str], str] = str,
) -> Finding:  # fmt: skip
    """Whether one row exceeds another in a metric by more than `least`; label: a row's name as people read it."""
    rows, percent = {row: result.values(row, metric) for row in (high, low)}, "accuracy" in metric
    means = ", ".join(f"{fmean(each):{'.2%' if percent else '.4g'}} ({label(row)})" for row, each in rows.items())
    gain = paired(*rows.values())
    apart = points(gain) if percent else f"{fmean(gain):+.2g}"
    return greater(gain, f"{metric.replace('_', ' ')} {means}: {apart}", least)


def peak(curve: Curve, low: float, high: float, what: str) -> Finding:
    """Whether a curve is highest from `low` to `high`, beyond noise; what: that it is of."""
    for values in curve.values():
        _check_finite(values)
    inside, outside = (
        max((values for at, values in curve.items() if (low <= at <= high) is within), key=fmean, default=None)
        for within in (True, False)
    )
    if inside is None or outside is None:
        raise NotMeasuredError(f"this run measured no points inside and outside {low:g} to {high:g}")
    best = max(curve, key=lambda at: fmean(curve[at]))
    found = greater(paired(inside, outside), f"{what} is best at {best:g} ({listed(curve)})")
    return replace(found, note=f"a best value from {low:g} to {high:g} counts; {found.note}")


def rises(curve: Curve, measured: str) -> Finding:
    """Whether a curve rises from each point to the next, beyond noise."""
    if len(curve) < 2:
        raise NotMeasuredError("this run measured a single point")
    values = [curve[at] for at in sorted(curve)]
    return greater([min(b - a for a, b in pairwise(seed)) for seed in zip(*values, strict=True)], measured)


def check_clock(ratio: float, allowed: float) -> None:
    """NotMeasuredError for a speed-up that the count of operations does not allow: something else was measured."""
    if not ratio <= SLACK * allowed:
        raise NotMeasuredError(
            f"timing unreliable: {ratio:.3g}× was measured, the count of operations allows {allowed:.3g}×"
        )


def _check_finite(values: Sequence[float]) -> None:
    if not all(map(math.isfinite, values)):
        raise NotMeasuredError("what this run measured is not finite")


def _told(low: float, high: float, words: str) -> str:
    """An interval in these words; of one seed, which has none, that."""
    return "one seed has no deviation" if math.isinf(low) else words.format(f"{low:+.2g} to {high:+.2g} (90 %)")


# -- what rules are asked about, and what is told of it ---------------------------------------------------------------


def paired(high: Sequence[float], low: Sequence[float]) -> list[float]:
    """How much the first exceeds the second, seed by seed."""
    return [a - b for a, b in zip(high, low, strict=True)]


def swept(result: Result, name: str) -> dict[float, list[float]]:
    """Test accuracy by number, of the rows that are called NAME=NUMBER; NotMeasuredError where there are none."""
    found = [(row, re.fullmatch(rf"{re.escape(name)}=(\d+(?:\.\d+)?(?:e[-+]\d+)?)", row)) for row in result.names]
    curve = {float(number[1]): result.values(row, "test_accuracy") for row, number in found if number}
    if not curve:
        raise NotMeasuredError(f"this run swept no {name}")
    return dict(sorted(curve.items()))


def listed(curve: Curve) -> str:
    """The means of a curve of accuracies."""
    return ", ".join(f"{at:g}: {fmean(values):.2%}" for at, values in curve.items())


def points(differences: Sequence[float]) -> str:
    """The mean difference of accuracies."""
    return f"{100 * fmean(differences):+.2f} points"
