"""Fetching a data set: mirrors in turn, and no file under its final name whose content was not verified.

pooch makes the transfer. Its registry does not serve: the same data is published in differently packed files, so that
our checksums are of the content; and what pooch itself calls a temporary file outlives a kill. So it writes into a file
of `gpunet.files.temporary`, and the check and the list of mirrors are ours.
"""

from __future__ import annotations

import os
import re
import shutil
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from gpunet.addresses import cleaned, harmless, host, public
from gpunet.checks import as_list, check_flag, check_range
from gpunet.errors import DataError, FetchError, OutputError, shown
from gpunet.extras import need
from gpunet.files import check_replaceable, put_in_place, remove_abandoned, temporary
from gpunet.interrupts import contextmanager, undivided
from gpunet.progress import Progress, aside
from gpunet.progress import progress as progress_for

from . import catalog
from .catalog import Entry, RemoteFile
from .disk import damage, is_packed

CONNECT_SECONDS = 10.0
SLOWEST = 1024  # bytes a second, on average over the seconds that a mirror may be silent
CHUNK = 1024  # bytes; pooch tells of whole ones alone, so a mirror that drips is noticed after one
# What tarfile and gzip have been seen to raise on damaged archives; reading one that is sound raises none of them.
BAD_ARCHIVE = (tarfile.TarError, zlib.error, EOFError, ValueError)


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

    A file gets its name once its unpacked content has the right SHA-256; of an interrupted download nothing stays.
    Files that are there and sound are not fetched again. Where the data comes in one archive, that is downloaded and
    checked so, the files are taken out of it, all of them so that they are of one origin, and it is removed; an archive
    that was placed in the folder by hand is used instead, and left there. Several processes may fetch at once.

    Raises FetchError when no mirror delivers, OutputError when the folder cannot be written, DataError for a
    name that is unknown or an address that is none.
    """
    entry = catalog.entry(name)
    timeout = check_range("timeout", timeout, above=0)
    given = entry.mirrors if mirrors is None else as_list("mirrors", mirrors, "addresses such as 'https://…'")
    addresses = [_checked(mirror) for mirror in (given or entry.mirrors)]
    with progress_for(check_flag("progress", progress)) as bar:
        return _Fetch(entry, entry.folder(data_dir), addresses, timeout, bar, aside if progress else _quiet).files()


def _quiet(_: str) -> None:
    pass


@dataclass(frozen=True)
class _Fetch:
    """One data set to fetch into its folder."""

    entry: Entry
    folder: Path
    mirrors: list[str]
    timeout: float
    bar: Progress
    say: Callable[[str], None]

    def files(self) -> list[Path]:
        """Make sure that all files are there and sound, and return their paths."""
        files, archive = self.entry.files, self.entry.archive
        there = {file: path for file in files if (path := file.locate(self.folder)) and not damage(path, file)}
        if archive and len(there) < len(files):
            return self._from_archive(archive)
        for each in (*there, *([archive] if archive else [])):
            remove_abandoned(self.folder / each.path)  # of a process that was killed when its work was all but done
        for file in there:
            state = "there and verified" if file.sha256 else "there, size right; no checksum known"
            self.say(f"{self.entry.name}/{file.path}: {state}")
        return [there.get(file) or self._file(file) for file in files]

    def _file(self, file: RemoteFile) -> Path:
        """Fetch one file; it gets the unpacked variant's name where the mirror sent it unpacked."""
        for name in file.variants:
            check_replaceable(self.folder / name)
        # A packed file is hardly ever larger than its content; this is ample, and ends a server that never stops.
        limit = file.size + file.size // 8 + 65536
        preferred, unpacked = self.folder / file.variants[0], self.folder / file.variants[-1]
        with self._downloaded(file, limit, lambda path: damage(path, file)) as (name, stream):
            path = preferred if is_packed(Path(name)) else unpacked
            put_in_place(name, stream, path)
            if path != preferred:  # which is damaged, or nothing would have been fetched, and would be found first
                preferred.unlink(missing_ok=True)
        self.say(f"{self.entry.name}/{file.path}: verified")
        return path

    def _from_archive(self, archive: RemoteFile) -> list[Path]:
        """Take all files out of the archive, which is fetched where none was placed by hand."""
        for file in self.entry.files:
            check_replaceable(self.folder / file.path)

        def wrong(path: Path) -> str | None:
            return damage(path, archive, unpack=False)

        placed, label = self.folder / archive.path, f"{self.entry.name}/{archive.path}"
        if placed.is_file():
            answer = wrong(placed)
            if answer is None:
                return self._unpacked(placed, str(placed), "delete it and fetch again")
            self.say(f"{label}: the file placed by hand is not used: {answer}")
        with self._downloaded(archive, archive.size, wrong) as (name, _):
            self.say(f"{label}: verified")
            return self._unpacked(Path(name), label, "fetch again")

    @contextmanager
    def _downloaded(
        self, file: RemoteFile, limit: int, wrong: Callable[[Path], str | None]
    ) -> Iterator[tuple[str, BinaryIO]]:
        """A temporary file in the data set's folder with what the first good mirror sends, its content verified.

        Raises FetchError with what each mirror answered.
        """
        need(f"fetching {self.entry.name}", "pooch", "requests")
        label, target = f"{self.entry.name}/{file.path}", self.folder / file.path
        answers = []
        with _writing(target), undivided() as signals, temporary(target) as (name, stream), signals.heard():
            for mirror in self.mirrors:
                stream.seek(0)
                stream.truncate()
                answer = self._transfer(_file_at(mirror, file.name), stream, limit, label)
                if not answer and (content := wrong(Path(name))):
                    answer = f"wrong content ({content})"
                if not answer:
                    yield name, stream
                    return
                answers.append(f"{host(mirror)}: {cleaned(answer, mirror)[:120]}")
                self.say(f"{label}: {answers[-1]}")
        raise FetchError(
            f"{label}: no mirror delivered it: {'; '.join(answers)}. Try again later, name "
            f"another with --mirror URL, place the file by hand at {target}, or use --dataset digits"
        )

    def _transfer(self, url: str, stream: BinaryIO, limit: int, label: str) -> str:
        """Write what the server sends into the file; returns what went wrong, "" where nothing did."""
        import pooch
        import requests
        import urllib3

        download = pooch.HTTPDownloader(
            progressbar=_Meter(stream, limit, self.timeout, label, self.bar), chunk_size=CHUNK,
            timeout=(min(CONNECT_SECONDS, self.timeout), self.timeout), headers={"Accept-Encoding": "identity"},
        )  # fmt: skip
        try:
            download(url, stream, None)
        except _NoUseError as error:
            return str(error)
        except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:  # the last: bad headers
            return _clause(error, self.timeout, stream.tell())
        return ""

    def _unpacked(self, archive: Path, label: str, advice: str) -> list[Path]:
        """Take the files out of the archive, and nothing else of it; they get their names when all of them are there.

        What the archive says of a place, an owner or a mode is not followed: a member is looked for by its name and
        written to the file's own path. Raises FetchError where a member is missing, no plain file, or not of the size
        or checksum that the file has.
        """
        paths = [self.folder / file.path for file in self.entry.files]
        with ExitStack() as stack:
            for path in paths:
                stack.enter_context(_writing(path))
            signals = stack.enter_context(undivided())
            parts = [stack.enter_context(temporary(path)) for path in paths]
            with signals.heard():
                if wrong := _extract(archive, dict(zip(self.entry.files, parts, strict=True))):
                    raise FetchError(f"{label}: not the archive that was expected: {wrong}; {advice}")
            for part, path in zip(parts, paths, strict=True):
                put_in_place(*part, path)
        self.say(f"{self.entry.name}: {len(paths)} files unpacked")
        return paths


class _NoUseError(Exception):
    """A transfer that cannot become the file."""


class _Meter:
    """What pooch takes for a progress bar: shows where a transfer is, and ends one that cannot become the file."""

    def __init__(self, stream: BinaryIO, limit: int, timeout: float, label: str, bar: Progress) -> None:
        self.stream, self.limit, self.timeout, self.label, self.bar = stream, limit, timeout, label, bar
        self._shown = self._before = self._total = 0
        self._since = time.monotonic()

    @property
    def total(self) -> int:
        """Bytes, set by pooch when the answer begins: 0 where the server does not say."""
        return self._total

    @total.setter
    def total(self, total: int) -> None:
        self._total, self._since = total, time.monotonic()
        kilobytes = (total or self.limit) // 1000
        self.bar.start(f"fetching {self.label}, {kilobytes:,} kB", kilobytes)

    def update(self, _: int) -> None:
        """A chunk was written. pooch's count is by whole chunks; the file's own length is exact."""
        length, now = self.stream.tell(), time.monotonic()
        if length > self.limit:
            raise _NoUseError(f"sends more than the {self.limit:,} bytes that the file can have")
        if now - self._since >= self.timeout:
            if length - self._before < SLOWEST * self.timeout:
                raise _NoUseError(f"too slow, under {SLOWEST} bytes a second")
            self._since, self._before = now, length
        self.bar.advance(length // 1000 - self._shown)
        self._shown = length // 1000

    def reset(self) -> None:
        """Nothing to reset: pooch calls this before it fills the bar."""

    def close(self) -> None:
        """Nothing to close: the bar is closed when all files are there."""


def _clause(error: Exception, timeout: float, length: int) -> str:
    """What happened, in a few words where it is known; requests' own text is several nested exceptions long."""
    import requests

    text = str(error)
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"{error.response.status_code} {error.response.reason}"
    if isinstance(error, ValueError):  # its text quotes what cannot be parsed, with passwords and in pieces
        return f"{type(error).__name__}: the address of the mirror, a proxy or a redirect, or an answer, is malformed"
    if isinstance(error, requests.Timeout) or "timed out" in text:
        return f"no answer within {timeout:g} s" + (f", after {length:,} bytes" if length else "")
    if isinstance(error, requests.exceptions.SSLError):
        return "no secure connection"
    if isinstance(error, requests.exceptions.ChunkedEncodingError) or "IncompleteRead" in text:
        return f"broke off after {length:,} bytes"
    known = {
        "refused": "connection refused",
        "resolve": "host name not found (no network?)",
        "unreachable": "network unreachable",
    }
    return next((clause for sign, clause in known.items() if sign in text), " ".join(text.split()))


def _extract(archive: Path, parts: dict[RemoteFile, tuple[str, BinaryIO]]) -> str:
    """Fill the files' temporaries; returns what is wrong with the archive, "" where nothing is."""
    wanted = {file.path: file for file in parts}
    try:
        with tarfile.open(archive, "r|gz") as stream:
            for member in stream:
                file = wanted.pop(member.name.removeprefix("./"), None)  # of members of one name the first counts
                if file is None:
                    continue
                source = stream.extractfile(member) if member.isreg() else None
                if source is None or member.size != file.size:
                    return f"{file.path} is not a file of {file.size:,} bytes"
                name, target = parts[file]
                shutil.copyfileobj(source, target, 1 << 20)
                target.flush()
                if wrong := damage(Path(name), file):
                    return f"{file.path}: {wrong}"
                if not wanted:
                    return ""
    except BAD_ARCHIVE as error:
        return f"cannot be unpacked: {error}"
    return f"{', '.join(wanted)} missing"


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    """The file's folder is made, and removed if it ends up empty; what the system refuses is an OutputError."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise OutputError(
            f"cannot write {target}: {error.strerror or error}; set GPUNET_DATA to a folder that can be "
            "written and has enough space"
        ) from None
    finally:
        with suppress(OSError):
            target.parent.rmdir()


def _file_at(mirror: str, name: str) -> str:
    """The address of a file in the mirror's folder; a query, such as a signature, stays behind it."""
    folder = urlsplit(mirror)
    return folder._replace(path=f"{folder.path.rstrip('/')}/{name}", fragment="").geturl()


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
