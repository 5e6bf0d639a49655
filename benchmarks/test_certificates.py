"""Group certificates: decompositions whose certificate is read, beside the same ones that make none.

What a certificate may cost: a tenth of the time at 784×60000 to rank 100, a quarter at 500×200.
"""

from __future__ import annotations

import sys
from functools import partial
from unittest import mock

import numpy as np
import pytest

import gpunet as gn
from gpunet.bench.harness import Contender, Work

CASES = [
    (500, 200, 20, "float64", 20),
    *((500, 200, k, dtype, 20) for k in (5, None) for dtype in ("float32", "float64")),
]
CASES += [(60_000, 784, 100, dtype, 1) for dtype in ("uint8", "float32")]
ROLES = {"none": "rival", "certificate": "ours"}


def work(rows, columns, k, dtype, read):
    rng = np.random.default_rng(0)
    decay = np.arange(1, columns + 1, dtype=np.float32) ** -0.7
    mix = np.linalg.qr(rng.standard_normal((columns, columns), dtype=np.float32))[0]
    a = (rng.standard_normal((rows, columns), dtype=np.float32) * decay) @ mix
    a = (a / np.abs(a).max() * 127 + 128).astype(dtype)
    engine = sys.modules["gpunet.linalg.svd"]

    def call(pieces):
        for _ in range(pieces):
            if read:
                gn.svd(a, k).certificate.sine  # noqa: B018
            else:
                with mock.patch.object(engine, "_proof", return_value=None):
                    gn.svd(a, k)

    return Work(call)


@pytest.mark.benchmark(group="certificates")
@pytest.mark.parametrize("who", ROLES)
@pytest.mark.parametrize("case", [pytest.param(CASES[0], marks=pytest.mark.smallest), *CASES[1:]])
def test_certificate(timed, case, who):
    rows, columns, k, dtype, pieces = case
    contender = Contender(partial(work, rows, columns, k, dtype, who == "certificate"), ROLES[who])
    timed(who, contender, f"{rows}×{columns} to {k} {dtype}", pieces=pieces)
