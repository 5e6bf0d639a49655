"""The cache of compiled kernels on disk, on which nothing depends: a disk that is full costs seconds, never a training.

numba's own files end the program where one of them is empty, damaged or not to be read, or cannot be written; and a
process that dies between two of them leaves an index that names code of an older version. Here a kernel compiled for
one signature is one file, written in one piece, with a digest over what it was made from and what it holds: anything
else is compiled again.
"""

from __future__ import annotations

import contextlib
import hashlib
import pickle
import warnings
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import FunctionCache
from numba.core.serialize import dumps

from gpunet.errors import OutputError
from gpunet.files import remove, write_atomically

DIGEST = 32  # bytes
FUNCTION_CACHE: Any = FunctionCache  # numba's types are in part there and in part not
DUMPS: Any = dumps


def cached(kernel: Any) -> Any:
    """The compiled function with this cache; what `cache=True` would have given it is numba's own."""
    if hasattr(kernel, "py_func"):  # not so with NUMBA_DISABLE_JIT
        kernel._cache = KernelCache(kernel.py_func)
    return kernel


class KernelCache:
    """Of one function, in numba's folder: NUMBA_CACHE_DIR, `__pycache__` beside the source, or the user's cache folder.

    What numba asks of a cache: it finds folder and key, and takes kernels apart.
    """

    def __init__(self, function: Any) -> None:
        self._numba: Any = None
        try:
            self._numba = FUNCTION_CACHE(function)
        except (RuntimeError, OSError) as error:  # there is no folder that can be written to
            self._reason = str(error)
            return
        where = Path(self._numba.cache_path) / self._numba._impl.filename_base
        self._numba._cache_file = Sealed(where, self._numba._impl.locator.get_source_stamp())

    @property
    def cache_path(self) -> Any:
        """The folder."""
        return self._numba and self._numba.cache_path

    def load_overload(self, signature: Any, target: Any) -> Any:
        """The compiled function; None where there is none, or whatever is wrong with it."""
        with contextlib.suppress(Exception):
            return self._numba.load_overload(signature, target)

    def save_overload(self, signature: Any, compiled: Any) -> None:
        """Write it down; a warning where that cannot be."""
        if self._numba is None:
            return warn(self._reason)
        try:
            self._numba.save_overload(signature, compiled)
        except (OSError, OutputError) as error:
            warn(str(error))

    def flush(self) -> None:
        """Remove what is there."""
        if self._numba:
            self._numba.flush()


class Sealed:
    """The files of one function: of each signature and machine one, overwritten when the code changes."""

    def __init__(self, where: Path, stamp: Any) -> None:
        self.where, self.stamp = where, stamp

    def load(self, key: Any) -> Any:
        """What was saved under that key, or None."""
        content = self._path(key).read_bytes()
        digest, content = content[:DIGEST], content[DIGEST:]
        return pickle.loads(content) if digest == self._digest(key, content) else None  # noqa: S301 - numba's own form

    def save(self, key: Any, data: Any) -> None:
        """Write in one piece."""
        content: bytes = DUMPS(data)
        write_atomically(self._path(key), self._digest(key, content) + content)

    def flush(self) -> None:
        """Remove all."""
        for path in self.where.parent.glob(f"{self.where.name}.*.kernel"):
            remove(path)

    def _path(self, key: Any) -> Path:
        signature, machine, _ = key
        name = hashlib.sha256(repr((signature, machine)).encode()).hexdigest()[:16]
        return self.where.with_name(f"{self.where.name}.{name}.kernel")

    def _digest(self, key: Any, content: bytes) -> bytes:
        about = (
            numba.__version__,
            self.where.name,
            self.stamp,
            key,
        )  # the key alone is that of any function of this form
        return hashlib.sha256(repr(about).encode() + content).digest()


_warned: list[str] = []


def warn(reason: str) -> None:
    """Once in a process."""
    if not _warned:
        _warned.append(reason)
        warnings.warn(
            f"compiled kernels cannot be cached: {reason}; every process compiles them anew: set NUMBA_CACHE_DIR to a "
            "folder with room that can be written to",
            RuntimeWarning,
            2,
        )
