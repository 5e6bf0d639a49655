"""How much of several runs is done, and about how long the rest takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

PRIOR = 0.1  # of all expected seconds: the weight of what was expected against what has been measured
MOST = 0.98  # of a run, until it has ended: there may be more pieces than were expected, and figures are drawn last


class Forecast:
    """Time left from expected seconds and pieces of each run, corrected by the pace of what is done."""

    def __init__(self, expected: Mapping[str, tuple[float, int]], clock: Callable[[], float] = time.monotonic) -> None:
        """expected: (seconds, pieces of progress) of each run that is to be run, by its name."""
        self._expected, self._clock = dict(expected), clock
        self._run, self._pieces, self._part = "", 0, 0.0
        self._done = self._elapsed = self._began = 0.0

    def begin(self, run: str, expected: tuple[float, int]) -> None:
        """A run begins."""
        self._expected[run] = expected
        self._run, self._pieces, self._part, self._began = run, -1, 0.0, self._clock()

    def piece(self) -> None:
        """The run's next piece begins."""
        self._pieces, self._part = self._pieces + 1, 0.0

    def part(self, share: float) -> None:
        """So much of the piece is done, 0 to 1."""
        self._part = min(1.0, share)

    def end(self) -> None:
        """The run has ended."""
        self._done += self._expected.pop(self._run)[0]
        self._elapsed += self._clock() - self._began
        self._run = ""

    def drop(self, run: str) -> None:
        """A run need not be run."""
        self._expected.pop(run, None)

    @property
    def pieces(self) -> int:
        """Pieces that the run has begun."""
        return self._pieces + 1

    def seconds_left(self) -> float:
        """For all runs together."""
        done, elapsed, rest = self._done, self._elapsed, sum(seconds for seconds, _ in self._expected.values())
        if self._run:
            share = self._share() * self._expected[self._run][0]
            done, rest, elapsed = done + share, rest - share, elapsed + self._clock() - self._began
        prior = PRIOR * (done + rest)
        return rest * (elapsed + prior) / (done + prior) if prior else 0.0

    def share_done(self) -> float:
        """Of all runs together, 0 to 1."""
        done, all_of_it = self._done, self._done + sum(seconds for seconds, _ in self._expected.values())
        if self._run:
            done += self._share() * self._expected[self._run][0]
        return done / all_of_it if all_of_it else 1.0

    def _share(self) -> float:
        """Of the run."""
        return min(MOST, (max(0, self._pieces) + self._part) / max(1, self._expected[self._run][1]))


def in_words(seconds: float) -> str:
    """About 40 s, about 3 min, about 1 h 20 min."""
    if seconds < 55:
        return f"about {max(5, 5 * round(seconds / 5))} s"
    minutes = max(1, round(seconds / 60))
    if minutes < 60:
        return f"about {minutes} min"
    minutes = 5 * round(minutes / 5)
    return f"about {minutes // 60} h" + (f" {minutes % 60} min" if minutes % 60 else "")
