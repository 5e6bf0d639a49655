"""Tables as data: described once, shown in the terminal (`terminal.py`) and on the report's page (`page/`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from gpunet.experiments.result import Metric, Result

PERCENT = "accuracy"
NOTHING = "–"

Source = Literal["", "claimed", "measured"]


class Cell(str):
    """A cell's text; `exact` has the values, one a seed, that it was rounded from."""

    exact: str

    @classmethod
    def of(cls, text: str, values: Sequence[float]) -> Cell:
        """The text with these values behind it."""
        cell = cls(text)
        cell.exact = ", ".join(f"{value:.8g}" for value in values)
        return cell


@dataclass(frozen=True)
class Column:
    """One column: its heading (a line break where a narrow table may have one), its unit, whose values it holds."""

    heading: str
    unit: str = ""
    source: Source = ""
    text: bool = False  # words, not numbers: aligned left


@dataclass(frozen=True)
class Table:
    """A table: `rows` holds a row's name, then a text for each of `columns`; `breaks`: rows that begin a part."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    breaks: frozenset[int] = frozenset()
    corner: str = ""  # heading of the column of names
    keys: int = 1  # how many columns say what a row is, its name among them: a narrow window repeats them


def number(value: float, metric: str) -> str:
    """A metric's value as people write it: accuracies in percent."""
    if not math.isfinite(value):
        return NOTHING
    if PERCENT in metric:
        return f"{100 * value:.2f}"
    size = abs(value)
    return f"{value:.3g}" if size < 0.1 else f"{value:.3f}" if size < 100 else f"{value:.1f}"


def unit(metric: str) -> str:
    """The unit in which `number` writes a metric."""
    return "%" if PERCENT in metric else ""


def cell(metric: Metric | None, name: str) -> str:
    """mean ± std over seeds, to the same decimal place."""
    if metric is None or not math.isfinite(metric.mean):
        return NOTHING
    said, size = number(metric.mean, name), 100 if PERCENT in name else 1
    if metric.std is not None:
        digits = len(said.partition(".")[2])
        precise = metric.std == 0 or "e" in said
        said += f" ± {number(metric.std, name) if precise else format(size * metric.std, f'.{digits}f')}"
    return Cell.of(said, [size * value for value in metric.values])


def seeds_told(result: Result) -> str:
    """How many seeds a result is of, and what is told of them."""
    return f"{len(result.seeds)} seeds, mean ± deviation" if len(result.seeds) > 1 else "1 seed"


def rows_table(
    result: Result,
    title: str,
    rows: Sequence[str],
    metrics: Mapping[str, str],
    claimed: Mapping[str, Mapping[str, float]] | None = None,
    extra: Mapping[str, Mapping[str, str]] | None = None,
    label: Callable[[str], str] = str,
    words: Collection[str] = (),
) -> Table:
    """Rows of a result beside what the document claims for them.

    `metrics` maps names to column headings; `extra` adds columns by heading, then by row, `words` names those of
    them that hold words; `label` turns a row's name into what is shown.
    """
    columns = []
    for name, heading in metrics.items():
        columns += [Column(heading, unit(name), "claimed")] if claimed else []
        columns.append(Column(heading, unit(name), "measured" if claimed else ""))
    columns += [Column(heading, text=heading in words) for heading in extra or {}]
    lines = []
    for row in rows:
        cells = [label(row)]
        for name in metrics:
            if claimed:
                stated = claimed.get(row, {}).get(name)
                cells.append(NOTHING if stated is None else number(stated, name))
            cells.append(cell(result.metric(row, name) if result.has(row, name) else None, name))
        lines.append((*cells, *(texts.get(row, NOTHING) for texts in (extra or {}).values())))
    return Table(title, tuple(columns), tuple(lines))
