"""Results of benchmarks as tables: the ratios of each group, changes of them, and a page of all that was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpunet.bench.report import Change, Ratio, Report
from gpunet.bench.results import Case, Section, ratio
from gpunet.errors import printable
from gpunet.report.table import NOTHING, Column, Table

LONGEST = 48  # signs of a name that are shown
NOTED = ("first_loss", "loss", "sigma", "angle", "energy_missed", "route", "timed", "accuracy")  # beside the times


def tables(report: Report) -> list[Table]:
    """A table a group: time of ours over the rival's, medians and quartiles; several files one below the other."""
    return [_table(report, group) for group in report.groups]


def _table(report: Report, group: str) -> Table:
    several = len(report.files) > 1
    pairs = report.rows(group)
    heads = [Column("ours", text=True), Column("rival", text=True)]
    heads += [Column("file", text=True)] if several else []
    heads += [Column("time,\nours"), Column("time,\nrival"), Column("ours /\nrival"), Column("quartiles")]
    rows = []
    for each, row in pairs:
        names = map(short, [row.case, row.ours, row.rival, *([each.name] if several else [])])
        rows.append((*names, time(row.seconds), time(row.rival_seconds), f"{three(row.ratio)}×", quartiles(row)))
    breaks = {place for place in range(1, len(rows)) if rows[place][0] != rows[place - 1][0]}
    machines = "; ".join(f"{each.name}: {each.machine}" if several else each.machine for each in report.files)
    return Table(
        short(group),
        tuple(heads),
        tuple(rows),
        note=machines,
        breaks=frozenset(breaks),
        corner="case",
        keys=4 if several else 3,
    )


def changes(found: Sequence[Change], verdicts: Sequence[str]) -> Table:
    """A row for each comparison: the ratio in the old file and in the new one, and the verdict."""
    heads = [
        Column("ours / rival", text=True),
        *(Column(name, text=True) for name in ("old", "new")),
        Column("change"),
        Column("", text=True),
    ]
    rows = []
    for each, verdict in zip(found, verdicts, strict=True):
        ratios = [f"{three(r.ratio)}×{f' ({quartiles(r)})' if r.quartiles else ''}" if r else NOTHING
                  for r in (each.old, each.new)]  # fmt: skip
        grew = "" if each.percent is None else f"{each.percent:+.1f} %"
        some = each.some
        names = f"{short(some.group)}: {short(some.case)}", f"{short(some.ours)} / {short(some.rival)}"
        rows.append((*names, *ratios, grew, verdict))
    return Table("time of ours over the rival's", tuple(heads), tuple(rows), corner="what", keys=2)


def short(text: str) -> str:
    """A name out of a file in one line, of a long one beginning and end."""
    text = printable(text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 17]}…{text[-16:]}"


def quartiles(ratio: Ratio) -> str:
    """Lower and upper, or nothing where there was one round."""
    return f"{three(ratio.least)} to {three(ratio.most)}" if ratio.quartiles else NOTHING


def time(seconds: float | None) -> str:
    """Seconds with a unit: 291 µs, 22.4 ms, 1.27 s."""
    if seconds is None:
        return NOTHING
    size, unit = next((pair for pair in ((1.0, "s"), (1e-3, "ms")) if seconds >= pair[0]), (1e-6, "µs"))
    return f"{three(seconds / size)} {unit}"


def three(value: float) -> str:
    """Three digits, or all before the point: 0.0358, 1.30, 291, 1234."""
    return f"{value:#.3g}".rstrip(".") if value < 999.5 else f"{value:.0f}"


# -- a page of text ----------------------------------------------------------------------------------------------------


def page(sections: Mapping[str, Section], judged: bool = True) -> str:
    """All sections in the order given, and the targets, with verdicts where `judged`."""
    lines: list[str] = []
    for name, section in sections.items():
        took = f" ({section.took:.0f} s)" if section.took else ""
        source = f", data: {section.data}" if section.data else ""
        lines.append(f"\n== {name}: {section.state}{took}{source}{': ' + section.why if section.why else ''}")
        for label, case in section.cases.items():
            lines += [f"-- {label}", *_entries(case), *_notes(case.notes)]
        lines += _notes(section.notes)
    targets = [
        (
            f"{name}, {each.what}", _figure(each.value), f"{'≥' if each.at_least else '≤'} {each.target:g}",
            ("met" if each.met else "NOT met") if judged else "",
        )
        for name, section in sections.items() for each in section.targets
    ]  # fmt: skip
    return "\n".join([*lines, "\n== targets", *_grid(("", "measured", "wanted", ""), targets)]).strip()


def _entries(case: Case) -> list[str]:
    """Time of each, over the first rival's, and what was noted of any."""
    noted = [name for name in NOTED if any(name in entry.notes for entry in case.entries.values())]
    rival = next((name for name, entry in case.entries.items() if entry.role == "rival" and entry.seconds), "")
    rows = []
    for name, entry in case.entries.items():
        if entry.failed:
            rows.append((name, "failed", entry.failed[:80], *[""] * len(noted)))
            continue
        over = ratio(entry, case.entries[rival], rival) if rival else None
        notes = [_figure(entry.notes.get(what)) for what in noted]
        rows.append((name, time(entry.median), three(over[0]) if over else NOTHING, *notes))
    return _grid(("", "time", f"over {rival}" if rival else "", *noted), rows)


def _notes(notes: Mapping[str, Any]) -> list[str]:
    """A line a note; of a list of dictionaries a line each."""
    lines = []
    for name, value in notes.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            lines += [f"{name}: {_told(each)}" for each in value]
        elif isinstance(value, list) and name in ("failures",):
            lines += [f"FAILED {each[:200]}" for each in value[:40]]
        else:
            lines.append(f"{name}: {_told(value) if isinstance(value, dict) else _figure(value)}")
    return lines


def _told(value: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_told(each) if isinstance(each, dict) else _figure(each)}" for key, each in value.items())


def _figure(value: Any) -> str:
    """A number in three digits, counts as they are."""
    if isinstance(value, list):
        return ", ".join(map(_figure, value))
    return NOTHING if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns beside each other, the first to the left, the others to the right."""
    table = [head, *rows]
    widths = [max(len(row[place]) for row in table) for place in range(len(head))]
    return [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]
