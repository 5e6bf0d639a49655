"""Memory on one NVIDIA GPU through CuPy: arrays, and errors that say what did not fit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from gpunet.backend.base import Array, In, Out
from gpunet.backend.cublaslt import WORKSPACE, CublasLt, CupyProducts, products
from gpunet.backend.cupy_record import CupyRecord
from gpunet.checks import as_array
from gpunet.errors import MemoryFullError, shown

GIB = 1 << 30
ADVICE = "take a smaller batch, less data at a time or --device cpu"

_peaks: dict[tuple[Any, int], int] = {}  # by module and device: the most that CuPy's pool has held


class CupyMemory(CupyRecord):
    """The part of CupyBackend that owns memory, that of the matrix products included."""

    def __init__(self, index: int = 0, module: Any = None) -> None:
        super().__init__(index, module)

    @property
    def products(self) -> CublasLt | CupyProducts:
        """What multiplies matrices here: cublasLt, or cupy.matmul and the reason why."""
        return self._shared("products", self._find_products)  # type: ignore[no-any-return]

    def _find_products(self) -> CublasLt | CupyProducts:
        with self.session(), self._room(WORKSPACE, "uint8"):
            return products(self.cp)

    # -- arrays ---------------------------------------------------------------------------------------------------

    def empty(self, shape: int | tuple[int, ...], dtype: Any = "float32") -> Array:
        self._refuse("an allocation")
        with self.session(), self._room(shape, dtype):
            return self.cp.empty(shape, dtype=dtype)

    def asarray(self, host: Any, dtype: Any = None) -> Array:
        self._refuse("a copy from the host")
        cp = self.cp
        if isinstance(host, cp.ndarray):
            if host.device.id != self.index:
                with cp.cuda.Device(host.device.id):
                    host = cp.asnumpy(host)
        else:
            host = as_array(host, "the array")
            if dtype is not None and np.dtype(dtype).itemsize <= host.dtype.itemsize:
                host = host.astype(dtype, copy=False)  # cast before the transfer where that makes it no longer
        with self.session(), self._room(host.shape, dtype or host.dtype):
            return cp.ascontiguousarray(cp.asarray(host), dtype=dtype)

    def to_host(self, array: Array) -> Any:
        self._refuse("a read back to the host")
        with self.session():
            return self.cp.asnumpy(array)

    def copy(self, source: In, out: Out) -> None:
        if not (np.isscalar(source) or isinstance(source, self.cp.ndarray)):
            source = self.asarray(source, out.dtype)
        with self.session():
            out[...] = source

    def synchronize(self) -> None:
        self._refuse("waiting for the device")
        with self.session() as device:
            device.synchronize()

    # -- memory ---------------------------------------------------------------------------------------------------

    def memory(self) -> dict[str, int]:
        """Bytes: `peak`, the most that CuPy's pool has taken from this device, and `total` of the device.

        The pool keeps what it took, so its size is the high-water mark of all arrays of this process there, cublasLt's
        workspace included; CUDA's own context, kernels and graphs, some hundred MiB, are not. What others give back by
        `free_all_blocks` before we look is missed. Where CuPy's pool is switched off: what is in use on the device.
        """
        with self.session():
            free, total = self.cp.cuda.runtime.memGetInfo()
            peak = self._note()
        return {"peak": peak or int(total - free), "total": int(total)}

    def _note(self) -> int:
        """The pool's high-water mark on the current device, this moment included."""
        key = (self.cp, self.index)
        _peaks[key] = max(_peaks.get(key, 0), int(self.cp.get_default_memory_pool().total_bytes()))
        return _peaks[key]

    @contextmanager
    def _room(self, shape: int | tuple[int, ...], dtype: Any) -> Iterator[None]:
        """Turn CuPy's and CUDA's words for a full device into one line that names array and device."""
        self._note()  # a full pool gives its free blocks back before it fails
        try:
            yield
        except Exception as error:
            if not (isinstance(error, MemoryError) or "cudaErrorMemoryAllocation" in str(error)):
                raise
            raise MemoryFullError(self._full(shape, np.dtype(dtype))) from None

    def _full(self, shape: int | tuple[int, ...], dtype: np.dtype[Any]) -> str:
        free, total = self.cp.cuda.runtime.memGetInfo()
        held = self.cp.get_default_memory_pool().used_bytes()
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        asked = min(math.prod(shape) * dtype.itemsize, 1e300)
        return (
            f"no room on {self.name} ({self.device_name()}) for an array of shape {shown(shape)}, {dtype.name}, "
            f"{asked / GIB:.3g} GiB: {free / GIB:.3g} of {total / GIB:.3g} GiB are free, and this process's arrays "
            f"hold {held / GIB:.3g} GiB; {ADVICE}"
        )

    def device_name(self) -> str:
        """What the driver calls the GPU."""
        name = self.cp.cuda.runtime.getDeviceProperties(self.index)["name"]
        return name.decode() if isinstance(name, bytes) else str(name)
