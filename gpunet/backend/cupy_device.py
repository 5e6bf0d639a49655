"""One NVIDIA GPU through CuPy: the stream that everything goes to, its capture, memory, and what did not fit.

All work of one thread on one device goes to one stream, made current by `session`. It is a blocking stream: CUDA
orders it against the legacy default stream, where code outside a session runs, in both directions. Against any other
stream that is current where a session begins, events order it there and where the session ends.

While a blocking stream captures, the legacy stream of its device cannot be used, by whatever thread: the thread-local
mode of our captures concerns unsafe calls of the capturing thread alone. Work of another thread there, or its waiting
for the device, fails with cudaErrorStreamCaptureImplicit or …Unsupported, and ends our capture: the next call of the
capturing thread, end_capture at the latest, fails in one of the ways of ENDED, here with a CaptureError. A stream
that does not block would let the others be, but work of the capturing thread's own on the legacy stream would then be
missing in the graph without a word, where now it is an error.
"""

from __future__ import annotations

import gc
import math
import os
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np

from gpunet.backend.base import Array, Backend, In, Out
from gpunet.backend.cublaslt import WORKSPACE, CublasLt, CupyProducts, products
from gpunet.checks import as_array, check_one_of
from gpunet.errors import ON_CPU, CaptureError, DivergedError, InputError, MemoryFullError, RunError, first_line, shown
from gpunet.interrupts import contextmanager, undivided

LEGACY_STREAM = 0
FORK = "GPUNET_FORK"  # in the environment: "on" where a GPU has shown that it pays
# How the first call fails in a capture that another thread has ended: in the words of CUDA's runtime, of its driver,
# which launches kernels, of CuPy's is_capturing, and of cublasLt, which has a status of its own. A mistake of our own
# has another name first.
ENDED = re.compile(
    "cudaErrorStreamCaptureInvalidated|CUDA_ERROR_STREAM_CAPTURE_INVALIDATED|has invalidated the capture sequence"
    "|^cublasLt: cublasLtMatmul failed"
)
GIB = 1 << 30
ADVICE = f"take a smaller batch, less data at a time or {ON_CPU}"

_local = threading.local()
_peaks: dict[tuple[Any, int], int] = {}  # by module and device: the most that CuPy's pool has held


def _kept() -> dict[Any, Any]:
    """What the backends of this thread share."""
    kept: dict[Any, Any] = _local.__dict__.setdefault("kept", {})
    return kept


class Recording:
    """One captured graph; a call launches it on the stream of the session that recorded it."""

    __slots__ = ("_graph", "_keeps", "_launch", "_stream")

    def __init__(self, graph: Any, stream: Any, keeps: Any) -> None:
        self._graph, self._launch, self._stream, self._keeps = graph, graph.launch, stream, keeps

    def __call__(self) -> None:
        self._launch(self._stream)

    def dot(self) -> str:
        """The graph in Graphviz's words, with each node's kind and kernel: cudaGraphDebugDotPrint, verbose."""
        return str(self._graph.debug_dot_str(1))


class CupyDevice(Backend):
    """CupyBackend without its operations: stream, memory and recordings; `module` stands in for cupy in tests."""

    records = True

    def __init__(self, index: int = 0, module: Any = None) -> None:
        super().__init__()
        if module is None:
            import cupy

            module = cupy
        self.cp = self.xp = module
        self.index = index
        self.name = f"cuda:{index}"
        self._recording = self._forked = False
        self.forks = check_one_of(FORK, os.environ.get(FORK) or "off", ("off", "on")) == "on"

    @contextmanager
    def session(self) -> Iterator[Any]:
        """The device and this thread's stream on it made current; gives the device."""
        cp = self.cp
        with cp.cuda.Device(self.index) as device:
            stream, before = self._stream(), cp.cuda.get_current_stream()
            foreign = before.ptr not in (LEGACY_STREAM, stream.ptr)
            if foreign:
                stream.wait_event(before.record())
            try:
                with stream:
                    yield device
            finally:
                if foreign:
                    before.wait_event(stream.record())

    def _stream(self) -> Any:
        """The stream of this thread on this device."""
        return self._shared("stream", self.cp.cuda.Stream)

    def _shared(self, what: str, make: Callable[[], Any]) -> Any:
        """One for each thread and device: backends exchange arrays without events, and share one workspace."""
        key = (what, self.cp, self.index)
        kept = _kept()
        if key not in kept:
            kept[key] = make()
        return kept[key]

    @property
    def products(self) -> CublasLt | CupyProducts:
        """What multiplies matrices here: cublasLt, or cupy.matmul and the reason why."""
        return self._shared("products", self._find_products)  # type: ignore[no-any-return]

    def _find_products(self) -> CublasLt | CupyProducts:
        with self.session(), self._room(WORKSPACE, "uint8"):
            return products(self.cp)

    @property
    def slow_bfloat16(self) -> str:  # type: ignore[override]  # looked for when somebody asks
        """See `Backend`; a GPU with such units has multiplied with them once."""
        return self.slow_tf32 or self._shared("bfloat16", self._try_bfloat16)

    def _try_bfloat16(self) -> str:
        with self.session():
            try:
                cast(CublasLt, self.products).check("bfloat16")
            except RunError as error:
                return first_line(error)
        return ""

    @property
    def slow_tf32(self) -> str:  # type: ignore[override]
        """See `Backend`: the first GPUs with units for either, Ampere's, have compute capability 8.0."""
        if self.products.reason:
            return f"products run through cupy.matmul: {self.products.reason}"
        properties = self.cp.cuda.runtime.getDeviceProperties(self.index)
        if properties["major"] >= 8:
            return ""
        capability = f"{properties['major']}.{properties['minor']}"
        return f"{self.device_name()} has no such units: it has compute capability {capability}, they came with 8.0"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.index,)

    # -- arrays ---------------------------------------------------------------------------------------------------

    def empty(self, shape: int | tuple[int, ...], dtype: Any = "float32") -> Array:
        self._refuse("an allocation")
        with self.session(), self._room(shape, dtype):
            return self.cp.empty(shape, dtype=dtype)

    def asarray(self, host: Any, dtype: Any = None) -> Array:
        self._refuse("a copy from the host")
        cp = self.cp
        if isinstance(host, cp.ndarray):
            if host.device.id != self.index:
                with cp.cuda.Device(host.device.id):
                    host = cp.asnumpy(host)
        else:
            host = as_array(host, "the array")
            if dtype is not None and np.dtype(dtype).itemsize <= host.dtype.itemsize:
                host = host.astype(dtype, copy=False)  # cast before the transfer where that makes it no longer
        with self.session(), self._room(host.shape, dtype or host.dtype):
            return cp.ascontiguousarray(cp.asarray(host), dtype=dtype)

    def to_host(self, array: Array) -> Any:
        self._refuse("a read back to the host")
        with self.session():
            return self.cp.asnumpy(array)

    def copy(self, source: In, out: Out) -> None:
        if not (np.isscalar(source) or isinstance(source, self.cp.ndarray)):
            source = self.asarray(source, out.dtype)
        with self.session():
            out[...] = source

    def synchronize(self) -> None:
        self._refuse("waiting for the device")
        with self.session() as device:
            device.synchronize()

    # -- memory ---------------------------------------------------------------------------------------------------

    def memory(self) -> dict[str, int]:
        """Bytes: `peak`, the most that CuPy's pool has taken from this device, and `total` of the device.

        The pool keeps what it took, so its size is the high-water mark of all arrays of this process there, cublasLt's
        workspace included; CUDA's own context, kernels and graphs, some hundred MiB, are not. What others give back by
        `free_all_blocks` before we look is missed. Where CuPy's pool is switched off: what is in use on the device.
        """
        with self.session():
            free, total = self.cp.cuda.runtime.memGetInfo()
            peak = self._note()
        return {"peak": peak or int(total - free), "total": int(total)}

    def _note(self) -> int:
        """The pool's high-water mark on the current device, this moment included."""
        key = (self.cp, self.index)
        _peaks[key] = max(_peaks.get(key, 0), int(self.cp.get_default_memory_pool().total_bytes()))
        return _peaks[key]

    @contextmanager
    def _room(self, shape: int | tuple[int, ...], dtype: Any) -> Iterator[None]:
        """Turn CuPy's and CUDA's words for a full device into one line that names array and device."""
        self._note()  # a full pool gives its free blocks back before it fails
        try:
            yield
        except Exception as error:
            if not (isinstance(error, MemoryError) or "cudaErrorMemoryAllocation" in str(error)):
                raise
            raise MemoryFullError(self._full(shape, np.dtype(dtype))) from None

    def _full(self, shape: int | tuple[int, ...], dtype: np.dtype[Any]) -> str:
        free, total = self.cp.cuda.runtime.memGetInfo()
        held = self.cp.get_default_memory_pool().used_bytes()
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        asked = min(math.prod(shape) * dtype.itemsize, 1e300)
        return (
            f"no room on {self.name} ({self.device_name()}) for an array of shape {shown(shape)}, {dtype.name}, "
            f"{asked / GIB:.3g} GiB: {free / GIB:.3g} of {total / GIB:.3g} GiB are free, and this process's arrays "
            f"hold {held / GIB:.3g} GiB; {ADVICE}"
        )

    def device_name(self) -> str:
        """What the driver calls the GPU."""
        name = self.cp.cuda.runtime.getDeviceProperties(self.index)["name"]
        return name.decode() if isinstance(name, bytes) else str(name)

    # -- branches -------------------------------------------------------------------------------------------------

    def _branch(self) -> tuple[Any, Any, Any]:
        """A second stream, and the events that order it where it begins and ends."""
        cuda = self.cp.cuda
        return self._shared("branch", lambda: (cuda.Stream(), cuda.Event(), cuda.Event()))  # type: ignore[no-any-return]

    @contextmanager
    def _fork(self) -> Iterator[None]:
        """What is issued in here runs beside what is issued after it, up to `join`; in recordings only."""
        if not self._recording:
            yield
            return
        branch, forked, _ = self._branch()
        self._stream().record(forked)
        branch.wait_event(forked)
        self._forked = True
        with branch:
            yield

    def join(self) -> None:
        if self._forked:
            branch, _, joined = self._branch()
            branch.record(joined)
            self._stream().wait_event(joined)
            self._forked = False

    # -- graphs ---------------------------------------------------------------------------------------------------

    def _refuse(self, what: str) -> None:
        if self._recording:
            raise CaptureError(f"{what} inside a recorded step: a CUDA graph cannot hold it")

    def _refuse_bytes(self, size: int) -> Any:
        """In the pool's place while recording: memory that the pool hands out now would be reused before the replay."""
        raise CaptureError(
            f"an allocation of {size} bytes inside a recorded step: write into a kept array, as scratch() gives"
        )

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """See `Backend.record`: one stream capture, in which CuPy's pool and CUDA's unsafe calls are refused."""
        if not self.records:
            return super().record(work)
        self._refuse("another recording")
        collecting = gc.isenabled()
        with self.session():
            if self.forks:
                self._branch()  # which may not be made in a capture
            try:
                gc.disable()  # a collected array or event would call CUDA in mid-capture
                self._recording = True
                stream = self._stream()
                graph = self._capture(stream, work)
                graph.upload(stream)
            except (CaptureError, DivergedError, InputError):
                raise  # the caller's own
            except Exception as error:
                raise self._unrecorded(error) from error
            finally:
                self._recording = self._forked = False
                if collecting:
                    gc.enable()
        return Recording(graph, stream, self)

    def _unrecorded(self, error: Exception, passing: bool = False) -> CaptureError:
        found = CaptureError(f"{self.name} cannot record this step: {self._why(error)}")
        found.passing = passing
        return found

    def _why(self, error: Exception) -> str:
        """The error's first line, and whether products go the way that no capture allows."""
        line = first_line(error)
        found = _kept().get(("products", self.cp, self.index))
        return f"{line}; products run through cupy.matmul: {found.reason}" if found and found.reason else line

    def _capture(self, stream: Any, work: Callable[[], None]) -> Any:
        """The graph of what `work` issues; ends the capture whatever happens, so that the stream is usable again."""
        first: BaseException | None = None
        with undivided() as signals:  # a capture that has begun is ended
            stream.begin_capture(self.cp.cuda.runtime.streamCaptureModeThreadLocal)
            try:
                with self.cp.cuda.using_allocator(self._refuse_bytes), signals.heard():
                    work()
                    self.join()
            except BaseException as error:
                first = error
            try:
                graph = stream.end_capture()
            except Exception as error:  # where the capture had failed before, the first report says more
                first = first or error
                if isinstance(first, Exception) and ENDED.search(str(first)) and ENDED.search(str(error)):
                    raise self._unrecorded(first, passing=True) from first
        if first is not None:
            raise first
        return graph
