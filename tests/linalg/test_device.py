"""Decompositions of data on a GPU: as on the CPU, without ever taking the data back to the host."""

from __future__ import annotations

import numpy as np
import pytest

from gpunet.errors import ConvergenceError, InputError, MemoryFullError, ShapeError
from gpunet.linalg import StreamingGram, class_pca, moments, pca, svd
from gpunet.linalg.verify import tolerance
from tests.linalg.far import Far, far  # noqa: F401 (a fixture)
from tests.linalg.matrices import largest_angle
from tests.linalg.test_pca import exact, made

pytestmark = pytest.mark.usefixtures("far")


def test_the_pretend_device_refuses_what_cupy_refuses():
    a = Far(np.ones((2, 2)))
    with pytest.raises(TypeError, match="Implicit conversion"):
        np.asarray(a)
    for mistake in (lambda: a + np.ones(2), lambda: np.ones(2) * a, lambda: a[np.array([0])], lambda: np.dot(a, a)):
        with pytest.raises(TypeError):
            mistake()


# -- class PCA ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", [{"components": 4}, {"variance": 0.9}, {"components": 3, "fraction": 0.5}])
def test_class_pca_is_that_of_the_cpu(options, dtype, scale, center, rng):
    """Ragged classes, one of them with fewer samples than features."""
    x, labels = made(rng, (400, 37, 150, 41))
    x = (x * scale).astype(dtype)
    here = class_pca(x, labels, **options, center=center)
    there = class_pca(Far(x), labels, **options, center=center)
    rtol = 1e-4 if dtype == "float32" else 1e-9
    for name in ("classes", "counts", "ranks"):
        np.testing.assert_array_equal(getattr(there, name), getattr(here, name))
    assert there.components.dtype == dtype
    np.testing.assert_allclose(there.components, here.components, atol=2e-3 if dtype == "float32" else 1e-7)
    np.testing.assert_allclose(there.explained_variance, here.explained_variance, rtol=rtol)
    np.testing.assert_allclose(there.explained_variance_ratio, here.explained_variance_ratio, rtol=rtol)
    np.testing.assert_allclose(there.mean, here.mean, rtol=1e-4, atol=1e-5 * scale)
    assert there.residual < 1e-6
    assert there.route == "gram"


def test_class_pca_of_float64_extremes(rng):
    x, labels = made(rng, (90, 60, 30))
    wanted = class_pca(x, labels, 3)
    for scale in (1e-140, 1e140):
        found = class_pca(Far(x * scale), labels, 3)
        np.testing.assert_allclose(found.explained_variance / scale / scale, wanted.explained_variance, rtol=1e-9)
        np.testing.assert_allclose(found.components, wanted.components, atol=1e-7)
    for scale in (1e-200, 1e200):
        with pytest.raises(
            InputError, match=r"variance of samples of size \d.*e[-+](20|19).* leaves the range of float64"
        ):
            class_pca(Far(x * scale), labels, 3)


@pytest.mark.parametrize("scale", [1e-89, 1e-70, 1e-60, 1e89])
def test_wrong_eigenvectors_show_at_every_scale(scale, rng, monkeypatch):
    """Squares of residuals, which are fourth powers of the samples, vanish for none."""
    x, labels = made(rng, (90, 80))
    right, solve = class_pca(Far(x), labels, 3), pca.leading_stack

    def near(*args):
        values, vectors = solve(*args)
        return values * (1 + 1e-11), vectors

    monkeypatch.setattr(pca, "leading_stack", near)
    found = class_pca(Far(x * scale), labels, 3)
    np.testing.assert_allclose(found.explained_variance / scale / scale, right.explained_variance, rtol=1e-12)  # by svd


@pytest.mark.parametrize("center", [False, True])
def test_what_is_rounded_to_float32_is_part_of_the_residual(center, rng):
    x, labels = made(rng, (90, 30))  # of 40 features
    x = x.astype("float32")
    found = class_pca(Far(x), labels, 3, center=center)
    for c, label in enumerate(found.classes):
        part = x[labels == label].astype(float)
        part = part - part.mean(axis=0) if center else part
        v, top = found.components[c].T.astype(float), np.linalg.norm(part, 2)
        image = part @ v
        wrong = part.T @ (image / np.linalg.norm(image, axis=0)) - v * np.linalg.norm(image, axis=0)
        assert np.linalg.norm(wrong, axis=0).max() / top <= found.residual < 1e-6


@pytest.mark.parametrize("features", [40, 200])
@pytest.mark.parametrize("small", [1e-25, 1e25])
def test_each_class_has_its_own_scale(small, features, rng):
    x, labels = made(rng, (90, 80), features)
    x = (x * np.where(labels == 0, small, 1)[:, None]).astype("float32")
    found = class_pca(Far(x), labels, 3, center=True)
    for c, label in enumerate(found.classes):
        own = x[labels == label].astype(float)
        vt, values = exact(own, True)
        assert largest_angle(found.components[c].T, vt[:3].T) < 1e-6
        np.testing.assert_allclose(found.explained_variance[c], values[:3], rtol=1e-6)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("shape", [(400, 30), (25, 30)])
def test_what_a_gram_matrix_drowns_is_found_in_the_samples(shape, center, rng):
    x = 1e7 + rng.normal(size=shape) * np.linspace(3, 1, 30)
    found = class_pca(Far(x), np.zeros(len(x), int), 3, center=center)
    vt, values = exact(x, center)
    assert largest_angle(found.components[0].T, vt[:3].T) < 1e-6
    np.testing.assert_allclose(found.explained_variance[0], values[:3], rtol=1e-6)
    assert found.residual <= tolerance("float64", 30, 3)
    assert found.route == ("gram" if center else "gesvd")  # without the mean nothing drowns


def test_all_components_of_a_graded_class(rng):
    x = rng.normal(size=(100, 12)) * np.logspace(0, -10, 12) @ np.linalg.qr(rng.normal(size=(12, 12)))[0]
    found = class_pca(Far(x), np.zeros(100, int), 12)
    s, vt = np.linalg.svd(x)[1:]
    np.testing.assert_allclose(np.sqrt(found.explained_variance[0] * 100), s, rtol=0, atol=1e-13 * s[0])
    np.testing.assert_allclose(np.abs(found.components[0] * vt).sum(axis=1), 1, atol=1e-4)


@pytest.mark.parametrize("features", [30, 300])
def test_bytes_stay_where_they_are_and_are_summed_exactly(features, rng):
    x = np.clip(rng.standard_normal((2500, features)) * 30 * np.arange(1, features + 1) ** -0.3 + 120, 0, 255)
    x, labels = x.astype(np.uint8), rng.integers(0, 2, 2500)
    there = class_pca(Far(x), Far(labels), 2, center=True)
    for c in range(2):
        vt, values = exact(x[labels == c], True)
        assert largest_angle(there.components[c].T, vt[:2].T) < 1e-5
        np.testing.assert_allclose(there.explained_variance[c], values[:2], rtol=1e-9)
    results = there.components.nbytes * 4 + there.mean.nbytes + labels.nbytes
    assert Far.reads < results + 2 * 8 * features * 4 + 4096 < x.nbytes


def test_classes_by_groups_where_memory_is_short(rng, monkeypatch):
    x, labels = made(rng, (90, 80, 70, 60))
    whole = class_pca(Far(x), labels, 3)
    monkeypatch.setattr(pca, "GROUP_BYTES", 2 * 8 * 40 * 40)
    monkeypatch.setattr(moments, "GPU_CHUNK_BYTES", 1)
    parts = class_pca(Far(x), labels, 3)
    np.testing.assert_allclose(parts.components, whole.components, atol=1e-10)


def test_eigenvectors_that_are_wrong_are_made_again_or_refused(rng, monkeypatch):
    """A library whose stacked solver gives NaN, or vectors of something else, and says nothing."""
    x, labels = made(rng, (90, 80))
    right = class_pca(Far(x), labels, 3)
    stacked = pca.leading_stack

    def lies(xp, g, k, tol, sturdy=False):
        values, vectors = stacked(xp, g, k, tol, sturdy)
        return (values, vectors) if sturdy else (values * float("nan"), vectors)

    monkeypatch.setattr(pca, "leading_stack", lies)
    np.testing.assert_allclose(class_pca(Far(x), labels, 3).components, right.components, atol=1e-10)
    moments = [StreamingGram().update(Far(x[labels == c])) for c in (0, 3)]
    for c, each in enumerate(moments):
        np.testing.assert_allclose(each.components(3).components, right.components[c], atol=1e-10)
    monkeypatch.setattr(pca, "leading_stack", lambda *args: (stacked(*args)[0] * 1.001, stacked(*args)[1]))
    np.testing.assert_allclose(class_pca(Far(x), labels, 3).components, right.components, atol=1e-10)  # by gesvd
    np.testing.assert_allclose(moments[0].components(3).components, right.components[0], atol=1e-10)  # on the host
    solve = pca.stacked.solve
    monkeypatch.setattr(pca.stacked, "solve", lambda *args: (*solve(*args)[:3], np.array([[0.001, 0.0]])))
    with pytest.raises(
        ConvergenceError, match=r"class 0 of 2, 90×40, have a residual of 0.001 on a GPU, by gesvd: expected"
    ):
        class_pca(Far(x), labels, 3)


def test_a_full_device_is_one_line(far, rng, monkeypatch):  # noqa: F811
    def full(*args):
        raise MemoryError("Out of memory allocating 9,000 bytes (allocated so far: 8 bytes).\nmore")

    monkeypatch.setattr(far.xp, "matmul", full, raising=False)
    x, labels = made(rng, (90, 80))
    words = (
        r"no room on cuda:0 to decompose: Out of memory allocating 9,000 bytes \(allocated so far: 8 bytes\)\.; take"
    )
    for act in (lambda: class_pca(Far(x), labels, 3), lambda: svd(Far(x), 3), lambda: StreamingGram().update(Far(x))):
        with pytest.raises(MemoryFullError, match=words):
            act()


def test_fewer_samples_than_features(rng):
    x, labels = rng.standard_normal((50, 300)), np.repeat([0, 1], [30, 20])
    here, there = class_pca(x, labels, variance=0.95), class_pca(Far(x), labels, variance=0.95)
    np.testing.assert_array_equal(there.ranks, here.ranks)
    np.testing.assert_allclose(there.components, here.components, atol=1e-8)


def test_data_on_the_host_is_computed_where_it_is_asked(far, rng):  # noqa: F811
    x, labels = made(rng)
    np.testing.assert_allclose(
        class_pca(x, labels, 3, device="cuda").components, class_pca(x, labels, 3).components, atol=1e-7
    )
    with pytest.raises(InputError, match=r"x lies on a GPU and device is cpu: copy it first, with x.get\(\)"):
        class_pca(Far(x), labels, 3, device="cpu")


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"components": 13}, InputError, "class 9 has 12 samples of 40 features.*components=13"),
        ({"labels": [1, 2]}, ShapeError, r"labels have shape \(2,\): expected \(599,\)"),
        ({"x": np.full((599, 40), np.nan)}, InputError, r"x holds nan at \[0, 0\]"),
        ({"x": np.where(np.arange(599 * 40).reshape(599, 40) == 81, -np.inf, 1)}, InputError, r"-inf at \[2, 1\]"),
    ],
)  # fmt: skip
def test_mistakes(change, error, words, rng):
    x, labels = made(rng)
    given = {"x": x, "labels": labels, "components": 3} | change
    with pytest.raises(error, match=words):
        class_pca(**given | {"x": Far(given["x"])})
