"""Tables for the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gpunet.errors import printable
from gpunet.experiments.schema import VERDICTS, ClaimResult, Result
from gpunet.report.sheets import NOTHING, PERCENT, Column, Sheet, number

COLOUR = {"reproduced": "green", "exceeded": "cyan", "not reproduced": "red", "not tested": "dim"}
WIDTH = 130  # columns, where no terminal says how many


def console() -> Console:
    """Standard output: a terminal as wide as it is, anything else wide enough for our tables (or $COLUMNS)."""
    narrow = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(width=WIDTH if narrow else None)


def plain(text: str) -> str:
    """A text that may come from a file: no markup of rich's, and no control characters but line ends."""
    return escape("\n".join(map(printable, text.split("\n"))))


def rich_table(sheet: Sheet) -> Table:
    """A sheet as a table of the terminal."""
    table = Table(title=plain(sheet.title), title_justify="left", title_style="bold")
    table.add_column(plain(sheet.corner), no_wrap=True)
    for column in sheet.columns:
        style = "dim" if column.source == "claimed" else None
        table.add_column(_heading(column), justify="left" if column.text else "right", style=style)
    for place, row in enumerate(sheet.rows):
        if place in sheet.breaks:
            table.add_section()
        table.add_row(*map(plain, row))
    if sheet.note:
        table.caption, table.caption_justify = plain(sheet.note), "left"
    return table


def rich_tables(sheets: Sequence[Sheet]) -> list[Table]:
    """Sheets as tables of the terminal."""
    return [rich_table(sheet) for sheet in sheets]


def _heading(column: Column) -> str:
    said = plain(column.heading) + (f" {column.unit}" if column.unit else "")
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
        table.add_row(
            escape(claim.statement), escape(stated), escape(found), f"[{COLOUR[claim.verdict]}]{claim.verdict}[/]"
        )
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
