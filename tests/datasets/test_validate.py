from __future__ import annotations

import dataclasses
import re
import tracemalloc

import numpy as np
import pytest

from gpunet.datasets import Dataset, validate
from gpunet.datasets.arrays import as_features, as_labels, from_arrays
from gpunet.errors import DataError

from .idx_writer import small_arrays


def make(**changes) -> Dataset:
    return from_arrays("mine", **{**small_arrays(), **changes}, source="mine.npz")


def fails(*words: str, **changes) -> None:
    with pytest.raises(DataError) as error:
        make(**changes)
    text = str(error.value)
    assert "\n" not in text
    for word in ("mine.npz", *words):
        assert word in text, text


def floats(split: str = "x_train") -> np.ndarray:
    return small_arrays()[split].astype(np.float32)


def test_a_sound_set():
    data = make()
    assert (data.shape, data.features, data.classes, data.name, data.source) == (
        (3, 2),
        6,
        4,
        "mine",
        "mine.npz",
    )
    assert data.x_train.shape == (20, 6)
    assert data.x_train.dtype == np.uint8
    assert data.y_train.dtype == data.y_test.dtype == np.int64
    assert validate(data) is data
    assert "array" not in repr(data)
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.name = "other"


def test_lengths_differ():
    fails("20 samples", "y_train has 19 labels", y_train=np.arange(19) % 4)
    fails("8 samples", "y_test has 0 labels", y_test=np.arange(0))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("split", ["train", "test"])
def test_not_finite_names_split_row_and_feature(bad, split):
    x = {part: floats(part) for part in ("x_train", "x_test")}
    x[f"x_{split}"][5, 2, 1] = bad
    fails(f"x_{split} row 5, feature 5", str(bad), **x)


def test_not_finite_beyond_the_first_chunk(monkeypatch):
    from gpunet import checks

    monkeypatch.setattr(checks, "CHUNK_BYTES", 48)  # two rows of six float32
    x = floats()
    x[13, 0, 1] = np.nan
    fails("x_train row 13, feature 1", x_train=x, x_test=floats("x_test"))


def test_float64_beyond_float32_is_named():
    x = floats().astype(np.float64)
    x[3, 0, 0] = 1e300
    fails("x_train row 3, feature 0", "float32", x_train=x, x_test=floats("x_test"))


@pytest.mark.parametrize("label", [-1, 4, 200])
def test_a_test_label_that_no_training_sample_has(label):
    y = np.arange(8) % 4
    y[6] = label
    fails(f"y_test row 6 is {label}, not among the 4 classes of the training labels: 0, 1, 2 and 3", y_test=y)


@pytest.mark.parametrize("label", [-1, 4, 200])
def test_numbers_of_classes_in_a_set_made_by_hand(label):
    data = make()
    y = data.y_test.copy()
    y[6] = label
    with pytest.raises(DataError, match=f"y_test row 6 is {label}, outside 0 … 3"):
        validate(dataclasses.replace(data, y_test=y))


@pytest.mark.parametrize("dtype", [object, complex, "M8[s]"])
def test_labels_that_are_none(dtype):
    fails("y_train", "expected classes: whole numbers, words or bools", y_train=(np.arange(20) % 4).astype(dtype))


def test_one_hot_labels_say_what_to_do():
    fails("argmax", y_train=np.eye(4, dtype=int)[np.arange(20) % 4])
    assert make(y_train=(np.arange(20) % 4)[:, None]).y_train.shape == (20,)


def test_a_class_without_training_samples_where_the_numbers_are_known():
    known = {"numbered": True}
    fails("class 2 without training samples", y_train=np.where(np.arange(20) % 4 == 2, 3, np.arange(20) % 4), **known)
    fails("class 0 without", y_train=np.arange(20) % 4 + 1, **known)


@pytest.mark.parametrize("label", [10**6, 10**12, 2**63 - 1])
def test_a_stray_label_costs_no_memory(label):
    y = np.arange(20) % 4
    y[9] = label
    fails("class 4 and", "row 9", str(label), y_train=y, numbered=True)
    data = make(y_train=y)
    assert (data.names, data.y_train[9]) == (("0", "1", "2", "3", str(label)), 4)


def test_labels_beyond_int64():
    y = np.arange(20, dtype=np.uint64) % 4 + np.uint64(2**63)
    fails("y_train row 3 is 9223372036854775811", y_train=y, numbered=True)
    assert make(y_train=y, y_test=y[:8]).names[0] == str(2**63)


def test_empty():
    fails("x_train is empty", x_train=np.zeros((0, 3, 2), np.uint8), y_train=np.zeros(0, int))
    fails("x_test is empty", x_test=np.zeros((0, 3, 2), np.uint8), y_test=np.zeros(0, int))
    fails("x_train is empty", x_train=np.zeros((20, 0)), x_test=np.zeros((8, 0)))


def test_one_class_only():
    fails("two classes", y_train=np.zeros(20, int), y_test=np.zeros(8, int))


def test_sizes_and_kinds_of_the_splits_differ():
    fails("(3, 2)", "(2, 3)", x_test=np.zeros((8, 2, 3), np.uint8))
    fails("uint8", "float32", x_test=floats("x_test"))


@pytest.mark.parametrize("dtype", ["U2", object, complex, "M8[s]", [("a", int)]])
def test_samples_that_are_no_numbers(dtype):
    fails("x_train", "expected uint8", x_train=np.zeros((20, 6), dtype))


def test_hand_made_data_sets_are_checked_too():
    data = make()
    for change, word in (
        ({"x_train": data.x_train.reshape(20, 3, 2)}, "(samples, features)"),
        ({"x_train": data.x_train.astype(np.int16)}, "int16"),
        ({"x_train": data.x_train.astype(">f4")}, ">f4"),
        ({"y_test": data.y_test.astype(np.int32)}, "int32"),
        ({"x_test": data.x_test[:, :5]}, "5"),
        ({"shape": (7,)}, "(7,)"),
    ):
        with pytest.raises(DataError) as error:
            validate(dataclasses.replace(data, **change))
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("u1", "u1"),
        ("f4", "f4"),
        ("f8", "f4"),
        ("f2", "f4"),
        (">f4", "f4"),
        ("i8", "f4"),
        ("i1", "f4"),
        ("?", "u1"),
    ],
)
def test_dtypes_of_samples(given, kept):
    x, shape = as_features(np.ones((5, 2, 3), given), "x")
    assert x.dtype == kept
    assert x.dtype.isnative
    assert x.flags.c_contiguous
    assert shape == (2, 3)
    assert (x == (255 if given == "?" else 1)).all()


def test_shapes_of_samples():
    assert as_features(np.ones(5), "x")[0].shape == (5, 1)
    assert as_features(np.ones((5, 4)), "x")[1] == (4,)
    np.testing.assert_array_equal(
        as_features(np.arange(24.0).reshape(2, 3, 4).transpose(0, 2, 1), "x")[0][0],
        np.arange(12.0).reshape(3, 4).T.ravel(),
    )
    with pytest.raises(DataError, match="single number"):
        as_features(np.array(3.0), "x")


def test_uint8_is_not_copied_and_inputs_are_not_changed():
    x = small_arrays()["x_train"]
    assert np.shares_memory(as_features(x, "x")[0], x)
    flags = np.array([[True, False]])
    as_features(flags, "x")
    assert flags.dtype == np.bool_
    assert flags.tolist() == [[True, False]]
    assert as_labels(np.array([True, False]), "y").tolist() == [1, 0]


def test_checking_takes_little_memory():
    x = np.ones((40_000, 200), np.float32)  # 32 MB
    y = np.arange(40_000) % 2
    data = Dataset("big", x, y, x[:100], y[:100], (200,), 2, "embedded")
    tracemalloc.start()
    try:
        validate(data)
        assert tracemalloc.get_traced_memory()[1] < 6_000_000
    finally:
        tracemalloc.stop()


def test_classes_without_training_samples_where_their_number_is_known():
    data = dataclasses.replace(make(), classes=6)
    with pytest.raises(DataError, match="class 4 and 1 more without training samples"):
        validate(data)
    assert validate(data, every_class=False) is data
    for change, word in (({"classes": 3}, "outside 0 … 2"), ({"classes": 1}, "outside"), ({"shape": (7,)}, "(7,)")):
        with pytest.raises(DataError, match=re.escape(word)):
            validate(dataclasses.replace(data, **change), every_class=False)
