"""README's tables of speed are those of benchmarks/results; files of results, section by section."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pytest

from gpunet.bench import readme
from gpunet.bench.record import read_sections, write_section
from gpunet.errors import InputError

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
TEXT = (ROOT / "README.md").read_text()
main = runpy.run_path(str(ROOT / "benchmarks" / "readme.py"))["main"]


def recorded(machine):
    return read_sections(RESULTS / f"{machine}.json")


def with_changed(sections, machine="xeon-2-cores"):
    return lambda name: sections if name == machine else recorded(name)


def test_readme_shows_what_is_recorded():
    assert readme.rewritten(TEXT, recorded) == TEXT, "run python benchmarks/readme.py"
    shown = {found["table"] for found in readme.BLOCK.finditer(TEXT)}
    assert shown == set(readme.TABLES)


@pytest.mark.parametrize(
    ("path", "value", "cell"),
    [
        (("train", "cases", "mnist-64", "numba", "microseconds_per_step"), 3210.0, "| 3.21 ms ("),
        (("train", "cases", "points-21", "torch", "microseconds_per_step"), 99.4, "| 2-3-3-2, batch 21 | 99 µs |"),
        (("lowrank", "nets", "dimension 1/2", "contestants", "gpunet", "over_torch"), 7.5, "(7.50×) |"),
        (("conv", "cases", "features-8", "torch", "microseconds_per_batch"), 77.0, "batch 500 | 77 µs |"),
        (("cifar-mlp", "contestants", "numpy", "seconds_per_run"), 22.0, "| 22.00 s ("),
    ],
)
def test_a_figure_that_changed_changes_its_row(path, value, cell):
    sections = recorded("xeon-2-cores")
    place = sections
    for key in path[:-1]:
        place = place[key]
    assert place[path[-1]] != value
    place[path[-1]] = value
    made = readme.rewritten(TEXT, with_changed(sections))
    ((_, row),) = [pair for pair in zip(TEXT.splitlines(), made.splitlines(), strict=True) if pair[0] != pair[1]]
    assert cell in row


def test_the_ratio_of_decompositions_is_theirs_over_ours():
    sections = recorded("epyc-2-cores")
    row = next(row for row in sections["svd"]["rows"] if row["what"] == "top 100 / torch.linalg.svd")
    row |= {"ours_s": 0.5, "theirs_s": 0.75}
    assert "| the same | 0.50 s | torch.linalg.svd 0.75 s | 1.50× |" in readme.decompositions(sections)
    row["ours_s"] = 0.25
    assert "| the same | 0.25 s | torch.linalg.svd 0.75 s | 3.0× |" in readme.decompositions(sections)


def test_numpy_alone_has_its_own_column():
    sections = recorded("xeon-2-cores")
    with_numba = readme.others(sections)[3]
    assert re.fullmatch(r"\| the same, ranks 154, 85 \| [\d.]+ ms \| \| [\d.]+ ms \([\d.]+×\) \|", with_numba)
    sections["lowrank"]["provenance"]["numba"] = None
    alone = readme.others(sections)[3]
    assert re.fullmatch(r"\| the same, ranks 154, 85 \| [\d.]+ ms \| [\d.]+ ms \([\d.]+×\) \| \|", alone)
    del sections["train"]["cases"]["points-21"]["numba"]
    assert re.search(r"µs \([\d.]+×\) \| \| \d+ µs \|$", readme.training(sections)[-1])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.replace("begin training", "begin nothing"), "unknown table of speed 'nothing': expected one of"),
        (lambda t: t.replace("<!-- speed:end -->", "", 1), "3 tables of speed begin, 2 are whole"),
        (lambda t: "no table", "0 tables of speed begin"),
        (lambda t: t.replace("xeon-2-cores", "none-such"), r"none-such\.json' cannot be read: No such file"),
    ],
)
def test_mistakes_in_the_text(change, words):
    with pytest.raises(InputError, match=words):
        readme.rewritten(change(TEXT), recorded)


def test_a_figure_that_is_missing_is_named():
    sections = {name: section for name, section in recorded("xeon-2-cores").items() if name != "conv"}
    with pytest.raises(InputError, match="the results of xeon-2-cores have no 'conv', which table others shows"):
        readme.rewritten(TEXT, with_changed(sections))


def test_the_command(tmp_path, capsys):
    page = tmp_path / "README.md"
    page.write_text(TEXT.replace(" µs |", " ms |"))
    assert main(["--check", "--readme", str(page)]) == 1
    assert "differs from benchmarks/results; run python benchmarks/readme.py" in capsys.readouterr().out
    assert main(["--readme", str(page)]) == 0
    assert page.read_text() == TEXT
    assert main(["--check", "--readme", str(page)]) == 0
    assert main(["--check", "--readme", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.startswith("readme: ")


# -- files of results --------------------------------------------------------------------------------------------------


def test_a_section_is_written_and_the_others_stay(tmp_path):
    path = tmp_path / "new" / "machine.json"
    write_section(path, "one", {"rounds": 1}, {"cpu": "a"})
    write_section(path, "two", {"rounds": 2})
    write_section(path, "one", {"rounds": 3}, {"cpu": "b"})
    sections = read_sections(path)
    assert sections["one"] == {"rounds": 3, "provenance": {"cpu": "b"}}
    assert sections["two"]["rounds"] == 2
    write_section(path, "file \udcff", {"µs": "\udcff"}, {})  # half a pair, as Python names what is no text
    assert read_sections(path)["file ?"]["µs"] == "?"
    assert {"cpu", "gpu", "numpy", "git", "torch", "threads"} <= set(sections["two"]["provenance"])
    assert [each.name for each in path.parent.iterdir()] == ["machine.json"]


@pytest.mark.parametrize("content", ["{", "[]", '{"benchmarks": []}', '{"sections": []}'])
def test_a_file_of_something_else_is_left_alone(tmp_path, content):
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(InputError, match="expected a file of benchmarks/results"):
        write_section(path, "one", {})
    assert path.read_text() == content


def test_every_recorded_section_says_where_it_comes_from():
    files = [path for path in RESULTS.glob("*.json") if "sections" in json.loads(path.read_text())]
    assert RESULTS / "xeon-2-cores.json" in files
    for path in files:
        for name, section in read_sections(path).items():
            assert section["provenance"].get("cpu") or section.get("state") == "not run", (path.name, name)
