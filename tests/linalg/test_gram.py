"""Sums that grow batch by batch give what one piece would."""

from __future__ import annotations

import numpy as np
import pytest

from gpunet.errors import InputError, ShapeError
from gpunet.linalg import StreamingClassGram, StreamingGram, class_pca
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
    raw = rng.integers(0, 256, (50, 6), dtype=np.uint8)
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
    with pytest.raises(InputError, match="class 7"):
        stream.update(x[:1], np.array([7])).components(3)


@pytest.mark.parametrize(
    ("act", "error", "words"),
    [
        (lambda s: s.components(1), InputError, "seen no samples"),
        (lambda s: s.update(np.ones((3, 4))).update(np.ones((3, 5))), ShapeError, "5 features: .* holds 4"),
        (lambda s: s.update(np.ones((3, 4))).merge(StreamingGram().update(np.ones((3, 5)))), ShapeError, "holds 4"),
        (lambda s: s.update(np.ones(4)), ShapeError, "shape"),
        (lambda s: s.update(np.array([[1, np.nan]])), InputError, r"batch holds nan at \[0, 1\]"),
        (lambda s: s.update(np.ones((3, 4))).components(5), InputError, "components is 5: .* 1 to 4"),
        (lambda s: s.update(np.ones((3, 4))).components(2, variance=0.5), InputError, "give one"),
        (lambda s: s.update(np.ones((3, 4))).components(variance=1.5), InputError, "variance is 1.5"),
        (lambda s: s.update(np.full((3, 4), 1e200)).components(1), InputError, "overflow"),
    ],
)
def test_mistakes(act, error, words):
    with pytest.raises(error, match=words):
        act(StreamingGram())
