"""Sums over a source, in this process or by anybody's executor, merged as a tree that the data alone decides.

The rows are divided into leaves by shape, dtype and labels alone. Each leaf is summed batch after batch, neighbours
are merged in pairs, and so on up: floats have the same bits whoever summed which leaf, and however many there were. A
worker is sent what to read, not what was read, and answers with its sums; so many tasks are on their way at a time
that the results of those that were faster do not pile up.
"""

from __future__ import annotations

import copy
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunet.checks import check_whole, on_device
from gpunet.errors import InputError, RunError, first_line, shown
from gpunet.interrupts import undivided
from gpunet.linalg.device import CPU, is_gpu
from gpunet.linalg.gram import moved
from gpunet.linalg.matrix import EXACT_ROWS
from gpunet.linalg.sources import Source, ahead, is_done, spans
from gpunet.progress import Progress

WEIGHT = 256  # bytes that are read for each number of the Gram matrix that is sent back: 16 to 1
LEAVES = 16  # that there are at least, where batches are not larger
BATCHES = 8  # of an iterable that make a leaf at most
IN_FLIGHT = 32  # tasks, of an executor that does not say how many workers it has
PATIENCE = 60.0  # seconds that a cluster may be without any worker: one that was killed is started again
UNSEEN = 10.0  # seconds that a process may be dead without its pool's having seen it


class Tree:
    """Sums merged in pairs, neighbours first. Memory: one of them for each power of two in their number."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, Any]] = []

    def add(self, sums: Any) -> None:
        """The sums of the next leaf, which are then nobody else's."""
        level = 0
        while self._waiting and self._waiting[-1][0] == level:
            sums, level = self._waiting.pop()[1].merge(sums), level + 1
        self._waiting.append((level, sums))

    def total(self, empty: Any) -> Any:
        """Of all; `empty` where there were none."""
        total = None
        while self._waiting:
            before = self._waiting.pop()[1]
            total = before if total is None else before.merge(total)
        return empty if total is None else total


def gather(
    source: Source, labels: NDArray[Any] | None, empty: Any, *, executor: Executor | None = None,
    in_flight: int | None = None, batch: int | None = None, chosen: NDArray[np.bool_] | None = None,
    bar: Progress | None = None,
) -> Any:  # fmt: skip
    """All rows of a source in a copy of `empty`, or the `chosen` ones (n,).

    A StreamingGram, or with labels (n,) a StreamingClassGram. batch: rows that are read and multiplied at a time.
    """
    step = source.step(EXACT_ROWS) if batch is None else batch
    classes = 1 if labels is None else max(1, len(np.unique(labels)) // 4)
    leaf = WEIGHT * classes * source.shape[1] // source.dtype.itemsize
    leaf = max(step, -(-min(leaf, source.shape[0] // LEAVES) // step) * step)
    leaves = spans(0, source.shape[0], leaf)
    pace = Pace(bar or Progress(), -(-source.shape[0] // step), source.nbytes)
    tree = Tree()
    if executor is None:
        for sums in leaf_sums(source, leaves, step, empty, labels, chosen, pace):
            tree.add(sums)
        return tree.total(empty)

    def tasks() -> Iterator[tuple[Any, ...]]:
        for start, stop in leaves:
            own = [None if each is None else each[start:stop] for each in (labels, chosen)]
            yield _leaf, source.part(start, stop), (start, stop), step, empty, *own

    for (start, stop), sums in zip(leaves, results(executor, tasks(), in_flight), strict=True):
        tree.add(sums)
        pace.advance(-(-(stop - start) // step), (stop - start) * source.shape[1] * source.dtype.itemsize)
    return tree.total(empty)


def gather_batches(
    groups: Iterable[list[tuple[int, tuple[Any, ...]]]], empty: Any, *, executor: Executor | None = None,
    in_flight: int | None = None,
) -> Any:  # fmt: skip
    """The batches (x,) or (x, labels) of an iterable, a group a leaf."""
    tree = Tree()
    if executor is None:
        found: Iterable[Any] = (_batches(group, empty) for group in groups)
    else:
        found = results(executor, ((_on_host, _batches, group, empty) for group in groups), in_flight)
    for sums in found:
        tree.add(sums)
    return tree.total(empty)


def in_groups(batches: Iterable[tuple[Any, ...]]) -> Iterator[list[tuple[int, tuple[Any, ...]]]]:
    """Batches with their numbers, of about as much as a leaf of a source has: by their sizes alone."""
    group: list[tuple[int, tuple[Any, ...]]] = []
    size = 0
    for number, each in enumerate(batches):
        group.append((number, copy.deepcopy(each)))  # a generator may fill the same memory again
        size += each[0].nbytes
        if len(group) == BATCHES or size >= WEIGHT * each[0].shape[-1] ** 2:
            yield group
            group, size = [], 0
    if group:
        yield group


def leaf_sums(
    source: Source, leaves: list[tuple[int, int]], step: int, empty: Any, labels: NDArray[Any] | None,
    chosen: NDArray[np.bool_] | None, pace: Pace | None = None, first: int = 0,
) -> Iterator[Any]:  # fmt: skip
    """The sums of each leaf; what comes next is read meanwhile. labels and chosen begin with row `first`."""
    places = [place for leaf in leaves for place in spans(*leaf, step)]
    ends = {stop for _, stop in leaves}
    sums = copy.copy(empty)
    for (start, stop), part in ahead(source.rows, places):
        size = 0 if on_device(part) else part.nbytes
        where = slice(start - first, stop - first)
        keep = None if chosen is None else chosen[where]
        x = part if keep is None else part[keep]
        own = () if labels is None else (labels[where] if keep is None else labels[where][keep],)
        try:
            sums.update(x, *own)
        except InputError:
            if not on_device(part):
                source.check_finite(part, start)  # which says in which file and row
            raise
        if pace:
            pace.advance(1, size)
        if stop in ends:
            yield sums
            sums = copy.copy(empty)


def _leaf(source: Source, leaf: tuple[int, int], step: int, empty: Any, labels: Any, chosen: Any) -> Any:
    """A worker's task."""
    return _on_host(next, leaf_sums(source, [leaf], step, empty, labels, chosen, first=leaf[0]))


def _batches(group: list[tuple[int, tuple[Any, ...]]], empty: Any) -> Any:
    sums = copy.copy(empty)
    for number, each in group:
        try:
            sums.update(*each)
        except InputError as error:
            raise type(error)(f"batch {number} of the iterable: {error}") from None
    return sums


def _on_host(work: Any, *args: Any) -> Any:
    """What work(…) has summed, brought to the host where it lies on a worker's GPU, and to stay there."""
    sums = work(*args)
    for each in sums.classes.values() if hasattr(sums, "classes") else [sums]:
        if is_gpu(each._state.device):
            each._state = moved(each._state, CPU)
        each.device = None
    sums.device = None
    return sums


class Pace:
    """Progress, with the bytes a second that were read so far."""

    def __init__(self, bar: Progress, parts: int, size: int) -> None:
        self._bar, self._began, self._bytes = bar, time.perf_counter(), 0
        bar.start(f"sums over {size / 1e6:,.0f} MB", parts)

    def advance(self, parts: int, size: int) -> None:
        """So many batches more, of so many bytes."""
        self._bytes += size
        speed = self._bytes / 1e6 / max(1e-9, time.perf_counter() - self._began)
        self._bar.advance(parts, f"{speed:,.0f} MB/s")


# -- executors --------------------------------------------------------------------------------------------------------


def check_executor(executor: Any, device: Any = None) -> Executor | None:
    """Raises InputError for what is no executor, and for a device that cannot be named to a worker."""
    if executor is None:
        return None
    if not isinstance(executor, Executor):
        hint = "; of a Dask client it is client.get_executor()" if hasattr(executor, "get_executor") else ""
        raise InputError(f"executor is {shown(executor)}: expected a concurrent.futures.Executor, or None{hint}")
    if device is not None and not isinstance(device, str):
        raise InputError(f"device is {shown(device)}: expected a name, such as 'cuda', for the workers of an executor")
    return executor


def results(executor: Executor, tasks: Iterable[tuple[Any, ...]], in_flight: int | None) -> Iterator[Any]:
    """function(*arguments) of each task (function, *arguments), in their order.

    At most `in_flight` are on their way, or done and not yet taken. What is pending is cancelled when one fails, or
    when nobody wants the rest. RunError where the workers are lost for good.
    """
    most = _workers(executor) * 2 if in_flight is None else check_whole("in_flight", in_flight)
    pending: deque[Future[Any]] = deque()
    watch = Watch(executor)
    try:
        for task in tasks:
            pending.append(_submitted(executor, task))
            if len(pending) >= most:
                yield watch.result(pending)
        while pending:
            yield watch.result(pending)
    finally:
        for each in pending:
            each.cancel()


def _workers(executor: Any) -> int:
    """How many tasks it runs at a time, as far as it tells."""
    for name in ("_max_workers", "num_workers"):  # of the standard library's, of mpi4py's
        if isinstance(count := getattr(executor, name, None), int) and count > 0:
            return count
    return IN_FLIGHT // 2


def _submitted(executor: Executor, task: tuple[Any, ...]) -> Future[Any]:
    try:
        with undivided():
            future: Any = executor.submit(*task)
    except (BrokenExecutor, RuntimeError, OSError) as error:
        raise _lost(error) from error
    if not isinstance(future, Future):
        raise InputError(f"executor.submit returned {shown(future)}: expected a concurrent.futures.Future")
    return future


def end_processes(pool: Any) -> None:
    """End a process pool's processes, and its thread's waiting for the rest of what one of them began to write.

    That thread reads a result to its end or to the end of the pipe, and the pipe does not end while this process has
    its writing side open, too: a process that dies in the middle of a result would leave `shutdown` waiting for ever
    (Python 3.11 to 3.13 at least).
    """
    for process in _processes(pool):
        process.terminate()
    if (queue := getattr(pool, "_result_queue", None)) is not None:  # None once the pool has ended
        queue._writer.close()


def _processes(executor: Any) -> list[Any]:
    """Those of the standard library's pools, and of those made like them."""
    found = getattr(executor, "_processes", None)  # None once the pool has ended
    return list(found.values()) if isinstance(found, dict) else []


class Watch:
    """Waits for results, and looks whether anybody is left who could bring one."""

    def __init__(self, executor: Any) -> None:
        self._executor = executor
        self._client: Any = getattr(executor, "_client", None)  # of a Dask executor, which waits for workers for ever
        self._seen = self._whole = 0.0  # when a worker of the cluster's, and all processes of the pool's, lived

    def result(self, pending: deque[Future[Any]]) -> Any:
        """Of the first one, which is pending until it has one. Raises what the task has raised, or RunError."""
        future = pending[0]
        self._seen = self._whole = time.monotonic()
        while not is_done(future):
            if self._client is not None and not self._anybody():
                raise RunError(
                    f"the Dask cluster has had no worker, or no scheduler, for {PATIENCE:.0f} s: expected at least one "
                    "worker; start some, or the cluster anew, and run this again"
                )
            if self._died():
                end_processes(self._executor)  # upon which its thread tells all futures
        pending.popleft()
        try:
            return future.result()
        except (BrokenExecutor, CancelledError) as error:
            raise _lost(error) from error
        except Exception as error:
            if type(error).__module__.partition(".")[0] == "distributed":  # KilledWorker, or the scheduler is gone
                raise _lost(error) from error
            raise

    def _died(self) -> bool:
        now = time.monotonic()
        if all(process.exitcode in (None, 0) for process in _processes(self._executor)):
            self._whole = now
        return now - self._whole > UNSEEN

    def _anybody(self) -> bool:
        now = time.monotonic()
        try:
            if self._client.status == "running" and self._client.ncores():
                self._seen = now
        except Exception as error:  # of a client that lost its scheduler
            if self._client.status == "closed":
                raise _lost(error) from error
        return now - self._seen < PATIENCE


def _lost(error: BaseException) -> RunError:
    kind, said = type(error).__name__, first_line(error)
    what = kind if said == kind else f"{kind}: {said}"
    main = ", where a script starts processes outside of if __name__ == '__main__':, put it inside"
    return RunError(
        f"the workers, or what leads them, were lost, {what}; expected them to live until all is summed: where they "
        f"ran out of memory take fewer, or smaller batches{main if kind == 'BrokenProcessPool' else ''}; run this again"
    )
