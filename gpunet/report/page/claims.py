"""Claims as the page shows them, and what all of them come to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from gpunet.experiments.claims import NOT_APPLICABLE, ClaimResult, counted, told_here
from gpunet.report.terminal import HERE, claim_values, verdict_told

UNTESTED = "not tested"
# Verdicts on the data that a document speaks of, then those on other data, which are counted apart, and their signs.
OWN = {"reproduced": "✓", "exceeded": "▲", "not reproduced": "✗", "inconclusive": "?"}
SIGNS = OWN | {HERE[verdict]: OWN[verdict] for verdict in OWN if verdict != "exceeded"} | {UNTESTED: "–"}
HOLDS, FAILS = ("reproduced", "exceeded", "holds here"), ("not reproduced", "does not hold here")


def kind(told: str) -> str:
    """A verdict as a class of the style sheet."""
    return told.replace(" ", "-")


@dataclass(frozen=True)
class ClaimView:
    """One claim of a run; `anchor` is its place on the page."""

    anchor: str
    experiment: str
    dataset: str
    claim: ClaimResult

    @property
    def told(self) -> str:
        """The verdict in words."""
        return verdict_told(self.claim)

    @property
    def values(self) -> tuple[str, str]:
        """What the document says, and what we measured."""
        return claim_values(self.claim)


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


def counts(claims: Sequence[ClaimView]) -> dict[str, int]:
    """How many there are of each verdict as it is told, none left out."""
    every = [claim.told for claim in claims]
    return {told: every.count(told) for told in SIGNS}


def said(claims: Sequence[ClaimView]) -> str:
    """The same in words."""
    return ", ".join(f"{count} {told}" for told, count in counts(claims).items() if count)


def reasons(claims: Sequence[ClaimView]) -> dict[str, list[ClaimView]]:
    """Claims that are not tested by what keeps them from it, the commonest first."""
    notes = [claim.claim.note for claim in claims]
    each = sorted(dict.fromkeys(notes), key=lambda note: -notes.count(note))
    return {note: [claim for claim in claims if claim.claim.note == note] for note in each}


def opening(claims: Sequence[ClaimView]) -> list[str]:
    """What was found, in at most three sentences."""
    found, here = counts(claims), list(dict.fromkeys(claim.dataset for claim in claims if claim.claim.here))
    agree: dict[str, list[bool]] = {}
    for claim in claims:
        if claim.told in HOLDS + FAILS:
            agree.setdefault(claim.experiment, []).append(claim.told in HOLDS)
    ranked = sorted(agree, key=lambda name: -sum(agree[name]) / len(agree[name]))
    sentences = []
    if judged := sum(found[told] for told in OWN):
        told = ", ".join(f"{found[told]} {told}" for told in OWN)
        sentences.append(f"On the data that documents speak of, {_judged(judged)}: {told}.")
    if here:
        fared = counted([claim.claim for claim in claims], here=True)
        apart = sum(claim.claim.note.startswith(NOT_APPLICABLE) for claim in claims)
        sentences.append(
            f"On other data or settings ({', '.join(here)}), {_judged(sum(fared.values()))}: {told_here(fared)}"
            f"{f'; {apart} stated numbers do not apply there' if apart else ''}."
        )
    if len(ranked) > 1:
        best, worst = (f"({sum(agree[name])} of {len(agree[name])})" for name in (ranked[0], ranked[-1]))
        sentences.append(
            f"Of what was decided, {ranked[0]} agrees with its document most {best}, {ranked[-1]} least {worst}."
        )
    instances = [
        f"“{one.claim.statement}” {word} ({one.experiment} on {one.dataset}: {one.claim.measured})"
        for word, order, verdicts in (("holds", ranked, HOLDS), ("does not", ranked[::-1], FAILS))
        if (one := _instance(claims, order, verdicts))
    ]
    if instances:
        sentences[2:] = [f"For instance {', while '.join(instances)}."]
    return sentences or ["None of the claims could be judged."] * bool(claims)


def _judged(count: int) -> str:
    return f"{count} claim{'s were' if count != 1 else ' was'} judged"


def _instance(claims: Sequence[ClaimView], order: Sequence[str], verdicts: Sequence[str]) -> ClaimView | None:
    """The first claim of such a verdict that says in words what was measured, of the first experiment that has one."""
    told = [claim for claim in claims if claim.told in verdicts and isinstance(claim.claim.measured, str)]
    return min(told, key=lambda claim: order.index(claim.experiment), default=None)
