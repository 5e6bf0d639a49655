"""A data set in memory, and what must hold for it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from gpunet.checks import as_array, check_finite, check_flag
from gpunet.errors import DataError, InputError, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

FEATURE_DTYPES = ("uint8", "float32", "float64")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples as rows, split into training and test.

    x_train, x_test: (n, features), uint8 (255 means 1.0: the trainer scales when it gathers a batch), float32
    or float64, the same in both; y_train, y_test: (n,) int64, classes 0 … classes − 1; shape: a sample's own
    shape, whose product is `features`; source: the path it was read from, or "embedded".
    """

    name: str
    x_train: NDArray[Any] = field(repr=False)
    y_train: NDArray[np.int64] = field(repr=False)
    x_test: NDArray[Any] = field(repr=False)
    y_test: NDArray[np.int64] = field(repr=False)
    shape: tuple[int, ...]
    classes: int
    source: str

    @property
    def features(self) -> int:
        """Numbers per sample."""
        return math.prod(self.shape)


def validate(dataset: Dataset, *, every_class: bool = True) -> Dataset:
    """Return the data set itself; DataError, one line, for the first thing that is wrong with it.

    every_class: each class must have training samples; False where the number of classes is known from elsewhere, so
    that a class without any is a small excerpt and no mistake in the numbering.
    """
    if not isinstance(dataset, Dataset):
        raise InputError(f"dataset is {shown(dataset)}: expected a gn.datasets.Dataset")
    check_flag("every_class", every_class)
    for split in ("train", "test"):
        _check_split(dataset, split)
    train, test = dataset.x_train, dataset.x_test
    if train.shape[1] != test.shape[1]:
        raise _error(
            dataset,
            f"x_train has {train.shape[1]:,} features a sample but x_test has {test.shape[1]:,}; "
            "training and test samples must be of one size",
        )
    if train.dtype != test.dtype:
        raise _error(
            dataset,
            f"x_train is {train.dtype} but x_test is {test.dtype}; uint8 is read as 0 … 255 and "
            "floats as they are: give both in one dtype",
        )
    if dataset.features != train.shape[1]:
        raise _error(dataset, f"shape {dataset.shape} does not hold the {train.shape[1]:,} features of x_train")
    _check_labels(dataset, every_class)
    for split in ("train", "test"):
        check_finite(_arrays(dataset, split)[0], f"{_where(dataset)}: x_{split}")
    return dataset


def _check_split(dataset: Dataset, split: str) -> None:
    x, y = _arrays(dataset, split)
    for name, array in (("x", x), ("y", y)):
        as_array(array, f"{_where(dataset)}: {name}_{split}")  # masks and sparse matrices
        if not isinstance(array, np.ndarray):
            raise _error(dataset, f"{name}_{split} is a {type(array).__name__}; expected a numpy array")
    if x.ndim != 2:
        raise _error(dataset, f"x_{split} has shape {x.shape}; expected (samples, features)")
    if x.dtype.name not in FEATURE_DTYPES or not x.dtype.isnative:
        raise _error(dataset, f"x_{split} is {x.dtype}; expected {', '.join(FEATURE_DTYPES)} in native byte order")
    if y.ndim != 1 or y.dtype != np.int64:
        raise _error(dataset, f"y_{split} is {y.dtype} of shape {y.shape}; expected integer classes, int64, (samples,)")
    if len(x) != len(y):
        raise _error(
            dataset,
            f"x_{split} has {len(x):,} samples but y_{split} has {len(y):,} labels; give one label for each sample",
        )
    if x.size == 0:
        raise _error(dataset, f"x_{split} is empty, shape {x.shape}; at least one sample and one feature are needed")


def _check_labels(dataset: Dataset, every_class: bool) -> None:
    classes = dataset.classes
    for split in ("train", "test"):
        labels = _arrays(dataset, split)[1]
        outside = (labels < 0) | (labels >= classes)
        if outside.any():
            row = int(outside.argmax())
            raise _error(
                dataset,
                f"y_{split} row {row} is {labels[row]}, outside 0 … {classes - 1}, the "
                f"{classes:,} classes of the training labels",
            )
    present = np.unique(dataset.y_train)
    if every_class and len(present) < classes:
        # Sorted, they run 0, 1, 2, … up to the first gap; counters for all classes would trust a stray label.
        gap = np.flatnonzero(present != np.arange(len(present)))
        first = int(gap[0]) if len(gap) else len(present)
        more = classes - len(present) - 1
        raise _error(
            dataset,
            f"class {first}{f' and {more:,} more' if more else ''} without training samples; number the "
            f"classes 0, 1, 2, … without gaps (the largest, {classes - 1}, is in y_train row "
            f"{dataset.y_train.argmax()})",
        )
    if classes < 2:
        raise _error(dataset, "all training labels are 0; at least two classes are needed")


def _arrays(dataset: Dataset, split: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
    return (dataset.x_train, dataset.y_train) if split == "train" else (dataset.x_test, dataset.y_test)


def _error(dataset: Dataset, text: str) -> DataError:
    return DataError(f"{_where(dataset)}: {text}")


def _where(dataset: Dataset) -> str:
    return dataset.name if dataset.source == "embedded" else dataset.source
