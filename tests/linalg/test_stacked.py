"""The routes that a GPU shares, on NumPy and on array-api-strict, which refuses what CuPy may not have."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest

from gpunet.backend import cusolver, get_backend
from gpunet.errors import ConvergenceError, InputError
from gpunet.linalg import device, stacked, svd
from gpunet.linalg.matrix import result_dtype
from gpunet.linalg.verify import tolerance
from tests.linalg.matrices import adversarial, truth

array_api_strict = pytest.importorskip("array_api_strict")


class StandIn:
    """A backend that says it is a GPU and computes with array-api-strict."""

    name, xp = "cuda:0", array_api_strict

    def asarray(self, host, dtype=None):
        return array_api_strict.asarray(host, dtype=dtype)

    def to_host(self, array):
        return np.asarray(array)

    def session(self):
        return nullcontext()

    def synchronize(self):
        pass


@pytest.fixture
def gpu(monkeypatch):
    """get_backend("cuda") that gives the stand-in, whose cuSOLVER is NumPy's svd."""
    monkeypatch.setattr(device, "get_backend", lambda name: StandIn() if "cuda" in name else get_backend(name))

    def gesvda(a, rank):
        u, s, vt = np.linalg.svd(np.asarray(a), full_matrices=False)
        return tuple(array_api_strict.asarray(x[..., :rank]) for x in (u, s, np.swapaxes(vt, 1, 2)))

    monkeypatch.setattr(cusolver, "gesvda", gesvda)


@pytest.mark.parametrize("xp", [np, array_api_strict], ids=["numpy", "strict"])
@pytest.mark.parametrize("route", ["full", "gram"])
@pytest.mark.parametrize("shape", [(3, 40, 12), (3, 12, 40), (1, 9, 9), (2, 1, 5)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
def test_stack(xp, route, shape, dtype, rng):
    host = (40 * rng.standard_normal(shape)).astype(np.int16).astype(dtype)
    k = min(shape[1:]) // 2 + 1
    u, s, vt, errors = (np.asarray(x) for x in stacked.solve(xp, xp.asarray(host), k, route, result_dtype(dtype)))
    assert u.dtype == (np.float64 if dtype == "float64" else np.float32)
    assert (errors < tolerance(u.dtype, min(shape[1:]), k)).all()
    for i in range(shape[0]):
        exact = truth(host[i])
        np.testing.assert_allclose(s[i], exact[:k], atol=1e-6 * exact[0])
        a = host[i].astype(float)
        np.testing.assert_allclose(a @ vt[i].T, u[i] * s[i], atol=1e-5 * exact[0])


def test_each_matrix_has_its_own_scale():
    stack = np.stack([adversarial(20, 12)["plain"] * scale for scale in (1e-30, 1.0, 1e30)]).astype("float32")
    _, s, _, errors = stacked.solve(np, stack, 4, "gram", stack.dtype)
    assert (errors < 1e-4).all()
    np.testing.assert_allclose(s[0] * 1e30, s[1], rtol=1e-5)
    np.testing.assert_allclose(s[2] / 1e30, s[1], rtol=1e-5)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_a_stack_with_an_infinity_is_refused(dtype, bad, rng):
    """LAPACK's gesdd does not come back from some of them."""
    a = rng.standard_normal((3, 9, 4)).astype(dtype)
    a[2, 4, 1] = bad
    with pytest.raises(InputError, match=r"matrix 2 of the stack holds -?(inf|nan) at \[4, 1\]"):
        svd(a)


def test_gpu_takes_the_route_for_the_shape(gpu, rng):
    assert svd(rng.standard_normal((5, 20, 30)), device="cuda").route == "gesvdj"
    assert svd(rng.standard_normal((5, 200, 20)), 3, device="cuda").route == "gesvda"
    one = svd(rng.standard_normal((200, 60)), 3, device="cuda")
    assert one.route == "gram"
    assert one.u.shape == (200, 3)
    assert isinstance(one.u, type(array_api_strict.zeros(1)))


def test_gpu_falls_back_to_gesvd(gpu):
    found = svd(adversarial(120, 40)["graded"], 30, device="cuda")
    assert found.route == "gesvd"
    assert found.rejected[0].startswith("gram: residual")
    with pytest.raises(ConvergenceError, match=r"matrix 0 of 1, 120×40 \(k=30, cuda:0\)"):
        svd(adversarial(120, 40)["graded"], 30, device="cuda", method="gram")


def test_gpu_does_not_trust_squares_with_a_value_that_they_lose():
    """Columns of size 1, 1e-9 and 1e-12 have no residual whichever comes second: float64 squares do not tell."""
    a = np.zeros((2, 90, 40))
    a[0, range(3), range(3)] = 1, 1e-12, 1e-9
    a[1, range(40), range(40)] = np.linspace(2, 1, 40)
    errors = stacked.solve(np, a, 2, "gram", a.dtype)[3]
    assert np.isinf(errors[0]).all()
    assert errors[1].max() < 1e-13
    assert np.isfinite(stacked.solve(np, a, 40, "gram", a.dtype)[3]).all()  # none is left out
    assert np.isfinite(stacked.solve(np, a, 2, "gram", np.dtype("float32"))[3]).all()  # far below its tolerance


@pytest.mark.parametrize("xp", [np, array_api_strict], ids=["numpy", "strict"])
def test_what_an_estimate_finds_near_the_limit_is_measured(xp, rng):
    """An error of which the signs tell too much: all of it lies along one of them."""
    k = 33
    limit, w = tolerance("float64", k, k), stacked.probes(k)[0][:, 0]
    u = np.eye(60, k) @ (np.eye(k) + 0.35 * limit * np.outer(w, w) / k)
    s, v = np.ones((1, k)), np.eye(k)[None]
    x = stacked.Stack(xp, xp.asarray(np.eye(60, k)[None]), np.dtype(np.float64), 0)
    loss = stacked._measure(x, *(xp.asarray(each) for each in (u[None], s, v)), limit)[0][0, 1]
    np.testing.assert_allclose(loss, np.linalg.norm(u.T @ u - np.eye(k)), rtol=1e-2)
    assert loss < limit < stacked._estimated(x, *map(xp.asarray, (u[None], s, v)), *stacked.probes(k))[0][0, 1]


def test_values_that_vanish_beside_large_ones_raise_no_warning():
    with np.errstate(all="raise"):
        assert stacked._lost(np.array([[1e24, 0.0, 0.0], [0.0, 0.0, 0.0]]), 1e-13).tolist() == [True, False]


def test_gpu_refuses_what_it_does_not_know(gpu, rng):
    with pytest.raises(InputError, match="unknown method 'randomized' on a GPU"):
        svd(rng.standard_normal((9, 9)), device="cuda", method="randomized")
    bad = rng.standard_normal((2, 9, 8))
    bad[1, 2, 3] = np.nan
    with pytest.raises(InputError, match=r"matrix 1 of the stack holds nan at \[2, 3\]"):
        svd(bad, device="cuda")


def test_limits_of_cusolver_are_checked_before_cupy_is_needed(gpu):
    with pytest.raises(InputError, match="up to 32×32, got 4×33"):
        svd(np.ones((2, 4, 33)), method="gesvdj", device="cuda")


def test_gesvda_is_for_tall_matrices():
    with pytest.raises(InputError, match="tall matrices, got 4×33"):
        cusolver.gesvda(np.ones((2, 4, 33)), 2)
