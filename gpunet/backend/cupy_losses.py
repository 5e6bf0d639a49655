"""The losses on the GPU: one launch each."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunet.backend.base import Array, In, Out
from gpunet.backend.cuda_kernels import BLOCK, CODES, SUFFIXES, ceil_div, lanes_for
from gpunet.backend.cupy_launch import CupyLaunch

MOST_BLOCKS = 256  # the last block adds up what the others found, one thread for each of them
WARP = 32  # a row is read by threads that can shuffle, so by no more


class CupyLosses(CupyLaunch):
    """The part of CupyBackend that computes losses."""

    def softmax_cross_entropy(self, z: In, labels: In, scale: float, dz: Out, totals: Out) -> None:
        self._loss("softmax_cross_entropy", (), z, labels, scale, dz, totals)

    def binary_cross_entropy(self, z: In, labels: In, scale: float, dz: Out, totals: Out) -> None:
        self._loss("binary_cross_entropy", (), z, labels, scale, dz, totals)

    def squared_error(self, activation: str, z: In, labels: In, scale: float, dz: Out, totals: Out) -> None:
        self._loss("squared_error", (CODES[activation],), z, labels, scale, dz, totals)

    def _loss(
        self, name: str, options: tuple[Any, ...], z: Array, labels: Array, scale: float, dz: Array, totals: Array
    ) -> None:
        n, k = z.shape
        if n == 0:
            return
        lanes = lanes_for(k, WARP)
        blocks = min(ceil_div(n, BLOCK // lanes), MOST_BLOCKS)
        parts = self.scratch("loss of blocks", (2, MOST_BLOCKS), "float64")
        labels = self._dense(labels, "labels", "int64")
        self.launcher.launch(
            f"{name}_{SUFFIXES[z.dtype.name]}", (blocks,), (BLOCK,),
            *options, self._dense(z, "scores"), labels, z.dtype.type(scale), dz, totals, parts, self._tickets(1),
            np.int32(n), np.int32(k), np.int32(lanes),
        )  # fmt: skip
