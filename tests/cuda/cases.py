"""Every operation of a training step as a case that any backend can run, on shapes that are friendly and ragged.

A case draws its arrays as float64 numbers that float32 holds exactly, so that NumPy in float64 is the oracle of both
dtypes. What a mixed case gives as `half` is drawn so that bfloat16 holds it, and the oracle's unrounded results tell
between which two numbers the rounded ones lie.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpunet.backend import Backend
from gpunet.backend.base import N_SCALARS, N_SETTLED
from gpunet.backend.numpy_backend import NumpyBackend

from .halves import bits, half_even

Arrays = tuple[np.ndarray, ...]


class Emulation(NumpyBackend):
    """NumPy with products of bfloat16 in float32, whatever library there is."""

    bfloat16, mixes_with, slow_bfloat16, least_bfloat16 = None, "", "", 0


@dataclass
class Bench:
    """A backend, a dtype, and how many elements beyond an aligned address every array begins.

    mixed: arrays that are asked for as `half` hold bfloat16.
    """

    backend: Backend
    dtype: str
    offset: int = 0
    mixed: bool = False

    def give(self, array: np.ndarray, as_it_is: bool = False, half: bool = False) -> Any:
        """A copy on the device; floats in the bench's dtype unless `as_it_is`."""
        if half and self.mixed:
            array = bits(array)
        dtype = self.dtype if array.dtype.kind == "f" and not as_it_is else array.dtype
        out = self.room(array.shape, dtype)
        self.backend.copy(np.ascontiguousarray(array, dtype), out)
        return out

    def room(self, shape: Any, dtype: Any = None, half: bool = False) -> Any:
        """Memory with undefined contents."""
        dtype = "uint16" if half and self.mixed else dtype
        shape = (shape,) if isinstance(shape, int) else shape
        size = int(np.prod(shape))
        return self.backend.empty(size + self.offset, dtype or self.dtype)[self.offset :].reshape(shape)


@dataclass(frozen=True)
class Case:
    """draw(rng) gives host arrays; run(bench, *arrays) gives arrays of the bench's backend, sums of `terms` terms."""

    name: str
    draw: Callable[[np.random.Generator], Arrays]
    run: Callable[..., tuple[Any, ...]]
    terms: int = 1
    mixed: bool = False


def single(a: np.ndarray) -> np.ndarray:
    """Rounded to float32 numbers."""
    return a.astype("float32").astype("float64")


def normal(*shapes: Any) -> Callable[[np.random.Generator], Arrays]:
    return lambda rng: tuple(single(rng.normal(size=shape)) for shape in shapes)


def halves(*shapes: Any) -> Callable[[np.random.Generator], Arrays]:
    return lambda rng: tuple(half_even(rng.normal(size=shape)) for shape in shapes)


def results(bench: Bench, found: tuple[Any, ...]) -> Arrays:
    return tuple(np.array(bench.backend.to_host(each)) for each in found)


def real(backend: Backend) -> bool:
    """Whether it computes on a GPU, which takes denormal numbers for 0 and has no guards around its arrays."""
    return backend.xp.__name__ == "cupy"


def check_guards(backend: Backend) -> None:
    """Nothing was written outside of any array, as far as that can be seen."""
    if not real(backend):
        backend.xp.machine.check_guards()


# -- element-wise ----------------------------------------------------------------------------------------------------


def activate(activation: str) -> Callable[..., tuple[Any, ...]]:
    def run(bench: Bench, z: np.ndarray) -> tuple[Any, ...]:
        out = bench.room(z.shape)
        bench.backend.activate(activation, bench.give(z), out)
        return (out,)

    return run


def to_bfloat16(bench: Bench, x: np.ndarray) -> tuple[Any, ...]:
    given = bench.give(x)
    if not bench.mixed:
        return (given,)
    out = bench.room(x.shape, half=True)
    bench.backend.to_bfloat16(given, out)
    return (out,)


def backward(activation: str, with_bias: bool, in_place: bool, half: str = "") -> Callable[..., tuple[Any, ...]]:
    """half: which of "y" and "dz" are bfloat16 in a mixed case."""

    def run(bench: Bench, y: np.ndarray, dy: np.ndarray) -> tuple[Any, ...]:
        given = bench.give(dy)
        dz = given if in_place else bench.room(dy.shape, half="dz" in half)
        grad = bench.room(dy.shape[1]) if with_bias else None
        bench.backend.activation_backward(activation, bench.give(y, half="y" in half.split()), given, dz, grad)
        return (dz, grad) if with_bias else (dz,)

    return run


def gelu(by_tanh: bool, in_place: bool) -> Callable[..., tuple[Any, ...]]:
    def run(bench: Bench, x: np.ndarray, dy: np.ndarray) -> tuple[Any, ...]:
        given, slopes, out = bench.give(x), bench.give(dy), bench.room(x.shape)
        dx = slopes if in_place else bench.room(dy.shape)
        bench.backend.gelu(given, by_tanh, out)
        bench.backend.gelu_backward(given, slopes, by_tanh, dx)
        return out, dx

    return run


def affine(activation: str, with_bias: bool = True, rounds: bool = False) -> Callable[..., tuple[Any, ...]]:
    """rounds: whether out is bfloat16 in a mixed case, as x and weight are."""

    def run(bench: Bench, x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> tuple[Any, ...]:
        out = bench.room((len(x), len(weight)), half=rounds)
        given = bench.give(x, half=True), bench.give(weight, half=True), bench.give(bias) if with_bias else None
        bench.backend.affine(*given, activation, out)
        return (out,)

    return run


def gemm(transpose_a: bool, transpose_b: bool, rounds: bool) -> Callable[..., tuple[Any, ...]]:
    """Of a (n, d) and b (d, u), as they are or their transposes."""

    def run(bench: Bench, a: np.ndarray, b: np.ndarray) -> tuple[Any, ...]:
        out = bench.room((len(a), b.shape[1]), half=rounds)
        given = bench.give(a.T if transpose_a else a, half=True), bench.give(b.T if transpose_b else b, half=True)
        bench.backend.gemm(*given, out, transpose_a, transpose_b)
        return (out,)

    return run


def dropout(rate: float, in_place: bool) -> Callable[..., tuple[Any, ...]]:
    """The elements of one pass, of the next with the other key, and the draws after both."""

    def run(bench: Bench, x: np.ndarray) -> tuple[Any, ...]:
        draws, outs = bench.give(np.array([[2**62 + 11, 0], [-7, 2**40]])), []
        for draw in draws:
            given = bench.give(x)
            outs.append(given if in_place else bench.room(x.shape))
            bench.backend.redraw(draws)
            bench.backend.dropout(given, rate, draw, outs[-1])
        return (*outs, draws)

    return run


# -- batches ---------------------------------------------------------------------------------------------------------


def pixels(shape: tuple[int, ...], dtype: str) -> Callable[[np.random.Generator], Arrays]:
    def draw(rng: np.random.Generator) -> Arrays:
        return rng.integers(0, 120, shape).astype(dtype), rng.permutation(shape[0]), np.array([2])

    return draw


def gather(scale: float) -> Callable[..., tuple[Any, ...]]:
    def run(bench: Bench, data: np.ndarray, order: np.ndarray, cursor: np.ndarray) -> tuple[Any, ...]:
        rows = (len(data) - 2) // 2
        out, place = bench.room((rows, *data.shape[1:]), half=True), bench.give(cursor)
        again = bench.room((rows, *data.shape[1:]), half=True)
        given = bench.give(data, as_it_is=True), bench.give(order)
        labels, clocks = bench.room(rows, "int64"), bench.room((2, N_SCALARS), "float64")
        pairs = bench.room((rows, 2), "int64")
        bench.backend.copy(np.array([[0.01, 0.9, 0.999, 1e-8, 0, step, 3, 0, 0] for step in (0, 7)]), clocks)
        classes = bench.give(np.arange(len(data)) % 5)
        bench.backend.take_batch(given[0], classes, given[1], place, scale, out, labels, clocks)
        bench.backend.gather(*given, place, scale, again)
        whole = bench.give(np.stack([np.arange(len(data)), np.full(len(data), -(2**62))], axis=1))
        bench.backend.gather(whole, given[1], place, 1, pairs)
        rest = bench.room(again.shape, half=True)
        bench.backend.take_batch(given[0], None, given[1], place, scale, rest, None, None)
        return out, labels, clocks[:, :N_SETTLED], again, pairs, rest, place

    return run


# -- the last layer: (n, inputs) to k outputs --------------------------------------------------------------------------


def head(n: int, inputs: int, k: int, half: bool = False) -> Callable[[np.random.Generator], Arrays]:
    draw = (halves if half else normal)((n, inputs), (k, inputs), k, (n, k))
    return lambda rng: (*draw(rng), rng.integers(0, max(2, k), n))


def affine_loss(name: str, *options: str, bias: bool = True) -> Callable[..., tuple[Any, ...]]:
    def run(bench: Bench, x: Any, weight: Any, shift: Any, dz: Any, labels: Any) -> tuple[Any, ...]:
        z, slopes, sums, totals = (
            bench.room(dz.shape),
            bench.room(dz.shape),
            bench.room(len(weight)),
            bench.room(4, "float64"),
        )
        bench.backend.copy(np.array([1.5, 2, 3, -1]), totals)
        x = x / 2.0 ** round(np.log2(x.shape[1]) / 2)
        given = bench.give(x, half=True), bench.give(weight, half=True)
        scores = *given, bench.give(shift) if bias else None, z
        bench.backend.affine_loss(*scores, name, options, bench.give(labels), 1 / 8, slopes, totals, sums)
        return z, slopes, totals, sums

    return run


def affine_backward(
    activation: str, wanted: str = "weight_grad dx bias_grad", half: str = ""
) -> Callable[..., tuple[Any, ...]]:
    """half: which of the results are bfloat16 in a mixed case, as all operands are."""

    def run(bench: Bench, x: Any, weight: Any, _: Any, dz: Any, labels: Any) -> tuple[Any, ...]:
        shapes = {"weight_grad": weight.shape, "dx": x.shape, "bias_grad": x.shape[1]}
        outs = {
            name: bench.room(shape, half=name in half.split()) if name in wanted.split() else None
            for name, shape in shapes.items()
        }
        given = (bench.give(each, half=True) for each in (dz, x, weight))
        bench.backend.affine_backward(*given, outs["weight_grad"], outs["dx"], activation, outs["bias_grad"])
        return tuple(out for out in outs.values() if out is not None)

    return run


# -- batch normalisation -----------------------------------------------------------------------------------------------


def batch_norm(of_batch: bool, *wanted: str) -> Callable[..., tuple[Any, ...]]:
    """Statistics, what runs, outputs, and of the gradients those that are wanted: "parameters", "dx"."""

    def run(bench: Bench, x: np.ndarray, dy: np.ndarray, *rows: np.ndarray) -> tuple[Any, ...]:
        weight, bias, mean, variance = map(bench.give, (*rows[:3], rows[3] ** 2))
        given, statistics, out = bench.give(x), bench.room((2, x.shape[1]), "float64"), bench.room(x.shape)
        bench.backend.batch_statistics(given, of_batch, 0.1, 1e-5, mean, variance, statistics)
        bench.backend.normalise(given, statistics, weight, bias, out)
        sums = [bench.room(bias.shape) if "parameters" in wanted else None for _ in range(2)]
        dx = bench.room(x.shape) if "dx" in wanted else None
        bench.backend.normalise_backward(given, statistics, weight, bench.give(dy), of_batch, *sums, dx)
        return tuple(each for each in (statistics, mean, variance, out, *sums, dx) if each is not None)

    return run


# -- losses ----------------------------------------------------------------------------------------------------------


def scores(n: int, k: int) -> Callable[[np.random.Generator], Arrays]:
    def draw(rng: np.random.Generator) -> Arrays:
        labels = rng.integers(0, max(2, k), n)
        labels[0], labels[-1] = 0, max(2, k) - 1
        return single(rng.normal(size=(n, k)) * 3), labels

    return draw


def loss(name: str, activation: str = "") -> Callable[..., tuple[Any, ...]]:
    def run(bench: Bench, z: np.ndarray, labels: np.ndarray) -> tuple[Any, ...]:
        dz, totals = bench.room(z.shape), bench.room(4, "float64")
        bench.backend.copy(np.array([1.5, 2, 3, -1]), totals)
        if name == "values":  # targets in place of labels
            labels = single(np.cos(z + np.arange(z.shape[1])))
        given = bench.give(z), bench.give(labels), 1 / 8, dz, totals
        bench.backend.squared_error(activation, *given) if activation else getattr(bench.backend, name)(*given)
        return dz, totals

    return run


# -- optimisers ------------------------------------------------------------------------------------------------------


def optimiser(name: str, states: int, decayed: int, *options: bool) -> Callable[..., tuple[Any, ...]]:
    def run(bench: Bench, params: np.ndarray, *gradients: np.ndarray) -> tuple[Any, ...]:
        scalars = bench.room(N_SCALARS, "float64")
        bench.backend.copy(np.array([0.01, 0.9, 0.999, 1e-8, 0.003, 4, 0, 0, 0]), scalars)
        given = bench.give(params)
        kept = [bench.give(np.zeros(len(params))) for _ in range(states)]
        rounded = bench.room(len(params), half=True) if bench.mixed else None
        for gradient in gradients:
            bench.backend.tick(scalars)
            step = bench.give(gradient), *kept, scalars, decayed, *options
            getattr(bench.backend, name)(given, *step, rounded=rounded)
        return given, *kept, scalars[:N_SETTLED], given if rounded is None else rounded

    return run


# -- images: (n, channels, rows, columns, filters, kernel, padding, pool, activation) ----------------------------------


def conv(sizes: tuple[Any, ...]) -> Case:
    n, channels, rows, columns, filters, k, padding, pool, activation = sizes
    pooled = (n, filters, (rows + 2 * padding - k + 1) // pool, (columns + 2 * padding - k + 1) // pool)

    def run(bench: Bench, x: np.ndarray, weight: np.ndarray, bias: np.ndarray, slopes: np.ndarray) -> tuple[Any, ...]:
        given, weights, out = bench.give(x), bench.give(weight), bench.room(pooled)
        place = bench.room(pooled, "uint8") if pool > 1 else None
        bench.backend.conv2d(given, weights, bench.give(bias), activation, padding, pool, out, place)
        grads = [bench.room(a.shape) for a in (weight, bias, x)]
        bench.backend.conv2d_backward(given, weights, padding, pool, place, bench.give(slopes), *grads)
        return out, *grads, *([] if place is None else [place])

    draw = normal((n, channels, rows, columns), (filters, channels, k, k), filters, pooled)
    terms = max(channels * k * k, n * pooled[2] * pooled[3], filters * k * k)
    return Case(f"conv {sizes}", draw, run, terms)


def avgpool(shape: tuple[int, ...], size: int, stride: int) -> Case:
    def run(bench: Bench, x: np.ndarray, slopes: np.ndarray) -> tuple[Any, ...]:
        out, dx = bench.room(slopes.shape), bench.room(x.shape)
        bench.backend.avgpool2d(bench.give(x), size, stride, out)
        bench.backend.avgpool2d_backward(bench.give(slopes), size, stride, dx)
        return out, dx

    pooled = (*shape[:2], *((n - size) // stride + 1 for n in shape[2:]))
    return Case(f"avgpool {size} {stride} {shape}", normal(shape, pooled), run, size**2)


def conv_average(sizes: tuple[Any, ...]) -> Case:
    """(n, channels, rows, columns, filters, kernel, padding, size, stride, activation)."""
    n, channels, rows, columns, filters, k, padding, size, stride, activation = sizes
    averages = (n, filters, *((length + 2 * padding - k + 1 - size) // stride + 1 for length in (rows, columns)))

    def run(bench: Bench, x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> tuple[Any, ...]:
        given, weights, out, plain = bench.give(x), bench.give(weight), bench.room(averages), bench.room(averages)
        bench.backend.conv2d_avgpool(given, weights, bench.give(bias), activation, padding, size, stride, out)
        bench.backend.conv2d_avgpool(given, weights, None, activation, padding, size, stride, plain)
        return out, plain

    draw = normal((n, channels, rows, columns), (filters, channels, k, k), filters)
    return Case(f"conv average {sizes}", draw, run, channels * k * k + size)


def maxpool(shape: tuple[int, ...], size: int) -> Case:
    def run(bench: Bench, x: np.ndarray, slopes: np.ndarray) -> tuple[Any, ...]:
        out, place, dx = bench.room(slopes.shape), bench.room(slopes.shape, "uint8"), bench.room(x.shape)
        again = bench.room(slopes.shape)
        bench.backend.maxpool2d(bench.give(x), size, out, place)
        bench.backend.maxpool2d(bench.give(x), size, again, None)
        bench.backend.maxpool2d_backward(bench.give(slopes), place, size, dx)
        return out, place, again, dx

    pooled = (*shape[:2], shape[2] // size, shape[3] // size)

    def draw(rng: np.random.Generator) -> Arrays:
        return rng.integers(-3, 4, shape).astype("float64"), single(rng.normal(size=pooled))

    return Case(f"maxpool {size} {shape}", draw, run)
