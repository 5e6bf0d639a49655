"""The tables of toy."""

from __future__ import annotations

import numpy as np
from rich.table import Table

from gpunet.experiments.result import Result
from gpunet.experiments.toy_claims import steps_told
from gpunet.report.table import NOTHING, Column, Sheet, rows_sheet, seeds_told
from gpunet.report.terminal import claims_table, rich_tables

WORDS = {
    "zeros": "zero weights", "glorot": "weights without the factor 4",
    "mean": "gradient: mean, not sum", "unhalved": "stops by (y − t)², not its half",
}  # fmt: skip


def label(result: Result, word: str) -> str:
    """What a row is, from the last word of its name."""
    if not word:
        return "as in the document" if result.settings["as_in_the_document"] else "main setting"
    return WORDS.get(word, word.replace("rate=", "learning rate "))


def rows_of(result: Result, data: str) -> dict[str, str]:
    """The rows of a data set by name, and the word that tells each from the others."""
    names = [row.name for row in result.rows if f"{row.name} ".startswith(f"{data} ")]
    return {name: name.removeprefix(data).strip() for name in names}


def sheets(result: Result) -> list[Sheet]:
    """A table a data set, and what stacking brings."""
    return [*(_rows(result, data) for data in result.settings["datasets"]), _stacking(result)]


def tables(result: Result) -> list[Table]:
    """The sheets for the terminal, and the claims."""
    return [*rich_tables(sheets(result)), claims_table(result)]


def _rows(result: Result, data: str) -> Sheet:
    """Accuracy, and steps to converge, over seeds."""
    rows, settings = rows_of(result, data), result.settings
    net = "-".join(map(str, [settings["features"][data], *settings["hidden"], 1]))
    title = (
        f"{data}: {net}, learning rate {settings['learning_rates'][0]:g}, until every loss is below "
        f"{settings['threshold']:g}; {seeds_told(result)}, mean ± deviation"
    )
    metrics = {"train_accuracy": "accuracy"}
    if result.values(data, "test_accuracy") != result.values(data, "train_accuracy"):
        metrics = {"train_accuracy": "train", "test_accuracy": "test"}
    told = {name: _told(result, data, name) for name in rows}
    extra = {heading: {name: told[name][heading] for name in rows} for heading in told[data]}
    return rows_sheet(result, title, list(rows), metrics, extra=extra, label=lambda name: label(result, rows[name]))


def _told(result: Result, data: str, row: str) -> dict[str, str]:
    """What is told of a row over seeds, by heading. Quartiles are values that occurred: some stand for "more"."""
    limit, each = result.settings["limit"], result.timings["seconds_per_step_alone"][data]
    steps, largest = result.values(row, "steps"), result.values(row, "largest_loss")
    low, middle, high = np.percentile(steps, (25, 50, 75), method="inverted_cdf")
    return {
        "largest loss,\nmedian": f"{np.median(largest):.3f}",
        "stopped": f"{sum(result.values(row, 'converged')):.0f} of {len(steps)}",
        "steps,\nmedian": steps_told(middle, limit),
        "steps,\nquartiles": f"{steps_told(low, limit)} … {steps_told(high, limit)}" if len(steps) > 1 else NOTHING,
        "seconds\nalone": f"{'> ' if middle >= limit else ''}{each * middle:.2g}",
    }


def _stacking(result: Result) -> Sheet:
    """What training all nets of the document's setting as one stack brings."""
    headings = "steps in all", "as one stack, s", "one by one, s (estimate)", "times as fast"
    rows = []
    for data in result.settings["datasets"]:
        steps, together = sum(result.values(data, "steps")), result.timings["seconds"][data]
        apart = result.timings["seconds_per_step_alone"][data] * steps
        rows.append((data, f"{steps:,.0f}", f"{together:.3g}", f"{apart:.3g}", f"{apart / together:.1f}"))
    title = f"{len(result.seeds)} nets as one stack"
    return Sheet(title, tuple(Column(heading) for heading in headings), tuple(rows))
