"""The process around a command: signals that end it, and standard streams that may be closed, full or left by a reader.

Only `main` uses this: who calls `execute` in a process of their own keeps their streams and signals.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import signal
import sys
import time

from gpunet.interrupts import SIGNALS, Unraisable, cleaning_up
from gpunet.streams import SPELT, SPELT_OR_ESCAPED, Raw, open_closed, stream

TYPE_CHECKING = False  # as typing's; see gpunet/__init__.py
if TYPE_CHECKING:
    from types import FrameType, TracebackType
    from typing import NoReturn, TextIO

INTERRUPTED = 130  # the exit code that shells give Ctrl-C
PATIENCE = 10.0  # seconds that cleaning up may take before another signal breaks into it
SHOW_CURSOR = "\x1b[?25h"

RETRY = 0.2  # seconds after which an interruption that has been swallowed is raised again


arguments: list[str] = []  # the command that runs, without --debug
received: int | None = None  # the signal that ended it
_since, _told = 0.0, False


def version() -> str:
    """The line that `--version` prints."""
    from gpunet import __version__

    return f"gpunet {__version__}"


def program() -> str:
    """How this command line was called, for the line that says how it is called."""
    return "python -m gpunet" if sys.argv[0].endswith(os.path.join("gpunet", "__main__.py")) else "gpunet"


class Interrupted(Exception):  # noqa: N818  (it is no error of ours)
    """Ctrl-C or another signal, with what is kept; the command line prints it as one line."""

    exit_code = INTERRUPTED

    def format_message(self) -> str:
        """The line."""
        return interrupted(str(self))[1]


def interrupted(kept: str = "nothing half-written was left behind") -> tuple[int, str]:
    """The exit code that shells give a process which the signal ended, Ctrl-C by default, and a line that says so."""
    global _told
    _told = True
    number = received or signal.SIGINT
    by = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
    return 128 + number, f"interrupted{by}; {kept}"


def _on_signals(handler: signal._HANDLER) -> None:
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup's, or a shell's for what runs in the background
            signal.signal(number, handler)


def leave_when_told() -> None:
    """Until a command begins there is nothing to clean up: a signal ends the process with one line."""

    def leave(number: int, frame: FrameType | None) -> None:
        global received
        received = number
        code, line = interrupted()
        with contextlib.suppress(OSError):
            os.write(2, f"gpunet: {line}\n".encode())
        os._exit(code)

    _on_signals(leave)


def stop_when_told() -> None:
    """From now on a signal is a KeyboardInterrupt; those that follow while that is cleaned up after are not.

    Compiled code swallows one now and then, NumPy's when it is being imported, and so does Python where a callback may
    not raise: then it is raised again.
    """
    unraisable = Unraisable()

    def stop(number: int, frame: FrameType | None) -> None:
        global received, _since
        if _told or (cleaning_up() and time.monotonic() - _since < PATIENCE):
            return
        received, _since = number, time.monotonic()
        unraisable.interrupted = True
        if hasattr(signal, "setitimer"):
            signal.signal(signal.SIGALRM, again)
            signal.setitimer(signal.ITIMER_REAL, RETRY, RETRY)
        raise KeyboardInterrupt

    def again(number: int, frame: FrameType | None) -> None:
        if not (_told or cleaning_up()):
            raise KeyboardInterrupt

    def printed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, KeyboardInterrupt):  # which NumPy prints where it is being imported, and goes on
            sys.__excepthook__(kind, error, trace)

    sys.unraisablehook, sys.excepthook = unraisable, printed
    _on_signals(stop)


class Streams:
    """Standard output and error that never raise; `json`: all but what we print ourselves goes to standard error."""

    def __init__(self, json: bool) -> None:
        self.json = json
        self.closed = open_closed()
        sys.stderr = self.stderr = stream(sys.stderr, Raw(2, "w", closefd=False), SPELT_OR_ESCAPED)
        out = 1
        if json:  # what the compiled code of a library prints, or a process that somebody's function starts
            out = os.dup(1)
            os.dup2(2, 1)
        self._raw = Raw(out, "w", closefd=False)
        sys.stdout = self.stdout = stream(sys.stdout, self._raw, SPELT)

    def lost(self) -> str:
        """Why standard output is not what it should be; "" where it is, or where nobody wants it."""
        _flush(self.stdout)
        if self.json and 1 in self.closed:
            return "standard output is closed: expected somebody who reads the JSON"
        failed = self._raw.failed
        if failed is None or failed.errno == errno.EPIPE:
            return ""
        return f"standard output could not be written: {failed.strerror}"

    def end(self, code: int) -> NoReturn:
        """Leave the terminal as it was, and end the process; a signal that comes meanwhile changes nothing."""
        _on_signals(lambda *_: os._exit(code))
        if received is None:
            sys.exit(code)
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
        if self.stderr.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown"):
            self.stderr.write(SHOW_CURSOR)
        _flush(self.stderr)
        atexit._run_exitfuncs()
        os._exit(code)  # Python's own way out waits for threads, and dies of a signal in the middle of it


def _flush(stream: TextIO) -> None:
    with contextlib.suppress(OSError, ValueError):
        stream.flush()
