"""One `gpunet reproduce` a folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from gpunet.errors import OutputError


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the folder, which must exist, while the block runs; OutputError where another process holds it.

    A process that is killed holds nothing any more. Where the system or the file system has no locks nothing is held.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(
                f"another `gpunet reproduce` is writing to '{folder}': wait for it to end, or choose another folder "
                "with --out"
            ) from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(handle)
