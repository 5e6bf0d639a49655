"""Results are written before figures, which may fail: a name that looks like mathematics, a disk that is full."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path

import pytest

from gpunet.errors import OutputError
from gpunet.report import style

from ..experiments.made import FIGURES, write_npz
from ..sweep.processes import said
from .runner import TINY, Done, check_folder, files, run

pytestmark = pytest.mark.filterwarnings("default")  # as users have it, and not an error


def svd_init(capsys, data: Path, out: Path, *options: object) -> Done:
    return run(capsys, "run", "svd-init", "--dataset", data, "--out", out, *TINY, *options)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "a$b_{c[red]x[link=y]:cat:<b>&\x1b[31m\r\x07\u202eb\nc",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("$", "[]")),
    ],
)
def test_names_of_data(capsys, tmp_path, name):
    data = write_npz(tmp_path / f"{name}.npz")
    done = svd_init(capsys, data, tmp_path / f"out {name}")
    assert (done.code, done.said()) == (0, [])
    assert check_folder(tmp_path / f"out {name}", FIGURES)["dataset"].endswith(name)
    assert all(line.isprintable() for line in [*done.out.splitlines(), *done.err.splitlines()])
    seen = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in name)
    assert f"Table1on{seen}:1epoch" in "".join(done.out.split())
    assert f"Written: {tmp_path}/out {seen}/result.json, dependency.png, " in done.out


@pytest.mark.slow
def test_a_folder_in_the_place_of_a_figure(capsys, own, tmp_path):
    (tmp_path / "out" / "curves.png").mkdir(parents=True)
    done = svd_init(capsys, own, tmp_path / "out", "--json")
    (line,) = done.said()
    assert done.code == 0
    assert line.startswith("gpunet: warning: curves.png could not be drawn, all else is there: ")
    assert json.loads(done.out) == json.loads((tmp_path / "out" / "result.json").read_text())
    assert files(tmp_path / "out") == sorted([*FIGURES, "result.json"])
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.endswith(".part")]


@pytest.mark.slow
@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        pytest.param(OutputError("cannot write it"), marks=pytest.mark.slow),
    ],
)
def test_a_disk_that_is_full_when_figures_are_drawn(capsys, own, tmp_path, monkeypatch, error):
    def full(path: Path, content: bytes) -> None:
        raise error

    monkeypatch.setattr(style, "write_atomically", full)
    done = svd_init(capsys, own, tmp_path / "out")
    assert done.code == 0
    assert done.said() == [
        f"gpunet: warning: {name}.png could not be drawn, all else is there: {error}"
        for name in ("dependency", "curves", "table1", "further")
    ]
    assert files(tmp_path / "out") == ["result.json"]
    assert f"Written: {tmp_path}/out/result.json (" in done.out


@pytest.mark.slow
def test_a_sweep(capsys, own, tmp_path, monkeypatch):
    """Its table is there when the first figure is begun."""
    out = tmp_path / "out"

    def full(path: Path, content: bytes) -> None:
        assert json.loads((out / "result.json").read_text())["experiment"] == "sweep-train"
        raise OSError(errno.ENOSPC, "No space")

    monkeypatch.setattr(style, "write_atomically", full)
    done = run(capsys, "sweep", "train", "-d", own, "-p", "hidden=int:2..4", "--epochs", 1, "--trials", 2, "-o", out,
               "--stages", 1, "--device", "numpy", "--json")  # fmt: skip
    assert done.code == 0
    assert json.loads(done.out)["experiment"] == "sweep-train"
    assert done.err.count("warning: ") == 3
    assert files(out) == ["result.json", "sweep.db"]


@pytest.mark.slow
def test_values_that_look_like_mathematics(capsys, tmp_path, monkeypatch):
    (tmp_path / "kinds_hill.py").write_text(
        "def climb(parameters, settings, report):\n    print('printed')\n    return float(len(parameters['kind']))\n"
    )
    monkeypatch.setattr(sys, "path", list(sys.path))
    options = ("sweep", "function", "kinds_hill:climb", "-p", "kind=$x_{,[b]y[/]", "--trials", 6, "--stages", 1)
    done = run(capsys, *options, "--json")
    assert (done.code, said(done.err)) == (0, ["printed"] * 6), "standard output is JSON and nothing else"
    assert json.loads(done.out)["settings"]["space"] == ["kind=$x_{,[b]y[/]"]
    folder = tmp_path / "runs" / "sweep-function-climb"
    assert files(folder) == ["history.png", "result.json", "slices.png", "sweep.db"]
    done = run(capsys, *options)
    for name in ("$x_{", "[b]y[/]"):
        assert name in done.out
