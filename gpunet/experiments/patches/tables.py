"""The table of patches: dictionaries beside the document's, and whitenings."""

from __future__ import annotations

from gpunet.experiments.patches import x
from gpunet.experiments.patches.claims import DATA, TABLE
from gpunet.experiments.result import Result
from gpunet.report.table import Table, rows_table, seeds_told


@x.table
def accuracies(result: Result) -> Table:
    title = f"Patches of {result.settings['size']} pixels on {result.dataset}: {seeds_told(result)}"
    known = TABLE if result.dataset == DATA else {}
    stated = {f"{count} patches": {"test_accuracy": accuracy} for count, accuracy in known.items()}
    return rows_table(result, title, result.names, {"test_accuracy": "test"}, stated)
