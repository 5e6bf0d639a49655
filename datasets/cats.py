"""Photographs with a cat or without, from the two HDF5 files of the course that document 001 took them from.

Nobody vouches for an HDF5 file. It can name other files to read from (external links, external storage, virtual data
sets) and claim sizes that it does not hold: both are looked for before anything is read. And a damaged one can bring
down the process in HDF5's C library, so what is not known by its checksum is read by a process of its own, with limits.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpunet.errors import DataError, printable
from gpunet.extras import need
from gpunet.limits import allowed

from .arrays import Dataset, as_features, as_labels, validate
from .catalog import REGISTRY, RemoteFile
from .disk import BAD_FILE, MAX_RATIO, check_fits, damage, reason

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHAPE = (64, 64, 3)
CLASSES = 2  # 0: no cat, 1: cat
NAMES = ("no cat", "cat")
SECONDS = 60  # for reading one file; a good one takes milliseconds
_CHILD = """
import json, sys
orders = json.loads(sys.stdin.readline())
sys.path[:] = orders["path"]
from gpunet.datasets.cats import _answer
_answer(orders)
"""


def load_cats(folder: Path) -> Dataset:
    """Load the cats: x (209 and 50, 12288) uint8, shape (64, 64, 3), colours last; class 1 is a cat, 0 is none.

    `train_set_x`, `train_set_y` and the same with test are read; `list_classes` is ignored. Raises DataError where
    files are missing, damaged, or hold anything else.
    """
    entry = REGISTRY["cats"]
    (x_train, y_train), (x_test, y_test) = (
        _read_split(path, file, split)
        for path, file, split in zip(entry.located(folder), entry.files, ("train", "test"), strict=True)
    )
    return validate(Dataset("cats", x_train, y_train, x_test, y_test, SHAPE, CLASSES, str(folder), NAMES))


def _read_split(path: Path, known: RemoteFile, split: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
    keys = (f"{split}_set_x", f"{split}_set_y")
    images, labels = read_hdf5(path, keys, known).values()
    if images.dtype != np.uint8 or images.shape[1:] != SHAPE:
        raise DataError(
            f"{path}: {keys[0]} is {images.dtype} of shape {images.shape}; expected uint8 of shape (n, 64, 64, 3)"
        )
    y = as_labels(labels, f"{path}: {keys[1]}")
    if len(images) != len(y):
        raise DataError(f"{path}: {keys[0]} has {len(images):,} images but {keys[1]} has {len(y):,} labels")
    wrong = (y < 0) | (y >= CLASSES)
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(f"{path}: {keys[1]} row {row} is {y[row]}; expected 0 (no cat) or 1 (cat)")
    return as_features(images, f"{path}: {keys[0]}")[0], y


def read_hdf5(path: Path, keys: Sequence[str], known: RemoteFile | None = None) -> dict[str, NDArray[Any]]:
    """The arrays of that name at the top of the file, in their own shapes and dtypes; others are not looked at.

    known: what it should be; a file of that size must have that checksum, and is read by this process, which is faster.
    Raises DataError, naming the file, where it is no HDF5 file or damaged, where a key is missing, no plain array of
    integers, floats or bools, stored in another file, or larger than the file or the machine can hold.
    """
    need(f"the HDF5 file {path}", "h5py")
    if known and path.stat().st_size == known.size:
        if wrong := damage(path, known):
            raise DataError(f"{path}: damaged, or another data set's: {wrong}; fetch it again")
        return read_here(path, keys)
    return _read_apart(path, keys)


def read_here(path: Path, keys: Sequence[str]) -> dict[str, NDArray[Any]]:
    """`read_hdf5` by this process, for a file that HDF5's library can be trusted with."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return {key: _read(file, key, path, keys) for key in keys}
    except DataError:
        raise
    except BAD_FILE as error:
        if isinstance(error, OSError) and error.errno:
            raise DataError(f"{path}: cannot be read: {os.strerror(error.errno)}") from None
        raise _unsound(path, reason(error)) from None


def _read_apart(path: Path, keys: Sequence[str]) -> dict[str, NDArray[Any]]:
    orders = {"path": sys.path, "file": str(path.absolute()), "shown": str(path), "keys": list(keys)}
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CHILD], input=json.dumps(orders).encode() + b"\n", stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, timeout=SECONDS, check=False, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise _unsound(path, f"reading it takes more than {SECONDS} s") from None
    except OSError as error:
        raise DataError(f"{path}: no process could be started to read it: {error.strerror or error}") from None
    said, _, _ = done.stdout[: 1 << 16].partition(b"\n")
    try:
        told = json.loads(said)
    except ValueError:
        raise _unsound(path, f"the HDF5 library broke down over it, exit code {done.returncode}") from None
    if "error" in told:
        raise DataError(told["error"])
    found, place = {}, len(said) + 1
    for key, dtype, shape in told["arrays"]:
        count = math.prod(shape)
        check_fits(count * np.dtype(dtype).itemsize, f"{path}: {key}, {tuple(shape)} of {np.dtype(dtype)},")
        found[key] = np.frombuffer(done.stdout, dtype, count, place).reshape(shape).copy()
        place += found[key].nbytes
    return found


def _answer(orders: dict[str, Any]) -> None:
    """What the other process does: a line of JSON on standard output, then the arrays' bytes."""
    import h5py  # noqa: F401 - before the limits

    path = Path(orders["file"])
    with contextlib.suppress(ImportError, ValueError, OSError):  # not on every system
        import resource

        most = (2 << 30) + 4 * allowed(path.stat().st_size)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        found = read_here(path, orders["keys"])
        said: dict[str, Any] = {"arrays": [(key, array.dtype.str, array.shape) for key, array in found.items()]}
    except DataError as error:
        said, found = {"error": str(error).replace(str(path), orders["shown"])}, {}
    out = sys.stdout.buffer
    out.write(json.dumps(said).encode() + b"\n")
    for array in found.values():
        out.write(np.ascontiguousarray(array).data)
    out.flush()


def _unsound(path: Path, why: str) -> DataError:
    return DataError(f"{path}: not a sound HDF5 file ({printable(why)[:120]}); fetch or copy it again")


def _read(file: Any, key: str, path: Path, keys: Sequence[str]) -> NDArray[Any]:
    import h5py

    found = list(file)  # names only: asking "key in file" would follow links
    if key not in found:
        here = " ".join(", ".join(map(str, found[:8])).split()) + (", …" if len(found) > 8 else "")
        raise DataError(f"{path}: missing {', '.join(k for k in keys if k not in found)}; found {here or 'nothing'}")
    if not isinstance(file.get(key, getlink=True), h5py.HardLink):
        raise DataError(f"{path}: {key} is a link to another place, which is never followed; store the array itself")
    item = file[key]
    if not isinstance(item, h5py.Dataset) or item.shape is None:
        raise DataError(f"{path}: {key} is no array; expected an array of numbers")
    if item.is_virtual or item.external:
        raise DataError(f"{path}: {key} is stored in other files, which are never read; store the array itself")
    if item.dtype.kind not in "buif":
        what = "Python objects or text" if item.dtype.hasobject else str(item.dtype)
        raise DataError(f"{path}: {key} holds {what}; expected an array of numbers")
    size, stored = item.size * item.dtype.itemsize, item.id.get_storage_size()
    if size > stored * MAX_RATIO:
        raise DataError(
            f"{path}: {key} is damaged: its header says {item.shape} of {item.dtype}, {size:,} bytes, but "
            f"{stored:,} bytes are stored; fetch or copy it again"
        )
    check_fits(size, f"{path}: {key}, {item.shape} of {item.dtype},", path.stat().st_size)
    array: NDArray[Any] = item[()]
    return array
