"""A data set as images: what experiments on images share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from gpunet.errors import DataError
from gpunet.rng import DATA, stream


def as_images(data: Any, who: str, least: int) -> Any:
    """The data set with samples as (planes, rows, columns); DataError where they are none, or of less than `least`."""
    shape, arrays = image_shape(data, who, least), [data.x_train, data.x_test]
    if tuple(data.shape) == (*shape[1:], shape[0]) != shape:
        turned = (x.reshape(-1, *data.shape).transpose(0, 3, 1, 2) for x in arrays)
        arrays = [np.ascontiguousarray(x).reshape(len(x), -1) for x in turned]
    return replace(data, x_train=arrays[0], x_test=arrays[1], shape=shape)


def image_shape(data: Any, who: str, least: int) -> tuple[int, ...]:
    """(planes, rows, columns) of a data set's samples; DataError where they are none, or of less than `least`."""
    shape = tuple(data.shape)
    if len(shape) == 2:
        shape = (1, *shape)
    elif len(shape) == 3 and shape[0] not in (1, 3, 4) and shape[2] in (1, 3, 4):  # rows, columns, planes
        shape = (shape[2], shape[0], shape[1])
    if len(shape) != 3 or min(shape[1:]) < least:
        raise DataError(
            f"{data.name} has samples of shape {tuple(data.shape)}: {who} needs images of at least "
            f"{least}×{least} pixels, (rows, columns) or (planes, rows, columns): a folder of images, or arrays of "
            "that shape"
        )
    return shape


def squares(images: Any) -> Any:
    """The middle of every image, as large as its shorter side."""
    planes, rows, columns = images.shape
    side = min(rows, columns)
    if rows == columns:
        return images
    top, left = (rows - side) // 2, (columns - side) // 2
    cut = (
        np.ascontiguousarray(x.reshape(-1, planes, rows, columns)[..., top : top + side, left : left + side])
        for x in (images.x_train, images.x_test)
    )
    x_train, x_test = (x.reshape(len(x), -1) for x in cut)
    return replace(images, x_train=x_train, x_test=x_test, shape=(planes, side, side))


def some_of(images: Any, samples: int) -> Any:
    """With a random part of the training set."""
    if samples >= len(images.x_train):
        return images
    rows = np.sort(stream(0, DATA, 7).choice(len(images.x_train), samples, replace=False))
    return replace(images, x_train=images.x_train[rows], y_train=images.y_train[rows])


def validation_split(images: Any) -> Any:
    """Training images alone, a tenth of them, at most 5,000, in the test set's place: to choose settings by."""
    n = len(images.x_train)
    held, rest = np.split(stream(0, DATA, 9).permutation(n), [min(-(-n // 10), 5000)])
    x, y = images.x_train, images.y_train
    return replace(images, x_train=x[rest], y_train=y[rest], x_test=x[held], y_test=y[held])


SHARE, FEW = 0.9, 2.5  # of the mean square that few features have, and how many features are few


def uneven(data: Any) -> str:
    """Where a few features of somebody's table drown all others, the numbers in words; "" elsewhere.

    How many features count is (Σ s)²/Σ s², s their mean squares in up to 10,000 training samples.
    """
    x = data.x_train
    if len(data.shape) != 1 or x.dtype == np.uint8 or x.shape[1] < 4:
        return ""
    some = x[:: max(1, len(x) // 10_000)].astype(np.float64)
    squares = np.sort(np.mean((some / max(np.abs(some).max(), 1e-300)) ** 2, axis=0))[::-1]
    shares = squares / max(squares.sum(), 1e-300)
    if 1 / max(float(np.sum(shares**2)), 1e-300) >= min(FEW, len(shares) / 2):
        return ""
    few = int(np.searchsorted(np.cumsum(shares), SHARE)) + 1
    return f"here {few} of {len(shares):,} make up {shares[:few].sum():.1%} of the squares"
