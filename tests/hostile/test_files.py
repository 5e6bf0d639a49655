"""Files of somebody else's: those that would take gigabytes cost nothing, and every one is read rightly or refused."""

from __future__ import annotations

import gzip
import io
import json
import random
import struct
import sys
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from unittest.mock import ANY

import numpy as np
import pytest

import gpunet as gn
from gpunet import datasets, limits
from gpunet.bench import report as bench_report
from gpunet.bench import results
from gpunet.errors import DataError, GpunetError, InputError
from gpunet.limits import parse_json, read_json

from . import mutated_files
from .mutations import flip
from .readers import Reader, arrays, cats_files, idx_bytes, idx_files, image_files, known, npz_files, readers

MB = 1 << 20


def refused(call: Callable[[], object], path: Path, *words: str, most: int = 32 * MB) -> str:
    """The one line with which it ends, before it has taken much memory or time."""
    began = time.perf_counter()
    tracemalloc.start()
    try:
        with pytest.raises(GpunetError) as caught:
            call()
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - began < 5
    text = str(caught.value)
    assert text.isprintable()
    for word in (str(path), *words):
        assert word in text, text
    return text


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def zeros(size: int) -> bytes:
    """So many zeros, packed as raw deflate without ever being in memory."""
    pack = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(
        [pack.compress(bytes(MB)) for _ in range(size // MB)] + [pack.compress(bytes(size % MB)), pack.flush()]
    )


# -- what would take gigabytes ----------------------------------------------------------------------------------------


@pytest.fixture(params=[8 * MB, pytest.param(300 * MB, marks=pytest.mark.slow)])
def size(request, monkeypatch):
    """Of what a small file unpacks to: beyond the limit, or beyond a lower one, which takes less time."""
    if request.param < limits.UNPACKED:
        monkeypatch.setenv(limits.VARIABLE, str(2 * MB))
    return request.param


@pytest.mark.parametrize("dtype", ["|u1", "<f8"])
def test_an_npz_of_zeros(tmp_path, dtype, size):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays(0).items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                if name == "x_train":
                    rows = size // 10 // np.dtype(dtype).itemsize
                    np.lib.format.write_array_header_1_0(
                        member, {"descr": dtype, "fortran_order": False, "shape": (rows, 10)}
                    )
                    for _ in range(size // MB):
                        member.write(bytes(MB))
                else:
                    np.lib.format.write_array(member, array)
    assert path.stat().st_size < MB
    refused(lambda: datasets.load(path), path, "unpacks to", limits.VARIABLE)


def test_a_gzip_of_zeros(tmp_path, size):
    folder = write(tmp_path, idx_files(0, packed=True))
    path = next(folder.glob("*/train-images*"))
    path.write_bytes(gzip.compress(struct.pack(">HBB3I", 0, 8, 3, size // MB, 1024, 1024)) + zeros(size))
    refused(lambda: datasets.load(folder / "set"), path, "×1024×1024", "unpacks to", limits.VARIABLE)


def test_an_hdf5_of_zeros(tmp_path, size):
    import h5py

    folder = write(tmp_path, cats_files(0))
    path = folder / "cats" / "train_catvnoncat.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "train_set_x", (size // 12_000, 64, 64, 3), np.uint8, chunks=(500, 64, 64, 3), compression=9
        )
        file["train_set_x"][:] = np.zeros((size // 12_000, 64, 64, 3), np.uint8)
        file["train_set_y"] = np.arange(size // 12_000) % 2
    assert path.stat().st_size < 2 * MB
    refused(lambda: datasets.load("cats", data_dir=folder), path, "unpacks to", limits.VARIABLE)


def test_images_of_one_colour(tmp_path, size):
    import PIL.Image

    width = int((size / 10) ** 0.5) + 1
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(5):
            PIL.Image.new("L", (width, width)).save(tmp_path / name / f"{i}.png")
    refused(lambda: datasets.load(tmp_path), tmp_path, f"10 images of {width}×{width}", "unpacks to", limits.VARIABLE)
    bomb = in_header((tmp_path / "a" / "0.png").read_bytes(), 60_000, 60_000)
    (tmp_path / "a" / "0.png").write_bytes(bomb)
    refused(lambda: datasets.load(tmp_path), tmp_path / "a" / "0.png", "pixels")


def in_header(png: bytes, width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">II", width, height) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


@pytest.mark.parametrize(
    ("layers", "shape"),
    [
        ([{"layer": "Dense", "units": 10**9}], [7]),
        ([{"layer": "Dense", "units": 7}], [10**9]),
        ([{"layer": "Conv2D", "filters": 10**6, "kernel": 999}], [3, 1000, 1000]),
        ([{"layer": "LowRankDense", "units": 10**9, "rank": 10**5}], [10**6]),
        ([{"layer": "Flatten"}, {"layer": "Dense", "units": 10}], [10**4, 10**4, 10**4]),
        ([{"layer": "Dense", "units": 10**5}] * 50, [10**5]),
    ],
)
def test_a_model_that_is_only_described(tmp_path, layers, shape):
    from safetensors.numpy import save

    path = tmp_path / "model"
    described = {"format": 1, "layers": layers, "input_shape": shape, "dtype": "float32"}
    for held in ({}, {"0.weight": np.zeros((7, 7), np.float32), "0.bias": np.zeros(7, np.float32)}):
        path.write_bytes(save(held, metadata={"gpunet": json.dumps(described)}))
        refused(lambda: gn.load(path, device="numpy"), path, most=MB)


def test_headers_and_descriptions_that_are_long(tmp_path, monkeypatch):
    from gpunet.nn import checkpoint, serialize

    path = tmp_path / "model"
    path.write_bytes(bytes(100))
    with monkeypatch.context() as smaller:
        smaller.setattr(limits, "physical_memory", lambda: 99)
        refused(lambda: gn.load(path, device="numpy"), path, "it has 100 bytes and this machine 99 bytes of memory")
        refused(lambda: checkpoint.load(path), path, "99 bytes of memory")
    for size in (2**64 - 1, 2**40, 17 * MB):
        path.write_bytes(size.to_bytes(8, "little") + b"{}".ljust(min(size, 17 * MB)))
        refused(lambda: gn.load(path, device="numpy"), path, "not a readable safetensors file", most=64 * MB)
        refused(lambda: checkpoint.load(path), path, "not a readable safetensors file", most=64 * MB)
    for layers, shape in (([{"layer": "Flatten"}] * 20_000, [2]), ([{"layer": "Flatten"}], [2**30] * 50_000),
                          ([{"layer": "Reshape", "shape": [2**30] * 50_000}], [2])):  # fmt: skip
        described = {"format": serialize.FORMAT, "layers": layers, "input_shape": shape, "dtype": "float32"}
        path.write_bytes(serialize.seal({}, {"gpunet": json.dumps(described)}))
        refused(lambda: gn.load(path, device="numpy"), path, "description of the model is damaged")


def test_a_sweep_of_more_trials_than_anybody_runs(tmp_path):
    import optuna

    from gpunet.sweep import join
    from gpunet.sweep.study import SPEC, STUDY

    path = tmp_path / "a.log"
    backend = optuna.storages.journal.JournalFileBackend(str(path))
    study = optuna.create_study(study_name=STUDY, storage=optuna.storages.JournalStorage(backend))
    spec = {
        "format": 1,
        "function": "gpunet.x:y",
        "direction": "maximize",
        "seed": 0,
        "space": ["x=0..1"],
        "settings": {},
    }
    study.set_user_attr(SPEC, spec | {"trials": 10**9, "stages": 10**9})
    with pytest.raises(InputError, match="trials is 1000000000: expected at most 1,000,000"):
        join(str(path))


def test_names_of_benchmarks_are_no_paths_and_no_formulas(tmp_path):
    from gpunet.bench.report import report
    from gpunet.report import bench_figures, drawing

    def entry(who, role):
        info = {"case": "$\\frac{$", "who": who, "role": role, "device": "cpu", "pieces": 1}
        return {"group": "../../\x1b$x_{" + "g" * 300, "stats": {"data": [1.0]}, "extra_info": info}

    path = tmp_path / "b.json"
    path.write_text(
        json.dumps({"machine_info": {"gpunet": {}}, "benchmarks": [entry("x", "ours"), entry("y", "rival")]})
    )
    (tmp_path / "out").mkdir()
    (drawn,) = bench_figures.draw(report([path]), tmp_path / "out")
    assert [drawn] == list((tmp_path / "out").iterdir())
    with drawing.collected() as seen:
        bench_figures.draw(report([path]), tmp_path)
    (svg,) = seen.values()
    assert r"$\frac{$: x / y" in svg, "as it stands, neither a formula nor with signs of ours"


def test_rounds_of_a_benchmark(tmp_path):
    """All pairs of 20,000 rounds would be 3.2 GB."""

    def entry(who, role):
        info = {"case": "a", "who": who, "role": role, "device": "cpu", "pieces": 1}
        return {"group": "g", "stats": {"data": [1.0 + i / 1e5 for i in range(20_000)]}, "extra_info": info}

    path = tmp_path / "b.json"
    path.write_text(
        json.dumps({"machine_info": {"gpunet": {}}, "benchmarks": [entry("x", "ours"), entry("y", "rival")]})
    )
    tracemalloc.start()
    (found,) = bench_report.read(path).ratios
    assert tracemalloc.get_traced_memory()[1] < 64 * MB
    tracemalloc.stop()
    assert found.ratio == pytest.approx(1.0)
    low, high = np.percentile(np.divide.outer(*[1.0 + np.arange(0, 20_000, 20) / 1e5] * 2), (25, 75))
    assert found.quartiles == pytest.approx((low, high), rel=1e-3)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000, '{"a":' * 100_000, "1e999999", "-1e999999", "NaN", "[Infinity]", "9" * 1_000_000,
        '{"a":1,"a":2}', '"\\ud800"', "", "\xff", "[1,]", "{'a': 1}", "[" + "0," * 10, "\ufeff{}",
    ],
    ids=lambda text: text[:8],
)  # fmt: skip
def test_json_that_is_hostile(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_bytes(text.encode("latin-1" if text == "\xff" else "utf-8"))
    with pytest.raises(ValueError) as caught:
        read_json(path)
    assert len(str(caught.value)) < 200
    refused(lambda: results.read_sections(path), path) if text not in ("NaN", "[Infinity]") else None
    refused(lambda: bench_report.read(path), path)


def test_json_that_is_long(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_text("[" + "{}," * 400_000 + "0]")
    assert len(read_json(path)) == 400_001
    monkeypatch.setenv(limits.VARIABLE, "8000000")
    with pytest.raises(ValueError, match=f"longer than 1,000,000 bytes; set {limits.VARIABLE}"):
        read_json(path)
    for wrong in ("many", "-1", "1e9", "٣"):
        monkeypatch.setenv(limits.VARIABLE, wrong)
        with pytest.raises(InputError, match=f"{limits.VARIABLE} is .*: expected a number of bytes"):
            read_json(path)


def test_python_writes_nan_which_is_null_where_it_may_be(tmp_path):
    assert parse_json('{"a": NaN, "b": [-Infinity, 1]}', nan=True) == {"a": None, "b": [None, 1]}
    assert parse_json('"\\ud83d\\ude00"') == "😀"


# -- what may not be read otherwise -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_packed_as_numpy_never_does(tmp_path, method):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, array in arrays(0).items():
            out = io.BytesIO()
            np.save(out, array)
            archive.writestr(f"{name}.npy", out.getvalue())
    refused(lambda: datasets.load(path), path, "packed as numpy.savez never does")
    encrypted = bytearray(npz_files(0, np.savez)["set.npz"])
    for place in (encrypted.find(b"PK\x01\x02") + 8, encrypted.find(b"PK\x03\x04") + 6):
        encrypted[place] |= 1
    path.write_bytes(encrypted)
    refused(lambda: datasets.load(path), path, "packed as numpy.savez never does")


def test_a_member_that_stands_twice(tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(npz_files(0, np.savez)["set.npz"])
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("y_test.npy", archive.read("y_test.npy"))
    refused(lambda: datasets.load(path), path, "y_test is in it twice")


def test_names_with_control_characters(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("\x1b[31mx\n\u202e.npy", b"")
    refused(lambda: datasets.load(path), path, "missing x_train", "\\x1b[31mx\\n\\u202e")


def test_bools_that_are_neither(tmp_path):
    """Every byte but 0 is True."""
    x = np.array([[0, 1], [2, 255], [95, 0], [1, 1]], np.uint8).view(bool)
    np.savez(tmp_path / "a.npz", x_train=x, y_train=[0, 1, 0, 1], x_test=x[:2], y_test=[0, 1])
    assert datasets.load(tmp_path / "a.npz").x_train.tolist() == [[0, 255], [255, 255], [255, 0], [255, 255]]


def test_a_known_file_with_other_content(tmp_path, monkeypatch):
    """MNIST's name and size are not enough: Fashion-MNIST has them, too."""
    monkeypatch.setitem(datasets.REGISTRY, "mnist", datasets.entry("mnist"))
    files = idx_files(0, packed=True, folder="mnist")
    known("mnist", files)
    folder = write(tmp_path, files)
    assert len(datasets.load("mnist", data_dir=folder).x_train) == 20
    for name, other in idx_files(1, packed=True, folder="mnist").items():
        path = folder / name
        if other != files[name]:
            path.write_bytes(other)
            refused(lambda: datasets.load("mnist", data_dir=folder), path, "SHA-256 is", "give its folder as a path")
            assert len(datasets.load(folder / "mnist").x_train) == 20
            path.write_bytes(files[name])
    path = folder / "mnist" / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.zeros((8, 3, 2), np.uint8))))
    refused(lambda: datasets.load("mnist", data_dir=folder), path, "SHA-256 is")


@pytest.mark.slow
def test_hdf5_that_ends_its_library(tmp_path, monkeypatch):
    """What is known by its checksum is read here; all else by another process, of which only the answer counts."""
    from gpunet.datasets import cats

    monkeypatch.setitem(datasets.REGISTRY, "cats", datasets.entry("cats"))
    files = cats_files(0)
    folder = write(tmp_path, files)
    apart = datasets.load("cats", data_dir=folder)
    known("cats", files)
    monkeypatch.setattr(cats, "_read_apart", None)
    here = datasets.load("cats", data_dir=folder)
    for part in ("x_train", "y_train", "x_test", "y_test"):
        np.testing.assert_array_equal(getattr(apart, part), getattr(here, part))
        assert getattr(apart, part).flags.writeable
    monkeypatch.undo()
    monkeypatch.setitem(datasets.REGISTRY, "cats", datasets.entry("cats"))
    known("cats", files)
    path = folder / "cats" / "train_catvnoncat.h5"
    content = path.read_bytes()
    path.write_bytes(content.replace(content[-500:-400], bytes(100)))
    refused(lambda: datasets.load("cats", data_dir=folder), path, "SHA-256 is", "fetch it again")
    path.write_bytes(content + b"0")
    path = folder / "cats" / "train_catvnoncat.h5"
    for child, words in (
        ("import os; os.abort()", "broke down over it, exit code -6"),
        ("import os; os._exit(0)", "broke down over it, exit code 0"),
        ("print('{')", "broke down over it"),
    ):
        monkeypatch.setattr(cats, "_CHILD", child)
        refused(lambda: datasets.load("cats", data_dir=folder), path, words, "fetch or copy it again")
    monkeypatch.setattr(cats, "_CHILD", "import time; time.sleep(60)")
    monkeypatch.setattr(cats, "SECONDS", 0.2)
    refused(lambda: datasets.load("cats", data_dir=folder), path, "takes more than 0.2 s")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    refused(lambda: datasets.load("cats", data_dir=folder), path, "no process could be started")


def test_a_png_with_a_flipped_pixel(tmp_path):
    folder = write(tmp_path, image_files(0, "png"))
    path = folder / "set" / "cats" / "1.png"
    content = bytearray(path.read_bytes())
    content[content.find(b"IDAT") + 20] ^= 1
    path.write_bytes(content)
    refused(lambda: datasets.load(folder / "set"), path)


# -- many of them -----------------------------------------------------------------------------------------------------

QUICK = (
    "IDX",
    "npz",
    "png",
    "jpeg",
    "model",
    "weights",
    "checkpoint",
    "benchmarks",
    "sections",
    "cifar10",
    "fetched",
    "adapter",
)


@pytest.fixture
def _registry(monkeypatch):
    from gpunet.sweep import study

    monkeypatch.setattr(study, "SILENCE", study.SILENCE)
    kept = dict(datasets.REGISTRY)
    yield
    datasets.REGISTRY.clear()
    datasets.REGISTRY.update(kept)


@pytest.mark.usefixtures("_registry")
def test_a_few_mutated_files_of_most_readers(tmp_path):
    table = [each for each in readers() if each.name.startswith(QUICK)]
    ends = []
    for number in range(160):
        reader, rng = mutated_files.chosen(table, 7, number)
        ends.append((number, *mutated_files.examine(reader, rng, tmp_path / "case")))
    assert [each for each in ends if each[1] == "finding"] == []
    assert sum(kind == "loaded" for _, kind, _ in ends) > 10
    assert sum(kind == "refused" for _, kind, _ in ends) > 80


def test_the_driver_sees_what_is_wrong(tmp_path, monkeypatch):
    """An error that is not ours, one that names no file, one of two lines, and data that is other data."""

    def ends(call, **options):
        reader = Reader("pretended", lambda seed: {"a": b"abc"}, call, ("a",), (flip,), **options)
        return mutated_files.examine(reader, random.Random(1), tmp_path / "case")

    def raises(error):
        def call(folder):
            raise error

        return call

    class TwoLinesError(GpunetError):
        def __str__(self):
            return f"a\n{tmp_path}"

    monkeypatch.setattr(mutated_files, "_FILES", {})
    monkeypatch.setattr(mutated_files, "_ORIGINALS", {})
    assert ends(raises(KeyError("x"))) == ("finding", "pretended, flip of a: KeyError: \"'x'\"")
    assert ends(raises(DataError("not in order"))) == ("finding", ANY)
    assert ends(raises(TwoLinesError())) == ("finding", ANY)
    assert ends(raises(DataError(f"{tmp_path / 'case'} is bad"))) == ("refused", "")
    read = lambda folder: (folder / "a").read_bytes()  # noqa: E731
    assert ends(read, protected=True) == ("finding", ANY)
    assert ends(read, expected=lambda folder: b"abc") == ("finding", ANY)
    assert ends(read, expected=read) == ("loaded", "")


@pytest.mark.slow
def test_many_mutated_files_of_every_reader():
    findings, counts = mutated_files.run(1500, seed=11, jobs=2)
    assert findings == []
    assert counts["refused"] > 500
