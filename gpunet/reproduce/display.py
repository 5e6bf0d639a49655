"""What is shown of `gpunet reproduce`: how far it is and about how long the rest takes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from gpunet.errors import printable
from gpunet.progress import EVERY, Progress, hushed, on_terminal, rich_progress, say, start_rich, stop_rich

PRIOR = 0.1  # of all expected seconds: the weight of what was expected against what has been measured
MOST = 0.98  # of a run, until it has ended: there may be more pieces than were expected, and figures are drawn last


class Display(Progress):
    """The progress of several runs on standard error: two bars on a terminal, else lines; nothing where not wanted.

    The time left is made from the expected seconds and pieces of each run, corrected by the pace of what is done.
    pieces: that the run at hand has begun.
    """

    def __init__(self, expected: Mapping[str, tuple[float, int]], runs: int, wanted: bool) -> None:
        """expected: (seconds, pieces of progress) of each run that is to be run, by its name."""
        self._expected, self._runs, self._wanted = dict(expected), runs, wanted and not hushed()
        self._run, self._where, self._piece, self._seed = "", "", "", ""
        self.pieces, self._parts, self._total = 0, 0, 1  # and parts of the last piece that are done, and that it has
        self._done = self._elapsed = self._began = 0.0  # seconds: expected of the runs that have ended, and measured
        self._bars = _bars() if self._wanted and on_terminal() else None
        self._said = time.monotonic()

    def say(self, line: str) -> None:
        """A line that stays."""
        self._said = time.monotonic()
        if self._bars:
            self._bars.console.print(printable(line), highlight=False, soft_wrap=True)
        elif self._wanted:
            say(f"reproduce {line}")

    def begin(self, place: int, run: str, expected: tuple[float, int], why: str) -> None:
        """The run of this place (from 1) begins; `why` it is repeated, "" where it was not there."""
        self._expected[run] = expected
        self._run, self._where, self._began = run, f"{place}/{self._runs} {run}", time.monotonic()
        self.pieces, self._parts = 0, 0
        self.say(f"{self._where}: begins{f' again, {why}' if why else ''}; {self._left()}")

    def end(self, line: str) -> None:
        """The run has ended."""
        self._done += self._expected.pop(self._run)[0]
        self._elapsed += time.monotonic() - self._began
        self._run = ""
        self.say(f"{self._where}: {line}")

    def passed(self, place: int, run: str, line: str) -> None:
        """A run is not run, for the reason that the line gives."""
        self._expected.pop(run, None)
        self.say(f"{place}/{self._runs} {run}: {line}")

    def start(self, what: str, total: int) -> None:
        """A piece of work begins."""
        self._piece, self._seed, self._parts, self._total = what, "", 0, max(1, total)
        self.pieces += 1
        self.advance(0)

    def seed(self, seed: int) -> None:
        """What follows is of this seed."""
        self._seed = f", seed {seed}"

    def advance(self, parts: int = 1, note: str = "") -> None:
        """So many parts of the piece are done."""
        self._parts = min(self._total, self._parts + parts)
        piece, part, left = f"{self._piece}{self._seed}", self._parts / self._total, self._left()
        if self._bars:
            start_rich(self._bars)
            shown = ((self._where, self.share_done(), left), (piece, part, note))
            for task, (text, share, noted) in zip(self._bars.task_ids, shown, strict=True):
                told = {"description": printable(text), "note": printable(noted)}
                self._bars.update(task, visible=True, completed=share, **told)
        elif time.monotonic() - self._said > EVERY:
            self.say(f"{self._where}: {piece}, {part:.0%}{f', {note}' if note else ''}; {left}")

    def close(self) -> None:
        """All is done."""
        if self._bars:
            stop_rich(self._bars)

    def seconds_left(self) -> float:
        """For all runs together."""
        done, rest = self._so_far()
        elapsed = self._elapsed + (time.monotonic() - self._began if self._run else 0)
        prior = PRIOR * (done + rest)
        return rest * (elapsed + prior) / (done + prior) if prior else 0.0

    def share_done(self) -> float:
        """Of all runs together, 0 to 1."""
        done, rest = self._so_far()
        return done / (done + rest) if done + rest else 1.0

    def _so_far(self) -> tuple[float, float]:
        """Expected seconds of what is done, and of the rest."""
        now = 0.0
        if self._run:
            seconds, pieces = self._expected[self._run]
            begun = max(0, self.pieces - 1) + self._parts / self._total
            now = seconds * min(MOST, begun / max(1, pieces))
        return self._done + now, sum(seconds for seconds, _ in self._expected.values()) - now

    def _left(self) -> str:
        return f"{in_words(self.seconds_left())} left for all"


def _bars() -> Any:
    """Rich's: of all runs, and of the piece of work at hand."""
    made = rich_progress(timed=False)
    for _ in range(2):
        made.add_task("", total=1.0, note="", visible=False)
    return made


def in_words(seconds: float) -> str:
    """About 40 s, about 3 min, about 1 h 20 min."""
    if seconds < 55:
        return f"about {max(5, 5 * round(seconds / 5))} s"
    minutes = max(1, round(seconds / 60))
    if minutes < 60:
        return f"about {minutes} min"
    minutes = 5 * round(minutes / 5)
    return f"about {minutes // 60} h" + (f" {minutes % 60} min" if minutes % 60 else "")
