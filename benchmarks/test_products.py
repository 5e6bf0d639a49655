"""Group products: x Wᵀ and eigenvectors on one BLAS thread, on as many as gpunet gives them, and on all there are.

What `PER_THREAD` of `gpunet.backend.blas` was read from; on a quiet machine, since threads wait for each other.

Group bfloat16: products of a step in mixed precision, and the same numbers in float32, by every library that can.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from gpunet.backend.base import ScratchPool
from gpunet.backend.blas import limited, multiply
from gpunet.backend.onednn import engine, upper_half
from gpunet.bench.harness import Contender, Work, lacking

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


# What the table of `gpunet.backend.onednn` was read from: 784-512-256-10's products, by layer.
SIDES = {"x Wᵀ, 1st": (784, 512), "dzᵀ x, 1st": (784, 512), "dz W, 2nd": (512, 256)}  # inputs, outputs
BATCHES = [f"{samples} {side}" for samples in (64, 2048) for side in SIDES]
ROUNDED = {
    "OpenBLAS float32": "rival", "oneDNN float32": "rival", "oneDNN bfloat16": "ours", "torch bfloat16": "rival",
    "numkong bfloat16": "rival",
}  # fmt: skip


def operands(samples, side):
    """a and b of a bᵀ, as the step has them: views that are transposed where it transposes; bfloat16 holds each."""
    inputs, outputs = SIDES[side]
    rng = np.random.default_rng(0)
    x, dz, weight = (
        upper_half(rng.standard_normal(shape).astype(np.float32))
        for shape in ((samples, inputs), (samples, outputs), (outputs, inputs))
    )
    return {"x Wᵀ, 1st": (x, weight), "dzᵀ x, 1st": (dz.T, x.T), "dz W, 2nd": (dz, weight.T)}[side]


def widened(a):
    """The same numbers in float32, as they lie."""
    return (a.T.astype(np.uint32) << 16).view(np.float32).T if a.flags.f_contiguous else widened(a.T).T


def rounded_work(samples, side, who):
    a, b = operands(samples, side)
    out = np.empty((len(a), len(b)), np.float32)
    library, _, dtype = who.partition(" ")
    if dtype == "float32":
        a, b = widened(a), widened(b)
    if library == "OpenBLAS":
        call = partial(np.matmul, a, b.T, out=out)
    elif library == "oneDNN":
        call = partial(engine()[0].product, ScratchPool(), a, b, out, transpose_b=True)
    elif library == "torch":
        import torch

        left, right = (torch.from_numpy(each.view(np.int16)).view(torch.bfloat16) for each in (a, b.T))
        into = torch.empty(out.shape, dtype=torch.bfloat16)  # which is all that it gives
        call = partial(torch.mm, left, right, out=into)
    else:
        import numkong

        left, right = (numkong.Tensor(np.ascontiguousarray(each), dtype="bf16") for each in (a, b))
        into = numkong.zeros(out.shape, dtype="float32")

        def call():  # a step has other operands each time
            numkong.dots_packed(left, numkong.dots_pack(right, dtype="bf16"), out=into)

    def reached():
        found = into.float().numpy() if library == "torch" else np.asarray(into) if library == "numkong" else out
        return {"mean_feature": float(np.abs(found).mean())}

    return Work(lambda pieces: [call() for _ in range(pieces)], reached)


def lacks(who):
    library = who.split()[0]
    return engine()[1] if library == "oneDNN" else "" if library == "OpenBLAS" else lacking(library)


@pytest.mark.benchmark(group="bfloat16")
@pytest.mark.parametrize("who", ROUNDED)
@pytest.mark.parametrize("case", [pytest.param("64 x Wᵀ, 1st", marks=pytest.mark.smallest), *BATCHES[1:]])
def test_product_of_bfloat16(timed, case, who):
    """On one thread, where nothing waits for another."""
    samples, side = int(case.partition(" ")[0]), case.partition(" ")[2]
    contender = Contender(partial(rounded_work, samples, side, who), ROUNDED[who], lacks(who))
    with threadpool_limits(1):
        timed(who, contender, case, pieces=REPEATS if samples > 64 else 20 * REPEATS)
