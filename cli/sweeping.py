"""What the commands of `gpunet sweep` share: options, and what is done around the searching."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gpunet.cli import options
from gpunet.cli.process import Interrupted

if TYPE_CHECKING:
    from gpunet.progress import Progress
    from gpunet.sweep import Table

Param = Annotated[
    list[str],
    typer.Option(
        "--param", "-p", metavar="NAME=RANGE",
        help="A setting to search: `lr=0..1`, `lr=log:1e-3..1e-1`, `n=int:16..256`, `n=int:log:16..4096`, a list "
        "`o=adam,sgd`, or one value to hold it there. Given once for each; an unknown NAME is answered with those "
        "there are.",
    ),
]  # fmt: skip
Trials = Annotated[int, typer.Option("--trials", min=1, help="Trials of each stage.")]
Stages = Annotated[
    int,
    typer.Option(
        "--stages", min=1, help="Each later stage draws in the box around the best fifth of the trials before it."
    ),
]
Workers = Annotated[
    int,
    typer.Option(
        "--workers", "-w", min=1, help="Processes on this machine, one thread each; any number gives the same result."
    ),
]
Storage = Annotated[
    str | None,
    typer.Option(
        "--storage", metavar="URL", show_default="sqlite:///OUT/sweep.db",
        help="An Optuna storage: sqlite:///file.db, postgresql://user@host/name, mysql://…, journal:///file.log, or a "
        "path. `gpunet sweep join URL` lets other machines take part.",
    ),
]  # fmt: skip
Dataset = Annotated[
    str,
    typer.Option("--dataset", "-d", metavar="NAME|PATH", help="A data set of `gpunet data list`, or your own."),
]
Seed = Annotated[
    int, typer.Option(min=0, help="Decides all parameters, the held-out samples, and the trials' own seeds.")
]
Validation = Annotated[
    float,
    typer.Option(help="The share of the training samples that is held out to judge by; the test set is not used."),
]
Direction = Annotated[
    Literal["maximize", "minimize"] | None,
    typer.Option(show_default="minimize losses, errors, seconds, steps; else maximize", help="What is better."),
]
KeepGoing = Annotated[
    bool, typer.Option("--keep-going/--stop-at-failure", help="Whether the others go on when a trial fails.")
]
Out = Annotated[
    Path | None,
    options.out("Folder for all results.", "runs/sweep-WHAT-DATASET"),
]
ABOUT = (
    "\n\nEvery trial trains on a part of the training samples and is judged by the part that is held out: the test set "
    "stays unseen, and what the experiment calls test accuracy is here the accuracy on the held-out samples.\n\n"
    "Stopped or killed at any moment, the same command goes on where it stopped."
)


def setting(text: str) -> tuple[str, Any]:
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


def absolute(dataset: str) -> str:
    """Workers may run elsewhere: a path is kept in full."""
    from gpunet.datasets import names

    return dataset if dataset in names() or not os.path.exists(dataset) else str(Path(dataset).resolve())


def run(
    what: str | None, dataset: str, out: Path | None, storage: str | None, json: bool,
    compute: Callable[[str, Progress], Table],
) -> None:  # fmt: skip
    """Check the folder, search, write, print; says how to go on when it is interrupted."""
    from gpunet.errors import StorageLostError
    from gpunet.experiments.provenance import Stopwatch
    from gpunet.experiments.result import RESULT
    from gpunet.files import writable_folder
    from gpunet.progress import progress
    from gpunet.sweep.results import as_result
    from gpunet.sweep.storage import file_url

    watch = Stopwatch()
    folder = out or (None if what is None else Path("runs") / f"{what}-{dataset}")
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
    _finish(as_result(table, what or _name_of(table), watch, url), folder, json)
    if lost:
        raise lost
    if not table.ended("complete"):
        _ = table.best  # which says why there is none


def _name_of(table: Table) -> str:
    from gpunet.sweep import experiment, training

    names = {experiment.FUNCTION: table.spec.settings.get("experiment"), training.FUNCTION: "train"}
    return f"sweep-{names.get(table.spec.function, 'function')}"


def _finish(result: Any, folder: Path | None, json: bool) -> None:
    from gpunet.errors import RunError
    from gpunet.files import attempted
    from gpunet.report.drawing import drawn

    path: Path | None = None
    figures: list[Path] = []
    problem = ""
    if folder is not None:
        path, problem = attempted(lambda: result.write(folder))
        figures = [] if problem else drawn(lambda: _draw(result, folder))
    if json:
        print(result.text(), end="")
    else:
        _print(result, [str(path), *(figure.name for figure in figures)] if path else [])
    if problem:
        raise RunError(problem)


def _print(result: Any, written: list[str]) -> None:
    from gpunet.report import sweep_tables
    from gpunet.report.terminal import console

    screen = console()
    for table in sweep_tables.tables(result):
        screen.print(table)
    for line in [*sweep_tables.failures(result), sweep_tables.best_line(result)]:
        screen.print(line, markup=False, highlight=False, soft_wrap=True)
    if written:
        line = f"Written: {', '.join(written)} ({result.provenance['seconds']:.0f} s)"
        screen.print(line, markup=False, highlight=False, soft_wrap=True)


def _draw(result: Any, folder: Path) -> None:
    from gpunet.report import sweep_figures

    sweep_figures.draw(result, folder)
