"""A bar on a terminal, lines elsewhere, nothing when not wanted."""

from __future__ import annotations

import io

import pytest

from gpunet import progress as module
from gpunet.progress import Bar, Lines, Progress, progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

    monkeypatch.setattr(module.time, "monotonic", lambda: Clock.now)
    return Clock


def work(bar: Progress) -> None:
    with bar:
        for what in ("first", "second"):
            bar.start(what, 4)
            for part in range(4):
                bar.advance(1, f"loss {part}")


def test_lines_at_the_end_of_a_piece(capsys, clock):
    bar = progress(True)
    assert type(bar) is Lines
    work(bar)
    assert capsys.readouterr() == ("", "first: 4/4 loss 3\nsecond: 4/4 loss 3\n")


@pytest.mark.parametrize(
    ("total", "seconds", "parts", "lines"),
    [(100, 30, 2, ["long: 22/100", "long: 44/100"]), (0, 12, 100, ["long: 1100"])],  # 0: of how much nobody knows
)
def test_lines_every_ten_seconds(capsys, clock, total, seconds, parts, lines):
    bar = Lines()
    bar.start("long", total)
    for _ in range(seconds):
        clock.now += 1
        bar.advance(parts)
    assert capsys.readouterr().err.splitlines() == lines


def test_the_end_is_said_once(capsys, clock):
    bar = Lines()
    bar.start("work", 64)
    bar.advance(64, "done")
    bar.advance(0, "done")  # the trainer's remainder, where its steps divide evenly
    assert capsys.readouterr().err == "work: 64/64 done\n"


def test_silence(capsys):
    bar = progress(False)
    assert type(bar) is Progress
    work(bar)
    assert capsys.readouterr() == ("", "")


def test_ones_own_is_kept():
    bar = Lines()
    assert progress(bar) is bar


def test_a_bar_on_a_terminal(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    bar = progress(True)
    assert type(bar) is Bar
    work(bar)
    shown = screen.getvalue()
    for word in ("second", "loss 3", "100%"):
        assert word in shown
    assert "Traceback" not in shown


def test_a_bar_gives_the_cursor_back_when_work_fails(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")

    def interrupted():
        with progress(True) as bar:
            bar.start("work", 3)
            bar.advance(1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    hidden, shown = screen.getvalue().rfind("\x1b[?25l"), screen.getvalue().rfind("\x1b[?25h")
    assert shown > hidden >= 0
