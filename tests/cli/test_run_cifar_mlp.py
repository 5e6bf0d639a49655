"""`gpunet run cifar-mlp` end to end."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from gpunet.experiments.cifar_mlp import x
from gpunet.experiments.claims import judge
from gpunet.experiments.result import Result

from ..datasets.cifar_writer import write_cifar10
from ..experiments.made import write_npz
from ..experiments.schema import check_claims, parse
from .runner import check_folder, run

FIGURES = ("better.png", "final.png", "momentum.png", "rates.png", "search.png")
SHORT = ("--epochs", 2, "--seeds", 1, "--trials", 3, "--device", "numpy")


@pytest.fixture
def cifar(tmp_path):
    """Six batches of twelve images in the data folder."""
    write_cifar10(tmp_path / "data" / "cifar10")
    return tmp_path / "data" / "cifar10" / "cifar-10-batches-bin"


def judged(folder):
    """The verdicts on a folder's result by their ids."""
    claims = [dataclasses.asdict(claim) for claim in judge(x, Result.read(folder / "result.json"))]
    check_claims(claims)
    assert len(claims) == 24
    return {claim["id"]: claim for claim in claims}


@pytest.mark.slow
def test_quick_is_the_digits_and_one_seed(capsys, tmp_path):
    done = run(capsys, "run", "cifar-mlp", "--quick", "--epochs", 2, "--trials", 4, "--device", "numpy")
    assert (done.code, done.said()) == (0, [])
    made = check_folder(tmp_path / "runs" / "cifar-mlp-digits", FIGURES)
    assert (made["dataset"], made["seeds"]) == ("digits", [0])
    assert made["notes"]["samples"] == {"train": 1154, "validation": 288, "test": 355}
    claims = judged(tmp_path / "runs" / "cifar-mlp-digits")
    assert claims["gradient-check"]["verdict"] == "reproduced"
    assert {claims[name]["verdict"] for name in ("final-test-accuracy", "above-45", "eta-0.3-test-accuracy")} == {
        "not tested"
    }
    for words in ("Gradient check: 200 samples of 64 dimensions", "η = 0.001", "momentum 0.9", "4 + 4 nets",
                  "1 + 1 nets", "final he decay", "no hidden layer", "its 12 numbers are not applicable"):  # fmt: skip
        assert words in " ".join(done.out.split()), words
    assert done.out.splitlines()[-1].startswith("On digits: momentum: training cost lower by ")
    assert re.search(r"^cifar-mlp rates 20/20 eta=0.5 no momentum: 2/2 epoch 2  cost ", done.err, re.MULTILINE)
    assert re.search(r"^cifar-mlp search stage 2/2: 4/4 best 0", done.err, re.MULTILINE)
    assert re.search(r"^cifar-mlp wide search stage 1/2: 1/1 best 0", done.err, re.MULTILINE)


@pytest.mark.slow
def test_cifar_by_batches_shows_the_documents_figures_beside_ours(capsys, tmp_path, cifar):
    done = run(capsys, "run", "cifar-mlp", "--full", *SHORT, "--learning-rate", 0.02, "--learning-rate", 1e30, "-m", 5)
    assert (done.code, done.said()) == (0, [])
    made = check_folder(tmp_path / "runs" / "cifar-mlp-cifar10", FIGURES)
    assert made["notes"]["samples"] == {"train": 12, "validation": 12, "test": 12}
    assert made["notes"]["full_samples"] == {"train": 54, "validation": 6}
    assert {row["name"] for row in made["rows"]} >= {"eta=1e+30", "full", "final full", "found"}
    claims = judged(tmp_path / "runs" / "cifar-mlp-cifar10")
    assert claims["final-test-accuracy"]["verdict"] == "not tested"  # two epochs of five units
    assert claims["more-data-helps"]["here"]
    for words in ("3.4e-03", "41.31", "1 diverged", "Claims", "this run has other settings", "document"):
        assert words in " ".join(done.out.split()), words


def test_one_part_and_json(capsys, tmp_path, cifar):
    done = run(
        capsys, "run", "cifar-mlp", "--part", "final", "--seeds", 2, "--epochs", 10, "--json", "-o", tmp_path / "out"
    )
    assert done.code == 0
    made = check_folder(tmp_path / "out", ["final.png"])
    assert parse(done.out) == made
    claims = judged(tmp_path / "out")
    assert claims["final-test-accuracy"]["verdict"] == "not reproduced"  # twelve images are not ten thousand
    assert claims["gradient-check"]["verdict"] == "not tested"


@pytest.mark.parametrize("part", ["gradient", "rates", "search", "better", "full"])
def test_every_part_draws_what_it_has(capsys, tmp_path, cifar, part):
    done = run(capsys, "run", "cifar-mlp", "--part", part, *SHORT, "-m", 2, "-o", tmp_path / "out")
    assert (done.code, done.said()) == (0, [])
    figures = {"gradient": [], "rates": ["momentum.png", "rates.png"], "search": ["search.png"]}
    check_folder(tmp_path / "out", figures.get(part, ["better.png"]))


@pytest.mark.slow
def test_own_data(capsys, tmp_path, own):
    done = run(capsys, "run", "cifar-mlp", "-d", own, *SHORT, "--batch-size", 10)
    assert (done.code, done.said()) == (0, [])
    made = check_folder(tmp_path / "runs" / "cifar-mlp-own", FIGURES)
    assert made["settings"]["batch_size"] == 10
    assert made["notes"]["samples"] == {"train": 48, "validation": 12, "test": 30}
    claims = judged(tmp_path / "runs" / "cifar-mlp-own")
    assert claims["final-test-accuracy"]["note"] == "not applicable: the document speaks of cifar10"
    assert claims["he-helps"]["here"]
    assert claims["he-helps"]["measured"].startswith("test accuracy ")


def test_own_data_of_a_known_name_get_no_verdicts(capsys, tmp_path):
    write_npz(tmp_path / "cifar10.npz")
    done = run(capsys, "run", "cifar-mlp", "-d", tmp_path / "cifar10.npz", *SHORT, "--part", "final")
    assert done.code == 0
    made = check_folder(tmp_path / "runs" / "cifar-mlp-own-cifar10", ["final.png"])
    assert made["dataset"] == "own-cifar10"
    claims = judged(tmp_path / "runs" / "cifar-mlp-own-cifar10")
    assert claims["final-test-accuracy"]["verdict"] == "not tested"
    assert claims["better-than-one-layer"]["here"]


@pytest.mark.slow
def test_features_that_are_far_too_large_diverge_and_draw(capsys, tmp_path):
    x = 1e9 * np.random.default_rng(0).normal(size=(60, 7)).astype("f4")
    write_npz(tmp_path / "wild.npz", x_train=x, x_test=x[:30])
    done = run(capsys, "run", "cifar-mlp", "-d", tmp_path / "wild.npz", *SHORT)
    assert (done.code, done.said()) == (0, [])
    check_folder(tmp_path / "runs" / "cifar-mlp-wild", FIGURES)
    assert "1 diverged" in done.out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--part", "rate"), ("--part is 'rate'", "gradient, rates, search, final, better, full")),
        (("--learning-rate", 0), ("--learning-rate cannot be 0.0", "> 0")),
        (("--learning-rate", -0.1), ("--learning-rate cannot be -0.1",)),
        (("--hidden", 0), ("Invalid value", "--hidden")),
        (("-m", -3), ("Invalid value", "--hidden")),
        (("--batch-size", 0), ("--batch-size",)),
        (("--trials", 0), ("--trials",)),
        (("--epochs", 0), ("--epochs",)),
        (("--full",), ("the part full trains on all batches of cifar10", "leave out --full")),
        (("--part", "full"), ("the part full trains on all batches of cifar10",)),
    ],
)
def test_mistakes_are_one_line(capsys, tmp_path, own, options, words):
    run(capsys, "run", "cifar-mlp", "-d", own, *options).one_line(2, *words)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("gone", "options"),
    [("data_batch_2", ()), ("test_batch", ()), ("data_batch_3", ("--full",)), ("data_batch_5", ("--part", "full"))],
)
def test_missing_batches_are_named(capsys, tmp_path, cifar, gone, options):
    (cifar / f"{gone}.bin").unlink()
    done = run(capsys, "run", "cifar-mlp", *options)
    done.one_line(2, f"{gone}.bin", "gpunet data fetch cifar10", "--dataset digits")
    assert not (tmp_path / "runs").exists()


def test_batches_that_are_not_needed_may_be_missing(capsys, tmp_path, cifar):
    for batch in (3, 4, 5):
        (cifar / f"data_batch_{batch}.bin").unlink()
    assert run(capsys, "run", "cifar-mlp", "--part", "final", *SHORT).code == 0
