"""`gpunet run EXPERIMENT`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpunet.cli import options

if TYPE_CHECKING:
    from gpunet.experiments.schema import Result

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")


@app.callback()
def experiments() -> None:
    """Run one experiment and write its results, claims and figures."""


@app.command("svd-init")
def svd_init(
    dataset: options.Dataset = None,
    device: options.Device = "auto",
    seeds: options.Seeds = None,
    seed: options.Seed = 0,
    epochs: options.Epochs = None,
    hidden: Annotated[
        int | None, typer.Option(min=1, show_default="100, or what the data can give", help="Hidden units.")
    ] = None,
    learning_rate: Annotated[
        float, typer.Option(help="Step size of plain SGD (our choice; the document states none).")
    ] = 0.6,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples a step (our choice).")] = 100,
    dependency: Annotated[
        float, typer.Option(min=0.0, help="dep of equations 8 and 9: sets the scale of W¹ (our choice).")
    ] = 0.05,
    out: options.Out = None,
    quick: options.Quick = False,
    json: options.Json = False,
) -> None:
    """First-layer weights made from the singular vectors of the data (document 000, H. Gu).

    Trains 784-100-10 (sigmoid, cross-entropy) from five kinds of first-layer weights: random, and four made from the
    SVD of the data, whole or class by class; then with that layer frozen, and with the norms of the weights held.

    On your own data: `gpunet run svd-init --dataset my.npz`, any number of classes and features.
    """
    from gpunet.experiments import registry
    from gpunet.report import svd_init_figures
    from gpunet.report.svd_init_tables import tables

    experiment = registry.experiment("svd-init").load()
    settings = experiment.Settings(
        hidden=hidden, learning_rate=learning_rate, batch_size=batch_size, epochs=epochs, dependency=dependency
    )
    data, seed_list = _data(dataset, quick), list(range(seed, seed + (seeds or (1 if quick else 5))))
    _finish("svd-init", data, out, json, svd_init_figures.draw, tables, lambda bar: experiment.run(
        data, settings, seed_list, device=device, progress=bar,
    ))  # fmt: skip


def _data(dataset: str | None, quick: bool) -> Any:
    from dataclasses import replace

    from gpunet.datasets import load, names

    chosen = dataset or ("digits" if quick else "mnist")
    data = load(chosen)
    if data.name in names() and chosen != data.name:  # somebody's own mnist.npz is not what the document speaks of
        return replace(data, name=f"own-{data.name}")
    return data


def _finish(name: str, data: Any, out: Path | None, json: bool, draw: Any, tables: Any, compute: Any) -> None:
    """Check the folder first, compute, write, print."""
    from gpunet.files import writable_folder
    from gpunet.progress import progress

    folder = writable_folder(out or Path("runs") / f"{name}-{data.name}")
    with progress(True) as bar:
        result: Result = compute(bar)
    figures = draw(result, folder)
    path = result.write(folder)
    if json:
        print(path.read_text(), end="")
        return
    from rich.console import Console

    from gpunet.report.tables import verdict_line

    console = Console()
    for table in tables(result):
        console.print(table)
    console.print(f"Claims: {verdict_line(result)}", markup=False, soft_wrap=True)
    written = f"Written: {path}, {', '.join(p.name for p in figures)} ({result.provenance['seconds']:.0f} s)"
    console.print(written, markup=False, highlight=False, soft_wrap=True)
