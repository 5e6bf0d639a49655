"""`gpunet bench svd`."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from gpunet.cli import options


def svd(
    shape: Annotated[
        str | None,
        typer.Option(metavar="MxN", show_default="MNIST, 784x60000", help="A made matrix of this shape."),
    ] = None,
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="How many singular triples.")] = 100,
    against: Annotated[str, typer.Option(help="Rivals, by comma.")] = "numpy,sklearn,torch",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; numpy and torch run once.")] = 5,
    device: options.Device = "cpu",
    json: options.Json = False,
) -> None:
    """Time the leading singular vectors of a matrix: route, time, ratio, angle to a float64 reference.

    Rivals do the work that their users would call them for; "ratio" is their time over gpunet's for the same work
    (numpy, torch: both sides; sklearn: one side, centred). numpy needs about 20 s for MNIST.
    """
    from gpunet.bench import svd as bench

    report = bench.compare(_shape(shape), k, [name for name in against.split(",") if name], device, rounds)
    if json:
        import json as json_module

        print(json_module.dumps(report.as_dict(), indent=1))
        return
    from rich.table import Table

    from gpunet.report.terminal import console

    rows, columns = report.shape
    table = Table(
        title=f"{report.data}: {rows}×{columns}, k = {report.k}, {report.device}", title_justify="left",
        caption=f"relative gap of σ at k: {report.gap:.2g}", caption_justify="left",
    )  # fmt: skip
    for name in ("", "route"):
        table.add_column(name)
    for name in ("seconds", "ratio", "angle, rad", "energy lost"):
        table.add_column(name, justify="right")
    for row in report.rows:
        if row.skipped:
            table.add_row(row.name, row.skipped)
        else:
            table.add_row(
                row.name, row.route, f"{row.seconds:.3f}", f"{row.ratio:.2f}", f"{row.angle:.1e}",
                f"{row.energy_loss:.1e}",
            )  # fmt: skip
    console().print(table)


def _shape(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)\s*[x×]\s*(\d+)", text.strip())
    if match is None or 0 in (size := (int(match[1]), int(match[2]))):
        from gpunet.errors import InputError

        raise InputError(f"--shape is {text!r}: expected two sizes, say 784x60000")
    return size
