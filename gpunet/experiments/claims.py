"""Claims and verdicts: the rules by which a document's numbers and orderings are judged."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gpunet.experiments.schema import ClaimResult, Result, Verdict


@dataclass(frozen=True)
class Finding:
    """What a claim's test found."""

    measured: float | str
    verdict: Verdict
    note: str = ""


@dataclass(frozen=True)
class Claim:
    """One number, ordering or shape that a document states.

    `test` returns None where the run did not measure what it needs; `dataset` is what the document speaks of, and on
    other data the claim is not tested.
    """

    id: str
    statement: str
    where: str
    claimed: float | str
    dataset: str
    test: Callable[[Result], Finding | None]


def judge(claims: Sequence[Claim], result: Result) -> list[ClaimResult]:
    """Every claim with its verdict. On other data the measured value is still shown, without a verdict."""
    return [_judge_one(claim, result) for claim in claims]


def _judge_one(claim: Claim, result: Result) -> ClaimResult:
    finding = claim.test(result)
    if finding is None:
        finding = Finding("", "not tested", "this run did not measure it")
    elif result.dataset != claim.dataset:
        finding = Finding(
            finding.measured, "not tested", f"the document speaks of {claim.dataset}, this run used {result.dataset}"
        )
    return ClaimResult(
        claim.id, claim.statement, claim.where, claim.claimed,
        finding.measured if finding.measured != "" else None, finding.verdict, finding.note,
    )  # fmt: skip


def told_once(claims: Sequence[tuple[str, str, str]]) -> list[bool]:
    """Which of the claims (experiment, id, verdict) of several runs to count.

    One that a run cannot test is left to the run of its experiment that can, and counted once where none can.
    """
    settled = {(experiment, name) for experiment, name, verdict in claims if verdict != "not tested"}
    counted = []
    for experiment, name, verdict in claims:
        first = (experiment, name) not in settled
        settled.add((experiment, name))
        counted.append(verdict != "not tested" or first)
    return counted


def compare(values: Sequence[float], claimed: float, tolerance: float, *, lower_is_better: bool = False) -> Finding:
    """Mean over seeds against one claimed number.

    Reproduced within the tolerance or two standard errors of our mean, whichever is more; beyond it, exceeded on the
    better side and not reproduced on the worse.
    """
    n = len(values)
    mean = sum(values) / n
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1) / n) if n > 1 else 0.0
    margin = max(tolerance, 2 * spread)
    gain = (claimed - mean) if lower_is_better else (mean - claimed)
    found: Verdict = "exceeded" if gain > margin else "not reproduced" if gain < -margin else "reproduced"
    return Finding(mean, found, f"within ±{margin:.2g} counts as reproduced")


def one_run(values: Sequence[float], claimed: float, floor: float, *, lower_is_better: bool = False) -> Finding:
    """Mean over seeds against a number that is one run: it may lie two of our deviations off, as one of ours may.

    The margin is 2·s·√(1 + 1/n), s our standard deviation over n seeds, but at least `floor`; verdicts as in `compare`.
    """
    n = len(values)
    centre = sum(values) / n
    deviation = math.sqrt(sum((v - centre) ** 2 for v in values) / (n - 1)) if n > 1 else 0.0
    return compare(values, claimed, max(floor, 2 * deviation * math.sqrt(1 + 1 / n)), lower_is_better=lower_is_better)


def verdict(holds: bool) -> Verdict:
    """Of a statement that is true or false as a whole."""
    return "reproduced" if holds else "not reproduced"


def ordering(holds: Sequence[bool], measured: str) -> Finding:
    """A statement that is true or false for each seed: reproduced when it holds for more than two thirds of them."""
    share = sum(holds) / len(holds)
    return Finding(measured, verdict(share > 2 / 3), f"holds for {sum(holds)} of {len(holds)} seeds")
