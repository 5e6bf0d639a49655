"""Optuna's journal file, made to survive what kills and full disks do to it.

Optuna's own is unusable for ever once its last line was cut short, appends to a file that somebody deleted, and waits
for the lock of a dead process. The format is Optuna's: one JSON object a line.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import warnings
from collections.abc import Generator, Iterator
from io import FileIO
from typing import Any

from optuna.exceptions import StorageInternalError
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from gpunet.interrupts import contextmanager

GRACE = 10  # seconds for which a lock is held at most where the system has none; ours are held for milliseconds
NO_JOURNAL = "it is not a journal of Optuna's"
START = b'{"op_code":'  # of every line


class DamagedError(StorageInternalError, ValueError):
    """A journal with a line that is none."""


class Journal(JournalFileBackend):
    """A file backend of `JournalStorage`. Raises StorageInternalError for what goes wrong with the file later on."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        if not os.path.isfile(path):
            raise DamagedError("it is no plain file")
        with open(path, "rb") as file:
            start = file.readline(len(START)).strip(b"\0\n")
        if not START.startswith(start):
            raise DamagedError(NO_JOURNAL)  # a file of something else is not touched
        with self._locked() as held:
            self._end(held)

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """The lines from that one on; a last one that is cut short is left out: it may be being written."""
        line = log_number_from + 1
        try:
            with _lost():
                for record in super().read_logs(log_number_from):
                    if not _whole(record):
                        raise ValueError(line)
                    yield record
                    line += 1
        except (ValueError, RecursionError):
            raise DamagedError(
                f"line {line} of it is damaged, and not the last: restore it from a copy, or begin again with another "
                "storage"
            ) from None

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

    @contextmanager
    def _locked(self) -> Iterator[FileIO]:
        """The file, which is no other process' until it is closed: also where that comes from a kill."""
        with _lost(), FileIO(self._file_path, "r+") as file:  # one that was deleted is not begun anew
            try:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX)
            except (ImportError, OSError):  # Windows; a file system without locks
                lock = JournalFileOpenLock(self._file_path, GRACE)
                lock.acquire()
                try:
                    yield file
                finally:
                    lock.release()
            else:
                yield file

    def _end(self, file: FileIO) -> int:
        """Where the last whole line ends; what a kill or a full disk left after it is cut off. The file is locked."""
        end = file.seek(0, os.SEEK_END)
        if not end:
            return 0
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            begin = content.rfind(b"\n", 0, end - 1) + 1
            line = content[begin:]
        with contextlib.suppress(ValueError, RecursionError):
            if line.endswith(b"\n") and _whole(json.loads(line)):
                return end
        file.truncate(begin)
        warnings.warn(
            f"the journal '{self._file_path}' was cut short in its last line, by a kill or a full disk: "
            f"these {len(line):,} bytes are dropped",
            RuntimeWarning,
            2,
        )
        return begin


@contextmanager
def _lost() -> Iterator[None]:
    """What the system says of the file as what Optuna raises for a storage."""
    try:
        yield
    except OSError as error:
        raise StorageInternalError(str(error.strerror or error)) from error


def _whole(record: Any) -> bool:
    return isinstance(record, dict) and type(record.get("op_code")) is int and isinstance(record.get("worker_id"), str)
