"""What an experiment declares, and how it is run: all that is not one paper's own.

A paper is a folder of this package. Its `__init__` holds an `Experiment`: the paper's text, the settings, what is run;
`body`, `claims`, `tables` and `figures` beside it add to that by the decorators of `Experiment`, and are imported when
they are asked for, so that the command line can list the papers without importing NumPy.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import importlib.util
import json
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gpunet.errors import GpunetError, InputError, shown
from gpunet.extras import need
from gpunet.interrupts import contextmanager
from gpunet.limits import SEEDS

LARGEST = 10**9  # of a whole setting, where no bound is stated
Precision = Literal["float32", "mixed", "tf32"]  # as `gpunet.nn.trainer` has it, which imports NumPy
OF_PRECISION = "Of training's matrix products: mixed has operands in bfloat16; tf32 is a GPU's."

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from gpunet.backend import Backend
    from gpunet.experiments.claims import Claim
    from gpunet.experiments.result import Result
    from gpunet.nn.model import Sequential
    from gpunet.nn.trainer import Trainer
    from gpunet.progress import Progress
    from gpunet.report.table import Table


@dataclass(frozen=True)
class Choice:
    """One place where the text is silent, ambiguous or wrong, and what the experiment does there."""

    what: str
    chosen: str


@dataclass(frozen=True)
class Paper:
    """One document, and how its experiment reads it; number: the project's own, which orders them."""

    number: str
    authors: str
    title: str
    kind: str
    says: tuple[str, str, str]
    choices: tuple[Choice, ...]

    @property
    def cited(self) -> str:
        """In one line."""
        return f"{self.number}: {self.authors}, {self.title} ({self.kind})"


@dataclass(frozen=True)
class Option:
    """What is known of one setting beside its default.

    help: its line in `--help`, "" for a setting that the command line does not offer; the bounds are those of a number,
    or of each of several; usual: the default in words, where it depends on the data or on `--quick`; flags: the
    option's names, made from the setting's unless given; read: makes the value of the words that the command line was
    given; sweep: its value in a sweep, where what only costs time is left out; empty: whether one that holds several
    may hold none. kind, several, optional: from its type, whether it holds several of the kind, and whether it can be
    None, the data's own.
    """

    help: str = ""
    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    usual: str = ""
    metavar: str | None = None
    flags: tuple[str, ...] = ()
    read: Callable[[list[str]], Any] | None = None
    sweep: Any = None
    empty: bool = False
    kind: Any = None
    several: bool = False
    optional: bool = False

    def check(self, name: str, value: Any) -> None:
        """InputError for a value, or one of several, that is none of the kind, or out of bounds; or for none at all."""
        if self.optional and value is None:
            return
        if self.several and value == () and not self.empty:
            raise InputError(f"{name} is empty: expected at least one")
        every = value if self.several else [value]
        for each in every:
            self._check(name, each)
        if self.kind is float and len({f"{each:g}" for each in every}) < len({*every}):  # rows are named so
            raise InputError(f"{name} is {shown(value)}: expected values that differ within six digits")

    def _check(self, name: str, value: Any) -> None:
        from gpunet.checks import check_flag, check_one_of, check_range, is_whole

        if self.kind is int:
            least, most = 1 if self.least is None else self.least, LARGEST if self.most is None else self.most
            if not is_whole(value, least):
                raise InputError(f"{name} is a whole number ≥ {least:g}, got {shown(value)}")
            if value > most:
                raise InputError(f"{name} is a whole number ≤ {most:g}, got {shown(value)}")
        elif self.kind is float:
            bounds = {end: getattr(self, end) for end in ("least", "above", "most", "below")}
            check_range(name, value, **{end: bound for end, bound in bounds.items() if bound is not None})
        elif self.kind is bool:
            check_flag(name, value)
        elif typing.get_origin(self.kind) is typing.Literal:
            check_one_of(name, value, typing.get_args(self.kind))
        elif typing.get_origin(self.kind) is tuple:
            for each in value:
                replace(self, kind=typing.get_args(self.kind)[0])._check(name, each)


def option(default: Any, help: str = "", **known: Any) -> Any:  # noqa: A002
    """A field of `Settings`; see `Option`."""
    return field(default=default, metadata={"option": Option(help, **known)})


@dataclass(frozen=True)
class Settings:
    """The settings of a run: an experiment's own are fields of a subclass, in the order in which a page shows them.

    Raises InputError for a value that is none of its type's, or out of bounds.
    """

    def __post_init__(self) -> None:
        for name, known in self.options().items():
            known.check(name, getattr(self, name))

    @classmethod
    def options(cls) -> dict[str, Option]:
        """What is known of each setting."""
        hints, found = typing.get_type_hints(cls), {}
        for each in dataclasses.fields(cls):
            parts = typing.get_args(hints[each.name]) if isinstance(hints[each.name], types.UnionType) else ()
            hint = next((part for part in parts if part is not types.NoneType), hints[each.name])
            several = typing.get_origin(hint) is tuple
            kind = typing.get_args(hint)[0] if several else hint
            known = each.metadata.get("option", Option())
            name = each.name.replace("_", "-")
            flag = f"--{name}/--no-{name}" if kind is bool and each.default else f"--{name}"
            found[each.name] = replace(
                known, kind=kind, several=several, optional=bool(parts), flags=known.flags or (flag,)
            )
        return found

    def label(self, dataset: str) -> str:
        """What tells a run of these settings on that data from the experiment's others, in its folder's name."""
        return dataset


@dataclass(frozen=True)
class Needs:
    """What an experiment needs, of data above all; what does not suit it is told before anything is computed.

    images: samples are images of so many rows and columns at least; 0: any samples. classes: so many, no others;
    features: so many at most; samples: so many to train on of each class at least. one_unit: what is done to a sample
    as a whole, such as dividing by its norm, which wants features of one unit, as pixels are. memory: bytes that it
    takes beside the data, of the numbers of samples and of features. packages: by the names that are imported, beside
    those of every experiment.
    """

    images: int = 0
    classes: int | None = None
    features: int | None = None
    samples: int = 0
    one_unit: str = ""
    memory: Callable[[int, int], int] | None = None
    packages: tuple[str, ...] = ()

    def check(self, who: str, data: Any) -> None:
        """DataError where a data set is not what `who` needs."""
        import numpy as np

        from gpunet.datasets.labels import shorter
        from gpunet.errors import DataError
        from gpunet.experiments.images import image_shape, uneven

        if self.images:
            image_shape(data, who, self.images)
        if self.classes and data.classes != self.classes:
            raise DataError(
                f"{data.name} has {data.classes} classes: {who} is for {self.classes}, and no others; leave out the "
                "samples of the others"
            )
        if self.features and data.x_train.shape[1] > self.features:
            raise DataError(
                f"{data.name} has {data.x_train.shape[1]:,} features: {who} is for {self.features:,} at most; give "
                "fewer, images by --resize 16"
            )
        if self.samples:
            counts = np.bincount(data.y_train, minlength=data.classes)
            if (least := int(counts.min())) < self.samples:
                name = str(data.names[counts.argmin()] if data.names else counts.argmin())
                raise DataError(
                    f"{data.name}: class {shorter(name)} has {least} training sample{'s' * (least != 1)}: {who} needs "
                    f"{self.samples} of each class at least; add some, or leave the class out"
                )
        if self.one_unit and (told := uneven(data)):
            raise DataError(
                f"{data.name}: {who} {self.one_unit}, so that features must be of one unit, and {told}; scale them "
                "(--standardize, or standardize=True)"
            )
        if self.memory:
            from gpunet.datasets.disk import check_fits

            samples, features = data.x_train.shape
            what = f"{data.name}: {who} with {samples:,} samples of {features:,} features"
            check_fits(self.memory(samples, features), what, mend="give fewer features, images by --resize 64")


@dataclass(frozen=True)
class Job:
    """What is run unless asked otherwise.

    of: the settings that this job is for, where an experiment has several; settings: its other defaults; also: what
    `gpunet reproduce` changes besides, None for a job that is not part of it; together: whether its seeds train as one,
    so that asking `gpunet reproduce` for fewer saves nothing. seconds and pieces (of progress): what it
    takes, measured once on two cores of a Xeon without numba; they tell the time left before any was measured here.
    """

    data: tuple[str, ...]
    seeds: int
    seconds: float = 60
    pieces: int = 20
    of: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    also: Mapping[str, Any] | None = field(default_factory=dict)
    together: bool = False


@dataclass(frozen=True)
class Figure:
    """A figure of a result: its file's stem, its caption, and what is read aloud in its place.

    spread: a sentence on bands or whiskers, told where there are several seeds. panels, width and height: of the
    figure, as `report.style.figure` takes them, numbers or functions of the result; a function's panels are drawn on as
    an array, also where there is one. when: whether there is such a figure.
    """

    stem: str
    caption: str
    alt: str
    draw: Callable[[Result, Any], None]
    spread: str = ""
    panels: Any = 1
    width: Any = 6.4
    height: Any = 4.0
    when: Callable[[Result], bool] = lambda result: True

    def told(self, result: Result) -> str:
        """The caption, which promises no spread that one seed cannot have."""
        return f"{self.caption} {self.spread}" if self.spread and len(result.seeds) > 1 else self.caption

    def size(self, result: Result) -> tuple[int, float, float]:
        """(panels, width, height)."""
        found = (each(result) if callable(each) else each for each in (self.panels, self.width, self.height))
        return tuple(found)  # type: ignore[return-value,unused-ignore]


BANDS = "Lines are means over seeds, bands one standard deviation."
WHISKERS = "Whiskers are one standard deviation over seeds."


class Experiment:
    """One paper: its name on the command line, a summary, its text, its settings, and what is run of it.

    full: as the document has it; quick: on embedded data, in seconds. package: its folder, whose docstring is the help
    of `gpunet run NAME`; help: of --seeds and --quick, where they are not as everywhere; needs: of data; searched: a
    parameter that shows how a sweep is called.
    """

    def __init__(
        self, name: str, summary: str, paper: Paper, settings: type[Settings], *, full: Sequence[Job],
        quick: Sequence[Job], package: str, help: Mapping[str, str] | None = None,  # noqa: A002
        needs: Needs | None = None, searched: str = "epochs=int:1..5",
    ) -> None:  # fmt: skip
        self.name, self.summary, self.paper, self.Settings = name, summary, paper, settings
        self.full, self.quick, self.package, self.help = list(full), list(quick), package, help or {}
        self.needs, self.searched = needs or Needs(), searched
        self._body: Callable[[Run], None] | None = None
        self._load: Callable[[Sequence[str], Any], Any] = lambda names, settings: (
            [load_data(name) for name in names] if len(names) > 1 else load_data(names[0])
        )
        self._stated: Callable[[Result], dict[str, Any]] = lambda result: {}
        self._claims: list[Claim] = []
        self._claims_on: Callable[[Result], list[Claim]] = lambda result: self._claims
        self._tables: list[Callable[[Result], Table | None]] = []
        self._figures: list[Figure] = []

    def __repr__(self) -> str:
        return f"<Experiment {self.name!r}: {self.summary}>"

    # -- what the other files of the folder declare

    def run(self, body: Callable[[Run], None]) -> Callable[[Run], None]:
        """Declare what is computed."""
        self._body = body
        return body

    def load(self, load: Callable[[Sequence[str], Any], Any]) -> Callable[[Sequence[str], Any], Any]:
        """Declare how data is loaded, by its names or paths and the settings, where these are no plain data sets."""
        self._load = load
        return load

    def claim(
        self, id: str, statement: str, where: str, claimed: float | str, *, number: bool | None = None,  # noqa: A002
        on: str | tuple[str, ...] | None = None, given: Mapping[str, Any] | None = None,
    ) -> Callable[..., Any]:  # fmt: skip
        """Declare a claim by its test, on the first full job's data where no other is named; see `claims.Claim`."""
        from gpunet.experiments.claims import Claim

        def declare(test: Any) -> Any:
            every, figure = (on,) if isinstance(on, str) else on or self.full[0].data, isinstance(claimed, float)
            self._claims.append(
                Claim(id, statement, where, claimed, every, test, figure if number is None else number, given or {})
            )
            return test

        return declare

    def claims_on(self, claims: Callable[[Result], list[Claim]]) -> Callable[[Result], list[Claim]]:
        """Declare claims that depend on the data of a result."""
        self._claims_on = claims
        return claims

    def stated(self, settings: Callable[[Result], dict[str, Any]]) -> Callable[[Result], dict[str, Any]]:
        """Declare the settings that the document states, by name; with others its numbers do not apply."""
        self._stated = settings
        return settings

    def table(self, make: Callable[[Result], Table | None]) -> Callable[[Result], Table | None]:
        """Declare a table; None, or a NotMeasuredError, leaves it out."""
        self._tables.append(make)
        return make

    def figure(self, stem: str, caption: str, alt: str, **known: Any) -> Callable[..., Any]:
        """Declare a figure by the function that draws it on (result, axes); see `Figure`."""

        def declare(draw: Any) -> Any:
            self._figures.append(Figure(stem, caption, alt, draw, **known))
            return draw

        return declare

    # -- what it is asked for

    @property
    def about(self) -> str:
        """The help of its command."""
        return importlib.import_module(self.package).__doc__ or self.summary

    @property
    def body(self) -> Callable[[Run], None]:
        """What is computed."""
        self._part("body")
        assert self._body
        return self._body

    def claims(self, result: Result) -> list[Claim]:
        """Those that speak of what the result was asked to measure."""
        self._part("claims")
        every = [claim for claim in self._claims_on(result) if claim.given.items() <= result.settings.items()]
        return [claim for claim in every if result.dataset in claim.on] or every

    def departure(self, result: Result) -> str:
        """What a result's settings have other than the document states, in words; "" where nothing."""
        self._part("claims")
        stated = self._stated(result)
        told = {name: (_told(result.settings.get(name, value)), _told(value)) for name, value in stated.items()}
        others = [
            f"{name.replace('_', ' ')} {here} for {there}" for name, (here, there) in told.items() if here != there
        ]
        return f"this run has other settings than the document: {', '.join(others)}" if others else ""

    def tables(self, result: Result) -> list[Table]:
        """The tables that the result has rows for."""
        from gpunet.experiments.result import NotMeasuredError

        self._part("tables")
        found = []
        for make in self._tables:
            try:
                found.append(make(result))
            except NotMeasuredError:
                continue
        return [table for table in found if table and table.rows]

    def figures(self, result: Result) -> list[Figure]:
        """The figures that the result has."""
        self._part("figures")
        return [figure for figure in self._figures if figure.when(result)]

    def draw(self, result: Result, folder: Path) -> None:
        """Draw the figures that the result has, wherever figures go; one whose rows were not measured is left out."""
        import numpy as np

        from gpunet.experiments.result import NotMeasuredError
        from gpunet.report.style import figure

        for each in self.figures(result):
            with contextlib.suppress(NotMeasuredError):
                panels, width, height = each.size(result)
                with figure(folder / f"{each.stem}.png", panels, width=width, height=height) as axes:
                    each.draw(result, np.atleast_1d(axes) if callable(each.panels) else axes)

    def folder(self, settings: Settings, dataset: str) -> str:
        """The name of the folder that a run is written to unless asked otherwise."""
        return f"{self.name}-{settings.label(dataset)}".rstrip("-")

    def _part(self, name: str) -> None:
        """Import a file of the folder, if there is one."""
        found = None
        with contextlib.suppress(ModuleNotFoundError):  # of a package that is none: an experiment in a single file
            found = importlib.util.find_spec(f"{self.package}.{name}")
        if found is not None:
            importlib.import_module(found.name)

    def job(self, changes: Mapping[str, Any], quick: bool) -> Job:
        """The first job that is for these settings."""
        jobs = self.quick if quick else self.full
        wanted = {name: changes.get(name, getattr(self.Settings, name)) for job in jobs for name in job.of}
        return next(job for job in jobs if all(wanted[name] == value for name, value in job.of.items()))

    def asked(
        self, changes: Mapping[str, Any], *, job: Job | None = None, dataset: str | None = None, quick: bool = False,
        first: int = 0, seeds: int | None = None, reading: Mapping[str, Any] | None = None,
    ) -> RunRequest:  # fmt: skip
        """A run with changes to its usual settings, on its usual data or another, of `seeds` seeds from `first`.

        job: what is usual, where it is not the first for these settings; reading: how the data is read, see
        `load_data`. A change that is None is none. Raises
        InputError for settings that cannot be.
        """
        given = {name: value for name, value in changes.items() if value is not None}
        self.Settings(**given)
        job = job or self.job(given, quick)
        settings = self.Settings(**{**job.of, **job.settings, **given})
        if first + (seeds or job.seeds) > SEEDS:
            raise InputError(f"seeds begin at {first}: expected numbers below {SEEDS}")
        names = job.data if dataset is None else (dataset,)
        return RunRequest(self, settings, names, list(range(first, first + (seeds or job.seeds))), job, reading or {})


def _told(value: Any) -> str:
    """A setting in words, which are alike before it was written and after it was read."""
    if isinstance(value, (list, tuple)):
        return " ".join(map(_told, value))
    return f"{value:g}" if type(value) is float else str(value)


@dataclass(frozen=True)
class RunRequest:
    """What is to be run, before its data is loaded; names: of the data sets, or paths; job: what is run usually.

    reading: how the data is read, see `load_data`.
    """

    experiment: Experiment
    settings: Any
    names: tuple[str, ...]
    seeds: list[int]
    job: Job
    reading: Mapping[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """As that of the run: known before its data is."""
        return self.experiment.folder(self.settings, "+".join(self.names))

    def load(self) -> Run:
        """Raises DataError for data that is missing or unfit, MissingError before that for packages."""
        from gpunet.datasets.catalog import packages

        what = f"the experiment {self.experiment.name}"
        need(what, "msgspec", "scipy", "matplotlib", *self.experiment.needs.packages, *packages(*self.names))
        self.experiment._part("body")
        if self.reading:  # of data that a document had, or of somebody's own: a plain data set
            found = [load_data(name, **self.reading) for name in self.names]
            data = found if len(found) > 1 else found[0]
        else:
            data = self.experiment._load(self.names, self.settings)
        run = Run(self.experiment, data, self.settings, self.seeds)
        run.check()
        return run


@dataclass
class Measured:
    """What one seed gave: metrics, curves, seconds and notes (see `Run.note`) by name."""

    metrics: dict[str, float]
    curves: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)


def trained_in(trainer: Trainer) -> dict[str, Any]:
    """The note of the precision that a net was trained in, where another one than float32 was asked for."""
    return {} if trainer.precision == "float32" else {"precision": trainer.trained_in}


@dataclass(frozen=True)
class Done:
    """A result, and the files it lies in; `problem` says what could not be written, and where the result is instead."""

    result: Result
    path: Path | None
    figures: list[Path]
    problem: str = ""
    networks: Sequence[Path] = ()


class Run:
    """An experiment with its data: what its body is handed, and adds rows, notes, curves and times to.

    result, backend and bar (the progress) are there while it computes.
    """

    result: Result
    backend: Backend
    bar: Progress

    def __init__(self, experiment: Experiment, data: Any, settings: Any, seeds: list[int]) -> None:
        self.experiment, self.data, self.seeds = experiment, data, list(seeds)
        self._settings = settings
        self._networks: dict[str, bytearray] = {}  # by the names of their files

    @property
    def settings(self) -> Any:
        """The experiment's Settings; set by a body to what None stands for on its data."""
        return self._settings

    @settings.setter
    def settings(self, settings: Any) -> None:
        self._settings = settings
        self.result.settings = asdict(settings)

    @property
    def dataset(self) -> str:
        """The name of the data; of several the names, joined."""
        return "+".join(str(each.name) for each in self.sets)

    @property
    def sets(self) -> list[Any]:
        """The data sets that it is run on."""
        return list(self.data) if isinstance(self.data, (list, tuple)) else [self.data]

    @property
    def folder(self) -> str:
        """The name of the folder that it is written to unless asked otherwise."""
        return self.experiment.folder(self.settings, self.dataset)

    def check(self) -> None:
        """DataError where its data is not what the experiment needs."""
        for each in self.sets:
            self.experiment.needs.check(self.experiment.name, each)

    def compute(self, device: str | Backend = "auto", progress: Progress | None = None) -> Result:
        """The result, written nowhere."""
        from gpunet.backend import get_backend
        from gpunet.backend.blas import thread_rule
        from gpunet.experiments.provenance import Stopwatch
        from gpunet.experiments.result import Result
        from gpunet.progress import Progress

        self.check()
        watch, run = Stopwatch(), copy.copy(self)
        run.backend, run.bar = get_backend(device), progress or Progress()
        run.result = Result(
            self.experiment.name, self.dataset, run.backend.name, asdict(self.settings), list(self.seeds)
        )
        for each in self.sets:
            run.note(**{kind: {str(each.name): told} for kind, told in about(each).items()})
        self.experiment.body(run)
        run.result.device = run.backend.name
        run.note(blas_threads=thread_rule())
        if "precision" in run.result.notes and run.backend.mixes_with:
            run.note(bfloat16=run.backend.mixes_with)
        run.result.provenance = watch.provenance(run.backend)
        return run.result

    def each_seed(self, row: str, pieces: int, measure: Callable[[int], Measured], place: str = "") -> list[Measured]:
        """Measure every seed, `pieces` of progress each, and enter what was found under the row's name."""
        found = [measure(seed) for seed in self.over_seeds(f"{place} {row}".strip(), pieces)]
        self.enter(row, found)
        return found

    def over_seeds(self, what: str, pieces: int) -> Iterator[int]:
        """The seeds in turn, of so many pieces of progress each."""
        self.bar.start(f"{self.experiment.name} {what}", pieces * len(self.seeds))
        for seed in self.seeds:
            self.bar.seed(seed)
            yield seed

    def enter(self, row: str, found: Sequence[Measured]) -> None:
        """Add what every seed gave under the row's name."""
        for each in found:
            self.result.row(row).add(**each.metrics)
            self.result.time(row, **each.seconds)
        if found[0].curves:
            self.result.curves[row] = {name: [each.curves[name] for each in found] for name in found[0].curves}
        self.note(**{name: {row: [each.notes[name] for each in found]} for name in found[0].notes})

    def note(self, **found: Any) -> None:
        """What the run found that is no metric: routes, ranks, counts; what a name holds already is added to."""
        for name, value in found.items():
            held = self.result.notes.get(name)
            self.result.notes[name] = {**held, **value} if isinstance(held, dict) else value

    def keep(self, row: str, net: Sequential) -> None:
        """A network that is to lie beside the result, as a file that `gpunet.load` reads."""
        from gpunet.nn.serialize import packed

        name = f"{row.replace(' ', '-')}.safetensors"
        self._networks[name] = packed(net)
        self.note(networks={row: name})

    def carry_out(
        self, folder: Path, device: str, bar: Progress, written: Callable[[Result], object] = lambda result: None
    ) -> Done:
        """Check the folder first and hold it, compute, write `result.json`, then the networks that are kept, and draw.

        `written` is called before that, where the result is where it was asked for.
        """
        from gpunet.files import RESULT, alone, remove, writable_folder, write_or_keep
        from gpunet.report.drawing import written_and_drawn

        with alone(writable_folder(folder, RESULT), "`gpunet run`"):
            result, earlier, networks = self.compute(device, bar), _networks_of(folder / RESULT), list[Path]()

            def between() -> None:
                written(result)
                networks.extend(write_or_keep(folder / name, network) for name, network in self._networks.items())
                for name in earlier - {*self._networks}:
                    remove(folder / name)

            files = written_and_drawn(
                folder, lambda: result.write(folder), lambda: self.experiment.draw(result, folder), between
            )
            return Done(result, *files, networks)


def _networks_of(path: Path) -> set[str]:
    """Files of the networks that an earlier result in the folder names."""
    try:
        names = json.loads(path.read_text())["notes"]["networks"].values()
        return {name for name in names if Path(name).name == name and name.endswith(".safetensors")}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # there is none, or none of ours
        return set()


@contextmanager
def told_by(parser: ArgumentParser) -> Iterator[None]:
    """Our errors as one line of a module's own command line, which ends with exit code 2."""
    try:
        yield
    except GpunetError as error:
        parser.error(str(error))


def load_data(chosen: str, label: str | None = None, resize: int | None = None, standardize: bool = False) -> Any:
    """A data set by name or path; somebody's own mnist.npz is not what a document speaks of, and is named so.

    label, resize, standardize: as `gn.datasets.load` takes them. What is standardized is named so, too.
    """
    from gpunet.datasets import load, names

    data = load(chosen, label=label, resize=resize, standardize=standardize)
    if data.name in names() and chosen != data.name:
        data = replace(data, name=f"own-{data.name}")
    return replace(data, name=f"{data.name}-standardized") if standardize else data


def about(data: Any) -> dict[str, list[str]]:
    """What a result keeps of a data set: what was decided in reading it, and its classes' names, unless numbers."""
    names = [str(name) for name in getattr(data, "names", ())]
    found = {"data": list(getattr(data, "notes", ())), "classes": names}
    if names == [str(number) for number in range(len(names))]:
        del found["classes"]
    return {kind: told for kind, told in found.items() if told}
