"""The two passes of batch normalisation as loops: sums over each channel, and a line a channel; float64 inside.

What a channel's numbers are lies either in rows, as planes of images do, or down the columns, where features have one
number a sample: a loop over the last axis of one would not vectorise for the other.
"""

from __future__ import annotations

from typing import Any

from gpunet.backend.base import Array
from gpunet.backend.numba_cache import kernel


def channel_sums(x: Array, origin: Array, by: Array | None, sums: Array, products: Array) -> None:
    """`NumpyBackend._channel_sums`."""
    sums[...], products[...] = 0, 0
    x, by, columns = _laid_out(x, by)
    if by is None:
        (column_moments if columns else plane_moments)(x, origin, sums, products)
    else:
        (column_products if columns else plane_products)(x, origin, by, sums, products)


def channel_lines(
    x: Array, origin: Array, slope: Array, shift: Array, dy: Array | None, factor: Array, out: Array
) -> None:
    """`NumpyBackend._channel_lines`."""
    out = out.reshape(x.shape[:2]) if x.shape[2] == 1 else out
    x, dy, columns = _laid_out(x, dy)
    if dy is None:
        (column_lines if columns else plane_lines)(x, origin, slope, shift, out)
    else:
        (column_slopes if columns else plane_slopes)(x, origin, slope, shift, dy, factor, out)


def _laid_out(x: Array, other: Array | None) -> tuple[Any, Any, bool]:
    """Both of them as (n, c) where the planes have one number, and whether they have."""
    if x.shape[2] > 1:
        return x, other, False
    return x.reshape(x.shape[:2]), None if other is None else other.reshape(x.shape[:2]), True


@kernel
def column_moments(x, origin, sums, squares):  # type: ignore[no-untyped-def]
    """Sums of x − origin and of its squares, x (n, c)."""
    for i in range(x.shape[0]):
        row = x[i]
        for j in range(sums.size):
            apart = row[j] - origin[j]
            sums[j] += apart
            squares[j] += apart * apart


@kernel
def plane_moments(x, origin, sums, squares):  # type: ignore[no-untyped-def]
    """The same, x (n, c, s)."""
    for i in range(x.shape[0]):
        for k in range(sums.size):
            plane, start, total, square = x[i, k], origin[k], 0.0, 0.0
            for j in range(plane.size):
                apart = plane[j] - start
                total += apart
                square += apart * apart
            sums[k] += total
            squares[k] += square


@kernel
def column_products(x, origin, by, sums, products):  # type: ignore[no-untyped-def]
    """Sums of `by` and of by (x − origin), x and by (n, c)."""
    for i in range(x.shape[0]):
        row, factors = x[i], by[i]
        for j in range(sums.size):
            sums[j] += factors[j]
            products[j] += factors[j] * (row[j] - origin[j])


@kernel
def plane_products(x, origin, by, sums, products):  # type: ignore[no-untyped-def]
    """The same, x and by (n, c, s)."""
    for i in range(x.shape[0]):
        for k in range(sums.size):
            plane, factors, start, total, product = x[i, k], by[i, k], origin[k], 0.0, 0.0
            for j in range(plane.size):
                total += factors[j]
                product += factors[j] * (plane[j] - start)
            sums[k] += total
            products[k] += product


@kernel
def column_lines(x, origin, slope, shift, out):  # type: ignore[no-untyped-def]
    """out = slope (x − origin) + shift, x and out (n, c)."""
    for i in range(x.shape[0]):
        row, target = x[i], out[i]
        for j in range(target.size):
            target[j] = slope[j] * (row[j] - origin[j]) + shift[j]


@kernel
def plane_lines(x, origin, slope, shift, out):  # type: ignore[no-untyped-def]
    """The same, x and out (n, c, s)."""
    for i in range(x.shape[0]):
        for k in range(slope.size):
            plane, target, start, steep, level = x[i, k], out[i, k], origin[k], slope[k], shift[k]
            for j in range(target.size):
                target[j] = steep * (plane[j] - start) + level


@kernel
def column_slopes(x, origin, slope, shift, dy, factor, out):  # type: ignore[no-untyped-def]
    """out = slope (x − origin) + shift + factor dy, all (n, c)."""
    for i in range(x.shape[0]):
        row, given, target = x[i], dy[i], out[i]
        for j in range(target.size):
            target[j] = slope[j] * (row[j] - origin[j]) + shift[j] + factor[j] * given[j]


@kernel
def plane_slopes(x, origin, slope, shift, dy, factor, out):  # type: ignore[no-untyped-def]
    """The same, all (n, c, s)."""
    for i in range(x.shape[0]):
        for k in range(slope.size):
            plane, given, target = x[i, k], dy[i, k], out[i, k]
            start, steep, level, part = origin[k], slope[k], shift[k], factor[k]
            for j in range(target.size):
                target[j] = steep * (plane[j] - start) + level + part * given[j]
