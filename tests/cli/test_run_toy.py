"""`gpunet run toy` end to end."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from gpunet.experiments.claims import judge
from gpunet.experiments.result import Result
from gpunet.experiments.toy import x

from ..experiments.made import write_npz
from ..experiments.schema import is_png, parse
from .runner import files, run

FIGURES = ("boundaries.png", "learning-rate.png", "loss.png", "steps.png", "zeros.png")
SHORT = ("--seeds", 2, "--limit", 30)


def check_folder(folder, figures=FIGURES) -> dict:
    assert files(folder) == sorted([*figures, "result.json"])
    for name in figures:
        assert is_png((folder / name).read_bytes()), name
    return parse((folder / "result.json").read_text())


def judged(folder):
    return judge(x, Result.read(folder / "result.json"))


@pytest.fixture
def moons(tmp_path):
    """An .npz of two classes in the plane."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(60, 2)).astype("f4")
    y = (x[:, 0] > x[:, 1] ** 2).astype("i8")
    return write_npz(tmp_path / "moons.npz", x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])


@pytest.mark.slow
def test_quick_is_both_data_sets_and_ten_seeds(capsys, tmp_path):
    done = run(capsys, "run", "toy", "--quick")
    assert (done.code, done.said()) == (0, [])
    made = check_folder(tmp_path / "runs" / "toy")
    assert (made["dataset"], made["seeds"]) == ("linear+xor-easy", list(range(10)))
    assert (made["settings"]["limit"], made["settings"]["hidden"]) == (2000, [3, 3])
    for words in ("linear, xor-easy: 2-3-3-1", "linear, as in the document", "xor-easy, zero weights",
                  "10 nets as one stack", "0 of 10", "> 2,000", "learning rate 3.2"):  # fmt: skip
        assert words in done.out, words
    assert re.search(r"^toy 1/10 linear: 2000/2000 \d+ of 10 nets stopped$", done.err, re.MULTILINE)
    verdicts = {claim.id: claim.verdict for claim in judged(tmp_path / "runs" / "toy")}
    assert verdicts["linear-zeros"] == verdicts["xor-easy-zeros"] == verdicts["xor-easy-gradient"] == "reproduced"
    assert verdicts["linear-converges"] == "inconclusive", "9 of 10 may be two thirds"
    assert done.out.splitlines()[-1].startswith("Claims: ")


@pytest.mark.slow
def test_one_data_set_one_seed_one_rate(capsys, tmp_path):
    done = run(capsys, "run", "toy", "-d", "xor-easy", "-n", 1, "--seed", 4, "--limit", 1, "--learning-rate", 0.8)
    assert (done.code, done.said()) == (0, [])
    made = check_folder(tmp_path / "runs" / "toy-xor-easy", [f for f in FIGURES if f != "learning-rate.png"])
    assert (made["dataset"], made["seeds"]) == ("xor-easy", [4])
    assert all(claim.id.startswith("xor-easy-") for claim in judged(tmp_path / "runs" / "toy-xor-easy"))
    assert "0 of 1" in done.out


@pytest.mark.slow
@pytest.mark.parametrize(
    "hidden", [("--hidden", "4,2"), ("--hidden", "4 2"), ("--hidden", 4, "--hidden", 2), ("--hidden", "4, 2")]
)
def test_depth_and_json(capsys, tmp_path, hidden):
    done = run(capsys, "run", "toy", *SHORT, "-d", "linear", *hidden, "--learning-rate", 0.5, "--json", "-o",
               tmp_path / "out")  # fmt: skip
    assert done.code == 0
    made = parse(done.out)
    assert made == json.loads((tmp_path / "out" / "result.json").read_text())
    assert (made["settings"]["hidden"], made["settings"]["learning_rates"]) == ([4, 2], [0.5])
    assert all(claim.here or claim.verdict == "not tested" for claim in judged(tmp_path / "out"))


@pytest.mark.slow
def test_own_data(capsys, tmp_path, moons):
    done = run(capsys, "run", "toy", "-d", moons, *SHORT, "--learning-rate", 0.1, "--learning-rate", 0.05)
    assert (done.code, done.said()) == (0, [])
    made = check_folder(tmp_path / "runs" / "toy-moons")
    assert [row["name"] for row in made["rows"]][-1] == "moons rate=0.05"
    for words in ("main setting", "train %", "test %", "moons: 2-3-3-1"):
        assert words in done.out, words
    assert "as in the document" not in done.out
    last = done.out.splitlines()[-1]  # 30 steps are too few for all but the gradient
    assert re.match(r"On moons: largest error \S+ \(holds here, .*\). Of 1 ordering that the document states 1 ", last)


@pytest.mark.slow
def test_own_data_of_a_known_name_are_not_the_documents(capsys, tmp_path, moons):
    moons.rename(tmp_path / "linear.npz")
    done = run(capsys, "run", "toy", "-d", tmp_path / "linear.npz", *SHORT, "-o", tmp_path / "out")
    assert done.code == 0
    made = check_folder(tmp_path / "out")
    assert made["dataset"] == "own-linear"
    assert {claim.verdict for claim in judged(tmp_path / "out") if not claim.here} == {"not tested"}
    assert any(claim.here for claim in judged(tmp_path / "out"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--hidden", 0), ("--hidden is a whole number ≥ 1, got 0",)),
        (("--hidden", "3,0"), ("--hidden is a whole number ≥ 1, got 0",)),
        (("--hidden", -3), ("--hidden is '-3'", "3,3")),
        (("--hidden", "three"), ("--hidden is 'three'",)),
        (("--hidden", ","), ("--hidden is ','",)),
        (("--threshold", 0), ("--threshold cannot be 0.0", "> 0")),
        (("--threshold", "nan"), ("--threshold cannot be nan",)),
        (("--learning-rate", 0), ("--learning-rate cannot be 0.0", "> 0")),
        (("--learning-rate", 0.8, "--learning-rate", -1), ("--learning-rate cannot be -1.0",)),
        (("--limit", 0), ("--limit", "0", "at least 1")),
        (("--seeds", 0), ("--seeds",)),
        (("--dataset", "nonsense"), ("unknown data set 'nonsense'",)),
    ],
)
def test_mistakes_are_one_line(capsys, tmp_path, options, words):
    run(capsys, "run", "toy", *options).one_line(2, *words)
    assert not (tmp_path / "runs").exists()


def test_three_classes_and_a_wrong_device_are_one_line(capsys, own):
    run(capsys, "run", "toy", "-d", own, *SHORT).one_line(2, "toy is for 2", "own has 3 classes")
    run(capsys, "run", "toy", "--device", "tpu").one_line(2, "unknown device 'tpu'")


def test_a_loss_that_becomes_nan(capsys, tmp_path):
    done = run(capsys, "run", "toy", "--quick", "--learning-rate", 1e308, "-o", tmp_path / "out")
    done.one_line(1, "NaN or infinite by step", "learning rate 1e+308", "lower the learning rate")
    assert files(tmp_path / "out") == []
