"""What compressing did, told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gpunet.report.compression import draw, layers_table, sentence, write
from gpunet.report.drawing import collected


def layer(name: str, rank: int | None, **changed):
    cut = rank is not None
    return {
        "name": name, "shape": [8, 20], "rank": rank, "why": "cut" if cut else "its weight is shared",
        "parameters": [160, 28 * rank if cut else 160], "multiplications": [160.0, 56.0],
        "weight_error": 0.5 if cut else None, "output_error": 0.123456 if cut else None,
        "least": 0.1234 if cut else None, "route": "gram" if cut else "",
    } | changed  # fmt: skip


def said(*layers, **changed):
    return {
        "promise": {"max_drop": 0.01, "budget": 0.25}, "samples": 1442, "tuned": False, "parameters": [237210, 94874],
        "layers": list(layers), "metric": [0.896, 0.884], "seconds": [2.0, 1.42], "time_ratio": [0.71, 0.7, 0.72],
        "batch": 64,
    } | changed  # fmt: skip


def test_the_whole_in_a_sentence():
    found = sentence(said(layer("fc", 2)))
    assert found.startswith("Parameters 237,210 → 94,874 (40.0%), metric 89.60 → 88.40 %, batch-64 time 1.0 → 0.71×")
    assert sentence({"parameters": [10, 5]}) == "Parameters 10 → 5 (50.0%)"
    found = sentence({"parameters": [100, 55], "chosen": [50, 5], "metric": [0.5, 0.4]})
    assert found == "Parameters 100 → 55 (55.0%), of the chosen weights 50 → 5 (10.0%), metric 50.00 → 40.00 %"
    assert "metric -3.2 → -3.4" in sentence(said(metric=[-3.2, -3.4]))


def test_a_row_a_layer():
    table = layers_table(said(layer("fc", 2), layer("out", None), layer("", 1)))
    assert table.rows[0] == ("fc", "8×20", "2", "160", "56", "50", "12.3", "12.3", "cut")
    assert table.rows[1] == ("out", "8×20", "–", "160", "160", "–", "–", "–", "its weight is shared")
    assert table.rows[2][0] == "(all)"
    assert "calibration" in table.note
    table = layers_table(said(layer("fc", 2, output_error=None, least=None), layer("out", None)))  # without data
    assert table.rows[0] == ("fc", "8×20", "2", "160", "56", "50", "–", "cut")
    assert "outputs off by" not in [column.heading for column in table.columns]
    assert "calibration" not in table.note


@pytest.mark.parametrize(
    "layers",
    [
        [layer("fc", 2), layer("out", None)],
        [layer("out", None)],
        [layer("<script>alert(1)</script>", 1), layer("a\x00b\u202e", 2)],
        [layer(f"blocks.{i}.mlp.fc1", 1 + i % 3, output_error=None) for i in range(100)],
        [layer("fc", 1, weight_error=None, output_error=None, least=None)],
        [layer("fc", 1, shape=[], weight_error=0.0, output_error=0.0, least=0.0)],
    ],
)
def test_the_page_holds_it_and_nothing_else(tmp_path, layers):
    given = said(*layers, promise={"max_drop": 0.01, "budget": 0.2500831192551})
    text = write(given, tmp_path / "compress.html", "m & n").read_text()
    assert "m &amp; n" in text
    assert "Parameters 237,210 → 94,874" in text
    assert "max drop 1 %, budget 25 %" in text
    assert "<script>alert" not in text
    assert not re.search("[\0\u202e]", text)
    assert text.count('<th scope="row">') == len(layers)
    assert ("data:image/svg" in text) == any(each["rank"] for each in layers)


def test_a_narrow_figure_names_the_bars_of_both_panels():
    layers = [layer(f"model.layers.{i}.self_attn.q_proj", 2) for i in range(4)]
    with collected(narrow=True) as svg:
        draw(said(*layers), Path("layers.png"))
    assert svg["layers"].count("2.self_attn.q_proj") == 2
    assert "model.layers" not in svg["layers"]


def test_the_figure_is_a_file(tmp_path):
    draw(said(layer("fc", 2), layer("head", 3)), tmp_path / "layers.png")
    assert (tmp_path / "layers.png").read_bytes().startswith(b"\x89PNG")
