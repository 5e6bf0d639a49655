"""The tables of toy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gpunet.experiments.result import Result
from gpunet.experiments.toy import DATASETS, x
from gpunet.experiments.toy.claims import datasets, steps_told
from gpunet.report.table import NOTHING, Column, Table, rows_table, seeds_told

WORDS = {
    "zeros": "zero weights", "glorot": "weights without the factor 4",
    "mean": "gradient: mean, not sum", "unhalved": "stops by (y − t)², not its half",
}  # fmt: skip


def label(result: Result, data: str, word: str) -> str:
    """What a row is, from its data set and the last word of its name."""
    if not word:
        return "as in the document" if data in DATASETS and not x.departure(result) else "main setting"
    return WORDS.get(word, word.replace("rate=", "learning rate "))


def rows_of(result: Result, data: str) -> dict[str, str]:
    """The rows of a data set by name, and the word that tells each from the others."""
    names = [name for name in result.names if f"{name} ".startswith(f"{data} ")]
    return {name: name.removeprefix(data).strip() for name in names}


@x.table
def steps_to_converge(result: Result) -> Table:
    settings, every = result.settings, datasets(result)
    metrics = {"train_accuracy": "accuracy"}
    if any(result.values(data, "test_accuracy") != result.values(data, "train_accuracy") for data in every):
        metrics = {"train_accuracy": "train", "test_accuracy": "test"}
    labels: dict[str, str] = {}
    extra: dict[str, dict[str, str]] = {}
    starts = []
    for data in every:
        starts.append(len(labels))
        for name, word in rows_of(result, data).items():
            labels[name] = (f"{data}, " if len(every) > 1 else "") + label(result, data, word)
            for heading, told in _told(result, data, name).items():
                extra.setdefault(heading, {})[name] = told
    sizes = ([result.notes["features"][data], *settings["hidden"], 1] for data in every)
    nets = ", ".join(dict.fromkeys("-".join(map(str, each)) for each in sizes))
    title = (
        f"{', '.join(every)}: {nets}, learning rate {settings['learning_rates'][0]:g}, until every loss is below "
        f"{settings['threshold']:g}; {seeds_told(result)}"
    )
    table = rows_table(result, title, list(labels), metrics, extra=extra, label=labels.__getitem__)
    return replace(table, breaks=frozenset(starts[1:]))


def _told(result: Result, data: str, row: str) -> dict[str, str]:
    """What is told of a row over seeds, by heading. Quartiles are values that occurred: some stand for "more"."""
    limit, (each,) = result.settings["limit"], result.seconds(data, "step_alone")
    steps, largest = result.values(row, "steps"), result.values(row, "largest_loss")
    low, middle, high = np.percentile(steps, (25, 50, 75), method="inverted_cdf")
    return {
        "largest loss,\nmedian": f"{np.median(largest):.3f}",
        "stopped": f"{sum(result.values(row, 'converged')):.0f} of {len(steps)}",
        "steps,\nmedian": steps_told(middle, limit),
        "steps,\nquartiles": f"{steps_told(low, limit)} … {steps_told(high, limit)}" if len(steps) > 1 else NOTHING,
        "seconds\nalone": f"{'> ' if middle >= limit else ''}{each * middle:.2g}",
    }


@x.table
def stacking(result: Result) -> Table:
    """What training all nets of the document's setting as one stack brings."""
    headings = "steps in all", "as one stack, s", "one by one, s (estimate)", "times as fast"
    rows = []
    for data in datasets(result):
        steps, (together,) = sum(result.values(data, "steps")), result.seconds(data, "stack")
        apart = result.seconds(data, "step_alone")[0] * steps
        rows.append((data, f"{steps:,.0f}", f"{together:.3g}", f"{apart:.3g}", f"{apart / together:.1f}"))
    return Table(f"{len(result.seeds)} nets as one stack", tuple(map(Column, headings)), tuple(rows))
