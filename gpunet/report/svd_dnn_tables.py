"""The tables of svd-dnn."""

from __future__ import annotations

from rich.table import Table

from gpunet.experiments.result import Result
from gpunet.experiments.svd_dnn_claims import WHERE, notebook, stated
from gpunet.report.table import NOTHING, Column, Sheet, cell, number, rows_sheet, seeds_told
from gpunet.report.terminal import claims_table, rich_tables

HEADINGS = {"train_loss": "cost", "train_accuracy": "train", "test_accuracy": "test"}
SPEEDS = {"epoch_speed_up": "an epoch\nafter the cut", "relative_speed": "the whole run"}
CUT = {
    "train_loss_before_cut": "cost\nbefore", "train_loss_after_cut": "cost\nafter",
    "test_accuracy_before_cut": "test\nbefore", "test_accuracy_after_cut": "test\nafter",
    "merged_difference": "merged\n− factored",
}  # fmt: skip


def label(row: str) -> str:
    """A row's name as people read it: φ and α."""
    return row.replace("svd phi=", "φ ").replace(" alpha=", ", α ")


def sheets(result: Result) -> list[Sheet]:
    """The document's table beside ours, all variants, what the cut does, speed."""
    task, epochs = result.settings["task"], result.settings["epochs"]
    names = [row.name for row in result.rows]
    ranks = {name: ", ".join(map(str, found)) or "–" for name, found in result.settings["ranks"].items()}
    title = f"{task} on {result.dataset}: {epochs} epochs, {seeds_told(result)}, mean ± deviation"
    listed = [rows_sheet(result, title, names, HEADINGS, extra={"ranks": ranks}, label=label)]
    cut = [row.name for row in result.rows if "train_loss_after_cut" in row.metrics]
    if cut and not _is_sweep(result):
        listed.append(rows_sheet(result, "What the cut does, and multiplying back", cut, CUT, label=label))
    timed = [name for name in cut if "epoch_speed_up" in result.row(name).metrics]
    if timed:
        allowed = {name: f"{gain:.2f}" for name, gain in result.settings["allowed_speed_up"].items()}
        extra = {"allowed by\nthe count": allowed}
        listed.append(rows_sheet(result, "Dense time over factored time", timed, SPEEDS, extra=extra, label=label))
    return [_beside(result, task), *listed] if _as_claimed(result) else listed


def tables(result: Result) -> list[Table]:
    """The sheets for the terminal, and on the document's data the claims."""
    return [*rich_tables(sheets(result)), *([claims_table(result)] if _as_claimed(result) else [])]


def _is_sweep(result: Result) -> bool:
    return bool(result.settings["sweep_alpha"] or result.settings["sweep_phi"])


def _as_claimed(result: Result) -> bool:
    return not _is_sweep(result) and bool(result.dataset == result.settings["task"])


def _beside(result: Result, task: str) -> Sheet:
    """One line a row and metric that the document states: document, notebooks, ours."""
    columns = Column("metric", text=True), Column("document"), Column("its notebooks"), Column("ours")
    rows = []
    for row in result.rows:
        for metric in [*HEADINGS, *SPEEDS]:
            claimed, found = stated(task, row.name, metric), row.metrics.get(metric)
            if claimed is None or found is None:
                continue
            shown = notebook(task, row.name, metric)
            rows.append((
                label(row.name), metric.replace("_", " "), number(claimed, metric),
                NOTHING if shown is None else number(shown, metric), cell(found, metric),
            ))  # fmt: skip
    return Sheet(f"{WHERE[task]} of document 001", columns, tuple(rows))
