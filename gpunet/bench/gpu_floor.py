"""What lies under a training step on a GPU: the bytes it moves, and the device's bandwidth."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise

from gpunet.backend import Backend


def least_bytes(widths: Sequence[int], batch: int) -> int:
    """Bytes that a step moves at least: Adam's four arrays, weights, activations and their gradients, and the batch.

    Weights are read forward and, above the first layer, backward; gradients written and read once; outputs written
    and read once in each direction; the data is uint8.
    """
    sizes = [a * b + b for a, b in pairwise(widths)]
    weights = 7 * sum(sizes) + sum(sizes) + sum(sizes[1:]) + sum(sizes)
    activations = batch * (2 * widths[0] + 4 * sum(widths[1:]))
    return 4 * (weights + activations) + batch * widths[0]


def bandwidth(backend: Backend, size: int) -> float:
    """Bytes a second, read and written, of copies of `size` floats on the device."""
    source, out = backend.zeros(size), backend.zeros(size)
    with backend.session():
        backend.copy(source, out)
        backend.synchronize()
        began = time.perf_counter()
        for _ in range(10):
            backend.copy(source, out)
        backend.synchronize()
    return 10 * 8 * size / (time.perf_counter() - began)
