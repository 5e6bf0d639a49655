"""Group sums: Gram matrices of bytes by BLAS and by an integer engine, of floats plainly and reproducibly."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import gpunet as gn
from gpunet.backend import integers
from gpunet.bench.harness import Contender, Work

SAMPLES, FEATURES = 20_000, 784
ROLES = {"gpunet": "ours", "BLAS": "rival", "reproducible": "ours", "plain": "rival"}


def work(x, who):
    def run(pieces):
        with pytest.MonkeyPatch.context() as patch:
            if who == "BLAS":
                patch.setattr(integers, "numkong", lambda: None)
            for _ in range(pieces):
                gn.StreamingGram(reproducible=who == "reproducible").update(x)

    return Work(run)


@pytest.mark.benchmark(group="sums")
@pytest.mark.parametrize(
    ("case", "who"),
    [
        *(pytest.param("uint8", who, marks=pytest.mark.smallest) for who in ("gpunet", "BLAS")),
        *((case, who) for case in ("float32", "float64") for who in ("reproducible", "plain")),
    ],
)
def test_sums(timed, case, who):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (SAMPLES, FEATURES), dtype=np.uint8)
    x = x if case == "uint8" else rng.standard_normal(x.shape).astype(case)
    timed(who, Contender(partial(work, x, who), ROLES[who]), f"{SAMPLES}×{FEATURES} {case}")
