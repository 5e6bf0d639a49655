"""The tables of svd-init: Table 1 beside ours, and the further studies."""

from __future__ import annotations

from gpunet.experiments.result import Result
from gpunet.experiments.svd_init import x
from gpunet.experiments.svd_init.claims import DATA, METRICS, TABLE_1
from gpunet.report.table import Table, rows_table, seeds_told

HEADINGS = {"train_loss": "loss", "train_accuracy": "train", "test_accuracy": "test"}
CLAIMED = {row: dict(zip(METRICS, numbers, strict=True)) for row, numbers in TABLE_1.items()}


@x.table
def table_1(result: Result) -> Table:
    title = f"Table 1 on {result.dataset}: {result.settings['epochs']} epochs, {seeds_told(result)}"
    return rows_table(result, title, list(TABLE_1), HEADINGS, CLAIMED if result.dataset == DATA else None)


@x.table
def variants(result: Result) -> Table:
    studied = [name for name in result.names if name not in TABLE_1]
    return rows_table(result, "W¹ frozen, ‖W‖ held, and the initial dependency raised", studied, HEADINGS)


@x.table
def dependency(result: Result) -> Table:
    return rows_table(
        result, "Dependency ratio (equation 7), and mean ‖x¹‖² before training", list(TABLE_1),
        {
            "dependency_initial": "dep before", "dependency_final": "dep after",
            "hidden_square_linear": "‖x¹‖², x ≈ ¼z+½", "hidden_square_measured": "‖x¹‖² measured",
        },
    )  # fmt: skip
