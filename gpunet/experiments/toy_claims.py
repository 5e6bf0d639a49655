"""What document 003 claims, and how each claim is judged."""

from __future__ import annotations

from dataclasses import replace
from statistics import mean, median_low

from gpunet.experiments.claims import Claim, Finding, judge, ordering
from gpunet.experiments.result import ClaimResult, Result

DATASETS = ("linear", "xor-easy")
MUCH_FASTER = 2  # times, our reading of "much more faster"
GRADIENT = 1e-6  # relative error that still is rounding, in float64


def claims(data: str) -> list[Claim]:
    """The document's claims, on one data set."""
    of, short = (data, data) if data in DATASETS else (" and ".join(DATASETS), "own")
    return [
        Claim(
            f"{short}-converges", f"{data}: training converges until every sample's loss is below 0.04",
            "Section 3, Figure 3", "yes", of, lambda result: _converges(result, data),
        ),
        Claim(
            f"{short}-accuracy", f"{data}: the trained net predicts all points", "Figure 3", "all", of,
            lambda result: _predicts(result, data),
        ),
        Claim(
            f"{short}-zeros", f"{data}: with zero initial weights it is harder to converge", "Section 4", "harder", of,
            lambda result: _zeros(result, data),
        ),
        Claim(
            f"{short}-learning-rate",
            f"{data}: a better learning rate converges much faster (the best of those tried at least "
            f"{MUCH_FASTER} times as fast as the worst)", "Section 4, Figure 4", "much faster", of,
            lambda result: _learning_rate(result, data),
        ),
        Claim(
            f"{short}-gradient",
            f"{data}: the recursion gives the gradient, ⊗ read as a matrix product (central differences agree to "
            f"{GRADIENT:g})", "Equations 2 to 5", "exactly", of, lambda result: _gradient(result, data),
        ),
    ]  # fmt: skip


CLAIMS = [claim for data in DATASETS for claim in claims(data)]


def verdicts(result: Result) -> list[ClaimResult]:
    """All claims on the document's data sets; on other data, or with other settings, what was found and no verdict."""
    own = [data for data in result.settings["datasets"] if data not in DATASETS]
    listed = [claim for data in own for claim in claims(data)]
    found = judge(listed or [replace(claim, dataset=result.dataset) for claim in CLAIMS], result)
    if result.settings["as_in_the_document"]:
        return found
    note = "the document has hidden layers of 3 and 3, learning rate 0.8 and threshold 0.04, this run has others"
    return [replace(each, verdict="not tested", note=note) for each in found]


def steps_told(steps: float, limit: int) -> str:
    """A number of steps, or that there were more than the limit."""
    return f"{steps:,.0f}" if steps < limit else f"> {limit:,}"


def _converges(result: Result, data: str) -> Finding | None:
    holds, limit = [value == 1 for value in result.values(data, "converged")], result.settings["limit"]
    if not holds:
        return None
    middle = steps_told(median_low(result.values(data, "steps")), limit)
    return ordering(holds, f"{sum(holds)} of {len(holds)} within {limit:,} steps, median {middle}")


def _predicts(result: Result, data: str) -> Finding | None:
    values = result.values(data, "train_accuracy")
    holds = [value == 1 for value in values]
    return ordering(holds, f"{sum(holds)} of {len(holds)} all, mean {mean(values):.2%}") if values else None


def _zeros(result: Result, data: str) -> Finding | None:
    zeros, drawn = (result.values(row, "steps") for row in (f"{data} zeros", data))
    if not zeros or not drawn:
        return None
    there = [int(sum(result.values(row, "converged"))) for row in (f"{data} zeros", data)]
    accuracy = mean(result.values(f"{data} zeros", "train_accuracy"))
    said = f"zeros: {there[0]} of {len(zeros)} converge, accuracy {accuracy:.0%}; drawn: {there[1]}"
    return ordering([z > d for z, d in zip(zeros, drawn, strict=True)], said)


def _learning_rate(result: Result, data: str) -> Finding | None:
    first, *others = dict.fromkeys(result.settings["learning_rates"])
    found = {first: result.values(data, "steps")}
    found |= {rate: result.values(f"{data} rate={rate:g}", "steps") for rate in others}
    if len(found) < 2 or not all(found.values()):
        return None
    middles = {rate: median_low(steps) for rate, steps in found.items()}
    best, worst = min(middles, key=lambda rate: middles[rate]), max(middles, key=lambda rate: middles[rate])
    told = {rate: steps_told(middles[rate], result.settings["limit"]) for rate in (best, worst)}
    holds = middles[worst] >= MUCH_FASTER * max(middles[best], 1)
    return Finding(
        f"median {told[best]} steps at {best:g}, {told[worst]} at {worst:g}",
        "reproduced" if holds else "not reproduced", f"medians over {len(found[first])} seeds",
    )  # fmt: skip


def _gradient(result: Result, data: str) -> Finding | None:
    errors = result.values(data, "gradient_error")
    return ordering([error < GRADIENT for error in errors], f"largest error {max(errors):.1e}") if errors else None
