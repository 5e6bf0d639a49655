"""Checks of arrays that users hand in: each mistake is named with its place, before anything is computed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpunet.errors import DataError, InputError, ShapeError, shown

FLOAT32_MAX = float(np.finfo(np.float32).max)
CHUNK_BYTES = 8 << 20  # looked at in one go, so that no mask as large as the data is made


def on_device(a: Any) -> bool:
    """Whether `a` lies on a GPU: CuPy's arrays know their device by number, and how to come back."""
    return hasattr(a, "get") and hasattr(getattr(a, "device", None), "id")


def as_array(a: Any, what: str) -> Any:
    """What a user handed in as a plain numpy.ndarray of native byte order, or as it is where it lies on a GPU.

    Not copied where that is not needed: subclasses (matrix, memmap, recarray) become views, big-endian values are
    converted, lists and whatever NumPy can read become arrays. The dtype is not judged: `real_array` does that.
    Raises InputError for masked arrays, whose mask would be lost silently, and for sparse matrices, ShapeError for
    lists whose rows differ in length.
    """
    if type(a) is not np.ndarray:
        _refuse_mask_and_sparse(a, what)
        if on_device(a):
            return a
        try:
            a = np.asarray(a)
        except (TypeError, ValueError, RuntimeError) as error:
            if isinstance(a, (list, tuple)) and "inhomogeneous" in str(error):
                raise ShapeError(f"{what} has rows of different lengths: expected one array, all rows alike") from None
            reason = " ".join(str(error).split())[:120]
            raise InputError(f"{what} is a {type(a).__name__}, which is no array ({reason}): pass NumPy's") from None
    return a if a.dtype.isnative else a.astype(a.dtype.newbyteorder("="))


def real_array(a: Any, what: str) -> Any:
    """`as_array` of real numbers: bool, integers and floats of up to 64 bits; InputError for every other dtype."""
    array = as_array(a, what)
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        advice = ", whose digits would be lost" if array.dtype.kind == "f" else ""
        raise InputError(
            f"{what} has dtype {array.dtype}{advice}: expected real numbers (float32, float64, uint8, integers); "
            "convert it, say with .astype('float64')"
        )
    return array


def is_number(value: Any) -> bool:
    """Whether a setting is a real number, as a share or a tolerance has to be: Python's or NumPy's, no bool."""
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def _refuse_mask_and_sparse(a: Any, what: str) -> None:
    if isinstance(a, np.ma.MaskedArray):
        raise InputError(f"{what} is a masked array, whose mask would be lost: fill it first, say with .filled(0)")
    if isinstance(a, (list, tuple)):
        for each in a:
            if not isinstance(each, (float, int)):
                _refuse_mask_and_sparse(each, what)
    elif hasattr(a, "nnz"):
        raise InputError(f"{what} is a sparse {type(a).__name__}: expected a dense array; convert it with .toarray()")


def check_finite(x: Any, what: str, dtype: str | None = None) -> None:
    """DataError naming the first row of x (rows, …) that holds NaN or infinity; NumPy's or CuPy's x, any real dtype.

    dtype: "float32" where x will be rounded to it: what that would make infinite is named as well.
    """
    if x.dtype.kind != "f" or x.size == 0:
        return
    flat = x.reshape(len(x), -1)
    rows = max(1, CHUNK_BYTES // (flat.itemsize * flat.shape[1]))
    narrow = x.dtype == np.float64 and dtype == "float32"
    for start in range(0, len(flat), rows):
        part = flat[start : start + rows]
        finite = abs(part) <= FLOAT32_MAX if narrow else np.isfinite(part)
        if not bool(finite.all()):
            row, column = divmod(int(finite.argmin()), flat.shape[1])
            beyond = ", beyond float32" if narrow and np.isfinite(float(part[row, column])) else ""
            raise DataError(
                f"{what} row {start + row}, feature {column}, is {flat[start + row, column]} in {x.dtype}{beyond}; "
                "remove or replace such samples"
            )


def check_labels(labels: Any, classes: int | None, what: str) -> np.ndarray[Any, Any]:
    """A copy of the labels, on the host as int64 (n,); DataError where they are not integers from 0 to classes − 1.

    classes: None where as many as there are labels of; they are from 0 to 2³¹ then.
    """
    given = as_array(labels, f"{what}: y")
    if on_device(given):
        given = given.get()
    if given.ndim != 1:
        raise DataError(f"{what}: labels have shape {given.shape}, expected one class number a sample, shape (n,)")
    if given.dtype.kind not in "iub" and (given.dtype.kind != "f" or not np.all(given == np.floor(given))):
        raise DataError(f"{what}: labels are {given.dtype}, expected integer class numbers")
    classes = 2**31 if classes is None else classes
    number = given.astype(np.float64) if given.dtype.kind == "f" else given  # float16 has no 70000 to compare with
    bad = (number < 0) | (number >= classes)  # before the conversion: int64 would wrap 2**63 and warn of infinity
    if bad.any():
        row = int(bad.argmax())
        raise DataError(f"{what}: label {given[row]} in row {row} is out of range: expected 0 to {classes - 1}")
    out: np.ndarray[Any, Any] = given.astype(np.int64)
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
    if is_number(value) and math.isfinite(value) and least <= value <= most and above < value < below:
        return
    wanted = [
        f"{sign} {bound:g}"
        for sign, bound in (("≥", least), (">", above), ("≤", most), ("<", below))
        if math.isfinite(bound)
    ]
    raise InputError(f"{name} cannot be {shown(value)}: expected a finite number {' and '.join(wanted)}")
