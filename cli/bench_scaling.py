"""`gpunet bench scaling`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpunet.cli import options

if TYPE_CHECKING:
    from gpunet.bench.scaling import Report


def scaling(
    width: Annotated[
        str, typer.Option(metavar="LOW..HIGH|LIST", help="The powers of two in a range, or widths by comma.")
    ] = "256..8192",
    batch: Annotated[int, typer.Option(min=1, help="Samples a step.")] = 512,
    alpha: Annotated[str, typer.Option(metavar="LIST", help="Shares in (0, 1] that set the rank, by comma.")] = (
        "0.5,0.25,0.125"
    ),
    meaning: Annotated[
        str,
        typer.Option(
            metavar="break-even|dimension",
            help="Of α: rank ⌊α mn/(m + n)⌋, or α min(m, n). A square layer of width w has α w/2, or α w.",
        ),
    ] = "break-even",
    layers: Annotated[int, typer.Option(min=1, help="How many wide layers, the last one of 10 classes aside.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of timing; figures are medians over them.")] = 5,
    device: options.Device = "auto",
    out: Annotated[Path, options.out("Folder for result.json and the figure.")] = Path("runs/scaling"),
    json: options.Json = False,
) -> None:
    """Time training steps of wide nets, dense against factored, and say how much of the promised speed-up is realised.

    Forward, loss, backward and Adam of width → width → … → 10, as `fit` runs them, dense and factored in turn.

    "allowed" is the count of document 001: mn multiplications dense against l(m + n) factored, in every product.
    "of a step" counts the products that a step of this net runs, exactly. It is lower where factoring pays:
    the first layer needs no gradient of the data, so its step takes 2mn a sample dense, but l(2 in + 3 out) factored.
    Neither counts what is done to elements: bias, activation, Adam.

    A width that needs more memory than there is gets a row that says so.

    Example: gpunet bench scaling --width 256..2048 --alpha 0.5,0.125
    """
    from gpunet.backend import get_backend
    from gpunet.backend.blas import threads
    from gpunet.bench import scaling as bench
    from gpunet.errors import RunError, printable
    from gpunet.experiments.provenance import Stopwatch
    from gpunet.experiments.result import RESULT
    from gpunet.files import attempted, writable_folder
    from gpunet.progress import progress
    from gpunet.report.drawing import drawn

    settings = bench.Settings(_widths(width), _alphas(alpha), meaning, batch, layers, rounds)
    backend, watch, folder = get_backend(device), Stopwatch(), writable_folder(out, RESULT)
    with progress(True) as bar:
        report = bench.compare(settings, backend, bar)
    made = watch.provenance(backend) | {"threads": threads()}
    path, problem = attempted(lambda: report.write(folder, made))
    figures = [] if problem else drawn(lambda: _draw(report, folder))
    if json or not path:
        print(report.text(made), end="")
    else:
        _print(report)
        typer.echo(printable(f"Written: {', '.join([str(path), *(figure.name for figure in figures)])}"))
    if problem:
        raise RunError(problem)


def _draw(report: Report, folder: Path) -> None:
    from gpunet.report import scaling_figure

    scaling_figure.draw(report, folder)


def _widths(text: str) -> tuple[int, ...]:
    """Powers of two in "256..8192", or the numbers of "256,512,1000"; ascending, each once."""
    from gpunet.errors import InputError

    found: list[int] = []
    if between := re.fullmatch(r"\s*(\d{1,9})\s*\.\.\s*(\d{1,9})\s*", text):
        low, high = int(between[1]), int(between[2])
        if low > high:
            raise InputError(f"--width is {text!r}: its end is below its beginning; expected, say, {high}..{low}")
        found = [2**power for power in range(30) if low <= 2**power <= high]
        if not found:
            raise InputError(f"--width is {text!r}: no power of two lies in it; name widths by comma, say {low},{high}")
    elif re.fullmatch(r"\s*\d{1,9}\s*(,\s*\d{1,9}\s*)*", text):
        found = sorted({int(part) for part in text.split(",")})
    else:
        raise InputError(f"--width is {text!r}: expected a range such as 256..8192, or widths such as 256,512,1000")
    return tuple(found)


def _alphas(text: str) -> tuple[float, ...]:
    """The numbers of "0.5,0.25", in that order, each once."""
    from gpunet.errors import InputError

    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(0 < alpha <= 1 for alpha in found):
        raise InputError(f"--alpha is {text!r}: expected shares above 0 and up to 1 by comma, such as 0.5,0.25")
    return tuple(dict.fromkeys(found))


def _print(report: Report) -> None:
    from rich import box
    from rich.table import Table

    from gpunet.report.terminal import console

    settings = report.settings
    table = Table(
        title=f"Dense step over factored step, {settings.meaning} α: {settings.layers} wide layers, "
        f"batch {settings.batch}\n{report.device} ({report.kernels}), median and quartiles, rounds: {settings.rounds}",
        title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True,
    )  # fmt: skip
    for name in ("width", "α", "rank", "dense\nms", "factored\nms", "speed-up", "quartiles", "allowed", "of a\nstep"):
        table.add_column(name, justify="right", no_wrap=True)
    skipped: dict[int, str] = {}
    for row in report.rows:
        times = ["–", "–", "skipped", "–"]
        if row.speed_up and row.quartiles and row.dense_seconds and row.factored_seconds:
            times = [f"{1e3 * seconds:.4g}" for seconds in (row.dense_seconds, row.factored_seconds)]
            times += [f"{row.speed_up:.2f}×", "–".join(f"{ratio:.2f}" for ratio in row.quartiles)]
        else:
            skipped[row.width] = row.skipped
        counts = [f"{row.allowed:.2f}×", f"{row.allowed_step:.2f}×"]
        last = row.alpha == settings.alphas[-1]
        table.add_row(str(row.width), f"{row.alpha:g}", str(row.rank), *times, *counts, end_section=last)
    screen = console()
    screen.print(table)
    for width, why in skipped.items():
        screen.print(f"width {width} skipped: {why}", markup=False, highlight=False, soft_wrap=True)
