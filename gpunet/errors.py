"""The library's exceptions, and how a message shows what it was given.

Every message is one printable line that says what was given, what was expected and what to do. The command line
turns an `InputError` into exit code 2 and a `RunError` into exit code 1, without a traceback.
"""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import Any

ON_CPU = 'device="cpu"'  # what a message advises in Python; the command line says it as its option
LONGEST = 1000  # characters of a message: a screen, not a log
LONGEST_VALUE = 80  # of one value in it
LAST = 300  # of a message that is too long, what is kept of its end, where it says what to do


def first_line(error: BaseException) -> str:
    """Of what a library says: the rest of it is for those who know that library; its class where it says nothing."""
    try:
        said = str(error).strip().splitlines()
    except Exception:  # of its own
        said = []
    return (said or [type(error).__name__])[0]


class GpunetError(Exception):
    """Base of everything gpunet raises on purpose; its message is one printable line, whatever it was made from."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*(_line(each if isinstance(each, str) else shown(each), LONGEST) for each in args))


class InputError(GpunetError, ValueError):
    """What the caller gave cannot be used: a mistake that can be mended before running again."""


class ShapeError(InputError):
    """Arrays whose shapes do not fit each other or the layer they were given to."""


class DataError(InputError):
    """A data set, or a file of one, that is missing, damaged or inconsistent."""


class MissingError(InputError, ImportError):
    """A package that what was asked for needs and is not installed, or broken; the message says how to install it."""


class DeviceError(InputError):
    """A device that was asked for by name and cannot be used; the message says why."""


class RunError(GpunetError, RuntimeError):
    """Something that went wrong while running, with input that looked right."""


class DivergedError(RunError):
    """A loss that became NaN or infinite, or grew far beyond its start; names where and the learning rate."""


class ConvergenceError(RunError):
    """A decomposition that did not reach its tolerance; names the matrix and the residual."""


class CaptureError(RunError):
    """Something in a training step that a device cannot record and replay; the message says what.

    passing: another thread's work has ended the recording, and the next try may succeed.
    """

    passing = False


class MemoryFullError(RunError):
    """A device without room for an array; names the allocation, the device, and what may help."""


class FetchError(RunError):
    """No mirror delivered a file with the right content; says what each of them answered."""


class StorageLostError(RunError):
    """A sweep's storage that is gone; `table` has the trials that were finished until then."""

    def __init__(self, message: str, table: Any = None) -> None:
        super().__init__(message)
        self.table = table


class OutputError(InputError):
    """A folder or file that cannot be written; `kept` is where its content lies instead, None where nowhere."""

    def __init__(self, message: str, kept: Path | None = None) -> None:
        super().__init__(message)
        self.kept = kept


def printable(text: Any) -> str:
    """The text in one line: line ends, control characters and lone surrogates as Python's repr writes them."""
    if not isinstance(text, str):
        return shown(text)
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def visible(text: Any) -> str:
    """As `printable`, but in as many lines as it has."""
    if not isinstance(text, str):
        return shown(text)
    return "\n".join(map(printable, text.split("\n")))


def shown(value: Any) -> str:
    """What a message shows of a value that a user gave: its repr in one line, cut short where it is long.

    Never raises, whatever the value's own methods do: what cannot be shown is named by its class. Of arrays shape and
    dtype are shown, of classes the name.
    """
    try:
        return _line(_SHORT.repr(value), LONGEST_VALUE)
    except Exception:  # of a class that only pretends to be a list, say
        return _line(f"<{type(value).__name__}>", LONGEST_VALUE)


class _Short(reprlib.Repr):
    """`reprlib` with our limits, which never writes out what is long to cut it then."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring, self.maxlevel = LONGEST_VALUE, 3

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if abs(x) < 10**LONGEST_VALUE else f"an integer of {x.bit_length()} bits"

    def repr_bytes(self, x: bytes, level: int) -> str:
        return repr(x[: self.maxstring])

    def repr_instance(self, x: Any, level: int) -> str:
        kind = type(x).__name__
        try:
            if isinstance(x, type):
                return f"the class {x.__name__}"
            if getattr(x, "shape", ()):
                return f"{kind} of shape {tuple(x.shape)}, {x.dtype}"
            return _cut(" ".join(repr(x).split()), LONGEST_VALUE)  # a model's takes a line a layer
        except Exception:
            return f"<{kind}>"


_SHORT = _Short()


def _line(text: str, most: int) -> str:
    """At most so many printable characters, cut before as well so that nothing huge is gone through."""
    return _cut(printable(_cut(text, most)), most)


def _cut(text: str, most: int) -> str:
    last = min(LAST, most // 3)
    return text if len(text) <= most else f"{text[: most - last - 3]}...{text[-last:]}"
