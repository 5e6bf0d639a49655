"""The tables of speed in README and docs/ are those of benchmarks/results; files of results, and `bench record`."""

from __future__ import annotations

import itertools
import json
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gpunet.bench import readme, record, report, routes, svd, train
from gpunet.bench.readme import main
from gpunet.bench.results import Case, Entry, Section, provenance, read_sections, write_section, write_sections
from gpunet.errors import InputError
from gpunet.report import speed_figure
from gpunet.report.style import figure

from ..cli.runner import run

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
TEXTS = {page.name: page.read_text() for page in readme.PAGES}
TEXT = TEXTS["speed.md"]
MACHINES = {found["table"]: found["machine"] for text in TEXTS.values() for found in readme.BLOCK.finditer(text)}


def recorded(machine):
    return read_sections(RESULTS / f"{machine}.json")


@pytest.mark.parametrize("page", TEXTS)
def test_pages_show_what_is_recorded(page):
    assert readme.rewritten(TEXTS[page], recorded) == TEXTS[page], "run python -m gpunet.bench.readme"


def test_every_table_is_shown():
    for table in set(readme.TABLES) - set(MACHINES):  # of what was measured nowhere yet
        for path in RESULTS.glob("*-core*.json"):
            with pytest.raises(KeyError):
                readme.TABLES[table](read_sections(path))


@pytest.mark.parametrize(
    ("table", "path", "seconds", "cell"),
    [
        ("training", ("train", "mnist-64", "numba"), 3.21e-3, "| 3.21 ms ("),
        ("training", ("train", "points-21", "torch"), 99.4e-6, "| 2-3-3-2, batch 21 | 99 µs |"),
        ("others", ("conv", "features-8", "torch"), 77e-6, "batch 500 | 77 µs |"),
        ("others", ("cifar-mlp", "cifar-mlp, ten epochs of 10,000 images", "numpy"), 22.0, "| 22.00 s ("),
    ],
)
def test_a_figure_that_changed_changes_its_row(table, path, seconds, cell):
    section, case, who = path
    sections = recorded(MACHINES[table])
    sections[section].cases[case].entries[who].seconds = [seconds]
    before, after = readme.TABLES[table](recorded(MACHINES[table])), readme.TABLES[table](sections)
    ((_, row),) = [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]]
    assert cell in row


def made(**entries):
    """A file of results with one net and one matrix, and the cells of their rows."""
    cases = {name: Case(dict(entries)) for name in readme.train.CASES}
    return readme.TABLES["training"]({"train": Section({}, cases)})


def test_ours_stand_beside_the_fastest_of_pytorchs_ways_in_float32():
    times = {"torch": 4e-3, "torch flushed": 3e-3, "torch one thread": 2e-3, "torch bf16": 1e-3}
    torch = {who: Entry("rival", [seconds]) for who, seconds in times.items()}
    ours = {"numba": Entry("ours", [1.5e-3]), "numba mixed": Entry("ours", [0.5e-3])}
    row = made(**torch, **ours, products=Entry("floor", [1e-3]))[2]
    cells = "4.00 ms | 3.00 ms | 2.00 ms | 1.00 ms | 1.50 ms (0.75×) | 0.50 ms (0.50×) | 1.00 ms"
    assert row == f"| 784-512-256-10, batch 2048 | {cells} |"
    row = made(torch=Entry("rival", [4e-3]), jax=Entry("rival", [3e-3]), numpy=Entry("ours", [5e-3]))[2]
    assert row == "| 784-512-256-10, batch 2048 | 4.00 ms | 3.00 ms | 5.00 ms (1.25×) |"  # who is missing has no column


def test_rivals_of_a_matrix_have_their_errors():
    def entry(role, seconds, sigma):
        return Entry(role, [seconds], notes={"sigma": sigma, "angle": 0.5, "energy_missed": -1e-16})

    entries = {
        "gpunet": entry("ours", 0.5, 1.2e-8), "gpunet, one side": entry("ours", 0.25, 1e-8),
        "sklearn covariance_eigh": entry("rival", 0.5, 1e-7), "torch.svd_lowrank": entry("rival", 0.75, 0.01),
        "scipy svds": Entry("rival", failed="no"),
    }  # fmt: skip
    rows = readme.rivals({"svd": Section({}, {name: Case(entries) for name in readme.FAIR})})[2:6]
    assert rows == [
        "| top 100 of 784×60000 | gpunet | 0.50 s | | 1e-08 | 5e-01 | 0e+00 |",
        "| | gpunet, one side | 0.25 s | | 1e-08 | 5e-01 | 0e+00 |",
        "| | sklearn covariance_eigh | 0.50 s | 2.0× | 1e-07 | 5e-01 | 0e+00 |",
        "| | torch.svd_lowrank | 0.75 s | 1.50× | 1e-02 | 5e-01 | 0e+00 |",
    ]


def test_what_was_measured_on_a_gpu_has_tables(tmp_path):
    """From the sections of gpu_check.py, each race by itself: ours beside whom it was timed with."""

    def raced(**entries):
        return Section({}, {"batch": Case({name.replace("_", " "): entry for name, entry in entries.items()})})

    def entry(seconds, role="ours"):
        return Entry(role, [seconds, seconds], notes={"sigma": 1e-7, "angle": 1e-4, "energy_missed": 0.0})

    sections = {f"gpu train-{batch}": raced(eager=entry(6e-5), graph=entry(2e-5), torch=entry(1e-4, "rival"),
                                            products=entry(1e-5, "floor")) for batch in readme.BATCHES}  # fmt: skip
    sections["gpu mixed-64"] = raced(graph=entry(2e-5), graph_mixed=entry(1e-5), torch_bf16=entry(4e-5, "rival"))
    sections["gpu jax-2048"] = raced(graph=entry(3e-5), jax=entry(2e-5, "rival"))
    for name, label in zip(("whole", "square"), readme.FAIR, strict=True):
        case = Case({"gpunet": entry(0.0123), "torch.linalg.svd": entry(1.5, "rival")})
        sections[f"gpu svd-{name}"] = Section({}, {label: case})
        sections[f"gpu svd-{name}-cupy"] = Section({}, {label: Case({"gpunet": entry(5.0)})})
    write_sections(tmp_path / "gpu.json", sections)
    begin, end = "<!-- speed:begin {} gpu -->\n", "<!-- speed:end -->\n"
    text = "".join(begin.format(table) + end for table in ("gpu-steps", "rivals", "triples"))
    lines = readme.rewritten(text, lambda machine: read_sections(tmp_path / f"{machine}.json")).splitlines()
    net = "784-512-256-10, batch"
    assert lines[1:9] == [
        "| one Adam step | | | operation by operation | recorded | in mixed precision |", "|---|---|---|---|---|---|",
        f"| {net} 64 | torch | 100 µs | 60 µs (0.60×) | 20 µs (0.20×) | |",
        f"| {net} 64 | torch bf16 | 40 µs | | | 10 µs (0.25×) |",
        f"| {net} 256 | torch | 100 µs | 60 µs (0.60×) | 20 µs (0.20×) | |",
        f"| {net} 2048 | torch | 100 µs | 60 µs (0.60×) | 20 µs (0.20×) | |",
        f"| {net} 2048 | jax | 20 µs | | 30 µs (1.50×) | |", "<!-- speed:end -->",
    ]  # fmt: skip
    assert f"| {readme.FAIR[0]} | gpunet | 12.30 ms | | 1e-07 | 1e-04 | 0e+00 |" in lines
    assert "| | torch.linalg.svd | 1.50 s | 122.0× | 1e-07 | 1e-04 | 0e+00 |" in lines
    assert "| gpunet | 12.30 ms | 1e-04 | 12.30 ms | 1e-04 |" in lines


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.replace("begin training", "begin nothing"), "unknown table of speed 'nothing': expected one of"),
        (
            lambda t: t.replace("<!-- speed:end -->", "", 1),
            r"\d tables of speed begin, \d are whole",
        ),
        (lambda t: "no table", "0 tables of speed begin"),
        (lambda t: t.replace(MACHINES["others"], "none-such"), r"none-such\.json' cannot be read: No such file"),
    ],
)
def test_mistakes_in_the_text(change, words):
    with pytest.raises(InputError, match=words):
        readme.rewritten(change(TEXT), recorded)


def test_a_figure_that_is_missing_is_named():
    machine = MACHINES["others"]
    sections = {name: section for name, section in recorded(machine).items() if name != "conv"}
    with pytest.raises(InputError, match=f"the results of {machine} have no 'conv', which table others shows"):
        readme.rewritten(TEXT, lambda name: sections if name == machine else recorded(name))


@pytest.mark.slow
def test_the_command(tmp_path, capsys):
    page = tmp_path / "speed.md"
    page.write_text(TEXT.replace(" µs |", " ms |"))
    assert main(["--check", str(page)]) == 1
    assert "differs from benchmarks/results; run python -m gpunet.bench.readme" in capsys.readouterr().out
    assert main([str(page)]) == 0
    assert page.read_text() == TEXT
    assert main(["--check", str(page)]) == 0
    assert main(["--check", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.startswith("readme: ")


@pytest.mark.slow
def test_the_picture_shows_who_is_recorded(tmp_path, monkeypatch):
    """Its points are the medians; a rival that took no part is left out."""
    monkeypatch.setattr(readme, "PICTURE", tmp_path / "speed.png")
    drawn = []
    monkeypatch.setattr(speed_figure, "figure", lambda path, *_, **__: kept(drawn, path))
    assert main(["--picture", str(readme.PAGES[1])]) == 0
    left, right = drawn
    sections = recorded("epyc-2-cores")
    triples = sections["svd"].cases[readme.FAIR[0]].entries
    seconds = sorted(line.get_xdata()[0] for line in left.lines)
    assert seconds == sorted(e.median for who, e in triples.items() if "angle" in e.notes and who != "gpunet, uint8")
    numba = next(line for line in right.lines if line.get_label() == "gpunet with numba")
    steps = sections["train"].cases["mnist-2048"].entries
    fastest = min(steps[who].median for who in ("torch", "torch flushed", "torch one thread") if who in steps)
    assert numba.get_xdata()[0] == steps["numba"].median / fastest


@contextmanager
def kept(drawn, path):
    with figure(path, 2) as axes:
        drawn.extend(axes)
        yield axes


# -- files of results --------------------------------------------------------------------------------------------------


def test_a_section_is_written_and_the_others_stay(tmp_path):
    path = tmp_path / "new" / "machine.json"
    write_section(path, "one", Section({"cpu": "a"}, rounds=1))
    entry = Entry("ours", [0.5, np.float64(0.25)], notes={"loss": np.float32(2), "angle": float("nan")})
    write_section(path, "two", Section({}, {"a": Case({"numba": entry})}, rounds=2))
    write_section(path, "one", Section({"cpu": "b"}, rounds=3))
    sections = read_sections(path)
    assert sections["one"] == Section({"cpu": "b"}, rounds=3)
    found = sections["two"].cases["a"].entries["numba"]
    assert (found.seconds, found.median, found.notes) == ([0.5, 0.25], 0.375, {"loss": 2.0, "angle": None})
    write_section(path, "file \udcff", Section({"µs": "\udcff"}))  # half a pair, as Python names what is no text
    assert read_sections(path)["file ?"].provenance == {"µs": "?"}
    assert {"cpu", "gpu", "numpy", "git", "torch", "jax", "threads"} <= set(provenance())
    assert [each.name for each in path.parent.iterdir()] == ["machine.json"]


@pytest.mark.parametrize("content", ["{", "[]", '{"benchmarks": []}', '{"sections": []}'])
def test_a_file_of_something_else_is_left_alone(tmp_path, content):
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(InputError, match="expected a file of benchmarks/results"):
        write_section(path, "one", Section({}))
    assert path.read_text() == content


def test_every_recorded_section_says_where_it_comes_from():
    files = [path for path in RESULTS.glob("*.json") if "sections" in json.loads(path.read_text())]
    assert RESULTS / "xeon-2-cores.json" in files
    for path in files:
        for name, section in read_sections(path).items():
            assert section.provenance.get("cpu") or section.state == "not run", (path.name, name)


# -- gpunet bench record -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_questions_are_measured_and_written(capsys, monkeypatch, tmp_path):
    """Small nets and matrices: every section is there, without a failure, and JAX is told of once."""
    small = replace(train.CASES["points-21"], steps=3)
    for name in ("CASES", "FACTORED", "CONV"):
        monkeypatch.setattr(train, name, {"small": small})
    monkeypatch.setattr(train, "EPOCHS", {"small": replace(small, whole=True, steps=1)})
    problems = svd.problems
    monkeypatch.setattr(svd, "problems", lambda: itertools.islice(problems(small=True), 3))
    monkeypatch.setattr(routes, "GRID", [(60, 16, (4, "f8"), (1, "f4"))])
    path = tmp_path / "a.json"
    asked = ("train", "epoch", "lowrank", "conv", "svd", "svd-grid")
    done = run(capsys, "bench", "record", path, *asked, "--rounds", 1, "--device", "numpy")
    assert (done.code, done.out) == (0, f"Written: {path}\n")
    sections = read_sections(path)
    assert list(sections) == list(asked)
    assert {"numpy", "products"} <= sections["train"].cases["small"].entries.keys()
    assert sections["svd"].cases["64×64 to rank 8"].entries["gpunet"].notes["route"]
    grid = sections["svd-grid"].cases
    assert {"auto", "gram"} <= grid["60×16 f8 falling, k=4"].entries.keys()
    assert grid["60×16 f8 falling, k=4, one side"].entries["sklearn covariance_eigh"].notes["error"] < 1
    assert {ratio.group for ratio in report.read(path).ratios} >= {"svd", "svd-grid"}


def test_what_stood_there_stays_until_a_question_is_answered(capsys, monkeypatch, tmp_path):
    path, turns = tmp_path / "a.json", []
    write_sections(path, {"train": Section({}, {"before": Case()}), "conv": Section({})})

    def fill(section, backend, rounds, bar, save):
        section.cases["now"] = Case()
        save()
        turns.append(read_sections(path)["train"])
        if len(turns) < 3:
            raise (KeyboardInterrupt, RuntimeError("no\nmore"))[len(turns) - 1]

    monkeypatch.setitem(record.QUESTIONS, "train", fill)
    asked = ("bench", "record", path, "train", "--device", "numpy")
    run(capsys, *asked).one_line(130, "interrupted")
    assert (turns[0].state, list(turns[0].cases)) == ("running", ["before", "now"])
    done = run(capsys, *asked)
    assert (done.code, done.out) == (1, f"train failed: RuntimeError: no more\nWritten: {path}\n")
    assert list(read_sections(path)["train"].cases) == ["before", "now"]
    assert run(capsys, *asked).code == 0
    assert (read_sections(path)["train"].state, list(read_sections(path)["train"].cases)) == ("done", ["now"])
    assert "conv" in read_sections(path)


def test_mistakes_in_what_is_to_be_recorded(capsys, tmp_path):
    run(capsys, "bench", "record", "/proc/a.json").one_line(2, "cannot write to '/proc'")  # before anything is measured
    run(capsys, "bench", "record", tmp_path / "a.json", "speed").one_line(2, "unknown question 'speed'", "train, epoch")
    (tmp_path / "b.json").write_text("[]")
    run(capsys, "bench", "record", tmp_path / "b.json").one_line(2, "expected a file of benchmarks/results")
    run(capsys, "bench", "record", tmp_path, "train").one_line(2, str(tmp_path))
