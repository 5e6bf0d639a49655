"""Routes for whole stacks of matrices, through the array API: on the CPU for small ones, on a GPU for all.

Read back to the host are each matrix's largest element, the eigenvalues, and what the triples measure; beside those
what an iteration or cuSOLVER asks for. Stacks are (B, m, n). On a GPU the Gram matrices are multiplied in float64
(`device_moments` says why), so that what squaring loses lies below √ε of float64, far below what float32 data can
show.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gpunet.checks import on_host
from gpunet.errors import InputError
from gpunet.linalg.eigen_stack import leading_stack
from gpunet.linalg.matrix import Floats
from gpunet.linalg.moments import EPS
from gpunet.linalg.routes import HOPE
from gpunet.linalg.stack_sums import inner, largest, product, squares
from gpunet.linalg.verify import PROBES, probes, tolerance

CHUNK_BYTES = 48 << 20  # of the long side, converted to float64, on the CPU
GPU_CHUNK_BYTES = 1 << 30  # and at most on a GPU, …
GPU_SHARE = 8  # … where it is this part of the free memory: up to four of its size are alive at once
SAFE = {"float32": 1e4, "float64": 1e50}  # on a GPU what lies within [1/SAFE, SAFE] is not scaled: fourth powers fit
GESVDJ_LIMIT = 32
SPREAD = 1e-3  # σ_k/σ₁ below which X v is turned into u by QR: what one step corrects is ε σ₁/σ_k


def solve(
    xp: Any, a: Any, k: int, route: str, precision: np.dtype[Any], first: int = 0
) -> tuple[Any, Any, Any, Floats]:
    """The k leading triples u (B, m, k), s (B, k), vt (B, k, n) and what they measure, errors (B, 2) on the host.

    route: "gram", cuSOLVER's "gesvda", or the namespace's own svd: "full" on the CPU, and on a GPU, where CuPy takes
    gesvdjBatched for stacks up to 32×32 and gesvd, one matrix after the other, above: "gesvdj" and "gesvd".
    precision: of the results. first: the number of the first matrix in its stack, for the InputError that names the
    matrix and the place of a NaN or infinity. On a GPU it is raised, too, for a σ beyond the range of `precision`.
    """
    dtype = getattr(xp, precision.name)
    own = xp.float64 if xp is np else dtype  # a CPU takes no longer for small ones in float64
    x = _Stack(xp, a, precision, first)
    lost = None
    if route == "gram":
        u, s, v, values = _gram(x, k, own)
        lost = _lost(values, tolerance(precision, x.short, k)) if k < x.short else None
    elif route == "gesvda":
        from gpunet.backend import cusolver

        u, s, v = cusolver.gesvda(x.whole(own), k)
    else:
        if route == "gesvdj" and x.long > GESVDJ_LIMIT:
            raise InputError(
                f"gesvdjBatched takes matrices up to 32×32, got {a.shape[1]}×{a.shape[2]}: use another method"
            )
        u, s, vt = xp.linalg.svd(x.whole(own), full_matrices=False)
        u, s, v = u[:, :, :k], s[:, :k], xp.permute_dims(vt[:, :k, :], (0, 2, 1))
    if route != "gram":
        signs = _signs(xp, v)
        u, v = u * signs, v * signs
    u, v, s = (xp.astype(each, dtype, copy=False) for each in (u, v, s))
    errors, top = _measure(x, u, s, v, tolerance(precision, x.short, k))
    if lost is not None:
        errors[lost] = np.inf
    if x.scale is not None:
        with np.errstate(over="ignore"):  # the CPU's caller looks, and names the matrix
            s, top = s / x.scale[:, :, 0], (top / x.factors).astype(precision)
        if xp is not np and np.isinf(top[np.isfinite(errors).all(axis=1)]).any():
            size = f"{a.shape[1]}×{a.shape[2]}"
            raise InputError(f"a singular value of {size} exceeds the range of {precision}: scale the matrix down")
    if x.flipped:
        u, v = v, u
    return u, s, xp.permute_dims(v, (0, 2, 1)), errors


class _Stack:
    """Matrices (B, m, n) as X (B, long, short), times powers of two that bring largest elements near 1.

    scale: (B, 1, 1) in the precision of the results, or None where no matrix needs it. Raises InputError for NaN and
    infinities.
    """

    def __init__(self, xp: Any, a: Any, precision: np.dtype[Any], first: int) -> None:
        self.xp, self.a, self.flipped = xp, a, a.shape[1] < a.shape[2]
        self.long, self.short = max(a.shape[1:]), min(a.shape[1:])
        self.chunk = _chunk_bytes(xp)
        self.scale = None
        if "float" in str(a.dtype):  # float16, too: LAPACK never comes back from an infinity
            top = on_host(largest(xp, a)).astype(np.float64)
            if not np.isfinite(top).all():
                _refuse(xp, a, first)
            limit = 126.0 if precision == np.float32 else 1000.0
            scale = 2.0 ** -np.clip(np.floor(np.log2(np.where(top > 0, top, 1))) + 1, -limit, limit)
            safe = 1.0 if xp is np else SAFE[precision.name]
            scale[(1 / safe < top) & (top < safe)] = 1
            if xp is np or (scale != 1).any():
                self.factors: Floats = scale  # (B,), on the host
                self.scale = xp.asarray(scale[:, None, None].astype(precision))

    def parts(self, dtype: Any) -> Iterator[tuple[slice, Any]]:
        """Slices of the long side and those parts of X as `dtype`, laid out as the source is."""
        for where in self.slices(self.short):
            yield where, self._made(self.a[:, :, where] if self.flipped else self.a[:, where, :], dtype)

    def slices(self, columns: int) -> Iterator[slice]:
        """Of the long side: so much at a time that `columns` of float64 take the bytes of a chunk."""
        step = max(1, self.chunk // (8 * self.a.shape[0] * columns))
        for start in range(0, self.long, step):
            yield slice(start, min(start + step, self.long))

    def whole(self, dtype: Any) -> Any:
        """X in one piece, a copy."""
        return self._made(self.a, dtype, True)

    def _made(self, part: Any, dtype: Any, copy: bool = False) -> Any:
        xp = self.xp
        if self.scale is None:
            part = xp.astype(part, dtype, copy=copy)
        else:  # of floats no finer than dtype
            part = part * xp.astype(self.scale, dtype, copy=False)
        return xp.permute_dims(part, (0, 2, 1)) if self.flipped else part


def _chunk_bytes(xp: Any) -> int:
    """Of a GPU's free memory a share; what CuPy's pool holds and does not use is free, too."""
    if not hasattr(xp, "cuda"):
        return CHUNK_BYTES
    free = xp.cuda.runtime.memGetInfo()[0] + xp.get_default_memory_pool().free_bytes()
    return int(max(CHUNK_BYTES, min(GPU_CHUNK_BYTES, free // GPU_SHARE)))


def _refuse(xp: Any, a: Any, first: int) -> None:
    """InputError that names the first NaN or infinity."""
    matrix, row, column = (int(i[0]) for i in xp.nonzero(~xp.isfinite(a)))
    raise InputError(
        f"matrix {first + matrix} of the stack holds {float(a[matrix, row, column])} at [{row}, {column}]: "
        "expected finite numbers; remove or replace such values"
    )


def _lost(values: Floats, limit: float) -> Any:
    """(B,): where squares do not resolve the last λ, so that another σ may have been taken for it, with no residual.

    values: (B, k), fewer than all. As `routes.by_gram` has it.
    """
    spread = values[:, :1] / np.maximum(values, np.maximum(1e-300 * values[:, :1], 1e-307))
    return HOPE * EPS * np.sqrt(np.sum(spread, axis=1)) > limit / 2


def _gram(x: _Stack, k: int, dtype: Any) -> tuple[Any, Any, Any, Floats]:
    """Eigenvectors of XᵀX in float64, u from X v = u diag(s) as `routes.finish` makes it, and the eigenvalues.

    X v is orthogonal but for rounding, of which the smaller σ has more: with O = (X v)ᵀ X v, s² its diagonal, later
    columns are made orthogonal to those before by (X v) diag(1/s) (1 − E), E the upper triangle of
    diag(1/s) O diag(1/s) − 1 and half of its diagonal. Signs are fixed before, in v.
    """
    xp = x.xp
    g = _summed(inner(xp, part, part) for _, part in x.parts(xp.float64))
    limit = tolerance("float64" if dtype == xp.float64 else "float32", x.short, k)
    found, v = leading_stack(xp, g, k, min(1e-7, limit / (4 * float(np.sqrt(k)))))
    values = on_host(found)
    v = xp.astype(v * _signs(xp, v), dtype, copy=False)
    u = _joined(xp, [product(xp, part, v) for _, part in x.parts(dtype)])
    if (values[:, k - 1] < SPREAD**2 * values[:, 0]).any():
        u, s, v = _finish_by_qr(xp, u, v)
        signs = _signs(xp, v)
        return u * signs, s, v * signs, values
    doubles = (xp.astype(u[:, where, :], xp.float64, copy=False) for where in x.slices(k))  # long sums: not in float32
    overlap = _summed(inner(xp, part, part) for part in doubles)
    s = xp.sqrt(xp.reshape(overlap, (-1, k * k))[:, :: k + 1])
    unit = 1 / (s + 8 * float(xp.finfo(dtype).smallest_normal))
    upper = xp.asarray(np.triu(np.ones((1, k, k)), 1) + np.eye(k) / 2)
    turn = xp.asarray(1.5 * np.eye(k)[None, :, :]) - upper * (overlap * unit[:, :, None] * unit[:, None, :])
    u = product(xp, u, xp.astype(turn * unit[:, :, None], dtype, copy=False))
    return u, xp.flip(xp.sort(s, axis=1), axis=1), v, values  # swaps only what rounding swapped


def _summed(terms: Iterator[Any]) -> Any:
    """Their sum, of one or more."""
    total = next(terms)
    for term in terms:
        total = total + term
    return total


def _joined(xp: Any, parts: list[Any]) -> Any:
    """(B, m, k) of parts of the rows."""
    return parts[0] if len(parts) == 1 else xp.concat(parts, axis=1)


def _finish_by_qr(xp: Any, u: Any, v: Any) -> tuple[Any, Any, Any]:
    """X v = Q R, R = P diag(s) Wᵀ: u = Q P and v W."""
    q, r = xp.linalg.qr(u)
    p, s, wt = xp.linalg.svd(r)
    return product(xp, q, p), s, product(xp, v, xp.permute_dims(wt, (0, 2, 1)))


def _measure(x: _Stack, u: Any, s: Any, v: Any, limit: float) -> tuple[Floats, Floats]:
    """(B, 2) residual and orthogonality, as `verify.measure` defines them, in float64; and (B,) σ₁. On the host.

    What an estimate finds near the limit is measured triple by triple.
    """
    errors, top = _estimated(x, u, s, v, *probes(s.shape[1]))
    near = (limit / 2 < errors) & (errors < 10 * limit)
    if near.any() and s.shape[1] > PROBES:
        errors, top = _estimated(x, u, s, v, np.eye(s.shape[1]), 1.0)
    return errors, top


def _estimated(x: _Stack, u: Any, s: Any, v: Any, signs: Floats, factor: float) -> tuple[Floats, Floats]:
    """`_measure` by the columns of `signs` (k, p)."""
    xp = x.xp
    w = xp.asarray(np.ascontiguousarray(signs)[None, :, :], dtype=xp.float64)
    s, v = xp.astype(s, xp.float64, copy=False), xp.astype(v, xp.float64, copy=False)
    sw, vw = s[:, :, None] * w, product(xp, v, w)
    sums: list[Any] = []
    for where, part in x.parts(xp.float64):
        own = xp.astype(u[:, where, :], xp.float64, copy=False)
        uw = product(xp, own, w)
        wrong = product(xp, part, vw) - product(xp, own, sw)
        terms = [squares(xp, wrong), inner(xp, part, uw), inner(xp, own, uw)]
        sums = [before + term for before, term in zip(sums, terms, strict=True)] if sums else terms
    left, right, gram = sums
    found = left, squares(xp, right - product(xp, v, sw)), squares(xp, gram - w), squares(xp, inner(xp, v, vw) - w)
    *wrong, top = on_host(xp.stack([*found, s[:, 0]]))
    residual, loss = np.sqrt(np.maximum(*wrong[:2])), np.sqrt(np.maximum(*wrong[2:]))
    return factor * np.stack([residual / np.where(top > 0, top, 1), loss], axis=1), top


def _signs(xp: Any, v: Any) -> Any:
    """(B, 1, k) of `verify.fix_signs`: the first of the largest elements becomes positive.

    v over 0.999 of the largest, cut off, is ±1 there and 0 elsewhere; of numbers that fall with the row the first of
    those is the largest.
    """
    peak = (1 - 1e-3) * xp.max(xp.abs(v), axis=1, keepdims=True)
    fall = xp.asarray(np.arange(v.shape[1], 0, -1.0)[None, :, None], dtype=v.dtype)
    marks = xp.trunc(v / peak) * fall
    return xp.sign(xp.max(marks, axis=1, keepdims=True) + xp.min(marks, axis=1, keepdims=True))
