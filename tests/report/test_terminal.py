"""Tables in a window of any width: nothing is left out, no number is cut, no line is wider than the window."""

from __future__ import annotations

import io
import re
from types import SimpleNamespace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from gpunet.experiments.claims import ClaimResult
from gpunet.progress import bar_line, rich_progress
from gpunet.report.table import Column, Table
from gpunet.report.terminal import Screen, claims_table, console, rich_table
from gpunet.reprs import cells, columns, window, wrapped
from gpunet.streams import SPELT

WIDTHS = (40, 60, 80, 120, 200)
HEAD = st.text("abc é日%", min_size=1, max_size=24)
WORDS = st.lists(st.text("abcxyzäσ日", min_size=1, max_size=12), min_size=1, max_size=9).map(" ".join)
NUMBER = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(lambda x: f"{x:.6g}"),
    st.floats(0, 100).map(lambda x: f"{x:.2f} ± {x / 7:.2f}"),
    st.integers(0, 10**12).map(lambda n: f"{n:,}"), st.just("–"), st.just(""),
)  # fmt: skip


@st.composite
def tables(draw):
    heads = draw(st.lists(st.tuples(HEAD, st.booleans()), min_size=1, max_size=9))
    keys = draw(st.integers(1, 2))
    kinds = [WORDS, *(WORDS if words else NUMBER for _, words in heads)]
    rows = draw(st.lists(st.tuples(*kinds), min_size=1, max_size=5))
    breaks = frozenset(draw(st.sets(st.integers(1, 5), max_size=2)))
    made = tuple(
        Column(head, "%" * (len(head) % 2), "claimed" if len(head) % 3 else "", words) for head, words in heads
    )
    return Table("a title of some words", made, tuple(rows), "a note", breaks, "name", min(keys, len(heads)))


def drawn(table, width):
    out = io.StringIO()
    Screen(file=out, width=width, markup=False, emoji=False, highlight=False).print(rich_table(table))
    return out.getvalue()


@pytest.mark.slow
@given(tables(), st.integers(40, 220))
@example(Table("T", (Column("k"), Column("error", text=True)), (("abcdefgh" * 4, "123456789", "word"),), keys=2), 40)
@settings(deadline=None)
def test_every_number_is_whole_and_no_line_too_wide(table, width):
    shown = drawn(table, width)
    assert max(map(cell_len, shown.splitlines())) <= width
    assert "…" not in shown
    found = shown.split()
    for place, column in enumerate(table.columns, 1):
        if not column.text:
            for row in table.rows:
                assert row[place] in shown
                for word in row[place].split():
                    found.remove(word)  # once for each time it is in the table


@pytest.mark.slow
@given(tables(), st.integers(40, 220))
@settings(deadline=None)
def test_the_same_of_tables_in_plain_text(table, width):
    left = 1 + next((i for i, column in enumerate(table.columns) if not column.text), len(table.columns))
    numbers = [i for i, column in enumerate(table.columns, 1) if not column.text and i >= left]
    head = [table.corner, *(column.heading for column in table.columns)]
    rows = [[cell if i < left or i in numbers else "0" for i, cell in enumerate(row)] for row in table.rows]
    shown = columns(head, rows, left, width)
    assert max(map(cells, shown.splitlines())) <= width
    assert all(row[i] in shown for row in rows for i in numbers)


@pytest.mark.slow
@given(tables(), st.integers(20, 39))
@settings(deadline=None)
def test_where_a_number_has_no_room_it_is_whole_in_a_line_of_its_own(table, width):
    numbers = {row[i] for row in table.rows for i, column in enumerate(table.columns, 1) if not column.text}
    for line in drawn(table, width).splitlines():
        assert cell_len(line) <= width or line.strip() in numbers
    words = drawn(table, width).split()
    assert all(word in words for number in numbers for word in number.split())


def test_numbers_that_name_a_row_stand_whole_below_its_words():
    table = Table("T", (Column("k"), Column("least"), Column("most")),
                  (("first", "123456789", "2.2250738585072014e-308", "1e-308"),), keys=2)  # fmt: skip
    told = ["T", "first", "  k 123456789", "  least", "2.2250738585072014e-308", "  most 1e-308"]
    assert [line.rstrip() for line in drawn(table, 20).splitlines()] == told
    plain = columns(["name", "k", "least", "most"], table.rows, width=20)
    assert plain.splitlines() == told[1:]


@given(st.text("ab 日é\u0301", max_size=60), st.integers(2, 30))
@settings(deadline=None)
def test_wrapped_loses_no_letter(text, width):
    lines = wrapped(text, width)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert max(map(cells, lines)) <= width
    assert all(cells(line) == cell_len(line) for line in lines)


@pytest.mark.parametrize("width", WIDTHS)
def test_letters_are_spelt_before_they_are_measured(width):
    table = Table("σ", (Column("error in σ"), Column("σ ± σ"), Column("…", text=True)),
                  (("a × b", "0.12 ± 0.34", "1.00 ± 2.00", "α → β"),) * 2, breaks=frozenset([1]))  # fmt: skip
    bytes_ = io.BytesIO()
    out = io.TextIOWrapper(bytes_, "ascii", SPELT)
    Screen(file=out, width=width, markup=False, emoji=False, highlight=False).print(rich_table(table))
    out.flush()
    shown = bytes_.getvalue().decode("ascii")
    assert max(map(len, shown.splitlines())) <= width
    assert shown.count("0.12 +/- 0.34") == shown.count("1.00 +/- 2.00") == shown.count("alpha -> beta") == 2
    assert len({line.count("|") for line in shown.splitlines()[1:] if "+/-" in line}) == 1


def test_parts_repeat_the_names_and_every_column_is_in_one():
    rows = tuple((f"row {i}", *(f"{i}{j}.2345 ± 0.0001" for j in range(6))) for i in range(3))
    shown = drawn(Table("T", tuple(Column(f"metric {j}") for j in range(6)), rows), 40)
    assert [shown.count(f"row {i}") for i in range(3)] == [6, 6, 6]
    assert [len(re.findall(f"metric {j}", shown)) for j in range(6)] == [1] * 6
    one = drawn(Table("T", tuple(Column(f"metric {j}") for j in range(6)), rows), 200)
    assert one.count("row 0") == 1
    assert "┃" in one


def test_sentences_stand_above_what_belongs_to_them():
    said = "the orthogonal matrix of each class performs best of all of them"
    claim = ClaimResult("a", said, "Table 1", "97.2", "96.5", "reproduced", "")
    screen = Screen(file=io.StringIO(), width=40, markup=False, emoji=False, highlight=False)
    screen.print(claims_table([claim]))
    assert [line.rstrip() for line in screen.file.getvalue().splitlines()] == [
        "Claims", "the orthogonal matrix of each class", "performs best of all of them", "  claimed 97.2",
        "  measured 96.5", "  verdict reproduced",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("columns", "width"), [("40", 40), ("0", 130), ("garbage", 130), ("1", 20), ("-3", 130), ("", 130), ("500", 500)]
)
def test_what_columns_says(monkeypatch, columns, width):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr("sys.__stdout__", io.StringIO())
    assert (window(130), console().width) == (width, width)


@pytest.mark.parametrize("term", ["dumb", "unknown", "xterm"])
def test_a_terminal_is_as_wide_as_it_is_whatever_it_can_do(monkeypatch, term):
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("sys.stdout", SimpleNamespace(isatty=lambda: True, encoding="utf-8"))
    assert console().width == console().options.max_width == 40


def test_no_standard_output(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr("sys.__stdout__", None)
    assert window(77) == 77


LONG = ("svd-init 12/19 orth-whole norm held", "1:02", "epoch 13  loss 3.561 accuracy 12.34 %")


@pytest.mark.parametrize("width", range(20, 150))
def test_a_bar_fits_and_cuts_no_word(width):
    pieces = [text for text, _ in bar_line(width, 0.5, *LONG)]
    line = "".join(pieces)
    assert cells(line) <= width
    assert line.startswith(" 50% ")
    assert "1:02" in line
    known = {word for text in LONG for word in text.split()}
    told = " ".join(pieces[3:]).replace("…", "").split()
    assert [word for word in told if word not in known] == []


@pytest.mark.parametrize("width", range(20, 90))
def test_a_bar_in_ascii_has_dots_that_take_three_columns(monkeypatch, width):
    out = io.TextIOWrapper(io.BytesIO(), "ascii", "backslashreplace")  # as Python's own
    monkeypatch.setattr("sys.stderr", out)
    monkeypatch.setenv("COLUMNS", str(width))
    bars = rich_progress(timed=True)
    bars.add_task("a × b ± c of a very long name", total=2, completed=1, note="epoch 13 loss σ 3.561")
    bars.console.print(bars.get_renderable())
    out.flush()
    shown = out.buffer.getvalue().decode("ascii")
    assert "\\" not in shown
    (line,) = shown.splitlines()
    assert len(line) <= width
    assert "..." in line or " a x b +/- c of a very long name" in line or line.rstrip().endswith("-:--")


@pytest.mark.parametrize(("share", "told"), [(0.0, "  0% ────── x"), (1.0, "100% ━━━━━━ x"), (7.0, "700% ━━━━━━ x")])
def test_how_much_is_done(share, told):
    assert "".join(text for text, _ in bar_line(40, share, "x", "", "")) == told
