"""Optuna's journal file, made to survive what kills and full disks do to it.

Optuna's own is unusable for ever once its last line was cut short, appends to a file that somebody deleted, and waits
for the lock of a dead process. The format is Optuna's: one JSON object a line.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import time
import warnings
from collections.abc import Generator, Iterator
from io import FileIO
from typing import Any

from optuna.exceptions import StorageInternalError
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from gpunet.sweep.lease import gone, me

GRACE = 10.0  # seconds for which a lock of another machine is held at most; ours are held for milliseconds
OLD = 60.0  # seconds, by clocks that need not agree
NO_JOURNAL = "it is not a journal of Optuna's"
BLOCK = 65536  # bytes
START = b'{"op_code":'  # of every line


class DamagedError(StorageInternalError, ValueError):
    """A journal with a line that is none."""


class Journal(JournalFileBackend):
    """A file backend of `JournalStorage`. Raises StorageInternalError for what goes wrong with the file later on."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        if not os.path.isfile(path):
            raise DamagedError("it is no plain file")
        for left in glob.glob(f"{glob.escape(path)}.lock*.rename"):  # by a process of Optuna's own that was killed
            with contextlib.suppress(OSError):
                os.unlink(left)
        self._lock = Lock(path)

    def mend(self) -> None:
        """Cut off what is left of a last line. Only of a file that has been read: others are not to be touched."""
        with self._locked() as file:
            self._end(file)

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """The lines from that one on; a last one that is cut short is left out: it may be being written."""
        known = log_number_from if log_number_from in self._log_number_offset else 0
        position, damaged = self._log_number_offset[known], False
        with _lost(), open(self._file_path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(position)
            for number, line in enumerate(file, known):
                position += len(line)
                if position > size:  # written since we began
                    return
                if damaged:
                    raise DamagedError(
                        f"line {number} of it is damaged, and not the last: restore it from a copy, or begin again "
                        "with another storage"
                    )
                record = _record(line)
                if record is None:
                    if not _cut(line, first=number == 0):
                        raise DamagedError(NO_JOURNAL)
                    damaged = True
                    continue
                self._log_number_offset[number + 1] = position
                if number >= log_number_from:
                    yield record

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write them all, or nothing."""
        content = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        with self._locked() as file:
            end = self._end(file)
            try:
                file.seek(end)
                rest = memoryview(content)
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(end)
                raise

    @contextlib.contextmanager
    def _locked(self) -> Iterator[FileIO]:
        with _lost():
            self._lock.acquire()
            try:
                with FileIO(self._file_path, "r+") as file:  # one that was deleted is not begun anew
                    yield file
            finally:
                self._lock.release()

    def _end(self, file: FileIO) -> int:
        """Where the last whole line ends; what a kill or a full disk left after it is cut off. The file is locked."""
        end = begin = file.seek(0, os.SEEK_END)
        last = b""
        while begin and b"\n" not in last[:-1]:
            begin = file.seek(max(0, begin - BLOCK))
            last = file.read(end - begin - len(last)) + last
        start = last.rfind(b"\n", 0, -1) + 1
        begin, line = begin + start, last[start:]
        if not line or _record(line) is not None:
            return end
        file.truncate(begin)
        warnings.warn(
            f"the journal '{self._file_path}' was cut short in its last line, by a kill or a full disk: "
            f"these {len(line):,} bytes are dropped",
            RuntimeWarning,
            2,
        )
        return begin


class Lock(JournalFileOpenLock):
    """A link beside the file that names the process which holds it: one that is gone holds nothing any more."""

    def __init__(self, path: str) -> None:
        super().__init__(path, grace_period=int(GRACE))
        self._path, self._link, self._me = path, f"{path}.lock", me()

    def acquire(self) -> bool:
        """Wait for it; with Optuna's own file in its place where there are no links."""
        if os.name == "nt":
            return super().acquire()
        pause, seen, since = 0.001, ("", 0.0), time.monotonic()
        while True:
            try:
                os.symlink(self._me, self._link)
                return True
            except FileExistsError:
                pass
            except PermissionError:
                return super().acquire()
            if self._look() != seen:
                seen, since = self._look(), time.monotonic()
            with contextlib.suppress(FileNotFoundError):
                self._break(seen, waited=time.monotonic() - since)
            time.sleep(pause)
            pause = min(2 * pause, 0.05)

    def release(self) -> None:
        """Let go of it."""
        with contextlib.suppress(OSError):
            os.unlink(self._link)

    def _look(self) -> tuple[str, float]:
        """Who holds it, "" for who does not say, and since when."""
        try:
            since = os.lstat(self._link).st_mtime
            return os.readlink(self._link), since
        except FileNotFoundError:
            return "", 0.0
        except OSError:  # a plain file: of Optuna's own lock
            return "", since

    def _break(self, seen: tuple[str, float], waited: float) -> None:
        """Remove it where its holder is gone. Of several that see it on this machine only one does, and looks again."""
        import fcntl

        owner, since = seen
        if not since or not (gone(owner) or waited > GRACE or (not owner and time.time() - since > OLD)):
            return
        with open(self._path, "rb") as file:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            if self._look() == seen:
                os.unlink(self._link)


@contextlib.contextmanager
def _lost() -> Iterator[None]:
    """What the system says of the file as what Optuna raises for a storage."""
    try:
        yield
    except OSError as error:
        raise StorageInternalError(str(error.strerror or error)) from error


def _record(line: bytes) -> dict[str, Any] | None:
    """A whole line's content; None where it is none."""
    try:
        found = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    whole = isinstance(found, dict) and type(found.get("op_code")) is int and isinstance(found.get("worker_id"), str)
    return found if whole else None


def _cut(line: bytes, first: bool) -> bool:
    """Whether it may be what is left of a line; a file of something else is not to be touched."""
    return not first or line.startswith(START) or START.startswith(line.rstrip(b"\n")) or not line.strip(b"\0")
