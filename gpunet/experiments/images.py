"""A data set as images: what experiments on images share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from gpunet.errors import DataError
from gpunet.rng import DATA, stream


def as_images(data: Any, who: str, least: int) -> Any:
    """The data set with samples as (planes, rows, columns); DataError where they are none, or of less than `least`."""
    shape, arrays = tuple(data.shape), [data.x_train, data.x_test]
    if len(shape) == 2:
        shape = (1, *shape)
    if len(shape) == 3 and shape[0] not in (1, 3, 4) and shape[2] in (1, 3, 4):  # rows, columns, planes
        turned = (x.reshape(-1, *shape).transpose(0, 3, 1, 2) for x in arrays)
        arrays = [np.ascontiguousarray(x).reshape(len(x), -1) for x in turned]
        shape = (shape[2], shape[0], shape[1])
    if len(shape) != 3 or min(shape[1:]) < least:
        raise DataError(
            f"{data.name} has samples of shape {tuple(data.shape)}: {who} needs images of at least "
            f"{least}×{least} pixels, (rows, columns) or (planes, rows, columns)"
        )
    return replace(data, x_train=arrays[0], x_test=arrays[1], shape=shape)


def some_of(images: Any, samples: int) -> Any:
    """With a random part of the training set."""
    if samples >= len(images.x_train):
        return images
    rows = np.sort(stream(0, DATA, 7).choice(len(images.x_train), samples, replace=False))
    return replace(images, x_train=images.x_train[rows], y_train=images.y_train[rows])
