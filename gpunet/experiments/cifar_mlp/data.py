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
from gpunet.rng import DATA, stream
from gpunet.samples import Samples

HELD_OUT, HELD_OUT_MOST = 0.2, 10_000  # of training samples without a validation set of their own
FULL_HELD_OUT = 5000  # of the 50,000: our choice
OFFICIAL = 10_000  # images of a batch
HOLD, HOLD_FULL = 9, 10  # places of their own in the stream of DATA


Pair = tuple[NDArray[Any], NDArray[np.int64]]  # x (n, features) uint8 or floats, labels (n,)


@dataclass(frozen=True, eq=False)
class Split:
    """A data set in three; `every`: all training batches, where there are several."""

    name: str
    train: Pair = field(repr=False)
    validation: Pair = field(repr=False)
    test: Pair = field(repr=False)
    classes: int
    every: Pair | None = field(default=None, repr=False)

    @classmethod
    def batches(cls, every: bool = False) -> Split:
        """The document's: data_batch_1, data_batch_2 and test_batch of CIFAR-10; with `every` all batches, too.

        Raises DataError naming the batches that are missing.
        """
        from gpunet.datasets.cifar import BATCHES, TRAINING_BATCHES, load_cifar10_batches

        names = BATCHES if every else (*TRAINING_BATCHES[:2], BATCHES[-1])
        *training, test = [(batch.x, batch.y) for batch in load_cifar10_batches(names=names)]
        whole = (np.concatenate([x for x, _ in training]), np.concatenate([y for _, y in training])) if every else None
        return cls("cifar10", training[0], training[1], test, 10, whole)

    @classmethod
    def load(cls, name: str, every: bool = False) -> Split:
        """By name or path: CIFAR-10 by batches, of other data as `of`; `every` as there."""
        if name == "cifar10":
            return cls.batches(every)
        split = cls.of(load_data(name))
        if every:
            split.all_batches()
        return split

    @classmethod
    def of(cls, data: Any) -> Split:
        """Of a data set with training and test samples: CIFAR-10 by batches, of others a fifth is held out.

        The held-out samples are drawn at random, the same for every seed of a run, at most 10,000.
        """
        if isinstance(data, Split):
            return data
        (x, y), test = (data.x_train, data.y_train), (data.x_test, data.y_test)
        if data.name == "cifar10" and len(x) == 5 * OFFICIAL:
            one, two = slice(OFFICIAL), slice(OFFICIAL, 2 * OFFICIAL)
            return cls("cifar10", (x[one], y[one]), (x[two], y[two]), test, 10, (x, y))
        if len(x) < 2:
            raise DataError(f"{data.name} has {len(x)} training sample: at least two are needed, one to validate with")
        held_out = min(HELD_OUT_MOST, max(1, round(HELD_OUT * len(x))))
        return cls(data.name, *_drawn((x, y), held_out, HOLD), test, data.classes)

    def all_batches(self) -> Pair:
        """Every training batch; DataError where there is but one training set."""
        if self.every is None:
            raise DataError(
                f"the part full trains on all batches of cifar10, where the others take one; {self.name} has one "
                "training set, which the other parts use: leave out --full"
            )
        return self.every

    def full(self) -> Split:
        """All training batches but FULL_HELD_OUT images drawn at random, which are the validation set."""
        every = self.all_batches()
        held_out = min(FULL_HELD_OUT, max(1, len(every[0]) // 10))
        return Split(self.name, *_drawn(every, held_out, HOLD_FULL), self.test, self.classes)


def _drawn(pair: Pair, held_out: int, place: int) -> tuple[Pair, Pair]:
    """What is trained on and what is held out, drawn at random, each in its order."""
    (x, y), rows = pair, stream(0, DATA, place).permutation(len(pair[0]))
    kept, held = np.sort(rows[held_out:]), np.sort(rows[:held_out])
    return (x[kept], y[kept]), (x[held], y[held])


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
        mean, found = None, []
        for (x, labels), what in ((split.train, "training"), (split.validation, "validation"), (split.test, "test")):
            scaled = _scaled(x, f"{what} data")
            if mean is None:
                mean = scaled.mean(axis=0, dtype=np.float64).astype(np.float32)
            scaled -= mean
            found.append(Samples.of(backend, scaled, labels, split.classes, f"{what} data", copy=False))
        train, validation, test = found
        return cls(split.name, train, validation, test, split.classes)

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
