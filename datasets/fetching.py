"""Fetching a data set's files: mirrors in turn, and no file under its final name that was not verified."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlsplit

from gpunet.errors import DataError, FetchError, OutputError

from . import registry
from .location import data_dir as data_folder
from .packed import damage, is_packed
from .progress import Quiet, reporter

if TYPE_CHECKING:
    from .download import ResumingDownloader


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
    fetched again. Raises FetchError when no mirror delivers, OutputError when the folder cannot be written,
    DataError for a name that is unknown or an address that is none.
    """
    entry = registry.entry(name)
    addresses = [_checked(mirror) for mirror in (mirrors or entry.mirrors)]
    folder = data_folder(data_dir) / entry.name
    report = reporter(progress)
    return [_Job(f"{entry.name}/{file.path}", file, folder, addresses, timeout, report).run() for file in entry.files]


@dataclass(frozen=True)
class _Job:
    """One file to fetch; `label` names it to the reader, `folder` is the data set's."""

    label: str
    file: registry.RemoteFile
    folder: Path
    mirrors: list[str]
    timeout: float
    report: Quiet

    def run(self) -> Path:
        """Make sure that the file is there and sound, and return its path."""
        there = self.file.locate(self.folder)
        if there is not None and self._damage(there) is None:
            self.report.say(f"{self.label}: there and verified")
            return there
        target = self.folder / self.file.path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with _open_part(target) as (part, stream):
                self._deliver(part, stream)
            return self._put_in_place(part)
        except OSError as error:
            raise OutputError(
                f"cannot write {target}: {error.strerror or error}; set GPUNET_DATA to a folder that can be "
                "written and has enough space"
            ) from None

    def _deliver(self, part: Path, stream: BinaryIO) -> None:
        """Fill `part` with verified content, or raise FetchError with what each mirror answered."""
        from .download import DownloadError, ResumingDownloader

        if stream.seek(0, os.SEEK_END) and self._damage(part) is None:
            return  # an earlier run was interrupted between the last byte and the rename
        answers = []
        # A packed file is hardly ever larger than its content; this is ample, and ends a server that never
        # stops.
        limit = self.file.size + self.file.size // 8 + 65536
        download = ResumingDownloader(timeout=self.timeout, limit=limit, report=self.report, label=self.label)
        for mirror in self.mirrors:
            try:
                wrong = self._attempt(download, mirror, part, stream)
                if wrong is None:
                    return
                answer = f"wrong content ({wrong})"
            except DownloadError as error:
                answer = str(error)
            answers.append(f"{urlsplit(mirror).netloc.rpartition('@')[2]}: {answer}")
            self.report.say(f"{self.label}: {answers[-1]}")
        left = stream.seek(0, os.SEEK_END)
        kept = f"{left:,} bytes are kept and taken up next time. " if left else ""
        raise FetchError(
            f"{self.label}: no mirror delivered it: {'; '.join(answers)}. {kept}Try again later, name "
            f"another with --mirror URL, place the file by hand at {self.folder / self.file.path}, or use "
            "--dataset digits"
        )

    def _attempt(self, download: ResumingDownloader, mirror: str, part: Path, stream: BinaryIO) -> str | None:
        """Download from one mirror and return what is wrong with the content; None if nothing is."""
        from .download import begin_again

        for last in (False, True):
            download(mirror + self.file.name, stream)
            wrong = self._damage(part)
            if wrong is None:
                return None
            begin_again(stream)
            if last or not download.resumed:
                return wrong
            # The earlier bytes may be damaged, or of another packing of the same content: once more, whole.
            self.report.say(f"{self.label}: what an earlier download left does not fit; begun again")
        return None

    def _damage(self, path: Path) -> str | None:
        return damage(path, self.file.size, self.file.sha256)

    def _put_in_place(self, part: Path) -> Path:
        """Rename the verified file; to the unpacked variant's name where the mirror sent it unpacked."""
        variants = self.file.variants
        chosen = variants[0] if is_packed(part) else variants[-1]
        os.replace(part, self.folder / chosen)
        for preferred in variants[: variants.index(chosen)]:
            # Damaged, or nothing would have been fetched; left there it would be found before the new file.
            (self.folder / preferred).unlink(missing_ok=True)
        self.report.say(f"{self.label}: verified")
        return self.folder / chosen


@contextmanager
def _open_part(target: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """The .part file, open for appending and locked against a second process; removed if it ends up empty."""
    part = target.with_name(target.name + ".part")
    try:
        with part.open("a+b") as stream:
            _lock(stream, part)
            yield part, stream
    finally:
        with suppress(OSError):
            if part.stat().st_size == 0:
                part.unlink()
                part.parent.rmdir()  # only if it is empty too


def _lock(stream: BinaryIO, part: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows, where a file that another process holds open cannot be replaced anyway
        return
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise FetchError(f"{part}: another process is fetching this file; wait for it to end") from None
    except OSError:  # a file system without locks: the checksum still guards the result
        return


def _checked(mirror: str) -> str:
    address = urlsplit(mirror)
    if address.scheme not in ("http", "https") or not address.netloc:
        raise DataError(f"mirror {mirror!r} is not an address; expected http://… or https://…, the folder of the files")
    return mirror.rstrip("/") + "/"
