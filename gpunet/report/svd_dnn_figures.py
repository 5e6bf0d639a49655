"""The figures of svd-dnn: Figures 3 to 5, what speed is realised, and the sweep's heat maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gpunet.experiments.result import Result, Row
from gpunet.report.style import COLOURS, band, figure, label_rows, legend_beside
from gpunet.report.svd_dnn_tables import label

FIGURE = {"xor": "Figure 3", "cats": "Figure 4", "mnist": "Figure 5"}


def draw(result: Result, folder: Path) -> list[Path]:
    """Write the figures as PNG; returns their paths."""
    if result.settings["sweep_alpha"] or result.settings["sweep_phi"]:
        return [_heat_maps(result, folder / "sweep.png")]
    paths = [_curves(result, folder / "cost.png")]
    if any("epoch_speed_up" in row.metrics for row in result.rows):
        paths.append(_speed(result, folder / "speed.png"))
    return paths


def _main_rows(result: Result, meaning: str) -> list[str]:
    """Dense, every α, and φ = 0: the curves of one meaning of α."""
    phi, first = result.settings["phi"], result.settings["alphas"][0]
    named = [f"svd phi={phi:g} alpha={alpha:g} {meaning}" for alpha in result.settings["alphas"]]
    there = {row.name for row in result.rows}
    wanted = ["dense", *named, f"svd phi=0 alpha={first:g} {meaning}"]
    return [name for name in dict.fromkeys(wanted) if name in there]


def _curves(result: Result, path: Path) -> Path:
    """Cost against epoch with the conversion marked, one panel a meaning of α."""
    meanings = list(result.settings["meanings"])
    with figure(path, len(meanings)) as made:
        panels = np.atleast_1d(made)
        for panel, meaning in zip(panels, meanings, strict=True):
            for place, name in enumerate(_main_rows(result, meaning)):
                runs = result.curves[name]["train_loss"]
                band(panel, range(1, len(runs[0]) + 1), runs, label(name.removesuffix(f" {meaning}")), place)
            at = result.settings["phi"] * result.settings["epochs"]
            if 0 < at < result.settings["epochs"]:
                panel.axvline(at, color="#777777", linewidth=1, linestyle=":")
                panel.annotate(
                    "cut", (at, 1), xycoords=("data", "axes fraction"), xytext=(3, -2), textcoords="offset points",
                    va="top", color="#555555", fontsize=9,
                )  # fmt: skip
            panel.set(yscale="log", xlabel="epoch", title=f"α as {meaning}")
            panel.legend()
        shown = [_main_rows(result, meaning) for meaning in meanings]
        costs = np.concatenate([np.ravel(result.curves[name]["train_loss"]) for names in shown for name in names])
        for panel in panels:  # by the runs, since on this scale a band that ends at 0 has no bottom
            panel.set_ylim(0.8 * costs.min(), 1.25 * costs.max())
        label_rows(panels, "cost a sample, mean over the epoch")
        figured = f"{FIGURE[result.settings['task']]}: " if result.dataset == result.settings["task"] else ""
        panels[0].set_title(f"{figured}α as {meanings[0]}")
    return path


def _speed(result: Result, path: Path) -> Path:
    """Realised speed-up of an epoch beside what the count of multiplications allows."""
    rows = [row for row in result.rows if row.name.startswith("svd phi") and _distinct(row, result)]
    with figure(path, height=1.0 + 0.42 * len(rows)) as axes:
        for y, row in enumerate(rows):
            metric = row.metrics["epoch_speed_up"]
            allowed = result.settings["allowed_speed_up"][row.name]
            axes.plot([1, allowed], [y, y], color="#cccccc", linewidth=5, solid_capstyle="butt")
            axes.errorbar(
                metric.mean, y, xerr=metric.std or 0, fmt="o", color=COLOURS[0], label="realised" if y == 0 else None
            )
            axes.plot(
                allowed,
                y,
                "D",
                color=COLOURS[1],
                mfc="none",
                mew=1.8,
                label="multiplications allow" if y == 0 else None,
            )
        axes.axvline(1, color="#555555", linewidth=1)
        axes.set(
            xlabel="dense time over factored time of an epoch", yticks=range(len(rows)),
            yticklabels=[_short(row.name) for row in rows], title="Speed after the cut",
        )  # fmt: skip
        axes.set_ylim(len(rows) - 0.5, -0.5)
        legend_beside(axes)
    return path


def _distinct(row: Row, result: Result) -> bool:
    """Rows that differ only before the cut, or in the optimiser's state, run the same epochs after it."""
    return (
        "epoch_speed_up" in row.metrics and f"phi={result.settings['phi']:g}" in row.name and "carried" not in row.name
    )


def _short(name: str) -> str:
    words = name.split()
    return " ".join([words[2].replace("alpha=", "α = "), *words[3:]])


def _heat_maps(result: Result, path: Path) -> Path:
    """Mean test accuracy by φ and α with its deviation in each field, one map a meaning of α."""
    meanings = list(result.settings["meanings"])
    found = {meaning: _grid(result, meaning) for meaning in meanings}
    every = [mean for _, _, means, _ in found.values() for mean in means.ravel() if np.isfinite(mean)]
    with figure(path, len(meanings), height=4.2) as made:
        for panel, meaning in zip(np.atleast_1d(made), meanings, strict=True):
            phis, alphas, means, spreads = found[meaning]
            panel.imshow(means, cmap="cividis", vmin=min(every), vmax=max(every), aspect="auto")
            _fields(panel, means, spreads, (min(every) + max(every)) / 2)
            panel.set(
                xticks=range(len(phis)), xticklabels=[f"{phi:.0%}" for phi in phis], yticks=range(len(alphas)),
                yticklabels=[f"{alpha:g}" for alpha in alphas], xlabel="φ, share of the steps trained dense",
                ylabel="α", title=f"Test accuracy (%), α as {meaning}",
            )  # fmt: skip
            panel.grid(False)
        dense = result.row("dense").metrics["test_accuracy"]
        spread = "" if dense.std is None else f" ± {100 * dense.std:.2f}"
        np.atleast_1d(made)[0].set_xlabel(
            f"φ, share of the steps trained dense      (dense throughout: {100 * dense.mean:.2f}{spread} %)"
        )
    return path


def _grid(result: Result, meaning: str) -> tuple[list[float], list[float], Any, Any]:
    """(φ, α, means, deviations) of one meaning, in percent; NaN where a field was not run."""
    fields: dict[tuple[float, float], Row] = {}
    for row in result.rows:
        words = row.name.split()
        if words[0] == "svd" and words[-1] == meaning:
            fields[float(words[2].partition("=")[2]), float(words[1].partition("=")[2])] = row
    alphas, phis = (sorted({key[place] for key in fields}) for place in (0, 1))
    means, spreads = (np.full((len(alphas), len(phis)), np.nan) for _ in range(2))
    for (alpha, phi), row in fields.items():
        metric = row.metrics["test_accuracy"]
        place = alphas.index(alpha), phis.index(phi)
        means[place], spreads[place] = 100 * metric.mean, 100 * (metric.std or 0)
    return phis, alphas, means, spreads


def _fields(panel: Any, means: Any, spreads: Any, middle: float) -> None:
    for (y, x), value in np.ndenumerate(means):
        if np.isfinite(value):
            colour = "black" if value / 100 > middle / 100 else "white"
            panel.text(x, y, f"{value:.2f}\n± {spreads[y, x]:.2f}", ha="center", va="center", fontsize=8, color=colour)
