"""`gpunet bench train`: contestants, ratios, losses, what is refused."""

from __future__ import annotations

import importlib.util
import json

import pytest

from gpunet.backend import why_no_numba
from gpunet.bench import train as bench

from ..conftest import make_backend
from .runner import run

HAS_TORCH = importlib.util.find_spec("torch") is not None
ROW = {"microseconds_per_step", "over_products", "over_torch", "over_torch_quartiles", "loss"}


CASES = {
    "points-21": bench.Case("points-21", (2, 3, 3, 2), 21, 20, 21),
    "digits-32": bench.Case("digits-32", (64, 16, 10), 32, 20, 100),
}


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    """Few steps, and PyTorch on one thread."""
    monkeypatch.setattr(bench, "CASES", CASES)
    if not HAS_TORCH:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def train(capsys, *arguments):
    done = run(capsys, "bench", "train", "--rounds", 2, *arguments)
    progress = [line for line in done.err.splitlines() if line.startswith("bench train: ")]
    assert (done.code, done.err.splitlines()) == (0, progress)
    return done


@pytest.mark.parametrize("device", ["cpu", "numpy"])
def test_as_json(capsys, device):
    document = json.loads(train(capsys, "--case", "points-21", "--device", device, "--json").out)
    assert (document["benchmark"], document["rounds"]) == ("train", 2)
    assert document["provenance"]["numpy"]
    (name,), contestants = document["cases"], document["cases"]["points-21"]
    assert name == "points-21"
    numba = device == "cpu" and why_no_numba() is None
    assert set(contestants) == {"products", "numpy"} | ({"numba"} if numba else set()) | (
        {"torch"} if HAS_TORCH else set()
    )
    for contestant, row in contestants.items():
        assert set(row) == ROW
        assert row["microseconds_per_step"] > 0 < row["over_products"]
        assert (row["loss"] is None) == (contestant == "products")
    assert contestants["products"]["over_products"] == 1
    if numba:
        assert contestants["numba"]["loss"] == pytest.approx(contestants["numpy"]["loss"], rel=1e-5)


def test_as_a_table(capsys):
    done = train(capsys, "--device", "numpy")
    for words in ("points-21", "digits-32", "products", "numpy", "µs/step", "PyTorch", "on cpu, median of 2 rounds"):
        assert words in done.out, words
    assert done.err.splitlines()[-1].startswith("bench train: 2/2 digits-32")


def test_without_pytorch(capsys, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "torch" else found(name, *rest)
    )
    done = train(capsys, "--case", "points-21", "--device", "numpy")
    assert "PyTorch is not installed here: pip install torch" in done.out


def test_on_a_gpu(monkeypatch):
    """The contestants there: on the pretend one, without PyTorch."""
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "torch" else found(name, *rest)
    )
    monkeypatch.setattr("gpunet.bench.gpu_race.LEAST", 1e-4)
    backend = make_backend("cuda-host")
    times, losses = bench.compare(CASES["digits-32"], rounds=1, device=backend)
    rows = bench.figures(CASES["digits-32"], times, losses)
    assert list(rows) == ["products", "eager", "graph"]
    assert rows["eager"]["over_torch"] is None
    assert {name for name, row in rows.items() if row["loss"] is None} == {"products"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--case", "imagenet"), ("unknown case 'imagenet'", "points-21")),
        (("--device", "tpu"), ("unknown device 'tpu'",)),
        (("--rounds", 0), ("Invalid value", "--rounds")),
    ],
)
def test_mistakes(capsys, arguments, words):
    run(capsys, "bench", "train", *arguments).one_line(2, *words)


def test_help(capsys):
    done = run(capsys, "bench", "train", "--help")
    assert (done.code, done.err) == (0, "")
    for word in ("--case", "mnist-2048", "--compile", "--json", "CUDA graph", "the floor", "gpunet bench train --case"):
        assert word in done.out, word
