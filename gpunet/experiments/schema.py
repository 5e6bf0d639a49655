"""What a run leaves behind: `result.json`, whose schema is public and stable."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gpunet.files import write_or_keep

RESULT = "result.json"
Verdict = Literal["reproduced", "exceeded", "not reproduced", "not tested"]
VERDICTS: tuple[Verdict, ...] = ("reproduced", "exceeded", "not reproduced", "not tested")


@dataclass
class Metric:
    """One number over seeds; std is the sample standard deviation, None for a single seed."""

    values: list[float]

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def std(self) -> float | None:
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else None

    def to_json(self) -> dict[str, Any]:
        return {"mean": self.mean, "std": self.std, "values": self.values}


@dataclass
class Row:
    """One line of a result table: a name that stays the same between versions, and its metrics."""

    name: str
    metrics: dict[str, Metric] = field(default_factory=dict)

    def add(self, **values: float) -> None:
        """Append one seed's values."""
        for name, value in values.items():
            self.metrics.setdefault(name, Metric([])).values.append(float(value))


@dataclass(frozen=True)
class ClaimResult:
    """What a document claims, what we measured, and the verdict."""

    id: str
    statement: str
    where: str
    claimed: float | str
    measured: float | str | None
    verdict: Verdict
    note: str = ""


@dataclass
class Result:
    """One run of one experiment. `curves` holds lists of numbers by name, `timings` seconds by name."""

    experiment: str
    dataset: str
    device: str
    settings: dict[str, Any]
    seeds: list[int]
    rows: list[Row] = field(default_factory=list)
    claims: list[ClaimResult] = field(default_factory=list)
    curves: dict[str, Any] = field(default_factory=dict)
    timings: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def row(self, name: str) -> Row:
        """The row of that name, added at the end if it is new."""
        for row in self.rows:
            if row.name == name:
                return row
        self.rows.append(Row(name))
        return self.rows[-1]

    def mean(self, row: str, metric: str) -> float | None:
        """Mean over seeds, None where this run did not measure it."""
        found = next((r for r in self.rows if r.name == row), None)
        return found.metrics[metric].mean if found and metric in found.metrics else None

    def values(self, row: str, metric: str) -> list[float]:
        """The metric of every seed; empty where this run did not measure it."""
        found = next((r for r in self.rows if r.name == row), None)
        return found.metrics[metric].values if found and metric in found.metrics else []

    def to_json(self) -> dict[str, Any]:
        """The document of DESIGN's schema; numbers that are not finite become null, which JSON can hold."""
        document = {
            "experiment": self.experiment, "dataset": self.dataset, "device": self.device,
            "settings": self.settings, "seeds": self.seeds,
            "rows": [{"name": r.name, "metrics": {n: m.to_json() for n, m in r.metrics.items()}} for r in self.rows],
            "claims": [asdict(claim) for claim in self.claims],
            "curves": self.curves, "timings": self.timings, "provenance": self.provenance,
        }  # fmt: skip
        plain: dict[str, Any] = _plain(document)
        return plain

    def text(self) -> str:
        """The document as it is written."""
        return json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n"

    def write(self, folder: Path) -> Path:
        """Write `folder/result.json` in one piece; OutputError where that cannot be, see `files.write_or_keep`."""
        path = folder / RESULT
        write_or_keep(path, self.text())
        return path


def _plain(value: Any) -> Any:
    """Python's own types only, floats finite or None."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
