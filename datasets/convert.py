"""From arrays as people save them to the arrays of a `Dataset`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from gpunet.checks import as_array
from gpunet.errors import DataError

from .base import Dataset, validate

if TYPE_CHECKING:
    from numpy.typing import NDArray


def from_arrays(
    name: str,
    x_train: NDArray[Any],
    y_train: NDArray[Any],
    x_test: NDArray[Any],
    y_test: NDArray[Any],
    *,
    source: str,
) -> Dataset:
    """Convert as `as_features` and `as_labels` say, count the classes in y_train, and validate.

    x: (n, …) of any real dtype; y: (n,) or (n, 1) integers from 0. Raises DataError.
    """
    where = {part: f"{source}: {part}" for part in ("x_train", "y_train", "x_test", "y_test")}
    train_labels = as_labels(y_train, where["y_train"])
    test_labels = as_labels(y_test, where["y_test"])
    train, shape = as_features(x_train, where["x_train"])
    test, test_shape = as_features(x_test, where["x_test"])
    if shape != test_shape:
        raise DataError(
            f"{source}: x_train has samples of shape {shape} but x_test of shape {test_shape}; "
            "training and test samples must be of one size"
        )
    classes = int(train_labels.max(initial=0)) + 1
    return validate(Dataset(name, train, train_labels, test, test_labels, shape, classes, source))


def as_features(x: NDArray[Any], where: str) -> tuple[NDArray[Any], tuple[int, ...]]:
    """Flatten (n, …) to a C-contiguous (n, features), and return it with the sample's own shape.

    uint8 stays uint8 (read as 0 … 255 downstream) and bool becomes uint8 with True = 255, so that it is 1.0
    there. Everything else becomes float32 and is taken as it is, unscaled: float16 and float64, and all other
    integers, which above 2²⁴ lose digits. Raises DataError for other kinds of arrays; `where` begins its
    message. InputError for masked arrays, whose mask would be lost.
    """
    x = as_array(x, where)
    if x.ndim == 0:
        raise DataError(f"{where} is a single number; expected an array (samples, …)")
    if x.dtype.kind not in "buif":
        raise DataError(f"{where} has dtype {x.dtype}; expected uint8, floats, integers or bool")
    shape = x.shape[1:] or (1,)
    if x.size == 0:
        raise DataError(f"{where} is empty, shape {x.shape}; at least one sample and one feature are needed")
    flat = x.reshape(len(x), math.prod(shape))
    if x.dtype == np.bool_:
        flat = (flat.view(np.uint8) != 0) * np.uint8(255)  # a file may hold other bytes than 0 and 1
    elif x.dtype != np.uint8:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and validate names its row
            flat = flat.astype(np.float32, copy=False)
    return np.ascontiguousarray(flat), shape


def as_labels(y: NDArray[Any], where: str) -> NDArray[np.int64]:
    """Integer classes (n,) or (n, 1) as int64 (n,); DataError for anything else, with the way to mend it."""
    y = as_array(y, where)
    if y.dtype.kind not in "iub":
        raise DataError(
            f"{where} has dtype {y.dtype}; expected integer classes 0, 1, 2, …: convert with "
            "y.astype('int64') if they are whole numbers"
        )
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        hint = "; for one-hot labels give y.argmax(axis=1)" if y.ndim == 2 else ""
        raise DataError(f"{where} has shape {y.shape}; expected one class a sample, (samples,){hint}")
    if y.dtype == np.uint64 and y.size and int(y.max()) > np.iinfo(np.int64).max:
        raise DataError(f"{where} row {int(y.argmax())} is {int(y.max())}; expected classes 0, 1, 2, …")
    return np.ascontiguousarray(y, dtype=np.int64)
