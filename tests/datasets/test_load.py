from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gpunet import datasets
from gpunet.datasets import data_dir, load
from gpunet.errors import DataError

from .idx_writer import small_arrays, write_folder, write_idx


def fails(given, *words: str) -> None:
    with pytest.raises(DataError) as error:
        load(given)
    text = str(error.value)
    assert "\n" not in text
    for word in words:
        assert word in text, text


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("test", ["t10k", "test", "TEST"])
@pytest.mark.parametrize("shape", [(28, 28), (5,), (4, 4, 3)])
def test_a_folder_of_ones_own(tmp_path, suffix, test, shape):
    arrays = small_arrays(shape, classes=7)
    data = load(write_folder(tmp_path / "mine", arrays, suffix, test))
    assert (data.name, data.shape, data.classes) == ("mine", shape, 7)
    np.testing.assert_array_equal(data.x_test, arrays["x_test"].reshape(8, -1))


def test_packed_and_unpacked_side_by_side_are_one_file(tmp_path):
    write_folder(tmp_path, small_arrays(), ".gz")
    write_folder(tmp_path, small_arrays())
    (tmp_path / "train-images-idx3-ubyte.gz.part").write_bytes(b"x")
    (tmp_path / "README.md").write_text("about")
    assert load(tmp_path).classes == 4


def test_an_incomplete_folder_lists_both_sides(tmp_path):
    write_folder(tmp_path, small_arrays())
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    fails(
        tmp_path,
        str(tmp_path),
        "missing *t10k*labels* or *test*labels*",
        "found t10k-images-idx3-ubyte, train-",
    )
    (tmp_path / "none").mkdir()
    fails(tmp_path / "none", "found no files")


def test_two_sets_in_one_folder(tmp_path):
    write_folder(tmp_path, small_arrays())
    write_idx(tmp_path / "letters-train-images", small_arrays()["x_train"])
    fails(tmp_path, "several files could be *train*images*", "letters-train-images")


def test_labels_and_images_in_each_others_place(tmp_path):
    arrays = small_arrays()
    swapped = {"x_train": arrays["y_train"], "y_train": arrays["x_train"]}
    fails(write_folder(tmp_path, {**arrays, **swapped}), "y_train", "one class a sample")


def test_a_damaged_file_is_named(tmp_path):
    write_folder(tmp_path, small_arrays())
    path = tmp_path / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    fails(tmp_path, str(path), "truncated")


def test_unknown_names_and_paths(tmp_path):
    fails("minst", "unknown data set 'minst'", "did you mean 'mnist'", "mnist, digits", "path")
    fails("MNIST", "did you mean 'mnist'")
    fails("whatever", "known are mnist, digits, cifar10, cifar100, cats, xor, linear, xor-easy;")
    fails("whatever", "a folder of IDX files", "a folder of images", "an .npz", "a table")
    for missing in ("./mnist", "no/such", "gone.npz", str(tmp_path / "gone"), tmp_path / "gone"):
        fails(missing, "no such file or folder")
    (tmp_path / "a.pkl").write_text("1,2")
    fails(tmp_path / "a.pkl", "not a kind of file that is read here", "a table (*.csv, *.tsv), an .npz")


def test_missing_mnist_says_what_to_do(tmp_path):
    fails(
        "mnist",
        str(tmp_path / "data" / "mnist"),
        "gpunet data fetch mnist",
        "--dataset digits",
        "GPUNET_DATA",
    )


def test_mnist_from_the_data_folder(tmp_path):
    arrays = small_arrays((28, 28), classes=10)
    write_folder(tmp_path / "data" / "mnist", arrays, ".gz")
    assert load("mnist").shape == (28, 28)
    assert load("mnist", data_dir=tmp_path / "data").name == "mnist"
    (tmp_path / "data" / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    fails("mnist", "t10k-labels-idx1-ubyte.gz")
    write_folder(tmp_path / "data" / "mnist", arrays)
    assert load("mnist").classes == 10


def test_digits():
    data = load("digits")
    assert (data.x_train.shape, data.x_test.shape, data.shape, data.classes) == (
        (1442, 64),
        (355, 64),
        (8, 8),
        10,
    )
    assert (data.x_train.dtype, data.x_train.min(), data.x_train.max()) == (np.uint8, 0, 255)
    assert data.source == "embedded"
    shares = np.bincount(data.y_test) / (np.bincount(data.y_test) + np.bincount(data.y_train))
    assert (abs(shares - 0.2) < 0.01).all()
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    seen, test = dict.fromkeys(range(10), 0), []
    for row, label in enumerate(labels.tolist()):
        seen[label] += 1
        test += [row] if seen[label] % 5 == 0 else []
    np.testing.assert_array_equal(data.y_test, labels[test])
    np.testing.assert_allclose(data.x_test, images[test] * 255 / 16, atol=0.5)


def test_data_dir(monkeypatch, tmp_path):
    assert data_dir() == tmp_path / "data"
    assert data_dir(tmp_path) == tmp_path
    monkeypatch.setenv("GPUNET_DATA", "~/sets")
    assert data_dir() == Path.home() / "sets"
    for unset in (lambda: monkeypatch.setenv("GPUNET_DATA", ""), lambda: monkeypatch.delenv("GPUNET_DATA")):
        unset()
        assert "gpunet" in data_dir().parts


def test_the_real_mnist(real_data):
    data = load("mnist", data_dir=real_data)
    assert (data.x_train.shape, data.x_test.shape, data.shape, data.classes) == (
        (60000, 784), (10000, 784), (28, 28), 10,
    )  # fmt: skip
    assert data.y_train[:5].tolist() == [5, 0, 4, 1, 9]
    assert data.y_test[:5].tolist() == [7, 2, 1, 0, 4]
    assert np.bincount(data.y_train).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert round(float(data.x_train.mean(dtype=np.float64)), 3) == 33.318


def test_the_real_mnist_has_the_registered_checksums(real_data):
    assert datasets.status("mnist", data_dir=real_data).state == "verified"


def test_importing_is_cheap():
    """`gpunet --help` must answer at once, so nothing heavy is imported before it is needed."""
    code = (
        "import sys, gpunet.datasets, gpunet.cli.data; gpunet.datasets.names(); gpunet.datasets.data_dir()\n"
        "print(*{'numpy', 'pooch', 'requests', 'sklearn', 'h5py', 'PIL', 'scipy', 'tarfile'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_lazy_names_are_all_there():
    for name in datasets.__all__:
        assert getattr(datasets, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = datasets.nonsense
