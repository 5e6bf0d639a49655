"""Work that must be whole: Ctrl-C comes before or after it, and threads take turns."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import threading
import time
import weakref

TYPE_CHECKING = False  # as typing's; see gpunet/__init__.py
if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import contextmanager as contextmanager
    from types import FrameType
    from typing import Any

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
PATIENCE = 2.0  # seconds between a first signal and one that no longer waits: a key pressed twice is one interruption


if not TYPE_CHECKING:

    class _Block(contextlib._GeneratorContextManager):
        def __enter__(self):
            try:
                return super().__enter__()
            except BaseException:  # Ctrl-C, when the generator has begun: `with` will not go on with it
                self.gen.close()
                raise

    def contextmanager(function):
        """As contextlib's, but that an interruption just before the block is cleaned up after at once.

        There the generator is closed when nobody holds the exception any more, and a notebook does.
        """

        @functools.wraps(function)
        def begin(*args, **kwargs):
            return _Block(function, args, kwargs)

        return begin


class Signals:
    """The handler of a block; once that is over, and somebody has kept it, the one that was there before."""

    def __init__(self) -> None:
        self._over = self._through = False
        self._first, self._since = 0, 0.0  # the signal that waits
        self._handlers: dict[int, Any] = {}
        main = threading.current_thread() is threading.main_thread()
        for number in SIGNALS if main else ():  # others get none
            handler = _standing(number)
            if callable(handler):
                self._handlers[number] = handler

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Keep the signal, or hand it on."""
        now = time.monotonic()
        if self._over or self._through:
            self._handlers[number](number, frame)
        elif self._first and now - self._since >= PATIENCE:
            self._beyond(number)(number, frame)
        elif not self._first:
            self._first, self._since = number, now

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Let signals divide a part of the block, and one that has waited come at once.

        What it raises is cleaned up after undivided again.
        """
        self._through = True
        try:
            self._deliver()
            yield
        finally:
            self._through = False

    def _beyond(self, number: int) -> Any:
        """The handler that stood before any block."""
        handler: Any = self
        while isinstance(handler, Signals):
            handler = handler._handlers[number]
        return handler

    def _begin(self) -> None:
        _OPEN.add(self)
        for number in self._handlers:
            signal.signal(number, self)

    def _end(self) -> None:
        """Leave handlers alone that were set since, but for one of a block that was over then."""
        self._over = True
        _OPEN.discard(self)
        for number in self._handlers:
            handler = _standing(number)
            if handler is not None:  # as one is that is none of Python's
                signal.signal(number, handler)

    def _deliver(self) -> None:
        first, self._first = self._first, 0
        if first:
            self._handlers[first](first, None)


_OPEN: set[Signals] = set()


def _standing(number: int) -> Any:
    """The signal's handler, without those of blocks that are over."""
    handler: Any = signal.getsignal(number)
    while isinstance(handler, Signals) and handler._over:
        handler = handler._handlers[number]
    return handler


@contextmanager
def undivided() -> Iterator[Signals]:
    """A signal that Python handles, as it does Ctrl-C, waits for the end of the block; one PATIENCE later does not.

    Whatever takes a lock in Python is such a block: an interruption between taking it and the next statement would
    leave it locked for ever, a process' (`Popen.poll`), a thread's that is being started, a database's.
    """
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


def cleaning_up() -> bool:
    """Whether what runs now does so because of an interruption: in a `finally`, an `except`, the end of a `with`."""
    error = sys.exc_info()[1]
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


class Unraisable:
    """A `sys.unraisablehook` without interruptions, which are told once, or raised again, and without what follows.

    An object that one has left half made has a `__del__` that fails: once `interrupted` is set, nothing is said.
    """

    def __init__(self) -> None:
        self.interrupted = False

    def __call__(self, found: sys.UnraisableHookArgs) -> None:
        """Print what Python would."""
        if not (self.interrupted or issubclass(found.exc_type, KeyboardInterrupt)):
            sys.__unraisablehook__(found)


def turns() -> threading.RLock:
    """A lock of threads that a forked process has anew: the thread that held it is not there.

    To be taken by `with`, which Ctrl-C does not divide, as it does `acquire` and the statement after it.
    """
    lock = threading.RLock()
    _TURNS.add(lock)
    return lock


_TURNS: weakref.WeakSet[threading.RLock] = weakref.WeakSet()


def _renew() -> None:
    for signals in list(_OPEN):  # a process that a pool forks in a block does not come to its end
        signals._first = 0
        signals._end()
    for lock in list(_TURNS):
        lock._at_fork_reinit()  # type: ignore[attr-defined]


if hasattr(os, "register_at_fork"):
    for _ in range(2):  # a signal ends one, and is lost there
        os.register_at_fork(after_in_child=_renew)
