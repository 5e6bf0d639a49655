"""Leading eigenpairs of a stack of symmetric matrices, through the array namespace: what `eigen` is on the CPU.

Matrices are (B, n, n), positive semi-definite, float64.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpunet.checks import on_host
from gpunet.linalg.choose import ROUNDS, gpu_iterates, gpu_width
from gpunet.linalg.eigen import steps_left
from gpunet.linalg.moments import EPS
from gpunet.linalg.stack_sums import inner, product
from gpunet.rng import LINALG, stream

JACOBI = 32  # CuPy's stacked eigh is Jacobi's method, which wins for small matrices
LOST = 1e-14  # a direction of which less than this share is left after projection is rounding alone
STRAIGHT = 1e-10  # how far vectors may be from orthonormal
STRETCH = 1e8  # of one direction beside another by one polynomial: that leaves float64 half of its digits
CONVERGED = 1e-2  # of the error that is let pass: where a vector is lowered, what it is wrong by goes into the others
ROUNDING = 4 * EPS  # ‖Gv − λv‖ over λ_1 that no iteration gets below
NOTHING = 1e-12  # of λ_1: what is smaller counts as so large, to be divided by
SURE = 5  # the round from which the pace tells: before, those that come last wait for the first to be lowered
DEGREES = (2, 24)  # of a filter, at least and at most


def leading_stack(xp: Any, g: Any, k: int, tol: float = 1e-12, sturdy: bool = False) -> tuple[Any, Any]:
    """The k largest eigenvalues (B, k), descending, and their vectors (B, n, k).

    By `filtered_stack` where `choose.gpu_iterates` expects that to take less time, else by eigh.
    tol: of ‖Gv − λv‖ over λ_k, where it is by iteration. sturdy: by eigh of one matrix after the other, whatever it
    takes. What rounding left below 0 is returned so, for residuals to be right.
    """
    batch, n = g.shape[:2]
    if not sturdy and tol > ROUNDING and gpu_iterates(n, k, batch):
        found = filtered_stack(xp, g, k, tol)
        if found is not None:
            return found
    values, vectors = eigh_stack(xp, g, sturdy)
    return xp.flip(values[:, n - k :], axis=1), xp.flip(vectors[:, :, n - k :], axis=2)


def eigh_stack(xp: Any, g: Any, sturdy: bool = False) -> tuple[Any, Any]:
    """All eigenvalues (B, n), ascending, and vectors (B, n, n).

    Small ones go to CuPy's stacked Jacobi, a lone large one to cuSOLVER's syevd, others to syevBatched where this
    cuSOLVER has it, and one by one where it has not. None is asked how it fared: the caller looks at residuals.
    """
    batch, n = g.shape[:2]
    if not sturdy and (n <= JACOBI or xp is np):
        values, vectors = xp.linalg.eigh(g)
        return values, vectors
    if batch == 1:
        values, vectors = xp.linalg.eigh(g[0, ...])
        return values[None, ...], vectors[None, ...]
    if not sturdy and xp.__name__ == "cupy":
        from gpunet.backend import cusolver

        found = cusolver.syev_batched(g)
        if found is not None:
            return found
    pairs = [xp.linalg.eigh(g[i, ...]) for i in range(batch)]
    return xp.stack([pair[0] for pair in pairs]), xp.stack([pair[1] for pair in pairs])


def filtered_stack(xp: Any, g: Any, k: int, tol: float) -> tuple[Any, Any] | None:
    """As `leading_stack`, by subspace iteration with Chebyshev polynomials of G; None where one did not converge.

    (Rutishauser 1969; Zhou, Saad, Tiago & Chelikowsky 2006.) It stops when max_j ‖Gv_j − θ_j v_j‖ ≤ tol θ_k, and gives
    up where that lies below rounding. The block is three times as wide as k, since on a GPU products take next to no
    time beside eigenvectors: a polynomial of degree d that stays within ±1 on [0, a], a the smallest Ritz value of the
    block, grows like (4 λ/a)^d / 2 beyond. The degree is bounded by what float64 holds of one direction beside another;
    eigenvectors that have converged are lowered to λ_k before, or a large first one would leave no degree to the rest.

    Directions that a matrix of low rank has lost become zero columns, which stand behind everything in the Ritz
    values; where a zero column is among the k, that shows as missing orthonormality. The host is asked once a round.
    """
    batch, n = g.shape[:2]
    width = gpu_width(n, k)
    start = xp.asarray(stream(0, LINALG).random((1, n, width), dtype=np.float32) - np.float32(0.5))
    q = _orthonormal(xp, product(xp, g, xp.broadcast_to(xp.astype(start, g.dtype), (batch, n, width))))
    identity, seen = xp.eye(k, dtype=g.dtype), list[tuple[int, float]]()
    for round_ in range(ROUNDS):
        image = product(xp, g, q)
        theta, mix = _descending(xp, inner(xp, q, image))
        v, image = product(xp, q, mix), product(xp, image, mix)
        wrong = image - v * theta[:, None, :]
        loss = xp.abs(inner(xp, v[:, :, :k], v[:, :, :k]) - identity)
        facts = on_host(xp.concat([theta, xp.sum(wrong * wrong, axis=1), xp.max(loss, axis=2)], axis=1))
        values, errors, losses = np.split(facts, [width, 2 * width], axis=1)
        last = values[:, k - 1 : k]
        if not (tol * last > ROUNDING * values[:, :1]).all():  # NaN, too
            return None
        errors = np.sqrt(errors) / (tol * last)
        good = (errors[:, :k].max(axis=1) <= 1) & (losses.max(axis=1) < STRAIGHT)
        if good.all():
            return theta[:, :k], v[:, :, :k]
        seen.append((round_, float(errors[:, :k].max())))
        if round_ >= SURE and not steps_left(seen[-2:]) < ROUNDS - round_:
            return None
        cut = np.where(good[:, None], np.inf, np.maximum(values[:, -1:], NOTHING * values[:, :1]))  # stays as it is
        excess = np.where((errors <= CONVERGED) & (values > last), values - last, 0)
        spread = np.arccosh(np.maximum(2 * (values - excess).max(axis=1, keepdims=True) / cut - 1, 1.01)).max()
        degree = int(np.clip(math.log(2 * STRETCH) / spread, *DEGREES))
        lowered, step = v * xp.asarray(excess[:, None, :]), xp.asarray(2 / cut[:, :, None])
        q = _orthonormal(xp, _filtered(xp, g, v, image, lowered, step, degree))
    return None


def _filtered(xp: Any, g: Any, v: Any, image: Any, lowered: Any, step: Any, degree: int) -> Any:
    """T_d(step H − 1) v, T_d Chebyshev's polynomial and H = G − lowered vᵀ; image: G v."""
    before, last = v, (image - lowered) * step - v
    for _ in range(degree - 1):
        y = (product(xp, g, last) - product(xp, lowered, inner(xp, v, last))) * step - last
        before, last = last, y + y - before
    return last


def _orthonormal(xp: Any, y: Any) -> Any:
    """Columns that span those of y, from the eigenvectors of yᵀy (Stathopoulos & Wu 2002): products only, no QR.

    Columns are scaled first; directions of which only rounding is left become zero.
    """
    size = xp.sqrt(xp.sum(y * y, axis=1))[:, None, :]
    y = y / xp.where(size > 0, size, xp.ones_like(size))
    values, vectors = _descending(xp, inner(xp, y, y))
    kept = values > LOST * values[:, :1]
    scale = xp.where(kept, xp.abs(values), xp.full_like(values, xp.inf)) ** -0.5
    return product(xp, y, vectors * scale[:, None, :])


def _descending(xp: Any, a: Any) -> tuple[Any, Any]:
    """`eigh_stack` of (a + aᵀ)/2, the largest first."""
    values, vectors = eigh_stack(xp, (a + xp.permute_dims(a, (0, 2, 1))) / 2)
    return xp.flip(values, axis=1), xp.flip(vectors, axis=2)
