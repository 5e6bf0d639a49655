"""The report as one HTML page: `write(folder)` makes `folder/report.html` of what `gpunet reproduce` leaves there."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, count
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from gpunet.errors import DataError, visible
from gpunet.experiments import experiments
from gpunet.experiments.claims import judge
from gpunet.experiments.result import Result, intact
from gpunet.files import RESULT, write_atomically
from gpunet.report import claims, claims_json
from gpunet.report.claims import SIGNS, ClaimView
from gpunet.report.page.contents import Figure, duration, figures, sort_key, tables, timing_table
from gpunet.report.table import NOTHING, Column, Table

__all__ = ["write"]

HERE = Path(__file__).parent
STATES = {"failed": "failed", "skipped": "was skipped", "waiting": "has not been run to its end yet"}
# What is shown of one verdict alone.
FILTER = (
    "@media screen {{ body:has(#show-{kind}:checked) :is(.claims tbody tr:not(.{kind}), "
    ":is(.document, .run, .claims, .agreed, .untested):not(:has(tr.{kind}))) {{ display: none; }} }}\n"
)


@dataclass
class Run:
    """One run; of one without a result `trouble` says why, and there is nothing else to be shown."""

    name: str
    experiment: str
    folder: Path
    result: Result | None = None
    trouble: str = ""
    anchor: str = ""
    facts: str = ""
    claims: Sequence[ClaimView] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    timing: Table | None = None
    lists: Sequence[tuple[str, dict[str, str]]] = ()

    @property
    def dataset(self) -> str:
        """The name of its data, as far as it is known."""
        return self.result.dataset if self.result else self.name.removeprefix(f"{self.experiment}-")


def write(folder: Path) -> Path:
    """Write `folder/report.html`, one file that needs no other and no network; returns its path.

    folder: what `gpunet reproduce` writes (claims.json and a folder a run), or a run's own folder, or one that holds
    such folders. The same results give the same bytes.
    Raises DataError where the folder holds none of these, or a file of it is damaged or of another version.
    """
    folder = Path(folder)
    with intact(folder):
        text = _html(folder)
    write_atomically(folder / claims_json.PAGE, text.encode())
    return folder / claims_json.PAGE


# -- what the folder holds --------------------------------------------------------------------------------------------


def _read(folder: Path) -> tuple[claims_json.Document | None, list[Run]]:
    """The claims.json of a folder, None where it is of one run or of several side by side; and the runs."""
    path = folder / claims_json.NAME
    if path.is_file():
        with intact(path, "run `gpunet reproduce` again"):
            held = claims_json.read(path)
        return held, [_run(folder / entry.name, entry) for entry in held.runs]
    there = [folder] if (folder / RESULT).is_file() else sorted(path.parent for path in folder.glob(f"*/{RESULT}"))
    if not there:
        raise DataError(
            f"'{folder}' holds neither {path.name} nor {RESULT}: expected a folder of `gpunet reproduce` or "
            "`gpunet run`"
        )
    return None, [_finished(path, path.resolve().name) for path in there]


def _run(folder: Path, entry: claims_json.Entry) -> Run:
    """Verdicts are derived from its result, as claims.json's own are."""
    if entry.state != "finished":
        trouble = STATES[entry.state] + (f": {entry.reason}" if entry.reason else ".")
    elif not (folder / RESULT).is_file():
        trouble = f"has lost its result: {entry.result} is not there any more: run it again"
    else:
        return _finished(folder, entry.name)
    return Run(entry.name, entry.experiment, folder, trouble=trouble)


def _finished(folder: Path, name: str) -> Run:
    result = Result.read(folder / RESULT)
    return Run(name, result.experiment, folder, result)


# -- what is shown of it ----------------------------------------------------------------------------------------------


def _html(folder: Path) -> str:
    """The page as text. Everything shown is escaped; its policy admits its own style sheet and script, and no other."""
    held, runs = _read(folder)
    sections = _sections(runs)
    ordered = [run for section in sections for run in section["runs"]]
    every = [claim for run in ordered for claim in run.claims]
    title = "What documents claim, and what was measured"
    if held is None and len(runs) == 1:
        title = f"{runs[0].experiment} on {runs[0].dataset}"
    return rendered(
        "page.html", "".join(FILTER.format(kind=claims.kind(told)) for told in SIGNS),
        title=title, quick=held is not None and held.quick, opening=claims.opening(every), claims=every,
        facts=_facts(runs, held.updated if held else None), sections=sections,
        troubles=[run for run in ordered if run.trouble], times=_whole(runs),
    )  # fmt: skip


def rendered(template: str, css: str = "", **values: Any) -> str:
    """A page of one of our templates, with the style sheet and more of it, and the script."""
    made = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=_shown,
    )  # fmt: skip
    made.globals |= {
        "parts": _parts, "key": _key, "kind": claims.kind, "told_counts": claims.told_counts,
        "counts": claims.counts, "reasons": claims.reasons, "signs": SIGNS,
    }  # fmt: skip
    sheet, script = ((HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    own = {"css": sheet + css, "script": script}
    text = made.get_template(template).render(
        hashes={name: base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for name, each in own.items()},
        **{name: Markup(each) for name, each in own.items()}, **values,
    )  # fmt: skip
    return re.sub(r"[\0-\x08\x0b-\x1f\x7f-\x9f]", "\ufffd", text)  # a result's text may hold any; HTML must not


def _sections(runs: list[Run]) -> list[dict[str, Any]]:
    """A section an experiment, those that are known in their order before the others; its runs judged and drawn."""
    known, names, given = experiments(), dict.fromkeys(run.experiment for run in runs), set[str]()
    sections = []
    for name in [*(each for each in known if each in names), *(each for each in names if each not in known)]:
        place, own = _anchor(name, given), [run for run in runs if run.experiment == name]
        for run in own:
            _fill(run, given)
        every = sorted((claim for run in own for claim in run.claims), key=lambda claim: list(SIGNS).index(claim.told))
        paper = known[name].paper if name in known else None
        sections.append({"anchor": place, "experiment": name, "paper": paper, "runs": own, "claims": every})
    return sections


def _anchor(text: str, given: set[str]) -> str:
    """A name for a place on the page, made from a text, that is not given yet."""
    base = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "part"
    name = next(each for each in chain([base], (f"{base}-{number}" for number in count(2))) if each not in given)
    given.add(name)
    return name


def _fill(run: Run, given: set[str]) -> None:
    """All that is shown of a run. Raises DataError for a result that is damaged."""
    run.anchor, result, x = _anchor(f"run-{run.name}", given), run.result, experiments().get(run.experiment)
    if result is None:
        return
    with intact(run.folder / RESULT):
        run.claims = [
            ClaimView(_anchor(f"{run.name}-{claim.id}", given), run.experiment, run.dataset, claim)
            for claim in (judge(x, result) if x else [])
        ]
        run.tables, run.timing = tables(x, result), timing_table(result)
        run.figures = figures(x, result, run.folder)
    lists = {"Settings": result.settings, "What was found": result.notes, "Machine and versions": result.provenance}
    run.lists = [
        (title, {name.replace("_", " "): _told(value) for name, value in found.items()})
        for title, found in lists.items()
        if found
    ]
    seconds, seeds = result.provenance.get("seconds"), len(result.seeds)
    took = f"took {duration(seconds)}" if seconds is not None else ""
    started = _when(result.provenance.get("started"))
    run.facts = _joined([f"{seeds} seed{'s' * (seeds != 1)}", result.device, took, started])


def _facts(runs: Iterable[Run], updated: str | None) -> str:
    """When, what and where, in a line."""
    results = [run.result for run in runs if run.result]
    origins = [result.provenance for result in results]
    whens = [updated] if updated else [str(each.get("started") or "") for each in origins]
    took = sum(each.get("seconds") or 0 for each in origins)
    return _joined(
        [
            _when(max(whens, default="")), f"{len(results)} of {len([*runs])} runs finished",
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


# -- what the templates call ------------------------------------------------------------------------------------------


def _shown(value: object) -> object:
    """No control character, which HTML has no way to write, and nothing that turns the order of writing around."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _parts(cell: str) -> tuple[str, str]:
    """A cell's number and its deviation, with minus signs for hyphens."""
    value, sign, spread = re.sub(r"(^|e|± )-(?=[\d.])", r"\1−", cell).partition(" ± ")
    return value, f"{sign.strip()} {spread}" if sign else ""


def _key(cell: str) -> str:
    number = sort_key(cell)
    return "" if number is None else f"{number:.12g}"
