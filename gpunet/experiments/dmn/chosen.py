"""Which learning rates suit DMN heads and ConvNets: looked at on a validation split of CIFAR-10's training images.

python -m gpunet.experiments.dmn.chosen [--seeds N]: 45,000 images to train on, 5,000 to look at, none of the test set.
"""

from __future__ import annotations

import argparse

import numpy as np

from gpunet.backend import get_backend
from gpunet.checks import check_whole
from gpunet.datasets import load
from gpunet.experiments.dmn import Settings, x
from gpunet.experiments.dmn.nets import KERNEL, filters, train_convnet, train_dmn
from gpunet.experiments.framework import Run, told_by
from gpunet.experiments.images import as_images, validation_split
from gpunet.progress import Progress
from gpunet.spectral.fitted import Thresholds

EPOCHS = 5
TRIED = [(1e-3, 1.0), (3e-4, 1.0), (1e-3, 0.7), (1e-3, 0.5)]  # learning rate, its decay every epoch


def main() -> None:
    """Print the accuracy on the held-out images of every setting tried."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    with told_by(parser):
        seeds = list(range(check_whole("--seeds", options.seeds)))
        images = validation_split(as_images(load("cifar10"), "dmn", KERNEL))
    backend = get_backend("cpu")
    for rate, decay in TRIED:
        settings = Settings(epochs=EPOCHS, long=1, learning_rate=rate, head_decay=decay**EPOCHS)
        run, found = Run(x, images, settings, seeds), []
        run.backend, run.bar = backend, Progress()
        for seed in run.seeds:
            dmn = train_dmn(run, [Thresholds(0.998, fraction=0.7)], seed, closed_form=False)
            convnet = train_convnet(run, filters(dmn), seed, decay)
            found.append([net.curves["test_accuracy"][-1] for net in (dmn, convnet)])
        dmn_accuracy, convnet_accuracy = 100 * np.mean(found, axis=0)
        print(f"rate {rate:g}, decay {decay:g}: DMN {dmn_accuracy:.2f} %, ConvNet {convnet_accuracy:.2f} %", flush=True)


if __name__ == "__main__":
    main()
