"""The figures of svd-dnn: Figures 3 to 5, what speed is realised, and the sweep's heat maps."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunet.experiments.framework import BANDS, WHISKERS
from gpunet.experiments.result import Result
from gpunet.experiments.svd_dnn import Meaning, x
from gpunet.experiments.svd_dnn.claims import label
from gpunet.experiments.svd_dnn.tables import is_sweep
from gpunet.experiments.svd_dnn.tasks import SWEEP_PHIS, Variant
from gpunet.report.style import COLOURS, by_epoch, dots, label_rows, legend_beside
from gpunet.report.table import cell

SHARE = "φ, share of the steps trained dense"
FIGURE = {"xor": "Figure 3", "cats": "Figure 4", "mnist": "Figure 5"}


def _count(result: Result) -> int:
    return len(result.settings["meanings"])


def _main_rows(result: Result, meaning: Meaning) -> list[str]:
    """Dense, every α, and φ = 0: the curves of one meaning of α."""
    phi, alphas = result.settings["phi"], result.settings["alphas"]
    wanted = [Variant(), *(Variant(phi, alpha, meaning) for alpha in alphas), Variant(0.0, alphas[0], meaning)]
    return [name for name in dict.fromkeys(each.name for each in wanted) if name in result.names]


@x.figure(
    "cost", "Training cost by epoch, the cut marked.",
    "Line charts of cost against epochs, one for each meaning of α, with the dense net and its factored forms.",
    spread=BANDS, panels=_count, when=lambda result: not is_sweep(result),
)  # fmt: skip
def cost(result: Result, panels: Any) -> None:
    meanings, costs = result.settings["meanings"], []
    for panel, meaning in zip(panels, meanings, strict=True):
        for place, name in enumerate(_main_rows(result, meaning)):
            by_epoch(panel, result, name, "train_loss", label(name.removesuffix(f" {meaning}")), place)
            costs += np.ravel(result.curves[name]["train_loss"]).tolist()
        at = result.settings["phi"] * result.settings["epochs"]
        if 0 < at < result.settings["epochs"]:
            panel.axvline(at, color="#777777", linewidth=1, linestyle=":")
            panel.annotate(
                "cut", (at, 1), xycoords=("data", "axes fraction"), xytext=(3, -2), textcoords="offset points",
                va="top", color="#555555", fontsize=9,
            )  # fmt: skip
        panel.set(yscale="log", title=f"α as {meaning}")
        panel.legend()
    seen = [value for value in costs if 0 < value < np.inf]
    for panel in panels if seen else ():  # by the runs, since on this scale a band that ends at 0 has no bottom
        panel.set_ylim(0.8 * min(seen), 1.25 * max(seen))
    label_rows(panels, "cost a sample, mean over the epoch")
    if result.dataset == result.settings["task"]:
        panels[0].set_title(f"{FIGURE[result.dataset]}: α as {meanings[0]}")


def _timed(result: Result) -> list[str]:
    """Rows that differ only before the cut, or in the optimiser's state, run the same epochs after it."""
    names = [name for name in result.names if result.has(name, "epoch_speed_up") and "carried" not in name]
    return [name for name in names if name.startswith(f"svd phi={result.settings['phi']:g} ")]


@x.figure(
    "speed", "Speed of an epoch after the cut: what is realised, beside what the count of multiplications allows.",
    "Dot plot by rank rule: realised and allowed speed-up, with a line at 1.", spread=WHISKERS,
    height=lambda result: 1.0 + 0.42 * len(_timed(result)),
    when=lambda result: not is_sweep(result) and bool(_timed(result)),
)  # fmt: skip
def speed(result: Result, axes: Any) -> None:
    rows = _timed(result)
    places = range(len(rows))
    allowed = [result.notes["allowed_speed_up"][row] for row in rows]
    axes.plot([[1] * len(rows), allowed], [places, places], color="#cccccc", linewidth=5, solid_capstyle="butt")
    dots(axes, result, "epoch_speed_up", dict(enumerate(rows)), across=True, color=COLOURS[0], label="realised")
    axes.plot(allowed, places, "D", color=COLOURS[1], mfc="none", mew=1.8, label="multiplications allow")
    axes.axvline(1, color="#555555", linewidth=1)
    axes.set_yticks(places, [label(row).partition(", ")[2] for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set(xlabel="dense time over factored time of an epoch", title="Speed after the cut")
    legend_beside(axes)


@x.figure(
    "sweep", "The effect of α and φ over seeds.",
    "Heat maps of test accuracy by α and φ, one for each meaning of α.", height=4.2,
    spread="Under each mean is one standard deviation.", panels=_count, when=is_sweep,
)  # fmt: skip
def sweep(result: Result, panels: Any) -> None:
    asked, meanings = result.settings, result.settings["meanings"]
    alphas, phis = sorted(asked["alphas"]), SWEEP_PHIS if asked["sweep_phi"] else (asked["phi"],)
    names = [[[Variant(phi, alpha, meaning).name for phi in phis] for alpha in alphas] for meaning in meanings]
    means = 100 * np.vectorize(lambda name: result.mean(name, "test_accuracy"))(names)
    low, high = means.min(), means.max()
    for panel, meaning, rows, field in zip(panels, meanings, names, means, strict=True):
        panel.imshow(field, cmap="cividis", vmin=low, vmax=high, aspect="auto")
        for (y, at), mean in np.ndenumerate(field):
            told = cell(result.metric(rows[y][at], "test_accuracy"), "test_accuracy").replace(" ", "\n", 1)
            colour = "black" if mean > (low + high) / 2 else "white"
            panel.text(at, y, told, ha="center", va="center", fontsize=8, color=colour)
        panel.set_xticks(range(len(phis)), [f"{phi:.0%}" for phi in phis])
        panel.set_yticks(range(len(alphas)), [f"{alpha:g}" for alpha in alphas])
        panel.set(xlabel=SHARE, ylabel="α", title=f"Test accuracy (%), α as {meaning}")
        panel.grid(False)
    dense = cell(result.metric("dense", "test_accuracy"), "test_accuracy")
    panels[0].set_xlabel(f"{SHARE}      (dense throughout: {dense} %)")
