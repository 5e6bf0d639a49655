"""What `gn.compress` promises, on real data that it has not seen (slow)."""

from __future__ import annotations

import numpy as np
import pytest

import gpunet as gn

pytestmark = pytest.mark.slow


def test_a_drop_is_kept_on_images_that_nobody_saw(real_data):
    """784-512-256-10 on MNIST, five seeds: half of the test images choose, the other half judge."""
    data = gn.datasets.load("mnist", data_dir=real_data)
    halves = [(data.x_test[i::2], data.y_test[i::2]) for i in (0, 1)]
    drops, shares = [], []
    for seed in range(5):
        model = gn.Sequential([gn.Dense(512, "relu"), gn.Dense(256, "relu"), gn.Dense(10)])
        trainer = gn.Trainer(model, optimizer=gn.Adam(1e-3), device="cpu", seed=seed)
        trainer.fit(data.x_train, data.y_train, epochs=3, batch_size=128)
        small = gn.compress(model, data.x_train[::3], max_drop=0.005, evaluate=halves[0])
        accuracies = [gn.Trainer(m, device="cpu").evaluate(*halves[1])["accuracy"] for m in (model, small)]
        drops.append(accuracies[0] - accuracies[1])
        before, after = small.compression["parameters"]
        shares.append(after / before)
    # 5000 images tell accuracies no better than to 0.2 points: the promise of each, and that of the mean.
    assert max(drops) <= 0.005 + 0.002
    assert np.mean(drops) <= 0.005
    assert np.mean(shares) < 0.3
