"""Frozen layers as a function of the data: fitted one after the other, their outputs computed once and kept."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gpunet.backend.base import Backend
from gpunet.checks import check_labels, check_lengths
from gpunet.linalg.device import some_rows
from gpunet.nn.layers import Conv2D, Flatten, Layer
from gpunet.nn.layers.flatten import Reshape
from gpunet.nn.model import Sequential
from gpunet.nn.samples import check_samples
from gpunet.spectral.fitted import Fit, Thresholds, can_fit, chosen_rows, fit_batches

BATCH, GPU_BATCH = 250, 1000  # images at a time: on a CPU the maps of many filters still lie in the caches
JOINED = 1 << 27  # bytes of a layer's inputs at a time, while the next is fitted
LIMIT = 1 << 30  # bytes of features in the device's memory; more spill to a file


def features(layers: Sequence[Layer], x: Any, backend: Backend, rows: Any = None, out: Any = None) -> Any:
    """The layers' outputs of x, or of some rows of it, as (n, features) float32 on the device.

    layers: fitted ones hold their weights, others draw theirs; x (n, …): on host or device, of dtypes as in `Trainer`,
    uint8 is read as fractions of 255. Above LIMIT bytes the outputs lie in a temporary file, mapped on the host, that
    has no name and is gone when the array is. out: where on the device they are to be written instead.
    """
    x, batch = check_samples(x, "data"), GPU_BATCH if backend.name.startswith("cuda") else BATCH
    rows = np.arange(len(x)) if rows is None else rows
    model = Sequential([*map(copy.copy, layers), Flatten()])  # copies: a model of the same layers is not disturbed
    model.build(tuple(x.shape[1:]), backend)
    model.bind(batch)
    shape = len(rows), *model.output_shape
    if inside := out is not None or 4 * math.prod(shape) <= LIMIT:
        out = backend.empty(shape) if out is None else out
    else:
        with tempfile.TemporaryFile(prefix="gpunet-features-") as file:
            out = np.memmap(file, np.float32, "w+", shape=shape)
    inputs, cursor = backend.empty((batch, *x.shape[1:])), backend.zeros(1, "int64")
    with backend.session():
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            n, picked = len(part), backend.asarray(some_rows(x, part, backend))
            model.set_batch_size(n)
            backend.gather(picked, backend.asarray(np.arange(n)), cursor, model._scale_of(x), inputs[:n])
            found, place = model.forward(inputs[:n]), out[start : start + n]
            if inside:
                backend.copy(found, place)
            else:
                place[...] = backend.to_host(found)
    return out


def fit_stack(
    layers: Sequence[Layer], x: Any, labels: Any, thresholds: Sequence[Thresholds], backend: Backend, *, seed: int = 0,
    both_signs: bool = False,
) -> list[Fit]:  # fmt: skip
    """Fit the layers that can be (document 002, section 3), each on the outputs of those below it.

    x: (n, *input shape), uint8 or floats; labels: (n,), classes from 0; thresholds: one for each layer that can be
    fitted; both_signs: each vector w becomes two rows, w and −w, which a ReLU tells apart. The data is streamed once a
    layer: neither patches nor outputs are ever all in memory.
    """
    fitted = [(place, layer) for place, layer in enumerate(layers) if can_fit(layer)]
    x, labels, fits = check_samples(x, "data"), check_labels(labels, None, "data"), []
    check_lengths(x, labels, "data")
    for (place, layer), each in zip(fitted, thresholds, strict=True):
        rows = chosen_rows(labels, each.fraction, seed)
        fits.append(fit_batches(layer, _inputs(layers[:place], x, labels, rows, backend), each, backend))
        if both_signs:
            weight, bias = layer.start["weight"], layer.start["bias"]
            layer.start = {"weight": np.concatenate([weight, -weight]), "bias": np.concatenate([bias, bias])}
            setattr(layer, "filters" if isinstance(layer, Conv2D) else "units", 2 * len(bias))
    return fits


def _inputs(below: Sequence[Layer], x: Any, labels: Any, rows: Any, backend: Backend) -> Iterator[tuple[Any, Any]]:
    """A layer's inputs and labels, some JOINED bytes at a time, so that every class has many images in each piece."""
    raw, shape = all(isinstance(layer, Reshape) for layer in below), tuple(x.shape[1:])  # raw uint8 stays uint8
    for layer in below:
        shape = layer.spec(shape).output
    size = max(1, JOINED // (4 * math.prod(shape)))
    joined: Any = None if raw else backend.empty((min(size, len(rows)), math.prod(shape)))  # one: new pages cost time
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        inputs = some_rows(x, part, backend) if raw else features(below, x, backend, part, joined[: len(part)])
        yield inputs.reshape(len(part), *shape), labels[part]
