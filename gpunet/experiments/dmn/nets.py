"""The nets of dmn: convolution, ReLU and 2×2 pooling once or twice, then one dense softmax layer."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gpunet as gn
from gpunet.backend import Backend
from gpunet.experiments.dmn.extract import Extractor, fit_stack
from gpunet.experiments.framework import Measured
from gpunet.layers.fitted import Fit, Thresholds
from gpunet.linalg.place import some_rows
from gpunet.progress import Progress
from gpunet.rng import DATA, stream
from gpunet.spectral.ridge import ridge
from gpunet.train import Trainer

HELD_OUT = 0.1  # of the training samples, to choose the ridge penalty
RIDGE_FEATURES = 12_000  # more, and the Gram matrix alone takes over 1 GB
BLOCK = 5000  # samples of features that are multiplied at a time
KERNEL, POOL = 3, 2


def body(shape: tuple[int, int, int], filters: list[int]) -> list[gn.Layer]:
    """Reshape, then for each width a convolution with ReLU and pooling, as far as the maps are large enough for it."""
    layers: list[gn.Layer] = [gn.Reshape(shape)]
    rows, columns = shape[1:]
    for width in filters:
        padding = "valid" if min(rows, columns) >= KERNEL else "same"
        lost = KERNEL - 1 if padding == "valid" else 0
        pool = POOL if min(rows, columns) - lost >= POOL else 1
        rows, columns = (rows - lost) // pool, (columns - lost) // pool
        layers.append(gn.Conv2D(width, KERNEL, "relu", pool=pool, padding=padding))
    return layers


@dataclass
class Outcome:
    """A trained net.

    curves: a number an epoch, train_loss, test_accuracy and seconds; train_accuracy: at the end; filters: of each
    layer; fits: of those that were fitted; seconds: of fitting, computing each layer's input included, of computing
    the features, and of the head in closed form, whose accuracy on the test set is ridge_accuracy.
    """

    curves: dict[str, list[float]]
    train_accuracy: float
    filters: list[int]
    fits: list[Fit] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    ridge_accuracy: float | None = None

    def measured(self, equal: int) -> Measured:
        """One seed's metrics: accuracies after `equal` epochs, and at the end where that is later."""
        accuracies = self.curves["test_accuracy"]
        metrics = {"test_accuracy": accuracies[equal - 1], "train_loss": self.curves["train_loss"][equal - 1]}
        if len(accuracies) > equal:
            metrics["test_accuracy_long"] = accuracies[-1]
        else:
            metrics["train_accuracy"] = self.train_accuracy
        metrics |= {f"filters_{i + 1}": float(count) for i, count in enumerate(self.filters)}
        if self.ridge_accuracy is not None:
            metrics["ridge_test_accuracy"] = self.ridge_accuracy
        return Measured(metrics, self.curves, self.seconds | {"epoch": fmean(self.curves["seconds"])})

    @property
    def found(self) -> list[dict[str, Any]]:
        """Of each layer how its class PCA was computed, and by class the vectors that it gave and those kept."""
        layers = []
        for fit in self.fits:
            labels, kept = fit.pca.classes.tolist(), np.bincount(fit.kept[:, 0], minlength=len(fit.pca.classes))
            counts = {"ranks": fit.pca.ranks, "filters": kept}
            by_class = {name: dict(zip(labels, each.tolist(), strict=True)) for name, each in counts.items()}
            layers.append({"route": fit.pca.route, "residual": fit.pca.residual, **by_class})
        return layers


@dataclass(frozen=True)
class Training:
    """How heads and ConvNets are trained; not stated in the document, our choice."""

    epochs: int = 5
    batch_size: int = 64
    learning_rate: float = 1e-3
    decay: float = 1.0  # of the learning rate, every epoch


def train_dmn(
    images: Any, thresholds: list[Thresholds], training: Training, seed: int, backend: Backend, bar: Progress,
    closed_form: bool = True,
) -> Outcome:  # fmt: skip
    """Fit the layers, compute the features once, train the head on them; and solve for a head in closed form."""
    layers = body(images.shape, [1] * len(thresholds))
    began = time.perf_counter()
    fits = fit_stack(layers, images.x_train, images.y_train, thresholds, backend, seed=seed)
    fitted = time.perf_counter()
    extractor = Extractor(layers, tuple(images.x_train.shape[1:]), backend)
    train, test = extractor.transform(images.x_train), extractor.transform(images.x_test)
    seconds = {"fit": fitted - began, "extract": time.perf_counter() - fitted}
    outcome = _train(gn.Sequential([gn.Dense(images.classes)]), (train, test), images, training, seed, backend, bar)
    if closed_form and extractor.features <= RIDGE_FEATURES:
        began = time.perf_counter()
        outcome.ridge_accuracy = _ridge(train, test, images, seed, backend)
        seconds["ridge"] = time.perf_counter() - began
    return replace(outcome, filters=[len(fit.kept) for fit in fits], fits=fits, seconds=seconds)


def train_convnet(
    images: Any, filters: list[int], training: Training, seed: int, backend: Backend, bar: Progress
) -> Outcome:
    """The same layers trained by gradient descent; without any filters, a single dense layer on the pixels."""
    layers = [*body(images.shape, filters), gn.Flatten(), gn.Dense(images.classes)]
    model = gn.Sequential(layers if filters else layers[-1:])
    outcome = _train(model, (images.x_train, images.x_test), images, training, seed, backend, bar)
    return replace(outcome, filters=list(filters))


def _train(
    model: gn.Sequential, xs: tuple[Any, Any], images: Any, training: Training, seed: int, backend: Backend,
    bar: Progress,
) -> Outcome:  # fmt: skip
    trainer = Trainer(model, optimizer=gn.Adam(training.learning_rate), device=backend, seed=seed)
    train = trainer.samples(xs[0], images.y_train, "training data")
    test = trainer.samples(xs[1], images.y_test, "test data")
    history = trainer.fit(
        train, epochs=training.epochs, batch_size=training.batch_size, validation_data=test, progress=bar,
        callbacks=[gn.ExponentialDecay(training.decay)] if training.decay != 1 else [],
    )  # fmt: skip
    names = {"test_accuracy": "validation_accuracy", "train_loss": "train_loss", "seconds": "seconds"}
    curves = {ours: history[theirs] for ours, theirs in names.items()}
    return Outcome(curves, trainer.evaluate(train)["accuracy"], [])


def _ridge(train: Any, test: Any, images: Any, seed: int, backend: Backend) -> float:
    """Test accuracy of ridge regression on features."""
    rows = stream(seed, DATA, 8).permutation(len(train))
    cut = math.ceil(HELD_OUT * len(rows))

    def batches(part: NDArray[np.intp]) -> Iterator[tuple[Any, NDArray[np.int64]]]:
        for start in range(0, len(part), BLOCK):
            chosen = np.sort(part[start : start + BLOCK])
            yield some_rows(train, chosen, backend), images.y_train[chosen]

    found = ridge(
        lambda: batches(rows[cut:]), lambda: batches(rows[:cut]), train.shape[1], images.classes, device=backend
    )
    parts = (slice(start, start + BLOCK) for start in range(0, len(test), BLOCK))
    hits = sum(found.correct(test[part], images.y_test[part], backend) for part in parts)
    return hits / len(test)
