"""Figures of `gpunet bench report`: the ratios of each group, the files beside each other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from gpunet.bench.report import Report
from gpunet.errors import printable
from gpunet.report.style import COLOURS, figure

MARKS = "osD^vP*"
ROW = 0.26  # inches


def draw(report: Report, folder: Path) -> list[Path]:
    """Write `folder/bench-GROUP.png` for each group: the time of ours over the rival's, and its quartiles."""
    paths = []
    for group in report.groups:
        paths.append(folder / f"bench-{re.sub(r'[^-.0-9A-Za-z]+', '_', group)[:100]}.png")
        _draw(report, group, paths[-1])
    return paths


def _draw(report: Report, group: str, path: Path) -> None:
    pairs = report.rows(group)
    keys = list(dict.fromkeys(ratio.key for _, ratio in pairs))
    with figure(path, width=8.2, height=1.5 + ROW * len(keys) + 0.2 * len(report.files)) as axes:
        axes.axvline(1, color="#888888", linewidth=1)
        for place, each in enumerate(report.files):
            look: dict[str, Any] = {"color": COLOURS[place % len(COLOURS)], "fmt": MARKS[place % len(MARKS)]}
            shift = 0.5 * ((place + 0.5) / len(report.files) - 0.5)
            own = {ratio.key: ratio for measured, ratio in pairs if measured is each}
            if own:
                heights = [keys.index(key) + shift for key in own]
                middle = [ratio.ratio for ratio in own.values()]
                errors = [
                    [max(0.0, ratio.ratio - ratio.least) for ratio in own.values()],
                    [max(0.0, ratio.most - ratio.ratio) for ratio in own.values()],
                ]
                label = _short(f"{each.name} ({each.machine})")
                axes.errorbar(middle, heights, xerr=errors, markersize=5, capsize=2, linewidth=1.2, label=label, **look)
        _axes(axes, _short(group), [_short(f"{case}: {ours} / {rival}") for _, case, ours, rival in keys])
        for place in range(1, len(keys)):
            if keys[place][1] != keys[place - 1][1]:
                axes.axhline(place - 0.5, color="#e3e3e3", linewidth=0.6)
        axes.figure.legend(loc="outside lower left")


def _short(text: str) -> str:
    """A text of a file, in one short line."""
    return printable(text)[:200]


def _axes(axes: Any, group: str, labels: list[str]) -> None:
    axes.set_xscale("log", base=2)
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, 0.45), max(high, 2.2))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.3g}×")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.set(xlabel="time of ours / the rival's, median and quartiles; left of 1× ours is faster", title=group)
