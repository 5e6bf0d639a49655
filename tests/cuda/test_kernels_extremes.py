"""The kernels on infinities, NaN, denormals, ties, labels at the ends, single rows and none.

A GPU takes denormal float32 for 0 (see `cupy_backend`), which g++ does not: where that shows, it is given none.
"""

from __future__ import annotations

import numpy as np
import pytest

from gpunet.backend.base import ACTIVATIONS, CORRECT, FIRST_BAD, LOSS_SUM, SAMPLES
from gpunet.backend.numpy_backend import NumpyBackend

from .cases import (  # fmt: skip
    Bench,
    activate,
    affine,
    affine_loss,
    backward,
    check_guards,
    gelu,
    loss,
    maxpool,
    optimiser,
    real,
    results,
    to_bfloat16,
)
from .halves import bits, numbers

INF, NAN = np.inf, np.nan
ODD = np.array([-INF, -1e30, -1e4, -89, -1, -1e-38, -1e-45, -0.0, 0.0, 1e-45, 1e-38, 0.5, 89, 1e4, 1e30, INF, NAN])
ODD = ODD.astype("float32").astype("float64")
LOSSES = {
    "softmax": loss("softmax_cross_entropy"), "binary": loss("binary_cross_entropy"),
    "squared identity": loss("squared_error", "identity"), "squared sigmoid": loss("squared_error", "sigmoid"),
}  # fmt: skip


def odd(gpu):
    """Odd numbers, of which none is denormal where they would be flushed."""
    return np.where(np.abs(ODD) < np.finfo("float32").tiny, 0, ODD) if real(gpu) else ODD


def both(gpu, run, *arrays, dtype="float32"):
    """(the kernels' results, NumPy's in float64)."""
    found = []
    for bench in (Bench(gpu, dtype), Bench(NumpyBackend(), "float64")):
        with bench.backend.session(), np.errstate(all="ignore"):
            found.append(results(bench, run(bench, *arrays)))
    check_guards(gpu)
    return found


def same(got, want, rtol=1e-6, atol=1e-7):
    """Equal, NaN where NaN, and infinite where infinite or beyond float32."""
    for found, right in zip(got, want, strict=True):
        with np.errstate(over="ignore"):
            np.testing.assert_allclose(found, right.astype(found.dtype), rtol=rtol, atol=atol)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(gpu, activation):
    same(*both(gpu, activate(activation), ODD))


@pytest.mark.parametrize("by_tanh", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gelu(gpu, by_tanh, dtype):
    same(*both(gpu, gelu(by_tanh, False), ODD, np.full(len(ODD), 0.5), dtype=dtype))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_affine_keeps_what_is_not_finite(gpu, activation):
    same(*both(gpu, affine(activation), ODD[:, None], np.ones((5, 1)), np.zeros(5)))


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activation_backward_where_the_unit_is_lit(gpu, activation, with_bias):
    y = np.full((len(ODD), 2), 0.25)
    same(*both(gpu, backward(activation, with_bias, False), y, np.stack([ODD, np.flip(ODD)], axis=1)))


def test_a_relu_that_is_off_passes_nothing_on_not_even_nan(gpu):
    (dz, grad), _ = both(gpu, backward("relu", True, True), np.zeros((len(ODD), 1)), ODD[:, None])
    assert not dz.any()
    assert not grad.any()


def test_gradients_of_no_rows_are_zero(gpu):
    (dz, grad), _ = both(gpu, backward("relu", True, True), np.zeros((0, 5)), np.zeros((0, 5)))
    assert dz.shape == (0, 5)
    np.testing.assert_array_equal(grad, np.zeros(5))


# -- losses ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("k", [2, 3, 33, 100])
def test_large_scores_and_labels_at_the_ends(gpu, rng, name, k):
    z = rng.choice([-1e4, -300, -1.0, 0.0, 1.0, 300, 1e4], (40, k))
    labels = np.where(rng.random(40) < 0.5, 0, k - 1)
    (dz, totals), (want, right) = both(gpu, LOSSES[name], z, labels)
    np.testing.assert_allclose(dz, want, rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(totals[LOSS_SUM], right[LOSS_SUM], rtol=1e-6)
    np.testing.assert_array_equal(totals[CORRECT:], right[CORRECT:])


@pytest.mark.parametrize("name", LOSSES)
def test_the_first_of_equal_scores_is_the_answer(gpu, rng, name):
    z = rng.integers(0, 2, (200, 37)).astype(float)
    labels = np.where(np.arange(200) % 2, z.argmax(axis=1), 36 - np.flip(z, axis=1).argmax(axis=1))
    (_, totals), (_, right) = both(gpu, LOSSES[name], z, labels)
    assert totals[CORRECT] == right[CORRECT]
    assert 100 <= totals[CORRECT] - 2 < 200


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("column", [0, 3, 9])
def test_a_bad_score_marks_the_batch_and_spoils_its_row_only(gpu, rng, name, bad, column):
    z = rng.normal(size=(64, 10)).astype("float32").astype(float)
    labels = rng.integers(0, 10, 64)
    z[40, column], labels[40] = bad, column
    (dz, totals), (want, right) = both(gpu, LOSSES[name], z, labels)
    assert np.isfinite(np.delete(dz, 40, axis=0)).all()
    np.testing.assert_array_equal(np.isfinite(dz[40]), np.isfinite(want[40]))
    assert np.isfinite(totals[LOSS_SUM]) == np.isfinite(right[LOSS_SUM])
    assert totals[FIRST_BAD] == right[FIRST_BAD]
    assert totals[CORRECT] == right[CORRECT]
    assert totals[SAMPLES] == right[SAMPLES] == 67


def test_only_the_first_bad_batch_is_marked(gpu):
    bench = Bench(gpu, "float32")
    dz = bench.room((3, 2))
    totals = gpu.asarray(np.array([0.0, 0, 0, -1]))
    labels = bench.give(np.array([0, 1, 0]))
    for value in (1.0, NAN, 1.0, NAN):
        gpu.softmax_cross_entropy(bench.give(np.full((3, 2), value)), labels, 1.0, dz, totals)
    assert gpu.to_host(totals)[[SAMPLES, FIRST_BAD]].tolist() == [12, 3]


@pytest.mark.parametrize("name", LOSSES)
def test_no_samples_change_nothing(gpu, name):
    (dz, totals), _ = both(gpu, LOSSES[name], np.zeros((0, 4)), np.zeros(0, np.int64))
    assert dz.shape == (0, 4)
    assert totals.tolist() == [1.5, 2, 3, -1]


def test_labels_of_other_integers_are_taken_and_labels_out_of_range_read_nothing(gpu):
    z = np.eye(3)
    for dtype in ("int32", "uint8"):
        (dz, totals), (want, right) = both(gpu, LOSSES["softmax"], z, np.array([0, 1, 1]).astype(dtype))
        np.testing.assert_allclose(dz, want, atol=1e-7)
        assert totals[CORRECT] == right[CORRECT]
    bench = Bench(gpu, "float32")
    dz, totals = results(bench, LOSSES["softmax"](bench, z, np.array([5, -1, 1])))
    np.testing.assert_allclose(dz[0], np.exp([1, 0, 0]) / (np.e + 2) / 8, rtol=1e-6)
    assert totals[CORRECT] == 2
    assert np.isnan(totals[LOSS_SUM])
    assert totals[FIRST_BAD] == 3


# -- optimisers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "states"), [("sgd", 0), ("momentum", 1), ("adam", 2)])
def test_gradients_that_are_not_finite_spoil_only_their_own_parameter(gpu, name, states):
    params = np.linspace(-1, 1, len(ODD))
    small = np.where(np.abs(ODD) < 1e15, ODD, np.where(np.isfinite(ODD), 1.0, ODD))  # V of 1e30 is no float32
    got, want = both(gpu, optimiser(name, states, 0), params.astype("float32").astype(float), small, np.zeros(len(ODD)))
    np.testing.assert_array_equal(np.isnan(got[0]), np.isnan(want[0]))
    same(got[:1], want[:1], rtol=2e-6, atol=1e-6)


def test_denormal_gradients_and_moments(shim):
    tiny = np.full(9, 1e-41).astype("float32").astype(float)
    got, want = both(shim, optimiser("adam", 2, 0), np.ones(9), tiny, tiny, np.zeros(9))
    np.testing.assert_allclose(got[1], want[1], rtol=1e-3)  # denormals have few digits; on a GPU this is 0
    np.testing.assert_array_equal(got[0], np.ones(9, "float32"))


def test_adam_after_a_million_steps(gpu, rng):
    params, gradient = rng.normal(size=(2, 33)).astype("float32")
    found = []
    for bench in (Bench(gpu, "float32"), Bench(NumpyBackend(), "float64")):
        scalars = bench.backend.asarray(np.array([0.01, 0.9, 0.999, 1e-8, 0, 1e6 - 1, 1e6 - 1, 0, 0]))
        given, first, second = (bench.give(a.astype(float)) for a in (params, gradient, gradient**2))
        bench.backend.tick(scalars)
        bench.backend.adam(given, bench.give(gradient.astype(float)), first, second, scalars, 0)
        found.append(bench.backend.to_host(given))
    np.testing.assert_allclose(*found, rtol=2e-6)


# -- batches and images ----------------------------------------------------------------------------------------------


def test_gather_stays_inside_the_data_set(gpu):
    bench = Bench(gpu, "float32")
    data, order = bench.give(np.arange(12.0).reshape(4, 3)), bench.give(np.array([3, -7, 99, 1]))
    out = bench.room((6, 3))
    gpu.gather(data, order, bench.give(np.array([0])), 1, out)
    np.testing.assert_array_equal(gpu.to_host(out)[:, 0], [9, 0, 9, 3, 3, 3])


@pytest.mark.parametrize("size", [1, 2, 3])
def test_pooling_of_what_is_not_finite(gpu, rng, size):
    x = rng.permutation(np.resize(odd(gpu), 2 * 6 * 7)).reshape(1, 2, 6, 7)
    case = maxpool(x.shape, size)
    (out, place, again, dx), (want, where, *_) = both(gpu, case.run, x, np.ones((1, 2, 6 // size, 7 // size)))
    np.testing.assert_array_equal(out, want.astype("float32"))
    np.testing.assert_array_equal(again, out)
    np.testing.assert_array_equal(place[~np.isnan(want)], where[~np.isnan(want)])
    assert dx.sum() == out.size


# -- bfloat16 --------------------------------------------------------------------------------------------------------

MIXED_ODD = np.concatenate([numbers(bits(ODD)), numbers(np.array([1, 0x7F, 0x80, 0x7F7F, 0xFF7F, 0x8001], "uint16"))])


@pytest.mark.parametrize("backend", ["gpu", "numpy"])
def test_every_bfloat16_and_what_lies_between_it_and_the_next(gpu, backend):
    """All 65,536, denormals, infinities and NaN with any payload among them: below, at and above the tie, and the ends.

    On a GPU, too, since nothing is computed that could flush a denormal.
    """
    upper, lower = np.arange(1 << 16, dtype="uint32"), np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], "uint32")
    x = (upper[:, None] << 16 | lower).view("float32")
    on = gpu if backend == "gpu" else NumpyBackend()
    out = on.empty(x.shape, "uint16")
    with on.session():
        on.to_bfloat16(on.asarray(x), out)
    found = on.to_host(out)
    np.testing.assert_array_equal(found, bits(x))
    np.testing.assert_array_equal(found[:, 0], np.where(np.isnan(x[:, 0]), 0x7FC0, upper))  # what it holds, it holds


def mixed(gpu, run, *arrays):
    """(the kernels' numbers, those that NumPy gives in float64, both rounded where the kernels' are)."""
    found = []
    for bench in (Bench(gpu, "float32", mixed=True), Bench(NumpyBackend(), "float64")):
        with bench.backend.session(), np.errstate(all="ignore"):
            found.append(results(bench, run(bench, *arrays)))
    check_guards(gpu)
    got, want = found
    want = [numbers(bits(w)) if g.dtype == np.uint16 else w for g, w in zip(got, want, strict=True)]
    return [numbers(g) if g.dtype == np.uint16 else g for g in got], want


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("rounds", [True, False])
def test_affine_of_bfloat16_keeps_what_is_not_finite(gpu, activation, rounds):
    given = MIXED_ODD[:, None], np.ones((5, 1)), np.zeros(5)
    same(*mixed(gpu, affine(activation, True, rounds), *given), rtol=2**-8 if rounds else 1e-6)


@pytest.mark.parametrize(("half", "with_bias"), [("y dz", True), ("y dz", False), ("y", True), ("dz", False)])
@pytest.mark.parametrize("activation", ["relu", "tanh", "leaky_relu"])
def test_slopes_in_bfloat16_that_are_not_finite(gpu, activation, half, with_bias):
    y = np.full((len(ODD), 2), 0.25)
    got, want = mixed(gpu, backward(activation, with_bias, False, half), y, np.stack([ODD, np.flip(ODD)], axis=1))
    same(got, want, rtol=2**-8 if "dz" in half else 1e-6)


def test_a_score_of_bfloat16_that_is_not_finite_spoils_its_row_only(gpu, rng):
    x, weight = rng.integers(-4, 5, (64, 8)) / 4.0, rng.integers(-4, 5, (10, 8)) / 4.0
    x[40, 3], labels = NAN, rng.integers(0, 10, 64)
    run = affine_loss("softmax_cross_entropy")
    (z, dz, totals, sums), _ = mixed(gpu, run, x, weight, np.zeros(10), np.zeros((64, 10)), labels)
    for each in (z, dz):
        assert np.isnan(each[40]).all()
        assert np.isfinite(np.delete(each, 40, axis=0)).all()
    assert np.isnan(sums).all()
    assert totals[FIRST_BAD] == 3


@pytest.mark.parametrize(("name", "states"), [("sgd", 0), ("momentum", 1), ("adam", 2)])
def test_parameters_that_are_not_finite_are_rounded_as_any_other(gpu, name, states):
    bench = Bench(gpu, "float32", mixed=True)
    given, *_, rounded = results(bench, optimiser(name, states, 0)(bench, ODD, np.zeros(len(ODD))))
    np.testing.assert_array_equal(rounded, bits(given))
    assert np.isnan(given).any()
    assert np.isinf(given).any()


def test_no_numbers_are_rounded_to_none(gpu):
    bench = Bench(gpu, "float32", mixed=True)
    (out,) = to_bfloat16(bench, np.zeros((0, 3)))
    assert out.shape == (0, 3)


def test_a_gather_to_bfloat16_of_what_is_not_finite(gpu):
    data, order = odd(gpu).astype("float32")[:, None], np.arange(len(ODD))[::-1].copy()
    out = gpu.empty((len(ODD), 1), "uint16")
    gpu.gather(gpu.asarray(data), gpu.asarray(order), gpu.asarray(np.array([0])), 0.5, out)
    np.testing.assert_array_equal(gpu.to_host(out), bits(np.float32(0.5) * data[order]))
