"""Tables, figures and result.json of sweeps of any shape."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from gpunet.experiments.provenance import Stopwatch
from gpunet.report import sweep_figures, sweep_tables
from gpunet.report.terminal import rich_table
from gpunet.sweep import parse_parameter, search
from gpunet.sweep.targets import as_result

from ..experiments.schema import is_png, parse
from .functions import BOWL, SPACE

PLAIN, SCRIPTED = "tests.sweep.functions:plain", "tests.sweep.functions:scripted"


def reported(table, folder):
    """The result as written, the names of the figures, and the tables as text."""
    result = as_result(table, "sweep-test", Stopwatch(), None)
    figures = sweep_figures.draw(result, folder)
    for path in figures:
        assert is_png(path.read_bytes())
    screen = Console(file=io.StringIO(), width=140)
    for each in sweep_tables.tables(result):
        screen.print(rich_table(each))
    return parse(result.write(folder).read_text()), [path.name for path in figures], screen.file.getvalue()


def of(function, *texts, settings=None, trials=6, **options):
    return search(function, settings or {}, [parse_parameter(text) for text in texts], trials=trials, **options)


@pytest.mark.slow
def test_a_sweep_with_everything(tmp_path):
    table = search(BOWL, {}, SPACE, trials=25, stages=3)
    result, figures, text = reported(table, tmp_path)
    assert figures == ["history.png", "slices.png", "importance.png", "curves.png"]
    names = [row["name"] for row in result["rows"]]
    assert names == [*(f"trial {n}" for n in range(75)), "importance"]
    for row, held in zip(table, result["rows"], strict=False):
        assert held["metrics"].get("value", {}).get("mean") == row["value"]
        assert result["notes"]["parameters"][held["name"]] == row["parameters"]
        assert result["timings"][held["name"]]["trial"] == [row["seconds"]]
    assert result["notes"]["best"] == f"trial {table.best['number']}"
    assert result["notes"]["error"] == {f"trial {n}": error for n, error in table.errors.items()}
    assert "ValueError: x is too small" in table.errors.values()
    assert result["curves"]["trial 0"] == {
        "step": list(table.curves[0]),
        "cost": list(table.curves[0].values()),
    }
    assert [len(box) for box in result["notes"]["boxes"]] == [4, 4, 4]
    shares = result["rows"][-1]["metrics"]
    assert sum(share["mean"] for share in shares.values()) == pytest.approx(1)
    order = sorted(shares, key=lambda name: -shares[name]["mean"])
    assert [word for word in text.replace("┃", " ").split() if word in shares][:4] == order
    counts = {state: table.ended(state) for state in ("complete", "pruned", "failed")}
    assert "the best 10 of {complete} completed trials, {pruned} pruned, {failed} failed".format(**counts) in text
    first = text.index(f"trial {table.best['number']} ")
    assert all(f"trial {row['number']} " not in text[:first] for row in table)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["x=0..1"], ["history.png", "slices.png"]),
        (["x=5"], ["history.png", "slices.png"]),
        (["x=1,2,3"], ["history.png", "slices.png"]),
        ([*(f"{name}=0..1" for name in "xabcdefgh")], ["history.png", "slices.png", "importance.png"]),
    ],
)
def test_spaces_of_any_shape(tmp_path, texts, expected):
    _, figures, _ = reported(of(PLAIN, *texts, stages=2), tmp_path)
    assert figures == expected


@pytest.mark.slow
def test_curves_that_are_not_numbers(tmp_path):
    script = {"0": ["nan", "nan"], "1": [1.0, "inf"], "2": [-1.0, 0.0], "3": ["nan"], "4": 1.0, "5": "raises"}
    table = of(SCRIPTED, "n=0,1,2,3,4,5", settings={"script": script}, stages=1)
    result, figures, text = reported(table, tmp_path)
    assert figures == ["history.png", "slices.png", "curves.png"]
    assert sorted(result["notes"]["state"].values()) == ["complete"] * 2 + ["failed"] + ["pruned"] * 3
    nan = next(row["number"] for row in table if row["parameters"]["n"] == 0)
    assert result["curves"][f"trial {nan}"]["cost"] == [None, None]
    assert "the best 2 of 2 completed trials, 3 pruned, 1 failed" in text


def test_nothing_completed(tmp_path):
    table = of(SCRIPTED, "n=0", settings={"script": {"0": "raises"}}, stages=1)
    result, figures, text = reported(table, tmp_path)
    assert (figures, result["notes"]["best"]) == ([], None)
    assert text.strip() == "sweep-test on scripted: no trial completed, 6 failed"
    assert sweep_tables.best_line(as_result(table, "x", Stopwatch(), None)) == "No trial completed."


@pytest.mark.slow
def test_minimize(tmp_path):
    table = of(PLAIN, "x=0..1", "y=0..1", direction="minimize")
    result, _, text = reported(table, tmp_path)
    least = min(row["value"] for row in table)
    best = result["notes"]["best"]
    (value,) = (row["metrics"]["value"]["mean"] for row in result["rows"] if row["name"] == best)
    assert value == least
    assert text.index(f"{best} ") < min(
        text.index(f"trial {n} ") for n in range(12) if f"trial {n}" != best and f"trial {n} " in text
    )
