"""Sets that need no file: scikit-learn's digits, and points in the plane whose training and test set are the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from gpunet import rng
from gpunet.extras import load

from .arrays import Dataset, validate
from .labels import every_fifth

if TYPE_CHECKING:
    from numpy.typing import NDArray

LINEAR_POINTS = 100


def digits() -> Dataset:
    """1,797 images of 8×8, part of scikit-learn: x (1442 and 355, 64) uint8, shape (8, 8), 10 classes.

    The pixels 0 … 16 of the source become 0 … 255, rounded, so that 255 is full ink as in every other image
    set here.

    The split is fixed: of each class, in the order of the file, every fifth sample is in the test set.
    Nothing is drawn, so it is the same in every version of NumPy; and since the file is ordered by writer,
    both sets have samples of every hand, as a random split has.
    """
    images, labels = load("the data set digits", "sklearn.datasets").load_digits(return_X_y=True)
    x = np.rint(images * (255 / 16)).astype(np.uint8)
    y = labels.astype(np.int64)
    is_test = every_fifth(y)
    return validate(Dataset("digits", x[~is_test], y[~is_test], x[is_test], y[is_test], (8, 8), 10, "embedded"))


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


SETS: dict[str, Callable[[], Dataset]] = {"digits": digits, "xor": xor, "linear": linear, "xor-easy": xor_easy}
