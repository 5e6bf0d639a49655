"""The data of svd-init: normalised as document 000 says, and decomposed as a whole and class by class."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpunet.backend import Backend
from gpunet.errors import DataError
from gpunet.linalg import StreamingGram
from gpunet.samples import Samples
from gpunet.spectral.svd_weights import RANK, FloatArray, Rows, shares, singular_rows


@dataclass(frozen=True)
class Problem:
    """The data on the device, and what the weights are made from."""

    train: Samples
    test: Samples
    classes: int
    units: int
    second_moment: FloatArray
    mean: FloatArray
    x_square: float
    rows: dict[str, Rows]
    seconds: dict[str, float]

    @property
    def found(self) -> dict[str, list[dict[str, Any]]]:
        """How the decompositions were made: route, residual and what else `SVD.summary` says of each."""
        return {which: list(rows.found) for which, rows in self.rows.items()}


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
    train = Samples.of(backend, normalise(data.x_train), data.y_train, data.classes, "training data", copy=False)
    sums = StreamingGram(device=backend).update(train.x)
    moment = sums.density()
    if not moment.any():
        raise DataError(f"{data.name}: every training sample has all features equal: less their mean, nothing is left")
    units = hidden or default_units(moment, np.bincount(data.y_train))
    rows, seconds = decompose(train.x, data.y_train, units, backend)
    supported = supported_units(rows["each"].values, data.classes)
    if hidden is None and supported < units:
        units = supported
        rows, seconds = decompose(train.x, data.y_train, units, backend)
    return Problem(
        train=train,
        test=Samples.of(backend, normalise(data.x_test), data.y_test, data.classes, "test data", copy=False),
        classes=data.classes,
        units=units,
        second_moment=moment,
        mean=sums.mean,
        x_square=float(np.trace(moment)),
        rows=rows,
        seconds=seconds,
    )


def decompose(
    x: Any, labels: Any, units: int, backend: Backend | None = None
) -> tuple[dict[str, Rows], dict[str, float]]:
    """Singular vectors and values of x whole and class by class, and the seconds that each takes: medians of three."""
    rows: dict[str, Rows] = {}
    times: dict[str, list[float]] = {"whole": [], "each": []}
    for _ in range(3):
        for which, of in (("whole", None), ("each", labels)):
            began = time.perf_counter()
            rows[which] = singular_rows(x, units, of, device=backend)
            times[which].append(time.perf_counter() - began)
    return rows, {which: sorted(seconds)[1] for which, seconds in times.items()}


def supported_units(values: FloatArray, classes: int) -> int:
    """How many units every class can carry its share of: a class of repeated samples has fewer directions than rows."""
    parts = np.split(values, np.cumsum(shares(len(values), classes))[:-1])
    ranks = [int((part > RANK * values.max()).sum()) for part in parts]
    if all(rank == len(part) for rank, part in zip(ranks, parts, strict=True)):
        return len(values)
    return max(1, min(ranks) * classes)


def default_units(moment: FloatArray, counts: Any, wanted: int = 100) -> int:
    """The document's 100 hidden units, or fewer where the data's rank or its smallest class cannot give them."""
    values = np.linalg.eigvalsh(moment)
    rank = int((values > 1e-10 * values[-1]).sum())
    return max(1, min(wanted, rank, len(counts) * int(min(counts.min(), len(moment)))))
