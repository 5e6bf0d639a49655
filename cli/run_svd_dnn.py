"""`gpunet run svd-dnn`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpunet.cli import options


def svd_dnn(
    task: Annotated[
        str, typer.Option("--task", "-t", metavar="xor|cats|mnist", help="Network and training of Table 1, 2 or 3.")
    ] = "mnist",
    dataset: options.Dataset = None,
    device: options.Device = "auto",
    seeds: options.TaskSeeds = None,
    seed: options.Seed = 0,
    epochs: options.Epochs = None,
    phi: Annotated[float, typer.Option(help="φ: the share of the steps that is trained dense, 0 to 1.")] = 0.1,
    alpha: Annotated[
        list[float] | None,
        typer.Option(
            show_default="1/2; with mnist also 1/4 and 1/8",
            help="α: how much rank is kept; may be given several times, the first is the main one.",
        ),
    ] = None,
    meaning: Annotated[
        list[str] | None,
        typer.Option(
            metavar="dimension|break-even",
            show_default="both",
            help="What α means: l = α·min(m, n), the text's; or α·mn/(m+n), its authors' code's.",
        ),
    ] = None,
    sweep_alpha: Annotated[
        bool, typer.Option("--sweep-alpha", help="Instead: the effect of α over seeds, as a heat map.")
    ] = False,
    sweep_phi: Annotated[bool, typer.Option("--sweep-phi", help="The same of φ; with --sweep-alpha a grid.")] = False,
    speed: Annotated[bool, typer.Option("--speed/--no-speed", help="Time epochs of all nets in turn.")] = True,
    out: options.Out = None,
    quick: options.Quick = False,
    json: options.Json = False,
) -> None:
    """Pre-train dense, cut the weights by truncated SVD, train the factors, multiply back (document 001).

    Trains the dense net of a task and its factored forms, and puts Tables 1 to 3 and Figures 3 to 5 beside ours:
    cost, accuracy, relative speed, what the cut itself does; φ = 0; the optimiser's state restarted or carried over.

    On your own data: `gpunet run svd-dnn --dataset my.npz` trains the mnist task's net on it.
    """
    from gpunet.cli.running import finish, load_data, seed_list
    from gpunet.experiments import registry
    from gpunet.experiments.svd_dnn_tasks import MEANINGS
    from gpunet.experiments.svd_dnn_tasks import task as find
    from gpunet.report import svd_dnn_figures
    from gpunet.report.svd_dnn_tables import tables

    found, experiment = find(task), registry.experiment("svd-dnn").load()
    settings = experiment.Settings(
        task=task, phi=phi, alphas=tuple(alpha) if alpha else None, meanings=tuple(meaning or MEANINGS), epochs=epochs,
        sweep_alpha=sweep_alpha, sweep_phi=sweep_phi, speed=speed,
    )  # fmt: skip
    data = load_data(dataset or ("digits" if quick and task == "mnist" else found.dataset))
    chosen = seed_list(seed, seeds, 1 if quick else found.seeds)
    sweep = "-sweep" if sweep_alpha or sweep_phi else ""
    name = f"svd-dnn-{task}{sweep}" if data.name == task else f"svd-dnn-{task}-{data.name}{sweep}"
    finish(
        out or Path("runs") / name, json,
        lambda bar: experiment.run(data, settings, chosen, device=device, progress=bar), svd_dnn_figures.draw, tables,
    )  # fmt: skip
