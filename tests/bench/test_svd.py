"""Decompositions beside their rivals on small made matrices, and `gpunet bench svd`."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest

from gpunet.bench import data, svd
from gpunet.bench.harness import race
from gpunet.bench.results import Entry
from gpunet.bench.svd import Problem, Truth

from ..cli.runner import run

FULL = ("numpy.linalg.svd", "sklearn covariance_eigh", "scipy svds")


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(60, 900), (900, 60)])
def test_everybody_is_checked_against_the_truth(shape):
    found = race(svd.contenders(Problem("made", [svd.made(shape)], 5, (*FULL, "sklearn randomized_svd")), "cpu"), 2)
    assert set(found) == {"gpunet", "gpunet, one side", *FULL, "sklearn randomized_svd"}
    svd.check(found)
    for name, entry in found.items():
        assert len(entry.seconds) == 2, (name, entry.failed)
        if name not in svd.ROUGH:
            assert entry.notes["angle"] < 1e-3
            assert entry.notes["energy_missed"] < 1e-6
            assert entry.notes["sigma"] < 1e-5
    assert found["sklearn randomized_svd"].notes["sigma"] < 1


PROBLEMS = [
    svd.pictures(data.made(200, (6, 10))[0], 5), svd.classes(*data.made(400, (6, 10)), 3), svd.square(64, 8),
    svd.stack((3, 60, 20), 5),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
def test_every_kind_of_problem(problem):
    found = race(svd.contenders(problem, "numpy"), 1, pieces=1)
    assert {"gpunet"} <= found.keys()
    svd.check(found)
    for name, entry in found.items():
        assert entry.seconds, (name, entry.failed)
        if entry.role == "ours":
            assert (entry.notes["angle"], entry.notes["sigma"]) == pytest.approx((0, 0), abs=1e-5), name


def test_what_is_wrong_has_failed_but_what_is_known_to_be_rough():
    def entry(angle, missed):
        return Entry("rival", [1.0], notes={"angle": angle, "energy_missed": missed})

    found = {"numpy": entry(0.1, 0.1), "torch.svd_lowrank": entry(0.1, 0.1), "without a gap": entry(0.1, 1e-9)}
    svd.check(found)
    assert [name for name, each in found.items() if each.failed] == ["numpy"]
    assert [name for name, each in found.items() if each.seconds] == ["torch.svd_lowrank", "without a gap"]
    assert found["numpy"].failed == "it is wrong: angle 1.0e-01, energy missed 1.0e-01"


def test_errors_are_what_they_are():
    q = np.linalg.qr(np.random.default_rng(0).standard_normal((6, 6)))[0]
    truth = Truth.of((q * [4.0, 3, 2, 1, 0.5, 0.1]) @ q.T, wide=True)
    turned = q[:, :2] @ np.array([[1.0, 0], [0, np.cos(0.2)]]) + np.outer(q[:, 5], [0, np.sin(0.2)])
    found = truth.judge(np.array([4.0, 3.2]), turned)
    assert found["angle"] == pytest.approx(0.2)
    assert found["sigma"] == pytest.approx(0.05)
    assert found["energy_missed"] == pytest.approx((9 - 0.01) * np.sin(0.2) ** 2 / 25)


@pytest.mark.slow
def test_the_command(capsys):
    arguments = ("bench", "svd", "--shape", "40x30", "--k", 3, "--rounds", 1)
    done = run(capsys, *arguments, "--against", "numpy", "--json")
    assert (done.code, done.err) == (0, "")
    document = json.loads(done.out, parse_constant=pytest.fail)
    assert document["benchmark"] == "svd"
    assert list(document["cases"]["40×30, k = 3"]["entries"]) == ["gpunet", "gpunet, one side", "numpy.linalg.svd"]
    done = run(capsys, *arguments, "--against", "")
    assert "40×30, k = 3, cpu" in done.out
    assert "relative gap" in done.out


@pytest.mark.slow
def test_a_missing_rival_is_told_once(capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None)
    done = run(capsys, "bench", "svd", "--shape", "20x30", "--k", 2, "--rounds", 1, "--against", "torch")
    assert done.code == 0
    assert done.out.count("torch is not installed; pip install 'gpunet[torch]'") == 1


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["1x1", "1x5", "5x1", "2x2", "2x3"])
def test_who_cannot_take_part_says_so_in_one_line(capsys, shape):
    """Of scikit-learn's PCA a single sample less its mean is nothing; SciPy's svds wants more than it finds."""
    pytest.importorskip("sklearn")
    done = run(capsys, "bench", "svd", "--shape", shape, "--k", min(map(int, shape.split("x"))), "--rounds", 1)
    assert (done.code, done.err) == (0, "")
    assert ("a single sample" in done.out) == (shape == "1x1")
    assert done.out.count("takes no part") == 1 + (shape == "1x1")
    assert "failed" not in done.out


@pytest.mark.slow
def test_a_rival_that_fails_ends_nothing(capsys, monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.setattr(np.linalg, "svd", lambda *_, **__: (_ for _ in ()).throw(ValueError("no\nluck")))
    done = run(capsys, "bench", "svd", "--shape", "30x20", "--k", 2, "--rounds", 1, "--against", "numpy,sklearn")
    assert (done.code, done.err) == (1, ""), "no traceback"
    assert "30×20, k = 2, numpy.linalg.svd failed: ValueError: no luck\n" in done.out
    assert "sklearn randomized_svd" in done.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--against", "matlab"), ("unknown rival 'matlab'", "numpy, sklearn, torch, scipy")),
        (("--shape", "big"), ("--shape is 'big'", "784x60000")),
        (("--shape", "0x3"), ("--shape is '0x3'", "784x60000")),
        (("--shape", f"{'9' * 5000}x5"), ("--shape is '999",)),
        (("--shape", "900000000x900000000"), ("900000000×900000000 needs", "of memory at most 80%", "a smaller one")),
        (("--shape", "40x200", "--k", 41), ("expected 1 to 40, the shorter side of 40×200",)),
        (("--k", 0), ("Invalid value", "--k")),
    ],
)
def test_mistakes(capsys, arguments, words):
    run(capsys, "bench", "svd", *arguments).one_line(2, *words)
