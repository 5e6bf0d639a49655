"""Training, validation and test set of cifar-mlp, and the three on the device with the mean image subtracted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunet.backend import Backend
from gpunet.checks import check_finite
from gpunet.errors import DataError
from gpunet.experiments.framework import load_data
from gpunet.nn.samples import Samples
from gpunet.rng import DATA, stream

HELD_OUT, HELD_OUT_MOST = 0.2, 10_000  # of training samples without a validation set of their own
FULL_HELD_OUT = 0.1  # of the 50,000: our choice
HOLD, HOLD_FULL = 9, 10  # places of their own in the stream of DATA

Pair = tuple[NDArray[Any], NDArray[np.int64]]  # x (n, features) uint8 or floats, labels (n,)


@dataclass(frozen=True, eq=False)
class Split:
    """A data set in three; `full`: one whose training and validation samples are those of all batches."""

    name: str
    train: Pair = field(repr=False)
    validation: Pair = field(repr=False)
    test: Pair = field(repr=False)
    classes: int
    full: Split | None = None
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()  # of a sample, where it is somebody's own

    @property
    def x_train(self) -> NDArray[Any]:
        """What is trained on, as a data set calls it."""
        return self.train[0]

    @property
    def y_train(self) -> NDArray[np.int64]:
        """Its labels."""
        return self.train[1]

    @classmethod
    def batches(cls, full: bool = False) -> Split:
        """The document's: data_batch_1, data_batch_2 and test_batch of CIFAR-10; with `full` all batches, too.

        Raises DataError naming the batches that are missing.
        """
        from gpunet.datasets.cifar import BATCHES, CIFAR10_NAMES, TRAINING_BATCHES, load_cifar10_batches

        names = BATCHES if full else (*TRAINING_BATCHES[:2], BATCHES[-1])
        *training, test = [(batch.x, batch.y) for batch in load_cifar10_batches(names=names)]
        whole = None
        if full:
            x, y = (np.concatenate(parts) for parts in zip(*training, strict=True))
            whole = cls("cifar10", *_drawn(x, y, round(FULL_HELD_OUT * len(x)), HOLD_FULL), test, 10)
        return cls("cifar10", training[0], training[1], test, 10, whole, CIFAR10_NAMES)

    @classmethod
    def of(cls, data: Any, full: bool = False) -> Split:
        """Of a data set with training and test samples, of which a fifth is held out, at most 10,000; or the split.

        The held-out samples are drawn at random, the same for every seed of a run.
        """
        if isinstance(data, Split):
            return data
        if full:
            raise DataError(
                f"the part full trains on all batches of cifar10, where the others take one; {data.name} has one "
                "training set, which the other parts use: leave out --full"
            )
        if (n := len(data.x_train)) < 2:
            raise DataError(f"{data.name} has {n} training sample: at least two are needed, one to validate with")
        held_out = min(HELD_OUT_MOST, max(1, round(HELD_OUT * n)))
        parts = _drawn(data.x_train, data.y_train, held_out, HOLD)
        test = data.x_test, data.y_test
        return cls(data.name, *parts, test, data.classes, None, data.names, data.notes, data.shape)

    @classmethod
    def load(cls, name: str, full: bool = False) -> Split:
        """By name or path: CIFAR-10 by batches, of other data a hold-out."""
        return cls.batches(full) if name == "cifar10" else cls.of(load_data(name), full)


def _drawn(x: NDArray[Any], y: NDArray[np.int64], held_out: int, place: int) -> tuple[Pair, Pair]:
    """What is trained on and what is held out, drawn at random, each in its order."""
    rows = stream(0, DATA, place).permutation(len(x))
    kept, held = np.sort(rows[held_out:]), np.sort(rows[:held_out])
    return (x[kept], y[kept]), (x[held], y[held])


@dataclass(frozen=True)
class Problem:
    """A split on the device as float32: pixels / 255 (floats as they are) less the mean image of the training set."""

    train: Samples
    validation: Samples
    test: Samples
    classes: int

    @classmethod
    def of(cls, split: Split, backend: Backend) -> Problem:
        """Raises DataError and its kin for labels out of range and values that are not finite."""
        pairs = {"training data": split.train, "validation data": split.validation, "test data": split.test}
        scaled = {what: _scaled(x, what) for what, (x, _) in pairs.items()}
        mean = scaled["training data"].mean(axis=0, dtype=np.float64).astype(np.float32)
        train, validation, test = (
            Samples.of(backend, np.subtract(x, mean, out=x), pairs[what][1], split.classes, what, copy=False)
            for what, x in scaled.items()
        )
        return cls(train, validation, test, split.classes)

    @property
    def counts(self) -> dict[str, int]:
        """How many samples each set has."""
        return {name: len(getattr(self, name)) for name in ("train", "validation", "test")}


def _scaled(x: NDArray[Any], what: str) -> NDArray[np.float32]:
    """A float32 copy, uint8 divided by 255; DataError where a value does not fit float32."""
    with np.errstate(over="ignore"):
        scaled = x.astype(np.float32)
    check_finite(scaled, what)
    if x.dtype == np.uint8:
        scaled *= np.float32(1 / 255)
    return scaled
