"""A weight as large as those of networks of seven thousand million parameters: what is shown, in how much memory."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

CODE = """
import json, resource, sys
import ml_dtypes, numpy as np, scipy.linalg
import gpunet as gn

m, n, dtype = 4096, 11008, sys.argv[1]
gn.svd(np.ones((300, 200), "f4"), 3)
rng = np.random.default_rng(0)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
s = np.arange(1, m + 1, dtype="f4") ** -0.5
w = np.zeros((m, n), "f4")
w[np.arange(m), np.arange(m)] = s
for axis, size in ((0, m), (1, n)):  # turned by a reflection from either side, so that it is dense
    v = rng.standard_normal(size).astype("f4")
    v *= np.sqrt(2) / np.linalg.norm(v)
    for start in range(0, m, 256):
        rows = slice(start, start + 256)
        if axis:
            w[rows] -= np.outer(w[rows] @ v, v)
        elif not start:
            image = v @ w
        if not axis:
            w[rows] -= np.outer(v[rows], image)
w = w.astype(dtype, copy=False)
found = gn.svd(w, 64, certify=True)
proof = found.certificate
grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / (4 * m * n)
off = max(abs(found.s / s[:64] - 1))
print(json.dumps([proof.sine, proof.complete, float(proof.beyond), float(off), grown]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rank_64_is_certified_in_less_than_three_times_the_weight(dtype):
    done = subprocess.run([sys.executable, "-c", CODE, dtype], capture_output=True, text=True, check=True)
    sine, complete, beyond, off, grown = json.loads(done.stdout)
    assert complete is True
    assert sine < 1e-3
    rounding = 1e-5 if dtype == "float32" else 2**-8  # of the weight itself, by which its singular values differ
    assert off < rounding
    assert 65**-0.5 * (1 - rounding) < beyond < 64**-0.5
    assert grown < 3
