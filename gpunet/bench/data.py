"""Pictures for timings: MNIST's or CIFAR-10's where they are at hand, else made ones with the spectrum of real ones."""

from __future__ import annotations

import math
import os
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunet.errors import InputError
from gpunet.rng import DATA, stream

WAVES = 12  # of each direction
SHAPES = {"mnist": (28, 28), "cifar10": (3, 32, 32)}


def made(
    samples: int, shape: tuple[int, ...], classes: int = 10, seed: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """(x uint8 (samples, features), labels): a picture for each class, and long waves more than short ones on it.

    shape: (rows, columns) or (planes, rows, columns). Dark pixels are cut off at 0, as most of MNIST's are.
    """
    planes, rows, columns = (1, *shape) if len(shape) == 2 else shape
    down, across = (np.cos(np.pi * np.outer(np.arange(WAVES), np.arange(n) + 0.5) / n) for n in (rows, columns))
    waves = np.einsum("ui,vj->uvij", down, across).reshape(WAVES**2, rows * columns)
    high = np.add.outer(np.arange(WAVES), np.arange(WAVES)).reshape(-1)
    waves = (waves / (1.0 + high[:, None])).astype(np.float32)
    rng = stream(seed, DATA)
    centres = rng.standard_normal((classes, planes, len(waves)), dtype=np.float32)
    labels = rng.integers(0, classes, samples)
    x = np.empty((samples, math.prod(shape)), np.uint8)
    for start in range(0, samples, 4096):
        part = slice(start, min(start + 4096, samples))
        weights = 0.7 * rng.standard_normal((len(labels[part]), planes, len(waves)), dtype=np.float32)
        pictures = (centres[labels[part]] + weights) @ waves
        noise = rng.standard_normal(pictures.shape, dtype=np.float32)
        x[part] = np.clip(90 * pictures + 4 * noise, 0, 255).reshape(len(pictures), -1)
    return x, labels


def pictures(name: str, samples: int, test: bool = False) -> tuple[str, Any, Any]:
    """(where from, x uint8 (samples, features), labels): of "mnist" or "cifar10", or as many made ones of their shape.

    samples: the first so many of the training images, or the test images. Read or made once in a process: nobody writes
    into them.
    """
    return _pictures(name, samples, test, os.environ.get("GPUNET_DATA"))


@lru_cache(maxsize=4)
def _pictures(name: str, samples: int, test: bool, folder: str | None) -> tuple[str, Any, Any]:
    """Of `pictures`; folder: where data sets lie, which load finds by itself."""
    from gpunet.datasets import load

    try:
        data = load(name)
        where, x, y = name, *((data.x_test, data.y_test) if test else (data.x_train, data.y_train))
    except InputError:  # of other numbers of samples others are drawn, of the same classes
        where, (x, y) = f"made, the shape of {name}", made(samples, SHAPES[name])
    return where, np.ascontiguousarray(x.reshape(len(x), -1)[:samples]), y[:samples]
