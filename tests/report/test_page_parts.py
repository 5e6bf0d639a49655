"""The parts of the page: tables as data, times, pictures for both themes, colours that can be read."""

from __future__ import annotations

import base64
import io
import math
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table as RichTable

from gpunet.experiments import experiments
from gpunet.experiments.claims import ClaimResult
from gpunet.experiments.result import Metric
from gpunet.report import drawing, page, style
from gpunet.report.claims import SIGNS, claim_values, kind
from gpunet.report.page.contents import duration, picture, sort_key, timing_table
from gpunet.report.table import Column, Table, cell, number, rows_table
from gpunet.report.terminal import console, rich_table

from .page_folder import made, svd_init

CSS = (Path(page.__file__).parent / "page.css").read_text()


# -- tables ----------------------------------------------------------------------------------------------------------


def test_terminal_and_page_have_the_same_cells():
    result = svd_init(seeds=1)
    for sheet in experiments()["svd-init"].tables(result):
        screen = Console(file=io.StringIO(), width=160)
        screen.print(rich_table(sheet))
        lines = [re.split(r"\s*│\s*", line.strip("│ \n")) for line in screen.file.getvalue().splitlines()]
        assert [line for line in lines if len(line) == 1 + len(sheet.columns)] == [list(row) for row in sheet.rows]


def test_claimed_stands_before_measured():
    sheet = rows_table(made(), "Title", ["first"], {"test_accuracy": "test"}, {"first": {"test_accuracy": 0.7}})
    assert sheet.columns == (Column("test", "%", "claimed"), Column("test", "%", "measured"))
    assert sheet.rows == (("first", "70.00", "62.50 ± 17.68"),)


def test_what_is_printed_is_text_and_nothing_else(capsys, monkeypatch):
    """Neither Rich's markup, nor its emoji, nor what steers a terminal or turns the order of writing around."""
    monkeypatch.setenv("COLUMNS", "200")  # wide enough that nothing is wrapped
    hostile = "[red]\x1b[31m\r\x07\x9b:smile:\u202e\udcff[/]"
    seen = r"[red]\x1b[31m\r\x07\x9b:smile:\u202e\udcff[/]"
    screen = console()
    own = RichTable(hostile, title=hostile, caption=hostile)
    own.add_row(hostile)
    sheet = Table(f"T{hostile}", (Column(f"C{hostile}"),), ((f"x{hostile}", f"y{hostile}"),), note=f"N{hostile}")
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


def test_times_have_the_unit_of_their_size():
    timings = {"dense": {"epoch": [0.004, 0.006]}, "cut": {"epoch": [0.002, 0.003], "fit_all": [2e-5]}}
    sheet = timing_table(made(timings=timings))
    assert [(column.heading, column.unit) for column in sheet.columns] == [
        ("epoch", "ms"), ("speed of an epoch,\ndense = 1", ""), ("fit all", "µs"),
    ]  # fmt: skip
    assert sheet.rows == (("dense", "5.00 ± 1.41", "1.00", "–"), ("cut", "2.50 ± 0.71", "2.00", "20.0"))
    assert sheet.rows[0][1].exact == "4, 6"
    assert timing_table(made(timings={})) is None
    assert timing_table(made(timings={"dense": {"epoch": []}, "cut": {"epoch": [float("nan"), 1.0]}})) is None


def test_zero_seconds_are_no_trouble():
    timings = {"a": {"epoch": [0.0]}, "b": {"epoch": [0.0]}}
    assert timing_table(made(timings=timings)).rows == (("a", "0.00", "–"), ("b", "0.00", "–"))


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.04, "0.0 s"), (59.9, "59.9 s"), (60, "1 min 0 s"), (125.4, "2 min 5 s"), (3725, "1 h 2 min"), (None, "–")],
)
def test_durations(seconds, said):
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("cell", "key"),
    [
        ("93.0 ± 0.2", 93.0), ("–", None), ("", None), ("−2.5 ± 0.1", -2.5), ("-2.5", -2.5), ("1e-07 ± 2e-08", 1e-7),
        ("1.2e−03", 1.2e-3), ("1,234", 1234.0), ("12 %", 12.0), ("3.5×", 3.5), ("< 0.5", 0.5), ("≈4", 4.0),
        ("+.5", 0.5), ("59.9 s", 59.9), ("2 min 5 s", 125.0), ("1 h 2 min", 3720.0), ("7.5 ms", 0.0075),
        ("3 of 10", 3.0), ("gram", None), ("gram " + "1" * 10**6, None), ("0.95, 0.99", 0.95),
    ],
)  # fmt: skip
def test_a_cell_is_put_in_order_by_its_number(cell, key):
    assert sort_key(cell) == (key if key is None else pytest.approx(key))


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


def test_a_picture_lets_the_page_through_unless_it_is_of_pixels():
    lines, pixels = (drawn(draw) for draw in (lambda axes: axes.plot([1, 2]), lambda axes: axes.imshow(np.eye(3))))
    assert (picture(lines).fixed, picture(pixels).fixed) == (False, True)
    assert "#ffffff" not in decoded(lines)
    assert f"font-family:{'system-ui'}" in decoded(lines)


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (1, 1000, ["1", "10", "100", "1000"]), (1e-5, 0.1, ["10⁻⁵", "10⁻⁴", "10⁻³", "10⁻²", "10⁻¹"]),
        (0.2, 0.9, ["0.2", "0.4", "0.6", "0.8"]), (3.1, 3.3, ["3.1", "3.15", "3.2", "3.25", "3.3"]),
    ],
)  # fmt: skip
def test_labels_of_a_logarithmic_axis_do_not_collide(low, high, ticks, narrow):
    made = []

    def draw(axes):
        axes.plot([low, high], [1, 2])
        axes.set(xscale="log", xlim=(low, high))
        made.append(axes)

    drawn(draw, narrow)
    (axes,) = made
    axes.figure.draw_without_rendering()
    places = zip(axes.get_xticklabels(), axes.get_xticks(), strict=True)
    shown = [label for label, place in places if 0.999 * low <= place <= 1.001 * high]
    boxes = [label.get_window_extent() for label in shown]
    assert [label.get_text() for label in shown] == ticks
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
    assert not any(label.get_text() for label in axes.get_xticklabels(minor=True))


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


def contrast(one, other):
    """The contrast ratio of two colours, 1 to 21, as WCAG 2 defines it."""
    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def channels(colour):
    return np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])


def luminance(colour):
    c = channels(colour) if isinstance(colour, str) else colour
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


def test_contrast_is_that_of_wcag():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)
    assert contrast("#777777", "#ffffff") == contrast("#ffffff", "#777777")


def themes():
    blocks = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)
    light, dark, printed = (dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block)) for block in blocks)
    return {"light": light, "dark": dark, "print": light | printed}


VERDICTS_OF_ITS_OWN = ("reproduced", "exceeded", "not-reproduced", "inconclusive")


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
def test_texts_and_bars_of_the_page_can_be_read(theme):
    colours = themes()[theme]
    texts = ("ink", "soft", "link", *VERDICTS_OF_ITS_OWN, "not-tested")
    for paper in ("paper", "wash", "warn"):
        for text in texts if paper != "warn" else ("ink", "link"):
            assert contrast(colours[text], colours[paper]) >= 4.5, (text, paper)
    marks = {colours[f"bar-{verdict}"] for verdict in VERDICTS_OF_ITS_OWN}
    assert len(marks) == 4


def test_every_verdict_has_a_sign_and_a_colour():
    signs = {told: SIGNS[told] for told in SIGNS if not told.endswith("here")}
    assert len(set(signs.values())) == len(signs) == 5
    coloured = set(re.findall(r"\.([a-z-]+)[, ](?=[^{}]*\{ --text)", CSS))
    assert coloured == {kind(told) for told in SIGNS} - {"not-tested"}


@pytest.mark.parametrize("colour", [*map(str.lower, style.COLOURS), "#440154", style.INK, "#555555", "#777777"])
def test_figures_can_be_told_from_dark_paper(colour):
    """What the style sheet's filter makes of a colour, as the Filter Effects Module defines it."""
    assert "filter: invert(0.92) hue-rotate(180deg);" in CSS
    weights = np.array([0.213, 0.715, 0.072])
    turned = (2 * np.stack([weights] * 3) - np.eye(3)) @ (0.92 - 0.84 * channels(colour))
    assert contrast(np.clip(turned, 0, 1), themes()["dark"]["paper"]) >= 3


def test_claims_have_the_units_of_their_numbers():
    claim = ClaimResult("test-accuracy", "", "", 0.9, float("nan"), "not tested", "")
    assert claim_values(claim) == ("90.00 %", "–")
    assert claim_values(ClaimResult("loss", "", "", "less", None, "not tested", "")) == ("less", "–")
