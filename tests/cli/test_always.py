"""What every command has: -h, -q, --debug; `--version`; `python -m gpunet`; and help at any width."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import gpunet
from gpunet.cli.help import laid_out
from gpunet.progress import Lines, Progress, hush, progress

from ..experiments.made import read_result
from ..golden.helps import commands
from .runner import TINY, command, run
from .test_streams import shell

VERSION = f"gpunet {gpunet.__version__}\n"
EVERY = [words for words, _ in commands()]


def named(words):
    return " ".join(("gpunet", *words))


@pytest.fixture(autouse=True)
def _heard():
    yield
    hush(False)


@pytest.mark.parametrize(
    "arguments", [["--version"], ["-V"], ["-q", "--version"], ["--debug", "-V"], ["-V", "nonsense"]]
)
def test_version(capsys, arguments):
    done = run(capsys, *arguments)
    assert (done.code, done.out, done.err) == (0, VERSION, "")


def test_version_is_no_option_of_a_command(capsys):
    run(capsys, "run", "toy", "--version").one_line(2, "No such option", "--version")
    run(capsys, "run", "--version").one_line(2, "No such option", "--version")


def test_version_waits_for_nothing():
    code = (
        "import sys; from gpunet.cli import execute; execute(['--version']); "
        "print([m for m in ('typer', 'rich', 'numpy', 'typing', 'pathlib', 'gpunet.errors') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}; {code}"],
                          capture_output=True, text=True, timeout=60, check=True)  # fmt: skip
    assert done.stdout == f"{VERSION}[]\n"


def test_python_m():
    done = subprocess.run(
        [sys.executable, "-m", "gpunet", "data", "-h"], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith("Usage: python -m gpunet data [OPTIONS] COMMAND")
    assert done.stderr == ""


@pytest.mark.parametrize("redirection", ["| head -0", "| true", ">&-"])
def test_nobody_reads_the_version(redirection):
    done = shell(["--version"], redirection)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# -- help -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", EVERY, ids=named)
def test_help_by_either_name_at_any_width(capsys, monkeypatch, words):
    seen = set()
    for columns in ("40", "80", "300"):
        monkeypatch.setenv("COLUMNS", columns)
        done = run(capsys, *words, "-h")
        assert (done.code, done.err) == (0, "")
        assert done.out == run(capsys, *words, "--help").out
        assert max(map(len, done.out.splitlines())) <= min(int(columns), 100)
        assert "…" not in done.out.replace("UNITS,…", "").replace("mysql://…", "").replace("→ … →", "")
        seen.add("".join(done.out.split()))
    assert len(seen) == 1, "the same words at every width"


@pytest.mark.parametrize("words", EVERY, ids=named)
def test_help_has_an_example(capsys, words):
    if words:
        assert f"gpunet {words[0]}" in run(capsys, *words, "-h").out.partition("\n\n")[2]


@pytest.mark.parametrize("columns", ["0", "1", "garbage", "-5", "1e9", "99999999999999"])
def test_help_where_the_width_makes_no_sense(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    done = run(capsys, "data", "fetch", "-h")
    assert (done.code, done.err) == (0, "")
    assert "--timeout X" in done.out
    assert max(map(len, done.out.splitlines())) <= 100


@pytest.mark.parametrize(
    ("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_colours_are_for_terminals(monkeypatch, environment, coloured):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    sections = [("Options", [("-n, --name X", "What `x` is.")])]
    plain = laid_out("gpunet x", "About `a thing`.\n\n    gpunet x", sections)
    assert "\x1b" not in plain
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    shown = laid_out("gpunet x", "About `a thing`.\n\n    gpunet x", sections)
    assert ("\x1b[1mOptions:\x1b[0m" in shown, "`" in shown) == (coloured, not coloured)


# -- quiet ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("place", [0, 1, 2, None])
def test_quiet_says_nothing_but_results(capsys, own, tmp_path, place):
    words = ["run", "svd-init", "-d", str(own), "-o", str(tmp_path / "out"), *TINY]
    words.insert(len(words) if place is None else place, "-q")
    done = run(capsys, *words)
    assert (done.code, done.err) == (0, "")
    assert "Written: " in done.out
    if place is None:
        assert run(capsys, *words[:-1]).err != ""
    assert read_result((tmp_path / "out" / "result.json").read_text())


@pytest.mark.slow
def test_quiet_json_and_errors(capsys, own, tmp_path):
    done = run(capsys, "-q", "run", "svd-init", "-d", own, "-o", tmp_path / "out", "--json", *TINY)
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out)["experiment"] == "svd-init"
    run(capsys, "-q", "run", "svd-init", "-d", "nonsense").one_line(2, "nonsense")
    run(capsys, "run", "--quiet", "nonsense").one_line(2, "nonsense")


def test_quiet_leaves_warnings_and_holds_for_one_command(capsys):
    hush(True)
    assert type(progress(True)) is Progress
    run(capsys, "info", "--json")
    assert type(progress(True)) is Lines


def test_quiet_after_the_end_of_options_is_a_name(capsys):
    run(capsys, "data", "path", "--", "-q").one_line(2, "'-q'")


def test_a_value_may_look_like_an_option(capsys, tmp_path):
    """`-o -q`: the folder's name."""
    done = run(capsys, "bench", "report", tmp_path / "none", "-o", "-q")
    done.one_line(2, "none")


def test_debug_is_in_every_help(capsys):
    for words in EVERY:
        assert {"--debug", "--quiet"} <= set(run(capsys, *words, "-h").out.replace(",", " ").split())


@pytest.mark.parametrize("arguments", [["-q"], ["--debug"], ["run", "-q", "--debug"]])
def test_a_group_alone_shows_help_with_these_too(capsys, arguments):
    done = run(capsys, *arguments)
    assert (done.code, done.err) == (2, "")
    assert done.out.startswith("Usage: gpunet ")


def test_abbreviations_are_not_guessed(capsys):
    run(capsys, "run", "toy", "--quie").one_line(2, "--quie", "--quiet")
    run(capsys, "data", "lis").one_line(2, "lis")


def test_a_terminal_without_our_letters():
    done = subprocess.run(
        command("run", "toy", "-h"), capture_output=True, timeout=60, check=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii:strict", "COLUMNS": "80"},
    )  # fmt: skip
    assert done.stdout.isascii()
    assert b"NxN pixels" in done.stdout
    assert b"?" not in done.stdout
