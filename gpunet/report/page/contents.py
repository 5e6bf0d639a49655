"""A run's tables, figures and times: what its experiment declares, or what there is of one that is not known.

Figures are small SVG as data URIs. The style sheet turns light and dark around where paper is dark.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from statistics import fmean, median, stdev

import numpy as np

from gpunet.errors import DataError
from gpunet.experiments.framework import Experiment
from gpunet.experiments.result import Result
from gpunet.limits import unpacked
from gpunet.report.drawing import collected
from gpunet.report.table import NOTHING, Cell, Column, Table, rows_table

BROAD = 640  # CSS pixels: wider than one panel
PNG = b"\x89PNG\r\n\x1a\n"
UNITS = {"s": 1.0, "ms": 1e-3, "µs": 1e-6}
KEYED = {"h": 3600.0, "min": 60.0} | UNITS
LONGEST = 50  # characters of a number: somebody's text may be digits for pages
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif"
NUMBER = r"[-−+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:e[-+−]?\d+)?"


@dataclass(frozen=True)
class Picture:
    """An image as a data URI, with its size in CSS pixels; `fixed`: one of pixels, which stays on white paper."""

    uri: str
    width: int
    height: int
    fixed: bool = False


@dataclass(frozen=True)
class Figure:
    """A figure as the page holds it; `narrow` is drawn for a phone, None where there is one picture only."""

    wide: Picture
    narrow: Picture | None
    caption: str
    alt: str

    @property
    def title(self) -> str:
        """The beginning of the caption."""
        return re.split(r"[.;:] ", f"{self.caption} ")[0]

    @property
    def broad(self) -> bool:
        """Whether it takes the whole width of the page."""
        return self.wide.width > BROAD


def tables(x: Experiment | None, result: Result) -> list[Table]:
    """Those that are declared, or all rows."""
    if x:
        return x.tables(result)
    metrics = {name: name.replace("_", " ") for row in result.rows for name in row.metrics}
    return [rows_table(result, f"Rows on {result.dataset}", result.names, metrics)] if result.rows else []


def figures(x: Experiment | None, result: Result, folder: Path) -> list[Figure]:
    """Those that are declared, drawn again from the numbers, or the PNG files that are there."""
    if not x:
        return [_png(path, result.experiment) for path in sorted(folder.glob("*.png"))]
    drawn = []
    for narrow in (False, True):
        # What is beyond all numbers is left out of a figure.
        with collected(narrow=narrow) as svg, np.errstate(over="ignore", invalid="ignore"):
            x.draw(result, folder)
        drawn.append(svg)
    wide, small = drawn
    return [
        Figure(picture(wide[each.stem]), picture(small[each.stem]), each.told(result), each.alt)
        for each in x.figures(result)
        if each.stem in wide
    ]


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
    name = path.stem.replace("-", " ")
    shown = Picture(_data_uri(content, "image/png"), width * 2 // 3, height * 2 // 3, fixed=True)
    return Figure(shown, None, name.capitalize(), f"A figure of {experiment}: {name}.")


def picture(svg: str) -> Picture:
    """A figure as matplotlib writes it, in the reader's font, made small.

    No comments, no names that nothing refers to, places to a tenth of a point, one font for the whole figure.
    """
    width, height = (round(float(size) * 4 / 3) for size in re.findall(r'(?:width|height)="([\d.]+)pt"', svg)[:2])
    svg = re.sub(r"<!--.*?-->", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    used = set(re.findall(r"#([\w.-]+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", svg)
    svg = re.sub(r' (?:d|x|y)="[^"]*"', lambda places: re.sub(r"(\d\.\d)\d+", r"\1", places[0]), svg)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    svg = re.sub(r"\n\s*", "\n", re.sub(r"; font-family: [^;\"]*", "", svg))
    svg = svg.replace(">", f"><style>svg{{font-family:{FONT}}}</style>", 1)
    return Picture(_data_uri(svg.encode(), "image/svg+xml"), width, height, "<image" in svg)


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


# -- times ------------------------------------------------------------------------------------------------------------


def timing_table(result: Result) -> Table | None:
    """Times by row, mean ± deviation over seeds, and the speed of an epoch over the first row's; None without any."""
    measures = dict.fromkeys(measure for times in result.timings.values() for measure in times)
    columns, cells = [], []
    for measure in measures:
        timed = {row: times.get(measure, []) for row, times in result.timings.items()}
        found = {row: seconds for row, seconds in timed.items() if seconds and isfinite(sum(seconds))}
        if not found:
            continue
        unit = _unit(found)
        columns.append(Column(measure.replace("_", " "), unit))
        cells.append({row: _seconds(values, unit) for row, values in found.items()})
        if measure == "epoch" and len(found) > 1:
            first, base = next((row, median(values)) for row, values in found.items())
            columns.append(Column(f"speed of an epoch,\n{first} = 1"))
            cells.append({row: f"{base / median(values):.2f}" for row, values in found.items() if median(values) > 0})
    if not columns:
        return None
    rows = tuple((row, *(column.get(row, NOTHING) for column in cells)) for row in result.timings)
    return Table("How long each part took, mean ± deviation over seeds", tuple(columns), rows)


def _unit(found: Mapping[str, list[float]]) -> str:
    """The unit in which the middle of a column is at least 1."""
    middle = median(median(values) for values in found.values())
    return next((unit for unit, size in UNITS.items() if middle >= size), "µs" if middle > 0 else "s")


def _seconds(values: list[float], unit: str) -> str:
    values = [value / UNITS[unit] for value in values]
    return Cell.of(_short(fmean(values)) + (f" ± {_short(stdev(values))}" if len(values) > 1 else ""), values)


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def duration(seconds: float | None) -> str:
    """Seconds as people say them."""
    if seconds is None:
        return NOTHING
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def sort_key(cell: str) -> float | None:
    """The number by which a cell of a table is put in order, "93.0 ± 0.2" or "2 min 5 s"; None without one."""
    cell = cell[:LONGEST]
    times = re.findall(rf"({NUMBER}) ({'|'.join(KEYED)})\b", cell)
    if times and re.fullmatch(rf"(?:{NUMBER} (?:{'|'.join(KEYED)}) ?)+", cell):
        return sum(_float(number) * KEYED[unit] for number, unit in times)
    found = re.match(rf"[<>≤≥≈~]?\s*({NUMBER})", cell)
    return _float(found[1]) if found else None


def _float(number: str) -> float:
    return float(number.replace("−", "-").replace(",", ""))
