"""How long things took: a result's `timings`, whatever an experiment puts there, as one table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import mean, median, stdev
from typing import Any, TypeGuard

from gpunet.experiments.result import Result
from gpunet.report.page.reading import Run
from gpunet.report.table import NOTHING, Column, Sheet

NAMES = {
    "seconds_per_epoch": "an epoch", "per_epoch": "an epoch", "seconds_to_cut": "the cut",
    "timed_seconds": "the whole run,\ntimed apart", "seconds_per_run": "a run", "seconds": "in all",
    "seconds_per_step_alone": "a step,\none net", "fit": "fit", "extract": "features",
    "ridge": "head in\nclosed form", "": "time",
}  # fmt: skip
COMPARED = "seconds_per_epoch"  # its first row is what the others are measured against
UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))

Times = dict[str, dict[str, list[float]]]  # by measure, then by row, a value a seed


def timing_sheet(result: Result, title: str) -> Sheet | None:
    """Times by row, mean ± deviation over seeds, and the speed of an epoch over the first row's; None without any."""
    times = collected(result.timings)
    if not times:
        return None
    rows = list(dict.fromkeys(row for found in times.values() for row in found))
    columns, cells = [], []
    for measure, found in times.items():
        size, unit = _unit(found)
        columns.append(Column(NAMES.get(measure, measure.replace("_", " ")), unit))
        cells.append({row: _told(values, size) for row, values in found.items()})
    if len(times.get(COMPARED, {})) > 1:
        first, *_ = times[COMPARED]
        base = median(times[COMPARED][first])
        columns.append(Column(f"speed of an epoch,\n{first} = 1"))
        cells.append({row: f"{base / median(values):.2f}" for row, values in times[COMPARED].items() if any(values)})
    lines = tuple((row, *(column.get(row, NOTHING) for column in cells)) for row in rows)
    return Sheet(title, tuple(columns), lines)


def whole_runs(runs: Sequence[Run]) -> Sheet:
    """How long each finished run took, and the most memory it held."""
    rows = []
    for run in runs:
        if run.result:
            seconds, peak = (run.result.provenance.get(name) for name in ("seconds", "peak_memory_bytes"))
            memory = f"{peak / 1e6:,.0f}" if _is_number(peak) else NOTHING
            told = duration(seconds if _is_number(seconds) else None)
            rows.append((run.name, str(len(run.result.seeds)), run.result.device, told, memory))
    columns = Column("seeds"), Column("device", text=True), Column("took"), Column("peak memory", "MB")
    return Sheet("Whole runs", columns, tuple(rows))


def collected(timings: Mapping[str, Any]) -> Times:
    """Seconds by measure and row.

    Understood are a number by name, numbers or lists of them by row, and, of rows, a list of one record a seed; what is
    none of these is left out.
    """
    times: Times = {}
    for name, found in timings.items():
        if _is_number(found):
            times.setdefault("", {})[name] = [found]
        elif isinstance(found, dict):
            for row, values in found.items():
                _add(times, name, row, values if isinstance(values, list) else [values])
        elif isinstance(found, list):
            for record in found:
                for measure, value in record.items() if isinstance(record, dict) else ():
                    _add(times, measure, name, [_of_a_record(measure, value)])
    return dict(sorted(times.items(), key=lambda item: item[0] != "per_epoch"))


def _add(times: Times, measure: str, row: str, values: list[Any]) -> None:
    known = [value for value in values if _is_number(value)]
    if known:
        times.setdefault(measure, {}).setdefault(row, []).extend(known)


def _of_a_record(measure: str, value: Any) -> Any:
    """`seconds` runs on from epoch to epoch, all other lists are a time each."""
    numbers = value if isinstance(value, list) and value and all(map(_is_number, value)) else None
    if numbers is None:
        return value
    return numbers[-1] if measure == "seconds" else mean(numbers)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _unit(found: Mapping[str, list[float]]) -> tuple[float, str]:
    """The unit in which the middle of a column is at least 1."""
    middle = median(median(values) for values in found.values())
    return next(((size, unit) for size, unit in UNITS if middle >= size), UNITS[-1] if middle > 0 else UNITS[0])


def _told(values: list[float], size: float) -> str:
    spread = f" ± {_short(stdev(values) / size)}" if len(values) > 1 else ""
    return _short(mean(values) / size) + spread


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def duration(seconds: float | None) -> str:
    """Seconds as people say them."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
