"""`gpunet run EXPERIMENT`: a command for each, made from what it declares."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer

from gpunet.cli import options
from gpunet.experiments import experiments
from gpunet.experiments.framework import Option

if TYPE_CHECKING:
    from gpunet.experiments.framework import Done, Experiment, Run

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")


@app.callback()
def _group() -> None:
    """Run one experiment and write its results, claims and figures."""


def _command(x: Experiment) -> Any:
    """The command that runs an experiment; Typer reads its signature."""
    offered = {name: known for name, known in x.Settings.options().items() if known.help}

    def command(
        dataset: str | None, device: str, seeds: int | None, seed: int, out: Path | None, quick: bool, json: bool,
        **given: Any,
    ) -> None:  # fmt: skip
        changes = {name: _value(given[name], known) for name, known in offered.items()}
        run = x.asked(changes, dataset=dataset, quick=quick, first=seed, seeds=seeds).load()
        _finish(run, out or Path("runs") / run.folder, device, json)

    parameters = {
        "dataset": (options.Dataset, None),
        "device": (options.Device, "auto"),
        "seeds": (options.seeds(_seeds_told(x), x.help.get("seeds")), None),
        "seed": (options.Seed, 0),
        **{name: _parameter(known, getattr(x.Settings, name)) for name, known in offered.items()},
        "out": (options.Out, None),
        "quick": (options.quick(x.help.get("quick")), False),
        "json": (options.Json, False),
    }
    options.sign(command, parameters)
    return command


def _seeds_told(x: Experiment) -> str:
    """How many seeds there are unless asked otherwise."""
    usual, quick = x.job({}, False), x.job({}, True)
    others = [f"{' '.join(map(str, job.of.values()))} {job.seeds}" for job in x.full if job.seeds != usual.seeds]
    return "; ".join([str(usual.seeds), *others, f"{quick.seeds} with --quick"])


def _parameter(known: Option, default: Any) -> tuple[Any, Any]:
    """The annotation and the default of a setting's option."""
    if known.several or known.usual or known.read:
        default = None
    words = get_args(known.kind) if get_origin(known.kind) is Literal else ()
    shown: Any = {"show_default": known.usual or False} if default is None else {}
    # What is no fraction is Typer's to refuse; the bounds of others are told with what was given, by `Settings`.
    whole = known.kind is int and not known.several and not known.read
    bounds: dict[str, Any] = {"min": int(1 if known.least is None else known.least)} if whole else {}
    plain = str if words or known.read else known.kind
    hint: Any = list[plain] if known.several or known.read else plain  # type: ignore[valid-type]
    info = typer.Option(  # type: ignore[misc]  # what **bounds holds, mypy cannot know
        *known.flags, metavar=known.metavar or "|".join(words) or None, help=known.help, **bounds, **shown
    )
    return Annotated[hint | None if default is None else hint, info], default


def _value(given: Any, known: Option) -> Any:
    """What an option was given, checked under the option's name; None where it was not."""
    if isinstance(given, list):
        given = None if not given else known.read(given) if known.read else tuple(given)
    if given is not None:
        known.check(known.flags[0].partition("/")[0], given)
    return given


def _finish(run: Run, folder: Path, device: str, json: bool) -> None:
    """Carry an experiment out, which checks the folder first and writes; print."""
    from gpunet.errors import RunError
    from gpunet.progress import progress

    with progress(True) as bar:
        done = run.carry_out(folder, device, bar)
    if json or done.path is None:  # written nowhere: at least here
        print(done.result.text(), end="")
    else:
        _print(run.experiment, done)
    if done.problem:
        raise RunError(done.problem)


def _print(x: Experiment, done: Done) -> None:
    from gpunet.experiments.claims import judge
    from gpunet.report.claims import verdict_line
    from gpunet.report.terminal import claims_table, console, rich_table

    screen, claims = console(), judge(x, done.result)
    for table in x.tables(done.result):
        screen.print(rich_table(table))
    if any(claim.verdict != "not tested" for claim in claims):
        screen.print(claims_table(claims))
    seconds = done.result.provenance["seconds"]
    written = f"Written: {', '.join([str(done.path), *(path.name for path in done.figures)])} ({seconds:.0f} s)"
    screen.print(written, markup=False, highlight=False, soft_wrap=True)
    screen.print(verdict_line(claims, done.result.dataset), markup=False, soft_wrap=True)


for _x in experiments().values():
    app.command(_x.name, help=inspect.cleandoc(_x.about))(_command(_x))
