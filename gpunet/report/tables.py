"""Tables for the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gpunet.experiments.schema import VERDICTS, Metric, Result

COLOUR = {"reproduced": "green", "exceeded": "cyan", "not reproduced": "red", "not tested": "dim"}
PERCENT = "accuracy"
WIDTH = 130  # columns, where no terminal says how many


def console() -> Console:
    """Standard output: a terminal as wide as it is, anything else wide enough for our tables (or $COLUMNS)."""
    narrow = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(width=WIDTH if narrow else None)


def number(value: float, metric: str) -> str:
    """A metric's value as people write it: accuracies in percent."""
    return f"{100 * value:.2f}" if PERCENT in metric else f"{value:.3g}" if abs(value) < 0.1 else f"{value:.3f}"


def cell(metric: Metric | None, name: str) -> str:
    """mean ± std over seeds."""
    if metric is None:
        return "–"
    spread = "" if metric.std is None else f" ± {number(metric.std, name)}"
    return number(metric.mean, name) + spread


def rows_table(
    result: Result,
    title: str,
    rows: Sequence[str],
    metrics: Mapping[str, str],
    claimed: Mapping[str, Mapping[str, float]] | None = None,
    extra: Mapping[str, Mapping[str, str]] | None = None,
    label: Callable[[str], str] = str,
) -> Table:
    """Rows of a result beside what the document claims for them.

    `metrics` maps names to column headings; `extra` adds columns of text by heading, then by row; `label` turns
    a row's name into what is shown.
    """
    table = Table(title=escape(title), title_justify="left", title_style="bold")
    table.add_column("", no_wrap=True)
    for name, heading in metrics.items():
        unit = " %" if PERCENT in name else ""
        if claimed:
            table.add_column(f"{heading}{unit}\nclaimed", justify="right", style="dim")
        table.add_column(f"{heading}{unit}\n{'measured' if claimed else ''}".rstrip(), justify="right")
    for heading in extra or {}:
        table.add_column(heading, justify="right")
    for row in rows:
        cells: list[Any] = [label(row)]
        for name in metrics:
            if claimed:
                stated = claimed.get(row, {}).get(name)
                cells.append("–" if stated is None else number(stated, name))
            cells.append(cell(result.row(row).metrics.get(name), name))
        cells += [texts.get(row, "–") for texts in (extra or {}).values()]
        table.add_row(*cells)
    return table


def claims_table(result: Result) -> Table:
    """All claims with their verdicts."""
    table = Table(title="Claims", title_justify="left", title_style="bold")
    table.add_column("claim")
    table.add_column("claimed", justify="right")
    table.add_column("measured")
    table.add_column("verdict")
    for claim in result.claims:
        metric = PERCENT if PERCENT in claim.id else ""
        stated, found = (
            number(v, metric) if isinstance(v, float) else str("–" if v is None else v)
            for v in (claim.claimed, claim.measured)
        )
        table.add_row(claim.statement, stated, found, f"[{COLOUR[claim.verdict]}]{claim.verdict}[/]")
    return table


def verdict_line(result: Result) -> str:
    """How many claims have which verdict."""
    counts = {verdict: sum(c.verdict == verdict for c in result.claims) for verdict in VERDICTS}
    line = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    notes = {claim.note for claim in result.claims}
    return f"{line} ({notes.pop()})" if len(notes) == 1 else line
