"""The GPU's operations in CuPy: a first cut behind the contract, written with CuPy's own array functions.

Right before fast: the element-wise operations here still launch several kernels and make temporaries, so a step cannot
be captured as a CUDA graph yet. The fused kernels replace them one by one, each held against its NumPy twin.
The methods take the module as `cp`, so that tests can run this file's logic on a machine without a GPU.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from gpunet.backend.base import (
    BETA1,
    BETA2,
    CORRECT,
    EPSILON,
    FIRST_BAD,
    L2,
    LEARNING_RATE,
    LOSS_SUM,
    SAMPLES,
    SECOND_STEP,
    STEP,
    Array,
    In,
    Out,
)
from gpunet.backend.cupy_conv import CupyConv

SMOKE_KERNEL = 'extern "C" __global__ void smoke(float* x) { x[threadIdx.x] *= 2.0f; }'


def smoke_test(index: int) -> str | None:
    """Compile and run a kernel, multiply two matrices and wait: the reason why GPU `index` is unusable, or None."""
    try:
        import cupy as cp

        count = cp.cuda.runtime.getDeviceCount()
        if index >= count:
            return f"there is no GPU {index}: this machine has {count} (numbered from 0)"
        with cp.cuda.Device(index) as device:
            x = cp.ones((2, 2), dtype=cp.float32)
            cp.RawKernel(SMOKE_KERNEL, "smoke")((1,), (4,), (x,))
            product = x @ x
            device.synchronize()
            if not bool((product == 8).all()):
                return f"GPU {index} computes wrong results (a 2×2 product): check the driver and the CuPy package"
    except Exception as error:  # CuPy raises its own classes, OSError for missing libraries, RuntimeError, …
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return f"CuPy found no working GPU ({line}); check the NVIDIA driver with nvidia-smi"
    return None


class CupyBackend(CupyConv):
    """CuPy on one NVIDIA GPU; see `Backend` for what each operation means."""

    kernels = "cupy"

    def __init__(self, index: int = 0, module: Any = None) -> None:
        if module is None:
            import cupy

            module = cupy
        self.cp = self.xp = module
        self.index = index
        self.name = f"cuda:{index}"

    def session(self) -> AbstractContextManager[Any]:
        return self.cp.cuda.Device(self.index)  # type: ignore[no-any-return]

    # -- memory ---------------------------------------------------------------------------------------------------

    def empty(self, shape: int | tuple[int, ...], dtype: Any = "float32") -> Array:
        with self.session():
            return self.cp.empty(shape, dtype=dtype)

    def asarray(self, host: Any, dtype: Any = None) -> Array:
        with self.session():
            return self.cp.ascontiguousarray(self.cp.asarray(host), dtype=dtype)

    def to_host(self, array: Array) -> Any:
        return self.cp.asnumpy(array)

    def synchronize(self) -> None:
        with self.session() as device:
            device.synchronize()

    def memory(self) -> dict[str, int]:
        with self.session() as device:
            free, total = device.mem_info
        return {"peak": int(total - free), "total": int(total)}

    def copy(self, source: In, out: Out) -> None:
        out[...] = source if np.isscalar(source) else self.cp.asarray(source).astype(out.dtype, copy=False)

    # -- products -------------------------------------------------------------------------------------------------

    def gemm(self, a: In, b: In, out: Out, transpose_a: bool = False, transpose_b: bool = False) -> None:
        self.cp.matmul(a.T if transpose_a else a, b.T if transpose_b else b, out=out)

    def affine(self, x: In, weight: In, bias: In, activation: str, out: Out) -> None:
        self.cp.matmul(x, weight.T, out=out)
        if bias is not None:
            self.cp.add(out, bias, out=out)
        self.activate(activation, out, out)

    # -- element-wise ---------------------------------------------------------------------------------------------

    def activate(self, activation: str, z: In, out: Out) -> None:
        if activation == "relu":
            self.cp.maximum(z, 0, out=out)
        elif activation == "sigmoid":
            out[...] = self.cp.tanh(z * 0.5) * 0.5 + 0.5
        elif out is not z:
            out[...] = z

    def activation_backward(self, activation: str, y: In, dy: In, dz: Out, bias_grad: Out) -> None:
        if activation == "relu":
            self.cp.multiply(dy, y > 0, out=dz)
        elif activation == "sigmoid":
            self.cp.multiply(dy, y * (1 - y), out=dz)
        elif dz is not dy:
            dz[...] = dy
        if bias_grad is not None:
            self.cp.sum(dz, axis=0, out=bias_grad)

    def gather(self, dataset: In, order: In, cursor: In, scale: float, out: Out) -> None:
        places = cursor[0] + self.cp.arange(len(out))  # computed on the device: no read back
        rows = dataset[order[places]].astype(out.dtype, copy=False)
        self.cp.multiply(rows, out.dtype.type(scale), out=out)

    def advance(self, cursor: Out, by: int) -> None:
        cursor += by

    # -- losses ---------------------------------------------------------------------------------------------------

    def softmax_cross_entropy(self, z: In, labels: In, scale: float, dz: Out, totals: Out) -> None:
        cp = self.cp
        shifted = z - z.max(axis=1, keepdims=True)
        weights = cp.exp(shifted)
        mass = weights.sum(axis=1, keepdims=True)
        target = self._targets(z, labels)
        loss = cp.log(mass).sum(dtype="float64") - (shifted * target).sum(dtype="float64")
        dz[...] = (weights / mass - target) * scale
        self._count(totals, loss, z, labels, threshold=0.0)

    def binary_cross_entropy(self, z: In, labels: In, scale: float, dz: Out, totals: Out) -> None:
        cp = self.cp
        target = self._targets(z, labels)
        loss = (cp.maximum(z, 0) + cp.log1p(cp.exp(-abs(z))) - target * z).sum(dtype="float64")
        self.activate("sigmoid", z, dz)
        dz[...] = (dz - target) * scale
        self._count(totals, loss, z, labels, threshold=0.0)

    def squared_error(self, activation: str, z: In, labels: In, scale: float, dz: Out, totals: Out) -> None:
        y = self.cp.empty_like(z)
        self.activate(activation, z, y)
        difference = y - self._targets(z, labels)
        loss = 0.5 * (difference * difference).sum(dtype="float64")
        self.activation_backward(activation, y, difference * scale, dz, None)
        self._count(totals, loss, y, labels, threshold=0.5)

    def _targets(self, z: Array, labels: Array) -> Array:
        """One-hot labels (n, k), or the labels as a column when k = 1."""
        if z.shape[1] == 1:
            return labels[:, None].astype(z.dtype)
        return (labels[:, None] == self.cp.arange(z.shape[1])[None, :]).astype(z.dtype)

    def _count(self, totals: Array, loss: Array, scores: Array, labels: Array, threshold: float) -> None:
        cp = self.cp
        answers = scores.argmax(axis=1) if scores.shape[1] > 1 else scores[:, 0] > threshold
        bad = ~cp.isfinite(loss) & (totals[FIRST_BAD] < 0)
        totals[FIRST_BAD] = cp.where(bad, totals[SAMPLES], totals[FIRST_BAD])
        totals[LOSS_SUM] += loss
        totals[CORRECT] += (answers == labels).sum()
        totals[SAMPLES] += len(labels)

    # -- optimisers -----------------------------------------------------------------------------------------------

    def tick(self, scalars: Out) -> None:
        scalars[STEP:] += 1

    def sgd(self, params: Out, grads: In, scalars: In, decayed: int) -> None:
        rate = scalars[LEARNING_RATE].astype(params.dtype)
        params -= rate * self._with_l2(params, grads, scalars, decayed)

    def momentum(self, params: Out, grads: In, velocity: Out, scalars: In, decayed: int) -> None:
        rate, beta = (scalars[i].astype(params.dtype) for i in (LEARNING_RATE, BETA1))
        velocity *= beta
        velocity += self._with_l2(params, grads, scalars, decayed)
        params -= rate * velocity

    def adam(self, params: Out, grads: In, first: Out, second: Out, scalars: In, decayed: int) -> None:
        g = self._with_l2(params, grads, scalars, decayed)
        beta1, beta2, step, second_step = (scalars[i] for i in (BETA1, BETA2, STEP, SECOND_STEP))
        spread = self.cp.sqrt((1 - beta2) / (1 - beta2**second_step))
        scale = scalars[LEARNING_RATE] * (1 - beta1) / ((1 - beta1**step) * spread)
        epsilon = scalars[EPSILON] / spread
        first *= beta1.astype(params.dtype)
        first += g
        second *= beta2.astype(params.dtype)
        second += g * g
        params -= scale.astype(params.dtype) * first / (self.cp.sqrt(second) + epsilon.astype(params.dtype))

    def _with_l2(self, params: Array, grads: Array, scalars: Array, decayed: int) -> Array:
        penalty = (2 * scalars[L2]).astype(params.dtype)
        return self.cp.concatenate([grads[:decayed] + penalty * params[:decayed], grads[decayed:]])
