"""How much of somebody's file is taken into memory, in one place, and JSON within that.

A file that is packed may unpack to `UNPACKED` bytes whatever its own size, and beyond that to `RATIO` times its own
size: a few megabytes do not become gigabytes. A text may be an eighth of `UNPACKED` long: what Python makes of JSON
takes up to 40 times the room. What is stored plainly is limited by the machine's memory alone.
"""

from __future__ import annotations

import collections
import json
import math
import os
from pathlib import Path
from typing import Any, NoReturn

from gpunet.errors import InputError, shown

VARIABLE = "GPUNET_UNPACKED"
UNPACKED = 128 << 20
SEEDS = 2**62  # a seed is below
"""Bytes that any file may unpack to; $GPUNET_UNPACKED stands above it, for those who have larger ones."""
RATIO = 100
"""Bytes that a packed file may unpack to for each of its own. Photographs have 1 to 3, sparse counts about 40."""
# What is raised by code that takes a file to be what it should be, where it is something else.
DAMAGE = (
    ValueError, KeyError, TypeError, AttributeError, IndexError, AssertionError, ArithmeticError, RecursionError,
    MemoryError, NotImplementedError, StopIteration,
)  # fmt: skip


def unpacked() -> int:
    """`UNPACKED`, or what the environment says; InputError where that is no number of bytes."""
    given = os.environ.get(VARIABLE)
    if not given:
        return UNPACKED
    if not given.isascii() or not given.isdigit() or len(given) > 18:
        raise InputError(f"{VARIABLE} is {shown(given)}: expected a number of bytes, {UNPACKED} without it")
    return int(given)


def allowed(stored: int) -> int:
    """How many bytes a file of so many may unpack to."""
    return max(unpacked(), RATIO * stored)


def longest_text() -> int:
    """How many bytes of JSON are read."""
    return unpacked() // 8


def physical_memory() -> int | None:
    """Bytes of the machine's main memory; None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def check_room(path: Path) -> None:
    """ValueError where a file that is to be read as a whole is larger than the machine's memory."""
    size, memory = path.stat().st_size, physical_memory()
    if memory is not None and size > memory:
        raise ValueError(f"it has {size:,} bytes and this machine {memory:,} bytes of memory")


def read_json(path: Path, *, nan: bool = False) -> Any:
    """What a file holds as JSON in UTF-8: numbers finite, no name twice in an object, no lone surrogates.

    nan: NaN and Infinity, which are no JSON and which Python writes, are null and not refused.
    Raises OSError where it cannot be read, and ValueError, in words, for all else.
    """
    with path.open("rb") as file:
        content = file.read(longest_text() + 1)
    if len(content) > longest_text():
        raise ValueError(
            f"it is longer than {longest_text():,} bytes; set {VARIABLE} to more than eight times its size"
        )
    return parse_json(content, nan=nan)


def plain(value: Any) -> Any:
    """Python's own types only, as JSON has them: floats finite or None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy's arrays and numbers
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def parse_json(content: str | bytes, *, nan: bool = False) -> Any:
    """`read_json` of what has been read already."""
    try:
        text = content if isinstance(content, str) else content.decode("utf-8")
        constant = (lambda _: None) if nan else _refused
        found = json.loads(text, parse_float=_finite, parse_constant=constant, object_pairs_hook=_distinct)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON at character {error.pos}: {error.msg}") from None
    if "\\ud" in text or "\\uD" in text:
        _check_surrogates(found)
    return found


def _check_surrogates(found: Any) -> None:
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("a text in it is no Unicode: it has half a surrogate pair") from None


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{shown(text)} is beyond all numbers")
    return value


def _refused(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = collections.Counter(name for name, _ in pairs)
        raise ValueError(f"{shown(counts.most_common(1)[0][0])} stands twice in an object")
    return found
