"""The ratios of one or several files of benchmarks, side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gpunet.bench.ratios import Measured, Ratio, read
from gpunet.errors import InputError
from gpunet.experiments.result import RESULT
from gpunet.files import write_or_keep


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

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "benchmark": "report",
            "files": [{"name": each.name, "machine": each.machine} for each in self.files],
            "groups": {group: [_row(each, ratio) for each, ratio in self.rows(group)] for group in self.groups},
        }

    def text(self) -> str:
        """As JSON."""
        return json.dumps(self.as_dict(), indent=1) + "\n"

    def write(self, folder: Path) -> Path:
        """Write `folder/result.json`; its path."""
        path = folder / RESULT
        write_or_keep(path, self.text())
        return path


def _row(each: Measured, ratio: Ratio) -> dict[str, Any]:
    return {
        "case": ratio.case, "ours": ratio.ours, "rival": ratio.rival, "file": each.name, "ratio": ratio.ratio,
        "quartiles": ratio.quartiles, "seconds": ratio.seconds, "rival_seconds": ratio.rival_seconds,
    }  # fmt: skip


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
