"""The figure of `gpunet pca`: variance by component, and the share that the leading ones explain together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpunet.report.style import COLOURS, DASHES, class_called, figure, legend_beside

NAMED = 12  # classes that a legend has room for


def draw(parts: Sequence[Mapping[str, Any]], title: str, folder: Path) -> Path:
    """Write `folder/spectrum.png`: a line of all samples or of each class; `parts` as `decompose.Found` has them."""
    path = folder / "spectrum.png"
    with figure(path, 2) as (spectrum, share):
        for place, part in enumerate(parts):
            values, shares = part["explained_variance"], np.cumsum(part["explained_variance_ratio"])
            numbers = np.arange(1, len(values) + 1)
            look: dict[str, Any] = {
                "color": COLOURS[place % len(COLOURS)], "linestyle": DASHES[place // len(COLOURS) % len(DASHES)],
                "marker": "o" if len(values) < 20 else None, "markersize": 3,
            }  # fmt: skip
            shown = values > 0  # others have no logarithm
            spectrum.plot(numbers[shown], values[shown], **look)
            share.plot(
                numbers, 100 * shares, label=class_called(str(part.get("name", part["class"])), part["class"]), **look
            )
        if any((part["explained_variance"] > 0).any() for part in parts):
            spectrum.set_yscale("log")
        spectrum.set(title=title, xlabel="component", ylabel="explained variance")
        for axes in (spectrum, share):
            axes.xaxis.get_major_locator().set_params(integer=True)
        share.set(xlabel="components", ylabel="explained together, %", ylim=(0, 102))
        if 1 < len(parts) <= NAMED:
            legend_beside(share)
    return path
