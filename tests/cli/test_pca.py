"""`gpunet pca`: what it computes and leaves, who computes it, and mistakes in one line with nothing half-written."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import gpunet as gn
from gpunet import decompose
from gpunet.linalg import StreamingClassGram, executors

from ..experiments.schema import PROVENANCE, is_png
from .runner import SCRIPT, files, run, start

WHOLE = ["components.npz", "components.safetensors", "result.json", "spectrum.png"]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def numbers(dtype="float32", rows=3000, features=30):
    rng = np.random.default_rng(2)
    if dtype == "uint8":
        return rng.integers(0, 256, (rows, features), dtype="uint8")
    return (rng.normal(size=(rows, features)) * np.geomspace(1, 20, features) + 3).astype(dtype)


def pca(capsys, *arguments):
    """A run that must succeed: what it printed, and its result."""
    done = run(capsys, "pca", *arguments)
    assert (done.code, [line for line in done.err.splitlines() if not line.startswith("sums over")]) == (0, [])
    return done


def refused(capsys, code, *arguments, words):
    done = run(capsys, "pca", *arguments)
    said = [line for line in done.err.splitlines() if not line.startswith("sums over")]
    assert (done.code, done.out, len(said)) == (code, "", 1), done.err
    assert said[0].startswith("gpunet: ")
    assert "--debug" not in said[0]
    for word in words:
        assert word in said[0]
    for name in Path().rglob("*"):
        assert name.name not in WHOLE
        assert not name.name.endswith(".part")


def read(folder):
    assert files(folder) == WHOLE
    assert is_png((folder / "spectrum.png").read_bytes())
    document = json.loads((folder / "result.json").read_text(), parse_constant=pytest.fail)
    assert set(document["provenance"]) >= PROVENANCE
    arrays = dict(np.load(folder / "components.npz"))
    other = load_file(folder / "components.safetensors")
    assert sorted(arrays) == sorted(other)
    assert all(np.array_equal(arrays[name], other[name]) for name in arrays)
    return document, arrays


@pytest.mark.filterwarnings("default")
def test_a_spectrum_that_cannot_be_drawn_is_not_that_of_an_earlier_run(capsys, monkeypatch):
    np.save("x.npy", numbers())
    pca(capsys, "x.npy", "--k", 2, "-o", "out")

    def lost(parts, title, folder):
        raise ImportError("No module named 'matplotlib'", name="matplotlib")

    def write(found, folder, writing=decompose.Found.write_arrays):
        assert files(folder) == ["components.npz", "components.safetensors", "result.json"]
        writing(found, folder)

    monkeypatch.setattr("gpunet.report.spectrum_figure.draw", lost)
    monkeypatch.setattr(decompose.Found, "write_arrays", write)
    done = run(capsys, "pca", "x.npy", "--k", 3, "-o", "out")
    assert (done.code, done.err.count("could not be drawn")) == (0, 1)
    assert "Written: out/result.json\n" in done.out
    assert files(Path("out")) == ["components.npz", "components.safetensors", "result.json"]


def test_a_long_name_is_cut_in_its_middle(capsys, tmp_path):
    np.save(f"{'c' * 120}{'d' * 120}.npy", numbers())
    done = pca(capsys, f"{'c' * 120}{'d' * 120}.npy", "--k", 2)
    assert done.code == 0
    assert "warning" not in done.err
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name == f"pca-{'c' * 30}-{'d' * 26}.npy"
    read(folder)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_components_of_a_file(capsys, tmp_path, dtype):
    np.save("x.npy", numbers(dtype))
    done = pca(capsys, "x.npy", "--k", 5, "--center")
    document, arrays = read(tmp_path / "runs" / "pca-x.npy")
    expected = gn.gram(numbers(dtype), center=True).components(5)
    for name in ("components", "explained_variance", "explained_variance_ratio", "mean"):
        assert np.array_equal(arrays[name], getattr(expected, name))
    assert np.array_equal(arrays["sigma"], expected.certificate.sigma)
    assert (arrays["center"], arrays["count"]) == (True, 3000)
    sigma = np.linalg.svd(numbers(dtype).astype(float) - numbers(dtype).mean(axis=0, dtype=float), compute_uv=False)[:5]
    assert (arrays["sigma"][:, 0] <= sigma * (1 + 1e-13)).all()
    assert (sigma * (1 - 1e-13) <= arrays["sigma"][:, 1]).all()
    (part,) = document["parts"]
    assert (part["class"], part["count"], part["certificate"]["complete"]) == (None, 3000, True)
    assert document["shape"] == [3000, 30]
    assert document["settings"] == {
        "k": 5, "center": True, "reproducible": False, "workers": 1, "scheduler": None, "device": "cpu",
    }  # fmt: skip
    for words in ("x.npy: 3000 × 30", "about the mean", "none of the 5 largest was missed", "sine of at most", "MB/s",
                  "components.safetensors, components.npz", "result.json, spectrum.png"):  # fmt: skip
        assert words in done.out
    assert re.search(r"sums over 0 MB: \d+/\d+ .*MB/s", done.err)


def test_all_components_there_are(capsys, tmp_path):
    np.save("x.npy", numbers(rows=20).reshape(20, 3, 10))
    pca(capsys, "x.npy", "-o", "out", "--center")
    assert read(tmp_path / "out")[1]["components"].shape == (19, 30)


def test_class_by_class(capsys, tmp_path):
    labels = np.arange(3000) % 3
    np.savez("x.npz", x=numbers("uint8"), y=labels)
    done = pca(capsys, "x.npz::x", "--labels", "x.npz::y", "-k", 2, "-o", "out")
    document, arrays = read(tmp_path / "out")
    expected = StreamingClassGram().update(numbers("uint8"), labels).components(2)
    assert np.array_equal(arrays["components"], expected.components)
    assert [part["class"] for part in document["parts"]] == [0, 1, 2]
    assert [len(part["explained_variance"]) for part in document["parts"]] == [2, 2, 2]
    assert "class 2: 1" in done.out
    assert "in 3 of 3 classes" in done.out


def test_classes_that_have_names(capsys, tmp_path):
    names = np.array(["Café", "zoo"])
    np.save("x.npy", numbers("uint8"))
    np.save("y.npy", names[np.arange(3000) % 2])
    done = pca(capsys, "x.npy", "--labels", "y.npy", "-k", 2, "-o", "out")
    document, arrays = read(tmp_path / "out")
    assert [(part["class"], part["name"]) for part in document["parts"]] == [(0, "Café"), (1, "zoo")]
    assert "class Café: 1" in done.out
    expected = StreamingClassGram().update(numbers("uint8"), np.arange(3000) % 2).components(2)
    assert np.array_equal(arrays["components"], expected.components)


def test_labels_of_whole_floats_are_those_numbers(capsys, tmp_path):
    np.save("x.npy", numbers("uint8"))
    np.save("y.npy", np.arange(3000) % 2 + 1.0)
    pca(capsys, "x.npy", "--labels", "y.npy", "-k", 2, "-o", "out")
    assert [(part["class"], "name" in part) for part in read(tmp_path / "out")[0]["parts"]] == [(1, False), (2, False)]
    np.save("y.npy", np.arange(3000) % 2 + 0.5)
    run(capsys, "pca", "x.npy", "--labels", "y.npy").one_line(2, "y.npy row 0 is 0.5; expected classes")


def test_tables_are_not_read(capsys, tmp_path):
    (tmp_path / "wine.csv").write_text("1,2,x\n")
    run(capsys, "pca", "wine.csv").one_line(2, "'wine.csv' is a table, which is not read here", "numpy.save")


def test_json(capsys, tmp_path):
    np.save("x.npy", numbers())
    done = pca(capsys, "x.npy", "-k", 2, "--json", "-o", "out")
    assert done.out == (tmp_path / "out" / "result.json").read_text()


@pytest.mark.parametrize("name", ["x.npy", "some/shards", "d.h5::deep/x", "shards/x-*.npy", "../a b.npz::x"])
def test_the_folder_is_named_after_the_file(name):
    from gpunet.cli.pca import _name

    assert re.fullmatch(r"[\w.-]+", _name(name))


# -- workers ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_workers_give_the_same_bits(capsys, tmp_path):
    np.save("x.npy", numbers(rows=300_000))
    pca(capsys, "x.npy", "-k", 3, "-o", "one")
    pca(capsys, "x.npy", "-k", 3, "-o", "two", "--workers", 2)
    shards()
    np.save("all.npy", numbers())
    pca(capsys, "all.npy", "-k", 3, "-o", "whole", "--reproducible")
    pca(capsys, "x", "-k", 3, "-o", "parts", "--reproducible")
    whole, parts = read(tmp_path / "whole")[1], read(tmp_path / "parts")[1]
    assert all(np.array_equal(whole[name], parts[name]) for name in whole)
    alone, together = read(tmp_path / "one")[1], read(tmp_path / "two")[1]
    assert all(np.array_equal(alone[name], together[name]) for name in alone)


@pytest.fixture
def cluster():
    pytest.importorskip("distributed", reason="dask.distributed is not installed: pip install 'gpunet[dask]'")
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=True, dashboard_address=":0", host="127.0.0.1", silence_logs=50
    ) as made:
        yield made


@pytest.mark.slow
def test_a_scheduler(capsys, tmp_path, cluster, monkeypatch):
    np.save("x.npy", numbers("uint8"))
    pca(capsys, tmp_path / "x.npy", "-k", 3, "-o", "one")
    pca(capsys, tmp_path / "x.npy", "-k", 3, "-o", "two", "--scheduler", cluster.scheduler_address)
    alone, together = read(tmp_path / "one")[1], read(tmp_path / "two")[1]
    assert all(np.array_equal(alone[name], together[name]) for name in alone)
    cluster.scale(0)
    deadline = time.monotonic() + 20
    while cluster.scheduler.workers and time.monotonic() < deadline:
        time.sleep(0.1)
    monkeypatch.setattr(executors, "PATIENCE", 1.0)
    (tmp_path / "three").mkdir()
    done = run(capsys, "pca", tmp_path / "x.npy", "-o", "three", "--scheduler", cluster.scheduler_address)
    done.one_line(1, "no worker, or no scheduler, for 1 s", "start some")
    assert files(tmp_path / "three") == []


@pytest.mark.slow
def test_a_scheduler_that_does_not_answer(capsys, monkeypatch):
    pytest.importorskip("distributed", reason="dask.distributed is not installed: pip install 'gpunet[dask]'")
    monkeypatch.setattr(decompose, "CONNECT", 1.0)
    np.save("x.npy", numbers())
    for address in ("tcp://127.0.0.1:9", "nonsense"):
        words = f"no Dask scheduler answers at {address}", "expected an address such as tcp://HOST:8786"
        refused(capsys, 2, "x.npy", "--scheduler", address, words=words)


def test_without_dask(capsys, monkeypatch):
    np.save("x.npy", numbers())
    monkeypatch.setitem(sys.modules, "distributed", None)
    refused(capsys, 2, "x.npy", "--scheduler", "tcp://a:1", words=("pip install 'gpunet[dask]'",))


GUARDED = pytest.mark.skipif(
    not SCRIPT.exists() or "__main__" not in SCRIPT.read_text(),
    reason="the installed script runs again where a process is started from it: it was not made by pip",
)


def began(*options):
    """A run that goes on for a while, its first parts done."""
    out = np.lib.format.open_memmap("long.npy", "w+", "float64", (200_000, 200))
    out[...] = 1 + np.arange(200)
    out[::7] = -3
    del out
    return start("pca", "long.npy", "-k", 3, "-o", "out", *options)


def workers_of(pid):
    listed = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if "spawn_main" in line]


def awaited(process, count):
    deadline = time.monotonic() + 30
    while len(found := workers_of(process.pid)) < count and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


@pytest.mark.slow
@GUARDED
@pytest.mark.skipif(sys.platform != "linux", reason="ps tells workers otherwise here")
@pytest.mark.parametrize("which", ["interrupted", "lost", "killed"])
def test_an_end_before_its_time(tmp_path, which):
    process = began("--workers", 2)
    workers = awaited(process, 2)
    assert len(workers) == 2
    time.sleep(0.5)
    if which == "interrupted":
        process.send_signal(signal.SIGINT)
    else:
        os.kill(workers[0] if which == "lost" else process.pid, signal.SIGKILL)
    out, err = process.communicate(timeout=60)
    said = [line for line in err.splitlines() if not line.startswith("sums over")]
    assert out == ""
    if which == "interrupted":
        assert (process.returncode, said) == (130, ["gpunet: interrupted; nothing half-written was left behind"])
    elif which == "lost":
        (line,) = said
        assert process.returncode == 1
        assert "were lost, BrokenProcessPool" in line
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers), "workers go when nobody is left to work for"
    assert files(tmp_path / "out") == []


# -- mistakes ---------------------------------------------------------------------------------------------------------


def shards(count=20, **changed):
    Path("x").mkdir(exist_ok=True)
    for number, part in enumerate(np.array_split(numbers(), count)):
        np.save(f"x/x-{number:03d}.npy", changed.get(f"x{number}", part))


def test_nan_in_shard_17_row_3(capsys):
    bad = np.array_split(numbers(), 20)[17].copy()
    bad[3, 1] = np.nan
    shards(x17=bad)
    refused(capsys, 2, "x", words=("x-017.npy holds nan at [3, 1]: expected finite numbers",))
    refused(capsys, 2, "x", "--workers", 2, words=("x-017.npy holds nan at [3, 1]",))


def test_bad_input_is_one_line(capsys):
    shards(x3=numbers(features=31)[:5])
    refused(capsys, 2, "x", words=("x-003.npy has samples of shape (31)", "expected the same in all shards"))
    shards()
    os.remove("x/x-004.npy")
    refused(capsys, 2, "x", words=("lacks x-004.npy",))
    np.save("y.npy", np.zeros(5, int))
    np.save("x.npy", numbers())
    refused(capsys, 2, "x.npy", "--labels", "y.npy", words=("labels have shape (5,): expected (3000,)",))
    refused(capsys, 2, "x.npy", "-k", 31, words=("--k is 31: expected a whole number from 1 to 30",))
    refused(capsys, 2, "no.npy", words=("there is no file or folder 'no.npy'",))
    refused(capsys, 2, "x.npy", "--workers", 2, "--scheduler", "tcp://a:1", words=("give one of them",))
    refused(capsys, 2, "x.npy", "--workers", 0, words=("--workers",))
    Path("t.npy").write_text("nothing")
    refused(capsys, 2, "t.npy", words=("t.npy is no .npy file",))
    assert not Path("runs/pca-t.npy").exists()
    os.mkdir("mine")
    refused(capsys, 2, "t.npy", "--out", "mine", words=("t.npy is no .npy file",))
    assert Path("mine").is_dir()  # which was there before
    Path("file").write_text("")
    refused(capsys, 2, "x.npy", "--out", "file", words=("cannot write to 'file'",))
