"""Gram matrices of tall data on a GPU, by chunks: what `moments` is on the CPU.

The data stays where it lies, and as it is: a chunk at a time is converted. Bytes are multiplied in float32 and summed
exactly, as on the CPU. Everything else is multiplied in float64, which GPUs made for computing do as fast as float32
(H200: 67 TFLOP/s both, so that 784×784 of 60,000 samples take 1 to 2 ms), others at a 32nd or 64th of that.

Functions take the array namespace as `xp`; rows are picked by an index array on the device, or all with None.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gpunet.errors import InputError
from gpunet.linalg.moments import EXACT_ROWS, Sums, merge_centred

CHUNK_BYTES = 64 << 20
FAR = 2.0**300  # squares of what lies within [1/FAR, FAR] neither overflow nor underflow in float64


def sums(xp: Any, x: Any, rows: Any, center: bool, scale: float = 1.0) -> Sums:
    """(Σ x xᵀ, mean, n), or (Σ (x−m)(x−m)ᵀ, mean, n) when centred, of scale · x (n, features); float64."""
    if x.dtype == xp.uint8:
        raw, first, count = exact_sums(xp, x, rows)
        if center:
            return raw - first[:, None] * (first / count), first / count + 128, count
        return raw + 128 * (first[:, None] + first[None, :]) + 128.0 * 128 * count, first / count + 128, count
    total: Sums | None = None
    for chunk in chunks(xp, x, rows, 8):
        part = xp.astype(chunk, xp.float64) * scale
        count, mean = part.shape[0], xp.mean(part, axis=0)
        if center:  # by its own mean, which may be far larger than the signal
            part = part - mean
            total = merge_centred(total, (xp.matmul(part.T, part), mean, count))
        else:
            product = xp.matmul(part.T, part)
            before = (product, mean, 0) if total is None else total
            whole = before[2] + count
            mean = before[1] + (mean - before[1]) * (count / whole)
            total = (product if total is None else before[0] + product), mean, whole
    assert total is not None
    return total


def exact_sums(xp: Any, x: Any, rows: Any = None) -> Sums:
    """(Σ (x−128)(x−128)ᵀ, Σ (x−128), n) of bytes, exact integers in float64, the bits of `moments.exact_sums`."""
    features = x.shape[1]
    total = xp.zeros((features, features), dtype=xp.float64)
    first, count = xp.zeros(features, dtype=xp.float64), 0
    for chunk in chunks(xp, x, rows, 4 * max(1, features // EXACT_ROWS)):
        shifted = xp.astype(chunk, xp.float32) - 128
        total = total + split_products(xp, shifted)
        first = first + xp.sum(shifted, axis=0, dtype=xp.float64)
        count += shifted.shape[0]
    return total, first, count


def split_products(xp: Any, a: Any) -> Any:
    """AᵀA of a float32 A (n, features): products of EXACT_ROWS rows each, as one stack, summed in float64."""
    whole = a.shape[0] // EXACT_ROWS * EXACT_ROWS
    total: Any = 0.0
    if whole:
        stack = xp.reshape(a[:whole, :], (-1, EXACT_ROWS, a.shape[1]))
        total = xp.sum(xp.matmul(xp.permute_dims(stack, (0, 2, 1)), stack), axis=0, dtype=xp.float64)
    if whole < a.shape[0]:
        rest = a[whole:, :]
        total = total + xp.astype(xp.matmul(rest.T, rest), xp.float64)
    return total


def chunks(xp: Any, x: Any, rows: Any, bytes_each: int) -> Iterator[Any]:
    """Some rows of x at a time, as they are: so many that CHUNK_BYTES hold them at `bytes_each` an element."""
    step = max(EXACT_ROWS, CHUNK_BYTES // (bytes_each * x.shape[1]) // EXACT_ROWS * EXACT_ROWS)
    count = x.shape[0] if rows is None else rows.shape[0]
    for start in range(0, count, step):
        stop = min(start + step, count)
        yield x[start:stop, :] if rows is None else xp.take(x, rows[start:stop], axis=0)


def safe_scale(xp: Any, x: Any, what: str) -> float:
    """The power of two that keeps squares of x (n, features) in range, 1 where they are; reads one number back.

    Raises InputError naming the place of the first NaN or infinity.
    """
    if x.dtype.kind != "f":
        return 1.0
    top = float(xp.max(xp.abs(x)))  # NaN and infinities pass through
    if not np.isfinite(top):
        bad = xp.astype(~xp.isfinite(x), xp.int8)
        row, column = divmod(int(xp.argmax(xp.reshape(bad, (-1,)))), x.shape[1])
        raise InputError(
            f"{what} holds {float(x[row, column])} at [{row}, {column}]: expected finite numbers; remove or replace "
            "such values"
        )
    return 1.0 if 1 / FAR < top < FAR or not top else float(2.0 ** -np.clip(np.frexp(top)[1], -1000, 1000))
