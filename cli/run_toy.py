"""`gpunet run toy`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpunet.cli import options


def toy(
    dataset: options.Dataset = None,
    hidden: Annotated[
        list[str] | None,
        typer.Option(
            metavar="UNITS,…", show_default="3,3", help="Units of each hidden layer: 3,3, '3 3', or given repeatedly."
        ),
    ] = None,
    learning_rate: Annotated[
        list[float] | None,
        typer.Option(
            show_default="0.8 0.1 0.2 0.4 1.6 3.2",
            help="May be given several times: the first is the main one, all are compared (Figure 4).",
        ),
    ] = None,
    threshold: Annotated[float, typer.Option(help="A net stops when every sample's loss is below this.")] = 0.04,
    limit: Annotated[
        int | None,
        typer.Option(show_default="10000; 2000 with --quick", help="Steps after which a net is given up."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, numpy, cuda or cuda:N.")] = "auto",
    seeds: Annotated[
        int | None,
        typer.Option(
            "--seeds",
            "-n",
            min=1,
            show_default="100; 10 with --quick",
            help="How many nets, all trained as one stack: --seeds 1000 takes a minute or two.",
        ),
    ] = None,
    seed: options.Seed = 0,
    out: options.Out = None,
    quick: Annotated[bool, typer.Option("--quick", help="10 seeds and 2,000 steps, unless asked otherwise.")] = False,
    json: options.Json = False,
) -> None:
    """Train sigmoid nets on points in the plane until every sample's loss is small (document 003).

    Both data sets of the document, linear and xor-easy: steps and seconds to converge over many seeds, zero initial
    weights as the counter-example, learning rates (Figure 4), decision boundaries (Figure 3), and what the document
    leaves open: the gradient's sum or mean, the loss halved or not.

    On your own data of two classes: `gpunet run toy --dataset my.npz --hidden 8,8`.
    """  # fmt: skip
    from gpunet.cli.running import finish
    from gpunet.errors import InputError
    from gpunet.experiments.work import order

    changes = {"threshold": threshold, "limit": limit, "learning_rates": tuple(learning_rate or ()) or None}
    if hidden:
        words = " ".join(hidden).replace(",", " ").split()
        if not words or not all(word.isdecimal() for word in words):
            raise InputError(f"--hidden is {' '.join(hidden)!r}: expected whole numbers of units ≥ 1, say 3,3")
        changes["hidden"] = tuple(map(int, words))
    work = order("toy", changes, dataset=dataset, quick=quick, first=seed, seeds=seeds).load()
    finish(work, out or Path("runs") / ("toy" if dataset is None else f"toy-{work.dataset}"), device, json)
