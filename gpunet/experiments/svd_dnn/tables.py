"""The tables of svd-dnn: the document's beside ours, all variants, what the cut does, speed."""

from __future__ import annotations

from gpunet.experiments.result import Result
from gpunet.experiments.svd_dnn import x
from gpunet.experiments.svd_dnn.claims import NOTEBOOKS, TABLES, WHERE, label, stated
from gpunet.report.table import NOTHING, Column, Table, cell, number, rows_table, seeds_told

HEADINGS = {"train_loss": "cost", "train_accuracy": "train", "test_accuracy": "test"}
SPEEDS = {"epoch_speed_up": "an epoch\nafter the cut", "relative_speed": "the whole run"}
CUT = {
    "train_loss_before_cut": "cost\nbefore", "train_loss_after_cut": "cost\nafter",
    "test_accuracy_before_cut": "test\nbefore", "test_accuracy_after_cut": "test\nafter",
    "merged_difference": "merged\n− factored",
}  # fmt: skip


def is_sweep(result: Result) -> bool:
    """Whether the result is of a sweep over α or φ."""
    return bool(result.settings["sweep_alpha"] or result.settings["sweep_phi"])


@x.table
def beside(result: Result) -> Table | None:
    """One line a row and metric that the document states: document, notebooks, ours."""
    task = result.settings["task"]
    if is_sweep(result) or result.dataset != task:
        return None
    columns = Column("metric", text=True), Column("document"), Column("its notebooks"), Column("ours")
    rows = []
    for row in result.rows:
        for metric in [*HEADINGS, *SPEEDS]:
            claimed, shown = (stated(table, task, row.name, metric) for table in (TABLES, NOTEBOOKS))
            if claimed is not None and metric in row.metrics:
                rows.append((
                    label(row.name), metric.replace("_", " "), number(claimed, metric),
                    NOTHING if shown is None else number(shown, metric), cell(row.metrics[metric], metric),
                ))  # fmt: skip
    return Table(f"{WHERE[task]} of document 001", columns, tuple(rows))


@x.table
def every(result: Result) -> Table:
    ranks = {name: ", ".join(map(str, found)) or NOTHING for name, found in result.notes["ranks"].items()}
    task, epochs = result.settings["task"], result.settings["epochs"]
    title = f"{task} on {result.dataset}: {epochs} epochs, {seeds_told(result)}"
    return rows_table(result, title, result.names, HEADINGS, extra={"ranks": ranks}, label=label)


@x.table
def cut(result: Result) -> Table | None:
    if is_sweep(result):
        return None
    rows = [name for name in result.names if result.has(name, "train_loss_after_cut")]
    return rows_table(result, "What the cut does, and multiplying back", rows, CUT, label=label)


@x.table
def speed(result: Result) -> Table:
    rows = [row.name for row in result.rows if {"epoch_speed_up", "train_loss_after_cut"} <= row.metrics.keys()]
    allowed = {name: f"{gain:.2f}" for name, gain in result.notes["allowed_speed_up"].items()}
    extra = {"allowed by\nthe count": allowed}
    return rows_table(result, "Dense time over factored time", rows, SPEEDS, extra=extra, label=label)
