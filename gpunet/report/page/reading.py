"""What the page is made of: the runs of a folder, and each run's result, checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpunet.errors import DataError
from gpunet.experiments.result import RESULT, Result, damaged, text, when
from gpunet.limits import DAMAGE, read_json

CLAIMS, SCHEMA = "claims.json", 2
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

    @property
    def dataset(self) -> str:
        """The name of its data, as far as it is known."""
        return self.result.dataset if self.result else self.name.removeprefix(f"{self.experiment}-")


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
    results = [Result.read(path / RESULT) for path in there]
    runs = [
        Run(path.resolve().name, result.experiment, "finished", "", result, path)
        for path, result in zip(there, results, strict=True)
    ]
    return Reproduction(None, None, tuple(runs))


def _reproduction(folder: Path) -> Reproduction:
    """Of claims.json only which runs there are is read: verdicts are derived from the results, as its own are."""
    path = folder / CLAIMS
    try:
        held = read_json(path)
        if held["schema"] != SCHEMA:
            raise ValueError(f"its schema is {held['schema']!r}, this version reads {SCHEMA}")
        runs = [_entry(folder, entry) for entry in held["runs"]]
        if not isinstance(held["quick"], bool):
            raise TypeError(f"quick is {held['quick']!r}")
        return Reproduction(held["quick"], when(held["updated"]), tuple(runs))
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror}; run `gpunet reproduce` again") from error
    except DataError:
        raise
    except DAMAGE as error:
        raise damaged(path, error) from error


def _entry(folder: Path, entry: dict[str, Any]) -> Run:
    name, state = text(entry["name"]), text(entry["state"])
    if Path(name).name != name or state not in STATES:
        raise ValueError(f"a run is named '{name}' and is '{state}'")
    result, reason = None, text(entry["reason"] or "")
    if state == "finished":
        if (folder / name / RESULT).is_file():
            result = Result.read(folder / name / RESULT)
        else:
            state, reason = "missing", f"{name}/{RESULT} is not there any more: run it again"
    experiment = result.experiment if result else text(entry["experiment"])
    return Run(name, experiment, state, reason, result, folder / name)
