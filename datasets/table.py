"""Tables as text, CSV and its like: a sample a row, a feature a column, and the label in one of the columns.

The file is read once, a few thousand rows at a time, and nothing of it is kept but numbers and the names of classes.
"""

from __future__ import annotations

import contextlib
import csv
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from gpunet.errors import DataError, printable, shown

from .arrays import Dataset, from_arrays, from_one
from .disk import check_fits, unreadable
from .labels import LONGEST, NOTHING, Coded, listed, named, shorter

if TYPE_CHECKING:
    from numpy.typing import NDArray

SUFFIXES = (".csv", ".tsv", ".txt", ".data")
SEPARATORS = {";": "semicolons", "\t": "tabs", ",": "commas"}
LABELS = ("label", "class", "target")  # names of a column that say what it is
MISSING = ("", *NOTHING)
SEP = re.compile(r"\s*\"?sep=.\"?\s*", re.IGNORECASE)  # a first line that Excel writes
LOOKED_AT = 50  # rows by which a table's layout is told
ROWS = 4096
LONGEST_LINE = 1 << 24  # characters; a table of a million columns has such lines


@dataclass(frozen=True)
class Layout:
    """How a table is to be read: what separates its columns, their names, and whether the first row holds them.

    label, index: the places of the label's column, and of one that is left out, −1: none.
    """

    separator: str
    columns: tuple[str, ...]
    header: bool
    label: int
    index: int = -1

    def told(self, given: str | None) -> str:
        """In words."""
        head = "the first row names the columns" if self.header else "no row names the columns"
        name, last = self.columns[self.label], len(self.columns) - 1
        place = "asked for" if given is not None else "the last one" if self.label == last else "by its name"
        left_out = "; the first column, which has no name and numbers the rows, is left out" if self.index >= 0 else ""
        parts = f"separated by {SEPARATORS[self.separator]}" if self.separator != "," else ""
        named = f"the label is column {name}, {place}"
        return "; ".join(filter(None, [named, head, parts])) + left_out


def load_table(path: Path, label: str | None = None, test: Path | None = None) -> Dataset:
    """Load a table in UTF-8, separated by commas, semicolons or tabs; every fifth sample of each class is for the test.

    label: the name of the label's column, or its number from 1; by default one that is called label, class or target,
    else the last. All other columns are numbers, and become float32; where all are whole numbers up to 255, and that
    is among them, they are read as pixels, uint8. test: a table of the same columns, which is the test set.

    Raises DataError, one line, for what is missing or no number, naming row and column.
    """
    layout = _layout(path, label)
    notes = [layout.told(label)]
    x, y = read(path, layout)
    if test is None:
        (x,), told = _as_pixels(x)
        return from_one(path.stem, x, y, source=str(path), notes=notes + told)
    other = _layout(test, label, layout)
    if other.columns != layout.columns:
        raise DataError(
            f"{test}: its columns are {listed(other.columns)}, but those of {path.name} are {listed(layout.columns)}; "
            "both tables need the same columns in the same order"
        )
    x_test, y_test = read(test, other)
    (x, x_test), told = _as_pixels(x, x_test)
    folder = path.parent
    return from_arrays(folder.resolve().name, x, y, x_test, y_test, source=str(folder), notes=notes + told)


def read(path: Path, layout: Layout) -> tuple[NDArray[np.float32], Coded]:
    """(x float32 (rows, features), the labels of the rows) of a table whose layout is known."""
    parts: list[NDArray[np.float32]] = []
    names: dict[str, int] = {}
    where: list[str] = []
    known: dict[str, int] = {}  # what cells say, which may be one name in several ways
    labels: list[int] = []
    skipped = sorted({layout.label, layout.index} - {-1}, reverse=True)
    with _opened(path) as stream:
        rows = _rows(stream, layout.separator, path)
        if layout.header:
            next(rows)
        done, size = 0, path.stat().st_size
        while some := list(islice(rows, ROWS)):
            for line, cells in some:
                if (cell := cells[layout.label]) not in known:
                    at = f"{path}: line {line}, column {layout.columns[layout.label]}"
                    known[cell] = names.setdefault(_label(cell, at), len(names))
                    where += [at] * (len(names) - len(where))
                labels.append(known[cell])
                for place in skipped:
                    del cells[place]
            parts.append(_numbers(some, path, layout))
            if not done:  # the whole of it, by what the first rows take
                check_fits(_expected(stream, size, parts[0].nbytes), f"{path}: the table")
            done += len(some)
    if not parts:
        raise DataError(f"{path}: a table without rows; expected one for each sample")
    return np.concatenate(parts), Coded(list(names), np.array(labels, np.int64), tuple(where))


def _expected(stream: TextIO, size: int, part: int) -> int:
    """Bytes that all rows take, where `part` are what has been read of a file of `size`, twice for a moment."""
    return 2 * part * math.ceil(size / max(1, stream.buffer.tell()))


# -- cells ------------------------------------------------------------------------------------------------------------


def _rows(stream: TextIO, separator: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """The number of its line and the cells of every row that is not empty, all of one length."""
    reader = csv.reader(_lines(stream, path), delimiter=separator, skipinitialspace=True)
    width, first = 0, list[str]()
    try:
        for cells in reader:
            if not cells or cells == [""]:
                continue
            if width and len(cells) != width:
                _check_comment(cells if cells[0].startswith("#") else first, path)
                raise DataError(
                    f"{path}: line {reader.line_num} has {len(cells):,} columns, the first row {width:,}; expected the "
                    "same in all"
                )
            width, first = len(cells), first or cells[:1]
            yield reader.line_num, cells
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num} is no line of a table ({error})") from None


def _lines(stream: TextIO, path: Path) -> Iterator[str]:
    first = True
    try:
        while line := stream.readline(LONGEST_LINE):
            line, first = "\n" if first and SEP.fullmatch(line) else line, False
            if len(line) == LONGEST_LINE:
                raise DataError(f"{path}: a line of more than {LONGEST_LINE:,} characters; expected a row of a table")
            yield line
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text in UTF-8 ({error.reason}); save it in that encoding") from None
    except OSError as error:
        raise unreadable(path, error) from None


def _opened(path: Path) -> TextIO:
    try:
        return path.open(encoding="utf-8-sig", newline="")
    except OSError as error:
        raise unreadable(path, error) from None


def _label(cell: str, where: str) -> str:
    name = named(cell)
    if not name:
        raise DataError(f"{where}: the label is missing; fill it in, or remove the row")
    if len(name) > LONGEST:
        raise DataError(
            f"{where}: {len(name):,} characters are a text, no class; name the label's column with label (--label)"
        )
    return name


def _numbers(rows: Sequence[tuple[int, list[str]]], path: Path, layout: Layout) -> NDArray[np.float32]:
    try:
        with np.errstate(over="ignore"):
            found = np.array([list(map(float, cells)) for _, cells in rows]).astype(np.float32)
    except ValueError:
        raise _no_number(rows, path, layout) from None
    if not np.isfinite(found).all() or any("_" in "".join(cells) for _, cells in rows):
        raise _no_number(rows, path, layout)
    return found


def _no_number(rows: Sequence[tuple[int, list[str]]], path: Path, layout: Layout) -> DataError:
    """The first cell that is none."""
    columns = [name for place, name in enumerate(layout.columns) if place not in (layout.label, layout.index)]
    for line, cells in rows:
        for name, cell in zip(columns, cells, strict=True):
            where = f"{path}: line {line}, column {name}"
            if cell.strip().lower() in MISSING:
                return DataError(f"{where}: a value is missing; fill it in, or remove the row or the column")
            if not _is_number(cell):
                comma = "; a number has a decimal point, no comma" if _is_number(cell.replace(",", ".")) else ""
                return DataError(
                    f"{where} holds text, {shorter(shown(cell))}{comma}: expected numbers in all columns but "
                    f"the label's, {layout.columns[layout.label]}; name another with label (--label), or make numbers "
                    "of it"
                )
            with np.errstate(over="ignore"):
                if not np.isfinite(np.float32(float(cell))):
                    return DataError(f"{where} is {printable(cell.strip())}, which float32 does not hold")
    raise AssertionError("every cell is a number")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell  # which Python reads as if it were not there


def _like_number(cell: str) -> bool:
    """Whether it is one, or is missing, or has a decimal comma."""
    return cell.strip().lower() in MISSING or _is_number(cell) or _is_number(cell.replace(",", ".", 1))


def _as_pixels(*tables: NDArray[np.float32]) -> tuple[list[NDArray[Any]], list[str]]:
    """The tables as bytes where they hold pixels, and what is to be said of it."""
    whole = all((part == np.rint(part)).all() and part.min() >= 0 and part.max() <= 255 for part in tables)
    if not whole or max(part.max() for part in tables) < 255:
        return list(tables), []
    return [part.astype(np.uint8) for part in tables], ["values are whole numbers from 0 to 255: read as pixels, bytes"]


# -- how a table is laid out ------------------------------------------------------------------------------------------


def _layout(path: Path, label: str | None, like: Layout | None = None) -> Layout:
    """Found out from the first rows, as far as another table does not say; DataError where there is no such label."""
    separator = _separator(path)
    with _opened(path) as stream:
        rows = [cells for _, cells in islice(_rows(stream, separator, path), LOOKED_AT)]
    if not rows:
        raise DataError(f"{path}: an empty table; expected a row for each sample")
    width = len(rows[0])
    if width < 2:
        _check_comment(rows[0], path)
        raise DataError(
            f"{path}: one column only; expected several, separated by commas, semicolons or tabs, one of them the label"
        )
    if not any(row[-1].strip() for row in rows):
        raise DataError(f"{path}: every row ends in a separator, which makes an empty last column; remove it")
    header = (like is not None and like.header and _columns(rows[0]) == like.columns) or _is_header(rows, label)
    if header and len(rows) == 1:
        raise DataError(f"{path}: names of columns and no rows; expected one for each sample")
    columns = _columns(rows[0] if header else [""] * width)
    index = 0 if header and not rows[0][0].strip() and width > 2 and _is_index(rows) else -1
    found = Layout(separator, columns, header, _label_of(columns, label, header, path), index)
    return found if like is None or like.columns != columns else replace(found, index=like.index)


def _columns(row: Sequence[str]) -> tuple[str, ...]:
    """Names of columns: what the row says, else numbers from 1."""
    return tuple(named(cell) or str(place) for place, cell in enumerate(row, 1))


def _check_comment(row: Sequence[str], path: Path) -> None:
    if row[0].startswith("#"):
        raise DataError(f"{path}: a line is a comment, {shorter(shown(row[0]))}; remove all that begin with #")


def _separator(path: Path) -> str:
    """The one that makes the most columns of the first rows, as many of each."""
    with _opened(path) as stream:
        lines = list(islice(_lines(stream, path), LOOKED_AT))
    most, best = 1, ","
    for separator in SEPARATORS:
        with contextlib.suppress(csv.Error):  # which is told when the table is read
            rows = [cells for cells in csv.reader(lines, delimiter=separator, skipinitialspace=True) if cells]
            widths = {len(cells) for cells in (rows[:-1] or rows)}  # the last may go on in the next line
            if len(widths) == 1 and (width := widths.pop()) > most:
                most, best = width, separator
    return best


def _is_header(rows: Sequence[Sequence[str]], label: str | None) -> bool:
    """Whether the first row holds names: some column has numbers, or nothing, but for that row.

    A name that is asked for, and stands in it, says so as well. Where the labels are words, it is a row of names whose
    word no row has as a label, beside numbers that are evenly spaced, or beside an index without a name.
    """
    first, rest = rows[0], rows[1:]
    if not rest:
        return not any(map(_like_number, first))
    if label is not None and not label.isdecimal() and named(label) in map(named, first):
        return True
    if any(
        not _like_number(cell) and all(_like_number(row[place]) for row in rest) for place, cell in enumerate(first)
    ):
        return True
    words = [place for place, cell in enumerate(first) if not _like_number(cell)]
    below = [Counter(named(row[place]) for row in rest) for place in words]
    new = [(named(first[place]), labels) for place, labels in zip(words, below, strict=True)]
    new = [(name, labels) for name, labels in new if name not in labels]
    if not first[0].strip() and _is_index(rows) and (new or _are_even(first[1:])):
        return True
    return any(name.lower() in LABELS for name, _ in new) or (
        len(new) == len(words) == 1 and min(new[0][1].values()) > 1
        and _are_even([cell for place, cell in enumerate(first) if place != words[0]])
    )  # fmt: skip


def _is_index(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first column numbers the rows below the first, in whatever order."""
    cells = [row[0].strip() for row in rows[1:]]
    return all(map(str.isdecimal, cells)) and len(set(cells)) == len(cells)


def _are_even(cells: Sequence[str]) -> bool:
    """Whether they are whole numbers that grow by the same step, as names of columns do; two of them 0 and 1."""
    if len(cells) < 2 or not all(cell.strip().isdecimal() and len(cell) < 19 for cell in cells):
        return False
    steps = {int(after) - int(before) for before, after in pairwise(cells)}
    return len(steps) == 1 and min(steps) > 0 and (len(cells) > 2 or list(map(int, cells)) == [0, 1])


def _label_of(columns: Sequence[str], label: str | None, header: bool, path: Path) -> int:
    if label is None:
        called = [place for place, name in enumerate(columns) if name.lower() in LABELS]
        return called[0] if len(called) == 1 else len(columns) - 1
    name = named(label)
    if header and list(columns).count(name) == 1:
        return columns.index(name)
    if header and columns.count(name) > 1:
        raise DataError(f"{path}: several columns are called {shorter(name)}; give the number of the label's, from 1")
    if name.isdecimal() and len(name) < 19 and 1 <= int(name) <= len(columns):
        return int(name) - 1
    if header:
        raise DataError(f"{path}: no column {shorter(name)!r} for the label; its columns are {listed(columns)}")
    raise DataError(
        f"{path}: no row names its columns, so the label's is a number from 1 to {len(columns)}, not {shorter(name)!r}"
    )
