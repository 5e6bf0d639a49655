"""Which run this is: what it was asked to do, on which data, and in what that differs from another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gpunet.callbacks import Callback
from gpunet.errors import InputError, shown
from gpunet.samples import Samples

if TYPE_CHECKING:
    from gpunet.train import Trainer

LOOKED_AT = 1 << 25  # bytes of a data set that go into its digest at most: 50 ms


def asked(trainer: Trainer, callbacks: Sequence[Callback]) -> dict[str, Any]:
    """What a run was asked to do: two that agree here are the same, step by step."""
    plan, loss, optimizer = trainer.plan, trainer.loss, trainer.optimizer
    return {
        "layers": trainer.model.config(),
        "loss": {"class": type(loss).__name__, "reduction": loss.reduction},
        "optimizer": {"class": type(optimizer).__name__, **optimizer.settings},
        "dtype": trainer.dtype,
        "seed": trainer.seed,
        "epochs": plan.epochs,
        "batch_size": plan.batch_size,
        "shuffle": plan.shuffle,
        "data": _fingerprint(trainer, plan.train),
        "validation_data": None if plan.validation is None else _fingerprint(trainer, plan.validation),
        "callbacks": [type(callback).__name__ for callback in callbacks],
    }


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
    elif isinstance(given, list) and isinstance(held, list) and len(given) == len(held):
        found = [difference(f"{where} {i}", *pair) for i, pair in enumerate(zip(given, held, strict=True))]
        return next(filter(None, found), "")
    return "" if given == held else f"{where} is {json.dumps(given)} here and {json.dumps(held)} there"


def to_json(value: Any) -> str:
    """Numbers (NumPy's, too), text, lists and dictionaries as JSON; InputError for what a checkpoint cannot keep."""
    return json.dumps(value, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise InputError(f"a checkpoint keeps numbers, text, lists and arrays, got {type(value).__name__}: {shown(value)}")
