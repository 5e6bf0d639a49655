"""A run's tables and figures: those of its experiment, or what there is of one that has none."""

from __future__ import annotations

import importlib
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpunet.errors import DataError
from gpunet.experiments.registry import EXPERIMENTS
from gpunet.experiments.result import Result
from gpunet.limits import DAMAGE, unpacked
from gpunet.report.drawing import collected
from gpunet.report.page.captions import Caption, caption
from gpunet.report.page.reading import RESULT, Run, damaged
from gpunet.report.page.svg import Picture, data_uri, picture
from gpunet.report.table import Sheet, rows_sheet

BROAD = 1.9  # width over height
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Figure:
    """A figure as the page holds it; `narrow` is drawn for a phone, None where there is one picture only."""

    wide: Picture
    narrow: Picture | None
    caption: Caption

    @property
    def broad(self) -> bool:
        """Whether it takes the whole width of the page."""
        return self.wide.width > BROAD * self.wide.height


def sheets(run: Run) -> tuple[Sheet, ...]:
    """The tables. Raises DataError where the result is not what they need."""
    if run.result is None:
        return ()
    if run.experiment not in EXPERIMENTS:
        return _all_rows(run.result)
    try:
        return tuple(_module(run, "tables").sheets(run.result))
    except DAMAGE as error:
        raise damaged(run.folder / RESULT, _plain(error)) from error


def figures(run: Run) -> tuple[Figure, ...]:
    """The figures, drawn again from the numbers. Raises DataError where the result is not what they need."""
    if run.result is None:
        return ()
    if run.experiment not in EXPERIMENTS:
        return tuple(_png(path, run.experiment) for path in sorted(run.folder.glob("*.png")))
    wide, narrow = (_drawn(run, run.result, narrow=narrow) for narrow in (False, True))
    return tuple(
        Figure(picture(svg), picture(narrow[stem]), caption(run.experiment, stem)) for stem, svg in wide.items()
    )


def _drawn(run: Run, result: Result, *, narrow: bool) -> dict[str, str]:
    try:
        # What is beyond all numbers is left out of a figure.
        with collected(narrow=narrow) as drawn, np.errstate(over="ignore", invalid="ignore"):
            _module(run, "figures").draw(result, run.folder)
    except DAMAGE as error:
        raise damaged(run.folder / RESULT, _plain(error)) from error
    return drawn


def _module(run: Run, kind: str) -> Any:
    return importlib.import_module(f"gpunet.report.{run.experiment.replace('-', '_')}_{kind}")


def _plain(error: Exception) -> Exception:
    return error if not isinstance(error, StopIteration) else ValueError("rows are missing")


def _all_rows(result: Result) -> tuple[Sheet, ...]:
    if not result.rows:
        return ()
    metrics = {name: name.replace("_", " ") for row in result.rows for name in row.metrics}
    return (rows_sheet(result, f"Rows on {result.dataset}", [row.name for row in result.rows], metrics),)


def _png(path: Path, experiment: str) -> Figure:
    """A figure that the run has left, at half its pixels: they are drawn for screens of twice the density."""
    try:
        with path.open("rb") as file:
            content = file.read(unpacked() // 8)
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror}; run it again, or remove it") from error
    if len(content) < 24 or not content.startswith(PNG):
        raise DataError(f"'{path}' is not a PNG image: run it again, or remove it")
    width, height = struct.unpack(">II", content[16:24])
    return Figure(
        Picture(data_uri(content, "image/png"), width * 2 // 3, height * 2 // 3), None, caption(experiment, path.stem)
    )
