"""What the parts of CupyBackend share: its kernels, and the scratch memory that they ask for."""

from __future__ import annotations

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
        copy = self.scratch_up_to(f"dense {purpose}", array.shape, dtype)
        copy[...] = array
        return copy

    def _tickets(self, count: int) -> Array:
        """Zeros for `last_to_arrive`, which leaves zeros behind; one kernel after the other may use the same."""
        size = max(1024, 1 << (count - 1).bit_length())
        return self.constant("tickets", (size,), lambda: self.zeros(size, "uint32"))
