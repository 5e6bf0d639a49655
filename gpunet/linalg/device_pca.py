"""PCA of some moments at once on a GPU, and class PCA of data that lies there: what `pca` is on the CPU.

Results are NumPy arrays on the host, as on the CPU: k vectors a class. Data and Gram matrices stay on the device; the
moments of a class whose eigenvectors are not good enough come to the host, to be decomposed as there.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunet.checks import on_host
from gpunet.errors import ConvergenceError
from gpunet.linalg import stacked
from gpunet.linalg.decompose import (
    PCA,
    as_pca,
    available,
    by_root,
    check_trace,
    hidden,
    noise,
    normalised,
    reached,
    relative,
)
from gpunet.linalg.device_moments import CHUNK_BYTES, largest, safe_scale, sums
from gpunet.linalg.eigen_stack import leading_stack
from gpunet.linalg.matrix import result_dtype
from gpunet.linalg.moments import Centred, chunks, diagonal
from gpunet.linalg.stack_sums import product
from gpunet.linalg.verify import tolerance

GROUP_BYTES = 1 << 30  # of Gram matrices that are decomposed as one stack


def decompose_stack(
    xp: Any, moments: Sequence[Centred], k: int | None, variance: float | None, center: bool, dtype: Any
) -> list[PCA]:
    """`decompose` of some classes' moments on a GPU, as one stack."""
    traces = [float(xp.sum(diagonal(xp, each.about(center)))) for each in moments]
    found = [normalised(each, check_trace(each, t, "the samples")) for each, t in zip(moments, traces, strict=True)]
    moments, totals, scales = zip(*found, strict=True)
    scatter = [each.about(center) for each in moments]
    counts = [available(each, center) if k is None else k for each in moments]
    features, todo, parts = scatter[0].shape[0], list(range(len(moments))), dict[int, PCA]()
    tol = _eigen_tol(dtype, features, max(counts))
    for sturdy in (False, True):
        stack = xp.stack([scatter[i] for i in todo])
        try:
            values, vectors = leading_stack(xp, stack, max(counts), tol, sturdy)
        except np.linalg.LinAlgError:
            continue
        wrong = product(xp, stack, vectors) - vectors * values[:, None, :]
        errors, own = on_host(xp.sqrt(xp.sum(wrong * wrong, axis=1))), np.maximum(on_host(values), 0)
        for place, i in enumerate(todo):
            rank = counts[i] if variance is None else min(counts[i], reached(own[place], variance, totals[i]))
            theirs, v, limit = own[place, :rank], vectors[place, :, :rank], tolerance(dtype, features, rank)
            lost = on_host(noise(xp, moments[i], v, scatter[i]))
            residual = float(relative(errors[place, :rank] + lost, theirs).max())
            if max(residual, hidden(theirs, features)) <= limit:  # not so for NaN
                parts[i] = as_pca(moments[i], theirs, on_host(v), totals[i], residual, scales[i], "gram")
        todo = [i for i in todo if i not in parts]
        if not todo:
            break
    for i in todo:
        parts[i] = by_root(
            moments[i].moved(on_host), scales[i], k, variance, center, dtype, f"class {i} of {len(moments)}"
        )
    return [parts[i] for i in range(len(moments))]


def _eigen_tol(dtype: Any, features: int, k: int, tol: float = 1e-12) -> float:
    """‖Gv − λv‖/λ_k well below what `tolerance` lets pass."""
    return min(tol, tolerance(dtype, features, k) / 8)


def class_parts(
    xp: Any,
    x: Any,
    rows: Sequence[NDArray[np.intp]],
    k: int | None,
    variance: float | None,
    center: bool,
    tol: float = 1e-12,
) -> list[PCA]:
    """PCA of x[rows] for each class's rows; x (n, features) on the device. Residuals are measured against x.

    tol: of ‖ρv − λv‖ over λ_k, where an iteration is used.
    Each class is scaled by itself. Where the eigenvectors of its Gram matrix do not meet the `tolerance` of x's dtype,
    its rows are decomposed by gesvd; raises ConvergenceError where that does not meet it either.
    Memory: a Gram matrix of float64 a class, in groups of GROUP_BYTES, beside chunks.
    """
    features, parts = x.shape[1], dict[int, PCA | None]()
    classes = [_Samples(xp, x, xp.asarray(own), k, variance, center) for own in rows]
    most = features if k is None or variance is not None else k
    tol = _eigen_tol(result_dtype(x.dtype), features, most, tol)
    wide, group = [c for c, own in enumerate(rows) if len(own) >= features], max(1, GROUP_BYTES // (8 * features**2))
    for start in range(0, len(wide), group):
        chosen = wide[start : start + group]
        stack = xp.stack([classes[c].gram() for c in chosen])
        with suppress(np.linalg.LinAlgError):
            values, vectors = leading_stack(xp, stack, most, tol)
            for place, c in enumerate(chosen):
                parts[c] = classes[c].accepted(values[place, ...], vectors[place, ...])
        for place, c in enumerate(chosen):
            if parts.get(c) is None:
                with suppress(np.linalg.LinAlgError):
                    again, v = leading_stack(xp, stack[place : place + 1, ...], most, tol, True)
                    parts[c] = classes[c].accepted(again[0, ...], v[0, ...])
    for c, own in enumerate(rows):
        if len(own) < features:
            with suppress(np.linalg.LinAlgError):
                parts[c] = classes[c].accepted(*classes[c].few())
    return [parts.get(c) or classes[c].by_svd(f"class {c} of {len(rows)}") for c in range(len(rows))]


class _Samples:
    """One class's samples on a GPU, times a power of two of its own, and PCAs of them that are held against them."""

    def __init__(self, xp: Any, x: Any, rows: Any, k: int | None, variance: float | None, center: bool) -> None:
        self.xp, self.x, self.rows, self.k, self.variance, self.center = xp, x, rows, k, variance, center
        self.dtype, top = result_dtype(x.dtype), largest(xp, x, "x", rows)
        self.scale = safe_scale(top) if x.dtype.kind == "f" else 1.0
        zero = xp.zeros(x.shape[1], dtype=xp.float64)
        self.moments = Centred(None, None, zero, zero, rows.shape[0], 0.0, top * self.scale)
        self.total = 0.0

    def gram(self) -> Any:
        """Σ x xᵀ, about the mean when centred; the mean and the trace are kept."""
        found = sums(self.xp, self.x, self.rows, self.scale)
        self.moments = replace(self.moments, mean=found.mean, mean_low=found.mean_low)
        gram = found.about(self.center)
        self.total = float(self.xp.sum(diagonal(self.xp, gram)))
        return gram

    def dense(self) -> Any:
        """All samples in float64, less their mean when centred; the mean and the trace are kept."""
        xp = self.xp
        dense = xp.astype(xp.take(self.x, self.rows, axis=0), xp.float64) * self.scale
        first = xp.mean(dense, axis=0)
        rest = xp.mean(dense - first, axis=0)
        self.moments = replace(self.moments, mean=first, mean_low=rest)
        if self.center:
            dense = dense - first - rest
        self.total = float(xp.sum(dense * dense))
        return dense

    def few(self) -> tuple[Any, Any]:
        """Eigenpairs of Σ x xᵀ of fewer samples than features: X Xᵀ w = σ² w, Xᵀw = Q R, R = P diag(σ) ·, v = Q P.

        They are orthonormal also where σ is too small to divide by.
        """
        xp, dense = self.xp, self.dense()
        most = dense.shape[0] if self.k is None else self.k
        _, w = leading_stack(xp, xp.matmul(dense, dense.T)[None, ...], most, 1e-15)
        q, r = xp.linalg.qr(xp.matmul(dense.T, w[0, ...]))
        p, s, _ = xp.linalg.svd(r)
        return s * s, xp.matmul(q, p)

    def accepted(self, values: Any, vectors: Any) -> PCA | None:
        """Eigenpairs of Σ x xᵀ as the result, or None where ‖Xᵀ(X v) − λ v‖ says that they are none."""
        xp, found = self.xp, np.maximum(on_host(values), 0)
        rank, limit = self._rank(found)
        v, image = vectors[:, :rank], 0.0
        for chunk in chunks(xp, self.x, self.rows, 8, CHUNK_BYTES):
            part = xp.astype(chunk, xp.float64) * self.scale
            if self.center:
                part = part - self.moments.mean - self.moments.mean_low
            image = image + xp.matmul(part.T, xp.matmul(part, v))
        wrong = image - v * values[None, :rank]
        residual = float(relative(on_host(xp.sqrt(xp.sum(wrong * wrong, axis=0))), found[:rank]).max())
        good = max(residual, hidden(found[:rank], len(v))) <= limit  # not so for NaN
        return self._result(found[:rank], v, residual, "gram") if good else None

    def by_svd(self, what: str) -> PCA:
        """The result by gesvd of the samples themselves."""
        xp, dense = self.xp, self.dense()
        most = min(dense.shape) if self.k is None else self.k
        try:
            _, s, vt, errors = stacked.solve(xp, dense[None, ...], most, "gesvd", np.dtype(np.float64))
        except np.linalg.LinAlgError as error:
            raise ConvergenceError(f"{what} has no SVD on a GPU, by gesvd ({error}): use device='cpu'") from None
        values, worst = on_host(s)[0] ** 2, float(errors.max())
        rank, limit = self._rank(values)
        if not worst <= limit:
            raise ConvergenceError(
                f"the components of {what}, {dense.shape[0]}×{dense.shape[1]}, have a residual of {worst:.2g} on a "
                f"GPU, by gesvd: expected {limit:.2g}; compute them with device='cpu'"
            )
        return self._result(values[:rank], vt[0, :rank, :].T, worst, "gesvd")

    def _rank(self, values: NDArray[np.float64]) -> tuple[int, float]:
        """(how many components are wanted, the tolerance of so many)."""
        rank = len(values) if self.variance is None else reached(values, self.variance, self.total)
        rank = min(rank, self.moments.count)
        return rank, tolerance(self.dtype, self.x.shape[1], rank)

    def _result(self, values: NDArray[np.float64], vectors: Any, residual: float, route: str) -> PCA:
        rounding = float(np.finfo(self.dtype).eps)  # what is returned has the samples' precision
        lost = residual + rounding
        return as_pca(self.moments, values, on_host(vectors), self.total, lost, self.scale, route)
