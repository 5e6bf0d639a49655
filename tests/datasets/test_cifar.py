from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpunet.datasets import IncompleteDataWarning, disk, load, load_cifar10_batches, status
from gpunet.datasets.cifar import CIFAR10_LABELS, CIFAR100_LABELS, read_records
from gpunet.errors import DataError

from .cifar_writer import CIFAR10, photographs, write_batch, write_cifar10, write_cifar100


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "data" / "cifar10"


def batch(folder: Path, name: str) -> Path:
    return folder / "cifar-10-batches-bin" / f"{name}.bin"


def fails(name: str, *words: str) -> str:
    ignored = warnings.catch_warnings(action="ignore", category=IncompleteDataWarning)
    with ignored, pytest.raises(DataError) as error:
        load(name)
    text = str(error.value)
    assert "\n" not in text
    for word in words:
        assert word in text, text
    return text


def as_looked_at(x: np.ndarray) -> np.ndarray:
    """Rows of the data set as images (height, width, colour)."""
    return np.stack([[[row.reshape(3, 32, 32)[:, i, j] for j in range(32)] for i in range(32)] for row in x])


def test_cifar10(folder):
    images = write_cifar10(folder)
    data = load("cifar10")
    assert (data.name, data.shape, data.classes, data.source) == ("cifar10", (3, 32, 32), 10, str(folder))
    assert (data.x_train.shape, data.x_train.dtype, data.x_train.flags.c_contiguous) == ((60, 3072), np.uint8, True)
    np.testing.assert_array_equal(as_looked_at(data.x_train[12:24]), images["data_batch_2"])
    np.testing.assert_array_equal(as_looked_at(data.x_test), images["test_batch"])
    assert data.y_train.tolist() == [i % 10 for i in range(12)] * 5
    assert data.y_test.tolist() == [i % 10 for i in range(12)]


def test_cifar100_takes_the_fine_labels(tmp_path):
    images = write_cifar100(tmp_path / "data" / "cifar100")
    data = load("cifar100")
    assert (data.name, data.shape, data.classes) == ("cifar100", (3, 32, 32), 100)
    assert data.y_train.tolist() == [99, 98, 97, 96, 95, 94, 93]
    np.testing.assert_array_equal(as_looked_at(data.x_train), images["train"])
    np.testing.assert_array_equal(as_looked_at(data.x_test), images["test"])


def test_a_sample_stays_as_it_stands_in_the_file(folder):
    write_cifar10(folder)
    content = batch(folder, "data_batch_1").read_bytes()
    assert load("cifar10").x_train[1].tobytes() == content[3074 : 2 * 3073]


@settings(max_examples=40, deadline=None)
@given(data=st.data(), fine=st.booleans(), lengths=st.lists(st.integers(1, 5), min_size=1, max_size=3))
def test_what_is_written_is_read(data, fine, lengths):
    classes = CIFAR100_LABELS if fine else CIFAR10_LABELS
    label = st.tuples(*(st.integers(0, count - 1) for count in classes))
    labels = [data.draw(st.lists(label, min_size=length, max_size=length)) for length in lengths]
    images = [photographs(length, data.draw(st.integers(0, 2**32))) for length in lengths]
    with tempfile.TemporaryDirectory() as folder:
        paths = [
            write_batch(Path(folder) / f"{i}.bin", *each) for i, each in enumerate(zip(labels, images, strict=True))
        ]
        x, y = read_records(paths, classes)
    assert (x.dtype, y.dtype) == (np.uint8, np.int64)
    assert y.tolist() == [each[-1] for part in labels for each in part]
    np.testing.assert_array_equal(x.reshape(-1, 3, 32, 32), np.concatenate(images).transpose(0, 3, 1, 2))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 3), st.booleans())
def test_any_bytes_are_whole_records_or_a_data_error(content, records, fine):
    labels = CIFAR100_LABELS if fine else CIFAR10_LABELS
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.bin"
        path.write_bytes(content + bytes(records * (3072 + len(labels))))
        with contextlib.suppress(DataError):
            x, y = read_records([path], labels)
            assert x.nbytes + len(y) * len(labels) == path.stat().st_size
            assert y.max() < labels[-1]


def test_files_longer_than_one_read(tmp_path):
    images = photographs(2300)
    labels = [(i % 10,) for i in range(2300)]
    x, y = read_records([write_batch(tmp_path / "a.bin", labels, images)], CIFAR10_LABELS)
    np.testing.assert_array_equal(x.reshape(-1, 3, 32, 32), images.transpose(0, 3, 1, 2))
    assert y.tolist() == [i % 10 for i in range(2300)]
    broken = bytearray((tmp_path / "a.bin").read_bytes())
    broken[2100 * 3073] = 10
    (tmp_path / "a.bin").write_bytes(broken)
    with pytest.raises(DataError, match="label 10 in record 2100, expected 0 … 9"):
        read_records([tmp_path / "a.bin"], CIFAR10_LABELS)


def test_some_training_batches_are_enough_with_a_warning(folder):
    images = write_cifar10(folder)
    for name in ("data_batch_1", "data_batch_4"):
        batch(folder, name).unlink()
    with pytest.warns(IncompleteDataWarning) as caught:
        data = load("cifar10")
    (text,) = [str(each.message) for each in caught]
    assert "\n" not in text
    for word in ("3 of 5", "data_batch_1.bin", "data_batch_4.bin", str(folder), "gpunet data fetch cifar10"):
        assert word in text
    assert "data_batch_2" not in text
    assert issubclass(IncompleteDataWarning, UserWarning)
    np.testing.assert_array_equal(as_looked_at(data.x_train[-12:]), images["data_batch_5"])
    assert len(data.x_train) == 36


def test_what_is_missing_is_named_with_the_way_to_get_it(folder, tmp_path):
    how = ("gpunet data fetch cifar10", "GPUNET_DATA", "--dataset digits")
    fails("cifar10", str(folder), "data_batch_1.bin", "test_batch.bin", *how)
    write_cifar10(folder)
    batch(folder, "test_batch").unlink()
    assert "data_batch_1" not in fails("cifar10", "test_batch.bin", *how)
    write_cifar10(folder)
    for name in CIFAR10[:5]:
        batch(folder, name).unlink()
    assert "test_batch" not in fails("cifar10", "data_batch_1.bin", "data_batch_5.bin", *how)
    write_cifar100(tmp_path / "data" / "cifar100")
    (tmp_path / "data" / "cifar100" / "cifar-100-binary" / "train.bin").unlink()
    fails("cifar100", "cifar-100-binary/train.bin;", "gpunet data fetch cifar100")


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch"])
@pytest.mark.parametrize("change", [-3073 * 12, -3072, -1, 1, 3000])
def test_not_a_whole_number_of_records(folder, name, change):
    write_cifar10(folder)
    path = batch(folder, name)
    content = path.read_bytes()
    path.write_bytes(content[:change] if change < 0 else content + bytes(change))
    size = len(content) + change
    near = [3073] if size == 0 else [size // 3073 * 3073, (size // 3073 + 1) * 3073]
    fails("cifar10", str(path), f"{size:,} bytes are not", *(f"{each:,}" for each in near), "3,073 bytes for each")


def test_cifar100_records_are_longer(tmp_path):
    folder = tmp_path / "data" / "cifar100"
    write_cifar100(folder)
    path = write_batch(folder / "cifar-100-binary" / "test.bin", [(1,)] * 4, photographs(4))
    fails("cifar100", str(path), "12,292 bytes are not", "3,074 bytes for each")


def test_labels_out_of_range(folder, tmp_path):
    write_cifar10(folder)
    path = write_batch(batch(folder, "data_batch_2"), [(1,), (9,), (10,), (200,)], photographs(4))
    fails("cifar10", str(path), "label 10 in record 2, expected 0 … 9")
    other = tmp_path / "data" / "cifar100"
    for labels, words in (((20, 5), "coarse label 20 in record 1"), ((5, 100), "fine label 100 in record 1")):
        write_cifar100(other)
        path = write_batch(other / "cifar-100-binary" / "train.bin", [(0, 0), labels], photographs(2))
        fails("cifar100", str(path), words)


@pytest.mark.parametrize("length", [100, 3073 * 2])
def test_a_text_file_in_place_of_a_batch(folder, length):
    write_cifar10(folder)
    batch(folder, "data_batch_1").write_bytes((b"not what it says\n" * 1000)[:length])
    fails("cifar10", str(batch(folder, "data_batch_1")), "100 bytes are not" if length == 100 else "label 110")


def test_a_folder_in_place_of_a_batch_is_a_missing_one(folder):
    write_cifar10(folder)
    batch(folder, "test_batch").unlink()
    batch(folder, "test_batch").mkdir()
    fails("cifar10", "not in", "test_batch.bin;")


def test_batches_for_other_splits(folder):
    images = write_cifar10(folder)
    train, validation, test = load_cifar10_batches(names=("data_batch_1", "data_batch_2", "test_batch"))
    assert (train.name, validation.name, test.name) == ("data_batch_1", "data_batch_2", "test_batch")
    for each in (train, validation, test):
        np.testing.assert_array_equal(as_looked_at(each.x), images[each.name])
        assert each.y.tolist() == [i % 10 for i in range(12)]
    assert tuple(each.name for each in load_cifar10_batches(folder)) == CIFAR10
    with pytest.raises(DataError, match=r"train_batch; expected some of data_batch_1, .*test_batch"):
        load_cifar10_batches(folder, ["train_batch"])
    batch(folder, "data_batch_2").unlink()
    with pytest.raises(DataError, match=r"cifar-10-batches-bin/data_batch_2.bin; run `gpunet data fetch cifar10`"):
        load_cifar10_batches(str(folder))
    assert len(load_cifar10_batches(folder, ["test_batch"])) == 1


def test_files_larger_than_the_machine(folder, monkeypatch):
    write_cifar10(folder)
    monkeypatch.setattr(disk, "physical_memory", lambda: 100_000)
    fails("cifar10", "100,000 bytes of memory")


def test_reading_takes_little_more_than_the_arrays(folder):
    path = batch(folder, "data_batch_1")
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(3073 * 8000))
    tracemalloc.start()
    try:
        read_records([path, path], CIFAR10_LABELS)
        assert tracemalloc.get_traced_memory()[1] < 2 * 8000 * 3080 + 7_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_the_real_images(real_data, folder):
    """The development copy: from JPEG copies, so of other bytes than the official files, in the official layout."""
    script = real_data / "cifar10" / "prepare.py"
    if not script.is_file():
        pytest.skip(f"no {script}")
    subprocess.run([sys.executable, str(script), str(folder)], check=True)
    data = load("cifar10")
    assert (data.x_train.shape, data.x_test.shape, data.classes) == ((50000, 3072), (10000, 3072), 10)
    assert np.bincount(data.y_train).tolist() == [5000] * 10
    assert np.bincount(data.y_test).tolist() == [1000] * 10
    # The means of the three colours are known for the set: 125.3, 123.0, 113.9.
    means = data.x_train.reshape(-1, 3, 1024).mean((0, 2))
    np.testing.assert_allclose(means, [125.3, 123.0, 113.9], atol=0.5)
    (first,) = load_cifar10_batches(folder, ["data_batch_1"])
    np.testing.assert_array_equal(first.x, data.x_train[:10000])
    found = status("cifar10")
    assert found.state == "present"
    assert {file.detail for file in found.files} == {"size right; no checksum known"}
