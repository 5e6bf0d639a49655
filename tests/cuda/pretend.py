"""A stand-in for the cupy module, good enough to run CupyBackend on a machine without a GPU.

    cp = pretend()                      # one device of 2 GiB; pretend(devices=2, total=…) otherwise
    backend = CupyBackend(module=cp)

Kernels are the real ones, compiled by g++ (tests/cuda/host_module.py); cublasLt is read at its C interface
(pretend_cublaslt.py). `cp.machine` holds the state: `launched` lists what ran, `check_guards()` finds writes outside.
"""

from __future__ import annotations

import functools
import importlib.machinery
import types
from typing import Any

import numpy as np

from tests.cuda.host_module import HostModule
from tests.cuda.pretend_array import DeviceArray, plain, refuse_host
from tests.cuda.pretend_cublaslt import PretendCublasLt
from tests.cuda.pretend_cuda import GLOBAL, RELAXED, THREAD_LOCAL, Event, Graph, Machine
from tests.cuda.pretend_memory import CUDARuntimeError, MemoryPool, OutOfMemoryError

LIBRARY = {"svd": "cuSOLVER", "eigh": "cuSOLVER", "qr": "cuSOLVER", "eigvalsh": "cuSOLVER", "cholesky": "cuSOLVER"}
PRODUCTS = ("matmul", "dot", "tensordot", "einsum", "vdot", "inner", "outer")


def _smoke(grid: Any, block: Any, args: Any, shared_mem: int = 0) -> None:
    args[0].reshape(-1)[: block[0]] = 2


SMALL = {"smoke": _smoke}  # kernels that are not worth a compiler


class RawKernel:
    """As cupy.RawKernel: one kernel of a source text, or a Python function that stands for it."""

    def __init__(self, code: str, name: str, options: tuple[str, ...] = (), backend: str = "nvrtc", **_: Any) -> None:
        self.code, self.name = code, name

    machine: Machine

    def __call__(self, grid: Any, block: Any, args: Any, *, shared_mem: int = 0) -> None:
        function = SMALL.get(self.name) or HostModule(code=self.code).get_function(self.name)
        launch(self.machine, self.name, function, grid, block, args, shared_mem)


def launch(machine: Machine, name: str, function: Any, grid: Any, block: Any, args: Any, shared_mem: int) -> None:
    """Issue one kernel launch: scalars by value, arrays by place; Python numbers are refused, their type is a guess."""
    grid, block = tuple(int(n) for n in grid), tuple(int(n) for n in block)
    if min(grid + block) < 1 or np.prod(block) > 1024 or max(grid[1:], default=1) > 65535:
        raise CUDARuntimeError(f"CUDA_ERROR_INVALID_VALUE: {name}: grid {grid}, block {block}")
    refuse_host(*args)
    for arg in args:
        if not isinstance(arg, (DeviceArray, np.generic)):
            raise TypeError(
                f"{name}: kernel argument of {type(arg)}: wrap it in the numpy scalar that the kernel takes"
            )
        if isinstance(arg, DeviceArray) and arg.memory.device_id != machine.current:
            raise CUDARuntimeError(f"cudaErrorIllegalAddress: {name}: array of GPU {arg.memory.device_id}")
    values = tuple(plain(arg) for arg in args)
    memories = [arg.memory for arg in args if isinstance(arg, DeviceArray)]

    def work() -> None:
        function(grid, block, values, shared_mem=shared_mem)
        for memory in memories:
            memory.check()

    machine.issue(name, work)


class RawModule:
    """As cupy.RawModule, kernels from tests/cuda/host_module.py."""

    machine: Machine

    def __init__(
        self, code: str | None = None, *, path: str | None = None, options: tuple[str, ...] = (),
        backend: str = "nvrtc", translate_cucomplex: bool = False, enable_cooperative_groups: bool = False,
        name_expressions: Any = None, jitify: Any = None,
    ) -> None:  # fmt: skip
        self.module = HostModule(code=code)

    def get_function(self, name: str) -> Any:
        function, machine = self.module.get_function(name), self.machine

        def kernel(grid: Any, block: Any, args: Any, *, shared_mem: int = 0) -> None:
            launch(machine, name, function, grid, block, args, shared_mem)

        return kernel

    def compile(self, log_stream: Any = None) -> None:
        """Everything is compiled when the module is made."""


def without_info(function: Any) -> Any:
    """A function of numpy.linalg as cupy.linalg has it: what cuSOLVER could not do is returned, and nothing raised.

    CuPy looks at cuSOLVER's and cuBLAS's info under cupyx.errstate(linalg="raise") alone. Of Cholesky's factor that is
    the part which there is; the others leave something, here NaN. Of a stack the other matrices are whole.
    """

    @functools.wraps(function)
    def run(a: Any, *args: Any, **options: Any) -> Any:
        try:
            return function(a, *args, **options)
        except np.linalg.LinAlgError:
            shapes = function(np.broadcast_to(np.eye(*a.shape[-2:]), a.shape), *args, **options)  # or raises that again
        if a.ndim > 2 and not args:
            return _each(lambda *parts: np.stack(parts), *(run(each, **options) for each in a))
        return potrf(a) if function is np.linalg.cholesky else _each(lambda of: np.full_like(of, np.nan), shapes)

    return run


def _each(work: Any, *found: Any) -> Any:
    """work(…) of results, one by one where they are tuples."""
    first = found[0]
    return type(first)(*map(work, *found)) if isinstance(first, tuple) else work(*found)


def potrf(a: Any) -> Any:
    """What LAPACK's dpotrf leaves of a below its diagonal, which is L up to a pivot that is not above 0."""
    lower = np.tril(a).astype(np.float64)
    for j in range(len(a)):
        lower[j:, j] -= lower[j:, :j] @ lower[j, :j]
        if not lower[j, j] > 0:
            break
        lower[j:, j] /= np.sqrt(lower[j, j])
    return lower


class Namespace(types.ModuleType):
    """NumPy's functions on device arrays, for whatever the stand-in does not define itself."""

    def __init__(self, machine: Machine, of: Any) -> None:
        super().__init__(f"pretend {of.__name__}")
        self.__dict__["_of"], self.__dict__["machine"] = of, machine

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._of, name)
        if isinstance(found, types.ModuleType):
            return Namespace(self.machine, found)
        if isinstance(found, type) or not callable(found):
            return found
        if isinstance(found, np.ufunc) and name not in PRODUCTS:
            return self._ufunc(found)

        if self._of is np.linalg:
            found = without_info(found)

        def function(*args: Any, **options: Any) -> Any:
            if name in LIBRARY or name in PRODUCTS:
                self.machine.refuse_library(LIBRARY.get(name, "cuBLAS"))
            out = options.get("out")
            if out is not None:
                refuse_host(*args, out)
                self.machine.refuse_others(args, options)
                operands, settings = plain(args), plain(options)
                self.machine.issue(name, lambda: found(*operands, **settings))
                return out
            return self.machine.call(found, args, options)

        return function

    def _ufunc(self, ufunc: Any) -> Any:
        def function(*args: Any, **options: Any) -> Any:
            if any(isinstance(each, DeviceArray) for each in (*args, options.get("out"))):
                return ufunc(*args, **options)
            refuse_host(*args)
            return self.machine.result(ufunc(*args, **options))

        function.reduce = ufunc.reduce
        return function


class PretendCupy(Namespace):
    """The module."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine, np)
        self.__spec__ = importlib.machinery.ModuleSpec("cupy", None)
        self.__version__, self.ndarray = "14.2.0 (pretend)", DeviceArray
        self.empty = machine.empty
        own = {"machine": machine}
        self.RawKernel, self.RawModule = type("RawKernel", (RawKernel,), own), type("RawModule", (RawModule,), own)
        self.cuda, self.cublaslt = _cuda(machine), PretendCublasLt(machine)

    def get_default_memory_pool(self) -> MemoryPool:
        return self.machine.pool

    def asarray(self, a: Any, dtype: Any = None, order: Any = None, *, copy: Any = None, blocking: bool = False) -> Any:
        if isinstance(a, DeviceArray):
            if a.memory.device_id != self.machine.current:
                return self.machine.result(plain(a).astype(dtype or a.dtype))
            return a if dtype is None or a.dtype == np.dtype(dtype) else a.astype(dtype)
        host = np.asarray(a, dtype=dtype)
        out = self.empty(host.shape, host.dtype)  # first the allocation, then the copy, as CuPy does
        self.machine.host_copy("asarray")
        plain(out)[...] = host
        return out

    array = asarray

    def ascontiguousarray(self, a: Any, dtype: Any = None) -> Any:
        a = self.asarray(a, dtype)
        return a if a.flags.c_contiguous else a.copy()

    def asnumpy(self, a: Any, stream: Any = None, order: str = "C", out: Any = None, *, blocking: bool = True) -> Any:
        return a.get(stream, order, out, blocking) if isinstance(a, DeviceArray) else np.asarray(a)

    def zeros(self, shape: Any, dtype: Any = float, order: str = "C") -> Any:
        return self.full(shape, 0, dtype)

    def ones(self, shape: Any, dtype: Any = float, order: str = "C") -> Any:
        return self.full(shape, 1, dtype)

    def full(self, shape: Any, fill_value: Any, dtype: Any = None, order: str = "C") -> Any:
        out = self.empty(shape, np.result_type(fill_value) if dtype is None else dtype)
        out.fill(fill_value)
        return out

    def empty_like(self, a: Any, dtype: Any = None) -> Any:
        return self.empty(a.shape, dtype or a.dtype)


def _cuda(machine: Machine) -> Any:
    def pool(allocator: Any = None) -> MemoryPool:
        return MemoryPool(machine)

    def properties(index: int) -> dict[str, Any]:
        machine.check_device(index)
        return {
            "name": b"Pretend GPU", "totalGlobalMem": machine.total, "major": 9, "minor": 0,
            "multiProcessorCount": 4, "warpSize": 32,
        }  # fmt: skip

    runtime = types.SimpleNamespace(
        CUDARuntimeError=CUDARuntimeError, getDeviceCount=lambda: machine.count, getDevice=lambda: machine.current,
        getDeviceProperties=properties, memGetInfo=machine.mem_info, driverGetVersion=lambda: 13000,
        runtimeGetVersion=lambda: 13020, streamCaptureModeGlobal=GLOBAL, streamCaptureModeThreadLocal=THREAD_LOCAL,
        streamCaptureModeRelaxed=RELAXED,
    )  # fmt: skip
    return types.SimpleNamespace(
        Device=machine.Device, Stream=machine.Stream, Event=Event, Graph=Graph, MemoryPool=pool, runtime=runtime,
        using_allocator=machine.using_allocator, get_current_stream=lambda device_id=-1: machine.stream(),
        memory=types.SimpleNamespace(OutOfMemoryError=OutOfMemoryError), get_local_runtime_version=lambda: 13020,
    )  # fmt: skip


def pretend(devices: int = 1, total: int = 2 << 30) -> Any:
    """A new stand-in for the module cupy, on a pretend computer of its own."""
    return PretendCupy(Machine(devices, total))
