"""Multiplications in the matrix products that a training step of a net runs, exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence


def step_products(shape: tuple[int, int], batch: int, rank: int | None = None, needs_dx: bool = True) -> int:
    """Multiplications in the products of a training step of one layer, weight (out, in), on `batch` samples.

    Dense: y = x Wᵀ, dW = dyᵀ x and, where the layer below needs it, dx = dy W. At rank l: h = x Rᵀ, y = h Lᵀ,
    dh = dy L, dL = dyᵀ h, dR = dhᵀ x and dx = dh R; or, where that is less, the dense ones and W = L R, dL = dW Rᵀ,
    dR = Lᵀ dW besides: `LowRankDense` runs the cheaper of the two.
    """
    if rank is None:
        return (2 + needs_dx) * batch * math.prod(shape)
    return min(_apart(shape, batch, rank, needs_dx), _merged(shape, batch, rank, needs_dx))


def merging_pays(shape: tuple[int, int], batch: int, rank: int, needs_dx: bool = True) -> bool:
    """Whether the factored layer multiplies its factors first, which takes memory for W and dW."""
    return _merged(shape, batch, rank, needs_dx) < _apart(shape, batch, rank, needs_dx)


def _apart(shape: tuple[int, int], batch: int, rank: int, needs_dx: bool) -> int:
    return batch * rank * (3 * shape[0] + (2 + needs_dx) * shape[1])


def _merged(shape: tuple[int, int], batch: int, rank: int, needs_dx: bool) -> int:
    return (3 * rank + (2 + needs_dx) * batch) * math.prod(shape)


def step_total(shapes: Sequence[tuple[int, int]], ranks: Sequence[int | None], batch: int) -> int:
    """`step_products` of a net whose layers stand front to back: the first needs no gradient of its input."""
    pairs = zip(shapes, ranks, strict=True)
    return sum(step_products(shape, batch, rank, needs_dx=i > 0) for i, (shape, rank) in enumerate(pairs))


def allowed_step(shapes: Sequence[tuple[int, int]], ranks: Sequence[int | None], batch: int) -> float:
    """`step_total` of the dense net over that of the factored one: the speed-up that the products allow."""
    return step_total(shapes, [None] * len(shapes), batch) / step_total(shapes, ranks, batch)
