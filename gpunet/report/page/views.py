"""What the templates show: plain texts and numbers, nothing left to compute."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from gpunet.experiments.result import ClaimResult, Result
from gpunet.report.documents import DOCUMENTS, Document
from gpunet.report.page.claims import Anchors, ClaimView, Count, claim_view, common_note, counts, distinct_claims
from gpunet.report.page.contents import Figure, figures, sheets
from gpunet.report.page.reading import Reproduction, Run
from gpunet.report.page.timings import duration, timing_sheet, whole_runs
from gpunet.report.table import NOTHING, Sheet

STATES = {
    "failed": "failed", "skipped": "was skipped", "waiting": "has not been run to its end yet",
    "missing": "has lost its result",
}  # fmt: skip


@dataclass(frozen=True)
class RunView:
    """One run of a document's experiment."""

    anchor: str
    name: str
    dataset: str
    trouble: str
    facts: tuple[tuple[str, str], ...]
    claims: tuple[ClaimView, ...]
    common_note: str
    counts: tuple[Count, ...]
    sheets: tuple[Sheet, ...]
    figures: tuple[Figure, ...]
    timing: Sheet | None
    provenance: tuple[tuple[str, str], ...]
    settings: tuple[tuple[str, str], ...]

    @property
    def tested(self) -> bool:
        """Whether any claim was."""
        return any(claim.verdict != "not tested" for claim in self.claims)


@dataclass(frozen=True)
class SectionView:
    """One document and the runs of its experiment; `document` is None for an experiment without one."""

    anchor: str
    experiment: str
    document: Document | None
    runs: tuple[RunView, ...]
    counts: tuple[Count, ...]


@dataclass(frozen=True)
class PageView:
    """The whole page."""

    title: str
    quick: bool
    facts: tuple[tuple[str, str], ...]
    counts: tuple[Count, ...]
    total: int
    troubles: tuple[RunView, ...]
    sections: tuple[SectionView, ...]
    times: Sheet


def page_view(held: Reproduction) -> PageView:
    """Everything a folder holds, ready to be shown. Raises DataError for a result that its tables do not understand."""
    anchor, told = Anchors(), distinct_claims(held.runs)
    experiments = dict.fromkeys(run.experiment for run in held.runs)
    known = [name for name in DOCUMENTS if name in experiments]
    sections = []
    for name in dict.fromkeys([*known, *experiments]):
        place = anchor(name)
        runs = tuple(
            _run_view(run, claims, anchor)
            for run, claims in zip(held.runs, told, strict=True)
            if run.experiment == name
        )
        listed = [claim for run in runs for claim in run.claims]
        sections.append(SectionView(place, name, DOCUMENTS.get(name), runs, counts(listed)))
    every = [claim for section in sections for run in section.runs for claim in run.claims]
    troubles = tuple(run for section in sections for run in section.runs if run.trouble)
    one = len(held.runs) == 1 and held.quick is None
    title = f"{held.runs[0].experiment} on {_dataset(held.runs[0])}" if one else "Five documents, run again"
    return PageView(
        title,
        bool(held.quick),
        _facts(held),
        counts(every),
        len(every),
        troubles,
        tuple(sections),
        whole_runs(held.runs),
    )


def _run_view(run: Run, claims: Sequence[ClaimResult], anchor: Anchors) -> RunView:
    place, result = anchor(f"run-{run.name}"), run.result
    views = tuple(claim_view(claim, anchor(f"{run.name}-{claim.id}")) for claim in claims)
    trouble = "" if result else f"{STATES[run.state]}{': ' + run.reason if run.reason else '.'}"
    return RunView(
        place, run.name, _dataset(run), trouble,
        _run_facts(result) if result else (),
        views, common_note(views), counts(views),
        sheets(run), figures(run),
        timing_sheet(result, f"{run.name}: mean ± deviation over seeds") if result else None,
        _pairs(result.provenance) if result else (),
        _pairs(result.settings) if result else (),
    )  # fmt: skip


def _dataset(run: Run) -> str:
    return run.result.dataset if run.result else run.name.removeprefix(f"{run.experiment}-")


def _facts(held: Reproduction) -> tuple[tuple[str, str], ...]:
    results = [run.result for run in held.runs if run.result]
    whens = [held.updated] if held.updated else [str(each.provenance.get("started") or "") for each in results]
    took = sum(float(each.provenance.get("seconds") or 0) for each in results)
    machines = [str(each.provenance.get("gpu") or each.provenance.get("cpu") or "") for each in results]
    facts = [
        ("When", _when(max(filter(None, whens), default=""))),
        ("Runs", f"{len(results)} of {len(held.runs)} finished"),
        ("Seeds", _each(str(len(each.seeds)) for each in results)),
        ("Device", _each(each.device for each in results)),
        ("Machine", _each(machines)),
        ("Computing", duration(took) if took else ""),
        ("gpunet", _each(_version(each) for each in results)),
    ]
    return tuple((name, value) for name, value in facts if value)


def _run_facts(result: Result) -> tuple[tuple[str, str], ...]:
    seconds = result.provenance.get("seconds")
    facts = [
        ("Data", result.dataset),
        ("Seeds", f"{len(result.seeds)}"),
        ("Device", result.device),
        ("Took", duration(seconds) if isinstance(seconds, (int, float)) else ""),
        ("Started", _when(str(result.provenance.get("started") or ""))),
    ]
    return tuple((name, value) for name, value in facts if value)


def _version(result: Result) -> str:
    version, git = (result.provenance.get(name) for name in ("gpunet", "git"))
    return f"{version} ({git})" if git else str(version or "")


def _each(values: Any) -> str:
    return ", ".join(dict.fromkeys(filter(None, values)))


def _when(stamp: str) -> str:
    try:
        time = datetime.fromisoformat(stamp).astimezone(UTC)
    except (ValueError, OverflowError):
        return stamp
    return f"{time.day} {time:%B %Y, %H:%M} UTC"


def _pairs(found: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Names and values as text; records become JSON."""
    plain = (bool, int, float, str)
    return tuple(
        (name.replace("_", " "), NOTHING if value is None else str(value) if isinstance(value, plain) else _json(value))
        for name, value in found.items()
    )


def _json(value: Any) -> str:
    """On one line where it is short, else a line for each part."""
    flat = json.dumps(value, ensure_ascii=False)
    if len(flat) < 100 or not isinstance(value, dict):
        return flat
    return "\n".join(f"{name}: {json.dumps(each, ensure_ascii=False)}" for name, each in value.items())
