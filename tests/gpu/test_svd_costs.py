"""What an SVD of one matrix costs on a GPU beside its arithmetic, and when it iterates; counted on the pretend GPU."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import gpunet as gn
from gpunet.linalg import stacked
from gpunet.linalg.stacked import gpu_iterates, gpu_width, inner, largest, product, squares
from tests.linalg.launches import watched
from tests.linalg.matrices import check_triples


def falling(m, n, power=0.7, dtype="float32"):
    """Noise whose columns fall in size."""
    rng = np.random.default_rng(m + n)
    return (rng.standard_normal((m, n)) * np.arange(1.0, n + 1) ** -power).astype(dtype)


def found_there(gpu, a, k):
    backend = gpu.backend()
    found = gn.svd(backend.asarray(a), k, device=backend)
    host = replace(found, **{name: backend.to_host(getattr(found, name)) for name in ("u", "s", "vt")})
    check_triples(a, host, k)
    return found


@pytest.fixture
def asked(gpu, monkeypatch):
    if gpu.real:
        pytest.skip("CuPy does not count what it launches")
    return watched(monkeypatch)


@pytest.mark.parametrize("shape", [(3000, 300), (300, 3000)], ids=str)
def test_one_matrix_is_multiplied_as_it_lies_and_reduced_by_many_blocks(gpu, asked, shape):
    a = falling(*shape)
    backend = gpu.backend()
    gn.svd(backend.asarray(a), 40, device=backend)
    assert asked.copied < a.nbytes / 4  # the small matrices' eigenvectors at most
    assert asked.narrow == []


@pytest.mark.parametrize("scale", [1, 1e-20])
def test_read_backs_and_kinds_of_kernels(gpu, asked, scale):
    """Read back are the largest element, the eigenvalues, and what the triples measure."""
    backend = gpu.backend()
    x = backend.asarray(falling(3000, 300) * np.float32(scale))
    del asked.reads[:]
    assert gn.svd(x, 40, device=backend).route == "gram"
    assert len(asked.reads) == 3
    assert len(asked.kinds) <= 27
    assert asked.launches <= 58  # four of them copies, of what the certificate will be asked of


def test_an_iteration_reads_back_once_a_round(gpu, asked):
    backend = gpu.backend()
    x = backend.asarray(falling(1300, 1200))
    del asked.reads[:]
    assert gn.svd(x, 40, device=backend).route == "gram"
    assert asked.largest_eigh == gpu_width(1200, 40) == 120
    assert 4 <= len(asked.reads) <= 3 + 5
    assert len(asked.kinds) <= 36


@pytest.mark.parametrize(
    ("n", "k", "batch", "iterates"),
    [
        (4096, 256, 1, True), (4096, 10, 1, True), (2048, 100, 1, True), (784, 10, 1, True), (784, 10, 10, True),
        (784, 100, 1, False), (784, 784, 1, False), (4096, 2000, 1, False), (100, 5, 1, False), (32, 1, 1, False),
    ],
)  # fmt: skip
def test_when_it_iterates(n, k, batch, iterates):
    assert gpu_iterates(n, k, batch) == iterates


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["falling", "steep", "noise", "positive", "repeated", "low rank"])
def test_where_it_iterates(gpu, kind, dtype):
    """By iteration or, where that does not get there, by eigh: verified either way."""
    rng, n = np.random.default_rng(3), 1100
    a = {
        "falling": lambda: falling(1200, n), "steep": lambda: falling(1200, n, 2), "noise": lambda: falling(1200, n, 0),
        "positive": lambda: rng.random((1200, n)), "repeated": lambda: np.eye(1200, n) * 3,
        "low rank": lambda: rng.standard_normal((1200, 20)) @ rng.standard_normal((20, n)),
    }[kind]().astype(dtype)  # fmt: skip
    assert gpu_iterates(n, 30)
    found = found_there(gpu, a, 30)
    assert max(found.residual, found.orthogonality) <= found.tol


def test_an_iteration_that_does_not_get_there_leaves_it_to_eigh(gpu, asked):
    """Singular values that fall below what squares resolve beside the first."""
    a = falling(1300, 1200, 0)
    a[:, 0] *= 1e6
    found_there(gpu, a, 40)
    assert asked.largest_eigh == 1200


def test_chunks_are_a_share_of_what_is_free(gpu, monkeypatch):
    backend = gpu.backend()
    if not gpu.real:
        assert stacked._chunk_bytes(backend.xp) == (2 << 30) // 8
    assert stacked._chunk_bytes(np) == 48 << 20
    a, whole = falling(900, 60), gn.svd(backend.asarray(falling(900, 60)), 9, device=backend)
    for name in ("CHUNK_BYTES", "GPU_CHUNK_BYTES"):
        monkeypatch.setattr(stacked, name, 8 * 60 * 100)
    for shape in (a, a.T):
        parts = gn.svd(backend.asarray(np.ascontiguousarray(shape)), 9, device=backend)
        np.testing.assert_allclose(backend.to_host(parts.s), backend.to_host(whole.s), rtol=1e-5)
        assert parts.residual <= parts.tol


@pytest.mark.parametrize("batch", [1, 3])
def test_products_and_sums_are_those_of_numpy(gpu, batch, rng):
    a, b = rng.standard_normal((batch, 70, 20)), rng.standard_normal((batch, 20, 30))
    a[0, 3, 4] = -50
    backend = gpu.backend()
    with backend.session():
        there, other = backend.asarray(a), backend.asarray(b)
        pairs = [
            (product(backend.xp, there, other), a @ b), (inner(backend.xp, there, there), a.swapaxes(1, 2) @ a),
            (squares(backend.xp, there), (a * a).sum(axis=(1, 2))),
            (largest(backend.xp, there), abs(a).max(axis=(1, 2))),
        ]  # fmt: skip
        for found, right in pairs:
            np.testing.assert_allclose(backend.to_host(found), right, rtol=1e-12, atol=1e-12)
            assert found.shape == right.shape
    np.testing.assert_array_equal(inner(np, a, a), np.matmul(a.transpose(0, 2, 1), a))
    np.testing.assert_array_equal(squares(np, a), np.sum(a * a, axis=(1, 2)))
