"""Tables for the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gpunet.errors import printable, visible
from gpunet.experiments.schema import VERDICTS, ClaimResult, Result
from gpunet.report.sheets import NOTHING, PERCENT, Column, Sheet, number

COLOUR = {"reproduced": "green", "exceeded": "cyan", "not reproduced": "red", "not tested": "dim"}
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


def rich_table(sheet: Sheet) -> Table:
    """A sheet as a table of the terminal."""
    table = Table(title=printable(sheet.title), title_justify="left", title_style="bold")
    table.add_column(sheet.corner, no_wrap=True)
    for column in sheet.columns:
        style = "dim" if column.source == "claimed" else None
        table.add_column(_heading(column), justify="left" if column.text else "right", style=style)
    for place, row in enumerate(sheet.rows):
        if place in sheet.breaks:
            table.add_section()
        table.add_row(*map(printable, row))
    if sheet.note:
        table.caption, table.caption_justify = sheet.note, "left"
    return table


def rich_tables(sheets: Sequence[Sheet]) -> list[Table]:
    """Sheets as tables of the terminal."""
    return [rich_table(sheet) for sheet in sheets]


def _heading(column: Column) -> str:
    said = column.heading + (f" {column.unit}" if column.unit else "")
    return f"{said}\n{column.source}" if column.source else said


def claims_table(result: Result) -> Table:
    """All claims with their verdicts."""
    table = Table(title="Claims", title_justify="left", title_style="bold")
    table.add_column("claim")
    table.add_column("claimed", justify="right")
    table.add_column("measured")
    table.add_column("verdict")
    for claim in result.claims:
        stated, found = claim_values(claim)
        table.add_row(claim.statement, stated, found, Text(claim.verdict, COLOUR[claim.verdict]))
    return table


def claim_values(claim: ClaimResult) -> tuple[str, str]:
    """A claim's stated and found values, as people write them."""
    metric = PERCENT if PERCENT in claim.id else ""
    stated, found = (
        number(v, metric) if isinstance(v, float) else str(NOTHING if v is None else v)
        for v in (claim.claimed, claim.measured)
    )
    return stated, found


def verdict_line(result: Result) -> str:
    """How many claims have which verdict."""
    counts = {verdict: sum(c.verdict == verdict for c in result.claims) for verdict in VERDICTS}
    line = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    notes = {claim.note for claim in result.claims}
    return f"{line} ({notes.pop()})" if len(notes) == 1 else line
