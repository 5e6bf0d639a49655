"""The figures of cifar-mlp: Figures 1 to 5 of document 004, and what improvements bring."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps

from gpunet.experiments.cifar_mlp_claims import DATASET, FINAL, RATES
from gpunet.experiments.result import Result
from gpunet.report.cifar_mlp_tables import net_rows
from gpunet.report.style import COLOURS, DASHES, band, figure, label_rows, legend_beside

MARKERS = "osD^vP*X<>"
ASIDE = 4e-5  # by how much η is drawn to the left in the coarse stage, to the right in the fine one
SHOWN = 0.021  # η whose curves are shown with and without momentum: the nearest one


def draw(result: Result, folder: Path) -> list[Path]:
    """Write the figures as PNG; returns their paths."""
    parts, paths = result.settings["parts"], []
    if "rates" in parts:
        paths += [_momentum(result, folder / "momentum.png"), _rates(result, folder / "rates.png")]
    if "search" in parts:
        paths.append(_search(result, folder / "search.png"))
    if "final" in parts:
        paths.append(_final(result, folder / "final.png"))
    if "better" in parts or "full" in parts:
        paths.append(_better(result, folder / "better.png"))
    return paths


def _momentum(result: Result, path: Path) -> Path:
    """Figure 1: cost with and without momentum at one η; accuracy against η."""
    rates = sorted(set(result.settings["learning_rates"]))
    alive = [rate for rate in rates if not any(result.values(f"eta={rate:g}", "diverged"))] or rates
    shown, early = min(alive, key=lambda rate: abs(np.log(rate / SHOWN))), result.settings["early"]
    with figure(path, 2) as (cost, accuracy):
        for place, kind in enumerate(("", " no momentum")):
            curve = result.curves[f"eta={shown:g}{kind}"]
            for which, dash in (("train", "-"), ("validation", ":")):
                runs = np.asarray(curve[f"{which}_cost"], float)
                label = f"{which}, {'no momentum' if kind else 'momentum'}"
                cost.plot(range(1, runs.shape[1] + 1), runs.mean(axis=0), dash, color=COLOURS[place], label=label)
            for metric, dash in (("test_accuracy_early", "--"), ("test_accuracy", "-")):
                found = [result.row(f"eta={rate:g}{kind}").metrics[metric] for rate in rates]
                epochs = early if "early" in metric else result.settings["epochs"]
                accuracy.errorbar(
                    rates, [100 * m.mean for m in found], yerr=[100 * (m.std or 0) for m in found], fmt=dash,
                    marker="o", markersize=3.5, capsize=2, color=COLOURS[place],
                    label=f"{'no momentum' if kind else 'momentum'}, {epochs} epochs",
                )  # fmt: skip
        _stated(result, accuracy)
        cost.set(xlabel="epoch", ylabel="cost with the L2 term", title=f"Figure 1: {result.dataset}, η = {shown:g}")
        accuracy.set(xscale="log", xlabel="learning rate η", ylabel="test accuracy (%)", title="Accuracy against η")
        cost.legend()
        accuracy.legend(loc="best")
    return path


def _stated(result: Result, axes: Any) -> None:
    if result.dataset == DATASET:
        axes.plot(
            list(RATES), [100 * value for value in RATES.values()], "x", color=COLOURS[6], markersize=7, mew=1.6,
            label="document", zorder=5,
        )  # fmt: skip


def _rates(result: Result, path: Path) -> Path:
    """Figure 2: training and validation cost for each η, mean over seeds; a curve ends where its net diverged."""
    rates = sorted(set(result.settings["learning_rates"]))
    colours = [colormaps["viridis"](place) for place in np.linspace(0, 0.92, len(rates))]
    with figure(path, 2, height=4.4) as panels:
        for panel, which in zip(panels, ("train", "validation"), strict=True):
            for place, (rate, colour) in enumerate(zip(rates, colours, strict=True)):
                runs = np.asarray(result.curves[f"eta={rate:g}"][f"{which}_cost"], float)
                gone = any(result.values(f"eta={rate:g}", "diverged"))
                panel.plot(
                    range(1, runs.shape[1] + 1), runs.mean(axis=0), color=colour, linewidth=1.5, markersize=4,
                    markevery=max(1, runs.shape[1] // 10),
                    marker=MARKERS[place % len(MARKERS)], label=f"{rate:g}{' (diverged)' if gone else ''}",
                )  # fmt: skip
            panel.set(xlabel="epoch", yscale="log")
        limits = np.array([panel.get_ylim() for panel in panels])
        low, high = limits[:, 0].min(), limits[:, 1].max()
        for panel in panels:
            panel.set_ylim(low, high)
            panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            panel.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if high < 10 * low else "")
        label_rows(panels, "cost with the L2 term")
        panels[0].set_title(f"Figure 2: {result.dataset}, training cost")
        panels[1].set_title("Validation cost")
        legend_beside(panels[1], title="η")
    return path


def _search(result: Result, path: Path) -> Path:
    """Figures 3 and 4: validation accuracy against λ and against η, coarse and fine stage."""
    curve = {name: np.asarray(values, float) for name, values in result.curves["search"].items()}
    with figure(path, 2) as panels:
        for panel, parameter in zip(panels, ("l2", "learning_rate"), strict=True):
            for stage, (colour, marker, label) in enumerate(
                ((COLOURS[0], "o", "coarse (Figure 3)"), (COLOURS[1], "x", "fine (Figure 4)")), start=1
            ):
                rows = curve["stage"] == stage
                apart = (2 * stage - 3) * ASIDE if parameter == "learning_rate" else 0.0
                panel.scatter(
                    curve[parameter][rows] + apart, 100 * curve["validation_accuracy"][rows],
                    color=colour, marker=marker, s=20, linewidths=1.2, alpha=0.8, label=label,
                )  # fmt: skip
        panels[0].set(xscale="log", xlabel="λ")
        label_rows(panels, "validation accuracy (%)")
        panels[0].set_title(f"Figures 3 and 4: {result.dataset}, {result.settings['early']} epochs")
        panels[1].set(xlabel="learning rate η", title="The same nets")
        panels[0].legend(loc="lower left")
    return path


def _final(result: Result, path: Path) -> Path:
    """Figure 5: training and validation cost of the final setting."""
    with figure(path) as axes:
        for place, (which, label) in enumerate((("train_cost", "training"), ("validation_cost", "validation"))):
            runs = result.curves["final"][which]
            band(axes, range(1, len(runs[0]) + 1), runs, label, place)
        accuracy = result.row("final").metrics["test_accuracy"].mean
        beside = f" (document {FINAL:.2%})" if result.dataset == DATASET else ""
        axes.set(
            xlabel="epoch", ylabel="cost with the L2 term",
            title=f"Figure 5: {result.dataset}, final setting, test {accuracy:.2%}{beside}",
        )  # fmt: skip
        axes.legend()
    return path


def _better(result: Result, path: Path) -> Path:
    """Test accuracy of single nets, mean and every seed."""
    names = net_rows(result)
    with figure(path, width=7.4, height=1.2 + 0.33 * len(names)) as axes:
        for y, name in enumerate(names):
            values = [100 * value for value in result.values(name, "test_accuracy")]
            colour = COLOURS[2] if "full" in name else COLOURS[0]
            axes.plot(values, [y] * len(values), "|", color=colour, markersize=9)
            axes.plot(np.mean(values), y, "o", color=colour)
            axes.annotate(
                f"{np.mean(values):.1f}", (float(np.max(values)), y), xytext=(6, 0), textcoords="offset points",
                va="center", fontsize=9,
            )  # fmt: skip
        if result.dataset == DATASET:
            axes.axvline(100 * FINAL, color="#555555", linestyle=DASHES[1], linewidth=1)
        beside = f"; dashed: the document's {FINAL:.2%}" if result.dataset == DATASET else ""
        axes.set(
            yticks=range(len(names)), yticklabels=names, xlabel=f"test accuracy (%){beside}",
            title=f"{result.dataset}: the document's setting, and what improves it",
        )  # fmt: skip
        axes.margins(x=0.1)
        axes.invert_yaxis()
    return path
