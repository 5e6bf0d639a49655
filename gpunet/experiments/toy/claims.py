"""What document 003 claims, on each data set of a run, and how each claim is judged."""

from __future__ import annotations

from functools import partial
from math import log2
from statistics import fmean, median_low
from typing import Any

from gpunet.experiments.claims import Claim, Finding, fact, greater, share
from gpunet.experiments.result import NotMeasuredError, Result
from gpunet.experiments.toy import DATASETS, Settings, x

MUCH_FASTER = 2  # times, our reading of "much more faster"
GRADIENT = 1e-6  # relative error that still is rounding, in float64


def datasets(result: Result) -> list[str]:
    """The names of the data sets that the rows begin with."""
    return list(result.notes.get("datasets", [result.dataset]))


def steps_told(steps: float, limit: int) -> str:
    """A number of steps, or that there were more than the limit."""
    return f"{steps:,.0f}" if steps < limit else f"> {limit:,}"


def words_of_rates(result: Result) -> dict[float, str]:
    """By learning rate, what its rows' names add to the data set's."""
    first, *others = dict.fromkeys(result.settings["learning_rates"])
    return {first: ""} | {rate: f"rate={rate:g}" for rate in others}


@x.stated
def stated(result: Result) -> dict[str, Any]:
    """Of the learning rates the first is the main one."""
    known, others = Settings(), result.settings["learning_rates"][1:]
    rates = [known.learning_rates[0], *others]
    return {"hidden": known.hidden, "threshold": known.threshold, "learning_rates": rates}


def _limit(data: str, result: Result) -> int:
    """The limit of steps; NotMeasuredError where it is lower than ours, and most nets of the main row met it."""
    limit: int = result.settings["limit"]
    if limit < Settings().limit and median_low(result.values(data, "steps")) >= limit:
        raise NotMeasuredError(f"most nets were given up after {limit:,} steps")
    return limit


def _converges(data: str, result: Result) -> Finding:
    holds, limit = [value == 1 for value in result.values(data, "converged")], _limit(data, result)
    middle = steps_told(median_low(result.values(data, "steps")), limit)
    return share(holds, f"{sum(holds)} of {len(holds)} nets stop within {limit:,} steps, median {middle}")


def _predicts(data: str, result: Result) -> Finding:
    _limit(data, result)
    values = result.values(data, "train_accuracy")
    holds = [value == 1 for value in values]
    return share(holds, f"{sum(holds)} of {len(holds)} nets predict all, mean accuracy {fmean(values):.2%}")


def _zeros(data: str, result: Result) -> Finding:
    zeros, drawn = (result.values(row, "steps") for row in (f"{data} zeros", data))
    there = [int(sum(result.values(row, "converged"))) for row in (f"{data} zeros", data)]
    accuracy = result.mean(f"{data} zeros", "train_accuracy")
    said = f"from zeros {there[0]} of {len(zeros)} converge, accuracy {accuracy:.0%}; from drawn weights {there[1]}"
    return _slower(zeros, drawn, result.settings["limit"], said)


def _learning_rate(data: str, result: Result) -> Finding:
    words, limit = words_of_rates(result), result.settings["limit"]
    steps = {rate: result.values(f"{data} {word}".strip(), "steps") for rate, word in words.items()}
    if len(steps) < 2:
        raise NotMeasuredError("this run tried one learning rate")
    middles = {rate: median_low(each) for rate, each in steps.items()}
    best, worst = min(middles, key=middles.__getitem__), max(reversed(middles), key=middles.__getitem__)
    told = [f"{steps_told(middles[rate], limit)}{what} at {rate:g}"
            for rate, what in ((best, " steps"), (worst, ""))]  # fmt: skip
    return _slower(steps[worst], steps[best], limit, f"median {', '.join(told)}", MUCH_FASTER)


def _slower(slow: list[float], fast: list[float], limit: int, measured: str, times: float = 1) -> Finding:
    """Whether steps are more than so many times as many, by the mean of their doublings, paired by seed."""
    if median_low(fast) >= limit:
        raise NotMeasuredError(f"most nets were given up after {limit:,} steps")
    doublings = [log2(max(one, 1) / max(other, 1)) for one, other in zip(slow, fast, strict=True)]
    found = greater(
        doublings, f"{measured}; {2 ** fmean(doublings):.2g} times as many steps, paired by seed", log2(times)
    )
    return Finding(found.measured, found.verdict, f"doublings of steps, given up counts as the limit: {found.note}")


def _gradient(data: str, result: Result) -> Finding:
    errors = result.values(data, "gradient_error")
    holds = all(error < GRADIENT for error in errors)
    return fact(holds, f"largest error {max(errors):.1e}", f"below {GRADIENT:g} counts")


CLAIMS = (
    (_converges, "converges", "training converges until every sample's loss is below {threshold:g}",
     "Section 3, Figure 3", "yes"),
    (_predicts, "accuracy", "the trained net predicts all points", "Figure 3", "all"),
    (_zeros, "zeros", "with zero initial weights it is harder to converge", "Section 4", "harder"),
    (_learning_rate, "learning-rate",
     f"a better learning rate converges much faster (the best of those tried at least {MUCH_FASTER} times as fast as "
     "the worst)", "Section 4, Figure 4", "much faster"),
    (_gradient, "gradient",
     f"the recursion gives the gradient, ⊗ read as a matrix product (central differences agree to {GRADIENT:g})",
     "Equations 2 to 5", "exactly"),
)  # fmt: skip


@x.claims_on
def claims(result: Result) -> list[Claim]:
    """Those on every data set of the run; other data than the document's have ids of their own."""
    return [
        Claim(
            f"{data if data in DATASETS else 'own'}-{name}", f"{data}: ".translate({123: "{{", 125: "}}"}) + statement,
            where, claimed, (result.dataset,) if data in DATASETS else DATASETS, partial(test, data),
        )
        for data in datasets(result) for test, name, statement, where, claimed in CLAIMS
    ]  # fmt: skip
