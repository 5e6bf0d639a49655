"""Arrays as NumPy saves them: a data set in one .npz file, or in .npy files."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy

from gpunet.errors import DataError, printable
from gpunet.interrupts import contextmanager

from .arrays import Dataset, from_arrays, from_one
from .disk import BAD_FILE, check_fits, reason, unreadable

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEYS = ("x_train", "y_train", "x_test", "y_test")
# Of a set that nobody has split: how people call samples, and labels.
ONE = {"x": ("x", "data", "images"), "y": ("y", "target", "labels")}
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others can take gigabytes to unpack a few bytes


def load_npz(path: str | Path) -> Dataset:
    """Load an .npz with x_train, y_train, x_test, y_test, or with X and y alone; other keys are ignored.

    Of X and y every fifth sample of each class is in the test set. Names count in capitals, too, and `data` or `images`
    and `target` or `labels` for X and y. x: (n, …), flattened to (n, features) with the sample's shape kept. uint8
    stays uint8 and is read as 0 … 255; bool becomes uint8 with True = 255; everything else, float64 and other integers
    too, becomes float32 and is taken as it is, unscaled. y: (n,) or (n, 1) labels, whole numbers or text.

    Pickled objects are never loaded. Raises DataError for missing keys, object arrays and damaged files.
    """
    path = Path(path)
    there = _names(path)
    split, one = _found(there, KEYS), _one(there)
    if not split and len(one) == len(ONE):
        arrays = load_arrays(path, one.values(), text=[one["y"]])
        return from_one(path.stem, arrays[one["x"]], arrays[one["y"]], source=str(path))
    if len(split) < len(KEYS):
        missing = ", ".join(key for key in KEYS if key not in split)
        here = ", ".join(map(printable, there[:8])) + (", …" if len(there) > 8 else "")
        raise DataError(
            f"{path}: missing {missing}; found {here or 'nothing'}. Write it with numpy.savez(path, x_train=…, "
            "y_train=…, x_test=…, y_test=…), or numpy.savez(path, X=…, y=…)"
        )
    arrays = load_arrays(path, split.values(), text=[split["y_train"], split["y_test"]])
    parts: dict[str, Any] = {key: arrays[name] for key, name in split.items()}
    return from_arrays(path.stem, **parts, source=str(path))


def load_npy(files: dict[str, Path], source: Path) -> Dataset:
    """Load .npy files, one for each of x_train, y_train, x_test and y_test, or for x and y; as `load_npz` does."""
    arrays: dict[str, Any] = {part: read_npy(path, text=part[0] == "y") for part, path in files.items()}
    name = source.stem if source.is_file() else source.resolve().name
    return (from_one if "x" in arrays else from_arrays)(name, **arrays, source=str(source))


def npy_parts(names: Iterable[str]) -> dict[str, str]:
    """Which of a folder's files is which part of a data set, by part: all of KEYS, or x and y; {} where none is."""
    there = [name.removesuffix(".npy") for name in names if name.endswith(".npy")]
    split, one = _found(there, KEYS), _one(there)
    found = split if len(split) == len(KEYS) else one if len(one) == len(ONE) else {}
    return {part: f"{name}.npy" for part, name in found.items()}


def _one(there: Sequence[str]) -> dict[str, str]:
    """Which of the names is x, and which y, of a set that nobody has split."""
    found = {part: list(_found(there, also).values()) for part, also in ONE.items()}
    return {part: names[0] for part, names in found.items() if names}


def _found(there: Sequence[str], wanted: Iterable[str]) -> dict[str, str]:
    """Which of the names is meant by each that is wanted: that itself, or with capitals."""
    lower = {name.lower(): name for name in reversed(there)}
    return {key: key if key in there else lower[key] for key in wanted if key in lower}


def read_npy(path: Path, text: bool = False) -> NDArray[Any]:
    """The array of an .npy file: real numbers, or text where that is allowed. Raises DataError."""
    with _sound(path, "save"), path.open("rb") as stream:
        shape, dtype = _header(stream, str(path))
        size = path.stat().st_size - stream.tell()
        _check(shape, dtype, size, str(path), text)
        check_fits(size, f"{path}: the content")
        stream.seek(0)
        array: NDArray[Any] = npy.read_array(stream, allow_pickle=False)
    return array


def _names(path: Path) -> list[str]:
    with _opened(path) as archive:
        return [info.filename.removesuffix(".npy") for info in archive.infolist()]


def load_arrays(path: Path, keys: Collection[str] = (), text: Collection[str] = ()) -> dict[str, NDArray[Any]]:
    """These arrays of an .npz file, or all; real numbers as they are. Raises DataError as `load_npz` does.

    text: the keys of those that may be text.
    """
    with _opened(path) as archive:
        members = _members(archive, path, keys)
        whole = sum(member.file_size for member in members.values())
        check_fits(whole, f"{path}: the content", path.stat().st_size)
        return {key: _read(archive, member, f"{path}: {key}", key in text) for key, member in members.items()}


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    with _sound(path, "savez"), zipfile.ZipFile(path) as archive:
        yield archive


@contextmanager
def _sound(path: Path, writer: str) -> Iterator[None]:
    """Whatever reading a file raises becomes a DataError; writer: the function of NumPy's that writes such files."""
    try:
        yield
    except DataError:
        raise
    except OSError as error:
        raise unreadable(path, error) from None
    except BAD_FILE as error:
        kind = ".npz" if writer == "savez" else ".npy"
        raise DataError(
            f"{path}: not a sound {kind} file ({reason(error)}); write it again with numpy.{writer}"
        ) from None


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


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str, text: bool) -> NDArray[Any]:
    """One array, its header held against the member's size before NumPy allocates what the header says."""
    with archive.open(member) as stream:
        shape, dtype = _header(stream, where)
        _check(shape, dtype, member.file_size - stream.tell(), where, text)
    with archive.open(member) as stream:
        array: NDArray[Any] = npy.read_array(stream, allow_pickle=False)
    return array


def _check(shape: tuple[int, ...], dtype: np.dtype[Any], payload: int, where: str, text: bool) -> None:
    expected = math.prod(shape) * dtype.itemsize
    if dtype.kind not in ("buifUS" if text else "buif") or min(shape, default=0) < 0:
        wanted = "real numbers, or of text" if text else "real numbers"
        raise DataError(f"{where} is {dtype} of shape {shape}; expected an array of {wanted}")
    if payload != expected:
        raise DataError(
            f"{where} is damaged: its header says {shape} of {dtype}, {expected:,} bytes, but "
            f"{payload:,} bytes follow; write the file again"
        )


def _header(stream: IO[bytes], where: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = npy.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise DataError(f"{where} is in .npy format {version}; expected plain numbers, format (1, 0) or (2, 0)")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(stream)
    if dtype.hasobject:
        raise DataError(
            f"{where} holds Python objects, which are never loaded; write it as one array of numbers, "
            "all samples of one shape; labels as one of whole numbers or text (dtype U)"
        )
    return shape, dtype
