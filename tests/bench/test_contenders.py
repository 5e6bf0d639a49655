"""Who takes part, what each does, and why some cannot; how contenders are raced; the groups of benchmarks/ (slow)."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import time
import types
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import gpunet as gn
from gpunet.backend import get_backend, why_no_numba
from gpunet.backend.numpy_backend import NumpyBackend
from gpunet.backend.onednn import engine
from gpunet.bench import harness, rivals, train
from gpunet.bench.harness import Contender, Work, agree, race, speed_up
from gpunet.bench.report import read
from gpunet.bench.results import Entry

from ..conftest import need_gpu

ROOT = Path(__file__).parents[2]
DENSE = train.Case("dense", partial(train.dense, (6, 12, 3)), 8, 30, 44, (2, 3), 3, rate=3e-3)
FACTORED = replace(DENSE, name="factored", net=partial(train.dense, (6, 12, 3), (2, None)))
IMAGES = replace(DENSE, name="images", net=partial(train.convnet, (2,), (1, 6, 6), 3), source=(1, 6, 6))
FEATURES = replace(IMAGES, name="features", net=partial(train.convnet, (2,), (1, 6, 6)), trains=False)
NETS = {case.name: case for case in (DENSE, FACTORED, IMAGES, FEATURES, replace(DENSE, name="epoch", whole=True))}
WAYS = train.DENSE | train.IMAGES


@pytest.mark.parametrize("name", NETS)
def test_everybody_trains_the_same_net(name, monkeypatch):
    """From the same weights on the same batches: after as many steps the losses are one."""
    monkeypatch.setattr(NumpyBackend, "least_bfloat16", 0)  # small nets, too
    case = NETS[name]
    them = train.contenders(case, "cpu", WAYS)
    them = {who: each for who, each in them.items() if who != "products" or case in (DENSE, FACTORED)}
    found = race(them, 1, pieces=5, first=0 if name == "features" else 3, pause=0)
    assert set(found) == {who for who, each in them.items() if not each.missing}
    ours = found["numpy"].notes
    for who, entry in found.items():
        assert len(entry.seconds) == 1, (who, entry.failed)
        if entry.role != "floor":
            near = 1e-2 if "bf16" in who or "mixed" in who else 1e-4
            for what, value in entry.notes.items():
                within = 0.2 if case.whole else near  # a fit draws its own batches
                assert value == pytest.approx(ours[what], rel=within), (who, what)
    if case.trains:
        assert ours["loss"] < ours["first_loss"]


def test_pytorchs_nets_have_our_weights():
    torch = pytest.importorskip("torch")
    for case in (DENSE, FACTORED, IMAGES):
        _, x, _ = case.data()
        model = case.built(x.shape[1])
        network = rivals.torch_network(case.net(), list(model.parameters.values()))
        images = torch.tensor(x).float() / 255
        shaped = images.reshape(-1, 1, 6, 6) if case is IMAGES else images
        trainer = gn.Trainer(model, device="numpy")
        assert network(shaped).detach().numpy() == pytest.approx(trainer.outputs(x), abs=1e-5)


def test_only_the_flushed_one_flushes_denormals():
    torch = pytest.importorskip("torch")
    tiny = torch.tensor([1e-40])
    found = []
    work = rivals.flushed(Work(lambda pieces: found.append(float(tiny * 1.0))))
    work.run(1)
    found.append(float(tiny * 1.0))
    assert found[0] == 0.0
    assert found[1] > 0


def test_only_the_lonely_one_has_one_thread():
    torch = pytest.importorskip("torch")
    before, counts = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        for alone in (True, False):
            rivals.flushed(Work(lambda pieces: counts.append(torch.get_num_threads())), alone).run(1)
        assert [*counts, torch.get_num_threads()] == [1, 2, 2]
    finally:
        torch.set_num_threads(before)


def test_who_cannot_take_part_says_why(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None)
    monkeypatch.setattr(train, "why_no_numba", lambda: "numba is not installed")
    them = train.contenders(DENSE, "cpu")
    assert {who: each.missing for who, each in them.items() if each.missing} == {
        "numba": "numba is not installed",
        **dict.fromkeys(train.DENSE, "torch is not installed; pip install 'gpunet[torch]'"),
        "jax": "jax is not installed; pip install jax",
        f"{get_backend('cpu').kernels} mixed": get_backend("cpu").slow_bfloat16
        or "dense is not trained in mixed precision: the largest product of the net's dense layers takes 576 "
        "multiplications with batches of 8, and bfloat16 gains from 1,000,000 on",
    }  # fmt: skip
    assert harness.missing(them) == list(dict.fromkeys(each.missing for each in them.values() if each.missing))
    assert harness.lacking("sklearn") == "sklearn is not installed; pip install 'gpunet[data]'"
    assert set(train.contenders(DENSE, "numpy")) - set(them) == set()


@pytest.mark.skipif(why_no_numba() is not None, reason=why_no_numba() or "")
def test_the_timed_pieces_are_steps():
    """The steps of one call are as many as were asked for, in passes with a short batch at the end."""
    work = train.ours(DENSE, get_backend("numpy"))
    work.run(8)
    assert work.keeps.tally.cursor[0] == 2 * 8  # a pass of 44 is six batches, the last one of 4
    work.run(6)
    assert work.keeps.tally.cursor[0] == 44


def test_jax_has_products_of_float32_unless_tf32_is_asked_for(monkeypatch, rng):
    """Whose default on a GPU is TF32."""
    asked = []

    @contextlib.contextmanager
    def precision(name):
        asked.append(name)
        yield
        asked.append("")

    def relu(x):
        assert asked[-1]  # inside
        return np.maximum(x, 0)

    jax = types.SimpleNamespace(default_matmul_precision=precision, nn=types.SimpleNamespace(relu=relu))
    monkeypatch.setitem(sys.modules, "jax", jax)
    monkeypatch.setattr(rivals, "lacking", lambda package: "not asked")
    weights, x = [rng.normal(size=shape) for shape in ((3, 5), 3, (2, 3), 2)], rng.normal(size=(4, 5))
    try:
        for wanted in (None, True, False):
            if wanted is not None:
                rivals.tf32(wanted)
            found = rivals.jax_network([gn.Dense(3, "relu"), gn.Dense(2)])(weights, x)
            np.testing.assert_allclose(found, np.maximum(x @ weights[0].T + weights[1], 0) @ weights[2].T + weights[3])
    finally:
        rivals.tf32(False)
    assert asked == ["float32", "", "tensorfloat32", "", "float32", ""]


# -- the race ---------------------------------------------------------------------------------------------------------


def contender(seconds=0.0, **notes):
    return Contender(lambda: Work(lambda pieces: time.sleep(seconds * pieces), lambda: notes))


def test_times_are_of_a_piece_and_of_all_rounds():
    found = race({"a": contender(0.002), "b": replace(contender(0.001), slow=True, share=3)}, 3, pieces=2, pause=0)
    assert len(found["a"].seconds) == 3
    assert 0.002 < found["a"].median < 0.01
    assert len(found["b"].seconds) == 1
    assert 0.003 < found["b"].median < 0.015


def test_enough_pieces_are_timed(monkeypatch):
    monkeypatch.setattr(harness, "LEAST", 0.02)
    calls = []
    race({"a": Contender(lambda: Work(lambda pieces: calls.append(pieces) or time.sleep(0.001 * pieces)))}, 1, pause=0)
    assert 3 < calls[-1] <= 20


def test_one_after_the_other_where_one_may_hang():
    saved = []
    race({"a": contender(), "b": contender()}, 1, pieces=1, apart=True, pause=0, save=lambda e: saved.append(list(e)))
    assert saved == [["a"], ["a", "b"]]


def test_a_contender_that_fails_costs_only_itself(capsys):
    def broken():
        raise RuntimeError("no\nkernel image")

    losses = iter([1.0, 3.0])
    turns = []

    def late(pieces):
        turns.append(pieces)
        if len(turns) > 3:
            raise ValueError("in the second round")

    found = race(
        {
            "good": contender(0.001, loss=1.0), "bad": Contender(broken),
            "astray": Contender(lambda: Work(lambda pieces: None, lambda: {"loss": next(losses)})),
            "late": Contender(lambda: Work(late)),
        },
        2, pieces=1, first=1, pause=0, log=True,
    )  # fmt: skip
    assert {name: entry.failed for name, entry in found.items()} == {
        "good": "", "bad": "RuntimeError: no kernel image", "astray": "its loss rose from 1 to 3",
        "late": "ValueError: in the second round",
    }  # fmt: skip
    assert "in broken\n" in capsys.readouterr().err  # the whole traceback, for the log
    assert [bool(entry.seconds) for entry in found.values()] == [True, False, False, False]
    assert speed_up(found, "good", ["bad"]) is None
    assert speed_up(found, "good", ["astray", "bad"]) is None


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        ("cudaErrorIllegalAddress: an illegal memory access was encountered", True),
        ("CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered", True),
        ("cudaErrorMisalignedAddress: misaligned address", True),
        ("CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure", True),
        ("cudaErrorLaunchFailure: unspecified launch failure", True),
        ("CUDA error: an illegal memory access was encountered", True),
        ("cudaErrorAssert: device-side assert triggered", True),
        ("cublasLt: cublasLtMatmul failed with CUBLAS_STATUS_EXECUTION_FAILED", True),
        ("cublasLt: cublasLtMatmul failed with CUBLAS_STATUS_NOT_SUPPORTED", False),
        ("cudaErrorMemoryAllocation: out of memory", False),
        ("cudaErrorStreamCaptureUnsupported: operation not permitted", False),
        ("CUDA_ERROR_INVALID_VALUE: invalid argument", False),
    ],
)
def test_errors_after_which_the_gpu_is_lost(error, lost):
    with pytest.raises(KeyError) as found:
        raise KeyError("what came of it") from RuntimeError(error)
    assert harness.sticky(found.value) is lost

    def bad():
        raise RuntimeError(error)

    if lost:  # all later contenders would fail with it
        with pytest.raises(RuntimeError, match=error):
            race({"bad": Contender(bad)}, 1, first=1)
    else:
        assert race({"bad": Contender(bad)}, 1, first=1)["bad"].failed


def test_results_that_differ_are_found_after_timing():
    def entry(role, loss):
        return Entry(role, [1.0], notes={"loss": loss})

    found = {"numba": entry("ours", 1.0), "torch": entry("rival", 1.1), "jax": entry("rival", 1.4),
             "other": entry("rival", float("nan")), "products": Entry("floor", [1.0])}  # fmt: skip
    agree(found, "loss")
    assert [name for name, each in found.items() if each.failed] == ["jax", "other"]
    assert found["jax"].failed == "did something else than numba: its loss is 1.4, not 1"
    assert found["jax"].seconds == []


def test_pytest_alone_does_not_collect_benchmarks():
    config = (ROOT / "pyproject.toml").read_text()
    assert 'testpaths = ["tests"]' in config


@pytest.mark.slow
def test_the_groups_run(tmp_path):
    """The smallest case of each, a round each; and their file is what the report reads."""
    path = tmp_path / "all.json"
    options = ("--benchmark-only", "--smallest", "--rounds", "1", "--benchmark-json", str(path))
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}  # another pytest's
    surroundings = own | {"OPENBLAS_NUM_THREADS": "1", "GPUNET_DATA": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "benchmarks", "-q", *options],
        cwd=ROOT, env=surroundings, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    groups = {each["group"] for each in json.loads(path.read_text())["benchmarks"]}
    assert groups == {
        "train-step", "epoch", "svd", "class-pca", "conv", "lowrank", "start-up", "products", "certificates", "sums",
        "size", "features", *([] if engine()[1] else ["bfloat16"]),
    }  # fmt: skip
    measured = read(path)
    lonely = set() if any(map(importlib.util.find_spec, ("torch", "jax"))) else {"conv"}  # it has no other rivals
    assert {ratio.group for ratio in measured.ratios} == groups - lonely
    steps = {ratio.key[1:]: ratio for ratio in measured.ratios if ratio.group == "train-step"}
    assert ("points-21", "numpy", "products") in steps
    assert all(ratio.ratio > 0 and ratio.seconds < 0.1 for ratio in steps.values())


@pytest.mark.gpu
@pytest.mark.parametrize("who", ["products", "eager", "graph", "graph mixed", "graph tf32", "torch"])
def test_everybody_trains_on_the_gpu(who):
    need_gpu()
    them = train.contenders(DENSE, "cuda")
    if them[who].missing:
        pytest.skip(them[who].missing)
    (entry,) = race({who: them[who]}, 2, first=3, pause=0).values()
    assert entry.seconds, entry.failed
    assert who == "products" or entry.notes["loss"] < entry.notes["first_loss"]
