"""What the page is made of: `claims.json`, and each run's `result.json`, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from gpunet.checks import is_number
from gpunet.errors import DataError
from gpunet.experiments.result import VERDICTS, ClaimResult, Metric, Result, Row
from gpunet.limits import DAMAGE, read_json

CLAIMS, RESULT = "claims.json", "result.json"
MOST = 2**63  # of what is counted
LARGEST = 1e150  # of what is measured: a deviation squares it
STATES = ("finished", "failed", "skipped", "waiting")


@dataclass(frozen=True)
class Run:
    """One run: finished, with its result and its folder; or not, with the reason if there is one."""

    name: str
    experiment: str
    state: str
    reason: str
    result: Result | None
    folder: Path


@dataclass(frozen=True)
class Reproduction:
    """Everything a folder holds. quick and updated: what claims.json says, None without one."""

    quick: bool | None
    updated: str | None
    runs: tuple[Run, ...]


def read(folder: Path) -> Reproduction:
    """A folder of `gpunet reproduce`, of one run, or of several runs side by side.

    Raises DataError where there is nothing of these, or a file is damaged or of another version.
    """
    if (folder / CLAIMS).is_file():
        return _reproduction(folder)
    there = [folder] if (folder / RESULT).is_file() else sorted(path.parent for path in folder.glob(f"*/{RESULT}"))
    if not there:
        raise DataError(
            f"'{folder}' holds neither {CLAIMS} nor {RESULT}: expected a folder of `gpunet reproduce` or `gpunet run`"
        )
    results = [read_result(path / RESULT) for path in there]
    runs = [
        Run(path.resolve().name, result.experiment, "finished", "", result, path)
        for path, result in zip(there, results, strict=True)
    ]
    return Reproduction(None, None, tuple(runs))


def read_result(path: Path) -> Result:
    """A result.json; null stands for a number that is not finite. Raises DataError where it is not one of ours."""
    try:
        return _result(read_json(path))
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


def _reproduction(folder: Path) -> Reproduction:
    path = folder / CLAIMS
    try:
        held = read_json(path)
        runs = [_entry(folder, entry) for entry in held["runs"]]
        if not isinstance(held["quick"], bool):
            raise TypeError(f"quick is {held['quick']!r}")
        return Reproduction(held["quick"], _when(held["updated"]), tuple(runs))
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror}; run `gpunet reproduce` again") from error
    except DataError:
        raise
    except DAMAGE as error:
        raise damaged(path, error) from error


def _entry(folder: Path, entry: dict[str, Any]) -> Run:
    name, state = _text(entry["name"]), _text(entry["state"])
    if Path(name).name != name or state not in STATES:
        raise ValueError(f"a run is named '{name}' and is '{state}'")
    result, reason = None, _text(entry["reason"] or "")
    if state == "finished":
        if (folder / name / RESULT).is_file():
            result = read_result(folder / name / RESULT)
        else:
            state, reason = "missing", f"{name}/{RESULT} is not there any more: run it again"
    experiment = result.experiment if result else _text(entry["experiment"])
    return Run(name, experiment, state, reason, result, folder / name)


def _result(found: dict[str, Any]) -> Result:
    return Result(
        experiment=_text(found["experiment"]),
        dataset=_text(found["dataset"]),
        device=_text(found["device"]),
        settings=dict(found["settings"]),
        seeds=[_whole(seed) for seed in found["seeds"]],
        rows=[_row(row) for row in found["rows"]],
        claims=[_claim(claim) for claim in found["claims"]],
        curves=_finite_or_nan(dict(found["curves"])),
        timings=dict(found["timings"]),
        provenance=_provenance(dict(found["provenance"])),
    )


def _row(found: dict[str, Any]) -> Row:
    metrics = {_text(name): Metric([_number(v) for v in each["values"]]) for name, each in found["metrics"].items()}
    if not all(metric.values for metric in metrics.values()):
        raise ValueError("a metric without values")
    return Row(_text(found["name"]), metrics)


def _claim(found: dict[str, Any]) -> ClaimResult:
    claim = ClaimResult(**found)
    if claim.verdict not in VERDICTS:
        raise ValueError(f"verdict '{claim.verdict}'")
    for text in (claim.id, claim.statement, claim.where, claim.note):
        _text(text)
    for value in (claim.claimed, claim.measured):
        _number(None if isinstance(value, str) else value)
    return claim


def _provenance(found: dict[str, Any]) -> dict[str, Any]:
    for name in ("seconds", "peak_memory_bytes"):
        if not (found.get(name) is None or (is_number(found[name]) and 0 <= found[name] < MOST)):
            raise ValueError(f"{name} of its provenance are {found[name]!r}")
    if found.get("started") is not None:
        _when(found["started"])
    return found


def _when(stamp: Any) -> str:
    """A point in time that can be told in any time zone."""
    if not 2 <= datetime.fromisoformat(_text(stamp)).year <= 9998:
        raise ValueError(f"the date {stamp}")
    return str(stamp)


def _finite_or_nan(value: Any) -> Any:
    """None becomes NaN, as it was before it was written."""
    if isinstance(value, dict):
        return {key: _finite_or_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite_or_nan(item) for item in value]
    return math.nan if value is None else value


def _number(value: Any) -> float:
    if value is not None and not (is_number(value) and abs(value) <= LARGEST):
        raise ValueError(f"{value!r} where a number belongs")
    return math.nan if value is None else float(value)


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < MOST:
        raise ValueError(f"the seed {value!r}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} where a text belongs")
    return value
