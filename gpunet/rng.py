"""Random numbers: drawn on the host, so that a seed means the same weights and batches on every device."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunet.checks import is_whole
from gpunet.errors import InputError, shown

# The purposes a seed is split for. Numbers, not hash(): a stream must not change between runs.
WEIGHTS, BATCHES, DATA, LINALG, MASKS, HELD_OUT = range(6)


def stream(seed: int, purpose: int, index: int = 0) -> np.random.Generator:
    """An independent Philox generator for one purpose (and, say, one layer) of a seed ≥ 0."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([check_seed(seed), purpose, index])))


def check_seed(seed: Any) -> int:
    """The seed as Python's int; InputError where it is none."""
    if not is_whole(seed, 0):
        raise InputError(f"a seed is an integer ≥ 0, got {shown(seed)}")
    return int(seed)
