"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) in their official binary layout.

    CIFAR-10: label | 1024 red, 1024 green, 1024 blue, rows first      CIFAR-100: coarse label, fine label | the same

A file is a row of such records and nothing else. A sample stays as it stands in the file: planes first, shape
(3, 32, 32).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gpunet.checks import as_list
from gpunet.errors import DataError
from gpunet.files import check_path

from .arrays import Dataset, validate
from .catalog import REGISTRY
from .disk import check_fits, unreadable

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHAPE = (3, 32, 32)
PIXELS = 3072
TRAINING_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
BATCHES = (*TRAINING_BATCHES, "test_batch")
CIFAR10_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10_LABELS = (10,)
CIFAR100_LABELS = (20, 100)  # coarse, fine
_RECORDS = 1000  # read in one go


class IncompleteDataWarning(UserWarning):
    """A data set was loaded without some of its files; the message names them."""


class Batch(NamedTuple):
    """One file of CIFAR-10: its name without `.bin`, x (n, 3072) uint8, y (n,) int64."""

    name: str
    x: NDArray[np.uint8]
    y: NDArray[np.int64]


def load_cifar10(folder: Path) -> Dataset:
    """Load CIFAR-10: x (50000 and 10000, 3072) uint8, shape (3, 32, 32), 10 classes.

    The training set is data_batch_1 … data_batch_5 one after the other. Some of them are enough: then an
    IncompleteDataWarning names the missing ones. Batches may have any number of records. Raises DataError where
    test_batch or all training batches are missing, or where a file is damaged.
    """
    entry = REGISTRY["cifar10"]
    *train, test = [file.locate(folder) for file in entry.files]
    found = [path for path in train if path]
    missing = [file.path for file in entry.files if not file.locate(folder)]
    if test is None or not found:
        raise entry.not_there(folder, missing)
    if missing:
        warnings.warn(
            f"cifar10: only {len(found)} of {len(TRAINING_BATCHES)} training batches; not in {folder}: "
            f"{', '.join(missing)}; `gpunet data fetch cifar10` fetches the whole set",
            IncompleteDataWarning,
            stacklevel=2,
        )
    return _dataset("cifar10", found, test, CIFAR10_LABELS, folder)


def load_cifar100(folder: Path) -> Dataset:
    """Load CIFAR-100: x (50000 and 10000, 3072) uint8, shape (3, 32, 32), 100 classes, the fine labels.

    Raises DataError where a file is missing or damaged.
    """
    train, test = REGISTRY["cifar100"].located(folder)
    return _dataset("cifar100", [train], test, CIFAR100_LABELS, folder)


def load_cifar10_batches(folder: str | Path | None = None, names: Sequence[str] = BATCHES) -> list[Batch]:
    """The batches of CIFAR-10 of these names, in this order, for splits that are not the usual one.

    folder: the one that has cifar-10-batches-bin/, by default cifar10/ in the data folder. Document 004's split is
    `train, validation, test = load_cifar10_batches(names=("data_batch_1", "data_batch_2", "test_batch"))`. Raises
    DataError for other names than those of BATCHES, and where a file is missing or damaged.
    """
    entry = REGISTRY["cifar10"]
    folder = entry.folder() if folder is None else check_path("folder", folder)
    names = as_list("names", names, f"some of {', '.join(BATCHES)}", str)
    files = dict(zip(BATCHES, entry.files, strict=True))
    if unknown := [name for name in names if name not in files]:
        raise DataError(f"no batch of cifar10: {', '.join(unknown)}; expected some of {', '.join(BATCHES)}")
    paths = entry.located(folder, [files[name] for name in names])
    return [Batch(name, *read_records([path], CIFAR10_LABELS)) for name, path in zip(names, paths, strict=True)]


def read_records(paths: Sequence[Path], labels: Sequence[int]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """All records of these files one after the other: x (n, 3072) uint8, y (n,) int64, the last label of each record.

    labels: how many classes each label byte of a record has. Raises DataError, naming the file, where it is not a
    whole number of records, at least one, or has a label out of range.
    """
    counts = [_count(path, len(labels) + PIXELS) for path in paths]
    check_fits(sum(counts) * (PIXELS + 8), f"{paths[0].parent}: the data")
    x, y = np.empty((sum(counts), PIXELS), np.uint8), np.empty(sum(counts), np.int64)
    end = 0
    for path, count in zip(paths, counts, strict=True):
        start, end = end, end + count
        _read(path, labels, x[start:end], y[start:end])
    return x, y


def _dataset(name: str, train: Sequence[Path], test: Path, labels: Sequence[int], folder: Path) -> Dataset:
    x_train, y_train = read_records(train, labels)
    x_test, y_test = read_records([test], labels)
    data = Dataset(
        name,
        x_train,
        y_train,
        x_test,
        y_test,
        SHAPE,
        labels[-1],
        str(folder),
        CIFAR10_NAMES if name == "cifar10" else (),
    )
    return validate(data, every_class=False)


def _count(path: Path, record: int) -> int:
    """How many records the file has, by its length."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise unreadable(path, error) from None
    count, over = divmod(size, record)
    if over or not count:
        near = f"{count * record:,} or {(count + 1) * record:,}" if count else f"{record:,}, {2 * record:,}, …"
        raise DataError(
            f"{path}: {size:,} bytes are not a whole number of records; expected {record:,} bytes for each image, so "
            f"{near}; fetch or copy the file again"
        )
    return count


def _read(path: Path, labels: Sequence[int], x: NDArray[np.uint8], y: NDArray[np.int64]) -> None:
    """Fill x and y from the file, a thousand records at a time."""
    record = len(labels) + PIXELS
    try:
        with path.open("rb") as stream:
            for start in range(0, len(x), _RECORDS):
                rows = x[start : start + _RECORDS]
                content = stream.read(len(rows) * record)
                if len(content) != len(rows) * record:
                    raise DataError(f"{path}: became shorter while it was being read; read it again")
                records = np.frombuffer(content, np.uint8).reshape(len(rows), record)
                _check_labels(path, labels, records, start)
                rows[:] = records[:, len(labels) :]
                y[start : start + _RECORDS] = records[:, len(labels) - 1]
    except OSError as error:
        raise unreadable(path, error) from None


def _check_labels(path: Path, labels: Sequence[int], records: NDArray[np.uint8], start: int) -> None:
    for column, classes in enumerate(labels):
        wrong = records[:, column] >= classes
        if wrong.any():
            row = int(wrong.argmax())
            kind = ("coarse ", "fine ")[column] if len(labels) == 2 else ""
            raise DataError(
                f"{path}: {kind}label {records[row, column]} in record {start + row}, expected 0 … {classes - 1}; the "
                "file is damaged or not of this data set"
            )
