"""A data set in memory, how it is made of arrays as people save them, and what must hold for it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from gpunet.checks import as_array, as_list, check_finite, check_flag, is_whole, usual_scale
from gpunet.errors import DataError, InputError, shown
from gpunet.reprs import sizes

from .labels import Coded, check_count, check_missing, distinct, every_fifth, match, shorter, told

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

FEATURE_DTYPES = ("uint8", "float32", "float64")
BLOCK = 256  # features that are scaled at a time
NAMED = 1 << 16  # classes that have their numbers as names


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples as rows, split into training and test.

    x_train, x_test: (n, features), uint8 (255 means 1.0: the trainer scales when it gathers a batch), float32
    or float64, the same in both; y_train, y_test: (n,) int64, classes 0 … classes − 1; shape: a sample's own
    shape, whose product is `features`; source: the path it was read from, or "embedded"; names: of the classes, by
    their numbers, which they are unless the data has others; notes: what was decided in reading it, a sentence each.
    """

    name: str
    x_train: NDArray[Any] = field(repr=False)
    y_train: NDArray[np.int64] = field(repr=False)
    x_test: NDArray[Any] = field(repr=False)
    y_test: NDArray[np.int64] = field(repr=False)
    shape: tuple[int, ...]
    classes: int
    source: str
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = as_list("names", self.names, "texts, one a class", str)
        if names == [str(number) for number in range(len(names))] and is_whole(self.classes, 1, NAMED):  # [] is, too
            names = [str(number) for number in range(int(self.classes))]
        object.__setattr__(self, "names", tuple(names))

    def __repr__(self) -> str:
        counts = f"{sizes(self.x_train)} and {sizes(self.x_test)}, {self.x_train.dtype}"
        return (
            f"<Dataset {self.name!r}: training and test samples {counts}, each of shape {self.shape}, "
            f"{self.classes} classes, source {self.source!r}>"
        )

    @property
    def features(self) -> int:
        """Numbers per sample."""
        return math.prod(self.shape)

    @property
    def scale(self) -> float:
        """What x is to be multiplied by: 1/255 of uint8, else 1. See `gn.Sequential`."""
        return usual_scale(self.x_train)

    @property
    def _where(self) -> str:
        """What a message about it begins with."""
        return self.name if self.source == "embedded" else self.source

    @property
    def _splits(self) -> dict[str, tuple[NDArray[Any], NDArray[np.int64]]]:
        return {"train": (self.x_train, self.y_train), "test": (self.x_test, self.y_test)}


def from_arrays(
    name: str,
    x_train: NDArray[Any],
    y_train: NDArray[Any] | Coded,
    x_test: NDArray[Any],
    y_test: NDArray[Any] | Coded,
    *,
    source: str,
    notes: Sequence[str] = (),
    numbered: bool = False,
) -> Dataset:
    """Convert as `as_features` says, number the labels as `labels.distinct` does, and validate.

    x: (n, …) of any real dtype; y: (n,) or (n, 1) labels; numbered: they are 0, 1, 2, … as they have to be, as those of
    a known data set are. Raises DataError, also for a test label that no training sample has.
    """
    train, shape = as_features(x_train, f"{source}: x_train")
    test, test_shape = as_features(x_test, f"{source}: x_test")
    if numbered and not isinstance(y_train, Coded) and not isinstance(y_test, Coded):
        train_labels, test_labels = as_labels(y_train, f"{source}: y_train"), as_labels(y_test, f"{source}: y_test")
        names = tuple(map(str, range(min(NAMED, int(train_labels.max(initial=0)) + 1))))
    else:
        found, train_labels = distinct(y_train, f"{source}: y_train")
        check_count(found, len(train_labels), f"{source}: y_train")
        check_missing(found, train_labels, y_train, f"{source}: y_train")
        test_labels = match(found, *distinct(y_test, f"{source}: y_test"), f"{source}: y_test")
        names, notes = tuple(found), [*notes, *filter(None, [told(found)])]
    if shape != test_shape:
        raise DataError(
            f"{source}: x_train has samples of shape {shape} but x_test of shape {test_shape}; "
            "training and test samples must be of one size"
        )
    classes = int(train_labels.max(initial=0)) + 1
    return validate(Dataset(name, train, train_labels, test, test_labels, shape, classes, source, names, tuple(notes)))


def from_one(name: str, x: NDArray[Any], y: NDArray[Any] | Coded, *, source: str, notes: Sequence[str] = ()) -> Dataset:
    """`from_arrays` of samples that nobody has split: of each class, in their order, every fifth is a test sample."""
    found, numbers = distinct(y, f"{source}: y")
    if np.ndim(x) and len(x) != len(numbers):
        raise DataError(
            f"{source}: x has {len(x):,} samples but y has {len(numbers):,} labels; give one label for each sample"
        )
    check_count(found, len(numbers), f"{source}: y")
    check_missing(found, numbers, y, f"{source}: y")
    x, shape = as_features(x, f"{source}: x")
    chosen = every_fifth(numbers)
    if not chosen.any():
        raise DataError(
            f"{source}: no test samples: every fifth sample of a class is one, and no class has five; add samples, or "
            "give training and test samples apart"
        )
    split = f"{int(chosen.sum()):,} of {len(chosen):,} samples are the test set, every fifth of each class"
    said = [*notes, *filter(None, [told(found)]), split]
    parts = (x[~chosen], numbers[~chosen], x[chosen], numbers[chosen])
    return validate(Dataset(name, *parts, shape, len(found), source, tuple(found), tuple(said)))


def as_features(x: NDArray[Any], where: str) -> tuple[NDArray[Any], tuple[int, ...]]:
    """Flatten (n, …) to a C-contiguous (n, features), and return it with the sample's own shape.

    uint8 stays uint8 (read as 0 … 255 downstream) and bool becomes uint8 with True = 255, so that it is 1.0
    there. Everything else becomes float32 and is taken as it is, unscaled: float16 and float64, and all other
    integers, which above 2²⁴ lose digits. Raises DataError for other kinds of arrays; `where` begins its
    message. InputError for masked arrays, whose mask would be lost.
    """
    x = as_array(x, where)
    if x.ndim == 0:
        raise DataError(f"{where} is a single number; expected an array (samples, …)")
    if x.dtype.kind not in "buif":
        raise DataError(f"{where} has dtype {x.dtype}; expected uint8, floats, integers or bool")
    shape = x.shape[1:] or (1,)
    if x.size == 0:
        raise DataError(f"{where} is empty, shape {x.shape}; at least one sample and one feature are needed")
    flat = x.reshape(len(x), math.prod(shape))
    if x.dtype == np.bool_:
        flat = (flat.view(np.uint8) != 0) * np.uint8(255)  # a file may hold other bytes than 0 and 1
    elif x.dtype != np.uint8:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and validate names its row
            flat = flat.astype(np.float32, copy=False)
    return np.ascontiguousarray(flat), shape


def as_labels(y: NDArray[Any], where: str) -> NDArray[np.int64]:
    """Integer classes (n,) or (n, 1) as int64 (n,); DataError for anything else, with the way to mend it."""
    y = as_array(y, where)
    if y.dtype.kind not in "iub":
        raise DataError(
            f"{where} has dtype {y.dtype}; expected integer classes 0, 1, 2, …: convert with "
            "y.astype('int64') if they are whole numbers"
        )
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        hint = "; for one-hot labels give y.argmax(axis=1)" if y.ndim == 2 else ""
        raise DataError(f"{where} has shape {y.shape}; expected one class a sample, (samples,){hint}")
    if y.dtype == np.uint64 and y.size and int(y.max()) > np.iinfo(np.int64).max:
        raise DataError(f"{where} row {int(y.argmax())} is {int(y.max())}; expected classes 0, 1, 2, …")
    return np.ascontiguousarray(y, dtype=np.int64)


def scaled_by(train: NDArray[Any], *others: NDArray[Any]) -> tuple[NDArray[np.float32], ...]:
    """Samples (n, features) as float32, each feature less its mean in `train`, over its deviation there.

    A feature that is always the same there becomes 0.
    """
    out = [np.empty(x.shape, np.float32) for x in (train, *others)]
    for start in range(0, train.shape[1], BLOCK):
        columns = slice(start, start + BLOCK)
        part = train[:, columns].astype(np.float64)
        mean, deviation = part.mean(axis=0), part.std(axis=0)
        moves = deviation > 1e-12 * np.abs(part).max(axis=0)
        for x, scaled in zip((train, *others), out, strict=True):
            scaled[:, columns] = np.where(moves, (x[:, columns] - mean) / np.where(moves, deviation, 1), 0)
    return tuple(out)


def validate(dataset: Dataset, *, every_class: bool = True) -> Dataset:
    """Return the data set itself; DataError, one line, for the first thing that is wrong with it.

    every_class: each class must have training samples; False where the number of classes is known from elsewhere, so
    that a class without any is a small excerpt and no mistake in the numbering.
    """
    if not isinstance(dataset, Dataset):
        raise InputError(f"dataset is {shown(dataset)}: expected a gn.datasets.Dataset")
    check_flag("every_class", every_class)
    where, train, test = dataset._where, dataset.x_train, dataset.x_test
    for split, (x, y) in dataset._splits.items():
        _check_split(where, split, x, y)
    if train.shape[1] != test.shape[1]:
        raise DataError(
            f"{where}: x_train has {train.shape[1]:,} features a sample but x_test has {test.shape[1]:,}; "
            "training and test samples must be of one size"
        )
    if train.dtype != test.dtype:
        raise DataError(
            f"{where}: x_train is {train.dtype} but x_test is {test.dtype}; uint8 is read as 0 … 255 and "
            "floats as they are: give both in one dtype"
        )
    if dataset.features != train.shape[1]:
        raise DataError(f"{where}: shape {dataset.shape} does not hold the {train.shape[1]:,} features of x_train")
    _check_labels(dataset, every_class)
    for split, (x, _) in dataset._splits.items():
        check_finite(x, f"{where}: x_{split}")
    if dataset.names and len(dataset.names) != dataset.classes:
        raise DataError(f"{where}: {len(dataset.names):,} names for {dataset.classes:,} classes; give one for each")
    return dataset


def _check_split(where: str, split: str, x: NDArray[Any], y: NDArray[Any]) -> None:
    for name, array in ((f"{where}: x_{split}", x), (f"{where}: y_{split}", y)):
        as_array(array, name)  # masks and sparse matrices
        if not isinstance(array, np.ndarray):
            raise DataError(f"{name} is a {type(array).__name__}; expected a numpy array")
    if x.ndim != 2:
        raise DataError(f"{where}: x_{split} has shape {x.shape}; expected (samples, features)")
    if x.dtype.name not in FEATURE_DTYPES or not x.dtype.isnative:
        expected = f"{', '.join(FEATURE_DTYPES)} in native byte order"
        raise DataError(f"{where}: x_{split} is {x.dtype}; expected {expected}")
    if y.ndim != 1 or y.dtype != np.int64:
        expected = "integer classes, int64, (samples,)"
        raise DataError(f"{where}: y_{split} is {y.dtype} of shape {y.shape}; expected {expected}")
    if len(x) != len(y):
        raise DataError(
            f"{where}: x_{split} has {len(x):,} samples but y_{split} has {len(y):,} labels; give one label for each "
            "sample"
        )
    if x.size == 0:
        raise DataError(f"{where}: x_{split} is empty, shape {x.shape}; at least one sample and one feature are needed")


def _check_labels(dataset: Dataset, every_class: bool) -> None:
    where, classes = dataset._where, dataset.classes
    for split, (_, labels) in dataset._splits.items():
        outside = (labels < 0) | (labels >= classes)
        if outside.any():
            row = int(outside.argmax())
            raise DataError(
                f"{where}: y_{split} row {row} is {labels[row]}, outside 0 … {classes - 1}, the "
                f"{classes:,} classes of the training labels"
            )
    present = np.unique(dataset.y_train)
    if every_class and len(present) < classes:
        # Sorted, they run 0, 1, 2, … up to the first gap; counters for all classes would trust a stray label.
        gap = np.flatnonzero(present != np.arange(len(present)))
        first = int(gap[0]) if len(gap) else len(present)
        more = classes - len(present) - 1
        raise DataError(
            f"{where}: class {first}{f' and {more:,} more' if more else ''} without training samples; number the "
            f"classes 0, 1, 2, … without gaps (the largest, {classes - 1}, is in y_train row "
            f"{dataset.y_train.argmax()})"
        )
    if classes < 2:
        only = dataset.names[0] if dataset.names else "0"
        raise DataError(f"{where}: all training labels are {shorter(only)}; at least two classes are needed")
