"""Products and sums of stacks (B, m, n) as a GPU does them fast; on NumPy what its own functions give, to the bit.

CuPy 14.2 copies each operand of a product of stacks that is not C-contiguous, a transpose above all, but hands those
of two matrices to cuBLAS as they lie (`_core/_routines_linalg.pyx`: `matmul`, `dot`). And it reduces each matrix of a
stack in one block of threads, but a whole array in as many as the GPU holds (`cuda/cub.pyx`: `cub_reduction`).
"""

from __future__ import annotations

from typing import Any

import numpy as np


def product(xp: Any, a: Any, b: Any) -> Any:
    """a b (B, m, p) of a (B, m, n) and b (B, n, p)."""
    if xp is np or max(a.shape[0], b.shape[0]) > 1:
        return xp.matmul(a, b)
    return xp.matmul(a[0, ...], b[0, ...])[None, ...]


def inner(xp: Any, a: Any, b: Any) -> Any:
    """aᵀb (B, m, p) of a (B, n, m) and b (B, n, p)."""
    return product(xp, xp.permute_dims(a, (0, 2, 1)), b)


def squares(xp: Any, a: Any) -> Any:
    """(B,): ‖a‖_F² of each matrix."""
    return _of_each(xp, xp.sum, a * a)


def largest(xp: Any, a: Any) -> Any:
    """(B,): max|a| of each matrix; NaN and infinities show. On a GPU nothing of the size of a is made."""
    if xp is np:
        return xp.max(xp.abs(a), axis=(1, 2))
    return xp.maximum(_of_each(xp, xp.max, a), -_of_each(xp, xp.min, a))


def _of_each(xp: Any, reduce: Any, a: Any) -> Any:
    """(B,): of each matrix; several of them line by line first, each line in a block of its own."""
    if xp is np:
        return reduce(a, axis=(1, 2))
    if a.shape[0] == 1:
        return xp.reshape(reduce(a), (1,))
    return reduce(reduce(a, axis=2), axis=1)
