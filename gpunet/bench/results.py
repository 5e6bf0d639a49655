"""What benchmarks leave behind: a file of results for a kind of machine, a section for each question.

    {"sections": {QUESTION: {"state": "done", "rounds": 9, "provenance": {…}, "notes": {…}, "targets": […],
     "cases": {CASE: {"notes": {…}, "entries": {WHO: {"role": "ours", "seconds": [of each round, …], "notes": {…}}}}}}}}

Seconds are those of one piece of work: a step, an epoch, a decomposition. An entry's notes are what it reached and was
checked for: a loss, an angle, a route. What has its default is left out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta

from gpunet.addresses import harmless
from gpunet.backend import Backend
from gpunet.backend.blas import threads
from gpunet.backend.device import cuda_versions
from gpunet.errors import InputError
from gpunet.experiments.provenance import version, versions
from gpunet.experiments.structs import Struct, convert
from gpunet.files import write_or_keep
from gpunet.limits import plain, read_json

Positive = Annotated[float, Meta(gt=1e-15, lt=1e15)]
Spread = Annotated[list[Positive], Meta(min_length=1, max_length=3)]  # median, or with the lower and upper quartile


class Entry(Struct, omit_defaults=True):
    """A contender's times and what it reached; failed: why it has no time.

    over: its time over another's where that is known better than from the seconds; see `ratio`.
    """

    role: Literal["ours", "rival", "floor", "other"] = "ours"
    seconds: list[Positive] = []
    over: dict[str, Spread] = {}
    notes: dict[str, Any] = {}
    failed: str = ""

    @property
    def median(self) -> float | None:
        """Seconds, None where there are none."""
        return float(np.median(self.seconds)) if self.seconds else None


class Case(Struct, omit_defaults=True):
    """What was timed, and everybody's entry."""

    entries: dict[str, Entry] = {}
    notes: dict[str, Any] = {}

    def fastest_of_torch(self, mixed: bool = False) -> str:
        """Which of PyTorch's ways was the fastest: of those in float32, or under autocast; "" where none was timed."""
        ways = {who: each.median for who, each in self.entries.items() if who.startswith("torch")}
        timed = {who: median for who, median in ways.items() if median and ("bf16" in who) == mixed}
        return min(timed, key=timed.__getitem__, default="")


class Target(Struct):
    """A figure to be reached; one that is missing is not."""

    what: str
    value: float | None
    target: float
    at_least: bool = True
    met: bool = False

    @classmethod
    def of(cls, what: str, value: float | None, bound: float, at_least: bool = True) -> Target:
        """With its verdict."""
        met = value is not None and (value >= bound if at_least else value <= bound)
        return cls(what, value, bound, at_least, met)


class Section(Struct, omit_defaults=True):
    """The answer to one question; state: "running", "done", "failed", "stopped" or "not run", and why."""

    provenance: dict[str, Any]
    cases: dict[str, Case] = {}
    notes: dict[str, Any] = {}
    targets: list[Target] = []
    data: str = ""
    rounds: int | None = None
    state: str = "done"
    why: str = ""
    took: float | None = None  # seconds


class Results(Struct):
    """A file."""

    sections: dict[str, Section]


def ratio(ours: Entry, rival: Entry, name: str) -> Spread | None:
    """Time of ours over the rival's, called `name`: median and quartiles over rounds that both were timed in."""
    if found := ours.over.get(name):
        return found
    if not ours.seconds or not rival.seconds:
        return None
    if len(ours.seconds) == len(rival.seconds) > 1:
        return [float(q) for q in np.percentile(np.divide(ours.seconds, rival.seconds), (50, 25, 75))]
    return [float(np.median(ours.seconds) / np.median(rival.seconds))]


def failures(section: Section, head: str = "", between: str = ", ") -> list[str]:
    """A line for each contender that has no time."""
    return [
        f"{head}{case}{between}{who} failed: {entry.failed}"
        for case, each in section.cases.items()
        for who, entry in each.entries.items()
        if entry.failed
    ]


# -- files ------------------------------------------------------------------------------------------------------------


def provenance(backend: Backend | None = None) -> dict[str, Any]:
    """Machine and packages, the rivals' among them, the threads of matrix products, and a GPU's driver and CUDA."""
    found = versions(backend) | {"torch": version("torch"), "jax": version("jax"), "threads": threads()}
    return found | cuda_versions() if found["gpu"] else found


def read_document(path: Path, expected: str) -> Any:
    """What the file holds as JSON, NaN as null; InputError where it cannot be read."""
    try:
        return read_json(path, nan=True)
    except OSError as error:
        why = error.strerror or error
        raise InputError(f"'{harmless(str(path))}' cannot be read: {why}; expected {expected}") from error
    except ValueError as error:
        raise InputError(f"'{path}' is not JSON as it should be ({error}): expected {expected}") from error


def read_sections(path: Path) -> dict[str, Section]:
    """The sections of a file of results by name; InputError where the file is something else."""
    try:
        return convert(read_document(path, "a file of benchmarks/results"), Results).sections
    except msgspec.ValidationError as error:
        raise InputError(
            f"'{path}' has no sections as it should ({error}): expected a file of benchmarks/results, or none yet"
        ) from error


def write_sections(path: Path, sections: dict[str, Section]) -> None:
    """Write a file of these sections, in one piece."""
    write_or_keep(path, as_json(Results(sections)))


def as_json(found: Results | Section, **before: Any) -> bytes:
    """A section or a file as it is written, with what stands before it."""
    document = plain(before | msgspec.to_builtins(found, enc_hook=_plain))
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    return text.encode(errors="replace")  # half a surrogate pair, of a file's name say, could not be read


def write_section(path: Path, name: str, section: Section) -> None:
    """Write one section and keep the file's others; InputError where the file is there and is no file of results."""
    write_sections(path, (read_sections(path) if path.exists() else {}) | {name: section})


def _plain(value: Any) -> Any:
    """Whatever a library calls a number, as Python does."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
