"""Routes for whole stacks of matrices, through the array API: on the CPU for small ones, on a GPU for all.

Read back to the host are the check for NaN, and how far the singular values spread. Stacks are (B, m, n); tall ones
inside. On a GPU the Gram matrices are multiplied in float64 (`device_moments` says why), so that what squaring loses
lies below √ε of float64, far below what float32 data can show.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunet.errors import InputError
from gpunet.linalg.eigen_stack import leading_stack
from gpunet.linalg.moments import EPS
from gpunet.linalg.routes import HOPE
from gpunet.linalg.verify import probes, tolerance

CHUNK_BYTES = 48 << 20  # of the long side, converted to float64
GESVDJ_LIMIT = 32
SPREAD = 1e-3  # σ_k/σ₁ below which X v is turned into u by QR: what one step corrects is ε σ₁/σ_k


def solve(xp: Any, a: Any, k: int, route: str, precision: np.dtype[Any], first: int = 0) -> tuple[Any, Any, Any, Any]:
    """The k leading triples u (B, m, k), s (B, k), vt (B, k, n) and what they measure, errors (B, 2).

    route: "gram", cuSOLVER's "gesvda", or the namespace's own svd: "full" on the CPU, and on a GPU, where CuPy takes
    gesvdjBatched for stacks up to 32×32 and gesvd, one matrix after the other, above: "gesvdj" and "gesvd".
    precision: of the results. first: the number of the first matrix in its stack, for the InputError that names the
    matrix and the place of a NaN or infinity.
    """
    dtype = getattr(xp, precision.name)
    own = xp.float64 if xp is np else dtype  # a CPU takes no longer for small ones in float64
    flipped = a.shape[1] < a.shape[2]
    x = xp.permute_dims(a, (0, 2, 1)) if flipped else a
    scale = _scale(xp, a, dtype, first)
    lost = None
    if route == "gram":
        u, s, v, values = _gram(xp, x, k, scale, own)
        lost = _lost(xp, values, tolerance(precision, x.shape[2], k)) if k < x.shape[2] else None
    elif route == "gesvda":
        from gpunet.backend import cusolver

        u, s, v = cusolver.gesvda(xp.astype(x, own) * xp.astype(scale, own), k)
    else:
        if route == "gesvdj" and x.shape[1] > GESVDJ_LIMIT:
            raise InputError(
                f"gesvdjBatched takes matrices up to 32×32, got {a.shape[1]}×{a.shape[2]}: use another method"
            )
        u, s, vt = xp.linalg.svd(xp.astype(x, own) * xp.astype(scale, own), full_matrices=False)
        u, s, v = u[:, :, :k], s[:, :k], xp.permute_dims(vt[:, :k, :], (0, 2, 1))
    signs = _signs(xp, v, own)
    u, v, s = xp.astype(u * signs, dtype), xp.astype(v * signs, dtype), xp.astype(s, dtype)
    errors = _measure(xp, x, scale, u, s, v)
    if lost is not None:
        errors = xp.where(lost[:, None], xp.inf, errors)
    with np.errstate(over="ignore"):  # infinite is told by the caller
        s = s / scale[:, :, 0]
    if flipped:
        u, v = v, u
    return u, s, xp.permute_dims(v, (0, 2, 1)), errors


def _scale(xp: Any, a: Any, dtype: Any, first: int) -> Any:
    """(B, 1, 1): the powers of two that bring each matrix's largest element near 1."""
    if "float" not in str(a.dtype):  # float16, too: LAPACK never comes back from an infinity
        return xp.ones((a.shape[0], 1, 1), dtype=dtype)
    top = xp.max(xp.abs(a), axis=(1, 2), keepdims=True)
    if not bool(xp.all(xp.isfinite(top))):
        matrix, row, column = (int(i[0]) for i in xp.nonzero(~xp.isfinite(a)))
        raise InputError(
            f"matrix {first + matrix} of the stack holds {float(a[matrix, row, column])} at [{row}, {column}]: "
            "expected finite numbers; remove or replace such values"
        )
    top = xp.astype(xp.where(top > 0, top, xp.ones_like(top)), xp.float64)
    limit = 126.0 if dtype == xp.float32 else 1000.0
    return xp.astype(2.0 ** -xp.clip(xp.floor(xp.log2(top)) + 1, -limit, limit), dtype)


def _parts(xp: Any, x: Any, scale: Any, dtype: Any) -> Any:
    """Slices of the long side and those parts of X, scaled, as `dtype`."""
    step = max(1, CHUNK_BYTES // (8 * x.shape[0] * x.shape[2]))
    for start in range(0, x.shape[1], step):
        where = slice(start, min(start + step, x.shape[1]))
        yield where, xp.astype(x[:, where, :], dtype) * xp.astype(scale, dtype)


def _lost(xp: Any, values: Any, limit: float) -> Any:
    """(B,): where squares do not resolve the last λ, so that another σ may have been taken for it, with no residual.

    values: (B, k), fewer than all. As `routes.by_gram` has it.
    """
    spread = values[:, :1] / xp.maximum(values, xp.full_like(values, 1e-300))
    return HOPE * EPS * xp.sqrt(xp.sum(spread, axis=1)) > limit / 2


def _gram(xp: Any, x: Any, k: int, scale: Any, dtype: Any) -> tuple[Any, Any, Any, Any]:
    """Eigenvectors of XᵀX in float64, u from X v = u diag(s) as `routes.finish` makes it, and the eigenvalues."""
    g = xp.zeros((x.shape[0], x.shape[2], x.shape[2]), dtype=xp.float64)
    for _, part in _parts(xp, x, scale, xp.float64):
        g = g + xp.matmul(xp.permute_dims(part, (0, 2, 1)), part)
    precision = "float64" if dtype == xp.float64 else "float32"
    values, v = leading_stack(xp, g, k, min(1e-7, tolerance(precision, x.shape[2], k) / (4 * float(np.sqrt(k)))))
    v = xp.astype(v, dtype)
    u = _times(xp, x, scale, v, dtype)
    if bool(xp.any(values[:, k - 1] < SPREAD**2 * values[:, 0])):
        return *_finish_by_qr(xp, u, v), values
    s = xp.sqrt(xp.sum(xp.astype(u, xp.float64) ** 2, axis=1))
    s = xp.flip(xp.sort(s, axis=1), axis=1)  # swaps only what rounding swapped
    u = u / xp.astype(xp.where(s > 0, s, xp.ones_like(s)), dtype)[:, None, :]
    identity, one = xp.eye(k, dtype=xp.float64), xp.ones((1, 1, 1), dtype=xp.float64)
    error = -identity
    for _, part in _parts(xp, u, one, xp.float64):  # long sums: not in float32
        error = error + xp.matmul(xp.permute_dims(part, (0, 2, 1)), part)
    small = xp.max(xp.abs(error), axis=(1, 2), keepdims=True) < xp.finfo(dtype).eps ** 0.5
    correction = xp.where(small, xp.triu(error) - identity * error / 2, xp.zeros_like(error))
    u = u - xp.matmul(u, xp.astype(correction, dtype))
    return u, xp.astype(s, dtype), v, values


def _finish_by_qr(xp: Any, u: Any, v: Any) -> tuple[Any, Any, Any]:
    """X v = Q R, R = P diag(s) Wᵀ: u = Q P and v W."""
    q, r = xp.linalg.qr(u)
    p, s, wt = xp.linalg.svd(r)
    return xp.matmul(q, p), s, xp.matmul(v, xp.permute_dims(wt, (0, 2, 1)))


def _times(xp: Any, x: Any, scale: Any, v: Any, dtype: Any) -> Any:
    return xp.concat([xp.matmul(part, v) for _, part in _parts(xp, x, scale, dtype)], axis=1)


def _measure(xp: Any, x: Any, scale: Any, u: Any, s: Any, v: Any) -> Any:
    """(B, 2) residual and orthogonality, as `verify.measure` defines them, in float64."""
    signs, factor = probes(s.shape[1])
    w = xp.asarray(np.ascontiguousarray(signs), dtype=xp.float64)[None, :, :]
    s, v = xp.astype(s, xp.float64), xp.astype(v, xp.float64)
    sw, vw = s[:, :, None] * w, xp.matmul(v, w)
    right, gram, left = -xp.matmul(v, sw), -w, 0.0
    for where, part in _parts(xp, x, scale, xp.float64):
        own = xp.astype(u[:, where, :], xp.float64)
        uw = xp.matmul(own, w)
        right = right + xp.matmul(xp.permute_dims(part, (0, 2, 1)), uw)
        gram = gram + xp.matmul(xp.permute_dims(own, (0, 2, 1)), uw)
        left = left + _squares(xp, xp.matmul(part, vw) - xp.matmul(own, sw))
    top = xp.where(s[:, 0] > 0, s[:, 0], xp.ones_like(s[:, 0]))
    residual = xp.sqrt(xp.maximum(left, _squares(xp, right))) / top
    straight = xp.maximum(_squares(xp, gram), _squares(xp, xp.matmul(xp.permute_dims(v, (0, 2, 1)), vw) - w))
    return factor * xp.stack([residual, xp.sqrt(straight)], axis=1)


def _squares(xp: Any, a: Any) -> Any:
    """(B,): ‖a‖_F² of each."""
    return xp.sum(a * a, axis=(1, 2))


def _signs(xp: Any, v: Any, dtype: Any) -> Any:
    """(B, 1, k) of `verify.fix_signs`: the first of the largest elements becomes positive."""
    size = xp.abs(v)
    first = xp.argmax(xp.astype(size >= (1 - 1e-3) * xp.max(size, axis=1, keepdims=True), xp.int8), axis=1)
    rows = xp.reshape(xp.arange(v.shape[1]), (1, v.shape[1], 1))
    picked = xp.sum(xp.where(rows == first[:, None, :], v, xp.zeros_like(v)), axis=1, keepdims=True)
    return xp.where(picked < 0, -xp.ones_like(picked), xp.ones_like(picked))
