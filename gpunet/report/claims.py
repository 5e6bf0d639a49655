"""Claims in words, wherever they are told: in the terminal, by `gpunet reproduce`, on the page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gpunet.experiments.claims import NOT_APPLICABLE, ClaimResult, counted, summed
from gpunet.report.claims_json import Entry
from gpunet.report.table import NOTHING, PERCENT, number, unit

HERE = {  # verdicts on other data than the document's
    "reproduced": "holds here", "exceeded": "holds here", "not reproduced": "does not hold here",
    "inconclusive": "inconclusive here",
}  # fmt: skip
UNTESTED = "not tested"
# Verdicts on the data that a document speaks of, then those on other data, which are counted apart, and their signs.
OWN = {"reproduced": "✓", "exceeded": "▲", "not reproduced": "✗", "inconclusive": "?"}
SIGNS = OWN | {HERE[verdict]: OWN[verdict] for verdict in OWN if verdict != "exceeded"} | {UNTESTED: "–"}
HOLDS, FAILS = ("reproduced", "exceeded", "holds here"), ("not reproduced", "does not hold here")


def verdict_told(claim: ClaimResult) -> str:
    """A verdict in words; one on other data than the document's is about them."""
    return HERE.get(claim.verdict, claim.verdict) if claim.here else claim.verdict


def claim_values(claim: ClaimResult) -> tuple[str, str]:
    """A claim's stated and found values, as people write them."""
    metric = PERCENT if PERCENT in claim.id else ""
    stated, found = (
        f"{number(v, metric)} {unit(metric) * math.isfinite(v)}".rstrip() if isinstance(v, float) else v or NOTHING
        for v in (claim.claimed, claim.measured)
    )
    return stated, found


def told_counts(counts: Mapping[str, int]) -> str:
    """Counts in words, those of nothing left out."""
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def told_here(counts: Mapping[str, int]) -> str:
    """How orderings fare on other data than the document's, by `counted`: 14 hold, 1 does not, 2 cannot be told yet."""
    hold, fail = counts["reproduced"] + counts["exceeded"], counts["not reproduced"]
    told = {f"hold{'s' * (hold == 1)}": hold, f"do{'es' * (fail == 1)} not": fail}
    return told_counts(told | {"cannot be told yet": counts["inconclusive"]})


def verdict_line(claims: Sequence[ClaimResult], dataset: str) -> str:
    """What was found, in a line: verdicts on the document; on other data the first ordering, and how all fare."""
    here, numbers = [c for c in claims if c.here], [c for c in claims if c.note.startswith(NOT_APPLICABLE)]
    if not here:
        line, notes = f"Claims: {told_counts(counted(claims))}", {claim.note for claim in claims}
        return f"{line} ({notes.pop()})" if len(notes) == 1 else line
    words = "its number is" if len(numbers) == 1 else f"its {len(numbers)} numbers are"
    apart = f"; {words} {numbers[0].note}" if numbers else ""
    first, telling = here[0], here[0].note.partition(";")[0]
    return (
        f"On {dataset}: {first.measured} ({verdict_told(first)}, {telling}). Of {len(here)} "
        f"ordering{'s' * (len(here) > 1)} that the document states {told_here(counted(here, here=True))} on these "
        f"data{apart}."
    )


def here_lines(entries: Sequence[Entry]) -> list[str]:
    """How the documents' orderings fare on other data than theirs: a line for each data set."""
    lines = []
    for dataset in dict.fromkeys(entry.dataset for entry in entries if any(entry.here.values())):
        counts = summed(entry.here for entry in entries if entry.dataset == dataset)
        every = sum(counts.values())
        lines.append(f"on {dataset} {every} ordering{'s were' if every > 1 else ' was'} judged: {told_here(counts)}")
    return lines


# -- on the page -------------------------------------------------------------------------------------------------------


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


def counts(claims: Sequence[ClaimView]) -> dict[str, int]:
    """How many there are of each verdict as it is told, none left out."""
    every = [claim.told for claim in claims]
    return {told: every.count(told) for told in SIGNS}


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
