"""Random numbers: drawn on the host, so that a seed means the same weights and batches on every device."""

from __future__ import annotations

import numpy as np

from gpunet.errors import InputError, shown

# The purposes a seed is split for. Numbers, not hash(): a stream must not change between runs.
WEIGHTS, BATCHES, DATA, LINALG = range(4)


def stream(seed: int, purpose: int, index: int = 0) -> np.random.Generator:
    """An independent Philox generator for one purpose (and, say, one layer) of a seed ≥ 0."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise InputError(f"a seed is an integer ≥ 0, got {shown(seed)}")
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([int(seed), purpose, index])))
