from __future__ import annotations

import contextlib
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest

from gpunet.datasets import cats, disk, load, status
from gpunet.errors import DataError

KEYS = {split: (f"{split}_set_x", f"{split}_set_y") for split in ("train", "test")}


def arrays(split: str) -> dict[str, np.ndarray]:
    rng = np.random.Generator(np.random.Philox(len(split)))
    count = 6 if split == "train" else 4
    x, y = KEYS[split]
    return {x: rng.integers(0, 256, (count, 64, 64, 3), dtype=np.uint8), y: np.arange(count) % 2}


def write(path: Path, split: str, **changes) -> None:
    with h5py.File(path, "w") as file:
        for key, array in {**arrays(split), "list_classes": np.array([b"non-cat", b"cat"]), **changes}.items():
            if array is not None:
                file[key] = array


@pytest.fixture(autouse=True)
def _here(monkeypatch):
    """By this process: one for each file takes 0.2 s, and `tests.hostile.test_files` looks at those."""
    monkeypatch.setattr(cats, "_read_apart", cats.read_here)


@pytest.fixture
def train(tmp_path) -> Path:
    """A sound set in the data folder; returns the training file, for the tests to spoil."""
    folder = tmp_path / "data" / "cats"
    folder.mkdir(parents=True)
    for split in KEYS:
        write(folder / f"{split}_catvnoncat.h5", split)
    return folder / "train_catvnoncat.h5"


def fails(path: Path, *words: str) -> None:
    with pytest.raises(DataError) as error:
        load("cats")
    text = str(error.value)
    assert "\n" not in text
    for word in (str(path), *words):
        assert word in text, text


def test_a_sound_set(train):
    data = load("cats")
    assert (data.name, data.shape, data.classes, data.source) == ("cats", (64, 64, 3), 2, str(train.parent))
    assert (data.x_train.dtype, data.y_train.dtype) == (np.uint8, np.int64)
    np.testing.assert_array_equal(data.x_train, arrays("train")["train_set_x"].reshape(6, 12288))
    np.testing.assert_array_equal(data.x_test, arrays("test")["test_set_x"].reshape(4, 12288))
    assert data.y_test.tolist() == [0, 1, 0, 1]


def test_packed_chunks(train):
    with h5py.File(train, "w") as file:
        for key, array in arrays("train").items():
            file.create_dataset(key, data=array, chunks=True, compression="gzip", shuffle=True)
    np.testing.assert_array_equal(load("cats").x_train, arrays("train")["train_set_x"].reshape(6, 12288))


def test_missing_files_say_how_to_get_them(train):
    train.unlink()
    fails(train.parent, "cats: not in", "train_catvnoncat.h5;", "gpunet data fetch cats", "GPUNET_DATA")


def test_missing_keys_name_those_found(train):
    write(train, "train", train_set_y=None, extra=np.zeros(3))
    fails(train, "missing train_set_y;", "found extra, list_classes, train_set_x")
    write(train, "train", train_set_x=None, train_set_y=None, **{"two\nlines": np.zeros(2)})
    fails(train, "missing train_set_x, train_set_y;", "found list_classes, two lines")
    train.write_bytes((train.parent / "test_catvnoncat.h5").read_bytes())
    fails(train, "missing train_set_x, train_set_y;", "found list_classes, test_set_x, test_set_y")


@pytest.mark.parametrize("content", [b"", b"1, 2, 3\n" * 500, b"\x89HDF\r\n\x1a\n"])
def test_not_an_hdf5_file(train, content):
    train.write_bytes(content)
    fails(train, "not a sound HDF5 file")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train_set_x": np.zeros((6, 32, 32, 3), np.uint8)}, ("train_set_x", "(6, 32, 32, 3)", "(n, 64, 64, 3)")),
        ({"train_set_x": np.zeros((6, 12288), np.uint8)}, ("(6, 12288)", "(n, 64, 64, 3)")),
        ({"train_set_x": np.zeros((6, 64, 64, 3), np.float32)}, ("float32", "expected uint8")),
        ({"train_set_x": np.zeros((5, 64, 64, 3), np.uint8)}, ("5 images", "6 labels")),
        ({"train_set_x": np.zeros((0, 64, 64, 3), np.uint8), "train_set_y": np.zeros(0, int)}, ("empty",)),
        ({"train_set_y": np.zeros((2, 3), int)}, ("train_set_y", "(2, 3)", "one class a sample")),
        ({"train_set_y": np.arange(6.0)}, ("train_set_y", "float64", "integer classes")),
        ({"train_set_y": np.array([0, 1, 0, 2, 1, 0])}, ("train_set_y row 3 is 2", "0 (no cat) or 1 (cat)")),
        ({"train_set_y": np.array([0, 1, -1, 1, 1, 0])}, ("train_set_y row 2 is -1",)),
        ({"train_set_y": np.zeros(6, int)}, ("class 1 without training samples",)),
    ],
)
def test_arrays_that_are_not_the_cats(train, changes, words):
    write(train, "train", **changes)
    if words == ("empty",) or "class 1" in words[0]:
        fails(train.parent, *words)
    else:
        fails(train, *words)


@pytest.mark.parametrize("dtype", [h5py.string_dtype(), h5py.vlen_dtype(np.uint8), h5py.ref_dtype, "S3", [("a", "i8")]])
def test_values_that_are_no_numbers(train, dtype):
    with h5py.File(train, "a") as file:
        del file["train_set_y"]
        file.create_dataset("train_set_y", (6,), dtype)
    fails(train, "train_set_y holds", "expected an array of numbers")


def test_a_group_and_an_empty_array_in_place_of_an_array(train):
    with h5py.File(train, "a") as file:
        del file["train_set_x"]
        file.create_group("train_set_x")
    fails(train, "train_set_x is no array")
    write(train, "train", train_set_y=h5py.Empty("i8"))
    fails(train, "train_set_y is no array")


def test_what_lies_elsewhere_is_not_followed(train, tmp_path):
    secret = tmp_path / "secret.h5"
    write(secret, "train")
    (tmp_path / "secret.raw").write_bytes(arrays("train")["train_set_x"].tobytes())
    layout = h5py.VirtualLayout((6, 64, 64, 3), np.uint8)
    layout[:] = h5py.VirtualSource(secret, "train_set_x", (6, 64, 64, 3))

    def link(file, target):
        file["train_set_x"] = target

    for put, words in (
        (lambda file: link(file, h5py.ExternalLink(str(secret), "train_set_x")), "is a link"),
        (lambda file: link(file, h5py.SoftLink("/train_set_y")), "is a link"),
        (lambda file: file.create_virtual_dataset("train_set_x", layout), "stored in other files"),
        (
            lambda file: file.create_dataset(
                "train_set_x", (6, 64, 64, 3), np.uint8, external=[(str(tmp_path / "secret.raw"), 0, 73728)]
            ),
            "stored in other files",
        ),
    ):
        write(train, "train", train_set_x=None)
        with h5py.File(train, "a") as file:
            put(file)
        fails(train, "train_set_x", words)


@pytest.mark.parametrize("chunks", [None, (1, 64, 64, 3)])
def test_a_header_that_claims_more_than_there_is(train, chunks):
    write(train, "train", train_set_x=None)
    with h5py.File(train, "a") as file:
        file.create_dataset("train_set_x", (10_000, 64, 64, 3), np.uint8, chunks=chunks)
    tracemalloc.start()
    try:
        fails(train, "train_set_x is damaged", "(10000, 64, 64, 3)", "0 bytes are stored")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_file_larger_than_the_machine(train, monkeypatch):
    monkeypatch.setattr(disk, "physical_memory", lambda: 999)
    fails(train, "train_set_x", "73,728 bytes", "999 bytes of memory")


@pytest.mark.slow
@pytest.mark.parametrize("packed", [False, True])
def test_damage_is_noticed_or_harmless(train, packed):
    options = {"compression": "gzip", "fletcher32": True} if packed else {}
    with h5py.File(train, "w") as file:
        for key, array in arrays("train").items():
            file.create_dataset(key, data=array, **options)
    content = train.read_bytes()
    rng = np.random.Generator(np.random.Philox(5))
    headers = [*range(0, 2048, 9), *range(len(content) - 2048, len(content), 9)]
    for place in headers:
        train.write_bytes(content[:place] + rng.bytes(1) + content[place + 1 :])
        with contextlib.suppress(DataError):
            assert load("cats").x_train.shape == (6, 12288)
    for length in range(0, len(content), len(content) // 40):
        train.write_bytes(content[:length])
        fails(train)


def test_the_real_cats(real_data):
    data = load("cats", data_dir=real_data)
    assert (data.x_train.shape, data.x_test.shape) == ((209, 12288), (50, 12288))
    assert (int(data.y_train.sum()), int(data.y_test.sum())) == (72, 33)
    assert data.y_train[:8].tolist() == [0, 0, 1, 0, 0, 0, 0, 1]
    assert data.x_train[0, :6].tolist() == [17, 31, 56, 22, 33, 59]
    assert status("cats", data_dir=real_data).state == "verified"
