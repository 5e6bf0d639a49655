"""The sections of benchmarks/gpu_check.sh as a page of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Section = Mapping[str, Any]


def page(sections: Mapping[str, Section], judged: bool = True) -> str:
    """Tables of all sections in the order given, what failed, and the targets last, with verdicts where `judged`."""
    lines: list[str] = []
    for name, section in sections.items():
        figures, state = section.get("figures") or {}, section.get("state", "")
        took = f" ({section['seconds']:.0f} s)" if section.get("seconds") else ""
        source = f", data: {section['data']}" if section.get("data") else ""
        lines.append(f"\n== {name}: {state}{took}{source}{': ' + section['why'] if section.get('why') else ''}")
        lines += _section(name, figures)
    lines += ["\n== targets", *_targets(sections, judged)]
    return "\n".join(lines).strip()


def _section(name: str, figures: Mapping[str, Any]) -> list[str]:
    if name == "factorised":
        return _grid(
            ("net", "first s", "again s", "s/epoch", "cut s", "accuracy"),
            [(net, *(_short(row[key]) for key in
                     ("first_seconds", "seconds", "seconds_per_epoch", "seconds_to_cut", "test_accuracy")))
             for net, row in figures.items()],
        )  # fmt: skip
    if name.startswith("svd-"):
        return _decompositions(figures)
    if name == "devices":
        return _devices(figures.get("rows", []))
    if name == "kernels":
        return _kernels(figures)
    if name.startswith("step-"):
        return _step(figures)
    if "race" in figures:
        return [*_race(figures["race"]), *_floor(figures)]
    if batches := {name: race for name, race in figures.items() if "batch " in name and isinstance(race, Mapping)}:
        return [line for label, race in batches.items() for line in (f"-- {label}", *_race(race))]
    lines = [f"{key}: {value}" for key, value in figures.items() if not isinstance(value, (dict, list))]
    lines += [f"{key}: {', '.join(f'{part:.3g}' for part in value)}" for key, value in figures.items()
              if isinstance(value, list) and value and all(isinstance(part, float) for part in value)]  # fmt: skip
    lines += [", ".join(f"{key} {value}" for key, value in gpu.items()) for gpu in figures.get("gpus", [])]
    return lines + [f"FAILED {each[:200]}" for each in figures.get("failures", [])[:40]]


def _step(figures: Mapping[str, Any]) -> list[str]:
    """Microseconds of each way, and each recording: its nodes and, most frequent first, their kernels."""
    lines = [
        f"{name}: {figures[name]['microseconds_per_step']:.1f} µs"
        for name in ("graph", "forked", "eager") if name in figures
    ]  # fmt: skip
    for each in figures.get("recordings", ()):
        kernels = ", ".join(f"{count}× {name[:60]}" for name, count in each["kernels"].items())
        took = f", {each['microseconds_per_step']:.1f} µs a step" if "microseconds_per_step" in each else ""
        lines.append(
            f"{each['name']}, batch {each['batch']}, {each['steps_per_launch']} to a launch{took}: {each['nodes']} "
            f"nodes, of which {each['copies_and_fills']} copies and fills; {kernels}"
        )
    return lines


def _kernels(figures: Mapping[str, Any]) -> list[str]:
    lines = [f"{key}: {value}" for key, value in figures.items() if isinstance(value, str)]
    for label, rows in figures.items():
        if isinstance(rows, list):
            cells = [(each["kernel"][:70], f"{each['calls']:.2f}", f"{each['microseconds']:.2f}") for each in rows]
            lines += [f"-- {label}", *_grid(("", "a step", "µs"), cells)]
    return lines


def _race(race: Mapping[str, Any]) -> list[str]:
    """Microseconds and steps a second of each contestant, and its time over the first PyTorch's."""
    eager = [row["microseconds_per_step"] for name, row in race.items()
             if name.startswith("torch") and "compile" not in name and "failed" not in row]  # fmt: skip
    torch = min(eager, default=None)
    rows = []
    for name, row in race.items():
        if "failed" in row:
            rows.append((name, "failed", row["failed"][:80], "", ""))
            continue
        taken = row["microseconds_per_step"]
        over = f"{taken / torch:.3f}" if torch else "–"
        first = f"{row['loss_at_first']:.5f}" if "loss_at_first" in row else "–"
        rows.append((name, f"{taken:.1f}", f"{1e6 / taken:,.0f}", over, first))
    return _grid(("", "µs/step", "steps/s", "over torch eager", "first loss"), rows)


def _floor(figures: Mapping[str, Any]) -> list[str]:
    lines = []
    if floor := figures.get("floor"):
        over = floor["graph_over_products"]
        lines.append(
            f"floor: {floor['bytes'] / 1e6:.1f} MB at {floor['bytes_per_second'] / 1e12:.2f} TB/s are "
            f"{floor['bytes_microseconds']:.1f} µs; graph over its products alone: {_short(over)}"
        )
    return lines


def _decompositions(rows: Mapping[str, Any]) -> list[str]:
    ours = (rows.get("gpunet") or {}).get("seconds")
    lines = []
    for name, row in rows.items():
        if row["failed"]:
            lines.append((name, "failed", row["failed"][:80], "", "", ""))
            continue
        ratio = f"{row['seconds'] / ours:.1f}×" if ours else "–"
        lines.append((name, f"{1e3 * row['seconds']:.2f}", ratio, _short(row["angle"]),
                      _short(row["energy_missed"]), row["route"]))  # fmt: skip
    return _grid(("", "ms", "over gpunet", "angle", "energy missed", "route"), lines)


def _devices(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    for row in rows:
        times = ", ".join(f"{device} {seconds:.2f} s" for device, seconds in row["seconds"].items())
        why = "; ".join(f"{device}: {text[:100]}" for device, text in row["failed"].items())
        lines.append((row["experiment"], times, _short(row["speed_up"]), _short(row["apart"]), why))
    return _grid(("", "seconds", "speed-up", "apart", ""), lines)


def _targets(sections: Mapping[str, Section], judged: bool) -> list[str]:
    rows = []
    for name, section in sections.items():
        for each in section.get("targets") or ():
            sign = "≥" if each["at_least"] else "≤"
            bound = f"{sign} {each['target']:g}"
            verdict = ("met" if each["met"] else "NOT met") if judged else ""
            rows.append((f"{name}, {each['what']}", _short(each["value"]), bound, verdict))
    return _grid(("", "measured", "wanted", ""), rows)


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


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
