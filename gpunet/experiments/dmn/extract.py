"""Frozen layers as a function of the data: fitted one after the other, their outputs computed once and kept."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpunet.backend.base import Array, Backend
from gpunet.checks import check_labels, check_lengths
from gpunet.errors import InputError, ShapeError
from gpunet.layers import Flatten, Layer
from gpunet.layers.fitted import Fit, FittedLayer, Thresholds, chosen_rows
from gpunet.layers.flatten import Reshape
from gpunet.linalg.place import on_host, some_rows
from gpunet.model import Sequential
from gpunet.samples import check_samples

BATCH, GPU_BATCH = 250, 1000  # images at a time: on a CPU the maps of many filters still lie in the caches
JOINED = 1 << 27  # bytes of a layer's inputs at a time, while the next is fitted
LIMIT = 1 << 30  # bytes of features in the device's memory; more spill to the host, and there to a file


class Extractor:
    """The outputs of a chain of layers as rows of features.

    layers: built and weighted by their drawings (fitted ones hold their weights); copied, so that a model of the same
    layers is not disturbed. input_shape: of one sample.
    """

    def __init__(self, layers: Sequence[Layer], input_shape: tuple[int, ...], backend: Backend, seed: int = 0) -> None:
        self.backend = backend
        self.on_gpu = backend.name.startswith("cuda")
        self.batch = GPU_BATCH if self.on_gpu else BATCH
        self.model = Sequential([*(copy.copy(layer) for layer in layers), Flatten()])
        self.model.build(input_shape, backend, seed=seed)
        self.model.bind(self.batch)
        self._x = backend.empty((self.batch, *input_shape), "float32")
        self._cursor = backend.zeros(1, "int64")
        (self.features,) = self.model.output_shape
        self.shape = self.model._shapes[-2]  # before they were flattened

    def batches(self, x: Any, rows: Any = None) -> Iterator[tuple[slice, Array]]:
        """(place, features (≤ batch, features) on the device, valid until the next) of x, or of some rows of it.

        x (n, …) on host or device, of dtypes as in `Trainer`; uint8 is read as fractions of 255.
        """
        x = check_samples(x, "data")
        if math.prod(x.shape[1:]) != math.prod(self._x.shape[1:]):
            raise ShapeError(f"data: samples have shape {x.shape[1:]}, the layers take {self._x.shape[1:]}")
        rows = np.arange(len(x)) if rows is None else on_host(rows)
        scale = 1 / 255 if x.dtype == np.uint8 else 1.0
        ops = self.backend
        with ops.session():
            for start in range(0, len(rows), self.batch):
                part = rows[start : start + self.batch]
                n, picked = len(part), ops.asarray(some_rows(x, part, ops).reshape(len(part), *self._x.shape[1:]))
                self.model.use(n)
                ops.gather(picked, ops.asarray(np.arange(n)), self._cursor, scale, self._x[:n])
                yield slice(start, start + n), self.model.forward(self._x[:n])

    def transform(self, x: Any, *, limit: int = LIMIT, folder: str | Path | None = None) -> Any:
        """Features (n, features) float32 of all of x: in the device's memory, above `limit` bytes in a mapped file.

        On a GPU they stay there up to `limit` bytes, and more of them come to the host. The file lies in `folder` (the
        system's temporary folder by default) and is gone when the array is.
        """
        x = check_samples(x, "data")
        shape = (len(x), self.features)
        if self.on_gpu and 4 * shape[0] * shape[1] <= limit:
            kept = self.backend.empty(shape)
            for place, features in self.batches(x):
                self.backend.copy(features, kept[place])
            return kept
        out = np.empty(shape, np.float32) if 4 * shape[0] * shape[1] <= limit else mapped(shape, folder)
        for place, features in self.batches(x):
            out[place] = self.backend.to_host(features)
        return out


def mapped(shape: tuple[int, int], folder: str | Path | None = None) -> Any:
    """A float32 array in a file without a name, which the system removes when nobody uses it any more."""
    with tempfile.TemporaryFile(dir=folder, prefix="gpunet-features-") as file:
        return np.memmap(file, np.float32, "w+", shape=shape)


def fit_stack(
    layers: Sequence[Layer],
    x: Any,
    labels: Any,
    thresholds: Sequence[Thresholds],
    backend: Backend,
    *,
    seed: int = 0,
) -> list[Fit]:
    """Fit the layers that can be (document 002, section 3), each on the outputs of those below it.

    x: (n, *input shape), uint8 or floats; labels: (n,), classes from 0; thresholds: one for each layer that can be
    fitted. The data is streamed once a layer: neither patches nor outputs are ever all in memory.
    """
    places = [i for i, layer in enumerate(layers) if isinstance(layer, FittedLayer)]
    if len(places) != len(thresholds):
        raise InputError(f"{len(places)} layers to fit and {len(thresholds)} thresholds: expected one for each")
    x, labels, fits = check_samples(x, "data"), check_labels(labels, None, "data"), []
    check_lengths(x, labels, "data")
    for place, each in zip(places, thresholds, strict=True):
        layer, rows = layers[place], chosen_rows(labels, each.fraction, seed)
        assert isinstance(layer, FittedLayer)
        inputs = _inputs(layers[:place], x, labels, rows, backend)
        fits.append(layer.fit_batches(inputs, each, backend))
    return fits


def _inputs(below: Sequence[Layer], x: Any, labels: Any, rows: Any, backend: Backend) -> Iterator[tuple[Any, Any]]:
    """A layer's inputs and labels, some JOINED bytes at a time, so that every class has many images in each piece."""
    if all(isinstance(layer, Reshape) for layer in below):  # uint8 stays uint8
        shape = tuple(x.shape[1:])
        for layer in below:
            shape = layer.spec(shape).output
        size = max(1, JOINED // (4 * math.prod(shape)))
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            yield some_rows(x, part, backend).reshape(len(part), *shape), labels[part]
        return
    extractor = Extractor(below, tuple(x.shape[1:]), backend)
    size = max(extractor.batch, JOINED // (4 * extractor.features))
    joined = backend.empty((size, extractor.features))
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        for place, features in extractor.batches(x, part):
            backend.copy(features, joined[place])
        yield joined[: len(part)].reshape(len(part), *extractor.shape), labels[part]
