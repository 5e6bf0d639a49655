"""Ctrl-C comes between two pieces of work, not in the middle of one that must be whole."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextlib.contextmanager
def undivided() -> Iterator[None]:
    """A signal that Python handles, as it does Ctrl-C, waits for the end of the block; a second one does not.

    Signals come to the main thread alone: in others nothing is to be done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers: dict[int, Any] = {number: signal.getsignal(number) for number in SIGNALS}
    waiting: list[int] = []
    over = False

    def wait(number: int, frame: FrameType | None) -> None:
        if over or waiting:
            handlers[number](number, frame)
        waiting.append(number)

    held = [number for number, handler in handlers.items() if callable(handler)]
    try:
        for number in held:
            signal.signal(number, wait)
        yield
    finally:
        over = True
        for number in held:
            signal.signal(number, handlers[number])
        if waiting:
            handlers[waiting[0]](waiting[0], None)
