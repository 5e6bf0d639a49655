"""Contenders in turn: each made, tried and timed beside the others in one process, and checked afterwards.

A question's module makes contenders; `race` times them, and the command line, the suite in benchmarks/ and the check on
a GPU call nothing else.
"""

from __future__ import annotations

import copy
import math
import re
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from gpunet import extras
from gpunet.bench.results import Entry, Section, read_sections, write_section
from gpunet.errors import GpunetError, MissingError
from gpunet.limits import physical_memory
from gpunet.timing import PAUSE, interleave

LEAST = 0.05  # seconds of a timed call
MOST = 5000  # pieces of work in one
SHARE = 0.8  # of a device's memory at most
UNLEARNED = 1.1  # a final loss above so many times the first one means that the steps were no training
SAME = 0.2  # how far apart, relatively, what two contenders reached may be where they did the same
# Errors after which no work of the process runs on the GPU any more, in the words of CUDA's runtime, driver, PyTorch;
# cublasLt's status says no more than that a launch failed.
STICKY = re.compile(
    "(cudaError|CUDA_ERROR_)_?(illegal_?address|misaligned_?address|launch_?fail|launch_?timeout|assert"
    "|illegal_?instruction|invalid_?pc|invalid_?address_?space|hardware_?stack_?error|ecc_?uncorrectable|contained"
    "|tensor_?memory_?leak|mps_?client_?terminated|external_?device)"
    "|cublasLt: cublasLtMatmul failed with CUBLAS_STATUS_EXECUTION_FAILED"
    "|CUDA error: (an illegal|misaligned|unspecified launch|device-side assert|the launch timed out)", re.IGNORECASE
)  # fmt: skip


@dataclass(frozen=True)
class Work:
    """run(pieces) does so many pieces of work and waits for its device; reached(): what came of it, for the notes.

    keeps: what must live as long, such as the arrays of a recording.
    """

    run: Callable[[int], object]
    reached: Callable[[], dict[str, Any]] = dict
    keeps: Any = None


@dataclass(frozen=True)
class Contender:
    """Who takes part: make() prepares its work, what is not to be timed included.

    missing: why it cannot take part here. slow: timed once and by itself, as is right for what takes seconds.
    share: it does so many times less than the others, and its time is multiplied.
    """

    make: Callable[[], Work]
    role: Literal["ours", "rival", "floor", "other"] = "ours"
    missing: str = ""
    slow: bool = False
    share: int = 1


def lacking(package: str) -> str:
    """Why a rival of that package cannot take part; empty where it can be imported."""
    if extras.lacking(package):
        return f"{package} is not installed; {extras.how(package)}"
    try:
        extras.need("a rival", package)
    except MissingError as error:
        return str(error)
    return ""


def missing(contenders: Mapping[str, Contender]) -> list[str]:
    """Why some take no part, each reason once."""
    return list(dict.fromkeys(each.missing for each in contenders.values() if each.missing))


def race(
    contenders: Mapping[str, Contender],
    rounds: int,
    *,
    pieces: int = 0,
    first: int = 0,
    apart: bool = False,
    pause: float = PAUSE,
    save: Callable[[dict[str, Entry]], None] = lambda entries: None,
    log: bool = False,
) -> dict[str, Entry]:
    """Time all in turn, round by round; one that fails is left out with the reason.

    pieces: of work in a timed call, by default as many as take LEAST seconds. first: pieces done before anything is
    timed, after which notes are taken as "first_…". apart: one contender after the other, saved as they come, where one
    may hang. log: the traceback of what nobody foresaw is printed. Errors that are `sticky` are raised.
    """
    there = {name: each for name, each in contenders.items() if not each.missing}
    quick = [name for name, each in there.items() if not each.slow]
    groups = [[name] for name in quick] if apart else [quick]
    found: dict[str, Entry] = {}
    for group in [*groups, *([name] for name, each in there.items() if each.slow)]:
        found |= _timed({name: there[name] for name in group}, rounds, pieces, first, pause, log)
        save({name: found[name] for name in there if name in found})
    return {name: found[name] for name in there}


def _timed(
    group: Mapping[str, Contender], rounds: int, pieces: int, first: int, pause: float, log: bool
) -> dict[str, Entry]:
    entries = {name: Entry(each.role) for name, each in group.items()}
    works: dict[str, Work] = {}
    counts: dict[str, int] = {}

    def attempt(name: str, act: Callable[[], object]) -> None:
        if not entries[name].failed:
            try:
                act()
            except Exception as error:  # whatever a rival raises
                entries[name].failed = told(error, log)

    def prepare(name: str) -> None:
        works[name] = work = group[name].make()
        if first:
            work.run(first)
            entries[name].notes |= {f"first_{what}": value for what, value in work.reached().items()}
        counts[name] = pieces or (1 if group[name].slow else enough(work.run, max(1, first)))

    def check(name: str) -> None:
        notes = entries[name].notes
        notes |= works[name].reached()
        before, after = notes.get("first_loss"), notes.get("loss")
        if before is not None and after is not None and not after <= UNLEARNED * before:
            entries[name].failed = f"its loss rose from {before:.4g} to {after:.4g}"

    for name in group:
        attempt(name, partial(prepare, name))
    runs = {
        name: partial(attempt, name, partial(works[name].run, counts[name]))
        for name in group if not entries[name].failed
    }  # fmt: skip
    slow = any(each.slow for each in group.values())
    times = interleave(runs, 1 if slow else rounds, warmup=0 if slow else 1, pause=pause)
    for name, seconds in times.seconds.items():
        attempt(name, partial(check, name))
        if not entries[name].failed:
            entries[name].seconds = [each / counts[name] * group[name].share for each in seconds]
    return entries


def enough(run: Callable[[int], object], tried: int = 1, least: float | None = None) -> int:
    """How many pieces of work take `least` seconds, by default LEAST; told by the second of two calls of `tried`."""
    run(tried)  # torch.compile records its graphs at the second and third call
    began = time.perf_counter()
    run(tried)
    taken = max(1e-9, time.perf_counter() - began)
    return max(1, min(MOST, round(tried * (LEAST if least is None else least) / taken)))


def filled(path: Path, name: str, section: Section, part: Callable[[Callable[[], None]], object], log: bool) -> bool:
    """Whether `part(save)` could fill this section of the file, saved as it goes, and with its state.

    What an earlier try has left of it stays until it is done. An error that is `sticky` is raised.
    """
    before, began = read_sections(path).get(name) if path.exists() else None, time.perf_counter()

    def save(state: str = "running", why: str = "") -> None:
        section.state, section.why, section.took = state, why, time.perf_counter() - began
        shown = section
        if before and state != "done":
            shown = copy.copy(section)
            shown.cases, shown.notes = before.cases | section.cases, before.notes | section.notes
        write_section(path, name, shown)

    save()
    try:
        part(save)
    except KeyboardInterrupt:
        save()  # how long it has had
        raise
    except Exception as error:  # whatever a library raises
        if log:
            traceback.print_exception(error)
        save("failed", reason(error))
        if sticky(error):
            raise
        return False
    save("done")
    return True


def too_large(need: float, there: float | None = None) -> str:
    """Why so many bytes are more than may be used of a device's memory, by default the machine's; or nothing."""
    there = there or physical_memory() or math.inf
    if need <= SHARE * there:
        return ""
    return f"needs {need / 1e9:.1f} GB, and of {there / 1e9:.1f} GB of memory at most {SHARE:.0%} are used"


def agree(entries: Mapping[str, Entry], what: str, within: float = SAME) -> None:
    """Those whose note `what` is another than that of the first of ours did not do the same: they have failed."""
    there = {name: float(each.notes[what]) for name, each in entries.items() if not each.failed and what in each.notes}
    first = next((name for name in there if entries[name].role == "ours"), None)
    for name, value in there.items() if first else ():
        truth = there[first or name]
        if not abs(value - truth) <= within * max(abs(value), abs(truth)):
            entries[name].failed = f"did something else than {first}: its {what} is {value:.4g}, not {truth:.4g}"
            entries[name].seconds = []


def speed_up(entries: Mapping[str, Entry], ours: str, rivals: Iterable[str]) -> float | None:
    """Time of the fastest of the rivals over ours; None where one side is missing."""
    there = [entries[name].median for name in rivals if name in entries and entries[name].seconds]
    own = entries[ours].median if ours in entries else None
    return min(each for each in there if each) / own if own and there else None


def told(error: Exception, log: bool = False) -> str:
    """The error in one line, with `log` after its traceback where nobody foresaw it; a `sticky` one is raised."""
    if sticky(error):
        raise error
    if log and not isinstance(error, GpunetError):
        traceback.print_exception(error)
    return reason(error)


def sticky(error: BaseException | None) -> bool:
    """Whether it, or what it came from, is an error after which nothing of this process runs on the GPU any more."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if STICKY.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def reason(error: BaseException) -> str:
    """The error in one line."""
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words[:300]}"
