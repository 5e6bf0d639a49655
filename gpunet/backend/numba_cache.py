"""The cache of compiled kernels on disk, on which nothing depends: a disk that is full costs seconds, never a training.

numba's own files end the program where one of them is empty, damaged or not to be read, or cannot be written; and a
process that dies between two of them leaves an index that names code of an older version. Here a kernel compiled for
one signature is one file, written in one piece, with a digest over what it was made from and what it holds: anything
else is compiled again. The folder is numba's: NUMBA_CACHE_DIR, `__pycache__` beside the source, or the user's.
"""

from __future__ import annotations

import contextlib
import hashlib
import pickle
import warnings
from pathlib import Path
from typing import Any

import numba
from numba.core import caching
from numba.core.serialize import dumps

from gpunet.errors import OutputError
from gpunet.files import remove, write_atomically

DIGEST = 32  # bytes
FASTMATH = {"reassoc", "nsz", "arcp", "contract", "afn"}  # without `nnan` and `ninf`: NaN must survive
_NUMBA: Any = caching  # whose types are in part there and in part not
_DUMPS: Any = dumps
_warned: list[str] = []


def kernel(function: Any) -> Any:
    """The function, compiled at its first call or taken from the cache."""
    return cached(numba.njit(nogil=True, error_model="numpy", fastmath=FASTMATH)(function))


def cached(kernel: Any) -> Any:
    """The compiled function with this cache; what `cache=True` would have given it is numba's own."""
    function = getattr(kernel, "py_func", getattr(kernel, "_pyfunc", None))  # the latter of a C function
    if function is not None:  # not so with NUMBA_DISABLE_JIT
        try:
            kernel._cache = KernelCache(function)
        except (RuntimeError, OSError) as error:  # there is no folder that can be written to
            kernel._cache = NoCache(str(error))
    return kernel


class KernelCache(_NUMBA.FunctionCache):  # type: ignore[misc]
    """Of one function: numba finds folder and key, and takes kernels apart."""

    def __init__(self, function: Any) -> None:
        super().__init__(function)
        where = Path(self.cache_path) / self._impl.filename_base
        self._cache_file = Sealed(where, self._impl.locator.get_source_stamp())

    def load_overload(self, signature: Any, target: Any) -> Any:
        """The compiled function; None where there is none, or whatever is wrong with it."""
        with contextlib.suppress(Exception):
            return super().load_overload(signature, target)

    def save_overload(self, signature: Any, compiled: Any) -> None:
        """Write it down; a warning where that cannot be."""
        try:
            super().save_overload(signature, compiled)
        except (OSError, OutputError) as error:
            warn(str(error))


class NoCache(_NUMBA.NullCache):  # type: ignore[misc]
    """Where nothing can be kept, which the first kernel that is compiled tells."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def save_overload(self, signature: Any, compiled: Any) -> None:
        """Say so."""
        warn(self.reason)


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
        content: bytes = _DUMPS(data)
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
