"""A data set on the device, checked once and used by as many trainers as like.

What its numbers mean is the model's to say: see `scale` of `Sequential`.
"""

from __future__ import annotations

import sys
import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpunet.backend.base import Array, Backend
from gpunet.checks import (
    DTYPES,
    as_floats,
    check_finite,
    check_flag,
    check_labels,
    check_lengths,
    check_one_of,
    check_text,
    check_whole,
    on_device,
    on_host,
    real_array,
)
from gpunet.errors import DataError, InputError, ShapeError, shown
from gpunet.reprs import sizes

PIXELS = (
    "x is uint8, so the model sees x / 255, now and whenever it is used: gn.Sequential(…, scale=1/255) says the same, "
    "and scale=1 that it is to see x itself"
)
_told: set[str] = set()  # to this process


def tell_pixels(scale: float | None, x: Any) -> None:
    """Warn once of how pixels are read, where nobody has said it."""
    if scale is None and x.dtype == np.uint8 and PIXELS not in _told:
        _told.add(PIXELS)
        level, frame = 1, sys._getframe()
        while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("gpunet."):
            level, frame = level + 1, frame.f_back
        warnings.warn(PIXELS, stacklevel=level)


def check_samples(x: Any, what: str) -> Any:
    """x (samples, …) as an array whose dtype every backend gathers from: float16 is widened to float32, which is exact.

    bool, integers, float32 and float64 stay as they are; big-endian values are converted. Raises InputError for other
    dtypes, masked arrays and sparse matrices, ShapeError where x has no second axis, or samples hold no number.
    """
    check_text("what", what)
    x = real_array(x, f"{what}: x")
    if x.ndim < 2 or 0 in x.shape[1:]:
        raise ShapeError(f"{what}: x has shape {x.shape}, expected (samples, features)")
    if x.dtype != np.float16:
        return x
    with _beside(x):
        return x.astype("float32")


def _beside(x: Any) -> AbstractContextManager[Any]:
    """The GPU on which x lies made current, where it lies on one."""
    return x.device if on_device(x) else nullcontext()


@dataclass(frozen=True)
class Samples:
    """x (N, …) in its own dtype, labels (N,) int64 or targets (N, outputs) of floats, and weights (N,) of the samples.

    classes: one more than the largest label, 0 of targets; device: where they lie; dtype: of the targets and weights,
    and "float32" where x was seen to fit it.
    """

    x: Array
    labels: Array  # None where there are none
    classes: int
    device: str
    dtype: str | None = None
    weights: Array = None  # None where all count alike

    def __repr__(self) -> str:
        labels = f"targets {sizes(self.labels)}" if self.valued else f"labels up to {self.classes - 1}"
        labels = "no labels" if self.labels is None else labels
        weighted = "" if self.weights is None else ", weighted"
        return f"<Samples: {sizes(self.x)}, {self.x.dtype}, {labels}{weighted}, on {self.device}>"

    def __len__(self) -> int:
        return len(self.x)

    @property
    def valued(self) -> bool:
        """Whether they have targets of floats in place of classes."""
        return self.labels is not None and self.labels.dtype.kind == "f"

    def batches(self, size: int) -> int:
        """How many batches of `size` one pass takes, a last short one counted."""
        return -(-len(self) // check_whole("size", size))

    def spaced(self, most: int) -> Samples:
        """So many of the samples at most, evenly spaced, or all: copies."""
        return self._take(slice(None, None, -(-len(self) // check_whole("most", most))))

    def _take(self, rows: Array | slice) -> Samples:
        """Some of them: copies. rows: their numbers, an array on the samples' device, which copies, or a slice."""
        with _beside(self.x):
            some = {name: a[rows] for name in ("x", "labels", "weights") if (a := getattr(self, name)) is not None}
            return replace(self, **({name: a.copy() for name, a in some.items()} if isinstance(rows, slice) else some))

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
        outputs: int | None = None,
        weights: Any = None,
    ) -> Samples:
        """Check x (N, …) and labels (N,) from 0 to classes − 1, or None, and put them on the device.

        x keeps its dtype, see `check_samples`. dtype: "float32" where the samples are for a model of that dtype, to
        refuse what it cannot hold. copy=False: an x that lies on the device already is not copied; then
        whoever changes it changes the samples, unchecked. outputs: how many the model has, where labels may as well
        be targets of floats, (N, outputs), or (N,) for one output. weights: (N,) ≥ 0, what each sample counts.
        Raises ShapeError, DataError or InputError, naming `what` and the first offending row.
        """
        if not isinstance(backend, Backend):
            raise InputError(f"backend is {shown(backend)}: expected one of gn.get_backend(...)")
        if classes is not None:
            check_whole("classes", classes)
        if dtype is not None:
            check_one_of("dtype", dtype, DTYPES)
        x = given = check_samples(x, what)
        if on_device(x):  # which may be another
            x = backend.asarray(x)
        targets = None if labels is None or outputs is None else _targets(labels, outputs, what, dtype or "float64")
        if targets is not None:
            labels = targets
        elif labels is not None:
            try:
                labels = check_labels(labels, classes, what)
            except DataError as error:
                values = ", and values to be learned are floats: y.astype(float)" if outputs is not None else ""
                raise DataError(f"{error}; gn.Classifier takes labels of any kind{values}") from None
        check_lengths(x, np.arange(len(x) if labels is None else len(labels)), what)
        if weights is not None:
            weights = backend.asarray(_weights(weights, len(x), what, dtype or "float64"))
        with backend.session():
            check_finite(x, what, dtype)
        held = backend.asarray(x)
        if check_flag("copy", copy) and held is given:
            held = backend.empty(x.shape, x.dtype)
            backend.copy(x, held)
        classes = 0 if labels is None or targets is not None else int(labels.max()) + 1
        return cls(held, None if labels is None else backend.asarray(labels), classes, backend.name, dtype, weights)


def _targets(y: Any, outputs: int, what: str, dtype: str) -> Any:
    """y as floats (N, outputs); None where it is of integers, or of whole numbers that can only be classes."""
    given = on_host(y, f"{what}: y")
    if given.dtype.kind != "f":
        return None
    if given.ndim == 1:
        if outputs > 1 and bool((given == given.round()).all()):
            return None
        given = given[:, None]
    if given.ndim != 2 or given.shape[1] != outputs:
        raise ShapeError(
            f"{what}: y has shape {given.shape}, and the model {outputs} outputs: expected a value for each"
        )
    return as_floats(given, f"{what}: y", dtype=dtype)


def _weights(weights: Any, n: int, what: str, dtype: str) -> Any:
    """The samples' weights as floats (n,); DataError for a negative one, and where all are 0."""
    name = f"{what}: weights"
    given = real_array(on_host(weights, name), name)
    found = as_floats(given if given.dtype.kind == "f" else given.astype(np.float64), name, (n,), dtype)
    if bool((found < 0).any()):
        row = int((found < 0).argmax())
        raise DataError(f"{name}: that of row {row} is {found[row]}: expected numbers ≥ 0")
    if not bool((found > 0).any()):
        raise DataError(f"{name} are all 0: expected at least one sample that counts")
    return found
