"""Ctrl-C comes between two pieces of work, not in the middle of one that must be whole."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class _Waiting:
    """The handler of a block; once that is over, and somebody has kept it, the one that was there before."""

    def __init__(self) -> None:
        self.over, self.first = False, 0  # the signal that waits
        self.handlers: dict[int, Any] = {}
        for number in SIGNALS:
            handler: Any = signal.getsignal(number)
            while isinstance(handler, _Waiting) and handler.over:
                handler = handler.handlers[number]
            if callable(handler):
                self.handlers[number] = handler

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.over or self.first:
            self.handlers[number](number, frame)
        else:
            self.first = number

    def begin(self) -> None:
        for number in self.handlers:
            signal.signal(number, self)

    def end(self) -> None:
        """Leave handlers alone that were set since."""
        for number, handler in self.handlers.items():
            if signal.getsignal(number) is self:
                signal.signal(number, handler)


@contextlib.contextmanager
def undivided() -> Iterator[None]:
    """A signal that Python handles, as it does Ctrl-C, waits for the end of the block; a second one does not.

    Signals come to the main thread alone: in others nothing is to be done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting = _Waiting()
    try:
        waiting.begin()
        yield
    finally:
        try:
            waiting.end()
        finally:  # a signal may come between two of them
            waiting.end()
            waiting.over = True
        if waiting.first:
            waiting.handlers[waiting.first](waiting.first, None)
