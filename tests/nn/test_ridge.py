"""Ridge regression in closed form, against scikit-learn's."""

from __future__ import annotations

import tracemalloc

import hypothesis
import numpy as np
import pytest
import scipy.sparse
from hypothesis import strategies as st

from gpunet.errors import DataError, InputError, ShapeError
from gpunet.spectral.ridge import Moments, TiledMoments, ridge, ridge_of_rows


@pytest.fixture
def data(rng):
    labels = rng.integers(0, 4, 300)
    x = rng.normal(size=(300, 12)) + 2 * np.eye(12)[labels] + 5
    return x.astype("float32"), labels


def batches(x, labels, size):
    return lambda: ((x[s : s + size], labels[s : s + size]) for s in range(0, len(x), size))


@pytest.mark.parametrize("size", [1, 37, 300])
@pytest.mark.parametrize("penalty", [1e-6, 1e-2, 1.0])
def test_it_is_ridge_regression_on_one_hot_labels(data, penalty, size):
    from sklearn.linear_model import Ridge as Theirs

    x, labels = data
    moments = Moments(12, 4)
    for part in batches(x, labels, size)():
        moments.update(*part)
    found = moments.solve(penalty)
    centred = x.astype("float64") - x.mean(axis=0, dtype="float64")
    theirs = Theirs(alpha=penalty * (centred**2).sum() / 12, solver="svd").fit(x.astype("float64"), np.eye(4)[labels])
    np.testing.assert_allclose(found.weight, theirs.coef_, atol=2e-5)
    np.testing.assert_allclose(found.bias, theirs.intercept_, atol=2e-4)
    scores = theirs.predict(x.astype("float64"))
    assert found.correct(x, labels) == (scores.argmax(axis=1) == labels).sum()


def test_the_penalty_is_chosen_on_held_out_samples_and_all_are_used(rng):
    x = rng.normal(size=(60, 50)).astype("float32")  # as many features as samples: little penalty overfits
    truth = rng.normal(size=(50, 3))
    labels = (x @ truth + 6 * rng.normal(size=(60, 3))).argmax(axis=1)
    train, held = batches(x[:40], labels[:40], 16), batches(x[40:], labels[40:], 16)
    found = ridge(train, held, 50, 3, (1e-6, 1e-3, 1.0, 30.0))
    assert found.penalty in (1e-6, 1e-3, 1.0, 30.0)
    correct = {}
    for penalty in (1e-6, 1e-3, 1.0, 30.0):
        moments = Moments(50, 3)
        for part in train():
            moments.update(*part)
        correct[penalty] = sum(moments.solve(penalty).correct(*part) for part in held())
    assert correct[found.penalty] == max(correct.values())
    reused = np.empty((16, 50), "float32")  # whose owner fills it again

    def again():
        for part, y in held():
            reused[: len(part)] = part
            yield reused[: len(part)], y

    assert ridge(train, again, 50, 3, (1e-6, 1e-3, 1.0, 30.0)).penalty == found.penalty
    every = Moments(50, 3).update(x, labels).solve(found.penalty)
    np.testing.assert_allclose(found.weight, every.weight, atol=1e-6)


@pytest.mark.parametrize("block", [7, 4096])
def test_samples_asked_for_by_their_places(data, rng, block):
    x, labels = data
    rows, asked = rng.permutation(250), []

    def features(part):
        asked.append(part)
        return x[part]

    found = ridge_of_rows(features, labels, rows, 12, 4, block=block)
    assert all(len(part) <= block and (np.diff(part) > 0).all() for part in asked)
    assert sorted(np.concatenate(asked)) == sorted(rows)
    held, rest = np.sort(rows[:25]), np.sort(rows[25:])  # a tenth, rounded up
    theirs = ridge(batches(x[rest], labels[rest], 300), batches(x[held], labels[held], 300), 12, 4)
    assert found.penalty == theirs.penalty
    np.testing.assert_allclose(found.weight, theirs.weight, atol=1e-5)


def test_penalties_that_are_refused_are_told(data):
    x, labels = data
    twice = np.concatenate([x, x], axis=1)
    solved = Moments(24, 4).update(twice, labels).solutions([1e-20, 1.0, 1e-20])
    assert [(each.penalty, each.refused) for each in solved] == [(1.0, (1e-20,))]
    with pytest.raises(InputError, match="penalty 1e-21 is not solvable"):
        Moments(24, 4).update(twice, labels).solutions(iter([1e-20, 1e-21]))
    found = ridge(batches(twice, labels, 50), batches(twice, labels, 50), 24, 4, (1e-20, 1.0))
    assert (found.penalty, found.refused) == (1.0, (1e-20,))


def test_mistakes(data):
    x, labels = data
    with pytest.raises(InputError, match="penalties are"):
        ridge(batches(x, labels, 50), batches(x, labels, 50), 12, 4, ())
    for of in (Moments, TiledMoments):
        for none in ([], 1e-3, None):
            with pytest.raises(InputError, match=f"penalties are {none}".replace("[]", r"\[\]")):
                of(12, 4).update(x, labels).solutions(none)
        with pytest.raises(InputError, match="features is 0: expected a whole number"):
            of(0, 4)
    found = Moments(12, 4).update(x, labels).solve(1e-2)
    with pytest.raises(ShapeError, match=r"features have shape \(300, 11\): expected \(n, 12\)"):
        found.correct(x[:, 1:], labels)
    with pytest.raises(InputError, match="features hold NaN, infinity"):
        found.correct(np.where(np.arange(12) < 1, np.inf, np.where(np.arange(12) < 2, -np.inf, x)), labels)
    with pytest.raises(InputError, match="block is 0"):
        ridge_of_rows(x.__getitem__, labels, np.arange(300), 12, 4, block=0)
    with pytest.raises(InputError, match=r"a penalty cannot be 0\.0: expected"):
        ridge(batches(x, labels, 50), batches(x, labels, 50), 12, 4, (0.0,))
    constant = np.ones((300, 12), "float32")
    with pytest.raises(InputError, match="not solvable"):
        Moments(12, 4).update(constant, labels).solve(1e-3)
    bad = x.copy()
    bad[3, 3] = np.nan
    with pytest.raises(InputError, match="features hold NaN"):
        Moments(12, 4).update(bad, labels)
    solved = Moments(12, 4).update(x, labels).solve(1e-2)
    for given in (np.ma.masked_greater(x, 1), scipy.sparse.csr_array(x)):
        for act in (Moments(12, 4).update, solved.correct):
            with pytest.raises(InputError, match=r"^features is a (masked array|sparse csr_array)[^\n]*$"):
                act(given, labels)
    with pytest.raises(InputError, match=r"y is a masked array[^\n]*\.filled"):
        solved.correct(x, np.ma.masked_greater(labels, 1))
    with pytest.raises(DataError, match="300 samples and 299 labels"):
        solved.correct(x, labels[1:])
    with pytest.raises(InputError, match="seen no samples"):
        Moments(12, 4).solve(1e-3)
    with pytest.raises(ShapeError, match=r"features have shape \(300, 12\): expected \(n, 11\)"):
        Moments(11, 4).update(x, labels)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("ratio", [300, 3000, 1e6])
def test_a_mean_far_larger_than_the_spread(ratio, dtype, rng):
    from sklearn.linear_model import Ridge as Theirs

    labels = rng.integers(0, 4, 600)
    x = (rng.normal(size=(600, 12)) + np.eye(12)[labels] + ratio * rng.choice([-1, 1], 12)).astype(dtype)
    moments = Moments(12, 4)
    for part in batches(x, labels, 70)():
        moments.update(*part)
    found = moments.solve(1e-2)
    own = x.astype(float) - x.mean(axis=0, dtype=float)
    theirs = Theirs(alpha=1e-2 * (own**2).sum() / 12, solver="svd").fit(own, np.eye(4)[labels])
    np.testing.assert_allclose(found.weight, theirs.coef_, atol=2e-6)
    np.testing.assert_allclose(own @ found.weight.T, own @ theirs.coef_.T, atol=1e-5)
    guesses = theirs.predict(own).argmax(axis=1)
    assert abs(found.correct(x, labels) - (guesses == labels).sum()) <= 1


def test_refused_samples_change_nothing_and_nothing_is_shared(data):
    x, labels = data
    given = x.copy()
    moments = Moments(12, 4).update(given, labels)
    before = moments.solve(1e-2)
    given[...] = 7
    bad = np.where(np.arange(x.size).reshape(x.shape) == x.size - 1, np.inf, x)
    for wrong in (
        (bad, labels),
        (x[:, :5], labels),
        (x, labels[:-1]),
        (x, labels + 1),
        (np.ma.masked_less(x, 5), labels),
    ):
        with pytest.raises(InputError):
            moments.update(*wrong)
    for each in (before.weight, before.bias):
        np.testing.assert_array_equal(each, getattr(moments.solve(1e-2), "weight" if each.ndim == 2 else "bias"))
    again = moments.solve(1e-2)
    again.weight[...] = 77
    np.testing.assert_array_equal(moments.solve(1e-2).weight, before.weight)


# -- as many samples as features, fewer, and more --------------------------------------------------------------------


def solved_in_float64(x, labels, classes, penalty):
    """(weight, bias) by the normal equations of the features."""
    x, y = x.astype(float), np.eye(classes)[labels]
    mean, centre = x.mean(axis=0), y.mean(axis=0)
    own = x - mean
    scatter = own.T @ own
    scatter += penalty * np.trace(scatter) / len(scatter) * np.eye(len(scatter))
    weight = np.linalg.solve(scatter, own.T @ (y - centre)).T
    return weight, centre - weight @ mean


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
    samples=st.integers(2, 40), features=st.integers(1, 40), classes=st.integers(2, 4), split=st.integers(1, 40),
    power=st.integers(-4, 1), offset=st.sampled_from([0.0, 3.0, 1000.0]), dtype=st.sampled_from(["float32", "float64"]),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_it_is_the_same_on_both_sides_of_the_choice(samples, features, classes, split, power, offset, dtype, seed):
    rng = np.random.default_rng(seed)
    x, labels = (rng.normal(size=(samples, features)) + offset).astype(dtype), rng.integers(0, classes, samples)
    moments, penalty = Moments(features, classes), 10.0**power
    for part in batches(x, labels, split)():
        moments.update(*part)
    assert (moments.joint is None) == (samples <= features)
    found, (weight, bias) = moments.solve(penalty), solved_in_float64(x, labels, classes, penalty)
    rounding = 1e-13 if dtype == "float64" or samples <= features else 3e-7  # of sums of float32 products
    size = np.abs(weight).max() + 1e-3
    np.testing.assert_allclose(found.weight, weight, atol=rounding * size * (1 / penalty + 10))
    np.testing.assert_allclose(found.bias, bias, atol=rounding * size * (1 / penalty + 10) * (1 + offset) * features)


def test_few_samples_make_no_matrix_of_the_features(rng):
    x, labels = rng.normal(size=(30, 20_000)).astype("float32"), np.arange(30) % 3
    tracemalloc.start()
    found = Moments(20_000, 3).update(x, labels).solve(1e-2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * x.nbytes  # 3.2 GB were the features' products
    assert found.correct(x, labels) == 30


def test_few_samples_that_are_alike_or_not_finite_are_refused_as_many_are(rng):
    x, labels = rng.normal(size=(8, 30)), np.arange(8) % 2
    with pytest.raises(InputError, match="not solvable"):
        Moments(30, 2).update(np.full((8, 30), 0.1), labels).solve(1e-3)
    moments = Moments(30, 2).update(x, labels)
    before = moments.solve(1e-2).weight
    for bad in (np.nan, np.inf, 1e200):
        with pytest.raises(InputError, match="features hold NaN, infinity or numbers whose squares overflow"):
            moments.update(np.where(np.arange(240).reshape(8, 30) == 7, bad, x), labels)
    np.testing.assert_array_equal(moments.solve(1e-2).weight, before)
