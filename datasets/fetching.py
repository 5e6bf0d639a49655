"""Fetching a data set: mirrors in turn, and no file under its final name whose origin was not verified."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gpunet.addresses import harmless, public
from gpunet.errors import DataError, OutputError, shown
from gpunet.files import check_replaceable, remove_abandoned

from . import registry
from .delivery import Delivery, part_of
from .entries import Archive, Entry, RemoteFile
from .location import data_dir as data_folder
from .packed import damage, is_packed
from .progress import Quiet, reporter


def fetch(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    mirrors: Sequence[str] | None = None,
    timeout: float = 20.0,
    progress: bool = False,
) -> list[Path]:
    """Fetch what is missing or damaged of a data set, and return the paths of all its files.

    mirrors: base addresses to use instead of the data set's own; timeout: seconds without an answer after
    which the next mirror is tried; progress: tell on standard error (a bar on a terminal, plain lines
    elsewhere).

    A file is downloaded to NAME.part, and renamed once its unpacked content has the right SHA-256. An
    interrupted download is taken up again where the server allows. Files that are there and sound are not
    fetched again. Where the data comes in one archive, that is downloaded and checked so, the files are taken out
    of it, all of them so that they are of one origin, and it is removed; an archive that was placed in the folder by
    hand is used instead, and left there.

    Raises FetchError when no mirror delivers, OutputError when the folder cannot be written, DataError for a
    name that is unknown or an address that is none.
    """
    from gpunet.checks import as_list, check_flag, check_range

    entry = registry.entry(name)
    timeout = check_range("timeout", timeout, above=0)
    given = entry.mirrors if mirrors is None else as_list("mirrors", mirrors, "addresses such as 'https://…'")
    addresses = [_checked(mirror) for mirror in (given or entry.mirrors)]
    job = _Job(
        entry, data_folder(data_dir) / entry.name, addresses, timeout, reporter(check_flag("progress", progress))
    )
    return job.from_archive(entry.archive) if entry.archive else [job.file(file) for file in entry.files]


@dataclass(frozen=True)
class _Job:
    """One data set to fetch into its folder."""

    entry: Entry
    folder: Path
    mirrors: list[str]
    timeout: float
    report: Quiet

    def file(self, file: RemoteFile) -> Path:
        """Make sure that a file is there and sound, and return its path."""
        there = self._sound(file)
        if there:
            self._say_there(file)
            remove_abandoned(part_of(self.folder / file.path))  # it has come some other way
            return there
        for name in file.variants:
            check_replaceable(self.folder / name)
        # A packed file is hardly ever larger than its content; this is ample, and ends a server that never stops.
        limit = file.size + file.size // 8 + 65536
        delivery = self._delivery(file.path, limit, lambda path: damage(path, file.size, file.sha256))
        with _writing(delivery.target):
            with delivery.part() as (part, _):
                pass
            return self._put_in_place(file, part)

    def from_archive(self, archive: Archive) -> list[Path]:
        """Make sure that all files are there, taking them out of the archive, and return their paths."""
        from .unpack import unpack

        there = [path for file in self.entry.files if (path := self._sound(file))]
        if len(there) == len(self.entry.files):
            for file in self.entry.files:
                self._say_there(file)
            remove_abandoned(part_of(self.folder / archive.name))  # of a process that was killed when it had unpacked
            return there
        for file in self.entry.files:
            check_replaceable(self.folder / file.path)

        def wrong(path: Path) -> str | None:
            return damage(path, archive.size, archive.sha256, unpack=False)

        delivery = self._delivery(archive.name, archive.size, wrong)
        with _writing(self.folder):
            if delivery.target.is_file():
                answer = wrong(delivery.target)
                if answer is None:
                    return unpack(delivery.target, self.entry.files, self.folder, self.report)
                self.report.say(f"{delivery.label}: the file placed by hand is not used: {answer}")
            with delivery.part() as (part, stream):
                self.report.say(f"{delivery.label}: verified")
                paths = unpack(part, self.entry.files, self.folder, self.report)
                stream.truncate(0)  # and so it is removed
            return paths

    def _sound(self, file: RemoteFile) -> Path | None:
        path = file.locate(self.folder)
        return path if path and damage(path, file.size, file.sha256) is None else None

    def _say_there(self, file: RemoteFile) -> None:
        state = "there and verified" if file.sha256 else "there, size right; no checksum known"
        self.report.say(f"{self.entry.name}/{file.path}: {state}")

    def _delivery(self, path: str, limit: int, wrong: Callable[[Path], str | None]) -> Delivery:
        label, name = f"{self.entry.name}/{path}", path.rsplit("/", 1)[-1]
        return Delivery(label, name, self.folder / path, limit, wrong, self.mirrors, self.timeout, self.report)

    def _put_in_place(self, file: RemoteFile, part: Path) -> Path:
        """Rename the verified file; to the unpacked variant's name where the mirror sent it unpacked."""
        variants = file.variants
        chosen = variants[0] if is_packed(part) else variants[-1]
        os.replace(part, self.folder / chosen)
        for preferred in variants[: variants.index(chosen)]:
            # Damaged, or nothing would have been fetched; left there it would be found before the new file.
            (self.folder / preferred).unlink(missing_ok=True)
        self.report.say(f"{self.entry.name}/{file.path}: verified")
        return self.folder / chosen


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot write {target}: {error.strerror or error}; set GPUNET_DATA to a folder that can be "
            "written and has enough space"
        ) from None


def _checked(mirror: Any) -> str:
    """The mirror, an address of http or https that can be parsed; DataError otherwise."""
    if not isinstance(mirror, str):
        raise DataError(f"mirror {harmless(shown(mirror))} is not an address; expected http://… or https://…")
    try:
        address = urlsplit(mirror)
        fine = address.scheme in ("http", "https") and bool(address.hostname) and (address.port or 0) >= 0
    except ValueError:
        fine = False
    if not fine or not mirror.isprintable():
        said = public(mirror) if re.search(r"[:@?#=]", mirror) else mirror
        raise DataError(
            f"mirror '{said}' is not an address; expected http://… or https://…, the folder of the files"
        ) from None
    return mirror
