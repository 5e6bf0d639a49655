"""`claims.json` as `gpunet reproduce` keeps it, see `report.claims_json`: read once, written after each run."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

import gpunet
from gpunet.errors import DataError, GpunetError, OutputError
from gpunet.experiments.claims import VERDICTS, ClaimResult, counted, judge
from gpunet.experiments.framework import Done
from gpunet.experiments.result import RESULT, Result, plain
from gpunet.files import check_replaceable, write_or_keep
from gpunet.fingerprint import digest
from gpunet.limits import DAMAGE
from gpunet.report.claims_json import NAME, SCHEMA, Entry, read
from gpunet.reproduce.plan import PlannedRun


def entry_of(run: PlannedRun, **known: Any) -> Entry:
    """What is known of a run; without more than that, of one that has not been run yet."""
    return Entry(run.name, run.x.name, run.x.paper.cited, **known)


class ClaimsFile:
    """`claims.json` of one folder; every change is written at once, in one piece.

    Raises OutputError where the folder holds a claims.json or a result.json that is not ours, or of the other mode
    (`quick`); fresh: such a one is replaced, unless it is no plain file.
    """

    def __init__(self, folder: Path, plan: Sequence[PlannedRun], quick: bool, fresh: bool = False) -> None:
        self.folder, self.quick, self.path = folder, quick, folder / NAME
        self.text = ""  # what was written last
        self.at: Path | None = None  # and where that lies, None where nowhere
        self.changed: dict[str, str] = {}  # runs that are finished no more, and why
        self.unjudged: dict[str, str] = {}  # runs whose claims could not be judged, and why
        self._plan = {run.name: run for run in plan}
        self.runs = {name: entry_of(run) for name, run in self._plan.items()}
        self._claims: dict[str, list[ClaimResult]] = {name: [] for name in self._plan}
        check_replaceable(self.path)
        passed = (OutputError,) if fresh else ()
        with contextlib.suppress(*passed):
            for entry in self._read():
                with contextlib.suppress(*passed):
                    self._take(entry)

    def _read(self) -> list[Entry]:
        """The entries of the planned runs."""
        kinds = ("with --quick", "without --quick")
        try:
            held = read(self.path)
        except FileNotFoundError:
            return []
        except (OSError, *DAMAGE):
            why = f"{self.path} is not what this version of `gpunet reproduce` writes"
        else:
            if held.quick is self.quick:
                return [entry for entry in held.runs if entry.name in self._plan]
            why = f"{self.folder} holds a reproduction {kinds[self.quick]}, this is one {kinds[not self.quick]}"
        raise OutputError(f"{why}: choose another folder with --out, or begin again in this one with --fresh")

    def _take(self, entry: Entry) -> None:
        """Enter what was read of a run."""
        if entry.state == "finished" and not self._same(entry):
            self.changed[entry.name] = "its files changed"
            entry = entry_of(self._plan[entry.name])
        try:
            self._enter(entry)
        except DataError as error:
            raise OutputError(f"{error}; or begin again in this folder with --fresh") from error

    def _same(self, entry: Entry) -> bool:
        """Whether the files of a finished run are there, and its result the one that it wrote."""
        folder = self.folder / entry.name
        try:
            same = _sha256(folder / RESULT) == entry.sha256
            return same and all((folder / figure).is_file() for figure in entry.figures)
        except OSError:
            return False

    def _enter(self, entry: Entry) -> None:
        """Enter what is known of a run, and judge its claims."""
        name = entry.name
        claims: list[ClaimResult] = []
        self.unjudged.pop(name, None)
        if entry.state == "finished":
            result = Result.read(self.folder / name / RESULT)
            try:
                claims = judge(self._plan[name].x, result)
            except Exception as error:  # a mistake in what judges is no reason to lose what was measured
                self.unjudged[name] = cause(error)
        entry.counts, entry.here = counted(claims), counted(claims, here=True)
        self._claims[name], self.runs[name] = claims, entry

    def set(self, run: PlannedRun, **known: Any) -> None:
        """From now on this is known of a run, see `entry_of`: what was known before no longer holds."""
        self._enter(entry_of(run, **known))
        self.write()

    def finish(self, run: PlannedRun, done: Done, asked: dict[str, Any], pieces: int) -> None:
        """The run is finished and its result is written, its figures not yet."""
        result = done.result.to_json()
        known = {key: result[key] for key in ("dataset", "device", "seeds", "settings", "provenance")}
        known |= {key: result["provenance"][key] for key in ("started", "seconds")}
        path = f"{run.name}/{RESULT}"
        self.set(
            run, state="finished", digest=digest(json.dumps(asked, sort_keys=True)), asked=asked, pieces=pieces,
            result=path, sha256=_sha256(self.folder / path), **known,
        )  # fmt: skip

    def drawn(self, run: PlannedRun, figures: Sequence[Path]) -> None:
        """These figures of a finished run are written."""
        self.runs[run.name].figures = [path.name for path in figures]
        self.write()

    def document(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        runs = self.runs.values()
        document: dict[str, Any] = plain({
            "schema": SCHEMA, "gpunet": gpunet.__version__, "quick": self.quick,
            "updated": datetime.now(UTC).isoformat(timespec="seconds"),
            "complete": all(entry.state == "finished" for entry in runs),
            "counts": summed(entry.counts for entry in runs), "here": summed(entry.here for entry in runs),
            "runs": [msgspec.structs.asdict(entry) for entry in runs],
            "claims": [
                {"experiment": entry.experiment, "document": entry.document, "run": entry.name, **asdict(claim)}
                for entry in runs for claim in self._claims[entry.name]
            ],
        })  # fmt: skip
        return document

    def write(self) -> None:
        """Write `claims.json`; OutputError where that cannot be, see `files.write_or_keep`."""
        self.text = json.dumps(self.document(), indent=1, allow_nan=False) + "\n"
        try:
            write_or_keep(self.path, self.text)
        except OutputError as error:
            self.at = error.kept
            raise
        self.at = self.path


def summed(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The counts of several runs together."""
    every = list(counts)
    return {verdict: sum(each[verdict] for each in every) for verdict in VERDICTS}


def cause(error: Exception) -> str:
    """An error; of one that nobody foresaw its kind, too."""
    return str(error) if isinstance(error, GpunetError) else f"unexpected {type(error).__name__}: {error}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
