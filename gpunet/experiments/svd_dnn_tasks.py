"""The three tasks of document 001, and the variants of each that are trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import gpunet as gn
from gpunet.checks import check_range
from gpunet.errors import DataError, InputError
from gpunet.linalg.rank import RankRule
from gpunet.migration import State

# What α means: `dimension`, l = α·min(m, n), is the text's; `break-even`, l = α·mn/(m + n), its authors' code's.
Meaning = Literal["dimension", "break-even"]
MEANINGS: tuple[Meaning, ...] = get_args(Meaning)
RULES: dict[Meaning, Callable[[float], RankRule]] = {"dimension": gn.DimensionFraction, "break-even": gn.BreakEven}


@dataclass(frozen=True)
class Task:
    """Network and training of one section of the document; batch_size and epochs are those for `samples` samples."""

    name: str
    dataset: str
    hidden: tuple[int, ...]
    loss: str
    adam: bool
    learning_rate: float
    batch_size: int
    epochs: int
    samples: int
    alphas: tuple[float, ...]
    small: tuple[int, ...] = ()  # hidden layers of the counter-example (section 4.3)
    seeds: int = 3

    def fit_batch(self, samples: int) -> int:
        """The batch size; on fewer samples one that keeps the document's number of steps, but at least 16."""
        steps = math.ceil(self.samples / self.batch_size)
        return self.batch_size if samples >= self.samples else max(min(self.batch_size, 16), samples // steps)

    def optimizer(self) -> gn.Optimizer:
        """A new optimiser with the document's settings."""
        return gn.Adam(self.learning_rate) if self.adam else gn.SGD(self.learning_rate)

    def outputs(self, data: Any) -> int:
        """Outputs of the network; DataError where a task of two classes is given more."""
        if self.loss == "softmax_cross_entropy":
            return int(data.classes)
        if data.classes != 2:
            raise DataError(
                f"the task {self.name} has one output for two classes, {data.name} has {data.classes} classes: "
                "use --task mnist"
            )
        return 1


TASKS: dict[str, Task] = {
    task.name: task
    for task in [
        Task("xor", "xor", (20, 20), "binary_cross_entropy", False, 0.01, 1, 800, 4, (0.5,), seeds=10),
        Task("cats", "cats", (100,), "binary_cross_entropy", False, 0.001, 1, 100, 209, (0.5,)),
        Task(
            "mnist", "mnist", (512, 256), "softmax_cross_entropy", True, 3e-4, 2048, 20, 60_000, (0.5, 0.25, 0.125),
            small=(50,),
        ),
    ]
}  # fmt: skip


def task(name: str) -> Task:
    """The task of that name; InputError naming those there are."""
    if name not in TASKS:
        raise InputError(f"unknown task '{name}': expected one of {', '.join(TASKS)}")
    return TASKS[name]


@dataclass(frozen=True)
class Variant:
    """One network to train: dense where alpha is None, else cut after the share `phi` of the steps."""

    phi: float = 1.0
    alpha: float | None = None
    meaning: Meaning = "dimension"
    hidden: tuple[int, ...] = ()  # () the task's
    state: State = "restart"

    def __post_init__(self) -> None:
        check_range("phi", self.phi, least=0, most=1)
        if self.alpha is not None:
            RULES[self.meaning](self.alpha)

    @property
    def name(self) -> str:
        """The row's name, stable between versions."""
        size = f" {'-'.join(map(str, self.hidden))} units" if self.hidden else ""
        if self.alpha is None:
            return f"dense{size}"
        carried = {"restart": "", "carry": " carried", "carry-both": " carried both"}[self.state]
        return f"svd phi={self.phi:g} alpha={self.alpha:g} {self.meaning}{carried}{size}"

    @property
    def rule(self) -> RankRule | None:
        """The rank rule; None for a dense network."""
        return None if self.alpha is None else RULES[self.meaning](self.alpha)


def variants(chosen: Task, phi: float, alphas: tuple[float, ...], meanings: tuple[Meaning, ...]) -> list[Variant]:
    """What a run trains: dense; every α in both meanings; φ = 0; the state carried over; the counter-example.

    The first α is the one that φ = 0, the carried state and the counter-example are tried with.
    """
    first, small = alphas[0], chosen.small
    listed = [Variant()]
    listed += [Variant(phi, alpha, meaning) for meaning in meanings for alpha in alphas]
    listed += [Variant(0.0, first, meaning) for meaning in meanings]
    states: tuple[State, ...] = ("carry", "carry-both") if chosen.adam else ()  # plain SGD has no state
    listed += [Variant(phi, first, meaning, state=state) for meaning in meanings for state in states]
    if small:
        listed += [Variant(hidden=small)]
        listed += [Variant(phi, first, meaning, small) for meaning in meanings]
    return list(dict.fromkeys(listed))


def grid(phis: tuple[float, ...], alphas: tuple[float, ...], meanings: tuple[Meaning, ...]) -> list[Variant]:
    """What a sweep trains: dense, and every φ with every α."""
    return [
        Variant(),
        *(Variant(phi, alpha, meaning) for meaning in meanings for alpha in alphas for phi in phis if phi < 1),
    ]
