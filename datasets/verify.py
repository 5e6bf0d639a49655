"""What of a data set is there, and whether it is sound."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gpunet.errors import RunError

from . import registry
from .entries import RemoteFile
from .location import data_dir as data_folder
from .packed import damage


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

    state: "embedded", "verified", "present" (complete, but not checked, or with files of which only the size is
    known), "damaged", "incomplete" or "missing"; size: bytes unpacked (0 where embedded); folder: where it lies
    or would lie, None where embedded.
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
    from gpunet.checks import check_flag

    entry, check = registry.entry(name), check_flag("check", check)
    if entry.embedded:
        return Status(entry.name, entry.description, "embedded", 0, None)
    folder = data_folder(data_dir) / entry.name
    files = tuple(_file_status(file, folder, check) for file in entry.files)
    return Status(entry.name, entry.description, _summary(files), entry.size, str(folder), files)


def _file_status(file: RemoteFile, folder: Path, check: bool) -> FileStatus:
    path = file.locate(folder)
    if path is None:
        return FileStatus(file.path, "missing")
    if not check:
        return FileStatus(file.path, "present", str(path))
    wrong = damage(path, file.size, file.sha256)
    if not wrong and file.sha256 is None:
        return FileStatus(file.path, "present", str(path), "size right; no checksum known")
    return FileStatus(file.path, "damaged" if wrong else "verified", str(path), wrong)


def _summary(files: tuple[FileStatus, ...]) -> str:
    states = {file.state for file in files}
    if "damaged" in states:
        return "damaged"
    if states == {"missing"}:
        return "missing"
    if "missing" in states:
        return "incomplete"
    return "present" if "present" in states else "verified"


def require_sound(found: Iterable[Status], *, named: bool) -> None:
    """RunError, one line, if a data set is damaged or incomplete; if `named`, also if one is missing."""
    bad = {
        each.name: each.state
        for each in found
        if each.state in ("damaged", "incomplete") or (named and each.state == "missing")
    }
    if bad:
        what = ", ".join(f"{name} is {state}" for name, state in bad.items())
        raise RunError(f"{what}; `gpunet data fetch {' '.join(bad)}` fetches what is missing or damaged")
