"""Labels as people have them, 1 to 26, ±1 or words, numbered: the classes 0, 1, 2, … in the order of their names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np

from gpunet.checks import as_array
from gpunet.errors import DataError, printable

if TYPE_CHECKING:
    from numpy.typing import NDArray

TEST_EVERY = 5
LONGEST = 200  # characters of a class's name
SHOWN = 40  # of them, where several are listed
LISTED = 6  # names in a line at most
MANY = 50  # classes; more, and fewer than five samples each, are none
ASKED = "expected classes: whole numbers, words or bools"
MEASURED = f"{ASKED}. What is measured is no class: make classes of it, such as y > limit"
# Numbers as programs write them; 007, 1e3 and 1_0 are names, which may stand beside 7, 1000 and 10.
NUMBER = re.compile(r"[+-]?(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+|\d(?:\.\d+)?[eE][+-]\d{2,3})", re.ASCII)
NOTHING = ("na", "n/a", "nan", "null", "none", "?")  # what programs write where a value is missing


@dataclass(frozen=True)
class Coded:
    """Labels as text, each of which is stored once: `values`, and the place in them of every sample's.

    where: of each value, where it stands first.
    """

    values: list[str]
    places: NDArray[np.int64]
    where: tuple[str, ...] = ()

    def at(self, place: int, other: str) -> str:
        """Where the value at `place` stands; else in a row of `other`."""
        return self.where[place] if self.where else f"{other} row {int((self.places == place).argmax())}"


def distinct(y: NDArray[Any] | Coded, where: str) -> tuple[list[str], NDArray[np.int64]]:
    """The names of the labels that there are, in their order, and the place of each label among them.

    y: (n,) or (n, 1) integers, bools, whole floats, or text; a name is the number or the text, see `named`. Raises
    DataError, begun by `where`, for what is none of them.
    """
    if isinstance(y, Coded):
        if not all(map(NUMBER.fullmatch, y.values)):  # some are words
            return numbered(y.values, y.places, where)
        numbers = [Decimal(value) for value in y.values]
        for place, number in enumerate(numbers):
            if number != number.to_integral_value():
                raise DataError(f"{y.at(place, where)} is {y.values[place]}; {MEASURED}")
        return numbered([str(int(number)) for number in numbers], y.places, where)
    found: NDArray[Any] = as_array(y, where)
    if found.dtype.kind not in "iubfUS":
        raise DataError(f"{where} has dtype {found.dtype}; {ASKED}")
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.ndim != 1:
        hint = "; for one-hot labels give y.argmax(axis=1)" if found.ndim == 2 else ""
        raise DataError(f"{where} has shape {found.shape}; expected one class a sample, (samples,){hint}")
    if found.dtype.kind == "f":
        found = _whole(found, where)
    elif found.dtype.kind == "b":
        found = found.view(np.uint8) != 0  # a file may hold other bytes than 0 and 1
    values, places = np.unique(found, return_inverse=True)
    if found.dtype.kind not in "US":
        return [str(value) for value in values.tolist()], places.astype(np.int64)
    return numbered(_texts(values, where), places, where)


def numbered(values: Sequence[str], places: NDArray[Any], where: str) -> tuple[list[str], NDArray[np.int64]]:
    """`distinct` of texts that stand at `places` in `values`: those of one name are one class."""
    cleaned = [named(value) for value in values]
    for place, name in enumerate(cleaned):
        if not name or len(name) > LONGEST:
            row = int((places == place).argmax())
            wrong = "is empty" if not name else f"has {len(name):,} characters: that is a text, not the name of a class"
            raise DataError(f"{where} row {row} {wrong}; {ASKED}")
    names = in_order(cleaned)
    position = {name: place for place, name in enumerate(names)}
    return names, np.array([position[name] for name in cleaned], np.int64)[places]


def named(text: str) -> str:
    """A class's name of what a file or a folder says: in one Unicode form, in one line, without spaces around it."""
    return printable(unicodedata.normalize("NFC", text).strip())


def in_order(names: Iterable[str]) -> list[str]:
    """Each name once: by their values where all are whole numbers, else as text."""
    every = sorted(set(names))
    try:
        return sorted(every, key=int) if all(name.removeprefix("-").isdecimal() for name in every) else every
    except ValueError:  # of more digits than Python reads
        return every


def match(names: Sequence[str], others: Sequence[str], places: NDArray[np.int64], where: str) -> NDArray[np.int64]:
    """Test labels, `others` at `places`, by the names of the training classes; DataError for one that is none."""
    position = {name: place for place, name in enumerate(names)}
    numbers = np.array([position.get(name, -1) for name in others], np.int64)[places]
    if (numbers < 0).any():
        row = int((numbers < 0).argmax())
        raise DataError(
            f"{where} row {row} is {shorter(others[places[row]])}, not among the {len(names):,} classes of the "
            f"training labels: {listed(names)}"
        )
    return numbers


def check_count(names: Sequence[str], samples: int, where: str) -> None:
    """DataError where there are so many labels that they are measurements, or texts, and no classes."""
    if len(names) > max(MANY, samples / 5):
        raise DataError(
            f"{where} has {len(names):,} different labels in {samples:,} samples: expected classes of several samples "
            "each; what is measured is no class"
        )


def check_missing(names: Sequence[str], numbers: NDArray[np.int64], y: NDArray[Any] | Coded, where: str) -> None:
    """DataError for a label such as NaN or none that so few samples have that it says that theirs is missing."""
    for number, name in enumerate(names):
        count = int((numbers == number).sum()) if name.lower() in NOTHING else TEST_EVERY
        if count < TEST_EVERY:
            row = int((numbers == number).argmax())
            at = y.at(int(y.places[row]), where) if isinstance(y, Coded) else f"{where} row {row}"
            raise DataError(
                f"{at}: the label is missing, it is {name!r}; fill it in, or remove the sample (a class of that name "
                f"has {TEST_EVERY} samples at least)"
            )


def told(names: Sequence[str]) -> str:
    """How the labels were numbered, in words; "" where they are the numbers themselves."""
    last = len(names) - 1
    if list(names) == [str(number) for number in range(len(names))]:
        return ""
    whole = names[0].removeprefix("-").isdecimal() and len(names[0]) < 18
    run = whole and last > 1 and list(names) == [str(int(names[0]) + place) for place in range(len(names))]
    which = f"{names[0]} to {names[-1]}" if run else listed(names)
    return f"labels {which} are numbered 0 {'to' if last > 1 else 'and'} {last} in their order"


def listed(names: Sequence[str]) -> str:
    """The names, or the first few and the last."""
    shown = [shorter(name) for name in (names if len(names) <= LISTED else [*names[:3], names[-1]])]
    if len(names) > LISTED:
        return f"{', '.join(shown[:-1])}, … {shown[-1]}"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def shorter(name: str, most: int = SHOWN) -> str:
    """A name as far as there is room for it beside others."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def every_fifth(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which samples are in the test set where nobody says: of each class, in the order they come in, every fifth."""
    order, counts = np.argsort(labels, kind="stable"), np.bincount(labels)
    place = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    chosen = np.zeros(len(labels), bool)
    chosen[order] = place % TEST_EVERY == TEST_EVERY - 1
    return chosen


def _whole(y: NDArray[Any], where: str) -> NDArray[np.int64]:
    with np.errstate(invalid="ignore"):
        wrong = ~((np.abs(y) < 2**53) & (y == np.rint(y)))  # NaN is one, too
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(f"{where} row {row} is {y[row]:g}; {MEASURED}")
    return y.astype(np.int64)


def _texts(values: NDArray[Any], where: str) -> list[str]:
    if values.dtype.kind == "U":
        return [str(value) for value in values.tolist()]
    try:
        return [value.decode() for value in values.tolist()]
    except UnicodeDecodeError as error:
        raise DataError(f"{where} has a label that is not UTF-8: {error.object[:20]!r}; {ASKED}") from None
