"""Ctrl-C comes between two pieces of work, not in the middle of one that must be whole."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Signals:
    """The handler of a block; once that is over, and somebody has kept it, the one that was there before."""

    def __init__(self) -> None:
        self._through, self._first = False, 0  # the signal that waits
        self._handlers: dict[int, Any] = {}
        main = threading.current_thread() is threading.main_thread()
        for number in SIGNALS if main else ():  # others get none
            handler: Any = signal.getsignal(number)
            while isinstance(handler, Signals) and handler._through:
                handler = handler._handlers[number]
            if callable(handler):
                self._handlers[number] = handler

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Keep the signal, or hand it on."""
        if self._through or self._first:
            self._handlers[number](number, frame)
        else:
            self._first = number

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """A part of the block that signals do divide, one that has waited at once; what it raises is cleaned up after
        undivided again.
        """  # noqa: D205
        self._through = True
        try:
            self._deliver()
            yield
        finally:
            self._through = False

    def _begin(self) -> None:
        for number in self._handlers:
            signal.signal(number, self)

    def _end(self) -> None:
        """Leave handlers alone that were set since."""
        for number, handler in self._handlers.items():
            if signal.getsignal(number) is self:
                signal.signal(number, handler)
        self._through = True

    def _deliver(self) -> None:
        first, self._first = self._first, 0
        if first:
            self._handlers[first](first, None)


@contextlib.contextmanager
def undivided() -> Iterator[Signals]:
    """A signal that Python handles, as it does Ctrl-C, waits for the end of the block; a second one does not."""
    signals = Signals()
    try:
        signals._begin()
        yield signals
    finally:
        try:
            signals._end()
        finally:  # a signal may come between two handlers
            signals._end()
        signals._deliver()
