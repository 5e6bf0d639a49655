"""The SVD engine and class PCA on a GPU against float64 LAPACK, by every route."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import gpunet as gn
from gpunet.linalg.device import computing_on
from gpunet.linalg.stacked import CUDA_METHODS
from gpunet.spectral.ridge import Moments, TiledMoments, _solve_on_gpu
from gpunet.spectral.tiled import cholesky

# (shape, k): small, tall, wide, stacks small and tall
PROBLEMS = [((12, 9), 4), ((300, 40), 10), ((40, 300), 40), ((6, 30, 20), 5), ((3, 200, 24), 6), ((90, 90), 90)]


def made(shape, dtype="float32"):
    """Singular values j^-0.7, so that subspaces are well defined."""
    rng = np.random.default_rng(sum(shape))
    *lead, m, n = shape
    k = min(m, n)
    left, right = (np.linalg.qr(rng.normal(size=(*lead, size, k)))[0] for size in (m, n))
    s = np.arange(1, k + 1) ** -0.7
    return ((left * s) @ right.swapaxes(-1, -2)).astype(dtype), s


def check(gpu, found, a, s, k):
    backend = gpu.backend()
    u, values, vt = (np.asarray(backend.to_host(part), np.float64) for part in (found.u, found.s, found.vt))
    assert found.u.dtype == a.dtype
    eps = np.finfo(a.dtype).eps
    np.testing.assert_allclose(values, np.broadcast_to(s[:k], values.shape), rtol=0, atol=200 * eps)
    one = np.eye(k)
    for vectors in (u, vt.swapaxes(-1, -2)):
        np.testing.assert_allclose(vectors.swapaxes(-1, -2) @ vectors - one, 0, atol=1000 * eps)
    best = np.linalg.svd(a.astype(np.float64), full_matrices=False)
    truth = (best[0][..., :k] * best[1][..., None, :k]) @ best[2][..., :k, :]
    np.testing.assert_allclose((u * values[..., None, :]) @ vt, truth, rtol=0, atol=2000 * eps)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("shape", "k"), PROBLEMS, ids=str)
def test_svd_as_it_chooses(gpu, shape, k, dtype):
    a, s = made(shape, dtype)
    backend = gpu.backend()
    found = gn.svd(backend.asarray(a), k, device=backend)
    assert found.residual <= found.tol
    check(gpu, found, a, s, k)


@pytest.mark.parametrize("method", [method for method in CUDA_METHODS if method != "auto"])
@pytest.mark.parametrize(("shape", "k"), [((24, 16), 5), ((4, 200, 20), 4)], ids=str)
def test_every_route(gpu, method, shape, k):
    if method == "gesvdj" and max(shape[-2:]) > 32:
        pytest.skip("gesvdj takes matrices up to 32×32")
    a, s = made(shape)
    found = gn.svd(gpu.backend().asarray(a), k, method=method, device=gpu.backend())
    assert found.route == method
    check(gpu, found, a, s, k)


def test_the_cpus_signs_and_order(gpu):
    a, _ = made((200, 30))
    backend = gpu.backend()
    here, there = gn.svd(a, 6), gn.svd(backend.asarray(a), 6, device=backend)
    for name in ("u", "s", "vt"):
        np.testing.assert_allclose(backend.to_host(getattr(there, name)), getattr(here, name), rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("center", [False, True])
def test_class_pca_of_data_on_the_device(gpu, dtype, center):
    digits = gn.datasets.load("digits")
    x, y = digits.x_train[:600].astype(dtype), digits.y_train[:600]
    here = gn.class_pca(x, y, 4, center=center)
    backend = gpu.backend()
    there = gn.class_pca(backend.asarray(x), y, 4, center=center)
    components = np.asarray(backend.to_host(there.components))
    variances = np.asarray(backend.to_host(there.explained_variance))
    np.testing.assert_allclose(variances, here.explained_variance, rtol=1e-4)
    for one, other in zip(here.components, components, strict=True):  # the same subspaces
        cosines = np.linalg.svd(one.astype(np.float64) @ other.T.astype(np.float64), compute_uv=False)
        np.testing.assert_allclose(cosines, 1, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(backend.to_host(there.counts)), here.counts)


def test_streamed_grams(gpu):
    digits = gn.datasets.load("digits")
    backend, gram = gpu.backend(), gn.StreamingGram()
    for start in range(0, 1000, 300):
        gram.update(backend.asarray(digits.x_train[start : start + 300]))
    x = digits.x_train[:1200].astype(np.float64)
    assert gram.count == 1200
    np.testing.assert_allclose(np.asarray(backend.to_host(gram.gram())), x.T @ x, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_reproducible_sums_have_the_cpus_bits(gpu, dtype):
    x = (np.random.default_rng(0).normal(size=(400, 30)) * np.geomspace(1, 1e-5, 30)).astype(dtype)
    backend, there = gpu.backend(), gn.StreamingGram(reproducible=True)
    for part in (x[:7], x[7:300], x[300:]):
        there.update(backend.asarray(part))
    here = gn.StreamingGram(reproducible=True).update(x)
    np.testing.assert_array_equal(there.gram(), here.gram())
    np.testing.assert_array_equal(there.mean, here.mean)
    np.testing.assert_array_equal(there.components(5).components, here.components(5).components)


@pytest.mark.parametrize("center", [False, True])
def test_classes_of_very_different_size(gpu, center):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(gpu.size(4000, 300), 30)) * np.linspace(3, 1, 30), np.arange(gpu.size(4000, 300)) % 3
    x = (x * np.array([1e-25, 1, 1e25])[y, None]).astype("float32")
    found = gn.class_pca(gpu.backend().asarray(x), y, 3, center=center)
    for c in range(3):
        own = x[y == c].astype(np.float64)
        own -= center * own.mean(axis=0)
        s, vt = np.linalg.svd(own, full_matrices=False)[1:]
        np.testing.assert_allclose(found.explained_variance[c], s[:3] ** 2 / len(own), rtol=1e-5)
        np.testing.assert_allclose(np.abs(found.components[c] @ vt[:3].T), np.eye(3), atol=1e-4)


def test_a_mean_far_larger_than_the_signal(gpu):
    """By gesvd of the samples where they are at hand, from the moments about the mean where they have gone by."""
    rng, backend = np.random.default_rng(0), gpu.backend()
    x = 1e7 + rng.normal(size=(400, 30)) * np.linspace(3, 1, 30)
    s, vt = np.linalg.svd(x)[1:]
    stream = gn.StreamingGram()
    for part in (x[:1], x[1:150], x[150:]):
        stream.update(backend.asarray(part))
    at_hand, gone = gn.class_pca(backend.asarray(x), np.zeros(400, int), 3), stream.components(3)
    for components, variances in (
        (at_hand.components[0], at_hand.explained_variance[0]),
        (gone.components, gone.explained_variance),
    ):
        assert np.arccos(np.minimum(np.abs(np.sum(components * vt[:3], axis=1)), 1)).max() < 1e-6
        np.testing.assert_allclose(np.sqrt(variances * 400), s[:3], rtol=1e-6)
    assert max(at_hand.residual, gone.residual) < 1e-13


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layers_fitted_there(gpu, dtype, center):
    rng, y = np.random.default_rng(0), np.arange(2000) % 2
    x = (rng.normal(size=(2000, 6)) * [3, 2, 1.5, 1, 0.7, 0.5] + 1e4 * (2 * y[:, None] - 1)).astype(dtype)
    here, there = (
        gn.fit_class_pca(gn.Dense(3), x, y, variance=0.9, center=center, device=d).pca for d in ("numpy", gpu.backend())
    )
    np.testing.assert_array_equal(here.ranks, there.ranks)
    np.testing.assert_allclose(there.explained_variance, here.explained_variance, rtol=1e-5)
    if center:
        assert there.ranks.tolist() == [4, 4]


@pytest.mark.parametrize("last", [-9e-8, -9e-9, -9e-11, 0.0, np.nan])
@pytest.mark.parametrize("solve", [True, False])
def test_a_matrix_of_which_the_last_pivot_alone_fails_has_no_factor(gpu, last, solve):
    """CuPy raises nothing then: the factor differs from the matrix by no more than that pivot."""
    backend, size = gpu.backend(), 60
    lower = np.tril(np.random.default_rng(0).normal(size=(size, size))) + 20 * np.eye(size)
    lower[-1, -1] = 1.0
    a = lower @ np.diag([1.0] * (size - 1) + [last or -1e-12]) @ lower.T
    with computing_on(backend) as xp:
        right, ones = backend.asarray(lower @ lower.T), xp.ones((size, 1))
        np.testing.assert_allclose(backend.to_host(cholesky(xp, right)), lower, atol=1e-10)
        wrong = backend.asarray(a)
        act = partial(_solve_on_gpu, xp, wrong, 0.0, ones) if solve else partial(cholesky, xp, wrong)
        with pytest.raises(np.linalg.LinAlgError, match="not positive definite"):
            act()


@pytest.mark.parametrize("ratio", [0, 3000, 1e6])
def test_ridge_regression(gpu, ratio):
    rng, backend = np.random.default_rng(0), gpu.backend()
    y = rng.integers(0, 3, 500)
    x = (rng.normal(size=(500, 12)) + np.eye(12)[y] + ratio).astype("float32")
    here, there = Moments(12, 3), Moments(12, 3, backend)
    for part in (slice(0, 100), slice(100, 500)):
        here.update(x[part], y[part])
        there.update(backend.asarray(x[part]), y[part])
    one, other = here.solve(1e-2), there.solve(1e-2)
    np.testing.assert_allclose(other.weight, one.weight, atol=1e-5)
    assert abs(other.correct(backend.asarray(x), y, backend) - one.correct(x, y)) <= 1


@pytest.mark.parametrize("standardise", [False, True])
def test_ridge_regression_of_many_features(gpu, standardise):
    rng, backend = np.random.default_rng(0), gpu.backend()
    y = rng.integers(0, 3, 500)
    x = (rng.normal(size=(500, 70)) + np.eye(70)[y] + 3000).astype("float32")
    here, there = (TiledMoments(70, 3, device, standardise, tile=32) for device in (None, backend))
    for part in (slice(0, 100), slice(100, 500)):
        here.update(x[part], y[part])
        there.update(backend.asarray(x[part]), y[part])
    for one, other in zip(here.solutions((1e-3, 1e-1)), there.solutions((1e-3, 1e-1)), strict=True):
        np.testing.assert_allclose(other.weight, one.weight, atol=1e-5)
        assert abs(other.correct(backend.asarray(x), y, backend) - one.correct(x, y)) <= 1
