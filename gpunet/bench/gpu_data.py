"""Data for timings where no real data is at hand: pictures with the kind of spectrum that real ones have."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpunet.errors import InputError
from gpunet.rng import DATA, stream

if TYPE_CHECKING:
    from gpunet.datasets import Dataset

WAVES = 12  # of each direction
CLASSES = 10


def made(samples: int, shape: tuple[int, ...], seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """(x uint8 (samples, features), labels): a picture for each class, and long waves more than short ones on it.

    shape: (rows, columns) or (planes, rows, columns). Dark pixels are cut off at 0, as most of MNIST's are.
    """
    planes, rows, columns = (1, *shape) if len(shape) == 2 else shape
    down, across = (np.cos(np.pi * np.outer(np.arange(WAVES), np.arange(n) + 0.5) / n) for n in (rows, columns))
    waves = np.einsum("ui,vj->uvij", down, across).reshape(WAVES**2, rows * columns)
    high = np.add.outer(np.arange(WAVES), np.arange(WAVES)).reshape(-1)
    waves = (waves / (1.0 + high[:, None])).astype(np.float32)
    rng = stream(seed, DATA)
    centres = rng.standard_normal((CLASSES, planes, len(waves)), dtype=np.float32)
    labels = rng.integers(0, CLASSES, samples)
    x = np.empty((samples, planes * rows * columns), np.uint8)
    for start in range(0, samples, 4096):
        part = slice(start, min(start + 4096, samples))
        weights = 0.7 * rng.standard_normal((len(labels[part]), planes, len(waves)), dtype=np.float32)
        pictures = (centres[labels[part]] + weights) @ waves
        noise = rng.standard_normal(pictures.shape, dtype=np.float32)
        x[part] = np.clip(90 * pictures + 4 * noise, 0, 255).reshape(len(pictures), -1)
    return x, labels


def pictures(name: str, samples: int, features: int | None = None) -> tuple[str, Any, Any]:
    """(where from, x uint8, labels): the training images of "mnist" or "cifar10", or as many made ones of their shape.

    samples, features: the first so many. Read or made once in a process: nobody writes into them.
    """
    return _pictures(name, samples, features, os.environ.get("GPUNET_DATA"))


@lru_cache(maxsize=4)
def _pictures(name: str, samples: int, features: int | None, folder: str | None) -> tuple[str, Any, Any]:
    """Of `pictures`; folder: where data sets lie, which load finds by itself."""
    from gpunet.datasets import load

    try:
        data = load(name)
        return name, np.ascontiguousarray(data.x_train[:samples, :features]), data.y_train[:samples]
    except InputError:
        x, y = made(samples, {"mnist": (28, 28), "cifar10": (3, 32, 32)}[name])
        return f"made, the shape of {name}", np.ascontiguousarray(x[:, :features]), y


def mnist(train: int, test: int) -> tuple[str, Dataset]:
    """(where from, MNIST or made pictures of its shape), the first so many samples."""
    from gpunet.datasets import Dataset, load

    try:
        where, data = "mnist", load("mnist")
        arrays = data.x_train[:train], data.y_train[:train], data.x_test[:test], data.y_test[:test]
    except InputError:
        x, y = made(train + test, (28, 28))
        where, arrays = "made, the shape of mnist", (x[:train], y[:train], x[train:], y[train:])
    return where, Dataset("mnist", *arrays, (28, 28), CLASSES, where)
