"""Photographs with a cat or without, from the two HDF5 files of the course that document 001 took them from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpunet.errors import DataError

from .base import Dataset, validate
from .convert import as_features, as_labels
from .entries import RemoteFile
from .hdf5 import read_hdf5
from .registry import REGISTRY

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHAPE = (64, 64, 3)
CLASSES = 2  # 0: no cat, 1: cat


def load_cats(folder: Path) -> Dataset:
    """Load the cats: x (209 and 50, 12288) uint8, shape (64, 64, 3), colours last; class 1 is a cat, 0 is none.

    `train_set_x`, `train_set_y` and the same with test are read; `list_classes` is ignored. Raises DataError where
    files are missing, damaged, or hold anything else.
    """
    entry = REGISTRY["cats"]
    (x_train, y_train), (x_test, y_test) = (
        _read_split(path, file, split)
        for path, file, split in zip(entry.located(folder), entry.files, ("train", "test"), strict=True)
    )
    return validate(Dataset("cats", x_train, y_train, x_test, y_test, SHAPE, CLASSES, str(folder)))


def _read_split(path: Path, known: RemoteFile, split: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
    keys = (f"{split}_set_x", f"{split}_set_y")
    images, labels = read_hdf5(path, keys, known).values()
    if images.dtype != np.uint8 or images.shape[1:] != SHAPE:
        raise DataError(
            f"{path}: {keys[0]} is {images.dtype} of shape {images.shape}; expected uint8 of shape (n, 64, 64, 3)"
        )
    y = as_labels(labels, f"{path}: {keys[1]}")
    if len(images) != len(y):
        raise DataError(f"{path}: {keys[0]} has {len(images):,} images but {keys[1]} has {len(y):,} labels")
    wrong = (y < 0) | (y >= CLASSES)
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(f"{path}: {keys[1]} row {row} is {y[row]}; expected 0 (no cat) or 1 (cat)")
    return as_features(images, f"{path}: {keys[0]}")[0], y
