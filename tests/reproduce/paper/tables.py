"""One table."""

from __future__ import annotations

from gpunet.report.table import Table, rows_table

from . import stack, x


@x.table
@stack.table
def table(result) -> Table:
    return rows_table(result, "Table 1", result.names, {"accuracy": "accuracy"})
