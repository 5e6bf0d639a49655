"""The tables of svd-init for the terminal."""

from __future__ import annotations

from rich.table import Table

from gpunet.experiments.schema import Result
from gpunet.experiments.svd_init_claims import METRICS, TABLE_1
from gpunet.report.tables import claims_table, rows_table

HEADINGS = {"train_loss": "loss", "train_accuracy": "train", "test_accuracy": "test"}


def tables(result: Result) -> list[Table]:
    """Table 1 beside ours, the further studies, the claims."""
    claimed = {row: dict(zip(METRICS, numbers, strict=True)) for row, numbers in TABLE_1.items()}
    known = claimed if result.dataset == "mnist" else None
    seeds, epochs = len(result.seeds), result.settings["epochs"]
    studies = [row.name for row in result.rows if row.name not in TABLE_1]
    return [
        rows_table(
            result, f"Table 1 on {result.dataset}: {epochs} epochs, {seeds} seed{'s' * (seeds > 1)}, mean ± deviation",
            list(TABLE_1), HEADINGS, known,
        ),
        rows_table(result, "W¹ frozen, ‖W‖ held, and the initial dependency raised", studies, HEADINGS),
        rows_table(
            result, "Dependency ratio (equation 7), and mean ‖x¹‖² before training", list(TABLE_1),
            {
                "dependency_initial": "dep before", "dependency_final": "dep after",
                "hidden_square_linear": "‖x¹‖², x ≈ ¼z+½", "hidden_square_measured": "‖x¹‖² measured",
            },
        ),
        *([claims_table(result)] if known else []),
    ]  # fmt: skip
