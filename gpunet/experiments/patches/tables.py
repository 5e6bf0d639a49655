"""The tables of patches: dictionaries beside the document's, with what they cost; and one setting changed at a time."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from statistics import fmean

from gpunet.experiments.patches import x
from gpunet.experiments.patches.claims import DATA, TABLE
from gpunet.experiments.result import Result
from gpunet.report.table import Table, number, rows_table, seeds_told

PARTS = ("dictionary", "encode", "head")  # of the seconds that a network takes to be computed


def dictionaries(result: Result) -> list[str]:
    """Rows of networks on all training images: of every dictionary, and the head by Adam."""
    return [name for name in result.names if "=" not in name]


def swept_rows(result: Result) -> list[str]:
    """Rows of one setting changed, on fewer training images."""
    return [name for name in result.names if "=" in name]


def seconds(result: Result, row: str) -> list[float]:
    """Of each seed, what a network took to be computed."""
    return [sum(parts) for parts in zip(*(result.seconds(row, part) for part in PARTS), strict=True)]


@x.table
def accuracies(result: Result) -> Table:
    title = f"Patches of {result.settings['size']} pixels on {result.dataset}: {seeds_told(result)}"
    known = TABLE if result.dataset == DATA else {}
    stated = {f"{count} patches": {"test_accuracy": accuracy} for count, accuracy in known.items()}
    rows = dictionaries(result)
    extra = {
        "features": {row: f"{result.mean(row, 'features'):,.0f}" for row in rows if result.has(row, "features")},
        "seconds": {row: number(fmean(seconds(result, row)), "seconds") for row in rows},
    }
    return rows_table(result, title, rows, {"test_accuracy": "test"}, stated, extra=extra)


@x.table
def sweeps(result: Result) -> Table | None:
    rows, count = swept_rows(result), min(result.settings["dictionaries"])
    if not rows:
        return None
    samples = result.notes["sweep_training_samples"]
    title = f"{count} patches, {samples:,} training images, one setting changed"
    made = rows_table(result, title, rows, {"test_accuracy": "test"})
    settings = [row.partition("=")[0] for row in rows]
    breaks = frozenset(i for i, (a, b) in enumerate(pairwise(settings), 1) if a != b)
    return replace(made, breaks=breaks)
