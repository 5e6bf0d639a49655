"""The figures of toy: losses, steps to converge, zero weights, Figure 4, and Figure 3's decision boundaries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap

from gpunet.experiments.result import Result
from gpunet.experiments.toy import x
from gpunet.experiments.toy.claims import datasets, words_of_rates
from gpunet.experiments.toy.stack import sigmoid_outputs
from gpunet.experiments.toy.tables import label, rows_of
from gpunet.report.style import COLOURS, DASHES, between_pixels, class_called, label_rows

CLASSES = COLOURS[:2]
SHADES = LinearSegmentedColormap.from_list("classes", [CLASSES[0], "#ffffff", CLASSES[1]])
GRID = 161  # points a side
BORDERS = 10  # nets whose decision boundary is drawn
QUARTILES = "Medians over nets with their quartiles"


def _count(result: Result) -> int:
    return len(datasets(result))


def _over_steps(result: Result, panels: Any, title: str, legend: str) -> Iterator[tuple[Any, str]]:
    """(axes, data set), to draw on."""
    for axes, data in zip(panels, datasets(result), strict=True):
        yield axes, data
        axes.set(xscale="log", xlim=(1, max(2, result.settings["limit"])), xlabel="steps", title=f"{title}, {data}")
        axes.legend(loc=legend)


def _losses(
    result: Result, panels: Any, title: str, words: Sequence[str], *, main: str = "", runs: bool = False
) -> None:
    """Mean loss against steps, median and quartiles over seeds; main: what the row without a word is called.

    runs: whether some single nets of that row are drawn, too.
    """
    several = len(result.seeds) > 1
    for axes, data in _over_steps(result, panels, title, "lower left"):
        for at, word in enumerate(words):
            curve, look = result.curves[f"{data} {word}".strip()], {"color": COLOURS[at % len(COLOURS)]}
            marks, (low, middle, high) = curve["steps"], curve["loss_quartiles"]
            if several and runs and not word:
                single = axes.plot(marks, np.transpose(curve["loss"]), **look, linewidth=0.6, alpha=0.45)
                single[0].set_label("single nets of it")
            if several:
                axes.fill_between(marks, low, high, **look, alpha=0.16 if len(words) < 4 else 0.07, linewidth=0)
            told = main if main and not word else label(result, data, word)
            axes.plot(marks, middle, **look, linestyle=DASHES[at % len(DASHES)], label=told)
        axes.set_yscale("log")
    over = "; median and quartiles" if several else ""
    label_rows(panels, f"mean of ½(y − t)²{over}\n(a net that has stopped keeps its last)")


@x.figure(
    "loss", "Loss by step.",
    "Line charts of loss against steps on logarithmic axes, one for each data set.",
    spread=f"{QUARTILES}; thin lines are single nets.", panels=_count,
)  # fmt: skip
def loss(result: Result, panels: Any) -> None:
    _losses(result, panels, "Loss", ["", "mean", "unhalved"], runs=True)


@x.figure(
    "zeros", "Drawn weights, smaller ones, and zeros.",
    "Line charts of loss against steps for three kinds of initial weights, one for each data set.",
    spread=f"{QUARTILES}.", panels=_count,
)  # fmt: skip
def zeros(result: Result, panels: Any) -> None:
    _losses(result, panels, "Initial weights", ["", "glorot", "zeros"])


@x.figure(
    "steps", "The share of nets that have stopped after so many steps.",
    "Step charts of the share of stopped nets against steps, one for each data set.", panels=_count,
)  # fmt: skip
def steps(result: Result, panels: Any) -> None:
    limit, seeds = max(2, result.settings["limit"]), len(result.seeds)
    for axes, data in _over_steps(result, panels, "Steps to converge", "upper left"):
        kinds = [(name, word) for name, word in rows_of(result, data).items() if not word.startswith("rate=")]
        for at, (name, word) in enumerate(kinds):
            made, there = (np.array(result.values(name, metric)) for metric in ("steps", "converged"))
            stops = np.maximum(1, np.sort(made[there == 1]))  # a logarithmic axis has no 0
            share = np.arange(len(stops) + 1) / seeds
            axes.step(
                [1, *stops, limit], [*share, share[-1]], where="post", color=COLOURS[at % len(COLOURS)],
                linestyle=DASHES[at % len(DASHES)], label=label(result, data, word),
            )  # fmt: skip
        axes.set_ylim(-0.02, 1.02)
    label_rows(panels, f"share of nets that have stopped, of {seeds}")


@x.figure(
    "learning-rate", "Figure 4 over seeds: loss by learning rate.",
    "Line charts of loss against steps, one line for each learning rate, one chart for each data set.",
    spread=f"{QUARTILES}.", panels=_count, when=lambda result: len(words_of_rates(result)) > 1,
)  # fmt: skip
def learning_rate(result: Result, panels: Any) -> None:
    first, words = result.settings["learning_rates"][0], words_of_rates(result)
    _losses(result, panels, "Learning rate", [words[rate] for rate in sorted(words)], main=f"learning rate {first:g}")


def _drawn(result: Result) -> list[str]:
    """The data sets in the plane."""
    return [data for data in datasets(result) if "weights" in result.curves[data]]


@x.figure(
    "boundaries",
    "Figure 3's decision boundaries: one net and its points, and the share of all nets that say class 1, with the "
    f"borders of at most {BORDERS}.",
    "Maps of the plane shaded by the nets' output, with the points of both classes.",
    panels=lambda result: 2 * len(_drawn(result)), width=4.2, height=3.7, when=lambda result: bool(_drawn(result)),
)  # fmt: skip
def boundaries(result: Result, panels: Any) -> None:
    for (one, every), data in zip(np.reshape(panels, (-1, 2)), _drawn(result), strict=True):
        curve = result.curves[data]
        points, labels = np.asarray(curve["x"]), np.asarray(curve["labels"])
        ticks, grid = _grid(points)
        nets = [[np.asarray(w)[None] for w in net] for net in zip(*curve["weights"], strict=True)]
        fields = [sigmoid_outputs(net, grid).reshape(GRID, GRID) for net in nets]
        _shade(one, ticks, fields[0], f"{data}, the net of seed {result.seeds[0]}")
        one.contour(*ticks, fields[0], [0.5], colors="black", linewidths=1.6)
        for kind, marker in ((0, "o"), (1, "s")):
            there = points[labels == kind]
            one.scatter(
                *there.T,
                s=22,
                marker=marker,
                color=CLASSES[kind],
                edgecolors="white",
                linewidths=0.7,
                label=class_called(result.class_name(kind, data), kind),
            )
        if data in result.notes.get("classes", {}):
            one.legend(framealpha=0.8, frameon=True)
        share = sum((field > 0.5) / len(nets) for field in fields)
        _shade(every, ticks, share, f"{data}, share for {class_called(result.class_name(1, data), 1)} of {len(nets)}")
        for field in fields[:BORDERS]:
            every.contour(*ticks, field, [0.5], colors="black", linewidths=0.6, alpha=0.6)


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
