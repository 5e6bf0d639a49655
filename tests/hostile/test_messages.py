"""A message is one printable line of bounded length, whatever it was made from."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from gpunet import errors
from gpunet.errors import LONGEST, LONGEST_VALUE, DataError, GpunetError, InputError, ShapeError, shown

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, GpunetError)]


class Raising:
    def __repr__(self):
        raise KeyError("no\nrepr")

    @property
    def shape(self):
        raise RuntimeError


class NoText:
    def __repr__(self):
        return 5


class Long:
    def __repr__(self):
        return "red \x1b[31m\n" * 10**6


ENDLESS: list[object] = []
ENDLESS.append(ENDLESS)
HOSTILE = [
    "a\nb", "x" * 10**7, b"x" * 10**7, 10**30, -(10**5000), float("nan"), None, "\ud800", "\u202egnp", "a\u2028b",
    Raising(), NoText(), Long(), type("list", (), {})(), type("int", (), {})(), ENDLESS, [Raising()], {Raising(): 1},
    np.zeros((3, 4)), np.array([Raising()], object), np.float32(2), np.ma.masked, object, type("A\nB", (), {}), len,
    list(range(10**6)), set(range(100)), np.ndarray,
]  # fmt: skip


@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
def test_whatever_was_given_is_shown_in_a_line(value):
    assert shown(value).isprintable()
    assert 0 < len(shown(value)) <= LONGEST_VALUE


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("relu", "'relu'"), (1.5, "1.5"), (-1, "-1"), (True, "True"), (None, "None"), ([1, "a"], "[1, 'a']"),
        ("a\nb", r"'a\nb'"), (np.zeros((2, 3)), "ndarray of shape (2, 3), float64"), (np.float32(2), "np.float32(2.0)"),
        (10**90, "an integer of 299 bits"), (Raising(), "<Raising>"), (InputError, "the class InputError"),
    ],
)  # fmt: skip
def test_ordinary_values_look_as_python_writes_them(value, expected):
    assert shown(value) == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["a\r\nb\x1b[2Jc", "x\x00\udc80", "\n" * 10**6, "begin" + "x" * 10**6 + "end", ""])
def test_every_error_is_one_printable_line(kind, text):
    error = kind(text)
    assert str(error).isprintable()
    assert repr(error).isprintable()
    assert len(str(error)) <= LONGEST
    assert str(copy.copy(error)) == str(error)


def test_what_is_printable_stays_as_it_is_and_the_end_of_a_long_line_is_kept():
    assert str(ShapeError("x is 3×4: expected ≥ 5, say …")) == "x is 3×4: expected ≥ 5, say …"
    assert str(DataError("a\tb")) == r"a\tb"
    long = str(InputError("given" + "x" * 10**5 + "do this"))
    assert long.startswith("givenx")
    assert long.endswith("xdo this")
    assert str(InputError(Raising.__name__, 3)) == "('Raising', '3')"
