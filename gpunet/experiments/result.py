"""What a run leaves behind: `result.json`, format 2. Its schema is public.

    {"format": 2, "experiment", "dataset", "device", "settings": {…}, "seeds": [int, …],
     "rows": [{"name", "metrics": {METRIC: {"mean", "std", "values": [a number a seed]}}}, …],
     "notes": {NAME: …}, "curves": {ROW: {NAME: …}}, "timings": {ROW: {MEASURE: [seconds, a number a seed]}},
     "provenance": {…}}

settings: what was asked; notes: what was found that is no metric (routes of decompositions, ranks, counts). Verdicts
are not in it: they are a function of it (`claims.judge`). A number that is not finite is null.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from gpunet.errors import DataError

FORMAT, RESULT = 2, "result.json"
MOST = 2**63  # of what is counted
LARGEST = 1e150  # of what is measured: a deviation squares it


class NotMeasuredError(Exception):
    """A result does not hold what is asked of it; the text is the reason, for a reader of the verdicts."""


@dataclass
class Metric:
    """One number over seeds; std is the sample standard deviation, None for a single seed."""

    values: list[float]

    @property
    def mean(self) -> float:
        return fmean(self.values) if all(map(math.isfinite, self.values)) else sum(self.values) / len(self.values)

    @property
    def std(self) -> float | None:
        if len(self.values) < 2:
            return None
        return stdev(self.values) if all(map(math.isfinite, self.values)) else math.nan

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


@dataclass
class Result:
    """One run of one experiment; see the module."""

    experiment: str
    dataset: str
    device: str
    settings: dict[str, Any]
    seeds: list[int]
    rows: list[Row] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, Any] = field(default_factory=dict)
    timings: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Of the rows."""
        return [row.name for row in self.rows]

    def row(self, name: str) -> Row:
        """The row of that name, added at the end if it is new."""
        for row in self.rows:
            if row.name == name:
                return row
        self.rows.append(Row(name))
        return self.rows[-1]

    def metric(self, row: str, name: str) -> Metric:
        """One number over seeds; NotMeasuredError where this run did not measure it."""
        for each in self.rows:
            if each.name == row and name in each.metrics:
                return each.metrics[name]
        raise NotMeasuredError(f"this run did not measure {name.replace('_', ' ')} of {row}")

    def has(self, row: str, name: str) -> bool:
        """Whether this run measured it."""
        return any(each.name == row and name in each.metrics for each in self.rows)

    def values(self, row: str, name: str) -> list[float]:
        """The metric of every seed; NotMeasuredError where this run did not measure it."""
        return self.metric(row, name).values

    def mean(self, row: str, name: str) -> float:
        """Mean over seeds; NotMeasuredError where this run did not measure it."""
        return self.metric(row, name).mean

    def time(self, row: str, **seconds: float) -> None:
        """Append one seed's seconds."""
        for measure, value in seconds.items():
            self.timings.setdefault(row, {}).setdefault(measure, []).append(float(value))

    def seconds(self, row: str, measure: str) -> list[float]:
        """The seconds of every seed; NotMeasuredError where this run did not time it."""
        found = self.timings.get(row, {}).get(measure)
        if not found:
            raise NotMeasuredError(f"this run did not time {measure.replace('_', ' ')} of {row}")
        return found

    def to_json(self) -> dict[str, Any]:
        """The document of the schema."""
        document = {
            "format": FORMAT, "experiment": self.experiment, "dataset": self.dataset, "device": self.device,
            "settings": self.settings, "seeds": self.seeds,
            "rows": [{"name": r.name, "metrics": {n: m.to_json() for n, m in r.metrics.items()}} for r in self.rows],
            "notes": self.notes, "curves": self.curves, "timings": self.timings, "provenance": self.provenance,
        }  # fmt: skip
        plain: dict[str, Any] = _plain(document)
        return plain

    def text(self) -> str:
        """The document as it is written."""
        return json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n"

    def write(self, folder: Path) -> Path:
        """Write `folder/result.json` in one piece; OutputError where that cannot be, see `files.write_or_keep`."""
        from gpunet.files import write_or_keep

        path = folder / RESULT
        write_or_keep(path, self.text())
        return path

    @classmethod
    def read(cls, path: Path) -> Result:
        """A result.json; null stands for a number that is not finite. Raises DataError where it is not one of ours."""
        from gpunet.limits import DAMAGE, read_json

        try:
            found = read_json(path)
            if "format" not in found and "claims" in found:
                raise DataError(
                    f"'{path}' was written by an older gpunet (format 1, this one reads {FORMAT}): run the experiment "
                    "again, or move its folder elsewhere"
                )
            return _checked(found)
        except DataError:
            raise
        except OSError as error:
            raise DataError(f"cannot read '{path}': {error.strerror}; run the experiment again") from error
        except DAMAGE as error:
            raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> DataError:
    """The line that says so."""
    why = f"it lacks {error}" if isinstance(error, KeyError) else str(error).partition("\n")[0] or type(error).__name__
    return DataError(
        f"'{path}' is damaged, or of another version of gpunet ({why}): run it again, or move its folder elsewhere"
    )


def _plain(value: Any) -> Any:
    """Python's own types only, floats finite or None."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy's arrays and numbers
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


# -- reading ----------------------------------------------------------------------------------------------------------


def _checked(found: dict[str, Any]) -> Result:
    if found["format"] != FORMAT:
        raise ValueError(f"its format is {found['format']!r}, this version reads {FORMAT}")
    return Result(
        text(found["experiment"]),
        text(found["dataset"]),
        text(found["device"]),
        settings=dict(found["settings"]),
        seeds=[_whole(seed) for seed in found["seeds"]],
        rows=[_row(row) for row in found["rows"]],
        notes=_finite_or_nan(dict(found["notes"])),
        curves=_finite_or_nan(dict(found["curves"])),
        timings={
            text(row): {text(measure): [_number(value) for value in values] for measure, values in times.items()}
            for row, times in found["timings"].items()
        },
        provenance=_provenance(dict(found["provenance"])),
    )


def _row(found: dict[str, Any]) -> Row:
    metrics = {text(name): Metric([_number(v) for v in each["values"]]) for name, each in found["metrics"].items()}
    if not all(metric.values for metric in metrics.values()):
        raise ValueError("a metric without values")
    return Row(text(found["name"]), metrics)


def _provenance(found: dict[str, Any]) -> dict[str, Any]:
    from gpunet.checks import is_number

    for name in ("seconds", "peak_memory_bytes"):
        if not (found.get(name) is None or (is_number(found[name]) and 0 <= found[name] < MOST)):
            raise ValueError(f"{name} of its provenance are {found[name]!r}")
    if found.get("started") is not None:
        when(found["started"])
    return found


def when(stamp: Any) -> str:
    """A point in time that can be told in any time zone; ValueError for what is none."""
    if not 2 <= datetime.fromisoformat(text(stamp)).year <= 9998:
        raise ValueError(f"the date {stamp}")
    return str(stamp)


def text(value: Any) -> str:
    """The text; TypeError for what is none."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} where a text belongs")
    return value


def _finite_or_nan(value: Any) -> Any:
    """None becomes NaN, as it was before it was written."""
    if isinstance(value, dict):
        return {key: _finite_or_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite_or_nan(item) for item in value]
    return math.nan if value is None else value


def _number(value: Any) -> float:
    from gpunet.checks import is_number

    if value is not None and not (is_number(value) and abs(value) <= LARGEST):
        raise ValueError(f"{value!r} where a number belongs")
    return math.nan if value is None else float(value)


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < MOST:
        raise ValueError(f"the seed {value!r}")
    return value
