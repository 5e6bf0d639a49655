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

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gpunet.backend import Backend, get_backend
from gpunet.backend.base import Array
from gpunet.errors import DivergedError
from gpunet.nn.init import Drawing, drawn, resolve
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
    h: FloatArray = np.swapaxes(np.asarray(x, np.float64), -1, -2)
    for weight in weights:
        h = 0.5 * np.tanh(0.5 * (weight @ h)) + 0.5
    return h[:, 0]


def gradients(weights: Sequence[Floats], x: Any, labels: Any) -> list[FloatArray]:
    """∂/∂W of each net's loss summed over its samples, float64 (nets, out, in) a layer; arguments as for `train`."""
    stack = Stack(get_backend("numpy"), weights, x, labels, "float64")
    found = [np.empty(w.shape) for w in weights]
    with stack.backend.session():
        for block in stack.blocks:
            block.forward()
            for layer, gradient in block.backward():
                found[layer][block.nets] = gradient
    return found


def train(
    weights: Sequence[Floats], x: Any, labels: Any, *, learning_rate: float, threshold: float, limit: int,
    dtype: str = "float32", on_mark: Callable[[int, int], None] = lambda step, live: None,
    device: str | Backend = "numpy",
) -> Trained:  # fmt: skip
    """Descend the summed gradient, each net until its every sample's loss is below `threshold`, or for `limit` steps.

    weights: (nets, out, in) a layer, left as they are; x (samples, features) for all nets, or (nets, samples,
    features); labels 0 and 1, (samples,) or (nets, samples); dtype "float32" or "float64", what is computed in.
    on_mark(step, live) is called at each mark that leaves nets on their way.
    Raises DivergedError for a loss that is not finite.
    """
    backend = get_backend(device)
    with backend.session():
        stack, at, mark = Stack(backend, weights, x, labels, dtype), marks(limit), 0
        nets = stack.live
        trained = Trained(
            np.zeros(nets, np.int64), np.zeros(nets, np.bool_), [np.empty(w.shape, dtype) for w in weights],
            np.empty(nets), np.empty(nets), np.empty(nets), at, np.empty((len(at), nets)),
        )  # fmt: skip
        for step in range(limit + 1):
            due, gone = step == at[mark], []
            for block in stack.blocks:
                block.forward()
                if block.look(2 * threshold) or due:
                    gone += stack.enter(block, trained, mark, step)
                if step < limit:
                    block.descend(learning_rate)
            if gone:
                stack.drop(gone)
            if due:
                if not np.isfinite(trained.course[mark]).all():
                    raise DivergedError(
                        f"the loss became NaN or infinite by step {step}, at learning rate {learning_rate:g}: "
                        "lower the learning rate, or look at the data's scale"
                    )
                mark += 1
                if stack.live:
                    on_mark(step, stack.live)
            if not stack.live:
                break
    return trained


class Stack:
    """Nets on their way: those that have not finished stand in front, and are stepped a block at a time."""

    def __init__(self, backend: Backend, weights: Sequence[Floats], x: Any, labels: Any, dtype: str) -> None:
        self.backend, self.live, self.shared, samples = backend, len(weights[0]), x.ndim == 2, x.shape[-2]
        self.ids = np.arange(self.live)
        self.weights = [self._own(w, dtype) for w in weights]
        numbers = 2 * sum(w.shape[1] for w in weights) + (0 if self.shared else x.shape[-1])  # a sample of one net
        most = BLOCK_BYTES if backend.xp is np else GPU_BLOCK_BYTES
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
        self.drop([])

    def _own(self, host: Any, dtype: str) -> Array:
        array = self.backend.empty(host.shape, dtype)
        self.backend.copy(host, array)
        return array

    def enter(self, block: Block, into: Trained, mark: int, step: int) -> list[int]:
        """Write down where a block's nets are, until the next time; returns the places of those that have stopped."""
        xp, read, ids = block.xp, self.backend.to_host, self.ids[block.nets]
        below = read(block.below)[:, 0] if block.on_host else ~read(block.on_way)[:, 0]
        into.steps[ids] = step if block.on_host else np.minimum(step, read(block.steps)[:, 0])
        into.converged[ids] = below
        into.loss[ids] = read(0.5 * xp.mean(block.squares.astype(np.float64), axis=2))[:, 0]
        into.course[mark:, ids] = into.loss[ids]
        into.largest_loss[ids] = 0.5 * read(block.largest)[:, 0]
        into.accuracy[ids] = read(xp.mean((block.outputs[-1] > 0.5) == (block.targets > 0.5), axis=2))[:, 0]
        for kept, weight in zip(into.weights, block.weights, strict=True):
            kept[ids] = read(weight)
        return [block.nets.start + int(place) for place in np.flatnonzero(below | (step == into.marks[-1]))]

    def drop(self, places: Sequence[int]) -> None:
        """Take nets out, the last live one moving into each gap, so that little is copied; cut the rest into blocks."""
        moved = [*self.weights, self.ids, self.on_way, self.steps, *([] if self.shared else [self.x, self.targets])]
        for place in sorted(places, reverse=True):
            self.live -= 1
            for array in moved:
                array[place] = array[self.live]
        starts = range(0, self.live, self.width)
        self.blocks = [Block(self, slice(start, min(start + self.width, self.live))) for start in starts]


class Block:
    """Some of a stack's live nets: views of its arrays, which hold all state. No step of theirs allocates anything.

    Samples are columns, as (nets, units, samples): every product is one small product a net, and all else is
    element-wise or runs over one net's samples.
    """

    def __init__(self, stack: Stack, nets: slice) -> None:
        self.nets, self.xp, self.on_host = nets, stack.backend.xp, stack.backend.xp is np
        first = slice(nets.stop - nets.start)
        x, self.targets = (stack.x, stack.targets[first]) if stack.shared else (stack.x[nets], stack.targets[nets])
        self.weights, self.on_way, self.steps = [w[nets] for w in stack.weights], stack.on_way[nets], stack.steps[nets]
        self.outputs, self.deltas, self.gradients = (
            [array[first] for array in arrays] for arrays in (stack.outputs, stack.deltas, stack.gradients)
        )
        self.squares, self.largest, self.below, self.rates = (
            array[first] for array in (stack.squares, stack.largest, stack.below, stack.rates)
        )
        inputs = [x, *self.outputs[:-1]]
        self.forwards = list(zip(self.weights, self.gradients, inputs, self.outputs, strict=True))
        self.input_t, self.weight_t = ([self.xp.swapaxes(a, 1, 2) for a in arrays] for arrays in (inputs, self.weights))

    def forward(self) -> None:
        """Y = σ(W Z) layer by layer; then y − t and its square."""
        xp = self.xp
        for weight, halved, z, y in self.forwards:  # σ(z) = ½ tanh(z/2) + ½, z halved in the smaller factor
            xp.multiply(weight, 0.5, out=halved)
            xp.matmul(halved, z, out=y)
            xp.tanh(y, out=y)
            xp.multiply(y, 0.5, out=y)
            xp.add(y, 0.5, out=y)
        xp.subtract(y, self.targets, out=self.deltas[-1])
        xp.multiply(self.deltas[-1], self.deltas[-1], out=self.squares)

    def look(self, bound: float) -> bool:
        """Find the nets whose every (y − t)² is below the bound. On the CPU, whether there are any.

        On a GPU, where nobody waits for that, these are out of the descent, and their steps are counted no more.
        """
        self.squares.max(axis=2, out=self.largest)
        self.xp.less(self.largest, bound, out=self.below)
        if self.on_host:
            return bool(np.count_nonzero(self.below))
        self.xp.greater(self.on_way, self.below, out=self.on_way)  # on its way, and not below
        self.xp.add(self.steps, self.on_way, out=self.steps)
        return False

    def backward(self) -> Iterator[tuple[int, Array]]:
        """(layer, ∂L/∂W) from the last layer to the first, after `forward`; the weights of a layer may change then.

        Equation 5: ∂L/∂Ỹ = ∂L/∂Y ∘ y(1 − y), ∂L/∂W = ∂L/∂Ỹ Zᵀ, ∂L/∂Z = Wᵀ ∂L/∂Ỹ, with L = ½ Σ (y − t)².
        """
        xp = self.xp
        for layer in reversed(range(len(self.weights))):
            y, delta, gradient = self.outputs[layer], self.deltas[layer], self.gradients[layer]
            xp.multiply(delta, y, out=delta)
            xp.subtract(1, y, out=y)
            xp.multiply(delta, y, out=delta)
            xp.matmul(delta, self.input_t[layer], out=gradient)
            if layer and self.on_host and len(delta[0]) == 1:
                # An outer product: half of matmul's time; multiply would allocate buffers, CuPy's einsum has no out.
                np.einsum("noi,nos->nis", self.weights[layer], delta, out=self.deltas[layer - 1])
            elif layer:
                xp.matmul(self.weight_t[layer], delta, out=self.deltas[layer - 1])
            yield layer, gradient

    def descend(self, rate: float) -> None:
        """W −= rate · ∂L/∂W, of the nets that have not converged."""
        xp, masked = self.xp, rate
        if not self.on_host:
            self.rates.fill(rate)
            masked = xp.multiply(self.rates, self.on_way, out=self.rates)[:, :, None]
        for layer, gradient in self.backward():
            xp.multiply(gradient, masked, out=gradient)
            xp.subtract(self.weights[layer], gradient, out=self.weights[layer])
