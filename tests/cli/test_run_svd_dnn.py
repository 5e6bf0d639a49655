"""`gpunet run svd-dnn` end to end."""

from __future__ import annotations

import json

import pytest

from ..experiments.made import write_npz
from ..experiments.schema import parse
from .runner import check_folder, run

SHORT = ("--epochs", 2, "--seeds", 1, "--device", "numpy")


@pytest.mark.slow
def test_quick_is_the_digits_and_one_seed(capsys, tmp_path):
    done = run(capsys, "run", "svd-dnn", "--quick", "--epochs", 1, "--no-speed")
    assert (done.code, done.said()) == (0, [])
    made = check_folder(tmp_path / "runs" / "svd-dnn-mnist-digits", ["cost.png"])
    assert (made["dataset"], made["seeds"], made["settings"]["batch_size"]) == ("digits", [0], 48)
    assert "Of 14 orderings that the document states " in done.out
    assert "its 19 numbers are not applicable: the document speaks of mnist" in done.out
    assert "mnist on digits: 1 epochs, 1 seed" in done.out
    assert "What the cut does" in done.out
    assert "of document 001" not in done.out


@pytest.mark.slow
def test_xor_shows_the_documents_table_the_notebooks_and_ours(capsys, tmp_path):
    done = run(capsys, "run", "svd-dnn", "--task", "xor", *SHORT)
    assert (done.code, done.said()) == (0, [])
    made = check_folder(tmp_path / "runs" / "svd-dnn-xor", ["cost.png", "speed.png"])
    assert made["notes"]["ranks"]["svd phi=0.1 alpha=0.5 break-even"] == [1, 5]
    for words in ("Table 1 of document 001", "its notebooks", "2.700", "0.333", "allowed by", "Claims"):
        assert words in done.out, words
    last = done.out.splitlines()[-1]
    assert last.startswith("On xor: ")
    assert "not applicable: this run has other settings than the document: epochs 2 for 800" in last


@pytest.mark.parametrize("options", [("--sweep-alpha", "--sweep-phi"), ("--sweep-phi",), ("--sweep-alpha",)])
def test_a_sweep_draws_heat_maps(capsys, tmp_path, options):
    done = run(capsys, "run", "svd-dnn", "--task", "xor", *SHORT, "--no-speed", *options)
    assert (done.code, done.said()) == (0, [])
    check_folder(tmp_path / "runs" / "svd-dnn-xor-sweep", ["sweep.png"])


def test_own_data_and_json(capsys, tmp_path, own):
    done = run(capsys, "run", "svd-dnn", "-d", own, *SHORT, "--no-speed", "--alpha", 0.3, "--meaning", "dimension",
               "--json", "-o", tmp_path / "out")  # fmt: skip
    assert done.code == 0
    made = check_folder(tmp_path / "out", ["cost.png"])
    assert parse(done.out) == made == json.loads(done.out)
    assert [row["name"] for row in made["rows"]][1] == "svd phi=0.1 alpha=0.3 dimension"


@pytest.mark.slow
def test_own_data_of_a_known_name_are_not_the_documents(capsys, tmp_path):
    write_npz(tmp_path / "mnist.npz")
    done = run(capsys, "run", "svd-dnn", "-d", tmp_path / "mnist.npz", *SHORT, "--no-speed", "-o", tmp_path / "out")
    assert done.code == 0
    made = check_folder(tmp_path / "out", ["cost.png"])
    assert made["dataset"] == "own-mnist"
    assert "its 19 numbers are not applicable: the document speaks of mnist" in done.out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--task", "dogs"), ("task is 'dogs'", "xor, cats, mnist")),
        (("--phi", 1.5), ("--phi cannot be 1.5", "≤ 1")),
        (("--phi", -1), ("--phi cannot be -1",)),
        (("--alpha", 0), ("--alpha cannot be 0.0", "> 0 and ≤ 1")),
        (("--alpha", -0.5), ("--alpha cannot be -0.5",)),
        (("--meaning", "share"), ("share", "dimension, break-even")),
        (("--epochs", 0), ("--epochs",)),
    ],
)
def test_mistakes_are_one_line(capsys, tmp_path, options, words):
    run(capsys, "run", "svd-dnn", "--task", "xor", *options).one_line(2, *words)
    assert not (tmp_path / "runs").exists()


def test_cats_that_are_missing_say_how_to_get_them(capsys):
    run(capsys, "run", "svd-dnn", "--task", "cats").one_line(2, "cats", "gpunet data fetch cats", "GPUNET_DATA")


def test_a_task_of_two_classes_refuses_three(capsys, own):
    done = run(capsys, "run", "svd-dnn", "--task", "cats", "-d", own, *SHORT)
    done.one_line(2, "two classes", "3 classes", "--task mnist")
