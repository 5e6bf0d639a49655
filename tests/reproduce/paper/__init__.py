"""A paper for tests, of two experiments: "line", whose two jobs train a small net each, and "stack", on two data sets.

`gpunet run line` would run it, were it one of ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gpunet.experiments import framework
from gpunet.experiments.framework import Experiment, Job, Paper, option

PAPER = Paper("900", "A. Author", "Lines", "for tests", ("One.", "Two.", "Three."), ())


@dataclass(frozen=True)
class Settings(framework.Settings):
    task: Literal["near", "far"] = option("near")
    epochs: int = option(2)

    def label(self, dataset: str) -> str:
        return "" if "+" in dataset else self.task


QUICK = [
    Job(("xor",), 1, seconds=3, pieces=1, of={"task": "near"}),
    Job(("xor-easy",), 1, seconds=2, pieces=1, of={"task": "far"}, settings={"epochs": 4}, also={"epochs": 3}),
    Job(("digits",), 1, of={"task": "far"}, also=None),
]
FULL = [Job(("xor",), 5, of={"task": "near"}), Job(("mnist",), 5, seconds=50, of={"task": "far"})]
x = Experiment("line", "a line", PAPER, Settings, full=FULL, quick=QUICK, package=__name__)
stack = Experiment(
    "stack", "lines at once", PAPER, Settings, full=[Job(("linear", "xor-easy"), 9, together=True)],
    quick=[Job(("linear", "xor-easy"), 4, seconds=1, pieces=2, together=True)], package=__name__,
)  # fmt: skip
