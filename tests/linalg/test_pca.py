"""Each class's density matrix and its leading vectors."""

from __future__ import annotations

import numpy as np
import pytest

from gpunet.errors import InputError, ShapeError
from gpunet.linalg import class_pca
from tests.linalg.matrices import largest_angle


def made(rng, counts=(400, 37, 150, 12), features=40):
    labels = np.repeat(np.arange(len(counts)) * 3, counts)
    directions = rng.standard_normal((len(counts), features, features)) * np.arange(1, features + 1) ** -1.0
    x = np.einsum("ni,nji->nj", rng.standard_normal((len(labels), features)), directions[labels // 3])
    order = rng.permutation(len(labels))
    return x[order], labels[order]


def exact(x, center):
    x = x.astype(float)
    if center:
        x = x - x.mean(axis=0)
    _, s, vt = np.linalg.svd(x, full_matrices=False)
    return vt, s**2 / len(x)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ragged_classes_also_with_fewer_samples_than_features(dtype, scale, center, rng):
    x, labels = made(rng)
    x = (x * scale).astype(dtype)
    found = class_pca(x, labels, 4, center=center)
    assert found.components.shape == (4, 4, 40)
    assert found.components.dtype == dtype
    np.testing.assert_array_equal(found.classes, [0, 3, 6, 9])
    np.testing.assert_array_equal(found.counts, [400, 37, 150, 12])
    rtol = 1e-4 if dtype == "float32" else 1e-9
    for c, label in enumerate(found.classes):
        own = x[labels == label].astype(float) / scale
        vt, values = exact(own, center)
        np.testing.assert_allclose(found.explained_variance[c], values[:4] * scale**2, rtol=rtol)
        np.testing.assert_allclose(found.explained_variance_ratio[c], values[:4] / values.sum(), rtol=rtol)
        np.testing.assert_allclose(found.mean[c], own.mean(axis=0) * scale, rtol=1e-4, atol=1e-5 * scale)
        assert largest_angle(found.components[c].T, vt[:4].T) < 1e-3
        assert np.abs(found.components[c]).max(axis=1) == pytest.approx(found.components[c].max(axis=1))


def test_it_says_by_which_routes_its_classes_were_computed(rng):
    flat, steep = rng.normal(size=(9000, 20)), rng.normal(size=(9000, 20)) * np.logspace(0, -10, 20)
    apart = [class_pca(own, np.zeros(9000, int), 20).route for own in (flat, steep)]
    assert apart == ["gram", "gram-levels"]  # as `svd` names them
    joined = [flat, steep, flat[:200]]
    assert class_pca(np.concatenate(joined), np.repeat([0, 3, 6], [9000, 9000, 200]), 20).route == "gram+gram-levels"


@pytest.mark.parametrize("center", [False, True])
def test_a_mean_a_million_times_the_signal(center, rng):
    x, labels = made(rng, (300, 200))
    found = class_pca(x + 1e6, labels, 3, center=center)
    if center:
        for c in range(2):
            vt, values = exact(x[labels == 3 * c], True)
            assert largest_angle(found.components[c].T, vt[:3].T) < 1e-5
            np.testing.assert_allclose(found.explained_variance[c], values[:3], rtol=1e-6)
    else:
        np.testing.assert_allclose(found.components[:, 0], 40**-0.5, atol=1e-6)


def test_bytes_by_the_leading_iteration(rng):
    """300 features and one component: the iteration runs, and the Gram matrix is exact."""
    x = np.clip(rng.standard_normal((900, 300)) * 30 * np.arange(1, 301) ** -0.3 + 120, 0, 255).astype(np.uint8)
    labels = rng.integers(0, 2, 900)
    found = class_pca(x, labels, 2, center=True)
    for c in range(2):
        vt, _ = exact(x[labels == c], True)
        assert largest_angle(found.components[c].T, vt[:2].T) < 1e-5


def test_share_of_variance(rng):
    x, labels = made(rng)
    found = class_pca(x, labels, variance=0.9)
    assert len(set(found.ranks)) > 1
    for c, block in enumerate(found):
        _, values = exact(x[labels == found.classes[c]], False)
        share = np.cumsum(values) / values.sum()
        assert found.ranks[c] == len(block) == np.searchsorted(share, 0.9) + 1
        assert not found.components[c, found.ranks[c] :].any()
    assert (class_pca(x, labels, variance=1.0).ranks <= np.minimum(found.counts, 40)).all()


def test_fraction_is_a_seeded_part_of_each_class(rng):
    x, labels = made(rng)
    half = class_pca(x, labels, 3, fraction=0.5)
    np.testing.assert_array_equal(half.counts, [200, 18, 75, 6])
    again = class_pca(x, labels, 3, fraction=0.5)
    np.testing.assert_array_equal(half.components, again.components)
    other = class_pca(x, labels, 3, fraction=0.5, seed=1)
    assert not np.allclose(half.components, other.components)
    np.testing.assert_array_equal(class_pca(x, labels, 3, fraction=1.0).counts, [400, 37, 150, 12])


def test_one_class_one_feature():
    found = class_pca(np.array([[3.0], [4.0]]), [5, 5], 1)
    np.testing.assert_allclose(found.explained_variance, [[12.5]])
    np.testing.assert_allclose(found.components, [[[1.0]]])


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"components": 13}, InputError, "class 9 has 12 samples of 40 features.*components=13"),
        ({"components": 41}, InputError, "1 to 40"),
        ({"components": None}, InputError, "neither components nor variance"),
        ({"variance": 0.5}, InputError, "give one"),
        ({"fraction": 0.0}, InputError, "fraction is 0.0"),
        ({"labels": [1, 2]}, ShapeError, r"labels have shape \(2,\): expected \(599,\)"),
        ({"labels": np.zeros(599)}, InputError, "labels have dtype float64"),
        ({"x": np.full((599, 40), np.nan)}, InputError, r"x holds nan at \[\d+, 0\]"),
        ({"x": np.zeros((599, 4, 4))}, ShapeError, r"x.reshape\(len\(x\), -1\)"),
    ],
)
def test_mistakes(change, error, words, rng):
    x, labels = made(rng)
    with pytest.raises(error, match=words):
        class_pca(**({"x": x, "labels": labels, "components": 3} | change))
