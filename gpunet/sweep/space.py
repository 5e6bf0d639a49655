"""The search space: a parameter is a range, or a list of values."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from optuna import distributions

from gpunet.errors import InputError

Value = float | int | str

NAME = re.compile(r"[A-Za-z_]\w*")
WORD = re.compile(r"[^\s,=:]+")
LEAST_WIDTH = 0.1  # of a finer range, as a share of the one before, on the scale that is drawn on
FORMS = "NAME=1..2, NAME=log:1e-3..1e-1, NAME=int:16..256, NAME=int:log:16..4096 or NAME=a,b,c"


@dataclass(frozen=True)
class Parameter:
    """A parameter to search: the range low … high, or where `values` are given, one of these.

    log: drawn evenly on a logarithmic scale; whole: whole numbers only, both ends included. A list holds either numbers
    or words. Raises InputError for a range that is empty, reversed, not finite, or logarithmic and not above zero, and
    for a list with a value twice.
    """

    name: str
    low: float = 0
    high: float = 0
    log: bool = False
    whole: bool = False
    values: tuple[Value, ...] = ()

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise InputError(f"{self.name!r} is no name of a parameter: expected letters, digits and _")
        if self.values:
            self._check_values()
        else:
            self._check_range()

    def _check_values(self) -> None:
        if len(set(self.values)) < len(self.values):
            raise InputError(f"{self.text}: a value is given twice")
        if any(isinstance(value, float) and not math.isfinite(value) for value in self.values):
            raise InputError(f"{self.text}: expected finite numbers")
        words = list(map(str, self.values))
        if not all(WORD.fullmatch(w) and ".." not in w for w in words) or _values("", ",".join(words)) != self.values:
            raise InputError(
                f"{self.name} has the values {list(self.values)}: expected numbers, or words without , = :"
            )

    def _check_range(self) -> None:
        text, low, high = self.text, self.low, self.high
        if not (math.isfinite(low) and math.isfinite(high) and math.isfinite(high - low)):
            raise InputError(f"{text}: expected a range between finite numbers")
        if self.whole and (low != int(low) or high != int(high)):
            raise InputError(f"{text}: int: stands for a range of whole numbers")
        if low == high:
            raise InputError(f"{text} is an empty range: write {self.name}={low!r} to hold it at one value")
        if low > high:
            raise InputError(f"{text} is a reversed range: write the smaller number first")
        if self.log and low <= 0:
            raise InputError(f"{text}: a logarithmic range lies above zero; give a small number > 0, or leave out log:")

    @property
    def text(self) -> str:
        """As `parse_parameter` reads it."""
        if self.values:
            return f"{self.name}={','.join(map(str, self.values))}"
        kind = ("int:" if self.whole else "") + ("log:" if self.log else "")
        low, high = (repr(end).removesuffix(".0") for end in (self.low, self.high))
        return f"{self.name}={kind}{low}..{high}"

    @property
    def fixed(self) -> bool:
        """Whether there is but one value."""
        return len(self.values) == 1

    def distribution(self) -> distributions.BaseDistribution:
        """The same for Optuna."""
        if self.values:
            return distributions.CategoricalDistribution(self.values)
        if self.whole:
            return distributions.IntDistribution(int(self.low), int(self.high), log=self.log)
        return distributions.FloatDistribution(self.low, self.high, log=self.log)

    def at(self, place: float) -> Value:
        """The value at a place, 0 to 1, of the scale that is drawn on."""
        if self.values:
            return self.values[min(int(place * len(self.values)), len(self.values) - 1)]
        low, high = self._scale()
        found = low + place * (high - low)
        found = math.exp(found) if self.log else found
        if self.whole:
            found = math.floor(found + 0.5)
        return min(max(found, self.low), self.high)

    def place(self, value: float) -> float:
        """Where a value of the range lies on that scale."""
        low, high = self._scale()
        return ((math.log(value) if self.log else value) - low) / (high - low)

    def _scale(self) -> tuple[float, float]:
        """The ends of the range on the scale that is drawn on; a whole number fills the unit around it."""
        low, high = (self.low - 0.5, self.high + 0.5) if self.whole else (self.low, self.high)
        return (math.log(low), math.log(high)) if self.log else (low, high)

    def finer(self, good: Sequence[Value]) -> Parameter:
        """The part that holds these values: of a range at least LEAST_WIDTH of it, of a list those among them."""
        if self.values:
            return replace(self, values=tuple(value for value in self.values if value in good))
        places = [self.place(float(value)) for value in good]
        low, high = min(places), max(places)
        more = max(0.0, LEAST_WIDTH - (high - low))
        low = min(max(0.0, low - more / 2), 1 - LEAST_WIDTH)
        high = max(min(1.0, high + more / 2), low + LEAST_WIDTH)
        ends = float(self.at(low)), float(self.at(high))
        if self.whole:
            ends = int(ends[0]), int(ends[1])
            if ends[0] == ends[1]:
                ends = max(int(self.low), ends[0] - 1), min(int(self.high), ends[1] + 1)
        return replace(self, low=ends[0], high=ends[1]) if ends[0] < ends[1] else self


def parse_parameter(text: str) -> Parameter:
    """A parameter from NAME=1..2, log:1e-3..1e-1, int:16..256, int:log:16..4096, or a list of numbers or words a,b,c.

    One value alone (NAME=3) holds the parameter there. Raises InputError naming what is wrong.
    """
    name, equals, rest = (part.strip() for part in text.partition("="))
    if not equals or not name or not rest:
        raise InputError(f"the parameter {text!r} is malformed: expected {FORMS}")
    *kinds, body = (part.strip() for part in rest.split(":"))
    unknown = [kind for kind in kinds if kind not in ("log", "int")]
    if unknown or len(set(kinds)) < len(kinds):
        raise InputError(f"the parameter {text!r} has {':'.join(kinds)}: before the range; expected log:, int: or both")
    if ".." not in body:
        if kinds:
            raise InputError(f"the parameter {text!r} has no range after {kinds[-1]}: expected {FORMS}")
        return Parameter(name, values=_values(text, body))
    low, high = (_number(text, part) for part in body.split("..", 1))
    if "int" in kinds and math.isfinite(low) and math.isfinite(high) and low == int(low) and high == int(high):
        low, high = int(low), int(high)
    return Parameter(name, low, high, log="log" in kinds, whole="int" in kinds)


def _number(text: str, part: str) -> float:
    try:
        return float(part)
    except ValueError:
        raise InputError(
            f"the parameter {text!r} is malformed: {part.strip()!r} is no number; expected {FORMS}"
        ) from None


def _values(text: str, body: str) -> tuple[Value, ...]:
    words = [word.strip() for word in body.split(",")]
    if not all(words):
        raise InputError(f"the parameter {text!r} is malformed: an empty value; expected {FORMS}")
    if all(re.fullmatch(r"[+-]?\d+", word) for word in words):
        return tuple(int(word) for word in words)
    try:
        return tuple(float(word) for word in words)
    except ValueError:
        return tuple(words)
