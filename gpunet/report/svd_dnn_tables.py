"""The tables of svd-dnn for the terminal."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from gpunet.experiments.schema import Result
from gpunet.experiments.svd_dnn_claims import WHERE, notebook, stated
from gpunet.report.tables import cell, claims_table, number, rows_table

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


def tables(result: Result) -> list[Table]:
    """The document's table beside ours, all variants, what the cut does, speed, the claims."""
    task, seeds, epochs = result.settings["task"], len(result.seeds), result.settings["epochs"]
    sweep = result.settings["sweep_alpha"] or result.settings["sweep_phi"]
    names = [row.name for row in result.rows]
    ranks = {name: ", ".join(map(str, found)) or "–" for name, found in result.settings["ranks"].items()}
    title = f"{task} on {result.dataset}: {epochs} epochs, {seeds} seed{'s' * (seeds > 1)}, mean ± deviation"
    listed = [rows_table(result, title, names, HEADINGS, extra={"ranks": ranks}, label=label)]
    cut = [row.name for row in result.rows if "train_loss_after_cut" in row.metrics]
    if cut and not sweep:
        listed.append(rows_table(result, "What the cut does, and multiplying back", cut, CUT, label=label))
    timed = [name for name in cut if "epoch_speed_up" in result.row(name).metrics]
    if timed:
        allowed = {name: f"{gain:.2f}" for name, gain in result.settings["allowed_speed_up"].items()}
        extra = {"allowed by\nthe count": allowed}
        listed.append(rows_table(result, "Dense time over factored time", timed, SPEEDS, extra=extra, label=label))
    if not sweep and result.dataset == task:
        listed = [_beside(result, task), *listed, claims_table(result)]
    return listed


def _beside(result: Result, task: str) -> Table:
    """One line a row and metric that the document states: document, notebooks, ours."""
    table = Table(title=escape(f"{WHERE[task]} of document 001"), title_justify="left", title_style="bold")
    table.add_column("", no_wrap=True)
    table.add_column("metric")
    for heading in ("document", "its notebooks", "ours"):
        table.add_column(heading, justify="right")
    for row in result.rows:
        for metric in [*HEADINGS, *SPEEDS]:
            claimed, found = stated(task, row.name, metric), row.metrics.get(metric)
            if claimed is None or found is None:
                continue
            shown = notebook(task, row.name, metric)
            table.add_row(
                label(row.name), metric.replace("_", " "), number(claimed, metric),
                "–" if shown is None else number(shown, metric), cell(found, metric),
            )  # fmt: skip
    return table
