"""The two searches of cifar-mlp, both judged by the validation set alone, and the function that they try.

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
from gpunet.callbacks import Callback
from gpunet.errors import InputError
from gpunet.experiments.cifar_mlp.data import Problem, Split
from gpunet.experiments.cifar_mlp.nets import Recipe
from gpunet.experiments.framework import Run
from gpunet.progress import Progress
from gpunet.rng import DATA, stream
from gpunet.train import Trainer

RATES, RATE_RANGE, L2_RANGE = 5, (0.02, 0.03), (1e-6, 1e-1)  # section 1.5.2
# Our choice, around what He's weights and a decaying rate are known to like.
WIDE = ("learning_rate=log:5e-3..6e-2", "l2=log:2e-4..1e-2", "batch_size=32,64,100")
LEAST_DECAY = 0.7  # after a tenth of the epochs: of ten, after each
RATE_PLACE = 11  # in the stream of DATA
FUNCTION = f"{__name__}:evaluate"

_prepared: dict[str, tuple[Problem, Backend]] = {}  # by what settings call it: loaded once a process


class Reporting(Callback):
    """Tells the sweep the training loss after each epoch, and stops when it says so."""

    def __init__(self, report: Callable[[int, float], bool]) -> None:
        self.report = report

    def on_epoch_end(self, trainer: Trainer, epoch: int, logs: dict[str, float]) -> None:
        if self.report(epoch + 1, logs["train_loss"]):
            trainer.stop("the sweep gave the trial up")


def before_sweep(settings: dict[str, Any]) -> None:
    """Load the data once, so that what is missing is said once."""
    _prepare(settings)


def evaluate(
    parameters: dict[str, Any], settings: dict[str, Any], report: Callable[[int, float], bool]
) -> dict[str, float]:
    """Train one net; value: its validation accuracy, chance where it diverged."""
    problem, backend = _prepare(settings)
    names = {field.name for field in fields(Recipe)}
    unknown = set(parameters) - names
    if unknown:
        raise InputError(f"unknown parameter {', '.join(sorted(unknown))}: expected some of {', '.join(sorted(names))}")
    recipe = Recipe(**{name: value for name, value in settings.items() if name in names} | parameters)
    validation = problem.validation if recipe.patience is not None else None
    trainer, diverged = recipe.fit(problem, int(settings.get("trial_seed", 0)), backend, Reporting(report), validation)
    if diverged:
        return {"value": 1 / problem.classes, "diverged": 1.0}
    return {"value": trainer.evaluate(problem.validation)["accuracy"], "diverged": 0.0}


def the_documents(run: Run, problem: Problem, base: Recipe) -> dict[str, Any]:
    """5 learning rates drawn from [0.02, 0.03], λ log-uniform in [1e-6, 1e-1]; then the same finer, around the best."""
    drawn = sorted(stream(run.seeds[0], DATA, RATE_PLACE).uniform(*RATE_RANGE, RATES))
    space = [f"learning_rate={','.join(f'{rate:.6f}' for rate in drawn)}", f"l2=log:{L2_RANGE[0]}..{L2_RANGE[1]}"]
    return _search(run, problem, "search", space, base, run.settings.trials)


def wide(run: Run, problem: Problem, base: Recipe) -> dict[str, Any]:
    """Ours: learning rate, λ, decay and batch size."""
    space = [*WIDE, f"decay={LEAST_DECAY ** (10 / base.epochs):.4f}..1"]
    return _search(run, problem, "wide search", space, base, run.settings.wide_trials)


class _Named(Progress):
    """The run's progress, with the search's own name in front of a stage."""

    def __init__(self, name: str, bar: Progress) -> None:
        self.name, self.bar = name, bar

    def start(self, what: str, total: int) -> None:
        self.bar.start(f"cifar-mlp {self.name} {what.removeprefix('sweep ')}", total)

    def advance(self, parts: int = 1, note: str = "") -> None:
        self.bar.advance(parts, note)


def _search(run: Run, problem: Problem, name: str, space: list[str], base: Recipe, trials: int) -> dict[str, Any]:
    """The best parameters; all trials become curves, NaN where the sweep gave one up, and where it looked a note."""
    from gpunet.sweep import parse_parameter, search

    key = "the run's own"
    _prepared[key] = problem, run.backend
    settings = {name: value for name, value in asdict(base).items() if value is not None}
    try:
        table = search(
            FUNCTION, settings | {"problem": key}, [parse_parameter(text) for text in space], trials=trials, stages=2,
            seed=run.seeds[0], progress=_Named(name, run.bar), keep_going=False,
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


def _prepare(settings: dict[str, Any]) -> tuple[Problem, Backend]:
    """The data of a sweep on its device."""
    name, device = settings.get("dataset", "cifar10"), settings.get("device", "auto")
    key = settings.get("problem") or f"{name} on {device}"
    if key not in _prepared:
        backend = get_backend(device)
        _prepared[key] = Problem.of(Split.load(name), backend), backend
    return _prepared[key]
