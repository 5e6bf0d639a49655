"""Matrix products that a CUDA graph can capture: cublasLt, with the stream and the workspace given to every call.

CuPy refuses its own cuBLAS handle while a stream captures. cublasLt keeps no stream and no memory: it enqueues on the
stream that it is given, in memory that it is given. Its matrices are column-major, and a row-major array is the
transpose of a column-major one in the same memory; so out = op(a) op(b) is asked for as outᵀ = op(b)ᵀ op(a)ᵀ, with the
operands' places swapped. The bias of our columns is then that of its rows, the side where its epilogue adds one.

Numbers and layouts are those of cublasLt.h and library_types.h of CUDA 12 and 13, where they are the same. The library
is reached through ctypes, and found by cuda.pathfinder, which comes with CuPy 14 and is imported inside the function:
this module loads anywhere.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpunet.backend import cublaslt_choice as choice
from gpunet.backend.base import BFLOAT16, NAN_BITS, Array, In, Out
from gpunet.errors import CaptureError, DeviceError, MemoryFullError, RunError, ShapeError, first_line
from gpunet.extras import install

# -- the library's interface ------------------------------------------------------------------------------------------

R_32F, R_64F, R_16BF = 0, 1, 14  # cudaDataType
COMPUTE_32F, COMPUTE_64F, COMPUTE_32F_FAST_TF32 = 68, 70, 77  # cublasComputeType_t
OP_N, OP_T = 0, 1  # cublasOperation_t
EPILOGUE_DEFAULT, EPILOGUE_RELU, EPILOGUE_BIAS = 1, 2, 4  # cublasLtEpilogue_t; RELU | BIAS adds before max(x, 0)
DESC_TRANSA, DESC_TRANSB, DESC_EPILOGUE, DESC_BIAS_POINTER = 3, 4, 7, 8  # cublasLtMatmulDescAttributes_t
PREF_MAX_WORKSPACE_BYTES, PREF_REDUCTION_SCHEME_MASK = 1, 3  # cublasLtMatmulPreferenceAttributes_t
PREF_ALIGNMENTS = (5, 6, 7, 8)  # of A, B, C and D, in bytes
REDUCTION_COMPUTE_TYPE = 2  # cublasLtReductionScheme_t
SUCCESS, INVALID_VALUE, ARCH_MISMATCH, NOT_SUPPORTED = 0, 7, 8, 15  # cublasStatus_t

STATUS = {
    1: "CUBLAS_STATUS_NOT_INITIALIZED", 3: "CUBLAS_STATUS_ALLOC_FAILED", 7: "CUBLAS_STATUS_INVALID_VALUE",
    8: "CUBLAS_STATUS_ARCH_MISMATCH", 11: "CUBLAS_STATUS_MAPPING_ERROR", 13: "CUBLAS_STATUS_EXECUTION_FAILED",
    14: "CUBLAS_STATUS_INTERNAL_ERROR", 15: "CUBLAS_STATUS_NOT_SUPPORTED", 16: "CUBLAS_STATUS_LICENSE_ERROR",
}  # fmt: skip

_pointer, _size, _int = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
_out = ctypes.POINTER(ctypes.c_void_p)
SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cublasLtCreate": (_out,),
    "cublasLtMatmulDescCreate": (_out, _int, _int),
    "cublasLtMatmulDescSetAttribute": (_pointer, _int, _pointer, _size),
    "cublasLtMatmulDescGetAttribute": (_pointer, _int, _pointer, _size, ctypes.POINTER(_size)),
    "cublasLtMatmulDescDestroy": (_pointer,),
    "cublasLtMatrixLayoutCreate": (_out, _int, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_int64),
    "cublasLtMatrixLayoutDestroy": (_pointer,),
    "cublasLtMatmulPreferenceCreate": (_out,),
    "cublasLtMatmulPreferenceSetAttribute": (_pointer, _int, _pointer, _size),
    "cublasLtMatmulPreferenceDestroy": (_pointer,),
    "cublasLtMatmulAlgoGetHeuristic": (*(_pointer,) * 7, _int, _pointer, ctypes.POINTER(_int)),
    "cublasLtMatmul": (*(_pointer,) * 14, _size, _pointer),
}


class Algorithm(ctypes.Structure):
    """cublasLtMatmulAlgo_t: opaque, 64 bytes."""

    _fields_ = (("data", ctypes.c_uint64 * 8),)


class HeuristicResult(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t, 96 bytes."""

    _fields_ = (
        ("algo", Algorithm),
        ("workspace", ctypes.c_size_t),
        ("state", ctypes.c_int),
        ("waves", ctypes.c_float),
        ("reserved", ctypes.c_int * 4),
    )


def load(major: int = 13) -> Any:
    """The library, found as CuPy finds its own: loaded already, in NVIDIA's wheels, in conda, or by the system.

    major: CUDA's, tried first where only names are left to try. Raises DeviceError where there is none.
    """
    try:
        from cuda import pathfinder  # type: ignore[import-not-found, unused-ignore]

        return declare(ctypes.CDLL(pathfinder.load_nvidia_dynamic_lib("cublasLt").abs_path))
    except Exception as error:  # it has classes of its own for every way not to find something
        reason = first_line(error)
    for version in (major, *(each for each in (13, 12) if each != major)):
        name = f"cublasLt64_{version}.dll" if sys.platform == "win32" else f"libcublasLt.so.{version}"
        try:
            return declare(ctypes.CDLL(name))
        except OSError:
            continue
    raise DeviceError(
        f"cublasLt is not found ({reason}); install it with: {install(f'cuda{major}')}, which brings NVIDIA's libraries"
    )


def declare(library: Any) -> Any:
    """Give the functions their argument types: without them ctypes would pass 64-bit sizes as int."""
    for name, arguments in SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, ctypes.c_int
    library.cublasLtGetVersion.argtypes, library.cublasLtGetVersion.restype = (), ctypes.c_size_t
    return library


def version(library: Any) -> str:
    """As in "13.1.0"."""
    number = int(library.cublasLtGetVersion())
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


def call(library: Any, name: str, *arguments: Any) -> None:
    """Call that function; RunError, naming it and what it answered, unless that is success."""
    _require_success(getattr(library, name)(*arguments), name)


def _require_success(status: int, name: str) -> None:
    if status != SUCCESS:
        raise RunError(f"cublasLt: {name} failed with {STATUS.get(status, f'status {status}')}")


# -- one kind of product -----------------------------------------------------------------------------------------------

CANDIDATES = 16  # algorithms to ask for: the first should be the fastest, but may want more workspace than there is
# What the heuristic answers where it has no algorithm: for a plain product the first alone, since the others then say
# that something in the question is wrong; for an epilogue any of them, as versions of the library differ in that.
NONE_PLAIN = (NOT_SUPPORTED,)
NONE_WITH_EPILOGUE = (NOT_SUPPORTED, INVALID_VALUE, ARCH_MISMATCH)


class Product(NamedTuple):
    """A kind of product, row-major out = op(a) op(b)."""

    dtype: np.dtype[Any]  # of a and b; out's is the same, but for bfloat16
    shapes: tuple[tuple[int, int], ...]  # of a, b and out
    transposed: tuple[bool, bool]  # whether op transposes a, and b
    alignments: tuple[int, ...]  # the powers of two that divide the addresses of a, b, out and the bias
    rounded: bool = False  # whether out is bfloat16, too
    tf32: bool = False

    @property
    def name(self) -> str:
        """Its dtypes in words."""
        if self.dtype != BFLOAT16:
            return self.dtype.name
        return "bfloat16" if self.rounded else "bfloat16 to float32"


class Plan:
    """How a kind of product is computed: what to pass to cublasLtMatmul, and which part of the epilogue it does itself.

    candidates: the algorithms that the workspace suffices for, by their places in the heuristic's order; the first of
    them is taken unless `take` takes another.
    """

    __slots__ = ("algo", "alpha", "beta", "bias", "bias_place", "candidates", "desc", "layouts", "relu", "workspace")

    def __init__(self, dtype: np.dtype[Any], bias: bool, relu: bool) -> None:
        number = ctypes.c_double if dtype.itemsize == 8 else ctypes.c_float
        self.alpha, self.beta = number(1), number(0)
        self.bias, self.relu, self.bias_place = bias, relu, 0
        self.desc = ctypes.c_void_p()
        self.layouts: tuple[ctypes.c_void_p, ...] = ()
        self.algo, self.workspace = Algorithm(), 0
        self.candidates: dict[int, Algorithm] = {}

    def take(self, number: int) -> None:
        """The candidate of that number from now on."""
        self.algo = self.candidates[number]

    @property
    def epilogue(self) -> int:
        """As cublasLt counts them."""
        return (EPILOGUE_BIAS if self.bias else 0) | (EPILOGUE_RELU if self.relu else 0) or EPILOGUE_DEFAULT


class Planner:
    """Makes plans; `library` and `handle` as from cublasLtCreate, `workspace` in bytes."""

    def __init__(self, library: Any, handle: ctypes.c_void_p, workspace: int) -> None:
        self.library, self.handle, self.workspace = library, handle, workspace

    def plan(self, product: Product, bias: int, relu: bool) -> Plan | None:
        """A plan for f(product + bias), or None where cublasLt has no algorithm; bias: its address, 0 for none."""
        plan = Plan(product.dtype, bias != 0, relu)
        self._describe(plan, product)
        if bias:  # before the choice of an algorithm, which looks at its alignment
            self.place_bias(plan, bias)
        plan.candidates = self._candidates(plan, product)
        if not plan.candidates:
            self._destroy(plan)
            return None
        plan.workspace = self.workspace
        plan.take(min(plan.candidates))
        return plan

    def place_bias(self, plan: Plan, place: int) -> None:
        """Where the bias lies: a part of the descriptor, not an argument of the product."""
        plan.bias_place = place
        self._set(plan, DESC_BIAS_POINTER, ctypes.c_void_p(place))

    def _describe(self, plan: Plan, product: Product) -> None:
        double = product.dtype.itemsize == 8
        number = R_64F if double else R_32F  # of the sums, and of what they are scaled by
        kind = R_16BF if product.dtype == BFLOAT16 else number
        compute = COMPUTE_64F if double else COMPUTE_32F_FAST_TF32 if product.tf32 else COMPUTE_32F
        call(self.library, "cublasLtMatmulDescCreate", ctypes.byref(plan.desc), compute, number)
        transpose_a, transpose_b = product.transposed
        # Row-major a, b and out are aᵀ, bᵀ and outᵀ in column-major order: outᵀ = op(b)ᵀ op(a)ᵀ, each with its own op.
        self._set(plan, DESC_TRANSA, ctypes.c_int32(OP_T if transpose_b else OP_N))
        self._set(plan, DESC_TRANSB, ctypes.c_int32(OP_T if transpose_a else OP_N))
        self._set(plan, DESC_EPILOGUE, ctypes.c_uint32(plan.epilogue))
        kinds = kind, kind, R_16BF if product.rounded else number
        of_a, of_b, of_out = (self._layout(each, *shape) for each, shape in zip(kinds, product.shapes, strict=True))
        plan.layouts = (of_b, of_a, of_out)

    def _layout(self, kind: int, rows: int, columns: int) -> ctypes.c_void_p:
        """The column-major matrix (columns, rows) that a row-major array (rows, columns) is."""
        made = ctypes.c_void_p()
        call(self.library, "cublasLtMatrixLayoutCreate", ctypes.byref(made), kind, columns, rows, columns)
        return made

    def _set(self, plan: Plan, attribute: int, value: Any) -> None:
        size = ctypes.sizeof(value)
        call(self.library, "cublasLtMatmulDescSetAttribute", plan.desc, attribute, ctypes.byref(value), size)

    def _destroy(self, plan: Plan) -> None:
        for layout in plan.layouts:
            self.library.cublasLtMatrixLayoutDestroy(layout)
        self.library.cublasLtMatmulDescDestroy(plan.desc)

    def _candidates(self, plan: Plan, product: Product) -> dict[int, Algorithm]:
        library, preference = self.library, ctypes.c_void_p()
        found, count = (HeuristicResult * CANDIDATES)(), ctypes.c_int()
        of_b, of_a, of_out = plan.layouts
        at_a, at_b, at_out, _ = product.alignments
        wishes: dict[int, Any] = {PREF_MAX_WORKSPACE_BYTES: ctypes.c_uint64(self.workspace)}
        wishes |= zip(PREF_ALIGNMENTS, map(ctypes.c_uint32, (at_b, at_a, at_out, at_out)), strict=True)
        if product.rounded:  # the parts of a sum that is split may not be rounded before they are added up
            wishes[PREF_REDUCTION_SCHEME_MASK] = ctypes.c_uint32(REDUCTION_COMPUTE_TYPE)
        call(library, "cublasLtMatmulPreferenceCreate", ctypes.byref(preference))
        try:
            for attribute, value in wishes.items():
                size = ctypes.sizeof(value)
                call(library, "cublasLtMatmulPreferenceSetAttribute", preference, attribute, ctypes.byref(value), size)
            status = library.cublasLtMatmulAlgoGetHeuristic(
                self.handle, plan.desc, of_b, of_a, of_out, of_out, preference, CANDIDATES, found, ctypes.byref(count)
            )
        finally:
            library.cublasLtMatmulPreferenceDestroy(preference)
        if status in (NONE_PLAIN if plan.epilogue == EPILOGUE_DEFAULT else NONE_WITH_EPILOGUE):
            return {}
        _require_success(status, "cublasLtMatmulAlgoGetHeuristic")
        return {
            number: Algorithm.from_buffer_copy(each.algo)
            for number, each in enumerate(found[: count.value])
            if each.state == SUCCESS and each.workspace <= self.workspace
        }


# -- products ----------------------------------------------------------------------------------------------------------

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
        found.check("float32")
    except (DeviceError, RunError, OSError, AttributeError) as error:
        if isinstance(error, CaptureError):
            raise
        return CupyProducts(cp, first_line(error))
    return found


class CublasLt:
    """Products on the current stream of the current device; DeviceError where the library is missing.

    cp: the module cupy. workspace_bytes: device memory that it keeps for each branch. tf32: all products of float32 in
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
        clock: Callable[[Array], choice.Clock] | None = None,
        folder: Path | None = None,
    ) -> None:
        self.cp, self.tf32 = cp, tf32_asked() if tf32 is None else tf32
        self._clock = (clock or choice.device_clock(cp)) if choice.tuning_asked() else None
        self._choices = choice.Choices(folder or choice.cache_folder()) if self._clock else None
        # A stand-in for cupy brings its own library.
        self.library = getattr(cp, "cublaslt", None) or load(cp.cuda.runtime.runtimeGetVersion() // 1000)
        self.version = version(self.library)
        self._handle = ctypes.c_void_p()
        call(self.library, "cublasLtCreate", ctypes.byref(self._handle))
        self._bytes = workspace_bytes
        self._workspaces = {0: cp.empty(workspace_bytes, dtype="uint8")}
        self._planner = Planner(self.library, self._handle, workspace_bytes)
        self._plans: dict[Any, Plan] = {}
        self._relu_keeps_nan: dict[tuple[str, bool], bool] = {}

    def matmul(
        self, a: In, b: In, out: Out, transpose_a: bool = False, transpose_b: bool = False, bias: In = None,
        relu: bool = False, branch: int = 0, tf32: bool = False,
    ) -> None:  # fmt: skip
        """out = f(op(a) op(b) + bias): all (rows, columns), C-contiguous, of one dtype, float32 or float64.

        a and b may be bfloat16 (uint16) in place of float32; and then out, too, without bias and relu.
        bias (columns,) or None, added to every row; f is max(·, 0), which keeps NaN, where relu, else nothing.
        tf32: this product of float32 in TF32's precision.
        branch: products that the device may run at the same time, as on two streams of a graph, have one each; a branch
        has a workspace of its own from its first product on. Raises ShapeError for arrays that do not fit, CaptureError
        for the first product of its kind or branch in a capture, MemoryFullError where no workspace fits.
        """
        pa, pb, pout = a.data.ptr, b.data.ptr, out.data.ptr
        pbias = 0 if bias is None else bias.data.ptr
        alignments = tuple(min(ALIGNMENT, p & -p) for p in (pa, pb, pout, pbias))
        tf32 = (tf32 or self.tf32) and a.dtype.char == "f"
        key = (_facts(a), _facts(b), _facts(out), _facts(bias), transpose_a, transpose_b, relu, alignments, tf32)
        workspace = self._workspaces.get(branch)
        if workspace is None:
            workspace = self._branch(branch)
        plan = self._plans.get(key)
        if plan is None:
            _check_operands(a, b, out, transpose_a, transpose_b, bias, relu)
            if not out.size or not a.size:  # cublasLt takes no empty matrices; an empty sum is 0
                out.fill(0)
                _finish(self.cp, out, bias, relu)
                return
            shapes, rounded = (a.shape, b.shape, out.shape), out.dtype == BFLOAT16
            product = Product(a.dtype, shapes, (transpose_a, transpose_b), alignments, rounded, tf32)
            plan = self._plan(product, pbias, relu)
            self._tune(plan, product, lambda: self._run(plan, pa, pb, pout, workspace.data.ptr), workspace)
            self._plans[key] = plan
        # One plan serves all branches: cublasLt reads descriptor and algorithm while it enqueues, and later never.
        if plan.bias and plan.bias_place != pbias:
            self._planner.place_bias(plan, pbias)
        self._run(plan, pa, pb, pout, workspace.data.ptr)
        _finish(self.cp, out, None if plan.bias else bias, relu and not plan.relu)

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
        call(
            self.library, "cublasLtMatmul",
            self._handle, plan.desc, ctypes.byref(plan.alpha), pb, of_b, pa, of_a, ctypes.byref(plan.beta),
            pout, of_out, pout, of_out, ctypes.byref(plan.algo), workspace, plan.workspace,
            self.cp.cuda.get_current_stream().ptr,
        )  # fmt: skip

    def _plan(self, product: Product, bias: int, relu: bool) -> Plan:
        shapes = f"shapes {product.shapes[0]} and {product.shapes[1]}"
        if self.cp.cuda.get_current_stream().is_capturing():
            raise CaptureError(f"the first product of {shapes} inside a recorded step: run the step once before")
        fused = bias if bias % BIAS_ALIGNMENT == 0 else 0
        fuse_relu = relu and fused == bias and self.keeps_nan(product.dtype, product.tf32)  # the relu comes last
        for epilogue in dict.fromkeys([(fused, fuse_relu), (fused, False), (0, False)]):
            plan = self._planner.plan(product, *epilogue)
            if plan is not None:
                return plan
        raise RunError(f"cublasLt {self.version} has no {product.name} product for {shapes} on this GPU")

    def _tune(self, plan: Plan, product: Product, run: choice.Run, workspace: Array) -> None:
        """Let the plan take the algorithm that is fastest here; run: the product by that plan, into its `out`."""
        of_a, _, of_out = product.shapes
        multiplications = math.prod(of_out) * of_a[0 if product.transposed[0] else 1]
        if self._clock is None or self._choices is None or multiplications < WORTH_TIMING or len(plan.candidates) == 1:
            return
        numbers, clock, runtime = list(plan.candidates), self._clock, self.cp.cuda.runtime
        properties = runtime.getDeviceProperties(runtime.getDevice())
        name = properties["name"]
        kind = {
            "device": name.decode(errors="replace") if isinstance(name, bytes) else str(name),
            "multiprocessors": int(properties["multiProcessorCount"]),
            "driver": int(runtime.driverGetVersion()),
            "cublaslt": self.version,
            "dtype": product.name,
            "tf32": product.tf32,
            "shapes": list(map(list, product.shapes)),
            "transposed": list(product.transposed),
            "alignments": [*product.alignments[:3], product.alignments[3] if plan.bias else 0],
            "epilogue": plan.epilogue,
            "workspace": self._bytes,
            "asked_for": CANDIDATES,
        }

        def run_with(number: int) -> None:
            plan.take(number)
            run()

        def search() -> tuple[int, choice.Milliseconds]:
            place, times = choice.fastest([partial(run_with, number) for number in numbers], clock(workspace))
            told: choice.Milliseconds = [None] * (numbers[-1] + 1)  # by number
            for number, time in zip(numbers, times, strict=True):
                told[number] = time
            return numbers[place], told

        plan.take(self._choices.pick(kind, numbers, search))

    def keeps_nan(self, dtype: Any, tf32: bool = False) -> bool:
        """Whether its relu leaves NaN as it is, tried once for each dtype: a diverged net must not look healthy.

        dtype: of the operands; for bfloat16 those products that are written as float32.
        """
        key = dtype.char, (tf32 or self.tf32) and dtype.char == "f"
        found = self._relu_keeps_nan.get(key)
        if found is None:
            missing = np.full((16, 16), NAN_BITS >> 16 if dtype == BFLOAT16 else np.nan, dtype)
            a, out = self.cp.asarray(missing), self.cp.zeros((16, 16), "float64" if dtype.char == "d" else "float32")
            square = Product(dtype, ((16, 16),) * 3, (False, False), (ALIGNMENT,) * 4, tf32=key[1])
            plan = self._planner.plan(square, 0, relu=True)
            if plan is not None:
                self._run(plan, a.data.ptr, a.data.ptr, out.data.ptr, self._workspaces[0].data.ptr)
            found = self._relu_keeps_nan[key] = plan is not None and bool(np.isnan(self.cp.asnumpy(out)).all())
        return found

    def check(self, dtype: str) -> None:
        """Multiply once, with a bias, and compare; RunError when the result is wrong.

        dtype: "float32" or "bfloat16", of the operands.
        """
        host = np.arange(18, dtype="float32")  # small whole numbers: exact in TF32 and bfloat16, too
        a, b, bias = host[:6].reshape(2, 3), host[6:].reshape(4, 3), host[:4]
        operands = [(each.view("uint32") >> 16).astype("uint16") if dtype == "bfloat16" else each for each in (a, b)]
        on_device, out = [self.cp.asarray(each) for each in (*operands, bias)], self.cp.empty((2, 4), dtype="float32")
        self.matmul(on_device[0], on_device[1], out, transpose_b=True, bias=on_device[2])
        if not np.array_equal(self.cp.asnumpy(out), a @ b.T + bias):
            raise RunError(
                f"cublasLt {self.version} computes wrong results in {dtype}: check the driver and the CuPy package"
            )


class CupyProducts:
    """CublasLt's face on cupy.matmul, which works everywhere but cannot be captured; `reason` says why it is here."""

    version, tf32 = None, False

    def __init__(self, cp: Any, reason: str) -> None:
        self.cp, self.reason = cp, reason

    def keeps_nan(self, dtype: Any, tf32: bool = False) -> bool:
        """As CublasLt.keeps_nan: there is no relu inside its products."""
        return False

    def matmul(
        self, a: In, b: In, out: Out, transpose_a: bool = False, transpose_b: bool = False, bias: In = None,
        relu: bool = False, branch: int = 0, tf32: bool = False,
    ) -> None:  # fmt: skip
        """As CublasLt.matmul; cuBLAS sees to its workspaces by itself, and bfloat16 and TF32 become float32."""
        cp, found = self.cp, out
        if a.dtype == BFLOAT16:
            a, b = ((each.astype("uint32") << 16).view("float32") for each in (a, b))
            found = out if out.dtype != BFLOAT16 else cp.empty(out.shape, "float32")
        cp.matmul(a.T if transpose_a else a, b.T if transpose_b else b, out=found)
        _finish(cp, found, bias, relu)
        if found is not out:  # to nearest, ties to even
            bits = found.view("uint32")
            out[...] = cp.where(cp.isnan(found), NAN_BITS, bits + (0x7FFF + (bits >> 16 & 1))) >> 16


def _finish(cp: Any, out: Out, bias: In, relu: bool) -> None:
    """What no epilogue did; CuPy's element-wise kernels write into `out` and can be captured."""
    if bias is not None:
        cp.add(out, bias, out=out)
    if relu:
        cp.maximum(out, 0, out=out)


def _facts(array: Array) -> Any:
    return None if array is None else (array.shape, array.dtype.char, array.flags.c_contiguous)


def _check_operands(
    a: Array, b: Array, out: Array, transpose_a: bool, transpose_b: bool, bias: Array, relu: bool
) -> None:
    """Raise ShapeError for operands that cublasLt would misread or refuse in words of its own."""
    operands = [each for each in (a, b, out, bias) if each is not None]
    names = tuple(each.dtype.name for each in operands)
    if names[:3] == ("uint16",) * 3 and (bias is not None or relu):
        raise ShapeError("a matrix product written as bfloat16 takes no bias and no relu: write it as float32 first")
    mixed = names[:2] == ("uint16",) * 2 and names[2:] in (("uint16",), ("float32",), ("float32",) * 2)
    if not mixed and (names[0] not in ("float32", "float64") or len(set(names)) > 1):
        raise ShapeError(
            "a matrix product takes float32 or float64, one for all operands, or two factors of bfloat16 (uint16), got "
            + ", ".join(names)
        )
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
