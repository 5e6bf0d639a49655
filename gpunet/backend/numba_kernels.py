"""Element-wise passes fused into single loops by numba: the optional faster half of the CPU backend.

What was measured decides their form; each of these traps cost a factor of three to ten:

- Single-threaded: numba's thread pool and OpenBLAS's fight over the cores.
- `error_model="numpy"`: the division check of the default stops vectorisation.
- Loops run over `range(array.size)`, never from an argument: numba then knows that no index is negative.
- No array is passed twice: LLVM's overlap check would send the loop down its scalar path. So what may be computed in
  place is computed in place only.
- Selects are `x if c else zero`, never `x if c else 0 * x` or `load if c else 0`.
- A label or a row that comes from an array is compared with its range before it is an index: nothing else does it.

NaN must survive, since a NaN loss is how divergence is noticed: so fast-math without `nnan` and `ninf`.
"""

from __future__ import annotations

import math

import numba

from gpunet.backend.numba_cache import cached

FASTMATH = {"reassoc", "nsz", "arcp", "contract", "afn"}


def kernel(function):  # type: ignore[no-untyped-def]
    """Compiled at its first call, or taken from the cache."""
    return cached(numba.njit(nogil=True, error_model="numpy", fastmath=FASTMATH)(function))


@kernel
def bias_identity(out, bias):  # type: ignore[no-untyped-def]
    """out += bias."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] += bias[j]


@kernel
def bias_relu(out, bias):  # type: ignore[no-untyped-def]
    """out = max(out + bias, 0); NaN stays NaN."""
    zero = bias.dtype.type(0)
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            z = out[i, j] + bias[j]
            out[i, j] = zero if z < 0 else z


@kernel
def relu_backward(y, dz, bias_grad):  # type: ignore[no-untyped-def]
    """dz = dz [y > 0], bias_grad = Σ over rows of dz."""
    zero = y.dtype.type(0)
    bias_grad[:] = 0
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            d = dz[i, j]
            d = d if y[i, j] > 0 else zero
            dz[i, j] = d
            bias_grad[j] += d


@kernel
def sigmoid_backward(y, dz, bias_grad):  # type: ignore[no-untyped-def]
    """dz = dz y (1 − y), bias_grad = Σ over rows of dz."""
    one = y.dtype.type(1)
    bias_grad[:] = 0
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            d = dz[i, j] * y[i, j] * (one - y[i, j])
            dz[i, j] = d
            bias_grad[j] += d


@kernel
def gather(dataset, order, start, scale, out):  # type: ignore[no-untyped-def]
    """out[i] = scale · dataset[order[start + i]]; places outside are the nearest inside."""
    last, end = dataset.shape[0] - 1, order.size - 1
    for i in range(out.shape[0]):
        row = min(max(order[min(max(start + i, 0), end)], 0), last)
        for j in range(out.shape[1]):
            out[i, j] = dataset[row, j] * scale


@kernel
def sgd(params, grads, rate, twice_l2):  # type: ignore[no-untyped-def]
    """One SGD step."""
    for i in range(params.size):
        params[i] -= rate * (grads[i] + twice_l2 * params[i])


@kernel
def momentum(params, grads, velocity, rate, beta, twice_l2, tiny):  # type: ignore[no-untyped-def]
    """One momentum step; a velocity below `tiny` becomes 0, see `NumpyOptimisers._flush_denormals`."""
    zero = params.dtype.type(0)
    for i in range(params.size):
        v = beta * velocity[i] + (grads[i] + twice_l2 * params[i])
        v = zero if abs(v) < tiny else v
        velocity[i] = v
        params[i] -= rate * v


@kernel
def adam(params, grads, first, second, beta1, beta2, scale, epsilon, twice_l2, tiny):  # type: ignore[no-untyped-def]
    """One Adam step; a moment below `tiny` becomes 0, see `NumpyOptimisers._flush_denormals`."""
    zero = params.dtype.type(0)
    for i in range(params.size):
        g = grads[i] + twice_l2 * params[i]
        m = beta1 * first[i] + g
        v = beta2 * second[i] + g * g
        m = zero if abs(m) < tiny else m
        v = zero if v < tiny else v
        first[i] = m
        second[i] = v
        params[i] -= scale * m / (math.sqrt(v) + epsilon)


@kernel
def softmax_cross_entropy(z, labels, scale, dz):  # type: ignore[no-untyped-def]
    """dz = scale · (softmax(z) − onehot); returns (loss, correct). See `Backend.softmax_cross_entropy`."""
    loss, correct = 0.0, 0
    for i in range(z.shape[0]):
        best, top = 0, z[i, 0]
        for j in range(1, z.shape[1]):
            if z[i, j] > top:
                best, top = j, z[i, j]
        total = z.dtype.type(0)
        for j in range(z.shape[1]):
            e = math.exp(z[i, j] - top)
            dz[i, j] = e
            total += e
        factor = scale / total
        for j in range(z.shape[1]):
            dz[i, j] *= factor
        label = labels[i]
        if 0 <= label < z.shape[1]:
            loss += math.log(total) - (z[i, label] - top)
            correct += best == label
            dz[i, label] -= scale
        else:
            loss = math.nan
    return loss, correct


@kernel
def binary_cross_entropy(z, labels, scale, dz):  # type: ignore[no-untyped-def]
    """dz = scale · (σ(z) − t); returns (loss, correct). See `Backend.binary_cross_entropy`."""
    loss, correct, one = 0.0, 0, z.dtype.type(1)
    lone = z.shape[1] == 1
    classes = max(z.shape[1], 2)
    for i in range(z.shape[0]):
        best = 0
        for j in range(z.shape[1]):
            if z[i, j] > z[i, best]:
                best = j
            e = math.exp(-abs(z[i, j]))
            loss += max(z[i, j], 0) + math.log(one + e)
            dz[i, j] = scale * ((one if z[i, j] >= 0 else e) / (one + e))
        label = labels[i]
        if 0 <= label < classes:
            hit = label == 1 if lone else True
            column = 0 if lone else label
            if hit:
                loss -= z[i, column]
                dz[i, column] -= scale
            correct += ((z[i, 0] > 0) == hit) if lone else (best == label)
        else:
            loss = math.nan
    return loss, correct
