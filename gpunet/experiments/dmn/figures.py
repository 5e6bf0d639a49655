"""The figures of dmn: Figures 1 to 3 of document 002, and accuracy against seconds."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import numpy as np

from gpunet.experiments.dmn import x
from gpunet.experiments.dmn.rivals import OPTIMIZERS, convnet_row, dmn_row
from gpunet.experiments.dmn.tables import elapsed, swept_rows, widths
from gpunet.experiments.framework import BANDS, WHISKERS
from gpunet.experiments.result import Result
from gpunet.report.style import COLOURS, DASHES, band, by_epoch, class_called, dots, label_rows, legend_beside

SWEPT = {"T_PC": "largest |cosine| kept", "T_v": "share of the variance", "T_frac": "share of the data"}


@x.figure(
    "widths", "Figure 3, top: test accuracy by filters.",
    "Dot plot of test accuracy by number of filters: DMN, DMN with a head in closed form, and ConvNets.",
    spread=WHISKERS, width=lambda result: 3.4 + 1.1 * len(widths(result)),
)  # fmt: skip
def accuracies(result: Result, axes: Any) -> None:
    kinds = (
        (-0.24, "DMN", "dmn", "test_accuracy", COLOURS[0], "o"),
        (-0.08, "DMN, head in closed form", "dmn", "ridge_test_accuracy", COLOURS[5], "s"),
        (0.08, "ConvNet", "convnet", "test_accuracy", COLOURS[1], "^"),
        (0.24, "ConvNet, trained longer", "convnet", "test_accuracy_long", COLOURS[4], "D"),
    )
    names = widths(result)
    linear = 100 * result.mean("linear", "test_accuracy")
    axes.axhline(linear, color="#555555", linestyle="--", linewidth=1, label="one dense layer on the pixels")
    for shift, label, row, metric, colour, marker in kinds:
        rows = {place + shift: f"{row} {name}" for place, name in enumerate(names)}
        dots(axes, result, metric, rows, fmt=marker, color=colour, label=label)
    axes.set(
        xticks=range(len(names)), xticklabels=names, xlabel="filters of each layer", ylabel="test accuracy (%)",
        xlim=(-0.5, len(names) - 0.5), title=f"Accuracy by filters on {result.dataset}",
    )  # fmt: skip
    legend_beside(axes)


@x.figure(
    "seconds",
    "Test accuracy against time since the beginning, fitting included, first seed. The time axis is logarithmic.",
    "Line chart of test accuracy against seconds for each DMN and its ConvNet.",
)  # fmt: skip
def seconds(result: Result, axes: Any) -> None:
    for width, colour in zip(widths(result), cycle(COLOURS), strict=False):
        for name, style in ((f"dmn {width}", "-"), (f"convnet {width}", ":")):
            accuracies = [100 * a for a in result.curves[name]["test_accuracy"][0]]
            axes.plot(elapsed(result, name)[0], accuracies, style, marker="o", markersize=3, color=colour, label=name)
    axes.set(
        xlabel="seconds, fitting and features included", ylabel="test accuracy (%)", xscale="log",
        title=f"Time to accuracy on {result.dataset}",
    )  # fmt: skip
    legend_beside(axes)


@x.figure(
    "rivals", "Test accuracy by epoch, pixels scaled: ConvNets by three optimisers, and DMNs whose heads they train.",
    "Line chart of test accuracy by epoch: ConvNets and DMNs by three optimisers, DMNs on standardised maps by Adam.",
    spread=BANDS, when=lambda result: "rivals" in result.notes,
)  # fmt: skip
def rivals(result: Result, axes: Any) -> None:
    width = result.notes["rivals"]
    rows = {f"ConvNet, {name}": convnet_row(width, name, "scaled") for name in OPTIMIZERS}
    rows |= {f"DMN, {name}": dmn_row(width, "relu", name, "scaled") for name in OPTIMIZERS}
    rows["DMN, Adam, standardised maps"] = dmn_row(width, "standardised", "Adam", "scaled")
    for place, (label, row) in enumerate(rows.items()):
        by_epoch(axes, result, row, "test_accuracy", label, place)
    axes.set(ylabel="test accuracy (%)", title=f"{width} filters on {result.dataset}")
    legend_beside(axes)


@x.figure(
    "sweeps", "Figure 3, bottom: one setting changed at a time. Small numbers are the filters that came out.",
    "Three line charts of test accuracy: against T_PC, against T_v, against T_frac.",
    spread=WHISKERS, panels=len(SWEPT), width=4.2, height=3.4, when=lambda result: result.settings["sweeps"],
)  # fmt: skip
def sweeps(result: Result, panels: Any) -> None:
    for panel, (symbol, meaning) in zip(panels, SWEPT.items(), strict=True):
        rows = swept_rows(result, symbol)
        dots(panel, result, "test_accuracy", dict(enumerate(rows)), fmt="o-", color=COLOURS[0])
        for place, row in enumerate(rows):
            panel.annotate(
                f"{result.mean(row, 'filters_1'):.0f}", (place, 0), xycoords=("data", "axes fraction"), xytext=(0, 3),
                textcoords="offset points", ha="center", fontsize=7, color="#555555",
            )  # fmt: skip
        panel.set_xticks(range(len(rows)), [row.partition("=")[2] for row in rows], fontsize=8)
        panel.set_xlabel(f"{symbol}, {meaning}")
        panel.margins(y=0.15)
    label_rows(panels, "test accuracy (%)")
    panels[0].set_title(f"One setting changed, on {result.dataset}; small numbers: filters")


@x.figure(
    "convergence", "Figure 1: convergence rates λ of four dense layers, their mean over layers taken off.",
    "Line chart of the de-trended convergence rate against steps, one line a layer.", spread=BANDS,
    when=lambda result: "convergence" in result.curves,
)  # fmt: skip
def convergence(result: Result, axes: Any) -> None:
    curve = result.curves["convergence"]
    runs = np.asarray(curve["detrended_rate"])
    for layer in range(runs.shape[2]):
        band(axes, range(0, 5 * runs.shape[1], 5), runs[:, :, layer].tolist(), f"layer {layer + 1}", layer)
    axes.axhline(0, color="#555555", linewidth=0.8)
    axes.set(
        xlabel="steps of 64 samples", ylabel="λ over its mean over layers, less 1",
        title=f"Four dense layers of {curve['units']} units on {result.dataset}",
    )  # fmt: skip
    legend_beside(axes)


@x.figure(
    "fluctuations",
    "Figure 2: how steps of the eigenvalues of a class's density matrix fall with the number of samples, and their "
    "distribution.",
    "A scatter plot on logarithmic axes beside the line 1/N, and a histogram beside a normal distribution.",
    panels=2, when=lambda result: "fluctuations" in result.curves,
)  # fmt: skip
def fluctuations(result: Result, panels: Any) -> None:
    fall, spread = panels
    curve = result.curves["fluctuations"]
    label = curve["label"]
    samples, relative, scaled = (np.asarray(curve[name]) for name in ("samples", "relative", "scaled"))
    fall.loglog(samples, relative, ".", color=COLOURS[0], markersize=4, label="measured")
    scale = float(np.exp(np.mean(np.log(relative * samples))))
    fall.loglog(samples, scale / samples, linestyle=DASHES[1], color=COLOURS[1], label="1/N")
    fall.set(
        xlabel="N, samples of one class", ylabel="|δλ|/λ, root mean square over eigenvalues",
        title=f"Fluctuations of ρ, {result.dataset}, {class_called(result.class_name(label), label)}",
    )  # fmt: skip
    fall.legend()
    spread.hist(scaled, bins=40, density=True, color=COLOURS[0], alpha=0.6, label="measured")
    at = np.linspace(scaled.min(), scaled.max(), 200)
    deviation = scaled.std() or 1.0
    normal = np.exp(-0.5 * ((at - scaled.mean()) / deviation) ** 2) / (deviation * np.sqrt(2 * np.pi))
    spread.plot(at, normal, linestyle=DASHES[1], color=COLOURS[1], label="normal distribution")
    spread.set(xlabel="δλ·N/λ", ylabel="density", title="Steps scaled by N/λ")
    spread.legend()
