"""Tables for the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.styled import Styled
from rich.table import Table as RichTable
from rich.text import Text

from gpunet.errors import printable, visible
from gpunet.report.table import NOTHING, Column, Table

if TYPE_CHECKING:
    from gpunet.experiments.claims import ClaimResult
    from gpunet.report.claims_json import Entry

COLOUR = {
    "reproduced": "green", "exceeded": "cyan", "not reproduced": "red", "inconclusive": "yellow", "not tested": "dim",
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


def rich_table(table: Table) -> RenderableType:
    """A table for the terminal, under its title, which may be longer than the table is wide; that alone without rows.

    Every text in it is in one line.
    """
    made = RichTable()
    made.add_column(table.corner, overflow="fold")
    for column in table.columns:
        style = "dim" if column.source == "claimed" else None
        justify: Any = "left" if column.text else "right"
        # Where room is short words wrap, and numbers stay whole.
        made.add_column(_heading(column), justify=justify, style=style, overflow="fold", no_wrap=not column.text)
    for place, row in enumerate(table.rows):
        if place in table.breaks:
            made.add_section()
        made.add_row(*map(printable, row))
    if table.note:
        made.caption, made.caption_justify = table.note, "left"
    title = Styled(printable(table.title), "bold")
    return Group(title, made) if table.rows else title


def _heading(column: Column) -> str:
    said = column.heading + (f" {column.unit}" if column.unit else "")
    return f"{said}\n{column.source}" if column.source else said


def claims_table(claims: Sequence[ClaimResult]) -> RichTable:
    """The claims that were tested, with their verdicts."""
    from gpunet.report.claims import claim_values, verdict_told

    table = RichTable(title="Claims", title_justify="left", title_style="bold")
    for heading in ("claim", "claimed", "measured", "verdict"):
        table.add_column(heading, justify="right" if heading == "claimed" else "left")
    for claim in claims:
        if claim.verdict != "not tested":
            stated, found = claim_values(claim)
            table.add_row(claim.statement, stated, found, Text(verdict_told(claim), COLOUR[claim.verdict]))
    return table


def runs_table(entries: Sequence[Entry]) -> RichTable:
    """How many claims of each run have which verdict, and how long it took."""
    from gpunet.experiments.claims import VERDICTS, summed

    total, seconds = summed(entry.counts for entry in entries), sum(entry.seconds or 0 for entry in entries)
    table = RichTable(title="Claims", title_justify="left", title_style="bold", show_footer=True)
    table.add_column("run", "all", no_wrap=True)
    for verdict in VERDICTS:
        table.add_column(verdict, str(total[verdict]), justify="right", style=COLOUR[verdict])
    table.add_column("seconds", f"{seconds:.0f}", justify="right")
    if any(entry.state != "finished" for entry in entries):
        table.add_column("why not")
    for entry in entries:
        cells, told = [*map(str, entry.counts.values()), f"{entry.seconds or 0:.0f}"], []
        if entry.state != "finished":
            cells, told = [NOTHING] * len(cells), [f"{entry.state}: {entry.reason}"]
        table.add_row(entry.name, *cells, *told)
    return table
