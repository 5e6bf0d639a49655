"""`claims.json`: every claim of every run of `gpunet reproduce`. Its schema is public and stable.

    {"schema": 1, "gpunet": version, "quick": bool, "updated": ISO time, "complete": bool, "counts": COUNTS,
     "runs": [RUN, …], "claims": [CLAIM, …]}

COUNTS: how many claims have each verdict, {"reproduced", "exceeded", "not reproduced", "not tested"}; of all runs
together a claim that one of them cannot test counts where another of its experiment can, and else once.
RUN: {"name", "experiment", "document", "state", "reason", "dataset", "device", "seeds", "settings", "digest", "asked",
"started", "seconds", "pieces", "figures", "result", "sha256", "counts", "provenance"}. `name` is the run's folder,
`result` its result.json as a path from claims.json's own folder, `sha256` that file's, `figures` the names of the PNG
files beside it, none until they are drawn. `state` is "finished", "failed", "skipped" (its data is missing) or
"waiting" (not run, or not to its end); `reason` is a line for failed and skipped, else null. `asked` is what the run
was asked to do, `digest` stands for it: while it stays the same a finished run is kept. Of a run that is not finished
all after `reason` is null or empty: a result.json that lies in its folder is of an earlier run.
CLAIM: {"experiment", "document", "run", "id", "statement", "where", "claimed", "measured", "verdict", "note"}, as in
result.json. "claims" holds those of the finished runs; runs and claims stand in the order of the plan.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence, Set
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gpunet
from gpunet.checks import is_number
from gpunet.errors import OutputError
from gpunet.experiments.claims import told_once
from gpunet.experiments.registry import experiment
from gpunet.experiments.result import VERDICTS
from gpunet.experiments.work import Done
from gpunet.files import check_replaceable, write_or_keep
from gpunet.limits import DAMAGE, read_json
from gpunet.reproduce.plan import Run

NAME, SCHEMA = "claims.json", 1
STATES = ("finished", "failed", "skipped", "waiting")
KINDS = {
    "name": str, "experiment": str, "document": str, "seeds": list, "settings": dict, "figures": list, "counts": dict,
    "provenance": dict,
}  # fmt: skip
TEXTS = ("dataset", "device", "digest", "started", "result", "sha256")  # of a run that is finished
LONGEST = 1e9  # seconds of a run, and its pieces
Held = dict[str, tuple[dict[str, Any], list[dict[str, Any]]]]  # a run's entry and claims, by its name


def counted(claims: Sequence[dict[str, Any]]) -> dict[str, int]:
    """How many claims have each verdict."""
    return {verdict: sum(claim["verdict"] == verdict for claim in claims) for verdict in VERDICTS}


def counted_once(claims: Sequence[dict[str, Any]]) -> dict[str, int]:
    """`counted` for the claims of all runs together."""
    counts = told_once([(claim["experiment"], claim["id"], claim["verdict"]) for claim in claims])
    return counted([claim for claim, counts_here in zip(claims, counts, strict=True) if counts_here])


def waiting(run: Run) -> dict[str, Any]:
    """The entry of a run that has not been run yet."""
    entry = experiment(run.experiment)
    return {
        "name": run.name, "experiment": run.experiment, "document": entry.document, "state": "waiting", "reason": None,
        "dataset": None, "device": None, "seeds": [], "settings": {}, "digest": None, "asked": None, "started": None,
        "seconds": None, "pieces": None, "figures": [], "result": None, "sha256": None, "counts": counted([]),
        "provenance": {},
    }  # fmt: skip


def digest_of(asked: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits that stand for what a run was asked to do."""
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


class Book:
    """`claims.json` of one folder; every change is written at once, in one piece.

    Raises OutputError where the folder holds a claims.json that is not ours, or one of the other mode (`quick`);
    fresh: such a one is replaced, unless it is no plain file.
    """

    def __init__(self, folder: Path, plan: Sequence[Run], quick: bool, fresh: bool = False) -> None:
        self.folder, self.quick = folder, quick
        self.text = ""  # what was written last
        self.at: Path | None = None  # and where that lies, None where nowhere
        check_replaceable(self.path)
        held: Held = {}
        with contextlib.suppress(OutputError) if fresh else contextlib.nullcontext():
            held = self._read(waiting(plan[0]).keys())
        self.runs: Held = {run.name: held.get(run.name, (waiting(run), [])) for run in plan}

    def _read(self, keys: Set[str]) -> Held:
        try:
            held = read_json(self.path)
            found = {run["name"]: (run, [c for c in held["claims"] if c["run"] == run["name"]]) for run in held["runs"]}
            other = held["quick"] is not self.quick
            whole = held["schema"] == SCHEMA and all(_whole(run, keys) for run in held["runs"])
            whole = whole and len(found) == len(held["runs"]) and all(map(_whole_claim, held["claims"]))
        except FileNotFoundError:
            return {}
        except (OSError, *DAMAGE):
            whole = other = False
        if not whole:
            raise OutputError(
                f"{self.path} is not what this version of `gpunet reproduce` writes: choose another folder with --out, "
                "or begin again in this one with --fresh"
            )
        if other:
            kinds = ("with --quick", "without --quick")
            raise OutputError(
                f"{self.folder} holds a reproduction {kinds[self.quick]}, this is one {kinds[not self.quick]}: choose "
                "another folder with --out, or begin again in this one with --fresh"
            )
        return found

    @property
    def path(self) -> Path:
        """Where it is written."""
        return self.folder / NAME

    def entry(self, name: str) -> dict[str, Any]:
        """What is known of a run."""
        return self.runs[name][0]

    def claims(self, name: str) -> list[dict[str, Any]]:
        """The claims of a run."""
        return self.runs[name][1]

    def intact(self, name: str) -> bool:
        """Whether a run is finished and its files are those that it wrote."""
        entry = self.entry(name)
        if entry["state"] != "finished":
            return False
        try:
            result = self.folder / entry["result"]
            same = result.is_file() and _sha256(result) == entry["sha256"]
        except OSError:
            return False
        return same and all((self.folder / name / figure).is_file() for figure in entry["figures"])

    def begin(self, run: Run) -> None:
        """The run is about to be run: what was known of it no longer holds."""
        self._set(waiting(run), [])

    def give_up(self, run: Run, state: str, reason: str) -> None:
        """The run failed, or was skipped."""
        self._set(waiting(run) | {"state": state, "reason": " ".join(reason.split())}, [])

    def finish(self, run: Run, done: Done, asked: dict[str, Any], pieces: int) -> None:
        """The run is finished and its result is written, and so are these figures."""
        assert done.path
        result = done.result.to_json()
        begins = {"experiment": run.experiment, "document": experiment(run.experiment).document, "run": run.name}
        claims = [begins | claim for claim in result["claims"]]
        entry = waiting(run) | {key: result[key] for key in ("dataset", "device", "seeds", "settings", "provenance")}
        entry |= {
            "state": "finished", "digest": digest_of(asked), "asked": asked, "pieces": pieces,
            "started": result["provenance"]["started"], "seconds": result["provenance"]["seconds"],
            "figures": [path.name for path in done.figures], "result": f"{run.name}/{done.path.name}",
            "sha256": _sha256(done.path), "counts": counted(claims),
        }  # fmt: skip
        self._set(entry, claims)

    def drawn(self, run: Run, figures: Sequence[Path]) -> None:
        """These figures of a finished run are written."""
        self._set(self.entry(run.name) | {"figures": [path.name for path in figures]}, self.claims(run.name))

    def _set(self, entry: dict[str, Any], claims: list[dict[str, Any]]) -> None:
        self.runs[entry["name"]] = entry, claims
        self.write()

    def document(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        claims = [claim for _, own in self.runs.values() for claim in own]
        return {
            "schema": SCHEMA, "gpunet": gpunet.__version__, "quick": self.quick,
            "updated": datetime.now(UTC).isoformat(timespec="seconds"),
            "complete": all(entry["state"] == "finished" for entry, _ in self.runs.values()),
            "counts": counted_once(claims), "runs": [entry for entry, _ in self.runs.values()], "claims": claims,
        }  # fmt: skip

    def write(self) -> Path:
        """Write `claims.json`; OutputError where that cannot be, see `files.write_or_keep`."""
        self.text = json.dumps(self.document(), indent=1, allow_nan=False) + "\n"
        try:
            write_or_keep(self.path, self.text)
        except OutputError as error:
            self.at = error.kept
            raise
        self.at = self.path
        return self.path


def _whole(run: Any, keys: Set[str]) -> bool:
    """Whether an entry is one that `Book` writes: what is not may not be taken for a run that is finished."""
    done, fine = run["state"] == "finished", run.keys() == keys and run["state"] in STATES
    fine = fine and all(isinstance(run[name], kind) for name, kind in KINDS.items())
    fine = fine and all(isinstance(run[name], str if done else str | None) for name in TEXTS)
    if not fine or Path(run["name"]).name != run["name"]:
        return False
    if run["counts"].keys() != set(VERDICTS) or any(type(count) is not int for count in run["counts"].values()):
        return False
    if not done:
        return run["asked"] is None
    datetime.fromisoformat(run["started"])
    return (
        isinstance(run["asked"], dict)
        and is_number(run["seconds"]) and 0 <= run["seconds"] < LONGEST
        and type(run["pieces"]) is int and 0 <= run["pieces"] < LONGEST
        and all(isinstance(name, str) and Path(name).name == name for name in run["figures"])
        and run["result"].startswith(f"{run['name']}/") and ".." not in run["result"]
    )  # fmt: skip


def _whole_claim(claim: Any) -> bool:
    return all(isinstance(claim[name], str) for name in ("experiment", "id", "run")) and claim["verdict"] in VERDICTS


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
