"""First-layer weights made from the singular vectors of the data (document 000, H. Gu).

Trains 784-100-10 (sigmoid, cross-entropy) from five kinds of first-layer weights: random, and four made from the
SVD of the data, whole or class by class; then with that layer frozen, and with the norms of the weights held.

On your own data: `gpunet run svd-init --dataset my.npz`, any number of classes and features.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpunet.experiments import framework
from gpunet.experiments.framework import OF_PRECISION, Choice, Experiment, Job, Needs, Paper, Precision, option

PAPER = Paper(
    "000", "H. Gu", "Training a 2 Layer Neural Network Using SVD-Generated Weights", "poster",
    (
        "The first layer of a two-layer net need not start from random weights: it can be made from the singular "
        "vectors of the training data.",
        "How much such weights depend on the data is measured by a ratio (equation 7), which rises while training "
        "even from random weights.",
        "Singular vectors taken of each label apart give the best accuracy after five epochs, dividing by singular "
        "values brings nothing, and ten small decompositions cost what one large one does.",
    ),
    (
        Choice("Learning rate, batch size and the initial dependency are not stated.",
               "0.6, 100 and 0.05, looked at on a validation split."),
        Choice("Whether the norms of the weights are held while training, as condition (*) assumes.",
               "They are not in the main rows. Rows “norm held” show what holding them costs."),
        Choice("The poster's training accuracies are multiples of 1/300, so they come from 300 samples.",
               "Ours use the whole training set."),
        Choice("The ratio (7) does not change when W¹ is scaled, so dep in equations 8 and 9 only sets a scale.",
               "“A larger dependency gives better results” is judged twice: by that scale, and by the ratio "
               "itself from one kind of weights to the next."),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Settings(framework.Settings):
    """Of a run.

    None: of hidden as many units as the data can give, at most the document's 100; of epochs the document's 5, or on
    smaller data more, towards its 3,000 steps.
    """

    hidden: int | None = option(None, "Hidden units.", usual="100, or what the data can give")
    variance: float = option(0.09, above=0)
    epochs: int | None = option(None, "Epochs of training.", usual="5, more of fewer samples")
    learning_rate: float = option(0.6, "Step size of plain SGD (our choice; the document states none).", above=0)
    batch_size: int = option(100, "Samples a step (our choice).")
    precision: Precision = option("float32", OF_PRECISION)
    dependency: float = option(0.05, "dep of equations 8 and 9: sets the scale of W¹ (our choice).", least=0)
    dependencies: tuple[float, ...] = option((0.0, 0.02, 0.05, 0.1), least=0, empty=True)  # of the sweep


def _memory(samples: int, features: int) -> int:
    """Float32 samples, and a few float64 matrices of the smaller side."""
    return 4 * samples * features + 4 * 8 * min(samples, features) ** 2


x = Experiment(
    "svd-init", "first-layer weights made from the singular vectors of the data", PAPER, Settings,
    full=[Job(("mnist",), seeds=5, seconds=140, pieces=19)],
    quick=[Job(("digits",), seeds=1, seconds=4, pieces=19)],
    package=__name__,
    needs=Needs(one_unit="divides each sample by its norm", memory=_memory),
)  # fmt: skip
