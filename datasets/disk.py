"""What lies on the disk of a data set: packed or not, sound or not, and not more than a machine can take."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from gpunet.checks import check_flag
from gpunet.errors import DataError, RunError
from gpunet.extras import lacking
from gpunet.interrupts import contextmanager
from gpunet.limits import DAMAGE, VARIABLE, allowed, physical_memory

from . import catalog
from .catalog import RemoteFile

# Deflate cannot do better than about 1032 to 1 (zlib's technical details), which bounds what a file may
# unpack to.
MAX_RATIO = 1032
BAD_GZIP = (gzip.BadGzipFile, zlib.error, EOFError)
# Everything that libraries have been seen to raise on damaged files.
BAD_FILE = (
    *DAMAGE, EOFError, OSError, RuntimeError, SyntaxError, struct.error, tokenize.TokenError, zipfile.BadZipFile,
    zlib.error,
)  # fmt: skip
_CHUNK = 1 << 20


# -- one file ---------------------------------------------------------------------------------------------------------


def is_packed(path: Path) -> bool:
    """Whether the file begins as a gzip file does, whatever its name."""
    with path.open("rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


@contextmanager
def open_unpacked(path: Path) -> Iterator[BinaryIO]:
    """The unpacked content as a stream; reading may raise one of BAD_GZIP."""
    with gzip.open(path, "rb") if is_packed(path) else path.open("rb") as stream:
        yield cast(BinaryIO, stream)


def damage(path: Path, file: RemoteFile, *, unpack: bool = True) -> str | None:
    """What is wrong with what should be this file; None if nothing. Never reads more than one chunk beyond its size.

    unpack False: size and SHA-256 are those of the file as it lies there, as an archive's are.
    """
    digest = hashlib.sha256(usedforsecurity=False)
    count = 0
    try:
        packed = unpack and is_packed(path)
        with open_unpacked(path) if packed else path.open("rb") as stream:
            while count <= file.size and (chunk := stream.read(_CHUNK)):
                if file.sha256:
                    digest.update(chunk)
                count += len(chunk)
    except EOFError:
        return f"truncated: unpacks to {count:,} bytes or little more, expected {file.size:,}"
    except BAD_GZIP as error:
        return f"not a sound gzip file: {error}"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    if count != file.size:
        more = "more than " if count > file.size else ""
        return f"{'unpacks to' if packed else 'has'} {more}{min(count, file.size):,} bytes, expected {file.size:,}"
    return _differs(digest.hexdigest(), file.sha256)


def wrong_checksum(known: RemoteFile, *content: bytes | bytearray) -> str | None:
    """What is wrong with unpacked content that has the size of a known file; None where it has another one."""
    if known.sha256 is None or sum(map(len, content)) != known.size:
        return None
    digest = hashlib.sha256(usedforsecurity=False)
    for part in content:
        digest.update(part)
    return _differs(digest.hexdigest(), known.sha256)


def _differs(found: str, sha256: str | None) -> str | None:
    if sha256 is None or found == sha256:
        return None
    return f"SHA-256 is {found[:12]}…, expected {sha256[:12]}…"


def check_fits(
    size: int, where: str, stored: int | None = None, mend: str = "the file is damaged, or give a smaller one"
) -> None:
    """Raise DataError where `size` bytes are more than the machine's memory; `where` begins the message.

    stored: bytes of the packed file that they are in; they may not be more than `gpunet.limits` allows it either.
    mend: what may be done.
    """
    memory = physical_memory()
    if memory is not None and size > memory:
        raise DataError(f"{where} needs {size:,} bytes but this machine has {memory:,} bytes of memory; {mend}")
    if stored is not None and size > allowed(stored):
        raise DataError(
            f"{where} unpacks to {size:,} bytes, but a file of {stored:,} is allowed {allowed(stored):,}; it is "
            f"damaged, or set {VARIABLE} to a higher limit"
        )


def unreadable(path: Path, error: OSError) -> DataError:
    """For a file or a folder that the system does not let us read."""
    return DataError(f"{path}: cannot be read: {error.strerror or error}")


def reason(error: BaseException) -> str:
    """What another library says of a damaged file, in one short line."""
    return (" ".join(str(error).split()) or type(error).__name__)[:120]


# -- a whole data set -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FileStatus:
    """One file: "verified", "present", "damaged" or "missing".

    "present": not checked, or of the right size where no checksum is known; detail says so, or what is wrong.
    """

    file: str
    state: str
    path: str | None = None
    detail: str | None = None


@dataclass(frozen=True)
class Status:
    """One data set.

    state: "embedded" (in a package, or made), "not installed" (that package is missing), "verified", "present"
    (complete, but not checked, or with files of which only the size is known), "damaged", "incomplete" or "missing";
    size: bytes unpacked (0 where embedded); folder: where it lies or would lie, None where embedded.
    """

    name: str
    description: str
    state: str
    size: int
    folder: str | None
    files: tuple[FileStatus, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The same in plain dictionaries and lists, for JSON."""
        return asdict(self)


def status(name: str, *, data_dir: str | os.PathLike[str] | None = None, check: bool = True) -> Status:
    """The state of the data set of that name; with `check` every file is held against its size and checksum.

    Reads only. Raises DataError for an unknown name.
    """
    entry, check = catalog.entry(name), check_flag("check", check)
    if entry.embedded:
        state = "not installed" if lacking(*catalog.packages(name)) else "embedded"
        return Status(entry.name, entry.description, state, 0, None)
    folder = entry.folder(data_dir)
    files = tuple(_file_status(file, folder, check) for file in entry.files)
    return Status(entry.name, entry.description, _summary(files), entry.size, str(folder), files)


def _file_status(file: RemoteFile, folder: Path, check: bool) -> FileStatus:
    path = file.locate(folder)
    if path is None:
        return FileStatus(file.path, "missing")
    if not check:
        return FileStatus(file.path, "present", str(path))
    wrong = damage(path, file)
    if not wrong and file.sha256 is None:
        return FileStatus(file.path, "present", str(path), "size right; no checksum known")
    return FileStatus(file.path, "damaged" if wrong else "verified", str(path), wrong)


def _summary(files: tuple[FileStatus, ...]) -> str:
    states = {file.state for file in files}
    if "missing" in states and "damaged" not in states:
        return "missing" if states == {"missing"} else "incomplete"
    return next(state for state in ("damaged", "present", "verified") if state in states)


def require_sound(found: Iterable[Status], *, named: bool) -> None:
    """RunError, one line, if a data set is damaged or incomplete; if `named`, also if one is missing."""
    states = ("damaged", "incomplete", *(["missing"] if named else []))
    bad = {each.name: each.state for each in found if each.state in states}
    if bad:
        what = ", ".join(f"{name} is {state}" for name, state in bad.items())
        raise RunError(f"{what}; `gpunet data fetch {' '.join(bad)}` fetches what is missing or damaged")
