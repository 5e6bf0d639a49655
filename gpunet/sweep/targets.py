"""What gpunet searches itself: an experiment's settings, or a training run; judged by samples that are held out.

The held-out samples come from the training data, and the test set is not looked at. The one file of sweeps that knows
experiments; so a sweep as a `Result`, whose result.json has the schema of every experiment's, is here, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Literal, get_origin

import numpy as np

from gpunet.addresses import public
from gpunet.backend import get_backend
from gpunet.checks import check_one_of, check_range
from gpunet.errors import DataError, InputError
from gpunet.experiments import experiment
from gpunet.experiments.framework import Needs, Run, load_data
from gpunet.experiments.provenance import Stopwatch
from gpunet.experiments.result import Result
from gpunet.fingerprint import digest
from gpunet.nn.callbacks import Callback, Training
from gpunet.nn.layers import Dense
from gpunet.nn.model import Sequential
from gpunet.nn.optim import SGD, Adam, AdamW, Optimizer
from gpunet.nn.trainer import PRECISIONS, Trainer
from gpunet.rng import DATA, stream
from gpunet.sweep.plan import SEED, Parameters, Report
from gpunet.sweep.show import IMPORTANCE, Table, row_name
from gpunet.sweep.space import Parameter, Value
from gpunet.sweep.storage import storage_url
from gpunet.sweep.workers import UnusableError

EXPERIMENT, TRAINING = "gpunet.sweep.targets:experiment_trial", "gpunet.sweep.targets:training_trial"
KINDS: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}


def direction(metric: str | None) -> str:
    """Whether more of a metric is better, by its name: losses, errors, seconds, steps and differences are not."""
    return "minimize" if any(word in (metric or "").rpartition(":")[2] for word in FALLING) else "maximize"


def title(function: str, settings: dict[str, Any]) -> str:
    """What a sweep is called."""
    names = {EXPERIMENT: settings.get("experiment"), TRAINING: "train"}
    return f"sweep-{names.get(function, 'function')}"


def before_sweep(settings: dict[str, Any]) -> None:
    """Look whether this machine has the data, and the experiment."""
    if "experiment" in settings:
        _ = experiment(settings["experiment"]).body
    split.cache_clear()  # a file may have changed
    same_data(settings)


def _check_kinds(name: str, space: Sequence[Parameter], kinds: dict[str, Any]) -> None:
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


# -- what is held out -------------------------------------------------------------------------------------------------

HELD_OUT = "{held} of the {all} training samples of {name}, held out before training; the test set is not used"
THE_SAME = "the {all} training samples of {name}, which has no test set of its own"


@lru_cache(maxsize=1)
def split(dataset: str, share: float, seed: int, how: tuple[tuple[str, Any], ...] = ()) -> tuple[Any, str]:
    """A data set, by name or path, with validation samples in place of its test set; and what is what, in words.

    The share (0 to 1) of each class, rounded, is held out from the training samples, drawn from the seed; at least one
    sample of a class stays. A set whose test samples are its training samples is left as it is. how: the data is read,
    names and values as `load_data` takes them. Raises DataError where there is nothing to hold out.
    """
    check_range("validation", share, above=0, below=1)
    data = load_data(dataset, **dict(how))
    known: dict[str, Any] = {"all": f"{len(data.x_train):,}", "name": data.name}
    if np.array_equal(data.x_train, data.x_test) and np.array_equal(data.y_train, data.y_test):
        return data, THE_SAME.format(**known)
    chosen = _held_out(data.y_train, data.classes, share, seed)
    if not chosen.any():
        raise DataError(
            f"{data.name}: of {known['all']} training samples none can be held out for validation at a share of "
            f"{share:g}; raise --validation, or give more samples"
        )
    parts = {"x_test": data.x_train[chosen], "y_test": data.y_train[chosen]}
    parts |= {"x_train": data.x_train[~chosen], "y_train": data.y_train[~chosen]}
    return replace(data, **parts), HELD_OUT.format(held=f"{int(chosen.sum()):,}", **known)


def _held_out(labels: Any, classes: int, share: float, seed: int) -> Any:
    """Which samples, bool (n,)."""
    chosen = np.zeros(len(labels), bool)
    for label in range(classes):
        own = np.flatnonzero(labels == label)
        count = min(round(share * len(own)), max(0, len(own) - 1))
        chosen[stream(seed, DATA, label).permutation(own)[:count]] = True
    return chosen


def fingerprint(data: Any) -> str:
    """A digest of all samples and labels."""
    arrays = (data.x_train, data.y_train, data.x_test, data.y_test)
    return digest(*(part for array in arrays for part in (str((array.shape, array.dtype)), array)))


def _described(
    dataset: str, share: float, seed: int, reading: Mapping[str, Any] | None, needs: tuple[str, Needs] | None = None
) -> dict[str, Any]:
    """The settings of a sweep that say what it is judged by; needs: by whom what is needed of the data."""
    split.cache_clear()  # a file may have changed
    how = dict(sorted((reading or {}).items()))
    data, words = split(dataset, share, seed, tuple(how.items()))
    if needs:
        needs[1].check(needs[0], data)
    more = {"reading": how, "notes": list(data.notes)}
    return {
        "dataset": dataset, "name": data.name, "data": fingerprint(data), "validation": share, "split_seed": seed,
        "judged_by": words, **{name: each for name, each in more.items() if each},
    }  # fmt: skip


def same_data(settings: dict[str, Any]) -> Any:
    """The data set that those settings describe; DataError where this machine has another one by that name."""
    how = tuple(settings.get("reading", {}).items())
    data, _ = split(settings["dataset"], settings["validation"], settings["split_seed"], how)
    if fingerprint(data) != settings["data"]:
        raise DataError(
            f"{settings['dataset']}: the data here is not what this sweep began with (digest {fingerprint(data)} here, "
            f"{settings['data']} there)"
        )
    return data


# -- an experiment's settings -----------------------------------------------------------------------------------------

ALL_ROWS, DEFAULT_METRIC = "*", "test_accuracy"
FALLING = ("loss", "error", "seconds", "steps", "difference")  # words in the names of metrics that are better smaller


def experiment_settings(
    name: str, space: Sequence[Parameter], *, dataset: str, validation: float, seed: int, device: str, seeds: int,
    metric: str | None, reading: Mapping[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The settings of a sweep over an experiment's settings; reading: how its data is read, see `load_data`.

    metric: "ROW:METRIC", a row of the experiment's result and one of its metrics, or "METRIC", the mean over all rows
    that have it; None is the accuracy on the held-out samples, the mean over all rows.
    Raises InputError for a parameter that the experiment's settings do not have, or of the wrong kind.
    """
    judged = _described(dataset, validation, seed, reading, (name, experiment(name).needs))
    fixed = _fixed(name, judged["name"])
    _check_space(name, space, fixed)
    row, _, measure = (metric or DEFAULT_METRIC).rpartition(":")
    return {
        "experiment": name, **judged, "device": device, "seeds": seeds, "fixed": fixed,
        "row": row or ALL_ROWS, "metric": measure.replace("validation_", "test_"),
    }  # fmt: skip


def experiment_trial(parameters: Parameters, settings: dict[str, Any], report: Report) -> dict[str, Any]:
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
    known = {setting: each.kind for setting, each in experiment(name).Settings.options().items() if not each.several}
    plain = {setting: str if get_origin(kind) is Literal else kind for setting, kind in known.items()}
    return {setting: kind for setting, kind in plain.items() if kind in KINDS}


def _fixed(name: str, data: str) -> dict[str, Any]:
    """Settings that a sweep has other defaults for: what only costs time in it is off; those of a job on its data."""
    x = experiment(name)
    own = next((job for job in x.full if job.data == (data,)), x.job({}, False))
    left_out = {setting: known.sweep for setting, known in x.Settings.options().items() if known.sweep is not None}
    return left_out | dict(own.of)


def _check_space(name: str, space: Sequence[Parameter], fixed: dict[str, Any]) -> None:
    _check_kinds(name, space, searchable(name))
    make = experiment(name).Settings
    for parameter in space:
        for value in parameter.values or (parameter.low, parameter.high):
            make(**fixed | {parameter.name: _as_setting(value)})


def _as_setting(value: Value) -> Any:
    return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value


# -- a dense network on any data set ----------------------------------------------------------------------------------

METRICS = ("validation_accuracy", "validation_loss", "train_accuracy", "train_loss")
OPTIMIZERS = ("adam", "adamw", "sgd")
TRAINED: dict[str, tuple[type, dict[str, float]]] = {  # kind and bounds
    "learning_rate": (float, {"above": 0}), "l2": (float, {"least": 0}), "momentum": (float, {"least": 0, "below": 1}),
    "hidden": (int, {"least": 1}), "layers": (int, {"least": 0}), "epochs": (int, {"least": 1}),
    "batch_size": (int, {"least": 1}), "optimizer": (str, {}), "precision": (str, {}),
}  # fmt: skip
LOOKED_AT = 1000  # training samples whose cost is the curve


def training_settings(
    space: Sequence[Parameter], *, dataset: str, validation: float, seed: int, device: str, metric: str,
    reading: Mapping[str, Any] | None = None, **own: float | int | str,
) -> dict[str, Any]:  # fmt: skip
    """The settings of a sweep over a training run; `own`: those of TRAINED that have one value.

    reading: how its data is read, see `load_data`.

    Raises InputError for a parameter that a training run does not have, or for a value out of range.
    """
    if metric not in METRICS:
        raise InputError(f"unknown metric '{metric}': expected one of {', '.join(METRICS)}")
    _check_kinds("a training run", space, {name: kind for name, (kind, _) in TRAINED.items()})
    for name, given in [*own.items(), *((p.name, v) for p in space for v in p.values or (p.low, p.high))]:
        if name == "precision":
            check_one_of(name, given, PRECISIONS)
        elif name != "optimizer":
            check_range(name, given, **TRAINED[name][1])
        elif given not in OPTIMIZERS:
            raise InputError(f"unknown optimizer '{given}': expected {', '.join(OPTIMIZERS)}")
    optimizers = next((p.values for p in space if p.name == "optimizer"), (own["optimizer"],))
    if "sgd" not in optimizers and any(p.name == "momentum" for p in space):
        raise InputError("momentum is SGD's: add --optimizer sgd")
    if own.get("precision") == "float32":  # as of sweeps that were begun before there was another
        del own["precision"]
    return {**_described(dataset, validation, seed, reading), "device": device, "metric": metric, "fixed": own}


def training_trial(parameters: Parameters, settings: dict[str, Any], report: Report) -> dict[str, Any]:
    """Train once; the metrics after the last epoch."""
    data, given = same_data(settings), settings["fixed"] | parameters
    layers = [*(Dense(given["hidden"], "relu") for _ in range(given["layers"])), Dense(data.classes)]
    model, device = Sequential(layers, scale=data.scale), settings["device"]
    trainer = Trainer(
        model, optimizer=_optimizer(given), device=device, seed=settings[SEED],
        precision=given.get("precision", "float32"),
    )  # fmt: skip
    train, held_out = (trainer.samples(x, y) for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test)))
    trainer.fit(train, epochs=given["epochs"], batch_size=given["batch_size"], callbacks=[_Reported(report)])
    found = {
        f"{name}_{metric}": value
        for name, samples in (("validation", held_out), ("train", train))
        for metric, value in trainer.evaluate(samples).items()
    }
    return {"value": found[settings["metric"]], **found}


def _optimizer(given: dict[str, Any]) -> Optimizer:
    if given["optimizer"] == "adam":
        return Adam(given["learning_rate"], l2=given["l2"])
    if given["optimizer"] == "adamw":
        return AdamW(given["learning_rate"], weight_decay=given["l2"])
    return SGD(given["learning_rate"], given["momentum"], l2=given["l2"])


class _Reported(Callback):
    """Reports the cost of some training samples, before training and after each epoch."""

    def __init__(self, report: Report) -> None:
        self.report = report

    def on_fit_begin(self, trainer: Training) -> None:
        """The cost that later ones are held against."""
        self.looked_at = trainer.plan.train.spaced(LOOKED_AT)
        self._look(trainer, 0)

    def on_epoch_end(self, trainer: Training, epoch: int, logs: dict[str, float]) -> None:
        """The cost now."""
        self._look(trainer, epoch + 1)

    def _look(self, trainer: Training, step: int) -> None:
        if self.report(step, trainer.evaluate(self.looked_at)["loss"]):
            trainer.stop("the trial is pruned")


# -- the result -------------------------------------------------------------------------------------------------------


def as_result(table: Table, name: str, watch: Stopwatch, storage: str | None) -> Result:
    """One row a trial, its value and metrics; parameters, stage, state and error by row in `notes`.

    A row of importances by parameter follows, where there are some. The curves are the costs that trials reported.
    """
    spec = table.spec
    asked, given = spec.to_json(), dict(spec.settings)
    backend = get_backend(given.get("device", "cpu"))
    dataset = str(given.get("name", spec.function.rpartition(":")[2]))
    settings: dict[str, Any] = {
        **{key: asked[key] for key in ("function", "direction", "trials", "stages", "space")},
        "given": given, "judged_by": given.get("judged_by", ""),
        "storage": public(storage_url(storage)) if storage else None,
    }  # fmt: skip
    notes: dict[str, Any] = {
        "boxes": [[parameter.text for parameter in space] for space in table.spaces],
        "best": row_name(table.best["number"]) if table.ended("complete") else None,
        **{kind: {row_name(row["number"]): row[kind] for row in table} for kind in ("state", "stage", "parameters")},
        "error": {row_name(number): error for number, error in table.errors.items()},
    }  # fmt: skip
    result = Result(name, dataset, backend.name, settings, [spec.seed], notes=notes)
    for row in table:
        metrics = {} if row["value"] is None else {"value": row["value"]} | row["metrics"]
        finite = {n: v for n, v in metrics.items() if isinstance(v, float) and math.isfinite(v)}
        result.row(row_name(row["number"])).add(**finite)
    if importances := table.importances():
        result.row(IMPORTANCE).add(**importances)
    for number, curve in table.curves.items():
        result.curves[row_name(number)] = {"step": list(curve), "cost": list(curve.values())}
    for row in table:
        if row["seconds"] is not None:
            result.time(row_name(row["number"]), trial=row["seconds"])
    result.provenance = watch.provenance(backend)
    return result
