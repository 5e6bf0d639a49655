"""Sums that grow on a GPU, and what is built on decompositions there."""

from __future__ import annotations

import types

import numpy as np
import pytest

from gpunet.errors import InputError
from gpunet.linalg import StreamingClassGram, StreamingGram, class_pca, device_moments
from gpunet.ridge import Moments, ridge
from gpunet.svd_weights import singular_rows
from tests.linalg.far import Far, far  # noqa: F401 (a fixture)

pytestmark = pytest.mark.usefixtures("far")


# -- sums that grow -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [20, 150, 1100])
def test_sums_of_bytes_have_the_cpu_bits(width, rng):
    x = rng.integers(0, 256, (3000, width), dtype=np.uint8)
    here, there = StreamingGram().update(x), StreamingGram()
    for part in (x[:1], x[1:1500], x[1500:]):
        there.update(Far(part))
    np.testing.assert_array_equal(there.gram(), here.gram())
    np.testing.assert_array_equal(there.mean, here.mean)
    assert isinstance(there.gram(), np.ndarray)


@pytest.mark.parametrize("mean", [0.0, 1e6])
@pytest.mark.parametrize("center", [False, True])
def test_sums_of_floats(mean, center, rng, monkeypatch):
    monkeypatch.setattr(device_moments, "CHUNK_BYTES", 1)
    x = (mean + rng.standard_normal((3000, 12)) * np.arange(1, 13)).astype("float32")
    here = StreamingGram(center=center).update(x)
    there = StreamingGram(center=center).update(Far(x[:100])).update(Far(x[100:]))
    np.testing.assert_allclose(there.gram(), here.gram(), rtol=0, atol=1e-10 * np.abs(here.gram()).max())
    np.testing.assert_allclose(there.density(), here.density(), rtol=0, atol=1e-10 * np.abs(here.density()).max())
    one, other = there.components(3), here.components(3)
    top = one.explained_variance[0]
    np.testing.assert_allclose(one.explained_variance, other.explained_variance, rtol=0, atol=1e-10 * top)
    assert there.components(variance=0.5).count == 3000


def test_sums_are_kept_where_they_are_asked_or_where_the_first_batch_lies(rng):
    x = rng.standard_normal((40, 5))
    asked = StreamingGram(device="cuda").update(x).update(Far(x))
    np.testing.assert_allclose(asked.density(), x.T @ x / 40)
    there = StreamingGram().update(Far(x)).update(x)  # the host's batch goes to the GPU
    np.testing.assert_allclose(there.gram(), asked.gram())
    with pytest.raises(InputError, match=r"make StreamingGram\(device='cuda'\)"):
        StreamingGram().update(x).update(Far(x))
    with pytest.raises(InputError, match=r"batch holds nan at \[1, 0\]"):
        StreamingGram().update(Far(np.array([[1.0], [np.nan]])))
    merged = StreamingGram().merge(there).merge(StreamingGram().update(x))
    np.testing.assert_allclose(merged.gram(), 3 * x.T @ x)
    home = StreamingGram().update(x).merge(there)
    np.testing.assert_allclose(home.gram(), 3 * x.T @ x)


def test_classes_one_by_one(rng):
    x, labels = rng.integers(0, 256, (600, 30), dtype=np.uint8), rng.integers(0, 4, 600) * 10
    whole = class_pca(x, labels, 3)
    there, asked = StreamingClassGram(), StreamingClassGram(device="cuda")
    for stream in (there.update(Far(x), labels), asked.update(x, Far(labels))):
        found = stream.components(3)
        np.testing.assert_array_equal(found.counts, whole.counts)
        np.testing.assert_allclose(found.components, whole.components, atol=1e-6)


# -- what is built on them ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("each", [False, True])
def test_singular_rows(each, rng):
    x, labels = rng.standard_normal((90, 20)).astype("float32"), rng.integers(0, 3, 90)
    given = labels if each else None
    for one, other in zip(singular_rows(x, 7, given), singular_rows(Far(x), 7, given), strict=True):
        assert isinstance(other, np.ndarray)
        np.testing.assert_allclose(other, one, atol=1e-5)


def test_ridge_regression(rng):
    labels = rng.integers(0, 4, 300)
    x = (rng.normal(size=(300, 12)) + 2 * np.eye(12)[labels] + 5).astype("float32")

    def batches(part, place):
        return lambda: ((place(x[part][s : s + 64]), labels[part][s : s + 64]) for s in range(0, len(x[part]), 64))

    here, there = (
        ridge(batches(slice(200), place), batches(slice(200, None), place), 12, 4) for place in (np.asarray, Far)
    )
    assert there.penalty == here.penalty
    np.testing.assert_allclose(there.weight, here.weight, atol=1e-5)
    np.testing.assert_allclose(there.bias, here.bias, atol=1e-4)
    assert there.correct(Far(x), labels) == here.correct(x, labels)


def test_ridge_regression_that_is_not_solvable(rng):
    x = rng.normal(size=(8, 30)).astype("float32")
    with pytest.raises(InputError, match=r"penalty 1e-14 is not solvable \(.*positive definite\)"):
        Moments(30, 2).update(Far(x), np.arange(8) % 2).solve(1e-14)


def test_a_factor_that_is_none_is_found(far, rng, monkeypatch):  # noqa: F811
    """CuPy's cholesky gives something, and says nothing, where a matrix is not positive definite."""
    moments = Moments(5, 2).update(Far(rng.normal(size=(40, 5)).astype("float32")), np.arange(40) % 2)
    for wrong in (0.5, float("nan")):
        monkeypatch.setattr(far.xp, "linalg", types.SimpleNamespace(cholesky=lambda a, by=wrong: a * by), raising=False)
        with pytest.raises(InputError, match="is not positive definite"):
            moments.solve(1e-3)
