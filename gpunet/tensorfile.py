"""Safetensors files: what stands in one, checked before it is trusted, read and written a tensor at a time.

Eight bytes say how long the header is, which is JSON and says of each tensor its dtype, its shape and where its bytes
lie; the tensors follow. A file that we seal holds its own SHA-256.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BufferedReader
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gpunet.errors import DataError, GpunetError, InputError, OutputError, RunError, shown
from gpunet.extras import load
from gpunet.files import check_replaceable, put_in_place, reason, settle, temporary
from gpunet.interrupts import contextmanager, undivided
from gpunet.limits import DAMAGE, check_room, longest_text, parse_json

KEY = "gpunet"  # under which a file's metadata describes a model of ours
SEAL, BLANK = "sha256", "0" * 64
MEND = "save it again, or get another copy"
MODEL = "a model saved as safetensors"
POINTER = b"version https://git-lfs."  # how the lines begin that stand for a file which was not fetched
PICKLED = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
TAGS = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "C64": "complex64",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "BOOL": "bool",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
}  # fmt: skip
"""What safetensors calls each dtype that an array may have; it has smaller ones, packed, which none may."""
NAMES = {name: tag for tag, name in TAGS.items()}


def as_dtype(name: str) -> np.dtype[Any]:
    """NumPy's dtype of that name; bfloat16 and float8 are those of ml_dtypes, MissingError where that is missing."""
    if name.startswith(("bfloat", "float8")):
        name = getattr(load(f"an array of {name}", "ml_dtypes"), name)
    found: np.dtype[Any] = np.dtype(name)
    return found


@dataclass(frozen=True)
class Stored:
    """A tensor as a file has it: the name of its dtype (NumPy's, else safetensors'), and the place of its bytes."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        return self.stop - self.start


@dataclass(frozen=True)
class Header:
    """What a file holds, in the order in which it lies there, and how one sees that it is the file still."""

    path: Path
    tensors: dict[str, Stored]
    metadata: dict[str, str]
    state: tuple[int, ...]

    def read(self, name: str, file: BufferedReader | None = None) -> Any:
        """The tensor as an array of its own, read anew; DataError where the file is another by now, or unreadable.

        file: the open file, where it is at hand.
        """
        stored = self.tensors[name]
        if stored.dtype not in NAMES:
            raise DataError(f"'{self.path}': {name} is stored as {stored.dtype}, which no array can hold")
        return self.raw(name, file).view(as_dtype(stored.dtype)).reshape(stored.shape)

    def raw(self, name: str, file: BufferedReader | None = None) -> Any:
        """Its bytes, an array (nbytes,) of uint8, whatever the dtype."""
        stored = self.tensors[name]
        try:
            with contextlib.nullcontext(file) if file else self.path.open("rb") as opened:
                opened.seek(stored.start)
                found = np.empty(stored.nbytes, np.uint8)
                if opened.readinto(found.data) < stored.nbytes or _state(opened) != self.state:
                    raise DataError(f"'{self.path}' was changed while it was being read: start again")
                return found
        except OSError as error:
            raise DataError(f"'{self.path}' cannot be read any more: {reason(error)}") from error


def _state(file: BufferedReader) -> tuple[int, ...]:
    now = os.fstat(file.fileno())
    return now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns


def header(path: Path, mend: str = MEND, expected: str = MODEL) -> Header:
    """What a safetensors file holds, none of its tensors read; DataError, which ends in `mend`, where it is none.

    What we have sealed ourselves must match its digest; other files have none.
    """
    with _opened(path, mend, expected, whole=False) as (found, _):
        return found


def read(path: Path, mend: str = MEND) -> tuple[dict[str, Any], dict[str, str]]:
    """All arrays and the metadata of a safetensors file; DataError, which ends in `mend`, where it is none."""
    with _opened(path, mend) as (found, file):
        return {name: found.read(name, file) for name in found.tensors}, found.metadata


@contextmanager
def _opened(
    path: Path, mend: str, expected: str = MODEL, *, whole: bool = True
) -> Iterator[tuple[Header, BufferedReader]]:
    from safetensors import SafetensorError, safe_open

    try:
        if not path.is_file():
            raise DataError(f"there is no file '{path}': expected {expected}")
        refuse_foreign(path, expected, mend)
        if whole:
            check_room(path)
        with path.open("rb") as raw:
            state, head = _state(raw), raw.read(8)
            size = int.from_bytes(head, "little")
            if size > longest_text():
                raise ValueError(f"its header of {size:,} bytes is longer than {longest_text():,}")
            with safe_open(str(path), framework="numpy"):  # which checks sizes, offsets and their order
                head += raw.read(size)
            said = parse_json(head[8:])
            metadata = said.pop("__metadata__", None) or {}
            if (KEY in metadata or SEAL in metadata) and not _sealed(head, raw):
                raise DataError(f"'{path}' does not match its digest: it was cut short or changed; {mend}")
            tensors = {name: _stored(each, len(head)) for name, each in said.items()}
            in_order = sorted(tensors.items(), key=lambda found: found[1].start)
            yield Header(path, dict(in_order), dict(metadata), state), raw
    except GpunetError:
        raise
    except (SafetensorError, OSError, *DAMAGE) as error:
        raise DataError(f"'{path}' is not a readable safetensors file: {error}; {mend}") from error


def refuse_foreign(path: Path, expected: str, mend: str = MEND) -> None:
    """DataError for a file that is no safetensors, where its first bytes tell, with the lines that make it one.

    Raises OSError where it cannot be read.
    """
    with path.open("rb") as file:
        first = file.read(len(POINTER))
    if first[8:9] == b"{":  # which the length of a header is followed by
        return
    if first == POINTER:
        raise DataError(
            f"'{path}' is a pointer of git-lfs, three lines in place of the file: fetch it with git lfs pull"
        )
    target = path.with_suffix(".safetensors")
    if target == path:
        target = path.with_name(f"{path.stem}-converted.safetensors")
    kind = _kind_of_zip(path) if first.startswith(b"PK\x03\x04") else ""
    if kind == "arrays":
        raise DataError(
            f"'{path}' is a zip of NumPy's arrays (.npz): expected {expected}; weights become one with: "
            "import numpy, safetensors.numpy; "
            "safetensors.numpy.save_file({name: numpy.asarray(each, order='C') for name, each in "
            f"numpy.load({shown(path.name)}).items()}}, {shown(target.name)})"
        )
    pickle = first.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")) or kind == "pickle"
    if pickle or path.suffix in PICKLED:
        raise DataError(
            f"'{path}' is a pickle, which can run any code when it is read: convert it once, in Python: "
            "import torch, safetensors.torch; "
            f"state = torch.load({shown(path.name)}, map_location='cpu', weights_only=True); "
            "safetensors.torch.save_file({name: each.clone() for name, each in state.items()}, "
            f"{shown(target.name)})"
        )
    if kind or int.from_bytes(first[:8], "little") > longest_text():
        raise DataError(
            f"'{path}' is not a readable safetensors file, but {kind or 'of another kind'}: "
            f"expected {expected}{'' if mend == MEND else f'; {mend}'}"
        )


def _kind_of_zip(path: Path) -> str:
    """What a zip holds, "arrays" of NumPy's or a "pickle" of torch.save's; else what to call it."""
    try:
        with zipfile.ZipFile(path) as file:
            names = file.namelist()
    except (zipfile.BadZipFile, *DAMAGE):  # cut short, say
        return "pickle" if path.suffix in PICKLED else "a damaged zip archive"
    if names and all(name.endswith(".npy") for name in names):
        return "arrays"
    return "pickle" if any(name.endswith("data.pkl") for name in names) else "a zip archive"


def _stored(said: dict[str, Any], begin: int) -> Stored:
    return Stored(
        TAGS.get(said["dtype"], said["dtype"]), tuple(said["shape"]), *(begin + place for place in said["data_offsets"])
    )


# -- the digest -------------------------------------------------------------------------------------------------------


def seal(arrays: Mapping[str, Any], metadata: Mapping[str, str]) -> bytearray:
    """A safetensors file that holds the SHA-256 of itself, the digest's own place taken as zeros."""
    from safetensors.numpy import save as to_bytes

    content = bytearray(to_bytes(dict(arrays), metadata={**metadata, SEAL: BLANK}))
    place = _place(content)
    content[place : place + len(BLANK)] = hashlib.sha256(content).hexdigest().encode()
    return content


def _place(content: bytes | bytearray) -> int:
    """Where the digest's place is, in a file that holds zeros there."""
    return content.index(f'"{SEAL}":"{BLANK}"'.encode()) + len(f'"{SEAL}":"')


def _sealed(head: bytes, rest: BufferedReader) -> bool:
    """Whether every byte of a safetensors file, its header and what follows, is as `seal` wrote it."""
    found = re.search(rb'"%s":"([0-9a-f]{64})"' % SEAL.encode(), head)
    if not found:
        return False
    begun = hashlib.sha256(head[: found.start(1)] + BLANK.encode() + head[found.end(1) :])
    return hashlib.file_digest(rest, lambda: begun).hexdigest().encode() == found[1]


# -- writing ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """A tensor that is to be written: `make` gives it when its turn comes, as an array of `dtype` and `shape`.

    dtype: as `Stored` has it; where no array can hold it, `make` gives its bytes, uint8, and `nbytes` says how many.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    make: Callable[[], Any]
    packed: int | None = None

    @property
    def nbytes(self) -> int:
        """Bytes that it will take."""
        return prod(self.shape) * as_dtype(self.dtype).itemsize if self.packed is None else self.packed


def write(path: Path, entries: Sequence[Entry], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file, a tensor in memory at a time; the file is there whole or not at all.

    Wider dtypes lie first, so that all are aligned; else the order is that of `entries`, which is the order in which
    they are made. An interruption comes at once, and leaves nothing. Raises OutputError, at once where it is known
    that the disk has no room, and whatever `make` raises.
    """
    write_together([(path, entries, metadata or {})])


def write_together(
    files: Sequence[tuple[Path, Sequence[Entry], Mapping[str, str]]],
    texts: Mapping[Path, Callable[[], str]] | None = None,
) -> None:
    """The same of several files in one folder; what becomes of them is decided for all, at the end.

    texts: what is to appear after them, such as their index, each made when all of them are.
    """
    texts = texts or {}
    if any(each.name == "__metadata__" for _, entries, _ in files for each in entries):
        raise InputError("a tensor is called '__metadata__', as safetensors calls something else: give it another name")
    for path in (*(path for path, _, _ in files), *texts):
        check_replaceable(path)
    folder = files[0][0].parent
    with _told(files[0][0]):
        room = shutil.disk_usage(folder).free
        if (size := sum(each.nbytes for _, entries, _ in files for each in entries)) > room:
            raise OutputError(
                f"cannot write '{files[0][0]}': {size:,} bytes are needed, and '{folder}' has room for {room:,}"
            )
    with undivided() as signals, contextlib.ExitStack() as stack:
        done: list[tuple[str, BinaryIO, Path]] = []
        for path, entries, metadata in files:
            with _told(path):
                name, file = stack.enter_context(temporary(path))
            done.append((name, file, path))
            with signals.heard():
                _fill(file, path, entries, metadata)
        for path, text in texts.items():
            with _told(path):
                name, file = stack.enter_context(temporary(path))
                file.write(text().encode())
            done.append((name, file, path))
        for _, file, path in done:
            with _told(path):
                settle(file)  # all of them, before the first has its name: the disk may be full at the last
        for name, file, path in done:
            with _told(path):
                put_in_place(name, file, path)


def _fill(file: BinaryIO, path: Path, entries: Sequence[Entry], metadata: Mapping[str, str]) -> None:
    """Write a file's header and its tensors; where its metadata has a digest, that of what is written."""
    in_order = sorted(entries, key=lambda each: 0 if each.packed is not None else -as_dtype(each.dtype).itemsize)
    sealed = SEAL in metadata
    metadata = {**metadata, SEAL: BLANK} if sealed else metadata
    said: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    place = 0
    for each in in_order:
        tag = NAMES.get(each.dtype, each.dtype)
        said[each.name] = {
            "dtype": tag, "shape": list(each.shape), "data_offsets": [place, place := place + each.nbytes],
        }  # fmt: skip
    text = json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    head, digest = len(text).to_bytes(8, "little") + text, hashlib.sha256()
    with _told(path):
        file.write(head)
    if sealed:
        digest.update(head)
    for each in in_order:
        array = np.asarray(each.make(), order="C")
        if each.packed is None and (array.dtype != each.dtype or array.shape != each.shape):
            raise RunError(f"{each.name} was to be {each.dtype} {each.shape}: it is {array.dtype} {array.shape}")
        content = array.reshape(-1).view(np.uint8).data
        with _told(path):
            file.write(content)
        if sealed:
            digest.update(content)
    if sealed:
        with _told(path):
            file.seek(_place(head))
            file.write(digest.hexdigest().encode())


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except GpunetError:
        raise
    except (OSError, ValueError) as error:
        raise OutputError(f"cannot write '{path}': {reason(error, path.parent)}") from error
