"""The figures of cifar-mlp: Figures 1 to 5 of document 004, and what improvements bring."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import colormaps

from gpunet.experiments.cifar_mlp import x
from gpunet.experiments.cifar_mlp.claims import DATA, FINAL, RATES, diverged, rates
from gpunet.experiments.cifar_mlp.tables import net_rows
from gpunet.experiments.framework import BANDS
from gpunet.experiments.result import Result
from gpunet.report.style import COLOURS, DASHES, by_epoch, count_epochs, dots, label_rows, legend_beside

MARKERS = "osD^vP*X<>"
ASIDE = 4e-5  # by how much η is drawn to the left in the coarse stage, to the right in the fine one
SHOWN = 0.021  # η whose curves are shown with and without momentum: the nearest one
COST = "cost with the L2 term"


def mean_curve(result: Result, row: str, which: str) -> Any:
    """Mean over seeds by epoch; NaN where a net has diverged."""
    return np.asarray(result.curves[row][which], float).mean(axis=0)


@x.figure(
    "momentum", "Figure 1: cost with and without momentum, and accuracy by learning rate.",
    "Two line charts: cost against epochs, and test accuracy against learning rate.",
    spread="Lines are means over seeds, whiskers one standard deviation.", panels=2, when=rates,
)  # fmt: skip
def momentum(result: Result, panels: Any) -> None:
    cost, accuracy = panels
    every = sorted(rates(result))
    alive = [rate for rate in every if not diverged(result, f"eta={rate:g}")] or every
    shown = min(alive, key=lambda rate: abs(np.log(rate / SHOWN)))
    counts = {"test_accuracy_early": result.notes["early"], "test_accuracy": result.settings["epochs"]}
    for kind, label, colour in (("", "momentum", COLOURS[0]), (" no momentum", "no momentum", COLOURS[1])):
        for which, dash in (("train", "-"), ("validation", ":")):
            curve = mean_curve(result, f"eta={shown:g}{kind}", f"{which}_cost")
            cost.plot(range(1, len(curve) + 1), curve, dash, color=colour, marker=".", label=f"{which}, {label}")
        for (metric, epochs), dash in zip(counts.items(), ("--", "-"), strict=True):
            rows, told = {rate: f"eta={rate:g}{kind}" for rate in every}, f"{label}, {epochs} epochs"
            dots(accuracy, result, metric, rows, fmt=dash, marker="o", markersize=3.5, color=colour, label=told)
    if result.dataset == DATA:
        document = {"color": COLOURS[6], "markersize": 7, "mew": 1.6, "label": "document", "zorder": 5}
        accuracy.plot(list(RATES), [100 * value for value in RATES.values()], "x", **document)
    count_epochs(cost, result.settings["epochs"])
    cost.set(ylabel=COST, title=f"{result.dataset}, η = {shown:g}")
    accuracy.set(xlabel="learning rate η", xscale="log", ylabel="test accuracy (%)", title="Accuracy against η")
    cost.legend()
    accuracy.legend()


@x.figure(
    "rates", "Figure 2: cost by epoch for each learning rate. A line ends where its net diverged.",
    "Two line charts of cost against epochs, training and validation, one line for each learning rate.",
    spread="Lines are means over seeds.", panels=2, height=4.4, when=rates,
)  # fmt: skip
def rate_costs(result: Result, panels: Any) -> None:
    every = sorted(rates(result))
    colours = colormaps["viridis"](np.linspace(0, 0.92, len(every)))
    panels[1].sharey(panels[0])
    titles = {"train": f"{result.dataset}, training cost", "validation": "Validation cost"}
    for panel, (which, title) in zip(panels, titles.items(), strict=True):
        for place, (rate, colour) in enumerate(zip(every, colours, strict=True)):
            curve = mean_curve(result, f"eta={rate:g}", f"{which}_cost")
            gone = " (diverged)" if diverged(result, f"eta={rate:g}") else ""
            panel.plot(
                range(1, len(curve) + 1), curve, color=colour, linewidth=1.5, markersize=4,
                markevery=max(1, len(curve) // 10), marker=MARKERS[place % len(MARKERS)], label=f"{rate:g}{gone}",
            )  # fmt: skip
        count_epochs(panel, result.settings["epochs"])
        panel.set(yscale="log", title=title)
    label_rows(panels, COST)
    legend_beside(panels[1], title="η")


@x.figure(
    "search", "Figures 3 and 4: every net of the search, by its validation accuracy.",
    "Two scatter plots of validation accuracy: against λ and against η, coarse and fine stage.",
    panels=2, when=lambda result: "search" in result.curves,
)  # fmt: skip
def search(result: Result, panels: Any) -> None:
    curve = {name: np.asarray(values, float) for name, values in result.curves["search"].items()}
    for panel, parameter in zip(panels, ("l2", "learning_rate"), strict=True):
        for stage, (colour, marker, label) in enumerate(((COLOURS[0], "o", "coarse"), (COLOURS[1], "x", "fine")), 1):
            rows = curve["stage"] == stage
            apart = (2 * stage - 3) * ASIDE if parameter == "learning_rate" else 0.0
            panel.scatter(
                curve[parameter][rows] + apart, 100 * curve["validation_accuracy"][rows],
                color=colour, marker=marker, s=20, linewidths=1.2, alpha=0.8, label=label,
            )  # fmt: skip
    epochs = result.notes["early"]
    panels[0].set(xlabel="λ", xscale="log", title=f"{result.dataset}, {epochs} epochs")
    panels[1].set(xlabel="learning rate η", title="The same nets")
    label_rows(panels, "validation accuracy (%)")
    panels[0].legend(loc="lower left")


@x.figure(
    "final", "Figure 5: cost of the final setting.", "Line chart of training and validation cost by epoch.",
    spread=BANDS, when=lambda result: "final" in result.names,
)  # fmt: skip
def final(result: Result, axes: Any) -> None:
    for place, (which, label) in enumerate((("train_cost", "training"), ("validation_cost", "validation"))):
        by_epoch(axes, result, "final", which, label, place)
    beside = f" (document {FINAL:.2%})" if result.dataset == DATA else ""
    title = f"{result.dataset}, final setting, test {result.mean('final', 'test_accuracy'):.2%}{beside}"
    axes.set(ylabel=COST, title=title)
    axes.legend()


@x.figure(
    "better", "Test accuracy of single nets.", "Dot plot of test accuracy by net, the document's setting first.",
    spread="A tick a seed, a dot their mean.", width=7.4, height=lambda result: 1.2 + 0.33 * len(net_rows(result)),
    when=lambda result: not {"found", "full"}.isdisjoint(result.names),
)  # fmt: skip
def better(result: Result, axes: Any) -> None:
    names = net_rows(result)
    for y, name in enumerate(names):
        values, mean = [100 * v for v in result.values(name, "test_accuracy")], 100 * result.mean(name, "test_accuracy")
        colour = COLOURS[2] if "full" in name else COLOURS[0]
        axes.plot(values, [y] * len(values), "|", color=colour, markersize=9)
        axes.plot(mean, y, "o", color=colour)
        beside = {"xytext": (6, 0), "textcoords": "offset points", "va": "center", "fontsize": 9}
        axes.annotate(f"{mean:.1f}", (max(values), y), **beside)
    title, label = f"{result.dataset}: the document's setting, and what improves it", "test accuracy (%)"
    if result.dataset == DATA:
        axes.axvline(100 * FINAL, color="#555555", linestyle=DASHES[1], linewidth=1)
        label += f"; dashed: the document's {FINAL:.2%}"
    axes.set(yticks=range(len(names)), yticklabels=names, xlabel=label, title=title)
    axes.margins(x=0.1)
    axes.invert_yaxis()
