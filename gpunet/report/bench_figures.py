"""Figures of `gpunet bench report`: the ratios of each group, the files beside each other."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from gpunet.bench.report import Report
from gpunet.report.bench_tables import short
from gpunet.report.style import COLOURS, MARKS, figure

ROW, ACROSS = 0.26, 5.2  # inches: a row's height; the width beside the rows' names, however long those are
STEPS = 5  # between ticks at most, as wide as "9.31e-10×"


def draw(report: Report, folder: Path) -> list[Path]:
    """Write `folder/bench-GROUP.png` for each group: the time of ours over the rival's, and its quartiles."""
    paths: list[Path] = []
    for group in report.groups:
        name = f"bench-{re.sub(r'[^-.0-9A-Za-z]+', '_', group)[:100]}"
        path = folder / f"{name}.png"
        while path in paths:  # of groups whose names differ in other signs alone
            path = path.with_name(f"{name}-{1 + len(paths)}.png")
        paths.append(path)
        _draw(report, group, path)
    return paths


def _draw(report: Report, group: str, path: Path) -> None:
    pairs = report.rows(group)
    keys = list(dict.fromkeys(ratio.key for _, ratio in pairs))
    with figure(path, width=ACROSS, height=1.5 + ROW * len(keys) + 0.2 * len(report.files)) as axes:
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
                label = short(f"{each.name} ({each.machine})")
                axes.errorbar(middle, heights, xerr=errors, markersize=5, capsize=2, linewidth=1.2, label=label, **look)
        _axes(axes, short(group), [f"{short(case)}: {short(ours)} / {short(rival)}" for _, case, ours, rival in keys])
        for place in range(1, len(keys)):
            if keys[place][1] != keys[place - 1][1]:
                axes.axhline(place - 0.5, color="#e3e3e3", linewidth=0.6)
        axes.figure.legend(loc="outside lower left")


def _axes(axes: Any, group: str, labels: list[str]) -> None:
    axes.set_xscale("log", base=2)
    low, high = axes.get_xlim()
    low, high = min(low, 0.45), max(high, 2.2)
    step = math.ceil(math.log2(high / low) / STEPS)
    ticks = 2.0 ** (step * np.arange(math.ceil(math.log2(low) / step), math.floor(math.log2(high) / step) + 1))
    axes.set_xlim(low, high)
    axes.set_xticks(ticks, [f"{tick:.3g}×" for tick in ticks])
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.set(xlabel="time of ours / the rival's, left of 1× ours is faster", title=group)
    names = max(label.get_window_extent().width for label in axes.get_yticklabels()) / axes.figure.dpi
    axes.figure.set_figwidth(ACROSS + names)
