"""What of two runs is compared: settings of any kind, by value, without an error and without end."""

from __future__ import annotations

import datetime
import functools
import hashlib
import itertools
import json
import pathlib
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction

import numpy as np
import pytest

from gpunet import fingerprint
from gpunet.linalg import FixedRank


def kept(value):
    """What a checkpoint holds of a value."""
    return json.loads(json.dumps(fingerprint.comparable(value)))


def difference(one, other):
    return fingerprint.difference("it", kept(one), kept(other))


class Holder:
    """An object with attributes."""

    def __init__(self, **values):
        vars(self).update(values)


class Slots:
    __slots__ = ("a", "b")

    def __init__(self, a, b):
        self.a, self.b = a, b


@dataclass
class Pair:
    a: object
    b: object


class Kind(Enum):
    ONE = 1
    TWO = 2


def power(exponent, *, scale=1):
    """A function that remembers the exponent."""
    return lambda x: scale * x**exponent


def ring(*values):
    found = list(values)
    found.append(found)
    return found


def doubled(x):
    return 2 * x


# Of each: two makers of values that are equal, and of others that differ from them.
KINDS = {
    "set": ((lambda: {3, 1, "b"}, lambda: {"b", 3, 1}), ({3, 1, "c"}, frozenset({3, 1, "b"}), [1, 3, "b"])),
    "bytes": ((lambda: b"ab", lambda: bytes([97, 98])), (b"ac", bytearray(b"ab"), "ab")),
    "range": ((lambda: range(0, 5, 2),) * 2, (range(1, 5, 2), [0, 2, 4])),
    "path": ((lambda: pathlib.Path("a/b"), lambda: pathlib.Path("a") / "b"), (pathlib.Path("a/c"), "a/b")),
    "object": (
        (lambda: Holder(a=1, b=[2]), lambda: Holder(b=[2], a=1)), (Holder(a=1, b=[3]), Holder(a=1), Pair(1, [2])),
    ),
    "nested": ((lambda: Holder(a=Holder(b={1})),) * 2, (Holder(a=Holder(b={2})),)),
    "slots": ((lambda: Slots(1, {2}),) * 2, (Slots(1, {3}), Pair(1, {2}))),
    "dataclass": ((lambda: FixedRank(3),) * 2, (FixedRank(4),)),
    "enum": ((lambda: Kind.ONE,) * 2, (Kind.TWO, 1)),
    "lambda": ((lambda: lambda x: x + 1,), (lambda x: x + 2, lambda x: x - 1, doubled)),
    "closure": ((lambda: power(2),) * 2, (power(3), power(2, scale=2))),
    "defaults": ((lambda: lambda x, y=2: x,), (lambda x, y=3: x,)),
    "partial": ((lambda: functools.partial(power, 2),) * 2, (functools.partial(power, 3), functools.partial(max, 2))),
    "method": ((lambda: Holder(a=1).__init__,) * 2, (Holder(a=2).__init__, Holder(a=1).__eq__)),
    "built in": ((lambda: len,) * 2, (max, np.sin)),
    "class": ((lambda: Holder,) * 2, (Slots, "Holder")),
    "module": ((lambda: json,) * 2, (re,)),
    "date": (
        (lambda: datetime.datetime(2020, 1, 2),) * 2, (datetime.datetime(2020, 1, 3), datetime.date(2020, 1, 2)),
    ),
    "fraction": ((lambda: Fraction(1, 3), lambda: Fraction(2, 6)), (Fraction(2, 3), 1 / 3)),
    "slice": ((lambda: slice(None, 3),) * 2, (slice(3, None), slice(0, 3))),
    "complex": ((lambda: 1 + 2j,) * 2, (1 - 2j, 1)),
    "pattern": ((lambda: re.compile("a"),) * 2, (re.compile("a", re.I), re.compile("b"))),
    "generator": ((lambda: np.random.default_rng(3),) * 2, (np.random.default_rng(4),)),
    "keys": ((lambda: {1: 2, (3, 4): 5}, lambda: {(3, 4): 5, 1: 2}), ({"1": 2, "(3, 4)": 5}, {1: 2}, {1: 3})),
    "nan": ((lambda: float("nan"), lambda: np.float32("nan")), (0.0, None, "NaN")),
    "nans": ((lambda: [1.0, float("nan")],) * 2, ([1.0, 2.0], [float("nan"), 1.0])),
    "integer": ((lambda: 10**5000,) * 2, (10**5000 + 1,)),
    "array": (
        (lambda: np.zeros((2, 2)), lambda: np.zeros((2, 4))[:, ::2]),
        (np.zeros((2, 2), int), np.zeros((2, 2), "f4"), np.zeros(4), np.eye(2), [[0.0, 0.0], [0.0, 0.0]]),
    ),
    "dates": (
        (lambda: np.array(["2020-01-02"], "M8[D]"),) * 2,
        (np.array(["2020-01-03"], "M8[D]"), np.array(["2020-01-02"], "M8[s]")),
    ),
    "objects": ((lambda: np.array([1, {2}, None], object),) * 2, (np.array([1, {3}, None], object),)),
    "records": ((lambda: np.ones(2, [("a", int)]),) * 2, (np.zeros(2, [("a", int)]), np.ones(2, [("b", int)]))),
    "long double": (
        (lambda: np.array([np.longdouble(1) / 3]),) * 2, (np.array([np.longdouble(1 / 3)]), np.array([1 / 3])),
    ),
    "masked": (
        (lambda: np.ma.array([1, 2], mask=[0, 1]),) * 2, (np.ma.array([1, 2], mask=[1, 0]), np.array([1, 2])),
    ),
    "one date": (
        (lambda: np.datetime64("2020-01-02"),) * 2, (np.datetime64("2020-01-03"), np.datetime64("2020-01-02", "ns")),
    ),
    "cycle": ((lambda: ring(1, 2),) * 2, (ring(1, 3), ring(2, 1), [1, 2, [1, 2]])),
    "dtype": ((lambda: np.dtype("f4"), lambda: np.dtype("float32")), (np.dtype("f8"),)),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_settings_are_compared_by_value(kind):
    makers, others = KINDS[kind]
    same = [make() for make in makers]
    for one, other in itertools.product(same, same):
        assert difference(one, other) == ""
    for other in others:
        for pair in ((same[0], other), (other, same[0])):
            assert re.fullmatch(
                r"it.* (is .* here and .* there|is given .* and not .*|are \d+ here and \d+ there)", difference(*pair)
            )


def test_plain_settings_keep_their_form():
    plain = {"a": 1, "b": [2.5, "c", None], "d": {"e": True}}
    assert kept(plain) == plain
    assert kept((1, np.float64(2.5), np.int8(3), np.True_, np.str_("a"))) == [1, 2.5, 3, True, "a"]
    assert kept(FixedRank(3)) == {"class": "FixedRank", "rank": 3}


def test_what_shares_its_parts_is_equal_to_what_does_not():
    shared = [1]
    assert difference([shared, shared], [[1], [1]]) == ""
    assert difference(Holder(a=shared, b=shared), Holder(a=[1], b=[1])) == ""


class Broken:
    """Whose every method fails."""

    def __getattribute__(self, name):
        raise RuntimeError(name)


class Endless(dict):
    """Items without end."""

    def items(self):
        return ((str(i), i) for i in itertools.count())

    def __iter__(self):
        return map(str, itertools.count())


def deep(depth):
    found: list = []
    for _ in range(depth):
        found = [found]
    return found


def wide(depth):
    found: list = []
    for _ in range(depth):
        found = [found, found]
    return found


STRANGE = {
    "broken": Broken, "endless": Endless, "deep": lambda: deep(100_000), "wide": lambda: wide(60),
    "lock": threading.Lock, "generator": lambda: (i for i in range(3)), "count": itertools.count,
    "file": lambda: sys.stdout, "objects": lambda: Holder(a=Holder(b=threading.Lock(), c=deep(1000))),
    "dots": lambda: ..., "key": lambda: {Broken: 1},
}  # fmt: skip


@pytest.mark.parametrize("name", STRANGE)
def test_no_setting_fails_or_takes_long(name, monkeypatch):
    monkeypatch.setattr(fingerprint, "MOST", 100_000)
    value = STRANGE[name]()
    began = time.monotonic()
    assert difference(value, value) == ""
    assert time.monotonic() - began < 60  # of some 0.2 s


@pytest.mark.slow
def test_another_process_describes_them_alike():
    """Neither addresses nor the order of a set's hashes are looked at."""
    here = {kind: kept(makers[0]()) for kind, (makers, _) in KINDS.items()}
    command = [sys.executable, "-c", f"import json; from {__name__} import KINDS, kept; "
               "print(json.dumps({kind: kept(makers[0]()) for kind, (makers, _) in KINDS.items()}))"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=pathlib.Path(__file__).parents[1])
    assert fingerprint.difference("", json.loads(done.stdout), here) == ""


def test_a_digest_is_of_the_parts_as_they_follow_each_other():
    array = np.arange(6.0).reshape(2, 3)
    expected = hashlib.sha256("aβ".encode() + b"c" + array.tobytes()).hexdigest()[:16]
    assert (
        fingerprint.digest("aβ", b"c", array)
        == fingerprint.digest("a", "β", b"c", np.asfortranarray(array))
        == expected
    )
