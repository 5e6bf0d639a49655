"""What a sweep is judged by: samples held out from the training data. The test set is not looked at."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from gpunet.checks import check_range
from gpunet.errors import DataError
from gpunet.rng import DATA, stream

HELD_OUT = "{held} of the {all} training samples of {name}, held out before training; the test set is not used"
THE_SAME = "the {all} training samples of {name}, which has no test set of its own"


@lru_cache(maxsize=1)
def split(dataset: str, share: float, seed: int) -> tuple[Any, str]:
    """A data set, by name or path, with validation samples in place of its test set; and what is what, in words.

    The share (0 to 1) of each class, rounded, is held out from the training samples, drawn from the seed; at least one
    sample of a class stays. A set whose test samples are its training samples is left as it is. Raises DataError where
    there is nothing to hold out.
    """
    check_range("validation", share, above=0, below=1)
    from gpunet.experiments.framework import load_data

    data = load_data(dataset)
    known: dict[str, Any] = {"all": f"{len(data.x_train):,}", "name": data.name}
    if np.array_equal(data.x_train, data.x_test) and np.array_equal(data.y_train, data.y_test):
        return data, THE_SAME.format(**known)
    chosen = _held_out(data.y_train, data.classes, share, seed)
    if not chosen.any():
        raise DataError(
            f"{data.name}: of {known['all']} training samples none can be held out for validation at a share of "
            f"{share:g}; raise --validation, or give more samples"
        )
    parts = {"x_test": data.x_train[chosen], "y_test": data.y_train[chosen]}
    parts |= {"x_train": data.x_train[~chosen], "y_train": data.y_train[~chosen]}
    return replace(data, **parts), HELD_OUT.format(held=f"{int(chosen.sum()):,}", **known)


def _held_out(labels: Any, classes: int, share: float, seed: int) -> Any:
    """Which samples, bool (n,)."""
    chosen = np.zeros(len(labels), bool)
    for label in range(classes):
        own = np.flatnonzero(labels == label)
        count = min(round(share * len(own)), max(0, len(own) - 1))
        chosen[stream(seed, DATA, label).permutation(own)[:count]] = True
    return chosen


def fingerprint(data: Any) -> str:
    """A digest of all samples and labels."""
    digest = hashlib.sha256()
    for array in (data.x_train, data.y_train, data.x_test, data.y_test):
        digest.update(str((array.shape, array.dtype)).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def described(dataset: str, share: float, seed: int) -> dict[str, Any]:
    """The settings of a sweep that say what it is judged by."""
    split.cache_clear()  # a file may have changed
    data, words = split(dataset, share, seed)
    return {
        "dataset": dataset, "name": data.name, "data": fingerprint(data), "validation": share, "split_seed": seed,
        "judged_by": words,
    }  # fmt: skip


def same_data(settings: dict[str, Any]) -> Any:
    """The data set that those settings describe; DataError where this machine has another one by that name."""
    data, _ = split(settings["dataset"], settings["validation"], settings["split_seed"])
    if fingerprint(data) != settings["data"]:
        raise DataError(
            f"{settings['dataset']}: the data here is not what this sweep began with (digest {fingerprint(data)} here, "
            f"{settings['data']} there)"
        )
    return data
