"""Group features: a convolution with thousands of filters of both signs, ReLU, and averages over four large windows.

What single-layer nets on CIFAR-10 have as features; "products" are those of the convolution alone, for half of the
filters, since the other half's are the same negated.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import gpunet as gn
from gpunet.backend import get_backend, why_no_numba
from gpunet.bench.harness import Contender, Work, lacking

KERNEL, POOL, STRIDE = 6, 14, 13
MAP = 32 - KERNEL + 1
WHO = {"numpy": "ours", "numba": "ours", "torch": "rival", "torch channels_last": "rival", "products": "floor"}
BATCHES = {"torch": 2, "torch channels_last": 1}  # images at a time, the best of 1 to 60 with 4096 filters


def work(images, filters, who):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((images, 3, 32, 32)).astype(np.float32)
    half = rng.standard_normal((filters // 2, 3, KERNEL, KERNEL)).astype(np.float32)
    weight, bias = np.concatenate([half, -half]), np.full(filters, -1, np.float32)
    if who == "products":
        patches, rows = (
            rng.standard_normal((images * MAP**2, 3 * KERNEL**2)).astype(np.float32),
            half.reshape(len(half), -1),
        )
        maps = np.empty((len(patches), min(len(half), 1024)), np.float32)
        parts = [rows[start : start + maps.shape[1]] for start in range(0, len(rows), maps.shape[1])]
        return Work(lambda pieces: [np.matmul(patches, each.T, maps[:, : len(each)]) for each in parts * pieces])
    conv = gn.Conv2D(filters, KERNEL, "relu", pool=POOL, pooling="average", pool_stride=STRIDE, trainable=False)
    model = gn.Sequential([conv, gn.Flatten()])
    model.build(x.shape[1:], get_backend("numpy" if who == "numpy" else "cpu"))
    model.parameters["0.weight"][...], model.parameters["0.bias"][...] = weight, bias
    found = {}
    if who.startswith("torch"):
        run = in_torch(model, x, BATCHES[who], who.endswith("last"), found)
    else:
        model.bind(images)
        model.set_batch_size(images)

        def run(pieces):
            for _ in range(pieces):
                found["mean_feature"] = float(model.forward(x).mean(dtype=np.float64))

    return Work(run, lambda: found)


def in_torch(model, x, batch, channels_last, found):
    import torch

    layout = torch.channels_last if channels_last else torch.contiguous_format
    network, images = (each.to(memory_format=layout) for each in (gn.to_torch(model), torch.from_numpy(x)))

    def run(pieces):
        with torch.inference_mode():
            for _ in range(pieces):
                features = torch.cat([network(part) for part in images.split(batch)])
                found["mean_feature"] = float(features.mean(dtype=torch.float64))

    return run


@pytest.mark.benchmark(group="features")
@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("case", [pytest.param((10, 64), marks=pytest.mark.smallest), (100, 4096)])
def test_features(timed, case, who):
    missing = {"numba": why_no_numba() or ""}.get(who, lacking("torch") if who.startswith("torch") else "")
    images, filters = case
    timed(who, Contender(partial(work, images, filters, who), WHO[who], missing), f"{images} images, {filters} filters")
