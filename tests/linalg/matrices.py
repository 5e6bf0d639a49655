"""Matrices that decompositions get wrong."""

from __future__ import annotations

import numpy as np

SHAPES = [(120, 30), (30, 120), (70, 64)]


def orthonormal(rng, rows, columns):
    return np.linalg.qr(rng.standard_normal((rows, columns)))[0]


def with_spectrum(rng, m, n, s):
    return (orthonormal(rng, m, len(s)) * s) @ orthonormal(rng, n, len(s)).T


def adversarial(m, n):
    """Name -> float64 matrix."""
    rng = np.random.default_rng(m * 1000 + n)
    r = min(m, n)
    noise = rng.standard_normal((m, n))
    return {
        "graded": with_spectrum(rng, m, n, np.logspace(0, -12, r)),
        "mean-1e6": 1e6 + noise,
        "rank-5": with_spectrum(rng, m, n, np.linspace(2, 1, 5)),
        "rank-1": np.outer(noise[:, 0], noise[0]),
        "zero": np.zeros((m, n)),
        "repeated": with_spectrum(rng, m, n, np.repeat([3.0, 2.0, 1.0, 0.5], -(-r // 4))[:r]),
        "identity": np.eye(m, n),
        "huge": 1e30 * noise,
        "tiny": 1e-30 * noise,
        "one-large-element": np.where(np.arange(m * n).reshape(m, n) == 7, 1e8, noise),
        "zero-columns": noise * (np.arange(n) % 3 > 0),
        "plain": noise,
    }


def truth(a):
    """Singular values, in float64 and safe from overflow."""
    a = np.asarray(a, np.float64)
    top = np.abs(a).max(initial=0) or 1.0
    return np.linalg.svd(a / top, compute_uv=False) * top


def check_triples(a, found, k, slack=2.0):
    """Shapes, order, residual, orthogonality and singular values of `found`, measured in float64 from scratch."""
    m, n = a.shape
    a64 = a.astype(np.float64)
    top = np.abs(a64).max() or 1.0
    u, s, vt = (np.asarray(x, np.float64) for x in (found.u, found.s, found.vt))
    assert (u.shape, s.shape, vt.shape) == ((m, k), (k,), (k, n))
    assert (np.diff(s) <= 0).all()
    assert (s >= 0).all()
    a64, s = a64 / top, s / top
    first = s[0] or 1.0
    tol = slack * found.tol
    assert np.linalg.norm(a64 @ vt.T - u * s) <= tol * first
    assert np.linalg.norm(a64.T @ u - vt.T * s) <= tol * first
    assert np.linalg.norm(u.T @ u - np.eye(k)) <= tol
    assert np.linalg.norm(vt @ vt.T - np.eye(k)) <= tol
    np.testing.assert_allclose(s, truth(a64)[:k], rtol=0, atol=tol * first)


def largest_angle(v, w):
    """Largest principal angle between the column spaces of v and w, both orthonormal (n, k)."""
    v, w = np.asarray(v, np.float64), np.asarray(w, np.float64)
    return float(np.arcsin(min(1.0, np.linalg.norm(v - w @ (w.T @ v), 2))))
