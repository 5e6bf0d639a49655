"""The search of cifar-mlp, judged by the validation set alone, and the function that it tries.

`evaluate` can be searched from the command line, too: `gpunet sweep function
gpunet.experiments.cifar_mlp.search:evaluate …`, with any field of `Recipe` as setting or parameter, `dataset` (a name
or path; CIFAR-10 is split by batches) and `device` as settings.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, fields
from typing import Any

from gpunet.backend import Backend, get_backend
from gpunet.errors import InputError
from gpunet.experiments.cifar_mlp import x
from gpunet.experiments.cifar_mlp.data import Problem, Split
from gpunet.experiments.cifar_mlp.nets import Recipe
from gpunet.experiments.framework import Run
from gpunet.nn.trainer import Trainer
from gpunet.progress import Progress

FUNCTION = f"{__name__}:evaluate"

_prepared: dict[str, tuple[Problem, Backend]] = {}  # by what settings call it: loaded once a process


def before_sweep(settings: dict[str, Any]) -> tuple[Problem, Backend]:
    """The data of a sweep on its device; loaded before it, so that what is missing is said once."""
    name, device = settings.get("dataset", "cifar10"), settings.get("device", "auto")
    key = settings.get("problem") or f"{name} on {device}"
    if key not in _prepared:
        backend = get_backend(device)
        _prepared[key] = Problem.of(Split.load(name), backend), backend
    return _prepared[key]


def evaluate(
    parameters: dict[str, Any], settings: dict[str, Any], report: Callable[[int, float], bool]
) -> dict[str, float]:
    """Train one net; value: its validation accuracy, chance where it diverged."""
    problem, backend = before_sweep(settings)
    names = {field.name for field in fields(Recipe)}
    if unknown := parameters.keys() - names:
        raise InputError(f"unknown parameter {', '.join(sorted(unknown))}: expected some of {', '.join(sorted(names))}")
    recipe = Recipe(**{name: value for name, value in settings.items() if name in names} | parameters)

    def look(trainer: Trainer, epoch: int, logs: dict[str, float]) -> None:
        if report(epoch + 1, logs["train_loss"]):
            trainer.stop("the sweep gave the trial up")

    seed, validate = int(settings.get("trial_seed", 0)), recipe.patience is not None
    trainer, diverged = recipe.fit(problem, seed, backend, look, validate=validate)
    value = 1 / problem.classes if diverged else trainer.evaluate(problem.validation)["accuracy"]
    return {"value": value, "diverged": float(diverged)}


class _Named(Progress):
    """The run's progress, with the search's own name in front of a stage."""

    def __init__(self, name: str, bar: Progress) -> None:
        self.name, self.bar = name, bar

    def start(self, what: str, total: int) -> None:
        self.bar.start(f"{x.name} {self.name} {what.removeprefix('sweep ')}", total)

    def advance(self, parts: int = 1, note: str = "") -> None:
        self.bar.advance(parts, note)


def search(run: Run, problem: Problem, name: str, space: list[str], trials: int, base: Recipe) -> dict[str, Any]:
    """The best parameters of two stages, the second finer and around the first one's best, tried on `base`.

    All trials become curves, NaN where the sweep gave one up, and where it looked a note.
    """
    from gpunet import sweep

    key = "the run's own"
    _prepared[key] = problem, run.backend
    try:
        table = sweep.search(
            FUNCTION, asdict(base) | {"problem": key}, [sweep.parse_parameter(text) for text in space], trials=trials,
            stages=2, seed=run.seeds[0], progress=_Named(name, run.bar), keep_going=False,
        )  # fmt: skip
    finally:
        del _prepared[key]
    best: dict[str, Any] = table.best["parameters"]
    run.result.curves[name] = {
        "stage": [row["stage"] for row in table],
        "validation_accuracy": [math.nan if row["value"] is None else row["value"] for row in table],
        **{parameter: [row["parameters"][parameter] for row in table] for parameter in best},
    }
    spaces = [[parameter.text for parameter in box] for box in table.spaces]
    run.note(**{name.replace(" ", "_"): {"best": best, "spaces": spaces}})
    return best
