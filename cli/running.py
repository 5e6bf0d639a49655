"""What every `gpunet run EXPERIMENT` does around the computing: load, check the folder, show progress, write, print."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from gpunet.experiments.schema import Result
    from gpunet.progress import Progress


def load_data(chosen: str) -> Any:
    """A data set by name or path; somebody's own mnist.npz is not what a document speaks of, and is named so."""
    from dataclasses import replace

    from gpunet.datasets import load, names

    data = load(chosen)
    if data.name in names() and chosen != data.name:
        return replace(data, name=f"own-{data.name}")
    return data


def seed_list(first: int, count: int | None, default: int) -> list[int]:
    """The seeds of a run."""
    return list(range(first, first + (count or default)))


def finish(
    folder: Path,
    json: bool,
    compute: Callable[[Progress], Result],
    draw: Callable[[Result, Path], list[Path]],
    tables: Callable[[Result], list[Table]],
) -> None:
    """Check the folder first, compute, write, print."""
    from gpunet.files import writable_folder
    from gpunet.progress import progress

    writable_folder(folder)
    with progress(True) as bar:
        result = compute(bar)
    figures = draw(result, folder)
    path = result.write(folder)
    if json:
        print(path.read_text(), end="")
        return
    from gpunet.report.tables import console, verdict_line

    screen = console()
    for table in tables(result):
        screen.print(table)
    screen.print(f"Claims: {verdict_line(result)}", markup=False, soft_wrap=True)
    written = f"Written: {path}, {', '.join(p.name for p in figures)} ({result.provenance['seconds']:.0f} s)"
    screen.print(written, markup=False, highlight=False, soft_wrap=True)
