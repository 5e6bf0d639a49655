"""The digits of scikit-learn: 1,797 images of 8×8, part of the package, so always there."""

from __future__ import annotations

import numpy as np

from .base import Dataset, validate

TEST_EVERY = 5


def load_digits() -> Dataset:
    """Load the digits: x (1442 and 355, 64) uint8, shape (8, 8), 10 classes.

    The pixels 0 … 16 of the source become 0 … 255, rounded, so that 255 is full ink as in every other image
    set here.

    The split is fixed: of each class, in the order of the file, every fifth sample is in the test set.
    Nothing is drawn, so it is the same in every version of NumPy; and since the file is ordered by writer,
    both sets have samples of every hand, as a random split has.
    """
    from sklearn import datasets

    images, labels = datasets.load_digits(return_X_y=True)
    x = np.rint(images * (255 / 16)).astype(np.uint8)
    y = labels.astype(np.int64)
    is_test = np.zeros(len(y), bool)
    for label in range(10):
        is_test[np.flatnonzero(y == label)[TEST_EVERY - 1 :: TEST_EVERY]] = True
    return validate(Dataset("digits", x[~is_test], y[~is_test], x[is_test], y[is_test], (8, 8), 10, "embedded"))
