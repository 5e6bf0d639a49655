"""The parts of the page: tables as data, times, pictures for both themes, colours that can be read."""

from __future__ import annotations

import base64
import io
import math
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from gpunet.experiments.result import Metric
from gpunet.report import drawing, page, style, svd_init_tables
from gpunet.report.page.svg import DARK_INK, DARK_PAPER, PAPER, contrast, dark_colour, picture
from gpunet.report.page.timings import collected, duration, timing_sheet
from gpunet.report.table import Column, Sheet, cell, number, rows_sheet
from gpunet.report.terminal import console, rich_table

from .page_folder import made, svd_init

CSS = (Path(page.__file__).parent / "page.css").read_text()


# -- tables ----------------------------------------------------------------------------------------------------------


def test_terminal_and_page_have_the_same_cells():
    result = svd_init(seeds=1)
    for sheet in svd_init_tables.sheets(result):
        screen = Console(file=io.StringIO(), width=160)
        screen.print(rich_table(sheet))
        lines = [re.split(r"\s*│\s*", line.strip("│ \n")) for line in screen.file.getvalue().splitlines()]
        assert [line for line in lines if len(line) == 1 + len(sheet.columns)] == [list(row) for row in sheet.rows]


def test_claimed_stands_before_measured():
    sheet = rows_sheet(made(), "Title", ["first"], {"test_accuracy": "test"}, {"first": {"test_accuracy": 0.7}})
    assert sheet.columns == (Column("test", "%", "claimed"), Column("test", "%", "measured"))
    assert sheet.rows == (("first", "70.00", "62.50 ± 17.68"),)


def test_what_is_printed_is_text_and_nothing_else(capsys, monkeypatch):
    """Neither Rich's markup, nor its emoji, nor what steers a terminal or turns the order of writing around."""
    monkeypatch.setenv("COLUMNS", "200")  # wide enough that nothing is wrapped
    hostile = "[red]\x1b[31m\r\x07\x9b:smile:\u202e\udcff[/]"
    seen = r"[red]\x1b[31m\r\x07\x9b:smile:\u202e\udcff[/]"
    screen = console()
    own = Table(hostile, title=hostile, caption=hostile)
    own.add_row(hostile)
    sheet = Sheet(f"T{hostile}", (Column(f"C{hostile}"),), ((f"x{hostile}", f"y{hostile}"),), note=f"N{hostile}")
    for shown in (rich_table(sheet), own, hostile):
        screen.print(shown)
    screen.print(f"Written: a\n{hostile}", soft_wrap=True)
    printed = capsys.readouterr().out
    assert printed.replace("\n", "").isprintable()
    assert printed.count(seen) == 11
    assert f"Written: a\\n{seen}\n" in printed


@pytest.mark.parametrize(
    ("values", "name", "said"),
    [
        ([0.5], "loss", "0.500"),
        ([0.5, 0.502], "loss", "0.501 ± 0.001"),
        ([0.01, 0.02], "loss", "0.015 ± 0.007"),
        ([0.9, 0.9], "test_accuracy", "90.00 ± 0.00"),
        ([0.9, 0.91], "test_accuracy", "90.50 ± 0.71"),
        ([1e-7, 3e-7], "error", "2e-07 ± 1.41e-07"),
        ([1000.0, 3000.0], "loss", "2000.0 ± 1414.2"),
        ([math.nan, 1.0], "loss", "–"),
    ],
)
def test_a_deviation_has_the_decimals_of_its_mean(values, name, said):
    assert cell(Metric(values), name) == said


def test_numbers():
    assert [number(value, "x") for value in (0.01234, 0.5, 12.3456, 123.456, math.inf)] == [
        "0.0123", "0.500", "12.346", "123.5", "–",
    ]  # fmt: skip


# -- times -----------------------------------------------------------------------------------------------------------


def test_every_shape_of_timings_is_understood():
    found = collected({
        "svd-whole": 2.0, "per": {"a": [1.0, 3.0], "b": 4.0}, "gone": None, "words": {"a": ["x"]}, "empty": [],
        "net": [{"seconds": [1.0, 5.0], "per_epoch": [1.0, 4.0], "fit": 0.5, "note": "x", "none": None},
                {"seconds": [1.0, 7.0], "per_epoch": [2.0, 5.0], "fit": 1.5}],
    })  # fmt: skip
    assert found == {
        "": {"svd-whole": [2.0]}, "per": {"a": [1.0, 3.0], "b": [4.0]}, "per_epoch": {"net": [2.5, 3.5]},
        "seconds": {"net": [5.0, 7.0]}, "fit": {"net": [0.5, 1.5]},
    }  # fmt: skip
    assert next(iter(found)) == "per_epoch"


def test_times_have_the_unit_of_their_size():
    timings = {"seconds_per_epoch": {"dense": [0.004, 0.006], "cut": [0.002, 0.003]}, "fit": {"cut": [2e-5]}}
    sheet = timing_sheet(made(timings=timings), "Times")
    assert [(column.heading, column.unit) for column in sheet.columns[:2]] == [("an epoch", "ms"), ("fit", "µs")]
    assert sheet.rows == (("dense", "5.00 ± 1.41", "–", "1.00"), ("cut", "2.50 ± 0.71", "20.0", "2.00"))
    assert timing_sheet(made(timings={}), "Times") is None


def test_zero_seconds_are_no_trouble():
    timings = {"seconds_per_epoch": {"a": [0.0], "b": [0.0]}}
    assert timing_sheet(made(timings=timings), "Times").rows == (("a", "0.00", "–"), ("b", "0.00", "–"))


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.04, "0.0 s"), (59.9, "59.9 s"), (60, "1 min 0 s"), (125.4, "2 min 5 s"), (3725, "1 h 2 min"), (None, "–")],
)
def test_durations(seconds, said):
    assert duration(seconds) == said


# -- pictures --------------------------------------------------------------------------------------------------------


def drawn(draw, narrow=False, **shape):
    with drawing.collected(narrow=narrow) as held, style.figure(Path("never/written.png"), **shape) as axes:
        draw(axes)
    return held["written"]


def decoded(svg):
    return base64.b64decode(picture(svg).uri.partition(",")[2]).decode()


def test_collected_figures_are_not_written_and_files_are_written_again_afterwards(tmp_path):
    assert drawn(lambda axes: axes.plot([1, 2])).startswith("<?xml")
    with style.figure(tmp_path / "after.png") as axes:
        axes.plot([1, 2])
    assert (tmp_path / "after.png").read_bytes().startswith(b"\x89PNG")


def test_numbers_in_texts_keep_their_digits():
    svg = decoded(drawn(lambda axes: axes.set(title="α = 0.125 of 3.14159", xlabel="0.0625 ")))
    assert "α = 0.125 of 3.14159" in svg
    assert "0.0625" in svg
    assert not re.search(r'[ "]\d+\.\d\d+[ "\n]', "".join(re.findall(r' d="[^"]*"', svg)))


def test_images_and_texts_stay_in_their_places():
    before = drawn(lambda axes: axes.imshow(np.eye(7), interpolation=style.between_pixels(), aspect="auto"))
    transforms = re.findall(r'transform="[^"]*"', before)
    assert any("." in each for each in transforms)
    assert re.findall(r'transform="[^"]*"', decoded(before)) == transforms


def test_a_picture_has_two_themes_and_says_only_variables():
    svg = decoded(drawn(lambda axes: axes.plot([1, 2], color=style.COLOURS[0])))
    light, dark = re.findall(r"--0072b2:(#[0-9a-f]{6})", svg)
    assert light == "#0072b2"
    assert contrast(dark, DARK_PAPER) > 3
    assert not re.search(r"(fill|stroke): #", svg)


def test_a_picture_with_pixels_stays_on_white_paper():
    svg = decoded(drawn(lambda axes: axes.imshow(np.eye(3))))
    assert "prefers-color-scheme" not in svg
    assert f"--{PAPER[1:]}:{PAPER}" in svg


def test_narrow_figures_stack_their_panels():
    wide, narrow = (picture(drawn(lambda axes: axes[1].plot([1]), flag, columns=2)) for flag in (False, True))
    assert wide.width > 2 * wide.height
    assert narrow.width < narrow.height
    assert narrow.width < 420


def test_a_thinned_band_keeps_its_extremes():
    x = np.arange(5000)
    runs = np.stack([np.zeros(5000), np.zeros(5000)])
    runs[0, 1234], runs[1, 4321] = 9.0, -7.0
    edges = np.stack([runs.mean(0) - runs.std(0, ddof=1), runs.mean(0) + runs.std(0, ddof=1)])
    kept = style._corners(edges, style.POINTS)
    assert len(kept) <= style.POINTS + 2
    assert {0, 1234, 4321, 4999} <= set(kept)
    whole = len(drawn(lambda axes: axes.fill_between(x, *edges)))
    assert len(drawn(lambda axes: style.band(axes, x, runs, "label", 0))) < whole / 4


# -- colours ---------------------------------------------------------------------------------------------------------


def test_contrast_is_that_of_wcag():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)
    assert contrast("#777777", "#ffffff") == contrast("#ffffff", "#777777")


def themes():
    blocks = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)
    light, dark, printed = (dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block)) for block in blocks)
    return {"light": light, "dark": dark, "print": light | printed}


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
def test_texts_and_bars_of_the_page_can_be_read(theme):
    colours = themes()[theme]
    texts = ("ink", "soft", "link", "reproduced", "exceeded", "not-reproduced", "not-tested")
    for paper in ("paper", "wash", "warn"):
        for text in texts if paper != "warn" else ("ink", "link"):
            assert contrast(colours[text], colours[paper]) >= 4.5, (text, paper)


def test_dark_pictures_stand_on_the_pages_paper():
    assert themes()["dark"]["paper"] == DARK_PAPER
    assert themes()["dark"]["ink"] == DARK_INK
    assert themes()["light"]["paper"] == PAPER


@pytest.mark.parametrize("colour", [*map(str.lower, style.COLOURS), "#440154", style.INK, "#555555", "#777777"])
def test_dark_colours_are_told_from_dark_paper(colour):
    assert contrast(dark_colour(colour), DARK_PAPER) >= 3


def test_greys_keep_their_order():
    greys = [dark_colour(colour) for colour in ("#ffffff", "#e3e3e3", "#777777", style.INK, "#000000")]
    assert greys[0] == DARK_PAPER
    assert greys[-1] == DARK_INK
    ladder = [contrast(grey, DARK_PAPER) for grey in greys]
    assert ladder == sorted(ladder)
