"""The figures of dmn: Figures 1 to 3 of document 002, and accuracy against seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.ticker import NullFormatter

from gpunet.experiments.dmn_sweeps import SYMBOLS
from gpunet.experiments.result import Result
from gpunet.report.dmn_tables import nets
from gpunet.report.style import COLOURS, DASHES, band, figure, label_rows, legend_beside

MEANING = {"T_PC": "largest |cosine| kept", "T_v": "share of the variance", "T_frac": "share of the data"}


def draw(result: Result, folder: Path) -> list[Path]:
    """Write the figures as PNG; returns their paths."""
    paths = [_widths(result, folder / "widths.png"), _seconds(result, folder / "seconds.png")]
    if result.settings["sweeps"]:
        paths.append(_sweeps(result, folder / "sweeps.png"))
    if result.settings["dynamics"]:
        paths += [_convergence(result, folder / "convergence.png"), _fluctuations(result, folder / "fluctuations.png")]
    return paths


def _widths(result: Result, path: Path) -> Path:
    """Figure 3, top: DMN against ConvNet of the same filters."""
    widths = [name.removeprefix("dmn ") for name in nets(result) if name.startswith("dmn ")]
    kinds = (
        ("DMN", "dmn", "test_accuracy", COLOURS[0], "o"),
        ("DMN, head in closed form", "dmn", "ridge_test_accuracy", COLOURS[5], "s"),
        ("ConvNet", "convnet", "test_accuracy", COLOURS[1], "^"),
        ("ConvNet, trained longer", "convnet", "test_accuracy_long", COLOURS[4], "D"),
    )
    with figure(path, width=3.4 + 1.1 * len(widths)) as axes:
        linear = 100 * result.row("linear").metrics["test_accuracy"].mean
        axes.axhline(linear, color="#555555", linestyle="--", linewidth=1, label="one dense layer on the pixels")
        for shift, (label, row, metric, colour, marker) in zip((-0.24, -0.08, 0.08, 0.24), kinds, strict=True):
            found = [result.row(f"{row} {width}").metrics.get(metric) for width in widths]
            there = [(place + shift, each) for place, each in enumerate(found) if each is not None]
            if there:
                axes.errorbar(
                    [place for place, _ in there], [100 * m.mean for _, m in there],
                    yerr=[100 * (m.std or 0) for _, m in there], fmt=marker, color=colour, label=label, capsize=2,
                )  # fmt: skip
        axes.set(
            xticks=range(len(widths)), xticklabels=widths, xlabel="filters of each layer", ylabel="test accuracy (%)",
            xlim=(-0.5, len(widths) - 0.5), title=f"Figure 3, top: {result.dataset}",
        )  # fmt: skip
        legend_beside(axes)
    return path


def _seconds(result: Result, path: Path) -> Path:
    """Test accuracy against seconds since the beginning, fitting included; the first seed's runs."""
    widths = [name.removeprefix("dmn ") for name in nets(result) if name.startswith("dmn ")]
    with figure(path) as axes:
        for place, width in enumerate(widths):
            for kind, style in (("dmn", "-"), ("convnet", ":")):
                name = f"{kind} {width}"
                accuracies = [100 * a for a in result.curves[name]["test_accuracy"][0]]
                axes.plot(
                    result.timings[name][0]["seconds"], accuracies, style, marker="o", markersize=3,
                    color=COLOURS[place % len(COLOURS)], label=name,
                )  # fmt: skip
        axes.set(
            xlabel="seconds, fitting and features included", ylabel="test accuracy (%)", xscale="log",
            title=f"Time to accuracy on {result.dataset}",
        )  # fmt: skip
        legend_beside(axes)
    return path


def _sweeps(result: Result, path: Path) -> Path:
    """Figure 3, bottom: one panel a setting."""
    with figure(path, len(SYMBOLS), width=4.2, height=3.4) as panels:
        for panel, symbol in zip(panels, SYMBOLS.values(), strict=True):
            rows = [row for row in result.rows if row.name.startswith(f"{symbol}=")]
            values = [float(row.name.partition("=")[2]) for row in rows]
            metrics = [row.metrics["test_accuracy"] for row in rows]
            panel.errorbar(
                range(len(values)), [100 * m.mean for m in metrics], yerr=[100 * (m.std or 0) for m in metrics],
                marker="o", color=COLOURS[0], capsize=2,
            )  # fmt: skip
            for place, row in enumerate(rows):
                said = f"{row.metrics['filters_1'].mean:.0f}"
                panel.annotate(said, (place, 0), xycoords=("data", "axes fraction"), xytext=(0, 3),
                               textcoords="offset points", ha="center", fontsize=7, color="#555555")  # fmt: skip
            panel.set(xticks=range(len(values)), xlabel=f"{symbol}, {MEANING[symbol]}")
            panel.set_xticklabels([f"{value:g}" for value in values], fontsize=8)
            panel.margins(y=0.15)
        label_rows(panels, "test accuracy (%)")
        panels[0].set_title(f"Figure 3, bottom: {result.dataset}; small numbers: filters")
    return path


def _convergence(result: Result, path: Path) -> Path:
    """Figure 1: de-trended convergence rates."""
    curve = result.curves["convergence"]
    runs = np.asarray(curve["detrended_rate"])
    with figure(path) as axes:
        for layer in range(runs.shape[2]):
            band(axes, range(0, 5 * runs.shape[1], 5), runs[:, :, layer].tolist(), f"layer {layer + 1}", layer)
        axes.axhline(0, color="#555555", linewidth=0.8)
        axes.set(
            xlabel="steps of 64 samples", ylabel="λ over its mean over layers, less 1",
            title=f"Figure 1: four dense layers of {curve['units']} units on {result.dataset}",
        )  # fmt: skip
        legend_beside(axes)
    return path


def _fluctuations(result: Result, path: Path) -> Path:
    """Figure 2: how steps of the eigenvalues fall, and their distribution when scaled by N/λ."""
    curve = result.curves["fluctuations"]
    samples, relative = np.asarray(curve["samples"]), np.asarray(curve["relative"])
    with figure(path, 2) as (fall, spread):
        fall.loglog(samples, relative, ".", color=COLOURS[0], markersize=4, label="measured")
        scale = float(np.exp(np.mean(np.log(relative * samples))))
        fall.loglog(samples, scale / samples, linestyle=DASHES[1], color=COLOURS[1], label="1/N")
        fall.set(
            xlabel="N, samples of one class", ylabel="|δλ|/λ, root mean square over eigenvalues",
            title=f"Figure 2: fluctuations of ρ, {result.dataset}, class {curve['label']}",
        )  # fmt: skip
        fall.xaxis.set_minor_formatter(NullFormatter())
        fall.legend()
        scaled = np.asarray(curve["scaled"])
        spread.hist(scaled, bins=40, density=True, color=COLOURS[0], alpha=0.6, label="measured")
        x = np.linspace(scaled.min(), scaled.max(), 200)
        deviation = scaled.std() or 1.0
        normal = np.exp(-0.5 * ((x - scaled.mean()) / deviation) ** 2) / (deviation * np.sqrt(2 * np.pi))
        spread.plot(x, normal, linestyle=DASHES[1], color=COLOURS[1], label="normal distribution")
        spread.set(xlabel="δλ·N/λ", ylabel="density", title="Steps scaled by N/λ")
        spread.legend()
    return path
