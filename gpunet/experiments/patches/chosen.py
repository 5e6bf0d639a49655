"""Which settings suit patches: looked at on held-out training images, never on the test set.

python -m gpunet.experiments.patches.chosen [--dataset NAME] [--patches N] [--samples N] [--seeds N]
"""

from __future__ import annotations

import argparse

from gpunet.checks import check_whole
from gpunet.datasets import load
from gpunet.experiments.framework import Run, told_by
from gpunet.experiments.images import as_images, validation_split
from gpunet.experiments.patches import Settings, x


def main() -> None:
    """Print the accuracy on the held-out images of every setting tried, one changed at a time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--patches", type=int, default=256)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    with told_by(parser):
        images = validation_split(as_images(load(options.dataset), "patches", 3))
        settings = Settings(dictionaries=(options.patches,), sweep_samples=options.samples, head_epochs=0)
        seeds = list(range(check_whole("--seeds", options.seeds)))
        result = Run(x, images, settings, seeds).compute("cpu")
    for name in result.names:
        print(f"{name}: {result.mean(name, 'test_accuracy'):.2%}")


if __name__ == "__main__":
    main()
