"""`claims.json`: every claim of every run of `gpunet reproduce`. Its schema is public and stable.

    {"schema": 2, "gpunet": version, "quick": bool, "updated": ISO time, "complete": bool, "counts": COUNTS,
     "here": COUNTS, "runs": [RUN, …], "claims": [CLAIM, …]}

COUNTS: how many claims have each verdict, {"reproduced", "exceeded", "not reproduced", "inconclusive", "not tested"};
"here" counts those that were judged on other data or settings than the document's, which "counts" leaves out.
RUN: the fields of `Entry`, in their order.
CLAIM: {"experiment", "document", "run", "id", "statement", "where", "claimed", "measured", "verdict", "note", "here"}.
"claims" holds those of the finished runs; runs and claims stand in the order of the plan.

Claims and counts are never read: they are judged anew from the kept result.json files whenever this file is opened.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta
from msgspec.structs import asdict

import gpunet
from gpunet.errors import DataError, GpunetError, OutputError
from gpunet.experiments.claims import ClaimResult, counted, judge, summed
from gpunet.experiments.framework import RunRequest
from gpunet.experiments.result import Result, Seed, check_time
from gpunet.experiments.structs import Struct, convert, field
from gpunet.files import RESULT, check_replaceable, write_or_keep
from gpunet.fingerprint import digest
from gpunet.limits import DAMAGE, plain, read_json
from gpunet.report.drawing import withdraw

NAME, SCHEMA = "claims.json", 2
PAGE = "report.html"  # which `report.page` writes beside it
LONGEST = 10**9  # seconds of a run, and its pieces
FileName = Annotated[str, Meta(pattern=r"^[^./\\][^/\\]*$", max_length=200)]  # which leads to no other folder
State = Literal["finished", "failed", "skipped", "waiting"]


class Entry(Struct, forbid_unknown_fields=True):
    """One run.

    `name` is its folder, `result` its result.json as a path from claims.json's own folder, `sha256` that file's,
    `figures` the names of the PNG files beside it, none until they are drawn. `state` is "finished", "failed",
    "skipped" (its data is missing) or "waiting" (not run, or not to its end); `reason` is a line for failed and
    skipped, else null. `asked` is what the run was asked to do, `digest` stands for it: while it stays the same a
    finished run is kept. Of a run that is not finished all after `reason` is null or empty: a result.json that lies in
    its folder is of an earlier run.
    """

    name: FileName
    experiment: str
    document: str
    state: State = "waiting"
    reason: str | None = None
    dataset: str | None = None
    device: str | None = None
    seeds: list[Seed] = []
    settings: dict[str, Any] = {}
    digest: str | None = None
    asked: dict[str, Any] | None = None
    started: str | None = None
    seconds: Annotated[float, Meta(ge=0, lt=LONGEST)] | None = None
    pieces: Annotated[int, Meta(ge=0, lt=LONGEST)] | None = None
    figures: list[FileName] = []
    result: str | None = None
    sha256: str | None = None
    counts: Any = field(default_factory=lambda: counted([]))
    here: Any = field(default_factory=lambda: counted([]))
    provenance: dict[str, Any] = {}

    def __post_init__(self) -> None:
        lacks = [name for name, value in asdict(self).items() if value is None and name != "reason"]
        if self.state == "finished" and (lacks or self.result != f"{self.name}/{RESULT}"):
            raise ValueError(f"a run is finished without {', '.join(lacks) or 'its own result'}")
        if self.state != "finished" and self.asked is not None:
            raise ValueError(f"a run is {self.state}, and yet has what it was asked")
        if self.started is not None:
            check_time(self.started)


class Document(Struct):
    """What is read of it; `quick`: of a reproduction with --quick, `updated`: when it was written."""

    quick: bool
    updated: str
    runs: list[Entry]

    def __post_init__(self) -> None:
        check_time(self.updated)
        if len({entry.name for entry in self.runs}) < len(self.runs):
            raise ValueError("two runs of one name")


def read(path: Path) -> Document:
    """A claims.json; raises OSError where it cannot be read, and one of DAMAGE where it is none of this schema."""
    found = read_json(path)
    if found["schema"] != SCHEMA:
        raise ValueError(f"its schema is {found['schema']!r}, this version reads {SCHEMA}")
    return convert(found, Document)


def finished(folder: Path) -> tuple[int, int]:
    """How many runs of a folder's claims.json are finished, and how many there are; 0 of 0 where there is none yet."""
    try:
        states = [run.state for run in read(folder / NAME).runs]
    except (OSError, *DAMAGE):
        return 0, 0
    return states.count("finished"), len(states)


# -- as `gpunet reproduce` keeps it: read once, written after each run -------------------------------------------------


def entry_of(run: RunRequest, **known: Any) -> Entry:
    """What is known of a run; without more than that, of one that has not been run yet."""
    return Entry(run.folder, run.experiment.name, run.experiment.paper.cited, **known)


class ClaimsFile:
    """`claims.json` of one folder; every change is written at once, in one piece.

    Raises OutputError where the folder holds a claims.json or a result.json that is not ours, or of the other mode
    (`quick`); fresh: such a one is replaced, unless it is no plain file.
    """

    def __init__(self, folder: Path, plan: Sequence[RunRequest], quick: bool, fresh: bool = False) -> None:
        self.folder, self.quick, self.path = folder, quick, folder / NAME
        self.text = ""  # what was written last
        self.at: Path | None = None  # and where that lies, None where nowhere
        self.changed: dict[str, str] = {}  # runs that are finished no more, and why
        self.unjudged: dict[str, str] = {}  # runs whose claims could not be judged, and why
        self._plan = {run.folder: run for run in plan}
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
                claims = judge(self._plan[name].experiment, result)
            except Exception as error:  # a mistake in what judges is no reason to lose what was measured
                self.unjudged[name] = cause(error)
        entry.counts, entry.here = counted(claims), counted(claims, here=True)
        self._claims[name], self.runs[name] = claims, entry

    def set(self, run: RunRequest, **known: Any) -> None:
        """From now on this is known of a run, see `entry_of`; what was known before no longer holds, nor the page."""
        withdraw(self.folder / PAGE)
        self._enter(entry_of(run, **known))
        self.write()

    def finish(self, run: RunRequest, result: Result, asked: dict[str, Any], pieces: int) -> None:
        """The run is finished and its result is written, its figures not yet."""
        found = result.to_json()
        known = {key: found[key] for key in ("dataset", "device", "seeds", "settings", "provenance")}
        known |= {key: found["provenance"][key] for key in ("started", "seconds")}
        path = f"{run.folder}/{RESULT}"
        self.set(
            run, state="finished", digest=digest(json.dumps(asked, sort_keys=True)), asked=asked, pieces=pieces,
            result=path, sha256=_sha256(self.folder / path), **known,
        )  # fmt: skip

    def drawn(self, run: RunRequest, figures: Sequence[Path]) -> None:
        """These figures of a finished run are written."""
        self.runs[run.folder].figures = [path.name for path in figures]
        self.write()

    def document(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        runs = self.runs.values()
        document: dict[str, Any] = plain({
            "schema": SCHEMA, "gpunet": gpunet.__version__, "quick": self.quick,
            "updated": datetime.now(UTC).isoformat(timespec="seconds"),
            "complete": all(entry.state == "finished" for entry in runs),
            "counts": summed(entry.counts for entry in runs), "here": summed(entry.here for entry in runs),
            "runs": [asdict(entry) for entry in runs],
            "claims": [
                {"experiment": entry.experiment, "document": entry.document, "run": name, **dataclasses.asdict(claim)}
                for name, entry in self.runs.items() for claim in self._claims[name]
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


def cause(error: Exception) -> str:
    """An error; of one that nobody foresaw its kind, too."""
    return str(error) if isinstance(error, GpunetError) else f"unexpected {type(error).__name__}: {error}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
