"""A data set in one .npz file, as `numpy.savez` writes it."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy

from gpunet.errors import DataError

from .arrays import Dataset, from_arrays
from .disk import BAD_FILE, check_fits, reason, unreadable

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEYS = ("x_train", "y_train", "x_test", "y_test")
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others can take gigabytes to unpack a few bytes


def load_npz(path: str | Path) -> Dataset:
    """Load an .npz with x_train, y_train, x_test, y_test; other keys are ignored.

    x: (n, …), flattened to (n, features) with the sample's shape kept. uint8 stays uint8 and is read as 0 …
    255; bool becomes uint8 with True = 255; everything else, float64 and other integers too, becomes float32
    and is taken as it is, unscaled. y: (n,) or (n, 1) integers 0 … classes − 1.

    Pickled objects are never loaded. Raises DataError for missing keys, object arrays and damaged files.
    """
    path = Path(path)
    return from_arrays(path.stem, **load_arrays(path, KEYS), source=str(path))


def load_arrays(path: Path, keys: Collection[str] = ()) -> dict[str, NDArray[Any]]:
    """These arrays of an .npz file, or all; real numbers as they are. Raises DataError as `load_npz` does."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(archive, path, keys)
            whole = sum(member.file_size for member in members.values())
            check_fits(whole, f"{path}: the content", path.stat().st_size)
            return {key: _read(archive, member, path, key) for key, member in members.items()}
    except DataError:
        raise
    except OSError as error:
        raise unreadable(path, error) from None
    except BAD_FILE as error:
        raise DataError(f"{path}: not a sound .npz file ({reason(error)}); write it again with numpy.savez") from None


def _members(archive: zipfile.ZipFile, path: Path, keys: Collection[str]) -> dict[str, zipfile.ZipInfo]:
    there: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        if there.setdefault(key := info.filename.removesuffix(".npy"), info) is not info and (key in keys or not keys):
            raise DataError(f"{path}: {key} is in it twice; write it again with numpy.savez")
    keys = keys or list(there)
    missing = [key for key in keys if key not in there]
    if missing:
        here = ", ".join(list(there)[:8]) + (", …" if len(there) > 8 else "")
        raise DataError(
            f"{path}: missing {', '.join(missing)}; found {here or 'nothing'}. Write it with "
            f"numpy.savez(path, {', '.join(f'{key}=…' for key in keys)})"
        )
    for key in keys:
        if there[key].compress_type not in METHODS or there[key].flag_bits & 1:
            raise DataError(f"{path}: {key} is packed as numpy.savez never does; write it again with that")
    return {key: there[key] for key in keys}


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path, key: str) -> NDArray[Any]:
    """One array, its header held against the member's size before NumPy allocates what the header says."""
    with archive.open(member) as stream:
        shape, dtype = _header(stream, path, key)
        payload = member.file_size - stream.tell()
    expected = math.prod(shape) * dtype.itemsize
    if dtype.kind not in "buif" or min(shape, default=0) < 0:
        raise DataError(f"{path}: {key} is {dtype} of shape {shape}; expected an array of real numbers")
    if payload != expected:
        raise DataError(
            f"{path}: {key} is damaged: its header says {shape} of {dtype}, {expected:,} bytes, but "
            f"{payload:,} bytes follow; write the file again"
        )
    with archive.open(member) as stream:
        array: NDArray[Any] = npy.read_array(stream, allow_pickle=False)
    return array


def _header(stream: IO[bytes], path: Path, key: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = npy.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise DataError(f"{path}: {key} is in .npy format {version}; expected plain numbers, format (1, 0) or (2, 0)")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(stream)
    if dtype.hasobject:
        raise DataError(
            f"{path}: {key} holds Python objects, which are never loaded; write it as one array of numbers, "
            "all samples of one shape"
        )
    return shape, dtype
