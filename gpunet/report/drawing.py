"""Where figures go: to files, or kept as SVG for the page; and what becomes of one that cannot be drawn."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from gpunet import extras
from gpunet.errors import GpunetError, OutputError
from gpunet.files import attempted, remove
from gpunet.interrupts import contextmanager

SOFTWARE = "gpunet"
HEAD = 1024  # bytes of a PNG within which what it says of itself lies
INK = "#1b1f24"  # of text in SVG, which would leave out black as its default


@dataclass(frozen=True)
class Canvas:
    """What the figures of a block are drawn for: `svg` is None where they go to files, `written` where errors raise."""

    narrow: bool = False
    svg: dict[str, str] | None = None
    written: list[Path] | None = None


TO_FILES = Canvas()
CANVAS = ContextVar("canvas", default=TO_FILES)


@contextmanager
def collected(*, narrow: bool = False) -> Iterator[dict[str, str]]:
    """Within the block figures are not written, but kept: SVG by the stem of the file's name.

    `narrow` draws them for a phone: panels one above the other, legends below.
    """
    svg: dict[str, str] = {}
    with _drawing_on(Canvas(narrow, svg)):
        yield svg


def drawn(draw: Callable[[], object]) -> list[Path]:
    """Call `draw`; the files of the figures that could be drawn and written.

    Of each that could not be there is a warning in its place, so results have to be written before: no figure is worth
    one.
    """
    written: list[Path] = []
    try:
        with _drawing_on(Canvas(written=written)):
            draw()
    except Exception as error:  # between two figures, or matplotlib itself cannot be imported
        left_out("figures", error)
    return written


def written_and_drawn(
    folder: Path, write: Callable[[], Path], draw: Callable[[], object], between: Callable[[], object] = lambda: None
) -> tuple[Path | None, list[Path], str]:
    """Results and figures: where results lie (None: nowhere), figures, "" or why results are not where they should be.

    First the pictures of an earlier run are removed from the folder: none of them is to lie beside newer numbers. Of
    results that are elsewhere nothing is drawn, nor is `between` called.
    """
    withdraw(*pictures(folder))
    path, problem = attempted(write)
    if problem:
        return path, [], problem
    between()
    return path, drawn(draw), ""


def metadata(path: Path) -> dict[str, str]:
    """What a picture says of itself: by it `pictures` knows ours, and those that somebody has given another name."""
    return {"Software": SOFTWARE, "Title": path.name}


def pictures(folder: Path) -> list[Path]:
    """The pictures in a folder that we drew there under the names that they have."""
    found = []
    with suppress(OSError):
        for path in folder.glob("*.png"):
            with suppress(OSError), path.open("rb") as file:
                head = file.read(HEAD)
                if all(f"tEXt{name}\0{value}".encode() in head for name, value in metadata(path).items()):
                    found.append(path)
    return found


def withdraw(*paths: Path) -> None:
    """Remove pictures and pages of an earlier run, before there is anything that they do not show.

    What is no plain file is none. One that cannot be removed is warned of, and ends nothing.
    """
    for path in paths:
        if path.is_file() and not path.is_symlink():
            try:
                remove(path)
            except OutputError as error:
                warnings.warn(f"{error}; it is of an earlier run", RuntimeWarning, 2)


def left_out(what: str, error: Exception) -> None:
    """Warn that figures are missing, and why."""
    known = isinstance(error, (GpunetError, OSError))
    why = extras.told(error, "a figure") or (str(error) if known else f"{type(error).__name__}: {error}")
    warnings.warn(f"{what} could not be drawn, all else is there: {' '.join(why.splitlines())}", RuntimeWarning, 2)


@contextmanager
def _drawing_on(canvas: Canvas) -> Iterator[None]:
    before, backend = CANVAS.get(), os.environ.get("MPLBACKEND")
    try:
        CANVAS.set(canvas)
        os.environ.pop("MPLBACKEND", None)  # it may be a notebook's, and then matplotlib would refuse to be imported
        yield
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
        CANVAS.set(before)
