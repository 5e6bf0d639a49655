"""Which of cublasLt's algorithms a kind of product takes: the fastest by the device's clock, found once and kept.

Two algorithms may sum in two orders, and the same seed gives the same bits only where all take the same one: threads,
processes, a run that is resumed. So a choice is kept in the process and in a file of its own in the user's cache
folder, where the first to write it decides for all. What cannot be kept is not chosen: the heuristic's first is taken.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gpunet.backend.base import Array
from gpunet.checks import check_one_of
from gpunet.errors import OutputError, RunError
from gpunet.files import check_replaceable, remove, user_cache, write_once
from gpunet.interrupts import turns
from gpunet.limits import DAMAGE, parse_json

SWITCH = "GPUNET_TUNING"  # in the environment: "off" takes the heuristic's first, "auto" is as without it
BUDGET = 30.0  # milliseconds of the device that one choice may take, more or less
CLEARLY = 0.95  # of the time of the heuristic's first: what takes longer is not preferred to it
CLOSE = 1.5  # times the shortest: who is worth a second look
ROUNDS, MOST = 2, 8  # second looks at each, and runs in one of them
LEAD = 0.15  # milliseconds of other work before what is timed
MOST_FILLS = 64
LONGEST = 1 << 14  # bytes of a file

Run = Callable[[], None]
Clock = Callable[[Run, int], float]
"""Milliseconds that the device takes for one run, out of so many in a row."""
Milliseconds = list[float | None]

_turns = turns()
_chosen: dict[tuple[Path, str], int] = {}
_closed: set[Path] = set()  # folders that cannot be written to


def tuning_asked() -> bool:
    """Whether algorithms may be timed; InputError where GPUNET_TUNING is neither "auto" nor "off"."""
    return check_one_of(SWITCH, os.environ.get(SWITCH) or "auto", ("auto", "off")) == "auto"


def cache_folder() -> Path:
    """Where choices are kept; it need not exist."""
    return user_cache() / "cublaslt"


class DeviceClock:
    """Times runs on the current stream by CUDA events.

    To launch a small product takes the host longer than to compute it takes the device, and then the launches would be
    timed. So the stream first gets some other work: what is launched meanwhile runs back to back.
    cp: the module cupy. spare: device memory that this work, in the stream's order, may fill with zeros.
    """

    def __init__(self, cp: Any, spare: Array) -> None:
        self._cuda, self._spare, self._fills = cp.cuda, spare, 0
        one = self(self._fill, MOST)
        self._fills = min(MOST_FILLS, math.ceil(LEAD / max(one, LEAD / MOST_FILLS)))

    def _fill(self) -> None:
        self._spare.fill(0)

    def __call__(self, run: Run, times: int) -> float:
        """As `Clock`; waits for the device."""
        stream = self._cuda.get_current_stream()
        for _ in range(self._fills):
            self._fill()
        start = stream.record()
        for _ in range(times):
            run()
        end = stream.record()
        end.synchronize()
        return float(self._cuda.get_elapsed_time(start, end)) / times


def device_clock(cp: Any) -> Callable[[Array], Clock] | None:
    """What makes a clock, as DeviceClock does; None for a stand-in for cupy, whose events tell no time."""
    return (lambda spare: DeviceClock(cp, spare)) if hasattr(cp.cuda, "get_elapsed_time") else None


def fastest(runs: Sequence[Run], clock: Clock) -> tuple[int, Milliseconds]:
    """The place of the fastest run, or 0 unless another is clearly faster; and the shortest time of each.

    A run that raises RunError, or comes after the budget is spent, has the time None.
    """
    times: Milliseconds = [None] * len(runs)
    left = BUDGET
    for place, run in enumerate(runs):
        if 2 * _least(times) > left:
            break
        try:
            clock(run, 1)  # it loads the code, which may take longer than the budget
            times[place] = taken = clock(run, 1)
        except RunError:
            continue
        left -= 2 * (taken + LEAD)
    _look_again(runs, clock, times, left)
    best = min(range(len(runs)), key=lambda place: _time(times[place]))
    return best if _time(times[best]) <= CLEARLY * _time(times[0]) else 0, times


def _look_again(runs: Sequence[Run], clock: Clock, times: Milliseconds, left: float) -> None:
    """Time the first and those close to the shortest once more, in turns: a device that was idle is slow at first."""
    bound = CLOSE * _least(times)
    close = [place for place, time in enumerate(times) if time is not None and (place == 0 or time <= bound)]
    for _ in range(ROUNDS if len(close) > 1 else 0):
        once = sum(_time(times[place]) for place in close)
        again = max(1, min(MOST, int(left / ROUNDS / max(once, LEAD))))
        left -= again * once + len(close) * LEAD
        if left < 0:
            return
        for place in close:
            try:
                times[place] = min(_time(times[place]), clock(runs[place], again))
            except RunError:
                times[place] = None


def _time(time: float | None) -> float:
    return math.inf if time is None else time


def _least(times: Milliseconds) -> float:
    """The shortest time so far; 0 where there is none."""
    return min((time for time in times if time is not None), default=0.0)


class Choices:
    """Choices by kind of product, one for all objects and threads of the process, and a file each in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def pick(self, kind: dict[str, Any], usable: Sequence[int], search: Callable[[], tuple[int, Milliseconds]]) -> int:
        """The number of an algorithm: what has been chosen, else what `search` finds, if that can be kept.

        kind: what the choice depends on, for JSON. usable: the numbers there are, `usable[0]` where nothing is chosen.
        """
        text = json.dumps(kind, sort_keys=True)
        with _turns:
            number = _chosen.get((self.folder, text))
            if number is None:
                number = _chosen[self.folder, text] = self._decide(text, usable, search)
        return number if number in usable else usable[0]

    def _decide(self, text: str, usable: Sequence[int], search: Callable[[], tuple[int, Milliseconds]]) -> int:
        path = self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
        try:
            if (kept := self._kept(path, text, usable)) is not None:
                return kept
            if self.folder not in _closed:
                self.folder.mkdir(parents=True, exist_ok=True)
                number, times = search()
                told = {"kind": json.loads(text), "algorithm": number, "milliseconds": times}
                if write_once(path, json.dumps(told, indent=1) + "\n"):
                    return number
                if (kept := self._kept(path, text, usable)) is not None:  # of a process that was faster
                    return kept
        except (OSError, OutputError):
            _closed.add(self.folder)
        return usable[0]

    def _kept(self, path: Path, text: str, usable: Sequence[int]) -> int | None:
        """What the file says; None where there is none, or none any more, since it was damaged or a foreign one."""
        check_replaceable(path)
        try:
            with path.open("rb") as file:
                content = file.read(LONGEST + 1)
        except FileNotFoundError:
            return None
        try:
            found = parse_json(content if len(content) <= LONGEST else "")
            number = found["algorithm"]
            if type(number) is int and number in usable and json.dumps(found["kind"], sort_keys=True) == text:
                return number
        except DAMAGE:
            pass
        remove(path)
        return None
