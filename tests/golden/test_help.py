"""Every `--help` says what it said, word for word."""

from __future__ import annotations

import difflib

import pytest

from ..cli.runner import run
from .helps import commands, help_text, names
from .write import HERE


def test_help_says_what_it_said():
    was, now = (HERE / "help.txt").read_text(), help_text()
    changed = difflib.unified_diff(was.splitlines(), now.splitlines(), "golden", "now", lineterm="", n=1)
    assert was == now, "\n".join(changed)


@pytest.mark.parametrize("words", [words for words, _ in commands()], ids=lambda words: " ".join(("gpunet", *words)))
def test_help_shows_every_name(capsys, monkeypatch, words):
    monkeypatch.setenv("COLUMNS", "200")
    done = run(capsys, *words, "--help")
    assert (done.code, done.err) == (0, "")
    command = dict(commands())[words]
    shown = [name for parameter in command.params if not parameter.hidden for name in names(parameter)]
    assert [name for name in (*shown, *getattr(command, "commands", {})) if name.lower() not in done.out.lower()] == []
