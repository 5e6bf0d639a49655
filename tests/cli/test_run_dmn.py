"""`gpunet run dmn` end to end."""

from __future__ import annotations

import numpy as np
import pytest

from gpunet.experiments.claims import judge
from gpunet.experiments.dmn import x
from gpunet.experiments.result import Result

from ..datasets.cifar_writer import write_cifar100
from ..experiments.schema import parse
from .runner import check_folder, run

SHORT = ("--epochs", 1, "--seeds", 1, "--device", "numpy")
FIGURES = ("widths.png", "seconds.png", "sweeps.png", "convergence.png", "fluctuations.png")


@pytest.fixture
def images(tmp_path):
    """An .npz of small images of three classes."""
    rng = np.random.default_rng(2)
    made = {}
    for split, n in (("train", 60), ("test", 30)):
        made[f"x_{split}"] = rng.integers(0, 256, (n, 9, 9), dtype=np.uint8)
        made[f"y_{split}"] = np.arange(n) % 3
    np.savez(tmp_path / "images.npz", **made)
    return tmp_path / "images.npz"


@pytest.mark.slow
def test_quick_is_the_digits_and_one_seed(capsys, tmp_path):
    done = run(capsys, "run", "dmn", "--quick", "--epochs", 1)
    assert (done.code, done.said()) == (0, [])
    made = check_folder(tmp_path / "runs" / "dmn-digits", FIGURES)
    assert (made["dataset"], made["seeds"]) == ("digits", [0])
    assert (made["settings"]["epochs"], made["settings"]["fraction"], made["settings"]["widths"]) == (
        1, 1.0, [[0.95], [0.95, 0.99]],
    )  # fmt: skip
    assert done.out.splitlines()[-1].startswith("On digits")
    for words in ("dmn on digits: 1 epochs (longer: 3), 1 seed", "without", "T_PC=0.8", "head in"):
        assert words in done.out, words


def test_own_images_and_settings(capsys, tmp_path, images):
    done = run(
        capsys, "run", "dmn", "-d", images, *SHORT, "--variance", "0.8", "--variance", "0.9,0.7", "--correlation", 0.8,
        "--fraction", 0.5, "--center", "--no-sweeps", "--no-dynamics", "--json",
    )  # fmt: skip
    assert done.code == 0
    made = check_folder(tmp_path / "runs" / "dmn-images", FIGURES[:2])
    assert parse(done.out) == made
    kept = made["settings"]
    assert (kept["widths"], kept["correlation"], kept["fraction"], kept["center"]) == (
        [[0.8], [0.9, 0.7]],
        0.8,
        0.5,
        True,
    )


@pytest.mark.slow
def test_rivals_are_shown_and_judged(capsys, tmp_path, images):
    options = ("--variance", "0.9", "--variance", "0.9,0.9", "--no-sweeps", "--no-dynamics", "--rivals", 2)
    done = run(capsys, "run", "dmn", "-d", images, *SHORT, *options)
    assert done.code == 0
    made = check_folder(tmp_path / "runs" / "dmn-images", (*FIGURES[:2], "rivals.png"))
    assert f"DMNs and ConvNets of {made['notes']['rivals']} filters, after 1 and 2 epochs" in done.out
    run(capsys, "run", "dmn", "-d", images, *SHORT, "--rivals", 1).one_line(2, "rivals is 1", "more epochs than", "1")


@pytest.mark.slow
def test_cifar100_in_its_official_layout(capsys, tmp_path):
    write_cifar100(tmp_path / "data" / "cifar100", 200)
    run_it = ("run", "dmn", "--dataset", "cifar100", *SHORT, "--variance", "0.5,0.5", "--no-sweeps", "--no-dynamics")
    done = run(capsys, *run_it, "--rivals", 2)
    assert done.code == 0
    made = check_folder(tmp_path / "runs" / "dmn-cifar100", (*FIGURES[:2], "rivals.png"))
    name = made["notes"]["rivals"]
    assert len(made["notes"]["svd"][f"dmn {name}"][0][0]["filters"]) == 100
    claims = {claim.id: claim for claim in judge(x, Result.read(tmp_path / "runs" / "dmn-cifar100" / "result.json"))}
    assert claims["cifar100-2-layers"].verdict == "inconclusive"  # one seed
    assert "cifar10-2-layers" not in claims


def test_a_class_without_a_filter_is_named(capsys, tmp_path):
    rng = np.random.default_rng(1)
    x = (200 + rng.integers(0, 3, (60, 8, 8))).astype("uint8")
    np.savez(tmp_path / "grey.npz", x_train=x, y_train=np.arange(60) % 3, x_test=x[:9], y_test=np.arange(9) % 3)
    done = run(capsys, "run", "dmn", "-d", tmp_path / "grey.npz", *SHORT, "--variance", "0.5", "--no-sweeps",
               "--no-dynamics")  # fmt: skip
    assert done.code == 0
    row = next(line for line in done.out.splitlines() if line.startswith("│ dmn 1 ") and "," in line)
    assert sum(str(label) in row.split("│")[-2] for label in range(3)) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--variance", "1.5"), ("--variance cannot be 1.5", "≤ 1")),
        (("--variance", "0.9,x"), ("--variance is '0.9,x'", "0.99,0.95")),
        (("--variance", ""), ("--variance is ''",)),
        (("--correlation", 0), ("correlation cannot be 0",)),
        (("--fraction", 1.5), ("fraction cannot be 1.5",)),
        (("--epochs", 0), ("--epochs",)),
    ],
)
def test_mistakes_are_one_line(capsys, tmp_path, images, options, words):
    run(capsys, "run", "dmn", "-d", images, *options).one_line(2, *words)
    assert not (tmp_path / "runs").exists()


def test_data_that_are_no_images(capsys, own):
    run(capsys, "run", "dmn", "-d", own, *SHORT).one_line(2, "dmn needs images of at least 3×3", "(7,)")
