"""What --param takes, what it refuses, and what a parameter draws."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpunet.errors import InputError
from gpunet.sweep import Parameter, parse_parameter
from gpunet.sweep.space import LEAST_WIDTH


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x=0..1", Parameter("x", 0.0, 1.0)),
        (" x = -1.5 .. 2e3 ", Parameter("x", -1.5, 2000.0)),
        ("eta=log:1e-3..1e-1", Parameter("eta", 0.001, 0.1, log=True)),
        ("units=int:10..100", Parameter("units", 10, 100, whole=True)),
        ("units=int:1e1..1e2", Parameter("units", 10, 100, whole=True)),
        ("n=int:log:16..4096", Parameter("n", 16, 4096, log=True, whole=True)),
        ("n=log:int:16..4096", Parameter("n", 16, 4096, log=True, whole=True)),
        ("lr=0.01,0.1", Parameter("lr", values=(0.01, 0.1))),
        ("lr=1,0.1", Parameter("lr", values=(1.0, 0.1))),
        ("n=32, 64,128", Parameter("n", values=(32, 64, 128))),
        ("o=adam,sgd", Parameter("o", values=("adam", "sgd"))),
        ("o=adam,1", Parameter("o", values=("adam", "1"))),
        ("epochs=3", Parameter("epochs", values=(3,))),
    ],
)
def test_what_is_taken(text, expected):
    found = parse_parameter(text)
    assert found == expected
    assert [type(value) for value in found.values] == [type(value) for value in expected.values]
    assert parse_parameter(found.text) == found
    assert found.fixed == (len(found.values) == 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x", ("malformed", "'x'", "NAME=log:1e-3..1e-1")),
        ("x=", ("malformed",)),
        ("=1..2", ("malformed",)),
        ("", ("malformed",)),
        ("2x=1..2", ("'2x'", "no name")),
        ("a b=1..2", ("'a b'",)),
        ("x=1..", ("malformed", "''")),
        ("x=..2", ("malformed",)),
        ("x=a..b", ("malformed", "'a'", "no number")),
        ("x=1,,2", ("malformed", "empty value")),
        ("x=lin:1..2", ("lin", "expected log:, int: or both")),
        ("x=log:log:1..2", ("log:log",)),
        ("x=log:3", ("no range after log:",)),
        ("x=int:1,2", ("no range after int:",)),
        ("x=1..1", ("x=1..1", "empty range", "x=1.0")),
        ("x=int:4..4", ("empty range", "x=4")),
        ("x=2..1", ("x=2..1", "reversed")),
        ("x=log:1e-1..1e-3", ("reversed",)),
        ("x=log:0..1", ("above zero",)),
        ("x=log:-1..1", ("above zero",)),
        ("x=int:log:0..8", ("above zero",)),
        ("x=int:1.5..3", ("whole numbers",)),
        ("x=0..inf", ("finite",)),
        ("x=nan..1", ("finite",)),
        ("x=-1.5e308..1.5e308", ("finite",)),
        ("x=1,inf", ("finite",)),
        ("x=1,2,1", ("twice",)),
        ("x=a,b,a", ("twice",)),
        ("x=a b,c", ("words",)),
    ],
)
def test_what_is_refused(text, words):
    with pytest.raises(InputError) as caught:
        parse_parameter(text)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value), caught.value


@pytest.mark.parametrize("values", [("1", "2"), ("a", 2), ("a,b",), ("a=b",), ("x..y",), ("",)])
def test_words_that_could_not_be_read_again(values):
    with pytest.raises(InputError, match="expected numbers, or words"):
        Parameter("x", values=values)


def test_each_whole_number_is_as_likely():
    places = [(i + 0.5) / 6000 for i in range(6000)]
    found = [parse_parameter("n=int:3..8").at(place) for place in places]
    assert {n: found.count(n) for n in set(found)} == dict.fromkeys(range(3, 9), 1000)


def test_a_logarithmic_range_is_drawn_evenly_in_its_logarithm():
    rate = parse_parameter("r=log:1e-4..1")
    assert [rate.at(place) for place in (0, 0.25, 0.5, 1)] == pytest.approx([1e-4, 1e-3, 1e-2, 1], rel=1e-12)
    n = parse_parameter("n=int:log:1..1000")
    below = sum(n.at((i + 0.5) / 1000) <= 31 for i in range(1000))
    assert below == pytest.approx(1000 * math.log(31.5 / 0.5) / math.log(1000.5 / 0.5), abs=1)


def test_the_values_of_a_list_share_the_scale():
    kind = parse_parameter("k=a,b,c,d")
    assert [kind.at(place) for place in (0, 0.24, 0.25, 0.5, 0.99, 1.0)] == ["a", "a", "b", "c", "d", "d"]


number = st.floats(1e-6, 1e6)


@given(ends=st.tuples(number, number), log=st.booleans(), place=st.floats(0, 1), more=st.lists(st.floats(0, 1)))
@settings(derandomize=True, max_examples=150)
def test_ranges(ends, log, place, more):
    """A value lies in its range; the finer range holds what it was made for, and lies in the one before."""
    low, high = sorted(ends)
    if not low * 1.001 < high:
        return
    parameter = Parameter("x", low, high, log=log)
    good = [parameter.at(p) for p in [place, *more]]
    assert all(low <= value <= high for value in good)
    assert parameter.place(good[0]) == pytest.approx(place, abs=1e-6)
    finer = parameter.finer(good)
    slack = 1e-9 * high
    assert low <= finer.low <= min(good) + slack
    assert max(good) - slack <= finer.high <= high
    width = parameter.place(finer.high) - parameter.place(finer.low)
    spread = max([place, *more]) - min([place, *more])
    assert width == pytest.approx(max(LEAST_WIDTH, spread), abs=1e-6)


@given(
    low=st.integers(1, 50), width=st.integers(1, 5000), log=st.booleans(), places=st.lists(st.floats(0, 1), min_size=1)
)
@settings(derandomize=True, max_examples=150)
def test_ranges_of_whole_numbers(low, width, log, places):
    parameter = Parameter("n", low, low + width, log=log, whole=True)
    good = [parameter.at(place) for place in places]
    assert all(type(value) is int and low <= value <= low + width for value in good)
    finer = parameter.finer(good)
    assert type(finer.low) is type(finer.high) is int
    assert low <= finer.low <= min(good)
    assert max(good) <= finer.high <= low + width
    assert finer.low < finer.high
    assert parse_parameter(finer.text) == finer


def test_a_finer_list_keeps_its_order():
    assert parse_parameter("k=a,b,c").finer(["c", "a", "c"]).values == ("a", "c")


def test_optunas_distributions():
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    texts = ("x=0..1", "x=log:1..2", "x=int:1..2", "x=int:log:1..9", "x=3,4", "x=a,b")
    assert [parse_parameter(text).distribution() for text in texts] == [
        FloatDistribution(0, 1), FloatDistribution(1, 2, log=True), IntDistribution(1, 2),
        IntDistribution(1, 9, log=True), CategoricalDistribution((3, 4)), CategoricalDistribution(("a", "b")),
    ]  # fmt: skip
