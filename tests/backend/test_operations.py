"""Every operation of every backend against a plain formula, on friendly and unfriendly inputs."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest

from gpunet.backend import numpy_backend
from gpunet.backend.base import ACTIVATIONS, CORRECT, FIRST_BAD, GOLDEN, LOSS_SUM, N_SCALARS, N_TOTALS, SAMPLES, mixed
from gpunet.backend.cupy_backend import CupyBackend

from ..conftest import RTOL

DTYPES = ["float32", "float64"]
SHAPES = [(1, 1), (3, 5), (64, 33), (300, 257)]  # the last takes several blocks


def sigmoid(z):
    return np.where(z >= 0, 1 / (1 + np.exp(-np.abs(z))), np.exp(-np.abs(z)) / (1 + np.exp(-np.abs(z))))


def leaky(z):
    return np.where(z > 0, z, 0.01 * z)


APPLY = {
    "identity": lambda z: z, "relu": lambda z: np.maximum(z, 0), "sigmoid": sigmoid, "tanh": np.tanh,
    "leaky_relu": leaky,
}  # fmt: skip
SLOPE = {
    "identity": lambda y: np.ones_like(y), "relu": lambda y: (y > 0) * 1.0, "sigmoid": lambda y: y * (1 - y),
    "tanh": lambda y: 1 - y**2, "leaky_relu": lambda y: np.where(y > 0, 1, 0.01),
}  # fmt: skip


def test_every_activation_is_tested():
    assert tuple(APPLY) == tuple(SLOPE) == ACTIVATIONS


def close(got, want, dtype, terms=1):
    want = np.asarray(want, np.float64)
    scale = max(1.0, np.abs(want).max(initial=0))
    np.testing.assert_allclose(np.asarray(got, np.float64), want, rtol=0, atol=RTOL[dtype] * scale * np.sqrt(terms) * 4)


def device(backend, *arrays):
    """Copies on the device, so that the test keeps what it gave."""
    return [backend.asarray(np.array(a, order="C")) for a in arrays]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("activation", APPLY)
@pytest.mark.parametrize("with_bias", [True, False])
def test_affine(backend, rng, dtype, shape, activation, with_bias):
    n, d = shape
    x, w, b = (rng.normal(size=s).astype(dtype) for s in ((n, d), (7, d), (7,)))
    out = backend.empty((n, 7), dtype)
    dx, dw, db = device(backend, x, w, b)
    backend.affine(dx, dw, db if with_bias else None, activation, out)
    want = APPLY[activation](x.astype(float) @ w.T.astype(float) + (b if with_bias else 0))
    close(backend.to_host(out), want, dtype, terms=d)
    np.testing.assert_array_equal(backend.to_host(dx), x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
def test_gemm(backend, rng, dtype, transpose_a, transpose_b):
    a, b = rng.normal(size=(17, 9)).astype(dtype), rng.normal(size=(9, 23)).astype(dtype)
    out = backend.empty((17, 23), dtype)
    da, db = device(backend, a.T if transpose_a else a, b.T if transpose_b else b)
    backend.gemm(da, db, out, transpose_a=transpose_a, transpose_b=transpose_b)
    close(backend.to_host(out), a.astype(float) @ b.astype(float), dtype, terms=9)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("activation", APPLY)
@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("with_bias", [True, False])
def test_activation_backward(backend, rng, dtype, shape, activation, in_place, with_bias):
    y = APPLY[activation](rng.normal(size=shape)).astype(dtype)
    dy = rng.normal(size=shape).astype(dtype)
    d_y, d_dy = device(backend, y, dy)
    dz = d_dy if in_place else backend.empty(shape, dtype)
    grad = backend.empty(shape[1], dtype) if with_bias else None
    backend.activation_backward(activation, d_y, d_dy, dz, grad)
    want = dy.astype(float) * SLOPE[activation](y.astype(float))
    close(backend.to_host(dz), want, dtype)
    if with_bias:
        close(backend.to_host(grad), want.sum(axis=0), dtype, terms=shape[0])
    if not in_place:
        np.testing.assert_array_equal(backend.to_host(d_dy), dy)


@pytest.mark.parametrize("dtype", DTYPES)
def test_activations_at_the_extremes(backend, dtype):
    z = np.array([[-np.inf, -1e30, -800, -89, -0.0, 0.0, 89, 800, 1e30, np.inf]], dtype)
    (dz,) = device(backend, z)
    for name, apply in APPLY.items():
        out = backend.empty(z.shape, dtype)
        with backend.session():
            backend.activate(name, dz, out)
        with np.errstate(over="ignore"):
            want = apply(z[0, 1:-1].astype(float))
        np.testing.assert_allclose(backend.to_host(out)[0, 1:-1], want, rtol=RTOL[dtype] * 4, atol=1e-30)
        ends = {"sigmoid": (0, 1), "tanh": (-1, 1), "relu": (0, np.inf)}.get(name, (-np.inf, np.inf))
        np.testing.assert_allclose(backend.to_host(out)[0, [0, -1]], ends, rtol=RTOL[dtype])
        if name not in ("relu", "sigmoid"):  # of −0 they keep the sign
            assert np.signbit(backend.to_host(out)[0, 4])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_keep_nan(backend, name):
    (z,) = device(backend, np.array([[np.nan, 1.0]], "float32"))
    zero = backend.zeros(2, "float32")
    out = backend.empty((1, 2), "float32")
    backend.activate(name, z, out)
    assert np.isnan(backend.to_host(out)[0, 0])
    backend.affine(z, backend.asarray(np.eye(2, dtype="float32")), zero, name, out)
    assert np.isnan(backend.to_host(out)[0, 0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [*SHAPES, (3, 2, 5, 7)])
@pytest.mark.parametrize("by_tanh", [False, True])
@pytest.mark.parametrize("in_place", [True, False])
def test_gelu(backend, rng, dtype, shape, by_tanh, in_place):
    """Against Python's erfc, and central differences of that."""
    x, dy = (3 * rng.normal(size=shape)).astype(dtype), rng.normal(size=shape).astype(dtype)

    def formula(z):
        if by_tanh:
            return z / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))
        return z / 2 * np.vectorize(math.erfc)(-z / math.sqrt(2))

    d_x, d_dy = device(backend, x, dy)
    out, dx = backend.empty(shape, dtype), d_dy if in_place else backend.empty(shape, dtype)
    backend.gelu(d_x, by_tanh, out)
    backend.gelu_backward(d_x, d_dy, by_tanh, dx)
    wide = x.astype(float)
    close(backend.to_host(out), formula(wide), dtype)
    slope = (formula(wide + 1e-5) - formula(wide - 1e-5)) / 2e-5
    np.testing.assert_allclose(backend.to_host(dx), dy * slope, atol=max(1e-8, RTOL[dtype] * 20))
    np.testing.assert_array_equal(backend.to_host(d_x), x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("by_tanh", [False, True])
def test_gelu_at_the_extremes(backend, dtype, by_tanh):
    x = np.array([-1e30, -800, -41, -6, -0.0, 0.0, 1e-38, 41, 800, 1e30, np.inf, np.nan], dtype)
    given, ones = device(backend, x, np.ones(len(x), dtype))
    out, dx = backend.empty(x.shape, dtype), backend.empty(x.shape, dtype)
    with backend.session():
        backend.gelu(given, by_tanh, out)
        backend.gelu_backward(given, ones, by_tanh, dx)
    out, dx = backend.to_host(out), backend.to_host(dx)
    np.testing.assert_array_equal(out[[0, 1, 2, 4, 5, 7, 8, 9, 10, 11]], [0, 0, 0, 0, 0, *x[7:]])
    slopes = dx[[0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11]]
    np.testing.assert_allclose(slopes, [0, 0, 0, 0.5, 0.5, 0.5, 1, 1, 1, 1, np.nan], atol=1e-300)
    if not by_tanh:  # where 1 + erf would have lost all digits of float32
        np.testing.assert_allclose(out[3], -6 * 9.865876450376946e-10, rtol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gelu_without_scipy_is_the_same(dtype, rng, monkeypatch):
    x = np.concatenate([8 * rng.normal(size=(40, 25)), [[-np.inf, np.inf, np.nan, 0, -0.0] * 5]]).astype(dtype)
    found = []
    monkeypatch.setattr(numpy_backend, "_normal", numpy_backend._normal.__wrapped__)
    for hidden in (False, True):
        if hidden:
            monkeypatch.setitem(sys.modules, "scipy.special", None)
        backend, out, dx = numpy_backend.NumpyBackend(), np.empty_like(x), np.empty_like(x)
        with backend.session():
            backend.gelu(x, False, out)
            backend.gelu_backward(x, np.ones_like(x), False, dx)
        found.append((numpy_backend._normal().__name__, out, dx))
    (first, *with_it), (second, *without) = found
    assert (first, second) == ("ndtr", "normal_by_number")
    eps, tiny = np.finfo(dtype).eps, np.finfo(dtype).tiny
    apart = eps * (4 + x * x)  # relatively: a rounding of x moves Φ(x) in the tail by x² of it
    for one, other, within in zip(with_it, without, (apart * abs(with_it[0]) + tiny, 8 * eps), strict=True):
        same = (one == other) | (np.isnan(one) & np.isnan(other))
        with np.errstate(invalid="ignore"):
            assert (same | (abs(one - other) <= within)).all()
        assert same.mean() > 0.5


def kept(shape, rate, key, turn):
    """Which elements dropout keeps, by Python's whole numbers."""
    size = int(np.prod(shape))
    start = mixed((key + GOLDEN * turn) % 2**64)
    words = (mixed((start + GOLDEN * (j + 1)) % 2**64) for j in range(-(-size // 2)))
    bits = [half for word in words for half in (word % 2**32, word >> 32)]
    return (np.array(bits[:size]) >= round(rate * 2**32)).reshape(shape)


def test_the_numbers_of_dropout_are_splitmix64s():
    found = [mixed((1234567 + GOLDEN * (j + 1)) % 2**64) for j in range(3)]
    assert found == [6457827717110365317, 3203168211198807973, 9817491932198370423]  # of its authors' C code


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (0, 4), (2, 3, 5, 7), (41, 1601)])  # the last takes three blocks
@pytest.mark.parametrize("rate", [0.0, 0.25, 0.9])
@pytest.mark.parametrize("in_place", [True, False])
def test_dropout(backend, rng, dtype, shape, rate, in_place):
    x, key = rng.normal(size=shape).astype(dtype), 2**63 - 25
    d_x, draws = device(backend, x, np.array([[5, 3], [key, 7]]))
    out = d_x if in_place else backend.empty(shape, dtype)
    backend.redraw(draws)
    backend.dropout(d_x, rate, draws[1], out)
    want = np.where(kept(shape, rate, key, 8), x * np.dtype(dtype).type(1 / (1 - rate)), 0)
    np.testing.assert_array_equal(backend.to_host(out), want)
    np.testing.assert_array_equal(backend.to_host(draws), [[5, 4], [key, 8]])
    if not in_place:
        np.testing.assert_array_equal(backend.to_host(d_x), x)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dropout_of_what_is_not_contiguous(backend, rng, dtype):
    x = rng.normal(size=(12, 9)).astype(dtype)
    (view,), (draw,) = device(backend, x), device(backend, np.array([1, 1]))
    for given, host in ((view.T, x.T), (view[:, ::2], x[:, ::2])):
        out = backend.empty(host.shape, dtype)
        backend.dropout(given, 0.5, draw, out)
        np.testing.assert_array_equal(backend.to_host(out), np.where(kept(host.shape, 0.5, 1, 1), 2 * host, 0))


@pytest.mark.parametrize("dtype", DTYPES)
def test_dropout_drops_nan_and_infinity_and_keeps_them(backend, dtype):
    x = np.tile(np.array([np.nan, np.inf, -np.inf, 1.0], dtype), (16, 1))
    x_there, draw = device(backend, x, np.array([3, 1]))
    out = backend.empty(x.shape, dtype)
    with backend.session():
        backend.dropout(x_there, 0.5, draw, out)
    mask = kept(x.shape, 0.5, 3, 1)
    assert mask.any(axis=0).all()
    assert not mask.all(axis=0).any()
    np.testing.assert_array_equal(backend.to_host(out), np.where(mask, 2 * x, 0))


def test_a_rate_next_to_one_drops_all_but_one_in_four_billion(backend):
    x, draw = device(backend, np.ones((64, 64), "float32"), np.array([3, 1]))
    backend.dropout(x, 1 - 2**-53, draw, x)
    assert not backend.to_host(x).any()


@pytest.mark.parametrize("source", ["uint8", "float32", "float64", "int16"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(40, 3), (200, 700), (30, 4, 5)])
def test_gather(backend, rng, source, dtype, shape):
    data = rng.integers(0, 200, shape).astype(source)
    order = rng.permutation(len(data))
    out = backend.empty((11, *shape[1:]), dtype)
    d_data, d_order, cursor = device(backend, data, order, np.array([7]))
    backend.gather(d_data, d_order, cursor, 1 / 255, out)
    close(backend.to_host(out), data[order[7:18]].astype(float) / 255, dtype)
    cursor += 11
    backend.gather(d_data, d_order, cursor, 1, out)
    np.testing.assert_array_equal(backend.to_host(out), data[order[18:29]].astype(dtype))


def reference_loss(name, z, labels):
    """Value and ∂L/∂z in float64, by the textbook formulas."""
    k = z.shape[1]
    t = labels[:, None].astype(float) if k == 1 else np.eye(k)[labels]
    if name == "softmax":
        shifted = z - z.max(axis=1, keepdims=True)
        p = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
        return -np.log(p[np.arange(len(z)), labels]).sum(), p - t
    if name == "binary":
        return (np.logaddexp(0, z) - t * z).sum(), sigmoid(z) - t
    y = APPLY[name](z)
    return 0.5 * ((y - t) ** 2).sum(), (y - t) * SLOPE[name](y)


def run_loss(backend, name, z, labels, scale, dz, totals):
    if name == "softmax":
        backend.softmax_cross_entropy(z, labels, scale, dz, totals)
    elif name == "binary":
        backend.binary_cross_entropy(z, labels, scale, dz, totals)
    else:
        backend.squared_error(name, z, labels, scale, dz, totals)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["softmax", "binary", "identity", "relu", "sigmoid"])
@pytest.mark.parametrize("shape", [(1, 2), (5, 3), (64, 10), (7, 1)])
def test_losses(backend, rng, dtype, name, shape):
    if name == "softmax" and shape[1] == 1:
        pytest.skip("softmax over one output is constant")
    z = rng.normal(size=shape).astype(dtype) * 3
    labels = rng.integers(0, max(2, shape[1]), shape[0])
    d_z, d_labels = device(backend, z, labels)
    dz, totals = backend.empty(shape, dtype), backend.asarray(np.array([0.0, 0, 0, -1]))
    for _ in range(2):
        run_loss(backend, name, d_z, d_labels, 0.25, dz, totals)
    loss, gradient = reference_loss(name, z.astype(float), labels)
    close(backend.to_host(dz), 0.25 * gradient, dtype)
    got = backend.to_host(totals)
    close(got[LOSS_SUM], 2 * loss, dtype, terms=z.size)
    y = z if name in ("softmax", "binary") else APPLY[name](z)
    threshold = 0 if name in ("softmax", "binary") else 0.5
    answers = y.argmax(axis=1) if shape[1] > 1 else y[:, 0] > threshold
    assert got[CORRECT] == 2 * (answers == labels).sum()
    assert got[SAMPLES] == 2 * len(z)
    assert got[FIRST_BAD] == -1
    assert len(got) == N_TOTALS


@pytest.mark.parametrize("name", ["softmax", "binary"])
def test_losses_stay_finite_where_the_textbook_formula_does_not(backend, name):
    z = np.array([[1e4, -1e4, 0], [-300, 300, 300], [88, -88, 1e-30]], "float32")
    labels = np.array([0, 0, 1])
    d_z, d_labels = device(backend, z, labels)
    dz, totals = backend.empty(z.shape, "float32"), backend.asarray(np.array([0.0, 0, 0, -1]))
    with backend.session():
        run_loss(backend, name, d_z, d_labels, 1, dz, totals)
    loss, gradient = (
        reference_loss(name, z.astype(float), labels) if name == "binary" else (0 + 600 + np.log(2) + 176, None)
    )
    np.testing.assert_allclose(backend.to_host(totals)[LOSS_SUM], loss, rtol=1e-5)
    assert np.isfinite(backend.to_host(dz)).all()
    if gradient is not None:
        close(backend.to_host(dz), gradient, "float32")


@pytest.mark.parametrize("name", ["softmax", "binary", "identity"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_is_marked_with_its_first_sample(backend, name, bad):
    z = np.zeros((4, 3), "float32")
    labels = np.zeros(4, np.int64)
    d_z, d_labels = device(backend, z, labels)
    dz, totals = backend.empty(z.shape, "float32"), backend.asarray(np.array([0.0, 0, 0, -1]))
    run_loss(backend, name, d_z, d_labels, 1, dz, totals)
    z[2, 1] = bad
    (d_z,) = device(backend, z)
    with backend.session():
        run_loss(backend, name, d_z, d_labels, 1, dz, totals)
        run_loss(backend, name, d_z, d_labels, 1, dz, totals)
    assert backend.to_host(totals)[FIRST_BAD] == 4


@pytest.mark.parametrize("name", ["softmax", "binary", "identity", "relu"])
@pytest.mark.parametrize("outputs", [1, 2, 7, 40])
def test_a_sample_with_a_nan_score_is_of_no_class(backend, name, outputs):
    if name == "softmax" and outputs == 1:
        pytest.skip("a softmax has two outputs at least")
    n = 3 * outputs + 2
    z, labels = np.ones((n, outputs), "float32"), np.arange(n) % max(2, outputs)
    labels[-2:] = 0
    z[np.arange(n) - 2, np.arange(n) % outputs] = np.nan  # every column, the label's and others
    z[-2:] = 1  # and two samples whose answer is the first column, or 1 where it is the only one
    dz, totals = backend.empty(z.shape, "float32"), backend.asarray(np.array([0.0, 0, 0, -1]))
    run_loss(backend, name, *device(backend, z, labels), 1, dz, totals)
    assert backend.to_host(totals)[[CORRECT, SAMPLES]].tolist() == [0 if outputs == 1 else 2, n]


# -- batch normalisation ---------------------------------------------------------------------------------------------

NORMED = [(2, 1), (3, 5), (64, 33), (1500, 70), (2, 3, 4, 5), (9, 16, 31, 29)]  # the last of each take several blocks


def norm_reference(x, dy, weight, bias, mean, variance, epsilon):
    """Outputs and gradients as the formulas say, of an (n, c, s) in float64; mean and variance None: the batch's."""
    of_batch = mean is None
    if of_batch:
        mean, variance = x.mean(axis=(0, 2)), x.var(axis=(0, 2))
    scale = 1 / np.sqrt(variance + epsilon)
    unit = (x - mean[:, None]) * scale[:, None]
    sums = (dy * unit).sum(axis=(0, 2)), dy.sum(axis=(0, 2))
    slope = dy
    if of_batch:
        m = x.size / x.shape[1]
        slope = dy - sums[1][:, None] / m - unit * sums[0][:, None] / m
    return mean, scale, weight[:, None] * unit + bias[:, None], *sums, (weight * scale)[:, None] * slope


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", NORMED)
@pytest.mark.parametrize("of_batch", [True, False])
def test_batch_normalisation(backend, rng, dtype, shape, of_batch):
    c = shape[1]
    x, dy = rng.normal(3, 2, size=shape).astype(dtype), rng.normal(size=shape).astype(dtype)
    weight, bias, mean = (rng.normal(size=c).astype(dtype) for _ in range(3))
    variance = rng.uniform(0.5, 2, c).astype(dtype)
    given = device(backend, x, dy, weight, bias, mean, variance)
    statistics, out, dx = backend.empty((2, c), "float64"), backend.empty(shape, dtype), backend.empty(shape, dtype)
    d_weight, d_bias = backend.empty(c, dtype), backend.empty(c, dtype)
    backend.batch_statistics(given[0], of_batch, 0.3, 1e-3, *given[4:], statistics)
    backend.normalise(given[0], statistics, *given[2:4], out)
    backend.normalise_backward(given[0], statistics, given[2], given[1], of_batch, d_weight, d_bias, dx)
    planes = [a.astype(float).reshape(*shape[:2], -1) for a in (x, dy)]
    running = [None, None] if of_batch else [mean.astype(float), variance.astype(float)]
    want = norm_reference(*planes, weight.astype(float), bias.astype(float), *running, 1e-3)
    np.testing.assert_allclose(backend.to_host(statistics), want[:2], rtol=1e-11)
    m = planes[0].size // c
    close(backend.to_host(out), want[2].reshape(shape), dtype)
    for found, right in zip((d_weight, d_bias), want[3:5], strict=True):
        close(backend.to_host(found), right, dtype, terms=m)
    close(backend.to_host(dx), want[5].reshape(shape), dtype)
    after = [mean, variance]
    if of_batch:
        after = [0.7 * mean + 0.3 * want[0], 0.7 * variance + 0.3 * planes[0].var(axis=(0, 2)) * m / (m - 1)]
    for found, right in zip(given[4:], after, strict=True):
        close(backend.to_host(found), right, dtype)
    for found, right in zip(given[:4], (x, dy, weight, bias), strict=True):
        np.testing.assert_array_equal(backend.to_host(found), right)
    again = backend.empty(shape, dtype)
    backend.normalise_backward(given[0], statistics, given[2], given[1], of_batch, None, None, again)
    np.testing.assert_array_equal(backend.to_host(again), backend.to_host(dx))


@pytest.mark.parametrize("shape", [(400, 3), (20, 3, 6, 5)])
@pytest.mark.parametrize("offset", [1e4, -3e6, 1e20])
def test_a_mean_far_from_zero_costs_no_digits(backend, rng, shape, offset):
    spread = {1e4: 1, -3e6: 40, 1e20: 1e17}[offset]
    x = (offset + spread * rng.normal(size=shape)).astype("float32")
    x[0] = x[1] + 9 * spread  # the first, from which differences are taken, lies apart
    (given,) = device(backend, x)
    statistics, out = backend.empty((2, 3), "float64"), backend.empty(shape, "float32")
    with backend.session():
        running = device(backend, np.zeros(3, "float32"), np.ones(3, "float32"))
        backend.batch_statistics(given, True, 0.1, 1e-5, *running, statistics)
        backend.normalise(given, statistics, *device(backend, np.ones(3, "float32"), np.zeros(3, "float32")), out)
    planes = x.astype(float).reshape(*shape[:2], -1)
    mean, deviation = planes.mean(axis=(0, 2)), planes.std(axis=(0, 2))
    np.testing.assert_allclose(backend.to_host(statistics), [mean, 1 / np.sqrt(deviation**2 + 1e-5)], rtol=1e-9)
    want = (planes - mean[:, None]) / np.sqrt(deviation**2 + 1e-5)[:, None]
    np.testing.assert_allclose(backend.to_host(out), want.reshape(shape), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_spoils_its_channel_only(backend, rng, bad):
    x = rng.normal(size=(7, 3, 2, 2)).astype("float32")
    x[4, 1, 0, 1] = bad
    given, running_mean, running_var, ones = device(backend, x, *np.zeros((3, 3), "float32"))
    statistics, out = backend.empty((2, 3), "float64"), backend.empty(x.shape, "float32")
    with backend.session():
        backend.batch_statistics(given, True, 0.1, 1e-5, running_mean, running_var, statistics)
        backend.normalise(given, statistics, ones, ones, out)
    assert np.isnan(backend.to_host(out)[:, 1]).all()
    assert np.isfinite(backend.to_host(out)[:, [0, 2]]).all()
    assert np.isnan(backend.to_host(running_var)[1])


def test_constant_channels_become_their_bias(backend):
    given, bias = device(backend, np.full((5, 2), 7.25, "float32"), np.array([1.5, -2], "float32"))
    running = device(backend, np.zeros(2, "float32"), np.ones(2, "float32"))
    statistics, out = backend.empty((2, 2), "float64"), backend.empty((5, 2), "float32")
    backend.batch_statistics(given, True, 1.0, 1e-5, *running, statistics)
    backend.normalise(given, statistics, running[0], bias, out)
    np.testing.assert_array_equal(backend.to_host(out), np.tile([1.5, -2], (5, 1)))
    np.testing.assert_array_equal(backend.to_host(running[1]), [0, 0])


def reference_step(name, p, g, state, rate, l2, decayed, step, before, beta1=0.9, beta2=0.999, epsilon=1e-8):
    g = g.copy()
    p = p.copy()
    if name == "adamw":
        p[:decayed] -= rate * l2 * p[:decayed]
    else:
        g[:decayed] += 2 * l2 * p[:decayed]
    if name == "sgd":
        return p - rate * g
    if name == "momentum":
        state["velocity"] = beta1 * state.get("velocity", 0) + g
        return p - rate * state["velocity"]
    state["m"] = beta1 * state.get("m", 0) + (1 - beta1) * g
    state["v"] = beta2 * state.get("v", 0) + (1 - beta2) * g * g
    m, v = state["m"] / (1 - beta1 ** (before + step)), state["v"] / (1 - beta2**step)
    return p - rate * m / (np.sqrt(v) + epsilon)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["sgd", "momentum", "adam", "adamw"])
@pytest.mark.parametrize("l2", [0.0, 0.01])
@pytest.mark.parametrize(("size", "decayed"), [(5, 5), (1000, 640), (150_000, 70_000), (64, 0)])
@pytest.mark.parametrize("before", [0, 7])  # steps that the first moment has behind it, the second not
def test_optimisers(backend, rng, dtype, name, l2, size, decayed, before):
    p = rng.normal(size=size).astype(dtype)
    scalars = np.array([0.01, 0.9, 0.999, 1e-8, l2, before, 0, 0, 0])
    assert len(scalars) == N_SCALARS
    d_p, d_scalars = device(backend, p, scalars)
    first, second = backend.zeros(size, dtype), backend.zeros(size, dtype)
    want, state = p.astype(float), {}
    for step in range(1, 6):
        g = (rng.normal(size=size) * 10.0 ** rng.integers(-6, 2, size)).astype(dtype)
        (d_g,) = device(backend, g)
        backend.tick(d_scalars)
        if name == "sgd":
            backend.sgd(d_p, d_g, d_scalars, decayed)
        elif name == "momentum":
            backend.momentum(d_p, d_g, first, d_scalars, decayed)
        else:
            backend.adam(d_p, d_g, first, second, d_scalars, decayed, name == "adamw")
        want = reference_step(name, want, g.astype(float), state, 0.01, l2, decayed, step, before)
        np.testing.assert_array_equal(backend.to_host(d_g), g)
    close(backend.to_host(d_p), want, dtype, terms=25)


@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_optimiser_state_stays_out_of_the_denormals(backend, rng, name):
    if isinstance(backend, CupyBackend) and backend.cp.__name__ != "cupy":
        pytest.skip("g++ keeps the denormals that CuPy's compiler flushes")
    p, g = rng.normal(size=100).astype("float32"), np.full(100, 1e-3, "float32")
    d_p, d_g, scalars = device(backend, p, g, np.array([0.01, 0.9, 0.999, 1e-8, 0, 0, 0, 0, 0]))
    first, second = backend.zeros(100, "float32"), backend.zeros(100, "float32")
    zero, tiny, seen = backend.zeros(100, "float32"), np.finfo("float32").tiny, 0
    for step in range(1200):
        backend.tick(scalars)
        gradient = d_g if step == 0 else zero
        if name == "momentum":
            backend.momentum(d_p, gradient, first, scalars, 0)
        else:
            backend.adam(d_p, gradient, first, second, scalars, 0)
        state = backend.to_host(first)  # there denormals are not taken for 0, as on a GPU
        seen += int(((state != 0) & (abs(state) < tiny)).any())
    assert seen == 0
    assert not state.any()


def test_memory_is_aligned_and_copies_are_casts(backend):
    for shape in (1, 3, (5, 7), (300, 400)):
        array = backend.empty(shape, "float32")
        if not isinstance(backend, CupyBackend):
            assert array.ctypes.data % 64 == 0
        assert array.flags.c_contiguous
    out = backend.zeros((2, 3), "float32")
    assert not backend.to_host(out).any()
    backend.copy(np.arange(6.0).reshape(2, 3), out)
    np.testing.assert_array_equal(backend.to_host(out), np.arange(6, dtype="float32").reshape(2, 3))
    backend.copy(4, out)
    assert (backend.to_host(out) == 4).all()


def test_non_contiguous_inputs_become_contiguous(backend, rng):
    wide = rng.normal(size=(20, 6)).astype("float32")
    for view in (wide[::2], wide[:, ::3], wide.T, np.asfortranarray(wide)):
        array = backend.asarray(view)
        assert array.flags.c_contiguous
        np.testing.assert_array_equal(backend.to_host(array), view)


def test_memory_report(backend):
    kept = backend.zeros(1 << 19)
    assert kept.size
    assert backend.memory()["peak"] > 1 << 20
    assert set(backend.memory()) == {"peak", "total"}
