"""The figure of `gpunet bench scaling`: realised speed-up against width, and what the counts allow."""

from __future__ import annotations

from pathlib import Path

from matplotlib.lines import Line2D

from gpunet.bench.scaling import Report
from gpunet.report.style import COLOURS, figure


def draw(report: Report, folder: Path) -> Path:
    """Write `folder/scaling.png`: an α a line with the quartiles over rounds, the counts dashed and dotted."""
    path = folder / "scaling.png"
    settings = report.settings
    with figure(path, width=8.2, height=4.6) as axes:
        axes.set_xscale("log", base=2)
        heights = [each for row in report.rows for each in (row.allowed, row.allowed_step, row.speed_up) if each]
        if max(heights) > 3 * min(heights):
            axes.set_yscale("log", base=2)
        axes.axhline(1, color="#888888", linewidth=1)
        for place, alpha in enumerate(settings.alphas):
            rows = [row for row in report.rows if row.alpha == alpha]
            colour, widths = COLOURS[place % len(COLOURS)], [row.width for row in rows]
            axes.plot(widths, [row.allowed for row in rows], "--", color=colour, linewidth=1)
            axes.plot(widths, [row.allowed_step for row in rows], ":", color=colour, linewidth=1.2)
            timed = [(row.width, row.speed_up, *row.quartiles) for row in rows if row.speed_up and row.quartiles]
            if timed:
                x, y, low, high = zip(*timed, strict=True)
                axes.plot(x, y, "o-", color=colour, markersize=4.5, label=f"α = {alpha:g}")
                axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
        widths = list(settings.widths)
        axes.set_xticks(widths, [str(width) for width in widths], minor=False)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}×")
        axes.set(
            xlabel=f"width of the {settings.layers} square layers",
            ylabel="time of a dense step / a factored one",
            title=f"Training speed-up by factored layers, {settings.meaning} α\n"
            f"batch {settings.batch}, Adam, {report.device} ({report.kernels})",
        )
        counts = [
            Line2D([], [], color="#555555", linestyle="--", linewidth=1, label="allowed by mn / l(m + n)"),
            Line2D([], [], color="#555555", linestyle=":", linewidth=1.2, label="allowed by the products of a step"),
        ]
        axes.legend(handles=[*axes.get_legend_handles_labels()[0], *counts], loc="center left", bbox_to_anchor=(1, 0.5))
    return path
