"""A plain training run as what is searched: a dense network on any data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from gpunet.checks import check_range
from gpunet.errors import InputError
from gpunet.nn.callbacks import Callback
from gpunet.nn.layers import Dense
from gpunet.nn.model import Sequential
from gpunet.nn.optim import SGD, Adam, Optimizer
from gpunet.nn.trainer import Trainer
from gpunet.nn.training import Training
from gpunet.sweep.experiment import check_kinds
from gpunet.sweep.holdout import described, same_data, split
from gpunet.sweep.parameters import Parameter
from gpunet.sweep.plan import SEED, Parameters, Report

FUNCTION = "gpunet.sweep.training:trial"
METRICS = ("validation_accuracy", "validation_loss", "train_accuracy", "train_loss")
OPTIMIZERS = ("adam", "sgd")
KINDS = {
    "learning_rate": float, "l2": float, "momentum": float, "hidden": int, "layers": int, "epochs": int,
    "batch_size": int, "optimizer": str,
}  # fmt: skip
LOOKED_AT = 1000  # training samples whose cost is the curve


def settings_for(
    space: Sequence[Parameter], *, dataset: str, validation: float, seed: int, device: str, metric: str,
    **own: float | int | str,
) -> dict[str, Any]:  # fmt: skip
    """The settings of a sweep over a training run; `own`: those of KINDS that have one value.

    Raises InputError for a parameter that a training run does not have, or for a value out of range.
    """
    if metric not in METRICS:
        raise InputError(f"unknown metric '{metric}': expected one of {', '.join(METRICS)}")
    check_kinds("a training run", space, KINDS)
    for name, given in [*own.items(), *((p.name, v) for p in space for v in p.values or (p.low, p.high))]:
        _check(name, given)
    optimizers = next((p.values for p in space if p.name == "optimizer"), (own["optimizer"],))
    if "sgd" not in optimizers and any(p.name == "momentum" for p in space):
        raise InputError("momentum is SGD's: add --optimizer sgd")
    return {**described(dataset, validation, seed), "device": device, "metric": metric, "fixed": own}


def _check(name: str, value: Any) -> None:
    if name == "optimizer":
        if value not in OPTIMIZERS:
            raise InputError(f"unknown optimizer '{value}': expected {' or '.join(OPTIMIZERS)}")
    elif KINDS[name] is int:
        check_range(name, value, least=0 if name == "layers" else 1)
    elif name == "learning_rate":
        check_range(name, value, above=0)
    else:
        check_range(name, value, least=0, **({"below": 1} if name == "momentum" else {}))


def before_sweep(settings: dict[str, Any]) -> None:
    """Look whether this machine has the data."""
    split.cache_clear()  # a file may have changed
    same_data(settings)


def trial(parameters: Parameters, settings: dict[str, Any], report: Report) -> dict[str, Any]:
    """Train once; the metrics after the last epoch."""
    data, given = same_data(settings), settings["fixed"] | parameters
    layers = [*(Dense(given["hidden"], "relu") for _ in range(given["layers"])), Dense(data.classes)]
    trainer = Trainer(Sequential(layers), optimizer=_optimizer(given), device=settings["device"], seed=settings[SEED])
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
    return SGD(given["learning_rate"], given["momentum"], l2=given["l2"])


class _Reported(Callback):
    """Reports the cost of some training samples, before training and after each epoch."""

    def __init__(self, report: Report) -> None:
        self.report = report

    def on_fit_begin(self, trainer: Training) -> None:
        """The cost that later ones are held against."""
        train, xp = trainer.plan.train, trainer.backend.xp
        every = -(-len(train) // LOOKED_AT)
        x, labels = (xp.ascontiguousarray(array[::every]) for array in (train.x, train.labels))
        self.looked_at = replace(train, x=x, labels=labels)
        self._look(trainer, 0)

    def on_epoch_end(self, trainer: Training, epoch: int, logs: dict[str, float]) -> None:
        """The cost now."""
        self._look(trainer, epoch + 1)

    def _look(self, trainer: Training, step: int) -> None:
        if self.report(step, trainer.evaluate(self.looked_at)["loss"]):
            trainer.stop("the trial is pruned")
