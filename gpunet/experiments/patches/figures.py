"""The figures of patches: accuracy by dictionary and its cost, and by each setting."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from statistics import fmean
from typing import Any

from gpunet.experiments.framework import WHISKERS
from gpunet.experiments.patches import x
from gpunet.experiments.patches.tables import dictionaries, seconds, swept_rows
from gpunet.experiments.result import Result
from gpunet.report.style import COLOURS, dots, label_rows

MEANINGS = {"whitening": "ε of the whitening", "grid": "windows a side", "size": "pixels of a patch a side",
            "mirrored": "mirror images as one feature"}  # fmt: skip


def _sizes(result: Result) -> list[str]:
    """Rows of dictionaries whose heads are in closed form."""
    return [name for name in dictionaries(result) if name.endswith("patches")]


def _swept(result: Result) -> dict[str, list[str]]:
    """Rows by the setting that they change."""
    return {name: list(rows) for name, rows in groupby(swept_rows(result), lambda row: row.partition("=")[0])}


@x.figure(
    "accuracy", "Test accuracy by the number of patches, and by the seconds that it took, on logarithmic axes.",
    "Two charts of test accuracy: against the dictionary's size, and against seconds.", spread=WHISKERS, panels=2,
    when=lambda result: len(_sizes(result)) > 1,
)  # fmt: skip
def accuracy(result: Result, panels: Any) -> None:
    rows = _sizes(result)
    counts: Sequence[float] = [int(row.split()[0]) for row in rows]
    spent: Sequence[float] = [fmean(seconds(result, row)) for row in rows]
    for panel, places in zip(panels, (counts, spent), strict=True):
        dots(panel, result, "test_accuracy", dict(zip(places, rows, strict=True)), fmt="o-", color=COLOURS[0])
        panel.set_xscale("log")
        panel.margins(x=0.15, y=0.15)
    panels[0].set_xticks(counts, list(map(str, counts)))
    panels[0].minorticks_off()
    panels[0].set(xlabel="patches of the dictionary", title=result.dataset)
    panels[1].set(xlabel="seconds", title="dictionary, encoding and head")
    label_rows(panels, "test accuracy (%)")


@x.figure(
    "sweeps", "One setting changed at a time, the smallest dictionary, fewer training images.",
    "A chart of test accuracy for each setting that is changed.", spread=WHISKERS, width=4.2, height=3.4,
    panels=lambda result: len(_swept(result)), when=lambda result: bool(swept_rows(result)),
)  # fmt: skip
def sweeps(result: Result, panels: Any) -> None:
    for panel, (setting, rows) in zip(panels, _swept(result).items(), strict=True):
        dots(panel, result, "test_accuracy", dict(enumerate(rows)), fmt="o-", color=COLOURS[0])
        panel.set_xticks(range(len(rows)), [row.partition("=")[2] for row in rows], fontsize=8)
        panel.set_xlabel(MEANINGS.get(setting, setting))
        panel.margins(x=0.15, y=0.15)
    label_rows(panels, "test accuracy (%)")
    panels[0].set_title(f"{result.notes['sweep_training_samples']:,} training images of {result.dataset}")
