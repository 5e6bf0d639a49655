"""Convolution and pooling of every backend against loops over every output, written down as the definition reads."""

from __future__ import annotations

import tracemalloc
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpunet.backend import get_backend, numpy_backend
from gpunet.testing import StrictBackend

from ..conftest import RTOL, make_backend
from .test_operations import APPLY, DTYPES, close, device

# n, channels, rows, columns, filters, kernel, padding, pool, activation
CASES = [
    (2, 3, 8, 8, 4, 3, 0, 2, "relu"),
    (3, 1, 7, 9, 5, 3, 1, 1, "identity"),
    (2, 2, 9, 7, 3, 5, 2, 2, "relu"),
    (2, 3, 6, 7, 4, 1, 0, 3, "sigmoid"),
    (2, 3, 6, 7, 4, 1, 0, 3, "tanh"),
    (2, 3, 6, 7, 4, 3, 1, 2, "leaky_relu"),
    (1, 1, 1, 1, 1, 1, 0, 1, "relu"),
    (3, 2, 3, 3, 2, 3, 0, 1, "relu"),
    (2, 2, 8, 11, 3, 3, 1, 3, "relu"),  # edges that no pool takes in, rows and columns
    (2, 1, 8, 8, 3, 7, 3, 2, "sigmoid"),
    (9, 3, 32, 32, 8, 3, 0, 2, "relu"),  # several blocks, the last one short
    (6, 20, 12, 12, 60, 3, 0, 2, "relu"),  # one product for a whole block
    (2, 3, 7, 9, 3, 4, 0, 1, "relu"),  # even kernels
    (3, 2, 9, 8, 4, 2, 0, 2, "tanh"),
    (1, 1, 6, 6, 2, 6, 0, 1, "identity"),
]
# n, channels, rows, columns, filters, kernel, padding, size, stride, activation
AVERAGES = [
    (2, 3, 9, 8, 4, 3, 0, 4, 3, "relu"),  # windows that overlap
    (3, 1, 7, 9, 5, 3, 1, 2, 2, "identity"),  # a row and a column that fill no window
    (2, 2, 9, 10, 3, 4, 0, 3, 3, "sigmoid"),
    (2, 3, 6, 7, 4, 1, 0, 3, 1, "tanh"),
    (2, 3, 6, 7, 4, 3, 1, 2, 3, "leaky_relu"),  # positions that no window takes in
    (1, 1, 1, 1, 1, 1, 0, 1, 1, "relu"),
    (1, 2, 6, 6, 3, 6, 0, 1, 1, "relu"),
    (2, 1, 8, 8, 3, 2, 0, 1, 2, "identity"),
    (1, 3, 32, 32, 70, 6, 0, 14, 13, "relu"),
    (40, 3, 9, 9, 6, 4, 0, 6, 1, "relu"),  # several blocks of images
    (2, 1, 6, 6, 1100, 2, 0, 3, 2, "relu"),  # and of filters, the last one short
]


def naive_conv(x, weight, bias, padding):
    """z[i, f, r, c] = b[f] + Σ x[i, :, r : r + k, c : c + k] · weight[f], one output at a time."""
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    n, (filters, _, k, _) = len(x), weight.shape
    z = np.zeros((n, filters, x.shape[2] - k + 1, x.shape[3] - k + 1))
    for i in range(n):
        for f in range(filters):
            for r in range(z.shape[2]):
                for c in range(z.shape[3]):
                    z[i, f, r, c] = bias[f] + (x[i, :, r : r + k, c : c + k] * weight[f]).sum()
    return z


def naive_conv_backward(x, weight, padding, dz):
    """Gradients of weight, bias and x: each output hands its dz to the weights and the pixels that made it."""
    p = padding
    x = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    d_weight, dx, k = np.zeros(weight.shape), np.zeros(x.shape), weight.shape[2]
    for i, f, r, c in np.ndindex(dz.shape):
        d_weight[f] += dz[i, f, r, c] * x[i, :, r : r + k, c : c + k]
        dx[i, :, r : r + k, c : c + k] += dz[i, f, r, c] * weight[f]
    return d_weight, dz.sum(axis=(0, 2, 3)), dx[:, :, p : dx.shape[2] - p, p : dx.shape[3] - p]


def naive_pool(x, size):
    """Maxima of whole windows, and the number of the first element that is one."""
    shape = (*x.shape[:2], x.shape[2] // size, x.shape[3] // size)
    out, place = np.zeros(shape), np.zeros(shape, np.int64)
    for i, f, r, c in np.ndindex(shape):
        window = x[i, f, r * size : (r + 1) * size, c * size : (c + 1) * size].ravel()
        out[i, f, r, c], place[i, f, r, c] = window.max(), window.argmax()
    return out, place


def naive_unpool(dy, place, size, shape):
    dx = np.zeros(shape)
    for i, f, r, c in np.ndindex(dy.shape):
        row, column = divmod(place[i, f, r, c], size)
        dx[i, f, r * size + row, c * size + column] = dy[i, f, r, c]
    return dx


def naive_average(x, size, stride):
    """Averages of whole windows, one at a time."""
    rows, columns = ((n - size) // stride + 1 for n in x.shape[2:])
    out = np.zeros((*x.shape[:2], rows, columns))
    for r, c in np.ndindex(rows, columns):
        out[:, :, r, c] = x[:, :, r * stride : r * stride + size, c * stride : c * stride + size].mean(axis=(2, 3))
    return out


def naive_average_backward(dy, size, stride, shape):
    """Each average hands an equal share to every element of its window."""
    dx = np.zeros(shape)
    for r, c in np.ndindex(dy.shape[2:]):
        share = dy[:, :, r, c][:, :, None, None] / size**2
        dx[:, :, r * stride : r * stride + size, c * stride : c * stride + size] += share
    return dx


@cache
def drawn(case):
    """x, weight, bias and dz of float64 that are float32 numbers: one answer for both dtypes."""
    n, channels, rows, columns, filters, k, *_ = case
    shapes = (n, channels, rows, columns), (filters, channels, k, k), (filters,), output_shape(case)
    rng = np.random.default_rng(7)
    return [rng.normal(size=shape).astype("float32").astype(float) for shape in shapes]


@cache
def answers(case):
    """(y, place, the gradients of weight, bias and x) for `drawn(case)`, by the loops above."""
    *_, padding, pool, activation = case
    x, weight, bias, dz = drawn(case)
    maps = naive_conv(x, weight, bias, padding)
    y, place = naive_pool(maps, pool)
    spread = naive_unpool(dz, place, pool, maps.shape)
    return APPLY[activation](y), place, naive_conv_backward(x, weight, padding, spread)


def made(case, dtype):
    return [a.astype(dtype) for a in drawn(case)]


def output_shape(case):
    n, _, rows, columns, filters, k, padding, pool, _ = case
    return n, filters, (rows + 2 * padding - k + 1) // pool, (columns + 2 * padding - k + 1) // pool


def forward(backend, case, x, weight, bias, dtype, placed=True):
    *_, padding, pool, activation = case
    out = backend.empty(output_shape(case), dtype)
    place = backend.empty(output_shape(case), "uint8") if pool > 1 and placed else None
    with backend.session():
        backend.conv2d(x, weight, bias, activation, padding, pool, out, place)
    return out, place


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_conv2d(backend, case, dtype):
    x, weight, bias, _ = made(case, dtype)
    given_ = device(backend, x, weight, bias)
    want, place, _ = answers(case)
    for placed in (True, False):
        out, where = forward(backend, case, *given_, dtype, placed)
        close(backend.to_host(out), want, dtype, terms=weight[0].size)
        if where is not None:
            np.testing.assert_array_equal(backend.to_host(where), place)
    for before, after in zip((x, weight, bias), given_, strict=True):
        np.testing.assert_array_equal(backend.to_host(after), before)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("wanted", ["all", "parameters", "input"])
def test_conv2d_backward(backend, case, dtype, wanted):
    *_, padding, pool, _ = case
    x, weight, bias, dz = made(case, dtype)
    given_ = device(backend, x, weight, bias, dz)
    _, where = forward(backend, case, *given_[:3], dtype)
    grads = [backend.empty(a.shape, dtype) for a in (weight, bias, x)]
    if wanted == "parameters":
        grads[2] = None
    if wanted == "input":
        grads[0] = grads[1] = None
    for _ in range(2):  # the second call finds its scratch used
        backend.conv2d_backward(given_[0], given_[1], padding, pool, where, given_[3], *grads)
    for grad, right, terms in zip(grads, answers(case)[2], (dz.size, dz.size, weight[:, 0].size), strict=True):
        if grad is not None:
            close(backend.to_host(grad), right, dtype, terms=terms)
    np.testing.assert_array_equal(backend.to_host(given_[3]), dz)


def test_bias_may_be_absent(backend):
    case = CASES[0]
    x, weight, bias, _ = made(case, "float64")
    d_x, d_weight, zero = device(backend, x, weight, 0 * bias)
    np.testing.assert_array_equal(
        *(backend.to_host(forward(backend, case, d_x, d_weight, b, "float64")[0]) for b in (None, zero))
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("shape", [(1, 1, 5, 5), (3, 2, 8, 7), (2, 4, 10, 15), (19, 8, 30, 30)])
def test_maxpool2d(backend, rng, dtype, size, shape):
    x = rng.integers(-3, 4, shape).astype(dtype)  # ties everywhere: the first of them counts
    (d_x,) = device(backend, x)
    want, place = naive_pool(x, size)
    out, where = backend.empty(want.shape, dtype), backend.empty(want.shape, "uint8")
    backend.maxpool2d(d_x, size, out, where)
    np.testing.assert_array_equal(backend.to_host(out), want)
    np.testing.assert_array_equal(backend.to_host(where), place)
    again = backend.empty(want.shape, dtype)
    backend.maxpool2d(d_x, size, again, None)
    np.testing.assert_array_equal(backend.to_host(again), want)
    dy = rng.normal(size=want.shape).astype(dtype)
    (d_dy,) = device(backend, dy)
    dx = backend.empty(shape, dtype)
    backend.maxpool2d_backward(d_dy, where, size, dx)
    np.testing.assert_array_equal(backend.to_host(dx), naive_unpool(dy, place, size, shape).astype(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("size", "stride"), [(1, 1), (2, 2), (3, 1), (2, 3), (1, 2), (5, 4)])
@pytest.mark.parametrize("shape", [(1, 1, 5, 5), (3, 2, 8, 7), (19, 8, 30, 31)])
def test_avgpool2d(backend, rng, dtype, size, stride, shape):
    x = rng.normal(size=shape).astype(dtype)
    want = naive_average(x.astype(float), size, stride)
    out, dx = backend.empty(want.shape, dtype), backend.empty(shape, dtype)
    d_x, d_dy = device(backend, x, dy := rng.normal(size=want.shape).astype(dtype))
    for _ in range(2):
        backend.avgpool2d(d_x, size, stride, out)
        close(backend.to_host(out), want, dtype, terms=size**2)
        backend.avgpool2d_backward(d_dy, size, stride, dx)
        close(backend.to_host(dx), naive_average_backward(dy.astype(float), size, stride, shape), dtype, terms=size**2)
    np.testing.assert_array_equal(backend.to_host(d_x), x)
    np.testing.assert_array_equal(backend.to_host(d_dy), dy)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_reaches_the_averages_of_its_windows(backend, bad):
    x = np.arange(98, dtype="float32").reshape(1, 2, 7, 7)
    x[0, 1, 2, 4] = bad
    clean = naive_average(np.where(np.isfinite(x), x, 0), 3, 2)
    (d_x,) = device(backend, x)
    out = backend.empty(clean.shape)
    with backend.session():
        backend.avgpool2d(d_x, 3, 2, out)
    hit = np.zeros(clean.shape, bool)
    hit[0, 1, :2, 1:] = True
    np.testing.assert_array_equal(backend.to_host(out)[hit], np.full(4, bad, "float32"))
    np.testing.assert_allclose(backend.to_host(out)[~hit], clean[~hit], rtol=1e-6)


# -- convolution and averages in one ---------------------------------------------------------------------------------


def averaged(backend, case, x, weight, bias, dtype):
    _, _, rows, columns, _, k, padding, size, stride, activation = case
    grid = ((n + 2 * padding - k + 1 - size) // stride + 1 for n in (rows, columns))
    out = backend.empty((len(x), len(weight), *grid), dtype)
    with backend.session():
        backend.conv2d_avgpool(x, weight, bias, activation, padding, size, stride, out)
    return out


def draw_averages(case, dtype):
    n, channels, rows, columns, filters, k, *_ = case
    shapes = (n, channels, rows, columns), (filters, channels, k, k), (filters,)
    return [np.random.default_rng(8).normal(size=shape).astype(dtype) for shape in shapes]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", AVERAGES)
def test_conv2d_avgpool(backend, case, dtype):
    *_, padding, size, stride, activation = case
    x, weight, bias = draw_averages(case, dtype)
    maps = naive_conv_by_tap(*(a.astype(float) for a in (x, weight, bias)), padding)
    want = naive_average(APPLY[activation](maps), size, stride)
    given_ = device(backend, x, weight, bias)
    for _ in range(2):
        close(backend.to_host(averaged(backend, case, *given_, dtype)), want, dtype, terms=weight[0].size + size)
    for before, after in zip((x, weight, bias), given_, strict=True):
        np.testing.assert_array_equal(backend.to_host(after), before)
    made_of_two = backend.empty((len(x), len(weight), *maps.shape[2:]), dtype), backend.empty(want.shape, dtype)
    with backend.session():
        backend.conv2d(*given_, activation, padding, 1, made_of_two[0], None)
        backend.avgpool2d(made_of_two[0], size, stride, made_of_two[1])
    close(backend.to_host(made_of_two[1]), want, dtype, terms=weight[0].size + size)


def naive_conv_by_tap(x, weight, bias, padding):
    """`naive_conv`, all outputs at a time: with a thousand filters the other takes minutes."""
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    k = weight.shape[2]
    rows, columns = (n - k + 1 for n in x.shape[2:])
    z = np.tile(bias[:, None, None], (len(x), 1, rows, columns))
    for r, c in np.ndindex(k, k):
        z += np.einsum("nchw,uc->nuhw", x[:, :, r : r + rows, c : c + columns], weight[:, :, r, c])
    return z


def test_both_ways_of_the_plain_convolution_agree():
    x, weight, bias = draw_averages(AVERAGES[0], "float64")
    np.testing.assert_allclose(naive_conv_by_tap(x, weight, bias, 1), naive_conv(x, weight, bias, 1), atol=1e-12)


def test_averages_without_a_bias(backend):
    case = AVERAGES[0]
    x, weight, bias = draw_averages(case, "float64")
    d_x, d_weight, zero = device(backend, x, weight, 0 * bias)
    found = (backend.to_host(averaged(backend, case, d_x, d_weight, b, "float64")) for b in (None, zero))
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("activation", ["relu", "identity", "tanh"])
@pytest.mark.parametrize("filters", [1, 6, 200, 1100])
def test_filters_of_both_signs_have_the_bits_that_each_has_by_itself(backend, filters, activation):
    """On the CPU only half of them are multiplied, which one number that differs ends."""
    case = (3, 3, 9, 9, 2 * filters, 4, 0, 5, 1, activation)
    x, weight, bias = draw_averages(case, "float32")
    weight[filters:] = -weight[:filters]
    both = backend.to_host(averaged(backend, case, *device(backend, x, weight, bias), "float32"))
    weight[-1, 0, 0, 0] += 1
    apart = backend.to_host(averaged(backend, case, *device(backend, x, weight, bias), "float32"))
    np.testing.assert_array_equal(both[:, :-1], apart[:, :-1])
    assert not np.array_equal(both[:, -1], apart[:, -1])


@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_of_filters_of_both_signs_half_are_multiplied(name, monkeypatch):
    backend, case, sizes = make_backend(name), (2, 3, 9, 9, 40, 4, 0, 5, 1, "relu"), []
    monkeypatch.setattr(numpy_backend, "multiply", lambda size, a, b, out: sizes.append(size) or np.matmul(a, b, out))
    x, weight, bias = draw_averages(case, "float32")
    averaged(backend, case, x, weight, bias, "float32")
    weight[20:] = -weight[:20]
    averaged(backend, case, x, weight, bias, "float32")
    assert sizes == [36 * 40 * 48, 36 * 20 * 48]


def test_an_images_averages_are_the_same_whatever_batch_it_is_in(backend):
    case = (70, 3, 16, 15, 24, 6, 0, 5, 4, "relu")
    x, *given_ = device(backend, *draw_averages(case, "float32"))
    whole = backend.to_host(averaged(backend, case, x, *given_, "float32"))
    for part in (slice(0, 1), slice(69, 70), slice(3, 40)):
        found = averaged(backend, case, x[part], *given_, "float32")
        np.testing.assert_array_equal(backend.to_host(found), whole[part])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("activation", ["identity", "relu", "tanh"])
def test_nan_and_infinity_reach_the_averages_that_see_them_and_nothing_else(backend, bad, activation):
    case = (2, 2, 10, 11, 4, 2, 0, 3, 3, activation)
    x, weight, bias = draw_averages(case, "float32")
    weight[:2] = abs(weight[:2])
    weight[2:] = -weight[:2]
    clean = backend.to_host(averaged(backend, case, *device(backend, x, weight, bias), "float32"))
    x[1, 1, 3, 4] = bad  # seen by rows 2 and 3, columns 3 and 4 of the maps
    found = backend.to_host(averaged(backend, case, *device(backend, x, weight, bias), "float32"))
    hit = np.zeros(clean.shape, bool)
    hit[1, :, :2, 1] = True
    np.testing.assert_array_equal(found[~hit], clean[~hit])
    if np.isnan(bad):
        assert np.isnan(found[hit]).all()
    elif activation != "tanh":
        assert np.isposinf(found[1, :2, :2, 1]).all()
        ends = np.isneginf if activation == "identity" else np.isfinite
        assert ends(found[1, 2:, :2, 1]).all()


def test_averages_of_images_with_strides_are_those_of_their_copy(backend):
    case = (5, 3, 12, 12, 8, 4, 0, 4, 3, "relu")
    x, weight, bias = device(backend, *draw_averages(case, "float32"))
    wide = backend.zeros((10, 3, 12, 20), "float32")
    wide[::2, :, :, 3:15] = x
    outs = [averaged(backend, case, images, weight, bias, "float32") for images in (x, wide[::2, :, :, 3:15])]
    np.testing.assert_array_equal(*map(backend.to_host, outs))


@pytest.mark.parametrize("case", AVERAGES[:5])
def test_averages_allocate_nothing_after_the_first_call(case):
    strict = StrictBackend()
    x, weight, bias = draw_averages(case, "float32")
    out = averaged(strict, case, x, weight, bias, "float32")
    first, (_, _, _, _, _, _, padding, size, stride, activation) = out.copy(), case
    dx = strict.empty((*out.shape[:2], 20, 20))
    strict.avgpool2d_backward(out, size, stride, dx[:, :, : (out.shape[2] - 1) * stride + size].copy())
    with strict.capture():
        strict.conv2d_avgpool(x, weight, bias, activation, padding, size, stride, out)
    np.testing.assert_array_equal(first, out)


@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_the_maps_of_many_images_and_filters_are_never_there(name):
    case = (40, 3, 25, 25, 1500, 2, 0, 12, 12, "relu")  # 138 MB of maps
    x, weight, bias = draw_averages(case, "float32")
    backend = make_backend(name)
    averaged(backend, case, x[:1], weight, bias, "float32")
    tracemalloc.start()
    averaged(backend, case, x, weight, bias, "float32")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    kept = sum(array.nbytes for array in backend.pool.arrays.values())
    assert kept < 16 << 20
    assert peak < 8 << 20  # 1 MB are the outputs


@pytest.mark.parametrize("columns", [64, 200, 512])
def test_averages_are_the_same_on_any_number_of_threads(columns, monkeypatch):
    """Where BLAS has one thread alone here, both are on it."""
    backend, case = make_backend("numba"), (2, 3, 30, 29, columns, 4, 0, 13, 12, "relu")
    given_ = draw_averages(case, "float32")
    whole = averaged(backend, case, *given_, "float32")
    alone = lambda least, kernel, arrays, *numbers: kernel(*arrays, *numbers)  # noqa: E731
    monkeypatch.setattr("gpunet.backend.numba_backend.spread", alone)
    np.testing.assert_array_equal(averaged(backend, case, *given_, "float32"), whole)


@cache
def kept_backend(name):
    """Kept, so that scratch of other shapes lies about."""
    return make_backend(name) if name == "cuda-host" else get_backend(name)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    sizes=st.tuples(*(st.integers(1, top) for top in (3, 3, 12, 12, 6))),
    k=st.sampled_from([1, 2, 3, 4, 5]),
    same=st.booleans(),
    pool=st.integers(1, 3),
    seed=st.integers(0, 2**16),
)
@pytest.mark.parametrize("name", ["numpy", "cpu", "cuda-host"])
def test_any_shape_that_fits(name, sizes, k, same, pool, seed):
    padding = k // 2 if same and k % 2 else 0
    case = (*sizes, k, padding, pool, "identity")
    if min(output_shape(case)) < 1:
        return
    backend, rng = kept_backend(name), np.random.default_rng(seed)
    x, weight, bias, dz = (rng.normal(size=a.shape) for a in drawn(case))
    d_x, d_weight, d_bias, d_dz = device(backend, x, weight, bias, dz)
    out, where = forward(backend, case, d_x, d_weight, d_bias, "float64")
    maps = naive_conv(x, weight, bias, padding)
    want, place = naive_pool(maps, pool)
    close(backend.to_host(out), want, "float64", terms=weight[0].size)
    grads = [backend.empty(a.shape, "float64") for a in (weight, bias, x)]
    backend.conv2d_backward(d_x, d_weight, padding, pool, where, d_dz, *grads)
    spread = naive_unpool(dz, place, pool, maps.shape)
    for grad, right in zip(grads, naive_conv_backward(x, weight, padding, spread), strict=True):
        close(backend.to_host(grad), right, "float64", terms=dz.size)


# -- unfriendly numbers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["identity", "relu"])
@pytest.mark.parametrize("size", [2, 3])
def test_pooling_without_places_gives_the_bits_that_it_gives_with_them(backend, size, activation):
    """0 and −0, infinity and NaN among them, in images and behind a convolution."""
    rng = np.random.default_rng(size)
    x = rng.choice([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf], (5, 3, 13, 11)).astype("float32")
    x[rng.random(x.shape) < 0.02] = np.nan
    d_x, weight = backend.asarray(x), np.zeros((4, 3, 1, 1), "float32")
    weight[np.arange(4), [0, 1, 2, 0], 0, 0] = 1, 1, -1, 0.5
    found = []
    for places in (True, False):
        out, place = (
            backend.empty((5, 3, 13 // size, 11 // size)),
            backend.empty((5, 3, 13 // size, 11 // size), "uint8"),
        )
        backend.maxpool2d(d_x, size, out, place if places else None)
        clean = backend.asarray(np.nan_to_num(x, posinf=2, neginf=-2))
        behind = backend.empty((5, 4, 13 // size, 11 // size))
        place = backend.empty(behind.shape, "uint8")
        backend.conv2d(clean, backend.asarray(weight), None, activation, 0, size, behind, place if places else None)
        found.append([backend.to_host(each) for each in (out, behind)])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(np.signbit(one) & ~np.isnan(one), np.signbit(other) & ~np.isnan(one))
    assert np.isnan(found[0][0]).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("pool", [1, 2, 3])
@pytest.mark.parametrize("activation", ["identity", "relu"])
def test_nan_and_infinity_reach_what_sees_them_and_nothing_else(backend, bad, pool, activation):
    case = (2, 2, 10, 11, 3, 3, 1, pool, activation)
    x, weight, bias, _ = made(case, "float32")
    weight = abs(weight)
    x[1, 1, 4, 6] = bad
    out, _ = forward(backend, case, *device(backend, x, weight, bias), "float32")
    want = np.zeros((2, 3, 10, 11), bool)
    want[1, :, 3:6, 5:8] = True
    want = naive_pool(want, pool)[0].astype(bool)
    got = backend.to_host(out)
    np.testing.assert_array_equal(np.isnan(got) if np.isnan(bad) else np.isposinf(got), want)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("cell", [0, 1, 2, 3])
def test_pooling_keeps_nan_wherever_in_the_window_it_stands(backend, size, cell):
    x = np.arange(72, dtype="float32").reshape(1, 2, 6, 6)
    x[0, 1, 2 * (size - 1) + cell // 2, 2 * (size - 1) + cell % 2] = np.nan
    (d_x,) = device(backend, x)
    for placed in (True, False):
        out = backend.empty((1, 2, 6 // size, 6 // size), "float32")
        place = backend.empty(out.shape, "uint8") if placed else None
        with backend.session():
            backend.maxpool2d(d_x, size, out, place)
        assert np.isnan(backend.to_host(out)).sum() == 1
        np.testing.assert_array_equal(backend.to_host(out)[0, 0], naive_pool(x, size)[0][0, 0])


def test_large_numbers_stay_finite_and_zero_filters_give_the_bias(backend):
    case = (2, 3, 8, 8, 4, 3, 0, 2, "relu")
    x, weight, *_ = made(case, "float32")
    bias = np.array([-1, 0, 0.5, 2], "float32")
    out, _ = forward(backend, case, *device(backend, x * 1e30, 0 * weight, bias), "float32")
    np.testing.assert_array_equal(
        backend.to_host(out), np.broadcast_to(np.maximum(bias, 0)[:, None, None], output_shape(case))
    )
    out, _ = forward(backend, case, *device(backend, x * 1e30, weight, bias), "float32")
    want = naive_pool(APPLY["relu"](naive_conv(x.astype(float) * 1e30, weight.astype(float), bias, 0)), 2)[0]
    np.testing.assert_allclose(backend.to_host(out), want, rtol=0, atol=RTOL["float32"] * want.max() * 16)


# -- how it runs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_no_allocation_after_the_first_call(case):
    strict = StrictBackend()
    *_, padding, pool, _ = case
    x, weight, bias, dz = made(case, "float32")
    grads = [strict.empty(a.shape) for a in (weight, bias, x)]
    out, place = forward(strict, case, x, weight, bias, "float32")
    strict.conv2d_backward(x, weight, padding, pool, place, dz, *grads)
    first = [a.copy() for a in (out, *grads)]
    with strict.capture():
        strict.conv2d(x, weight, bias, case[-1], padding, pool, out, place)
        strict.conv2d_backward(x, weight, padding, pool, place, dz, *grads)
    for before, after in zip(first, (out, *grads), strict=True):
        np.testing.assert_array_equal(before, after)


def test_an_image_gives_the_same_result_whatever_batch_it_is_in(backend):
    case = (9, 3, 32, 32, 8, 3, 0, 2, "relu")
    given_ = device(backend, *made(case, "float32")[:3])
    whole, _ = forward(backend, case, *given_, "float32")
    for i in (0, 8):
        single, _ = forward(backend, (1, *case[1:]), given_[0][i : i + 1], *given_[1:], "float32")
        np.testing.assert_array_equal(backend.to_host(single)[0], backend.to_host(whole)[i])


def test_images_with_strides_give_what_their_copy_gives(backend):
    case = (9, 3, 32, 32, 8, 3, 0, 2, "relu")
    x, weight, bias = device(backend, *made(case, "float32")[:3])
    wide = backend.zeros((18, 3, 32, 40), "float32")
    wide[::2, :, :, 3:35] = x
    outs = [forward(backend, case, images, weight, bias, "float32")[0] for images in (x, wide[::2, :, :, 3:35])]
    np.testing.assert_array_equal(*map(backend.to_host, outs))


@pytest.mark.parametrize("device_name", ["numpy", "cpu"])
def test_scratch_does_not_grow_with_every_size_of_batch(rng, device_name):
    backend, case = get_backend(device_name), (1, 1, 8, 8, 4, 3, 1, 2, "relu")
    _, weight, bias, _ = made(case, "float32")

    def run(n):
        x = np.ones((n, 1, 8, 8), "float32")
        out, place = forward(backend, (n, *case[1:]), x, weight, bias, "float32")
        grads = [backend.empty(a.shape) for a in (weight, bias, x)]
        backend.conv2d_backward(x, weight, 1, 2, place, out, *grads)

    run(256)
    kept = sum(a.nbytes for a in backend.pool.arrays.values())
    for n in range(1, 256):
        run(n)
    assert sum(a.nbytes for a in backend.pool.arrays.values()) < 3 * kept


@pytest.mark.parametrize("shape", [(60, 3, 5, 4), (60, 60)])
def test_gather_of_images(backend, rng, shape):
    data, order = rng.integers(0, 256, shape, dtype=np.uint8), rng.permutation(60)
    d_data, d_order, cursor = device(backend, data, order, np.array([7]))
    out = backend.empty((11, *shape[1:]), "float32")
    backend.gather(d_data, d_order, cursor, 1 / 255, out)
    close(backend.to_host(out), data[order[7:18]].astype(float) / 255, "float32")
