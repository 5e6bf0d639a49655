"""The CPU backend with its element-wise passes fused into single loops by numba: optional, and faster.

Products and im2col stay NumPy's. What was measured decides the form of the loops; each of these traps cost a factor of
three to ten:

- No threads of numba's: its pool and OpenBLAS's fight over the cores. Long passes run on OpenBLAS's (`shares`).
- `error_model="numpy"`: the division check of the default stops vectorisation.
- Loops run over `range(array.size)`, never from an argument: numba then knows that no index is negative.
- No array is passed twice: LLVM's overlap check would send the loop down its scalar path. So what may be computed in
  place is computed in place only.
- Selects are `x if c else zero`, never `x if c else 0 * x` or `load if c else 0`.
- A label or a row that comes from an array is compared with its range before it is an index: nothing else does it.

NaN must survive, since a NaN loss is how divergence is noticed: so fast-math without `nnan` and `ninf`.

Of images too only the passes around the products stand here. A direct 3×3 convolution, the nine taps of four filters in
one loop over a plane and pooling fused to it, was no faster forward (64 images of 32×32, 3 channels to 8 filters: 0.72
ms against 0.75) and slower for wider layers (15×15, 8 to 28: 1.38 against 0.77), since LLVM uses half of AVX-512 and
OpenBLAS all of it. What was slow were the passes with short rows. They run along whole planes where they can: LLVM does
not vectorise a loop over 15.

Two threads with half a batch each made plain NumPy slower (forward 1.4 ms to 2.5): its many short calls hand the
interpreter's lock back and forth. So Python stays on one thread, and what others do is compiled: large products, and
passes long enough to be shared out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numba
import numpy as np

from gpunet.backend import numba_norm
from gpunet.backend.base import BFLOAT16, GOLDEN, LEAK, MIX_1, MIX_2, Array, In, Out, dropout_start, dropout_threshold
from gpunet.backend.blas import multiply
from gpunet.backend.numba_cache import kernel
from gpunet.backend.numpy_backend import NumpyBackend, adam_factors, parts_of
from gpunet.backend.numpy_conv import Windows
from gpunet.backend.shares import spread
from gpunet.errors import ShapeError

ROUNDED_BLOCK = 131072  # parameters that are updated before they are rounded: half of a 1 MB second-level cache
OPTIMISER = 1 << 17  # parameters of an optimiser's pass for each thread: with half as many two took as long as one


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
def bias_leaky(out, bias):  # type: ignore[no-untyped-def]
    """out = z where z > 0, else LEAK · z, of z = out + bias; NaN stays NaN."""
    leak = bias.dtype.type(LEAK)
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            z = out[i, j] + bias[j]
            small = leak * z
            out[i, j] = z if z > 0 else small


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
def tanh_backward(y, dz, bias_grad):  # type: ignore[no-untyped-def]
    """dz = dz (1 − y²), bias_grad = Σ over rows of dz."""
    one = y.dtype.type(1)
    bias_grad[:] = 0
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            d = dz[i, j] * (one - y[i, j] * y[i, j])
            dz[i, j] = d
            bias_grad[j] += d


@kernel
def leaky_backward(y, dz, bias_grad):  # type: ignore[no-untyped-def]
    """dz = dz where y > 0, else LEAK · dz; bias_grad = Σ over rows of dz."""
    leak = y.dtype.type(LEAK)
    bias_grad[:] = 0
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            d = dz[i, j]
            small = leak * d
            d = d if y[i, j] > 0 else small
            dz[i, j] = d
            bias_grad[j] += d


@numba.njit(inline="always")
def rounded(x):  # type: ignore[no-untyped-def]
    """The bfloat16 of a float32 number: ties to even, NaN stays NaN."""
    bits = np.float32(x).view(np.uint32)
    up = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return np.uint16((np.uint32(0x7FC00000) if x != x else up) >> np.uint32(16))


@kernel
def rounding_pass(x, out):  # type: ignore[no-untyped-def]
    """out = x in bfloat16."""
    for i in range(x.size):
        out[i] = rounded(x[i])


@kernel
def relu_of_bfloat16(y):  # type: ignore[no-untyped-def]
    """y = max(y, 0); the bits of −0 to −∞ are 0x8000 to 0xFF80."""
    for i in range(y.size):
        bits = y[i]
        negative = (bits >= np.uint16(0x8000)) & (bits <= np.uint16(0xFF80))
        y[i] = np.uint16(0) if negative else bits


@kernel
def relu_backward_in_bfloat16(y, dy, dz, bias_grad):  # type: ignore[no-untyped-def]
    """dz = dy [y > 0], bias_grad = Σ over rows of that; y and dz bfloat16, of which 1 to 0x7F80 are above 0."""
    zero = dy.dtype.type(0)
    bias_grad[:] = 0
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            d = dy[i, j]
            d = d if np.uint16(y[i, j] - np.uint16(1)) < np.uint16(0x7F80) else zero
            dz[i, j] = rounded(d)
            bias_grad[j] += d


# tanh and exp are vectorised in NumPy and not in numba: those passes stay NumPy's.
FORWARD = {"identity": bias_identity, "relu": bias_relu, "leaky_relu": bias_leaky}
BACKWARD = {
    "relu": relu_backward, "sigmoid": sigmoid_backward, "tanh": tanh_backward, "leaky_relu": leaky_backward,
}  # fmt: skip


@kernel
def gather_pass(dataset, order, start, scale, out):  # type: ignore[no-untyped-def]
    """out[i] = scale · dataset[order[start + i]]; places outside are the nearest inside."""
    last, end = dataset.shape[0] - 1, order.size - 1
    for i in range(out.shape[0]):
        row = min(max(order[min(max(start + i, 0), end)], 0), last)
        for j in range(out.shape[1]):
            out[i, j] = dataset[row, j] * scale


@kernel
def gather_in_bfloat16(dataset, order, start, scale, out):  # type: ignore[no-untyped-def]
    """As `gather_pass`, of numbers in float32 that are rounded then."""
    last, end = dataset.shape[0] - 1, order.size - 1
    for i in range(out.shape[0]):
        row = min(max(order[min(max(start + i, 0), end)], 0), last)
        for j in range(out.shape[1]):
            out[i, j] = rounded(np.float32(dataset[row, j]) * scale)


@kernel
def sgd_pass(params, grads, rate, twice_l2):  # type: ignore[no-untyped-def]
    """One SGD step."""
    for i in range(params.size):
        params[i] -= rate * (grads[i] + twice_l2 * params[i])


@kernel
def momentum_pass(params, grads, velocity, rate, beta, twice_l2, tiny):  # type: ignore[no-untyped-def]
    """One momentum step; a velocity below `tiny` becomes 0, see `NumpyBackend._flush_denormals`."""
    zero = params.dtype.type(0)
    for i in range(params.size):
        v = beta * velocity[i] + (grads[i] + twice_l2 * params[i])
        v = zero if abs(v) < tiny else v
        velocity[i] = v
        params[i] -= rate * v


@kernel
def adam_pass(params, grads, first, second, beta1, beta2, scale, epsilon, twice_l2, shrink, tiny):  # type: ignore[no-untyped-def]
    """One Adam step on shrink · params; a moment below `tiny` becomes 0, see `NumpyBackend._flush_denormals`."""
    zero = params.dtype.type(0)
    for i in range(params.size):
        g = grads[i] + twice_l2 * params[i]
        m = beta1 * first[i] + g
        v = beta2 * second[i] + g * g
        m = zero if abs(m) < tiny else m
        v = zero if v < tiny else v
        first[i] = m
        second[i] = v
        params[i] = shrink * params[i] - scale * m / (math.sqrt(v) + epsilon)


@numba.njit
def mixed(z):  # type: ignore[no-untyped-def]
    """`base.mixed` of a uint64; no constant is a plain int, since numba makes floats of uint64 and int64."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(MIX_1)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(MIX_2)
    return z ^ (z >> np.uint64(31))


@kernel
def dropout_pass(x, start, threshold, scale):  # type: ignore[no-untyped-def]
    """x = 0 where its 32 bits are below the threshold, else scale · x; see `base.dropout_start`."""
    zero, golden = x.dtype.type(0), np.uint64(GOLDEN)
    for j in range(x.size // 2):
        word = mixed(start + golden * np.uint64(j + 1))
        first, second = x[2 * j] * scale, x[2 * j + 1] * scale
        x[2 * j] = zero if np.uint32(word) < threshold else first
        x[2 * j + 1] = zero if np.uint32(word >> np.uint64(32)) < threshold else second
    if x.size % 2:
        word, last = mixed(start + golden * np.uint64(x.size // 2 + 1)), x[x.size - 1] * scale
        x[x.size - 1] = zero if np.uint32(word) < threshold else last


@kernel
def softmax_pass(z, labels, scale, dz):  # type: ignore[no-untyped-def]
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
            correct += best == label and total == total  # NaN scores have no largest
            dz[i, label] -= scale
        else:
            loss = math.nan
    return loss, correct


@kernel
def binary_pass(z, labels, scale, dz):  # type: ignore[no-untyped-def]
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
            right = ((z[i, 0] > 0) == hit) if lone else (best == label)
            if loss != loss:  # NaN is no answer
                for j in range(z.shape[1]):
                    right = right and z[i, j] == z[i, j]
            correct += right
        else:
            loss = math.nan
    return loss, correct


@kernel
def finite(values):  # type: ignore[no-untyped-def]
    """Whether there is no NaN and no infinity."""
    total = values.dtype.type(0)
    for j in range(values.size):
        total += values.dtype.type(0) * values[j]
    return total == 0


@kernel
def larger(values, cell, best, last):  # type: ignore[no-untyped-def]
    """best = max(best, values), last = cell where values were larger; NaN stays NaN."""
    for j in range(best.size):
        v, b = values[j], best[j]
        change = (v > b) | (v != v)
        best[j] = v if change else b
        last[j] = cell if change else last[j]


@kernel
def pair_maxima(upper, lower, best, last):  # type: ignore[no-untyped-def]
    """`window_maxima` for 2 × 2, of two rows of finite numbers."""
    for j in range(best.size):
        a, b, c, d = upper[j], upper[j + 1], lower[j], lower[j + 1]
        left = a if a >= b else b
        right = c if c >= d else d
        m = left if left >= right else right
        best[j] = m
        cell = np.uint8(3)
        cell = np.uint8(2) if c == m else cell
        cell = np.uint8(1) if b == m else cell
        last[j] = np.uint8(0) if a == m else cell


@kernel
def window_maxima(plane, pitch, size, best, last):  # type: ignore[no-untyped-def]
    """The maximum of the window at every position of a plane, and the cell where it stands."""
    best[:] = plane[: best.size]
    last[:] = 0
    for row in range(size):
        for column in range(size):
            if row + column > 0:
                larger(plane[row * pitch + column :], np.uint8(row * size + column), best, last)


@kernel
def pool_pass(planes, pitch, size, lowest, swapped, best, last, out, place):  # type: ignore[no-untyped-def]
    """out = max(maxpool(planes), lowest): planes (n, c, …), or (c, n, …) where swapped; out (n, c, height, width).

    The windows at every position are taken and those side by side picked: that is four times the work, vectorised.
    The loops over a row stand here twice, as a constant stride and no call for every row halve the time.
    """
    n, c, height, width = out.shape
    run = (height - 1) * size * pitch + (width - 1) * size + 1
    best, last = best[:run], last[:run]
    for i in range(n):
        for f in range(c):
            plane = planes[f, i] if swapped else planes[i, f]
            if size == 2 and finite(plane[: run + pitch + 1]):
                pair_maxima(plane, plane[pitch:], best, last)
                for row in range(height):
                    start = 2 * row * pitch
                    picked, cell, values, cells = best[start:], last[start:], out[i, f, row], place[i, f, row]
                    for j in range(values.size):
                        v = picked[2 * j]
                        values[j] = lowest if v < lowest else v
                        cells[j] = cell[2 * j]
            else:
                window_maxima(plane, pitch, size, best, last)
                for row in range(height):
                    start = size * row * pitch
                    picked, cell, values, cells = best[start:], last[start:], out[i, f, row], place[i, f, row]
                    for j in range(values.size):
                        v = picked[size * j]
                        values[j] = lowest if v < lowest else v
                        cells[j] = cell[size * j]


@kernel
def pair_pass(planes, pitch, lowest, swapped, across, out):  # type: ignore[no-untyped-def]
    """`pool_pass` of 2 × 2 without the places: across at every position, then down where windows stand.

    Of equal numbers, 0 and −0, the first stays, as there; and NaN stays NaN.
    """
    n, c, height, width = out.shape
    across = across[: (2 * height - 1) * pitch + 2 * width - 1]
    for i in range(n):
        for f in range(c):
            left = planes[f, i] if swapped else planes[i, f]
            right = left[1:]
            for j in range(across.size):
                u, v = left[j], right[j]
                across[j] = v if (v > u) | (v != v) else u
            for row in range(height):
                upper, lower, values = across[2 * row * pitch :], across[(2 * row + 1) * pitch :], out[i, f, row]
                for j in range(values.size):
                    u, v = upper[2 * j], lower[2 * j]
                    m = v if (v > u) | (v != v) else u
                    values[j] = lowest if m < lowest else m


@kernel
def unpool_pass(dy, place, pitch, size, offsets, swapped, planes):  # type: ignore[no-untyped-def]
    """planes = dy where the maxima stood, else 0; planes as in `pool_pass`, offsets by cell."""
    for i in range(dy.shape[0]):
        for f in range(dy.shape[1]):
            plane = planes[f, i] if swapped else planes[i, f]
            plane[:] = 0
            for row in range(dy.shape[2]):
                window, values, cell = plane[row * size * pitch :], dy[i, f, row], place[i, f, row]
                for j in range(values.size):
                    window[size * j + offsets[cell[j]]] = values[j]


@kernel
def add_to(values, total):  # type: ignore[no-untyped-def]
    """Total += values."""
    for j in range(total.size):
        total[j] += values[j]


@kernel
def average_pass(planes, size, stride, down, out):  # type: ignore[no-untyped-def]
    """`avgpool2d` of planes (n, h, w): down the columns of whole rows first, which is vectorised; down (w,)."""
    scale = planes.dtype.type(1 / size**2)
    for i in range(out.shape[0]):
        for row in range(out.shape[1]):
            down[:] = 0
            for k in range(size):
                add_to(planes[i, row * stride + k], down)
            values = out[i, row]
            for j in range(values.size):
                window, total = down[j * stride : j * stride + size], planes.dtype.type(0)
                for k in range(window.size):
                    total += window[k]
                values[j] = total * scale


@kernel
def average_backward_pass(dy, size, stride, across, planes):  # type: ignore[no-untyped-def]
    """`avgpool2d_backward` into planes (n, h, w); across (w,)."""
    scale = planes.dtype.type(1 / size**2)
    for i in range(dy.shape[0]):
        planes[i] = 0
        for row in range(dy.shape[1]):
            across[:] = 0
            values = dy[i, row]
            for j in range(values.size):
                window, share = across[j * stride : j * stride + size], values[j] * scale
                for k in range(window.size):
                    window[k] += share
            for k in range(size):
                add_to(across, planes[i, row * stride + k])


@kernel
def col2im_pass(by_tap, k, pitch, run, planes):  # type: ignore[no-untyped-def]
    """col2im: by_tap (c, k², n, …) summed into planes (n, c, …)."""
    for c in range(by_tap.shape[0]):
        for i in range(by_tap.shape[2]):
            plane = planes[i, c]
            plane[:] = 0
            for row in range(k):
                for column in range(k):
                    start = row * pitch + column
                    add_to(by_tap[c, row * k + column, i], plane[start : start + run])


@kernel
def average_maps_pass(shift, z, size, stride, sign, lowest, across, sums):  # type: ignore[no-untyped-def]
    """Sums += sums over windows of max(sign · z + shift, lowest); shift (u,), across (w', u), sums (n, h', w', u).

    Two columns at a time, so that their sum is read and written half as often.
    """
    images, high, wide = sums.shape[:3]
    for image in range(images):
        for row in range(min(z.shape[1], (high - 1) * stride + size)):
            across[:] = 0
            for j in range(wide):
                total = across[j]
                for column in range(j * stride, j * stride + size // 2 * 2, 2):
                    left, right = z[image, row, column], z[image, row, column + 1]
                    for f in range(shift.size):
                        one, two = sign * left[f] + shift[f], sign * right[f] + shift[f]
                        total[f] += (lowest if one < lowest else one) + (lowest if two < lowest else two)
                if size % 2:
                    last = z[image, row, j * stride + size - 1]
                    for f in range(shift.size):
                        one = sign * last[f] + shift[f]
                        total[f] += lowest if one < lowest else one
            first = 0 if row < size else (row - size) // stride + 1
            for i in range(first, min(high, row // stride + 1)):
                for j in range(wide):
                    add_to(across[j], sums[image, i, j])


class NumbaBackend(NumpyBackend):
    """NumpyBackend, faster: what is not overridden here is inherited. Compiled once per dtype, cached on disk."""

    kernels = "numba"

    def affine(self, x: In, weight: In, bias: In, activation: str, out: Out) -> None:
        if bias is None or activation not in FORWARD or x.dtype is BFLOAT16:
            super().affine(x, weight, bias, activation, out)
            return
        multiply(weight.size * len(x), x, weight.T, out)
        FORWARD[activation](out, bias)

    def to_bfloat16(self, x: In, out: Out) -> None:
        rounding_pass(x.reshape(-1), out.reshape(-1))

    def _relu_of_bfloat16(self, y: Array) -> None:
        relu_of_bfloat16(y.reshape(-1))

    def maxpool2d(self, x: In, size: int, out: Out, place: Out) -> None:
        planes = x.reshape(*x.shape[:2], -1)
        self._pool_planes(planes, x.shape[3], size, -np.inf, False, out, place)

    def maxpool2d_backward(self, dy: In, place: In, size: int, dx: Out) -> None:
        pitch = dx.shape[3]
        unpool_pass(dy, place, pitch, size, self._offsets(pitch, size), False, dx.reshape(*dx.shape[:2], -1))

    def _average_maps(
        self, z: Array, negated: bool, shift: Array, activation: str, size: int, stride: int, out: Array
    ) -> None:
        """In one pass, but for what NumPy vectorises and numba does not."""
        images, pitch, (high, wide) = len(z), z.shape[3], out.shape[2:]
        lowest = z.dtype.type(0 if activation == "relu" else -np.inf)
        if activation not in ("identity", "relu"):
            z = self._activated_maps(z, negated, shift, activation)
            shift, negated = self.scratch("no shifts", pitch, z.dtype), False
            shift.fill(0)
        across = self.scratch_up_to("sums of a row", (wide, pitch), z.dtype)
        sums = self.scratch_up_to("sums of windows", (images, high, wide, pitch), z.dtype)
        sums.fill(0)
        sign = z.dtype.type(-1 if negated else 1)
        average_maps_pass(shift, z, size, stride, sign, lowest, across, sums)
        np.multiply(sums.transpose(0, 3, 1, 2), z.dtype.type(1 / size**2), out=out)

    def avgpool2d(self, x: In, size: int, stride: int, out: Out) -> None:
        average_pass(_planes(x), size, stride, self.scratch("a row", x.shape[3], x.dtype), _planes(out))

    def avgpool2d_backward(self, dy: In, size: int, stride: int, dx: Out) -> None:
        row = self.scratch("a row", dx.shape[3], dx.dtype)
        average_backward_pass(_planes(dy), size, stride, row, _planes(dx))

    def _pool_and_activate(self, z: Array, windows: Windows, activation: str, out: Array, place: Array | None) -> None:
        if windows.pool == 1:
            super()._pool_and_activate(z, windows, activation, out, place)
            return
        lowest = 0 if activation == "relu" else -np.inf
        self._pool_planes(z, windows.pitch, windows.pool, lowest, True, out, place)
        if activation not in ("identity", "relu"):
            self.activate(activation, out, out)

    def _spread(self, dz: Array, place: Array | None, windows: Windows, planes: Array) -> None:
        if place is None:
            super()._spread(dz, place, windows, planes)
            return
        unpool_pass(dz, place, windows.pitch, windows.pool, self._offsets(windows.pitch, windows.pool), True, planes)

    def _col2im(self, d_columns: Array, windows: Windows, dx: Array) -> None:
        framed = dx
        if windows.padding:
            framed = self.scratch_up_to("framed", (*dx.shape[:2], windows.padded, windows.pitch), dx.dtype)
        by_tap = d_columns.reshape(windows.c, -1, *d_columns.shape[1:])
        col2im_pass(by_tap, windows.k, windows.pitch, windows.run, framed.reshape(*dx.shape[:2], -1))
        if framed is not dx:
            np.copyto(dx, windows.inside(framed))

    def _pool_planes(
        self, planes: Array, pitch: int, size: int, lowest: float, swapped: bool, out: Array, place: Array | None
    ) -> None:
        best = self.scratch("best of a plane", planes.shape[2], planes.dtype)
        if place is None and size == 2:
            pair_pass(planes, pitch, planes.dtype.type(lowest), swapped, best, out)
            return
        last = self.scratch("cells of a plane", planes.shape[2], np.uint8)
        if place is None:
            place = self.scratch_up_to("no place", out.shape, np.uint8)
        pool_pass(planes, pitch, size, planes.dtype.type(lowest), swapped, best, last, out, place)

    def _offsets(self, pitch: int, size: int) -> Array:
        """Where in a plane the cells of a window lie, from its first."""
        return self.constant(
            "offsets", (pitch, size), lambda: np.add.outer(np.arange(size) * pitch, np.arange(size)).ravel()
        )

    def activation_backward(self, activation: str, y: In, dy: In, dz: Out, bias_grad: Out) -> None:
        if dz.dtype is BFLOAT16 and y.dtype is BFLOAT16 and activation == "relu" and bias_grad is not None:
            relu_backward_in_bfloat16(y, dy, dz, bias_grad)
            return
        if activation == "identity" or dz.dtype is BFLOAT16 or y.dtype is BFLOAT16:
            super().activation_backward(activation, y, dy, dz, bias_grad)
            return
        if dz is not dy:
            np.copyto(dz, dy)
        rows, d_rows = y.reshape(len(y), -1), dz.reshape(len(dz), -1)
        if bias_grad is None:  # computed all the same: that costs less than NumPy's passes
            bias_grad = self.scratch("unwanted", rows.shape[1], y.dtype)
        BACKWARD[activation](rows, d_rows, bias_grad)

    def dropout(self, x: In, rate: float, draw: In, out: Out) -> None:
        start, threshold = dropout_start(draw), dropout_threshold(rate)
        if out is not x:
            np.copyto(out, x)
        dropout_pass(out.reshape(-1), np.uint64(start), np.uint32(threshold), out.dtype.type(1 / (1 - rate)))

    def gather(self, dataset: In, order: In, cursor: In, scale: float, out: Out) -> None:
        # A copy of rows: memcpy wins. A data set of uint16 holds whole numbers.
        plain = dataset.ndim == 1 or (dataset.dtype == out.dtype and out.dtype != BFLOAT16)
        if plain or not (len(dataset) and len(order)):
            super().gather(dataset, order, cursor, scale, out)
            return
        rows, target = dataset.reshape(len(dataset), -1), out.reshape(len(out), -1)
        if rows.shape[1] != target.shape[1]:
            raise ShapeError(f"gather of rows of {rows.shape[1]} numbers into rows of {target.shape[1]}")
        if out.dtype == BFLOAT16:
            gather_in_bfloat16(rows, order, int(cursor[0]), np.float32(scale), target)
        else:
            gather_pass(rows, order, int(cursor[0]), out.dtype.type(scale), target)

    def _channel_sums(self, x: Array, origin: Array, by: Array | None, sums: Array, products: Array) -> None:
        numba_norm.channel_sums(x, origin, by, sums, products)

    def _channel_lines(
        self, x: Array, origin: Array, slope: Array, shift: Array, dy: Array | None, factor: Array, out: Array
    ) -> None:
        numba_norm.channel_lines(x, origin, slope, shift, dy, factor, out)

    def softmax_cross_entropy(self, z: In, labels: In, scale: float, dz: Out, totals: Out) -> None:
        loss, correct = softmax_pass(z, labels, z.dtype.type(scale), dz)
        self._add_checked(totals, loss, correct, labels, z.shape[1])

    def binary_cross_entropy(self, z: In, labels: In, scale: float, dz: Out, totals: Out) -> None:
        loss, correct = binary_pass(z, labels, z.dtype.type(scale), dz)
        self._add_checked(totals, loss, correct, labels, max(2, z.shape[1]))

    def _add_checked(self, totals: Array, loss: float, correct: int, labels: Array, classes: int) -> None:
        if math.isnan(loss):  # of labels that are no classes, too: the kernels look where they read
            self._check_classes(labels, classes)
        self._add(totals, len(labels), loss, correct)

    def _update_parts(self, size: int, decayed: int, l2: float, rounded: Array | None) -> Iterator[tuple[slice, float]]:
        """One loop touches an element once; where it is rounded as well, that finds a block of them in the cache."""
        return parts_of(size, decayed, l2, max(1, size) if rounded is None else ROUNDED_BLOCK)

    def sgd(self, params: Out, grads: In, scalars: In, decayed: int, rounded: Out = None) -> None:
        rate, _, _, _, l2, *_ = scalars.tolist()
        real = params.dtype.type
        for part, twice_l2 in self._update_parts(len(params), decayed, l2, rounded):
            spread(OPTIMISER, sgd_pass, (params[part], grads[part]), real(rate), real(twice_l2))
            self._round(params, part, rounded)

    def momentum(self, params: Out, grads: In, velocity: Out, scalars: In, decayed: int, rounded: Out = None) -> None:
        rate, beta, _, _, l2, *_ = scalars.tolist()
        real, tiny = params.dtype.type, np.finfo(params.dtype).tiny
        for part, twice_l2 in self._update_parts(len(params), decayed, l2, rounded):
            arrays = params[part], grads[part], velocity[part]
            spread(OPTIMISER, momentum_pass, arrays, real(rate), real(beta), real(twice_l2), tiny)
            self._round(params, part, rounded)

    def adam(
        self, params: Out, grads: In, first: Out, second: Out, scalars: In, decayed: int, decoupled: bool = False,
        rounded: Out = None,
    ) -> None:  # fmt: skip
        rate, beta1, beta2, _, l2, *_ = scalars.tolist()
        real, tiny = params.dtype.type, np.finfo(params.dtype).tiny
        scale, epsilon = adam_factors(scalars)
        factors = real(beta1), real(beta2), real(scale), real(epsilon)
        for part, twice_l2 in self._update_parts(len(params), decayed, l2, rounded):
            pull, shrink = (0.0, 1 - rate * (twice_l2 / 2)) if decoupled else (twice_l2, 1.0)
            arrays = params[part], grads[part], first[part], second[part]
            spread(OPTIMISER, adam_pass, arrays, *factors, real(pull), real(shrink), tiny)
            self._round(params, part, rounded)


def _planes(images: Array) -> Array:
    """(n, c, h, w) as (n · c, h, w)."""
    return images.reshape(-1, *images.shape[2:])
