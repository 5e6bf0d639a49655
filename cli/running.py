"""What every `gpunet run EXPERIMENT` does around the computing: load, check the folder, show progress, write, print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpunet.experiments.work import Work


def finish(work: Work, folder: Path, device: str, json: bool) -> None:
    """Carry an experiment out, which checks the folder first and writes; print."""
    from gpunet.progress import progress

    with progress(True) as bar:
        done = work.carry_out(folder, device, bar)
    if json:
        print(done.path.read_text(), end="")
        return
    from gpunet.report.tables import console, verdict_line

    screen = console()
    for table in work.tables(done.result):
        screen.print(table)
    screen.print(f"Claims: {verdict_line(done.result)}", markup=False, soft_wrap=True)
    seconds = done.result.provenance["seconds"]
    written = f"Written: {', '.join([str(done.path), *(path.name for path in done.figures)])} ({seconds:.0f} s)"
    screen.print(written, markup=False, highlight=False, soft_wrap=True)
