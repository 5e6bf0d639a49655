"""A sweep as a `Result`: its result.json has the schema of every experiment's."""

from __future__ import annotations

import math
from typing import Any

from gpunet.addresses import public
from gpunet.backend import get_backend
from gpunet.experiments.provenance import Stopwatch
from gpunet.experiments.result import Result
from gpunet.sweep.storage import storage_url
from gpunet.sweep.table import Table

IMPORTANCE = "importance"  # the row of importances; all others are trials


def row_name(number: int) -> str:
    """A trial's row."""
    return f"trial {number}"


def as_result(table: Table, name: str, watch: Stopwatch, storage: str | None) -> Result:
    """One row a trial, its value and metrics; parameters, stage, state and error by row in `notes`.

    A row of importances by parameter follows, where there are some. The curves are the costs that trials reported.
    """
    spec = table.spec
    asked, given = spec.to_json(), dict(spec.settings)
    backend = get_backend(given.get("device", "cpu"))
    dataset = str(given.get("name", spec.function.rpartition(":")[2]))
    settings: dict[str, Any] = {
        **{key: asked[key] for key in ("function", "direction", "trials", "stages", "space")},
        "given": given, "judged_by": given.get("judged_by", ""),
        "storage": public(storage_url(storage)) if storage else None,
    }  # fmt: skip
    notes: dict[str, Any] = {
        "boxes": [[parameter.text for parameter in space] for space in table.spaces],
        "best": row_name(table.best["number"]) if table.ended("complete") else None,
        **{kind: {row_name(row["number"]): row[kind] for row in table} for kind in ("state", "stage", "parameters")},
        "error": {row_name(number): error for number, error in table.errors.items()},
    }  # fmt: skip
    result = Result(name, dataset, backend.name, settings, [spec.seed], notes=notes)
    for row in table:
        metrics = {} if row["value"] is None else {"value": row["value"]} | row["metrics"]
        finite = {n: v for n, v in metrics.items() if isinstance(v, float) and math.isfinite(v)}
        result.row(row_name(row["number"])).add(**finite)
    if importances := table.importances():
        result.row(IMPORTANCE).add(**importances)
    for number, curve in table.curves.items():
        result.curves[row_name(number)] = {"step": list(curve), "cost": list(curve.values())}
    for row in table:
        if row["seconds"] is not None:
            result.time(row_name(row["number"]), trial=row["seconds"])
    result.provenance = watch.provenance(backend)
    return result
