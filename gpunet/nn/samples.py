"""A data set on the device, checked once and used by as many trainers as like."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpunet.backend.base import Array, Backend
from gpunet.checks import (
    DTYPES,
    check_finite,
    check_flag,
    check_labels,
    check_lengths,
    check_one_of,
    check_text,
    check_whole,
    real_array,
)
from gpunet.errors import InputError, ShapeError, shown


def check_samples(x: Any, what: str) -> Any:
    """x (samples, …) as an array whose dtype every backend gathers from: float16 is widened to float32, which is exact.

    bool, integers, float32 and float64 stay as they are; big-endian values are converted. Raises InputError for other
    dtypes, masked arrays and sparse matrices, ShapeError where x has no second axis, or samples hold no number.
    """
    check_text("what", what)
    x = real_array(x, f"{what}: x")
    if x.ndim < 2 or 0 in x.shape[1:]:
        raise ShapeError(f"{what}: x has shape {x.shape}, expected (samples, features)")
    return x.astype("float32") if x.dtype == np.float16 else x


@dataclass(frozen=True)
class Samples:
    """x (N, …) in its own dtype, labels (N,) int64, and the factor that the gather applies to x.

    classes: one more than the largest label; device: where they lie; dtype: "float32" where x was seen to fit it.
    """

    x: Array
    labels: Array  # None where there are none
    scale: float
    classes: int
    device: str
    dtype: str | None = None

    def __len__(self) -> int:
        return len(self.x)

    def batches(self, size: int) -> int:
        """How many batches of `size` one pass takes, a last short one counted."""
        return -(-len(self) // check_whole("size", size))

    def spaced(self, most: int) -> Samples:
        """So many of the samples at most, evenly spaced, or all: copies."""
        every = -(-len(self) // check_whole("most", most))
        x, labels = (None if array is None else array[::every].copy() for array in (self.x, self.labels))
        return replace(self, x=x, labels=labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self.x.shape[1:])

    @classmethod
    def of(
        cls,
        backend: Backend,
        x: Any,
        labels: Any,
        classes: int | None,
        what: str = "data",
        *,
        dtype: str | None = None,
        copy: bool = True,
    ) -> Samples:
        """Check x (N, …) and labels (N,) from 0 to classes − 1, or None, and put them on the device.

        uint8 stays uint8 and is divided by 255 as batches are gathered; bool (0 and 1), other integers and floats are
        taken as they are, see `check_samples`. dtype: "float32" where the samples are for a model of that dtype, to
        refuse what it cannot hold. copy=False: an x that lies on the device already is not copied; then
        whoever changes it changes the samples, unchecked.
        Raises ShapeError, DataError or InputError, naming `what` and the first offending row.
        """
        if not isinstance(backend, Backend):
            raise InputError(f"backend is {shown(backend)}: expected one of gn.get_backend(...)")
        if classes is not None:
            check_whole("classes", classes)
        if dtype is not None:
            check_one_of("dtype", dtype, DTYPES)
        x = check_samples(x, what)
        labels = None if labels is None else check_labels(labels, classes, what)
        check_lengths(x, np.arange(len(x)) if labels is None else labels, what)
        check_finite(x, what, dtype)
        held = backend.asarray(x)
        if check_flag("copy", copy) and held is x:
            held = backend.empty(x.shape, x.dtype)
            backend.copy(x, held)
        scale = 1 / 255 if x.dtype == np.uint8 else 1.0
        if labels is None:
            return cls(held, None, scale, 0, backend.name, dtype)
        return cls(held, backend.asarray(labels), scale, int(labels.max()) + 1, backend.name, dtype)
