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
    from gpunet.cli.running import finish
    from gpunet.experiments.work import order

    changes = {
        "task": task, "phi": phi, "alphas": tuple(alpha or ()) or None, "meanings": tuple(meaning or ()) or None,
        "epochs": epochs, "sweep_alpha": sweep_alpha, "sweep_phi": sweep_phi, "speed": speed,
    }  # fmt: skip
    work = order("svd-dnn", changes, dataset=dataset, quick=quick, first=seed, seeds=seeds).load()
    name = f"svd-dnn-{task}" if work.dataset == task else f"svd-dnn-{task}-{work.dataset}"
    finish(work, out or Path("runs") / f"{name}{'-sweep' if sweep_alpha or sweep_phi else ''}", device, json)
