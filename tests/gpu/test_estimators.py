"""The estimators on a GPU: what they are given may lie there, and they find what they find on the CPU."""

from __future__ import annotations

import numpy as np
import pytest

import gpunet as gn


@pytest.fixture
def x(rng):
    return rng.normal(size=(40, 6)) + np.repeat(np.eye(2, 6) * 4, 20, axis=0)


Y = np.repeat(["b", "a"], 20)


def test_components(gpu, x):
    held = gpu.backend().asarray(x)
    for cpu, other in ((gn.PCA(3), gn.PCA(3, device="cuda")), (gn.ClassPCA(2), gn.ClassPCA(2, device="cuda"))):
        expected = cpu.fit(x, Y).transform(x)
        np.testing.assert_allclose(other.fit(held, Y).transform(held), expected, atol=1e-10)
    batches = gn.PCA(3, device="cuda").partial_fit(held[:25]).partial_fit(held[25:])
    np.testing.assert_allclose(batches.transform(x), gn.PCA(3).fit(x).transform(x), atol=1e-10)


def test_networks(gpu, x):
    held, weights = gpu.backend().asarray(x), np.linspace(0.5, 2, 40)
    options = {"epochs": 3, "batch_size": 20, "dtype": "float64"}
    for kind, y in ((gn.Classifier, Y), (gn.Regressor, x[:, 0])):
        cpu = kind((4,), device="cpu", **options).fit(x, y, sample_weight=weights)
        other = kind((4,), device="cuda", **options).fit(held, y, sample_weight=weights)
        outputs = "predict_proba" if kind is gn.Classifier else "predict"
        np.testing.assert_allclose(getattr(other, outputs)(held), getattr(cpu, outputs)(x), atol=1e-10)
