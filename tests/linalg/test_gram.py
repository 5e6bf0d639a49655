"""Sums that grow batch by batch give what one piece would."""

from __future__ import annotations

import copy
import pickle
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest

from gpunet.errors import ConvergenceError, InputError, ShapeError
from gpunet.linalg import StreamingClassGram, StreamingGram, class_pca, moments, solvers
from gpunet.linalg.verify import tolerance
from tests.linalg.matrices import largest_angle


def batches(x, sizes):
    start = 0
    for size in sizes:
        yield x[start : start + size]
        start += size


SPLITS = [(1000,), (1, 999), (400, 1, 0, 599), (100,) * 10]


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("sizes", SPLITS)
@pytest.mark.parametrize("width", [20, 150])
def test_bytes_are_summed_exactly(sizes, center, width, rng):
    x = rng.integers(0, 256, (1000, width), dtype=np.uint8)
    stream = StreamingGram(center=center)
    for batch in batches(x, sizes):
        stream.update(batch)
    wide = x.astype(np.int64)
    assert stream.count == 1000
    np.testing.assert_array_equal(stream.mean, wide.sum(axis=0) / 1000)
    if center:
        exact = (1000 * wide.T @ wide - np.outer(wide.sum(axis=0), wide.sum(axis=0))) / 1000
        np.testing.assert_allclose(stream.gram(), exact, rtol=0, atol=1e-13 * np.trace(exact))
    else:
        np.testing.assert_array_equal(stream.gram(), wide.T @ wide)


@pytest.mark.parametrize("mean", [0.0, 1e6])
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("sizes", SPLITS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_floats_as_in_one_piece_to_1e10(sizes, center, mean, dtype, rng):
    x = (mean + rng.standard_normal((1000, 12)) * np.arange(1, 13)).astype(dtype)
    stream = StreamingGram(center=center)
    for batch in batches(x, sizes):
        stream.update(batch)
    exact = x.astype(np.longdouble)
    if center:
        exact = exact - exact.mean(axis=0)
    exact = (exact.T @ exact).astype(float)
    np.testing.assert_allclose(stream.gram(), exact, rtol=0, atol=1e-10 * np.abs(exact).max())
    one = StreamingGram(center=center).update(x).components(3)
    found = stream.components(3)
    top = one.explained_variance[0]
    np.testing.assert_allclose(found.explained_variance, one.explained_variance, rtol=0, atol=1e-10 * top)
    # Without centring a mean of 1e6 is all there is: the signal is 1e-12 of the largest eigenvalue.
    count = 3 if center or not mean else 1
    assert largest_angle(found.components[:count].T, one.components[:count].T) < 1e-8


@pytest.mark.parametrize("center", [False, True])
def test_merged_processes(center, rng):
    x = np.concatenate([1e5 + rng.standard_normal((300, 6)), rng.standard_normal((700, 6))])
    raw = rng.integers(0, 256, (50, 6), dtype=np.int16)
    parts = [StreamingGram(center=center).update(part) for part in (x[:100], x[100:500], x[500:], raw)]
    merged = StreamingGram(center=center)
    for part in reversed(parts):
        merged.merge(part)
    whole = StreamingGram(center=center).update(np.concatenate([x, raw.astype(float)]))
    assert merged.count == 1050
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(merged.gram(), whole.gram(), rtol=0, atol=1e-10 * np.abs(whole.gram()).max())


def test_it_only_adds_until_told_to_start_again(rng):
    x = rng.standard_normal((40, 5))
    stream = StreamingGram().update(x)
    stream.components(2)
    stream.update(x)
    assert stream.count == 80
    np.testing.assert_allclose(stream.density(), x.T @ x / 40)
    assert stream.reset().count == 0
    stream.update(rng.standard_normal((7, 9)))  # another width is fine after a reset
    assert stream.gram().shape == (9, 9)


def test_components_are_eigenvectors(rng):
    x = rng.standard_normal((500, 300)) * np.arange(1, 301) ** -0.5
    found = StreamingGram(center=True).update(x).components(4)
    values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    np.testing.assert_allclose(found.explained_variance, values[::-1][:4])
    np.testing.assert_allclose(found.explained_variance_ratio, values[::-1][:4] / values.sum())
    assert largest_angle(found.components.T, vectors[:, ::-1][:, :4]) < 1e-8
    assert found.residual < 1e-10
    assert found.route == "gram"
    share = StreamingGram(center=True).update(x).components(variance=0.5)
    assert share.explained_variance_ratio.sum() >= 0.5 > share.explained_variance_ratio[:-1].sum()


def test_classes_one_by_one(rng):
    x, labels = rng.integers(0, 256, (600, 30), dtype=np.uint8), rng.integers(0, 4, 600) * 10
    stream = StreamingClassGram()
    for start in range(0, 600, 130):
        stream.update(x[start : start + 130], labels[start : start + 130])
    other = StreamingClassGram().update(x, labels)
    whole = class_pca(x, labels, 3)
    for found in (stream.components(3), StreamingClassGram().merge(stream).components(3), other.components(3)):
        np.testing.assert_array_equal(found.classes, [0, 10, 20, 30])
        np.testing.assert_array_equal(found.counts, whole.counts)
        np.testing.assert_allclose(found.mean, whole.mean)
        np.testing.assert_allclose(found.components, whole.components, atol=1e-6)
        assert found.route == "gram"
    with pytest.raises(InputError, match="class 7"):
        stream.update(x[:1], np.array([7])).components(3)


@pytest.mark.parametrize(
    ("act", "error", "words"),
    [
        (lambda s: s.components(1), InputError, "seen no samples"),
        (lambda s: s.update(np.ones((3, 4))).update(np.ones((3, 5))), ShapeError, "5 features: those before had 4"),
        (
            lambda s: s.update(np.ones((3, 4))).merge(StreamingGram().update(np.ones((3, 5)))),
            ShapeError,
            "5 features: those before had 4",
        ),
        (lambda s: s.update(np.ones(4)), ShapeError, "shape"),
        (lambda s: s.update(np.array([[1, np.nan]])), InputError, r"batch holds nan at \[0, 1\]"),
        (lambda s: s.update(np.ones((3, 4))).components(5), InputError, "components is 5: .* 1 to 4"),
        (lambda s: s.update(np.ones((3, 4))).components(2, variance=0.5), InputError, "give one"),
        (lambda s: s.update(np.ones((3, 4))).components(variance=1.5), InputError, "variance is 1.5"),
        (lambda s: s.update(np.full((3, 4), 1e200)), InputError, r"values of 1e\+200, whose squares overflow float64"),
        (lambda s: s.update(np.ones((3, 4))).components(4), InputError, "seen 3 samples: .* k=4"),
        (lambda s: s.merge(None), InputError, "merge was given a NoneType: expected another StreamingGram"),
        (lambda s: s.merge(np.ones((3, 4))), InputError, "merge was given a ndarray"),
        (lambda s: s.update(np.ma.masked_array(np.ones((3, 4)), np.eye(3, 4))), InputError, r"\.filled\(0\)"),
    ],
)
def test_mistakes(act, error, words):
    with pytest.raises(error, match=words):
        act(StreamingGram())


# -- means far larger than the spread, and many batches --------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("rows", [5000, pytest.param(250_000, marks=pytest.mark.slow)])
def test_batches_of_one_row_lose_nothing(rows, rng):
    noise = np.round(rng.normal(size=(rows, 3)) * [1, 2, 3] * 2**30) / 2**30  # so that 1e6 + noise is exact
    stream = StreamingGram(center=True)
    for row in 1e6 + noise:
        stream.update(row[None])
    mean = noise.sum(axis=0, dtype=np.longdouble) / rows
    wanted = ((noise - mean).T @ (noise - mean) / rows).astype(float)
    np.testing.assert_allclose(stream.density(), wanted, rtol=0, atol=1e-13 * wanted.max())
    np.testing.assert_array_equal(stream.mean, (1_000_000 + mean).astype(float))


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_mean_of_many_float32_is_that_of_float64(order, rng):
    x = np.asarray(1e6 + rng.normal(size=(100_000, 4)), "float32", order=order)
    wanted = x.astype(float).mean(axis=0)
    np.testing.assert_allclose(StreamingGram().update(x).mean, wanted, rtol=1e-15)
    np.testing.assert_allclose(
        StreamingGram(center=True).update(x).density(), np.cov(x.T.astype(float), bias=True), rtol=1e-9
    )


def test_a_mean_far_larger_than_the_signal_does_not_hide_it(rng):
    """Of Σ x xᵀ, 1e15 times the signal's squares, nothing but the mean could be read."""
    x = 1e7 + rng.normal(size=(400, 30)) * np.linspace(3, 1, 30)
    for found in (
        StreamingGram().update(x).components(3),
        StreamingGram().update(x[:1]).update(x[1:130]).update(x[130:]).components(3),
        StreamingClassGram().update(x, np.zeros(400, int)).components(3),
    ):
        vectors = np.linalg.svd(x)[2][:3]
        cosines = np.abs(np.sum(found.components.reshape(3, 30) * vectors, axis=1))
        assert np.arccos(np.minimum(cosines, 1)).max() < 1e-6
        np.testing.assert_allclose(np.sqrt(found.explained_variance.ravel() * 400), np.linalg.svd(x)[1][:3], rtol=1e-6)
        assert found.residual < tolerance("float64", 30, 3)


# -- residuals ---------------------------------------------------------------------------------------------------------


def kinds(rng):
    x = rng.normal(size=(300, 12))
    turned = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    return {
        "noise": x,
        "mean": 1e6 + x,
        "units": x * np.logspace(0, -9, 12),
        "graded": x * np.logspace(0, -2, 12) @ turned,
        "low rank": x[:, :4] @ turned[:4],
        "two values": np.sign(x) * np.linspace(0.3, 3, 12),
        "constant": np.ones((300, 12)) * np.linspace(0.1, 1, 12),
        "dead": x * (np.arange(12) % 3 > 0),
    }


def residual_of(x, found):
    """As `PCA.residual` says, of the samples themselves: u is X v made orthonormal, the first by the later never."""
    x, v = x.astype(np.longdouble), found.components.T.astype(np.longdouble)
    s = np.sqrt(found.explained_variance.astype(np.longdouble) * len(x))
    u = x @ v
    for j in range(len(s)):
        for _ in range(2):
            u[:, j] -= u[:, :j] @ (u[:, :j].T @ u[:, j])
        u[:, j] /= np.sqrt(u[:, j] @ u[:, j])
    return float(
        max(np.sqrt(((x @ v - u * s) ** 2).sum(axis=0)).max(), np.sqrt(((x.T @ u - v * s) ** 2).sum(axis=0)).max())
        / s[0]
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("reproducible", [False, True])
@pytest.mark.parametrize("kind", list(kinds(np.random.default_rng(0))))
def test_the_residual_is_that_of_the_samples(kind, reproducible, center, dtype, rng):
    x = kinds(rng)[kind].astype(dtype)
    k = 1 if kind == "constant" else 4
    found = StreamingGram(center=center, reproducible=reproducible).update(x[:7]).update(x[7:]).components(k)
    own = x.astype(np.longdouble)
    if center:
        own = own - own.mean(axis=0)
    limit = tolerance(dtype, 12, k)
    if np.abs(own).max() > 1e-15:  # else constant samples, centred
        assert residual_of(own, found) <= found.residual <= limit
        s, proof = np.linalg.svd(own.astype(float))[1], found.certificate
        slack = 1e-14 * s[0]
        assert (proof.sigma[:, 0] - slack <= s[:k]).all()
        assert (s[:k] <= proof.sigma[:, 1] + slack).all()
        assert s[k] <= proof.beyond + slack
    np.testing.assert_allclose(found.components @ found.components.T, np.eye(k), atol=1e-13)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows", [1, 2, 300, 1024, 9000])
@pytest.mark.parametrize("kind", list(kinds(np.random.default_rng(0))))
def test_the_bound_on_rounding_holds(kind, rows, dtype, rng):
    """Errors of sums of two values alone may all go one way: up to twice the bound, where they are most alike."""
    x = np.resize(kinds(rng)[kind], (rows, 12)).astype(dtype)
    found = moments.block(np, x)
    if kind == "constant":  # what is left of the mean, squared
        assert np.abs(found.about(True)).max() <= rows * np.finfo(np.float64).eps ** 2
        return
    own = x.astype(np.longdouble)
    own = own - own.mean(axis=0)
    wanted = own.T @ own
    error = np.abs(found.about(True) - wanted).astype(float)
    size = np.sqrt(np.diagonal(wanted)).astype(float)
    slack = 2.5 if kind == "two values" else 1
    assert (error <= slack * found.rounding * size * size[:, None]).all()


@pytest.mark.parametrize("center", [False, True])
def test_what_sums_of_squares_do_not_show_a_root_does(center, rng):
    """σ from 1 to 1e-10, squares from 1 to 1e-20: as in one piece, however the samples come."""
    x = rng.normal(size=(9000, 20)) * np.logspace(0, -10, 20) @ np.linalg.qr(rng.normal(size=(20, 20)))[0]
    own = x - x.mean(axis=0) if center else x
    s, vt = np.linalg.svd(own, full_matrices=False)[1:]
    halves = StreamingGram(center=center).update(x[:4000]).merge(StreamingGram().update(x[4000:]))
    for stream in (halves, StreamingGram(center=center).update(x)):
        found = stream.components()
        np.testing.assert_allclose(np.sqrt(found.explained_variance * 9000), s, rtol=0, atol=1e-14 * s[0])
        assert largest_angle(found.components[:10].T, vt[:10].T) < 1e-9
        assert found.residual < tolerance("float64", 20, 20)
        assert found.route == "root"
    assert StreamingGram().update(x.astype("float32")).components().residual < tolerance("float32", 20, 20)


def test_what_sums_of_squares_do_not_show_is_refused(rng):
    """Float32 beside float64 leaves squares alone."""
    x = rng.normal(size=(500, 20)) * np.logspace(0, -10, 20) @ np.linalg.qr(rng.normal(size=(20, 20)))[0]
    words = r"component \d+ of 20 of the samples has a residual of .*; sums of squares show the first \d+: "
    stream = StreamingGram().update(x).update(x[:1].astype("float32"))
    with pytest.raises(ConvergenceError, match=words) as error:
        stream.components()
    shown = int(re.search(r"show the first (\d+)", str(error.value))[1])
    found = stream.components(shown)
    assert shown >= 3
    s, vt = np.linalg.svd(np.concatenate([x, x[:1].astype("float32")]))[1:]
    np.testing.assert_allclose(np.sqrt(found.explained_variance * 501), s[:shown], rtol=0, atol=1e-13 * s[0])
    assert largest_angle(found.components.T, vt[:shown].T) < 1e-10


@pytest.mark.parametrize("n", [3, 60, 5000])
@pytest.mark.parametrize("low", [0, 120, 250])
def test_bytes_are_rounded_once(n, low, rng):
    """n Σ (x−m)(x−m)ᵀ is a whole number: every element is off by one rounding and a division, and so is the mean."""
    x = rng.integers(low, low + 5, (n, 6), dtype=np.uint8)
    total = StreamingGram().update(x)._state.total()
    wide = x.astype(object)
    sums = wide.sum(axis=0)
    for i in range(6):
        assert Fraction(float(total.mean[i])) + Fraction(float(total.mean_low[i])) == pytest.approx(
            Fraction(int(sums[i]), n), rel=1e-17
        )
        for j in range(6):
            exact = Fraction(int(n * (wide[:, i] * wide[:, j]).sum() - sums[i] * sums[j]), n)
            assert abs(Fraction(float(total.scatter[i, j])) - exact) <= abs(exact) * Fraction(2) ** -52


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_lapack_that_does_not_converge_is_one_line(dtype, monkeypatch, rng):
    def failing(*args, **settings):
        raise np.linalg.LinAlgError("Eigenvalues did not converge")

    x = rng.normal(size=(90, 7)).astype(dtype)
    stream, wanted = StreamingGram().update(x), StreamingGram().update(x).components(3)
    monkeypatch.setattr(np.linalg, "eigh", failing)
    if dtype == "float64":  # by its root
        np.testing.assert_allclose(stream.components(3).components, wanted.components, atol=1e-12)
        return
    with pytest.raises(ConvergenceError, match=r"^the moments of the samples have no eigenvectors by LAPACK [^\n]*$"):
        stream.components(3)


def test_features_of_different_units_are_no_obstacle(rng):
    """As in sklearn's wine: a variance of 1e5 beside one of 0.05."""
    x = 10.0 ** rng.uniform(-6, 6, 8) * rng.normal(2, 1, (200, 8))
    found = StreamingGram(center=True).update(x).components()
    s = np.linalg.svd(x - x.mean(axis=0))[1]
    np.testing.assert_allclose(np.sqrt(found.explained_variance * 200), s, rtol=0, atol=1e-13 * s[0])


def test_there_are_no_more_components_than_samples(rng):
    x = rng.normal(size=(5, 9))
    assert len(StreamingGram().update(x).components().components) == 5
    assert len(StreamingGram(center=True).update(x).components().components) == 4
    assert len(StreamingGram().update(x).components(variance=1.0).components) == 5


# -- scale -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("scale", [2.0**-470, 2.0**-300, 2.0**300, 2.0**490])
def test_of_any_size_that_variances_can_have(scale, center, rng):
    x = rng.normal(size=(60, 5)) * np.arange(1, 6)
    found, wanted = (StreamingGram(center=center).update(a).components(3) for a in (x * scale, x))
    np.testing.assert_allclose(found.components, wanted.components, atol=1e-13)
    np.testing.assert_allclose(found.explained_variance / scale / scale, wanted.explained_variance, rtol=1e-13)
    other = StreamingGram().merge(StreamingGram().update(x * scale)).merge(StreamingGram().update(x * scale))
    np.testing.assert_allclose(other.gram() / scale / scale, 2 * x.T @ x, rtol=1e-12)


def test_squares_that_no_float64_holds_are_refused(rng):
    x = rng.normal(size=(60, 5))
    tiny = StreamingGram().update(x * 1e-170)
    for act in (tiny.components, tiny.gram, tiny.density):
        with pytest.raises(
            InputError, match=r"squares of the samples, at most \d.*e-170, underflow float64: scale them up"
        ):
            act()
    np.testing.assert_allclose(tiny.mean, x.mean(axis=0) * 1e-170)
    np.testing.assert_array_equal(tiny.update(x).gram(), StreamingGram().update(x * 1e-170).update(x).gram())
    np.testing.assert_allclose(tiny.gram(), x.T @ x)  # beside others, they are nothing
    assert not StreamingGram().update(np.zeros((3, 2))).gram().any()


# -- state -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("center", [False, True])
def test_nothing_is_shared(center, dtype, rng):
    x = rng.integers(0, 256, (50, 4)).astype(dtype)
    given = x.copy()
    a = StreamingGram(center=center).update(given)
    gram, mean, found = a.gram(), a.mean, a.components(2)
    b, c = StreamingGram(center=center).merge(a), StreamingGram(center=center).merge(a).update(x)
    for each in (given, a.gram(), a.mean, a.density(), b.gram(), b.mean, c.mean, *vars(a.components(2)).values()):
        if isinstance(each, np.ndarray):
            each[...] = 77
    for stream in (a, b):
        np.testing.assert_array_equal(stream.gram(), gram)
        np.testing.assert_array_equal(stream.mean, mean)
        np.testing.assert_array_equal(stream.components(2).components, found.components)
    np.testing.assert_allclose(c.gram(), 2 * gram)
    b.merge(b)
    assert (a.count, b.count, c.count) == (50, 100, 100)


BAD = {
    "nan": lambda x: np.where(np.arange(x.size).reshape(x.shape) == x.size - 1, np.nan, x),
    "infinite": lambda x: np.where(np.arange(x.size).reshape(x.shape) == x.size - 1, -np.inf, x),
    "wide": lambda x: np.ones((len(x), 9)),
    "text": lambda x: x.astype(str),
    "bytes": lambda x: x.astype(np.uint8),
    "huge": lambda x: x * 1e300,
    "flat": lambda x: x[:, 0],
    "masked": lambda x: np.ma.masked_less(x, 0),
}


@pytest.mark.parametrize("bad", list(BAD))
def test_a_refused_batch_changes_nothing(bad, rng):
    x, labels = rng.normal(size=(40, 4)), np.arange(40) % 2
    one, classes = StreamingGram().update(x), StreamingClassGram().update(x, labels)
    with pytest.raises(InputError):
        one.update(BAD[bad](x))
    with pytest.raises(InputError):
        classes.update(BAD[bad](x), labels)
    with pytest.raises(InputError):
        classes.update(x, labels[:-1])
    assert one.count == 40
    np.testing.assert_array_equal(one.gram(), StreamingGram().update(x).gram())
    assert [classes.classes[c].count for c in (0, 1)] == [20, 20]
    if bad not in ("wide", "bytes"):  # these fit a new one
        new = StreamingGram()
        with pytest.raises(InputError):
            new.update(BAD[bad](np.ones((3, 7)) * x[:3, :1]))
        assert (new.count, new.features) == (0, None)
        new.update(rng.integers(0, 9, (5, 3), dtype=np.uint8))


def test_classes_are_merged_all_or_none(rng):
    x, labels = rng.normal(size=(40, 4)), np.arange(40) % 2
    ours, other = StreamingClassGram().update(x, labels), StreamingClassGram().update(x, labels)
    other.classes[1] = StreamingGram().update(np.ones((3, 5)))
    with pytest.raises(ShapeError, match="5 features: those before had 4"):
        ours.merge(other)
    other.classes[1] = StreamingGram().update(np.ones((3, 4), np.uint8))
    with pytest.raises(
        InputError, match="the other StreamingGram holds uint8, those before floats: bytes run from 0 to 255"
    ):
        ours.merge(other)
    assert [ours.classes[c].count for c in (0, 1)] == [20, 20]
    with pytest.raises(InputError, match="merge was given a NoneType: expected another StreamingClassGram"):
        ours.merge(None)
    with pytest.raises(ShapeError, match="5 features: those before had 4"):  # also of a class that is new
        ours.update(np.ones((3, 5)), [7, 7, 7])
    with pytest.raises(InputError, match=r"batch holds nan at \[39, 1\]"):
        ours.update(np.where(np.arange(160).reshape(40, 4) == 157, np.nan, x), labels)
    before = {c: s.gram() for c, s in ours.classes.items()}
    merged = StreamingClassGram().merge(ours)
    merged.update(x, labels)
    for c, gram in before.items():
        np.testing.assert_array_equal(ours.classes[c].gram(), gram)
        np.testing.assert_allclose(merged.classes[c].gram(), 2 * gram)


def test_bytes_and_fractions_do_not_mix(rng):
    raw, x = rng.integers(0, 256, (20, 4), dtype=np.uint8), rng.random((20, 4))
    for first, second, words in (
        (raw, x, "batch holds floats, those before uint8"),
        (x, raw, "holds uint8, .* floats"),
    ):
        with pytest.raises(InputError, match=words + r": bytes run .* x\.astype\('float32'\)"):
            StreamingGram().update(first).update(second)
        with pytest.raises(InputError, match="bytes run from 0 to 255"):
            StreamingGram().update(first).merge(StreamingGram().update(second))
    counts = StreamingGram().update(raw).update(raw.astype(np.int32) * 300)  # whole numbers have one scale
    np.testing.assert_allclose(counts.gram(), (1 + 300**2) * raw.astype(float).T @ raw)


@pytest.mark.parametrize("other", [False, True])
@pytest.mark.parametrize("center", [False, True])
def test_what_is_merged_is_read_as_the_one_that_it_is_merged_into_says(center, other, rng):
    x = 3 + rng.normal(size=(60, 4))
    merged = StreamingGram(center=center).update(x[:20]).merge(StreamingGram(center=other).update(x[20:]))
    own = x - x.mean(axis=0) if center else x
    np.testing.assert_allclose(merged.gram(), own.T @ own, rtol=1e-12)
    classes = StreamingClassGram(center=center).merge(StreamingClassGram(center=other).update(x, np.zeros(60, int)))
    np.testing.assert_allclose(classes.classes[0].gram(), own.T @ own, rtol=1e-12)


# -- threads -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def impatient():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
def test_no_batch_of_any_thread_is_lost(rng):
    raw, labels = rng.integers(0, 256, (2000, 5), dtype=np.uint8), rng.integers(0, 2, 2000)
    one, classes = StreamingGram(), StreamingClassGram()

    def work(start):
        part, own = raw[start : start + 5], labels[start : start + 5]
        one.update(part)
        one.merge(StreamingGram().update(part))
        classes.update(part, own)
        classes.merge(StreamingClassGram().update(part, own))
        assert one.density().max() <= 255**2  # never of more samples than it is divided by

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(0, 2000, 5)))
    assert (one.count, sum(each.count for each in classes.classes.values())) == (4000, 4000)
    np.testing.assert_array_equal(one.gram(), 2 * raw.T.astype(float) @ raw)
    for label, sums in classes.classes.items():
        own = raw[labels == label].astype(float)
        np.testing.assert_array_equal(sums.gram(), 2 * own.T @ own)


def test_a_batch_is_multiplied_while_another_waits(rng, monkeypatch):
    """Else threads would be no faster than one."""
    x, one = rng.integers(0, 256, (9, 4), dtype=np.uint8), StreamingGram()
    exact_sums = moments.exact_sums

    def slow(xp, part):
        monkeypatch.setattr(moments, "exact_sums", exact_sums)
        with ThreadPoolExecutor(1) as other:
            other.submit(one.update, x).result(10)
        return exact_sums(xp, part)

    monkeypatch.setattr(moments, "exact_sums", slow)
    assert one.update(x).count == 18


def test_threads_that_come_first_with_other_kinds(rng, monkeypatch):
    """Of two first batches that do not fit together the second is refused, and changes nothing."""
    x, one = rng.normal(size=(9, 4)), StreamingGram()
    blocks = moments.blocks

    def late(*args, **settings):
        monkeypatch.setattr(moments, "blocks", blocks)
        one.update(x[:, :3])
        return blocks(*args, **settings)

    monkeypatch.setattr(moments, "blocks", late)
    with pytest.raises(ShapeError, match="4 features: those before had 3"):
        one.update(x)
    assert (one.count, one.features) == (9, 3)


def pickled(protocol):
    return lambda each: pickle.loads(pickle.dumps(each, protocol))  # noqa: S301


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickled(0), pickled(5)])
def test_copies_go_on_by_themselves(copied, rng):
    x, labels = rng.normal(size=(40, 4)), np.arange(40) % 2
    one, classes = StreamingGram().update(x), StreamingClassGram().update(x, labels)
    own, others = copied(one), copied(classes)
    with one._lock, classes._lock:  # which are theirs alone
        own.update(x)
        others.update(x, labels)
    assert (one.count, own.count) == (40, 80)
    np.testing.assert_allclose(own.gram(), 2 * one.gram())
    assert [classes.classes[0].count, others.classes[0].count] == [20, 40]


@pytest.mark.parametrize("kind", [StreamingGram, StreamingClassGram])
def test_what_is_set_is_checked(kind):
    stream = kind()
    stream.center = np.True_
    assert stream.center is True
    with pytest.raises(InputError, match="center is 'yes': expected True or False"):
        stream.center = "yes"
    if kind is StreamingClassGram:
        with pytest.raises(InputError, match="classes of a StreamingClassGram cannot be set any more: add to it"):
            stream.classes = {}


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
@pytest.mark.parametrize(("center", "k"), [(False, None), (True, None), (True, 3), (False, 40)])
def test_few_samples_are_no_decomposition_of_the_features(dtype, center, k, rng, monkeypatch):
    x = rng.integers(0, 256, (50, 1200)).astype(dtype)
    x[:, 5] = 3
    x[7] = x[8]  # so that one rank less than samples
    sizes = []
    for name in ("eigh", "svd"):
        solve = getattr(np.linalg, name)
        monkeypatch.setattr(
            np.linalg, name, lambda a, *x, solve=solve, **y: (sizes.append(min(a.shape)), solve(a, *x, **y))[1]
        )
    monkeypatch.setattr(solvers, "leading_eigh", None)
    own = x.astype(float) - (x.mean(axis=0) if center else 0)
    found = StreamingGram(center=center).update(x[:20]).update(x[20:]).components(k)
    rank = 50 - center if k is None else k
    assert len(found.components) == rank
    assert max(sizes) <= 60  # a root has a row more for every merge
    values, vt = np.linalg.svd(own, full_matrices=False)[1:]
    np.testing.assert_allclose(found.explained_variance, values[:rank] ** 2 / 50, atol=1e-12 * values[0] ** 2)
    np.testing.assert_allclose(np.abs(np.sum(found.components[:40] * vt[: min(rank, 40)], axis=1)), 1, rtol=1e-9)
    np.testing.assert_allclose(found.components @ found.components.T, np.eye(rank), atol=1e-12)
