"""cuSOLVER's batched decompositions that CuPy has no function for, or not with the arguments that matter.

cupy is imported inside the functions: this module loads anywhere. Written from cuSOLVER's documentation and CuPy's
own wrappers (cupyx/cusolver.pyx); not yet run on a GPU.
"""

from __future__ import annotations

from typing import Any

from gpunet.errors import InputError

GESVDJ_LIMIT = 32


def gesvdj(a: Any) -> tuple[Any, Any, Any]:
    """u (B, m, r), s (B, r), v (B, n, r) of a stack (B, m, n), m, n ≤ 32, r = min(m, n), by Jacobi's method."""
    if max(a.shape[1:]) > GESVDJ_LIMIT:
        raise InputError(f"gesvdjBatched takes matrices up to 32×32, got {a.shape[1]}×{a.shape[2]}: use method='gram'")
    from cupyx import cusolver  # type: ignore[import-not-found, unused-ignore]

    u, s, v = cusolver.gesvdj(a, full_matrices=False, compute_uv=True)
    return u, s, v


def gesvda(a: Any, rank: int) -> tuple[Any, Any, Any]:
    """u (B, m, rank), s (B, rank), v (B, n, rank) of a stack of tall matrices (B, m, n), m ≥ n.

    gesvdaStridedBatched approximates: it works on the Gram matrix inside, and the caller verifies. CuPy's wrapper
    of it always computes min(m, n) triples; its rank argument is what this one is for.
    """
    if a.shape[1] < a.shape[2]:
        raise InputError(f"gesvdaStridedBatched takes tall matrices, got {a.shape[1]}×{a.shape[2]}: transpose them")
    import cupy
    import numpy as np
    from cupy.cuda import device
    from cupy_backends.cuda.libs import cusolver  # type: ignore[import-not-found, unused-ignore]

    letter = {"float32": "s", "float64": "d"}[a.dtype.name]
    solver = getattr(cusolver, f"{letter}gesvdaStridedBatched")
    size = getattr(cusolver, f"{letter}gesvdaStridedBatched_bufferSize")
    batch, m, n = a.shape
    columns = cupy.ascontiguousarray(a.transpose(0, 2, 1))  # column-major (m, n), as cuSOLVER wants it
    u = cupy.empty((batch, rank, m), a.dtype)
    v = cupy.empty((batch, rank, n), a.dtype)
    s = cupy.empty((batch, rank), a.dtype)
    info = cupy.empty(batch, np.int32)
    norms = np.empty(batch, np.float64)  # ‖a − u s vᵀ‖_F of each, in host memory
    common = (
        device.get_cusolver_handle(), cusolver.CUSOLVER_EIG_MODE_VECTOR, rank, m, n,
        columns.data.ptr, m, m * n, s.data.ptr, rank, u.data.ptr, m, rank * m, v.data.ptr, n, rank * n,
    )  # fmt: skip
    work = cupy.empty(size(*common, batch), a.dtype)
    solver(*common, work.data.ptr, work.size, info.data.ptr, norms.ctypes.data, batch)
    # A matrix that did not converge carries info > 0: its triples are made to fail the caller's verification.
    s = cupy.where((info == 0)[:, None], s, cupy.nan)
    return u.transpose(0, 2, 1), s, v.transpose(0, 2, 1)
