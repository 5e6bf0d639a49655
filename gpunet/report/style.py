"""One look for all figures: colours that colour-blind readers can tell apart, quiet axes, bands for deviations.

matplotlib's own objects, no pyplot: nothing is kept open, no display is needed, and neither the environment nor a
user's matplotlibrc changes what is drawn.
"""

from __future__ import annotations

import functools
import io
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, LogFormatter, LogLocator, MaxNLocator, NullFormatter, ScalarFormatter
from matplotlib.transforms import Bbox

from gpunet.datasets.labels import shorter
from gpunet.errors import visible
from gpunet.experiments.result import NotMeasuredError, Result
from gpunet.files import write_atomically
from gpunet.interrupts import contextmanager
from gpunet.report.drawing import CANVAS, INK, left_out, metadata
from gpunet.report.table import PERCENT

# Okabe & Ito's palette, told apart with any common colour vision; dashes help where colour is missing altogether.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
MARKS = "osD^vP*"

SETTINGS: dict[Any, Any] = {name: value for name, value in mpl.rcParamsDefault.items() if name != "backend"} | {
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e3e3e3",
    "grid.linewidth": 0.6, "axes.axisbelow": True, "axes.titlesize": 11, "axes.titlelocation": "left",
    "axes.labelsize": 10, "legend.frameon": False, "legend.fontsize": 9, "font.size": 10, "lines.linewidth": 1.7,
    "savefig.dpi": 144, "figure.constrained_layout.use": True, "text.parse_math": False,
}  # fmt: skip
# Text stays text, drawn in the reader's font.
AS_SVG: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "gpunet", "text.color": INK, "axes.labelcolor": INK,
    "axes.edgecolor": "#6b7078", "xtick.color": "#6b7078", "ytick.color": "#6b7078", "xtick.labelcolor": INK,
    "ytick.labelcolor": INK, "path.simplify_threshold": 0.5,
}  # fmt: skip
NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
NARROW = 4.2  # inches: a phone's width at about the size of the page's text
SHORTER = 0.66  # of the height, a panel: a fifth more for the legend below a single one
POWERS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
POINTS = 200  # of a band in a vector figure; lines are thinned by matplotlib, areas are not
NAME = 14  # characters of a class's name that there is room for
GAP = 4  # pixels between labels at least
LINE = 44  # characters that a title of such a figure holds


@contextmanager
def figure(path: Path, columns: int = 1, *, width: float = 6.4, height: float = 4.0) -> Iterator[Any]:
    """A figure with `columns` axes side by side, written to `path` as PNG when the block ends.

    See `drawing` for where else it may go. No text is mathematics, which names of parameters would be taken for.
    """
    canvas = CANVAS.get()
    kept, narrow = canvas.svg, canvas.narrow
    try:
        look = SETTINGS | ({} if kept is None else AS_SVG) | ({"legend.fontsize": 7.5} if narrow else {})
        with mpl.rc_context(look), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing")  # a box stands there, which says the same
            if narrow:
                pairs = columns > 3
                made = Figure(figsize=(NARROW, SHORTER * height * max(1.2, columns / (1 + pairs))))
                axes = made.subplots(-(-columns // 2), 2).flat[:columns] if pairs else made.subplots(columns, 1)
            else:
                made = Figure(figsize=(width * (1 if columns == 1 else 0.85 * columns), height))
                axes = made.subplots(1, columns)
            FigureCanvasAgg(made)
            yield axes
            if narrow:
                _break_lines(made)
            _show_as_written(made)
            buffer = io.BytesIO()
            if kept is None:
                made.savefig(buffer, format="png", metadata=metadata(path), bbox_inches=_readable(made))
                write_atomically(path, buffer.getvalue())
            else:
                made.savefig(buffer, format="svg", metadata=NO_METADATA, transparent=True)
                kept[path.stem] = buffer.getvalue().decode()
    except Exception as error:
        if canvas.written is None or isinstance(error, NotMeasuredError):
            raise
        left_out(path.name, error)
    else:
        if canvas.written is not None:
            canvas.written.append(path)


def _show_as_written(made: Figure) -> None:
    """What a name holds of control characters is shown as Python writes it; and no tick of a log axis is in another."""
    for axis in (axis for axes in made.axes for axis in (axes.xaxis, axes.yaxis)):
        if axis.get_scale() == "log" and isinstance(axis.get_major_formatter(), LogFormatter):
            _space_ticks(axis)
        axis.set_major_formatter(_visibly(axis.get_major_formatter()))
    for text in made.findobj(Text):
        text.set_text(visible(text.get_text()))


def _readable(made: Figure) -> Bbox | None:
    """Hide labels of x ticks that lie in the one before; the box in inches that all text needs, where that is more."""
    made.draw_without_rendering()
    for axes in made.axes:
        end = -np.inf
        for label in axes.get_xticklabels():
            box = label.get_window_extent()
            label.set_visible(bool(box.x0 > end))
            end = box.x1 + GAP if label.get_visible() else end
    needed = Bbox.union([made.bbox_inches, made.get_tightbbox()])
    return None if np.array_equal(needed, made.bbox_inches) else needed.padded(0.05)


def _space_ticks(axis: Any) -> None:
    """A label for each power of ten, plain where all are short; within two decades, where there are few, more."""
    low, high = sorted(axis.get_view_interval())
    axis.set_minor_formatter(NullFormatter())
    if high < 10 * low:
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    elif high < 100 * low:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    if high < 100 * low or (low >= 1e-3 and high <= 1e5):
        axis.set_major_formatter(lambda value, place: f"{value:g}")
    else:
        axis.set_major_formatter(lambda value, place: "10" + f"{np.log10(value):.0f}".translate(POWERS))


def _visibly(formatter: Any) -> Any:
    if isinstance(formatter, ScalarFormatter):  # numbers, and it has to see all of them
        return formatter
    return lambda value, place: visible(formatter(value, int(place)))


def stacked() -> bool:
    """Whether panels stand one above the other: what one of them says for all has to be said by each."""
    return CANVAS.get().narrow


def between_pixels() -> str:
    """How an image is drawn larger: SVG holds its own few pixels, and whoever shows it blends them."""
    return "bilinear" if CANVAS.get().svg is None else "none"


def _break_lines(made: Figure) -> None:
    """Titles and labels as long as a narrow figure has room for, names of rows beside the axes taken off."""
    for axes in made.axes:
        named, spec = max((len(tick.get_text()) for tick in axes.get_yticklabels()), default=0), axes.get_subplotspec()
        line = (LINE - int(0.8 * named)) // (spec.get_gridspec().ncols if spec else 1)
        axes.set_title(textwrap.fill(axes.get_title(loc="left"), line), loc="left")
        axes.set_xlabel(axes.get_xlabel(), loc="right" if len(axes.get_xlabel()) > LINE - 10 else "center")
        axes.set_ylabel(textwrap.fill(axes.get_ylabel(), LINE - 16))


def class_called(name: str, number: int) -> str:
    """What a picture calls a class: by its name, cut short, or its number where the picture's font lacks a character.

    Never as the name stands, for matplotlib leaves out of a legend what begins with "_".
    """
    if CANVAS.get().svg is None and not _can_draw(name):
        _tell_numbers()
        name = str(number)
    return f"class {shorter(name, NAME)}"


def _can_draw(text: str) -> bool:
    """Whether the font of files has every character."""
    font = get_font(findfont(FontProperties()))
    return all(map(font.get_char_index, map(ord, text)))


@functools.cache  # said once
def _tell_numbers() -> None:
    warnings.warn(
        "the font of pictures lacks characters of some classes' names: there they are called by their numbers, which "
        "are those of the names' order",
        UserWarning, 2,
    )  # fmt: skip


def legend_beside(axes: Any, **options: Any) -> None:
    """The legend to the right of the axes; below them where figures are narrow."""
    if stacked():
        handles, labels = axes.get_legend_handles_labels()
        ncols = 2 if max(map(len, labels), default=0) < LINE // 2 else 1
        axes.figure.legend(handles, labels, loc="outside lower center", ncols=ncols, **options)
    else:
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), **options)


def label_rows(panels: Any, text: str) -> None:
    """The y label of panels side by side that share it."""
    for panel in panels if stacked() else panels[:1]:
        panel.set_ylabel(text)


def band(axes: Any, x: Sequence[float], runs: Sequence[Sequence[float]], label: str, place: int) -> None:
    """Mean over runs (one list of len(x) a seed) as a line, one standard deviation around it as a band."""
    values = np.asarray(runs, dtype=float)
    mean, colour = values.mean(axis=0), COLOURS[place % len(COLOURS)]
    dot = "o" if len(mean) == 1 else None  # a line of one point is none
    axes.plot(x, mean, color=colour, linestyle=DASHES[place % len(DASHES)], marker=dot, label=label)
    if len(values) > 1:
        spread = values.std(axis=0, ddof=1)
        edges = mean - spread, mean + spread
        kept = range(len(mean)) if CANVAS.get().svg is None else _corners(np.stack(edges), POINTS)
        places = np.asarray(x)[kept]
        axes.fill_between(places, *(edge[kept] for edge in edges), color=colour, alpha=0.18, linewidth=0)


def _corners(edges: Any, most: int) -> list[int]:
    """Places of a band's points that are drawn when there are more than `most`: of each stretch its extremes."""
    count = edges.shape[1]
    if count <= most:
        return list(range(count))
    kept = {0, count - 1}
    for stretch in np.array_split(np.arange(count), most // 2):
        kept |= {int(stretch[edges[0, stretch].argmin()]), int(stretch[edges[1, stretch].argmax()])}
    return sorted(kept)


def by_epoch(axes: Any, result: Result, row: str, curve: str, label: str, place: int) -> None:
    """`band` of a row's curve that has a value an epoch, accuracies in percent."""
    runs = np.multiply(_times(curve), result.curves[row][curve])
    band(axes, range(1, runs.shape[1] + 1), runs.tolist(), label, place)
    count_epochs(axes, runs.shape[1])


def count_epochs(axes: Any, epochs: int) -> None:
    """The x axis counts epochs."""
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1) if epochs > 1 else FixedLocator([1]))


def dots(
    axes: Any, result: Result, metric: str, rows: Mapping[Any, str], *, across: bool = False, **options: Any
) -> None:
    """A metric of rows by place on the x axis, or `across` on the y axis: means, accuracies in percent.

    Whiskers are one standard deviation, where there are several seeds; a row without the metric is left out.
    """
    found = {place: result.metric(row, metric) for place, row in rows.items() if result.has(row, metric)}
    means = [_times(metric) * each.mean for each in found.values()]
    spread = [_times(metric) * each.std for each in found.values() if each.std is not None] or None
    at, ends = ((means, list(found)), "xerr") if across else ((list(found), means), "yerr")
    if found:
        axes.errorbar(*at, **{"fmt": "o", "capsize": 2, ends: spread} | options)


def _times(metric: str) -> int:
    return 100 if PERCENT in metric else 1
