"""Progress of long work: a bar on a terminal or in a notebook, plain lines elsewhere, nothing when not wanted."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Self

from gpunet.errors import printable
from gpunet.interrupts import cleaning_up, contextmanager, undivided
from gpunet.reprs import cells, wrapped
from gpunet.streams import SPELT_OR_ESCAPED, spelt

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

SIGNS = ("━", "─", "…")  # of a bar
CUT = 8  # columns: of a first word that is cut in two, what is worth showing
EVERY = 10.0  # seconds between plain lines
AGAIN = 0.2  # seconds between updates of a notebook, which travel to a browser


def say(line: str) -> None:
    """One printable line on standard error; nothing where that is closed or full: the work goes on."""
    if sys.stderr is not None:  # for print() that would be standard output
        with contextlib.suppress(OSError, ValueError):
            print(printable(line), file=sys.stderr, flush=True)


_hushed = False


def hush(wanted: bool) -> None:
    """From now on progress and notes are said to nobody, or are again; warnings and errors always are."""
    global _hushed
    _hushed = wanted


def hushed() -> bool:
    """Whether `hush` was asked for."""
    return _hushed


def aside(line: str) -> None:
    """As `say`, of what nobody needs to know: silent where `hush` was asked for."""
    if not _hushed:
        say(line)


@contextmanager
def warnings_in_one_line() -> Iterator[None]:
    """What is warned of, by us or by another library, is a line for the user, not a place in some code."""

    class OneLine(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if not cleaning_up():  # a library that Ctrl-C broke into reports that as its own failure
                tell(f"{record.levelname.lower()}: {record.getMessage()}")

    last, logging.lastResort = logging.lastResort, OneLine(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: tell(f"warning: {message}")
            yield
    finally:
        logging.lastResort = last


def tell(message: str) -> None:
    """A message of the command line; in one line, also what another library has written in several."""
    say(f"gpunet: {' '.join(filter(None, map(str.strip, message.splitlines())))}")


def on_terminal() -> bool:
    """Whether standard error is a terminal that can move its cursor."""
    able = os.environ.get("TERM", "dumb") not in ("", "dumb", "unknown") or os.name == "nt"
    return able and sys.stderr is not None and sys.stderr.isatty()


def in_notebook() -> bool:
    """Whether what is displayed goes to a notebook: IPython runs as a kernel's shell."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


def rich_progress(timed: bool) -> RichProgress:
    """Rich's bars on standard error, a line each, not yet started; what they show is text as it stands.

    Of a task it shows `description` and `fields["note"]`; timed: and how long the rest takes.
    """
    from rich.console import Console
    from rich.progress import Progress as RichProgress
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    console = Console(stderr=True, markup=False, emoji=False)

    def shown(text: str) -> str:  # before it is measured
        return spelt(text, console.encoding, SPELT_OR_ESCAPED)

    signs = (*(("#", "-") if console.options.ascii_only else SIGNS[:2]), shown(SIGNS[2]))

    class Line(ProgressColumn):
        def render(self, task: Task) -> Text:
            share = task.completed / task.total if task.total else 0.0
            left = _clock(task.time_remaining) if timed else ""
            what, note = shown(task.description), shown(task.fields["note"])
            return Text.assemble(*bar_line(console.width, share, what, left, note, signs))

    return RichProgress(Line(), console=console, transient=True)


def _clock(seconds: float | None) -> str:
    """Minutes and seconds."""
    return "-:--" if seconds is None else f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def bar_line(
    width: int, share: float, what: str, left: str, note: str, signs: tuple[str, str, str] = SIGNS
) -> list[tuple[str, str]]:
    """A line of at most `width` columns with the style of each piece: share, bar, what is done, what is left, a note.

    Where room is short the bar is, then the note loses what stands at its end, then the words do; all in whole words,
    so that no number is cut. signs: of the bar what is done, what is not; and what stands for words that are left out.
    """
    length = 30 if width >= 120 else 16 if width >= 80 else 6
    done = round(min(1.0, max(0.0, share)) * length)
    percent, parts = f"{share:4.0%} ", [signs[0] * done, signs[1] * (length - done)]
    room = width - len(percent) - length - 1 - (len(left) + 2 if left else 0)
    what = _whole_words(what, room, signs[2])
    note = _whole_words(note, room - cells(what) - 2, signs[2])
    told = [(percent, "magenta"), (parts[0], "green"), (parts[1], "dim"), (f" {what}", "")]
    return [*told, (f"  {left}" * bool(left), "cyan"), (f"  {note}" * bool(note), "")]


def _whole_words(text: str, room: int, more: str) -> str:
    """As many words as there is room for; where that is none, what there is room for of a long one."""
    if cells(text) <= room:
        return text
    first, left = text.split(" ", 1)[0], room - cells(more)
    if left > 0 and (left >= cells(first) or room >= 2 * CUT):
        return f"{wrapped(text, left)[0].rstrip()}{more}"
    return ""


def start_rich(bars: RichProgress) -> None:
    """Show the bars and hide the cursor, until `stop_rich`; an interruption waits until the thread that draws runs."""
    with undivided():
        bars.start()


def stop_rich(bars: RichProgress) -> None:
    """Take the bars away and give the cursor back, also where an interruption came while they were being started."""
    try:
        bars.stop()
    except IndexError:  # rich's, of a stack that its start had not got to
        bars.console.show_cursor(True)


def _so_far(done: int, total: int) -> str:
    return f"{done}/{total}" if total else str(done)


class Progress:
    """Silent progress, and the interface of the others. Use as a context manager."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def start(self, what: str, total: int) -> None:
        """Begin a piece of work of `total` parts, 0 where nobody knows how many; it replaces the one before it."""

    def seed(self, seed: int) -> None:
        """The parts that follow belong to this seed."""

    def advance(self, parts: int = 1, note: str = "") -> None:
        """`parts` more are done; `note` says how it goes."""

    def close(self) -> None:
        """All work is done."""


class Bar(Progress):
    """A rich progress bar on standard error."""

    def __init__(self) -> None:
        self._rich = rich_progress(timed=True)
        self._task: Any = None

    def start(self, what: str, total: int) -> None:
        start_rich(self._rich)
        if self._task is not None:
            self._rich.remove_task(self._task)
        self._task = self._rich.add_task(printable(what), total=total, note="")

    def advance(self, parts: int = 1, note: str = "") -> None:
        self._rich.advance(self._task, parts)
        if note:
            self._rich.update(self._task, note=printable(note))

    def close(self) -> None:
        stop_rich(self._rich)


class Lines(Progress):
    """A line on standard error when a piece of work ends, and one every ten seconds in between."""

    def start(self, what: str, total: int) -> None:
        self._what, self._total, self._done, self._said = what, total, 0, time.monotonic()

    def advance(self, parts: int = 1, note: str = "") -> None:
        self._done += parts
        now = time.monotonic()
        if (parts and 0 < self._total <= self._done) or now - self._said > EVERY:
            self._said = now
            aside(f"{self._what}: {_so_far(self._done, self._total)} {note}".rstrip())


class NotebookBar(Progress):
    """A bar in a cell's output, updated in place; at the end it stays there, as it was last."""

    def __init__(self) -> None:
        self._handle: Any = None  # what the output is changed by
        self._what, self._note, self._total, self._done = "", "", 0, 0
        self._began = self._shown = 0.0

    def start(self, what: str, total: int) -> None:
        self._what, self._note, self._total, self._done = what, "", total, 0
        self._began = time.monotonic()
        self._show()

    def advance(self, parts: int = 1, note: str = "") -> None:
        self._done, self._note = self._done + parts, note or self._note
        if time.monotonic() - self._shown > AGAIN:
            self._show()

    def close(self) -> None:
        if self._handle is not None:
            self._show()

    def _show(self) -> None:
        from IPython.display import display

        self._shown = time.monotonic()
        if self._handle is None:
            self._handle = display(self, display_id=True)
        else:
            self._handle.update(self)

    def __repr__(self) -> str:
        seconds = self._shown - self._began
        if 0 < self._done < self._total:
            seconds *= self._total / self._done - 1  # those that are left
        clock = _clock(seconds)
        when = f"{clock} left" if self._done < self._total else clock
        return f"{self._what}: {_so_far(self._done, self._total)}  {when}  {self._note}".rstrip()

    def _repr_html_(self) -> str:
        from html import escape

        bar = f'<progress value="{self._done}" max="{max(1, self._total)}" style="width: 20em"></progress>'
        return f"<div>{bar} {escape(repr(self))}</div>"


def progress(wanted: bool | Progress) -> Progress:
    """The right kind for where standard error goes; a `Progress` is returned as is."""
    if isinstance(wanted, Progress):
        return wanted
    if not wanted or _hushed:
        return Progress()
    return NotebookBar() if in_notebook() else Bar() if on_terminal() else Lines()
