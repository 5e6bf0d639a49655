"""`gpunet bench report`: tables, figures and result.json of made files of benchmarks; what is refused."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from gpunet.bench.report import report
from gpunet.bench.results import Case, Entry, Section, write_sections
from gpunet.report import bench_figures, bench_tables

from ..cli.runner import files, run
from ..experiments.schema import is_png

RECORDED = Path(__file__).parents[2] / "benchmarks" / "results" / "xeon-2-cores.json"


@pytest.fixture(autouse=True)
def _wide(monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.chdir(tmp_path)


def entry(group, case, who, role, seconds, pieces=1):
    info = {"case": case, "who": who, "role": role, "device": "cpu", "pieces": pieces}
    return {"group": group, "name": who, "stats": {"data": seconds}, "extra_info": info}


def made(path, factor=1.0, cpu="Xeon"):
    """Two groups: numba beside torch, and numba beside the products alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    benchmarks = [
        entry("train-step", "small", "numba", "ours", [0.010 * factor, 0.012 * factor, 0.011 * factor], pieces=10),
        entry("train-step", "small", "torch", "rival", [0.022, 0.022, 0.022], pieces=10),
        entry("train-step", "large", "numba", "ours", [3.0 * factor]),
        entry("train-step", "large", "torch", "rival", [2.0]),
        entry("svd", "[bold]4×4", "gpunet", "ours", [0.00005 * factor] * 3),
        entry("svd", "[bold]4×4", "numpy", "rival", [0.005, 0.005, 0.005]),
    ]
    path.write_text(json.dumps({"machine_info": {"gpunet": {"cpu": cpu}}, "benchmarks": benchmarks}))
    return path


def bench(capsys, *arguments):
    done = run(capsys, "bench", "report", *arguments)
    assert (done.code, done.err) == (0, "")
    return done


def test_one_file(capsys, tmp_path):
    done = bench(capsys, made(tmp_path / "here.json"), "--out", "out")
    assert files(tmp_path / "out") == ["bench-svd.png", "bench-train-step.png", "result.json"]
    assert all(is_png((tmp_path / "out" / name).read_bytes()) for name in files(tmp_path / "out")[:2])
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in done.out.splitlines() if "│" in line]
    assert lines == [
        ["small", "numba", "torch", "1.10 ms", "2.20 ms", "0.500×", "0.455 to 0.545"],
        ["large", "numba", "torch", "3.00 s", "2.00 s", "1.50×", "–"],
        ["[bold]4×4", "gpunet", "numpy", "50.0 µs", "5.00 ms", "0.0100×", "0.0100 to 0.0100"],
    ]
    assert "file" not in done.out.splitlines()[2]
    assert "Xeon" in done.out
    assert done.out.endswith("Written: out/result.json, bench-train-step.png, bench-svd.png\n")


def test_two_machines_side_by_side(capsys, tmp_path):
    there = made(tmp_path / "there.json", 0.5, cpu="Epyc")
    done = bench(capsys, made(tmp_path / "here.json"), there, "--out", "out", "--json")
    document = json.loads(done.out, parse_constant=pytest.fail)
    assert done.out == (tmp_path / "out" / "result.json").read_text()
    assert document["benchmark"] == "report"
    assert document["files"] == [{"name": "here", "machine": "Xeon"}, {"name": "there", "machine": "Epyc"}]
    rows = document["groups"]["train-step"]
    assert [(row["case"], row["file"], round(row["ratio"], 3)) for row in rows] == [
        ("small", "here", 0.5), ("small", "there", 0.25), ("large", "here", 1.5), ("large", "there", 0.75),
    ]  # fmt: skip
    assert rows[0]["quartiles"] == pytest.approx([10 / 22, 12 / 22])  # of nine pairs the third and the seventh
    assert (rows[0]["seconds"], rows[0]["rival_seconds"]) == pytest.approx((0.0011, 0.0022))
    first = bench_tables.tables(report([tmp_path / "here.json", there]))[0]
    assert [row[3] for row in first.rows] == ["here", "there", "here", "there"]
    assert first.breaks == {2}
    assert first.note == "here: Xeon; there: Epyc"


def test_files_of_the_same_name_are_told_apart(tmp_path):
    paths = [made(tmp_path / folder / "bench.json") for folder in ("a/x", "b/x", "c/y")]
    assert [each.name for each in report(paths).files] == ["a/x/bench", "b/x/bench", "c/y/bench"]
    assert [each.name for each in report(paths[1:]).files] == ["x/bench", "y/bench"]


def test_no_text_of_a_figure_lies_in_another_or_is_cut_off(monkeypatch, tmp_path):
    def check(figure, *_, bbox_inches, **__):
        (axes,), box = figure.axes, bbox_inches or figure.bbox_inches
        for labels, low, high in ((axes.get_xticklabels(), "x0", "x1"), (axes.get_yticklabels()[::-1], "y0", "y1")):
            boxes = [label.get_window_extent() for label in labels if label.get_visible()]
            pairs = [(getattr(a, high), getattr(b, low)) for a, b in itertools.pairwise(boxes)]
            assert all(end < begin for end, begin in pairs), (low, pairs)
            assert len(boxes) == len(names) or low == "x0"
        title = [each for each in axes.get_children() if isinstance(each, Text) and each.get_text()]
        for text in [*title, *axes.get_yticklabels(), axes.xaxis.label, *figure.legends[0].get_texts()]:
            (left, below), (right, above) = text.get_window_extent().get_points() / figure.dpi
            assert box.x0 <= left < right <= box.x1, text
            assert box.y0 <= below < above <= box.y1, text
        assert axes.get_position().width * figure.get_figwidth() > 3, "inches"

    monkeypatch.setattr(Figure, "savefig", check)
    long = [f"{'a long name of a case, ' * 8}{turn}" for turn in range(3)]
    for place, names in enumerate((["a"], [f"case {turn}" for turn in range(12)], long)):
        benchmarks = []
        for turn, name in enumerate(names):  # from 1e-13 to 1e13 times as slow
            benchmarks += [entry("group" * 9**place, name, "x" * 9**place, "ours", [10.0 ** (13 * (-1) ** turn)])]
            benchmarks += [entry("group" * 9**place, name, "y", "rival", [1.0])]
        path = tmp_path / f"{place}.json"
        path.write_text(json.dumps({"machine_info": {"gpunet": {"cpu": "Xeon" * 50}}, "benchmarks": benchmarks}))
        bench_figures.draw(report([path]), tmp_path)


def test_who_failed_is_told_below_the_tables(capsys, tmp_path):
    entries = {"gpunet": Entry(seconds=[1.0]), "torch": Entry("rival", [2.0]), "svds": Entry("rival", failed="no luck")}
    write_sections(tmp_path / "a.json", {"svd": Section({}, {"5×5": Case(entries)})})
    assert "\na: svd: 5×5, svds failed: no luck\nWritten: " in bench(capsys, tmp_path / "a.json").out


def test_groups_of_like_names_have_their_own_figures(tmp_path):
    path = tmp_path / "here.json"
    both = [entry(group, "a", who, role, [1.0]) for group in "αβ" for who, role in (("x", "ours"), ("y", "rival"))]
    path.write_text(json.dumps({"machine_info": {"gpunet": {}}, "benchmarks": both}))
    assert [each.name for each in bench_figures.draw(report([path]), tmp_path)] == ["bench-_.png", "bench-_-2.png"]


@pytest.mark.slow
def test_the_recorded_results(capsys, tmp_path):
    done = bench(capsys, RECORDED)
    assert files(tmp_path / "runs" / "bench") == [
        *(f"bench-{group}.png" for group in ("cifar-mlp", "conv", "lowrank", "svd", "train")), "result.json",
    ]  # fmt: skip
    for words in ("mnist-2048", "torch channels_last", "4096×4096 to rank 256", "break-even 1/2"):
        assert words in done.out
    assert "grid" not in done.out  # compares nothing with a rival


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(12.3456, "12.3 s"), (1.0, "1.00 s"), (0.9994, "999 ms"), (0.02, "20.0 ms"), (0.00029, "290 µs"),
     (1e-7, "0.100 µs"), (None, "–")],
)  # fmt: skip
def test_times_have_their_unit(seconds, shown):
    assert bench_tables.time(seconds) == shown


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ("cannot be read: No such file",)),
        ("{", ("is not JSON", "--benchmark-json")),
        ('{"rows": []}', ("is no file of benchmarks", "pytest benchmarks --benchmark-only")),
        ('{"benchmarks": [], "machine_info": {"gpunet": {"cpu": "x"}}}', ("compares nothing", "measure again")),
    ],
)
def test_mistakes(capsys, tmp_path, content, words):
    path = tmp_path / "bad.json"
    if content is not None:
        path.write_text(content)
    run(capsys, "bench", "report", made(tmp_path / "good.json"), path, "--out", "out").one_line(2, str(path), *words)
    assert files(tmp_path / "out") == []


def test_no_file_the_same_file_and_a_folder_that_cannot_be(capsys, tmp_path):
    run(capsys, "bench", "report").one_line(2, "FILE")
    path = made(tmp_path / "a.json")
    run(capsys, "bench", "report", path, tmp_path / "." / "a.json").one_line(2, "named twice")
    run(capsys, "bench", "report", path, "--out", "/proc/nowhere").one_line(2, "cannot write to '/proc/nowhere'")
    run(capsys, "bench", "report", tmp_path).one_line(2, f"'{tmp_path}' cannot be read: Is a directory")


def test_help(capsys):
    done = run(capsys, "bench", "report", "--help")
    assert (done.code, done.err) == (0, "")
    for word in ("FILE...", "--benchmark-json", "--out", "--json", "runs/bench", "smaller is better"):
        assert word in " ".join(done.out.split()), word
    code = (
        "import sys; from gpunet.cli import execute; execute(['bench', 'report', '--help']); "
        "print('loaded:', [m for m in ('numpy', 'matplotlib', 'sklearn', 'torch') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout
    assert out.splitlines()[-1] == "loaded: []"
