"""What is shown while all experiments run: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from dataclasses import dataclass

from gpunet.errors import printable
from gpunet.progress import EVERY, Progress, on_terminal, rich_progress, say, stop_rich, text_column
from gpunet.reproduce.forecast import Forecast, in_words


@dataclass(frozen=True)
class View:
    """How it goes: which run of how many, the share done of all and the time left; the piece of work and its share."""

    where: str
    share: float
    left: str
    piece: str
    part: float
    note: str


class Screen:
    """Shows nothing, and the interface of those that do."""

    def say(self, line: str) -> None:
        """A line that stays."""

    def show(self, view: View) -> None:
        """How it goes."""

    def close(self) -> None:
        """All is done."""


class LineScreen(Screen):
    """Lines on standard error, of how it goes one every ten seconds."""

    def __init__(self) -> None:
        self._said = time.monotonic()

    def say(self, line: str) -> None:
        """A line."""
        self._said = time.monotonic()
        say(f"reproduce {line}")

    def show(self, view: View) -> None:
        """A line, when it is time for one."""
        if time.monotonic() - self._said > EVERY:
            note = f", {view.note}" if view.note else ""
            self.say(f"{view.where}: {view.piece}, {view.part:.0%}{note}; {view.left}")


class BarScreen(Screen):
    """Two rich bars on standard error: all runs, and the piece of work at hand."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, TaskProgressColumn

        self._rich = rich_progress(
            text_column("description"), BarColumn(24), TaskProgressColumn(), text_column("fields[note]")
        )
        self._all, self._piece = (self._rich.add_task("", total=1.0, note="", visible=False) for _ in range(2))

    def say(self, line: str) -> None:
        """A line above the bars."""
        self._rich.console.print(printable(line), highlight=False, soft_wrap=True)

    def show(self, view: View) -> None:
        """Move the bars."""
        self._rich.start()  # hides the cursor, which `close` gives back
        for task, text, share, note in (
            (self._all, view.where, view.share, view.left), (self._piece, view.piece, view.part, view.note),
        ):  # fmt: skip
            description, noted = printable(text), printable(note)
            self._rich.update(task, visible=True, completed=share, description=description, note=noted)

    def close(self) -> None:
        """Take the bars away."""
        stop_rich(self._rich)


class Display(Progress):
    """The progress of several runs, one after the other; use as a context manager."""

    def __init__(self, screen: Screen, forecast: Forecast, runs: int) -> None:
        self._screen, self.forecast, self._runs = screen, forecast, runs
        self._where, self._what, self._seed, self._done, self._total = "", "", "", 0, 1

    def say(self, line: str) -> None:
        """A line that stays."""
        self._screen.say(line)

    def begin(self, place: int, run: str, expected: tuple[float, int], why: str) -> None:
        """The run of this place (from 1) begins; `why` it is repeated, "" where it was not there."""
        self.forecast.begin(run, expected)
        self._where = f"{place}/{self._runs} {run}"
        self._screen.say(f"{self._where}: begins{f' again, {why}' if why else ''}; {self._left()}")

    def end(self, line: str) -> None:
        """The run has ended."""
        self.forecast.end()
        self._screen.say(f"{self._where}: {line}")

    def passed(self, place: int, run: str, line: str) -> None:
        """A run is not run, for the reason that the line gives."""
        self.forecast.drop(run)
        self._screen.say(f"{place}/{self._runs} {run}: {line}")

    def start(self, what: str, total: int) -> None:
        """A piece of work begins."""
        self._what, self._seed, self._done, self._total = what, "", 0, max(1, total)
        self.forecast.piece()
        self.advance(0)

    def seed(self, seed: int) -> None:
        """What follows is of this seed."""
        self._seed = f", seed {seed}"

    def advance(self, parts: int = 1, note: str = "") -> None:
        """So many parts of the piece are done."""
        self._done += parts
        part = min(1.0, self._done / self._total)
        self.forecast.part(part)
        piece = f"{self._what}{self._seed}"
        self._screen.show(View(self._where, self.forecast.share_done(), self._left(), piece, part, note))

    def close(self) -> None:
        """All is done."""
        self._screen.close()

    def _left(self) -> str:
        return f"{in_words(self.forecast.seconds_left())} left for all"


def screen(wanted: bool) -> Screen:
    """The right kind for where standard error goes."""
    if not wanted:
        return Screen()
    return BarScreen() if on_terminal() else LineScreen()
