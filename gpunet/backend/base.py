"""The contract of the array layer: every operation that a device must offer.

Two kinds of code use a device. *Cold* code (initial weights, decompositions, metrics) goes through `xp`, the plain
array namespace. *Hot* code, the training step, uses only the operations below: each writes into arrays its caller
owns, and none allocates after its first call, waits for the device, or reads a value back to the host. That makes
NumPy fast, since there are no temporaries, and it lets a whole step be captured as one CUDA graph. What changes from
step to step (learning rate, step count, place in the epoch) therefore lives in small device arrays.

Parameters marked `In` are only read, those marked `Out` are written (and read where the text says so). `StrictBackend`
enforces both.

Shapes: n samples, d inputs, u units, k outputs, p parameters. Floats are all of one dtype, float32 or float64.

Mixed precision: an array of uint16 holds numbers in bfloat16, the upper half of a float32's bits, since NumPy has no
such dtype. It may stand where an operation says so, and everything else is float32 then: products are added up in
float32, and f, its slope and sums see float32. What is written as bfloat16 is the float32 number rounded to nearest,
ties to even; a NaN stays NaN. A data set of uint16 holds whole numbers: `gather` reads those.
"""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Annotated, Any, Literal, Self, TypeAlias, get_args

import numpy as np

from gpunet.errors import CaptureError

Array: TypeAlias = Any  # numpy.ndarray or cupy.ndarray: neither library types the other's arrays
In: TypeAlias = Annotated[Any, "in"]
Out: TypeAlias = Annotated[Any, "out"]
# All monotone, and f' follows from y = f(z): so the maximum of a pool may be taken before f, and z need not be kept.
Activation: TypeAlias = Literal["identity", "relu", "sigmoid", "tanh", "leaky_relu"]
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
BFLOAT16 = np.dtype(np.uint16)  # which holds the upper half of a float32's bits; the one object of all such arrays
NAN_BITS = 0x7FC00000  # of a quiet NaN in float32
LEAK = 0.01  # slope of leaky_relu below zero, PyTorch's default

# The optimisers' scalars, one float64 device array of this length, by place.
# SECOND_STEP counts apart, since a layer that is factored in mid-training may keep one moment and restart the other.
# The last two are between `tick` and `adam`: a GPU computes Adam's factors once there, and not in every block.
LEARNING_RATE, BETA1, BETA2, EPSILON, L2, STEP, SECOND_STEP, ADAM_RATE, ADAM_EPSILON = range(9)
N_SCALARS = 9
N_SETTLED = 7  # those that a step leaves for the next one

# The losses' totals, one float64 device array, by place. FIRST_BAD is the index of the first sample of the first
# batch whose loss was not finite, or -1: one number to read at the end of an epoch instead of one a step.
LOSS_SUM, CORRECT, SAMPLES, FIRST_BAD = range(4)
N_TOTALS = 4

# SplitMix64 (Steele, Lea, Flood 2014): word j of a sequence that starts at s is mixed(s + GOLDEN (j + 1)).
GOLDEN, MIX_1, MIX_2, WORDS = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 1 << 64


def mixed(z: int) -> int:
    """64 bits, each of which depends on all of z's."""
    z = (z ^ (z >> 30)) * MIX_1 % WORDS
    z = (z ^ (z >> 27)) * MIX_2 % WORDS
    return z ^ (z >> 31)


def dropout_start(draw: In) -> int:
    """Where SplitMix64 starts for `dropout` with a draw on the host.

    The elements, in C order, have the low half of its first word, the high half, the low half of the second, …
    """
    key, turn = draw.tolist()
    return mixed((key + GOLDEN * turn) % WORDS)


def dropout_threshold(rate: float) -> int:
    """Elements whose 32 bits are below it are dropped."""
    return min(round(rate * 2**32), 2**32 - 1)


class ScratchPool(threading.local):
    """What one thread keeps between calls, arrays by what they are for: threads share no scratch memory."""

    def __init__(self) -> None:
        self.arrays: dict[Any, Array] = {}
        self.tf32 = False


class Backend(ABC):
    """One device and its operations, for any number of threads: each has scratch memory of its own between calls."""

    name: str  # "cpu" or "cuda:0"
    kernels: str  # what runs the element-wise passes: "numpy", "numba", "cupy"
    xp: Any  # the plain namespace for cold paths
    records = False  # whether `record` works here
    forks = False  # whether gradients of weights run beside those of inputs in a recording
    # Multiplications of a net's largest product from which on mixed precision makes its steps faster.
    least_bfloat16: int = 0
    mixes_with: str = ""  # the library that multiplies bfloat16, with its version, where the bits depend on it
    slow_bfloat16: str = ""  # why products of bfloat16 are no faster here than those of float32, in one line
    slow_tf32: str = "TF32 is a format of NVIDIA's GPUs"  # the same of products with TF32's 10 bits of mantissa

    def __init__(self) -> None:
        self.pool = ScratchPool()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} on {self.name}, kernels {self.kernels}>"

    @property
    def tf32(self) -> bool:
        """Whether this thread's products of float32 are to take operands with TF32's 10 bits of mantissa, now."""
        return self.pool.tf32

    @tf32.setter
    def tf32(self, tf32: bool) -> None:
        self.pool.tf32 = tf32

    def __copy__(self) -> Self:
        """Itself: a backend stands for a device, and a copied model stays there."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by name: where it is read, the device is looked for again."""
        return type(self), ()

    @abstractmethod
    def session(self) -> AbstractContextManager[Any]:
        """Context in which hot code runs: the device made current, floating-point warnings off (losses are checked)."""

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record the operations that `work` issues, without running them; a call of the result runs them all.

        On CUDA one graph launch. Arrays are recorded by their places in memory, which must outlive the recording, and
        numbers by their values; so what changes from step to step lies in device arrays. `work` is called once, and
        must have run before on arrays of these shapes: operations may allocate scratch memory at their first call.
        Raises CaptureError, saying why, where something cannot be recorded; nothing has been run then.
        """
        raise CaptureError(f"{self.name} runs operations one by one: it has no graphs")

    def join(self) -> None:  # noqa: B027  # where nothing forks there is nothing to join
        """After a backward pass: what comes next also comes after everything that `affine_backward` has forked."""

    # -- memory ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def empty(self, shape: int | tuple[int, ...], dtype: Any = "float32") -> Array:
        """A new C-contiguous array, aligned to 64 bytes, contents undefined."""

    @abstractmethod
    def asarray(self, host: Any, dtype: Any = None) -> Array:
        """Copy of an array (or the array itself where it already lies on this device), C-contiguous, native byte order.

        Raises InputError for masked arrays, sparse matrices, and what lies where this device cannot reach it.
        """

    @abstractmethod
    def to_host(self, array: Array) -> Any:
        """The array as numpy.ndarray; waits for the device. Cold paths only."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until every operation that was issued has finished."""

    @abstractmethod
    def memory(self) -> dict[str, int]:
        """Bytes: `peak` of this process on the device, and `total` of the device (0 where unknown)."""

    @abstractmethod
    def copy(self, source: In, out: Out) -> None:
        """out[...] = source, cast to out's dtype; `source` may be a host array or a scalar. Cold on CUDA."""

    def zeros(self, shape: int | tuple[int, ...], dtype: Any = "float32") -> Array:
        """A new array of zeros, aligned as `empty` is."""
        out = self.empty(shape, dtype)
        self.copy(0, out)
        return out

    # -- scratch memory: what an operation needs beside its operands is allocated at its first call -------------------

    def scratch(self, purpose: str, shape: int | tuple[int, ...], dtype: Any) -> Array:
        """One uninitialised array for each purpose, shape and dtype."""
        key, arrays = (purpose, shape, dtype), self.pool.arrays
        found = arrays.get(key)
        if found is None:
            found = arrays[key] = self.empty(shape, dtype)
        return found

    def scratch_up_to(self, purpose: str, shape: tuple[int, ...], dtype: Any) -> Array:
        """Scratch that shapes of up to a power of two elements share, since short batches come in all sizes."""
        size = math.prod(shape)
        return self.scratch(purpose, 1 << max(0, size - 1).bit_length(), dtype)[:size].reshape(shape)

    def constant(self, purpose: str, key: tuple[Any, ...], make: Callable[[], Array]) -> Array:
        """An array that never changes, made by `make` at the first call."""
        full, arrays = (purpose, key), self.pool.arrays
        found = arrays.get(full)
        if found is None:
            with self.session():
                found = arrays[full] = make()
        return found

    # -- products -------------------------------------------------------------------------------------------------

    @abstractmethod
    def gemm(self, a: In, b: In, out: Out, transpose_a: bool = False, transpose_b: bool = False) -> None:
        """out = op(a) op(b), op transposing where asked; all two-dimensional.

        a and b may both be bfloat16, and out then either.
        """

    @abstractmethod
    def affine(self, x: In, weight: In, bias: In, activation: str, out: Out) -> None:
        """out = f(x Wᵀ + b): x (n, d), weight (u, d), bias (u,) or None, out (n, u).

        x and weight may both be bfloat16, and out then either; bias is float32.
        """

    @abstractmethod
    def to_bfloat16(self, x: In, out: Out) -> None:
        """out, bfloat16, = x, float32, of the same shape."""

    # -- images: x (n, c, h, w), filters (u, c, k, k), stride 1 --------------------------------------------------------

    @abstractmethod
    def conv2d(
        self, x: In, weight: In, bias: In, activation: str, padding: int, pool: int, out: Out, place: Out
    ) -> None:
        """out = maxpool(f(x ⋆ weight + b)), ⋆ the cross-correlation, x with `padding` < k zeros on all four sides.

        bias (u,) or None; out (n, u, h'//pool, w'//pool), h' = h + 2·padding − k + 1; place as in `maxpool2d`, None
        where pool is 1. f is monotone, so the maximum may be taken before f.
        """

    @abstractmethod
    def conv2d_backward(
        self, x: In, weight: In, padding: int, pool: int, place: In, dz: In, weight_grad: Out, bias_grad: Out, dx: Out
    ) -> None:
        """Gradients of `conv2d` from dz = ∂L/∂y ∘ f'(z) in the shape of its output, and the place that it wrote.

        weight_grad and bias_grad may both be None, and so may dx (n, c, h, w), where nobody needs them.
        """

    @abstractmethod
    def maxpool2d(self, x: In, size: int, out: Out, place: Out) -> None:
        """Maxima of windows of size × size, side by side: x (n, c, h, w), out (n, c, h//size, w//size).

        place, uint8 of out's shape or None, is where in its window the first maximum stood, row · size + column. A
        window with a NaN has the maximum NaN, and any place.
        """

    @abstractmethod
    def maxpool2d_backward(self, dy: In, place: In, size: int, dx: Out) -> None:
        """dx = dy at the places of the maxima, 0 elsewhere."""

    @abstractmethod
    def conv2d_avgpool(
        self, x: In, weight: In, bias: In, activation: str, padding: int, size: int, stride: int, out: Out
    ) -> None:
        """out = avgpool(f(x ⋆ weight + b)), as `conv2d` without a pool and `avgpool2d`; out (n, u, h', w').

        The maps between, (n, u, …), are never there as a whole, however many images and filters; an image gives the
        same numbers whatever batch it is in.
        """

    @abstractmethod
    def avgpool2d(self, x: In, size: int, stride: int, out: Out) -> None:
        """Averages of windows of size × size, the next one `stride` further: x (n, c, h, w), out (n, c, h', w').

        h' = (h − size)//stride + 1. Windows overlap where stride < size; a NaN or infinity reaches those it is in.
        """

    @abstractmethod
    def avgpool2d_backward(self, dy: In, size: int, stride: int, dx: Out) -> None:
        """dx = for every element the sum over its windows of dy / size²."""

    # -- element-wise ---------------------------------------------------------------------------------------------

    @abstractmethod
    def activate(self, activation: str, z: In, out: Out) -> None:
        """out = f(z), any shape; out may be z. A NaN stays NaN.

        relu max(z, 0), sigmoid 1/(1 + e^−z), tanh, leaky_relu max(z, LEAK · z); identity z.
        """

    @abstractmethod
    def activation_backward(self, activation: str, y: In, dy: In, dz: Out, bias_grad: Out) -> None:
        """dz = dy ∘ f'(z), written with y = f(z); bias_grad = Σ over rows of dz, or None. dz may be dy.

        relu' = [y > 0], sigmoid' = y(1 − y), tanh' = 1 − y², leaky_relu' = 1 where y > 0, else LEAK.

        All (n, u); without bias_grad also of any other shape (n, …). y and dz may each be bfloat16, dz of (n, u) alone
        and then not dy; the sum is of dz before it is rounded.
        """

    @abstractmethod
    def gelu(self, x: In, by_tanh: bool, out: Out) -> None:
        """out = x Φ(x), Φ the normal distribution's; any shape, out may be x.

        by_tanh: ½ (1 + tanh(√(2/π) (x + 0.044715 x³))) in place of Φ (Hendrycks & Gimpel 2016, section 2).
        """

    @abstractmethod
    def gelu_backward(self, x: In, dy: In, by_tanh: bool, dx: Out) -> None:
        """dx = dy ∘ gelu'(x), gelu' = Φ(x) + x φ(x); any shape, dx may be dy. Far from 0 the slope is 0 or 1."""

    @abstractmethod
    def dropout(self, x: In, rate: float, draw: In, out: Out) -> None:
        """out = x ∘ [u ≥ rate] / (1 − rate), 0 ≤ rate < 1; any shape, out may be x. What is dropped is 0, were it NaN.

        draw (2,) int64 is (key, pass): `dropout_start` says what the uniform numbers u follow from, the same on every
        device. No mask is kept: the map is its own transpose, so of ∂L/∂out it gives ∂L/∂x while the draw stays.
        """

    @abstractmethod
    def redraw(self, draws: Out) -> None:
        """The next pass of each draw: draws[:, 1] += 1; draws (k, 2) int64."""

    @abstractmethod
    def gather(self, dataset: In, order: In, cursor: In, scale: float, out: Out) -> None:
        """out = scale · dataset[order[c : c + n]], c = cursor[0], cast to out's dtype.

        dataset (N, …) of any real dtype, order (N,) int64, cursor (1,) int64, out (n, …), of floats also bfloat16: the
        product of float32. Rows that are not there are taken at the data set's ends.
        """

    @abstractmethod
    def tick(self, scalars: Out) -> None:
        """Count one step, before the optimiser's: scalars[…, STEP] += 1, scalars[…, SECOND_STEP] += 1."""

    # -- batch normalisation: x (n, c, …); weight, bias, running_mean and running_var (c,) -----------------------------
    # statistics (2, c), float64, are each channel's mean μ and 1/√(variance + ε); x̂ = (x − μ)/√(variance + ε).

    @abstractmethod
    def batch_statistics(
        self, x: In, of_batch: bool, momentum: float, epsilon: float, running_mean: Out, running_var: Out,
        statistics: Out,
    ) -> None:  # fmt: skip
        """The statistics of the batch, with its biased variance, or those that run; sums are of float64.

        of_batch: running_mean += momentum · (μ − running_mean), running_var likewise with the unbiased variance, of
        m / (m − 1) times, m the numbers of a channel, at least 2. Else both are only read.
        """

    @abstractmethod
    def normalise(self, x: In, statistics: In, weight: In, bias: In, out: Out) -> None:
        """out = weight · x̂ + bias, in x's shape."""

    @abstractmethod
    def normalise_backward(
        self, x: In, statistics: In, weight: In, dy: In, of_batch: bool, weight_grad: Out, bias_grad: Out, dx: Out
    ) -> None:
        """weight_grad = Σ dy x̂ and bias_grad = Σ dy over each channel, both None where nobody needs them.

        dx, or None: weight/√(variance + ε) · (dy − bias_grad/m − x̂ weight_grad/m) where the statistics are the batch's
        and follow x, without the two means where they are not.
        """

    # -- losses: integer labels (n,), outputs z (n, k) before the last activation ----------------------------------
    # Callers check labels. One that is no class all the same is never used as a place: the CPU raises DataError, on
    # CUDA L becomes NaN.

    @abstractmethod
    def softmax_cross_entropy(self, z: In, labels: In, scale: float, dz: Out, totals: Out) -> None:
        """L = Σ over samples of −log softmax(z)[label]; dz = scale · ∂L/∂z; totals += (L, correct, n, …)."""

    @abstractmethod
    def binary_cross_entropy(self, z: In, labels: In, scale: float, dz: Out, totals: Out) -> None:
        """L = Σ over samples and outputs of −t log σ(z) − (1−t) log(1−σ(z)); dz = scale · ∂L/∂z.

        t is the one-hot label, or the label itself (0 or 1) when k = 1.
        """

    @abstractmethod
    def squared_error(self, activation: str, z: In, labels: In, scale: float, dz: Out, totals: Out) -> None:
        """L = Σ over samples and outputs of ½(f(z) − t)²; dz = scale · ∂L/∂z; t as above.

        labels may be targets t (n, k) of z's dtype in their place, which have no correct answers.
        """

    def weigh(self, slopes: Out, weights: In) -> None:
        """Row i of slopes (n, k) times weights[i]; weights (n,) of the same dtype."""
        self.xp.multiply(slopes, weights[:, None], out=slopes)

    # -- optimisers: flat arrays (p,); the first `decayed` parameters carry the L2 term λ‖w‖², gradient 2λw; the new
    # parameters are written to `rounded` (p,) in bfloat16 too, unless that is None ------------------------------------

    @abstractmethod
    def sgd(self, params: Out, grads: In, scalars: In, decayed: int, rounded: Out = None) -> None:
        """params −= η g."""

    @abstractmethod
    def momentum(self, params: Out, grads: In, velocity: Out, scalars: In, decayed: int, rounded: Out = None) -> None:
        """v = β₁ v + g; params −= η v."""

    @abstractmethod
    def adam(
        self, params: Out, grads: In, first: Out, second: Out, scalars: In, decayed: int, decoupled: bool = False,
        rounded: Out = None,
    ) -> None:  # fmt: skip
        """Adam (Kingma & Ba 2015, algorithm 1) with its state kept as M = m/(1−β₁), V = v/(1−β₂).

        M = β₁M + g, V = β₂V + g², params −= η·m̂/(√v̂ + ε): the two factors move into scalars and save two passes.
        m̂ counts its steps by STEP, v̂ by SECOND_STEP. decoupled is AdamW (Loshchilov & Hutter 2019, algorithm 2, with η
        in the decay as in PyTorch): the decayed parameters become (1 − ηλ) params first, λ at L2, and g has no term.
        """

    # -- compositions: each means what its body does, and may be fewer launches --------------------------------------

    def take_batch(
        self, data: In, labels: In, order: In, cursor: Out, scale: float, out: Out, labels_out: Out, clocks: Out
    ) -> None:
        """A step begins: the next n samples are gathered, cursor += n, and the clocks (c, N_SCALARS) tick.

        labels (N,) int64 with labels_out (n,) int64, and clocks, may be None.
        """
        self.gather(data, order, cursor, scale, out)
        if labels_out is not None:
            self.gather(labels, order, cursor, 1, labels_out)
        cursor += len(out)
        if clocks is not None:
            self.tick(clocks)

    def affine_loss(
        self, x: In, weight: In, bias: In, z: Out, loss: str, options: tuple[str, ...], labels: In, scale: float,
        dz: Out, totals: Out, bias_grad: Out,
    ) -> None:  # fmt: skip
        """z = x Wᵀ + b, the loss of that name and its `options` of it, and bias_grad = Σ over rows of dz, or None.

        x and weight may both be bfloat16; all else is float32 then.
        """
        self.affine(x, weight, bias, "identity", z)
        getattr(self, loss)(*options, z, labels, scale, dz, totals)
        if bias_grad is not None:
            self.activation_backward("identity", z, dz, dz, bias_grad)

    def affine_backward(
        self, dz: In, x: In, weight: In, weight_grad: Out, dx: Out, activation: str, bias_grad: Out
    ) -> None:
        """Gradients of x Wᵀ, where x = f(z') are a layer's outputs: weight_grad = dzᵀ x, dx = (dz W) ∘ f'(z').

        bias_grad = Σ over rows of dx is that layer's. Each of the three may be None, the last one must be without dx.
        Where the device forks, weight_grad is there after `join`, and dz and x stay as they are until then.
        dz, x and weight may all be bfloat16, weight_grad and dx then either; bias_grad sums dx before it is rounded.
        """
        if weight_grad is not None:
            self.gemm(dz, x, weight_grad, transpose_a=True)
        if dx is not None:
            if activation == "identity" and bias_grad is None:
                self.gemm(dz, weight, dx)
                return
            dy = dx if dx.dtype != BFLOAT16 else self.scratch_up_to("slopes in float32", dx.shape, "float32")
            self.gemm(dz, weight, dy)
            self.activation_backward(activation, x, dy, dx, bias_grad)
