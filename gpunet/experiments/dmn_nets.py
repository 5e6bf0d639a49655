"""The nets of dmn: convolution, ReLU and 2×2 pooling once or twice, then one dense softmax layer."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gpunet as gn
from gpunet.backend import Backend
from gpunet.errors import DataError
from gpunet.extract import Extractor, fit_stack
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


@dataclass(frozen=True)
class Images:
    """A data set as images, planes first."""

    name: str
    x_train: Any
    y_train: NDArray[np.int64]
    x_test: Any
    y_test: NDArray[np.int64]
    shape: tuple[int, int, int]
    classes: int

    @classmethod
    def of(cls, data: Any) -> Images:
        """The images of a data set; DataError where its samples are none, or smaller than a patch."""
        shape = tuple(data.shape)
        arrays: tuple[Any, ...] = (data.x_train, data.x_test)
        if len(shape) == 2:
            shape = (1, *shape)
        if len(shape) == 3 and shape[0] not in (1, 3, 4) and shape[2] in (1, 3, 4):  # rows, columns, planes
            arrays = tuple(
                np.ascontiguousarray(x.reshape(-1, *shape).transpose(0, 3, 1, 2)).reshape(len(x), -1) for x in arrays
            )
            shape = (shape[2], shape[0], shape[1])
        if len(shape) != 3 or min(shape[1:]) < KERNEL:
            raise DataError(
                f"{data.name} has samples of shape {tuple(data.shape)}: dmn needs images of at least "
                f"{KERNEL}×{KERNEL} pixels, (rows, columns) or (planes, rows, columns)"
            )
        return cls(data.name, arrays[0], data.y_train, arrays[1], data.y_test, shape, data.classes)

    def first(self, samples: int, seed: int) -> Images:
        """A random part of the training set."""
        if samples >= len(self.x_train):
            return self
        rows = np.sort(stream(seed, DATA, 7).choice(len(self.x_train), samples, replace=False))
        return Images(
            self.name, self.x_train[rows], self.y_train[rows], self.x_test, self.y_test, self.shape, self.classes
        )


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
class Course:
    """How one net came to its accuracy: seconds of everything before training, then of each epoch, and accuracies."""

    before: float = 0.0
    seconds: list[float] = field(default_factory=list)
    train_loss: list[float] = field(default_factory=list)
    test_accuracy: list[float] = field(default_factory=list)

    def at(self) -> list[float]:
        """Seconds since the beginning at the end of each epoch."""
        return [float(t) for t in self.before + np.cumsum(self.seconds)]

    def time_to(self, accuracy: float) -> float | None:
        """Seconds until the test accuracy was first reached at the end of an epoch; None where it never was."""
        for seconds, reached in zip(self.at(), self.test_accuracy, strict=True):
            if reached >= accuracy:
                return seconds
        return None


@dataclass
class Outcome:
    """A trained net: its course, accuracy on the training set at the end, widths of its layers."""

    course: Course
    train_accuracy: float
    filters: list[int]
    fits: list[Fit] = field(default_factory=list)
    extract_seconds: float = 0.0
    ridge_accuracy: float | None = None
    ridge_seconds: float | None = None

    @property
    def fit_seconds(self) -> float:
        """Seconds to fit all layers, computing each layer's input included."""
        return self.course.before - self.extract_seconds


@dataclass(frozen=True)
class Training:
    """How heads and ConvNets are trained; not stated in the document, our choice."""

    epochs: int = 5
    batch_size: int = 64
    learning_rate: float = 1e-3
    decay: float = 1.0  # of the learning rate, every epoch


def train_dmn(
    images: Images, thresholds: list[Thresholds], training: Training, seed: int, backend: Backend, bar: Progress,
    closed_form: bool = True,
) -> Outcome:  # fmt: skip
    """Fit the layers, compute the features once, train the head on them; and solve for a head in closed form."""
    bar.seed(seed)
    layers = body(images.shape, [1] * len(thresholds))
    began = time.perf_counter()
    fits = fit_stack(layers, images.x_train, images.y_train, thresholds, backend, seed=seed)
    fitted = time.perf_counter()
    extractor = Extractor(layers, tuple(images.x_train.shape[1:]), backend)
    train, test = extractor.transform(images.x_train), extractor.transform(images.x_test)
    extracted = time.perf_counter()
    head = gn.Sequential([gn.Dense(images.classes)])
    outcome = _train(head, (train, test), images, training, seed, backend, bar)
    outcome.course.before, outcome.extract_seconds = extracted - began, extracted - fitted
    outcome.filters, outcome.fits = [len(fit.kept) for fit in fits], fits
    if closed_form and extractor.features <= RIDGE_FEATURES:
        began = time.perf_counter()
        outcome.ridge_accuracy = _ridge(train, test, images, seed, backend)
        outcome.ridge_seconds = time.perf_counter() - began
    return outcome


def train_convnet(
    images: Images, filters: list[int], training: Training, seed: int, backend: Backend, bar: Progress
) -> Outcome:
    """The same layers trained by gradient descent; without any filters, a single dense layer on the pixels."""
    bar.seed(seed)
    layers = [*body(images.shape, filters), gn.Flatten(), gn.Dense(images.classes)]
    model = gn.Sequential(layers if filters else layers[-1:])
    outcome = _train(model, (images.x_train, images.x_test), images, training, seed, backend, bar)
    outcome.filters = list(filters)
    return outcome


def _train(
    model: gn.Sequential, xs: tuple[Any, Any], images: Images, training: Training, seed: int, backend: Backend,
    bar: Progress,
) -> Outcome:  # fmt: skip
    trainer = Trainer(model, optimizer=gn.Adam(training.learning_rate), device=backend, seed=seed)
    train = trainer.samples(xs[0], images.y_train, "training data")
    test = trainer.samples(xs[1], images.y_test, "test data")
    history = trainer.fit(
        train, epochs=training.epochs, batch_size=training.batch_size, validation_data=test, progress=bar,
        callbacks=[gn.ExponentialDecay(training.decay)] if training.decay != 1 else [],
    )  # fmt: skip
    course = Course(0.0, history["seconds"], history["train_loss"], history["validation_accuracy"])
    return Outcome(course, trainer.evaluate(train)["accuracy"], [])


def _ridge(train: Any, test: Any, images: Images, seed: int, backend: Backend) -> float:
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
