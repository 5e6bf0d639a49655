"""Convolutional layers computed by class-based PCA, only the classifier is trained (document 002, Dehmamy et al.).

Fits one and two layers of several widths, trains ConvNets of the same filters, and puts Figures 1 to 3 beside
ours, with the time to fit against the time to train. Filters follow from T_v: `--variance 0.99,0.95`.

On your own images: `gpunet run dmn --dataset FOLDER`, where FOLDER holds a folder of images for every class.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpunet.errors import InputError
from gpunet.experiments import framework
from gpunet.experiments.framework import OF_PRECISION, Choice, Experiment, Job, Needs, Paper, Precision, option

PAPER = Paper(
    "002", "N. Dehmamy, N. Rohani, A. Katsaggelos",
    "Direct Estimation of Weights and Efficient Training of Deep Neural Networks without SGD", "paper",
    (
        "Weights near convergence spread along the leading eigenvectors of each class's density matrix, so a layer "
        "can be computed by a class-based PCA instead of trained.",
        "One or two convolutional layers made this way, with a trained classifier on top, are within a point of a "
        "ConvNet on MNIST and better than it on CIFAR-10.",
        "Lower layers converge first, the density matrix settles as 1/N, and a part of the data suffices.",
    ),
    (
        Choice("The authors' early code swaps the two thresholds and drops the component that crosses T_v.",
               "As in the text: T_v is the share of the variance, T_PC the limit of the correlation."),
        Choice("How long heads and ConvNets train, and at which rate, is not stated.",
               "Adam 1e-3 at batch 64 for both; heads with a falling rate, chosen on a validation split. "
               "ConvNets are also shown after three times as many epochs."),
        Choice("Both sides are \"trained using SGD\", of no stated rate, epochs or pixels; the authors' early code has "
               "Adam, 50 epochs, and standardised maps without ReLU.",
               "Two layers on CIFAR-10 are judged by plain SGD at 0.01, Keras' default, on both sides after 50 epochs. "
               "Beside it stand 5 epochs, RMSprop, Adam, standardised maps, both signs of each vector, raw pixels."),
        Choice("An eigenvector's sign is free, and a ReLU tells w from −w.",
               "The largest element is positive; beside it both signs of half as many vectors."),
        Choice("Figure 3 gives numbers of filters, but not the T_v behind them.",
               "Filters follow from our T_v; rows are named by what came out."),
        Choice("CIFAR-10 here is made of JPEG copies of its images.", "Accuracies may differ by a point for that."),
    ),
)  # fmt: skip

Shares = tuple[float, ...]  # T_v of each layer


def _shares(text: str) -> Shares:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--variance is {text!r}: expected a share a layer, by comma, say 0.99,0.95") from None


@dataclass(frozen=True)
class Settings(framework.Settings):
    """None stands for the data set's own; of epochs 5, or on small data more, towards 1,500 steps."""

    epochs: int | None = option(None, "Epochs of training.", usual="5, more of fewer samples")
    widths: tuple[Shares, ...] | None = option(
        None, "Shares of the variance that a layer's filters explain, by comma one a layer; may be given several "
        "times, a net each.",
        usual="several widths, one and two layers", metavar="T_V[,T_V]", flags=("--variance",), above=0, most=1,
        read=lambda texts: tuple(map(_shares, texts)),
    )  # fmt: skip
    correlation: float = option(
        0.9, "T_PC: of two vectors of different classes with a larger |cosine| one is kept.", above=0, most=1
    )
    fraction: float | None = option(
        None, "T_frac: the share of the data that is used.", usual="mnist 0.4, cifar10 0.7, else 1", above=0, most=1
    )
    center: bool = option(False, "Covariance about each class's mean, not density.")
    long: int = 3  # ConvNets go on for so many times the epochs
    batch_size: int = 64
    learning_rate: float = option(1e-3, above=0)
    precision: Precision = option("float32", OF_PRECISION)
    head_decay: float = option(1 / 6, above=0, most=1)  # of a head's rate, from the first epoch to after the last
    sweep_samples: int = 20_000
    rivals: int = option(
        0, "Epochs of the last net's rivals: ConvNets and heads by SGD, RMSprop and Adam, other maps; 0 for none.",
        least=0, sweep=0,
    )  # fmt: skip
    sweeps: bool = option(True, "Accuracy against T_PC, T_v, T_frac.", sweep=False)
    dynamics: bool = option(True, "Figures 1 and 2.", sweep=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        for shares in self.widths or ():
            if not 1 <= len(shares) <= 3:
                raise InputError(f"{list(shares)} names {len(shares)} layers: expected T_v of one to three")
        if self.epochs and 0 < self.rivals <= self.epochs:
            raise InputError(f"rivals is {self.rivals}: expected 0, or more epochs than all nets' {self.epochs}")


x = Experiment(
    "dmn", "conv layers computed by class-based PCA instead of SGD", PAPER, Settings,
    full=[
        Job(("mnist",), seeds=3, seconds=970, pieces=13),
        Job(("cifar10",), seeds=3, seconds=7000, pieces=22, also={"rivals": 50}),
    ],
    # Half of its usual epochs: it would take longest by far.
    quick=[Job(("digits",), seeds=1, seconds=9, pieces=9, also={"epochs": 30})],
    package=__name__,
    needs=Needs(images=3, samples=2),
)  # fmt: skip
