"""How a download tells where it is: a bar on a terminal, plain lines elsewhere, both on standard error."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from gpunet.errors import printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_SECONDS_BETWEEN_LINES = 10.0


class Quiet:
    """Says nothing; what the others say, they say through these four methods."""

    def say(self, text: str) -> None:
        """One line for the reader."""

    def start(self, label: str, total: int) -> None:
        """A download begins; `total` in bytes, 0 where the server does not say."""

    def at(self, done: int) -> None:
        """`done` bytes of the file are here."""

    def stop(self) -> None:
        """The download ended, well or not."""


class Lines(Quiet):
    """Plain lines: one when a download begins, then one every ten seconds."""

    def __init__(self) -> None:
        self._label, self._total, self._next = "", 0, 0.0

    def say(self, text: str) -> None:
        """One line for the reader."""
        print(printable(text), file=sys.stderr, flush=True)

    def start(self, label: str, total: int) -> None:
        """Say what is fetched and how large it is."""
        self._label, self._total = label, total
        self._next = time.monotonic() + _SECONDS_BETWEEN_LINES
        self.say(f"fetching {label}" + (f", {megabytes(total)}" if total else ""))

    def at(self, done: int) -> None:
        """Say how far it is, if the last line is old."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _SECONDS_BETWEEN_LINES
            self.say(f"  {self._label}: {megabytes(done)}" + (f" of {megabytes(self._total)}" if self._total else ""))


class Bar(Quiet):
    """A bar of rich's for each download."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def say(self, text: str) -> None:
        """One line for the reader."""
        self._console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    def start(self, label: str, total: int) -> None:
        """Show a bar."""
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        self.stop()
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
        )
        self._bar = Progress(*columns, console=self._console)
        self._task = self._bar.add_task(label, total=total or None)
        self._bar.start()

    def at(self, done: int) -> None:
        """Move the bar."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done)

    def stop(self) -> None:
        """Leave the bar as it stands, and give the cursor back."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def reporter(progress: bool) -> Quiet:
    """The right one for standard error as it is now; silent without `progress`."""
    if not progress:
        return Quiet()
    return Bar() if sys.stderr.isatty() else Lines()


def megabytes(size: int) -> str:
    """A size for people: 9.6 MB, 4.5 kB."""
    return f"{size / 1e6:,.1f} MB" if size >= 100_000 else f"{size / 1e3:,.1f} kB"
