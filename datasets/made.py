"""Small sets that are made, not read: points in the plane with two classes; training and test set are the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpunet import rng

from .base import Dataset, validate

if TYPE_CHECKING:
    from numpy.typing import NDArray

LINEAR_POINTS = 100


def xor() -> Dataset:
    """The four points of the bitwise XOR (document 001): x (4, 2) float32 of 0 and 1, y = 0, 1, 1, 0."""
    return _both("xor", np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32), np.array([0, 1, 1, 0]))


def linear(seed: int = 0) -> Dataset:
    """100 points uniform on the unit square, class 0 where x > y, else 1 (document 003): x (100, 2) float32.

    The data set `linear` is that of seed 0; another seed ≥ 0 draws other points. Raises InputError for other seeds.
    """
    points = rng.stream(seed, rng.DATA).random((LINEAR_POINTS, 2), np.float32)
    return _both("linear", points, np.where(points[:, 0] > points[:, 1], 0, 1))


def xor_easy() -> Dataset:
    """21 points on the diagonals of the unit square (document 003): x (21, 2) float32.

    (i/10, i/10) is of class 0 for i = 0 … 10, (i/10, 1 − i/10) of class 1 for the same i without 5, the centre.
    """
    points, labels = [], []
    for i in range(11):
        points.append((i / 10, i / 10))
        labels.append(0)
        if i != 5:
            points.append((i / 10, 1 - i / 10))
            labels.append(1)
    return _both("xor-easy", np.array(points, np.float32), np.array(labels))


def _both(name: str, x: NDArray[np.float32], y: NDArray[np.int64]) -> Dataset:
    y = y.astype(np.int64)
    return validate(Dataset(name, x, y, x.copy(), y.copy(), (2,), 2, "embedded"))
