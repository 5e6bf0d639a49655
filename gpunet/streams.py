"""Standard streams that never raise: what cannot be written, or has no character in their encoding, is not shown."""

from __future__ import annotations

import codecs
import io
import os

TYPE_CHECKING = False  # as typing's; see gpunet/__init__.py
if TYPE_CHECKING:
    from typing import Any, TextIO


ASCII = str.maketrans({
    "±": "+/-", "×": "x", "·": "*", "−": "-", "–": "-", "—": "-", "…": "...", "→": "->", "≤": "<=", "≥": ">=",
    "²": "^2", "σ": "sigma", "λ": "lambda", "α": "alpha", "β": "beta", "φ": "phi", "η": "eta", "µ": "u", "¹": "1",
    "─": "-", "━": "-", "│": "|",
})  # fmt: skip


def _spelt(error: UnicodeError) -> tuple[str, int]:
    """What an encoding without our letters gets: the same in ASCII, as people type it; else a question mark."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end].translate(ASCII)
    return letters.encode("ascii", "replace").decode(), error.end


def _spelt_or_escaped(error: UnicodeError) -> tuple[str, int]:
    """The same, but of what has no spelling its number, as Python writes it: of a path that a message names."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end].translate(ASCII)
    return letters.encode("ascii", "backslashreplace").decode(), error.end


SPELT, SPELT_OR_ESCAPED = "gpunet.spelt", "gpunet.spelt-or-escaped"
codecs.register_error(SPELT, _spelt)
codecs.register_error(SPELT_OR_ESCAPED, _spelt_or_escaped)


def spelt(text: str, encoding: str, errors: str = SPELT) -> str:
    """A text as a stream of this encoding shows it, to be measured: in ASCII ± takes three columns."""
    return text.encode(encoding, errors).decode(encoding)


class Raw(io.FileIO):
    """A file whose writes succeed; `failed` is the reason where they did not."""

    failed: OSError | None = None

    def write(self, data: Any, /) -> int:
        """How much was written; all of it where nothing could be."""
        try:
            return super().write(data)
        except OSError as error:
            self.failed = error
            return len(data)


def stream(given: TextIO | None, raw: Raw, errors: str) -> TextIO:
    """What Python has made of a standard stream, None where it was closed, but on `raw`."""
    if given is None:
        return io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", errors)
    buffer: Any = given.buffer
    if not isinstance(getattr(buffer, "raw", buffer), io.FileIO):  # a console of Windows has a kind of its own
        return given
    at_once = raw.fileno() == 2 or raw.isatty() or getattr(given, "write_through", False)
    return io.TextIOWrapper(io.BufferedWriter(raw), given.encoding, errors, line_buffering=at_once)


def open_closed() -> list[int]:
    """Put something in the place of standard streams that are closed, or a file opened later would; which these are."""
    closed = [number for number in range(3) if not _is_open(number)]
    for _ in closed:  # a file gets the lowest number that is free
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    return closed


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
