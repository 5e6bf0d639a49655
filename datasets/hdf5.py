"""Arrays of numbers out of an HDF5 file that nobody vouches for.

An HDF5 file can name other files to read from (external links, external storage, virtual data sets) and claim sizes
that it does not hold: both are looked for before anything is read.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpunet.errors import DataError

from .memory import check_fits
from .packed import MAX_RATIO

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Everything that h5py has been seen to raise on damaged files.
_BAD_FILE = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, NotImplementedError, MemoryError)


def read_hdf5(path: Path, keys: Sequence[str]) -> dict[str, NDArray[Any]]:
    """The arrays of that name at the top of the file, in their own shapes and dtypes; others are not looked at.

    Raises DataError, naming the file, where it is no HDF5 file or damaged, where a key is missing, no plain array of
    integers, floats or bools, stored in another file, or larger than the file or the machine can hold.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return {key: _read(file, key, path, keys) for key in keys}
    except DataError:
        raise
    except _BAD_FILE as error:
        if isinstance(error, OSError) and error.errno:
            raise DataError(f"{path}: cannot be read: {os.strerror(error.errno)}") from None
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: not a sound HDF5 file ({reason[:120]}); fetch or copy it again") from None


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
    check_fits(size, f"{path}: {key}, {item.shape} of {item.dtype},")
    array: NDArray[Any] = item[()]
    return array
