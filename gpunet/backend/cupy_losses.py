"""The losses on the GPU: one launch each, with the product of a last layer of few outputs in front of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunet.backend.base import Array, In, Out
from gpunet.backend.cuda_kernels import BLOCK, CODES, NARROW, NULL, SUFFIXES, ceil_div, lanes_for
from gpunet.backend.cupy_launch import CupyLaunch

MOST_BLOCKS = 256  # the last block adds up what the others found, one thread for each of them
ROUNDS = 4  # rows that a thread takes before there are more blocks than one, which have to wait for each other
WARP = 32  # a row is read by threads that can shuffle, so by no more


class CupyLosses(CupyLaunch):
    """The part of CupyBackend that computes losses."""

    def softmax_cross_entropy(self, z: In, labels: In, scale: float, dz: Out, totals: Out) -> None:
        self._loss("softmax_cross_entropy", (), (z,), labels, scale, dz, totals)

    def binary_cross_entropy(self, z: In, labels: In, scale: float, dz: Out, totals: Out) -> None:
        self._loss("binary_cross_entropy", (), (z,), labels, scale, dz, totals)

    def squared_error(self, activation: str, z: In, labels: In, scale: float, dz: Out, totals: Out) -> None:
        self._loss("squared_error", (activation,), (z,), labels, scale, dz, totals)

    def affine_loss(
        self, x: In, weight: In, bias: In, z: Out, loss: str, options: tuple[str, ...], labels: In, scale: float,
        dz: Out, totals: Out, bias_grad: Out,
    ) -> None:  # fmt: skip
        outputs = len(weight)
        if outputs > WARP or not z.size:
            super().affine_loss(x, weight, bias, z, loss, options, labels, scale, dz, totals, bias_grad)
        elif outputs > NARROW:
            self.affine(x, weight, bias, "identity", z)
            self._loss(loss, options, (z,), labels, scale, dz, totals, bias_grad)
        else:
            x, weight = self._dense(x, "inputs"), self._dense(weight, "right")
            given = x, weight, NULL if bias is None else bias, np.int32(x.shape[1]), z
            self._loss(loss, options, given, labels, scale, dz, totals, bias_grad)

    def _loss(
        self, name: str, options: tuple[str, ...], given: tuple[Any, ...], labels: Array, scale: float, dz: Array,
        totals: Array, bias_grad: Array = None,
    ) -> None:  # fmt: skip
        """The kernel of a loss, given the scores, or what they are computed from."""
        n, k = dz.shape
        if n == 0:
            return
        product = len(given) > 1
        lanes = WARP if product else lanes_for(k, WARP)
        rows = BLOCK // lanes
        blocks = min(ceil_div(n, rows), MOST_BLOCKS) if product or n > ROUNDS * rows else 1
        parts = self.scratch("loss of blocks", (2 + WARP, MOST_BLOCKS), "float64")
        if not product:
            given = (self._dense(given[0], "scores"),)
        self.launcher.launch(
            f"{'affine_' if product else ''}{name}_{SUFFIXES[dz.dtype.name]}", (blocks,), (BLOCK,),
            *(CODES[option] for option in options), *given, self._dense(labels, "labels", "int64"),
            dz.dtype.type(scale), dz, totals, NULL if bias_grad is None else bias_grad, parts, self._tickets(1),
            np.int32(n), np.int32(k), *(() if product else (np.int32(lanes),)),
        )  # fmt: skip
