"""`gpunet run cifar-mlp`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpunet.cli import options


def cifar_mlp(
    dataset: options.Dataset = None,
    part: Annotated[
        list[str] | None,
        typer.Option(
            metavar="gradient|rates|search|final|better|full",
            show_default="all but full",
            help="What to run; may be given several times.",
        ),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Also train on all batches of CIFAR-10 minus a hold-out of 5,000 images.")
    ] = False,
    hidden: Annotated[int, typer.Option("--hidden", "-m", min=1, help="m: units of the hidden layer.")] = 50,
    learning_rate: Annotated[
        list[float] | None,
        typer.Option(
            show_default="the document's ten, 0.001 to 0.5",
            help="η of the table, with and without momentum; may be given several times.",
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples of a mini-batch.")] = 64,
    trials: Annotated[
        int | None,
        typer.Option(
            min=1,
            show_default="100; 20 with --quick",
            help="Nets in each of the search's two stages; the wider search takes a quarter.",
        ),
    ] = None,
    device: options.Device = "auto",
    seeds: options.ThreeSeeds = None,
    seed: options.Seed = 0,
    epochs: options.Epochs = None,
    out: options.Out = None,
    quick: options.Quick = False,
    json: options.Json = False,
) -> None:
    """A ReLU layer and softmax on CIFAR-10 by mini-batch gradient descent with momentum and L2 (document 004).

    The gradient check, the table of learning rates with and without momentum (Figures 1 and 2), the search over η and λ
    (Figures 3 and 4), the final net (Figure 5), and what He's weights, decay, early stopping and more data bring.
    Batch 1 trains, batch 2 validates; what is chosen is chosen by validation.

    On your own data: `gpunet run cifar-mlp --dataset my.npz`; a fifth of its training samples validates.
    """
    from gpunet.cli.running import finish
    from gpunet.experiments.registry import experiment
    from gpunet.experiments.work import order

    parts = tuple(part or experiment("cifar-mlp").load().PARTS[:-1]) + (("full",) if full else ())
    changes = {
        "parts": parts, "hidden": hidden, "batch_size": batch_size, "epochs": epochs,
        "learning_rates": tuple(learning_rate or ()) or None,
    }  # fmt: skip
    if trials:
        changes |= {"trials": trials, "wide_trials": max(1, trials // 4)}
    work = order("cifar-mlp", changes, dataset=dataset, quick=quick, first=seed, seeds=seeds).load()
    finish(work, out or Path("runs") / f"cifar-mlp-{work.dataset}", device, json)
