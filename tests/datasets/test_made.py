from __future__ import annotations

import numpy as np
import pytest

from gpunet.datasets import fetch, linear, load, status
from gpunet.errors import InputError


@pytest.mark.parametrize(("name", "samples"), [("xor", 4), ("linear", 100), ("xor-easy", 21)])
def test_training_set_and_test_set_are_the_same(name, samples):
    data = load(name)
    assert (data.name, data.shape, data.classes, data.source) == (name, (2,), 2, "embedded")
    assert (data.x_train.shape, data.x_train.dtype, data.y_train.dtype) == ((samples, 2), np.float32, np.int64)
    np.testing.assert_array_equal(data.x_train, data.x_test)
    np.testing.assert_array_equal(data.y_train, data.y_test)
    assert not np.shares_memory(data.x_train, data.x_test)
    assert status(name).state == "embedded"
    assert fetch(name) == []


def test_xor_is_the_bitwise_xor():
    data = load("xor")
    a, b = data.x_train.astype(int).T
    assert data.y_train.tolist() == (a ^ b).tolist() == [0, 1, 1, 0]
    assert len({(a, b) for a, b in data.x_train.tolist()}) == 4


def test_linear_has_a_line_between_its_classes():
    data = load("linear")
    assert (data.x_train >= 0).all()
    assert (data.x_train < 1).all()
    assert all(label == (0 if x > y else 1) for (x, y), label in zip(data.x_train, data.y_train, strict=True))
    assert 30 < data.y_train.sum() < 70
    # Uniform on the square: the mean of 200 draws is 0.5 ± 0.02.
    assert abs(data.x_train.mean() - 0.5) < 0.08


def test_linear_draws_by_its_seed():
    np.testing.assert_array_equal(linear().x_train, load("linear").x_train)
    np.testing.assert_array_equal(linear(3).x_train, linear(3).x_train)
    assert not np.isin(linear(3).x_train, linear().x_train).any()
    with pytest.raises(InputError, match="seed"):
        linear(-1)


def test_xor_easy_is_two_diagonals_without_their_crossing_twice():
    data = load("xor-easy")
    x, y = np.rint(data.x_train * 10).astype(int).T
    np.testing.assert_allclose(data.x_train * 10, np.stack([x, y], 1), atol=1e-6)
    zero, one = data.y_train == 0, data.y_train == 1
    assert sorted(zip(x[zero], y[zero], strict=True)) == [(i, i) for i in range(11)]
    assert sorted(zip(x[one], y[one], strict=True)) == [(i, 10 - i) for i in range(11) if i != 5]
