"""`gpunet reproduce`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpunet.cli import completion, options, process
from gpunet.experiments import experiments

if TYPE_CHECKING:
    from gpunet.reproduce.runner import Reproduction

_TOGETHER = "".join(
    f"; {x.name}, whose nets train as one stack, has at least {x.full[0].seeds} ({x.quick[0].seeds} with --quick)"
    for x in experiments().values() if x.full[0].together
)  # fmt: skip


def reproduce(
    quick: Annotated[
        bool, typer.Option("--quick", help="Embedded data, one seed, unless asked otherwise: a minute or so.")
    ] = False,
    seeds: Annotated[
        int | None,
        typer.Option(
            "--seeds", "-n", metavar="N", min=1, show_default="each experiment's own; 1 with --quick",
            help=f"How many seeds of each run{_TOGETHER}.",
        ),
    ] = None,
    device: options.Device = "auto",
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="EXPERIMENT", show_default="all", autocompletion=completion.experiments,
            help=f"{', '.join(experiments())}, or the name of one run; may be given several times.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        options.out(
            "Folder for claims.json, report.html and a folder a run.",
            "runs/reproduce, with --quick runs/reproduce-quick",
        ),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Run again what is finished, too.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print claims.json instead of a table.")] = False,
) -> None:  # fmt: skip
    """Run all experiments as their documents have them, and put every claim beside what we measure.

    Writes DIR/claims.json, DIR/report.html and, in a folder for each run, what `gpunet run` writes. Data that is
    missing is fetched. Without --quick it takes about three hours on two cores.

    Stopped or killed at any moment, the same command goes on where it stopped: a run is repeated only when its
    settings, seeds, data, device or our code have changed.

    For example:

        gpunet reproduce --quick
        gpunet reproduce --only NAME --seeds 10 --out runs/ten-seeds
    """
    from gpunet.reproduce.runner import Request, reproduce

    folder = out or Path("runs") / ("reproduce-quick" if quick else "reproduce")
    try:
        outcome = reproduce(Request(folder, quick, seeds, device, tuple(only or ()), fresh), progress=True)
    except KeyboardInterrupt:
        raise process.Interrupted(_kept(folder)) from None
    options.end(outcome.file.text, json, lambda: _print(outcome), "; ".join(outcome.problems))


def _kept(folder: Path) -> str:
    """What an interruption leaves, and the command that goes on: --fresh would begin again."""
    from gpunet.errors import printable
    from gpunet.report.claims_json import finished

    done, everything = finished(folder)
    words = shlex.join(["gpunet", *(word for word in process.arguments if word != "--fresh")])
    return printable(f"{done} of {everything} runs are finished and kept in {folder}, `{words}` goes on")


def _print(outcome: Reproduction) -> None:
    from gpunet.report.claims import here_lines
    from gpunet.report.terminal import console, runs_table

    file = outcome.file
    console().print(runs_table(outcome.entries))
    options.say(*(line[0].upper() + line[1:] for line in here_lines(outcome.entries)))
    if file.quick:
        options.say("Quick, on embedded data: what a document says of other data is not tested.")
    written = [str(path) for path in (file.at, outcome.page) if path]
    options.say(f"Written: {', '.join(written) or 'nothing'}")
