"""What document 003 claims, on each data set of a run, and how each claim is judged."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import log2
from statistics import fmean, median_low

from gpunet.experiments.claims import Claim, Finding, fact, greater, share
from gpunet.experiments.result import NotMeasuredError, Result
from gpunet.experiments.toy import DATASETS, Settings, x

MUCH_FASTER = 2  # times, our reading of "much more faster"
GRADIENT = 1e-6  # relative error that still is rounding, in float64

Test = Callable[[str, Result], Finding]  # on one data set of a result
_tests: list[tuple[str, str, str, str, Test]] = []


def datasets(result: Result) -> list[str]:
    """The names of the data sets that the rows begin with."""
    return list(result.notes.get("datasets", [result.dataset]))


def steps_told(steps: float, limit: int) -> str:
    """A number of steps, or that there were more than the limit."""
    return f"{steps:,.0f}" if steps < limit else f"> {limit:,}"


@x.claims_on
def claims(result: Result) -> list[Claim]:
    """Those on every data set of the run; other data than the document's have ids of their own."""
    return [
        Claim(
            f"{data if data in DATASETS else 'own'}-{name}", f"{data}: ".translate({123: "{{", 125: "}}"}) + statement,
            where, claimed, (result.dataset,) if data in DATASETS else DATASETS, partial(test, data),
        )
        for data in datasets(result) for name, statement, where, claimed, test in _tests
    ]  # fmt: skip


@x.departs
def departs(result: Result) -> str:
    """Only what the document states counts."""
    stated = Settings()
    here = (list(result.settings["hidden"]), result.settings["learning_rates"][0], result.settings["threshold"])
    if here == (list(stated.hidden), stated.learning_rates[0], stated.threshold):
        return ""
    return "the document has hidden layers of 3 and 3, learning rate 0.8 and threshold 0.04, this run has others"


def _claim(name: str, statement: str, where: str, claimed: str) -> Callable[[Test], Test]:
    def declare(test: Test) -> Test:
        _tests.append((name, statement, where, claimed, test))
        return test

    return declare


@_claim(
    "converges", "training converges until every sample's loss is below {threshold:g}", "Section 3, Figure 3", "yes"
)  # fmt: skip
def _converges(data: str, result: Result) -> Finding:
    holds, limit = [value == 1 for value in result.values(data, "converged")], result.settings["limit"]
    middle = steps_told(median_low(result.values(data, "steps")), limit)
    return share(holds, f"{sum(holds)} of {len(holds)} nets stop within {limit:,} steps, median {middle}")


@_claim("accuracy", "the trained net predicts all points", "Figure 3", "all")
def _predicts(data: str, result: Result) -> Finding:
    values = result.values(data, "train_accuracy")
    holds = [value == 1 for value in values]
    return share(holds, f"{sum(holds)} of {len(holds)} nets predict all, mean accuracy {fmean(values):.2%}")


@_claim("zeros", "with zero initial weights it is harder to converge", "Section 4", "harder")
def _zeros(data: str, result: Result) -> Finding:
    zeros, drawn = (result.values(row, "steps") for row in (f"{data} zeros", data))
    there = [int(sum(result.values(row, "converged"))) for row in (f"{data} zeros", data)]
    accuracy = result.mean(f"{data} zeros", "train_accuracy")
    said = f"from zeros {there[0]} of {len(zeros)} converge, accuracy {accuracy:.0%}; from drawn weights {there[1]}"
    return _slower(zeros, drawn, said)


@_claim(
    "learning-rate",
    f"a better learning rate converges much faster (the best of those tried at least {MUCH_FASTER} times as fast as "
    "the worst)", "Section 4, Figure 4", "much faster",
)  # fmt: skip
def _learning_rate(data: str, result: Result) -> Finding:
    first, *others = dict.fromkeys(result.settings["learning_rates"])
    if not others:
        raise NotMeasuredError("this run tried one learning rate")
    steps = {first: result.values(data, "steps")}
    steps |= {rate: result.values(f"{data} rate={rate:g}", "steps") for rate in others}
    middles = {rate: median_low(each) for rate, each in steps.items()}
    best, worst = min(middles, key=lambda rate: middles[rate]), max(middles, key=lambda rate: middles[rate])
    told = {rate: steps_told(middles[rate], result.settings["limit"]) for rate in (best, worst)}
    said = f"median {told[best]} steps at {best:g}, {told[worst]} at {worst:g}"
    return _slower(steps[worst], steps[best], said, MUCH_FASTER)


def _slower(slow: list[float], fast: list[float], measured: str, times: float = 1) -> Finding:
    """Whether steps are more than so many times as many, by the mean of their doublings, paired by seed."""
    doublings = [log2(max(one, 1) / max(other, 1)) for one, other in zip(slow, fast, strict=True)]
    found = greater(
        doublings, f"{measured}; {2 ** fmean(doublings):.2g} times as many steps, paired by seed", log2(times)
    )
    return Finding(found.measured, found.verdict, f"doublings of steps, given up counts as the limit: {found.note}")


@_claim(
    "gradient",
    f"the recursion gives the gradient, ⊗ read as a matrix product (central differences agree to {GRADIENT:g})",
    "Equations 2 to 5", "exactly",
)  # fmt: skip
def _gradient(data: str, result: Result) -> Finding:
    errors = result.values(data, "gradient_error")
    return fact(
        all(error < GRADIENT for error in errors), f"largest error {max(errors):.1e}", f"below {GRADIENT:g} counts"
    )
