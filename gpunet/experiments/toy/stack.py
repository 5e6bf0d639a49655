"""Many small nets of one shape trained side by side, each until it has converged: document 003's nets, stacked.

Sigmoid in every layer, no biases, one output, ½(y − t)² a sample, all samples in every step. On the CPU a net's result
is its own: the same bits alone, in any company, and whenever its neighbours finish.

Rounding has a say in when a net stops. At the document's learning rate training is chaotic: another order of the same
sums, as on another processor, moved the last step of 63 nets of 100 (`linear`, float64) and of 23 (`xor-easy`). The
distribution over nets stays, in float32 as in float64: over 1000 nets the two differ by at most 2 % of the nets.

A GPU runs the same code with all nets in one block, and reads nothing back but at the marks of the course. A net that
has converged in between takes no part in the descent from that step on, so that steps, losses and courses are those of
looking after every step. That costs five small launches a step, nets that are computed in vain until the next mark, and
after the last net has stopped the steps up to that mark: at most a fifth of those made. A step of 2-3-3-1 is some 45
calls of CuPy, by count half a millisecond whatever the number of nets, which is what a core takes for 40 nets of
`linear` or 120 of `xor-easy`: with fewer the CPU is faster. Not run on a GPU yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gpunet.backend import Backend, get_backend
from gpunet.backend.base import Array
from gpunet.checks import DTYPES, as_array, as_floats, check_finite, check_one_of, check_range, check_whole, real_array
from gpunet.errors import DivergedError, InputError, ShapeError
from gpunet.experiments.toy.block import Block
from gpunet.init import Drawing, drawn, resolve
from gpunet.rng import WEIGHTS, stream

FloatArray: TypeAlias = NDArray[np.float64]
Floats: TypeAlias = NDArray[np.floating[Any]]

BLOCK_BYTES = 1 << 20  # what a block's step works in: of 64 KB to 4 MB the fastest on a core with 2 MB of L2 cache
GPU_BLOCK_BYTES = 1 << 30  # there one launch should be of all nets, as far as there is room
MARKS_PER_DECADE = 12


@dataclass(frozen=True)
class Trained:
    """What became of each net. All losses are ½(y − t)², taken where the net stopped.

    steps: updates made, the limit where the net did not converge; weights: (nets, out, in) a layer; loss: mean over
    samples; largest_loss: the worst sample's; accuracy: share of samples on the right side of ½; course: mean losses
    (marks, nets) after marks[i] steps, from its stop on a net's last one.
    """

    steps: NDArray[np.int64]
    converged: NDArray[np.bool_]
    weights: list[Floats]
    loss: FloatArray
    largest_loss: FloatArray
    accuracy: FloatArray
    marks: NDArray[np.int64]
    course: FloatArray


def marks(limit: int) -> NDArray[np.int64]:
    """The steps at which losses are recorded: from 0 to the limit, from about 10 on evenly on a logarithmic scale."""
    count = int(np.log10(limit) * MARKS_PER_DECADE) + 2
    return np.unique(np.concatenate([[0], np.geomspace(1, limit, count).round()])).astype(np.int64)


def draw_weights(sizes: Sequence[int], seeds: Sequence[int], initial: Drawing = "uniform_sigmoid") -> list[FloatArray]:
    """Stacked initial weights (nets, out, in), one array a layer; sizes from inputs to outputs.

    Layer i of a seed's net draws from the stream that `Sequential.build` gives its layer i.
    """
    draw = resolve(initial)
    return [
        np.stack([drawn(draw, (out, inner), stream(seed, WEIGHTS, layer)) for seed in seeds])
        for layer, (inner, out) in enumerate(pairwise(sizes))
    ]


def sigmoid_outputs(weights: Sequence[Floats], x: Any) -> FloatArray:
    """The nets' outputs (nets, samples), float64, for x (samples, features), or each net's own in front of that."""
    h: FloatArray = np.swapaxes(np.asarray(real_array(x, "x"), np.float64), -1, -2)
    for weight in weights:
        h = 0.5 * np.tanh(0.5 * (weight @ h)) + 0.5
    return h[:, 0]


def gradients(weights: Sequence[Floats], x: Any, labels: Any) -> list[FloatArray]:
    """∂/∂W of each net's loss summed over its samples, float64 (nets, out, in) a layer; arguments as for `train`."""
    stack = Stack(get_backend("numpy"), weights, x, labels, "float64")
    found = [np.empty(w.shape) for w in stack.weights]
    with stack.backend.session():
        for block in stack.blocks:
            block.forward()
            for layer, gradient in block.backward():
                found[layer][block.start : block.stop] = gradient
    return found


def train(
    weights: Sequence[Floats], x: Any, labels: Any, *, learning_rate: float, threshold: float, limit: int,
    dtype: str = "float32", on_mark: Callable[[int, int], None] | None = None, device: str | Backend = "numpy",
) -> Trained:  # fmt: skip
    """Descend the summed gradient, each net until its every sample's loss is below `threshold`, or for `limit` steps.

    weights: (nets, out, in) a layer, left as they are; x (samples, features) for all nets, or (nets, samples,
    features); labels 0 and 1, (samples,) or (nets, samples); dtype "float32" or "float64", what is computed in.
    on_mark(step, live) is called at each mark that leaves nets on their way.
    Raises ShapeError or InputError for what does not fit, DivergedError for a loss that is not finite.
    """
    learning_rate = check_range("learning_rate", learning_rate, above=0)
    threshold = check_range("threshold", threshold, above=0)
    check_range("limit", limit, least=1)
    limit = check_whole("limit", limit)
    check_one_of("dtype", dtype, DTYPES)
    backend = get_backend(device)
    with backend.session():
        stack, at, mark = Stack(backend, weights, x, labels, dtype), marks(limit), 0
        nets = stack.live
        trained = Trained(
            np.zeros(nets, np.int64), np.zeros(nets, np.bool_), [np.empty(w.shape, dtype) for w in stack.weights],
            np.empty(nets), np.empty(nets), np.empty(nets), at, np.empty((len(at), nets)),
        )  # fmt: skip
        for step in range(limit + 1):
            due, last, gone = step == at[mark], step == limit, []
            for block in stack.blocks:
                block.forward()
                if block.look(2 * threshold) or due:
                    gone += stack.enter(block, trained, mark, step, last)
                if not last:
                    block.descend(learning_rate)
            stack.drop(gone)
            if due:
                if not np.isfinite(trained.course[mark]).all():
                    raise DivergedError(
                        f"the loss became NaN or infinite by step {step}, at learning rate {learning_rate:g}: "
                        "lower the learning rate, or look at the data's scale"
                    )
                mark += 1
                if on_mark is not None and stack.live:
                    on_mark(step, stack.live)
            if not stack.live:
                break
    return trained


class Stack:
    """Nets on their way: those that have not finished stand in front, and are stepped a block at a time."""

    def __init__(self, backend: Backend, weights: Sequence[Floats], x: Any, labels: Any, dtype: str) -> None:
        x, labels = real_array(x, "x"), as_array(labels, "labels")
        weights = _check(weights, x, labels, dtype)
        self.backend, self.live, self.shared = backend, len(weights[0]), x.ndim == 2
        self.ids = np.arange(self.live)
        self.weights = [self._own(w, dtype) for w in weights]
        samples, on_host = x.shape[-2], backend.xp is np
        numbers = 2 * sum(w.shape[1] for w in weights) + (0 if self.shared else x.shape[-1])  # a sample of one net
        most = BLOCK_BYTES if on_host else GPU_BLOCK_BYTES
        self.width = max(1, min(self.live, most // (numbers * samples * np.dtype(dtype).itemsize)))
        self.x = self._own(np.swapaxes(x[None] if self.shared else x, 1, 2), dtype)
        # Repeated for each net of a block: NumPy allocates buffers where it has to broadcast.
        targets = np.broadcast_to(labels, (self.width, samples)) if self.shared else labels
        self.targets = self._own(targets[:, None], dtype)
        # What a step works in; all blocks share it.
        self.outputs, self.deltas = (
            [backend.empty((self.width, w.shape[1], samples), dtype) for w in weights] for _ in range(2)
        )
        self.gradients = [backend.empty((self.width, *w.shape[1:]), dtype) for w in weights]
        self.squares = backend.empty((self.width, 1, samples), dtype)
        self.largest, self.rates = (backend.empty((self.width, 1), dtype) for _ in range(2))
        self.below = backend.empty((self.width, 1), "bool")
        # What a GPU keeps of each net, where nobody looks after every step.
        self.on_way, self.steps = self._own(np.ones((self.live, 1)), "bool"), backend.zeros((self.live, 1), "int64")
        self.blocks: list[Block] = []
        self._cut()

    def _own(self, host: Any, dtype: str) -> Array:
        array = self.backend.empty(host.shape, dtype)
        self.backend.copy(host, array)
        return array

    def enter(self, block: Block, into: Trained, mark: int, step: int, last: bool) -> list[int]:
        """Write down a block's losses, and all about the nets that have stopped; returns these nets' places."""
        xp, read, ids = self.backend.xp, self.backend.to_host, self.ids[block.start : block.stop]
        loss = read(0.5 * xp.mean(block.squares.astype(np.float64), axis=2))[:, 0]
        if step == into.marks[mark]:
            into.course[mark, ids] = loss
        below = read(block.below)[:, 0] if block.on_host else ~read(block.live)[:, 0]
        stops = np.flatnonzero(below | last)
        gone = ids[stops]
        if len(gone):
            right = xp.mean((block.outputs[-1] > 0.5) == (block.targets > 0.5), axis=2)
            into.steps[gone] = step if block.on_host else np.minimum(step, read(block.steps)[stops, 0])
            into.converged[gone], into.accuracy[gone] = below[stops], read(right)[stops, 0]
            into.loss[gone], into.largest_loss[gone] = loss[stops], 0.5 * read(block.largest)[stops, 0]
            into.course[mark:, gone] = loss[stops]
            for kept, weight in zip(into.weights, block.weights, strict=True):
                kept[gone] = read(weight)[stops]
        return [block.start + int(place) for place in stops]

    def drop(self, places: Sequence[int]) -> None:
        """Take nets out: the last live one moves into each gap, so that little is copied."""
        moved = [*self.weights, self.ids, self.on_way, self.steps, *([] if self.shared else [self.x, self.targets])]
        for place in sorted(places, reverse=True):
            self.live -= 1
            for array in moved:
                array[place] = array[self.live]
        if places:
            self._cut()

    def _cut(self) -> None:
        """Cut the live nets into blocks; those that are whole already stay."""
        self.blocks = [block for block in self.blocks if block.stop <= self.live]
        first = self.blocks[-1].stop if self.blocks else 0
        self.blocks += [Block(self, start) for start in range(first, self.live, self.width)]


def _check(weights: Sequence[Any], x: NDArray[Any], labels: NDArray[Any], dtype: str) -> list[Floats]:
    """The weights as arrays of floats that fit the dtype; ShapeError or InputError for what does not fit."""
    if x.ndim not in (2, 3) or labels.shape != x.shape[:-1] or 0 in x.shape:
        raise ShapeError(
            f"x has shape {x.shape} and labels {labels.shape}: expected (samples, features) and (samples,), or both "
            "with the nets in front"
        )
    check_finite(x.reshape(-1, x.shape[-1]), "x", dtype)
    weights = [
        as_floats(w, f"the weight of layer {layer}", dtype=dtype, given=False) for layer, w in enumerate(weights)
    ]
    if not np.isin(labels, (0, 1)).all():
        raise InputError(f"labels are {np.unique(labels)[:5].tolist()}: expected 0 and 1, one output tells two classes")
    shapes, nets, inner = [w.shape for w in weights], len(weights[0]) if weights else 0, x.shape[-1]
    for shape in shapes:
        if len(shape) != 3 or shape[0] != nets or shape[2] != inner or 0 in shape:
            raise ShapeError(f"weights have shapes {shapes}: expected ({nets}, out, {inner}) where {shape} stands")
        inner = shape[1]
    if not shapes or inner != 1 or (x.ndim == 3 and len(x) != nets):
        raise ShapeError(
            f"weights have shapes {shapes}, x {x.shape}: expected one output, and data for each net or all"
        )
    return weights
