"""`gpunet sweep`: what it writes and prints, and how it answers mistakes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from gpunet.experiments import experiments
from gpunet.report import sweep_figures

from ..cli.runner import files, run
from ..experiments.made import arrays, write_npz
from ..experiments.schema import is_png, parse
from .functions import BOWL
from .processes import said

RATE = ("--param", "learning_rate=log:1e-3..1e-1")
QUICK = ("--trials", 3, "--device", "numpy")
FIGURES = ("curves.png", "history.png", "importance.png", "slices.png")


@pytest.fixture
def own(tmp_path):
    return write_npz(tmp_path / "own.npz")


def sweep(capsys, *arguments):
    """What it printed, its progress left out; it must succeed without a word."""
    done = run(capsys, "sweep", *arguments)
    assert (done.code, said(done.err)) == (0, []), done.err
    return done


def refused(capsys, *arguments, code=2) -> str:
    """The one line that a mistake gets."""
    done = run(capsys, "sweep", *arguments)
    assert (done.code, done.out) == (code, ""), done
    (line,) = said(done.err)
    assert line.startswith("gpunet: ")
    assert "--debug" not in line
    return line


def check_folder(folder, figures=FIGURES) -> dict:
    assert files(folder) == sorted([*figures, "result.json", "sweep.db"])
    for name in figures:
        assert is_png((folder / name).read_bytes()), name
    return parse((folder / "result.json").read_text())


@pytest.mark.slow
def test_a_training_run(capsys, tmp_path, own, monkeypatch):
    options = ("train", "-d", own, *RATE, "-p", "hidden=int:2..16", "-p", "l2=0", "--epochs", 2, *QUICK)
    done = sweep(capsys, *options)
    folder = tmp_path / "runs" / "sweep-train-own"
    result = check_folder(folder)
    assert (result["experiment"], result["dataset"], result["device"], result["seeds"]) == (
        "sweep-train", "own", "cpu", [0],
    )  # fmt: skip
    trials = [f"trial {number}" for number in range(6)]
    assert [row["name"] for row in result["rows"]] == [*trials, "importance"]
    settings, notes = result["settings"], result["notes"]
    assert settings["judged_by"].startswith("12 of the 60 training samples of own, held out")
    assert notes["stage"] == dict.fromkeys(trials[:3], 1) | dict.fromkeys(trials[3:], 2)
    assert set(notes["state"].values()) == {"complete"}
    assert (settings["space"], settings["direction"]) == (
        ["learning_rate=log:0.001..0.1", "hidden=int:2..16", "l2=0"], "maximize",
    )  # fmt: skip
    assert settings["storage"] == f"sqlite:///{folder}/sweep.db"
    assert set(result["timings"]) == set(trials)
    assert result["curves"]["trial 0"]["step"] == [0, 1, 2]
    values = {row["name"]: row["metrics"]["value"]["mean"] for row in result["rows"][:6]}
    assert values[notes["best"]] == max(values.values())
    for words in (
        "sweep-train on own: the best 6 of 6 completed trials\n", "Share of the variation explained (fANOVA)\n",
        "validation_accuracy", f"Best: {notes['best']}, learning_rate=", "the test set is not used.\n",
        "Written: runs/sweep-train-own/result.json, history.png, slices.png, importance.png, curves.png (",
    ):  # fmt: skip
        assert words in done.out, words
    assert "l2" not in done.out.split("Best:")[0]
    assert [line.split(" best")[0] for line in done.err.splitlines()] == [
        "sweep stage 1/2: 3/3",
        "sweep stage 2/2: 3/3",
    ]

    monkeypatch.setattr(sweep_figures, "draw", lambda result, folder: [])
    again = sweep(capsys, *options, "--json")
    document = parse(again.out)
    assert document == json.loads((folder / "result.json").read_text())
    assert document["rows"] == result["rows"]
    assert document["timings"] == result["timings"], "no trial was repeated"


@pytest.mark.slow
def test_an_experiment(capsys, tmp_path, own):
    done = sweep(
        capsys, "svd-init", "-d", own, *RATE, "-p", "epochs=1", "-p", "hidden=3,6", "--metric", "orth-each:train_loss",
        *QUICK, "--out", tmp_path / "here", "--stages", 1, "--seed", 3, "--seeds", 2, "--validation", 0.5,
    )  # fmt: skip
    result = check_folder(tmp_path / "here", ("history.png", "slices.png"))
    assert (result["experiment"], result["seeds"]) == ("sweep-svd-init", [3])
    given = result["settings"]["given"]
    assert (given["row"], given["metric"], given["seeds"], given["validation"]) == ("orth-each", "train_loss", 2, 0.5)
    assert result["settings"]["direction"] == "minimize"
    assert "train_loss" in done.out
    assert "30 of the 60 training samples" in done.out


@pytest.mark.slow
def test_a_function_of_ones_own(capsys, tmp_path, monkeypatch):
    (tmp_path / "hill.py").write_text(
        "def climb(parameters, settings, report):\n"
        "    report(0, 1.0)\n"
        "    if parameters['x'] < 0.5:\n"
        "        raise RuntimeError('too low [bold]')\n"
        "    return parameters['x'] * settings['scale'] + len(settings['name'])\n"
    )
    monkeypatch.setattr(sys, "path", list(sys.path))
    done = sweep(capsys, "function", "hill:climb", "-p", "x=0..1", "--set", "scale=-1.5", "--set", "name=abc",
                 "--trials", 8, "--stages", 1, "--direction", "minimize", "--storage", "shared.db")  # fmt: skip
    folder = tmp_path / "runs" / "sweep-function-climb"
    assert files(folder) == ["history.png", "result.json", "slices.png"]
    result = parse((folder / "result.json").read_text())
    given = result["settings"]["given"]
    assert given == {"scale": -1.5, "name": "abc"}
    failed = [name for name, state in result["notes"]["state"].items() if state == "failed"]
    assert len(failed) == 4
    assert f"4 failed, first {failed[0]}: RuntimeError: too low [bold]" in done.out
    assert "the best 4 of 4 completed trials, 4 failed" in done.out

    joined = sweep(capsys, "join", "shared.db", "--function", "hill:climb", "--out", tmp_path / "again")
    assert parse((tmp_path / "again" / "result.json").read_text())["rows"] == result["rows"]
    assert joined.out.splitlines()[:-1] == done.out.splitlines()[:-1]
    line = refused(capsys, "join", "shared.db")
    assert "the sweep there runs 'hill:climb': expected a function of gpunet" in line


@pytest.mark.slow
def test_names_of_folders_are_paths_not_urls(capsys, tmp_path, own):
    hostile = "~x?a=1#%20 {b}ü@:\n"
    options = ("train", "-d", own, "-p", "hidden=int:2..4", "--epochs", 1, "--trials", 1, "--stages", 1)
    done = sweep(capsys, *options, f"--out={hostile}")
    assert check_folder(tmp_path / hostile, ("curves.png", "history.png", "slices.png"))["dataset"] == "own"
    assert r"Written: ~x?a=1#%20 {b}ü@:\n/result.json, " in done.out
    result = parse((tmp_path / hostile / "result.json").read_text())
    url = result["settings"]["storage"]
    assert url.isprintable()
    assert url == f"sqlite:///{tmp_path}/~x%3Fa=1%23%2520 {{b}}ü@:%0A/sweep.db"
    joined = sweep(capsys, "join", url, "--out=-dash", "--json")
    assert parse(joined.out)["rows"] == result["rows"]
    assert files(tmp_path) == sorted([hostile, "-dash", "own.npz"])


@pytest.mark.slow
def test_nothing_completes(capsys, tmp_path):
    (tmp_path / "wall.py").write_text("def hit(parameters, settings, report):\n    raise RuntimeError('no way')\n")
    options = ("function", "wall:hit", "-p", "x=0..1", "--trials", 2, "--storage", "a.db")
    line = refused(capsys, *options, code=1)
    assert "there is nothing to draw stage 2 around: of 2 trials none completed, 2 failed" in line
    done = run(capsys, "sweep", *options[:-1], "b.db", "--stages", 1)
    assert done.code == 1
    assert done.err.splitlines()[-1] == (
        "gpunet: there is no best trial: of 2 trials none completed, 2 failed, the first with: RuntimeError: no way"
    )
    assert "no trial completed, 2 failed" in done.out
    assert files(tmp_path / "runs" / "sweep-function-hit") == ["result.json"]
    line = refused(capsys, *options[:-1], "c.db", "--stop-at-failure", code=1)
    assert 'trial 0 {"x": 0.' in line
    assert "failed: RuntimeError: no way" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train"], ("Missing option", "--param")),
        (["train", "--param", "learning_rate"], ("'learning_rate' is malformed", "log:1e-3..1e-1")),
        (["train", "--param", "l2=1..1"], ("empty range",)),
        (["train", "--param", "l2=2..1"], ("reversed",)),
        (["train", "--param", "learning_rate=log:0..1"], ("above zero",)),
        (["train", "--param", "lr=0..1"], ("no setting 'lr'", "it has learning_rate, l2")),
        (["train", "--param", "l2=0..1", "--param", "l2=0..2"], ("l2 is given twice",)),
        (["train", *RATE, "--workers", "0"], ("Invalid value", "--workers")),
        (["train", *RATE, "--trials", "0"], ("--trials",)),
        (["train", *RATE, "--stages", "0"], ("--stages",)),
        (["train", *RATE, "--validation", "1.5"], ("validation cannot be 1.5",)),
        (["train", *RATE, "--dataset", "nix"], ("unknown data set 'nix'",)),
        (["train", *RATE, "--dataset", "no/such.npz"], ("no such file",)),
        (["train", *RATE, "--metric", "nix"], ("unknown metric 'nix'",)),
        (["train", *RATE, "--storage", "postgresql://me:secret@127.0.0.1:1/x"], ("me:***@127.0.0.1", "cannot be used")),
        (["train", *RATE, "--storage", "no/such/folder/a.db"], ("there is no folder",)),
        (["svd-init", "--param", "lr=0..1"], ("svd-init has no setting 'lr' to search: it has hidden",)),
        (["svd-init", *RATE, "-p", "epochs=1", "--metric", "nix:x", "--trials", "1"], ("no row 'nix'", "orth-each")),
        (["nonsense"], ("nonsense",)),
        (["join"], ("URL",)),
        (["train", *RATE, "--dataset", ""], ("unknown data set ''",)),
        (["train", *RATE, "--storage", ""], ("the storage '' is malformed",)),
        (["function", "no:such", "-p", "x=0..1"], ("'no:such' cannot be imported",)),
        (["function", BOWL, "-p", "x=0..1", "--set", "x"], ("--set is 'x': expected NAME=VALUE",)),
    ],
)  # fmt: skip
def test_mistakes(capsys, arguments, words):
    line = refused(capsys, *arguments)
    for word in words:
        assert word in line, line
    assert "secret" not in line


@pytest.mark.parametrize("url", ["nothing.db", "journal:///nothing.log", "no/folder/nothing.db"])
def test_joining_what_is_not_there_makes_nothing(capsys, tmp_path, url):
    before = files(tmp_path)
    line = refused(capsys, "join", url)
    assert "' holds no sweep: start one with gpunet sweep … --storage URL" in line
    assert ("there is no folder" in line) == (url.startswith("no/"))
    assert files(tmp_path) == before


@pytest.mark.slow
def test_the_folder_holds_another_sweep(capsys, tmp_path, own):
    options = ("train", "-d", own, *RATE, "--epochs", 1, *QUICK, "--stages", 1)
    sweep(capsys, *options)
    before = (tmp_path / "runs" / "sweep-train-own" / "result.json").read_bytes()
    for change, words in (
        (("--seed", 1), "seed is 1 here and 0 there"),
        (("--epochs", 2), "settings fixed epochs is 2 here and 1 there"),
        (("-p", "l2=0..1"), "space is"),
        (("--trials", 4), "trials is 4 here and 3 there"),
    ):
        line = refused(capsys, *options, *change)
        assert "holds another sweep: " in line
        assert "(--storage or --out)" in line
        assert words in line, line
    write_npz(own, x_train=arrays()["x_train"] + 1)
    assert "settings data is" in refused(capsys, *options)
    assert (tmp_path / "runs" / "sweep-train-own" / "result.json").read_bytes() == before


HEAVY = ("numpy", "optuna", "sqlalchemy", "sklearn", "matplotlib", "alembic")


@pytest.mark.parametrize("arguments", [[], ["--help"], ["train", "--help"], ["svd-init", "--help"], ["join", "--help"]])
def test_help_imports_nothing_heavy(arguments):
    code = (
        "import sys; from gpunet.cli import execute; execute(['sweep', *sys.argv[1:]]); "
        f"print('loaded:', [m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "loaded: []"


def test_help_teaches(capsys):
    listed = run(capsys, "sweep", "--help").out
    for name in (*experiments(), "train", "function", "join"):
        assert f" {name} " in listed
    for command in ("svd-init", "train"):
        told = " ".join(run(capsys, "sweep", command, "--help").out.replace("│", " ").split())
        for words in (
            "the test set stays unseen", "held out", "--param", "lr=log:1e-3..1e-1", "--stages", "--workers",
            "postgresql://user@host/name", "gpunet sweep join URL", "goes on where it stopped", "--metric",
        ):  # fmt: skip
            assert words in told, words
