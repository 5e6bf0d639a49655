"""What the door promises: shapes, signs, stacks, dtypes, memory, messages."""

from __future__ import annotations

import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import gpunet as gn
from gpunet.errors import ConvergenceError, InputError, ShapeError
from gpunet.linalg import svd
from gpunet.linalg import svd as svd_function
from gpunet.linalg.svd import METHODS
from tests.linalg.matrices import adversarial, check_triples, largest_angle, with_spectrum


def test_all_by_default_and_reconstruction(rng):
    a = rng.standard_normal((40, 25))
    found = svd(a)
    np.testing.assert_allclose(found.u * found.s @ found.vt, a, atol=1e-12)
    assert found.residual <= found.tol
    assert found.orthogonality <= found.tol


@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (4, 30, 20)])
def test_it_unpacks_as_numpys_does(shape, rng):
    a = rng.standard_normal(shape)
    u, s, vt = svd(a)
    reference = np.linalg.svd(a, full_matrices=False)
    assert [each.shape for each in (u, s, vt)] == [each.shape for each in reference]
    np.testing.assert_allclose(s, reference.S, rtol=1e-12)
    np.testing.assert_allclose(u * s[..., None, :] @ vt, a, atol=1e-12)
    u, s, vt = svd(a, 2, compute="right")
    assert u is None
    assert vt.shape == (*shape[:-2], 2, shape[-1])


@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (4, 30, 20)])
def test_no_triples(shape, rng):
    found = svd(rng.standard_normal(shape).astype("float32"), 0)
    assert found.u.shape == (*shape[:-1], 0)
    assert found.s.shape == (*shape[:-2], 0)
    assert found.vt.shape == (*shape[:-2], 0, shape[-1])
    assert found.u.dtype == np.float32


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(90, 40), (40, 90)])
def test_sign_and_repetition(shape, method, rng):
    """The largest element of the shorter vector is positive, and a second call gives the same bits."""
    a = rng.standard_normal(shape)
    one, two = (svd(a, 4, method=method) for _ in range(2))
    shorter = one.u if shape[0] <= shape[1] else one.vt.T
    assert (shorter[np.abs(shorter).argmax(axis=0), np.arange(4)] > 0).all()
    for name in ("u", "s", "vt"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    np.testing.assert_allclose(svd(-a, 4, method=method).s, one.s)


@pytest.mark.parametrize("count", [1, 10, 1000])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_stacks(count, dtype, rng):
    stack = rng.standard_normal((count, 12, 8)).astype(dtype) * 10.0 ** rng.integers(-20, 20, (count, 1, 1))
    stack = stack.astype(dtype)
    found = svd(stack, 3)
    assert found.route == "full"
    for i in (0, count // 2, count - 1):
        one = replace(found, u=found.u[i], s=found.s[i], vt=found.vt[i])
        check_triples(stack[i], one, 3)


def test_stack_of_large_matrices_with_leading_axes(rng):
    stack = rng.standard_normal((2, 3, 150, 40))
    found = svd(stack, 5)
    assert found.u.shape == (2, 3, 150, 5)
    assert found.vt.shape == (2, 3, 5, 40)
    np.testing.assert_allclose(found.s[1, 2], np.linalg.svd(stack[1, 2], compute_uv=False)[:5])


def test_a_stack_names_the_matrix_that_failed(rng):
    stack = rng.standard_normal((5, 150, 40))
    stack[3] = adversarial(150, 40)["graded"]
    easy = np.zeros((3, 150, 40))
    easy[:, range(40), range(40)] = 1
    with pytest.raises(ConvergenceError, match=r"matrix 3 of the stack of 5, 150×40"):
        svd(np.concatenate([easy, stack[3:]]), 3, method="gram", tol=1e-17)
    assert any(line.startswith("[3] gram") for line in svd(stack, 30).rejected)


@pytest.mark.parametrize("method", ["auto", "gram", "subspace", "qr", "randomized"])
def test_leading_subspace_where_there_is_a_gap(method, rng):
    a = with_spectrum(rng, 900, 300, np.concatenate([np.linspace(2, 1, 8), 0.9 * np.arange(1, 293) ** -0.5]))
    exact = np.linalg.svd(a, full_matrices=False)
    for dtype, limit in (("float64", 1e-6), ("float32", 1e-4)):
        found = svd(a.astype(dtype), 8, method=method)
        assert largest_angle(found.u, exact[0][:, :8]) < limit
        assert largest_angle(found.vt.T, exact[2][:8].T) < limit


def test_an_eigenvalue_repeated_more_often_than_k():
    found = svd(np.eye(400), 5, method="subspace")
    np.testing.assert_allclose(found.s, 1)
    check_triples(np.eye(400), found, 5)


@pytest.mark.slow
def test_uint8_is_exact_and_never_copied_as_floats():
    """30 MB of bytes would be 120 MB of float32."""
    a = np.random.default_rng(0).integers(0, 256, (100, 300_000), dtype=np.uint8)
    tracemalloc.start()
    found = svd(a, 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    results = found.u.nbytes + found.vt.nbytes
    assert peak < 64 << 20, f"{peak >> 20} MB beside {results >> 20} MB of results"
    a64 = a.astype(np.float64)
    exact = np.sqrt(np.linalg.eigvalsh(a64 @ a64.T)[::-1][:3])
    np.testing.assert_allclose(found.s, exact, rtol=2e-6)


def test_device_cpu_is_the_same(rng):
    a = rng.standard_normal((30, 20))
    np.testing.assert_array_equal(svd(a, 3, device="cpu").u, svd(a, 3).u)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("k", [100, None])
def test_the_walk_to_lapack_leads_through_seven_files(k, dtype, rng):
    """checks and backend/blas, and of linalg svd, device, matrix, solvers and verify.

    Bytes are multiplied in backend/integers; certificate keeps what the certificate will be made of.
    """
    root, seen = Path(gn.__file__).parent, set()
    a = (rng.standard_normal((2000, 200)) @ rng.standard_normal((200, 784)) * 3 + 100).clip(0, 255).astype(dtype)
    svd(a, k)  # what is made once, the signs that verify draws, is there

    def called(frame, event, arg):
        if event == "call" and (path := Path(frame.f_code.co_filename)).is_relative_to(root):
            seen.add(path.relative_to(root).as_posix())

    sys.setprofile(called)
    try:
        svd(a, k)
    finally:
        sys.setprofile(None)
    rooms = ("svd", "device", "matrix", "solvers", "verify", "certificate")
    linalg = {f"linalg/{name}.py" for name in rooms}
    engine = {"backend/integers.py"} if dtype == "uint8" else set()
    assert seen == {"checks.py", "backend/blas.py", *linalg, *engine}


def test_gesvd_where_gesdd_fails(rng, monkeypatch):
    a = rng.standard_normal((20, 20))

    def fails(*args, **kwargs):
        raise np.linalg.LinAlgError("SVD did not converge")

    monkeypatch.setattr("gpunet.linalg.solvers.np.linalg.svd", fails)
    found = svd(a, method="full")
    monkeypatch.undo()
    check_triples(a, found, 20)


def test_a_wrong_answer_is_never_returned(rng, monkeypatch):
    """cupy issue 7611: a library's SVD that returns wrong values without an error. The residual shows it."""
    real = np.linalg.svd

    def lies(x, *args, **kwargs):
        u, s, vt = real(x, *args, **kwargs)
        return u, s * np.linspace(1, 1.01, len(s)), vt

    monkeypatch.setattr("gpunet.linalg.solvers.np.linalg.svd", lies)
    with pytest.raises(ConvergenceError, match="full: residual"):
        svd(rng.standard_normal((30, 30)), method="full")


@pytest.mark.parametrize(
    ("a", "error", "words"),
    [
        (np.array([[1.0, 2.0], [np.nan, 1.0]]), InputError, r"nan at \[1, 0\].*finite"),
        (np.array([[1.0, np.inf], [2.0, 1.0]]), InputError, r"inf at \[0, 1\]"),
        (np.zeros((0, 3)), ShapeError, r"empty, shape \(0, 3\)"),
        (np.zeros(3), ShapeError, r"shape \(3,\).*\[None, :\]"),
        (np.array([[1, "x"]], object), InputError, "dtype object"),
        (np.ones((2, 2), complex), InputError, "dtype complex128"),
        (np.array([[2**53 + 2, 1]]), InputError, r"beyond 2\*\*53"),
        (np.array([[-(2**63), 1]]), InputError, r"9223372036854775808, beyond"),
        (np.full((2, 2), 1.7e308), InputError, "exceeds the range of float64"),
    ],
)
def test_inputs_that_cannot_be_used(a, error, words):
    with pytest.raises(error, match=words):
        svd(a)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_every_route_finds_what_is_not_finite(method, bad):
    a = np.random.default_rng(0).standard_normal((300, 100))
    a[271, 31] = bad
    with pytest.raises(InputError, match=r"at \[271, 31\]"):
        svd(a, 3, method=method)
    with pytest.raises(InputError, match=r"at \[31, 271\]"):
        svd(a.T, 3, method=method)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"k": 9}, r"k is 9: expected an integer from 0 to min\(m, n\) = 8"),
        ({"k": -1}, "k is -1"),
        ({"k": 2.0}, "k is 2.0"),
        ({"k": True}, "k is True"),
        ({"method": "magic"}, "unknown method 'magic' on the CPU.*randomized"),
        ({"method": "gesvdj"}, "unknown method 'gesvdj' on the CPU"),
        ({"compute": "up"}, "compute is 'up'"),
        ({"tol": 0.0}, "tol is 0.0"),
        ({"tol": float("nan")}, "tol is nan"),
    ],
)
def test_settings_that_do_not_exist(options, words):
    with pytest.raises(InputError, match=words):
        svd_function(np.ones((8, 9)), **options)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(3, 5), (60, 40), (600, 700), (700, 600), (3, 20, 30)])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_bfloat16_is_float32_that_takes_half_the_room(shape, scale, rng):
    a = (scale * rng.standard_normal(shape)).astype(ml_dtypes.bfloat16)
    for asked in ({"k": 2}, {"k": 2, "method": "gram"}, {"k": 2, "certify": True}, {}):
        found, wanted = svd(a, **asked), svd(a.astype(np.float32), **asked)
        assert found.u.dtype == found.s.dtype == np.float32
        np.testing.assert_allclose(found.s, wanted.s, rtol=1e-5)
        if len(shape) == 2:
            check_triples(a.astype(np.float64), found, found.s.size)
    bad = a.copy()
    bad[..., 1, 2] = np.nan
    with pytest.raises(InputError, match=r"nan at \[(0, )?1, 2\]|not finite|finite"):
        svd(bad, 2)


@pytest.mark.slow
def test_bfloat16_is_not_converted_as_a_whole(rng):
    a = rng.standard_normal((40_000, 200), np.float32).astype(ml_dtypes.bfloat16)
    svd(a, 3)
    tracemalloc.start()
    svd(a, 3, compute="right")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 28 << 20  # of 32 MB in float32; a chunk takes 22
