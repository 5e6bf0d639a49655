"""Ratios of ours over rivals: from files of results and from pytest-benchmark's --benchmark-json, shown and compared.

In a file of results contenders were timed in turn: a ratio is the median over rounds. pytest-benchmark times one after
the other: there it is that of the medians, and its quartiles are those over all pairs of rounds.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from gpunet.bench.results import Case, Entry, Positive, Results, Section, failures, ratio, read_document
from gpunet.errors import InputError
from gpunet.experiments.structs import Struct, convert

MOST = 1000  # ratios of one file, each a line of a figure
ROUNDS = 1000  # of a contender, that go into the quartiles over all pairs; of more, so many evenly spaced by size
LIMIT = 15.0  # percent by which a ratio may grow


@dataclass(frozen=True)
class Ratio:
    """Time of ours over the rival's, smaller is better; quartiles where there were rounds; seconds where known."""

    group: str
    case: str
    ours: str
    rival: str
    ratio: float
    quartiles: tuple[float, float] | None
    seconds: float | None
    rival_seconds: float | None

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What was compared."""
        return self.group, self.case, self.ours, self.rival

    @property
    def least(self) -> float:
        """The lower quartile, or the ratio itself."""
        return self.quartiles[0] if self.quartiles else self.ratio

    @property
    def most(self) -> float:
        """The upper quartile, or the ratio itself."""
        return self.quartiles[1] if self.quartiles else self.ratio


@dataclass(frozen=True)
class Measured:
    """The ratios of one file; machine: its processor and GPU; failed: a line for each contender without a time."""

    name: str
    machine: str
    ratios: tuple[Ratio, ...]
    failed: tuple[str, ...] = ()


def read(path: Path) -> Measured:
    """A file's ratios; InputError where it cannot be read, is no file of benchmarks, or compares nothing."""
    document = read_document(path, "what --benchmark-json wrote, or a file of benchmarks/results")
    kinds = document if isinstance(document, dict) else {}
    try:
        if "benchmarks" in kinds:
            sections = convert(kinds, Timings).sections()
        elif "sections" in kinds:
            sections = convert(kinds, Results).sections
        else:
            raise InputError(
                f"'{path}' is no file of benchmarks: expected what `pytest benchmarks --benchmark-only "
                "--benchmark-json FILE` wrote, or a file of benchmarks/results"
            )
        found = list(itertools.islice(_ratios(sections), MOST + 1))
        if len(found) > MOST:
            raise msgspec.ValidationError(f"it has more than {MOST:,} ratios")
    except msgspec.ValidationError as error:
        raise InputError(f"'{path}' is damaged: {error}; measure again") from error
    if not found:
        raise InputError(
            f"'{path}' compares nothing: none of ours stands beside a rival; install one and measure again"
        )
    machines = [_machine(section.provenance) for section in sections.values()]
    failed = [line for name, section in sections.items() for line in failures(section, f"{path.stem}: {name}: ")]
    return Measured(path.stem, " / ".join(dict.fromkeys(filter(None, machines))), tuple(found), tuple(failed))


def _machine(provenance: Mapping[str, Any]) -> str:
    return " + ".join(str(part) for part in (provenance.get("cpu"), provenance.get("gpu")) if part)


def _ratios(sections: Mapping[str, Section]) -> Iterator[Ratio]:
    for group, section in sections.items():
        for case, each in section.cases.items():
            for (ours, mine), (rival, theirs) in itertools.product(each.entries.items(), repeat=2):
                found = (
                    ratio(mine, theirs, rival) if mine.role == "ours" and theirs.role in ("rival", "floor") else None
                )
                if found:
                    quartiles = (found[1], found[2]) if len(found) == 3 else None
                    name = case.partition("\0")[0]
                    yield Ratio(group, name, ours, rival, found[0], quartiles, mine.median, theirs.median)


# -- pytest-benchmark -------------------------------------------------------------------------------------------------


class _Info(Struct):
    """What the suite adds to a benchmark; one of others has no role."""

    role: str = ""
    case: str = ""
    who: str = ""
    device: str = ""
    pieces: Positive = 1.0


class _Stats(Struct):
    data: list[Positive] = []


class _Timing(Struct):
    group: str | None
    extra_info: _Info
    stats: _Stats


class Timings(Struct):
    """A file of pytest-benchmark: what of it is reckoned with."""

    benchmarks: Annotated[list[_Timing], Meta(max_length=100_000)]
    machine_info: dict[str, Any]

    def sections(self) -> dict[str, Section]:
        """A section a group; those that failed have no times."""
        info = self.machine_info
        made = info.get("gpunet") or {"cpu": info["cpu"].get("brand_raw") if isinstance(info.get("cpu"), dict) else ""}
        found: dict[str, Section] = {}
        for each in self.benchmarks:
            told = each.extra_info
            if told.role in ("ours", "rival", "floor") and each.stats.data:
                section = found.setdefault(each.group or "", Section(made if isinstance(made, dict) else {}))
                case = section.cases.setdefault(f"{told.case}\0{told.device}", Case())  # each device by itself
                entry = Entry(told.role, [seconds / told.pieces for seconds in each.stats.data])  # type: ignore[arg-type]
                case.entries[told.who] = entry
        for section in found.values():
            for case in section.cases.values():
                for ours in case.entries.values() if len(case.entries) <= MOST else ():
                    ours.over = {name: _pairs(ours, rival) for name, rival in case.entries.items() if rival is not ours}
        return found or {"": Section(made if isinstance(made, dict) else {})}


def _pairs(ours: Entry, rival: Entry) -> list[float]:
    """The ratio of the medians, and the quartiles over all pairs of rounds where both have several."""
    middle = float(np.median(ours.seconds) / np.median(rival.seconds))
    if min(len(ours.seconds), len(rival.seconds)) < 2:
        return [middle]
    pairs = np.divide.outer(_thinned(ours.seconds), _thinned(rival.seconds))
    return [middle, *(float(q) for q in np.percentile(pairs, (25, 75)))]


def _thinned(seconds: Sequence[float]) -> NDArray[np.float64]:
    times = np.sort(np.asarray(seconds, np.float64))
    return times if len(times) <= ROUNDS else times[np.linspace(0, len(times) - 1, ROUNDS).round().astype(int)]


# -- several files ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Report:
    """What was read, a name for each file."""

    files: tuple[Measured, ...]

    @property
    def groups(self) -> list[str]:
        """In the order of the files."""
        return list(dict.fromkeys(ratio.group for each in self.files for ratio in each.ratios))

    def rows(self, group: str) -> list[tuple[Measured, Ratio]]:
        """The group's ratios by what was compared, and of these a file's after the other's."""
        found = [(each, ratio) for each in self.files for ratio in each.ratios if ratio.group == group]
        order = list(dict.fromkeys(ratio.key for _, ratio in found))
        cases = list(dict.fromkeys(ratio.case for _, ratio in found))
        return sorted(found, key=lambda pair: (cases.index(pair[1].case), order.index(pair[1].key)))

    def text(self) -> str:
        """As JSON."""

        def row(each: Measured, ratio: Ratio) -> dict[str, Any]:
            figures = {name: value for name, value in vars(ratio).items() if name != "group"}
            return figures | {"file": each.name}

        document = {
            "benchmark": "report",
            "files": [{"name": each.name, "machine": each.machine} for each in self.files],
            "groups": {group: [row(*pair) for pair in self.rows(group)] for group in self.groups},
        }
        return json.dumps(document, indent=1) + "\n"


def report(paths: Sequence[Path]) -> Report:
    """Read the files; InputError for one that is no file of benchmarks or is named twice."""
    places = [path.resolve() for path in paths]
    for path, place in zip(paths, places, strict=True):
        if places.count(place) > 1:
            raise InputError(f"'{path}' is named twice: name each file of benchmarks once")
    found = [read(path) for path in paths]
    return Report(tuple(replace(each, name=name) for each, name in zip(found, _names(places), strict=True)))


def _names(places: Sequence[Path]) -> list[str]:
    """The files' names, with as many folders before them as tell them apart."""
    names = [place.with_suffix("").parts for place in places]
    taken = 1
    while len({name[-taken:] for name in names}) < len(names) and taken < max(map(len, names)):
        taken += 1
    short = ["/".join(name[-taken:]) for name in names]
    return short if len(set(short)) == len(short) else [str(place) for place in places]


# -- whether anything got slower --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """One comparison in both files, or in one of them alone."""

    old: Ratio | None
    new: Ratio | None

    @property
    def some(self) -> Ratio:
        """One that there is."""
        found = self.new or self.old
        assert found is not None
        return found

    @property
    def percent(self) -> float | None:
        """How much the ratio grew."""
        return 100 * (self.new.ratio / self.old.ratio - 1) if self.old and self.new else None

    def verdict(self, limit: float) -> str:
        """Of a ratio that grew, or fell, by more than `limit` percent: whether the quartiles say so, too."""
        if self.old is None or self.new is None:
            return "new" if self.old is None else "missing"
        if self.new.ratio / self.old.ratio - 1 > limit / 100:
            return "worse" if self.new.least > self.old.most else "within noise"
        if self.old.ratio / self.new.ratio - 1 > limit / 100:
            return "better" if self.new.most < self.old.least else "within noise"
        return "same"


def changes(old: Measured, new: Measured) -> list[Change]:
    """By what was compared, in OLD's order, then what NEW alone has; InputError where they share nothing."""
    before, after = ({ratio.key: ratio for ratio in each.ratios} for each in (old, new))
    if not set(before) & set(after):
        raise InputError(
            f"'{old.name}' and '{new.name}' have no comparison in common: expected two files of the same benchmarks"
        )
    return [Change(before.get(key), after.get(key)) for key in dict.fromkeys([*before, *after])]
