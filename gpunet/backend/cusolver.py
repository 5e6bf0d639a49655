"""cuSOLVER's batched decompositions that CuPy has no function for, or not with the arguments that matter.

cupy is imported inside the functions: this module loads anywhere. Written from cuSOLVER's documentation and the
source of CuPy 14.2's wrappers (cupyx/_cusolver.pyx, cupy/linalg); not yet run on a GPU.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

from gpunet.errors import InputError
from gpunet.interrupts import contextmanager, turns

LARGEST = 2**31 - 1  # n · lda · batch of syevBatched
VERSIONS = {13: 12, 12: 11}  # of cuSOLVER, by CUDA's
_POINTER, _LONG, _INT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int

_turns = turns()
_inside: dict[object, int] = {}  # for each in `full_float32`, what the first one found: threads have one setting


@contextmanager
def full_float32(xp: Any) -> Iterator[None]:
    """Products of float32 are of float32 numbers in here, also where CUPY_TF32=1 lets CuPy cut them to TF32."""
    if getattr(xp, "__name__", "") != "cupy":
        yield
        return
    from cupy import _core  # type: ignore[import-not-found, unused-ignore]

    us = object()
    try:
        with _turns:
            _inside[us] = [*_inside.values(), _core.get_compute_type("float32")][0]
            _core.set_compute_type("float32", _core._routines_linalg.COMPUTE_TYPE_DEFAULT)
        yield
    finally:
        with _turns:
            if us in _inside:
                first = _inside[us]
                del _inside[us]
                if not _inside:  # the last to leave puts back what the first one found
                    _core.set_compute_type("float32", first)


def syev_batched(a: Any) -> tuple[Any, Any] | None:
    """Eigenvalues (B, n), ascending, and vectors (B, n, n) of symmetric a (B, n, n), float32 or float64.

    None where this cuSOLVER has no cusolverDnXsyevBatched (it came with 11.7.1, CUDA 12.6 U2), or the stack is too
    large for it. A matrix that did not converge gets NaN.
    """
    batch, n = a.shape[:2]
    library = _library()
    if library is None or batch * n * n > LARGEST:
        return None
    import cupy
    import numpy as np
    from cupy.cuda import device, runtime
    from cupy_backends.cuda.libs import cublas, cusolver  # type: ignore[import-not-found, unused-ignore]

    kind = {"float32": runtime.CUDA_R_32F, "float64": runtime.CUDA_R_64F}[a.dtype.name]
    v = cupy.array(a, order="C", copy=True)  # symmetric: row- and column-major are the same
    w = cupy.empty((batch, n), a.dtype)
    info = cupy.empty(batch, np.int32)
    handle = device.get_cusolver_handle()
    cusolver.setStream(handle, cupy.cuda.get_current_stream().ptr)
    params = cusolver.createParams()
    try:
        common = (
            handle, params, cusolver.CUSOLVER_EIG_MODE_VECTOR, cublas.CUBLAS_FILL_MODE_LOWER, n,
            kind, v.data.ptr, n, kind, w.data.ptr, kind,
        )  # fmt: skip
        sizes = ctypes.c_size_t(), ctypes.c_size_t()
        _check(library.cusolverDnXsyevBatched_bufferSize(*common, *map(ctypes.byref, sizes), batch))
        on_gpu, beside = cupy.empty(max(1, sizes[0].value), np.uint8), np.empty(max(1, sizes[1].value), np.uint8)
        _check(
            library.cusolverDnXsyevBatched(
                *common, on_gpu.data.ptr, sizes[0].value, beside.ctypes.data, sizes[1].value, info.data.ptr, batch
            )
        )
        w = cupy.where((info == 0)[:, None], w, cupy.nan)
        cupy.cuda.get_current_stream().synchronize()  # the work space on the host is read until then
    finally:
        cusolver.destroyParams(params)
    return w, v.transpose(0, 2, 1)  # vectors are the columns of column-major matrices


@cache
def _library() -> Any:
    """cuSOLVER as CuPy has loaded it, with the two functions declared; None where it lacks them.

    Of CuPy's own version, never of another that may be installed beside it: the handle that CuPy made goes into it.
    """
    from cupy.cuda import runtime
    from cupy_backends.cuda.libs import cusolver  # noqa: F401

    version = VERSIONS.get(runtime.runtimeGetVersion() // 1000)
    windows = sys.platform == "win32"
    try:
        library = ctypes.CDLL(f"cusolver64_{version}.dll" if windows else f"libcusolver.so.{version}")
        size, solve = library.cusolverDnXsyevBatched_bufferSize, library.cusolverDnXsyevBatched
    except (OSError, AttributeError):
        return None
    common: list[Any] = [_POINTER, _POINTER, _INT, _INT, _LONG, _INT, _POINTER, _LONG, _INT, _POINTER, _INT]
    size.argtypes = [*common, _POINTER, _POINTER, _LONG]
    solve.argtypes = [*common, _POINTER, ctypes.c_size_t, _POINTER, ctypes.c_size_t, _POINTER, _LONG]
    size.restype = solve.restype = _INT
    return library


def _check(status: int) -> None:
    if status:
        raise RuntimeError(f"cusolverDnXsyevBatched returned status {status}: see cusolverStatus_t")


def gesvda(a: Any, rank: int) -> tuple[Any, Any, Any]:
    """u (B, m, rank), s (B, rank), v (B, n, rank) of a stack of tall matrices (B, m, n), m ≥ n.

    gesvdaStridedBatched approximates: it works on the Gram matrix inside, and the caller verifies. CuPy's wrapper
    of it always computes min(m, n) triples, takes ‖a − u s vᵀ‖ back to the host, and does not look at info.
    """
    if a.shape[1] < a.shape[2]:
        raise InputError(f"gesvdaStridedBatched takes tall matrices, got {a.shape[1]}×{a.shape[2]}: transpose them")
    import cupy
    import numpy as np
    from cupy.cuda import device
    from cupy_backends.cuda.libs import cusolver

    letter = {"float32": "s", "float64": "d"}[a.dtype.name]
    solver = getattr(cusolver, f"{letter}gesvdaStridedBatched")
    size = getattr(cusolver, f"{letter}gesvdaStridedBatched_bufferSize")
    batch, m, n = a.shape
    columns = cupy.ascontiguousarray(a.transpose(0, 2, 1))  # column-major (m, n), as cuSOLVER wants it
    u = cupy.empty((batch, rank, m), a.dtype)
    v = cupy.empty((batch, rank, n), a.dtype)
    s = cupy.empty((batch, rank), a.dtype)
    info = cupy.empty(batch, np.int32)
    common = (
        device.get_cusolver_handle(), cusolver.CUSOLVER_EIG_MODE_VECTOR, rank, m, n,
        columns.data.ptr, m, m * n, s.data.ptr, rank, u.data.ptr, m, rank * m, v.data.ptr, n, rank * n,
    )  # fmt: skip
    work = cupy.empty(size(*common, batch), a.dtype)
    solver(*common, work.data.ptr, work.size, info.data.ptr, 0, batch)  # 0: no residual norms on the host
    # A matrix that did not converge carries info > 0: its triples are made to fail the caller's verification.
    s = cupy.where((info == 0)[:, None], s, cupy.nan)
    return u.transpose(0, 2, 1), s, v.transpose(0, 2, 1)
