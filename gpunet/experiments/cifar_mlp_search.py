"""The two searches of cifar-mlp, both judged by the validation set alone, and the function that they try.

`evaluate` can be searched from the command line, too: `gpunet sweep function
gpunet.experiments.cifar_mlp_search:evaluate …`, with any field of `Recipe` as setting or parameter, `dataset` (a name
or path; CIFAR-10 is split by batches) and `device` as settings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from gpunet.backend import Backend, get_backend
from gpunet.callbacks import Callback
from gpunet.errors import DivergedError, InputError
from gpunet.experiments.cifar_mlp_data import Problem, Split
from gpunet.experiments.cifar_mlp_nets import Recipe
from gpunet.progress import Progress
from gpunet.rng import DATA, stream
from gpunet.train import Trainer

RATES, RATE_RANGE, L2_RANGE = 5, (0.02, 0.03), (1e-6, 1e-1)  # section 1.5.2
# Our choice, around what He's weights and a decaying rate are known to like.
WIDE = ("learning_rate=log:5e-3..6e-2", "l2=log:2e-4..1e-2", "batch_size=32,64,100")
LEAST_DECAY = 0.7  # after a tenth of the epochs: of ten, after each
RATE_PLACE = 11  # in the stream of DATA
FUNCTION = f"{__name__}:evaluate"

_posed: dict[str, tuple[Problem, Backend]] = {}  # by what settings call it: loaded once a process


@dataclass(frozen=True)
class Trial:
    """One trial of a search; value: validation accuracy, None where the sweep gave it up."""

    stage: int
    parameters: dict[str, Any]
    value: float | None


@dataclass(frozen=True)
class Search:
    """All trials of a search, and between which parameters each stage looked."""

    trials: list[Trial]
    spaces: list[list[str]]

    @property
    def best(self) -> Trial:
        """The best trial."""
        return max((t for t in self.trials if t.value is not None), key=lambda t: t.value or 0.0)

    def curves(self) -> dict[str, list[Any]]:
        """By name, as a result holds them."""
        names = self.trials[0].parameters
        return {
            "stage": [t.stage for t in self.trials],
            "validation_accuracy": [float("nan") if t.value is None else t.value for t in self.trials],
            **{name: [t.parameters[name] for t in self.trials] for name in names},
        }


class Reporting(Callback):
    """Tells the sweep the training loss after each epoch, and stops when it says so."""

    def __init__(self, report: Callable[[int, float], bool]) -> None:
        self.report = report

    def on_epoch_end(self, trainer: Trainer, epoch: int, logs: dict[str, float]) -> None:
        if self.report(epoch + 1, logs["train_loss"]):
            trainer.stop("the sweep gave the trial up")


def before_sweep(settings: dict[str, Any]) -> None:
    """Load the data once, so that what is missing is said once."""
    _pose(settings)


def evaluate(
    parameters: dict[str, Any], settings: dict[str, Any], report: Callable[[int, float], bool]
) -> dict[str, float]:
    """Train one net; value: its validation accuracy, chance where it diverged."""
    problem, backend = _pose(settings)
    names = {field.name for field in fields(Recipe)}
    unknown = set(parameters) - names
    if unknown:
        raise InputError(f"unknown parameter {', '.join(sorted(unknown))}: expected some of {', '.join(sorted(names))}")
    recipe = Recipe(**{name: value for name, value in settings.items() if name in names} | parameters)
    trainer = recipe.trainer(problem.classes, int(settings.get("trial_seed", 0)), backend)
    validation = problem.validation if recipe.patience is not None else None
    callbacks = [*recipe.callbacks(problem.train.batches(recipe.batch_size)), Reporting(report)]
    try:
        trainer.fit(
            problem.train, epochs=recipe.epochs, batch_size=recipe.batch_size, validation_data=validation,
            shuffle=recipe.shuffle, callbacks=callbacks,
        )  # fmt: skip
    except DivergedError:
        return {"value": 1 / problem.classes, "diverged": 1.0}
    return {"value": trainer.evaluate(problem.validation)["accuracy"], "diverged": 0.0}


def the_documents(
    problem: Problem, backend: Backend, base: dict[str, Any], trials: int, seed: int, bar: Progress
) -> Search:
    """5 learning rates drawn from [0.02, 0.03], λ log-uniform in [1e-6, 1e-1]; then the same finer, around the best."""
    low, high = RATE_RANGE
    drawn = sorted(stream(seed, DATA, RATE_PLACE).uniform(low, high, RATES))
    space = [f"learning_rate={','.join(f'{rate:.6f}' for rate in drawn)}", f"l2=log:{L2_RANGE[0]}..{L2_RANGE[1]}"]
    return _search("search", space, problem, backend, base, trials, seed, bar)


def wide(problem: Problem, backend: Backend, base: dict[str, Any], trials: int, seed: int, bar: Progress) -> Search:
    """Ours: learning rate, λ, decay and batch size for He's initial weights."""
    space = [*WIDE, f"decay={LEAST_DECAY ** (10 / base['epochs']):.4f}..1"]
    return _search("wide search", space, problem, backend, base | {"init": "he"}, trials, seed, bar)


class _Named(Progress):
    """The run's progress, with the search's own name in front of a stage."""

    def __init__(self, name: str, bar: Progress) -> None:
        self.name, self.bar = name, bar

    def start(self, what: str, total: int) -> None:
        self.bar.start(f"cifar-mlp {self.name} {what.removeprefix('sweep ')}", total)

    def advance(self, parts: int = 1, note: str = "") -> None:
        self.bar.advance(parts, note)


def _search(
    name: str, space: list[str], problem: Problem, backend: Backend, base: dict[str, Any], trials: int, seed: int,
    bar: Progress,
) -> Search:  # fmt: skip
    from gpunet.sweep import parse_parameter, search

    key = "the run's own"
    _posed[key] = problem, backend
    try:
        table = search(
            FUNCTION, base | {"problem": key}, [parse_parameter(text) for text in space], trials=trials, stages=2,
            seed=seed, progress=_Named(name, bar), keep_going=False,
        )  # fmt: skip
    finally:
        del _posed[key]
    found = [Trial(row["stage"], row["parameters"], row["value"]) for row in table]
    return Search(found, [[parameter.text for parameter in box] for box in table.spaces])


def _pose(settings: dict[str, Any]) -> tuple[Problem, Backend]:
    """The data of a sweep on its device."""
    name, device = settings.get("dataset", "cifar10"), settings.get("device", "auto")
    key = settings.get("problem") or f"{name} on {device}"
    if key not in _posed:
        from gpunet.datasets import load

        split = Split.batches() if name == "cifar10" else Split.of(load(name))
        backend = get_backend(device)
        _posed[key] = Problem.of(split, backend), backend
    return _posed[key]
