"""Ratios of ours over rivals, read from files of results: benchmarks/results, and pytest-benchmark's --benchmark-json.

In a file of results, contestants stand side by side under one name each, with a time such as `microseconds_per_step`
and, where they were timed in turn, `over_RIVAL` and `over_RIVAL_quartiles`, over the rounds. pytest-benchmark times
one after the other: there a ratio is that of the medians, and its quartiles are those over all pairs of rounds.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunet.addresses import harmless
from gpunet.checks import is_number
from gpunet.errors import InputError
from gpunet.limits import DAMAGE, read_json

MOST = 1000  # ratios of one file, each a line of a figure
ROUNDS = 1000  # of a contestant, that go into the quartiles over all pairs; of more, so many evenly spaced by size
SHORTEST = 1e-15  # seconds
UNITS = {"microseconds": 1e-6, "milliseconds": 1e-3, "seconds": 1.0}
TIME = re.compile(rf"({'|'.join(UNITS)})_per_\w+")
PLAIN = ("cases", "nets", "contestants", "figures")  # levels of a section that say nothing of the case
RIVALS = ("torch", "jax", "sklearn", "products")  # how their names begin; "products" is the floor


@dataclass(frozen=True)
class Ratio:
    """Time of ours over the rival's, smaller is better; quartiles, and seconds of each, where they are known."""

    group: str
    case: str
    ours: str
    rival: str
    ratio: float
    quartiles: tuple[float, float] | None = None
    seconds: float | None = None
    rival_seconds: float | None = None

    def __post_init__(self) -> None:
        """ValueError for what is no ratio: it comes from a file."""
        numbers = [self.ratio, *(self.quartiles or ()), self.seconds or 1, self.rival_seconds or 1]
        if not all(is_number(number) and 0 < number < math.inf for number in numbers):
            raise ValueError(f"{self.case}: {self.ours} over {self.rival} is {self.ratio}, quartiles {self.quartiles}")
        if self.quartiles and len(self.quartiles) != 2:
            raise ValueError(f"{self.case}: {len(self.quartiles)} quartiles")
        if not all(isinstance(name, str) for name in self.key):
            raise TypeError(f"{self.key} are no names")

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
    """The ratios of one file; machine: its processor and GPU."""

    name: str
    machine: str
    ratios: tuple[Ratio, ...]


def read(path: Path) -> Measured:
    """A file's ratios; InputError where it cannot be read, is no file of benchmarks, or compares nothing."""
    try:
        document = read_json(path, nan=True)
    except OSError as error:
        raise InputError(
            f"'{harmless(str(path))}' cannot be read: {error.strerror or error}; expected a file of benchmarks"
        ) from error
    except ValueError as error:
        raise InputError(
            f"'{path}' is not JSON as it should be ({error}): expected what --benchmark-json wrote, or "
            "benchmarks/results"
        ) from error
    kinds = document if isinstance(document, dict) else {}
    try:
        if isinstance(kinds.get("benchmarks"), list):
            machine, found = _pytest_machine(kinds), _pytest_ratios(kinds["benchmarks"])
        elif isinstance(kinds.get("sections"), dict):
            machine, found = _sections_machine(kinds["sections"]), _sections_ratios(kinds["sections"])
        else:
            raise InputError(
                f"'{path}' is no file of benchmarks: expected what `pytest benchmarks --benchmark-only "
                "--benchmark-json FILE` wrote, or a file of benchmarks/results"
            )
        if len(found) > MOST:
            raise ValueError(f"{len(found):,} ratios, more than {MOST:,}")
    except InputError:
        raise
    except DAMAGE as error:
        raise InputError(f"'{path}' is damaged: {type(error).__name__} at {error}; measure again") from error
    if not found:
        raise InputError(
            f"'{path}' compares nothing: none of ours stands beside a rival; install one and measure again"
        )
    return Measured(path.stem, machine, tuple(found))


def _machine(provenance: Mapping[str, Any]) -> str:
    return " + ".join(str(part) for part in (provenance.get("cpu"), provenance.get("gpu")) if part)


# -- benchmarks/results -----------------------------------------------------------------------------------------------


def _sections_machine(sections: Mapping[str, Any]) -> str:
    machines = [_machine(section["provenance"]) for section in sections.values()]
    return " / ".join(dict.fromkeys(filter(None, machines)))  # what was not run has no provenance


def _sections_ratios(sections: Mapping[str, Any]) -> list[Ratio]:
    return [ratio for name, section in sections.items() for ratio in _walk(name, (), section)]


def _walk(group: str, path: tuple[str, ...], node: Any) -> Iterator[Ratio]:
    """All contestants under a section, wherever they stand; `path`: the names on the way there."""
    if isinstance(node, Mapping):
        timed = {name: each for name, each in node.items() if isinstance(each, Mapping) and _seconds(each)}
        if timed:
            yield from _contestants(group, " ".join(path) or group, timed)
        for name, each in node.items():
            if name not in timed:
                yield from _walk(group, path if name in PLAIN else (*path, name), each)
    elif isinstance(node, list):
        for each in node:
            if isinstance(each, Mapping) and {"what", "ours_s", "theirs_s"} <= set(each):
                yield from _row(group, each)


def without_route(what: str) -> str:
    """What was decomposed: "4096×4096 to rank 256 (randomized) / full SVD" less the way that was chosen there."""
    return re.sub(r" \(\w+\)", "", what)


def _row(group: str, row: Mapping[str, Any]) -> Iterator[Ratio]:
    """One line of benchmarks/bench_svd.py; a rival that was left out has no time."""
    case, _, rival = without_route(row["what"]).partition(" / ")
    if row["theirs_s"] and np.isfinite(row["theirs_s"]):
        yield Ratio(group, case, "gpunet", rival, row["ours_s"] / row["theirs_s"], None, row["ours_s"], row["theirs_s"])


def _contestants(group: str, case: str, timed: Mapping[str, Mapping[str, Any]]) -> Iterator[Ratio]:
    """Each of ours beside each rival; in `over_best_torch`, the best one has the ratio 1."""
    rivals = [name for name in timed if name.startswith(RIVALS)]
    best = next((name for name in rivals if timed[name].get("over_best_torch") == 1), None)
    for ours in timed:
        for rival in rivals if ours not in rivals else ():
            key = "over_best_torch" if rival == best else f"over_{rival}"
            seconds, theirs = _seconds(timed[ours]), _seconds(timed[rival])
            low_high = timed[ours].get(f"{key}_quartiles")
            if seconds and theirs:
                ratio = timed[ours].get(key) or seconds / theirs
                yield Ratio(group, case, ours, rival, ratio, tuple(low_high) if low_high else None, seconds, theirs)


def _seconds(figures: Mapping[str, Any]) -> float | None:
    """The time that a contestant's figures begin with."""
    for name, value in figures.items():
        if (found := TIME.fullmatch(name)) and isinstance(value, (int, float)):
            return value * UNITS[found[1]]
    return None


# -- pytest-benchmark -------------------------------------------------------------------------------------------------


def _pytest_machine(document: Mapping[str, Any]) -> str:
    info = document["machine_info"]
    return _machine(info["gpunet"] if "gpunet" in info else {"cpu": info.get("cpu", {}).get("brand_raw", "unknown")})


def _pytest_ratios(benchmarks: Sequence[Mapping[str, Any]]) -> list[Ratio]:
    """Each of ours beside all others of its group, case and device; those that failed have no times."""
    timed = [each for each in benchmarks if each["extra_info"].get("role") and each["stats"].get("data")]
    ours = [each for each in timed if each["extra_info"]["role"] == "ours"]
    others: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for each in timed:
        if each["extra_info"]["role"] != "ours":
            others.setdefault(_place(each), []).append(each)
    pairs = ((mine, rival) for mine in ours for rival in others.get(_place(mine), ()))
    return [_pair(*pair) for pair in itertools.islice(pairs, MOST + 1)]


def _place(benchmark: Mapping[str, Any]) -> tuple[str, str, str]:
    info = benchmark["extra_info"]
    return benchmark["group"], info["case"], info["device"]


def _pair(ours: Mapping[str, Any], rival: Mapping[str, Any]) -> Ratio:
    """Both do the same number of pieces of work, of which `pieces` are in a timed call."""
    mine, theirs = _times(ours), _times(rival)
    low, high = np.percentile(np.divide.outer(_thinned(mine), _thinned(theirs)), (25, 75))
    seconds, others = float(np.median(mine)), float(np.median(theirs))
    names = ours["extra_info"]["who"], rival["extra_info"]["who"]
    quartiles = (float(low), float(high)) if len(mine) > 1 and len(theirs) > 1 else None
    return Ratio(ours["group"], ours["extra_info"]["case"], *names, seconds / others, quartiles, seconds, others)


def _times(benchmark: Mapping[str, Any]) -> NDArray[np.float64]:
    """Seconds of a piece of work in each round; ValueError where they are none."""
    data, pieces = benchmark["stats"]["data"], benchmark["extra_info"]["pieces"]
    if not all(is_number(each) and SHORTEST < each < 1 / SHORTEST for each in (pieces, *data)):
        raise ValueError(f"times {data[:3]} … of {pieces} pieces")
    times: NDArray[np.float64] = np.asarray(data, np.float64) / pieces
    return times


def _thinned(times: NDArray[np.float64]) -> NDArray[np.float64]:
    if len(times) <= ROUNDS:
        return times
    places = np.linspace(0, len(times) - 1, ROUNDS).round().astype(int)
    return np.take(np.sort(times), places)
