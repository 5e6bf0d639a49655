"""Which run this is: what it was asked to do, on which data, and in what that differs from another."""

from __future__ import annotations

import copyreg
import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence, Set
from functools import partial
from operator import methodcaller
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

from gpunet.backend import Backend
from gpunet.backend.blas import pools, threads
from gpunet.checks import on_device
from gpunet.errors import LONGEST_VALUE, InputError, shown
from gpunet.nn.callbacks import Callback, settings
from gpunet.nn.samples import Samples
from gpunet.nn.training import Training

LOOKED_AT = 1 << 25  # bytes of a data set that go into its digest at most: 50 ms
DEEPEST, MOST = 32, 1_000_000  # levels and parts of a setting that are looked at


def run_spec(trainer: Training, callbacks: Sequence[Callback]) -> dict[str, Any]:
    """What a run was asked to do: two that agree here are the same, step by step."""
    plan = trainer.plan
    return {
        "layers": trainer.model.config(),
        **exchangeable(trainer, trainer.optimizer.settings),
        "dtype": trainer.dtype,
        "epochs": plan.epochs,
        "batch_size": plan.batch_size,
        "shuffle": plan.shuffle,
        "data": _fingerprint(trainer, plan.train),
        "validation_data": None if plan.validation is None else _fingerprint(trainer, plan.validation),
        "callbacks": [_described(callback, told(callback, "config")) for callback in callbacks],
    }


def exchangeable(trainer: Training, initial: Mapping[str, float]) -> dict[str, Any]:
    """What callbacks may exchange in mid-training: the loss, the optimizer, by its `initial` settings, and the seed."""
    return {
        "loss": _described(trainer.loss, settings(trainer.loss)),
        "optimizer": _described(trainer.optimizer, initial),
        "seed": _comparable(trainer.seed),
    }


def told(callback: Callback, method: str) -> Mapping[str, Any]:
    """What `config` or `state` of a callback returns; InputError where that is no dictionary."""
    found = getattr(callback, method)()
    if not _named(found):
        name = f"{type(callback).__name__}.{method}()"
        raise InputError(f"{name} returned {shown(found)}: expected a dictionary whose keys are texts")
    return found  # type: ignore[no-any-return]


def machine(backend: Backend) -> dict[str, Any]:
    """What a run's bits depend on beside what it was asked: where two agree here they are the same."""
    blas = {(pool["internal_api"], pool["version"], pool.get("architecture")) for pool in pools()}
    return {
        "device": backend.name,
        "kernels": backend.kernels,
        "blas": ", ".join(sorted(" ".join(map(str, each)) for each in blas)),
        "threads": threads(),
        "numpy": np.__version__,
    }


def _described(thing: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """An object by its class and its settings, as JSON can hold them."""
    return {"class": type(thing).__name__, **{name: _comparable(value) for name, value in settings.items()}}


def _comparable(value: Any) -> Any:
    """A setting as JSON, alike where its value is: numbers, words and lists as they are, others by class and parts.

    Never raises, and ends: what lies deeper than DEEPEST, and a setting of more than MOST parts, is told by its class
    alone.
    """
    try:
        return _looked_at(value, (), itertools.count())
    except Exception:  # of an object's own methods, too
        return {"class": type(value).__name__}


def _looked_at(value: Any, above: tuple[int, ...], visits: Iterator[int]) -> Any:
    """A value as `_comparable` tells it, below those with the ids `above`."""
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
    if _named(value):
        return {name: look(each) for name, each in value.items()}
    if isinstance(value, Set | Mapping):
        items = value.items() if isinstance(value, Mapping) else value
        return told | {"items": sorted(map(look, items), key=partial(json.dumps, sort_keys=True))}
    return told | {name: look(each) for name, each in _parts(value).items()}


def _named(value: Any) -> bool:
    """Whether it is a dictionary whose keys are texts, looked at no further than a setting is."""
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in itertools.islice(value, MOST))


def _parts(value: Any) -> Mapping[str, Any]:
    """What a value consists of, by name: of objects what pickle would keep of them, else their attributes."""
    match value:
        case int():
            return {"value": hex(value)}
        case bytes() | bytearray() | memoryview():
            return {"digest": _digest(value)}
        case np.generic():
            return {"dtype": str(value.dtype), "value": str(value) if value.dtype.char in "gG" else value.item()}
        case np.ndarray() if not isinstance(value, np.ma.MaskedArray):
            plain = not value.dtype.hasobject and value.dtype.char not in "gG"  # a long double's bytes are padded
            content = {"digest": _digest(value.tobytes())} if plain else {"items": value.tolist()}
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
            return {"digest": _digest(value.co_code), "constants": value.co_consts, "names": value.co_names}
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
    if not all(half is None or _named(half) for half in halves):
        of, halves = [*of, state], ()
    attributes = {name: each for half in halves if half for name, each in half.items()}
    return attributes | ({"of": of} if of else {})


def _digest(content: Any) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _fingerprint(trainer: Training, data: Samples) -> dict[str, Any]:
    """Shape, dtype, and a digest of all labels and of the samples: all of them, or every k-th of a large set."""
    every = -(-int(data.x.nbytes) // LOOKED_AT) or 1
    x, labels = (trainer.backend.to_host(array) for array in (data.x[::every], data.labels))
    digest = hashlib.sha256(np.ascontiguousarray(x).data)
    digest.update(np.ascontiguousarray(labels).data)
    return {"shape": list(data.x.shape), "dtype": str(data.x.dtype), "digest": digest.hexdigest()[:16]}


def difference(where: str, given: Any, held: Any) -> str:
    """Where what is given first differs from what the checkpoint holds, in words; "" where nothing does."""
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
    if isinstance(given, list) and isinstance(held, list) and (len(given) == len(held) or _entries(given + held)):
        if len(given) != len(held):
            return f"{where} are {len(given)} here and {len(held)} there"
        each = (difference(f"{where} {i}", *pair) for i, pair in enumerate(zip(given, held, strict=True)))
        return next(filter(None, each), "")
    same = given == held or (given != given and held != held)  # NaN, too
    return "" if same else f"{where} is {_said(given)} here and {_said(held)} there"


def _said(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."


def _entries(values: list[Any]) -> bool:
    return any(isinstance(each, dict) for each in values)


def to_json(value: Any) -> str:
    """Numbers (NumPy's, too), text, lists and dictionaries as JSON; InputError for what a checkpoint cannot keep."""
    try:
        return json.dumps(value, default=_plain)
    except InputError:
        raise
    except (TypeError, ValueError, RecursionError) as error:  # keys that are no text, lists that hold themselves
        raise InputError(f"a checkpoint keeps what JSON can hold, and that is not: {error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise InputError(f"a checkpoint keeps numbers, text, lists and arrays, got {type(value).__name__}: {shown(value)}")
