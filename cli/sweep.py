"""`gpunet sweep`: search the settings of an experiment, of a training run, or of a function of one's own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer

from gpunet.cli import options, sweeping
from gpunet.cli.sweeping import (  # fmt: skip
    ABOUT,
    Dataset,
    Direction,
    KeepGoing,
    Out,
    Param,
    Seed,
    Stages,
    Storage,
    Trials,
    Validation,
    Workers,
)
from gpunet.experiments import experiments

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")


@app.callback()
def _group() -> None:
    """Search settings, coarse to fine, by several workers, on Optuna.

    `gpunet sweep train --dataset digits --param learning_rate=log:1e-4..1e-1 --param hidden=int:16..256 --workers 2`
    """


def _of(name: str) -> Callable[..., None]:
    """The command that searches an experiment's settings."""

    def sweep(
        param: Param,
        dataset: Dataset = "digits",
        metric: Annotated[
            str | None,
            typer.Option(
                metavar="[ROW:]METRIC", show_default="test_accuracy",
                help="A row of the experiment's result and one of its metrics; without ROW the mean over all rows.",
            ),
        ] = None,
        direction: Direction = None,
        trials: Trials = 20,
        stages: Stages = 2,
        workers: Workers = 1,
        seeds: Annotated[int, typer.Option("--seeds", "-n", min=1, help="Training seeds of each trial.")] = 1,
        seed: Seed = 0,
        validation: Validation = 0.2,
        device: options.Device = "auto",
        storage: Storage = None,
        keep_going: KeepGoing = True,
        out: Out = None,
        json: options.Json = False,
    ) -> None:  # fmt: skip
        from gpunet.sweep import experiment, parse_parameter, search

        space, dataset = [parse_parameter(text) for text in param], sweeping.absolute(dataset)
        settings = experiment.settings_for(
            name, space, dataset=dataset, validation=validation, seed=seed, device=device, seeds=seeds, metric=metric
        )
        way = direction or experiment.direction(metric)
        sweeping.run(
            f"sweep-{name}", settings["name"], out, storage, json,
            lambda url, bar: search(
                experiment.FUNCTION, settings, space, trials=trials, stages=stages, seed=seed, workers=workers,
                storage=url, direction=way, progress=bar, keep_going=keep_going,
            ),
        )  # fmt: skip

    return sweep


for _name, _x in experiments().items():
    app.command(_name, help=f"Search the settings of {_name}: {_x.summary}.{ABOUT}")(_of(_name))


@app.command(help=f"Search the settings of a plain training run: a dense network, ReLU, softmax cross-entropy.{ABOUT}")
def train(
    param: Param,
    dataset: Dataset = "digits",
    hidden: Annotated[int, typer.Option(min=1, help="Units of each hidden layer.")] = 64,
    layers: Annotated[int, typer.Option(min=0, help="Hidden layers.")] = 1,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of training.")] = 10,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples a step.")] = 64,
    optimizer: Annotated[Literal["adam", "sgd"], typer.Option(help="The optimiser.")] = "adam",
    learning_rate: Annotated[float, typer.Option(help="Step size.")] = 1e-3,
    momentum: Annotated[float, typer.Option(help="Of sgd.")] = 0.9,
    l2: Annotated[float, typer.Option(help="λ of a term λ‖W‖².")] = 0.0,
    metric: Annotated[
        str,
        typer.Option(
            metavar="METRIC", help="validation_accuracy, validation_loss, train_accuracy or train_loss, at the end."
        ),
    ] = "validation_accuracy",
    direction: Direction = None,
    trials: Trials = 20,
    stages: Stages = 2,
    workers: Workers = 1,
    seed: Seed = 0,
    validation: Validation = 0.2,
    device: options.Device = "auto",
    storage: Storage = None,
    keep_going: KeepGoing = True,
    out: Out = None,
    json: options.Json = False,
) -> None:
    """Search the settings of a plain training run."""
    from gpunet.sweep import parse_parameter, search, training
    from gpunet.sweep.experiment import direction as direction_of

    space, dataset = [parse_parameter(text) for text in param], sweeping.absolute(dataset)
    settings = training.settings_for(
        space, dataset=dataset, validation=validation, seed=seed, device=device, metric=metric, hidden=hidden,
        layers=layers, epochs=epochs, batch_size=batch_size, optimizer=optimizer, learning_rate=learning_rate,
        momentum=momentum, l2=l2,
    )  # fmt: skip
    way = direction or direction_of(metric)
    sweeping.run(
        "sweep-train", settings["name"], out, storage, json,
        lambda url, bar: search(
            training.FUNCTION, settings, space, trials=trials, stages=stages, seed=seed, workers=workers, storage=url,
            direction=way, progress=bar, keep_going=keep_going,
        ),
    )  # fmt: skip


@app.command()
def function(
    name: Annotated[str, typer.Argument(metavar="PACKAGE.MODULE:FUNCTION", help="What is searched.")],
    param: Param,
    given: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting that the function is handed.")
    ] = None,
    direction: Annotated[Literal["maximize", "minimize"], typer.Option(help="What is better.")] = "maximize",
    trials: Trials = 20,
    stages: Stages = 2,
    workers: Workers = 1,
    seed: Seed = 0,
    storage: Storage = None,
    keep_going: KeepGoing = True,
    out: Out = None,
    json: options.Json = False,
) -> None:
    """Search a function of your own.

    `function(parameters, settings, report)` returns the value, or a dictionary with "value" and other metrics.
    `parameters` has one value of each --param, `settings` what --set gives and the trial's own seed, "trial_seed";
    `report(step, cost)` records a curve and is True when the trial should stop. The module is looked for in the current
    folder, too, after what is installed.
    """
    from gpunet.sweep import parse_parameter, search

    sys.path.append(str(Path.cwd()))  # last: what is installed is not to be taken from here
    space, settings = [parse_parameter(text) for text in param], dict(sweeping.setting(text) for text in given or [])
    sweeping.run(
        "sweep-function", name.rpartition(":")[2], out, storage, json,
        lambda url, bar: search(
            name, settings, space, trials=trials, stages=stages, seed=seed, workers=workers, storage=url,
            direction=direction, progress=bar, keep_going=keep_going,
        ),
    )  # fmt: skip


@app.command()
def join(
    url: Annotated[str, typer.Argument(metavar="URL", help="The storage of a sweep that was started elsewhere.")],
    workers: Workers = 1,
    keep_going: KeepGoing = True,
    function: Annotated[
        str | None,
        typer.Option(
            metavar="PACKAGE.MODULE:FUNCTION", show_default="gpunet's own", help="The function of that sweep."
        ),
    ] = None,
    out: Annotated[Path | None, options.out("Write the results here, too.", "no")] = None,
    json: options.Json = False,
) -> None:
    """Take part in a sweep that lies in a storage, until it is finished.

    The data is read on this machine, by the same name or path, and must be the same. A storage names the function that
    is run, and may be somebody else's: one that is not gpunet's own has to be named here, too.
    """
    from gpunet.sweep import join as take_part
    from gpunet.sweep.storage import storage_url

    sys.path.extend([str(Path.cwd())] if function else [])
    only = function or "gpunet."
    sweeping.run(
        None, "", out, storage_url(url), json,
        lambda url, bar: take_part(url, workers=workers, progress=bar, keep_going=keep_going, only=only),
    )  # fmt: skip
