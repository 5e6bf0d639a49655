"""`gpunet bench train`: contestants, ratios, losses, what is refused."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from functools import partial

import pytest

from gpunet.backend import why_no_numba
from gpunet.bench import harness, record
from gpunet.bench import train as bench
from gpunet.bench.results import Section
from gpunet.errors import RunError
from gpunet.progress import Progress

from ..conftest import make_backend
from .runner import run

HAS_TORCH = importlib.util.find_spec("torch") is not None
CASES = {
    "points-21": replace(bench.CASES["points-21"], steps=20),
    "digits-32": bench.Case("digits-32", partial(bench.dense, (64, 16, 10)), 32, 20, 100, (8, 8)),
}
RIVALS = {"torch", "torch flushed", "torch one thread", "torch bf16", "torch bf16 one thread"} if HAS_TORCH else set()


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


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", "numpy"])
def test_as_json(capsys, device):
    document = json.loads(train(capsys, "--case", "points-21", "--device", device, "--json").out)
    assert (document["benchmark"], document["rounds"]) == ("train", 2)
    assert document["provenance"]["numpy"]
    assert list(document["cases"]) == ["points-21"]
    entries = document["cases"]["points-21"]["entries"]
    numba = device == "cpu" and why_no_numba() is None
    assert set(entries) == {"products", "numpy"} | ({"numba"} if numba else set()) | RIVALS
    for name, row in entries.items():
        assert len(row["seconds"]) == 2
        assert ("loss" in row.get("notes", {})) is (name != "products")
    losses = {name: row["notes"]["first_loss"] for name, row in entries.items() if name != "products"}
    assert losses == {name: pytest.approx(losses["numpy"], rel=1e-3) for name in losses}


@pytest.mark.slow
def test_as_a_table(capsys):
    done = train(capsys, "--device", "numpy")
    for words in ("points-21", "digits-32", "products", "numpy", "µs", "PyTorch", "on cpu, median of 2 rounds"):
        assert words in done.out, words
    assert done.err.splitlines()[-1].startswith("bench train: 2/2 digits-32")


def without(monkeypatch, *packages):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name in packages else found(name, *rest)
    )


@pytest.mark.slow
def test_rivals_that_are_not_installed_are_told_once(capsys, monkeypatch):
    without(monkeypatch, "torch", "jax")
    done = train(capsys, "--device", "numpy")
    for name, package in {"torch": "'gpunet[torch]'", "jax": "jax"}.items():
        assert done.out.count(f"{name} is not installed; pip install {package}") == 1


@pytest.mark.slow
def test_one_that_fails_is_told_and_the_others_are_timed(capsys, monkeypatch):
    def failing(*_):
        raise RunError("no more")

    monkeypatch.setattr(bench, "products", failing)
    capsys.readouterr()
    done = run(capsys, "bench", "train", "--rounds", 1, "--case", "points-21", "--device", "numpy")
    assert done.code == 1
    assert "points-21, products failed: RunError: no more" in done.out
    assert "numpy" in done.out


@pytest.mark.slow
def test_on_a_gpu(monkeypatch):
    """The contenders there: on the pretend one, without PyTorch."""
    without(monkeypatch, "torch", "jax")
    monkeypatch.setattr(harness, "LEAST", 1e-4)
    section = Section({})
    record.training({"digits-32": CASES["digits-32"]}, section, make_backend("cuda-host"), 1, Progress())
    entries = section.cases["digits-32"].entries
    assert list(entries) == ["products", "eager", "graph", "graph mixed", "graph tf32"]
    assert all(entry.seconds for entry in entries.values())
    assert entries["eager"].notes["first_loss"] == entries["graph"].notes["first_loss"]


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
    shown = " ".join(done.out.split())
    for word in ("--case", "mnist-2048", "--compile", "--json", "CUDA graph", "the floor", "gpunet bench train --case"):
        assert word in shown, word
