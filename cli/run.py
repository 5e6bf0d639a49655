"""`gpunet run EXPERIMENT`: a command for each, made from what it declares."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

from gpunet.cli import completion, options
from gpunet.cli.help import Commands
from gpunet.cli.options import option
from gpunet.cli.process import Interrupted
from gpunet.experiments import experiments
from gpunet.experiments.framework import Option
from gpunet.files import RESULT

if TYPE_CHECKING:
    from gpunet.experiments.framework import Done, Experiment

app = Commands()


def _command(x: Experiment) -> Any:
    """The command that runs an experiment; Typer reads its signature."""
    offered = {name: known for name, known in x.Settings.options().items() if known.help}

    def command(
        dataset: str | None, device: str, seeds: int | None, seed: int, out: Path | None, quick: bool, json: bool,
        **given: Any,
    ) -> None:  # fmt: skip
        from gpunet.progress import progress

        how = options.reading(given)
        changes = {name: _value(given[name], known) for name, known in offered.items()}
        run = x.asked(changes, dataset=dataset, quick=quick, first=seed, seeds=seeds, reading=how).load()
        for each in run.sets:
            options.tell_notes(each.name, each.notes)
        folder, saved = out or Path("runs") / run.folder, list[Any]()
        try:
            with progress(True) as bar:
                done = run.carry_out(folder, device, bar, saved.append)
        except KeyboardInterrupt:
            if saved:
                raise Interrupted(f"'{folder / RESULT}' is finished, of figures some may be missing") from None
            raise
        # What is written nowhere is printed at least.
        options.end(done.result.text(), json or done.path is None, lambda: _print(x, done), done.problem)

    parameters = {
        **options.data(told=_data_told(x)),
        "device": (options.Device, "auto"),
        "seeds": option(
            int | None, None, "--seeds", "-n", min=1, show_default=_seeds_told(x),
            help=x.help.get("seeds", "How many seeds; results are mean ± deviation."),
        ),
        "seed": option(int, 0, "--seed", min=0, help="The first seed."),
        **{name: _parameter(known, getattr(x.Settings, name)) for name, known in offered.items()},
        "out": (Annotated[Path | None, options.out(show_default="runs/EXPERIMENT-DATASET")], None),
        "quick": option(
            bool, False, "--quick",
            help=x.help.get("quick", "The digits of scikit-learn and one seed, unless asked otherwise: seconds."),
        ),
        "json": (options.Json, False),
    }  # fmt: skip
    options.sign(command, parameters)
    return command


def _data_told(x: Experiment) -> str:
    """What is run on unless asked otherwise."""
    usual, quick = (" ".join(x.job({}, each).data) for each in (False, True))
    usual += "".join(f", or what another {setting} has" for setting in x.job({}, False).of)
    return usual if quick == usual else f"{usual}; {quick} with --quick"


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
    named = known.metavar or "|".join(words) or options.placeholder(hint)
    kind = hint | None if default is None else hint
    if words:
        shown["autocompletion"] = completion.among(words)
    return option(kind, default, *known.flags, metavar=named, help=known.help, **bounds, **shown)


def _value(given: Any, known: Option) -> Any:
    """What an option was given, checked under the option's name; None where it was not."""
    if isinstance(given, list):
        given = None if not given else known.read(given) if known.read else tuple(given)
    if given is not None:
        known.check(known.flags[0].partition("/")[0], given)
    return given


def _print(x: Experiment, done: Done) -> None:
    from gpunet.experiments.claims import judge
    from gpunet.report.claims import verdict_line
    from gpunet.report.terminal import claims_table, console, rich_table

    assert done.path
    screen, claims = console(), judge(x, done.result)
    for table in x.tables(done.result):
        screen.print(rich_table(table))
    if any(claim.verdict != "not tested" for claim in claims):
        screen.print(claims_table(claims))
    options.written(done.path, [*done.networks, *done.figures], done.result.provenance["seconds"])
    options.say(verdict_line(claims, done.result.dataset))


for _x in experiments().values():
    app.command(_x.name, help=inspect.cleandoc(_x.about))(_command(_x))
