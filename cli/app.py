"""The tree of commands."""

from __future__ import annotations

import typer

from gpunet.cli import bench, data, info, reproduce, run, sweep
from gpunet.experiments import experiments

app = typer.Typer(
    name="gpunet",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="SVD-shaped neural networks: published experiments, on NumPy or on your GPU.\n\n"
    f"Start with `gpunet run {next(iter(experiments()))} --dataset digits`: it needs no download. Add `--debug` to any "
    "command for a traceback.",
)
app.add_typer(run.app, name="run", help="Run one experiment and write its results, claims and figures.")
app.add_typer(data.app, name="data")
app.add_typer(bench.app, name="bench")
app.add_typer(sweep.app, name="sweep")
app.command("reproduce")(reproduce.reproduce)
app.command("info")(info.info)
