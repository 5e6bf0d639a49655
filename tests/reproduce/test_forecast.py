"""How much is done, how long the rest takes, and how it is shown."""

from __future__ import annotations

import pytest

from gpunet.reproduce import display as module
from gpunet.reproduce.display import BarScreen, Display, LineScreen, Screen, screen
from gpunet.reproduce.forecast import Forecast, in_words

from ..experiments.test_progress import Terminal


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def begun(clock: Clock, **expected: tuple[float, int]) -> Forecast:
    forecast = Forecast(expected, clock)
    forecast.begin("first", expected["first"])
    return forecast


def test_before_anything_is_measured_it_is_what_was_expected():
    forecast = Forecast({"first": (60, 3), "second": (40, 2)}, Clock())
    assert (forecast.seconds_left(), forecast.share_done()) == (100, 0)
    forecast.drop("second")
    assert forecast.seconds_left() == 60


def test_the_pace_of_what_is_done_corrects_it():
    clock = Clock()
    forecast = begun(clock, first=(100, 2), second=(100, 5))
    forecast.piece()
    forecast.part(1.0)
    clock.now += 25  # twice as fast as expected; a tenth of 200 s of what was expected weighs against it
    assert forecast.share_done() == 0.25
    assert forecast.seconds_left() == pytest.approx(150 * (25 + 20) / (50 + 20))
    forecast.piece()
    clock.now += 25
    forecast.end()
    assert forecast.pieces == 2
    assert forecast.share_done() == 0.5
    assert forecast.seconds_left() == pytest.approx(100 * (50 + 20) / (100 + 20))
    forecast.begin("second", (100, 5))
    clock.now += 50
    forecast.end()
    assert (forecast.share_done(), forecast.seconds_left()) == (1, 0)


def test_more_pieces_than_expected_do_not_end_a_run():
    forecast = begun(Clock(), first=(100, 2))
    for _ in range(5):
        forecast.piece()
        forecast.part(1)
    assert 0.9 < forecast.share_done() < 1
    assert forecast.seconds_left() > 0


def test_nothing_to_do():
    forecast = Forecast({}, Clock())
    assert (forecast.share_done(), forecast.seconds_left()) == (1, 0)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "about 5 s"), (42, "about 40 s"), (54, "about 55 s"), (56, "about 1 min"), (89, "about 1 min"),
     (25 * 60, "about 25 min"), (59.6 * 60, "about 1 h"), (75 * 60, "about 1 h 15 min"), (7200, "about 2 h")],
)  # fmt: skip
def test_in_words(seconds, words):
    assert in_words(seconds) == words


def shown(made: Screen, forecast: Forecast) -> None:
    with Display(made, forecast, 2) as display:
        display.passed(1, "first", "kept")
        display.begin(2, "second", (60, 2), "settings epochs is 3 here and 2 there")
        display.start("piece [1]", 4)
        display.seed(7)
        display.advance(3, "loss [0.5]")
        display.end("finished in 5 s: 2 reproduced")


def test_plain_lines(capsys, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module.time, "monotonic", clock)
    made = LineScreen()
    clock.now += 5
    shown(made, Forecast({"second": (60, 2)}, clock))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "reproduce 1/2 first: kept",
        "reproduce 2/2 second: begins again, settings epochs is 3 here and 2 there; about 1 min left for all",
        "reproduce 2/2 second: finished in 5 s: 2 reproduced",
    ]


def test_a_plain_line_every_ten_seconds(capsys, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module.time, "monotonic", clock)
    forecast = Forecast({"first": (60, 2)}, clock)
    with Display(LineScreen(), forecast, 1) as display:
        display.begin(1, "first", (60, 2), "")
        display.start("piece", 20)
        display.seed(3)
        for _ in range(20):
            clock.now += 1.5
            display.advance(1, "loss 1")
    lines = capsys.readouterr().err.splitlines()[1:]
    assert len(lines) == 2
    assert lines[0] == "reproduce 1/1 first: piece, seed 3, 35%, loss 1; about 50 s left for all"


def test_bars_on_a_terminal(monkeypatch):
    monkeypatch.setattr("sys.stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    made = screen(True)
    assert type(made) is BarScreen
    shown(made, Forecast({"second": (60, 2)}))
    import sys

    told = sys.stderr.getvalue()
    for words in ("2/2 second", "about 1 min left for all", "piece [1], seed 7", "loss [0.5]", "1/2 first: kept"):
        assert words in told, words
    assert told.rfind("\x1b[?25h") > told.rfind("\x1b[?25l") >= 0


def test_what_is_shown_where(capsys):
    assert type(screen(False)) is Screen
    shown(screen(False), Forecast({"second": (60, 2)}))
    assert capsys.readouterr() == ("", "")
    assert type(screen(True)) is LineScreen
