"""`gpunet sweep`: search the settings of an experiment, of a training run, or of a function of one's own."""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gpunet.cli import options
from gpunet.cli.help import Commands
from gpunet.cli.options import option
from gpunet.cli.process import Interrupted
from gpunet.experiments import experiments
from gpunet.experiments.framework import OF_PRECISION, Precision

if TYPE_CHECKING:
    from gpunet.experiments.result import Result
    from gpunet.progress import Progress
    from gpunet.sweep import Parameter, Table

    Target = tuple[str, str, dict[str, Any], str]  # the data's name, the function, its settings, what is better

app = Commands()


# -- options ----------------------------------------------------------------------------------------------------------

ABOUT = (
    "\n\nEvery trial trains on a part of the training samples and is judged by the part that is held out: the test set "
    "stays unseen, and what the experiment calls test accuracy is here the accuracy on the held-out samples.\n\n"
    "Stopped or killed at any moment, the same command goes on where it stopped."
)

NEEDED = inspect.Parameter.empty


DATA: options.Options = {
    "param": option(
        list[str], NEEDED, "--param", "-p", metavar="NAME=RANGE",
        help="A setting to search: `lr=0..1`, `lr=log:1e-3..1e-1`, `n=int:16..256`, `n=int:log:16..4096`, a list "
        "`o=adam,sgd`, or one value to hold it there. Given once for each; an unknown NAME is answered with those "
        "there are.",
    ),
    **options.data("digits"),
}  # fmt: skip
SHARED: options.Options = {  # by all searches, after their own
    "direction": option(
        Literal["maximize", "minimize"] | None, None, help="What is better.",
        show_default="minimize losses, errors, seconds, steps; else maximize",
    ),
    "trials": option(int, 20, help="Trials of each stage.", min=1),
    "stages": option(
        int, 2, help="Each later stage draws in the box around the best fifth of the trials before it.", min=1
    ),
    "workers": option(
        int, 1, "--workers", "-w", min=1,
        help="Processes on this machine, one thread each; any number gives the same result.",
    ),
    "seeds": option(int, 1, "--seeds", "-n", min=1, help="Training seeds of each trial."),
    "seed": option(int, 0, min=0, help="Decides all parameters, the held-out samples, and the trials' own seeds."),
    "validation": option(
        float, 0.2, help="The share of the training samples that is held out to judge by; the test set is not used."
    ),
    "device": (options.Device, "auto"),
    "storage": option(
        str | None, None, metavar="URL", show_default="sqlite:///OUT/sweep.db",
        help="An Optuna storage: sqlite:///file.db, postgresql://user@host/name, mysql://…, journal:///file.log, or a "
        "path. `gpunet sweep join URL` lets other machines take part.",
    ),
    "keep_going": option(
        bool, True, "--keep-going/--stop-at-failure", help="Whether the others go on when a trial fails."
    ),
    "out": (Annotated[Path | None, options.out("Folder for all results.", "runs/sweep-WHAT-DATASET")], None),
    "json": (options.Json, False),
}  # fmt: skip
EXPERIMENT = DATA | {
    "metric": option(
        str | None, None, metavar="[ROW:]METRIC", show_default="test_accuracy",
        help="A row of the experiment's result and one of its metrics; without ROW the mean over all rows.",
    ),
}  # fmt: skip
TRAINING = DATA | {
    "hidden": option(int, 64, min=1, help="Units of each hidden layer."),
    "layers": option(int, 1, min=0, help="Hidden layers."),
    "epochs": option(int, 10, min=1, help="Epochs of training."),
    "batch_size": option(int, 64, min=1, help="Samples a step."),
    "optimizer": option(Literal["adam", "adamw", "sgd"], "adam", help="The optimiser."),
    "learning_rate": option(float, 1e-3, help="Step size."),
    "momentum": option(float, 0.9, help="Of sgd."),
    "l2": option(float, 0.0, help="λ of a term λ‖W‖²; of adamw its decay."),
    "precision": option(Precision, "float32", help=OF_PRECISION),
    "metric": option(
        str, "validation_accuracy", metavar="METRIC",
        help="validation_accuracy, validation_loss, train_accuracy or train_loss, at the end.",
    ),
}  # fmt: skip
FUNCTION: options.Options = {
    "name": (
        Annotated[str, typer.Argument(metavar="PACKAGE.MODULE:FUNCTION", help="What is searched.")],
        NEEDED,
    ),
    "param": DATA["param"],
    "given": option(
        list[str] | None, None, "--set", metavar="NAME=VALUE", help="A setting that the function is handed."
    ),
    "direction": option(Literal["maximize", "minimize"], "maximize", help="What is better."),
}  # fmt: skip
JOIN: options.Options = {
    "url": (
        Annotated[str, typer.Argument(metavar="URL", help="The storage of a sweep that was started elsewhere.")],
        NEEDED,
    ),
    "workers": SHARED["workers"],
    "keep_going": SHARED["keep_going"],
    "function": option(
        str | None, None, metavar="PACKAGE.MODULE:FUNCTION", show_default="gpunet's own",
        help="The function of that sweep.",
    ),
    "out": (Annotated[Path | None, options.out("Write the results here, too.", "no")], None),
    "json": SHARED["json"],
}  # fmt: skip


# -- commands ---------------------------------------------------------------------------------------------------------


def _searching(
    target: Callable[..., Target], own: options.Options, left_out: tuple[str, ...] = ()
) -> Callable[..., None]:
    """A command that searches what `target` makes of the options that are not every search's."""

    def command(
        param: list[str], trials: int, stages: int, workers: int, seed: int, storage: str | None, keep_going: bool,
        out: Path | None, json: bool, direction: str | None, **given: Any,
    ) -> None:  # fmt: skip
        from gpunet.datasets.catalog import packages
        from gpunet.extras import need

        need("a sweep", "optuna", "sqlalchemy", "scipy", "matplotlib", *packages(given.get("dataset", "")))
        from gpunet.sweep import parse_parameter, search
        from gpunet.sweep.targets import title

        space = [parse_parameter(text) for text in param]
        data, function, settings, way = target(space, seed=seed, **given)
        _run(
            out or Path("runs") / f"{title(function, settings)}-{data}", storage, json,
            lambda url, bar: search(
                function, settings, space, trials=trials, stages=stages, seed=seed, workers=workers, storage=url,
                direction=direction or way, progress=bar, keep_going=keep_going,
            ),
        )  # fmt: skip

    listed = own | {name: option for name, option in SHARED.items() if name not in (*own, *left_out)}
    options.sign(command, listed)
    return command


def _experiment(name: str) -> Callable[..., Target]:
    def target(space: list[Parameter], *, dataset: str, metric: str | None, **given: Any) -> Target:
        from gpunet.sweep import targets

        how = _reading(given)
        settings = targets.experiment_settings(
            name, space, dataset=_absolute(dataset), metric=metric, reading=how, **given
        )
        options.tell_notes(settings["name"], settings.get("notes", ()))
        return settings["name"], targets.EXPERIMENT, settings, targets.direction(metric)

    return target


def _training(space: list[Parameter], *, dataset: str, metric: str, **given: Any) -> Target:
    from gpunet.sweep import targets

    how = _reading(given)
    settings = targets.training_settings(space, dataset=_absolute(dataset), metric=metric, reading=how, **given)
    options.tell_notes(settings["name"], settings.get("notes", ()))
    return settings["name"], targets.TRAINING, settings, targets.direction(metric)


def _function(space: list[Parameter], *, seed: int, name: str, given: list[str] | None) -> Target:
    """Search a function of your own.

    `function(parameters, settings, report)` returns the value, or a dictionary with "value" and other metrics.
    `parameters` has one value of each --param, `settings` what --set gives and the trial's own seed, "trial_seed";
    `report(step, cost)` records a curve and is True when the trial should stop. The module is looked for in the current
    folder, too, after what is installed.

    For example:

        gpunet sweep function my.module:score --param x=-2..2 --param kind=a,b --set repeats=3
    """
    sys.path.append(str(Path.cwd()))  # last: what is installed is not to be taken from here
    return name.rpartition(":")[2], name, dict(_setting(text) for text in given or []), "maximize"


def _join(
    url: str, workers: int, keep_going: bool, function: str | None, out: Path | None, json: bool
) -> None:  # fmt: skip
    """Take part in a sweep that lies in a storage, until it is finished.

    The data is read on this machine, by the same name or path, and must be the same. A storage names the function that
    is run, and may be somebody else's: one that is not gpunet's own has to be named here, too.

    For example:

        gpunet sweep join postgresql://me@host/sweeps --workers 8
    """
    from gpunet.sweep import join as take_part
    from gpunet.sweep.storage import storage_url

    sys.path.extend([str(Path.cwd())] if function else [])
    only = function or "gpunet."
    _run(
        out, storage_url(url), json,
        lambda url, bar: take_part(url, workers=workers, progress=bar, keep_going=keep_going, only=only),
    )  # fmt: skip


for _name, _x in experiments().items():
    _example = f"\n\nFor example:\n\n    gpunet sweep {_name} --param {_x.searched} --trials 10 --workers 2"
    _about = f"Search the settings of {_name}: {_x.summary}.{ABOUT}{_example}"
    app.command(_name, help=_about)(_searching(_experiment(_name), EXPERIMENT))
_example = "\n\nFor example:\n\n    gpunet sweep train --param learning_rate=log:1e-4..1e-1 --param hidden=int:16..256"
_about = f"Search the settings of a plain training run: a dense network, ReLU, softmax cross-entropy.{ABOUT}{_example}"
app.command("train", help=_about)(_searching(_training, TRAINING, ("seeds",)))
app.command("function", help=inspect.getdoc(_function))(
    _searching(_function, FUNCTION, ("seeds", "validation", "device"))
)
options.sign(_join, JOIN)
app.command("join")(_join)


# -- around the searching ----------------------------------------------------------------------------------------------


def _setting(text: str) -> tuple[str, Any]:
    """NAME=VALUE, the value as JSON where it is some, else as it stands."""
    import json

    from gpunet.errors import InputError

    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not name:
        raise InputError(f"--set is {text!r}: expected NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _absolute(dataset: str) -> str:
    """Workers may run elsewhere: a path is kept in full."""
    from gpunet.datasets import names

    return dataset if dataset in names() or not os.path.exists(dataset) else str(Path(dataset).resolve())


def _reading(given: dict[str, Any]) -> dict[str, Any]:
    """How data is to be read; workers may run elsewhere."""
    how = options.reading(given)
    return how | ({"label": _absolute(how["label"])} if "label" in how else {})


def _run(folder: Path | None, storage: str | None, json: bool, compute: Callable[[str, Progress], Table]) -> None:
    """Check the folder, search, write, print; says how to go on when it is interrupted."""
    from gpunet.errors import StorageLostError
    from gpunet.experiments.provenance import Stopwatch
    from gpunet.files import RESULT, writable_folder
    from gpunet.progress import progress
    from gpunet.sweep.storage import file_url
    from gpunet.sweep.targets import as_result, title

    watch = Stopwatch()
    if folder is not None:
        writable_folder(folder, RESULT)
    url = file_url("sqlite", (folder or Path()) / "sweep.db") if storage is None else storage
    lost = None
    try:
        with contextlib.redirect_stdout(sys.stderr), progress(True) as bar:  # a function of somebody's own may print
            table = compute(url, bar)
    except StorageLostError as error:
        table, lost = error.table, error
    except KeyboardInterrupt:
        raise Interrupted("the finished trials are kept, and the same command goes on where it stopped") from None
    result = as_result(table, title(table.spec.function, table.spec.settings), watch, url)
    text, seconds = result.text(), result.provenance["seconds"]
    if folder is None:
        options.end(text, json, lambda: _print(result))
    else:
        options.finish(folder, text, json, lambda: _draw(result, folder), lambda: _print(result), seconds)
    if lost:
        raise lost
    if not table.ended("complete"):
        _ = table.best  # which says why there is none


def _draw(result: Result, folder: Path) -> None:
    from gpunet.report import sweep_figures

    sweep_figures.draw(result, folder)


def _print(result: Result) -> None:
    from gpunet.report import sweep_tables
    from gpunet.report.terminal import console, rich_table

    for table in sweep_tables.tables(result):
        console().print(rich_table(table))
    options.say(*sweep_tables.failures(result), sweep_tables.best_line(result))
