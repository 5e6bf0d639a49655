"""`gpunet bench`: a file each for its commands."""

from __future__ import annotations

import typer

from gpunet.cli import bench_devices, bench_report, bench_scaling, bench_svd, bench_train

app = typer.Typer(no_args_is_help=True, help="Time gpunet beside its rivals, results checked.")


@app.callback()
def _group() -> None:
    """Time gpunet beside its rivals, results checked."""


app.command("train")(bench_train.train)
app.command("svd")(bench_svd.svd)
app.command("scaling")(bench_scaling.scaling)
app.command("devices")(bench_devices.devices)
app.command("report")(bench_report.report)
