"""The data of svd-init: normalised as document 000 says, and decomposed as a whole and class by class."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from gpunet.backend import Backend
from gpunet.errors import DataError
from gpunet.linalg import StreamingGram
from gpunet.nn.samples import Samples
from gpunet.spectral.svd_weights import RANK, FloatArray, Rows, shares, singular_rows, trace
from gpunet.timing import Times, interleave

WANTED = 100  # hidden units, the document's, where the data's rank and its smallest class give as many


@dataclass(frozen=True)
class Problem:
    """The data on the device, what the weights are made from, by "whole" and "each", and how long that took."""

    train: Samples
    test: Samples
    classes: int
    units: int
    second_moment: FloatArray
    mean: FloatArray
    rows: dict[str, Rows]
    times: Times

    @cached_property
    def x_square(self) -> float:
        """Mean of ‖x‖² over the training samples."""
        return trace(self.second_moment)


def normalise(x: Any, chunk: int = 4096) -> Any:
    """Each sample minus its own mean, divided by its own l2 norm: float32 (samples, features).

    A sample whose features are all equal has no direction and becomes zero.
    """
    out = np.empty(x.shape, np.float32)
    for start in range(0, len(x), chunk):
        part = x[start : start + chunk].astype(np.float64)
        exponent = np.frexp(np.abs(part).max(axis=1, keepdims=True))[1]
        np.ldexp(part, -exponent, out=part)  # exact; each row's largest is now in [½, 1), so that no square overflows
        part -= part.mean(axis=1, keepdims=True)
        norm = np.sqrt(np.einsum("ij,ij->i", part, part))[:, None]
        direction = norm > 1e-12  # less is the rounding of the mean
        np.divide(part, norm, out=part, where=direction)
        out[start : start + chunk] = np.where(direction, part, 0)
    return out


def prepare(data: Any, hidden: int | None, backend: Backend) -> Problem:
    """Normalise the data, put it on the device, and decompose it as a whole and class by class."""
    train, test = (
        Samples.of(backend, normalise(x), labels, data.classes, f"{what} data", copy=False)
        for x, labels, what in ((data.x_train, data.y_train, "training"), (data.x_test, data.y_test, "test"))
    )
    moment, mean = second_moment(train.x, backend)
    if not moment.any():
        raise DataError(f"{data.name}: every training sample has all features equal: less their mean, nothing is left")
    units = hidden or 0
    if hidden is None:
        most = min(WANTED, *train.x.shape)  # by the smaller of both, not by the eigenvalues of `moment`
        units = default_units(singular_rows(train.x, most, device=backend).values, np.bincount(data.y_train))
        units = supported_units(singular_rows(train.x, units, data.y_train, device=backend).values, data.classes)
    ways = {
        which: partial(singular_rows, train.x, units, labels, device=backend)
        for which, labels in (("whole", None), ("each", data.y_train))
    }
    rows = {which: decompose() for which, decompose in ways.items()}
    return Problem(train, test, data.classes, units, moment, mean, rows, interleave(ways, 3, warmup=0, pause=0))


def second_moment(x: Any, backend: Backend) -> tuple[FloatArray, FloatArray]:
    """(XᵀX/N, or of fewer samples than features its root X/√N; the mean) of samples on the device."""
    if len(x) < x.shape[1]:
        own = backend.to_host(x).astype(np.float64)
        return own / math.sqrt(len(own)), own.mean(axis=0)
    sums = StreamingGram(device=backend).update(x)
    return sums.density(), sums.mean


def supported_units(values: FloatArray, classes: int) -> int:
    """How many units every class can carry its share of: a class of repeated samples has fewer directions than rows."""
    real = values > RANK * values.max()
    ranks = [int(part.sum()) for part in np.split(real, np.cumsum(shares(len(values), classes))[:-1])]
    return len(values) if real.all() else max(1, min(ranks) * classes)


def default_units(values: FloatArray, counts: Any) -> int:
    """As many hidden units as singular values of the data are given, descending, fewer where some vanish or by class.

    Each class gives as many, and none more than it has samples.
    """
    rank = int((values > 1e-5 * values[0]).sum())
    return max(1, min(rank, len(counts) * int(counts.min())))
