"""patches: a dictionary of whitened patches, both signs, pooled; ridge regression on them. No gradient anywhere.

For an image patch p, less the mean patch, z = (C + ε)^−½ p. Dictionary: the z of patches drawn at random, each over its
norm. A patch is encoded as [⟨z, d⟩ > t‖z‖] and [−⟨z, d⟩ > t‖z‖] for each d, and an image as the mean of its patches'
encodings over each field of a grid: 2·D·grid² features. ⟨z, d⟩ and z are one product with p; comparisons and sums run
over blocks that lie in the caches. A smaller dictionary is the beginning of a larger one, so that all are encoded once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

import gpunet as gn
from gpunet.backend import Backend
from gpunet.errors import InputError
from gpunet.experiments.framework import Measured, Run
from gpunet.experiments.images import as_images, some_of
from gpunet.experiments.patches import Settings, x
from gpunet.rng import DATA, stream
from gpunet.spectral.ridge import ridge_of_rows

SIZE, SAMPLED = 6, 100_000  # pixels of the document's patches; patches that the covariance is estimated from
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # of which held-out training images choose
BLOCK = 1 << 19  # inner products of a block: 2 MB
ROWS, MOST = 4096, 20_000  # images whose features are multiplied at a time; features


def dictionary(images: Any, settings: Settings, whitening: float | None, seed: int) -> tuple[Any, Any, dict[str, Any]]:
    """(product, offset, how C was decomposed): p @ product − offset is ⟨z, d⟩ for all of the dictionary, then z itself.

    whitening: ε, None leaves the patches as they are.
    """
    size, draw = settings.size or SIZE, stream(seed, DATA, 21)
    most = (len(images.x_train), *(side - size + 1 for side in images.shape[1:]))
    image, row, column = (draw.integers(0, end, SAMPLED)[:, None, None, None] for end in most)
    channel, within = np.arange(images.shape[0])[:, None, None], np.arange(size)
    planes = images.x_train.reshape(-1, *images.shape)
    sample = planes[image, channel, row + within[:, None], column + within].reshape(SAMPLED, -1)
    scale = images.scale  # bytes are summed exactly, as they are
    pca = gn.StreamingGram(center=True).update(sample if scale < 1 else sample.astype(np.float32)).components()
    mean, root = scale * pca.mean, np.eye(len(pca.mean))
    if whitening is not None:
        variance = scale**2 * np.maximum(pca.explained_variance, 0)
        root = (pca.components.T / np.sqrt(variance + whitening)) @ pca.components
    z = (scale * sample[: max(settings.dictionaries)] - mean) @ root
    z /= np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)
    product = np.concatenate([root @ z.T, root], axis=1)
    how = {"route": pca.route, "residual": pca.residual}
    return product.astype(np.float32), (mean @ product).astype(np.float32), how


def encode(x: Any, shape: tuple[int, int, int], made: Sequence[Any], settings: Settings, backend: Backend) -> Any:
    """Shares of each field's patches that resemble each d, and its negative, in 255ths: (n, grid², 2, D) bytes."""
    size, count, rows, columns = settings.size or SIZE, made[0].shape[1] - made[0].shape[0], *_fields(shape, settings)
    out = np.empty((len(x), len(rows) * len(columns), 2, count), np.uint8)
    step = max(1, BLOCK // (rows[-1].stop * columns[-1].stop * count))
    narrow = "uint8" if max(c.stop - c.start for c in columns) < 256 else "uint16"  # holds the sum of a field's line
    with backend.session():
        xp, product, offset = backend.xp, *map(backend.asarray, made[:2])
        for start in range(0, len(x), step):
            part = backend.asarray(np.ascontiguousarray(x[start : start + step])).reshape(-1, *shape)
            windows = xp.lib.stride_tricks.sliding_window_view(part, (size, size), axis=(2, 3))
            p = xp.moveaxis(windows, 1, 3).astype(xp.float32).reshape(-1, len(made[0]))
            found = (p * xp.float32(1 / 255) if part.dtype == xp.uint8 else p) @ product - offset
            inner, z = found[:, :count], found[:, count:]
            bound = settings.threshold * xp.sqrt(xp.sum(z * z, axis=1, keepdims=True))
            for sign, near in enumerate((inner > bound, inner < -bound)):
                bits = near.view(xp.uint8).reshape(len(part), rows[-1].stop, columns[-1].stop, count)
                for place, (r, c) in enumerate((r, c) for r in rows for c in columns):
                    lines = xp.sum(bits[:, r, c], axis=2, dtype=narrow)
                    sums, area = xp.sum(lines, axis=1, dtype=xp.float32), (r.stop - r.start) * (c.stop - c.start)
                    out[start : start + step, place, sign] = backend.to_host(xp.rint(sums * (255 / area)))
    return out


def _fields(shape: tuple[int, int, int], settings: Settings) -> list[list[slice]]:
    """The rows and the columns of patches that each field of the grid takes; fewer fields where there are fewer."""
    sides = [side - (settings.size or SIZE) + 1 for side in shape[1:]]
    ends = [np.linspace(0, side, min(settings.grid, side) + 1).round().astype(int).tolist() for side in sides]
    return [[slice(a, b) for a, b in pairwise(each)] for each in ends]


def classify(images: Any, train: Any, test: Any, backend: Backend, seed: int) -> dict[str, float]:
    """Test accuracy of ridge regression on encodings, and the penalty that held-out training images chose."""
    rows, width = stream(seed, DATA, 22).permutation(len(train)), math.prod(train.shape[1:])

    def floats(part: Any) -> Any:
        return backend.asarray(part.reshape(len(part), -1).astype(np.float32))

    found = ridge_of_rows(
        lambda part: floats(train[part]), images.y_train, rows, width, images.classes, PENALTIES, backend, ROWS
    )
    parts = [slice(start, start + ROWS) for start in range(0, len(test), ROWS)]
    correct = sum(found.correct(floats(test[part]), images.y_test[part], backend) for part in parts)
    return {"test_accuracy": correct / len(test), "penalty": found.penalty}


@x.run
def body(run: Run) -> None:
    """Every dictionary on all images, then every whitening with the smallest one on some."""
    images, settings = as_images(run.data, "patches", run.settings.size or 3), run.settings
    run.settings = settings = replace(settings, size=settings.size or min(SIZE, min(images.shape[1:]) // 2))
    sizes = sorted(set(settings.dictionaries))
    rows, columns = map(len, _fields(images.shape, settings))
    features = 2 * sizes[-1] * rows * columns
    if features > MOST:
        given = f"{sizes[-1]} patches on a grid of {rows}×{columns} are {features:,} features"
        raise InputError(f"{given}: expected at most {MOST:,}; use fewer, or a smaller --grid")
    _measure(run, images, settings, settings.whitening, {f"{count} patches": count for count in sizes})
    some, first = some_of(images, settings.sweep_samples), replace(settings, dictionaries=(sizes[0],))
    run.note(sweep_training_samples=len(some.x_train))
    swept = {f"{whitening:g}": whitening for whitening in (*settings.whitenings, settings.whitening)}
    for word, whitening in (swept | {"none": None}).items():
        _measure(run, some, first, whitening, {f"whitening={word}": sizes[0]})


def _measure(run: Run, images: Any, settings: Settings, whitening: float | None, names: dict[str, int]) -> None:
    """A row for each dictionary: its encodings are the beginning of the largest one's."""
    rows: dict[str, list[Measured]] = {name: [] for name in names}
    for seed in run.over_seeds(", ".join(names), len(names)):
        began = time.perf_counter()
        made = dictionary(images, settings, whitening, seed)
        train, test = (encode(x, images.shape, made, settings, run.backend) for x in (images.x_train, images.x_test))
        encoded = time.perf_counter() - began
        for name, count in names.items():
            began = time.perf_counter()
            found = classify(images, train[..., :count], test[..., :count], run.backend, seed)
            seconds = {"encode": encoded, "head": time.perf_counter() - began}
            rows[name].append(Measured(found, seconds=seconds, notes={"svd": made[2]}))
            run.bar.advance(1, f"{name}: {found['test_accuracy']:.2%}")
    for name, each in rows.items():
        run.enter(name, each)
