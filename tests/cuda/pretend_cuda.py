"""The pretend GPU's machine: devices, memory, streams, capture and graphs, with CuPy 14.2's names and CUDA's refusals.

Work runs at once, in the order in which it is issued. While a stream captures, work issued to it is kept instead and
runs when the graph is launched. What CUDA refuses then (allocation, waiting, host reads and copies, cuBLAS, work on
the legacy stream) raises, and leaves a capture in which every call fails, each in its own words, up to its end. Current
device, stream and allocator are those of a thread. Operands lie on the current device. gpunet's own work is refused
outside a session, where it may land on another device, and on the legacy stream, which another thread's capture makes
unusable; but for operations of a Backend that others call, for reads of a whole array, and for what makes the device of
an array current, as with one that a user has given.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np

import gpunet
from tests.cuda.pretend_array import DeviceArray, plain, refuse_host
from tests.cuda.pretend_memory import CUDADriverError, CUDARuntimeError, Memory, MemoryPool

WHOLE = 16 << 20  # bytes: larger memory is not filled, so that a workspace that nobody touches costs nothing
GLOBAL, THREAD_LOCAL, RELAXED = range(3)
GPUNET = str(Path(gpunet.__file__).parent)
BELOW = (str(Path(__file__).parent / "pretend"), str(Path(np.__file__).parent), str(Path(GPUNET, "backend")))
INVALIDATED = "{}: operation failed due to a previous error during capture"


class Stream:
    """As cupy.cuda.Stream."""

    null: Any = None
    _machine: Any = None
    _numbers = itertools.count(0x1000)

    def __init__(
        self, null: bool = False, non_blocking: bool = False, ptds: bool = False, priority: int | None = None
    ) -> None:
        self.ptr = 0 if null else next(self._numbers)
        self.device_id = -1 if null else self._machine.current
        self.non_blocking = non_blocking
        self.capture: Capture | None = None
        self.tail: frozenset[int] = frozenset()  # the captured nodes that the next one comes after

    def __enter__(self) -> Stream:
        machine = self._machine
        if self.device_id not in (-1, machine.current):
            raise RuntimeError(
                f"The device that the stream is created on ({self.device_id})"
                f" does not match with the current device ({machine.current})"
            )
        machine.here.streams[machine.current].append(self)
        machine.here.entered.append(machine.current)
        return self

    def __exit__(self, *args: Any) -> None:
        self._machine.here.streams[self._machine.here.entered.pop()].pop()

    def synchronize(self) -> None:
        self._machine.forbid("cudaStreamSynchronize", self)

    def _refuse_ended(self) -> None:
        if self.capture is not None and self.capture.invalid:
            raise CUDARuntimeError(INVALIDATED.format("cudaErrorStreamCaptureInvalidated"))

    def record(self, event: Any = None) -> Any:
        self._refuse_ended()
        event = event or Event()
        event.capture, event.after = self.capture, self.tail
        return event

    def wait_event(self, event: Any) -> None:
        self._refuse_ended()
        if event.capture is None or event.capture.ended:
            self._machine.waits.append((self.ptr, event))
            return
        if self.capture not in (None, event.capture):
            raise CUDARuntimeError("cudaErrorStreamCaptureMerge: dependency would merge two captures")
        if self.capture is None:
            event.capture.streams.append(self)
        self.capture, self.tail = event.capture, self.tail | event.after

    @property
    def nodes(self) -> list[Any] | None:
        return None if self.capture is None else self.capture.nodes

    def is_capturing(self) -> bool:
        if self.capture is not None and self.capture.invalid:
            raise RuntimeError("the stream was capturing, but an error has invalidated the capture sequence")
        return self.capture is not None

    def begin_capture(self, mode: int | None = None) -> None:
        if self.ptr == 0:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if self.capture is not None:
            raise CUDARuntimeError("cudaErrorIllegalState: the operation cannot be performed in the present state")
        self.capture = Capture(self, RELAXED if mode is None else mode)
        self._machine.captures.append(self.capture)

    def end_capture(self) -> Graph:
        capture = self.capture
        if capture is None or capture.streams[0] is not self:
            raise CUDARuntimeError("cudaErrorIllegalState: the operation cannot be performed in the present state")
        self._machine.captures.remove(capture)
        capture.ended = True
        loose = frozenset().union(*(stream.tail for stream in capture.streams)) - capture.before(self.tail)
        for stream in capture.streams:
            stream.capture, stream.tail = None, frozenset()
        if capture.invalid:
            raise CUDARuntimeError(INVALIDATED.format("cudaErrorStreamCaptureInvalidated"))
        if loose:
            raise CUDARuntimeError("cudaErrorStreamCaptureUnjoined: capture was not joined to the original stream")
        return Graph(self._machine, capture)


class Event:
    """As cupy.cuda.Event: a place in a stream, one that captures included."""

    capture: Capture | None = None
    after: frozenset[int] = frozenset()

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        pass


class Capture:
    """What is issued to a stream that captures, and to those that wait for its events: nodes, each after others."""

    def __init__(self, origin: Stream, mode: int) -> None:
        self.streams, self.mode, self.thread = [origin], mode, threading.get_ident()
        self.device_id, self.non_blocking, self.invalid, self.ended = origin.device_id, origin.non_blocking, "", False
        self.nodes: list[tuple[str, Any]] = []
        self.after: list[frozenset[int]] = []
        self.places: list[int] = []  # which of the streams

    def add(self, stream: Stream, what: str, work: Any) -> None:
        self.nodes.append((what, work))
        self.after.append(stream.tail)
        self.places.append(self.streams.index(stream))
        stream.tail = frozenset({len(self.nodes) - 1})

    def before(self, nodes: frozenset[int]) -> frozenset[int]:
        """These nodes and all that come before them."""
        found = frozenset(nodes)
        while (more := found.union(*(self.after[node] for node in found))) != found:
            found = more
        return found


class Graph:
    """As cupy.cuda.Graph: what was issued while a stream captured.

    Branches run in the order in which they were issued, with `machine.late` those of other streams only where something
    waits for them, which is as allowed.
    """

    def __init__(self, machine: Machine, capture: Capture) -> None:
        self.machine, self.nodes, self.after, self.places = machine, capture.nodes, capture.after, capture.places
        self.launches = self.uploads = 0
        machine.graphs.append(weakref.ref(self))

    def launch(self, stream: Any = None) -> None:
        stream = stream or self.machine.stream()
        self.launches += 1
        for node in self._order() if self.machine.late else range(len(self.nodes)):
            self.machine.issue(*self.nodes[node], stream)

    def _order(self) -> list[int]:
        left, order = set(range(len(self.nodes))), []
        while left:
            ready = [node for node in left if not self.after[node] & left]
            order.append(min(ready, key=lambda node: (self.places[node] > 0, node)))
            left.remove(order[-1])
        return order

    def upload(self, stream: Any = None) -> None:
        self.uploads += 1

    def debug_dot_str(self, flags: int = 0) -> str:
        """As cudaGraphDebugDotPrint with flag 1: every node a kernel of its name."""
        nodes = (
            f'"graph_1_node_{i}"[style="bold" shape="record" label="{{KERNEL\n'
            rf"| {{ID | {i} (topoId: {i}) | {what}\<\<\<1,1,0\>\>\>}}" + '\n}"];\n'
            for i, (what, _) in enumerate(self.nodes)
        )
        edges = (
            f'"graph_1_node_{before}" -> "graph_1_node_{i}";\n' for i, each in enumerate(self.after) for before in each
        )
        inside = f'label="graph_1" graph[style="dashed"];\n{"".join(nodes)}{"".join(edges)}'
        return f"digraph dot {{\nsubgraph cluster_1 {{\n{inside}}}\n}}\n"


class Device:
    """As cupy.cuda.Device."""

    _machine: Any = None

    def __init__(self, device: int | None = None) -> None:
        self.id = self._machine.current if device is None else int(device)

    def __enter__(self) -> Device:
        self._machine.check_device(self.id)
        self._machine.here.devices.append(self._machine.current)
        self._machine.current = self.id
        return self

    def __exit__(self, *args: Any) -> None:
        self._machine.current = self._machine.here.devices.pop()

    def use(self) -> None:
        self._machine.check_device(self.id)
        self._machine.current = self.id

    def synchronize(self) -> None:
        with self:
            self._machine.forbid("cudaDeviceSynchronize", everyone=True)

    @property
    def compute_capability(self) -> str:
        return "90"

    @property
    def mem_info(self) -> tuple[int, int]:
        with self:
            return self._machine.mem_info()


class Here(threading.local):
    """What is current in a thread: the device, a stream on each, and the allocator."""

    def __init__(self, devices: int, null: Stream, malloc: Any) -> None:
        self.current = 0
        self.devices: list[int] = []
        self.entered: list[int] = []
        self.streams = [[null] for _ in range(devices)]
        self.allocators: list[Any] = [malloc]


class Machine:
    """The state of one pretend computer with GPUs, and the way that every piece of work goes."""

    def __init__(self, devices: int, total: int) -> None:
        self.count, self.total = devices, total
        self.taken = [0] * devices
        self.captures: list[Capture] = []
        self.late = False  # whether a graph's branches run as late as they may
        self.graphs: list[Any] = []
        self.waits: list[Any] = []
        self.launched: list[str] = []  # what ran, by name, in order
        self.live: weakref.WeakSet[Memory] = weakref.WeakSet()
        self.Stream = type("Stream", (Stream,), {"_machine": self})
        self.Stream.null = self.Stream(null=True)
        self.Device = type("Device", (Device,), {"_machine": self})
        self.pool = MemoryPool(self)
        self.here = Here(devices, self.Stream.null, self.pool.malloc)

    @property
    def current(self) -> int:
        return self.here.current

    @current.setter
    def current(self, index: int) -> None:
        self.here.current = index

    def device(self, index: int) -> Device:
        return self.Device(index)

    def stream(self) -> Stream:
        return self.here.streams[self.current][-1]

    def check_device(self, index: int) -> None:
        if not 0 <= index < self.count:
            raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")

    # -- memory --------------------------------------------------------------------------------------------------

    def mem_info(self) -> tuple[int, int]:
        return self.total - self.taken[self.current], self.total

    def cuda_malloc(self, size: int) -> None:
        self.forbid("cudaMalloc", relaxed=True)
        if self.taken[self.current] + size > self.total:
            raise CUDARuntimeError("cudaErrorMemoryAllocation: out of memory")
        self.taken[self.current] += size

    @contextlib.contextmanager
    def using_allocator(self, allocator: Any = None) -> Any:
        self.here.allocators.append(allocator or self.pool.malloc)
        try:
            yield
        finally:
            self.here.allocators.pop()

    def empty(self, shape: Any, dtype: Any = float, order: str = "C") -> Any:
        """Memory full of NaN, or of the largest integer: what nobody wrote shows where it is read."""
        dtype = np.dtype(dtype)
        shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(int(n) for n in shape)
        self.refuse_outside("an allocation")
        memory = self.here.allocators[-1](int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)
        memory = getattr(memory, "mem", memory)
        array = memory.array(shape, dtype)
        if array.nbytes < WHOLE:
            array.fill(np.nan if dtype.kind in "fc" else np.iinfo(dtype).max if dtype.kind in "iu" else True)
        found = array.view(DeviceArray)
        found.machine, found.memory = self, memory
        return found

    def result(self, value: Any) -> Any:
        """New device arrays with what an operation computed, also in tuples."""
        if isinstance(value, (tuple, list)):
            made = [self.result(each) for each in value]
            return type(value)(*made) if hasattr(value, "_fields") else type(value)(made)
        if not isinstance(value, (np.ndarray, np.generic)):
            return value
        value = np.asarray(value)
        self.forbid_new(value)
        out = self.empty(value.shape, value.dtype)
        plain(out)[...] = value
        return out

    def forbid_new(self, value: Any) -> None:
        if self.stream().capture is not None:  # an array made here would be computed now and never again
            self.invalidate()
            self.here.allocators[-1](value.nbytes)
            raise CUDARuntimeError("cudaErrorStreamCaptureUnsupported: a new array while capturing")

    def call(self, function: Any, args: Any, options: Any) -> Any:
        """A function of NumPy's on device arrays: its result is new unless it is a view of an operand."""
        refuse_host(*args, *options.values())
        found = function(*plain(args), **plain(options))
        if isinstance(found, np.ndarray):
            for parent in (*args, *options.values()):
                if isinstance(parent, DeviceArray) and np.may_share_memory(found, plain(parent)):
                    view = found.view(DeviceArray)
                    view.machine, view.memory = self, parent.memory
                    return view
        self.refuse_others(args, options)
        return self.result(found)

    # -- work ----------------------------------------------------------------------------------------------------

    def issue(self, what: str, work: Any, stream: Any = None) -> None:
        if stream is None:
            self.refuse_outside(what)
            stream = self.stream()
        if stream.capture is not None:
            if stream.capture.invalid:
                raise CUDADriverError(INVALIDATED.format("CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"))
            stream.capture.add(stream, what, work)
            return
        self.refuse_legacy(what, stream)
        with np.errstate(all="ignore"):
            work()
        self.launched.append(what)

    def refuse_others(self, *values: Any) -> None:
        """ValueError where arrays, however deep in tuples, lists and dicts, lie on another device, as in CuPy."""
        for value in values:
            if isinstance(value, DeviceArray):
                if value.memory.device_id != self.current:
                    raise ValueError(
                        f"The device where the array resides ({value.memory.device_id}) is different from the current "
                        f"device ({self.current}). Peer access is unavailable between these devices."
                    )
            elif isinstance(value, (tuple, list)):
                self.refuse_others(*value)
            elif isinstance(value, dict):
                self.refuse_others(*value.values())

    def refuse_outside(self, what: str) -> None:
        """AssertionError where gpunet itself, no caller of it, issues work to a legacy stream of whatever device."""
        if self.stream().ptr or self.here.devices:
            return
        frame: Any = sys._getframe(1)
        while frame is not None and frame.f_code.co_filename.startswith(BELOW):
            frame = frame.f_back
        if frame is not None and frame.f_code.co_filename.startswith(GPUNET):
            raise AssertionError(f"{what} outside a session: {frame.f_code.co_filename}, line {frame.f_lineno}")

    def refuse_legacy(self, what: str, stream: Any) -> None:
        """The legacy stream of a device is unusable for all threads while a blocking stream there captures."""
        found = [each for each in self.captures if not each.non_blocking and each.device_id == self.current]
        if stream.ptr == 0 and found:
            self.invalidate(found)
            raise CUDARuntimeError(
                f"cudaErrorStreamCaptureImplicit: {what} on the legacy stream while another captures"
            )

    def forbid(self, what: str, stream: Any = None, relaxed: bool = False, everyone: bool = False) -> None:
        """Refuse `what`, which waits for a stream or is unsafe otherwise, while this thread captures.

        relaxed: it is allowed in a capture of that mode. everyone: other threads may not, either, on that device.
        """
        mine = threading.get_ident()
        found = [
            each for each in self.captures
            if each.mode == GLOBAL or each.thread == mine or (everyone and each.device_id == self.current)
        ]  # fmt: skip
        if any(not (relaxed and each.mode == RELAXED) for each in found):
            self.invalidate(found)
            raise CUDARuntimeError(
                f"cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing ({what})"
            )
        if stream is not None:
            self.refuse_legacy(what, stream)

    def invalidate(self, captures: Any = None) -> None:
        for capture in self.captures if captures is None else captures:
            capture.invalid = "invalid"

    def host_read(self, what: str) -> None:
        self.forbid(what, self.stream())

    def host_copy(self, what: str) -> None:
        """A copy from the host: CuPy stages it in pinned memory, which a graph would read again much later."""
        self.refuse_outside(what)
        self.forbid(what, self.stream())

    def refuse_library(self, what: str) -> None:
        """CuPy's own refusal: its handles cannot be set to a stream that captures."""
        if self.stream().is_capturing():
            raise NotImplementedError(f"calling {what} API during stream capture is currently unsupported")

    def check_guards(self) -> None:
        """AssertionError when anything was written outside the arrays that are alive."""
        for memory in list(self.live):
            memory.check()
