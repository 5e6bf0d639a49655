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

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from msgspec.structs import asdict

from gpunet.experiments.claims import counted
from gpunet.experiments.result import RESULT, Seed, check_time
from gpunet.limits import DAMAGE, read_json

NAME, SCHEMA = "claims.json", 2
LONGEST = 10**9  # seconds of a run, and its pieces
FileName = Annotated[str, Meta(pattern=r"^[^./\\][^/\\]*$", max_length=200)]  # which leads to no other folder
State = Literal["finished", "failed", "skipped", "waiting"]


class Entry(msgspec.Struct, forbid_unknown_fields=True):
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
    counts: Any = msgspec.field(default_factory=lambda: counted([]))
    here: Any = msgspec.field(default_factory=lambda: counted([]))
    provenance: dict[str, Any] = {}

    def __post_init__(self) -> None:
        lacks = [name for name, value in asdict(self).items() if value is None and name != "reason"]
        if self.state == "finished" and (lacks or self.result != f"{self.name}/{RESULT}"):
            raise ValueError(f"a run is finished without {', '.join(lacks) or 'its own result'}")
        if self.state != "finished" and self.asked is not None:
            raise ValueError(f"a run is {self.state}, and yet has what it was asked")
        if self.started is not None:
            check_time(self.started)


class Document(msgspec.Struct):
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
    return msgspec.convert(found, Document)


def finished(folder: Path) -> tuple[int, int]:
    """How many runs of a folder's claims.json are finished, and how many there are; 0 of 0 where there is none yet."""
    try:
        states = [run.state for run in read(folder / NAME).runs]
    except (OSError, *DAMAGE):
        return 0, 0
    return states.count("finished"), len(states)
