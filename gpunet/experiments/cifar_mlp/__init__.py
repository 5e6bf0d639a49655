"""A ReLU layer and softmax on CIFAR-10 by mini-batch gradient descent with momentum and L2 (document 004).

The gradient check, the table of learning rates with and without momentum (Figures 1 and 2), the search over η and λ
(Figures 3 and 4), the final net (Figure 5), and what He's weights, decay, early stopping and more data bring.
Batch 1 trains, batch 2 validates; what is chosen is chosen by validation.

On your own data: `gpunet run cifar-mlp --dataset my.npz`; a fifth of its training samples validates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gpunet.experiments import framework
from gpunet.experiments.framework import OF_PRECISION, Choice, Experiment, Job, Needs, Paper, Precision, option

PAPER = Paper(
    "004", "F. Assarsson", "Assignment 2: 2-layer Mini Batch Gradient Descent", "course work, 2018",
    (
        "A net of one hidden layer, ReLU and softmax, is trained on CIFAR-10 by mini-batch gradient descent with "
        "momentum and an L2 term.",
        "Its gradients are checked against numeric ones, and accuracy is tabulated by learning rate: too small "
        "learns nothing, too large diverges.",
        "A search from coarse to fine over learning rate and L2 ends at 42.55 % test accuracy.",
    ),
    (
        Choice("The number of hidden units is not stated.", "50, the course's."),
        Choice("“We do not preprocess it in any way”, yet without the mean image subtracted η ≥ 0.05 collapses.",
               "The mean image is subtracted."),
        Choice("The coefficient of momentum is not stated.", "0.9, which lands on its numbers."),
        Choice("After how many epochs the table of learning rates was taken.",
               "Three, where its numbers are met; the full training stands beside it."),
        Choice("The gradient check claims errors below 1e-6 and prints 3e-3 and 1e-2 for W1 and b1.",
               "Both measures are shown: by element, and relative to each parameter's largest gradient; the "
               "second is judged."),
    ),
)  # fmt: skip
EPOCHS = 10  # the document's
Part = Literal["gradient", "rates", "search", "final", "better", "full"]


@dataclass(frozen=True)
class Settings(framework.Settings):
    """learning_rates and table_l2 are those of the η table, final_rate and final_l2 the final ones.

    None: of epochs the document's 10, or on smaller data more, towards as many steps; of wide_trials, which each of the
    wider search's two stages has, a quarter of trials.
    """

    parts: tuple[Part, ...] = option(
        ("gradient", "rates", "search", "final", "better"), "What to run; may be given several times.",
        usual="all but full", flags=("--part",),
    )  # fmt: skip
    full: bool = option(False, "Also train on all batches of CIFAR-10 minus a hold-out of 5,000 images.")
    hidden: int = option(50, "m: units of the hidden layer.", flags=("--hidden", "-m"))
    momentum: float = option(0.9, least=0, below=1)
    batch_size: int = option(64, "Samples of a mini-batch.")
    epochs: int | None = option(None, "Epochs of training.", usual="10, more of fewer samples")
    precision: Precision = option("float32", OF_PRECISION)
    learning_rates: tuple[float, ...] = option(
        (0.001, 0.01, 0.02, 0.03, 0.05, 0.09, 0.1, 0.2, 0.3, 0.5),
        "η of the table, with and without momentum; may be given several times.",
        above=0, usual="the document's ten, 0.001 to 0.5", flags=("--learning-rate",),
    )  # fmt: skip
    table_l2: float = option(1e-6, least=0)
    final_rate: float = option(0.020815, above=0)
    final_l2: float = option(0.00012554, least=0)
    trials: int = option(
        100, "Nets in each of the search's two stages; the wider search takes a quarter.",
        usual="100; 20 with --quick",
    )  # fmt: skip
    wide_trials: int | None = option(None)

    def has(self, part: Part) -> bool:
        """Whether a part is to be run."""
        return part in self.parts or (part == "full" and self.full)


x = Experiment(
    "cifar-mlp", "ReLU and softmax by mini-batch gradient descent: learning rates, momentum, L2, search",
    PAPER, Settings,
    full=[Job(("cifar10",), seeds=3, seconds=630, pieces=40, also={"full": True})],
    quick=[Job(("digits",), seeds=1, seconds=7, pieces=36, settings={"trials": 20})],
    package=__name__,
    needs=Needs(one_unit="draws first weights of one size for all features", packages=("optuna", "sqlalchemy")),
)  # fmt: skip
