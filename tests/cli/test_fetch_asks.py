"""`gpunet data fetch` without a name: asks at a terminal, and lists elsewhere."""

from __future__ import annotations

import builtins
import os
import pty
import select
import subprocess
import sys

import pytest

from gpunet import datasets
from gpunet.datasets import names

from .runner import command, run

FILED = [name for name in names() if not datasets.entry(name).embedded]


def test_where_nobody_can_be_asked_it_lists(capsys):
    done = run(capsys, "data", "fetch")
    (line,) = done.err.splitlines()
    assert done.code == 2
    assert "no data set is named" in line
    assert "--all" in line
    assert [row.split()[1] for row in done.out.splitlines()[1:]] == FILED
    assert "55.0 MB" in done.out


@pytest.fixture
def fetched(monkeypatch):
    """What is fetched, at a terminal where the answers given are typed."""
    got, answers = [], []

    def fetch(name, **_):
        got.append(name)
        return [datasets.data_dir() / "x"]

    def typed(question):
        assert question.endswith("? ")
        if not answers:
            raise EOFError
        return answers.pop(0)

    monkeypatch.setattr(datasets, "fetch", fetch)
    monkeypatch.setattr(builtins, "input", typed)
    monkeypatch.setattr("gpunet.cli.data._somebody_is_there", lambda: True)
    return got, answers


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        (["1"], FILED[:1]), (["2, 1 2"], [FILED[1], FILED[0]]), (["cats"], ["cats"]), (["cats,1"], ["cats", "mnist"]),
        ([""], []), (["  "], []), ([], []), (["0", "99", "nonsense", "1"], FILED[:1]), (["digits", ""], []),
    ],
)  # fmt: skip
def test_what_is_chosen_is_fetched(capsys, fetched, typed, wanted):
    got, answers = fetched
    answers += typed
    done = run(capsys, "data", "fetch")
    assert (done.code, done.err, got) == (0, "", wanted)
    assert answers == []
    assert done.out.count("not one of these") == max(0, len([word for word in typed if word.strip()]) - len(wanted[:1]))


@pytest.mark.parametrize("package", ["pooch", "requests"])
def test_what_is_missing_is_told_before_anything_is_asked(capsys, fetched, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    done = run(capsys, "data", "fetch")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"gpunet: fetching a data set needs {package}, which is not installed: pip install ")


def test_all(capsys, fetched):
    assert run(capsys, "data", "fetch", "--all").code == 0
    assert fetched[0] == FILED


@pytest.mark.slow
def test_a_real_terminal():
    """Ctrl-D leaves without a word of error."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(command("data", "fetch"), stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True) as asks:
        os.close(theirs)
        said = b""
        while b"? " not in said:
            assert select.select([ours], [], [], 60)[0], said
            said += os.read(ours, 4096)
        os.write(ours, b"\x04")
        assert asks.wait(60) == 0
    os.close(ours)
    assert b"mnist" in said
    assert b"Which to fetch" in said
