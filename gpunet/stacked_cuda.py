"""The nets of `stacked` on a GPU: a block of threads a net, which makes many steps without asking anybody.

One launch takes every net from one mark of the course to the next; a net that has converged stays as it was then, so
that its loss, its accuracy and its course are those of step-by-step checking, and a few numbers a net are read back at
each mark alone. By count of operations a step of nets of 2-3-3-1 takes some microseconds, of as many nets as the GPU
has room for (an H200: some 1,800 at a time); a step of a hundred of them takes the CPU longer than that. So it should
pay at any number of nets, but for the second that compiling takes the first time; not measured yet.

The sums are those of `stacked_block` in another order, so the numbers are the CPU's up to rounding, which in chaotic
training is enough to move the last step of many nets (see `stacked`). The kernels: backend/cuda/stacked.cu.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from gpunet.backend.base import Array
from gpunet.backend.cuda_kernels import FOLDER, OPTIONS, SUFFIXES
from gpunet.errors import InputError
from gpunet.stacked_block import FloatArray, Floats
from gpunet.stacked_book import Trained, check_course, marks

SHARED_BYTES = 16_384  # as in stacked.cu
THREADS, WARP, LAYERS = 256, 32, 16
LAUNCH = 1 << 25  # multiplications of a thread in one launch: about a second, so that Ctrl-C is heard
MEAN, LARGEST, RIGHT, STOPPED = range(4)  # columns of what is read back
_modules: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


@cache
def source() -> str:
    """The kernels' text."""
    return (FOLDER / "stacked.cu").read_text()


def train(
    backend: Any,
    weights: Sequence[Floats],
    x: NDArray[Any],
    labels: NDArray[Any],
    *,
    learning_rate: float,
    threshold: float,
    limit: int,
    dtype: str,
    on_mark: Callable[[int, int], None] | None,
) -> Trained:
    """`stacked.train` on the GPU of `backend`, a `CupyBackend`; arguments are checked by the caller."""
    with backend.session():
        nets = _Nets(backend, weights, x, labels, dtype)
        at, bound = marks(limit), np.dtype(dtype).type(2 * threshold)
        course = np.empty((len(at), nets.count))
        done = 0
        for place, mark in enumerate(at.tolist()):
            done = nets.run(done, mark, learning_rate, bound)
            found = nets.look()
            course[place:] = found[:, MEAN]
            check_course(course[place], mark, learning_rate)
            way = found[:, STOPPED] < 0
            below = way & (2 * found[:, LARGEST].astype(dtype) < bound)
            live = int(np.count_nonzero(way & ~below)) if mark < limit else 0
            if on_mark is not None and way.any():  # else the last net had stopped before this mark
                on_mark(mark, live)
            if not live:
                break
        steps = np.where(way, mark, found[:, STOPPED]).astype(np.int64)
        return Trained(
            steps, ~way | below, nets.weights_on_host(), found[:, MEAN].copy(), found[:, LARGEST].copy(),
            found[:, RIGHT].copy(), at, course,
        )  # fmt: skip


class _Nets:
    """The nets on the device: a net's weights in one row, inputs with the samples side by side."""

    def __init__(
        self, backend: Any, weights: Sequence[Floats], x: NDArray[Any], labels: NDArray[Any], dtype: str
    ) -> None:
        self.count, self.shapes = len(weights[0]), [w.shape[1:] for w in weights]
        if len(weights) > LAYERS:
            raise InputError(f"{len(weights)} layers: expected at most {LAYERS} on a GPU; use --device cpu")
        self.backend, suffix = backend, SUFFIXES[dtype]
        sizes, samples = [x.shape[-1], *(w.shape[1] for w in weights)], x.shape[-2]
        self.weights = backend.asarray(np.concatenate([w.reshape(self.count, -1) for w in weights], axis=1), dtype)
        data = backend.asarray(np.ascontiguousarray(np.swapaxes(x, -1, -2)), dtype)
        targets = backend.asarray(np.ascontiguousarray(labels), dtype)
        self.stopped = backend.asarray(np.full(self.count, -1))
        self.report = backend.empty((self.count, 4), "float64")
        parameters, units = self.weights.shape[1], sum(sizes[1:])
        work = 2 * units * samples
        in_shared = np.dtype(dtype).itemsize * (work + parameters) <= SHARED_BYTES
        self.room = backend.empty(1 if in_shared else self.count * work, dtype)
        self.threads = min(THREADS, -(-max(samples, parameters) // WARP) * WARP)
        self.net = (
            self.weights, data, targets, np.int32(x.ndim == 3), backend.asarray(np.array(sizes, np.int32)),
            np.int32(len(weights)), np.int32(samples),
        )  # fmt: skip
        self.place = self.room, np.int32(in_shared)
        multiplications = 6 * samples * parameters // self.threads + parameters
        self.at_a_time = max(1, LAUNCH // multiplications)
        self.kernels = tuple(_module(backend.cp).get_function(f"stacked_{name}_{suffix}") for name in ("train", "look"))
        self.number = np.dtype(dtype).type

    def run(self, first: int, last: int, rate: float, bound: Any) -> int:
        """Make the steps from `first` up to `last`, which is returned."""
        for start in range(first, last, self.at_a_time):
            steps = min(self.at_a_time, last - start)
            self._launch(
                0, *self.net, self.number(rate), bound, np.int64(start), np.int64(steps), self.stopped, *self.place
            )
        return last

    def look(self) -> FloatArray:
        """(nets, 4): mean and largest loss, accuracy, and the step at which the net stopped or −1."""
        self._launch(1, *self.net, self.stopped, *self.place, self.report)
        found: FloatArray = np.array(self.backend.to_host(self.report))
        return found

    def weights_on_host(self) -> list[Floats]:
        """(nets, out, in) a layer."""
        flat = np.array(self.backend.to_host(self.weights))
        ends = np.cumsum([out * inner for out, inner in self.shapes])[:-1]
        return [
            np.ascontiguousarray(part).reshape(self.count, *shape)
            for part, shape in zip(np.split(flat, ends, axis=1), self.shapes, strict=True)
        ]

    def _launch(self, kernel: int, *args: Array) -> None:
        self.kernels[kernel]((self.count,), (self.threads,), args)


def _module(cp: Any) -> Any:
    found = _modules.get(cp)
    if found is None:
        found = _modules[cp] = cp.RawModule(code=source(), options=OPTIONS)
    return found
