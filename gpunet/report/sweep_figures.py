"""The figures of a sweep: the course of it, the value against each parameter, importances, the trials' own curves.

Slices and importances are Optuna's plots, with our stages and boxes in them: its own change the style of all figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpunet.experiments.result import Result
from gpunet.report.style import COLOURS, figure
from gpunet.report.sweep_tables import importance, measure, ranked, searched
from gpunet.sweep.show import IMPORTANCE
from gpunet.sweep.space import Parameter, parse_parameter

PANELS = 6  # parameters in slices.png, the most important ones
MARKERS = ("o", "s", "^", "D", "v", "P")
STAR: Any = {"marker": "*", "s": 190, "color": "black", "edgecolors": "white", "linewidths": 0.8, "zorder": 5}


def draw(result: Result, folder: Path) -> list[Path]:
    """Write the figures as PNG; returns their paths."""
    if not ranked(result):
        return []
    paths = [_history(result, folder / "history.png"), _slices(result, folder / "slices.png")]
    if any(row.name == IMPORTANCE for row in result.rows):
        paths.append(_importances(result, folder / "importance.png"))
    if any(len(curve["cost"]) > 1 for curve in result.curves.values()):
        paths.append(_curves(result, folder / "curves.png"))
    return paths


def _history(result: Result, path: Path) -> Path:
    names = list(result.notes["state"])
    values = _values(result, names)
    done = np.maximum if result.settings["direction"] == "maximize" else np.minimum
    with figure(path) as axes:
        for stage, at in _by_stage(result, names):
            axes.scatter(at, values[at], **_look(stage), label=f"stage {stage}")
        complete = np.flatnonzero(np.isfinite(values))
        best = done.accumulate(values[complete])
        ends = [*complete, len(names) - 1]
        axes.step(ends, [*best, best[-1]], where="post", color="black", linewidth=1.1, label="best so far")
        axes.scatter(complete[values[complete] == best[-1]][0], best[-1], **STAR)
        for state, marker, colour in (("pruned", "|", COLOURS[4]), ("failed", "x", COLOURS[3])):
            there = [i for i, name in enumerate(names) if result.notes["state"][name] == state]
            if there:
                low = axes.get_xaxis_transform()
                axes.scatter(there, [0.02] * len(there), marker=marker, color=colour, transform=low, label=state)
        axes.set(xlabel="trial", ylabel=_metric(result), title=f"{result.experiment}, {result.dataset}")
        axes.legend(loc="best")
    return path


def _slices(result: Result, path: Path) -> Path:
    parameters = {p.name: p for p in map(parse_parameter, result.settings["space"])}
    names = searched(result)[:PANELS] or list(parameters)[:1]
    trials = list(result.notes["state"])
    values = _values(result, trials)
    best = trials.index(ranked(result)[0])
    with figure(path, len(names), width=4.4, height=3.6) as made:
        for place, (axes, name) in enumerate(zip(np.atleast_1d(made), names, strict=True)):
            x = _axis(axes, parameters[name], [result.notes["parameters"][trial][name] for trial in trials])
            _shade(axes, result, name)
            stages = _by_stage(result, trials)
            for stage, at in stages:
                if parameters[name].values:
                    x[at] += 0.15 * (stage - (1 + len(stages)) / 2)
                axes.scatter(x[at], values[at], **_look(stage), label=f"stage {stage}")
            axes.scatter(x[best], values[best], **STAR, label="best")
            axes.set_xlabel(name)
            axes.set_ylabel(_metric(result) if place == 0 else "")
            if place == 0:
                axes.legend(loc="best")
    return path


def _axis(axes: Any, parameter: Parameter, given: Sequence[Any]) -> Any:
    """Where the values lie; those of a list stand side by side."""
    if parameter.values:
        axes.set_xticks(range(len(parameter.values)), [str(value) for value in parameter.values])
        axes.set_xlim(-0.6, len(parameter.values) - 0.4)
        return np.array([parameter.values.index(value) for value in given], float)
    if parameter.log:
        axes.set_xscale("log")
    return np.array(given, float)


def _shade(axes: Any, result: Result, name: str) -> None:
    """The last stage's box."""
    boxes = [{p.name: p for p in map(parse_parameter, box)} for box in result.notes["boxes"]]
    if len(boxes) > 1 and not boxes[-1][name].values:
        axes.axvspan(boxes[-1][name].low, boxes[-1][name].high, color=COLOURS[len(boxes) - 1], alpha=0.08, linewidth=0)


def _importances(result: Result, path: Path) -> Path:
    names = searched(result)[::-1]
    shares = [importance(result, name) or 0.0 for name in names]
    with figure(path, height=1.2 + 0.38 * len(names)) as axes:
        axes.barh(names, shares, color=COLOURS[0], height=0.6)
        for place, share in enumerate(shares):
            axes.text(share + 0.01, place, f"{100 * share:.0f} %", va="center", fontsize=9)
        axes.set(xlim=(0, 1.08), xlabel=f"share of the variation of {_metric(result)} (fANOVA)", title="Importance")
        axes.grid(axis="y", visible=False)
    return path


def _curves(result: Result, path: Path) -> Path:
    """Costs that trials reported: the best one's in black, of pruned ones up to where they were stopped."""
    best, labelled = ranked(result)[0], set()
    with figure(path) as axes:
        for name, curve in result.curves.items():
            stage, pruned = result.notes["stage"][name], result.notes["state"][name] == "pruned"
            kind = "best" if name == best else "pruned" if pruned else f"stage {stage}"
            look: dict[str, Any] = {"color": _look(stage)["color"], "linewidth": 0.8, "alpha": 0.6}
            if pruned:
                look |= {"color": COLOURS[4], "linestyle": "--", "marker": "x", "markevery": [-1]}
            if name == best:
                look |= {"color": "black", "linewidth": 1.8, "alpha": 1, "zorder": 3}
            axes.plot(curve["step"], curve["cost"], **look, label=None if kind in labelled else kind)
            labelled.add(kind)
        costs = np.concatenate([curve["cost"] for curve in result.curves.values()])
        if np.all(costs[np.isfinite(costs)] > 0):
            axes.set_yscale("log")
        axes.set(xlabel="step", ylabel="cost", title=f"{result.experiment}, {result.dataset}: the trials' own curves")
        axes.legend(loc="best")
    return path


def _values(result: Result, names: Sequence[str]) -> Any:
    return np.array([result.mean(name, "value") if result.has(name, "value") else np.nan for name in names])


def _by_stage(result: Result, names: Sequence[str]) -> list[tuple[int, list[int]]]:
    stages = result.notes["stage"]
    return [(s, [i for i, n in enumerate(names) if stages[n] == s]) for s in sorted(set(stages.values()))]


def _look(stage: int) -> dict[str, Any]:
    """Colour and marker of a stage."""
    place = stage - 1
    return {"color": COLOURS[place % len(COLOURS)], "marker": MARKERS[place % len(MARKERS)], "s": 26, "alpha": 0.8}


def _metric(result: Result) -> str:
    return measure(result).replace("_", " ")
