"""Training, validation and test set of cifar-mlp, and the three on the device with the mean image subtracted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunet.backend import Backend
from gpunet.checks import check_finite
from gpunet.errors import DataError
from gpunet.rng import DATA, stream
from gpunet.samples import Samples

HELD_OUT, HELD_OUT_MOST = 0.2, 10_000  # of training samples without a validation set of their own
FULL_HELD_OUT = 5000  # of the 50,000: our choice
OFFICIAL = 10_000  # images of a batch
HOLD, HOLD_FULL = 9, 10  # places of their own in the stream of DATA


@dataclass(frozen=True, eq=False)
class Split:
    """A data set in three; x (n, features) uint8 or floats, y (n,) int64. `all_x`, `all_y`: every training batch."""

    name: str
    x_train: NDArray[Any] = field(repr=False)
    y_train: NDArray[np.int64] = field(repr=False)
    x_validation: NDArray[Any] = field(repr=False)
    y_validation: NDArray[np.int64] = field(repr=False)
    x_test: NDArray[Any] = field(repr=False)
    y_test: NDArray[np.int64] = field(repr=False)
    classes: int
    all_x: NDArray[Any] | None = field(default=None, repr=False)
    all_y: NDArray[np.int64] | None = field(default=None, repr=False)

    @classmethod
    def batches(cls, every: bool = False) -> Split:
        """The document's: data_batch_1, data_batch_2 and test_batch of CIFAR-10; with `every` all batches, too.

        Raises DataError naming the batches that are missing.
        """
        from gpunet.datasets.cifar import BATCHES, TRAINING_BATCHES, load_cifar10_batches

        first, second = TRAINING_BATCHES[:2]
        found = load_cifar10_batches(names=BATCHES if every else (first, second, BATCHES[-1]))
        train, validation, test = found[0], found[1], found[-1]
        whole: tuple[Any, Any] = (None, None)
        if every:
            whole = tuple(np.concatenate([batch[i] for batch in found[:-1]]) for i in (1, 2))  # type: ignore[assignment]
        return cls(
            "cifar10", train.x, train.y, validation.x, validation.y, test.x, test.y, 10, *whole
        )  # fmt: skip

    @classmethod
    def of(cls, data: Any) -> Split:
        """Of a data set with training and test samples: CIFAR-10 by batches, of others a fifth is held out.

        The held-out samples are drawn at random, the same for every seed of a run, at most 10,000.
        """
        if isinstance(data, Split):
            return data
        x, y = data.x_train, data.y_train
        if data.name == "cifar10" and len(x) == 5 * OFFICIAL:
            one, two = slice(OFFICIAL), slice(OFFICIAL, 2 * OFFICIAL)
            return cls("cifar10", x[one], y[one], x[two], y[two], data.x_test, data.y_test, 10, x, y)
        if len(x) < 2:
            raise DataError(f"{data.name} has {len(x)} training sample: at least two are needed, one to validate with")
        train, held = _drawn(len(x), min(HELD_OUT_MOST, max(1, round(HELD_OUT * len(x)))), HOLD)
        return cls(data.name, x[train], y[train], x[held], y[held], data.x_test, data.y_test, data.classes)

    def check_full(self) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """All training batches, x and y; DataError where there are none."""
        if self.all_x is None or self.all_y is None:
            raise DataError(
                f"the part full trains on all batches of cifar10, where the others take one; {self.name} has one "
                "training set, which the other parts use: leave out --full"
            )
        return self.all_x, self.all_y

    def full(self) -> Split:
        """All training batches but FULL_HELD_OUT images drawn at random, which are the validation set."""
        x, y = self.check_full()
        train, held = _drawn(len(x), min(FULL_HELD_OUT, max(1, len(x) // 10)), HOLD_FULL)
        return Split(self.name, x[train], y[train], x[held], y[held], self.x_test, self.y_test, self.classes)


def _drawn(n: int, held_out: int, place: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows to train on and rows held out, each in order."""
    rows = stream(0, DATA, place).permutation(n)
    return np.sort(rows[held_out:]), np.sort(rows[:held_out])


@dataclass(frozen=True)
class Problem:
    """A split on the device as float32: pixels / 255 (floats as they are) less the mean image of the training set."""

    name: str
    train: Samples
    validation: Samples
    test: Samples
    classes: int

    @classmethod
    def of(cls, split: Split, backend: Backend) -> Problem:
        """Raises DataError and its kin for labels out of range and values that are not finite."""
        train = _scaled(split.x_train, "training data")
        mean = train.mean(axis=0, dtype=np.float64).astype(np.float32)

        def placed(x: NDArray[np.float32], labels: Any, what: str) -> Samples:
            x -= mean
            return Samples.of(backend, x, labels, split.classes, what, copy=False)

        return cls(
            split.name,
            placed(train, split.y_train, "training data"),
            placed(_scaled(split.x_validation, "validation data"), split.y_validation, "validation data"),
            placed(_scaled(split.x_test, "test data"), split.y_test, "test data"),
            split.classes,
        )


def _scaled(x: NDArray[Any], what: str) -> NDArray[np.float32]:
    """A float32 copy, uint8 divided by 255; DataError where a value does not fit float32."""
    with np.errstate(over="ignore"):
        scaled = x.astype(np.float32)
    check_finite(scaled, what)
    if x.dtype == np.uint8:
        scaled *= np.float32(1 / 255)
    return scaled
