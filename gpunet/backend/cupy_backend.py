"""The GPU's operations: matrix products by cublasLt, everything else by the kernels of `cuda/`, launched here.

No operation allocates after its first call, waits, or reads back, so a step can be recorded as one CUDA graph. Counted
in launches, a step of 784-512-256-10 is 12 at most, and 13 in mixed precision; docs/array-layer.md lists them.

The kernels are one text, which CuPy compiles once for a GPU, at the first launch, and keeps in its cache on disk. No
fast-math: NaN and infinity must survive, and a division is rounded as NumPy rounds it. But CuPy adds `-ftz=true` to
every compilation: denormal float32, below 1.2e-38, are 0 to the kernels, as operands and as results; those of float64
stay. g++, which compiles the same text for the tests, keeps both.
"""

from __future__ import annotations

import math
import re
from contextlib import nullcontext
from functools import cache, cached_property
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from gpunet.backend.base import ACTIVATIONS, BFLOAT16, N_SCALARS, Array, In, Out, dropout_threshold
from gpunet.backend.cupy_device import CupyDevice
from gpunet.errors import ShapeError

FOLDER = Path(__file__).with_name("cuda")
OPTIONS = ("--std=c++17",)
ADDED = ("-ftz=true",)  # by CuPy (cupy/cuda/compiler.py), which nobody can keep from it
FLOAT32 = np.dtype(np.float32)
NULL = np.uint64(0)  # in place of an array that nobody wants: CuPy hands None over as something else
SUFFIXES = {"float32": "f32", "float64": "f64", "int64": "i64", "uint16": "bf16"}
SOURCES = SUFFIXES | {  # of data sets, where uint16 holds whole numbers
    "uint8": "u8", "bool": "u8", "int8": "i8", "uint16": "u16", "int16": "i16", "uint32": "u32", "int32": "i32",
    "uint64": "u64",
}  # fmt: skip
CODES: dict[str, np.int32] = {
    name: np.int32(place) for place, name in enumerate(ACTIVATIONS)
}  # enum Activation in common.cuh

BLOCK = 256  # threads of a block, as in common.cuh
NARROW = 16  # outputs, at most, of a product that is computed inside another kernel; as in common.cuh
WAVES = 8  # blocks a multiprocessor, at most: one that is resident goes on to the next rows instead of ending
WARP = 32  # threads that can shuffle: a row of a loss is read by no more
WIDE_FROM = 1 << 18  # elements: smaller matrices have too few columns for a thread to take 16 bytes of them
ROWS_OF_THREAD = 8  # in a pass down the columns
MOST_SHARES = 64  # of the rows, whose sums the last block of a column adds up
MOST_BLOCKS = 256  # of a loss; the last block adds up what the others found, one thread for each of them
ROUNDS = 4  # rows that a thread takes before a loss has more blocks than one, which have to wait for each other
FILTERS = 8  # as in conv.cuh: filters of a thread's registers
MAPS, IMAGES = 1024, 32  # filters and images, at most, whose maps are made at a time, where those are averaged
SHARES = 64  # parts of the images, at most, whose contributions to the filters' gradients are added up last
ROOM = 1 << 22  # elements of those contributions, and of maps that are averaged, at most

_modules: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


@cache
def source() -> str:
    """kernels.cu with the files that it includes in their places: NVRTC then needs no folder to search."""

    def included(match: re.Match[str]) -> str:
        return (FOLDER / match[1]).read_text()

    return re.sub(r'^#include "(.+)"$', included, (FOLDER / "kernels.cu").read_text(), flags=re.M)


def module(cp: Any) -> Any:
    """The kernels as one RawModule for each cupy module (there is one, but for tests)."""
    found = _modules.get(cp)
    if found is None:
        found = _modules[cp] = cp.RawModule(code=source(), options=OPTIONS)
    return found


def ceil_div(a: int, b: int) -> int:
    """⌈a / b⌉."""
    return -(-a // b)


def lanes_for(width: int, most: int = BLOCK) -> int:
    """The smallest power of two that is not below `width`, up to `most`: threads that work side by side on a row."""
    return min(most, 1 << max(0, width - 1).bit_length())


class Kernels:
    """The kernels on one device: each call launches one on the current stream.

    Arrays are handed over by address, so they must be C-contiguous, and None where nobody wants one; every number as
    the numpy scalar of exactly the kernel's type.
    """

    def __init__(self, cp: Any, index: int) -> None:
        self._module = module(cp)
        self._functions: dict[tuple[str, tuple[np.dtype[Any], ...]], Any] = {}
        properties = cp.cuda.runtime.getDeviceProperties(index)
        self._most_blocks = WAVES * int(properties["multiProcessorCount"])

    def launch(
        self, name: str, dtypes: tuple[np.dtype[Any], ...], grid: tuple[int, ...], block: tuple[int, ...], *args: Any
    ) -> None:
        """Launch kernel `name` for those dtypes: one suffix where they are alike, none where there is one for all."""
        function = self._functions.get((name, dtypes))
        if function is None:
            suffixes = dict.fromkeys(SUFFIXES[dtype.name] for dtype in dtypes)
            function = self._functions[name, dtypes] = self._module.get_function("_".join([name, *suffixes]))
        function(grid, block, tuple(NULL if arg is None else arg for arg in args))

    def flat(self, name: str, array: Array, *args: Any, dtypes: tuple[np.dtype[Any], ...] | None = None) -> None:
        """Launch a kernel that goes through arrays of `array`'s size, 16 bytes of it a thread at a time.

        dtypes: those that its name has, where it is not that of `array`.
        """
        packs = ceil_div(array.size * array.dtype.itemsize, 16)
        grid = min(ceil_div(packs, BLOCK), self._most_blocks)
        self.launch(name, (array.dtype,) if dtypes is None else dtypes, (grid,), (BLOCK,), *args)

    def by_row(self, name: str, dtype: np.dtype[Any], rows: int, items: int, *args: Any, more: int = 0) -> None:
        """Launch a kernel whose blocks take whole rows, as many as have room: `items` threads work on one.

        more: blocks beyond those, which have something else to do.
        """
        lanes = lanes_for(items)
        height = BLOCK // lanes
        blocks = min(max(1, ceil_div(rows, height)), self._most_blocks)
        self.launch(name, (dtype,), (blocks + more,), (lanes, height), *args)


class CupyBackend(CupyDevice):
    """CuPy on one NVIDIA GPU; see `Backend` for what each operation means."""

    kernels = "cupy"

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

    # -- products -------------------------------------------------------------------------------------------------

    def gemm(self, a: In, b: In, out: Out, transpose_a: bool = False, transpose_b: bool = False) -> None:
        a, b = self._dense(a, "left"), self._dense(b, "right")
        self.products.matmul(a, b, out, transpose_a, transpose_b, tf32=self.tf32)

    def affine(self, x: In, weight: In, bias: In, activation: str, out: Out) -> None:
        x, weight = self._dense(x, "left"), self._dense(weight, "right")
        plain, relu = activation == "identity", activation == "relu"
        rounds = out.dtype == BFLOAT16  # no epilogue adds a bias of float32 to what it rounds
        if (plain and (bias is None or not rounds)) or (
            relu and not rounds and self.products.keeps_nan(x.dtype, self.tf32)
        ):
            self.products.matmul(x, weight, out, transpose_b=True, bias=bias, relu=relu, tf32=self.tf32)
            return
        z = self.scratch_up_to("scores", out.shape, "float32") if rounds else out
        self.products.matmul(x, weight, z, transpose_b=True, tf32=self.tf32)
        if bias is None and not rounds:
            self.activate(activation, out, out)
        elif out.size:
            rows, columns = out.shape
            packs = ceil_div(columns * z.itemsize, 16)
            self.launcher.by_row(
                "bias_activation", out.dtype, rows, packs,
                CODES[activation], z, out, bias, np.int32(rows), np.int32(columns),
            )  # fmt: skip

    def to_bfloat16(self, x: In, out: Out) -> None:
        if x.size:
            self.launcher.flat("to_bfloat16", x, self._dense(x, "numbers"), out, np.int64(x.size), dtypes=())

    def affine_backward(
        self, dz: In, x: In, weight: In, weight_grad: Out, dx: Out, activation: str, bias_grad: Out
    ) -> None:
        outputs = len(weight)
        if outputs > NARROW or not x.size:
            if weight_grad is not None:
                apart = self.forks and dz.flags.c_contiguous and x.flags.c_contiguous  # no scratch memory is shared
                with self._fork() if apart else nullcontext():
                    self.products.matmul(
                        self._dense(dz, "left"), self._dense(x, "right"), weight_grad, True, branch=int(apart),
                        tf32=self.tf32,
                    )  # fmt: skip
            super().affine_backward(dz, x, weight, None, dx, activation, bias_grad)
            return
        columns = x.shape[1]
        grid, block = _tiles(len(x), columns)
        dtype = _sums(x.dtype)
        parts, sums = self.scratch("sums of shares", (MOST_SHARES, (NARROW + 1) * columns), dtype), weight_grad
        if weight_grad is not None and weight_grad.dtype != dtype:
            sums = self.scratch_up_to("gradient in float32", weight_grad.shape, dtype)
        self.launcher.launch(
            "narrow_backward", (x.dtype, x.dtype if dx is None else dx.dtype), grid, block,
            CODES[activation], self._dense(dz, "slopes"), self._dense(x, "left"), self._dense(weight, "right"),
            sums, dx, bias_grad, parts, self._tickets(grid[0]), *map(np.int32, (len(x), columns, outputs)),
        )  # fmt: skip
        if sums is not weight_grad:
            self.to_bfloat16(sums, weight_grad)

    # -- images: one launch forward, two backward, and nothing written between -------------------------------------

    def conv2d(
        self, x: In, weight: In, bias: In, activation: str, padding: int, pool: int, out: Out, place: Out
    ) -> None:
        sizes = _sizes(x, weight, padding, pool, out.shape[2:])
        positions = len(x) * out.shape[2] * out.shape[3]
        if positions == 0:
            return
        self.launcher.launch(
            "conv", (x.dtype,), (ceil_div(positions, BLOCK), ceil_div(len(weight), FILTERS)), (BLOCK,),
            self._dense(x, "images"), weight, bias, CODES[activation], out, place, *sizes,
        )  # fmt: skip

    def conv2d_backward(
        self, x: In, weight: In, padding: int, pool: int, place: In, dz: In, weight_grad: Out, bias_grad: Out, dx: Out
    ) -> None:
        sizes = _sizes(x, weight, padding, pool, dz.shape[2:])
        if weight_grad is not None:
            taps = weight[0].size + 1
            most = max(1, min(SHARES, ROOM // (len(weight) * taps)))
            lanes = lanes_for(taps)
            grid = (ceil_div(taps, lanes), len(weight), max(1, min(len(x), most)))
            parts = self.scratch("filter gradients", (most, len(weight) * taps), x.dtype)
            self.launcher.launch(
                "conv_filters", (x.dtype,), grid, (lanes, BLOCK // lanes), self._dense(x, "images"), dz, place,
                weight_grad, bias_grad, parts, self._tickets(grid[0] * grid[1]), *sizes,
            )  # fmt: skip
        if dx is not None and dx.size:
            blocks = ceil_div(dx.size // dx.shape[1], BLOCK), ceil_div(dx.shape[1], FILTERS)
            self.launcher.launch("conv_inputs", (x.dtype,), blocks, (BLOCK,), dz, place, weight, dx, *sizes)

    def conv2d_avgpool(
        self, x: In, weight: In, bias: In, activation: str, padding: int, size: int, stride: int, out: Out
    ) -> None:
        if not out.size:
            return
        filters = weight.reshape(len(weight), -1)
        grid = rows, columns = tuple(n + 2 * padding - weight.shape[2] + 1 for n in x.shape[2:])
        positions, width = rows * columns, min(len(weight), MAPS)
        # Always as many rows, with what lies there behind the last image: so its bits do not depend on the others.
        count = max(1, min(IMAGES, ROOM // (positions * max(width, filters.shape[1]))))
        x, patches = self._dense(x, "images"), self.scratch("columns", (count * positions, filters.shape[1]), x.dtype)
        for start in range(0, len(x), count):
            images, averages = x[start : start + count], out[start : start + count]
            sizes = _sizes(images, weight, padding, 1, grid)
            blocks = ceil_div(len(images) * positions * filters.shape[1], BLOCK)
            self.launcher.launch("im2col", (x.dtype,), (blocks,), (BLOCK,), images, patches, *sizes)
            for first in range(0, len(filters), width):
                part = filters[first : first + width]
                maps = self.scratch("maps", (len(patches), len(part)), x.dtype)
                self.products.matmul(patches, part, maps, transpose_b=True)
                blocks = ceil_div(averages[:, : len(part)].size, BLOCK)
                shapes = (len(images), rows, columns, len(part), len(filters), first, size, stride, *out.shape[2:])
                self.launcher.launch(
                    "average_maps", (x.dtype,), (blocks,), (BLOCK,), maps, bias, CODES[activation], averages,
                    *map(np.int32, shapes),
                )  # fmt: skip

    def maxpool2d(self, x: In, size: int, out: Out, place: Out) -> None:
        x = self._dense(x, "images")
        self._pool("maxpool", (x, out, place), x, out, out.shape[2] * out.shape[3], size)

    def maxpool2d_backward(self, dy: In, place: In, size: int, dx: Out) -> None:
        self._pool("maxpool_backward", (dy, place, dx), dx, dy, dx.shape[2] * dx.shape[3], size)

    def avgpool2d(self, x: In, size: int, stride: int, out: Out) -> None:
        x = self._dense(x, "images")
        self._pool("avgpool", (x, out), x, out, out.shape[2] * out.shape[3], size, stride)

    def avgpool2d_backward(self, dy: In, size: int, stride: int, dx: Out) -> None:
        self._pool("avgpool_backward", (dy, dx), dx, dy, dx.shape[2] * dx.shape[3], size, stride)

    def _pool(self, name: str, arrays: tuple[Array, ...], whole: Array, pooled: Array, items: int, *sizes: int) -> None:
        planes = whole.shape[0] * whole.shape[1]
        if planes == 0 or items == 0:
            return
        dimensions = map(np.int32, (*whole.shape[2:], *pooled.shape[2:], *sizes))
        self.launcher.by_row(name, whole.dtype, planes, items, *arrays, np.int64(planes), *dimensions)

    # -- element-wise ---------------------------------------------------------------------------------------------

    def activate(self, activation: str, z: In, out: Out) -> None:
        if z.size and not (activation == "identity" and z is out):
            self.launcher.flat("activate", out, CODES[activation], self._dense(z, "z"), out, np.int64(out.size))

    def activation_backward(self, activation: str, y: In, dy: In, dz: Out, bias_grad: Out) -> None:
        y, dy = self._dense(y, "outputs"), self._dense(dy, "slopes")
        if bias_grad is not None:
            self._chain_and_sum(activation, y, dy, dz, bias_grad)
        elif dz.size and not (activation == "identity" and dz is dy):
            self.launcher.flat(
                "activation_backward", dy, CODES[activation], y, dy, dz, np.int64(dz.size), dtypes=(y.dtype, dz.dtype)
            )

    def gelu(self, x: In, by_tanh: bool, out: Out) -> None:
        if out.size:
            self.launcher.flat("gelu", out, self._dense(x, "x"), out, np.int32(by_tanh), np.int64(out.size))

    def gelu_backward(self, x: In, dy: In, by_tanh: bool, dx: Out) -> None:
        if dx.size:
            given = self._dense(x, "x"), self._dense(dy, "slopes")
            self.launcher.flat("gelu_backward", dx, *given, dx, np.int32(by_tanh), np.int64(dx.size))

    def dropout(self, x: In, rate: float, draw: In, out: Out) -> None:
        if out.size:
            scale, threshold = out.dtype.type(1 / (1 - rate)), np.uint32(dropout_threshold(rate))
            self.launcher.flat("dropout", out, self._dense(x, "x"), out, draw, threshold, scale, np.int64(out.size))

    def redraw(self, draws: Out) -> None:
        self.launcher.launch("redraw", (), (1,), (32,), draws, np.int32(len(draws)))

    def _chain_and_sum(self, activation: str, y: Array, dy: Array, dz: Array, bias_grad: Array) -> None:
        """f' and the sums of the columns in one launch."""
        rows, columns = dz.shape
        if columns == 0:
            return
        pack = 16 // dy.itemsize
        wide = dz.size >= WIDE_FROM and columns % pack == 0
        items = columns // pack if wide else columns
        grid, block = _tiles(rows, items)
        parts = self.scratch("sums of shares", (MOST_SHARES, columns), dy.dtype)
        self.launcher.launch(
            f"chain_and_sum{'_wide' if wide else ''}", (y.dtype, dz.dtype), grid, block,
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
        if labels_out is not None and labels_out.ndim == 2:  # targets: a launch of their own
            self.gather(labels, order, cursor, 1, labels_out)
            labels = labels_out = None
        self._gather(data, labels, order, cursor, scale, out, labels_out, clocks, len(out))

    def _gather(
        self, data: Array, labels: Array, order: Array, cursor: Array, scale: float, out: Array, labels_out: Array,
        clocks: Array, by: int,
    ) -> None:  # fmt: skip
        """One launch, and for the rare dtypes CuPy's own functions in front of it."""
        rows, samples, width = len(out), len(data), math.prod(out.shape[1:])
        if data.size != samples * width:
            raise ShapeError(f"gather of rows of {data.size // max(1, samples)} numbers into rows of {width}")
        given, wanted = SOURCES.get(data.dtype.name), SUFFIXES.get(out.dtype.name)
        if given is None or wanted is None or (wanted == "i64" and (given != "i64" or scale != 1)):
            self._gather_any(data, order, cursor, scale, out)
            if by == 0 and clocks is None:
                return
            data = out = self.scratch("rows of nothing", 1, "float32")
            given, width = "f32", 0
        count = 0 if clocks is None else clocks.size // N_SCALARS
        self.launcher.by_row(
            f"gather_{given}", out.dtype, rows, ceil_div(width, 4),
            self._dense(data, "data set"), None if labels_out is None else self._dense(labels, "labels", "int64"),
            order, cursor, _sums(out.dtype).type(scale), out, labels_out, clocks if count else None, self._tickets(1),
            *map(np.int64, (rows, width, samples, len(order), by)), np.int32(count), more=int(count > 0),
        )  # fmt: skip

    def _gather_any(self, dataset: Array, order: Array, cursor: Array, scale: float, out: Array) -> None:
        """The rare dtypes by CuPy's own functions, with temporaries."""
        if out.dtype == BFLOAT16:
            found = self.scratch_up_to("samples", out.shape, "float32")
            self._gather_any(dataset, order, cursor, scale, found)
            self.to_bfloat16(found, out)
            return
        clip = self.cp.clip
        places = cursor[0] + self.cp.arange(len(out))  # computed on the device: no read back
        samples = clip(order[clip(places, 0, len(order) - 1)], 0, len(dataset) - 1)
        rows = dataset[samples].astype(out.dtype)
        self.cp.multiply(rows, out.dtype.type(scale), out=out)

    def tick(self, scalars: Out) -> None:
        self.launcher.launch("tick", (), (1,), (32,), scalars, np.int32(scalars.size // N_SCALARS))

    # -- batch normalisation: a launch each ---------------------------------------------------------------------------

    def batch_statistics(
        self, x: In, of_batch: bool, momentum: float, epsilon: float, running_mean: Out, running_var: Out,
        statistics: Out,
    ) -> None:  # fmt: skip
        self._by_channel(
            "batch_statistics", self._dense(x, "inputs"), 1, np.int32(of_batch), np.float64(momentum),
            np.float64(epsilon), running_mean, running_var, statistics,
        )  # fmt: skip

    def normalise(self, x: In, statistics: In, weight: In, bias: In, out: Out) -> None:
        self._by_channel("normalise", self._dense(x, "inputs"), MOST_SHARES, statistics, weight, bias, out)

    def normalise_backward(
        self, x: In, statistics: In, weight: In, dy: In, of_batch: bool, weight_grad: Out, bias_grad: Out, dx: Out
    ) -> None:
        self._by_channel(
            "normalise_backward", self._dense(x, "inputs"), 1, statistics, weight, self._dense(dy, "slopes"),
            np.int32(of_batch), weight_grad, bias_grad, dx,
        )  # fmt: skip

    def _by_channel(self, name: str, x: Array, most: int, *args: Any) -> None:
        """Launch a kernel of batchnorm.cuh, up to `most` blocks a channel."""
        (images, channels), area = x.shape[:2], math.prod(x.shape[2:])
        if not x.size:
            return
        lanes = lanes_for(channels, WARP) if area == 1 else 1
        height = BLOCK // lanes
        shares = max(1, min(ceil_div(images * area, height * ROWS_OF_THREAD), most))
        grid, block = (ceil_div(channels, lanes), shares), (lanes, height)
        self.launcher.launch(name, (x.dtype,), grid, block, x, *args, *map(np.int32, (images, channels, area)))

    # -- losses: one launch each, with the product of a last layer of few outputs in front of them -----------------

    def softmax_cross_entropy(self, z: In, labels: In, scale: float, dz: Out, totals: Out) -> None:
        self._loss("softmax_cross_entropy", (), (z,), labels, scale, dz, totals)

    def binary_cross_entropy(self, z: In, labels: In, scale: float, dz: Out, totals: Out) -> None:
        self._loss("binary_cross_entropy", (), (z,), labels, scale, dz, totals)

    def squared_error(self, activation: str, z: In, labels: In, scale: float, dz: Out, totals: Out) -> None:
        name = "squared_error_of_values" if labels.ndim == 2 else "squared_error"
        self._loss(name, (activation,), (z,), labels, scale, dz, totals)

    def affine_loss(
        self, x: In, weight: In, bias: In, z: Out, loss: str, options: tuple[str, ...], labels: In, scale: float,
        dz: Out, totals: Out, bias_grad: Out,
    ) -> None:  # fmt: skip
        outputs = len(weight)
        if outputs > WARP or not z.size or labels.ndim == 2:
            super().affine_loss(x, weight, bias, z, loss, options, labels, scale, dz, totals, bias_grad)
        elif outputs > NARROW:
            self.affine(x, weight, bias, "identity", z)
            self._loss(loss, options, (z,), labels, scale, dz, totals, bias_grad)
        else:
            x, weight = self._dense(x, "inputs"), self._dense(weight, "right")
            self._loss(loss, options, (x, weight, bias, np.int32(x.shape[1]), z), labels, scale, dz, totals, bias_grad)

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
            f"{'affine_' if product else ''}{name}", (given[0].dtype,), (blocks,), (BLOCK,),
            *(CODES[option] for option in options), *given,
            self._dense(labels, "labels", "int64" if labels.ndim == 1 else dz.dtype),
            dz.dtype.type(scale), dz, totals, bias_grad, parts, self._tickets(1),
            np.int32(n), np.int32(k), *(() if product else (np.int32(lanes),)),
        )  # fmt: skip

    # -- optimisers: one launch over the flat arrays ----------------------------------------------------------------

    def sgd(self, params: Out, grads: In, scalars: In, decayed: int, rounded: Out = None) -> None:
        self._update("sgd", (params, grads), rounded, scalars, decayed)

    def momentum(self, params: Out, grads: In, velocity: Out, scalars: In, decayed: int, rounded: Out = None) -> None:
        self._update("momentum", (params, grads, velocity), rounded, scalars, decayed)

    def adam(
        self, params: Out, grads: In, first: Out, second: Out, scalars: In, decayed: int, decoupled: bool = False,
        rounded: Out = None,
    ) -> None:  # fmt: skip
        self._update("adamw" if decoupled else "adam", (params, grads, first, second), rounded, scalars, decayed)

    def _update(self, name: str, arrays: tuple[Array, ...], rounded: Array, scalars: Array, decayed: int) -> None:
        size = len(arrays[0])
        if size:
            self.launcher.flat(name, arrays[0], *arrays, rounded, scalars, np.int64(size), np.int64(decayed))


def _sums(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """What is added up where the operands, or results, are of that dtype."""
    return FLOAT32 if dtype == BFLOAT16 else dtype


def _tiles(rows: int, items: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Grid and block of a pass down the columns; how the rows are shared out follows from the shape alone."""
    lanes = lanes_for(items, WARP)
    height = BLOCK // lanes
    shares = max(1, min(ceil_div(rows, height * ROWS_OF_THREAD), MOST_SHARES))
    return (ceil_div(items, lanes), shares), (lanes, height)


def _sizes(x: Array, weight: Array, padding: int, pool: int, grid: tuple[int, int]) -> tuple[np.int32, ...]:
    """`struct Sizes` of conv.cuh."""
    numbers = (*x.shape, len(weight), weight.shape[2], padding, pool, *grid)
    return tuple(np.int32(number) for number in numbers)
