"""The pretend GPU's memory: allocations between guards, and a pool that counts as CuPy's does."""

from __future__ import annotations

from typing import Any

import numpy as np

GUARD, ALIGNMENT = 64, 512  # bytes: what is written around every array to find writes beyond it; CuPy's alignment


class CUDARuntimeError(RuntimeError):
    """As cupy_backends.cuda.api.runtime.CUDARuntimeError."""


class CUDADriverError(RuntimeError):
    """As cupy_backends.cuda.api.driver.CUDADriverError, which launches of kernels raise."""


class OutOfMemoryError(MemoryError):
    """As cupy.cuda.memory.OutOfMemoryError."""

    def __init__(self, size: int, total: int, limit: int = 0) -> None:
        super().__init__(f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes).")


class Memory:
    """One allocation: NumPy memory between two guards, and the pool that it goes back to."""

    def __init__(self, machine: Any, size: int, device_id: int, pool: Any = None) -> None:
        self.size, self.device_id, self.pool = size, device_id, pool
        self.raw = np.empty(size + 2 * GUARD + ALIGNMENT, np.uint8)
        self.start = GUARD + -(self.raw.ctypes.data + GUARD) % ALIGNMENT
        self.raw[: self.start] = self.raw[self.start + size :] = 0xA5
        self.ptr = self.raw.ctypes.data + self.start
        machine.live.add(self)

    def __del__(self) -> None:
        if self.pool is not None:
            self.pool.free(self)

    def array(self, shape: Any, dtype: np.dtype[Any]) -> Any:
        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        return self.raw[self.start : self.start + nbytes].view(dtype).reshape(shape)

    def check(self) -> None:
        before, after = self.raw[: self.start], self.raw[self.start + self.size :]
        assert (before == 0xA5).all(), "written before the start of an array"
        assert (after == 0xA5).all(), "written beyond the end of an array"


class MemoryPool:
    """Counts as cupy.cuda.MemoryPool does; a block that is free again is taken for the next of its size and stream."""

    def __init__(self, machine: Any) -> None:
        self.machine = machine
        self._free: dict[Any, int] = {}
        self._used: dict[int, int] = {}
        self._total: dict[int, int] = {}

    def malloc(self, size: int) -> Memory:
        machine, device = self.machine, self.machine.current
        rounded = -(-size // ALIGNMENT) * ALIGNMENT
        key = (device, machine.stream().ptr, rounded)
        if self._free.get(key):
            self._free[key] -= 1
        elif rounded:
            try:
                machine.cuda_malloc(rounded)
            except CUDARuntimeError as error:
                if "MemoryAllocation" not in str(error):
                    raise
                self.free_all_blocks()
                try:
                    machine.cuda_malloc(rounded)
                except CUDARuntimeError:
                    raise OutOfMemoryError(rounded, self._total.get(device, 0)) from None
            self._total[device] = self._total.get(device, 0) + rounded
        self._used[device] = self._used.get(device, 0) + rounded
        memory = Memory(machine, size, device, self)
        memory.key = key
        return memory

    def free(self, memory: Memory) -> None:
        self._used[memory.device_id] -= memory.key[2]
        if memory.key[2]:
            self._free[memory.key] = self._free.get(memory.key, 0) + 1

    def free_all_blocks(self, stream: Any = None) -> None:
        for key, count in list(self._free.items()):
            if key[0] == self.machine.current:
                self._total[key[0]] -= key[2] * count
                self.machine.taken[key[0]] -= key[2] * count
                del self._free[key]

    def total_bytes(self) -> int:
        return self._total.get(self.machine.current, 0)

    def used_bytes(self) -> int:
        return self._used.get(self.machine.current, 0)

    def free_bytes(self) -> int:
        return self.total_bytes() - self.used_bytes()
