"""How much is done, how long the rest takes, and how it is shown."""

from __future__ import annotations

import io

import pytest

from gpunet.experiments.claims import VERDICTS
from gpunet.report.claims import here_lines
from gpunet.report.claims_json import Entry
from gpunet.report.terminal import runs_table
from gpunet.reproduce import display as module
from gpunet.reproduce.display import Display, in_words

from ..experiments.test_progress import Terminal


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module.time, "monotonic", made)
    return made


def begun(**expected: tuple[float, int]) -> Display:
    display = Display(expected, len(expected), wanted=False)
    display.begin(1, "first", expected["first"], "")
    return display


def test_before_anything_is_measured_it_is_what_was_expected(clock):
    display = Display({"first": (60, 3), "second": (40, 2)}, 2, wanted=False)
    assert (display.seconds_left(), display.share_done()) == (100, 0)
    display.passed(2, "second", "kept")
    assert display.seconds_left() == 60


def test_the_pace_of_what_is_done_corrects_it(clock):
    display = begun(first=(100, 2), second=(100, 5))
    display.start("piece", 4)
    display.advance(4)
    clock.now += 25  # twice as fast as expected; a tenth of 200 s of what was expected weighs against it
    assert display.share_done() == 0.25
    assert display.seconds_left() == pytest.approx(150 * (25 + 20) / (50 + 20))
    display.start("piece", 4)
    clock.now += 25
    display.end("finished")
    assert display.pieces == 2
    assert display.share_done() == 0.5
    assert display.seconds_left() == pytest.approx(100 * (50 + 20) / (100 + 20))
    display.begin(2, "second", (100, 5), "")
    assert (display.pieces, display.share_done()) == (0, 0.5)
    clock.now += 50
    display.end("finished")
    assert (display.share_done(), display.seconds_left()) == (1, 0)


def test_more_pieces_than_expected_do_not_end_a_run(clock):
    display = begun(first=(100, 2))
    for _ in range(5):
        display.start("piece", 1)
        display.advance(1)
    assert 0.9 < display.share_done() < 1
    assert display.seconds_left() > 0


def test_nothing_to_do(clock):
    display = Display({}, 0, wanted=False)
    assert (display.share_done(), display.seconds_left()) == (1, 0)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "about 5 s"), (42, "about 40 s"), (54, "about 55 s"), (56, "about 1 min"), (89, "about 1 min"),
     (25 * 60, "about 25 min"), (59.6 * 60, "about 1 h"), (75 * 60, "about 1 h 15 min"), (7200, "about 2 h")],
)  # fmt: skip
def test_in_words(seconds, words):
    assert in_words(seconds) == words


def shown(wanted: bool = True) -> None:
    with Display({"second": (60, 2)}, 2, wanted) as display:
        display.passed(1, "first", "kept")
        display.begin(2, "second", (60, 2), "settings epochs is 3 here and 2 there")
        display.start("piece [1]", 4)
        display.seed(7)
        display.advance(3, "loss [0.5]")
        display.end("finished in 5 s: 2 reproduced")


def test_plain_lines(capsys, clock):
    shown()
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "reproduce 1/2 first: kept",
        "reproduce 2/2 second: begins again, settings epochs is 3 here and 2 there; about 1 min left for all",
        "reproduce 2/2 second: finished in 5 s: 2 reproduced",
    ]


def test_a_plain_line_every_ten_seconds(capsys, clock):
    with Display({"first": (60, 2)}, 1, wanted=True) as display:
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
    shown()
    import sys

    told = sys.stderr.getvalue()
    for words in ("2/2 second", "about 1 min left for all", "piece [1], seed 7", "loss [0.5]", "1/2 first: kept"):
        assert words in told, words
    assert "reproduce " not in told
    assert told.rfind("\x1b[?25h") > told.rfind("\x1b[?25l") >= 0


def test_nothing_where_it_is_not_wanted(capsys):
    shown(wanted=False)
    assert capsys.readouterr() == ("", "")


# -- at the end -------------------------------------------------------------------------------------------------------


def entry(name: str, dataset: str = "digits", seeds: int = 1, here=(), counts=(), reason=None) -> Entry:
    """An entry of claims.json with these verdicts; `here` those on other data. With a reason it has failed."""
    numbered = [dict(zip(VERDICTS, [*each, 0, 0, 0, 0, 0], strict=False)) for each in (counts, here)]
    known = {"counts": numbered[0], "here": numbered[1]}
    if reason:
        return Entry(name, "line", "a document", "failed", reason, **known)
    return Entry(
        name, "line", "a document", "finished", None, dataset, "cpu", list(range(seeds)), {}, "0" * 16, {},
        "2026-01-02T03:04:05+00:00", 4.4, 2, [], f"{name}/result.json", "0" * 64, **known,
    )  # fmt: skip


def test_how_orderings_fare_on_other_data_is_a_line_a_data_set():
    entries = [
        entry("a", here=(2, 1, 0, 3)), entry("b", here=(0, 0, 0, 2)), entry("c", "mnist", counts=(3, 1)),
        entry("d", "cats", seeds=3, here=(1, 0, 2, 1)), entry("e", "digits", seeds=9, counts=(1,)),
        entry("f", "xor", here=(0, 0, 1)),
    ]  # fmt: skip
    assert here_lines(entries) == [
        "on digits 8 orderings were judged: 3 hold, 5 cannot be told yet",
        "on cats 4 orderings were judged: 1 holds, 2 do not, 1 cannot be told yet",
        "on xor 1 ordering was judged: 1 does not",
    ]
    assert here_lines(entries[2:3]) == []


def printed(*entries: Entry) -> list[list[str]]:
    from rich.console import Console

    out = io.StringIO()
    Console(file=out, width=150).print(runs_table(entries))
    lines = (line.split("│") for line in out.getvalue().splitlines() if "│" in line)
    return [[cell.strip() for cell in line[1:-1]] for line in lines]


def test_the_table_has_a_column_for_each_verdict():
    rows = printed(entry("a", counts=(1, 2, 3, 4, 5)), entry("b", counts=(10, 0, 0, 1), here=(7, 7)))
    assert rows == [
        ["a", "1", "2", "3", "4", "5", "4"], ["b", "10", "0", "0", "1", "0", "4"],
        ["all", "11", "2", "3", "5", "5", "9"],
    ]  # fmt: skip


def test_the_table_says_why_a_run_is_not_there():
    lost = entry("b", reason="it broke")
    assert printed(entry("a", counts=(1,)), lost) == [
        ["a", "1", "0", "0", "0", "0", "4", ""], ["b", "–", "–", "–", "–", "–", "–", "failed: it broke"],
        ["all", "1", "0", "0", "0", "0", "4", ""],
    ]  # fmt: skip
