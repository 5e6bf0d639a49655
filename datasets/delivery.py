"""One file from mirrors in turn, into a .part file that is only handed on when its content is right."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlsplit

from gpunet.addresses import cleaned, host
from gpunet.errors import FetchError
from gpunet.files import WINDOWS, check_replaceable

from .progress import Quiet

if TYPE_CHECKING:
    from .download import ResumingDownloader


@dataclass(frozen=True)
class Delivery:
    """A file to fetch: `label` names it to the reader, `name` is its name on a mirror, `target` is its own place.

    limit: the most bytes that a mirror may send; damage: what is wrong with a file that should be it, None if
    nothing is; mirrors: base addresses; timeout: seconds.
    """

    label: str
    name: str
    target: Path
    limit: int
    damage: Callable[[Path], str | None]
    mirrors: list[str]
    timeout: float
    report: Quiet

    @contextmanager
    def part(self) -> Iterator[tuple[Path, BinaryIO]]:
        """The file as NAME.part, content verified, with the stream that locks it.

        Raises FetchError with what each mirror answered; what came is kept for the next time.
        """
        self.target.parent.mkdir(parents=True, exist_ok=True)
        with _open_part(self.target) as (part, stream):
            # An earlier run may have been interrupted between the last byte and the rename.
            if not (stream.seek(0, os.SEEK_END) and self.damage(part) is None):
                self._fill(part, stream)
            yield part, stream

    def _fill(self, part: Path, stream: BinaryIO) -> None:
        from .download import DownloadError, ResumingDownloader

        answers = []
        download = ResumingDownloader(timeout=self.timeout, limit=self.limit, report=self.report, label=self.label)
        for mirror in self.mirrors:
            try:
                wrong = self._attempt(download, mirror, part, stream)
                if wrong is None:
                    return
                answer = f"wrong content ({wrong})"
            except DownloadError as error:
                answer = cleaned(str(error), mirror)[:120]
            answers.append(f"{host(mirror)}: {answer}")
            self.report.say(f"{self.label}: {answers[-1]}")
        left = stream.seek(0, os.SEEK_END)
        kept = f"{left:,} bytes are kept and taken up next time. " if left else ""
        raise FetchError(
            f"{self.label}: no mirror delivered it: {'; '.join(answers)}. {kept}Try again later, name "
            f"another with --mirror URL, place the file by hand at {self.target}, or use --dataset digits"
        )

    def _attempt(self, download: ResumingDownloader, mirror: str, part: Path, stream: BinaryIO) -> str | None:
        """Download from one mirror and return what is wrong with the content; None if nothing is."""
        from .download import begin_again

        for last in (False, True):
            download(_file_at(mirror, self.name), stream)
            wrong = self.damage(part)
            if wrong is None:
                return None
            begin_again(stream)
            if last or not download.resumed:
                return wrong
            # The earlier bytes may be damaged, or of another packing of the same content: once more, whole.
            self.report.say(f"{self.label}: what an earlier download left does not fit; begun again")
        return None


def _file_at(mirror: str, name: str) -> str:
    """The address of a file in the mirror's folder; a query, such as a signature, stays behind it."""
    folder = urlsplit(mirror)
    return folder._replace(path=f"{folder.path.rstrip('/')}/{name}", fragment="").geturl()


def part_of(target: Path) -> Path:
    """Where a file lies while it is being fetched."""
    return target.with_name(target.name + ".part")


@contextmanager
def _open_part(target: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """The .part file, open for appending and locked against a second process; removed if it ends up empty."""
    part = part_of(target)
    check_replaceable(part)
    stream = part.open("a+b")
    try:
        _lock(stream, part)
        while not _still_there(stream, part):  # its holder had just finished, and renamed or removed it
            stream.close()
            stream = part.open("a+b")
            _lock(stream, part)
        yield part, stream
    finally:
        with stream, suppress(OSError):
            stream.flush()
            if os.fstat(stream.fileno()).st_size == 0 and _still_there(stream, part):
                if WINDOWS:
                    stream.close()
                part.unlink()  # locked, so that nobody else has begun to fill it
                part.parent.rmdir()  # only if it is empty too


def _still_there(stream: BinaryIO, part: Path) -> bool:
    with suppress(OSError):
        return os.path.samestat(os.fstat(stream.fileno()), part.stat())
    return False


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
