"""Claims as the page shows them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from gpunet.experiments.claims import told_once
from gpunet.experiments.result import VERDICTS, ClaimResult
from gpunet.report.page.reading import Run
from gpunet.report.table import NOTHING, PERCENT, number

SIGNS = {"reproduced": "✓", "exceeded": "▲", "not reproduced": "✗", "not tested": "–"}


@dataclass(frozen=True)
class Count:
    """How many claims have a verdict, and where its part of the bar stands, in percent."""

    verdict: str
    kind: str
    sign: str
    count: int
    start: float
    share: float


@dataclass(frozen=True)
class ClaimView:
    """One claim; `anchor` is where the section of its document speaks of it."""

    anchor: str
    statement: str
    where: str
    claimed: str
    measured: str
    verdict: str
    kind: str
    sign: str
    note: str


class Anchors:
    """Names for places on the page, each given once."""

    def __init__(self) -> None:
        self._given: set[str] = set()

    def __call__(self, text: str) -> str:
        """A name made from a text."""
        base = name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "part"
        number = 1
        while name in self._given:
            number += 1
            name = f"{base}-{number}"
        self._given.add(name)
        return name


def distinct_claims(runs: Sequence[Run]) -> list[list[ClaimResult]]:
    """The claims of each run; one that a run cannot test is left to the run of the same experiment that can."""
    claims = [(place, claim) for place, run in enumerate(runs) for claim in (run.result.claims if run.result else ())]
    counted = told_once([(runs[place].experiment, claim.id, claim.verdict) for place, claim in claims])
    own: list[list[ClaimResult]] = [[] for _ in runs]
    for (place, claim), kept in zip(claims, counted, strict=True):
        if kept:
            own[place].append(claim)
    return own


def claim_view(claim: ClaimResult, anchor: str) -> ClaimView:
    """A claim's texts."""
    claimed, measured = (_value(value, claim.id) for value in (claim.claimed, claim.measured))
    return ClaimView(
        anchor, claim.statement, claim.where, claimed, measured, claim.verdict, _kind(claim.verdict),
        SIGNS[claim.verdict], claim.note,
    )  # fmt: skip


def _value(value: float | str | None, claim: str) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, str):
        return value
    metric = PERCENT if PERCENT in claim else ""
    said = number(float(value), metric)
    return f"{said} %" if metric and said != NOTHING else said


def _kind(verdict: str) -> str:
    return verdict.replace(" ", "-")


def counts(claims: Sequence[ClaimView]) -> tuple[Count, ...]:
    """How many there are of each verdict, none left out."""
    listed, start = [], 0.0
    for verdict in VERDICTS:
        found = sum(claim.verdict == verdict for claim in claims)
        share = 100 * found / len(claims) if claims else 0.0
        listed.append(Count(verdict, _kind(verdict), SIGNS[verdict], found, round(start, 3), round(share, 3)))
        start += share
    return tuple(listed)


def common_note(claims: Sequence[ClaimView]) -> str:
    """The note that nearly all claims have, said once; empty where there is none."""
    notes = [claim.note for claim in claims if claim.verdict == "not tested"]
    common = max(notes, key=notes.count, default="")
    return common if notes.count(common) > max(1, 0.8 * len(claims)) else ""
