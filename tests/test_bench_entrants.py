"""Who takes part in the groups of benchmarks/, what each does, and why some cannot; the groups themselves (slow)."""

from __future__ import annotations

import importlib.util
import json
import os
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gpunet.bench import conv, entrants, lowrank, train
from gpunet.bench.entrants import GPU, Entrant
from gpunet.bench.ratios import read

from .conftest import need_gpu

ROOT = Path(__file__).parents[1]
TINY = train.Case("tiny", (6, 12, 3), 8, 30, 44)
PICTURES = conv.Case("tiny", (2,), 5, 6, shape=(1, 6, 6), classes=3)
STAND_IN = "cpu"


def data(features, samples=44):
    rng = np.random.default_rng(4)
    labels = np.arange(samples) % 3
    x = rng.integers(0, 90, (samples, features), dtype=np.uint8)
    x[:, :3] += 150 * np.eye(3, dtype=np.uint8)[labels]
    return x, labels


def able(group):
    return [
        pytest.param(entrant, id=str(entrant), marks=pytest.mark.skipif(bool(why), reason=why or ""))
        for entrant in group
        for why in [entrant.why_not(STAND_IN)]
    ]


def trained(contestant, times):
    """Loss before and after."""
    work, loss = contestant
    before = loss()
    for _ in range(times):
        work()
    return before, loss()


@pytest.mark.parametrize("entrant", able(entrants.TRAINING))
def test_everybody_trains_the_same_net(entrant):
    x, y = data(6)
    for make in (entrants.training, entrants.epoch):
        contestant = make(entrant, TINY, x, y, STAND_IN)
        if entrant.role == "floor":
            assert contestant[1] is None
            contestant[0]()
            continue
        _, reached = trained(make(Entrant("numpy", "ours"), TINY, x, y), 8)
        before, after = trained(contestant, 8)
        assert after < before
        assert after == pytest.approx(reached, rel=lowrank.SAME)


@pytest.mark.parametrize("entrant", able(entrants.CONVOLUTION))
def test_everybody_computes_the_same_convolution(entrant):
    x, y = data(36)
    _, reached = trained(entrants.convolution(Entrant("numpy", "ours"), PICTURES, x, y), 20)
    before, after = trained(entrants.convolution(entrant, PICTURES, x, y, STAND_IN), 20)
    assert after < before
    assert after == pytest.approx(reached, rel=lowrank.SAME)
    still = replace(PICTURES, trains=False)
    features = [entrants.convolution(each, still, x, y, STAND_IN)[1]() for each in (entrant, Entrant("numpy", "ours"))]
    assert features[0] == pytest.approx(features[1], rel=1e-5)


@pytest.mark.parametrize("entrant", able(entrants.FACTORED))
def test_everybody_trains_the_same_factors(monkeypatch, entrant):
    monkeypatch.setattr(lowrank, "CASE", replace(TINY, batch=16))
    monkeypatch.setattr(lowrank, "SHAPES", [(12, 6), (3, 12)])
    monkeypatch.setattr(lowrank, "NETS", {"tiny": (2, None)})
    monkeypatch.setattr(lowrank, "RATE", 3e-3)
    x, y = data(6)
    work, loss = entrants.factored(entrant, "tiny", x, y, STAND_IN)
    if entrant.role == "floor":
        return work()
    before, after = trained((work, loss), 30)
    return None if after < before else pytest.fail(f"the loss went from {before} to {after}")


def test_who_cannot_take_part_says_why(monkeypatch):
    monkeypatch.setattr(entrants.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(entrants, "why_no_numba", lambda: "numba is not installed")
    monkeypatch.setattr(entrants, "why_no_gpu", lambda: "no driver")
    said = {
        str(each): each.why_not() for each in (*entrants.TRAINING, *entrants.CONVOLUTION, Entrant("sklearn", "rival"))
    }
    assert said["numpy"] == said["products"] == ""
    assert said["numba"] == "numba is not installed"
    assert said["torch"] == said["torch channels_last"] == "torch is not installed; pip install torch"
    assert said["jax"] == "jax is not installed; pip install jax"
    assert said["sklearn"] == "sklearn is not installed; pip install scikit-learn"
    assert {said[str(each)] for each in entrants.TRAINING if each.device == GPU} == {"no driver"}
    assert Entrant("graph", "ours", GPU).why_not("cpu") == "graph takes part on a GPU alone"
    assert Entrant("eager", "ours", GPU).why_not("cpu") == ""


def test_results_that_differ_are_found_after_timing():
    found = runpy.run_path(str(ROOT / "benchmarks" / "conftest.py"))["found"]
    ours, torch = Entrant("numba", "ours"), Entrant("torch", "rival")
    others = {}
    assert found(1.0, 2.0, others, ours) == {"loss_at_first": 2.0, "loss": 1.0}
    assert found(1.1, 2.0, others, torch)["loss"] == 1.1
    with pytest.raises(AssertionError, match=r"torch and numba did different things: 1\.4 and 1"):
        found(1.4, 2.0, others, torch)
    for loss in (2.0, float("nan")):
        with pytest.raises(AssertionError, match=r"numba learned nothing: the loss went from 2 to"):
            found(loss, 2.0, {}, ours)
    with pytest.raises(AssertionError, match="did different things"):
        found(float("nan"), None, others, torch)


def test_pytest_alone_does_not_collect_benchmarks():
    config = (ROOT / "pyproject.toml").read_text()
    assert 'testpaths = ["tests"]' in config


@pytest.mark.slow
def test_the_groups_run(tmp_path):
    """The smallest case of each, a round each, a CPU in the GPU's place; and their file is what the report reads."""
    path = tmp_path / "all.json"
    options = ("--benchmark-only", "--smallest", "--rounds", "1", "--gpu", STAND_IN, "--benchmark-json", str(path))
    surroundings = os.environ | {"OPENBLAS_NUM_THREADS": "1", "GPUNET_DATA": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "benchmarks", "-q", *options],
        cwd=ROOT, env=surroundings, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    groups = {each["group"] for each in json.loads(path.read_text())["benchmarks"]}
    assert groups == {"train-step", "epoch", "svd", "class-pca", "conv", "lowrank", "start-up", "products"}
    measured = read(path)
    lonely = set() if any(map(importlib.util.find_spec, ("torch", "jax"))) else {"conv"}  # it has no other rivals
    assert {ratio.group for ratio in measured.ratios} == groups - lonely
    steps = {ratio.key[1:]: ratio for ratio in measured.ratios if ratio.group == "train-step"}
    assert ("points-21", "numpy", "products") in steps
    assert all(ratio.ratio > 0 and ratio.seconds < 0.1 for ratio in steps.values())


@pytest.mark.gpu
@pytest.mark.parametrize("entrant", [each for each in entrants.TRAINING if each.device == GPU], ids=str)
def test_everybody_trains_on_the_gpu(entrant):
    need_gpu()
    if why := entrant.why_not():
        pytest.skip(why)
    contestant = entrants.training(entrant, TINY, *data(6))
    if entrant.role == "floor":
        return contestant[0]()
    before, after = trained(contestant, 8)
    return None if after < before else pytest.fail(f"the loss went from {before} to {after}")
