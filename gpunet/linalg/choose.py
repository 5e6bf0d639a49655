"""Which routes to try, in which order."""

from __future__ import annotations

METHODS = ("auto", "full", "gram", "subspace", "randomized", "qr")
CUDA_METHODS = ("auto", "gesvdj", "gesvda", "gram", "gesvd")


def cpu_routes(method: str, long: int, short: int, k: int, exact: bool) -> tuple[str, ...]:
    """The routes to try in turn for X (long, short) and k triples; `exact` where float32 products lose nothing.

    Measured on two cores of a Xeon with OpenBLAS (seconds, both sides, float32 unless said), by hand on 2026-11-21
    beside other work, so good to a factor of 1.5; the thresholds between these points are judgement:

    | long × short, k          | gram  | subspace | randomized | qr   | full |
    |--------------------------|-------|----------|------------|------|------|
    | 60000 × 784, 100         | 0.36  | 0.58     | 1.2        | 3.1  | 10.3 |
    | 60000 × 784, 10          |       | 0.29     |            |      |      |
    | 4096 × 4096, 256         | > 7   | 32       | 4.0        |      | 19   |
    | eigen step alone, 784, 10| 0.050 | 0.012    |            |      |      |
    """
    gram = ("gram",) if exact else ("gram", "gram64")
    if method == "gram":
        return gram
    if method != "auto":
        return (method,)
    if short <= 32 and long <= 16 * short:
        return "full", "qr"
    safe = ("qr", "full") if long >= 2 * short else ("full",)
    if short >= 1024 and 10 * k <= short:
        return "randomized", *gram, *safe
    if short >= 200 and 30 * k <= short:
        return "subspace", *gram, *safe
    if long < 2 * short and 4 * k > short:
        return "full", "qr"
    return *gram, *safe


def cuda_routes(method: str, long: int, short: int, k: int, batch: int) -> tuple[str, ...]:
    """The routes to try in turn for a stack on a GPU. From cuSOLVER's documented limits and counts of multiplications.

    gesvdjBatched takes up to 32×32. gesvdaStridedBatched is made for stacks of tall matrices and few triples, but works
    on Gram matrices of float32 itself: it comes first only where we have no iteration for few triples (`eigen_stack`).
    """
    if method != "auto":
        return (method,)
    if long <= 32:
        return "gesvdj", "gram", "gesvd"
    if batch > 1 and long >= 4 * short and 4 * k <= short < 200:
        return "gesvda", "gram", "gesvd"
    return "gram", "gesvd"
