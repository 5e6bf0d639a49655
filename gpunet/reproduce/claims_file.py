"""`claims.json`: every claim of every run of `gpunet reproduce`. Its schema is public and stable.

    {"schema": 2, "gpunet": version, "quick": bool, "updated": ISO time, "complete": bool, "counts": COUNTS,
     "here": COUNTS, "runs": [RUN, …], "claims": [CLAIM, …]}

COUNTS: how many claims have each verdict, {"reproduced", "exceeded", "not reproduced", "inconclusive", "not tested"};
"here" counts those that were judged on other data or settings than the document's, which "counts" leaves out.
RUN: {"name", "experiment", "document", "state", "reason", "dataset", "device", "seeds", "settings", "digest", "asked",
"started", "seconds", "pieces", "figures", "result", "sha256", "counts", "here", "provenance"}. `name` is the run's
folder, `result` its result.json as a path from claims.json's own folder, `sha256` that file's, `figures` the names of
the PNG files beside it, none until they are drawn. `state` is "finished", "failed", "skipped" (its data is missing) or
"waiting" (not run, or not to its end); `reason` is a line for failed and skipped, else null. `asked` is what the run
was asked to do, `digest` stands for it: while it stays the same a finished run is kept. Of a run that is not finished
all after `reason` is null or empty: a result.json that lies in its folder is of an earlier run.
CLAIM: {"experiment", "document", "run", "id", "statement", "where", "claimed", "measured", "verdict", "note", "here"}.
"claims" holds those of the finished runs; runs and claims stand in the order of the plan.

Claims and counts are never read: they are judged anew from the kept result.json files whenever this file is opened.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gpunet
from gpunet.checks import is_number
from gpunet.errors import DataError, OutputError
from gpunet.experiments.claims import VERDICTS, ClaimResult, counted, judge
from gpunet.experiments.framework import Done
from gpunet.experiments.result import RESULT, Result, when
from gpunet.files import check_replaceable, write_or_keep
from gpunet.limits import DAMAGE, read_json
from gpunet.reproduce.plan import PlannedRun

NAME, SCHEMA = "claims.json", 2
STATES = ("finished", "failed", "skipped", "waiting")
KINDS = {"name": str, "experiment": str, "document": str, "seeds": list, "settings": dict, "figures": list,
         "provenance": dict}  # fmt: skip
TEXTS = ("dataset", "device", "digest", "started", "result", "sha256")  # of a run that is finished
LONGEST = 1e9  # seconds of a run, and its pieces
Entry = dict[str, Any]


def waiting(run: PlannedRun) -> Entry:
    """The entry of a run that has not been run yet."""
    return {
        "name": run.name, "experiment": run.x.name, "document": run.x.paper.cited, "state": "waiting", "reason": None,
        "dataset": None, "device": None, "seeds": [], "settings": {}, "digest": None, "asked": None, "started": None,
        "seconds": None, "pieces": None, "figures": [], "result": None, "sha256": None, "counts": counted([]),
        "here": counted([]), "provenance": {},
    }  # fmt: skip


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
        self._runs = {name: waiting(run) for name, run in self._plan.items()}
        self._claims: dict[str, list[ClaimResult]] = {name: [] for name in self._plan}
        check_replaceable(self.path)
        passed = (OutputError,) if fresh else ()
        with contextlib.suppress(*passed):
            for name, entry in self._read().items():
                with contextlib.suppress(*passed):
                    self._take(name, entry)

    def _read(self) -> dict[str, Entry]:
        """The entries of the planned runs, by name."""
        keys = waiting(next(iter(self._plan.values()))).keys()
        try:
            held = read_json(self.path)
            whole = held["schema"] == SCHEMA and all(_whole(run, keys) for run in held["runs"])
            found = {run["name"]: run for run in held["runs"]}
            whole, other = whole and len(found) == len(held["runs"]), held["quick"] is not self.quick
        except FileNotFoundError:
            return {}
        except (OSError, *DAMAGE):
            whole = other = False
        if not whole or other:
            kinds = ("with --quick", "without --quick")
            why = f"{self.folder} holds a reproduction {kinds[self.quick]}, this is one {kinds[not self.quick]}"
            if not whole:
                why = f"{self.path} is not what this version of `gpunet reproduce` writes"
            raise OutputError(f"{why}: choose another folder with --out, or begin again in this one with --fresh")
        return {name: found[name] for name in self._plan if name in found}

    def _take(self, name: str, entry: Entry) -> None:
        """Enter what was read of a run."""
        if entry["state"] == "finished" and not self._same(entry):
            self.changed[name] = "its files changed"
            entry = waiting(self._plan[name])
        try:
            self._enter(name, entry)
        except DataError as error:
            raise OutputError(f"{error}; or begin again in this folder with --fresh") from error

    def _same(self, entry: Entry) -> bool:
        """Whether the files of a finished run are there, and its result the one that it wrote."""
        try:
            same = _sha256(self.folder / entry["result"]) == entry["sha256"]
        except OSError:
            return False
        return same and all((self.folder / entry["name"] / figure).is_file() for figure in entry["figures"])

    def _enter(self, name: str, entry: Entry) -> None:
        """Enter what is known of a run, and judge its claims."""
        claims: list[ClaimResult] = []
        self.unjudged.pop(name, None)
        if entry["state"] == "finished":
            result = Result.read(self.folder / name / RESULT)
            try:
                claims = judge(self._plan[name].x, result)
            except Exception as error:  # a mistake in what judges is no reason to lose what was measured
                self.unjudged[name] = f"unexpected {type(error).__name__}: {error}"
        self._claims[name] = claims
        self._runs[name] = entry | {"counts": counted(claims), "here": counted(claims, here=True)}

    def entry(self, name: str) -> Entry:
        """What is known of a run."""
        return self._runs[name]

    def begin(self, run: PlannedRun) -> None:
        """The run is about to be run: what was known of it no longer holds."""
        self._set(waiting(run))

    def give_up(self, run: PlannedRun, state: str, reason: str) -> None:
        """The run failed, or was skipped."""
        self._set(waiting(run) | {"state": state, "reason": " ".join(reason.split())})

    def finish(self, run: PlannedRun, done: Done, asked: Mapping[str, Any], pieces: int) -> None:
        """The run is finished and its result is written, its figures not yet."""
        result = json.loads(done.result.text())
        entry = waiting(run) | {key: result[key] for key in ("dataset", "device", "seeds", "settings", "provenance")}
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        entry |= {key: result["provenance"][key] for key in ("started", "seconds")}
        entry |= {
            "state": "finished", "digest": digest[:16], "asked": dict(asked), "pieces": pieces,
            "result": f"{run.name}/{RESULT}", "sha256": _sha256(self.folder / run.name / RESULT),
        }  # fmt: skip
        self._set(entry)

    def drawn(self, run: PlannedRun, figures: Sequence[Path]) -> None:
        """These figures of a finished run are written."""
        self._runs[run.name]["figures"] = [path.name for path in figures]
        self.write()

    def _set(self, entry: Entry) -> None:
        self._enter(entry["name"], entry)
        self.write()

    def document(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        runs = list(self._runs.values())
        return {
            "schema": SCHEMA, "gpunet": gpunet.__version__, "quick": self.quick,
            "updated": datetime.now(UTC).isoformat(timespec="seconds"),
            "complete": all(entry["state"] == "finished" for entry in runs),
            "counts": summed(entry["counts"] for entry in runs), "here": summed(entry["here"] for entry in runs),
            "runs": runs,
            "claims": [_told(entry, claim) for entry in runs for claim in self._claims[entry["name"]]],
        }  # fmt: skip

    def write(self) -> None:
        """Write `claims.json`; OutputError where that cannot be, see `files.write_or_keep`."""
        self.text = json.dumps(self.document(), indent=1, allow_nan=False) + "\n"
        try:
            write_or_keep(self.path, self.text)
        except OutputError as error:
            self.at = error.kept
            raise
        self.at = self.path


def _whole(run: Any, keys: Set[str]) -> bool:
    """Whether an entry is one that `ClaimsFile` writes: what is not may not be taken for a run that is finished."""
    done, fine = run["state"] == "finished", run.keys() == keys and run["state"] in STATES
    fine = fine and all(isinstance(run[name], kind) for name, kind in KINDS.items())
    fine = fine and all(isinstance(run[name], str if done else str | None) for name in TEXTS)
    if not fine or Path(run["name"]).name != run["name"]:
        return False
    if not done:
        return run["asked"] is None
    when(run["started"])
    return (
        isinstance(run["asked"], dict)
        and is_number(run["seconds"]) and 0 <= run["seconds"] < LONGEST
        and type(run["pieces"]) is int and 0 <= run["pieces"] < LONGEST
        and all(isinstance(name, str) and Path(name).name == name for name in run["figures"])
        and run["result"] == f"{run['name']}/{RESULT}"
    )  # fmt: skip


def _told(entry: Entry, claim: ClaimResult) -> dict[str, Any]:
    """A claim of a run, as JSON has it."""
    told = {"experiment": entry["experiment"], "document": entry["document"], "run": entry["name"], **asdict(claim)}
    if isinstance(claim.measured, float) and not math.isfinite(claim.measured):
        told["measured"] = None
    return told


def summed(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The counts of several runs together."""
    every = list(counts)
    return {verdict: sum(each[verdict] for each in every) for verdict in VERDICTS}


def finished(folder: Path) -> tuple[int, int]:
    """How many runs of a folder's claims.json are finished, and how many there are; 0 of 0 where there is none yet."""
    try:
        states = [run["state"] for run in read_json(folder / NAME)["runs"]]
    except (OSError, *DAMAGE):
        return 0, 0
    return states.count("finished"), len(states)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
