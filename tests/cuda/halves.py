"""bfloat16 in float64's arithmetic: an oracle that knows nothing of float32's bits but how many there are."""

from __future__ import annotations

import numpy as np

DIGITS = 8  # of a bfloat16, the leading one included
NAN = 0x7FC0  # the bits that all NaN become


def half_even(x: np.ndarray, digits: int = DIGITS) -> np.ndarray:
    """x with so many binary digits and float32's range of exponents, in float64; ties to even, NaN stays NaN."""
    with np.errstate(over="ignore", invalid="ignore"):  # the largest round to infinity, and some NaN signal
        x = np.asarray(x, np.float64)
        last = np.maximum(np.frexp(x)[1], -125) - digits  # numbers below 2^-126 have the digits that are left
        return np.ldexp(np.rint(np.ldexp(x, -last)), last).astype(np.float32).astype(np.float64)


def bits(x: np.ndarray) -> np.ndarray:
    """The bfloat16 next to each number, as uint16."""
    found = (half_even(x).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return np.where(np.isnan(x), np.uint16(NAN), found)


def numbers(halves: np.ndarray) -> np.ndarray:
    """What bfloat16 numbers are, in float64."""
    return (halves.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
