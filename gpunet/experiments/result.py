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
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Annotated, Any

from gpunet.errors import DataError, shown
from gpunet.experiments.structs import Meta, Struct, convert
from gpunet.files import RESULT
from gpunet.interrupts import contextmanager
from gpunet.limits import DAMAGE, SEEDS, plain, read_json
from gpunet.reprs import columns, table_html

FORMAT = 2
LARGEST = 1e150  # of what is measured: a deviation squares it
Seed = Annotated[int, Meta(ge=0, lt=SEEDS)]
Amount = Annotated[float, Meta(ge=0, lt=SEEDS)]  # of seconds, of bytes
if TYPE_CHECKING:
    Number = float
else:  # as a file has it: `_finite_or_nan` makes null NaN
    Number = Annotated[float, Meta(ge=-LARGEST, le=LARGEST)] | None


class NotMeasuredError(Exception):
    """A result does not hold what is asked of it; the text is the reason, for a reader of the verdicts."""


@dataclass
class Metric:
    """One number over seeds; std is the sample standard deviation, None for a single seed."""

    values: Annotated[list[Number], Meta(min_length=1)]

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

    def __str__(self) -> str:
        return f"{self.mean:.4g}" + ("" if self.std is None else f" ± {self.std:.2g}")


@dataclass
class Row:
    """One line of a result table: a name that stays the same between versions, and its metrics."""

    name: str
    metrics: dict[str, Metric]

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
    seeds: Annotated[list[Seed], Meta(min_length=1)]
    rows: list[Row] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, Any] = field(default_factory=dict)
    timings: dict[str, dict[str, Annotated[list[Number], Meta(min_length=1)]]] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"{columns(*self._table())}\n{self._caption()}"

    def _repr_html_(self) -> str:
        return table_html(*self._table(), self._caption())

    def _caption(self) -> str:
        count = len(self.seeds)
        over = f"{count} seeds, mean ± deviation" if count > 1 else f"seed {self.seeds[0]}"
        return f"{self.experiment} on {self.dataset}, {over}, on {self.device}"

    def _table(self) -> tuple[list[str], list[list[str]]]:
        names = list(dict.fromkeys(name for row in self.rows for name in row.metrics))
        rows = [[row.name, *(str(row.metrics.get(name, "")) for name in names)] for row in self.rows]
        return [self.experiment, *(name.replace("_", " ") for name in names)], rows

    @property
    def names(self) -> list[str]:
        """Of the rows."""
        return [row.name for row in self.rows]

    def row(self, name: str) -> Row:
        """The row of that name, added at the end if it is new."""
        for row in self.rows:
            if row.name == name:
                return row
        self.rows.append(Row(name, {}))
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

    def class_name(self, label: int, dataset: str = "") -> str:
        """What a class is called where a figure or a table has room for a few words; its number where that is all."""
        from gpunet.datasets.labels import shorter

        names = self.notes.get("classes", {}).get(dataset or self.dataset, [])
        return shorter(str(names[label])) if 0 <= label < len(names) else str(label)

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
        rows = [{"name": r.name, "metrics": {n: m.to_json() for n, m in r.metrics.items()}} for r in self.rows]
        document: dict[str, Any] = plain({"format": FORMAT, **vars(self), "rows": rows})
        return document

    def text(self) -> str:
        """The document as it is written."""
        return json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n"

    def write(self, folder: Path) -> Path:
        """Write `folder/result.json` in one piece; OutputError where that cannot be, see `files.write_or_keep`."""
        from gpunet.files import write_or_keep

        return write_or_keep(folder / RESULT, self.text())

    @classmethod
    def read(cls, path: Path) -> Result:
        """A result.json; null stands for a number that is not finite. Raises DataError where it is not one of ours."""
        with intact(path, "run the experiment again"):
            found = read_json(path)
            if "format" not in found and "claims" in found:
                raise DataError(
                    f"'{path}' was written by an older gpunet (format 1, this one reads {FORMAT}): run the experiment "
                    "again, or move its folder elsewhere"
                )
            return _checked(found)


# -- reading ----------------------------------------------------------------------------------------------------------


@contextmanager
def intact(path: Path, mend: str = "") -> Iterator[None]:
    """DataError where a file does not hold what it should or, where it is read (mend: what to do then), cannot be."""
    try:
        yield
    except DataError:
        raise
    except OSError as error:
        if not mend:
            raise
        raise DataError(f"cannot read '{path}': {error.strerror}; {mend}") from error
    except (*DAMAGE, NotMeasuredError) as error:
        why = f"it lacks {error}" if isinstance(error, KeyError) else str(error).partition("\n")[0]
        raise DataError(
            f"'{path}' is damaged, or of another version of gpunet ({why or type(error).__name__}): run it again, or "
            "move its folder elsewhere"
        ) from error


class _Provenance(Struct):
    """What of a provenance is reckoned with; all else of it is shown as it stands."""

    seconds: Amount | None = None
    peak_memory_bytes: Amount | None = None
    started: str | None = None

    def __post_init__(self) -> None:
        if self.started is not None:
            check_time(self.started)


def check_time(stamp: str) -> None:
    """ValueError for what is no point in time that can be told in any time zone."""
    if not 2 <= datetime.fromisoformat(stamp).year <= 9998:
        raise ValueError(f"the date {stamp}")


def _checked(found: dict[str, Any]) -> Result:
    if found["format"] != FORMAT:
        raise ValueError(f"its format is {found['format']!r}, this version reads {FORMAT}")
    result = convert({each.name: found[each.name] for each in fields(Result)}, Result)
    convert(result.provenance, _Provenance)
    for name, count in Counter(result.names).most_common(1):
        if count > 1:
            raise ValueError(f"the row {shown(name)} stands in it {count} times")
    if len({*result.seeds}) < len(result.seeds):
        raise ValueError(f"seeds {result.seeds}: expected distinct ones")
    for row in result.rows:
        for name, metric in row.metrics.items():
            if len(metric.values) != len(result.seeds):
                raise ValueError(
                    f"{len(metric.values)} values of {shown(name)} of {shown(row.name)}: expected one a seed"
                )
            metric.values = _finite_or_nan(metric.values)
    result.notes, result.curves, result.timings = map(_finite_or_nan, (result.notes, result.curves, result.timings))
    return result


def _finite_or_nan(value: Any) -> Any:
    """None becomes NaN, as it was before it was written."""
    if isinstance(value, dict):
        return {key: _finite_or_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite_or_nan(item) for item in value]
    return math.nan if value is None else value
