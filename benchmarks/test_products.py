"""Group products: x Wᵀ and eigenvectors on one BLAS thread, on as many as gpunet gives them, and on all there are.

What `PER_THREAD` of `gpunet.backend.blas` was read from; on a quiet machine, since threads wait for each other.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from gpunet.backend.blas import limited, multiply
from gpunet.bench.harness import Contender, Work

PRODUCTS = [(128, 64, 128), (256, 64, 256), (256, 64, 512), (512, 64, 784), (512, 256, 784)]  # k, n, d
EIGEN = [128, 200, 256, 400]
ROLES = {"one thread": "rival", "gpunet": "ours", "all threads": "rival"}
REPEATS = 20


def work(case, dtype, ours):
    rng = np.random.default_rng(0)
    if isinstance(case, tuple):
        units, samples, features = case
        x, weight = (rng.standard_normal((rows, features)).astype(dtype) for rows in (samples, units))
        out, size = np.empty((samples, units), dtype), units * samples * features
        call = partial(multiply, size, x, weight.T, out) if ours else partial(np.matmul, x, weight.T, out=out)
    else:
        a = rng.standard_normal((case, case)).astype(dtype)
        call = partial(limited, case**3, np.linalg.eigh, a + a.T) if ours else partial(np.linalg.eigh, a + a.T)
    return Work(lambda pieces: [call() for _ in range(pieces)])


@pytest.mark.benchmark(group="products")
@pytest.mark.parametrize("who", ROLES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", [pytest.param(PRODUCTS[0], marks=pytest.mark.smallest), *PRODUCTS[1:], *EIGEN])
def test_product(timed, case, dtype, who):
    contender = Contender(partial(work, case, dtype, who == "gpunet"), ROLES[who])
    with threadpool_limits(1 if who == "one thread" else None, user_api="blas"):
        timed(who, contender, f"{case} {dtype}", pieces=REPEATS)
