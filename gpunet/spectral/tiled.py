"""A symmetric matrix of tens of thousands of rows in one float32 array: sums, Cholesky's factor, equations solved.

Nothing else of its size is made: the array holds the matrix A above its diagonal and the factor L of A + λ₀ below, each
computed tile by tile, the products by BLAS. Equations with several λ are solved at once by conjugate gradients, with
(L Lᵀ)⁻¹ as the preconditioner (Hestenes & Stiefel 1952; Golub & Van Loan 2013, section 11.5): its condition number is
λ/λ₀ or λ₀/λ, whatever that of A is.

Seconds of processor time, one thread of an EPYC whose sgemm gives 101 GFLOP/s, batches of 2500 random samples (1024
variances that decay as i^−1.4, and noise), ten classes and five penalties; the factor and the steps of 32,768 are of a
random matrix. Sums and Cholesky take 1.2 times what their multiplications would at that rate.

    features   samples   sums   Cholesky   conjugate gradients
      16,384    45,000    140         18   27 steps, 25 seconds
      32,768    20,000    248        136   3 to 6 seconds a step
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunet.backend import Backend
from gpunet.backend.blas import product
from gpunet.checks import on_host
from gpunet.linalg.device import CPU, computing_on
from gpunet.linalg.moments import diagonal
from gpunet.progress import Progress

TILE = 1024  # rows: a strip of them is multiplied as fast as more, a tile in float64 lies in the cache
LEAF = 128  # rows of a tile that LAPACK gets; products do the rest
TOLERANCE = 1e-6  # of ‖(A + λ) Z − B‖ / ‖B‖, for each column: what rounding A to float32 has changed it by
SOON = 60  # steps, in which the factor of a matrix that is not much older solves
STEPS = 500  # of conjugate gradients; 20 to 60 are taken where λ/λ₀ lies within a factor of 100
WRONG = 1e-8  # of a matrix: how far Cholesky's factor may be from it
PROBES = 4  # vectors that both are multiplied with


class Tiled:
    """A = Σ x xᵀ (n, n) of samples x, and its factor.

    array (n, n), float32: A above the diagonal, L below; a tile on the diagonal holds L's inverted, so that products
    solve with it. diagonal (n,), float64: A's own, which the owner adds up. Both lie on `device`.
    """

    def __init__(self, size: int, device: Backend = CPU, tile: int = TILE, progress: Progress | None = None) -> None:
        self.device, self.progress = device, progress or Progress()
        self.tiles = [slice(start, min(start + tile, size)) for start in range(0, size, tile)]
        with computing_on(device) as xp:
            self.array = xp.zeros((size, size), dtype=xp.float32)
            self.diagonal = xp.zeros(size, dtype=xp.float64)
        self.factored = False

    def add(self, x: Any) -> None:
        """Add xᵀ x, without its diagonal, of x (rows, n), float32, on the device.

        Each product is off by about √rows · 2⁻²⁴ of √(A_ii A_jj), and N of them added one after the other by √N · 2⁻²⁴:
        both are as a rule of thumb, at worst rows and N (Higham 2002, Accuracy and Stability, 2.8 and ch. 3).
        """
        with computing_on(self.device) as xp:
            for rows in self.tiles:
                strip = _product(xp, x[:, rows].T, x[:, rows.start :])
                own = strip[:, : rows.stop - rows.start]
                own[...] = xp.triu(own, k=1)  # below may lie the factor
                self.array[rows, rows.start :] += strip

    def rescale(self, factors: Any) -> None:
        """A_ij becomes A_ij factors_i factors_j, of factors (n,) float64; there is no factor of it then."""
        self.factored = False
        with computing_on(self.device):
            for i, rows in enumerate(self.tiles):
                for columns in self.tiles[i:]:
                    self.array[rows, columns] *= factors[rows][:, None] * factors[columns]
            self.diagonal *= factors * factors

    def factor(self, shift: float) -> None:
        """L with L Lᵀ = A + shift, tile by tile from the left; LinAlgError where that is not positive definite."""
        with computing_on(self.device) as xp:
            for j, rows in enumerate(self.tiles):
                self.progress.advance(0, f"Cholesky, {j} of {len(self.tiles)} columns of tiles")
                left = self.array[rows, : rows.start]
                above = xp.triu(xp.astype(self.array[rows, rows], xp.float64), k=1)
                tile = above + above.T - _product(xp, left, left.T)
                tile += xp.eye(len(tile), dtype=xp.float64) * (self.diagonal[rows] + shift)
                inverse = xp.astype(_inverse_factor(xp, tile), xp.float32)
                self.array[rows, rows] = xp.astype(above, xp.float32) + inverse
                rest = self.array[rows, rows.stop :].T - _product(xp, self.array[rows.stop :, : rows.start], left.T)
                self.array[rows.stop :, rows] = _product(xp, rest, inverse.T)
        self.factored = True

    def times(self, p: Any) -> Any:
        """A p (n, columns) in float64."""
        with computing_on(self.device) as xp:
            image = self.diagonal[:, None] * p
            for i, rows in enumerate(self.tiles):
                for columns in self.tiles[i:]:
                    tile = xp.astype(self.array[rows, columns], xp.float64)
                    if columns == rows:
                        tile = xp.triu(tile, k=1)
                    image[rows] += _product(xp, tile, p[columns])
                    image[columns] += _product(xp, tile.T, p[rows])
        return image

    def divided(self, r: Any) -> Any:
        """(L Lᵀ)⁻¹ r (n, columns) in float32."""
        with computing_on(self.device) as xp:
            z = xp.astype(r, xp.float32)  # a copy
            for rows in self.tiles:
                rest = z[rows] - _product(xp, self.array[rows, : rows.start], z[: rows.start])
                z[rows] = _product(xp, xp.tril(self.array[rows, rows]), rest)
            for rows in reversed(self.tiles):
                rest = z[rows] - _product(xp, self.array[rows.stop :, rows].T, z[rows.stop :])
                z[rows] = _product(xp, xp.tril(self.array[rows, rows]).T, rest)
        return z

    def solve(
        self, right: Any, shifts: Sequence[float], tolerance: float = TOLERANCE, steps: int = STEPS
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(Z (shifts, n, C), float64, ‖(A + λ) z − b‖ / ‖b‖ (shifts,) of the worst column), on the host.

        right: B (n, C), float64, on the device. All is solved at once, with one factor: that of the middle of the
        shifts, or of the next larger one where float32 finds that it is not positive definite. A factor that is there
        is good enough if it takes SOON steps. Vectors are float64, the preconditioner float32, so that it is not quite
        the same each time: p follows from z'(r − r before) (Notay 2000, Flexible conjugate gradients). The residual is
        infinite where A + λ is found not to be positive definite, or `steps` are not enough. Raises LinAlgError where
        no shift has a factor.
        """
        if self.factored:
            found, residuals = self._by_steps(right, shifts, tolerance, min(steps, SOON))
            if np.isfinite(residuals).all():
                return found, residuals
        self._factor_for_all(shifts)
        return self._by_steps(right, shifts, tolerance, steps)

    def _by_steps(
        self, right: Any, shifts: Sequence[float], tolerance: float, steps: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What `solve` returns, with the factor that is there."""
        n, classes = right.shape
        found, residuals = np.zeros((n, len(shifts) * classes)), np.full(len(shifts) * classes, np.inf)
        with computing_on(self.device) as xp, np.errstate(all="ignore"):
            r, added = xp.concat([right] * len(shifts), axis=1), self.device.asarray(np.repeat(shifts, classes))
            size = norm = xp.sqrt(xp.sum(r * r, axis=0))
            z, p, q, alpha, before = *(xp.zeros_like(r) for _ in range(3)), xp.zeros_like(size), xp.ones_like(size)
            ended, sound = on_host(size == 0), np.ones(len(residuals), bool)  # of a class that no sample has
            left = np.arange(len(residuals))  # columns that are not solved yet
            for step in range(steps + 1):
                if ended.any():
                    done, keep = left[ended], self.device.asarray(np.flatnonzero(~ended))
                    found[:, done] = on_host(z)[:, ended]
                    residuals[done] = np.where(sound, on_host(norm / xp.where(size > 0, size, 1.0)), np.inf)[ended]
                    left, state = left[~ended], (z, r, p, q, size, norm, added, alpha, before)
                    z, r, p, q, size, norm, added, alpha, before = (xp.take(each, keep, axis=-1) for each in state)
                if not len(left) or step == steps:
                    break
                self.progress.advance(0, f"conjugate gradients, step {step + 1}, {len(left)} columns")
                near = xp.astype(self.divided(r / norm), xp.float64) * norm
                p = near - p * (alpha * xp.sum(near * q, axis=0) / before)
                q = self.times(p) + added * p
                before, curvature = xp.sum(near * r, axis=0), xp.sum(p * q, axis=0)
                alpha = before / curvature
                z, r = z + alpha * p, r - alpha * q
                norm = xp.sqrt(xp.sum(r * r, axis=0))
                sound = on_host(curvature > 0)
                ended = on_host(norm <= tolerance * size) | ~sound
        return found.reshape(n, len(shifts), classes).swapaxes(0, 1), residuals.reshape(-1, classes).max(axis=1)

    def _factor_for_all(self, shifts: Sequence[float]) -> None:
        """L of the middle of the shifts, or of the next larger one that has a factor."""
        *smaller, largest = sorted(shifts)[len(shifts) // 2 :]
        for shift in smaller:
            try:
                self.factor(shift)
                return
            except np.linalg.LinAlgError:
                pass
        self.factor(largest)


def _product(xp: Any, a: Any, b: Any) -> Any:
    return product(a, b) if xp is np else xp.matmul(a, b)


def _inverse_factor(xp: Any, a: Any) -> Any:
    """L⁻¹ of L Lᵀ = a, both lower triangles; of halves: (L₁ 0; M L₂)⁻¹ = (L₁⁻¹ 0; −L₂⁻¹ M L₁⁻¹ L₂⁻¹), M = a₂₁ L₁⁻ᵀ."""
    size, half = len(a), len(a) // 2
    if size <= LEAF:
        return xp.tril(xp.linalg.inv(cholesky(xp, a)))
    inverse = xp.zeros_like(a)
    inverse[:half, :half] = first = _inverse_factor(xp, a[:half, :half])
    below = a[half:, :half] @ first.T
    inverse[half:, half:] = second = _inverse_factor(xp, a[half:, half:] - below @ below.T)
    inverse[half:, :half] = -second @ (below @ first)
    return inverse


def cholesky(xp: Any, a: Any) -> Any:
    """L with L Lᵀ = a (n, n), float64; LinAlgError where there is none.

    CuPy does not say so. It returns what potrf has done up to a pivot d ≤ 0, or NaN, with d itself in its place: where
    that is the last one, L Lᵀ differs from `a` by d² − d alone. So L's diagonal is looked at, and L held against `a`.
    """
    lower = xp.linalg.cholesky(a)
    if xp is np:
        return lower
    probe = xp.asarray(np.cos(np.arange(PROBES * a.shape[0], dtype=np.float64)).reshape(-1, PROBES))
    image = a @ probe
    near = xp.max(xp.abs(lower @ (lower.T @ probe) - image)) <= WRONG * xp.max(xp.abs(image))
    if not bool(near & (xp.min(diagonal(xp, lower)) > 0)):  # of a NaN neither holds
        raise np.linalg.LinAlgError("the matrix is not positive definite")
    return lower
