"""The tables of svd-init."""

from __future__ import annotations

from rich.table import Table

from gpunet.experiments.schema import Result
from gpunet.experiments.svd_init_claims import METRICS, TABLE_1
from gpunet.report.sheets import Sheet, rows_sheet, seeds_told
from gpunet.report.tables import claims_table, rich_tables

HEADINGS = {"train_loss": "loss", "train_accuracy": "train", "test_accuracy": "test"}


def sheets(result: Result) -> list[Sheet]:
    """Table 1 beside ours, and the further studies."""
    claimed = {row: dict(zip(METRICS, numbers, strict=True)) for row, numbers in TABLE_1.items()}
    epochs = result.settings["epochs"]
    studies = [row.name for row in result.rows if row.name not in TABLE_1]
    return [
        rows_sheet(
            result, f"Table 1 on {result.dataset}: {epochs} epochs, {seeds_told(result)}, mean ± deviation",
            list(TABLE_1), HEADINGS, claimed if result.dataset == "mnist" else None,
        ),
        rows_sheet(result, "W¹ frozen, ‖W‖ held, and the initial dependency raised", studies, HEADINGS),
        rows_sheet(
            result, "Dependency ratio (equation 7), and mean ‖x¹‖² before training", list(TABLE_1),
            {
                "dependency_initial": "dep before", "dependency_final": "dep after",
                "hidden_square_linear": "‖x¹‖², x ≈ ¼z+½", "hidden_square_measured": "‖x¹‖² measured",
            },
        ),
    ]  # fmt: skip


def tables(result: Result) -> list[Table]:
    """The sheets for the terminal, and on the document's data the claims."""
    return [*rich_tables(sheets(result)), *([claims_table(result)] if result.dataset == "mnist" else [])]
