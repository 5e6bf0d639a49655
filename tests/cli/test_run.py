"""`gpunet run svd-init` end to end."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

import gpunet.datasets
from gpunet.experiments.claims import judge
from gpunet.experiments.result import Result
from gpunet.experiments.svd_init import x
from gpunet.experiments.svd_init.claims import METRICS, TABLE_1

from ..datasets.idx_writer import write_folder
from ..experiments.made import (
    BY_THE_CLOCK,
    FIGURES,
    KINDS,
    SWEEP,
    arrays,
    dataset,
    read_result,
    repeatable,
    write_npz,
)
from ..experiments.schema import is_png
from .runner import TINY, files, run, script


def check_folder(folder) -> dict:
    assert files(folder) == sorted([*FIGURES, "result.json"])
    for name in FIGURES:
        assert is_png((folder / name).read_bytes()), name
    return read_result((folder / "result.json").read_text())


def told_of_own_data(done, folder, name) -> None:
    """The last line tells what was found, not that nothing was tested."""
    claims = judge(x, Result.read(folder / "result.json"))
    here = [claim for claim in claims if claim.here]
    assert len({claim.id for claim in here} - BY_THE_CLOCK) == 6  # a clock may be unbelievable
    last = done.out.splitlines()[-1]
    assert last.startswith(
        f"On {name}: class-wise vectors: {here[0].measured.split(':')[1].split()[0]} points over random"
    )
    assert f"Of {len(here)} orderings that the document states " in last
    assert "its 15 numbers are not applicable: the document speaks of mnist" in last
    assert last.count("hold") + last.count("cannot be told yet") > 0


@pytest.mark.slow
def test_quick_is_the_digits_and_one_seed(capsys, tmp_path):
    done = run(capsys, "run", "svd-init", "--quick", "--epochs", 2)
    assert (done.code, done.said()) == (0, [])
    result = check_folder(tmp_path / "runs" / "svd-init-digits")
    assert (result["dataset"], result["seeds"], result["settings"]["hidden"]) == ("digits", [0], 61)
    told_of_own_data(done, tmp_path / "runs" / "svd-init-digits", "digits")
    table, rest = done.out.split("W¹ frozen", 1)
    assert "Table 1 on digits: 2 epochs, 1 seed" in table
    assert "claimed" not in table
    for kind in KINDS:
        assert f"{kind} " in table
    for row in (f"{KINDS[0]} frozen", f"{KINDS[4]} norm held", *SWEEP, "dep before", "‖x¹‖² measured"):
        assert row in rest
    assert "result.json, " + ", ".join(["dependency.png", "curves.png", "table1.png", "further.png"]) in done.out


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
def test_somebodys_npz(capsys, tmp_path, dtype):
    path = write_npz(tmp_path / "mine.npz", dtype)
    done = run(
        capsys,
        "run",
        "svd-init",
        "--dataset",
        path,
        "--out",
        tmp_path / "a" / "b",
        "--seeds",
        2,
        "--epochs",
        2,
    )
    assert (done.code, done.said()) == (0, [])
    result = check_folder(tmp_path / "a" / "b")
    assert (result["dataset"], result["seeds"], result["settings"]["hidden"]) == ("mine", [0, 1], 6)
    told_of_own_data(done, tmp_path / "a" / "b", "mine")
    assert f"Written: {tmp_path / 'a' / 'b' / 'result.json'}, " in done.out
    mean = next(row for row in result["rows"] if row["name"] == "orth-each")["metrics"]["test_accuracy"]
    assert f"{100 * mean['mean']:.2f} ± {100 * mean['std']:.2f}" in done.out


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_folder_of_idx_files(capsys, tmp_path, suffix):
    parts = arrays("uint8", classes=4, features=6, train=80, test=20)
    parts = {name: a.reshape(-1, 3, 2) if name[0] == "x" else a.astype("uint8") for name, a in parts.items()}
    folder = write_folder(tmp_path / "shoes", parts, suffix, test="test" if suffix else "t10k")
    done = run(capsys, "run", "svd-init", "-d", folder, "-o", tmp_path / "out", *TINY)
    assert (done.code, done.said()) == (0, [])
    result = check_folder(tmp_path / "out")
    assert (result["dataset"], result["settings"]["hidden"]) == ("shoes", 5)
    told_of_own_data(done, tmp_path / "out", "shoes")


@pytest.mark.slow
def test_json_is_the_file_and_nothing_else(capsys, own, tmp_path):
    done = run(capsys, "run", "svd-init", "-d", own, "-o", tmp_path / "out", "--json", "--seed", 7, *TINY)
    assert (done.code, done.said()) == (0, [])
    result = check_folder(tmp_path / "out")
    assert done.out == (tmp_path / "out" / "result.json").read_text()
    assert read_result(done.out) == result
    assert (result["seeds"], result["settings"]["epochs"], result["device"]) == ([7], 1, "cpu")


@pytest.mark.slow
def test_every_option_reaches_the_result(capsys, own, tmp_path):
    given = {"hidden": 3, "learning_rate": 0.25, "batch_size": 11, "dependency": 0.125, "epochs": 2}
    options = [part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", value)]
    done = run(capsys, "run", "svd-init", "-d", own, "--seed", 3, "-n", 2, "--device", "numpy", "--json", *options)
    result = read_result(done.out)
    assert {name: result["settings"][name] for name in given} == given
    assert result["seeds"] == [3, 4]
    assert files(tmp_path / "runs" / "svd-init-own")


@pytest.mark.slow
def test_a_second_run_replaces_the_first_with_the_same_bits(capsys, own, tmp_path):
    out = tmp_path / "out"
    results = []
    for seed in (1, 1, 2):
        assert run(capsys, "run", "svd-init", "-d", own, "-o", out, "--seed", seed, *TINY).code == 0
        results.append(repeatable(check_folder(out)))
    assert results[0] == results[1]
    assert results[0]["rows"] != results[2]["rows"]


@pytest.mark.slow
def test_two_processes_give_the_same_bits(own, tmp_path):
    results = []
    for out in ("a", "b"):
        done = script("run", "svd-init", "-d", own, "-o", tmp_path / out, "--json", *TINY)
        assert (done.code, done.said()) == (0, [])
        results.append(repeatable(read_result(done.out)))
    assert results[0] == results[1]


@pytest.mark.slow
def test_on_mnist_the_table_shows_claimed_beside_measured(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(gpunet.datasets, "load", lambda name, **reading: dataset(name))
    monkeypatch.setattr(x, "_stated", lambda result: {})  # few epochs, judged as the document's
    done = run(capsys, "run", "svd-init", "--epochs", 2, "--seeds", 2, "-o", tmp_path / "out")
    assert (done.code, done.said()) == (0, [])
    result = check_folder(tmp_path / "out")
    assert result["dataset"] == "mnist"
    metrics = {row["name"]: row["metrics"] for row in result["rows"]}
    lines = done.out.split("W¹ frozen", 1)[0].splitlines()
    for kind, numbers in TABLE_1.items():
        (line,) = [line for line in lines if line.startswith(f"│ {kind} ")]
        cells = [cell.strip() for cell in line.strip("│").split("│")][1:]
        for metric, claimed, shown, measured in zip(METRICS, numbers, cells[::2], cells[1::2], strict=True):
            unit, form = (100, ".2f") if "accuracy" in metric else (1, ".3f")
            assert shown == f"{unit * claimed:{form}}"
            assert measured.startswith(f"{unit * metrics[kind][metric]['mean']:{form}} ± ")
    claims = done.out.split("\nClaims\n", 1)[1]
    judged = judge(x, Result.read(tmp_path / "out" / "result.json"))
    assert "not tested" not in {claim.verdict for claim in judged if claim.id not in BY_THE_CLOCK}
    assert "the orthogonal matrix of each class" in claims
    verdicts = ("reproduced", "exceeded", "not reproduced", "inconclusive", "not tested")
    counts = {v: sum(c.verdict == v for c in judged) for v in verdicts}
    assert "Claims: " + ", ".join(f"{n} {verdict}" for verdict, n in counts.items() if n) + "\n" in claims


@pytest.mark.slow
def test_the_documents_numbers_do_not_apply_to_other_settings(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(gpunet.datasets, "load", lambda name, **reading: dataset(name))
    done = run(capsys, "run", "svd-init", "--epochs", 2, "--hidden", 3, "-o", tmp_path / "out")
    apart = "this run has other settings than the document: hidden 3 for 100, epochs 2 for 5"
    assert f"its 15 numbers are not applicable: {apart}" in done.out.splitlines()[-1]


@pytest.mark.slow
def test_a_narrow_terminal_loses_no_number(capsys, monkeypatch):
    """At 80 columns cells may wrap, but nothing is cut off."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(gpunet.datasets, "load", lambda name, **reading: dataset(name))
    done = run(capsys, "run", "svd-init", *TINY)
    assert done.code == 0
    assert "…" not in done.out
    assert all(f"{100 * test:.2f}" in done.out for _, _, test in TABLE_1.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnist", "digits"])
def test_a_file_called_like_a_known_data_set_is_not_that_data_set(capsys, tmp_path, name):
    path = write_npz(tmp_path / f"{name}.npz")
    done = run(capsys, "run", "svd-init", "-d", path, *TINY)
    told_of_own_data(done, tmp_path / "runs" / f"svd-init-own-{name}", f"own-{name}")


@pytest.mark.slow
def test_names_with_brackets_are_printed_as_they_are(capsys, tmp_path):
    """Rich takes [red] for a colour, and stops at [/red]."""
    path, out = write_npz(tmp_path / "a[red].npz"), tmp_path / "o[bold]" / "[" / "red]"
    done = run(capsys, "run", "svd-init", "-d", path, "-o", out, *TINY)
    assert (done.code, done.said()) == (0, [])
    assert "Table 1 on a[red]: " in done.out
    assert "On a[red]: " in done.out
    assert f"Written: {out}/result.json, " in done.out


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"classes": 2, "features": 2}, {"classes": 30, "features": 40, "train": 90}])
def test_few_and_many_classes(capsys, tmp_path, changes):
    np.savez(tmp_path / "x.npz", **arrays(**changes))
    result = read_result(run(capsys, "run", "svd-init", "-d", "x.npz", "--json", *TINY).out)
    assert result["settings"]["hidden"] == {2: 1, 40: 39}[changes["features"]]


def test_numbers_that_are_not_finite_are_null():
    made = Result("svd-init", "own", "cpu", {"a": np.float32(0.5)}, [0], curves={"c": [np.nan, np.inf, np.int64(3)]})
    made.row("random").add(train_loss=float("inf"))
    plain = json.loads(json.dumps(made.to_json(), allow_nan=False))
    assert plain["curves"] == {"c": [None, None, 3]}
    assert plain["settings"] == {"a": 0.5}
    assert plain["rows"][0]["metrics"]["train_loss"] == {"mean": None, "std": None, "values": [None]}
    assert dataclasses.asdict(made)["dataset"] == "own"
