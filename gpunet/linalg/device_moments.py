"""Moments of tall data on a GPU, by chunks: where `moments` needs to know that it computes there.

The data stays where it lies, and as it is: a chunk at a time is converted. Bytes are multiplied in float32 and summed
exactly, as on the CPU. Everything else is multiplied in float64, which GPUs made for computing do as fast as float32
(H200: 67 TFLOP/s both, so that 784×784 of 60,000 samples take 1 to 2 ms), others at a 32nd or 64th of that.

Functions take the array namespace as `xp`; rows are picked by an index array on the device, or all with None.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunet.checks import on_host
from gpunet.errors import InputError
from gpunet.linalg.moments import EXACT_ROWS, Centred, Sums, blocks, chunks, from_exact, split_products

CHUNK_BYTES = 64 << 20
FAR = 2.0**150  # fourth powers of what lies within [1/FAR, FAR], and what residuals are of them, are float64


def sums(xp: Any, x: Any, rows: Any = None, scale: float = 1.0, root: bool = False) -> Centred:
    """The moments of scale · x (n, features), or of some rows of it; bytes, which no scale changes, exactly."""
    if x.dtype == xp.uint8:
        return from_exact(*exact_sums(xp, x, rows), xp)
    return blocks(xp, x, rows, scale, CHUNK_BYTES, root)


def exact_sums(xp: Any, x: Any, rows: Any = None) -> Sums:
    """(Σ (x−128)(x−128)ᵀ, Σ (x−128), n) of bytes, exact integers in float64, the bits of `moments.exact_sums`."""
    features = x.shape[1]
    total = xp.zeros((features, features), dtype=xp.float64)
    first, count = xp.zeros(features, dtype=xp.float64), 0
    for chunk in chunks(xp, x, rows, 4 * max(1, features // EXACT_ROWS), CHUNK_BYTES):
        shifted = xp.astype(chunk, xp.float32) - 128
        total = total + split_products(xp, shifted)
        first = first + xp.sum(shifted, axis=0, dtype=xp.float64)
        count += shifted.shape[0]
    return total, first, count


def largest(xp: Any, x: Any, what: str, rows: Any = None) -> float:
    """max|x| of x (n, features), or of some rows; all that is read back is two numbers a chunk, at once.

    Raises InputError naming the place of the first NaN or infinity.
    """
    if x.dtype == xp.uint8:
        return 255.0
    parts = chunks(xp, x, rows, x.dtype.itemsize, CHUNK_BYTES)
    ends = xp.stack([end for part in parts for end in (xp.max(part), xp.min(part))])
    top = float(np.max(np.abs(on_host(ends).astype(np.float64))))  # NaN wins
    if not np.isfinite(top):
        bad = xp.astype(~xp.isfinite(x), xp.int8)
        row, column = divmod(int(xp.argmax(xp.reshape(bad, (-1,)))), x.shape[1])
        raise InputError(
            f"{what} holds {float(x[row, column])} at [{row}, {column}]: expected finite numbers; remove or replace "
            "such values"
        )
    return top


def safe_scale(top: float) -> float:
    """The power of two that brings numbers of up to `top` near 1; 1 where fourth powers are in range anyway."""
    return 1.0 if 1 / FAR < top < FAR or not top else float(2.0 ** -np.clip(np.frexp(top)[1], -1000, 1000))
