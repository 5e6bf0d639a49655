"""The GPU's operations: matrix products by cublasLt, everything else by the kernels of `cuda/`.

No operation allocates after its first call, waits, or reads back, so a step can be recorded as one CUDA graph. Counted
in launches, a step of 784-512-256-10 is 12 at most; docs/array-layer.md lists them.
"""

from __future__ import annotations

import math
from contextlib import nullcontext

import numpy as np

from gpunet.backend.base import N_SCALARS, Array, In, Out
from gpunet.backend.cuda_facts import first_line
from gpunet.backend.cuda_kernels import BLOCK, CODES, NARROW, NULL, SOURCES, SUFFIXES, ceil_div, lanes_for
from gpunet.backend.cupy_conv import CupyConv
from gpunet.backend.cupy_losses import CupyLosses
from gpunet.backend.cupy_optimisers import CupyOptimisers
from gpunet.errors import ShapeError

SMOKE_KERNEL = 'extern "C" __global__ void smoke(float* x) { x[threadIdx.x] = 2.0f; }'
WARP = 32
WIDE_FROM = 1 << 18  # elements: smaller matrices have too few columns for a thread to take 16 bytes of them
ROWS_OF_THREAD = 8
MOST_SHARES = 64  # of the rows, whose sums the last block of a column adds up


def smoke_test(index: int) -> str | None:
    """Compile and run a kernel, multiply two matrices and wait: the reason why GPU `index` is unusable, or None."""
    try:
        import cupy as cp

        count = cp.cuda.runtime.getDeviceCount()
        if index >= count:
            return f"there is no GPU {index}: this machine has {count} (numbered from 0)"
        # On a stream that waits for no other: another thread may be recording, whom the legacy stream would stop. And
        # without CuPy's own element-wise kernels, each of which takes up to a second to compile on a new machine.
        with cp.cuda.Device(index), cp.cuda.Stream(non_blocking=True) as stream:
            x = cp.empty((2, 2), dtype=cp.float32)
            cp.RawKernel(SMOKE_KERNEL, "smoke")((1,), (4,), (x,))
            product = x @ x
            stream.synchronize()
            if not (cp.asnumpy(product) == 8).all():
                return f"GPU {index} computes wrong results (a 2×2 product): check the driver and the CuPy package"
    except Exception as error:  # CuPy raises its own classes, OSError for missing libraries, RuntimeError, …
        return f"CuPy found no working GPU ({first_line(error)}); check the NVIDIA driver with nvidia-smi"
    return None


class CupyBackend(CupyLosses, CupyOptimisers, CupyConv):
    """CuPy on one NVIDIA GPU; see `Backend` for what each operation means."""

    kernels = "cupy"

    # -- products -------------------------------------------------------------------------------------------------

    def gemm(self, a: In, b: In, out: Out, transpose_a: bool = False, transpose_b: bool = False) -> None:
        self.products.matmul(self._dense(a, "left"), self._dense(b, "right"), out, transpose_a, transpose_b)

    def affine(self, x: In, weight: In, bias: In, activation: str, out: Out) -> None:
        x, weight = self._dense(x, "left"), self._dense(weight, "right")
        relu = activation == "relu"
        if activation == "identity" or (relu and self.products.keeps_nan(out.dtype)):
            self.products.matmul(x, weight, out, transpose_b=True, bias=bias, relu=relu)
            return
        self.products.matmul(x, weight, out, transpose_b=True)
        if bias is None:
            self.activate(activation, out, out)
        elif out.size:
            rows, columns = out.shape
            packs = ceil_div(columns * out.itemsize, 16)
            self.launcher.by_row(
                f"bias_activation_{SUFFIXES[out.dtype.name]}", rows, packs,
                CODES[activation], out, bias, np.int32(rows), np.int32(columns),
            )  # fmt: skip

    def affine_backward(
        self, dz: In, x: In, weight: In, weight_grad: Out, dx: Out, activation: str, bias_grad: Out
    ) -> None:
        outputs = len(weight)
        if outputs > NARROW or not x.size:
            if weight_grad is not None:
                apart = self.forks and dz.flags.c_contiguous and x.flags.c_contiguous  # no scratch memory is shared
                with self._fork() if apart else nullcontext():
                    self.products.matmul(
                        self._dense(dz, "left"), self._dense(x, "right"), weight_grad, True, branch=int(apart)
                    )
            super().affine_backward(dz, x, weight, None, dx, activation, bias_grad)
            return
        columns = x.shape[1]
        grid, block = _tiles(len(x), columns)
        parts = self.scratch("sums of shares", (MOST_SHARES, (NARROW + 1) * columns), x.dtype.name)
        self.launcher.launch(
            f"narrow_backward_{SUFFIXES[x.dtype.name]}", grid, block,
            CODES[activation], self._dense(dz, "slopes"), self._dense(x, "left"), self._dense(weight, "right"),
            *(NULL if each is None else each for each in (weight_grad, dx, bias_grad)), parts, self._tickets(grid[0]),
            *map(np.int32, (len(x), columns, outputs)),
        )  # fmt: skip

    # -- element-wise ---------------------------------------------------------------------------------------------

    def activate(self, activation: str, z: In, out: Out) -> None:
        if z.size and not (activation == "identity" and z is out):
            self.launcher.flat("activate", out, CODES[activation], self._dense(z, "z"), out, np.int64(out.size))

    def activation_backward(self, activation: str, y: In, dy: In, dz: Out, bias_grad: Out) -> None:
        y, dy = self._dense(y, "outputs"), self._dense(dy, "slopes")
        if bias_grad is not None:
            self._chain_and_sum(activation, y, dy, dz, bias_grad)
        elif dz.size and not (activation == "identity" and dz is dy):
            self.launcher.flat("activation_backward", dz, CODES[activation], y, dy, dz, np.int64(dz.size))

    def _chain_and_sum(self, activation: str, y: Array, dy: Array, dz: Array, bias_grad: Array) -> None:
        """f' and the sums of the columns in one launch."""
        rows, columns = dz.shape
        if columns == 0:
            return
        pack = 16 // dz.itemsize
        wide = dz.size >= WIDE_FROM and columns % pack == 0
        items = columns // pack if wide else columns
        grid, block = _tiles(rows, items)
        parts = self.scratch("sums of shares", (MOST_SHARES, columns), dz.dtype.name)
        name = f"chain_and_sum{'_wide' if wide else ''}_{SUFFIXES[dz.dtype.name]}"
        self.launcher.launch(
            name, grid, block,
            CODES[activation], y, dy, dz, bias_grad, parts, self._tickets(grid[0]), np.int32(rows), np.int32(columns),
        )  # fmt: skip

    # -- batches --------------------------------------------------------------------------------------------------

    def gather(self, dataset: In, order: In, cursor: In, scale: float, out: Out) -> None:
        """Sources: bool, integers of 8 to 64 bits, float32 and float64; other dtypes cannot be recorded in a graph."""
        if out.size:
            self._gather(dataset, None, order, cursor, scale, out, None, None, 0)

    def take_batch(
        self, data: In, labels: In, order: In, cursor: Out, scale: float, out: Out, labels_out: Out, clocks: Out
    ) -> None:
        self._gather(data, labels, order, cursor, scale, out, labels_out, clocks, len(out))

    def _gather(
        self, data: Array, labels: Array, order: Array, cursor: Array, scale: float, out: Array, labels_out: Array,
        clocks: Array, by: int,
    ) -> None:  # fmt: skip
        """One launch, and for the rare dtypes CuPy's own functions in front of it."""
        rows, samples, width = len(out), len(data), math.prod(out.shape[1:])
        if data.size != samples * width:
            raise ShapeError(f"gather of rows of {data.size // max(1, samples)} numbers into rows of {width}")
        kind = SOURCES.get(data.dtype.name), SUFFIXES.get(out.dtype.name)
        if None in kind or (kind[1] == "i64" and (kind[0] != "i64" or scale != 1)):
            self._gather_any(data, order, cursor, scale, out)
            if by == 0 and clocks is None:
                return
            data = out = self.scratch("rows of nothing", 1, "float32")
            kind, width = ("f32", "f32"), 0
        count = 0 if clocks is None else clocks.size // N_SCALARS
        self.launcher.by_row(
            f"gather_{kind[0]}_{kind[1]}", rows, ceil_div(width, 4),
            self._dense(data, "data set"), NULL if labels_out is None else self._dense(labels, "labels", "int64"),
            order, cursor, out.dtype.type(scale), out, NULL if labels_out is None else labels_out,
            clocks if count else NULL, self._tickets(1),
            *map(np.int64, (rows, width, samples, len(order), by)), np.int32(count), more=int(count > 0),
        )  # fmt: skip

    def _gather_any(self, dataset: Array, order: Array, cursor: Array, scale: float, out: Array) -> None:
        """The rare dtypes by CuPy's own functions, with temporaries."""
        clip = self.cp.clip
        places = cursor[0] + self.cp.arange(len(out))  # computed on the device: no read back
        samples = clip(order[clip(places, 0, len(order) - 1)], 0, len(dataset) - 1)
        rows = dataset[samples].astype(out.dtype)
        self.cp.multiply(rows, out.dtype.type(scale), out=out)


def _tiles(rows: int, items: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Grid and block of a pass down the columns; how the rows are shared out follows from the shape alone."""
    lanes = lanes_for(items, WARP)
    height = BLOCK // lanes
    shares = max(1, min(ceil_div(rows, height * ROWS_OF_THREAD), MOST_SHARES))
    return (ceil_div(items, lanes), shares), (lanes, height)
