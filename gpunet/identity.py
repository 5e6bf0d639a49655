"""Which run this is: what it was asked to do, on which data, and in what that differs from another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gpunet.backend import Backend
from gpunet.callbacks import Callback, settings
from gpunet.errors import LONGEST_VALUE, InputError, shown
from gpunet.samples import Samples

if TYPE_CHECKING:
    from gpunet.train import Trainer

LOOKED_AT = 1 << 25  # bytes of a data set that go into its digest at most: 50 ms


def asked(trainer: Trainer, callbacks: Sequence[Callback]) -> dict[str, Any]:
    """What a run was asked to do: two that agree here are the same, step by step."""
    plan, loss, optimizer = trainer.plan, trainer.loss, trainer.optimizer
    return {
        "layers": trainer.model.config(),
        "loss": _described(loss, settings(loss)),
        "optimizer": _described(optimizer, optimizer.settings),
        "dtype": trainer.dtype,
        "seed": trainer.seed,
        "epochs": plan.epochs,
        "batch_size": plan.batch_size,
        "shuffle": plan.shuffle,
        "data": _fingerprint(trainer, plan.train),
        "validation_data": None if plan.validation is None else _fingerprint(trainer, plan.validation),
        "callbacks": [_described(callback, callback.config()) for callback in callbacks],
    }


def machine(backend: Backend) -> dict[str, Any]:
    """What a run's bits depend on beside what it was asked: where two agree here they are the same."""
    blas = {(pool["internal_api"], pool["version"], pool.get("architecture")) for pool in _blas()}
    return {
        "device": backend.name,
        "kernels": backend.kernels,
        "blas": ", ".join(sorted(" ".join(map(str, each)) for each in blas)),
        "threads": threads(),
        "numpy": np.__version__,
    }


def threads() -> int | None:
    """Threads of the matrix products on the CPU; None where nothing tells."""
    return max((pool["num_threads"] for pool in _blas()), default=None)


def _blas() -> list[dict[str, Any]]:
    """The libraries behind NumPy's products; SciPy's own, which may be loaded or not, only where nothing tells them."""
    from threadpoolctl import threadpool_info

    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    return [pool for pool in pools if "numpy" in pool["filepath"]] or pools


def _described(thing: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """An object by its class and its settings, as JSON can hold them."""
    return {"class": type(thing).__name__, **{name: _comparable(value) for name, value in settings.items()}}


def _comparable(value: Any) -> Any:
    """A setting as JSON: numbers and words as they are, arrays by a digest, other objects by class and fields."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _comparable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_comparable(each) for each in value]
    if isinstance(value, np.ndarray):
        return {"shape": list(value.shape), "digest": hashlib.sha256(np.ascontiguousarray(value).data).hexdigest()[:16]}
    return _described(value, vars(value) if is_dataclass(value) and not isinstance(value, type) else {})


def _fingerprint(trainer: Trainer, data: Samples) -> dict[str, Any]:
    """Shape, dtype, and a digest of all labels and of the samples: all of them, or every k-th of a large set."""
    every = -(-int(data.x.nbytes) // LOOKED_AT) or 1
    x, labels = (trainer.backend.to_host(array) for array in (data.x[::every], data.labels))
    digest = hashlib.sha256(np.ascontiguousarray(x).data)
    digest.update(np.ascontiguousarray(labels).data)
    return {"shape": list(data.x.shape), "dtype": str(data.x.dtype), "digest": digest.hexdigest()[:16]}


def difference(where: str, given: Any, held: Any) -> str:
    """Where what is given first differs from what the checkpoint holds, in words; "" where nothing does."""
    if isinstance(given, dict) and isinstance(held, dict):
        both = [key for key in given if key in held]
        found = [difference(f"{where} {key}".lstrip(), given[key], held[key]) for key in both]
        if any(found) or given.keys() == held.keys():
            return next(filter(None, found), "")
    elif isinstance(given, list) and isinstance(held, list) and (len(given) == len(held) or _entries(given + held)):
        if len(given) != len(held):
            return f"{where} are {len(given)} here and {len(held)} there"
        found = [difference(f"{where} {i}", *pair) for i, pair in enumerate(zip(given, held, strict=True))]
        return next(filter(None, found), "")
    return "" if given == held else f"{where} is {_said(given)} here and {_said(held)} there"


def _said(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."


def _entries(values: list[Any]) -> bool:
    return any(isinstance(each, dict) for each in values)


def to_json(value: Any) -> str:
    """Numbers (NumPy's, too), text, lists and dictionaries as JSON; InputError for what a checkpoint cannot keep."""
    return json.dumps(value, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise InputError(f"a checkpoint keeps numbers, text, lists and arrays, got {type(value).__name__}: {shown(value)}")
