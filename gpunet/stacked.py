"""Many small nets of one shape trained side by side, each until it has converged: document 003's nets, stacked.

Sigmoid in every layer, no biases, one output, ½(y − t)² a sample, all samples in every step. A net's result is its
own: the same bits alone, in any company, and whenever its neighbours finish.

Rounding has a say in when a net stops. At the document's learning rate training is chaotic: another order of the same
sums, as on another processor, moved the last step of 63 nets of 100 (`linear`, float64) and of 23 (`xor-easy`). The
distribution over nets stays, in float32 as in float64: over 1000 nets the two differ by at most 2 % of the nets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunet import stacked_cuda
from gpunet.backend import Backend, get_backend
from gpunet.checks import DTYPES, as_array, as_floats, check_finite, check_one_of, check_range, check_whole, real_array
from gpunet.errors import InputError, ShapeError
from gpunet.init import Drawing, drawn, resolve
from gpunet.rng import WEIGHTS, stream
from gpunet.stacked_block import Block, FloatArray, Floats, Scratch
from gpunet.stacked_book import Book, Trained

BLOCK_BYTES = 1 << 20  # what a block's step works in: of 64 KB to 4 MB the fastest on a core with 2 MB of L2 cache


def draw_weights(sizes: Sequence[int], seeds: Sequence[int], initial: Drawing = "uniform_sigmoid") -> list[FloatArray]:
    """Stacked initial weights (nets, out, in), one array a layer; sizes from inputs to outputs.

    Layer i of a seed's net draws from the stream that `Sequential.build` gives its layer i.
    """
    draw = resolve(initial)
    return [
        np.stack(
            [
                as_floats(
                    drawn(draw, (out, inner), stream(seed, WEIGHTS, layer)),
                    "the initial weight",
                    (out, inner),
                    "float64",
                )
                for seed in seeds
            ]
        )
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
    stack = _Stack(weights, x, labels, "float64")
    found = [np.empty(w.shape) for w in stack.weights]
    with np.errstate(all="ignore"):
        for block in stack.blocks:
            block.forward()
            for layer, gradient in block.backward():
                found[layer][block.start : block.stop] = gradient
    return found


def train(
    weights: Sequence[Floats],
    x: Any,
    labels: Any,
    *,
    learning_rate: float,
    threshold: float,
    limit: int,
    dtype: str = "float32",
    on_mark: Callable[[int, int], None] | None = None,
    device: str | Backend = "numpy",
) -> Trained:
    """Descend the summed gradient, each net until its every sample's loss is below `threshold`, or for `limit` steps.

    weights: (nets, out, in) a layer, left as they are; x (samples, features) for all nets, or (nets, samples,
    features); labels 0 and 1, (samples,) or (nets, samples); dtype "float32" or "float64", what is computed in.
    on_mark(step, live) is called at each mark. device: a GPU trains as `stacked_cuda` says, the CPU as above.
    Raises ShapeError or InputError for what does not fit, DivergedError for a loss that is not finite.
    """
    learning_rate = check_range("learning_rate", learning_rate, above=0)
    threshold = check_range("threshold", threshold, above=0)
    check_range("limit", limit, least=1)
    limit = check_whole("limit", limit)
    check_one_of("dtype", dtype, DTYPES)
    backend = get_backend(device)
    if backend.name.startswith("cuda"):
        x, labels = real_array(x, "x"), as_array(labels, "labels")
        weights = _check(weights, x, labels, dtype)
        return stacked_cuda.train(
            backend, weights, x, labels, learning_rate=learning_rate, threshold=threshold, limit=limit, dtype=dtype,
            on_mark=on_mark,
        )  # fmt: skip
    stack = _Stack(weights, x, labels, dtype)
    book = Book(stack.weights, limit)
    with np.errstate(all="ignore"):
        for step in range(limit + 1):
            due, last, gone = step == book.at[book.next], step == limit, []
            for block in stack.blocks:
                block.forward()
                if block.count_below(2 * threshold) or due:
                    gone += book.enter(block, stack.ids, step, last)
                if not last:
                    block.descend(learning_rate)
            if gone:
                stack.drop(gone)
            if due:
                book.turn(learning_rate)
                if on_mark is not None:
                    on_mark(step, stack.live)
            if not stack.live:
                break
    return book.trained


class _Stack:
    """Nets on their way: those that have not finished stand in front, and are stepped a block at a time."""

    def __init__(self, weights: Sequence[Floats], x: Any, labels: Any, dtype: str) -> None:
        x, labels = real_array(x, "x"), as_array(labels, "labels")
        weights = _check(weights, x, labels, dtype)
        self.live = len(weights[0])
        self.ids = np.arange(self.live)
        self.shared = x.ndim == 2
        self.weights = [_own(w, dtype) for w in weights]
        samples = x.shape[-2]
        numbers = 2 * sum(w.shape[1] for w in weights) + (0 if self.shared else x.shape[-1])  # a sample of one net
        self.width = max(1, min(self.live, BLOCK_BYTES // (numbers * samples * np.dtype(dtype).itemsize)))
        self.x = _own(np.swapaxes(x[None] if self.shared else x, 1, 2), dtype)
        # Repeated for each net of a block: NumPy allocates buffers where it has to broadcast.
        self.targets = _own(np.broadcast_to(labels, (self.width, samples)) if self.shared else labels, dtype)[:, None]
        outputs, deltas = ([_room((self.width, w.shape[1], samples), dtype) for w in weights] for _ in range(2))
        own = [_room((self.width, *w.shape[1:]), dtype) for w in weights]
        self.scratch = Scratch(outputs, deltas, own, _room((self.width, 1, samples), dtype))
        self.blocks: list[Block] = []
        self._cut()

    def drop(self, places: Sequence[int]) -> None:
        """Take nets out: the last live one moves into each gap, so that little is copied."""
        moved = [*self.weights, self.ids, *([] if self.shared else [self.x, self.targets])]
        for place in sorted(places, reverse=True):
            self.live -= 1
            for array in moved:
                array[place] = array[self.live]
        self._cut()

    def _cut(self) -> None:
        """Cut the live nets into blocks; those that are whole already stay."""
        self.blocks = [block for block in self.blocks if block.stop <= self.live]
        for start in range(self.blocks[-1].stop if self.blocks else 0, self.live, self.width):
            nets = slice(start, min(start + self.width, self.live))
            own = [w[nets] for w in self.weights]
            x, targets = (self.x, self.targets[: len(own[0])]) if self.shared else (self.x[nets], self.targets[nets])
            self.blocks.append(Block(start, own, x, targets, self.scratch))


def _room(shape: tuple[int, ...], dtype: str) -> Floats:
    array: Floats = get_backend("numpy").empty(shape, dtype)
    return array


def _own(host: Any, dtype: str) -> Floats:
    array = _room(host.shape, dtype)
    np.copyto(array, host, casting="unsafe")
    return array


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
