"""Progress of long work: a bar on a terminal, plain lines elsewhere, nothing when not wanted."""

from __future__ import annotations

import sys
import time
from typing import Any, Self

EVERY = 10.0  # seconds between plain lines


class Progress:
    """Silent progress, and the interface of the others. Use as a context manager."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def start(self, what: str, total: int) -> None:
        """Begin a piece of work of `total` parts; it replaces the one before it."""

    def seed(self, seed: int) -> None:
        """The parts that follow belong to this seed."""

    def advance(self, parts: int = 1, note: str = "") -> None:
        """`parts` more are done; `note` says how it goes."""

    def close(self) -> None:
        """All work is done."""


class Bar(Progress):
    """A rich progress bar on standard error."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        columns = (
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )  # fmt: skip
        self._rich = RichProgress(*columns, console=Console(stderr=True), transient=True)
        self._task: Any = None
        self._rich.start()

    def start(self, what: str, total: int) -> None:
        if self._task is not None:
            self._rich.remove_task(self._task)
        self._task = self._rich.add_task(what, total=total, note="")

    def advance(self, parts: int = 1, note: str = "") -> None:
        self._rich.advance(self._task, parts)
        if note:
            self._rich.update(self._task, note=note)

    def close(self) -> None:
        self._rich.stop()


class Lines(Progress):
    """A line on standard error when a piece of work ends, and one every ten seconds in between."""

    def start(self, what: str, total: int) -> None:
        self._what, self._total, self._done, self._said = what, total, 0, time.monotonic()

    def advance(self, parts: int = 1, note: str = "") -> None:
        self._done += parts
        now = time.monotonic()
        if (parts and self._done >= self._total) or now - self._said > EVERY:
            self._said = now
            print(f"{self._what}: {self._done}/{self._total} {note}".rstrip(), file=sys.stderr, flush=True)


def progress(wanted: bool | Progress) -> Progress:
    """The right kind for where standard error goes; a `Progress` is returned as is."""
    if isinstance(wanted, Progress):
        return wanted
    if not wanted:
        return Progress()
    return Bar() if sys.stderr.isatty() else Lines()
