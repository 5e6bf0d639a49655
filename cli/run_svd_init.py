"""`gpunet run svd-init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpunet.cli import options


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
    from gpunet.cli.running import finish
    from gpunet.experiments.work import order

    changes = {
        "hidden": hidden, "learning_rate": learning_rate, "batch_size": batch_size, "epochs": epochs,
        "dependency": dependency,
    }  # fmt: skip
    work = order("svd-init", changes, dataset=dataset, quick=quick, first=seed, seeds=seeds).load()
    finish(work, out or Path("runs") / f"svd-init-{work.dataset}", device, json)
