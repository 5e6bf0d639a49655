"""Matrix products that a CUDA graph can capture: cublasLt, with the stream and the workspace given to every call.

CuPy refuses its own cuBLAS handle while a stream captures. cublasLt keeps no stream and no memory: it enqueues on the
stream that it is given, in memory that it is given. Its matrices are column-major, and a row-major array is the
transpose of a column-major one in the same memory; so out = op(a) op(b) is asked for as outᵀ = op(b)ᵀ op(a)ᵀ, with the
operands' places swapped. The bias of our columns is then that of its rows, the side where its epilogue adds one.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gpunet.backend import cublaslt_api as api
from gpunet.backend.base import Array, In, Out
from gpunet.backend.cublaslt_choice import (
    Choices,
    Clock,
    Milliseconds,
    cache_folder,
    device_clock,
    fastest,
    tuning_asked,
)  # fmt: skip
from gpunet.backend.cublaslt_plan import CANDIDATES, Plan, Planner
from gpunet.errors import CaptureError, DeviceError, MemoryFullError, RunError, ShapeError

WORKSPACE = 32 << 20  # bytes: what NVIDIA advises for Hopper
ALIGNMENT = 256  # bytes: no algorithm asks for more
WORTH_TIMING = 1 << 14  # multiplications: what has fewer takes as long as its launch, whatever the algorithm
BIAS_ALIGNMENT = 16  # bytes: some epilogues load four floats at once, and no preference keeps the heuristic from them


def tf32_asked() -> bool:
    """Whether GPUNET_TF32=1 lets products of float32 run with TF32's 10 bits of mantissa instead of 23."""
    return os.environ.get("GPUNET_TF32", "").strip().lower() in ("1", "true", "yes", "on")


def products(cp: Any) -> CublasLt | CupyProducts:
    """What multiplies on the current device: cublasLt where a product through it comes out right, else CuPy's own."""
    try:
        found = CublasLt(cp)
        found.check()
    except (DeviceError, RunError, OSError, AttributeError) as error:
        if isinstance(error, CaptureError):
            raise
        return CupyProducts(cp, str(error).splitlines()[0])
    return found


class CublasLt:
    """Products on the current stream of the current device; DeviceError where the library is missing.

    cp: the module cupy. workspace_bytes: device memory that it keeps for each branch. tf32: products of float32 in
    TF32's precision; None asks the variable GPUNET_TF32. clock: makes what times algorithms, out of a workspace; where
    it is None the heuristic's first is taken, as with GPUNET_TUNING=off. folder: where choices are kept, None for the
    user's cache. One thread: the calls share descriptors, and those of one branch the workspace.
    """

    reason: str | None = None  # why it is not used

    def __init__(
        self,
        cp: Any,
        workspace_bytes: int = WORKSPACE,
        tf32: bool | None = None,
        clock: Callable[[Array], Clock] | None = None,
        folder: Path | None = None,
    ) -> None:
        self.cp, self.tf32 = cp, tf32_asked() if tf32 is None else tf32
        self._clock = (clock or device_clock(cp)) if tuning_asked() else None
        self._choices = Choices(folder or cache_folder()) if self._clock else None
        # A stand-in for cupy brings its own library.
        self.library = getattr(cp, "cublaslt", None) or api.load(cp.cuda.runtime.runtimeGetVersion() // 1000)
        self.version = api.version(self.library)
        self._handle = ctypes.c_void_p()
        api.check(self.library.cublasLtCreate(ctypes.byref(self._handle)), "cublasLtCreate")
        self._bytes = workspace_bytes
        self._workspaces = {0: cp.empty(workspace_bytes, dtype="uint8")}
        self._planner = Planner(self.library, self._handle, workspace_bytes, self.tf32)
        self._plans: dict[Any, Plan] = {}
        self._relu_keeps_nan: dict[str, bool] = {}

    def matmul(
        self,
        a: In,
        b: In,
        out: Out,
        transpose_a: bool = False,
        transpose_b: bool = False,
        bias: In = None,
        relu: bool = False,
        branch: int = 0,
    ) -> None:
        """out = f(op(a) op(b) + bias): all (rows, columns), C-contiguous, of one dtype, float32 or float64.

        bias (columns,) or None, added to every row; f is max(·, 0), which keeps NaN, where relu, else nothing.
        branch: products that the device may run at the same time, as on two streams of a graph, have one each; a branch
        has a workspace of its own from its first product on. Raises ShapeError for arrays that do not fit, CaptureError
        for the first product of its kind or branch in a capture, MemoryFullError where no workspace fits.
        """
        pa, pb, pout = a.data.ptr, b.data.ptr, out.data.ptr
        pbias = 0 if bias is None else bias.data.ptr
        places = tuple(min(ALIGNMENT, p & -p) for p in (pa, pb, pout, pbias))
        key = (_facts(a), _facts(b), _facts(out), _facts(bias), transpose_a, transpose_b, relu, places)
        workspace = self._workspaces.get(branch)
        if workspace is None:
            workspace = self._branch(branch)
        plan = self._plans.get(key)
        if plan is None:
            _check(a, b, out, transpose_a, transpose_b, bias)
            if not out.size or not a.size:  # cublasLt takes no empty matrices; an empty sum is 0
                out.fill(0)
                self._finish(out, bias, relu)
                return
            plan = self._plan(a, b, out, (transpose_a, transpose_b), places[:3], pbias, relu)
            self._tune(plan, a, b, out, (transpose_a, transpose_b), places, workspace)
            self._plans[key] = plan
        # One plan serves all branches: cublasLt reads descriptor and algorithm while it enqueues, and later never.
        if plan.bias and plan.bias_place != pbias:
            self._planner.place_bias(plan, pbias)
        self._run(plan, pa, pb, pout, workspace.data.ptr)
        self._finish(out, None if plan.bias else bias, relu and not plan.relu)

    def _branch(self, branch: int) -> Array:
        """A new branch's workspace."""
        if self.cp.cuda.get_current_stream().is_capturing():
            raise CaptureError(f"the first product of branch {branch} inside a recorded step: run the step once before")
        try:
            made = self._workspaces[branch] = self.cp.empty(self._bytes, dtype="uint8")
        except MemoryError:
            raise MemoryFullError(
                f"no room for a workspace of {self._bytes >> 20} MiB, the matrix products' for branch {branch}: take a "
                "smaller batch or less data at a time"
            ) from None
        return made

    def _run(self, plan: Plan, pa: int, pb: int, pout: int, workspace: int) -> None:
        of_b, of_a, of_out = plan.layouts
        status = self.library.cublasLtMatmul(
            self._handle, plan.desc, ctypes.byref(plan.alpha), pb, of_b, pa, of_a, ctypes.byref(plan.beta),
            pout, of_out, pout, of_out, ctypes.byref(plan.algo), workspace, plan.workspace,
            self.cp.cuda.get_current_stream().ptr,
        )  # fmt: skip
        api.check(status, "cublasLtMatmul")

    def _finish(self, out: Out, bias: In, relu: bool) -> None:
        """What no epilogue did; CuPy's element-wise kernels write into `out` and can be captured."""
        if bias is not None:
            self.cp.add(out, bias, out=out)
        if relu:
            self.cp.maximum(out, 0, out=out)

    def _plan(
        self, a: Array, b: Array, out: Array, transposed: tuple[bool, bool], places: Any, bias: int, relu: bool
    ) -> Plan:
        if self.cp.cuda.get_current_stream().is_capturing():
            raise CaptureError(
                f"the first product of shapes {a.shape} and {b.shape} inside a recorded step: run the step once before"
            )
        fused = bias if bias % BIAS_ALIGNMENT == 0 else 0
        fuse_relu = relu and fused == bias and self.keeps_nan(a.dtype)  # the bias comes before the relu
        shapes = (a.shape, b.shape, out.shape)
        for epilogue in dict.fromkeys([(fused, fuse_relu), (fused, False), (0, False)]):
            plan = self._planner.plan(a.dtype, shapes, transposed, places, *epilogue)
            if plan is not None:
                return plan
        raise RunError(
            f"cublasLt {self.version} has no {a.dtype.name} product for shapes {a.shape} and {b.shape} on this GPU"
        )

    def _tune(
        self, plan: Plan, a: Array, b: Array, out: Array, transposed: tuple[bool, bool], places: Any, workspace: Array
    ) -> None:
        """Let the plan take the algorithm that is fastest here; candidates write into `out`."""
        k = a.shape[0 if transposed[0] else 1]
        if self._clock is None or self._choices is None or out.size * k < WORTH_TIMING or len(plan.candidates) == 1:
            return
        numbers, clock, runtime = list(plan.candidates), self._clock, self.cp.cuda.runtime
        properties = runtime.getDeviceProperties(runtime.getDevice())
        name = properties["name"]
        kind = {
            "device": name.decode(errors="replace") if isinstance(name, bytes) else str(name),
            "multiprocessors": int(properties["multiProcessorCount"]),
            "driver": int(runtime.driverGetVersion()),
            "cublaslt": self.version,
            "dtype": a.dtype.name,
            "tf32": self.tf32 and a.dtype.itemsize == 4,
            "shapes": [list(each.shape) for each in (a, b, out)],
            "transposed": list(transposed),
            "alignments": [*places[:3], places[3] if plan.bias else 0],
            "epilogue": plan.epilogue,
            "workspace": self._bytes,
            "asked_for": CANDIDATES,
        }

        def run(number: int) -> None:
            plan.take(number)
            self._run(plan, a.data.ptr, b.data.ptr, out.data.ptr, workspace.data.ptr)

        def search() -> tuple[int, Milliseconds]:
            place, times = fastest([partial(run, number) for number in numbers], clock(workspace))
            told: Milliseconds = [None] * (numbers[-1] + 1)  # by number
            for number, time in zip(numbers, times, strict=True):
                told[number] = time
            return numbers[place], told

        plan.take(self._choices.pick(kind, numbers, search))

    def keeps_nan(self, dtype: Any) -> bool:
        """Whether its relu leaves NaN as it is, tried once for each dtype: a diverged net must not look healthy."""
        found = self._relu_keeps_nan.get(dtype.char)
        if found is None:
            a, out = self.cp.asarray(np.full((16, 16), np.nan, dtype)), self.cp.zeros((16, 16), dtype=dtype)
            plan = self._planner.plan(dtype, ((16, 16),) * 3, (False, False), (ALIGNMENT,) * 3, 0, True)
            if plan is not None:
                self._run(plan, a.data.ptr, a.data.ptr, out.data.ptr, self._workspaces[0].data.ptr)
            found = self._relu_keeps_nan[dtype.char] = plan is not None and bool(np.isnan(self.cp.asnumpy(out)).all())
        return found

    def check(self) -> None:
        """Multiply once, with a bias, and compare; RunError when the result is wrong."""
        host = np.arange(18, dtype="float32")  # small whole numbers: exact in TF32, too
        a, b, bias = host[:6].reshape(2, 3), host[6:].reshape(4, 3), host[:4]
        on_device, out = [self.cp.asarray(each) for each in (a, b, bias)], self.cp.empty((2, 4), dtype="float32")
        self.matmul(on_device[0], on_device[1], out, transpose_b=True, bias=on_device[2])
        if not np.array_equal(self.cp.asnumpy(out), a @ b.T + bias):
            raise RunError(f"cublasLt {self.version} computes wrong results: check the driver and the CuPy package")


class CupyProducts:
    """CublasLt's face on cupy.matmul, which works everywhere but cannot be captured; `reason` says why it is here."""

    version, tf32 = None, False

    def __init__(self, cp: Any, reason: str) -> None:
        self.cp, self.reason = cp, reason

    def keeps_nan(self, dtype: Any) -> bool:
        """As CublasLt.keeps_nan: there is no relu inside its products."""
        return False

    def matmul(
        self,
        a: In,
        b: In,
        out: Out,
        transpose_a: bool = False,
        transpose_b: bool = False,
        bias: In = None,
        relu: bool = False,
        branch: int = 0,
    ) -> None:
        """As CublasLt.matmul; cuBLAS sees to its workspaces by itself."""
        self.cp.matmul(a.T if transpose_a else a, b.T if transpose_b else b, out=out)
        if bias is not None:
            self.cp.add(out, bias, out=out)
        if relu:
            self.cp.maximum(out, 0, out=out)


def _facts(array: Array) -> Any:
    return None if array is None else (array.shape, array.dtype.char, array.flags.c_contiguous)


def _check(a: Array, b: Array, out: Array, transpose_a: bool, transpose_b: bool, bias: Array) -> None:
    """Raise ShapeError for operands that cublasLt would misread or refuse in words of its own."""
    operands = [each for each in (a, b, out, bias) if each is not None]
    if a.dtype.name not in ("float32", "float64") or any(each.dtype != a.dtype for each in operands):
        names = ", ".join(each.dtype.name for each in operands)
        raise ShapeError(f"a matrix product takes float32 or float64, one for all operands, got {names}")
    if not all(each.flags.c_contiguous for each in operands):
        raise ShapeError("a matrix product takes C-contiguous arrays, got a view with other strides: copy it first")
    if not a.ndim == b.ndim == out.ndim == 2:
        raise ShapeError(f"a matrix product takes matrices, got shapes {a.shape}, {b.shape} and {out.shape}")
    m, k = a.shape[::-1] if transpose_a else a.shape
    k_of_b, n = b.shape[::-1] if transpose_b else b.shape
    if k != k_of_b or out.shape != (m, n) or (bias is not None and bias.shape != (n,)):
        added = "" if bias is None else f" and bias {bias.shape}"
        raise ShapeError(
            f"a product of ({m}, {k}) and ({k_of_b}, {n}) does not give {out.shape}{added}: expected equal inner "
            f"sizes, out ({m}, {n})" + ("" if bias is None else f" and bias ({n},)")
        )
