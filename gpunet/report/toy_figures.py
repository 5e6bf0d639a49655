"""The figures of toy: losses, steps to converge, zero weights, Figure 4, and Figure 3's decision boundaries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap

from gpunet.experiments.result import Result
from gpunet.report.style import COLOURS, DASHES, between_pixels, figure, stacked
from gpunet.report.toy_tables import label, rows_of
from gpunet.stacked import sigmoid_outputs

CLASSES = (COLOURS[0], COLOURS[1])
SHADES = LinearSegmentedColormap.from_list("classes", [CLASSES[0], "#ffffff", CLASSES[1]])
GRID = 161  # points a side
BORDERS = 10  # nets whose decision boundary is drawn


def draw(result: Result, folder: Path) -> list[Path]:
    """Write the figures as PNG; returns their paths."""
    paths = [
        _losses(result, folder / "loss.png", "Loss", ["", "mean", "unhalved"], runs=True),
        _losses(result, folder / "zeros.png", "Initial weights", ["", "glorot", "zeros"]),
        _stops(result, folder / "steps.png"),
    ]
    rates = result.settings["learning_rates"]
    if len(set(rates)) > 1:
        words = ["" if rate == rates[0] else f"rate={rate:g}" for rate in sorted(set(rates))]
        path = folder / "learning-rate.png"
        paths.append(_losses(result, path, "Learning rate", words, named=f"learning rate {rates[0]:g}"))
    if any("weights" in curve for curve in result.curves.values()):
        paths.append(_boundaries(result, folder / "boundaries.png"))
    return paths


def _panels(result: Result, path: Path, draw_one: Callable[[Any, str, int], None]) -> Path:
    """One panel a data set, side by side; `draw_one` takes axes, data set and place."""
    names = result.settings["datasets"]
    with figure(path, len(names)) as made:
        for place, (axes, data) in enumerate(zip(np.atleast_1d(made), names, strict=True)):
            draw_one(axes, data, place)
    return path


def _losses(
    result: Result, path: Path, title: str, words: Sequence[str], *, named: str = "", runs: bool = False
) -> Path:
    """Mean loss against steps, median and quartiles over seeds; `runs` adds some single nets of the first kind."""
    limit = max(2, result.settings["limit"])

    def panel(axes: Any, data: str, place: int) -> None:
        for at, word in enumerate(words):
            curve = result.curves[f"{data} {word}".strip()]
            steps, (low, middle, high) = curve["steps"], curve["loss_quartiles"]
            colour = COLOURS[at % len(COLOURS)]
            if runs and at == 0:
                for net, run in enumerate(curve["loss"]):
                    axes.plot(
                        steps, run, color=colour, linewidth=0.6, alpha=0.45, label=None if net else "single nets of it"
                    )
            if len(result.seeds) > 1:
                axes.fill_between(steps, low, high, color=colour, alpha=0.16 if len(words) < 4 else 0.07, linewidth=0)
            shown = named if named and not word else label(result, word)
            axes.plot(steps, middle, color=colour, linestyle=DASHES[at % len(DASHES)], label=shown)
        axes.set(xscale="log", yscale="log", xlim=(1, limit), xlabel="steps", title=f"{title}, {data}")
        if place == 0 or stacked():
            over = "; median and quartiles" if len(result.seeds) > 1 else ""
            axes.set_ylabel(f"mean of ½(y − t)²{over}\n(a net that has stopped keeps its last)")
        axes.legend(loc="lower left")

    return _panels(result, path, panel)


def _stops(result: Result, path: Path) -> Path:
    """The share of nets that have stopped after so many steps."""
    limit, seeds = max(2, result.settings["limit"]), len(result.seeds)

    def panel(axes: Any, data: str, place: int) -> None:
        kinds = [(name, word) for name, word in rows_of(result, data).items() if not word.startswith("rate=")]
        for at, (name, word) in enumerate(kinds):
            steps, there = (np.array(result.values(name, metric)) for metric in ("steps", "converged"))
            x = np.maximum(1, np.sort(steps[there == 1]))  # a logarithmic axis has no 0
            share = np.arange(1, len(x) + 1) / seeds
            axes.step(
                [1, *x, limit], [0, *share, share[-1] if len(x) else 0], where="post", color=COLOURS[at % len(COLOURS)],
                linestyle=DASHES[at % len(DASHES)], label=label(result, word),
            )  # fmt: skip
        axes.set(xscale="log", xlim=(1, limit), ylim=(-0.02, 1.02), xlabel="steps", title=f"Steps to converge, {data}")
        if place == 0 or stacked():
            axes.set_ylabel(f"share of {seeds} nets that have stopped")
        axes.legend(loc="upper left")

    return _panels(result, path, panel)


def _boundaries(result: Result, path: Path) -> Path:
    """Figure 3's right half: the first net's output and its points; what share of the nets says class 1."""
    names = [data for data in result.settings["datasets"] if "weights" in result.curves[data]]
    with figure(path, 2 * len(names), width=4.2, height=3.7) as made:
        axes: Iterator[Any] = iter(np.atleast_1d(made))
        for data in names:
            curve = result.curves[data]
            weights = [np.asarray(w) for w in curve["weights"]]
            x, labels = np.asarray(curve["x"]), np.asarray(curve["labels"])
            ticks, points = _grid(x)
            first = sigmoid_outputs([w[:1] for w in weights], points).reshape(GRID, GRID)
            one = next(axes)
            _shade(one, ticks, first, f"{data}, the net of seed {result.seeds[0]}")
            one.contour(*ticks, first, [0.5], colors="black", linewidths=1.6)
            for kind, marker in ((0, "o"), (1, "s")):
                there = x[labels == kind]
                one.scatter(*there.T, s=22, marker=marker, color=CLASSES[kind], edgecolors="white", linewidths=0.7)
            _many(next(axes), ticks, points, weights, data)
    return path


def _many(axes: Any, ticks: Sequence[Any], points: Any, weights: Sequence[Any], data: str) -> None:
    nets = len(weights[0])
    share, fields = np.zeros(len(points)), []
    for net in range(nets):
        (y,) = sigmoid_outputs([w[net : net + 1] for w in weights], points)
        share += (y > 0.5) / nets
        fields += [y] if net < BORDERS else []
    _shade(axes, ticks, share.reshape(GRID, GRID), f"{data}, share of {nets} nets for class 1")
    for field in fields:
        axes.contour(*ticks, field.reshape(GRID, GRID), [0.5], colors="black", linewidths=0.6, alpha=0.6)


def _grid(x: Any) -> tuple[list[Any], Any]:
    """Ticks of both axes, a tenth wider than the samples, and the grid's points (GRID², 2)."""
    low, high = x.min(axis=0), x.max(axis=0)
    margin = np.where(high > low, 0.1 * (high - low), 0.5)
    ticks = [np.linspace(a, b, GRID) for a, b in zip(low - margin, high + margin, strict=True)]
    return ticks, np.stack(np.meshgrid(*ticks), axis=-1).reshape(-1, 2)


def _shade(axes: Any, ticks: Sequence[Any], field: Any, title: str) -> None:
    (left, right), (bottom, top) = ((tick[0], tick[-1]) for tick in ticks)
    axes.imshow(
        field, origin="lower", extent=(left, right, bottom, top), cmap=SHADES, vmin=0, vmax=1, alpha=0.55,
        aspect="auto", interpolation=between_pixels(),
    )  # fmt: skip
    axes.set(title=title, xlabel="x₁", ylabel="x₂")
    axes.grid(False)
