"""On a real GPU: what the other tests show of pretend devices, and that cuSOLVER and cuBLAS do as is assumed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gpunet.backend import cusolver, get_backend
from gpunet.linalg import StreamingGram, class_pca, svd
from gpunet.linalg.patches import PatchDensities
from gpunet.linalg.stacked import leading_stack
from tests.conftest import need_gpu
from tests.linalg.matrices import adversarial, check_triples, largest_angle

pytestmark = pytest.mark.gpu


@pytest.fixture
def gpu():
    need_gpu()
    return get_backend("cuda")


@pytest.mark.parametrize("width", [30, 784, 1100])
def test_sums_of_bytes_have_the_cpu_bits(gpu, width, rng):
    x = rng.integers(0, 256, (5000, width), dtype=np.uint8)
    here, there = StreamingGram().update(x), StreamingGram().update(gpu.asarray(x))
    np.testing.assert_array_equal(there.gram(), here.gram())
    np.testing.assert_array_equal(there.mean, here.mean)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
@pytest.mark.parametrize(
    ("features", "options"), [(40, {"variance": 0.9}), (300, {"components": 4}), (300, {"variance": 0.9})]
)
def test_class_pca(gpu, features, options, dtype, rng):
    x = np.clip(rng.standard_normal((1500, features)) * 40 * np.arange(1, features + 1) ** -0.5 + 100, 0, 255)
    x, labels = x.astype(dtype), rng.integers(0, 3, 1500)
    labels[labels == 2] = np.where(rng.random((labels == 2).sum()) < 0.1, 2, 0)  # a class of few
    here, there = class_pca(x, labels, **options), class_pca(gpu.asarray(x), labels, **options)
    np.testing.assert_array_equal(there.ranks, here.ranks)
    np.testing.assert_allclose(there.explained_variance, here.explained_variance, rtol=1e-4, atol=1e-3)
    for one, other in zip(here, there, strict=True):
        assert largest_angle(one[:3].T, other[:3].T) < 1e-3


@pytest.mark.parametrize("n", [8, 32, 33, 200])
@pytest.mark.parametrize("batch", [1, 5])
def test_stacked_eigenvectors(gpu, n, batch, rng):
    a = rng.standard_normal((batch, 2 * n, n))
    g = np.einsum("bij,bik->bjk", a, a)
    with gpu.session():
        results = [leading_stack(gpu.xp, gpu.asarray(g), n)]
        if found := cusolver.syev_batched(gpu.asarray(g)):
            results.append((found[0][:, ::-1], found[1][:, :, ::-1]))
        for values, vectors in results:
            theta, v = gpu.to_host(values), gpu.to_host(vectors)
            np.testing.assert_allclose(theta, np.linalg.eigvalsh(g)[:, ::-1], rtol=1e-9)
            np.testing.assert_allclose(g @ v, v * theta[:, None, :], atol=1e-9 * theta.max())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", list(adversarial(9, 9)))
def test_hard_matrices(gpu, name, dtype):
    for m, n in ((120, 30), (30, 120), (20, 30)):
        a = adversarial(m, n)[name].astype(dtype)
        found = svd(gpu.asarray(a), 7)
        host = {name: gpu.to_host(getattr(found, name)) for name in ("u", "s", "vt")}
        check_triples(a, replace(found, **host), 7)


@pytest.mark.parametrize(("method", "k"), [("auto", 5), ("auto", 100), ("gesvda", 20), ("gram", 300), ("gesvd", 3)])
def test_stacks(gpu, method, k, rng):
    stack = (rng.standard_normal((4, 900, 300)) * np.arange(1, 301) ** -0.7).astype("float32")
    found = svd(gpu.asarray(stack), k, method=method)
    np.testing.assert_allclose(
        gpu.to_host(found.s), np.linalg.svd(stack, compute_uv=False)[:, :k], rtol=1e-3, atol=1e-4 * np.abs(stack).max()
    )


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_patches(gpu, dtype, rng):
    images, labels = rng.integers(0, 256, (200, 3, 9, 7)).astype(dtype), rng.integers(0, 2, 200)
    here = PatchDensities(get_backend("numpy"), 3, 1).update(images, labels)
    there = PatchDensities(gpu, 3, 1).update(gpu.asarray(images), labels)
    for label in (0, 1):
        for one, other in zip(here.density(label), there.density(label), strict=True):
            np.testing.assert_allclose(other, one, rtol=2e-6, atol=1e-6 * np.abs(one).max())
    assert there.components(variance=0.9).ranks.tolist() == here.components(variance=0.9).ranks.tolist()


@pytest.mark.parametrize("method", ["gesvdj", "gesvda", "gram", "gesvd"])
def test_every_route_over_a_stack(gpu, method):
    shape = (10, 30, 20) if method == "gesvdj" else (10, 300, 20)
    stack = np.random.default_rng(0).standard_normal(shape).astype("float32")
    found = svd(stack, 5, method=method, device=gpu)
    np.testing.assert_allclose(gpu.to_host(found.s), np.linalg.svd(stack, compute_uv=False)[:, :5], rtol=1e-4)
