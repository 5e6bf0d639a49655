"""What a value is, in sixteen digits or as JSON, and in words where two differ: runs are told apart by it."""

from __future__ import annotations

import copyreg
import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Set
from functools import partial
from operator import methodcaller
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

from gpunet.checks import on_device
from gpunet.errors import LONGEST_VALUE

DEEPEST, MOST = 32, 1_000_000  # levels and parts of a value that are looked at


def digest(*parts: Any) -> str:
    """Sixteen hexadecimal digits that stand for texts, bytes and arrays, which follow each other without a mark.

    An array stands there as it is read row by row, without its shape and dtype.
    """
    found = hashlib.sha256()
    for part in parts:
        part = part.encode() if isinstance(part, str) else part
        found.update(np.ascontiguousarray(part).data if isinstance(part, np.ndarray) else part)
    return found.hexdigest()[:16]


def comparable(value: Any) -> Any:
    """A value as JSON, alike where its value is: numbers, words and lists as they are, others by class and parts.

    Never raises, and ends: what lies deeper than DEEPEST, and a value of more than MOST parts, is told by its class
    alone.
    """
    try:
        return _looked_at(value, (), itertools.count())
    except Exception:  # of an object's own methods, too
        return {"class": type(value).__name__}


def _looked_at(value: Any, above: tuple[int, ...], visits: Iterator[int]) -> Any:
    """A value as `comparable` tells it, below those with the ids `above`."""
    if next(visits) == MOST:
        raise OverflowError
    if isinstance(value, np.generic) and value.dtype.kind in "biuf" and value.dtype.char != "g":
        value = value.item()
    if value is None or isinstance(value, float | str) or (isinstance(value, int) and value.bit_length() < 10_000):
        return value
    value = value.get() if on_device(value) else value
    told: dict[str, Any] = {"class": type(value).__name__}
    if id(value) in above:
        return told | {"above": above[::-1].index(id(value))}
    if len(above) == DEEPEST:
        return told
    look = partial(_looked_at, above=(*above, id(value)), visits=visits)
    if isinstance(value, list | tuple):
        return [look(each) for each in value]
    if named(value):
        return {name: look(each) for name, each in value.items()}
    if isinstance(value, Set | Mapping):
        items = value.items() if isinstance(value, Mapping) else value
        return told | {"items": sorted(map(look, items), key=partial(json.dumps, sort_keys=True))}
    return told | {name: look(each) for name, each in _parts(value).items()}


def named(value: Any) -> bool:
    """Whether it is a dictionary whose keys are texts, looked at no further than other values are."""
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in itertools.islice(value, MOST))


def _parts(value: Any) -> Mapping[str, Any]:
    """What a value consists of, by name: of objects what pickle would keep of them, else their attributes."""
    match value:
        case int():
            return {"value": hex(value)}
        case bytes() | bytearray() | memoryview():
            return {"digest": digest(value)}
        case np.generic():
            return {"dtype": str(value.dtype), "value": str(value) if value.dtype.char in "gG" else value.item()}
        case np.ndarray() if not isinstance(value, np.ma.MaskedArray):
            plain = not value.dtype.hasobject and value.dtype.char not in "gG"  # a long double's bytes are padded
            content = {"digest": digest(value.tobytes())} if plain else {"items": value.tolist()}
            return {"dtype": str(value.dtype), "shape": value.shape, **content}
        case os.PathLike():
            return {"path": os.fspath(value)}
        case ModuleType():
            return {"name": value.__name__}
        case type():
            return {"name": f"{value.__module__}.{value.__qualname__}"}
        case FunctionType():
            name, defaults = f"{value.__module__}.{value.__qualname__}", (value.__defaults__, value.__kwdefaults__)
            return {"name": name, "code": value.__code__, "defaults": defaults, "closure": value.__closure__}
        case CodeType():
            return {"digest": digest(value.co_code), "constants": value.co_consts, "names": value.co_names}
        case CellType():
            return {"value": value.cell_contents}
    if callable(value) and hasattr(value, "__wrapped__"):  # compiled by numba, say
        return {"wraps": value.__wrapped__}
    try:
        reduced = copyreg.dispatch_table.get(type(value), methodcaller("__reduce_ex__", 4))(value)
        if isinstance(reduced, str):
            return {"name": reduced}
        _, arguments, state, items = (*reduced, None, None)[:4]
        of = [*(each for each in arguments if each is not type(value)), *itertools.islice(items or (), MOST)]
    except Exception:
        return getattr(value, "__dict__", {})
    halves = state if isinstance(state, tuple) else (state,)
    if not all(half is None or named(half) for half in halves):
        of, halves = [*of, state], ()
    attributes = {name: each for half in halves if half for name, each in half.items()}
    return attributes | ({"of": of} if of else {})


def difference(where: str, given: Any, held: Any) -> str:
    """Where JSON that is given here first differs from what is held there, in words; "" where nothing does."""
    if isinstance(given, dict) and isinstance(held, dict):
        for key in [*given, *(key for key in held if key not in given)]:
            inner = f"{where} {key}".lstrip()
            if key not in held:
                return f"{inner} is given here and not there"
            if key not in given:
                return f"{inner} is given there and not here"
            if found := difference(inner, given[key], held[key]):
                return found
        return ""
    lists = isinstance(given, list) and isinstance(held, list)
    if lists and (len(given) == len(held) or any(isinstance(each, dict) for each in given + held)):
        if len(given) != len(held):
            return f"{where} are {len(given)} here and {len(held)} there"
        each = (difference(f"{where} {i}", *pair) for i, pair in enumerate(zip(given, held, strict=True)))
        return next(filter(None, each), "")
    same = given == held or (given != given and held != held)  # NaN, too
    return "" if same else f"{where} is {_said(given)} here and {_said(held)} there"


def _said(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."
