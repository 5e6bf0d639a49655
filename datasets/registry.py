"""The data sets that have a name: what they are, which files they need, and how those are recognised.

To add one, write its loader (a function of the data set's folder that returns a `Dataset`) and an `Entry`
below. Checksums are those of the *unpacked* content, because the same data is published in differently packed
files.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpunet.errors import DataError

if TYPE_CHECKING:
    from .base import Dataset


@dataclass(frozen=True)
class RemoteFile:
    """One file of a data set.

    path: where it lies in the data set's folder; size: bytes unpacked; sha256 and md5: of the unpacked
    content.
    """

    path: str
    size: int
    sha256: str
    md5: str

    @property
    def name(self) -> str:
        """The file's name on a mirror."""
        return self.path.rsplit("/", 1)[-1]

    @property
    def variants(self) -> tuple[str, ...]:
        """The paths at which the file may lie, packed and unpacked, the preferred one first."""
        return (self.path, self.path.removesuffix(".gz")) if self.path.endswith(".gz") else (self.path,)

    def locate(self, folder: Path) -> Path | None:
        """The file in the data set's folder, packed or unpacked; None where it is missing."""
        candidates = (folder / variant for variant in self.variants)
        return next((path for path in candidates if path.is_file()), None)


@dataclass(frozen=True)
class Entry:
    """A data set with a name.

    files: empty for data that is embedded in a package; mirrors: base addresses, each of which has every
    file; load: reads the data set from its own folder.
    """

    name: str
    description: str
    load: Callable[[Path], Dataset]
    files: tuple[RemoteFile, ...] = ()
    mirrors: tuple[str, ...] = ()

    @property
    def embedded(self) -> bool:
        """Whether the data comes with a package, so that there is nothing to fetch."""
        return not self.files

    @property
    def size(self) -> int:
        """Bytes of all files, unpacked."""
        return sum(file.size for file in self.files)


def _load_mnist(folder: Path) -> Dataset:
    from .mnist import load_mnist

    return load_mnist(folder)


def _load_digits(folder: Path) -> Dataset:
    from .digits import load_digits

    return load_digits()


_MNIST_FILES = (
    RemoteFile(
        "train-images-idx3-ubyte.gz",
        47_040_016,
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "6bbc9ace898e44ae57da46a324031adb",
    ),
    RemoteFile(
        "train-labels-idx1-ubyte.gz",
        60_008,
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "a25bea736e30d166cdddb491f175f624",
    ),
    RemoteFile(
        "t10k-images-idx3-ubyte.gz",
        7_840_016,
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "2646ac647ad5339dbf082846283269ea",
    ),
    RemoteFile(
        "t10k-labels-idx1-ubyte.gz",
        10_008,
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        "27ae3e4e09519cfbb04c329615203637",
    ),
)

REGISTRY: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(
            "mnist",
            "70,000 handwritten digits, 28×28 grey, 10 classes (60,000 for training)",
            _load_mnist,
            _MNIST_FILES,
            (
                "https://ossci-datasets.s3.amazonaws.com/mnist/",
                "https://storage.googleapis.com/cvdf-datasets/mnist/",
                "https://raw.githubusercontent.com/fgnt/mnist/master/",
            ),
        ),
        Entry("digits", "1,797 handwritten digits, 8×8 grey, 10 classes; part of scikit-learn", _load_digits),
    )
}


def names() -> tuple[str, ...]:
    """The names of all data sets."""
    return tuple(REGISTRY)


def entry(name: str) -> Entry:
    """The data set of that name; DataError lists the known names where there is none."""
    found = REGISTRY.get(name)
    if found is None:
        near = difflib.get_close_matches(name.lower(), REGISTRY, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise DataError(
            f"unknown data set {name!r}: {hint}known are {', '.join(names())}; "
            "or give a path to a folder of IDX files or to an .npz file"
        )
    return found
