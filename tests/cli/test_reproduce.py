"""`gpunet reproduce` end to end, with small runs in place of the plan."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from gpunet import datasets
from gpunet.errors import DivergedError, FetchError
from gpunet.experiments import experiment, experiments
from gpunet.experiments.framework import Job, Run

from ..experiments.schema import is_png, parse
from ..reproduce import paper
from ..reproduce.small import NAMES, short_page, use_page, use_small
from ..reproduce.test_runner import CATS, on
from .runner import Done, files, run
from .test_help import HEAVY


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """A small paper's runs; the page, which draws all figures again, is looked at in tests of its own."""
    use_small(monkeypatch)
    use_page(monkeypatch, short_page)


def said(done: Done) -> list[str]:
    """Lines on standard error that are not progress."""
    return [line for line in done.err.splitlines() if not line.startswith("reproduce ")]


@pytest.mark.slow
def test_everything_then_nothing(capsys, tmp_path):
    done = run(capsys, "reproduce", "--quick", "--device", "numpy")
    assert (done.code, said(done)) == (0, [])
    out = tmp_path / "runs" / "reproduce-quick"
    assert files(out) == sorted([*NAMES, "claims.json", "report.html"])
    made = json.loads((out / "claims.json").read_text())
    results = {name: parse((out / name / "result.json").read_text()) for name in NAMES}
    assert [(claim["run"], claim["id"]) for claim in made["claims"]] == [
        (name, claim) for name in NAMES for claim in ("accuracy", "falls", "size")
    ]
    assert [result["settings"]["epochs"] for result in results.values()] == [2, 3, 2]
    for entry in made["runs"]:
        assert files(out / entry["name"]) == sorted([*entry["figures"], "result.json"])
        assert all(is_png((out / entry["name"] / figure).read_bytes()) for figure in entry["figures"])
    found = (*NAMES, "reproduced", "inconclusive", "not tested", "claims.json, ", "report.html", "embedded data")
    for words in (*found, "On xor-easy 1 ordering was judged: 1 holds"):
        assert words in done.out, words
    assert re.search(r"^reproduce 1/3 line-near: begins; about \d+ \w+ left for all$", done.err, re.MULTILINE)
    assert re.search(
        r"^reproduce 2/3 line-far: finished in \d+ s: 2 not tested; on xor-easy 1 ordering was", done.err, re.MULTILINE
    )
    again = run(capsys, "reproduce", "--quick", "--device", "numpy")
    assert again.code == 0
    assert again.err.count("what it depends on is unchanged") == len(again.err.splitlines()) - 1 == 3
    assert again.out == done.out


def test_json(capsys, tmp_path):
    options = ("reproduce", "--quick", "--only", "line-far", "--out", tmp_path / "out", "--device", "numpy", "--json")
    done = run(capsys, *options)
    assert (done.code, said(done)) == (0, [])
    assert done.out == (tmp_path / "out" / "claims.json").read_text()
    made = json.loads(done.out)
    assert [run["state"] for run in made["runs"]] == ["waiting", "finished", "waiting"]
    assert made["runs"][1]["seeds"] == [0]
    assert (made["counts"]["not tested"], made["here"]["reproduced"], len(made["claims"])) == (2, 1, 3)


@pytest.mark.slow
def test_our_own_experiment(capsys, tmp_path, monkeypatch):
    for part in ("body", "claims"):  # declared before there is a copy
        experiment("svd-init")._part(part)
    use_small(monkeypatch, on(experiment("svd-init"), Job(("digits",), 1, settings={"epochs": 1})))
    done = run(capsys, "reproduce", "--quick", "--out", tmp_path / "out", "--device", "numpy")
    assert (done.code, said(done)) == (0, [])
    told = re.search(r"On digits (\d) orderings were judged: (\d holds?, )?.*\d cannot be told yet", done.out)
    made = json.loads((tmp_path / "out" / "claims.json").read_text())
    judged, missing = sum(made["here"].values()), made["counts"].pop("not tested")
    assert made["counts"] == {"reproduced": 0, "exceeded": 0, "not reproduced": 0, "inconclusive": 0}
    assert told
    assert int(told[1]) == judged == 23 - missing
    assert judged in (8, 7)  # a speed-up is not judged where a busy machine's clock cannot be believed
    assert parse((tmp_path / "out" / "svd-init-digits" / "result.json").read_text())["settings"]["epochs"] == 1


def test_a_failure_and_missing_data_are_told_at_the_end(capsys, tmp_path, monkeypatch):
    def refuse(name, **_):
        raise FetchError("no mirror delivered cats")

    def fail(run, *_):
        raise DivergedError("the loss became NaN")

    monkeypatch.setattr(datasets, "fetch", refuse)
    monkeypatch.setattr(Run, "carry_out", fail)
    use_small(monkeypatch, CATS, paper.stack)
    done = run(capsys, "reproduce", "--quick", "--out", tmp_path / "out")
    assert done.code == 1
    missing = "cats is missing and could not be fetched: no mirror delivered cats"
    assert said(done) == [f"gpunet: line-far skipped: {missing}; stack failed: the loss became NaN"]
    for words in ("skipped: cats is", "failed: the loss", "report.html"):
        assert words in done.out, words
    assert (tmp_path / "out" / "report.html").exists()


def test_ctrl_c(capsys, tmp_path, monkeypatch):
    def interrupt(run, *_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "carry_out", interrupt)
    options = ("--quick", "--seeds", "2", "--device", "numpy", "--only", "stack", "--only", "line", "--out", "my out")
    done = run(capsys, "reproduce", *options, "--fresh")
    assert (done.code, done.out) == (130, "")
    kept = "gpunet: interrupted; 0 of 3 runs are finished and kept in my out, "
    assert said(done) == [f"{kept}`gpunet reproduce {' '.join(options)}` goes on".replace("my out` ", "'my out'` ")]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--only", "mnist"), ("--only is 'mnist'", "line, stack", "line-far")),
        (("--device", "tpu"), ("unknown device 'tpu'",)),
        (("--seeds", "0"), ("--seeds",)),
        (("--nonsense",), ("--nonsense",)),
    ],
)
def test_mistakes_are_one_line(capsys, tmp_path, options, words):
    run(capsys, "reproduce", "--quick", *options).one_line(2, *words)
    assert files(tmp_path / "runs") == []


def test_a_folder_that_is_a_file(capsys, tmp_path):
    (tmp_path / "out").write_text("mine")
    run(capsys, "reproduce", "--quick", "--out", tmp_path / "out").one_line(2, "cannot write to", "--out")


def test_a_folder_in_use(capsys, tmp_path):
    from gpunet.files import alone

    (tmp_path / "out").mkdir()
    with alone(tmp_path / "out"):
        done = run(capsys, "reproduce", "--quick", "--out", tmp_path / "out")
    done.one_line(2, "another `gpunet reproduce`", "wait for it to end")
    assert files(tmp_path / "out") == []


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from gpunet.cli import execute; execute(['reproduce', '--help']); "
        f"sys.exit(str([m for m in {HEAVY!r} if m in sys.modules]) if any(m in sys.modules for m in {HEAVY!r}) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_help_teaches(capsys):
    done = run(capsys, "reproduce", "--help")
    assert (done.code, done.err) == (0, "")
    for words in ("--quick", "--seeds", "--device", "--only", "--out", "--fresh", "--json", "claims.json",
                  "report.html", "goes on where it stopped", "runs/reproduce", f"{', '.join(experiments())}, or the",
                  *(f"{x.name}, whose nets train as one stack, has at least {x.full[0].seeds}"
                    for x in experiments().values() if x.full[0].together)):  # fmt: skip
        assert words in " ".join(done.out.split()), words
