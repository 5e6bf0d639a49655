"""The data sets that have a name: what they are, which files they need, and how those are recognised.

To add one, write its loader (a function of the data set's folder that returns a `Dataset`), its files in `sources`,
and an `Entry` below. Checksums are those of the *unpacked* content, because the same data is published in differently
packed files; those of an archive are its own.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

from gpunet.addresses import harmless
from gpunet.errors import DataError, shown

from . import sources
from .entries import Entry

if TYPE_CHECKING:
    from .base import Dataset


def _load_mnist(folder: Path) -> Dataset:
    from .mnist import load_mnist

    return load_mnist(folder)


def _load_digits(_: Path) -> Dataset:
    from .digits import load_digits

    return load_digits()


def _load_cifar10(folder: Path) -> Dataset:
    from .cifar import load_cifar10

    return load_cifar10(folder)


def _load_cifar100(folder: Path) -> Dataset:
    from .cifar import load_cifar100

    return load_cifar100(folder)


def _load_cats(folder: Path) -> Dataset:
    from .cats import load_cats

    return load_cats(folder)


def _load_xor(_: Path) -> Dataset:
    from .made import xor

    return xor()


def _load_linear(_: Path) -> Dataset:
    from .made import linear

    return linear()


def _load_xor_easy(_: Path) -> Dataset:
    from .made import xor_easy

    return xor_easy()


REGISTRY: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(
            "mnist",
            "70,000 handwritten digits, 28×28 grey, 10 classes (60,000 for training)",
            _load_mnist,
            sources.MNIST_FILES,
            sources.MNIST_MIRRORS,
        ),
        Entry("digits", "1,797 handwritten digits, 8×8 grey, 10 classes; part of scikit-learn", _load_digits),
        Entry(
            "cifar10",
            "60,000 photographs, 32×32 colour, 10 classes (50,000 for training)",
            _load_cifar10,
            sources.CIFAR10_FILES,
            sources.CIFAR10_MIRRORS,
            sources.CIFAR10_ARCHIVE,
        ),
        Entry(
            "cifar100",
            "60,000 photographs, 32×32 colour, 100 classes (50,000 for training)",
            _load_cifar100,
            sources.CIFAR100_FILES,
            sources.CIFAR100_MIRRORS,
            sources.CIFAR100_ARCHIVE,
        ),
        Entry(
            "cats",
            "259 photographs, 64×64 colour, with a cat or without (209 for training)",
            _load_cats,
            sources.CATS_FILES,
            sources.CATS_MIRRORS,
        ),
        Entry("xor", "the four points of the bitwise XOR, 2 classes; training set = test set", _load_xor),
        Entry("linear", "100 points on either side of a line, 2 classes; training set = test set", _load_linear),
        Entry("xor-easy", "21 points on two crossing lines, 2 classes; training set = test set", _load_xor_easy),
    )
}


def names() -> tuple[str, ...]:
    """The names of all data sets."""
    return tuple(REGISTRY)


def entry(name: str) -> Entry:
    """The data set of that name; DataError lists the known names where there is none."""
    found = REGISTRY.get(name) if isinstance(name, str) else None
    if found is None:
        near = difflib.get_close_matches(name.lower(), REGISTRY, n=1) if isinstance(name, str) else []
        hint = f"did you mean {near[0]!r}? " if near else ""
        said = harmless(name) if isinstance(name, str) else name
        raise DataError(
            f"unknown data set {shown(said)}: {hint}known are {', '.join(names())}; "
            "or give a path to a folder of IDX files, a folder of images (class/*.png), or an .npz file"
        )
    return found
