"""An experiment as what is searched: its settings are the parameters, its rows the value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_origin

from gpunet.errors import InputError
from gpunet.experiments import experiment
from gpunet.experiments.framework import Run
from gpunet.experiments.result import Result
from gpunet.sweep.holdout import described, same_data, split
from gpunet.sweep.parameters import Parameter, Value
from gpunet.sweep.plan import SEED, Parameters, Report
from gpunet.sweep.worker import UnusableError

FUNCTION = "gpunet.sweep.experiment:trial"
ALL_ROWS, DEFAULT_METRIC = "*", "test_accuracy"
FALLING = ("loss", "error", "seconds", "steps", "difference")  # words in the names of metrics that are better smaller
KINDS: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}


def settings_for(
    name: str, space: Sequence[Parameter], *, dataset: str, validation: float, seed: int, device: str, seeds: int,
    metric: str | None,
) -> dict[str, Any]:  # fmt: skip
    """The settings of a sweep over an experiment's settings.

    metric: "ROW:METRIC", a row of the experiment's result and one of its metrics, or "METRIC", the mean over all rows
    that have it; None is the accuracy on the held-out samples, the mean over all rows.
    Raises InputError for a parameter that the experiment's settings do not have, or of the wrong kind.
    """
    judged = described(dataset, validation, seed)
    fixed = _fixed(name, judged["name"])
    _check_space(name, space, fixed)
    row, _, measure = (metric or DEFAULT_METRIC).rpartition(":")
    return {
        "experiment": name, **judged, "device": device, "seeds": seeds, "fixed": fixed,
        "row": row or ALL_ROWS, "metric": measure.replace("validation_", "test_"),
    }  # fmt: skip


def direction(metric: str | None) -> str:
    """Whether more of a metric is better, by its name: losses, errors, seconds, steps and differences are not."""
    return "minimize" if any(word in (metric or "").rpartition(":")[2] for word in FALLING) else "maximize"


def before_sweep(settings: dict[str, Any]) -> None:
    """Look whether this machine has the experiment and its data."""
    _ = experiment(settings["experiment"]).body
    split.cache_clear()  # a file may have changed
    same_data(settings)


def trial(parameters: Parameters, settings: dict[str, Any], report: Report) -> dict[str, Any]:
    """Run the experiment once, on data whose test set is held out from the training samples."""
    x, data, first = experiment(settings["experiment"]), same_data(settings), settings[SEED]
    own = x.Settings(**settings["fixed"] | {name: _as_setting(value) for name, value in parameters.items()})
    seeds = list(range(first, first + settings["seeds"]))
    return _value(Run(x, data, own, seeds).compute(settings["device"]), settings["row"], settings["metric"])


def _value(result: Result, row: str, metric: str) -> dict[str, Any]:
    """The metric's mean over seeds and rows, and that of each row."""
    rows = [each for each in result.rows if row in (ALL_ROWS, each.name)]
    if not rows:
        names = ", ".join(each.name for each in result.rows)
        raise UnusableError(f"{result.experiment} has no row '{row}': it has {names}")
    found = {each.name: each.metrics[metric].mean for each in rows if metric in each.metrics}
    if not found:
        names = ", ".join(dict.fromkeys(name for each in rows for name in each.metrics))
        raise UnusableError(f"{result.experiment} has no metric '{metric}': it has {names}")
    shown = metric.replace("test_", "validation_")
    return {"value": sum(found.values()) / len(found)} | {f"{name} {shown}": each for name, each in found.items()}


def searchable(name: str) -> dict[str, Any]:
    """The experiment's settings that can be searched, and their kinds: int, float, bool or str."""
    single = {
        setting: known.kind for setting, known in experiment(name).Settings.options().items() if not known.several
    }
    plain = {setting: str if get_origin(kind) is Literal else kind for setting, kind in single.items()}
    return {setting: kind for setting, kind in plain.items() if kind in KINDS}


def _fixed(name: str, data: str) -> dict[str, Any]:
    """Settings that a sweep has other defaults for: what only costs time in it is off; those of a job on its data."""
    x = experiment(name)
    own = next((job for job in x.full if job.data == (data,)), x.job({}, False))
    left_out = {setting: known.sweep for setting, known in x.Settings.options().items() if known.sweep is not None}
    return left_out | dict(own.of)


def _check_space(name: str, space: Sequence[Parameter], fixed: dict[str, Any]) -> None:
    check_kinds(name, space, searchable(name))
    make = experiment(name).Settings
    for parameter in space:
        for value in parameter.values or (parameter.low, parameter.high):
            make(**fixed | {parameter.name: _as_setting(value)})


def check_kinds(name: str, space: Sequence[Parameter], kinds: dict[str, Any]) -> None:
    """InputError for a parameter that `name` does not have, naming those it has, or of another kind than it is."""
    for parameter in space:
        if parameter.name not in kinds:
            raise InputError(f"{name} has no setting '{parameter.name}' to search: it has {', '.join(kinds)}")
        kind = kinds[parameter.name]
        whole = parameter.whole or all(isinstance(value, int) for value in parameter.values or (0.5,))
        words = all(isinstance(value, str) for value in parameter.values) if parameter.values else False
        truth = words and set(parameter.values) <= {"true", "false"}
        if not {int: whole, float: not words, bool: truth, str: words}[kind]:
            help_ = f": write {parameter.name}=int:…" if kind is int and not parameter.values else ""
            raise InputError(f"{parameter.name} of {name} is {KINDS[kind]}, got {parameter.text}{help_}")


def _as_setting(value: Value) -> Any:
    return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value
