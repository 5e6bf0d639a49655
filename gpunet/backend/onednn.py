"""Products of bfloat16 on the CPU's units for them (AVX-512 BF16, AMX), by oneDNN where it is installed.

oneDNN (Apache-2.0) is found as conda, a system, or the wheel `onednn-cpu-gomp` of `gpunet[fast]` installs it, and
called through its C interface of version 3, without the GIL. It multiplies bfloat16, adds up in float32, and adds a
bias before it writes float32 or bfloat16. Its relu would make 0 of NaN. Milliseconds of processor time, on one thread
of an EPYC with AVX-512 BF16, of 784-512-256-10 (measured anew by
`pytest benchmarks/test_products.py --benchmark-only -k bfloat16 --benchmark-timer time.process_time`):

                                    batch 2048                    batch 64
    product                    x Wᵀ   dzᵀ x    dz W        x Wᵀ   dzᵀ x    dz W
    of layer                    1st     1st     2nd         1st     1st     2nd
    OpenBLAS 0.3.31, float32   16.7    16.9     5.7        0.70    0.54    0.19
    oneDNN 3.2, float32        16.0    17.4     5.4        0.53    0.51    0.18
    oneDNN 3.2, bfloat16        8.4     8.9     2.8        0.27    0.28    0.10
    PyTorch 2.13, bfloat16      8.3     8.6     2.7        0.29    0.27    0.10   which gives bfloat16 alone
    NumKong 7.8, bfloat16      10.8    21.3     5.0        0.34    0.57    0.16   of operands transposed before

MKL's bfloat16, which is in PyTorch's wheel, took 19.9 ms for the first of them: it is not made for this CPU. Only
oneDNN is faster for all of them and can give float32, so it is the one. A product of some thousand multiplications
takes it longer than OpenBLAS by some microseconds; to turn operands back into float32 would take as long.

Its threads are OpenMP's, and wait busily for some milliseconds, in which they share cores with OpenBLAS's. A step in
mixed precision has its large products here. A product has as many threads as one by OpenBLAS.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import weakref
from collections.abc import Callable, Iterator
from ctypes import byref, c_int, c_int64, c_size_t, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from gpunet.backend.base import Array, In, Out, ScratchPool
from gpunet.backend.blas import PER_THREAD, current_threads
from gpunet.errors import RunError
from gpunet.extras import install
from gpunet.interrupts import contextmanager

F32, BF16 = 3, 2  # dnnl_data_type_t
ARG_SRC, ARG_DST, ARG_WEIGHTS, ARG_BIAS = 1, 17, 33, 41
HAS_BFLOAT16 = 0x80  # of dnnl_cpu_isa_t, in all from avx512_core_bf16 on
OWN_THREADS = (1, 2, 4)  # dnnl_cpu_runtime: sequential, OpenMP, TBB: when a call returns, its work is done
NAMES = {"win32": ("dnnl.dll",), "darwin": ("libdnnl.3.dylib",)}.get(sys.platform, ("libdnnl.so.3",))
FOLDERS = ("lib", "Library/bin")  # of conda
WHEEL = "onednn-cpu-gomp"
CPU, IN_ORDER = 1, 1  # dnnl_engine_kind_t, dnnl_stream_flags_t
AXES = 12  # DNNL_MAX_NDIMS
MOST_PLANS = 512  # kinds of products that a thread keeps


_loaded: list[OneDnn] = []
_forked: list[bool] = []  # OpenMP's threads are not there in a forked process, which would wait for them for ever
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _forked.append(True) if _loaded else None)


class Version(ctypes.Structure):
    """dnnl_version_t."""

    _fields_ = (
        ("major", c_int), ("minor", c_int), ("patch", c_int), ("hash", ctypes.c_char_p),
        ("cpu_runtime", ctypes.c_uint), ("gpu_runtime", ctypes.c_uint),
    )  # fmt: skip


class Argument(ctypes.Structure):
    """dnnl_exec_arg_t."""

    _fields_ = (("number", c_int), ("memory", c_void_p))


class Plan:
    """One kind of product, ready to run; `free` lets go of the library's objects, of some 200 kB, when it is gone."""

    def __init__(
        self, primitive: c_void_p, numbers: tuple[int, ...], memories: list[c_void_p],
        free: Callable[[c_void_p, list[c_void_p]], None],
    ) -> None:  # fmt: skip
        self.primitive, self.memories = primitive, memories
        weakref.finalize(self, free, primitive, memories).atexit = False
        self.seen: list[Callable[[], Any]] = [type(None)] * len(memories)  # weak references to the arrays there
        pairs = zip(numbers, memories, strict=True)
        self.arguments = (Argument * len(numbers))(*(Argument(number, memory) for number, memory in pairs))


class OneDnn:
    """The library, loaded. RunError where it answers a call with an error."""

    def __init__(self, library: Any) -> None:
        self._library = library
        library.dnnl_version.restype = ctypes.POINTER(Version)
        self._about = library.dnnl_version().contents
        self.version = f"{self._about.major}.{self._about.minor}.{self._about.patch}"
        self._engine, self._stream = c_void_p(), c_void_p()
        self._execute, self._set_address = library.dnnl_primitive_execute, library.dnnl_memory_set_data_handle
        self._execute.argtypes = c_void_p, c_void_p, c_int, c_void_p
        self._set_address.argtypes = c_void_p, c_void_p

    def begin(self) -> None:
        """Make what all calls need."""
        self._call("dnnl_engine_create", byref(self._engine), CPU, c_size_t(0))
        self._call("dnnl_stream_create", byref(self._stream), self._engine, IN_ORDER)

    @property
    def usable(self) -> bool:
        """Whether its interface and its threads are those that this module knows."""
        return self._about.major == 3 and self._about.cpu_runtime in OWN_THREADS

    @property
    def has_units(self) -> bool:
        """Whether this CPU multiplies bfloat16 by itself; else the library would turn them into float32 before."""
        return bool(self._library.dnnl_get_effective_cpu_isa() & HAS_BFLOAT16)

    def product(
        self, pool: ScratchPool, a: In, b: In, out: Out, transpose_a: bool = False, transpose_b: bool = False,
        bias: In = None,
    ) -> None:  # fmt: skip
        """out = op(a) op(b) + bias: a and b bfloat16, out bfloat16 or float32, bias (columns,) float32 or None.

        Arrays without an element are refused. pool: where this thread keeps what it has prepared.
        """
        threads = 1 if _forked else max(1, min(current_threads(), len(out) * b.size // PER_THREAD))
        kind = (a.shape, a.strides, b.shape, b.strides, out.dtype.char, transpose_a, transpose_b, bias is None, threads)
        plans = pool.arrays.setdefault("oneDNN", {})
        plan = plans.get(kind)
        if plan is None:
            if len(plans) >= MOST_PLANS:
                plans.clear()
            plan = plans[kind] = self._plan(
                a.T if transpose_a else a, b.T if transpose_b else b, out, bias, threads
            )  # fmt: skip
        for number, array in enumerate((a, b, out) if bias is None else (a, b, out, bias)):
            if plan.seen[number]() is not array:  # to ask where it lies takes a microsecond
                self._set_address(plan.memories[number], array.__array_interface__["data"][0])
                plan.seen[number] = weakref.ref(array)
        status = self._execute(plan.primitive, self._stream, len(plan.arguments), plan.arguments)
        if status:
            raise RunError(f"oneDNN {self.version}: a product of {a.shape} and {b.shape} failed with status {status}")

    def _plan(self, a: Array, b: Array, out: Array, bias: Array | None, threads: int) -> Plan:
        kinds = [self._describe(each) for each in (a, b, out)]
        numbers: tuple[int, ...] = (ARG_SRC, ARG_WEIGHTS, ARG_DST)
        of_bias = None
        if bias is not None:
            of_bias, numbers = self._describe(bias[None]), (*numbers, ARG_BIAS)
            kinds.append(of_bias)
        described, primitive = c_void_p(), c_void_p()
        with self._threads(threads):  # a primitive keeps the number that it was made with
            self._call(
                "dnnl_matmul_primitive_desc_create", byref(described), self._engine, kinds[0], kinds[1], of_bias,
                kinds[2], None,
            )  # fmt: skip
            self._call("dnnl_primitive_create", byref(primitive), described)
        self._call("dnnl_primitive_desc_destroy", described)
        memories = []
        for kind in kinds:
            memory = c_void_p()
            self._call("dnnl_memory_create", byref(memory), kind, self._engine, None)
            self._call("dnnl_memory_desc_destroy", kind)
            memories.append(memory)
        return Plan(primitive, numbers, memories, self._free)

    def _free(self, primitive: c_void_p, memories: list[c_void_p]) -> None:
        self._call("dnnl_primitive_destroy", primitive)
        for memory in memories:
            self._call("dnnl_memory_destroy", memory)

    def _describe(self, array: Array) -> c_void_p:
        sizes, found = (c_int64 * AXES)(*array.shape), c_void_p()
        strides = (c_int64 * AXES)(*(stride // array.itemsize for stride in array.strides))
        kind = F32 if array.dtype == np.float32 else BF16
        self._call("dnnl_memory_desc_create_with_strides", byref(found), array.ndim, sizes, kind, strides)
        return found

    @contextmanager
    def _threads(self, count: int) -> Iterator[None]:
        """So many of OpenMP's threads, a setting of the thread that calls; others than OpenMP's are left alone."""
        try:
            now, set_now = self._library.omp_get_max_threads, self._library.omp_set_num_threads
        except AttributeError:
            yield
            return
        before = now()
        try:
            set_now(count)
            yield
        finally:
            set_now(before)

    def _call(self, name: str, *arguments: Any) -> None:
        if status := getattr(self._library, name)(*arguments):
            raise RunError(f"oneDNN {self.version}: {name} failed with status {status}")

    def multiplies_exactly(self) -> bool:
        """Small whole numbers, of which every sum is exact, with a bias."""
        rng = np.random.default_rng(0)
        a, b, bias = (rng.integers(-3, 4, shape).astype(np.float32) for shape in ((33, 20), (18, 20), (18,)))
        wanted = a @ b.T + bias  # less than 256, which bfloat16 holds
        out, rounded = np.empty_like(wanted), np.empty(wanted.shape, np.uint16)
        for each in (out, rounded):
            self.product(ScratchPool(), upper_half(a), upper_half(b), each, transpose_b=True, bias=bias)
        return np.array_equal(out, wanted) and np.array_equal(rounded, upper_half(wanted))


def upper_half(x: Array) -> Array:
    """The bfloat16 of float32 numbers that need no rounding."""
    return (x.view(np.uint32) >> 16).astype(np.uint16)


@cache
def engine() -> tuple[OneDnn | None, str]:
    """The library where it makes products of bfloat16 faster, else None, and why not, in a line."""
    library = _load()
    if library is None:
        how = f": {install('fast')}" if (sys.platform, platform.machine()) == ("linux", "x86_64") else ""
        return None, f"products of bfloat16 on a CPU need oneDNN 3, which is not installed{how}"
    if not library.has_units:
        return None, "this CPU has no units for products of bfloat16 (AVX-512 BF16 or AMX)"
    try:
        library.begin()
        right = library.multiplies_exactly()
    except RunError as error:
        return None, str(error)
    return (library, "") if right else (None, f"oneDNN {library.version} multiplies bfloat16 wrongly on this CPU")


def _load() -> OneDnn | None:
    for path in (*_of_wheel(), *(str(Path(sys.prefix, folder, name)) for folder in FOLDERS for name in NAMES), *NAMES):
        try:
            found = OneDnn(ctypes.CDLL(path))
        except (OSError, AttributeError, ValueError):  # no library, another one, or a stub of it
            continue
        if found.usable:
            _loaded.append(found)
            return found
    return None


def _of_wheel() -> list[str]:
    """Where pip has put the library, which is no module."""
    from importlib import metadata  # 10 ms, which not every start is to take

    try:
        files = metadata.files(WHEEL) or []
    except metadata.PackageNotFoundError:
        return []
    return [str(file.locate()) for file in files if file.name in NAMES]
