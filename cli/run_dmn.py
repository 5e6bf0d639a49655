"""`gpunet run dmn`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpunet.cli import options


def dmn(
    dataset: options.Dataset = None,
    device: options.Device = "auto",
    seeds: options.ThreeSeeds = None,
    seed: options.Seed = 0,
    epochs: options.Epochs = None,
    variance: Annotated[
        list[str] | None,
        typer.Option(
            metavar="T_V[,T_V]",
            show_default="several widths, one and two layers",
            help="Shares of the variance that a layer's filters explain, by comma one a layer; may be given several "
            "times, a net each.",
        ),
    ] = None,
    correlation: Annotated[
        float, typer.Option(help="T_PC: of two vectors of different classes with a larger |cosine| one is kept.")
    ] = 0.9,
    fraction: Annotated[
        float | None,
        typer.Option(show_default="mnist 0.4, cifar10 0.7, else 1", help="T_frac: the share of the data that is used."),
    ] = None,
    center: Annotated[bool, typer.Option("--center", help="Covariance about each class's mean, not density.")] = False,
    sweeps: Annotated[bool, typer.Option("--sweeps/--no-sweeps", help="Accuracy against T_PC, T_v, T_frac.")] = True,
    dynamics: Annotated[bool, typer.Option("--dynamics/--no-dynamics", help="Figures 1 and 2.")] = True,
    out: options.Out = None,
    quick: options.Quick = False,
    json: options.Json = False,
) -> None:
    """Convolutional layers computed by class-based PCA, only the classifier is trained (document 002, Dehmamy et al.).

    Fits one and two layers of several widths, trains ConvNets of the same filters, and puts Figures 1 to 3 beside
    ours, with the time to fit against the time to train. Filters follow from T_v: `--variance 0.99,0.95`.

    On your own images: `gpunet run dmn --dataset FOLDER`, where FOLDER holds a folder of images for every class.
    """
    from gpunet.cli.running import finish
    from gpunet.experiments.work import order

    changes = {
        "widths": tuple(map(_shares, variance or ())) or None, "correlation": correlation,
        "fraction": fraction, "center": center, "epochs": epochs, "sweeps": sweeps, "dynamics": dynamics,
    }  # fmt: skip
    work = order("dmn", changes, dataset=dataset, quick=quick, first=seed, seeds=seeds).load()
    finish(work, out or Path("runs") / f"dmn-{work.dataset}", device, json)


def _shares(text: str) -> tuple[float, ...]:
    from gpunet.errors import InputError

    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--variance is {text!r}: expected a share a layer, by comma, say 0.99,0.95") from None
