"""`gpunet bench devices`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gpunet.cli import options
from gpunet.experiments import experiments

if TYPE_CHECKING:
    from gpunet.bench.devices import Report


def devices(
    devices: Annotated[
        str, typer.Option("--devices", metavar="LIST", help="Two or more by comma; the first is the one to beat.")
    ] = "cpu,cuda",
    experiment: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            show_default="all",
            help=f"{', '.join(experiments())}; may be given several times.",
        ),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick/--full", help="Embedded data and few seeds, or the documents' data and seeds."),
    ] = True,
    seeds: Annotated[
        int | None, typer.Option("--seeds", "-n", min=1, show_default="each experiment's own", help="How many seeds.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Run whole experiments on the CPU and on a GPU: how long each takes, and whether they find the same.

    Every experiment is run on every device, one after the other, as `gpunet run` does. "speed-up" is the first
    device's time over the last one's. "apart" is the largest difference between devices of an accuracy (or of the
    share of nets that converged), mean over seeds: initial weights and batches are the same everywhere, but sums are
    rounded in another order.

    Small nets on small data keep a GPU waiting for the host: `--full` shows what it is for.

    Example: gpunet bench devices --experiment NAME --experiment NAME --full

    Without a GPU: gpunet bench devices --devices numpy,cpu compares plain NumPy with numba.
    """  # fmt: skip
    from gpunet.bench import devices as bench
    from gpunet.bench.record import provenance
    from gpunet.progress import progress

    chosen = list(dict.fromkeys(experiment or experiments()))
    with progress(True) as bar:
        report = bench.compare([name.strip() for name in devices.split(",")], chosen, quick, seeds, bar)
    if json:
        import json as json_module

        print(json_module.dumps({"benchmark": "devices"} | report.as_dict() | {"provenance": provenance()}, indent=1))
    else:
        _print(report)
    if any(row.failed for row in report.rows):
        raise typer.Exit(1)


def _print(report: Report) -> None:
    from rich import box
    from rich.table import Table

    from gpunet.report.terminal import console

    names = list(report.devices)
    table = Table(
        title=f"Whole experiments, {'quick' if report.quick else 'as in the documents'}: "
        + ", ".join(f"{name} is {what}" for name, what in report.devices.items()),
        title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True,
    )  # fmt: skip
    table.add_column("experiment", no_wrap=True)
    table.add_column("data", no_wrap=True)
    for name in [*(f"{name}\ns" for name in names), "speed-up", "apart"]:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("where")
    for row in report.rows:
        times = [f"{row.seconds[name]:.2f}" if name in row.seconds else "failed" for name in names]
        speed = f"{row.speed_up:.2f}×" if row.speed_up else "–"
        table.add_row(row.experiment, row.dataset, *times, speed, "–" if row.apart is None else f"{row.apart:.4f}",
                      row.where)  # fmt: skip
    screen = console()
    screen.print(table)
    for row in report.rows:
        for name, why in row.failed.items():
            screen.print(f"{row.experiment} on {name} failed: {why}", markup=False, highlight=False, soft_wrap=True)
