"""Eigenvectors of stacks and singular values on a GPU, every route against matrices that are hard."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gpunet.errors import ConvergenceError, InputError
from gpunet.linalg import svd
from gpunet.linalg.stacked import CUDA_METHODS, filtered_stack, leading_stack
from tests.linalg.far import Far, far  # noqa: F401 (a fixture)
from tests.linalg.matrices import SHAPES, adversarial, check_triples, with_spectrum

pytestmark = pytest.mark.usefixtures("far")


# -- eigenvectors of stacks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 5, 10])
def test_iteration_on_stacks(k, far, rng):  # noqa: F811
    n = 300
    a = [rng.standard_normal((900, n)) * np.arange(1, n + 1) ** -p for p in (0.3, 1.0, 2.0)]
    stack = np.stack([each.T @ each for each in a])
    values, vectors = (each.get() for each in filtered_stack(far.xp, Far(stack), k, 1e-9))
    for g, theta, v in zip(stack, values, vectors, strict=True):
        np.testing.assert_allclose(theta, np.linalg.eigvalsh(g)[::-1][:k], rtol=1e-12, atol=1e-14 * theta[0])
        assert np.linalg.norm(g @ v - v * theta, axis=0).max() <= 1.1e-9 * theta[-1]
        np.testing.assert_allclose(v.T @ v, np.eye(k), atol=1e-12)


@pytest.mark.parametrize("rank", [0, 1, 3, 6])
def test_iteration_says_so_where_the_rank_is_below_k(rank, far, rng):  # noqa: F811
    """Directions that are lost become zero columns: they must never be taken for eigenvectors."""
    a = rng.standard_normal((rank, 300))
    stack = np.stack([a.T @ a, np.eye(300)])
    values, vectors = (each.get() for each in leading_stack(far.xp, Far(stack), 6))
    for g, theta, v in zip(stack, values, vectors, strict=True):
        np.testing.assert_allclose(v.T @ v, np.eye(6), atol=1e-10)
        np.testing.assert_allclose(g @ v, v * theta, atol=1e-9 * (1 + theta[0]))
        np.testing.assert_allclose(theta, np.linalg.eigvalsh(g)[::-1][:6], atol=1e-9 * (1 + theta[0]))


# -- SVD ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("method", CUDA_METHODS)
@pytest.mark.parametrize("name", list(adversarial(9, 9)))
def test_right_or_refused(name, method, dtype, rng):
    for m, n in ((30, 20), (20, 30)) if method == "gesvdj" else SHAPES:
        a = adversarial(m, n)[name].astype(dtype)
        for k in (7, min(m, n)):
            if method == "gesvda" and m < n:
                a = np.ascontiguousarray(a.T)
            try:
                found = svd(Far(a), k, method=method)
            except ConvergenceError as error:
                refusal = str(error)
            else:
                refusal = ""
            assert not refusal or (method == "gram" and "gram: residual" in refusal), refusal
            if refusal:
                continue
            assert isinstance(found.u, Far)
            host = replace(found, u=found.u.get(), s=found.s.get(), vt=found.vt.get())
            assert host.u.dtype == host.s.dtype == host.vt.dtype == dtype
            check_triples(a, host, k)


@pytest.mark.parametrize("flip", [False, True])
def test_small_singular_values_by_the_gram(flip, rng):
    """σ_k/σ₁ = 1e-5 in float32: X v is turned into u by QR, no need for gesvd."""
    a = with_spectrum(rng, 900, 40, np.logspace(0, -5, 40)).astype("float32")
    found = svd(Far(a.T if flip else a), 40)
    assert found.route == "gram"
    host = replace(found, u=found.u.get(), s=found.s.get(), vt=found.vt.get())
    check_triples(a.T if flip else a, host, 40)


def test_few_triples_of_a_stack_by_iteration(rng):
    stack = (rng.standard_normal((4, 900, 300)) * np.arange(1, 301) ** -0.7).astype("float32")
    found = svd(Far(stack), 5, compute="right")
    assert (found.route, found.u) == ("gram", None)
    assert found.s.shape == (4, 5)
    np.testing.assert_allclose(found.s.get(), np.linalg.svd(stack, compute_uv=False)[:, :5], rtol=1e-5)


def test_only_what_fails_in_a_stack_goes_on(rng):
    stack = rng.standard_normal((4, 120, 40))
    stack[2] = adversarial(120, 40)["graded"]
    found = svd(Far(stack), 30)
    assert found.route == "gram+gesvd"
    assert found.rejected[0].startswith("gram: residual")
    for i in range(4):
        host = replace(found, u=found.u[i].get(), s=found.s[i].get(), vt=found.vt[i].get())
        check_triples(stack[i], host, 30)
    assert max(found.residual, found.orthogonality) <= found.tol
    with pytest.raises(ConvergenceError, match="matrix 2 of 4, 120×40"):
        svd(Far(stack), 30, method="gram")


def test_bytes_and_a_singular_value_beyond_the_dtype(rng):
    a = rng.integers(0, 256, (300, 40), dtype=np.uint8)
    np.testing.assert_allclose(svd(Far(a), 3).s.get(), svd(a, 3).s, rtol=2e-6)
    with pytest.raises(InputError, match="a singular value of 1×12 exceeds the range of float32"):
        svd(Far(np.full((1, 12), 1e38, "float32")), method="gram")


def test_the_matrix_is_not_read_back(rng):
    a = Far(rng.standard_normal((4000, 50)).astype("float32"))
    Far.reads = 0
    svd(a, 5)
    assert Far.reads < 2000
