"""What the page is made of: the runs of a folder, and each run's result, checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gpunet.errors import DataError
from gpunet.experiments.result import RESULT, Result, intact
from gpunet.report import claims_json

STATES = {"failed": "failed", "skipped": "was skipped", "waiting": "has not been run to its end yet"}


@dataclass(frozen=True)
class Run:
    """One run and its folder; of one without a result `trouble` says why."""

    name: str
    experiment: str
    folder: Path
    result: Result | None = None
    trouble: str = ""

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
    path = folder / claims_json.NAME
    if path.is_file():
        with intact(path, "run `gpunet reproduce` again"):
            held = claims_json.read(path)
        return Reproduction(held.quick, held.updated, tuple(_run(folder / entry.name, entry) for entry in held.runs))
    there = [folder] if (folder / RESULT).is_file() else sorted(path.parent for path in folder.glob(f"*/{RESULT}"))
    if not there:
        raise DataError(
            f"'{folder}' holds neither {path.name} nor {RESULT}: expected a folder of `gpunet reproduce` or "
            "`gpunet run`"
        )
    return Reproduction(None, None, tuple(_finished(path, path.resolve().name) for path in there))


def _run(folder: Path, entry: claims_json.Entry) -> Run:
    """Verdicts are derived from its result, as claims.json's own are."""
    if entry.state != "finished":
        trouble = STATES[entry.state] + (f": {entry.reason}" if entry.reason else ".")
    elif not (folder / RESULT).is_file():
        trouble = f"has lost its result: {entry.result} is not there any more: run it again"
    else:
        return _finished(folder, entry.name)
    return Run(entry.name, entry.experiment, folder, trouble=trouble)


def _finished(folder: Path, name: str) -> Run:
    result = Result.read(folder / RESULT)
    return Run(name, result.experiment, folder, result)
