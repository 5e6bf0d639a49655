"""The CPU backend with its element-wise passes in numba; products stay NumPy's."""

from __future__ import annotations

import math

import numpy as np

from gpunet.backend import numba_kernels as kernels
from gpunet.backend.base import Array, In, Out
from gpunet.backend.blas import multiply
from gpunet.backend.numba_conv import NumbaConv
from gpunet.backend.numpy_backend import NumpyBackend
from gpunet.backend.numpy_optimisers import adam_factors
from gpunet.errors import ShapeError


class NumbaBackend(NumbaConv, NumpyBackend):
    """NumpyBackend, faster: what is not overridden here is inherited. Compiled once per dtype, cached on disk."""

    kernels = "numba"

    def affine(self, x: In, weight: In, bias: In, activation: str, out: Out) -> None:
        if bias is None or activation == "sigmoid":  # exp and tanh: NumPy's are vectorised, numba's are not
            super().affine(x, weight, bias, activation, out)
            return
        multiply(weight.size * len(x), x, weight.T, out)
        (kernels.bias_relu if activation == "relu" else kernels.bias_identity)(out, bias)

    def activation_backward(self, activation: str, y: In, dy: In, dz: Out, bias_grad: Out) -> None:
        if activation == "identity":
            super().activation_backward(activation, y, dy, dz, bias_grad)
            return
        if dz is not dy:
            np.copyto(dz, dy)
        rows, d_rows = y.reshape(len(y), -1), dz.reshape(len(dz), -1)
        if bias_grad is None:  # computed all the same: that costs less than NumPy's passes
            bias_grad = self.scratch("unwanted", rows.shape[1], y.dtype)
        (kernels.relu_backward if activation == "relu" else kernels.sigmoid_backward)(rows, d_rows, bias_grad)

    def gather(self, dataset: In, order: In, cursor: In, scale: float, out: Out) -> None:
        plain = dataset.ndim == 1 or dataset.dtype == out.dtype  # a copy of rows: memcpy wins
        if plain or not (len(dataset) and len(order)):
            super().gather(dataset, order, cursor, scale, out)
            return
        rows, target = dataset.reshape(len(dataset), -1), out.reshape(len(out), -1)
        if rows.shape[1] != target.shape[1]:
            raise ShapeError(f"gather of rows of {rows.shape[1]} numbers into rows of {target.shape[1]}")
        kernels.gather(rows, order, int(cursor[0]), out.dtype.type(scale), target)

    def softmax_cross_entropy(self, z: In, labels: In, scale: float, dz: Out, totals: Out) -> None:
        loss, correct = kernels.softmax_cross_entropy(z, labels, z.dtype.type(scale), dz)
        self._add_checked(totals, loss, correct, labels, z.shape[1])

    def binary_cross_entropy(self, z: In, labels: In, scale: float, dz: Out, totals: Out) -> None:
        loss, correct = kernels.binary_cross_entropy(z, labels, z.dtype.type(scale), dz)
        self._add_checked(totals, loss, correct, labels, max(2, z.shape[1]))

    def _add_checked(self, totals: Array, loss: float, correct: int, labels: Array, classes: int) -> None:
        if math.isnan(loss):  # of labels that are no classes, too: the kernels look where they read
            self._check_classes(labels, classes)
        self._add(totals, len(labels), loss, correct)

    def sgd(self, params: Out, grads: In, scalars: In, decayed: int) -> None:
        rate, _, _, _, l2, *_ = scalars.tolist()
        real = params.dtype.type
        for part, penalty in self._parts(params, decayed, l2):
            kernels.sgd(params[part], grads[part], real(rate), real(penalty))

    def momentum(self, params: Out, grads: In, velocity: Out, scalars: In, decayed: int) -> None:
        rate, beta, _, _, l2, *_ = scalars.tolist()
        real, tiny = params.dtype.type, np.finfo(params.dtype).tiny
        for part, penalty in self._parts(params, decayed, l2):
            kernels.momentum(params[part], grads[part], velocity[part], real(rate), real(beta), real(penalty), tiny)

    def adam(self, params: Out, grads: In, first: Out, second: Out, scalars: In, decayed: int) -> None:
        _, beta1, beta2, _, l2, *_ = scalars.tolist()
        real, tiny = params.dtype.type, np.finfo(params.dtype).tiny
        scale, epsilon = adam_factors(scalars)
        factors = real(beta1), real(beta2), real(scale), real(epsilon)
        for part, penalty in self._parts(params, decayed, l2):
            kernels.adam(params[part], grads[part], first[part], second[part], *factors, real(penalty), tiny)

    @staticmethod
    def _parts(params: In, decayed: int, l2: float) -> tuple[tuple[slice, float], ...]:
        """(range, 2λ): one range when there is no L2 term, else the decayed parameters and the others."""
        if l2 == 0 or decayed == len(params):
            return ((slice(None), 2 * l2),)
        return ((slice(0, decayed), 2 * l2), (slice(decayed, None), 0.0))
