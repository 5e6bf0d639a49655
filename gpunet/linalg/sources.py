"""Data that need not fit in memory: files, folders of shards, HDF5, Zarr and dask arrays, read rows by rows.

A `Source` knows shape and dtype, and reads some rows, or columns, when it is asked. It can be pickled: a file goes to
a worker by its name and is read there, what lies in memory by the rows that the worker is to have (`Source.part`).
Nothing in a file is run: headers are literals, pickled objects are refused, and what a header says is held against the
file's size before anything is allocated.
"""

from __future__ import annotations

import copy
import glob
import math
import os
import re
import struct
import tokenize
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from gpunet.addresses import harmless, public
from gpunet.checks import check_exact, has, on_device, on_host, real_array
from gpunet.errors import DataError, InputError, ShapeError, first_line, shown
from gpunet.extras import load
from gpunet.interrupts import undivided

LOADED = 64 << 20  # bytes up to which a source is read as a whole, and is then an array like any other
READ_BYTES = 16 << 20  # that are read in one go: a disk's full speed, and few enough that three lie in memory
AHEAD = 2  # reads that are ahead of the products
POLL = 0.5  # seconds between looks at whether something else has happened than what is waited for
SHARD = re.compile(r"(?P<before>.*?)(?P<number>\d+)(?P<of>-of-(?P<count>\d+))?(?P<after>\D*)")
MOST_MISSING = 3  # shards that a message names
HDF5 = (".h5", ".hdf5", ".hdf")
TABLES = (".csv", ".tsv", ".txt")
T = TypeVar("T")


class Source:
    """Samples (n, features) that are read when asked for; those of more dimensions are flattened.

    shape: (n, features); dtype: of what is read, in the machine's byte order; sample_shape: of one as it is stored;
    name: what messages call it; strides: those of rows that were read.
    """

    ndim = 2

    def __init__(self, shape: tuple[int, ...], dtype: Any, name: str) -> None:
        dtype = np.dtype(dtype)
        if dtype.kind not in "biuf" or dtype.itemsize > 8:
            how = "; of labels numpy.unique(y, return_inverse=True)[1] makes integers" if dtype.kind in "SUO" else ""
            raise DataError(
                f"{name} has dtype {dtype}: expected real numbers (float32, float64, uint8, integers); convert it, "
                f"and write it anew{how}"
            )
        if not shape:
            raise ShapeError(f"{name} is a single number: expected samples (n, features)")
        self.sample_shape = tuple(int(each) for each in shape[1:])
        self.shape = (int(shape[0]), math.prod(self.sample_shape))
        self.stored, self.dtype, self.name = dtype, dtype.newbyteorder("="), name
        self.strides = (dtype.itemsize * self.shape[1], dtype.itemsize)

    @property
    def size(self) -> int:
        """Numbers in it."""
        return self.shape[0] * self.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes of them."""
        return self.size * int(self.dtype.itemsize)

    def rows(self, start: int, stop: int) -> Any:
        """Samples start … stop, a new array or a view; InputError for integers that float64 cannot hold."""
        array = self._rows(start, stop)
        check_exact(array, self.name)
        return array

    def columns(self, start: int, stop: int) -> Any:
        """Features start … stop of all samples, (n, stop − start)."""
        array = self._columns(start, stop)
        check_exact(array, self.name)
        return array

    def place(self, row: int) -> tuple[str, int]:
        """(what messages call the file that a row lies in, the row's number there)."""
        return self.name, row

    def part(self, start: int, stop: int) -> Source:
        """What a worker that reads rows start … stop needs, which have the same numbers there."""
        return self

    def step(self, least: int = 1) -> int:
        """Rows that are read in one go, `least` or a multiple of it."""
        return in_one_go(self.shape[1] * self.dtype.itemsize, least)

    def check_finite(self, part: Any, start: int) -> None:
        """InputError that names the file and row of the first NaN or infinity of rows that begin at `start`."""
        if self.dtype.kind != "f" or np.isfinite(part).all():
            return
        row, column = divmod(int(np.argmin(np.isfinite(part))), part.shape[1])
        name, number = self.place(start + row)
        raise InputError(
            f"{name} holds {float(part[row, column])} at [{number}, {column}]: expected finite numbers; remove or "
            "replace such values"
        )

    def largest(self) -> float:
        """max|x|, in one pass. Raises InputError that says where the first NaN or infinity stands."""
        top, ranges = 0.0, spans(0, self.shape[0], self.step())
        for (start, _), part in ahead(self.rows, ranges):
            ends = np.abs([float(part.max()), float(part.min())])
            if not np.isfinite(ends).all():
                self.check_finite(part, start)
            top = max(top, float(ends.max()))
        return top

    def whole(self) -> Any:
        """All of it, in the shape in which it is stored."""
        array = self.rows(0, self.shape[0])
        self.check_finite(array, 0)
        return array.reshape(self.shape[0], *self.sample_shape)

    def _rows(self, start: int, stop: int) -> Any:
        raise NotImplementedError

    def _columns(self, start: int, stop: int) -> Any:
        raise NotImplementedError


class NpyFile(Source):
    """Plain numbers in a file from `offset` on, as .npy files and the members of what `numpy.savez` writes hold them.

    Read with plain reads, not through a memory map, whose pages would count as this process's memory.
    """

    def __init__(self, path: str, offset: int, shape: tuple[int, ...], dtype: Any, fortran: bool, name: str) -> None:
        super().__init__(shape, dtype, name)
        self.path, self.offset, self.fortran = path, offset, fortran and len(shape) > 1
        if self.fortran and len(shape) > 2:
            raise ShapeError(
                f"{name} has shape {shape} in Fortran's order: expected C's; write it again with order='C'"
            )

    def _rows(self, start: int, stop: int) -> NDArray[Any]:
        if self.fortran:
            return np.ascontiguousarray(self._read(self.shape[::-1], start, stop).T)  # the same bits as of C's order
        out = np.empty((stop - start, self.shape[1]), self.stored)
        self.read_into(out, start)
        return self._native(out)

    def _columns(self, start: int, stop: int) -> NDArray[Any]:
        if self.fortran:
            out = np.empty((stop - start, self.shape[0]), self.stored)
            with self._opened() as file:
                self._fill(file, out, start * self.shape[0])
            return self._native(out).T
        return self._read(self.shape, start, stop)

    def read_into(self, out: NDArray[Any], start: int) -> None:
        """Rows from `start` on into a contiguous array of them."""
        with self._opened() as file:
            self._fill(file, out, start * self.shape[1])

    def _read(self, shape: tuple[int, int], start: int, stop: int) -> NDArray[Any]:
        """Columns start … stop of what lies there row by row in this shape: a read a row."""
        out = np.empty((shape[0], stop - start), self.stored)
        with self._opened() as file:
            for row in range(shape[0]):
                self._fill(file, out[row], row * shape[1] + start)
        return self._native(out)

    def _native(self, array: NDArray[Any]) -> NDArray[Any]:
        return array.astype(self.dtype, copy=False)

    def _opened(self) -> BinaryIO:
        try:
            file = open(self.path, "rb", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise _unreadable(self.name, error) from None
        if (found := os.fstat(file.fileno()).st_size) < self.offset + self.nbytes:
            file.close()
            raise DataError(
                f"{self.name} is cut short: expected {self.offset + self.nbytes:,} bytes of {self.shape[0]}×"
                f"{self.shape[1]} {self.dtype}, found {found:,}; write it again"
            )
        return file

    def _fill(self, file: BinaryIO, out: NDArray[Any], first: int) -> None:
        """`out` from its numbers `first` and following."""
        bytes_of: Any = out.reshape(-1).view(np.uint8)
        view = memoryview(bytes_of)
        try:
            file.seek(self.offset + first * self.stored.itemsize)
            while len(view):
                read = file.readinto(view)  # type: ignore[attr-defined]
                if not read:
                    raise DataError(f"{self.name} became shorter while it was read: expected it to stay as it is")
                view = view[read:]
        except OSError as error:
            raise _unreadable(self.name, error) from None


class Shards(Source):
    """Files of samples one after the other, which have the same features and dtype."""

    def __init__(self, files: Sequence[NpyFile], name: str) -> None:
        first = files[0]
        for each in files[1:]:
            if each.sample_shape != first.sample_shape:
                raise ShapeError(
                    f"{each.name} has samples of shape {_shape(each.sample_shape)}, {first.name} of "
                    f"{_shape(first.sample_shape)}: expected the same in all shards"
                )
            if each.dtype != first.dtype:
                raise DataError(
                    f"{each.name} holds {each.dtype}, {first.name} {first.dtype}: expected the same in all shards; "
                    "convert one of them"
                )
        super().__init__((sum(each.shape[0] for each in files), *first.sample_shape), first.dtype, name)
        self.files = list(files)
        self.ends = list(accumulate(each.shape[0] for each in files))

    def place(self, row: int) -> tuple[str, int]:  # noqa: D102
        file, end = next(pair for pair in zip(self.files, self.ends, strict=True) if row < pair[1])
        return file.place(row - end + file.shape[0])

    def part(self, start: int, stop: int) -> Source:  # noqa: D102
        some = copy.copy(self)
        pairs = zip(self.files, self.ends, strict=True)
        few = [(file, end) for file, end in pairs if end > start and end - file.shape[0] < stop]
        some.files, some.ends = [file for file, _ in few], [end for _, end in few]
        return some

    def _rows(self, start: int, stop: int) -> NDArray[Any]:
        out = np.empty((stop - start, self.shape[1]), self.dtype)
        for file, end in zip(self.files, self.ends, strict=True):
            begin = end - file.shape[0]
            low, high = max(start, begin), min(stop, end)
            if low >= high:
                continue
            own = out[low - start : high - start]
            if file.fortran or file.stored != file.dtype:
                own[...] = file.rows(low - begin, high - begin)
            else:
                file.read_into(own, low - begin)
        return out

    def _columns(self, start: int, stop: int) -> NDArray[Any]:
        return np.concatenate([file.columns(start, stop) for file in self.files])


class Sliced(Source):
    """Anything that has a shape, a dtype and slices of rows: NumPy's, HDF5's, Zarr's and dask's arrays.

    reopen: (a function, its arguments) that gives it again in another process; without it it is pickled as it is, in
    the parts that workers are to read. first: the number of its first row.
    """

    def __init__(self, array: Any, name: str, reopen: tuple[Any, ...] | None = None, first: int = 0) -> None:
        super().__init__((int(array.shape[0]) + first, *array.shape[1:]), array.dtype, name)
        self._array, self._reopen, self._first, self._here = array, reopen, first, True

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_here": False} | ({"_array": None} if self._reopen else {})

    def part(self, start: int, stop: int) -> Source:  # noqa: D102
        if self._reopen:
            return self
        some = self._array[start - self._first : stop - self._first]
        if has(some, "dask"):  # whose graph would go along as a whole
            from dask import optimize

            (some,) = optimize(some)
        return Sliced(some, self.name, first=start)

    def _rows(self, start: int, stop: int) -> Any:
        array = self._taken(slice(start - self._first, stop - self._first))
        return array.reshape(stop - start, self.shape[1])

    def _columns(self, start: int, stop: int) -> Any:
        return self._taken((slice(None), slice(start, stop)))

    def _taken(self, where: Any) -> Any:
        if self._array is None:
            assert self._reopen
            self._array = self._reopen[0](*self._reopen[1:])
        try:
            found = self._array[where]
            if hasattr(found, "compute"):  # dask's; a worker of a cluster computes its own chunks itself
                found = found.compute() if self._here else found.compute(scheduler="synchronous")
        except (OSError, RuntimeError) as error:
            raise _unreadable(self.name, error) from None
        return real_array(found, self.name)


# -- opening ----------------------------------------------------------------------------------------------------------


def opened(a: Any, what: str = "a") -> Any:
    """A `Source` of what is read piece by piece, and `a` itself where it is no such thing.

    Paths, lists of paths, memory maps, and anything with shape, dtype and slices that is not in memory. What has at
    most LOADED bytes, and stacks of matrices, are read as a whole. Raises InputError for iterators.
    """
    if has(a, "__next__"):
        raise InputError(
            f"{what} is an iterator, which gives its batches once, and a decomposition reads its data twice: use "
            "gn.gram(batches).components(k), or give a file or an array"
        )
    source = None if on_device(a) else source_of(a, what)  # data on a GPU is never copied back
    stack = source is not None and len(source.sample_shape) != 1
    if source is None or (isinstance(a, np.ndarray) and (stack or not isinstance(source, NpyFile))):
        return a
    return source.whole() if stack or source.nbytes <= LOADED else source


def source_of(a: Any, what: str = "source") -> Source | None:
    """A `Source` of a path, of paths, or of what has a shape, a dtype and slices; None for other things."""
    if isinstance(a, Source):
        return a
    if (found := _of_paths(a, what)) is not None:
        return found
    if isinstance(a, np.memmap) and (found := _of_memmap(a, what)) is not None:
        return found
    if isinstance(a, np.ndarray):
        return Sliced(on_host(a, what), what) if type(a) is not np.ma.MaskedArray else None
    if in_memory(a) or not all(has(a, name) for name in ("shape", "dtype", "__getitem__")):
        return None
    try:
        return Sliced(a, *_reopened(a, what))
    except InputError:
        raise
    except Exception:
        return None  # a dtype that is not NumPy's, a shape that is none


def paths_opened(a: Any, what: str) -> Any:
    """What lies at a path, or at several, as a whole; `a` itself where it is none."""
    return a if (found := _of_paths(a, what)) is None else found.whole()


def _of_paths(a: Any, what: str) -> Source | None:
    if (path := _path(a)) is not None:
        return open_path(path, what)
    if isinstance(a, (list, tuple)) and a:
        paths = [_path(each) for each in a]
        if all(each is not None for each in paths):
            return Shards([_npy(each) for each in paths if each is not None], f"{len(a)} shards")
    return None


def _path(a: Any) -> str | None:
    """The path that `a` is; None of other things, and of what raises whatever it is asked."""
    try:
        return os.fsdecode(a) if isinstance(a, (str, os.PathLike)) else None
    except Exception:
        return None


def in_memory(a: Any) -> bool:
    """Whether an array that is not NumPy's lies in memory all the same, or on a GPU: `as_array` knows these."""
    return on_device(a) or any(has(a, name) for name in ("__array_interface__", "__dlpack__", "toarray", "mask"))


def open_path(path: str, what: str = "source") -> Source:
    """FILE.npy, FILE.npz::MEMBER, FILE.h5::DATASET, a folder of .npy shards or of Zarr, or a pattern as `x-*.npy`.

    Raises DataError for what is not there or not sound, and for shards whose numbers have a hole.
    """
    if "://" in path:
        raise InputError(
            f"{what} is '{public(path)}', an address: expected a path; what lies elsewhere is opened with zarr or "
            "dask.array, and the array given"
        )
    file, _, member = path.partition("::")
    if not os.path.lexists(file):
        if glob.has_magic(file) and (found := glob.glob(file)):
            _no_members(path, member)
            return _shards(found, shown(path).strip("'"))
        raise DataError(
            f"{what}: there is no file or folder {shown(file)}: expected FILE.npy, FILE.npz::MEMBER, FILE.h5::DATASET, "
            "a folder of .npy shards or of Zarr, or a pattern such as 'x-*.npy'"
        )
    if os.path.isdir(file):
        names = os.listdir(file)
        if {"zarr.json", ".zarray", ".zgroup"} & set(names):
            return Sliced(_zarr(file, member), path, (_zarr, file, member))
        shards = [os.path.join(file, name) for name in names if name.endswith(".npy") and not name.startswith(".")]
        if not shards:
            said = harmless(file)
            raise DataError(f"{said} holds no .npy files and no Zarr array: expected shards such as x-000.npy")
        _no_members(path, member)
        return _shards(shards, file)
    ending = Path(file).suffix.lower()
    if ending in HDF5:
        return Sliced(_hdf5(file, member), path, (_hdf5, file, member))
    if ending == ".npz":
        return _npz(file, member)
    if ending in TABLES:
        raise DataError(
            f"{what}: {shown(file)} is a table, which is not read here: write its numbers with numpy.save and give that"
        )
    _no_members(path, member)
    return _npy(file)


def _no_members(path: str, member: str) -> None:
    if member:
        raise DataError(f"{harmless(path)} names a member of what has none: expected the path before the '::' alone")


def _npy(path: str) -> NpyFile:
    if os.path.lexists(path) and not os.path.isfile(path):
        said = harmless(path)  # a pipe would never open
        raise DataError(f"{said} is no plain file: expected what numpy.save writes")
    try:
        with open(path, "rb") as file:
            return _header(file, path, harmless(path))
    except OSError as error:
        raise _unreadable(harmless(path), error) from None


def _header(file: Any, path: str, name: str) -> NpyFile:
    """What an .npy file, or a member of an archive that is stored plainly, holds from the file's position on."""
    try:
        version = npy.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"format {version}, where plain numbers have 1.0 or 2.0")
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except (ValueError, SyntaxError, TypeError, EOFError, RecursionError, MemoryError, tokenize.TokenError) as error:
        raise DataError(
            f"{name} is no .npy file ({first_line(error)}): expected what numpy.save writes, or FILE.npz::MEMBER, "
            "FILE.h5::DATASET"
        ) from None
    if any(type(each) is not int or each < 0 for each in shape):
        raise DataError(f"{name} is damaged: its header says shape {shape}; write it again")
    found = NpyFile(path, file.tell(), shape, dtype, fortran, name)
    found._opened().close()  # as long as its header says
    return found


def _npz(path: str, member: str) -> NpyFile:
    try:
        with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
            there = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            info = there[_chosen(path, member, list(there))]
            if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
                raise DataError(
                    f"{path}::{member or info.filename} is compressed, and can only be read as a whole: expected what "
                    "numpy.savez writes, not savez_compressed; write it again, best as .npy"
                )
            file.seek(info.header_offset)
            head = file.read(30)
            name, extra = struct.unpack("<HH", head[26:30])
            file.seek(info.header_offset + 30 + name + extra)
            found = _header(file, path, f"{path}::{info.filename.removesuffix('.npy')}")
            if found.offset + found.nbytes > info.header_offset + 30 + name + extra + info.file_size:
                raise DataError(f"{found.name} is damaged: its header says more than it holds; write it again")
            return found
    except OSError as error:
        raise _unreadable(harmless(path), error) from None
    except (zipfile.BadZipFile, struct.error, NotImplementedError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no sound .npz file ({first_line(error)}): write it with numpy.savez") from None


def _chosen(path: str, member: str, there: list[str]) -> str:
    if member in there:
        return member
    if not member and len(there) == 1:
        return there[0]
    said = f"no '{member}'" if member else "several"
    listed = ", ".join(there[:8]) + (", …" if len(there) > 8 else "")
    raise DataError(f"{path} holds {said}: expected one of {listed or 'its members'}, as '{path}::NAME'")


def _hdf5(path: str, member: str) -> Any:
    h5py = load(f"the HDF5 file {path}", "h5py")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise _unreadable(harmless(path), error) from None
    if member and isinstance(found := file.get(member), h5py.Dataset):
        return found
    there: list[str] = []
    file.visititems(lambda name, each: there.append(name) if isinstance(each, h5py.Dataset) else None)
    return file[_chosen(path, member.strip("/"), there)]


def _zarr(path: str, member: str) -> Any:
    zarr = load(f"the Zarr folder {path}", "zarr")
    try:
        found: Any = zarr.open(path, mode="r")
        if hasattr(found, "array_keys"):
            found = found[_chosen(path, member, sorted(found.array_keys()))]
        return found
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise DataError(f"{path} is no sound Zarr array ({first_line(error)}): write it again") from None


def _reopened(a: Any, what: str) -> tuple[str, tuple[Any, ...] | None]:
    """(what messages call it, how another process opens it)."""
    file: Any = getattr(a, "file", None)
    name = getattr(a, "name", None)
    if hasattr(file, "filename") and isinstance(name, str):  # an HDF5 dataset
        path = os.path.abspath(os.fsdecode(file.filename))
        return f"{file.filename}::{name.strip('/')}", (_hdf5, path, name)
    return what, None


def _of_memmap(a: Any, what: str) -> NpyFile | None:
    """The file of a memory map, or of a view of one that lies there as an array does; None where memory has its own."""
    if a._mmap is None or a.mode == "c" or a.filename is None or not (a.flags.c_contiguous or a.flags.f_contiguous):
        return None
    begin = np.frombuffer(a._mmap, np.uint8).__array_interface__["data"][0]
    offset = a.offset - a.offset % _GRANULARITY + a.__array_interface__["data"][0] - begin
    if a.mode != "r":
        a.flush()
    path = os.path.abspath(a.filename)
    return NpyFile(path, offset, a.shape, a.dtype, not a.flags.c_contiguous, shown(str(a.filename)).strip("'"))


def _granularity() -> int:
    import mmap

    return mmap.ALLOCATIONGRANULARITY


_GRANULARITY = _granularity()


def _shards(paths: Sequence[str], name: str) -> Shards:
    """Files in the order of their numbers; DataError where one is missing between, or of as many as the names say."""
    order = sorted(paths, key=lambda path: [int(t) if t.isdecimal() else t for t in re.split(r"(\d+)", path)])
    groups: dict[tuple[str | None, ...], dict[int, int]] = {}
    for path in order:
        if found := SHARD.fullmatch(os.path.basename(path)):
            key = (os.path.dirname(path), *found.group("before", "count", "of", "after"))
            groups.setdefault(key, {})[int(found["number"])] = len(found["number"])
    for (folder, before, count, of, after), numbers in groups.items():
        first, last = min(numbers), max(numbers)
        if count:  # numbered from 0, or from 1
            first = int(int(count) in numbers)
            last = first + int(count) - 1
        if missing := sorted(set(range(first, min(last, first + 10**6) + 1)) - set(numbers)):
            width = min(numbers.values())
            told = [f"{before}{number:0{width}d}{of or ''}{after}" for number in missing[:MOST_MISSING]]
            more = f" and {len(missing) - len(told)} more" if len(missing) > len(told) else ""
            raise DataError(
                f"{folder or '.'} lacks {', '.join(told)}{more}, between shards {first} and {last}: expected all of "
                "them; add what is missing, or list the files that you mean"
            )
    return Shards([_npy(path) for path in order], name)


def _shape(sample: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, sample))})"


def _unreadable(name: str, error: Exception) -> DataError:
    import socket

    reason = getattr(error, "strerror", None) or first_line(error)
    return DataError(
        f"{name} cannot be read on {socket.gethostname()}: {reason}; expected a file that this process, and every "
        "worker, can read"
    )


# -- reading ----------------------------------------------------------------------------------------------------------


def in_one_go(bytes_each: int, least: int) -> int:
    """Rows of so many bytes that are read in one go: READ_BYTES of them, in multiples of `least`."""
    return max(1, READ_BYTES // max(1, bytes_each) // least) * least


def spans(start: int, stop: int, step: int) -> list[tuple[int, int]]:
    """(begin, end) of pieces of `step` rows, the last one shorter."""
    return [(begin, min(begin + step, stop)) for begin in range(start, stop, step)]


def ahead(read: Callable[..., T], places: Iterable[tuple[Any, ...]]) -> Iterator[tuple[tuple[Any, ...], T]]:
    """(a place, read(*place)) in turn; AHEAD reads are made beside what is done with the one before.

    Memory: AHEAD + 1 of what `read` returns.
    """
    thread = ThreadPoolExecutor(1, "gpunet-reads")
    waiting: deque[tuple[tuple[Any, ...], Future[T]]] = deque()

    def first() -> tuple[tuple[Any, ...], T]:
        place, future = waiting.popleft()
        while not is_done(future):
            pass
        return place, future.result()

    try:
        for place in places:
            with undivided():
                waiting.append((place, thread.submit(read, *place)))
            if len(waiting) > AHEAD:
                yield first()
        while waiting:
            yield first()
    finally:
        thread.shutdown(cancel_futures=True)


def is_done(future: Future[Any]) -> bool:
    """Whether it has ended, for which POLL seconds are waited at most; an interruption comes after them."""
    with undivided():
        return bool(wait([future], POLL).done)
