"""Checks of arrays that users hand in: each mistake is named with its place, before anything is computed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpunet.errors import DataError, InputError

CHUNK_BYTES = 8 << 20  # looked at in one go, so that no mask as large as the data is made


def check_finite(x: Any, what: str) -> None:
    """DataError naming the first row of x (rows, …) that holds NaN or infinity; NumPy's or CuPy's x, any real dtype."""
    if x.dtype.kind != "f" or x.size == 0:
        return
    flat = x.reshape(len(x), -1)
    rows = max(1, CHUNK_BYTES // (flat.itemsize * flat.shape[1]))
    for start in range(0, len(flat), rows):
        finite = np.isfinite(flat[start : start + rows])
        if not bool(finite.all()):
            row, column = divmod(int(finite.argmin()), flat.shape[1])
            raise DataError(
                f"{what} row {start + row}, feature {column}, is {flat[start + row, column]} in {x.dtype}; "
                "remove or replace such samples"
            )


def check_labels(labels: Any, classes: int, what: str) -> np.ndarray[Any, Any]:
    """The labels as int64 (n,); DataError where they are not integers from 0 to classes − 1."""
    given = np.asarray(labels)
    if given.ndim != 1:
        raise DataError(f"{what}: labels have shape {given.shape}, expected one class number a sample, shape (n,)")
    if given.dtype.kind not in "iub" and (given.dtype.kind != "f" or not np.all(given == np.floor(given))):
        raise DataError(f"{what}: labels are {given.dtype}, expected integer class numbers")
    out = given.astype(np.int64)
    bad = (out < 0) | (out >= classes)
    if bad.any():
        row = int(bad.argmax())
        raise DataError(f"{what}: label {out[row]} in row {row} is out of range: expected 0 to {classes - 1}")
    return out


def check_lengths(x: Any, labels: Any, what: str) -> None:
    """DataError where samples and labels differ in number, or there are none."""
    if len(x) != len(labels):
        raise DataError(f"{what}: {len(x)} samples and {len(labels)} labels: expected as many of each")
    if len(x) == 0:
        raise DataError(f"{what}: no samples: expected at least one")


def check_range(
    name: str,
    value: Any,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    below: float = math.inf,
    most: float = math.inf,
) -> None:
    """InputError where `value` is not a finite number with least ≤ value ≤ most and above < value < below."""
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if number and math.isfinite(value) and least <= value <= most and above < value < below:
        return
    wanted = [
        f"{sign} {bound:g}"
        for sign, bound in (("≥", least), (">", above), ("≤", most), ("<", below))
        if math.isfinite(bound)
    ]
    raise InputError(f"{name} cannot be {value!r}: expected a finite number {' and '.join(wanted)}")
