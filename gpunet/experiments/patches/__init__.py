"""Random image patches, whitened, as features of a linear classifier (Thiry, Arbel, Belilovsky & Oyallon, 2021).

Draws patches from the training images, whitens them, encodes every patch of an image by those that it resembles, pools
the encodings and classifies them linearly, in closed form. No gradient is computed anywhere. Several dictionaries, and
several strengths of whitening; none at all as the counter-example.

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
               "Ridge regression in closed form, its penalty chosen on held-out training images."),
        Choice("A patch is encoded by the 40 % nearest of the dictionary and its negatives, or by a threshold.",
               "The threshold, 0.07 on the whitened cosine, for both signs."),
        Choice("Encodings are averaged over 5×5 pixels with stride 3.", "Over the fields of a 3×3 grid."),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Settings(framework.Settings):
    """Of a run; size, None: the document's 6 pixels, or half of a smaller image."""

    dictionaries: tuple[int, ...] = option(
        (256, 512), "Patches of a dictionary; may be given several times.", flags=("--patches", "-p"), usual="256 512"
    )
    size: int | None = option(None, "Rows and columns of a patch.", usual="6, or half of a smaller image")
    whitening: float = option(1e-3, "ε of (C + ε)^−½, C the patches' covariance, pixels from 0 to 1.", above=0)
    whitenings: tuple[float, ...] = option((0.1, 0.01, 1e-3, 1e-4, 1e-5), above=0, empty=True)
    threshold: float = option(
        0.07, "Least |cosine| of a whitened patch and a dictionary's that counts.", least=0, below=1
    )
    grid: int = option(3, "Fields a side that encodings are averaged over.")
    sweep_samples: int = option(10_000, "Training images of the runs that compare whitenings.", least=100)


x = Experiment(
    "patches", "random image patches, whitened, and a linear classifier in closed form", PAPER, Settings,
    full=[Job(("cifar10",), seeds=3, seconds=1000, pieces=9)],
    quick=[Job(("digits",), seeds=1, seconds=3, pieces=9, settings={"dictionaries": (64, 128)})],
    package=__name__,
    needs=Needs(images=3),
)  # fmt: skip
