"""Leading eigenpairs of a stack of symmetric matrices, through the array namespace: what `eigen` is on the CPU.

Matrices are (B, n, n), positive semi-definite, float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunet.linalg.eigen import STEPS
from gpunet.rng import LINALG, stream

ROUNDS = 4
JACOBI = 32  # CuPy's stacked eigh is Jacobi's method, which wins for small matrices
LOST = 1e-14  # a direction of which less than this share is left after projection is rounding alone
STRAIGHT = 1e-10  # how far vectors may be from orthonormal


def leading_stack(xp: Any, g: Any, k: int, tol: float = 1e-12, sturdy: bool = False) -> tuple[Any, Any]:
    """The k largest eigenvalues (B, k), descending, and their vectors (B, n, k).

    By block Lanczos iteration where k is far below n, as `eigen.leading` does it, else by eigh. On a GPU an iteration
    is about a hundred small kernels whatever B is, some 10 ms; eigh of 784×784 takes longer than that for each matrix.
    tol: of ‖Gv − λv‖ over λ_k, where it is by iteration. sturdy: by eigh of one matrix after the other, whatever it
    takes. What rounding left below 0 is returned so, for residuals to be right.
    """
    n = g.shape[1]
    if not sturdy and n >= 200 and 30 * k <= n:
        found = lanczos_stack(xp, g, k, tol)
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
    if not sturdy and batch > 1 and xp.__name__ == "cupy":
        from gpunet.backend import cusolver

        found = cusolver.syev_batched(g)
        if found is not None:
            return found
    pairs = [xp.linalg.eigh(g[i, ...]) for i in range(batch)]
    return xp.stack([pair[0] for pair in pairs]), xp.stack([pair[1] for pair in pairs])


def lanczos_stack(xp: Any, g: Any, k: int, tol: float, floor: float = 1e-15) -> tuple[Any, Any] | None:
    """As `eigen.leading_by_lanczos` for every matrix at once; None where one did not converge.

    The Krylov space of each is made of orthonormal blocks, then the Ritz pairs and their residuals are computed from
    G itself. Directions that a matrix of low rank has lost become zero columns, which stand behind everything in the
    Ritz values; where a zero column is among the k, that shows as missing orthonormality. The host is asked once a
    round.
    """
    batch, n = g.shape[:2]
    width = k + max(4, k // 8)
    steps = min(STEPS, n // width)
    if steps < 3:
        return None
    start = np.linalg.qr(stream(0, LINALG).standard_normal((n, width)))[0]
    q = xp.broadcast_to(xp.asarray(start)[None, :, :], (batch, n, width))
    for _ in range(ROUNDS):
        basis = _krylov(xp, g, q, steps)
        image = xp.matmul(g, basis)
        theta, mix = eigh_stack(xp, _symmetric(xp, _inner(xp, basis, image)))
        theta, mix = xp.flip(theta, axis=1)[:, :width], xp.flip(mix, axis=2)[:, :, :width]
        v = xp.matmul(basis, mix)
        wrong = xp.matmul(image, mix)[:, :, :k] - v[:, :, :k] * theta[:, None, :k]
        residual = xp.sqrt(xp.max(xp.sum(wrong * wrong, axis=1), axis=1))
        loss = _inner(xp, v[:, :, :k], v[:, :, :k]) - xp.eye(k, dtype=g.dtype)
        target = xp.maximum(tol * theta[:, k - 1], floor * theta[:, 0])
        good = (residual <= target) & (xp.max(xp.abs(loss), axis=(1, 2)) < STRAIGHT)
        if bool(xp.all(good)):
            return theta[:, :k], v[:, :, :k]
        q = _orthonormal(xp, v)
    return None


def _krylov(xp: Any, g: Any, q: Any, steps: int) -> Any:
    """An orthonormal basis of the span of q, G q, … (B, n, steps · width)."""
    basis = q
    for _ in range(steps - 1):
        y = xp.matmul(g, q)
        for _ in range(2):  # twice: what the first leaves is large beside a small rest
            y = y - xp.matmul(basis, _inner(xp, basis, y))
            y = y - xp.matmul(basis, _inner(xp, basis, y))
            y = _orthonormal(xp, y)
        q = y
        basis = xp.concat([basis, q], axis=2)
    return basis


def _orthonormal(xp: Any, y: Any) -> Any:
    """Columns that span those of y, from the eigenvectors of yᵀy (Stathopoulos & Wu 2002): products only, no QR.

    Columns are scaled first; directions of which only rounding is left become zero.
    """
    size = xp.sqrt(xp.sum(y * y, axis=1))[:, None, :]
    size = xp.where(size > 0, size, xp.ones_like(size))
    y = y / size
    values, vectors = eigh_stack(xp, _symmetric(xp, _inner(xp, y, y)))
    kept = values > LOST * values[:, -1:]
    root = xp.sqrt(xp.where(kept, values, xp.ones_like(values)))
    scale = xp.where(kept, 1 / root, xp.zeros_like(root))
    return xp.matmul(y, xp.flip(vectors * scale[:, None, :], axis=2))


def _inner(xp: Any, a: Any, b: Any) -> Any:
    return xp.matmul(xp.permute_dims(a, (0, 2, 1)), b)


def _symmetric(xp: Any, a: Any) -> Any:
    return (a + xp.permute_dims(a, (0, 2, 1))) / 2
