"""Random matrices by hypothesis: shapes, dtypes, scales, ranks and routes in any combination."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpunet.errors import ConvergenceError, InputError
from gpunet.linalg import svd
from tests.linalg.matrices import check_triples

QUIET = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@st.composite
def problems(draw):
    m, n = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["normal", "low rank", "integers", "sparse", "graded", "offset"]))
    a = rng.standard_normal((m, n))
    if kind == "low rank":
        a = a[:, :1] @ a[:1]
    elif kind == "integers":
        a = np.round(3 * a)
    elif kind == "sparse":
        a *= rng.random((m, n)) < 0.1
    elif kind == "graded":
        a *= np.logspace(0, -draw(st.integers(1, 12)), n)
    elif kind == "offset":
        a += 10.0 ** draw(st.integers(0, 8))
    a *= 10.0 ** draw(st.integers(-30, 30))
    dtype = draw(st.sampled_from(["float32", "float64"]))
    method = draw(st.sampled_from(["auto", "auto", "full", "gram", "qr"]))
    return a.astype(dtype), draw(st.integers(1, min(m, n))), method


def check(problem):
    a, k, method = problem
    try:
        found = svd(a, k, method=method)
    except ConvergenceError:
        assert method == "gram"
        return
    except InputError as error:
        refused = str(error)
    else:
        check_triples(a, found, k, slack=3)
        return
    # Right only where σ₁ really is more than the dtype can hold.
    assert "exceeds the range" in refused
    assert np.linalg.svd(a.astype("float64") / np.finfo(a.dtype).max, compute_uv=False)[0] > 1 - 1e-5


@pytest.mark.slow
@settings(max_examples=1000, **QUIET)
@given(problems())
def test_random_matrices(problem):
    check(problem)


@pytest.mark.slow
@settings(max_examples=10_000, **QUIET)
@given(problems())
def test_ten_thousand_random_matrices(problem):
    check(problem)


def test_a_singular_value_beyond_the_dtype_is_an_error():
    a = np.full((1, 12), 1e38, "float32")  # each element fits, the norm 3.46e38 does not
    with pytest.raises(InputError, match="a singular value of the matrix 1×12 exceeds the range of float32"):
        svd(a)
    assert svd(a.astype("float64")).s[0] == pytest.approx(12**0.5 * 1e38, rel=1e-7)


@pytest.mark.slow
@settings(max_examples=200, **QUIET)
@given(st.integers(1, 6), st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**31), st.booleans())
def test_random_stacks_agree_with_their_matrices(count, m, n, seed, single):
    stack = np.random.default_rng(seed).standard_normal((count, m, n)).astype("float32" if single else "float64")
    k = (min(m, n) + 1) // 2
    found = svd(stack, k)
    for i in range(count):
        alone = svd(stack[i], k)
        np.testing.assert_allclose(found.s[i], alone.s, rtol=0, atol=found.tol * alone.s[0])


@pytest.mark.slow
@settings(max_examples=200, **QUIET)
@given(st.integers(1, 300), st.integers(1, 20), st.integers(0, 2**31), st.sampled_from(["uint8", "int16", "bool"]))
def test_integers_are_as_good_as_their_floats(m, n, seed, dtype):
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 2 if dtype == "bool" else 256, (m, n)).astype(dtype)
    found = svd(a)
    assert found.s.dtype == np.float32
    check_triples(a, found, min(m, n))


def test_what_blas_flags_of_lanes_that_it_drops_is_no_warning(monkeypatch):
    """OpenBLAS leaves "invalid" behind at times, though all that it returns is finite (NumPy's issue 24067)."""
    module, flagged = importlib.import_module("gpunet.linalg.svd"), []

    def flags(x):
        flagged.append(np.subtract(np.inf, np.inf))
        return norm(x)

    norm = module.norm
    monkeypatch.setattr(module, "norm", flags)
    a = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    assert svd(a, 1).s[0] == pytest.approx(np.linalg.svd(a)[1][0], rel=1e-6)
    assert flagged
