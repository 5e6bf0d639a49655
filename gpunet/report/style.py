"""One look for all figures: colours that colour-blind readers can tell apart, quiet axes, bands for deviations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from gpunet.files import write_atomically

# Okabe & Ito's palette, told apart with any common colour vision; dashes help where colour is missing altogether.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))

SETTINGS: dict[Any, Any] = {
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e3e3e3",
    "grid.linewidth": 0.6, "axes.axisbelow": True, "axes.titlesize": 11, "axes.titlelocation": "left",
    "axes.labelsize": 10, "legend.frameon": False, "legend.fontsize": 9, "font.size": 10, "lines.linewidth": 1.7,
    "savefig.dpi": 144, "figure.constrained_layout.use": True,
}  # fmt: skip


@contextmanager
def figure(path: Path, columns: int = 1, *, width: float = 6.4, height: float = 4.0) -> Iterator[Any]:
    """A figure with `columns` axes side by side, written to `path` as PNG when the block ends.

    No pyplot: nothing is kept open, and no display is needed.
    """
    import io

    with mpl.rc_context(SETTINGS):
        made = Figure(figsize=(width * (1 if columns == 1 else 0.85 * columns), height))
        axes = made.subplots(1, columns)
        yield axes
        buffer = io.BytesIO()
        made.savefig(buffer, format="png", metadata={"Software": "gpunet"})
        write_atomically(path, buffer.getvalue())


def band(axes: Any, x: Sequence[float], runs: Sequence[Sequence[float]], label: str, place: int) -> None:
    """Mean over runs (one list of len(x) a seed) as a line, one standard deviation around it as a band."""
    values = np.asarray(runs, dtype=float)
    mean, colour = values.mean(axis=0), COLOURS[place % len(COLOURS)]
    axes.plot(x, mean, color=colour, linestyle=DASHES[place % len(DASHES)], label=label)
    if len(values) > 1:
        spread = values.std(axis=0, ddof=1)
        axes.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.18, linewidth=0)
