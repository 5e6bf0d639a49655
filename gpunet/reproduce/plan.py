"""What `gpunet reproduce` runs: every experiment on the data of its document, or quickly on embedded data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gpunet.errors import InputError
from gpunet.experiments.registry import EXPERIMENTS
from gpunet.experiments.work import Order, order, usual


@dataclass(frozen=True)
class Run:
    """One run; `name` is its folder.

    seconds and pieces (of progress): what it takes for its usual seeds, measured once on two cores of a Xeon without
    numba. They tell the time left before anything has been measured here.
    """

    name: str
    experiment: str
    seconds: float
    pieces: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    dataset: str | None = None
    quick: bool = False

    @property
    def usual_seeds(self) -> int:
        """How many seeds it has unless asked otherwise."""
        return usual(self.experiment, self.quick, self.settings.get("task", "mnist")).seeds

    def order(self, seeds: int | None) -> Order:
        """With so many seeds, or its usual ones; toy, whose nets train as one stack, never has fewer than those."""
        count = max(seeds or 0, self.usual_seeds) if self.experiment == "toy" else seeds
        return order(self.experiment, self.settings, dataset=self.dataset, quick=self.quick, seeds=count)


EVERY_PART = ("gradient", "rates", "search", "final", "better", "full")

FULL = [
    Run("svd-init-mnist", "svd-init", 140, 19),
    Run("svd-dnn-xor", "svd-dnn", 25, 6, {"task": "xor"}),
    Run("svd-dnn-cats", "svd-dnn", 510, 6, {"task": "cats"}),
    Run("svd-dnn-mnist", "svd-dnn", 1000, 17, {"task": "mnist"}),
    Run("dmn-mnist", "dmn", 970, 13, dataset="mnist"),
    Run("dmn-cifar10", "dmn", 1040, 13, dataset="cifar10"),
    Run("toy", "toy", 20, 20),
    Run("cifar-mlp-cifar10", "cifar-mlp", 630, 40, {"parts": EVERY_PART}),
]
QUICK = [
    Run("svd-init-digits", "svd-init", 4, 19, quick=True),
    Run("svd-dnn-xor", "svd-dnn", 4, 6, {"task": "xor"}, quick=True),
    Run("svd-dnn-mnist-digits", "svd-dnn", 10, 17, {"task": "mnist"}, quick=True),
    Run("dmn-digits", "dmn", 9, 9, {"epochs": 30}, quick=True),  # half its usual ones: it would take longest by far
    Run("toy", "toy", 3, 20, quick=True),
    Run("cifar-mlp-digits", "cifar-mlp", 7, 36, quick=True),
]


def plan(quick: bool) -> list[Run]:
    """All runs, in the order of the documents."""
    return list(QUICK if quick else FULL)


def select(runs: Sequence[Run], only: Sequence[str]) -> list[Run]:
    """The runs of some experiments, or runs by their own names; InputError naming those there are."""
    known = {*EXPERIMENTS, *(run.name for run in runs)}
    for word in only:
        if word not in known:
            raise InputError(
                f"--only is '{word}': expected an experiment ({', '.join(EXPERIMENTS)}) or one run "
                f"({', '.join(run.name for run in runs)})"
            )
    return [run for run in runs if not only or run.experiment in only or run.name in only]
