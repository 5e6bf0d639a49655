"""Order and graphs on one NVIDIA GPU: the stream that everything goes to, and its capture.

All work of one thread on one device goes to one stream, made current by `session`. It is a blocking stream: CUDA
orders it against the legacy default stream, where code outside a session runs, in both directions. Against any other
stream that is current where a session begins, events order it there and where the session ends.

While a blocking stream captures, the legacy stream of its device cannot be used, by whatever thread: the thread-local
mode of our captures concerns unsafe calls of the capturing thread alone. Work of another thread there, or its waiting
for the device, fails with cudaErrorStreamCaptureImplicit or …Unsupported, and ends our capture: the next call of the
capturing thread, end_capture at the latest, fails with cudaErrorStreamCaptureInvalidated, here a CaptureError. A stream
that does not block would let the others be, but work of the capturing thread's own on the legacy stream would then be
missing in the graph without a word, where now it is an error.
"""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from gpunet.backend.base import Backend
from gpunet.backend.cuda_facts import first_line
from gpunet.checks import check_one_of
from gpunet.errors import CaptureError, DivergedError, InputError

LEGACY_STREAM = 0
FORK = "GPUNET_FORK"  # in the environment: "on" where a GPU has shown that it pays

_local = threading.local()


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


class CupyRecord(Backend):
    """The part of CupyBackend that knows the device's stream; `module` stands in for cupy in tests."""

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

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.index,)

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
            gc.disable()  # a collected array or event would call CUDA in mid-capture
            self._recording = True
            try:
                stream = self._stream()
                graph = self._capture(stream, work)
                graph.upload(stream)
            except (CaptureError, DivergedError, InputError):
                raise  # the caller's own
            except Exception as error:
                found = CaptureError(f"{self.name} cannot record this step: {self._why(error)}")
                found.passing = "StreamCaptureInvalidated" in str(error)  # a mistake of our own has another name first
                raise found from error
            finally:
                self._recording = self._forked = False
                if collecting:
                    gc.enable()
        return Recording(graph, stream, self)

    def _why(self, error: Exception) -> str:
        """The error's first line, and whether products go the way that no capture allows."""
        line = first_line(error)
        found = _kept().get(("products", self.cp, self.index))
        return f"{line}; products run through cupy.matmul: {found.reason}" if found and found.reason else line

    def _capture(self, stream: Any, work: Callable[[], None]) -> Any:
        """The graph of what `work` issues; ends the capture whatever happens, so that the stream is usable again."""
        stream.begin_capture(self.cp.cuda.runtime.streamCaptureModeThreadLocal)
        try:
            with self.cp.cuda.using_allocator(self._refuse_bytes):
                work()
                self.join()
        except BaseException:
            self._abandon(stream)
            raise
        return stream.end_capture()

    @staticmethod
    def _abandon(stream: Any) -> None:
        """End a capture that failed; CUDA reports the failure once more, and the first report says more."""
        try:
            stream.end_capture()
        except Exception:
            return
