"""One experiment on its data with its settings: what `gpunet run`, `reproduce` and `bench devices` carry out."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpunet.backend import Backend
from gpunet.experiments import registry
from gpunet.experiments.schema import RESULT, Result
from gpunet.files import alone, attempted, writable_folder
from gpunet.progress import Progress
from gpunet.report.drawing import drawn

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Usual:
    """What an experiment runs on, for how many seeds, with which settings, unless asked otherwise."""

    data: tuple[str, ...]
    seeds: int
    settings: Mapping[str, Any]


def usual(experiment: str, quick: bool = False, task: str = "mnist") -> Usual:
    """Of an experiment as its document has it; quick: on embedded data, in seconds. `task` is svd-dnn's."""
    if experiment == "svd-dnn":
        from gpunet.experiments.svd_dnn_tasks import task as find

        found = find(task)
        data = "digits" if quick and task == "mnist" else found.dataset
        return Usual((data,), 1 if quick else found.seeds, {"task": task})
    if experiment == "toy":
        return Usual(("linear", "xor-easy"), 10 if quick else 100, {"limit": 2000} if quick else {})
    data, seeds = {"svd-init": ("mnist", 5), "dmn": ("mnist", 3), "cifar-mlp": ("cifar10", 3)}[experiment]
    if not quick:
        return Usual((data,), seeds, {})
    fewer = {"trials": 20, "wide_trials": 5} if experiment == "cifar-mlp" else {}
    return Usual(("digits",), 1, fewer)


@dataclass(frozen=True)
class Done:
    """A result, and the files it lies in; `problem` says what could not be written, and where the result is instead."""

    result: Result
    path: Path | None
    figures: list[Path]
    problem: str = ""


@dataclass(frozen=True)
class Work:
    """An experiment, ready to run."""

    experiment: str
    data: Any
    settings: Any
    seeds: list[int]

    @property
    def dataset(self) -> str:
        """The name of the data; of the first where there are several."""
        return str((self.data[0] if isinstance(self.data, list) else self.data).name)

    def compute(self, device: str | Backend, bar: Progress) -> Result:
        """The result, written nowhere."""
        module = registry.experiment(self.experiment).load()
        result: Result = module.run(self.data, self.settings, self.seeds, device=device, progress=bar)
        return result

    def carry_out(
        self, folder: Path, device: str, bar: Progress, written: Callable[[Done], object] = lambda done: None
    ) -> Done:
        """Check the folder first and hold it, compute, write `result.json`, and last draw.

        `written` is called before that, where the result is where it was asked for.
        """
        with alone(writable_folder(folder, RESULT), "`gpunet run`"):
            result = self.compute(device, bar)
            path, problem = attempted(lambda: result.write(folder))
            done = Done(result, path, [], problem)
            if problem:
                return done
            written(done)
            return replace(done, figures=self.draw(result, folder))

    def draw(self, result: Result, folder: Path) -> list[Path]:
        """The figures that could be drawn and written; of the others there are warnings."""
        return drawn(lambda: self._report("figures").draw(result, folder))

    def tables(self, result: Result) -> list[Table]:
        """The experiment's tables for the terminal."""
        listed: list[Table] = self._report("tables").tables(result)
        return listed

    def _report(self, kind: str) -> Any:
        return importlib.import_module(f"gpunet.report.{self.experiment.replace('-', '_')}_{kind}")


@dataclass(frozen=True)
class Order:
    """What is to be run, before its data is loaded; `names` are those of the data sets, or paths."""

    experiment: str
    settings: Any
    names: tuple[str, ...]
    seeds: list[int]

    def load(self) -> Work:
        """Raises DataError for data that is missing or unfit."""
        data: Any
        if self.experiment == "toy":
            data = [load_data(name) for name in self.names]
        elif self.experiment == "cifar-mlp":
            module = registry.experiment(self.experiment).load()
            data = module.load(self.names[0], self.settings.parts, load_data)
        else:
            data = load_data(self.names[0])
        return Work(self.experiment, data, self.settings, self.seeds)


def order(
    experiment: str, changes: Mapping[str, Any], *, dataset: str | None = None, quick: bool = False, first: int = 0,
    seeds: int | None = None,
) -> Order:  # fmt: skip
    """An experiment with changes to its usual settings, on its usual data or another, for `seeds` seeds from `first`.

    A change that is None is none. Raises InputError for settings that cannot be.
    """
    found = usual(experiment, quick, changes.get("task", "mnist"))
    given = {name: value for name, value in changes.items() if value is not None}
    settings = registry.experiment(experiment).load().Settings(**{**found.settings, **given})
    names = found.data if dataset is None else (dataset,)
    return Order(experiment, settings, names, list(range(first, first + (seeds or found.seeds))))


def load_data(chosen: str) -> Any:
    """A data set by name or path; somebody's own mnist.npz is not what a document speaks of, and is named so."""
    from gpunet.datasets import load, names

    data = load(chosen)
    if data.name in names() and chosen != data.name:
        return replace(data, name=f"own-{data.name}")
    return data
