"""Sections of results as a page of text: every case a grid of its entries, what failed, and the targets last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpunet.bench.results import Case, Entry, Section, ratio

NOTED = ("first_loss", "loss", "sigma", "angle", "energy_missed", "route", "timed", "accuracy")  # beside the times


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
            f"{name}, {each.what}", short(each.value), f"{'≥' if each.at_least else '≤'} {each.target:g}",
            ("met" if each.met else "NOT met") if judged else "",
        )
        for name, section in sections.items() for each in section.targets
    ]  # fmt: skip
    return "\n".join([*lines, "\n== targets", *grid(("", "measured", "wanted", ""), targets)]).strip()


def _entries(case: Case) -> list[str]:
    """Time of each, over the first rival's, and what was noted of any."""
    noted = [name for name in NOTED if any(name in entry.notes for entry in case.entries.values())]
    rival = next((name for name, entry in case.entries.items() if entry.role == "rival" and entry.seconds), "")
    rows = []
    for name, entry in case.entries.items():
        if entry.failed:
            rows.append((name, "failed", entry.failed[:80], *[""] * len(noted)))
            continue
        rows.append((name, _time(entry), _over(case, entry, rival), *(short(entry.notes.get(what)) for what in noted)))
    return grid(("", "time", f"over {rival}" if rival else "", *noted), rows)


def _time(entry: Entry) -> str:
    median = entry.median
    if median is None:
        return "–"
    return f"{1e6 * median:.1f} µs" if median < 1e-3 else f"{1e3 * median:.2f} ms" if median < 1 else f"{median:.2f} s"


def _over(case: Case, entry: Entry, rival: str) -> str:
    found = ratio(entry, case.entries[rival], rival) if rival else None
    return f"{found[0]:.3f}" if found else "–"


def _notes(notes: Mapping[str, Any]) -> list[str]:
    """A line a note; of a list of dictionaries a line each."""
    lines = []
    for name, value in notes.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            lines += [f"{name}: {_told(each)}" for each in value]
        elif isinstance(value, list) and name in ("failures",):
            lines += [f"FAILED {each[:200]}" for each in value[:40]]
        else:
            lines.append(f"{name}: {_told(value) if isinstance(value, dict) else short(value)}")
    return lines


def _told(value: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_told(each) if isinstance(each, dict) else short(each)}" for key, each in value.items())


def short(value: Any) -> str:
    """A number in three digits, counts as they are."""
    if isinstance(value, list):
        return ", ".join(map(short, value))
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
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
