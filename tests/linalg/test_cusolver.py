"""How cuSOLVER's functions are called: against functions of the same signatures that compute with NumPy.

This shows that strides, leading dimensions and layouts are what the documentation says; not that cuSOLVER agrees.
"""

from __future__ import annotations

import ctypes
import sys
import types

import numpy as np
import pytest

from gpunet.backend import cusolver
from gpunet.errors import InputError

HANDLE, PARAMS, VECTOR, LOWER = 11, 12, 1, 0
BYTES = 640


def at(pointer, shape, dtype):
    """The array at an address."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(pointer), dtype).reshape(shape)


class Array(np.ndarray):
    """As cupy.ndarray shows its address."""

    @property
    def data(self):
        return types.SimpleNamespace(ptr=self.ctypes.data)


@pytest.fixture
def cupy(monkeypatch):
    """Modules that look like CuPy's, as far as this file's subject uses them."""

    def view(function):
        return lambda *args, **kwargs: np.asarray(function(*args, **kwargs)).view(Array)

    cp = types.ModuleType("cupy")
    for name in ("array", "empty", "where", "ascontiguousarray"):
        setattr(cp, name, view(getattr(np, name)))
    cp.nan = np.nan
    stream = types.SimpleNamespace(ptr=77, synchronize=lambda: seen.append("synchronize"))
    seen = []
    cp.cuda = types.ModuleType("cupy.cuda")
    cp.cuda.get_current_stream = lambda: stream
    cp.cuda.device = types.SimpleNamespace(get_cusolver_handle=lambda: HANDLE)
    cp.cuda.runtime = types.SimpleNamespace(CUDA_R_32F=0, CUDA_R_64F=1)
    libs = types.ModuleType("cupy_backends.cuda.libs")
    libs.cublas = types.SimpleNamespace(CUBLAS_FILL_MODE_LOWER=LOWER)
    libs.cusolver = types.SimpleNamespace(
        CUSOLVER_EIG_MODE_VECTOR=VECTOR, createParams=lambda: PARAMS, destroyParams=seen.append,
        setStream=lambda handle, pointer: seen.append(("stream", handle, pointer)),
    )  # fmt: skip
    cp._core = types.ModuleType("cupy._core")
    for name, module in {
        "cupy": cp, "cupy.cuda": cp.cuda, "cupy_backends": types.ModuleType("a"), "cupy._core": cp._core,
        "cupy_backends.cuda": types.ModuleType("b"), "cupy_backends.cuda.libs": libs,
    }.items():  # fmt: skip
        monkeypatch.setitem(sys.modules, name, module)
    return types.SimpleNamespace(module=cp, libs=libs, seen=seen)


@pytest.fixture
def library(monkeypatch):
    """cuSOLVER's two functions by their documented signatures (column-major matrices, eigenvectors in place)."""
    state = types.SimpleNamespace(status=0, info=())

    def size(handle, params, jobz, uplo, n, kind_a, a, lda, kind_w, w, kind, on_gpu, beside, batch):
        assert (handle, params, jobz, uplo, lda, kind_a) == (HANDLE, PARAMS, VECTOR, LOWER, n, kind)
        on_gpu._obj.value, beside._obj.value = BYTES, 0
        return 0

    def solve(handle, params, jobz, uplo, n, kind_a, a, lda, kind_w, w, kind, work, bytes_, host, more, info, batch):
        assert (bytes_, more) == (BYTES, 0)
        dtype = ("float32", "float64")[kind]
        at(work, (bytes_,), "uint8")[:] = 7
        matrices, values = at(a, (batch, n, n), dtype), at(w, (batch, n), dtype)
        found = np.linalg.eigh(np.swapaxes(matrices, 1, 2))
        values[:], matrices[:] = found[0], np.swapaxes(found[1], 1, 2)
        at(info, (batch,), "int32")[:] = [*state.info, *[0] * batch][:batch]
        return state.status

    state.cusolverDnXsyevBatched_bufferSize, state.cusolverDnXsyevBatched = size, solve
    monkeypatch.setattr(cusolver, "_library", lambda: state)
    return state


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_syev_batched(cupy, library, dtype, rng):
    a = rng.standard_normal((3, 5, 5)).astype(dtype)
    a = (a + np.swapaxes(a, 1, 2)).view(Array)
    before = a.copy()
    w, v = cusolver.syev_batched(a)
    np.testing.assert_array_equal(a, before)
    assert w.dtype == v.dtype == dtype
    np.testing.assert_allclose(a @ v, v * w[:, None, :], atol=1e-5)
    assert (np.diff(w, axis=1) >= 0).all()
    assert cupy.seen == [("stream", HANDLE, 77), "synchronize", PARAMS]


def test_a_matrix_that_did_not_converge_has_no_eigenvalues(cupy, library, rng):
    library.info = [0, 4]
    w, _ = cusolver.syev_batched(np.stack([np.eye(4), np.eye(4)]).view(Array))
    assert np.isfinite(w[0]).all()
    assert np.isnan(w[1]).all()
    library.status = 3
    with pytest.raises(RuntimeError, match="cusolverDnXsyevBatched returned status 3"):
        cusolver.syev_batched(np.eye(4)[None].view(Array))
    assert cupy.seen[-1] == PARAMS


def test_without_the_function_or_beyond_its_limit_there_is_none(cupy, library, monkeypatch):
    monkeypatch.setattr(cusolver, "LARGEST", 31)
    assert cusolver.syev_batched(np.stack([np.eye(4), np.eye(4)]).view(Array)) is None
    monkeypatch.setattr(cusolver, "_library", lambda: None)
    assert cusolver.syev_batched(np.eye(4)[None].view(Array)) is None


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rank", [1, 3, 4])
def test_gesvda(cupy, dtype, rank, rng):
    def size(handle, jobz, rank, m, n, a, lda, step_a, s, step_s, u, ldu, step_u, v, ldv, step_v, batch):
        assert (handle, jobz, lda, step_a, step_s) == (HANDLE, VECTOR, m, m * n, rank)
        assert (ldu, step_u, ldv, step_v) == (m, rank * m, n, rank * n)
        return 33

    def solve(
        handle, jobz, rank, m, n, a, lda, step_a, s, step_s, u, ldu, step_u, v, ldv, step_v, work, lwork, info, norms,
        batch,
    ):  # fmt: skip
        assert (lwork, norms) == (33, 0)
        found = np.linalg.svd(np.swapaxes(at(a, (batch, n, m), dtype), 1, 2), full_matrices=False)
        at(u, (batch, rank, m), dtype)[:] = np.swapaxes(found[0], 1, 2)[:, :rank]
        at(s, (batch, rank), dtype)[:] = found[1][:, :rank]
        at(v, (batch, rank, n), dtype)[:] = found[2][:, :rank]
        at(info, (batch,), "int32")[:] = [0, 1]

    letter = {"float32": "s", "float64": "d"}[dtype]
    setattr(cupy.libs.cusolver, f"{letter}gesvdaStridedBatched", solve)
    setattr(cupy.libs.cusolver, f"{letter}gesvdaStridedBatched_bufferSize", size)
    a = rng.standard_normal((2, 9, 4)).astype(dtype).view(Array)
    u, s, v = cusolver.gesvda(a, rank)
    assert np.isnan(s[1]).all()  # which fails verification
    exact = np.linalg.svd(a[0], compute_uv=False)[:rank]
    np.testing.assert_allclose(s[0], exact, rtol=1e-5)
    np.testing.assert_allclose(a @ v, u * np.linalg.norm(a @ v, axis=1)[:, None, :], atol=1e-5)
    with pytest.raises(InputError, match="tall matrices, got 4×9"):
        cusolver.gesvda(np.swapaxes(a, 1, 2), 1)


@pytest.mark.parametrize(("cuda", "name"), [(13020, "libcusolver.so.12"), (12080, "libcusolver.so.11"), (14000, None)])
@pytest.mark.skipif(sys.platform == "win32", reason="names as on Linux")
def test_the_library_is_that_of_cupys_cuda(cupy, monkeypatch, cuda, name):
    """Both may be installed, and the handle is CuPy's: a call with it into the other one would crash."""
    cupy.module.cuda.runtime.runtimeGetVersion = lambda: cuda
    asked = []

    def load(path):
        asked.append(path)
        if path not in ("libcusolver.so.11", "libcusolver.so.12"):
            raise OSError(f"{path}: cannot open shared object file")
        functions = ("cusolverDnXsyevBatched_bufferSize", "cusolverDnXsyevBatched")
        return types.SimpleNamespace(**{each: types.SimpleNamespace() for each in functions})

    monkeypatch.setattr(cusolver.ctypes, "CDLL", load)
    found = cusolver._library.__wrapped__()
    assert (found is None) is (name is None)
    assert len(asked) == 1
    if name:
        assert asked == [name]
        assert len(found.cusolverDnXsyevBatched.argtypes) == 17
        assert len(found.cusolverDnXsyevBatched_bufferSize.argtypes) == 14


def test_products_are_of_float32_whatever_the_environment_says(cupy):
    kind = {"float32": 7}  # TF32
    core = cupy.module._core
    core.get_compute_type, core.set_compute_type = kind.__getitem__, kind.__setitem__
    core._routines_linalg = types.SimpleNamespace(COMPUTE_TYPE_DEFAULT=1)
    with cusolver.full_float32(cupy.module):
        assert kind == {"float32": 1}
    assert kind == {"float32": 7}
    one, other = (cusolver.full_float32(cupy.module) for _ in range(2))  # two threads: the first in is the first out
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    assert kind == {"float32": 1}
    other.__exit__(None, None, None)
    assert kind == {"float32": 7}
    with cusolver.full_float32(np):
        pass
