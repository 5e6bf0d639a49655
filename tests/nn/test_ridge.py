"""Ridge regression in closed form, against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest

from gpunet.errors import InputError
from gpunet.ridge import Moments, ridge


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
    every = Moments(50, 3).update(x, labels).solve(found.penalty)
    np.testing.assert_allclose(found.weight, every.weight, atol=1e-6)


def test_mistakes(data):
    x, labels = data
    with pytest.raises(InputError, match="penalties are"):
        ridge(batches(x, labels, 50), batches(x, labels, 50), 12, 4, ())
    with pytest.raises(InputError, match="all above 0"):
        ridge(batches(x, labels, 50), batches(x, labels, 50), 12, 4, (0.0,))
    constant = np.ones((300, 12), "float32")
    with pytest.raises(InputError, match="not solvable"):
        Moments(12, 4).update(constant, labels).solve(1e-3)
    bad = x.copy()
    bad[3, 3] = np.nan
    with pytest.raises(InputError, match="not solvable"):
        Moments(12, 4).update(bad, labels).solve(1e-3)
