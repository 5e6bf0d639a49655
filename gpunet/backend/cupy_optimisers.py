"""The optimisers on the GPU: one launch over the flat arrays."""

from __future__ import annotations

import numpy as np

from gpunet.backend.base import N_SCALARS, Array, In, Out
from gpunet.backend.cupy_launch import CupyLaunch


class CupyOptimisers(CupyLaunch):
    """The part of CupyBackend that updates parameters."""

    def tick(self, scalars: Out) -> None:
        self.launcher.launch("tick", (1,), (32,), scalars, np.int32(scalars.size // N_SCALARS))

    def sgd(self, params: Out, grads: In, scalars: In, decayed: int) -> None:
        self._update("sgd", (params, grads), scalars, decayed)

    def momentum(self, params: Out, grads: In, velocity: Out, scalars: In, decayed: int) -> None:
        self._update("momentum", (params, grads, velocity), scalars, decayed)

    def adam(self, params: Out, grads: In, first: Out, second: Out, scalars: In, decayed: int) -> None:
        self._update("adam", (params, grads, first, second), scalars, decayed)

    def _update(self, name: str, arrays: tuple[Array, ...], scalars: Array, decayed: int) -> None:
        size = len(arrays[0])
        if size:
            self.launcher.flat(name, arrays[0], *arrays, scalars, np.int64(size), np.int64(decayed))
