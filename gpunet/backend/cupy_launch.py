"""What the parts of CupyBackend share: its kernels, and the scratch memory that they ask for."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

from gpunet.backend.base import Array
from gpunet.backend.cuda_kernels import Kernels
from gpunet.backend.cupy_memory import CupyMemory


class CupyLaunch(CupyMemory):
    """Access to the kernels; every operation of CupyBackend derives from here."""

    @cached_property
    def launcher(self) -> Kernels:
        """The kernels, compiled at the first launch."""
        return Kernels(self.cp, self.index)

    def _dense(self, array: Array, purpose: str, dtype: Any = None) -> Array:
        """The array itself where it is C-contiguous and of that dtype, else a copy in scratch memory."""
        dtype = array.dtype if dtype is None else dtype
        if array.flags.c_contiguous and array.dtype == dtype:
            return array
        copy = self._room_for(f"dense {purpose}", array.shape, dtype)
        copy[...] = array
        return copy

    def _room_for(self, purpose: str, shape: tuple[int, ...], dtype: Any) -> Array:
        """Scratch of this shape. Those of up to a power of two elements share it: short batches come in all sizes."""
        size = math.prod(shape)
        return self.scratch(purpose, 1 << max(0, size - 1).bit_length(), str(dtype))[:size].reshape(shape)

    def _tickets(self, count: int) -> Array:
        """Zeros for `last_to_arrive`, which leaves zeros behind; one kernel after the other may use the same."""
        size = max(1024, 1 << (count - 1).bit_length())
        return self.constant("tickets", (size,), lambda: self.zeros(size, "uint32"))
