"""Ridge regression on many features, in float32 tiles, against float64 and scikit-learn."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from gpunet.errors import GpunetError, InputError, ShapeError
from gpunet.progress import Progress
from gpunet.spectral import ridge as module
from gpunet.spectral.ridge import Moments, TiledMoments, ridge, ridge_of_rows
from gpunet.spectral.tiled import TOLERANCE, Tiled

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
SAMPLES, FEATURES = 600, 107


def batches(x, labels, size):
    return lambda: ((x[s : s + size], labels[s : s + size]) for s in range(0, len(x), size))


def moments_of(x, labels, classes=4, size=90, tile=20, **how):
    moments = TiledMoments(x.shape[1], classes, tile=tile, **how)
    for part in batches(x, labels, size)():
        moments.update(*part)
    return moments


def hard(kind, rng):
    """Features (n, F) float64 that a solver may stumble over."""
    x = rng.normal(size=(SAMPLES, FEATURES))
    if kind == "correlated":
        return x[:, :9] @ rng.normal(size=(9, FEATURES)) + 0.05 * x
    if kind == "far from 0":
        return x + 1000 * rng.choice([-1, 1], FEATURES)
    if kind == "scales":
        return x * 10 ** rng.uniform(-3, 3, FEATURES)
    if kind == "duplicates":
        return x[:, np.arange(FEATURES) // 2]
    if kind == "constant":
        return np.where(np.arange(FEATURES) % 5 == 0, 0.1, x)
    if kind == "few values":
        return (x > 1.5).astype(float)
    return x


KINDS = ("plain", "correlated", "far from 0", "scales", "duplicates", "constant", "few values")


@pytest.mark.parametrize("standardise", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_ridge_regression_in_float64(kind, standardise, rng):
    from sklearn.linear_model import Ridge as Theirs

    x, labels = hard(kind, rng).astype("float32"), rng.integers(0, 4, SAMPLES)
    own = x - x.mean(axis=0, dtype=float)
    deviation = own.std(axis=0)
    some = deviation > 1e-6
    own *= np.where(some, 1 / np.where(some, deviation, 1), 0) if standardise else some
    found = moments_of(x, labels, standardise=standardise).solutions(PENALTIES)
    assert [each.penalty for each in found] == list(PENALTIES)
    top, unit = np.linalg.norm(own, 2) ** 2, (own**2).sum() / FEATURES
    for each in found:
        assert each.residual <= TOLERANCE
        assert each.refused == ()
        theirs = Theirs(alpha=each.penalty * unit, solver="svd").fit(own, np.eye(4)[labels])
        expected, scores = theirs.predict(own), x.astype(float) @ each.weight.T + each.bias
        rounding = 2e-7 * (1 + top / unit / each.penalty / FEATURES**0.5)  # of A in float32, over its smallest value
        np.testing.assert_allclose(scores, expected, atol=10 * rounding)
        np.testing.assert_array_equal(each.weight[:, ~some], 0)


@pytest.mark.parametrize(("features", "tile"), [(1, 20), (19, 20), (20, 20), (21, 20), (60, 20), (61, 1), (300, 256)])
def test_any_width_and_tile(features, tile, rng):
    x, labels = rng.normal(size=(400, features)).astype("float32") + 3, rng.integers(0, 3, 400)
    found = moments_of(x, labels, 3, tile=tile).solutions((1e-2, 1e-1))
    for each, exact in zip(found, Moments(features, 3).update(x, labels).solutions((1e-2, 1e-1)), strict=True):
        np.testing.assert_allclose(each.weight, exact.weight, atol=3e-6)
        np.testing.assert_allclose(each.bias, exact.bias, atol=3e-5)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "float16", "float64"])
def test_features_of_any_real_dtype(dtype, rng):
    x = rng.integers(0, 2 if dtype == "bool" else 200, (300, 30)).astype(dtype)
    labels = rng.integers(0, 3, 300)
    found, wide = (moments_of(each, labels, 3).solutions((1e-2,))[0] for each in (x, x.astype("float32")))
    np.testing.assert_array_equal(found.weight, wide.weight)


def test_a_mean_that_float32_cannot_hold(rng):
    x, labels = rng.normal(size=(300, 30)), rng.integers(0, 3, 300)
    near, far = (moments_of(x + mean, labels, 3).solutions((1e-2,))[0] for mean in (0, 1e8))
    np.testing.assert_allclose(far.weight, near.weight, atol=1e-6)


def test_the_first_batch_may_be_unlike_the_others(rng):
    x, labels = rng.normal(size=(900, 30)), rng.integers(0, 3, 900)
    x[:90] = 50 + 0.01 * x[:90]
    x = x.astype("float32")
    found, exact = moments_of(x, labels, 3).solutions((1e-3,))[0], Moments(30, 3).update(x, labels).solve(1e-3)
    np.testing.assert_allclose(found.weight, exact.weight, atol=5e-5)


def test_rounding_of_many_sums(rng):
    x = rng.normal(size=(4000, 50)).astype("float32")
    tiled, exact = Tiled(50, tile=16), x.T.astype(float) @ x
    for part in np.split(x, 400):
        tiled.add(part)
    size = np.sqrt(np.outer(exact.diagonal(), exact.diagonal()))
    above = np.triu_indices(50, 1)
    wrong = np.abs(tiled.array - exact)[above] / size[above]
    assert wrong.max() < 400**0.5 * 2.0**-24
    assert wrong.max() > 0  # in float32 it is not exact


# -- the factor and the steps -----------------------------------------------------------------------------------------


@pytest.fixture
def tiled(rng):
    x = (rng.normal(size=(300, 45)) * np.geomspace(1, 0.01, 45)).astype("float32")
    tiled = Tiled(45, tile=8)
    tiled.add(x)
    tiled.diagonal += (x.astype(float) ** 2).sum(axis=0)
    above = np.triu(tiled.array, 1).astype(float)
    return tiled, above + above.T + np.diag(tiled.diagonal)


def test_the_factor_lies_beside_the_matrix(tiled, rng):
    tiled, a = tiled
    p = rng.normal(size=(45, 3))
    for shift in (1.0, 10.0):  # the second in place of the first
        tiled.factor(shift)
        np.testing.assert_allclose(tiled.times(p), a @ p, rtol=1e-12, atol=1e-10)
        np.testing.assert_allclose(tiled.divided(p), np.linalg.solve(a + shift * np.eye(45), p), atol=1e-5)


def test_residuals_are_true(tiled, rng):
    tiled, a = tiled
    right, shifts = rng.normal(size=(45, 3)), [100.0, 0.03, 1.0]
    right[:, 1] = 0  # of a class that no sample has
    for tolerance in (1e-3, 1e-6, 1e-12):
        found, residuals = tiled.solve(right, shifts, tolerance)
        for z, residual, shift in zip(found, residuals, shifts, strict=True):
            left = np.linalg.norm((a + shift * np.eye(45)) @ z - right, axis=0)
            assert residual <= tolerance
            assert abs(max(left[::2] / np.linalg.norm(right[:, ::2], axis=0)) - residual) < 1e-3 * residual + 1e-13
            np.testing.assert_array_equal(z[:, 1], 0)


def test_too_few_steps_are_told(tiled, rng):
    found, residuals = tiled[0].solve(rng.normal(size=(45, 2)), [1e-2, 1.0, 100.0], 1e-9, steps=4)
    assert np.isfinite(residuals).tolist() == [False, True, False]
    assert found.shape == (3, 45, 2)


def test_a_matrix_that_is_not_positive_definite_is_told(tiled, rng):
    tiled, a = tiled
    negative = -np.linalg.eigvalsh(a)[[20, 21]].mean()
    with pytest.raises(np.linalg.LinAlgError):
        tiled.solve(rng.normal(size=(45, 2)), [negative])
    for _ in range(2):  # with a factor, and with that of before
        _, residuals = tiled.solve(rng.normal(size=(45, 2)), [negative, 1.0, 100.0])
        assert np.isfinite(residuals).tolist() == [False, True, True]


@pytest.mark.parametrize("alike", [True, False])
def test_what_is_added_later_needs_no_other_factor_where_it_is_alike(alike, tiled, rng, monkeypatch):
    tiled, a = tiled
    scale = np.geomspace(1, 0.01, 45) if alike else np.geomspace(1e-3, 1e3, 45)
    right, more = rng.normal(size=(45, 2)), (rng.normal(size=(60, 45)) * scale).astype("float32")
    tiled.solve(right, [0.5])
    made, factor = [], Tiled.factor
    monkeypatch.setattr(Tiled, "factor", lambda self, shift: (made.append(shift), factor(self, shift)))
    tiled.add(more)
    tiled.diagonal += (more.astype(float) ** 2).sum(axis=0)
    found, residuals = tiled.solve(right, [0.5])
    assert residuals[0] <= 1e-6
    assert made == ([] if alike else [0.5])
    above = np.triu(tiled.array, 1).astype(float)
    size = np.sqrt(np.outer(tiled.diagonal, tiled.diagonal))
    np.testing.assert_allclose(above / size, np.triu(a + more.T.astype(float) @ more, 1) / size, atol=1e-6)
    left = above + above.T + np.diag(tiled.diagonal + 0.5)
    assert np.linalg.norm(left @ found[0] - right, axis=0).max() <= 1.1e-6 * np.linalg.norm(right, axis=0).max()


def test_penalties_too_small_for_float32_are_left_out_and_told(rng):
    turned = np.linalg.qr(rng.normal(size=(120, 120)))[0]
    x = ((rng.normal(size=(500, 120)) * np.arange(1, 121.0) ** -3) @ turned).astype("float32")
    labels = rng.integers(0, 3, 500)
    found = moments_of(x, labels, 3).solutions((1e-12, 1e-3, 1e-9))
    assert [(each.penalty, each.refused) for each in found] == [(1e-3, (1e-12, 1e-9))]
    with pytest.raises(InputError, match=r"penalty 1e-09 is not solvable \([^\n]*\): the features are constant, not"):
        moments_of(x, labels, 3).solutions((1e-12, 1e-9))
    with pytest.raises(InputError, match="not solvable"):
        moments_of(np.full_like(x, 0.1), labels, 3).solutions((1e-2,))


def test_features_too_small_for_float32(rng):
    x, labels = rng.normal(size=(300, 30)), rng.integers(0, 3, 300)
    for standardise in (False, True):
        small, usual = (moments_of(x * by, labels, 3, standardise=standardise) for by in (1e-14, 1))
        found, expected = (each.solutions((1e-2,))[0].weight for each in (small, usual))
        np.testing.assert_allclose(found * 1e-14, expected, atol=1e-6)
        with pytest.raises(InputError, match=r"squares that sum to 3e-38: expected at least 1e-30[^\n]*multiply them"):
            moments_of(
                np.where(np.arange(30) < standardise, x, x * 1e-20), labels, 3, standardise=standardise
            ).solutions((1e-2,))


def test_the_same_bits_twice(rng):
    x, labels = hard("correlated", rng), rng.integers(0, 4, SAMPLES)
    one, other = (moments_of(x, labels, standardise=True).solutions(PENALTIES) for _ in range(2))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.weight, b.weight)
        np.testing.assert_array_equal(a.bias, b.bias)


@pytest.mark.slow
def test_one_matrix_of_float32_is_all_that_is_taken(rng):
    features, rows = 2000, 200
    parts = [rng.normal(size=(rows, features)).astype("float32") for _ in range(2)]
    tracemalloc.start()
    moments = TiledMoments(features, 3, tile=64)
    for part in parts:
        moments.update(part, np.arange(rows) % 3)
    moments.solutions(PENALTIES)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # beside it what the samples take again, some strips of 64 rows, and vectors
    assert 4 * features**2 < peak < 4 * features**2 + 2 * parts[0].nbytes + 8 * 4 * 64 * features


# -- samples and doors ------------------------------------------------------------------------------------------------


def test_refused_samples_change_nothing(rng):
    x, labels = rng.normal(size=(300, 30)).astype("float32"), rng.integers(0, 3, 300)
    expected = moments_of(x, labels, 3).solutions((1e-2,))[0]
    moments = TiledMoments(30, 3, tile=20)
    for start in range(0, 300, 90):
        part = x[start : start + 90], labels[start : start + 90]
        for bad in (np.nan, np.inf, -np.inf, 3e19):
            wrong = part[0].copy()
            wrong[5, 25] = bad
            with pytest.raises(
                InputError, match=r"^features hold NaN, infinity or numbers whose squares overflow[^\n]*"
            ):
                moments.update(wrong, part[1])
        with pytest.raises(ShapeError, match=r"features have shape \(\d+, 29\): expected \(n, 30\)"):
            moments.update(part[0][:, 1:], part[1])
        with pytest.raises(InputError, match="label 3 in row 0 is out of range"):
            moments.update(part[0], np.full(len(part[1]), 3))
        given = part[0].copy()
        moments.update(given, part[1])
        given[...] = 7
    np.testing.assert_array_equal(moments.solutions((1e-2,))[0].weight, expected.weight)
    moments.update(x, labels)  # once more
    twice = moments_of(np.concatenate([x, x]), np.concatenate([labels, labels]), 3).solve(1e-2)
    np.testing.assert_allclose(moments.solve(1e-2).weight, twice.weight, atol=1e-5)
    with pytest.raises(InputError, match="seen no samples"):
        TiledMoments(30, 3).solutions((1e-2,))


@pytest.mark.parametrize("standardise", [False, True])
def test_the_largest_of_the_best_penalties_and_the_weights_of_all_samples(standardise, rng):
    """Features are divided by the deviations of those that the penalty was chosen with."""
    x, labels = rng.normal(size=(400, 25)).astype("float32"), rng.integers(0, 3, 400)
    x[:, :3] += 8 * np.eye(3)[labels]  # all penalties find it
    train, held = batches(x[40:], labels[40:], 100), batches(x[:40], labels[:40], 100)
    notes = []

    class Told(Progress):
        def advance(self, parts=1, note=""):
            notes.append((parts, note))

    found = ridge(train, held, 25, 3, (1e-3, 1e-1, 1e-2), None, True, standardise, Told())
    assert found.penalty == 0.1
    scale = 1 / x[40:].std(axis=0, dtype=float) if standardise else np.ones(25)
    own, members = x.astype(float) * scale, np.eye(3)[labels]
    own, members = own - own.mean(axis=0), members - members.mean(axis=0)
    a = own.T @ own
    expected = np.linalg.solve(a + 0.1 * a.trace() / 25 * np.eye(25), own.T @ members).T * scale
    np.testing.assert_allclose(found.weight, expected, atol=1e-6)
    np.testing.assert_allclose(found.bias, np.eye(3)[labels].mean(axis=0) - expected @ x.mean(axis=0), atol=1e-6)
    told = " ".join(note for _, note in notes)
    for each in ("products of 100 samples", "products of 360 samples", "Cholesky", "conjugate gradients, step 1"):
        assert each in told
    assert not any(parts for parts, _ in notes)


def test_held_out_samples_unlike_the_others(rng):
    """One feature is next to nothing in training; and features are a hundred times as large as there."""
    x, labels = rng.normal(size=(600, 50)), np.arange(600) % 3
    x[:, :3] += 2 * np.eye(3)[labels]
    rare, large = x.copy(), x / np.arange(1, 51)
    rare[:, 10] = 0
    rare[100, 10], rare[:60:12, 10] = 0.001, 1
    large[:60, :20] *= 100
    for kind, features in (("rare", rare), ("large", large)):
        features = features.astype("float32")
        train, held = batches(features[60:], labels[60:], 100), batches(features[:60], labels[:60], 60)
        for standardise in (False, True):
            exact, tiled = (
                ridge(train, held, 50, 3, (1e-2,), None, tiled, standardise).correct(features[60:], labels[60:])
                for tiled in (False, True)
            )
            assert tiled >= exact - 30, (kind, standardise)


def test_refused_penalties_are_told_in_the_end(rng):
    turned = np.linalg.qr(rng.normal(size=(120, 120)))[0]
    x = ((rng.normal(size=(500, 120)) * np.arange(1, 121.0) ** -3) @ turned).astype("float32")
    labels = rng.integers(0, 3, 500)
    part = batches(x, labels, 100)
    assert ridge(part, part, 120, 3, (1e-12, 1e-3), tiled=True).refused == (1e-12,)


def test_a_failure_is_no_end(rng):
    x, labels = rng.normal(size=(300, 30)).astype("float32"), rng.integers(0, 3, 300)
    moments = TiledMoments(30, 3, standardise=True).update(x[:1], labels[:1])
    with pytest.raises(InputError, match="none varies"):
        moments.solve(1e-2)
    found = moments.update(x[1:], labels[1:]).solve(1e-2)
    np.testing.assert_allclose(found.weight, moments_of(x, labels, 3, standardise=True).solve(1e-2).weight, atol=1e-5)


@pytest.mark.parametrize(("samples", "tiled"), [(900, True), (70, True), (20, False)])
def test_float64_that_is_too_large_is_not_made(samples, tiled, rng, monkeypatch):
    """Of few samples float64 takes the samples alone, four times."""
    x, labels = rng.normal(size=(samples, 80)).astype("float32"), np.arange(samples) % 3

    def found(**how):
        return ridge_of_rows(lambda part: x[part], labels, rows, 80, 3, (1e-2,), **how)

    rows = rng.permutation(samples)
    exact = found()
    assert exact.residual is None
    monkeypatch.setattr(module, "EXACT_BYTES", 8 * 80 * 10)
    assert (found().residual is not None) == tiled
    assert (found(tiled=not tiled).residual is None) == tiled
    assert abs(found().correct(x, labels) - exact.correct(x, labels)) <= 0.1 * samples


@pytest.mark.parametrize("samples", [25, 300])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_standardised_in_float64(samples, dtype, rng):
    from sklearn.linear_model import Ridge as Theirs
    from sklearn.preprocessing import StandardScaler

    x = (rng.normal(size=(samples, 40)) * 10 ** rng.uniform(-3, 3, 40) + 5).astype(dtype)
    x[:, 7] = 0.1
    labels, scaler = np.arange(samples) % 3, StandardScaler()
    own = scaler.fit_transform(x.astype(float))
    own[:, 7] = 0
    moments = Moments(40, 3, standardise=True)
    for part in batches(x, labels, 9)():
        moments.update(*part)
    found = moments.solve(1e-2)
    theirs = Theirs(alpha=1e-2 * (own**2).sum() / 40, solver="svd").fit(own, np.eye(3)[labels])
    rounding = 1e-9 if dtype == "float64" or samples < 40 else 1e-4
    np.testing.assert_allclose(x @ found.weight.T + found.bias, theirs.predict(own), atol=rounding)
    np.testing.assert_array_equal(found.weight[:, 7], 0)


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("penalties", [(np.nan,), (1e-2, np.nan), (np.inf,), (1e308,), (0.0,), (-1.0, 1.0), (), ("a",)])
def test_penalties_that_cannot_be(rng, penalties, tiled):
    x, labels = rng.standard_normal((30, 4)), np.arange(30) % 3
    with pytest.raises(InputError, match=r"a penalty cannot be|penalties are"):
        ridge(lambda: [(x, labels)], lambda: [(x, labels)], 4, 3, penalties, tiled=tiled)


@pytest.mark.parametrize("tiled", [False, True])
def test_held_out_samples_are_checked(rng, tiled):
    x, labels = rng.standard_normal((30, 4)), np.arange(30) % 3
    missing = np.where(np.arange(4) == 2, np.nan, x)
    bad = [(missing, labels, InputError), (x[:, :3], labels, ShapeError), (x, labels + 5, GpunetError)]
    for held, classes, error in bad:
        with pytest.raises(error):
            ridge(lambda: [(x, labels)], lambda held=held, classes=classes: [(held, classes)], 4, 3, tiled=tiled)


@pytest.mark.parametrize("factors", [1e22, 1e-22, [1e22, 1, 1, 1], [1e-25, 1, 1, 1]])
@pytest.mark.parametrize("standardise", [False, True])
def test_features_of_any_size_beside_their_classes(rng, factors, standardise):
    """Sums of large float32 features with ones would be lost in one matrix of float32."""
    labels = np.arange(300) % 3
    x = rng.standard_normal((300, 4))
    x[:, 0] += labels
    x = (x * factors).astype(np.float32)
    found, exact = (
        Moments(4, 3, standardise=standardise).update(each, labels).solve(1e-3) for each in (x, x.astype(float))
    )
    np.testing.assert_allclose(found.weight, exact.weight, rtol=1e-9)


@pytest.mark.parametrize("constant", [0.0, 5.0, -4e6])
@pytest.mark.parametrize("spread", [1e-3, 1.0, 1e4])
def test_a_feature_that_begins_to_vary_counts_from_then_on(constant, spread, rng):
    """It was multiplied by 0 once solutions had been asked for, and so for ever."""
    x, labels = rng.normal(size=(900, 20)), rng.integers(0, 2, 900)
    x[:, 3] = constant + spread * (labels + 0.1 * x[:, 3])
    x[:300, 3] = constant
    moments = TiledMoments(20, 2, standardise=True, tile=7).update(x[:300], labels[:300])
    assert moments.solve(1e-2).weight[0, 3] == 0
    found = moments.update(x[300:], labels[300:]).solve(1e-2)
    exact = Moments(20, 2, standardise=True).update(x, labels).solve(1e-2)
    np.testing.assert_allclose(found.weight, exact.weight, rtol=0.02, atol=1e-4 * np.abs(exact.weight).max())
    assert found.correct(x, labels) == exact.correct(x, labels) > 600
