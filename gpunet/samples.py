"""A data set on the device, checked once and used by as many trainers as like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpunet.backend.base import Array, Backend
from gpunet.checks import check_finite, check_labels, check_lengths
from gpunet.errors import InputError, ShapeError


def sample_shape(x: Any, what: str) -> tuple[int, ...]:
    """Shape of one sample of x (samples, …); ShapeError where x has no second axis."""
    if np.ndim(x) < 2:
        raise ShapeError(f"{what}: x has shape {np.shape(x)}, expected (samples, features)")
    return tuple(np.shape(x)[1:])


@dataclass(frozen=True)
class Samples:
    """x (N, …) in its own dtype, labels (N,) int64, and the factor that the gather applies to x."""

    x: Array
    labels: Array
    scale: float

    def __len__(self) -> int:
        return len(self.x)

    def batches(self, size: int) -> int:
        """How many batches of `size` one pass takes, a last short one counted."""
        return -(-len(self) // size)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self.x.shape[1:])

    @classmethod
    def of(cls, backend: Backend, x: Any, labels: Any, classes: int, what: str = "data") -> Samples:
        """Check x (N, …) and labels (N,) from 0 to classes − 1, and put them on the device.

        uint8 stays uint8 and is divided by 255 as batches are gathered; floats are taken as they are.
        Raises ShapeError, DataError or InputError, naming `what` and the first offending row.
        """
        if not hasattr(x, "dtype"):
            x = np.asarray(x)
        sample_shape(x, what)
        if x.dtype.kind not in "uif":
            raise InputError(f"{what}: x is {x.dtype}, expected uint8 or floats")
        labels = np.asarray(backend.to_host(labels))
        check_lengths(x, labels, what)
        labels = check_labels(labels, classes, what)
        check_finite(x, what)
        scale = 1 / 255 if x.dtype == np.uint8 else 1.0
        return cls(backend.asarray(x), backend.asarray(labels), scale)
