"""Labels as people have them: how they are numbered, what is said of it, and what is none."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest

from gpunet.datasets import load
from gpunet.datasets.arrays import from_arrays, from_one
from gpunet.datasets.labels import Coded, distinct, every_fifth, in_order, listed, told
from gpunet.errors import DataError

SAMPLES = 60
X = np.random.default_rng(0).normal(size=(SAMPLES, 4))


def cycle(values, dtype=None) -> np.ndarray:
    return np.array([values[i % len(values)] for i in range(SAMPLES)], dtype)


LETTERS = [chr(ord("a") + i) for i in range(26)]
KINDS = {
    "numbers": (cycle([0, 1, 2]), ("0", "1", "2"), ""),
    "from one": (cycle([1, 2, 3]), ("1", "2", "3"), "labels 1 to 3 are numbered 0 to 2 in their order"),
    "column": (cycle([3, 1, 2])[:, None], ("1", "2", "3"), "labels 1 to 3 are numbered 0 to 2 in their order"),
    "signs": (cycle([1, -1]), ("-1", "1"), "labels -1 and 1 are numbered 0 and 1 in their order"),
    "gaps": (cycle([7, 0, 3]), ("0", "3", "7"), "labels 0, 3 and 7 are numbered 0 to 2 in their order"),
    "bools": (cycle([True, False]), ("False", "True"), "labels False and True are numbered 0 and 1 in their order"),
    "floats": (cycle([2.0, 1.0]), ("1", "2"), "labels 1 and 2 are numbered 0 and 1 in their order"),
    "words": (cycle(["dog", "cat"]), ("cat", "dog"), "labels cat and dog are numbered 0 and 1 in their order"),
    "bytes": (cycle([b"dog", "Café".encode()]), ("Café", "dog"), "labels Café and dog are numbered 0 and 1 in their"),
    "digits as text": (cycle(["10", "9", "1"]), ("1", "9", "10"), "labels 1, 9 and 10 are numbered 0 to 2 in their"),
    "big endian": (cycle([2, 1], ">i4"), ("1", "2"), "labels 1 and 2 are numbered 0 and 1 in their order"),
    "text of numpy": (cycle(LETTERS, ">U3"), tuple(LETTERS), "labels a, b, c, … z are numbered 0 to 25 in their order"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_labels(kind):
    y, names, note = KINDS[kind]
    data = from_arrays("mine", X, y, X[:12], y[:12], source="mine.npz")
    assert (data.names, data.classes) == (names, len(names))
    flat = [each.decode() if isinstance(each, bytes) else each for each in y.ravel().tolist()]
    number = {name: place for place, name in enumerate(names)}
    written = [str(int(each)) if isinstance(each, float) else str(each) for each in flat]
    assert data.y_train.tolist() == [number[each] for each in written]
    assert data.y_test.tolist() == [number[each] for each in written[:12]]
    assert [said for said in data.notes if note not in said] == []
    assert len(data.notes) == bool(note)


def test_test_labels_may_be_of_another_kind_and_lack_classes():
    data = from_arrays("mine", X, cycle([1, 2, 3]), X[:2], np.array(["3", "2"]), source="mine.npz")
    assert data.y_test.tolist() == [2, 1]
    with pytest.raises(
        DataError, match="y_test row 1 is 4, not among the 3 classes of the training labels: 1, 2 and 3"
    ):
        from_arrays("mine", X, cycle([1, 2, 3]), X[:2], np.array([2.0, 4.0]), source="mine.npz")


NONE = {
    "a measurement": (cycle([0.5, 1.0]), "y_train row 0 is 0.5; expected classes"),
    "missing": (cycle([1.0, 2.0, np.nan]), "y_train row 2 is nan"),
    "infinite": (cycle([1.0, np.inf]), "y_train row 1 is inf"),
    "too large for a float": (cycle([1.0, 2.0**60]), "y_train row 1 is"),
    "empty text": (cycle(["a", "b", " "]), "y_train row 2 is empty"),
    "a text": (cycle(["a", "b" * 1000]), "y_train row 1 has 1,000 characters"),
    "no UTF-8": (cycle([b"a", b"\xff"]), "y_train has a label that is not UTF-8"),
    "one class": (cycle(["only"]), "all training labels are only; at least two"),
    "objects": (cycle(["a", None], object), "dtype object"),
}


@pytest.mark.parametrize("kind", NONE)
def test_what_are_no_labels(kind):
    y, words = NONE[kind]
    with pytest.raises(DataError) as error:
        from_arrays("mine", X, y, X[:12], y[:12], source="mine.npz")
    assert words in str(error.value)
    assert str(error.value).isprintable()


def test_as_many_labels_as_samples_are_measurements():
    x, y = np.zeros((400, 2)), np.arange(400)
    with pytest.raises(DataError, match="400 different labels in 400 samples: expected classes of several samples"):
        from_arrays("mine", x, y, x, y, source="mine.npz")
    assert from_arrays("mine", x, y // 5, x, y // 5, source="mine.npz").classes == 80


def test_names_of_one_form_are_one_class():
    composed, apart = unicodedata.normalize("NFC", "Éclair"), unicodedata.normalize("NFD", "Éclair")
    assert composed != apart
    names, places = distinct(np.array([composed, "zoo", apart, " zoo "]), "y")
    assert (names, places.tolist()) == (["zoo", composed], [1, 0, 1, 0])


def test_control_characters_are_shown_as_python_writes_them():
    assert distinct(np.array(["a\x1b[31m", "b\nc"]), "y")[0] == ["a\\x1b[31m", "b\\nc"]


def test_coded_labels_are_as_those_they_stand_for():
    values, places = ["2.0", "10", "+1."], np.array([0, 1, 2, 0])
    names, found = distinct(Coded(values, places), "y")
    assert (names, found.tolist()) == (["1", "2", "10"], [1, 2, 0, 1])
    names, found = distinct(Coded(["b", "a"], places[:2]), "y")
    assert (names, found.tolist()) == (["a", "b"], [1, 0])


NUMBERS = {
    "two spellings of no number": (["1e3", "1000"], ("1000", "1e3")),
    "a line below": (["1_0", "10"], ("10", "1_0")),
    "zeros before it": (["01", "02", "10"], ("01", "02", "10")),
    "as numpy.savetxt writes them": (["1.000000000000000000e+00", "-2.000000000000000000e+00"], ("-2", "1")),
    "int64's ends": (["9223372036854775807", "-9223372036854775808"], ("-9223372036854775808", "9223372036854775807")),
    "spellings of one": (["1", "1.0", "+1", "2"], ("1", "2")),
}


@pytest.mark.parametrize("what", NUMBERS)
def test_what_is_a_number_in_a_table(what):
    values, names = NUMBERS[what]
    found, places = distinct(Coded(values, np.arange(len(values))), "y")
    assert tuple(found) == names
    assert len(set(places.tolist())) == len(names)


@pytest.mark.parametrize("word", ["none", "NaN", "?"])
def test_a_word_for_nothing_is_a_name_where_a_class_has_it(word):
    y = cycle(["a", "b", word])
    assert word in from_arrays("mine", X, y, X[:2], y[2:4], source="mine.npz").names
    places = np.arange(SAMPLES) % 2
    places[7] = 2
    for given in (np.array(["a", "b", word])[places], Coded(["a", "b", word], places)):
        with pytest.raises(DataError, match=f"y_train row 7: the label is missing, it is '[{word}]+'; fill it in"):
            from_arrays("mine", X, given, X[:2], np.array(["a", "b"]), source="mine.npz")


def test_order_and_words():
    assert in_order(["10", "9", "-1"]) == ["-1", "9", "10"]
    assert in_order(["10", "9", "a"]) == ["10", "9", "a"]
    assert in_order(["9" * 5000, "1"]) == ["1", "9" * 5000]
    assert told(["0", "1"]) == ""
    assert told(["9" * 30, "9" * 31]).startswith("labels 9999")
    assert len(listed(["x" * 150] * 6)) < 300


def test_every_fifth_of_each_class_in_the_order_that_they_come_in():
    labels = np.random.default_rng(1).integers(0, 3, 100)
    chosen = every_fifth(labels)
    for label in range(3):
        own = np.flatnonzero(labels == label)
        assert np.flatnonzero(chosen & (labels == label)).tolist() == own[4::5].tolist()


def test_one_set_is_split_and_says_so():
    data = from_one("mine", X, cycle(["a", "b", "c"]), source="mine.npz")
    assert (len(data.x_train), len(data.x_test)) == (48, 12)
    assert data.notes[-1] == "12 of 60 samples are the test set, every fifth of each class"
    chosen = every_fifth(np.arange(SAMPLES) % 3)
    np.testing.assert_array_equal(data.x_test, X[chosen].astype(np.float32))
    with pytest.raises(DataError, match="no test samples: every fifth sample of a class is one, and no class has five"):
        from_one("mine", X[:8], np.arange(8) % 2, source="mine.npz")
    with pytest.raises(DataError, match="x has 60 samples but y has 59 labels"):
        from_one("mine", X, cycle([0, 1])[:59], source="mine.npz")


def test_the_split_of_one_set_is_that_of_digits():
    digits = load("digits")
    assert (len(digits.x_train), digits.names, digits.notes) == (1442, tuple("0123456789"), ())
