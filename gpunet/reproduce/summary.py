"""The table at the end of `gpunet reproduce`."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from gpunet.experiments.result import VERDICTS
from gpunet.report.terminal import COLOUR
from gpunet.reproduce.claims import Book, counted_once
from gpunet.reproduce.plan import Run


def summary(book: Book, runs: Sequence[Run]) -> Table:
    """How many claims of each run have which verdict, and how long it took."""
    table = Table(title="Claims", title_justify="left", title_style="bold")
    table.add_column("run", no_wrap=True)
    for verdict in VERDICTS:
        table.add_column(verdict, justify="right", style=COLOUR[verdict])
    table.add_column("seconds", justify="right")
    if any(book.entry(run.name)["state"] != "finished" for run in runs):
        table.add_column("why not")
    for run in runs:
        entry = book.entry(run.name)
        finished = entry["state"] == "finished"
        cells = [str(count) if finished else "–" for count in entry["counts"].values()]
        took, told = (f"{entry['seconds']:.0f}", "") if finished else ("–", f"{entry['state']}: {entry['reason']}")
        table.add_row(run.name, *cells, took, *([told] if told else []))
    table.add_section()
    total = counted_once([claim for run in runs for claim in book.claims(run.name)])
    seconds = sum(book.entry(run.name)["seconds"] or 0 for run in runs)
    table.add_row("all", *(str(count) for count in total.values()), f"{seconds:.0f}")
    return table
