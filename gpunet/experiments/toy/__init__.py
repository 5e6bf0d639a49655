"""Train sigmoid nets on points in the plane until every sample's loss is small (document 003).

Both data sets of the document, linear and xor-easy: steps and seconds to converge over many seeds, zero initial
weights as the counter-example, learning rates (Figure 4), decision boundaries (Figure 3), and what the document
leaves open: the gradient's sum or mean, the loss halved or not.

On your own data of two classes: `gpunet run toy --dataset my.npz --hidden 8,8`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gpunet.errors import InputError
from gpunet.experiments import framework
from gpunet.experiments.framework import Choice, Experiment, Job, Needs, Paper, option

PAPER = Paper(
    "003", "鄭余玄", "Lab 1", "course work",
    (
        "Backpropagation is derived block by block, so that one recursion trains a sigmoid net of any depth.",
        "On two sets of points in the plane a net of two hidden layers converges until every sample's loss is "
        "small, and predicts every point.",
        "From zero weights it is hard to converge, and with a better learning rate it goes much faster.",
    ),
    (
        Choice("Whether the gradient is summed over the samples or averaged is not stated.",
               "Summed: only so it converges in the steps of its figures. Rows “mean, not sum” show the other."),
        Choice("Whether the loss is (y − t)² or half of it.",
               "Half, since its derivative “is simply a subtraction”; the other is shown, too."),
        Choice("The range of the initial weights is not stated.", "Uniform in ±4·√(6/(in + out))."),
        Choice("Equation 4a's ⊗ could be an outer product.",
               "It is a matrix product: gradients agree with central differences only so."),
    ),
)  # fmt: skip
DATASETS = ("linear", "xor-easy")


def _units(given: list[str]) -> tuple[int, ...]:
    """Of each hidden layer: 3,3, '3 3', or given repeatedly."""
    words = " ".join(given).replace(",", " ").split()
    if not words or not all(word.isdecimal() for word in words):
        raise InputError(f"--hidden is {' '.join(given)!r}: expected whole numbers of units ≥ 1, say 3,3")
    return tuple(map(int, words))


@dataclass(frozen=True)
class Settings(framework.Settings):
    """Of the learning rates the first is the main one; a net is given up after `limit` steps."""

    hidden: tuple[int, ...] = option(
        (3, 3), "Units of each hidden layer: 3,3, '3 3', or given repeatedly.", usual="3,3", metavar="UNITS,…",
        read=_units, empty=True,
    )  # fmt: skip
    learning_rates: tuple[float, ...] = option(
        (0.8, 0.1, 0.2, 0.4, 1.6, 3.2),
        "May be given several times: the first is the main one, all are compared (Figure 4).",
        usual="0.8 0.1 0.2 0.4 1.6 3.2", flags=("--learning-rate",), above=0,
    )  # fmt: skip
    threshold: float = option(0.04, "A net stops when every sample's loss is below this.", above=0)
    limit: int = option(10_000, "Steps after which a net is given up.", usual="10000; 2000 with --quick")
    dtype: Literal["float32", "float64"] = "float32"

    def label(self, dataset: str) -> str:
        """Nothing for the document's two data sets."""
        return "" if dataset == "+".join(DATASETS) else dataset


x = Experiment(
    "toy", "backprop by hand on points in the plane: steps to converge, zero weights, learning rates", PAPER, Settings,
    full=[Job(DATASETS, seeds=100, seconds=20, pieces=20, together=True)],
    quick=[Job(DATASETS, seeds=10, seconds=3, pieces=20, settings={"limit": 2000}, together=True)],
    package=__name__, searched="threshold=0.01..0.1 --dataset xor",
    needs=Needs(classes=2, features=1024, one_unit="draws first weights of one size for all features"),
    help={
        "seeds": "How many nets, all trained as one stack: --seeds 1000 takes a minute or two.",
        "quick": "10 seeds and 2,000 steps, unless asked otherwise.",
    },
)  # fmt: skip
