"""The rivals of "trained using SGD": ConvNets and heads by three optimisers, for long, and DMNs of other maps.

The document says nothing of rates, epochs and pixels. Optimisers are as Keras has them by default; all rates stay what
they are. RMSprop is Adam without its first moment, whose second is corrected for its start, which Keras' is not. The
authors' early code (github.com/nimadehmamy/DMN, MNIST) has linear maps, each image's maps standardised before the last
pooling and not between layers, Adam, 50 epochs, and pixels of 0 to 255 for the DMN alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

import gpunet as gn
from gpunet.backend.base import Backend
from gpunet.experiments.dmn.extract import features, fit_stack
from gpunet.experiments.dmn.nets import body, told, train_convnet, train_net
from gpunet.experiments.framework import Measured, Run
from gpunet.nn.optim import Optimizer
from gpunet.spectral.fitted import Fit, Thresholds

OPTIMIZERS: dict[str, Callable[[], Optimizer]] = {
    "SGD": lambda: gn.SGD(0.01),
    "RMSprop": lambda: gn.Adam(1e-3, beta1=0.0, beta2=0.9, epsilon=1e-7),
    "Adam": lambda: gn.Adam(1e-3),
}
PIXELS = {"scaled": 1 / 255, "raw": 1.0}  # of uint8; what is linear in them, as our maps are, is multiplied by 255
# What heads see. Maps that were standardised are the same of raw pixels; both signs are of half as many vectors.
MAPS = {"relu": ("scaled", "raw"), "both signs": ("scaled",), "standardised": ("scaled",)}
BLOCK = 1000  # images whose maps are standardised at a time


def convnet_row(width: str, optimizer: str, pixels: str) -> str:
    """The name of a ConvNet's row."""
    return f"rival convnet {width} {optimizer} {pixels}"


def dmn_row(width: str, maps: str, optimizer: str, pixels: str) -> str:
    """The name of a DMN's row."""
    return f"rival dmn {width} {maps} {optimizer} {pixels}"


def rivals(run: Run) -> None:
    """A row for each ConvNet and each DMN, of as many filters as the last of the run's nets has."""
    shares = run.settings.widths[-1]
    ours = next(row for row, found in run.result.notes["shares"].items() if list(shares) in found)
    by_layer = [run.result.values(ours, f"filters_{i + 1}") for i in range(len(shares))]
    widths = dict(zip(run.seeds, ([int(count) for count in seed] for seed in zip(*by_layer, strict=True)), strict=True))
    width = ours.removeprefix("dmn ")
    run.note(rivals=width)
    steps = -(-len(run.data.x_train) // run.settings.batch_size) * run.settings.rivals
    for pixels in PIXELS:
        for optimizer in OPTIMIZERS:
            train = partial(_convnet, run, widths, optimizer, pixels)
            run.each_seed(convnet_row(width, optimizer, pixels), steps, train)
    for maps, every in MAPS.items():
        heads = [(optimizer, pixels) for pixels in every for optimizer in OPTIMIZERS]
        seeds = run.over_seeds(f"{len(heads)} heads on {maps} maps", steps * len(heads))
        found = [_heads(run, maps, heads, widths[seed], seed) for seed in seeds]
        for head, of_seeds in zip(heads, zip(*found, strict=True), strict=True):
            run.enter(dmn_row(width, maps, *head), of_seeds)


def _convnet(run: Run, widths: dict[int, list[int]], optimizer: str, pixels: str, seed: int) -> Measured:
    scale = PIXELS[pixels] if run.data.x_train.dtype == np.uint8 else PIXELS[pixels] / PIXELS["scaled"]
    known = {"total": run.settings.rivals, "optimizer": OPTIMIZERS[optimizer](), "scale": scale, "diverges": True}
    return train_convnet(run, widths[seed], seed, **known)


def _heads(run: Run, maps: str, heads: list[tuple[str, str]], widths: list[int], seed: int) -> list[Measured]:
    """The maps are computed once for all heads."""
    images, settings, found = run.data, run.settings, []
    thresholds = [
        Thresholds(share, settings.correlation, settings.fraction, settings.center, count)
        for share, count in zip(settings.widths[-1], widths, strict=True)
    ]
    fits, layers = fitted(maps, images, thresholds, run.backend, seed)
    compute = standardised if maps == "standardised" else features
    xs = compute(layers, images.x_train, run.backend), compute(layers, images.x_test, run.backend)
    made = [layer.filters for layer in layers if isinstance(layer, gn.Conv2D)]
    for optimizer, pixels in heads:
        head = train_net(
            run, [gn.Dense(images.classes)], xs, made, seed, total=settings.rivals, optimizer=OPTIMIZERS[optimizer](),
            scale=PIXELS[pixels] / PIXELS["scaled"], diverges=True,
        )  # fmt: skip
        found.append(replace(head, notes=head.notes | {"svd": [told(fit) for fit in fits]}))
    return found


def fitted(
    maps: str, images: Any, thresholds: list[Thresholds], backend: Backend, seed: int
) -> tuple[list[Fit], list[gn.Layer]]:
    """The layers of a DMN, fitted with at most the thresholds' `most` filters each, of both signs two at least."""
    both = maps == "both signs"
    layers = body(images.shape, [1] * len(thresholds), "identity" if maps == "standardised" else "relu")
    most = [each.most and max(1, each.most // 2) if both else each.most for each in thresholds]
    few = [replace(each, most=count) for each, count in zip(thresholds, most, strict=True)]
    return fit_stack(layers, images.x_train, images.y_train, few, backend, seed=seed, both_signs=both), layers


def standardised(layers: list[gn.Layer], x: Any, backend: Backend) -> Any:
    """As `features`, the last layer's maps z standardised before they are pooled: (z − mean)/deviation over a map.

    A map that is constant, up to rounding, becomes zeros.
    """
    last = copy.copy(layers[-1])
    assert isinstance(last, gn.Conv2D)
    pool, last.pool, shape = last.pool, 1, tuple(x.shape[1:])
    bare, found = [*layers[:-1], last], []
    for layer in bare:
        shape = layer.spec(shape).output
    rows, columns = shape[1] // pool, shape[2] // pool
    for start in range(0, len(x), BLOCK):
        part = np.arange(start, min(start + BLOCK, len(x)))
        with backend.session():
            z = features(bare, x, backend, part).reshape(-1, *shape)
            mean, deviation = z.mean(axis=(2, 3), keepdims=True), z.std(axis=(2, 3), keepdims=True)
            z = (z - mean) / backend.xp.where(deviation > 1e-6 * abs(mean), deviation, np.inf)
            z = z[:, :, : rows * pool, : columns * pool].reshape(*z.shape[:2], rows, pool, columns, pool)
            found.append(z.max(axis=(3, 5)).reshape(len(part), -1))
    with backend.session():
        return backend.xp.concatenate(found)
