"""Data that is read piece by piece: every kind gives what the array gives, and mistakes name file and row."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest

import gpunet as gn
from gpunet.errors import DataError, InputError, ShapeError
from gpunet.linalg import StreamingClassGram, matrix, sources
from gpunet.linalg.sources import Source, opened, source_of

svd_module = importlib.import_module("gpunet.linalg.svd")
ROWS, FEATURES = 700, 12


def numbers(dtype="float32", rows=ROWS, features=FEATURES):
    rng = np.random.default_rng(7)
    if np.dtype(dtype).kind in "iu":
        return rng.integers(0, 200, (rows, features)).astype(dtype)
    return (rng.normal(size=(rows, features)) * np.geomspace(1, 30, features)).astype(dtype)


def write_shards(folder, x, count=5, name="x-{:03d}.npy"):
    folder.mkdir(exist_ok=True)
    for number, part in enumerate(np.array_split(x, count)):
        np.save(folder / name.format(number), part)
    return folder


def as_hdf5(folder, x):
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "x.h5", "w") as file:
        file["deep/x"] = x
        file["y"] = np.arange(3)
    return folder / "x.h5"


def as_zarr(folder, x):
    zarr = pytest.importorskip("zarr", reason="zarr is not installed: pip install 'gpunet[dask]'")
    array = zarr.open(str(folder / "x.zarr"), mode="w", shape=x.shape, chunks=(100, 5), dtype=x.dtype)
    array[:] = x
    return array


def as_dask(x):
    dask = pytest.importorskip("dask.array", reason="dask is not installed: pip install 'gpunet[dask]'")
    return dask.from_array(x, chunks=(130, 5))


def saved(folder, x, name="x.npy"):
    np.save(folder / name, x)
    return folder / name


def shards_of_two_kinds(folder, x):
    half = len(x) // 2
    np.save(folder / "1.npy", x[:half])
    np.save(folder / "2.npy", np.asfortranarray(x[half:]))
    np.save(folder / "10.npy", x[:0])
    return [folder / f"{number}.npy" for number in (1, 10, 2)]  # in the order given


def plain_archive(folder, x):
    np.savez(folder / "x.npz", x=x, other=x[:3])
    return f"{folder / 'x.npz'}::x"


KINDS = {
    "array": lambda folder, x: x,
    "path": saved,
    "text": lambda folder, x: str(saved(folder, x)),
    "Fortran": lambda folder, x: saved(folder, np.asfortranarray(x)),
    "other byte order": lambda folder, x: saved(folder, x.astype(x.dtype.newbyteorder(">"))),
    "memory map": lambda folder, x: np.load(saved(folder, x), mmap_mode="r"),
    "its rows": lambda folder, x: np.load(saved(folder, np.concatenate([x[:5], x])), mmap_mode="r")[5:],
    "written map": lambda folder, x: np.load(saved(folder, x), mmap_mode="r+"),
    "npz": plain_archive,
    "shards": lambda folder, x: write_shards(folder / "shards", x),
    "pattern": lambda folder, x: str(write_shards(folder / "s", x, 12, "part-{}.npy") / "part-*.npy"),
    "list": shards_of_two_kinds,
    "by number": lambda folder, x: write_shards(folder / "n", x, 12, "{}.npy"),
    "of as many": lambda folder, x: write_shards(folder / "t", x, 4, "x-{:05d}-of-00004.npy"),
    "HDF5": lambda folder, x: f"{as_hdf5(folder, x)}::deep/x",
    "HDF5 dataset": lambda folder, x: pytest.importorskip("h5py").File(as_hdf5(folder, x))["deep/x"],
    "Zarr": lambda folder, x: (as_zarr(folder, x), folder / "x.zarr")[1],
    "Zarr array": as_zarr,
    "dask": lambda folder, x: as_dask(x),
}  # fmt: skip


@pytest.fixture(params=list(KINDS))
def kind(request):
    return KINDS[request.param]


@pytest.fixture
def piecewise(monkeypatch):
    """Nothing is read as a whole, and little at a time."""
    monkeypatch.setattr(sources, "LOADED", 0)
    monkeypatch.setattr(svd_module, "few_calls", lambda m, n: False)
    for module in (sources, matrix):
        monkeypatch.setattr(module, "READ_BYTES", 8 << 10)
    monkeypatch.setattr(matrix, "WHOLE_ELEMENTS", 64)
    monkeypatch.setattr(matrix, "CHUNK_BYTES", 16 << 10)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64", "float16", "int64"])
def test_every_kind_gives_the_arrays_bits(tmp_path, kind, dtype):
    x = numbers(dtype)
    found, same = gn.gram(kind(tmp_path, x), batch=100), gn.gram(x, batch=100)
    assert (found.count, found.features) == (ROWS, FEATURES)
    assert np.array_equal(found.gram(), same.gram())
    assert np.array_equal(found.mean, same.mean)
    whole = gn.StreamingGram().update(x)
    if dtype == "uint8":
        assert np.array_equal(found.gram(), whole.gram())
    np.testing.assert_allclose(found.gram(), whole.gram(), rtol=1e-13, atol=1e-13 * np.abs(whole.gram()).max())


@pytest.mark.parametrize("tall", [True, False])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_svd_reads_every_kind(tmp_path, kind, dtype, tall, piecewise):
    x = numbers(dtype) if tall else np.ascontiguousarray(numbers(dtype).T)
    given = kind(tmp_path, x)
    assert isinstance(opened(given), Source) == (not isinstance(given, np.ndarray) or isinstance(given, np.memmap))
    found, same = gn.svd(given, 3), gn.svd(x, 3)
    assert found.residual <= found.tol
    assert found.u.shape == (len(x), 3)
    np.testing.assert_allclose(found.s, same.s, rtol=2e-6)
    np.testing.assert_allclose(found.vt, same.vt, atol=1e-4)


def test_how_often_a_decomposition_reads(tmp_path, piecewise, monkeypatch):
    path, read = saved(tmp_path, numbers()), []
    monkeypatch.setattr(sources.NpyFile, "rows", lambda self, a, b: read.append(b - a) or self._rows(a, b))
    gn.svd(path, 3, compute="right")
    assert sum(read) == 2 * ROWS  # the Gram matrix, and what tells how good it is
    read.clear()
    gn.svd(path, 3)
    assert sum(read) == 3 * ROWS
    read.clear()
    gn.class_pca(path, np.arange(ROWS) % 3, 2)
    assert sum(read) == ROWS
    assert max(read) * FEATURES * 4 <= max(8 << 10, 1024 * FEATURES * 4)


@pytest.mark.parametrize("options", [{}, {"center": True}, {"fraction": 0.4, "seed": 3}])
def test_class_pca_of_a_source(tmp_path, kind, piecewise, options):
    x, labels = numbers(), np.arange(ROWS) % 3 - 1
    given = kind(tmp_path, x)
    found, same = gn.class_pca(given, labels, 2, **options), gn.class_pca(x, labels, 2, **options)
    assert np.array_equal(found.counts, same.counts)
    assert np.array_equal(found.classes, [-1, 0, 1])
    np.testing.assert_allclose(found.components, same.components, atol=2e-5)
    np.testing.assert_allclose(found.explained_variance_ratio, same.explained_variance_ratio, rtol=1e-5)


def test_labels_may_be_a_file(tmp_path):
    x, labels = numbers("uint8"), np.arange(ROWS) % 4
    same = StreamingClassGram().update(x, labels)
    given = [labels, labels.tolist(), saved(tmp_path, labels, "y.npy"), write_shards(tmp_path / "y", labels)]
    for each in [*given, saved(tmp_path, labels[:, None], "column.npy")]:
        found = gn.gram(saved(tmp_path, x), each, batch=64)
        assert sorted(found.classes) == [0, 1, 2, 3]
        assert all(np.array_equal(found.classes[c].gram(), same.classes[c].gram()) for c in range(4))


def test_samples_of_more_dimensions_are_flattened(tmp_path):
    x = numbers("uint8").reshape(ROWS, 3, 4)
    assert np.array_equal(gn.gram(saved(tmp_path, x)).gram(), gn.gram(x.reshape(ROWS, 12)).gram())
    assert gn.svd(saved(tmp_path, x[:5]), 1).u.shape == (5, 3, 1)  # a stack of matrices, as np.load gives it


def test_iterables_of_batches():
    x, labels = numbers("uint8"), np.arange(ROWS) % 2
    cuts = [slice(start, start + 33) for start in range(0, ROWS, 33)]
    assert np.array_equal(gn.gram(x[cut] for cut in cuts).gram(), gn.gram(x).gram())
    by_class, same = gn.gram([(x[cut], labels[cut]) for cut in cuts]), gn.gram(x, labels)
    assert all(np.array_equal(by_class.classes[c].gram(), same.classes[c].gram()) for c in (0, 1))
    assert gn.gram(iter([])).count == 0


def test_a_source_can_be_sent_to_another_process(tmp_path, kind):
    x = numbers()
    source = source_of(kind(tmp_path, x))
    assert source is not None
    part = pickle.dumps(source.part(100, 200))
    assert np.array_equal(pickle.loads(part).rows(150, 190), x[150:190])  # noqa: S301
    if type(source) is not sources.Sliced:
        assert len(part) < 2000


# -- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("door", [gn.gram, lambda x: gn.svd(x, 2), lambda x: gn.class_pca(x, np.arange(ROWS) % 2, 1)])
@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_nan_is_named_by_file_and_row(tmp_path, door, bad, piecewise):
    x = numbers()
    write_shards(tmp_path / "x", x, 20)
    x = np.load(tmp_path / "x" / "x-017.npy")
    x[3, 5] = bad
    np.save(tmp_path / "x" / "x-017.npy", x)
    with pytest.raises(InputError, match=rf"x-017\.npy holds {bad} at \[3, 5\]: expected finite numbers"):
        door(tmp_path / "x")


def hole(folder):
    write_shards(folder / "x", numbers(), 9)
    os.remove(folder / "x" / "x-004.npy")
    return folder / "x"


def end(folder):
    write_shards(folder / "x", numbers(), 4, "x-{}-of-4.npy")
    os.remove(folder / "x" / "x-3-of-4.npy")
    return folder / "x"


def wider(folder):
    np.save(write_shards(folder / "x", numbers()) / "x-005.npy", numbers(features=13))
    return folder / "x"


def finer(folder):
    np.save(write_shards(folder / "x", numbers()) / "x-005.npy", numbers("float64"))
    return folder / "x"


def cut(folder):
    content = saved(folder, numbers()).read_bytes()
    (folder / "cut.npy").write_bytes(content[:-1])
    return folder / "cut.npy"


def packed(folder):
    np.savez_compressed(folder / "p.npz", x=numbers())
    return folder / "p.npz"


def lying(folder):
    """An archive whose member says that it is larger than it is, with something behind."""
    np.savez(folder / "lie.npz", x=np.zeros((100, 3), np.uint8))
    content = (folder / "lie.npz").read_bytes().replace(b"(100, 3)", b"(103, 3)")
    (folder / "lie.npz").write_bytes(content)
    return folder / "lie.npz"


def objects(folder):
    np.save(folder / "o.npy", np.array([[{}]]), allow_pickle=True)
    return folder / "o.npy"


def damaged_archive(folder):
    (folder / "d.npz").write_bytes(b"PK\x03\x04 nothing")
    return folder / "d.npz"


MISTAKES = {
    "missing": (lambda folder: folder / "no.npy", DataError, "there is no file or folder '.*no.npy': expected FILE"),
    "empty folder": (lambda folder: folder, DataError, "holds no .npy files and no Zarr array"),
    "hole": (hole, DataError, r"lacks x-004\.npy, between shards 0 and 8: expected all of them"),
    "end": (end, DataError, r"lacks x-3-of-4\.npy, between shards 0 and 3"),
    "width": (wider, ShapeError, r"x-005\.npy has samples of shape \(13\), .*x-000\.npy of \(12\): expected the same"),
    "dtype": (finer, DataError, r"x-005\.npy holds float64, .*x-000\.npy float32: expected the same"),
    "cut": (cut, DataError, r"cut\.npy is cut short: expected .* bytes of 700×12 float32, found"),
    "compressed": (packed, DataError, "is compressed, and can only be read as a whole: expected what numpy.savez"),
    "lying": (lying, DataError, "is damaged: its header says more than it holds"),
    "objects": (objects, DataError, "dtype object: expected real numbers"),
    "archive": (damaged_archive, DataError, "is no sound .npz file"),
    "several": (lambda f: plain_archive(f, numbers()).split("::")[0], DataError, "holds several: expected one of x, o"),
    "member": (lambda f: plain_archive(f, numbers()) + "x", DataError, "holds no 'xx': expected one of x, other"),
    "member of none": (lambda f: f"{saved(f, np.ones((3, 2)))}::x", DataError, "::x names a member of what has none"),
    "names": (lambda f: saved(f, np.array(["a"])), DataError, "dtype <U1: .* of labels numpy.unique"),
    "text": (lambda f: (f / "t.npy").write_text("x") and f / "t.npy", DataError, "is no .npy file .*: expected what"),
    "complex": (lambda f: saved(f, np.ones((2, 2), complex)), DataError, "dtype complex128: expected real numbers"),
    "one number": (lambda f: saved(f, np.ones(())), ShapeError, "a single number: expected samples"),
    "flat": (lambda f: saved(f, np.ones(5)), ShapeError, r"shape \(5,\): expected samples \(n, features\)"),
    "no rows": (lambda f: saved(f, np.ones((0, 5))), ShapeError, r"is empty, shape \(0, 5\)"),
    "integers": (lambda f: saved(f, np.full((3, 2), 2**60)), InputError, r"as large as 1152921504606846976, beyond 2"),
    "address": (lambda f: "s3://me:secret@host/x", InputError, r"'s3://me:\*\*\*@host/x', an address: expected a path"),
    "number": (lambda f: 3, InputError, "source is 3: expected a path, an array or an iterable of batches"),
    "lists": (lambda f: [[1.0, 2.0]], ShapeError, r"batch 0 has shape \(2,\): expected \(samples, features\)"),
    "mixed": (lambda f: [(numbers(), [0] * ROWS), numbers()], InputError, "batch 1 of the iterable has 1 parts"),
    "late NaN": (
        lambda f: [numbers(), np.full((1, FEATURES), np.nan, "f")], InputError,
        r"batch 1 of the iterable: batch holds nan at \[0, 0\]",
    ),
    "pipe": (lambda f: os.mkfifo(f / "p.npy") or f / "p.npy", DataError, "is no plain file: expected what numpy.save"),
    "masked": (lambda f: np.ma.masked_array(numbers()), InputError, "mask"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(MISTAKES))
def test_mistakes_are_told_with_file_and_what_to_do(tmp_path, name):
    make, error, words = MISTAKES[name]
    with pytest.raises(error, match=words):
        gn.gram(make(tmp_path))


def test_more_mistakes(tmp_path):
    path = saved(tmp_path, numbers())
    with pytest.raises(ShapeError, match=r"labels have shape \(3,\): expected \(700,\)"):
        gn.gram(path, [1, 2, 3])
    with pytest.raises(InputError, match="labels have dtype float64: expected integers"):
        gn.gram(path, np.zeros(ROWS))
    with pytest.raises(InputError, match="batch is 0: expected a whole number ≥ 1"):
        gn.gram(path, batch=0)
    with pytest.raises(InputError, match="expected their labels with them"):
        gn.gram(iter([numbers()]), np.zeros(ROWS, int))
    with pytest.raises(InputError, match=r"iterator.*gn\.gram\(batches\)\.components\(k\)"):
        gn.svd(iter([numbers()]), 2)
    with pytest.raises(InputError, match=r"executor is 2: expected a concurrent\.futures\.Executor"):
        gn.gram(path, executor=2)


def test_nothing_in_a_zarr_folder_is_run(tmp_path):
    """A codec that unpickles chunks is Zarr's own to refuse, and it does."""
    pytest.importorskip("zarr", reason="zarr is not installed: pip install 'gpunet[dask]'")
    pickled = {"id": "pickle", "protocol": 5}
    for number, codecs in enumerate(
        [{"filters": [pickled], "compressor": None}, {"filters": None, "compressor": pickled}]
    ):
        folder = tmp_path / f"x{number}.zarr"
        folder.mkdir()
        known = {"zarr_format": 2, "shape": [4, 3], "chunks": [4, 3], "dtype": "<f4", "fill_value": 0, "order": "C"}
        (folder / ".zarray").write_text(json.dumps(known | codecs))
        (folder / "0.0").write_bytes(pickle.dumps(Runs(tmp_path / "ran")))
        with pytest.raises(DataError, match="is no sound Zarr array"):
            gn.gram(folder)
    assert not (tmp_path / "ran").exists()


class Runs:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_file_that_shrinks_while_it_is_read(tmp_path):
    path = saved(tmp_path, numbers())
    source = source_of(path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match="cut short"):
        source.rows(600, 700)
    path.unlink()
    with pytest.raises(DataError, match=r"cannot be read on .*: No such file"):
        source.rows(0, 1)


def test_a_member_in_an_archive_of_several_is_read_where_it_stands(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        for name in ("a", "b"):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, numbers("uint8", 10 if name == "a" else 20))
    assert gn.gram(f"{tmp_path / 'x.npz'}::b").count == 20


# -- size -------------------------------------------------------------------------------------------------------------

SIZE = """
import resource, sys, time
import numpy as np, gpunet as gn
door, path = sys.argv[1:]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
if door == "gram":
    gn.gram(path).components(5)
elif door == "svd":
    gn.svd(path, 5, compute="right")
else:
    gn.class_pca(path, np.arange(2_000_000) % 2, 3)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="what a process has had in memory is told in other units here")
@pytest.mark.parametrize("door", ["gram", "svd", "class_pca"])
def test_memory_is_bounded(tmp_path, door):
    """512 MB are read by a process that takes less than a third of it beyond what it began with."""
    out = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", "float32", (2_000_000, 64))
    rng = np.random.default_rng(0)
    for start in range(0, len(out), 200_000):
        out[start : start + 200_000] = rng.random((200_000, 64), np.float32)
    del out
    code = subprocess.run(
        [sys.executable, "-c", SIZE, door, str(tmp_path / "x.npy")], capture_output=True, text=True, check=True
    )
    assert float(code.stdout) < 160, code.stdout


def test_a_generator_may_fill_the_same_memory_again():
    def batches(labelled):
        x, y = np.empty((10, 3)), np.empty(10, int)
        for number in range(5):
            x[:], y[:] = number, number % 2
            yield (x, y) if labelled else x

    sums = gn.gram(batches(False))
    assert sums.mean.tolist() == [2, 2, 2]
    assert {label: own.count for label, own in gn.gram(batches(True)).classes.items()} == {0: 30, 1: 20}


@pytest.mark.parametrize("header", ["(" * 100, '"""', "{'descr': [[["])
def test_headers_that_do_not_end_are_one_line(header, tmp_path):
    text = header.encode() + b"\n"
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(64))
    with pytest.raises(gn.errors.DataError, match=r"^[^\n]*x.npy is no .npy file[^\n]*$"):
        gn.gram(tmp_path / "x.npy")


def test_names_of_shards_may_hold_any_digits(tmp_path):
    for name in ("x1²3", "x1²4"):
        np.save(tmp_path / f"{name}.npy", np.ones((2, 3)))
    assert gn.gram(tmp_path).count == 4


def test_arrays_of_other_libraries_are_sources(rng):
    class Frame:
        """Has a shape, and gives an array."""

        shape = (20, 3)

        def __init__(self):
            self.values = rng.standard_normal(self.shape)

        def __array__(self, dtype=None, copy=None):
            return np.array(self.values, dtype)

        def __iter__(self):
            return iter("abc")

    frame = Frame()
    np.testing.assert_array_equal(gn.gram(frame).gram(), gn.gram(frame.values).gram())


def test_a_pattern_that_found_nothing_is_told():
    with pytest.raises(gn.errors.InputError, match="empty list: expected paths"):
        gn.gram([])
