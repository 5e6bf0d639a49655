"""Random image patches, whitened, as features of a linear classifier (Thiry, Arbel, Belilovsky & Oyallon, 2021).

Draws patches from the training images, whitens them, encodes every patch of an image by those that it resembles, pools
the encodings and classifies them linearly, in closed form, without a gradient; a head by Adam stands beside it. Several
dictionaries, and several strengths of whitening; none at all as the counter-example.

On your own images: `gpunet run patches --dataset FOLDER`, where FOLDER holds a folder of images for every class.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpunet.experiments import framework
from gpunet.experiments.framework import Choice, Experiment, Job, Needs, Paper, option

PAPER = Paper(
    "005", "L. Thiry, M. Arbel, E. Belilovsky, E. Oyallon",
    "The Unreasonable Effectiveness of Patches in Deep Convolutional Kernels Methods", "ICLR 2021, arXiv 2101.07528",
    (
        "A dictionary of image patches drawn at random, whitened, is enough for features on which a linear classifier "
        "competes with deep kernel methods.",
        "Whitening is the key ingredient, best with a small regularisation near 1e-3.",
        "Accuracy grows with the dictionary: on CIFAR-10 from 78.4 % with 512 patches to 85.9 % with 65,536.",
    ),
    (
        Choice("The classifier is a batch-normalised, convolutional one, trained by SGD for 80 epochs.",
               "Ridge regression in closed form, its penalty chosen on held-out training images; a linear one by Adam "
               "on the same features beside it."),
        Choice("A patch is encoded by the 40 % nearest of the dictionary and its negatives, or by a threshold.",
               "By how far ±⟨z, d⟩ exceeds a threshold: a convolution with ReLU."),
        Choice("Encodings are averaged over 5×5 pixels with stride 3.", "Over 2×2 windows that cover the image."),
        Choice("A dictionary is drawn at random.",
               "Drawn at random, then eight rounds of gain-shape k-means; without them in the table of settings."),
        Choice("Training images are not augmented.",
               "In photos a patch and its mirror image are one feature; on digits they are not."),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Settings(framework.Settings):
    """Of a run; None: what suits the data."""

    dictionaries: tuple[int, ...] = option(
        (256, 512, 1024), "Patches of a dictionary; may be given several times.", flags=("--patches", "-p"),
        usual="256 512 1024",
    )  # fmt: skip
    size: int | None = option(None, "Rows and columns of a patch.", usual="6, mnist 10, or half of a smaller image")
    whitening: float | None = option(
        None, "ε of (C + ε)^−½, C the patches' covariance, pixels from 0 to 1.", above=0, usual="0.001, mnist 0.3"
    )
    whitenings: tuple[float, ...] = option((0.1, 0.01, 1e-3, 1e-4, 1e-5), above=0, empty=True)
    threshold: float = option(
        0.3, "What ±⟨z, d⟩ has to exceed to count, in its standard deviations over all patches.", least=0
    )
    grid: int | None = option(None, "Windows a side that encodings are averaged over.", usual="2, mnist 4")
    mirrored: bool | None = option(
        None, "A patch and its mirror image are one feature.", usual="of colour images, not of others",
        flags=("--mirrored/--no-mirrored",),
    )  # fmt: skip
    refinements: int = option(8, "Rounds of gain-shape k-means on a dictionary that was drawn at random.", least=0)
    head_epochs: int = option(
        20,
        "Epochs of a head by Adam on the smallest dictionary, to compare, where its features fit into 2 GiB; 0: none.",
        least=0,
        sweep=0,
    )
    head_rate: float = option(1e-3, above=0)
    head_decay: float = option(1 / 10, above=0, most=1)  # of its rate, from the first epoch to after the last
    head_batch: int = 128
    sweeps: bool = option(True, "Accuracy by ε, threshold, windows, size, mirror images and k-means.", sweep=False)
    sweep_samples: int = option(10_000, "Training images of the runs that change one setting.", least=100)


x = Experiment(
    "patches", "random image patches, whitened, and a linear classifier in closed form", PAPER, Settings,
    full=[Job(("cifar10",), seeds=3, seconds=1700, pieces=29)],
    quick=[Job(("digits",), seeds=1, seconds=12, pieces=26, settings={"dictionaries": (64, 128)})],
    package=__name__,
    needs=Needs(images=3),
    searched="threshold=0..1",
)  # fmt: skip
