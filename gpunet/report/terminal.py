"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.styled import Styled
from rich.table import Table as RichTable
from rich.text import Text

from gpunet.errors import printable, visible
from gpunet.report.table import NOTHING, Column, Table
from gpunet.reprs import GAP, needed, record, side_by_side, window, wrapped
from gpunet.streams import spelt

if TYPE_CHECKING:
    from gpunet.experiments.claims import ClaimResult
    from gpunet.report.claims_json import Entry

COLOUR = {
    "reproduced": "green", "exceeded": "cyan", "not reproduced": "red", "inconclusive": "yellow", "not tested": "dim",
    "holds here": "green", "does not hold here": "red", "inconclusive here": "yellow",
}  # fmt: skip
WIDTH = 130  # columns, where no terminal says how many
HEIGHT = 25  # lines, of which nothing depends
SENTENCE = 30  # columns from which on a row's name is one, and not repeated in every part of a table
NUMBER = 14  # columns that a part of a table has for numbers at least
PLAIN = box.Box("    \n    \n ── \n    \n ── \n ── \n    \n    \n")  # a rule below the heads and between parts
ASCII_PLAIN = box.Box("    \n    \n -- \n    \n -- \n -- \n    \n    \n", ascii=True)


class Screen(Console):
    """A terminal that shows text as it stands: no markup, no emoji, and of control characters what they are."""

    def render_str(self, text: str, *args: Any, **options: Any) -> Text:
        """Every text that is printed, or is part of what is printed, goes through here."""
        return super().render_str(visible(text), *args, **options)

    def print(self, *objects: Any, soft_wrap: bool | None = None, **options: Any) -> None:
        """As rich's; a text that is not to be wrapped is one line, whatever is in it. Nothing is cut at the edge."""
        if soft_wrap:
            objects = tuple(printable(each) if isinstance(each, str) else each for each in objects)
        super().print(*objects, soft_wrap=soft_wrap, **{"crop": False} | options)


def console() -> Screen:
    """Standard output: a terminal as wide as it is, anything else wide enough for our tables (or $COLUMNS)."""
    # Where rich is not told both it takes 80 × 25 for a terminal that cannot move its cursor.
    return Screen(width=window(WIDTH), height=HEIGHT, markup=False, emoji=False, highlight=False)


def rich_table(table: Table) -> RenderableType:
    """A table for the terminal, under its title, which may be longer than the table is wide; that alone without rows.

    Every text in it is in one line. Where the window is narrow there are no boxes, then words are wrapped, then the
    table stands in parts, one below the other, that all have the rows' names; or, where those are sentences, what
    belongs to each stands in lines below it. Nothing is left out, and no number is cut.
    """
    title = Styled(printable(table.title), "bold")
    return Group(title, _Fitted(table)) if table.rows else title


class _Fitted:
    """A table that knows its width when it is printed."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.words = [True, *(column.text for column in table.columns)]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Rich's to call."""

        def shown(text: str) -> str:
            return spelt(visible(text), options.encoding)

        self.heads = [shown(head) for head in (self.table.corner, *map(_heading, self.table.columns))]
        self.rows = [tuple(shown(printable(cell)) for cell in row) for row in self.table.rows]
        self.needs = [
            needed(head, (row[i] for row in self.rows), words)
            for i, (head, words) in enumerate(zip(self.heads, self.words, strict=True))
        ]
        room, count, whole = options.max_width, len(self.heads), [need[0] for need in self.needs]
        if sum(whole) + 3 * count + 1 <= room:
            yield self._drawn(dict(enumerate(whole)), box.HEAVY_HEAD, 1)
        else:
            parts = side_by_side(self.needs, room, keys=self.table.keys)
            keys = sum(need[1] + GAP for need in self.needs[: self.table.keys])
            if not parts or (len(parts) > 1 and (whole[0] >= max(SENTENCE, room // 2) or room - keys < NUMBER)):
                yield from self._records(room)
            else:
                for place, part in enumerate(parts):
                    yield from [Text()] * bool(place)
                    yield self._drawn(part, ASCII_PLAIN if options.ascii_only else PLAIN, 0)
        if self.table.note:
            yield Text(visible(printable(self.table.note)), "italic")

    def _drawn(self, part: Mapping[int, int], lines: box.Box, edge: int) -> RichTable:
        """The columns of these places, so wide."""
        made = RichTable(box=lines, padding=(0, 1, 0, edge), pad_edge=bool(edge), show_edge=bool(edge))
        if not edge and self.needs[0][0] >= SENTENCE:  # several lines each
            made.leading = 1
        for place, width in part.items():
            column = self.table.columns[place - 1] if place else Column("", text=True)
            style = "dim" if column.source == "claimed" else COLOUR.get(column.heading)
            justify: Any = "left" if column.text else "right"
            head = _folded(self.heads[place], width)
            made.add_column(head, justify=justify, style=style, overflow="fold", width=width)
        for number, row in enumerate(self.rows):
            if number in self.table.breaks:
                made.add_section()
            texts = (Text(_folded(row[place], width), COLOUR.get(row[place], "")) for place, width in part.items())
            made.add_row(*texts)
        return made

    def _records(self, room: int) -> Iterator[RenderableType]:
        """Each row's name, and below it what is known of it."""
        names = [place for place in range(self.table.keys) if self.words[place]]
        rest = [place for place in range(len(self.heads)) if place not in names]
        heads, words = [" ".join(self.heads[place].split()) for place in rest], [self.words[place] for place in rest]
        for row in self.rows:
            for line in wrapped(", ".join(filter(None, (row[place] for place in names))), room):
                yield Text(line, "bold")
            for before, value in record(heads, [row[place] for place in rest], words, room):
                yield Text.assemble(before, (value, COLOUR.get(value, "")), no_wrap=True, overflow="ignore")


def _folded(text: str, width: int) -> str:
    """A cell's lines, broken where words are."""
    return "\n".join(line for part in text.split("\n") for line in wrapped(part, width))


def _heading(column: Column) -> str:
    said = column.heading + (f" {column.unit}" if column.unit else "")
    return f"{said}\n{column.source}" if column.source else said


def claims_table(claims: Sequence[ClaimResult]) -> RenderableType:
    """The claims that were tested, with their verdicts."""
    from gpunet.report.claims import claim_values, verdict_told

    tested = [claim for claim in claims if claim.verdict != "not tested"]
    rows = tuple((claim.statement, *claim_values(claim), verdict_told(claim)) for claim in tested)
    columns = (Column("claimed", text=True), Column("measured", text=True), Column("verdict", text=True))
    return rich_table(Table("Claims", columns, rows, corner="claim"))


def runs_table(entries: Sequence[Entry]) -> RenderableType:
    """How many claims of each run have which verdict, and how long it took."""
    from gpunet.experiments.claims import VERDICTS, summed

    total, seconds = summed(entry.counts for entry in entries), sum(entry.seconds or 0 for entry in entries)
    columns = [*map(Column, VERDICTS), Column("seconds")]
    rows = []
    for entry in entries:
        figures, told = [*map(str, entry.counts.values()), f"{entry.seconds or 0:.0f}"], ""
        if entry.state != "finished":
            figures, told = [NOTHING] * len(figures), f"{entry.state}: {entry.reason}"
        rows.append([entry.name, *figures, told])
    rows.append(["all", *(str(total[verdict]) for verdict in VERDICTS), f"{seconds:.0f}", ""])
    if any(row[-1] for row in rows):
        columns.append(Column("why not", text=True))
    else:
        rows = [row[:-1] for row in rows]
    last = frozenset([len(entries)])
    return rich_table(Table("Claims", tuple(columns), tuple(map(tuple, rows)), breaks=last, corner="run"))
