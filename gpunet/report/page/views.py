"""What the templates show: plain texts and numbers, nothing left to compute."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from gpunet.experiments import experiments
from gpunet.experiments.claims import judge
from gpunet.experiments.framework import Paper
from gpunet.experiments.result import RESULT, intact
from gpunet.report.page.claims import SIGNS, Anchors, ClaimView, opening
from gpunet.report.page.contents import Figure, duration, figures, tables, timing_table
from gpunet.report.page.reading import Reproduction, Run
from gpunet.report.table import NOTHING, Column, Table


@dataclass(frozen=True)
class RunView:
    """One run of an experiment; of one that is not finished `trouble` says why, and the rest is empty."""

    anchor: str
    name: str
    dataset: str
    trouble: str = ""
    facts: str = ""
    claims: tuple[ClaimView, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    timing: Table | None = None
    lists: tuple[tuple[str, dict[str, str]], ...] = ()


@dataclass(frozen=True)
class SectionView:
    """One experiment and its runs; `paper` is None for one that is not known."""

    anchor: str
    experiment: str
    paper: Paper | None
    runs: tuple[RunView, ...]

    @property
    def claims(self) -> list[ClaimView]:
        """Those of all runs, in the order of their verdicts."""
        every = [claim for run in self.runs for claim in run.claims]
        return sorted(every, key=lambda claim: list(SIGNS).index(claim.told))


@dataclass(frozen=True)
class PageView:
    """The whole page; `opening`: what was found, in a few sentences."""

    title: str
    quick: bool
    opening: tuple[str, ...]
    facts: str
    sections: tuple[SectionView, ...]
    claims: tuple[ClaimView, ...]
    troubles: tuple[RunView, ...]
    times: Table


def page_view(held: Reproduction) -> PageView:
    """Everything a folder holds, judged and ready to be shown. Raises DataError for a result that is damaged."""
    anchor, known = Anchors(), experiments()
    names = dict.fromkeys(run.experiment for run in held.runs)
    sections = []
    for name in [*(each for each in known if each in names), *(each for each in names if each not in known)]:
        place = anchor(name)
        views = tuple(_run_view(run, anchor) for run in held.runs if run.experiment == name)
        sections.append(SectionView(place, name, known[name].paper if name in known else None, views))
    runs = [run for section in sections for run in section.runs]
    claims = tuple(claim for run in runs for claim in run.claims)
    one = len(runs) == 1 and held.quick is None
    title = f"{sections[0].experiment} on {runs[0].dataset}" if one else "What documents claim, and what was measured"
    return PageView(
        title, bool(held.quick), tuple(opening(claims)), _facts(held), tuple(sections), claims,
        tuple(run for run in runs if run.trouble), _whole(held.runs),
    )  # fmt: skip


def _run_view(run: Run, anchor: Anchors) -> RunView:
    place, result, x = anchor(f"run-{run.name}"), run.result, experiments().get(run.experiment)
    if result is None:
        return RunView(place, run.name, run.dataset, run.trouble)
    with intact(run.folder / RESULT):
        claims = judge(x, result) if x else []
        views = tuple(ClaimView(anchor(f"{run.name}-{c.id}"), run.experiment, run.dataset, c) for c in claims)
        shown, drawn, timed = tuple(tables(x, result)), tuple(figures(x, run, result)), timing_table(result)
    lists = {"Settings": result.settings, "What was found": result.notes, "Machine and versions": result.provenance}
    pairs = ((title, {name.replace("_", " "): _told(value) for name, value in found.items()})
             for title, found in lists.items() if found)  # fmt: skip
    seconds, seeds = result.provenance.get("seconds"), len(result.seeds)
    facts = (
        f"{seeds} seed{'s' * (seeds != 1)}", result.device, f"took {duration(seconds)}" if seconds is not None else "",
        _when(result.provenance.get("started")),
    )  # fmt: skip
    return RunView(place, run.name, run.dataset, "", _joined(facts), views, shown, drawn, timed, tuple(pairs))


def _facts(held: Reproduction) -> str:
    """When, what and where, in a line."""
    results = [run.result for run in held.runs if run.result]
    origins = [result.provenance for result in results]
    whens = [held.updated] if held.updated else [str(each.get("started") or "") for each in origins]
    took = sum(each.get("seconds") or 0 for each in origins)
    return _joined(
        [
            _when(max(whens, default="")), f"{len(results)} of {len(held.runs)} runs finished",
            f"{duration(took)} of computing" if took else "", *(result.device for result in results),
            *(str(each.get("gpu") or each.get("cpu") or "") for each in origins), *map(_version, origins),
        ]
    )  # fmt: skip


def _joined(facts: Iterable[str]) -> str:
    return " · ".join(dict.fromkeys(filter(None, facts)))


def _version(origin: dict[str, Any]) -> str:
    version, git = (origin.get(name) for name in ("gpunet", "git"))
    return f"gpunet {version}{f' ({git})' if git else ''}" if version else ""


def _when(stamp: str | None) -> str:
    if not stamp:
        return ""
    time = datetime.fromisoformat(stamp).astimezone(UTC)
    return f"{time.day} {time:%B %Y, %H:%M} UTC"


def _whole(runs: Iterable[Run]) -> Table:
    """How long each finished run took, and the most memory it held."""
    rows = []
    for run in runs:
        if run.result:
            seconds, peak = (run.result.provenance.get(name) for name in ("seconds", "peak_memory_bytes"))
            memory = NOTHING if peak is None else f"{peak / 1e6:,.0f}"
            rows.append((run.name, str(len(run.result.seeds)), run.result.device, duration(seconds), memory))
    columns = Column("seeds"), Column("device", text=True), Column("took"), Column("peak memory", "MB")
    return Table("Whole runs", columns, tuple(rows))


def _told(value: Any) -> str:
    """A value in a line, or, of a long one, a line for each of its parts."""
    flat = _plain(value)
    if isinstance(value, (dict, list)) and len(flat) >= 100:
        named = value.items() if isinstance(value, dict) else enumerate(value, 1)
        return "\n".join(f"{name}: {_plain(each)}" for name, each in named)
    return flat


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(each)}" for name, each in value.items()) or NOTHING
    if isinstance(value, list):
        parts = (f"({_plain(each)})" if isinstance(each, (dict, list)) else _plain(each) for each in value)
        return ", ".join(parts) or NOTHING
    return NOTHING if value is None or (isinstance(value, float) and math.isnan(value)) else str(value)
