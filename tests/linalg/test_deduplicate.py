"""What two classes share is kept once: which vectors, at the thresholds' very edges, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gpunet.errors import InputError, ShapeError
from gpunet.linalg import class_pca, deduplicate


def spread(rng, classes=4, k=8, features=40):
    """Orthonormal vectors of each class, some near those of others: all in one half of the space."""
    return np.stack([np.linalg.qr(rng.normal(size=(features, k)) + 1)[0].T for _ in range(classes)])


def test_kept_vectors_of_different_classes_do_not_match(rng):
    components = spread(rng, 3)
    kept, index = deduplicate(components, 0.3)
    assert 3 <= len(kept) < 24
    cosine = np.abs(kept @ kept.T)
    different = index[:, :1] != index[:, 0]
    assert (cosine[different] <= 0.3).all()
    dropped = {(c, i) for c in range(3) for i in range(8)} - {tuple(i) for i in index.tolist()}
    for c, i in dropped:  # each has a kept match in another class
        rivals = kept[index[:, 0] != c]
        assert (np.abs(rivals @ components[c, i]) > 0.3).any()


@pytest.mark.parametrize("weighted", [True, False])
def test_what_is_kept_does_not_depend_on_the_order_of_classes(weighted, rng):
    components, weights = spread(rng), rng.random((4, 8)) if weighted else None
    first, _ = deduplicate(components, 0.4, weights)
    for order in ([3, 2, 1, 0], [1, 3, 0, 2]):
        other, _ = deduplicate(components[order], 0.4, None if weights is None else weights[order])
        np.testing.assert_array_equal(np.unique(first, axis=0), np.unique(other, axis=0))


def test_a_class_pca_brings_its_weights_and_its_ranks(rng):
    x = rng.normal(size=(300, 6)) * [3, 2.5, 2, 1, 0.5, 0.1]
    found = class_pca(x, np.arange(300) % 3, variance=0.9)
    assert len(set(found.ranks.tolist())) == 1
    weights = found.explained_variance_ratio
    wanted, index = deduplicate(list(found), 0.8, list(weights))
    wider = replace(
        found,
        components=np.pad(found.components, ((0, 0), (0, 2), (0, 0))),
        explained_variance_ratio=np.pad(weights, ((0, 0), (0, 2))),
    )
    for pca in (found, wider):
        kept, places = deduplicate(pca, 0.8)
        np.testing.assert_array_equal(kept, wanted)
        np.testing.assert_array_equal(places, index)
    assert not np.array_equal(index, deduplicate(list(found), 0.8, list(-weights))[1]), "the weights do not matter"


def test_twins_signs_and_padding():
    e = np.eye(3)
    kept, index = deduplicate([np.stack([e[0], e[1]]), np.stack([-e[0], 0 * e[0]])], 0.9)
    assert len(kept) == len(index) == 2
    np.testing.assert_array_equal(np.abs(kept).max(axis=0), [1, 1, 0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("features", [1, 2, 3, 50, pytest.param(5000, marks=pytest.mark.slow)])
def test_at_one_nothing_is_dropped_and_just_below_all_twins_are(features, dtype, rng):
    """Of 200 random vectors in 50 dimensions, 57 had in float64 a cosine above 1 with a third of themselves."""
    vectors = rng.normal(size=(200, features)).astype(dtype)
    for factor in (1, -1, 3, 1 / 3):
        twins = (vectors * dtype_of(dtype, factor)).astype(dtype)
        for i in range(200):
            assert len(deduplicate([vectors[i : i + 1], twins[i : i + 1]], 1.0)[0]) == 2
    both = [vectors[:20], vectors[:20]]
    kept, index = deduplicate(both, 1.0)
    assert len(kept) == 40
    if features == 5000:  # those of few features resemble others, too
        kept, index = deduplicate(both, 1 - 1e-9)
        assert len(kept) == 20
        assert len(set(index[:, 1].tolist())) == 20


def dtype_of(dtype, factor):
    return np.dtype(dtype).type(factor)


@pytest.mark.parametrize(
    ("vector", "threshold"), [([3, 4], 0.8), ([4, 3], 0.6), ([7, 24], 0.96), ([24, 7], 0.28), ([5, 12], 12 / 13)]
)
@pytest.mark.parametrize("scale", [1, 0.1, 1e170, 1e-170, 2.0**-1040, -1e300])
def test_a_cosine_equal_to_the_threshold_does_not_exceed_it(vector, threshold, scale):
    """Pythagorean triples: the cosine with (0, 1) is a rational number."""
    pair = [np.array([vector]) * scale, np.array([[0.0, 1.0]])]
    assert len(deduplicate(pair, threshold)[0]) == 2
    assert len(deduplicate(pair, threshold - 1e-12)[0]) == 1


def test_orthogonal_vectors_do_not_match_at_zero(rng):
    q = np.linalg.qr(rng.normal(size=(64, 64)))[0]
    assert len(deduplicate([q[:32], q[32:]], 0.0)[0]) == 64
    assert len(deduplicate([q[:32], q[:32] + q[32:]], 0.0)[0]) == 32


@pytest.mark.parametrize("scale", [1e170, 1e-170, 1e300, 5e-324])
def test_vectors_of_any_size_match_their_twins(scale):
    vector = np.array([[1.0, 2.0, 3.0]])
    kept, index = deduplicate([vector * scale, vector], 0.9)
    assert len(kept) == 1
    assert index.tolist() == [[0, 0]] or index.tolist() == [[1, 0]]


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float16", ">f4", ">f8", "<f4"])
def test_dtypes(dtype):
    vectors = np.array([[1, 0, 1], [0, 1, 0]]).astype(dtype)
    kept, index = deduplicate([vectors, vectors[:1]], 0.9)
    assert len(kept) == len(index) == 2
    assert kept.dtype == np.dtype(dtype).newbyteorder("=")


def test_nothing_that_is_returned_is_shared(rng):
    components = spread(rng)
    before = components.copy()
    kept, _ = deduplicate(components, 1.0)
    kept += 1
    np.testing.assert_array_equal(components, before)


E = np.eye(3)
NAN, INF = E.copy(), E.copy()
NAN[1, 2], INF[2, 0] = np.nan, -np.inf


@pytest.mark.parametrize(
    ("components", "weights", "error", "message"),
    [
        ([E, NAN], None, InputError, "vector 1 of class 1 holds NaN or infinity"),
        ([INF, E], None, InputError, "vector 2 of class 0 holds NaN or infinity"),
        ([E, np.eye(4)], None, ShapeError, "class 1 of components has vectors of 4 features, class 0 of 3"),
        ([E, E[0]], None, ShapeError, r"class 1 of components has shape \(3,\)"),
        (E, None, ShapeError, r"components has shape \(3, 3\): expected \(classes, vectors, features\)"),
        ([E, np.ma.array(E)], None, InputError, r"class 1 of components is a masked array.*\.filled"),
        (np.ma.array([E, E]), None, InputError, r"components is a masked array.*\.filled"),
        ([E, E.astype("longdouble")], None, InputError, r"class 1 of components has dtype .*\.astype\('float64'\)"),
        ([E, E * 1j], None, InputError, "class 1 of components has dtype complex128"),
        ([E, E.astype(object)], None, InputError, "class 1 of components has dtype object"),
        ([E, E], [[1, 2, 3]], ShapeError, "weights of 1 classes and vectors of 2"),
        ([E, E], [[1, 2, 3]] * 3, ShapeError, "weights of 3 classes and vectors of 2"),
        ([E, E], [[1, 2, 3], [1, 2]], ShapeError, r"class 1 has weights of shape \(2,\) and 3 vectors"),
        ([E, E], [[1, 2, 3, 4], [1, 2, 3]], ShapeError, r"class 0 has weights of shape \(4,\) and 3 vectors"),
        ([E, E], [1, 2], ShapeError, r"class 0 has weights of shape \(\)"),
        ([E, E], 3.0, ShapeError, "weights of 1 classes"),
        ([E, E], [[1, 2, 3], [1, np.nan, 3]], InputError, "weight 1 of class 1 is NaN"),
        ([E, E], np.ma.array(np.ones((2, 3))), InputError, r"weights is a masked array.*\.filled"),
        ([0 * E], None, InputError, "no vector"),
        ([], None, InputError, "no vector"),
    ],
)
def test_mistakes(components, weights, error, message):
    with pytest.raises(error, match=message) as caught:
        deduplicate(components, 0.5, weights)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("threshold", [1.5, -0.1, np.nan, "0.5", None, True])
def test_thresholds_that_are_none(threshold):
    with pytest.raises(InputError, match=r"threshold is .*: expected a \|cosine\| in"):
        deduplicate([E], threshold)
