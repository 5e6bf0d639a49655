"""The figure of `gpunet bench scaling`: realised speed-up against width, and what the counts allow."""

from __future__ import annotations

from pathlib import Path

from matplotlib.lines import Line2D

from gpunet.bench.results import Section, ratio
from gpunet.report.style import COLOURS, MARKS, figure


def draw(found: Section, folder: Path) -> Path:
    """Write `folder/scaling.png`: an α a line with the quartiles over rounds, the counts dashed and dotted."""
    path, settings = folder / "scaling.png", found.notes
    nets: dict[float, list[tuple[int, float, float, list[float] | None]]] = {alpha: [] for alpha in settings["alphas"]}
    for case in found.cases.values():
        for entry in case.entries.values():
            if "alpha" in entry.notes:
                allowed = entry.notes["allowed"], entry.notes["allowed_step"]
                realised = ratio(case.entries["dense"], entry, "")
                nets[entry.notes["alpha"]].append((case.notes["width"], *allowed, realised))
    with figure(path, width=8.2, height=4.6) as axes:
        axes.set_xscale("log", base=2)
        heights = [each for rows in nets.values() for row in rows for each in (*row[1:3], *(row[3] or ())[:1])]
        if max(heights) > 3 * min(heights):
            axes.set_yscale("log", base=2)
        axes.axhline(1, color="#888888", linewidth=1)
        for place, (alpha, rows) in enumerate(nets.items()):
            colour, widths = COLOURS[place % len(COLOURS)], [row[0] for row in rows]
            dot = "_" if len(widths) == 1 else None  # a line of one point is none
            axes.plot(widths, [row[1] for row in rows], "--", color=colour, linewidth=1, marker=dot)
            axes.plot(widths, [row[2] for row in rows], ":", color=colour, linewidth=1.2, marker=dot)
            timed = [(row[0], *row[3], *row[3][-1:] * (3 - len(row[3]))) for row in rows if row[3]]
            if timed:
                x, y, low, high = zip(*timed, strict=True)
                axes.plot(
                    x,
                    y,
                    marker=MARKS[place // len(COLOURS) % len(MARKS)],
                    color=colour,
                    markersize=4.5,
                    label=f"α = {alpha:g}",
                )
                axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.set_xticks(settings["widths"], [str(width) for width in settings["widths"]], minor=False)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}×")
        axes.set(
            xlabel=f"width of the {settings['layers']} square layers",
            ylabel="time of a dense step / a factored one",
            title=f"Training speed-up by factored layers, {settings['meaning']} α\n"
            f"batch {settings['batch']}, Adam, {settings['device']} ({settings['kernels']})",
        )
        counts = [
            Line2D([], [], color="#555555", linestyle="--", linewidth=1, label="allowed by mn / l(m + n)"),
            Line2D([], [], color="#555555", linestyle=":", linewidth=1.2, label="allowed by the products of a step"),
        ]
        axes.legend(handles=[*axes.get_legend_handles_labels()[0], *counts], loc="center left", bbox_to_anchor=(1, 0.5))
    return path
