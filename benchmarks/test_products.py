"""Group products: x Wᵀ and eigenvectors on one BLAS thread, on as many as gpunet gives them, and on all there are.

What `PER_THREAD` of `gpunet.backend.blas` was read from; on a quiet machine, since threads wait for each other.
"""

from __future__ import annotations

import numpy as np
import pytest
from conftest import contests
from threadpoolctl import threadpool_limits

from gpunet.backend.blas import limited, multiply, thread_rule
from gpunet.bench.entrants import Entrant

PRODUCTS = [(128, 64, 128), (256, 64, 256), (256, 64, 512), (512, 64, 784), (512, 256, 784)]  # k, n, d
EIGEN = [128, 200, 256, 400]
ONE, OURS, ALL = Entrant("one thread", "rival"), Entrant("gpunet", "ours"), Entrant("all threads", "rival")
REPEATS = 20


@pytest.mark.benchmark(group="products")
@pytest.mark.parametrize(("case", "entrant"), contests([*PRODUCTS, *EIGEN], [ONE, OURS, ALL], PRODUCTS[0]))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_product(race, dtype, case, entrant):
    rng = np.random.default_rng(0)
    if isinstance(case, tuple):
        units, samples, features = case
        x, weight = (rng.standard_normal((rows, features)).astype(dtype) for rows in (samples, units))
        out, size = np.empty((samples, units), dtype), units * samples * features
        ours, plain = lambda: multiply(size, x, weight.T, out), lambda: np.matmul(x, weight.T, out=out)
    else:
        a = rng.standard_normal((case, case)).astype(dtype)
        a += a.T
        size = case**3
        ours, plain = lambda: limited(size, np.linalg.eigh, a), lambda: np.linalg.eigh(a)
    call = ours if entrant is OURS else plain

    def work():
        for _ in range(REPEATS):
            call()

    with threadpool_limits(1 if entrant is ONE else None, user_api="blas"):
        race(entrant, f"{case} {dtype}", work, pieces=REPEATS, multiplications=size, rule=thread_rule())
