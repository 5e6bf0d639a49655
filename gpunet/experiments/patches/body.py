"""patches: a dictionary of whitened patches as the filters of a convolution, and a head in closed form. No gradient.

For an image patch p, C the patches' covariance and m their mean, z = (C + ε)^−½ (p − m). The dictionary: the z of
patches drawn at random, each over its norm, and made better by k-means. A patch is encoded by max(⟨z, d⟩ − t, 0) and
max(−⟨z, d⟩ − t, 0) for each d, an image by their means over large windows, and ridge regression classifies it. ⟨z, d⟩
is linear in p, so all of it is an ordinary network: Conv2D with ReLU and average pooling in one, whose maps are never
in memory, Flatten, Dense.

Mirrored images are images of the same class. Were the training set doubled by them, the best head would be one that
takes an image and its mirror image for the same, since the penalised sum of squares is convex and symmetric: so
it is fitted to what a patch and its mirror image give together, on half as many features, and no image is seen twice.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

import numpy as np

import gpunet as gn
from gpunet.errors import DataError, InputError
from gpunet.experiments.framework import Measured, Run
from gpunet.experiments.images import as_images, some_of, squares
from gpunet.experiments.patches import Settings, x
from gpunet.rng import DATA, stream
from gpunet.spectral.ridge import WIDE, ridge_of_rows
from gpunet.spectral.tiled import TILE

USUAL = {"size": 6, "whitening": 1e-3, "grid": 2}  # the first two are the document's; and …
OWN = {"mnist": {"size": 10, "whitening": 0.3, "grid": 4}}  # … what held-out images chose
SWEPT: dict[str, tuple[Any, ...]] = {
    "threshold": (0.0, 0.15, 0.6, 1.0), "grid": (1, 2, 3, 4), "size": (4, 5, 6, 7, 8),
    "mirrored": (False, True), "refinements": (0, 1, 8),
}  # fmt: skip
NONE = 1e12  # no ε, but no whitening: √ε (C + ε)^−½ is 1, but for a trillionth, with ε so many largest variances
SAMPLED = 100_000  # patches that the covariance is estimated from
PER_FILTER = 100  # patches that k-means looks at for each of the dictionary, where so many were drawn
PENALTIES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)  # of which held-out training images choose
HELD = 2 << 30  # bytes of features that are kept, and once more while they are trained on
BATCH, ROWS, MOST = 250, 2500, 40_000  # images encoded at a time, images multiplied at a time; features of a head


def filters(images: Any, settings: Any, count: int, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """weight (filters, planes, size, size) and bias (filters,) of the convolution; and how C was decomposed.

    settings: those of a run, without a None. Filters: of the patches, then of their mirror images, then of the
    negatives of both.
    """
    size, draw = settings.size, stream(seed, DATA, 21)
    most = (len(images.x_train), *(side - size + 1 for side in images.shape[1:]))
    image, row, column = (draw.integers(0, end, SAMPLED)[:, None, None, None] for end in most)
    channel, within = np.arange(images.shape[0])[:, None, None], np.arange(size)
    planes = images.x_train.reshape(-1, *images.shape)
    sample = planes[image, channel, row + within[:, None], column + within]
    gram, scale = gn.StreamingGram(center=True), images.scale  # bytes are summed exactly, as they are
    for each in (sample, sample[..., ::-1])[: 1 + settings.mirrored]:
        each = np.ascontiguousarray(each).reshape(SAMPLED, -1)
        gram.update(each if scale < 1 else each.astype(np.float32))
    pca = gram.components()
    mean, variance = scale * pca.mean, scale**2 * np.maximum(pca.explained_variance, 0)
    epsilon, unit = settings.whitening, 1.0
    if epsilon == NONE:  # √ε (C + ε)^−½
        epsilon = unit = NONE * (variance.max() or 1.0)
    root = (pca.components.T / np.sqrt((variance + epsilon) / unit)) @ pca.components
    drawn = scale * sample.reshape(SAMPLED, -1)[: (PER_FILTER if settings.refinements else 1) * count]
    z = refined((drawn - mean) @ root, count, settings.refinements)
    if settings.mirrored:
        z = np.concatenate([z, z.reshape(count, *images.shape[:1], size, size)[..., ::-1].reshape(count, -1)])
    weight = z @ root
    offset, spread = weight @ mean, math.sqrt(np.mean((weight @ pca.components.T) ** 2 @ variance))
    bias = np.concatenate([-offset, offset]) - settings.threshold * spread
    weight = np.concatenate([weight, -weight]).reshape(-1, images.shape[0], size, size)
    return {"weight": weight, "bias": bias}, {"route": pca.route, "residual": pca.residual}


def check_sizes(images: Any) -> None:
    """DataError for floats that are far from pixels: squares of theirs would be lost or overflow."""
    size = float(np.abs(images.x_train).max()) if images.x_train.dtype != np.uint8 else 1.0
    if not 1 / WIDE < size < WIDE:
        raise DataError(
            f"{images.name}: the largest number of the training images is {size:.3g}: expected some size between "
            f"{1 / WIDE:g} and {WIDE:g}, best from 0 to 1; scale them"
        )


def refined(z: Any, count: int, rounds: int) -> Any:
    """The first `count` rows, each over its norm; then rounds of gain-shape k-means on all of them.

    Every z belongs to the d of largest |⟨z, d⟩|, and d becomes the direction of itself and of Σ ⟨z, d⟩ z over its own
    (OMP-1: Coates & Ng 2011, The Importance of Encoding Versus Training with Sparse Coding and Vector Quantization).
    """
    found = _unit(z[:count])
    for _ in range(rounds):
        total = found.copy()
        for start in range(0, len(z), ROWS):
            part = z[start : start + ROWS].astype(np.float32)
            inner = part @ found.T.astype(np.float32)
            nearest = np.abs(inner).argmax(axis=1)
            np.add.at(total, nearest, inner[np.arange(len(part)), nearest, None] * part)
        found = _unit(total)
    return found


def _unit(rows: Any) -> Any:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def features_of(settings: Any, count: int) -> int:
    """How many numbers an image is for a head: both signs of every patch of the dictionary, in every window."""
    return 2 * count * int(settings.grid) ** 2


class Encoder:
    """Layers that are computed, as a network without a head, and the seconds that it has spent."""

    def __init__(self, run: Run, images: Any, settings: Any, count: int, seed: int) -> None:
        began = time.perf_counter()
        self.images, self.settings, self.backend = images, settings, run.backend
        self.made, self.how = filters(images, settings, count, seed)
        self.net, self.features = self.network(), features_of(settings, count)
        self.seconds = {"dictionary": time.perf_counter() - began, "encode": 0.0}

    def network(self, *head: gn.Layer) -> gn.Sequential:
        """From an image to its features, means over windows that cover all positions, and on to a head's scores."""
        positions = self.images.shape[1] - self.settings.size + 1
        stride = positions // self.settings.grid
        conv = gn.Conv2D(
            len(self.made["bias"]), self.settings.size, "relu", pool=positions - (self.settings.grid - 1) * stride,
            pooling="average", pool_stride=stride, trainable=False, **self.made,
        )  # fmt: skip
        net = gn.Sequential([gn.Reshape(self.images.shape), conv, gn.Flatten(), *head], scale=self.images.scale)
        net.build((self.images.x_train.shape[1],), self.backend)
        return net

    def __call__(self, x: Any) -> Any:
        """Features (n, 2·D·grid²) of images, float32 on the host: sign, patch, row and column of the window.

        Of a patch and its mirror image the sum: the mirror image of an image has the same features.
        """
        began, side = time.perf_counter(), self.settings.grid
        found = np.empty((len(x), self.features), np.float32)
        for start in range(0, len(x), BATCH):
            part = self.net.outputs(x[start : start + BATCH], batch_size=BATCH)
            if self.settings.mirrored:
                halves = part.reshape(len(part), 2, 2, -1, side, side)
                part = halves[:, :, 0] + halves[:, :, 1, ..., ::-1]
            found[start : start + BATCH] = part.reshape(len(part), -1)
        self.seconds["encode"] += time.perf_counter() - began
        return found

    def with_head(self, weight: Any, bias: Any) -> gn.Sequential:
        """The whole network, of a head (classes, features): a patch's weights, and its mirror image's the same."""
        if self.settings.mirrored:
            halves = weight.reshape(len(weight), 2, -1, self.settings.grid, self.settings.grid)
            weight = np.stack([halves, halves[..., ::-1]], axis=2)
        return self.network(gn.Dense(len(weight), weight=weight.reshape(len(weight), -1), bias=bias))


def in_closed_form(run: Run, encode: Encoder, seed: int) -> tuple[Measured, gn.Sequential]:
    """Ridge regression, its penalty chosen by held-out training images, and the whole network, which is tested."""
    began, images, before = time.perf_counter(), encode.images, encode.seconds["encode"]
    rows, width = stream(seed, DATA, 22).permutation(len(images.x_train)), encode.features

    def features(part: Any) -> Any:
        run.bar.advance(len(part))
        return encode(images.x_train[part])

    tiled = (width > TILE) if len(rows) > width else None  # of few images, what takes the least memory
    try:
        found = ridge_of_rows(
            features, images.y_train, rows, width, images.classes, PENALTIES, run.backend, ROWS, tiled, True, run.bar
        )
    except InputError as error:
        raise InputError(
            f"{images.name}: these features allow no head ({error}); try a lower --threshold, another --whitening, or "
            "more images"
        ) from None
    encode.seconds["head"] = time.perf_counter() - began - (encode.seconds["encode"] - before)
    net = encode.with_head(found.weight, found.bias)
    correct = net.predict(images.x_test, batch_size=BATCH) == images.y_test
    metrics = {"test_accuracy": float(correct.mean()), "penalty": found.penalty, "features": float(width)}
    return Measured(metrics, seconds=encode.seconds, notes={"svd": encode.how}), net


def by_adam(run: Run, encode: Encoder, seed: int) -> Measured:
    """A head trained on the same features, each of variance 1, to compare."""
    images, settings = encode.images, encode.settings
    train, test = (encode(x) for x in (images.x_train, images.x_test))
    mean, spread = train.mean(axis=0), train.std(axis=0)
    for part in (train, test):
        part -= mean
        part /= np.where(spread > 0, spread, 1)
    net = gn.Sequential([gn.Dense(images.classes)])
    trainer = gn.Trainer(net, optimizer=gn.Adam(settings.head_rate), device=run.backend, seed=seed)
    history = trainer.fit(
        train, images.y_train, epochs=settings.head_epochs, batch_size=settings.head_batch,
        callbacks=gn.ExponentialDecay(settings.head_decay ** (1 / settings.head_epochs)),
    )  # fmt: skip
    seconds = encode.seconds | {"head": sum(history["seconds"])}
    return Measured({"test_accuracy": trainer.evaluate(test, images.y_test)["accuracy"]}, seconds=seconds)


@x.run
def body(run: Run) -> None:
    """Every dictionary on all images, a head by Adam on the smallest; with that one setting changed at a time."""
    images, settings = squares(as_images(run.data, "patches", run.settings.size or 3)), run.settings
    check_sizes(images)
    if NONE in (settings.whitening, *settings.whitenings):
        raise InputError(f"whitening is {NONE:g}, which stands for none at all: that is measured beside the others")
    as_loaded = images.x_train is run.data.x_train  # neither turned nor cut: what the networks take is what was given
    if not as_loaded:
        run.note(kept="no networks: they would take images other than those given, turned or cut to their middle")
    run.settings = settings = _settled(settings, images, USUAL | OWN.get(run.dataset, {}))
    features = features_of(settings, max(settings.dictionaries))
    if features > MOST:
        windows = f"{settings.grid}×{settings.grid} windows"
        given = f"{max(settings.dictionaries)} patches with {windows} are {features:,} features"
        raise InputError(f"{given}: expected at most {MOST:,}; use fewer, or a smaller --grid")
    sizes = sorted(set(settings.dictionaries))
    for count in sizes:
        name = f"{count} patches"
        run.enter(name, _measure(run, name, images, settings, count, keep=as_loaded))
    if settings.head_epochs and _few(run, features_of(settings, sizes[0]), len(images.x_train) + len(images.x_test)):
        name = f"{sizes[0]} patches, head by Adam"
        run.each_seed(
            name, len(images.x_train), lambda seed: by_adam(run, Encoder(run, images, settings, sizes[0], seed), seed)
        )
    if settings.sweeps:
        _sweep(run, some_of(images, settings.sweep_samples), sizes[0])


def _few(run: Run, features: int, samples: int) -> bool:
    """Whether the features of all images may be in memory for Adam; else the result says why that was left out."""
    size = 4 * features * samples
    if size > HELD:
        run.note(no_head_by_adam=f"{features:,} features of {samples:,} images take {size / 1e9:.1f} GB")
    return size <= HELD


def _settled(settings: Any, images: Any, usual: dict[str, Any]) -> Any:
    """Settings without a None."""
    side, size = images.shape[1], settings.size or min(usual["size"], images.shape[1] // 2)
    return replace(
        settings, size=size, whitening=settings.whitening or usual["whitening"],
        grid=min(settings.grid or usual["grid"], side - size + 1),
        mirrored=images.shape[0] > 1 if settings.mirrored is None else settings.mirrored,
    )  # fmt: skip


def _sweep(run: Run, images: Any, count: int) -> None:
    """Rows "whitening=0.001", "whitening=none", "grid=3" …: one setting changed, on some of the images."""
    settings, known = run.settings, dict[Settings, list[Measured]]()
    run.note(sweep_training_samples=len(images.x_train))
    for setting, values in {"whitening": (*settings.whitenings, NONE), **SWEPT}.items():
        named = {_row(setting, value): value for value in (*values, getattr(settings, setting))}  # alike: the run's own
        for name, value in sorted(named.items(), key=lambda item: item[1]):
            changed = replace(settings, **{setting: value})
            if images.shape[1] - changed.size + 1 < changed.grid or features_of(changed, count) > MOST:
                continue  # windows that do not fit, or too many features
            try:
                if changed not in known:
                    known[changed] = _measure(run, name, images, changed, count)
            except InputError as error:  # features that allow no head
                run.note(left_out={name: str(error)})
            else:
                run.enter(name, known[changed])


def _row(setting: str, value: Any) -> str:
    return f"{setting}={'none' if value == NONE else f'{value:g}' if value is not bool(value) else value}"


def _measure(run: Run, name: str, images: Any, settings: Settings, count: int, keep: bool = False) -> list[Measured]:
    """A dictionary and a head in closed form, of every seed; the first one's network is kept where asked for."""
    measured = []
    for seed in run.over_seeds(name, len(images.x_train)):
        found, net = in_closed_form(run, Encoder(run, images, settings, count, seed), seed)
        measured.append(found)
        if keep and seed == run.seeds[0]:
            run.keep(name, net)
    return measured
