"""Standard streams that are closed, full, left or not UTF-8; and what reaches a terminal is text and nothing else."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys

import pytest

from gpunet.progress import Bar, Lines, progress, say
from gpunet.streams import SPELT_OR_ESCAPED, Raw, stream

from ..experiments.made import FIGURES
from .runner import TINY, check_folder, command, run

HOSTILE = "[red]\x1b[31m\r\x07\x9b\u202e[/]"
SEEN = r"[red]\x1b[31m\r\x07\x9b\u202e[/]"
full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")


def shell(arguments: list[object], redirections: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """One command line in a shell, whose files and pipes are what is tested; bash has the exit code of each part."""
    words = shlex.join(command(*arguments))
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {words} {redirections}"], capture_output=True, text=True, errors="replace",
        timeout=120, check=False, env=os.environ | environment,
    )  # fmt: skip


LIST = ["data", "list", "--no-check"]


@pytest.mark.parametrize(
    ("arguments", "redirections", "code", "out", "err"),
    [
        pytest.param([*LIST, "--json"], "2>&-", 0, '{\n  "data_dir"', "", marks=pytest.mark.slow),
        ([*LIST, "--nonsense", "--json"], "2>&-", 2, "", ""),
        pytest.param(["--nonsense"], "2>/dev/full", 2, "", "", marks=[full, pytest.mark.slow]),
        pytest.param([*LIST, "--json"], ">/dev/full", 1, "", "output could not be written: No space", marks=full),
        pytest.param([*LIST, "--json"], ">&-", 1, "", "standard output is closed", marks=pytest.mark.slow),
        pytest.param(LIST, ">&- <&-", 0, "", "", marks=pytest.mark.slow),
        pytest.param(LIST, "| head -1", 0, "name ", "", marks=pytest.mark.slow),
        pytest.param(LIST, "2>&1 >&- <&- | cat", 0, "", "", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_output_that_cannot_be_written(arguments, redirections, code, out, err):
    done = shell(arguments, redirections)
    assert (done.returncode, done.stdout[: len(out)]) == (code, out), done.stderr
    assert out or not done.stdout
    assert len(done.stderr.splitlines()) == bool(err)
    assert err in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("redirections", "code"),
    [
        ("<&- >&- 2>&-", 0), ("2>&1 | head -1", 0),
        *(pytest.param(where, code, marks=full) for where, code in (("2>/dev/full", 0), (">/dev/full", 1))),
    ],
)  # fmt: skip
def test_a_run_goes_on_to_its_end(own, tmp_path, redirections, code):
    done = shell(["run", "svd-init", "-d", own, "-o", tmp_path / "out", *TINY], redirections)
    assert done.returncode == code
    check_folder(tmp_path / "out", FIGURES)
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii:strict"}, {"PYTHONIOENCODING": "cp1252", "COLUMNS": "1"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "TERM": ""},
    ],
)  # fmt: skip
def test_what_cannot_be_shown_is_not(own, tmp_path, environment):
    done = shell(["run", "svd-init", "-d", own, "-o", tmp_path / "öut", *TINY], "", **environment)
    assert done.returncode == 0, done.stderr
    assert "Written: " in done.stdout
    assert "/result.json, dependency.png, curves.png" in done.stdout
    check_folder(tmp_path / "öut", FIGURES)


@full
def test_a_stream_that_never_raises():
    number = os.open("/dev/full", os.O_WRONLY)
    raw = Raw(number, "w")
    text = stream(None, raw, "replace")
    print("a" * 100_000, "ö\udcff", file=text, flush=True)
    assert raw.failed is not None
    assert "No space" in str(raw.failed)
    text.close()


def test_what_has_no_character_is_not_shown(tmp_path):
    with open(tmp_path / "a", "w", encoding="ascii") as given:
        text = stream(given, Raw(given.fileno(), "w", closefd=False), "replace")
        print("x ± 1 \udcff", file=text, flush=True)
    assert (tmp_path / "a").read_bytes() == b"x ? 1 ?\n"


def test_what_has_a_spelling_is_spelt_in_messages_too(tmp_path):
    with open(tmp_path / "a", "w", encoding="ascii") as given:
        text = stream(given, Raw(given.fileno(), "w", closefd=False), SPELT_OR_ESCAPED)
        print("x ± 1… ö \udcff", file=text, flush=True)
    assert (tmp_path / "a").read_bytes() == b"x +/- 1... \\xf6 \\udcff\n"


def test_no_message_goes_to_standard_output_where_standard_error_is_closed(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    say("a message")
    assert type(progress(True)) is Lines
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("term", "kind"), [("xterm", Bar), ("dumb", Lines), ("", Lines), (None, Lines)])
def test_bars_are_for_terminals_that_can_show_them(monkeypatch, term, kind):
    monkeypatch.delenv("TERM", raising=False)
    if term is not None:
        monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert type(progress(True)) is kind


def test_lines_of_progress_are_lines(capsys):
    with Lines() as lines:
        lines.start(f"training\n{HOSTILE}", 1)
        lines.advance(1, HOSTILE)
    assert capsys.readouterr().err == f"training\\n{SEEN}: 1/1 {SEEN}\n"


def test_bars_show_text(capsys, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Bar() as bar:
        bar.start(HOSTILE, 2)
        bar.advance(1, f"n{HOSTILE}")
    shown = capsys.readouterr().err
    assert SEEN in shown
    assert f"n{SEEN}" in shown


@pytest.mark.parametrize(
    "arguments",
    [
        [f"--{HOSTILE}"], [HOSTILE], ["run", HOSTILE], ["run", "svd-init", f"--epochs={HOSTILE}"],
        ["run", "svd-init", "-d", HOSTILE], ["run", "svd-init", "--quick", "--device", HOSTILE], ["info", HOSTILE],
        ["sweep", "train", "-p", HOSTILE], ["sweep", "train", "-p", "l2=0..1", "--storage", f"sqlite:///{HOSTILE}/a/b"],
        ["sweep", "function", HOSTILE, "-p", "x=0..1"], ["bench", "svd", "--shape", HOSTILE], ["data", "path", HOSTILE],
        ["bench", "report", HOSTILE], ["reproduce", "--only", HOSTILE],
    ],
)  # fmt: skip
def test_mistakes_are_shown_as_text(capsys, arguments):
    """Ours and Typer's own."""
    line = run(capsys, *arguments).one_line(2)
    assert line.isprintable()
    assert r"\x1b[31m" in line or "%1B" in line or "--epochs" in line


def test_tables_of_paths(capsys, monkeypatch, tmp_path):
    folder = tmp_path / f"{HOSTILE}\n".replace("/", "_")
    monkeypatch.setenv("GPUNET_DATA", str(folder))
    for arguments in (["info"], ["data", "list", "--no-check"], ["data", "verify", "xor"]):
        done = run(capsys, *arguments)
        assert done.code == 0
        assert all(line.isprintable() for line in done.out.splitlines())
    assert json.loads(run(capsys, "data", "list", "--no-check", "--json").out)["data_dir"] == str(folder)
    done = run(capsys, "data", "path")
    assert done.out == f"{folder}\n", "for programs every byte of it"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert run(capsys, "data", "path").out.splitlines()[0].isprintable()
