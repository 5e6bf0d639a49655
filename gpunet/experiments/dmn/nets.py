"""The nets of dmn: convolution, ReLU and 2×2 pooling once or twice, then one dense softmax layer."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from statistics import fmean
from typing import Any

import numpy as np

import gpunet as gn
from gpunet.backend.base import Activation
from gpunet.checks import usual_scale
from gpunet.errors import DivergedError, InputError
from gpunet.experiments.dmn.extract import features, fit_stack
from gpunet.experiments.framework import Measured, Run, trained_in
from gpunet.linalg.device import some_rows
from gpunet.nn.layers.conv import Padding
from gpunet.nn.optim import Optimizer
from gpunet.nn.trainer import Trainer
from gpunet.rng import DATA, stream
from gpunet.spectral.fitted import Fit, Thresholds
from gpunet.spectral.ridge import ridge_of_rows

RIDGE_FEATURES = 12_000  # more, and the Gram matrix alone takes over 1 GB
BLOCK = 5000  # samples of features that are multiplied at a time
KERNEL, POOL = 3, 2


def body(shape: tuple[int, ...], widths: list[int], activation: Activation = "relu") -> list[gn.Layer]:
    """Reshape, then for each width a convolution and pooling, as far as the maps are large enough for it."""
    layers: list[gn.Layer] = [gn.Reshape(shape)]
    for width in widths:
        side = min(shape[1:])
        padding: Padding = "valid" if side >= KERNEL else "same"
        left = side - KERNEL + 1 if padding == "valid" else side
        layers.append(gn.Conv2D(width, KERNEL, activation, pool=POOL if left >= POOL else 1, padding=padding))
        shape = layers[-1].spec(shape).output
    return layers


def filters(net: Measured) -> list[int]:
    """Of each fitted layer of a DMN."""
    return [sum(layer["filters"].values()) for layer in net.notes["svd"]]


def train_dmn(run: Run, thresholds: list[Thresholds], seed: int, closed_form: bool = True) -> Measured:
    """Fit the layers, compute the features once, train the head on them; and solve for a head in closed form."""
    images, settings, backend = run.data, run.settings, run.backend
    layers = body(images.shape, [1] * len(thresholds))
    began = time.perf_counter()
    fits = fit_stack(layers, images.x_train, images.y_train, thresholds, backend, seed=seed)
    fitted = time.perf_counter()
    train, test = (features(layers, x, backend) for x in (images.x_train, images.x_test))
    seconds = {"fit": fitted - began, "extract": time.perf_counter() - fitted}
    widths, decay = [len(fit.kept) for fit in fits], settings.head_decay ** (1 / settings.epochs)
    net = train_net(run, [gn.Dense(images.classes)], (train, test), widths, seed, decay=decay)
    if closed_form and train.shape[1] <= RIDGE_FEATURES:
        began = time.perf_counter()
        net.metrics["ridge_test_accuracy"] = _ridge(run, train, test, seed)
        seconds["ridge"] = time.perf_counter() - began
    return replace(net, seconds=seconds | net.seconds, notes=net.notes | {"svd": [told(fit) for fit in fits]})


def told(fit: Fit) -> dict[str, Any]:
    """How a layer's class PCA was computed, and by class how many vectors it gave, and how many were kept."""
    pca, labels = fit.pca, fit.pca.classes.tolist()
    kept = np.bincount(fit.kept[:, 0], minlength=len(labels)).tolist()
    ranks, filters = (dict(zip(labels, counts, strict=True)) for counts in (pca.ranks.tolist(), kept))
    return {"route": pca.route, "residual": pca.residual, "ranks": ranks, "filters": filters}


def train_convnet(run: Run, widths: list[int], seed: int, decay: float = 1.0, **known: Any) -> Measured:
    """The same layers trained by gradient descent; without any filters, a single dense layer on the pixels.

    known: see `train_net`; unless it says otherwise ConvNets train for `long` times the epochs.
    """
    images = run.data
    layers: list[gn.Layer] = [gn.Dense(images.classes)]
    if widths:
        layers = [*body(images.shape, widths), gn.Flatten(), *layers]
    known = {"total": run.settings.epochs * (run.settings.long if widths else 1)} | known
    return train_net(run, layers, (images.x_train, images.x_test), widths, seed, decay=decay, **known)


def train_net(
    run: Run, layers: Sequence[gn.Layer], xs: tuple[Any, Any], widths: list[int], seed: int, *, total: int = 0,
    decay: float = 1.0, optimizer: Optimizer | None = None, scale: float | None = None, diverges: bool = False,
) -> Measured:  # fmt: skip
    """Metrics after the epochs that all nets have, and after `total` ones where that is more.

    decay: of the learning rate, every epoch; optimizer: Adam at the settings' rate unless another is given; scale: of
    the inputs; diverges: whether a net may, and then has NaN from there on. Curves and seconds have a number an epoch.
    """
    settings, epochs = run.settings, run.settings.epochs
    total, optimizer = max(total, epochs), optimizer or gn.Adam(settings.learning_rate)
    model = gn.Sequential(layers, scale=usual_scale(xs[0]) if scale is None else scale)
    trainer = Trainer(model, optimizer=optimizer, device=run.backend, seed=seed, precision=settings.precision)
    train = trainer.samples(xs[0], run.data.y_train, "training data")
    test = trainer.samples(xs[1], run.data.y_test, "test data")
    with suppress(*[DivergedError] * diverges):
        trainer.fit(
            train, epochs=total, batch_size=settings.batch_size, validation_data=test, progress=run.bar,
            callbacks=gn.ExponentialDecay(decay),
        )  # fmt: skip
    names = {"test_accuracy": "validation_accuracy", "train_loss": "train_loss", "seconds": "seconds"}
    found = {ours: trainer.history[theirs] for ours, theirs in names.items()}
    curves = {name: [*curve, *[math.nan] * (total - len(curve))] for name, curve in found.items()}
    metrics = {name: curves[name][epochs - 1] for name in ("test_accuracy", "train_loss")}
    if total > epochs:
        metrics["test_accuracy_long"] = curves["test_accuracy"][-1]
    else:
        metrics["train_accuracy"] = trainer.evaluate(train)["accuracy"]
    metrics |= {f"filters_{i + 1}": float(width) for i, width in enumerate(widths)}
    return Measured(metrics, curves, {"epoch": fmean(curves["seconds"])}, trained_in(trainer))


def _ridge(run: Run, train: Any, test: Any, seed: int) -> float:
    """Test accuracy of ridge regression on features."""
    images, backend, rows = run.data, run.backend, stream(seed, DATA, 8).permutation(len(train))
    try:
        found = ridge_of_rows(
            lambda part: some_rows(train, part, backend), images.y_train, rows, train.shape[1], images.classes,
            device=backend, block=BLOCK,
        )  # fmt: skip
    except InputError:
        raise InputError(
            f"{images.name}: the maps of all images are alike: are the images, or are their numbers far from 0 to 1? "
            "Scale them"
        ) from None
    return found.correct(test, images.y_test, backend) / len(test)
