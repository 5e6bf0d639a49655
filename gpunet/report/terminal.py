"""Tables for the terminal."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from gpunet.errors import printable, visible
from gpunet.experiments.claims import NOT_APPLICABLE, ClaimResult, counted, told_here
from gpunet.report.table import NOTHING, PERCENT, Column, Table, number, unit

COLOUR = {
    "reproduced": "green", "exceeded": "cyan", "not reproduced": "red", "inconclusive": "yellow", "not tested": "dim",
}  # fmt: skip
HERE = {  # verdicts on other data than the document's
    "reproduced": "holds here", "exceeded": "holds here", "not reproduced": "does not hold here",
    "inconclusive": "inconclusive here",
}  # fmt: skip
WIDTH = 130  # columns, where no terminal says how many


class Screen(Console):
    """A terminal that shows text as it stands: no markup, no emoji, and of control characters what they are."""

    def render_str(self, text: str, *args: Any, **options: Any) -> Text:
        """Every text that is printed, or is part of what is printed, goes through here."""
        return super().render_str(visible(text), *args, **options)

    def print(self, *objects: Any, soft_wrap: bool | None = None, **options: Any) -> None:
        """As rich's; a text that is not to be wrapped is one line, whatever is in it."""
        if soft_wrap:
            objects = tuple(printable(each) if isinstance(each, str) else each for each in objects)
        super().print(*objects, soft_wrap=soft_wrap, **options)


def console() -> Screen:
    """Standard output: a terminal as wide as it is, anything else wide enough for our tables (or $COLUMNS)."""
    terminal = sys.stdout is not None and sys.stdout.isatty()
    wide = terminal or "COLUMNS" in os.environ
    return Screen(width=None if wide else WIDTH, markup=False, emoji=False, highlight=False)


def rich_table(table: Table) -> RichTable:
    """A table for the terminal."""
    made = RichTable(title=printable(table.title), title_justify="left", title_style="bold")
    made.add_column(table.corner, no_wrap=True)
    for column in table.columns:
        style = "dim" if column.source == "claimed" else None
        made.add_column(_heading(column), justify="left" if column.text else "right", style=style)
    for place, row in enumerate(table.rows):
        if place in table.breaks:
            made.add_section()
        made.add_row(*map(printable, row))
    if table.note:
        made.caption, made.caption_justify = table.note, "left"
    return made


def _heading(column: Column) -> str:
    said = column.heading + (f" {column.unit}" if column.unit else "")
    return f"{said}\n{column.source}" if column.source else said


def claims_table(claims: Sequence[ClaimResult]) -> RichTable:
    """The claims that were tested, with their verdicts."""
    table = RichTable(title="Claims", title_justify="left", title_style="bold")
    for heading in ("claim", "claimed", "measured", "verdict"):
        table.add_column(heading, justify="right" if heading == "claimed" else "left")
    for claim in claims:
        if claim.verdict != "not tested":
            stated, found = claim_values(claim)
            table.add_row(claim.statement, stated, found, Text(verdict_told(claim), COLOUR[claim.verdict]))
    return table


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


def verdict_line(claims: Sequence[ClaimResult], dataset: str) -> str:
    """What was found, in a line: verdicts on the document; on other data the first ordering, and how all fare."""
    here = [claim for claim in claims if claim.here]
    if not here:
        line = ", ".join(f"{count} {verdict}" for verdict, count in counted(claims).items() if count)
        notes = {claim.note for claim in claims}
        return f"Claims: {line} ({notes.pop()})" if len(notes) == 1 else f"Claims: {line}"
    first, telling = here[0], here[0].note.partition(";")[0]
    return f"On {dataset}: {first.measured} ({verdict_told(first)}, {telling}). {orderings_told(claims)}"


def orderings_told(claims: Sequence[ClaimResult]) -> str:
    """How many of a document's orderings hold on other data than its own, and why its numbers are not judged there."""
    here, numbers = [c for c in claims if c.here], [c for c in claims if c.note.startswith(NOT_APPLICABLE)]
    words = "its number is" if len(numbers) == 1 else f"its {len(numbers)} numbers are"
    apart = f"; {words} {numbers[0].note}" if numbers else ""
    what = f"Of {len(here)} ordering{'s' * (len(here) > 1)} that the document states"
    return f"{what} {told_here(counted(here, here=True))} on these data{apart}."
