"""Gram matrices XᵀX of tall data, by chunks: fast, and exact where the data allows it."""

from __future__ import annotations

import numpy as np

from gpunet.linalg.matrix import Floats, TallMatrix

Sums = tuple[Floats, Floats, int]  # a matrix (d, d), a vector (d,), a number of samples

EXACT_ROWS = 1024  # rows of (uint8 − 128)² ≤ 2¹⁴ that a float32 sums exactly: 2¹⁰ · 2¹⁴ = 2²⁴
# Below this width EXACT_ROWS are too little work for one call; float64 products of long chunks are faster, as exact.
NARROW = 128


def gram_and_mean(x: TallMatrix, products: str | None = None, mean: bool = True) -> tuple[Floats, Floats]:
    """XᵀX (short, short) and the mean of X's rows (short,), float64; zeros for the mean where it is not wanted.

    uint8: exact. Others: products in `products` (the data's own dtype by default), chunks summed in float64.
    """
    if x.x.dtype == np.uint8 and x.scale == 1 and products is None:
        raw, sums = exact_sums(x)
        return shifted_scatter(raw, sums, x.long, 0.0), sums / x.long + 128
    dtype = np.dtype(products or x.dtype)
    total = np.zeros((x.short, x.short))
    sums = np.zeros(x.short)
    part, ones = np.empty((x.short, x.short), dtype), np.ones(x.chunk_rows(dtype), dtype)
    for _, chunk in x.chunks(dtype):
        np.matmul(chunk.T, chunk, out=part)
        total += part
        if mean:  # another pass over the data, a tenth of the time
            sums += ones[: len(chunk)] @ chunk
    return total, sums / x.long


def exact_sums(x: TallMatrix) -> tuple[Floats, Floats]:
    """Σ (x−128)(x−128)ᵀ (short, short) and Σ (x−128) (short,) of uint8 data, both exact integers in float64.

    x − 128 lies in [−128, 127], so a float32 sums EXACT_ROWS products of it exactly, whatever the order, and the
    chunks' sums are added in float64: half the time of float64 products, no rounding at all.
    """
    wide = x.short >= NARROW
    dtype = np.float32 if wide else np.float64
    rows = min(x.long, EXACT_ROWS if wide else x.chunk_rows(dtype))
    total = np.zeros((x.short, x.short))
    sums = np.zeros(x.short)
    part: Floats = np.empty((x.short, x.short), dtype)
    ones = np.ones(rows, dtype)
    for _, chunk in x.chunks(dtype, rows=rows, shift=True):
        np.matmul(chunk.T, chunk, out=part)
        total += part
        sums += np.matmul(ones[: len(chunk)], chunk)
    return total, sums


def shifted_scatter(raw: Floats, sums: Floats, count: int, about: float | None) -> Floats:
    """Σ (x−about)(x−about)ᵀ from `exact_sums`; about the mean when None.

    With y = x − 128 and y − c = x − about: Σ (y−c)(y−c)ᵀ = Σ y yᵀ − c (Σy 1ᵀ + 1 Σyᵀ) + n c² 11ᵀ.
    """
    if about is None:
        return raw - sums[:, None] * (sums / count)
    c = about - 128
    return raw - c * (sums[:, None] + sums[None, :]) + c * c * count


def centred_sums(x: TallMatrix) -> tuple[Floats, Floats]:
    """Σ (x−m)(x−m)ᵀ (short, short) and the mean m (short,), float64, safe for means far larger than the signal.

    Each chunk is centred by its own mean before it is multiplied.
    """
    if x.x.dtype == np.uint8 and x.scale == 1:
        raw, sums = exact_sums(x)
        return shifted_scatter(raw, sums, x.long, None), sums / x.long + 128
    total: Sums | None = None
    for _, chunk in x.chunks(np.float64):
        mean = chunk.mean(axis=0)
        centred = chunk - mean
        total = merge_centred(total, (centred.T @ centred, mean, len(chunk)))
    assert total is not None
    return total[0], total[1]


def merge_centred(a: Sums | None, b: Sums) -> Sums:
    """(Σ (x−m)(x−m)ᵀ, m, n) of two sets of samples together (Chan, Golub & LeVeque 1983).

    M = M_a + M_b + (m_b − m_a)(m_b − m_a)ᵀ n_a n_b / n.
    """
    if a is None:
        return b
    count = a[2] + b[2]
    delta = b[1] - a[1]
    return a[0] + b[0] + delta[:, None] * (delta * (a[2] * b[2] / count)), a[1] + delta * (b[2] / count), count


def safe_sums(
    x: TallMatrix, center: bool = False, products: str | None = None, mean: bool = True
) -> tuple[Floats, Floats]:
    """(Σ x xᵀ, mean), or (Σ (x−m)(x−m)ᵀ, mean) when centred, of X times the scale this leaves it with.

    X is rescaled only where its squares would leave the range of a float32: a look at the diagonal tells, and saves
    a pass over X. Raises InputError for NaN and infinities, which the diagonal shows too.
    """
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        found = centred_sums(x) if center else gram_and_mean(x, products, mean)
        top = float(np.diagonal(found[0]).max())  # NaN wins
    if x.x.dtype.kind == "f" and x.scale == 1 and not 1e-20 < top < 1e30:
        x.rescale()
        if x.scale != 1:
            found = centred_sums(x) if center else gram_and_mean(x, products, mean)
    return found
