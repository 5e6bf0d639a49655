"""`gpunet bench report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpunet.cli import options

if TYPE_CHECKING:
    from gpunet.bench.report import Report


def report(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...", show_default=False, help="What --benchmark-json wrote, or a file of benchmarks/results."
        ),
    ],
    out: Annotated[Path, options.out()] = Path("runs/bench"),
    json: options.Json = False,
) -> None:
    """Turn files of benchmarks into tables and figures of ratios: time of ours over the rival's, smaller is better.

    Several files, say of two machines, stand side by side. Ratios are of medians, with quartiles over rounds.

    Example: pytest benchmarks --benchmark-only --benchmark-json here.json, then gpunet bench report here.json
    """
    from gpunet.bench import report as bench
    from gpunet.errors import RunError
    from gpunet.experiments.result import RESULT
    from gpunet.files import attempted, writable_folder

    found = bench.report(files)
    folder = writable_folder(out, RESULT)
    from gpunet.report.drawing import drawn

    path, problem = attempted(lambda: found.write(folder))
    figures = [] if problem else drawn(lambda: _draw(found, folder))
    if json or not path:
        print(found.text(), end="")
    else:
        _print(found, [str(path), *(each.name for each in figures)])
    if problem:
        raise RunError(problem)


def _draw(found: Report, folder: Path) -> None:
    from gpunet.report import bench_figures

    bench_figures.draw(found, folder)


def _print(found: Report, written: list[str]) -> None:
    from gpunet.report import bench_tables
    from gpunet.report.terminal import console, rich_table

    screen = console()
    for table in map(rich_table, bench_tables.tables(found)):
        screen.print(table)
    screen.print(f"Written: {', '.join(written)}", markup=False, highlight=False, soft_wrap=True)
