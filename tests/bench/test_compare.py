"""Files of results and of pytest-benchmark, and `gpunet bench compare` on them: worse, better, noisy, missing, new."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gpunet.bench.report import read
from gpunet.bench.results import read_sections
from gpunet.errors import InputError

from ..cli.runner import run

ROOT = Path(__file__).parents[2]
XEON = {"cpu": "Xeon", "gpu": None}


def section(cases, provenance=XEON):
    """cases: name -> (ratio of numba over torch, and where they are known its quartiles)."""
    made = {
        name.replace("_", "-"): {"entries": {
            "numba": {"seconds": [1e-4 * ratio[0]], "over": {"torch": list(ratio)}},
            "torch": {"role": "rival", "seconds": [1e-4]},
        }} for name, ratio in cases.items()
    }  # fmt: skip
    return {"cases": made, "provenance": provenance}


def sections(path, provenance=XEON, **cases):
    path.write_text(json.dumps({"sections": {"train": section(cases, provenance)}}))
    return path


def entry(who, role, seconds, case="small", device="cpu", pieces=10, group="train-step"):
    return {
        "group": group, "name": f"test[{case}-{who}]", "stats": {"data": list(seconds)},
        "extra_info": {"case": case, "who": who, "role": role, "device": device, "pieces": pieces},
    }  # fmt: skip


def pytest_json(path, *entries, cpu="Xeon"):
    machine = {"gpunet": {"cpu": cpu, "gpu": None}, "cpu": {"brand_raw": "ignored"}}
    path.write_text(json.dumps({"machine_info": machine, "benchmarks": list(entries), "version": "5"}))
    return path


@pytest.fixture
def compare(monkeypatch, capsys):
    """(exit code, cells of the table's rows, the last line, what was said beside it) of a comparison."""
    monkeypatch.setenv("COLUMNS", "200")

    def compared(*arguments):
        done = run(capsys, "bench", "compare", *arguments)
        rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in done.out.splitlines() if "│" in line]
        return done.code, rows, (done.out.splitlines() or [""])[-1], done.err

    return compared


@pytest.mark.parametrize(
    ("old", "new", "code", "verdict"),
    [
        ((1.0,), (1.14,), 0, "same"),
        ((1.0,), (1.16,), 1, "worse"),
        ((0.1,), (0.116,), 1, "worse"),
        ((1.0,), (0.88,), 0, "same"),
        ((1.0,), (0.86,), 0, "better"),  # as much faster as 1.163 is slower
        ((1.0, 0.95, 1.05), (1.3, 1.2, 1.4), 1, "worse"),
        ((1.0, 0.95, 1.25), (1.3, 1.2, 1.4), 0, "within noise"),
        ((1.0, 0.95, 1.05), (1.3, 1.04, 1.9), 0, "within noise"),
        ((1.0, 0.95, 1.05), (1.3,), 1, "worse"),
        ((1.0,), (1.3, 1.01, 1.4), 1, "worse"),
        ((1.0, 0.7, 1.2), (0.6, 0.5, 0.8), 0, "within noise"),
    ],
)
def test_worse_better_and_noise(tmp_path, compare, old, new, code, verdict):
    found, rows, last, said = compare(
        sections(tmp_path / "a.json", a_case=old), sections(tmp_path / "b.json", a_case=new)
    )
    assert (found, said) == (code, "")
    assert rows[0][:2] == ["train: a-case", "numba / torch"]
    assert rows[0][-1] == verdict
    assert last == f"1 {verdict}; the limit is 15 %"


def test_the_limit(tmp_path, compare):
    files = sections(tmp_path / "a.json", a=(1.0,)), sections(tmp_path / "b.json", a=(1.2,))
    assert compare(*files, "--limit", 25)[0] == 0
    assert compare(*files, "--limit", 0)[0] == 1
    for limit in ("-1", "nan"):
        code, _, _, said = compare(*files, "--limit", limit)
        assert (code, said.count("\n")) == (2, 1)
        assert "--limit" in said


def test_missing_and_new_are_shown_and_fail_nothing(tmp_path, compare):
    old = sections(tmp_path / "a.json", gone=(1.0,), both=(1.0,))
    new = sections(tmp_path / "b.json", both=(1.0,), fresh=(9.0,))
    code, rows, last, _ = compare(old, new)
    assert code == 0
    assert [f"{row[0]} {row[-1]}" for row in rows] == ["train: gone missing", "train: both same", "train: fresh new"]
    assert last.startswith("1 missing, 1 same, 1 new;")


def test_nothing_in_common(tmp_path, compare):
    code, rows, _, said = compare(sections(tmp_path / "a.json", one=(1.0,)), sections(tmp_path / "b.json", two=(1.0,)))
    assert (code, rows) == (2, [])
    assert said == "gpunet: 'a' and 'b' have no comparison in common: expected two files of the same benchmarks\n"


def test_another_machine_is_warned_of(tmp_path, compare):
    here = sections(tmp_path / "a.json", one=(1.0,))
    there = sections(tmp_path / "b.json", {"cpu": "Epyc", "gpu": "H200"}, one=(1.0,))
    code, _, _, said = compare(here, there)
    assert (code, said) == (0, "gpunet: warning: Xeon and Epyc + H200 are not the same kind of machine\n")


# -- what is read ------------------------------------------------------------------------------------------------------


def test_pytest_benchmarks_file(tmp_path, compare):
    """Times of the same pieces of work; quartiles over pairs of rounds; devices and failures apart."""
    ours, torch = entry("numba", "ours", [1.0, 1.2, 1.1]), entry("torch", "rival", [4.0, 4.4, 4.2], pieces=20)
    others = [
        entry("products", "floor", [0.5, 0.55, 0.55]),
        entry("torch", "rival", [0.1], device="cuda"),
        entry("jax", "rival", []),
        entry("torch", "rival", [9.0], case="large"),
    ]
    measured = read(pytest_json(tmp_path / "a.json", ours, torch, *others))
    assert measured.machine == "Xeon"
    assert [ratio.key[1:] for ratio in measured.ratios] == [("small", "numba", "torch"), ("small", "numba", "products")]
    found = measured.ratios[0]
    assert (found.ratio, found.seconds, found.rival_seconds) == pytest.approx((0.11 / 0.21, 0.11, 0.21))
    pairs = [mine / theirs for mine in (0.1, 0.12, 0.11) for theirs in (0.2, 0.22, 0.21)]
    assert found.quartiles == pytest.approx(tuple(np.percentile(pairs, (25, 75))))
    slower = entry("numba", "ours", [1.5, 1.5, 1.6])
    code, rows, _, _ = compare(tmp_path / "a.json", pytest_json(tmp_path / "b.json", slower, torch))
    assert code == 1
    assert [row[-1] for row in rows] == ["worse", "missing"]
    assert compare(tmp_path / "b.json", tmp_path / "a.json")[0] == 0


def test_one_round_has_no_quartiles(tmp_path):
    path = pytest_json(tmp_path / "a.json", entry("numba", "ours", [1.0]), entry("torch", "rival", [2.0, 2.2]))
    (ratio,) = read(path).ratios
    assert ratio.quartiles is None
    assert (ratio.least, ratio.most) == (ratio.ratio, ratio.ratio) == pytest.approx((1 / 2.1, 1 / 2.1))


def test_the_recorded_results_are_read():
    path = ROOT / "benchmarks" / "results" / "xeon-2-cores.json"
    found = {ratio.key: ratio for ratio in read(path).ratios}
    recorded = read_sections(path)
    assert {group for group, *_ in found} == {"train", "svd", "conv", "lowrank", "cifar-mlp"}
    for group, case in (("train", "mnist-64"), ("lowrank", "break-even 1/2")):
        ours = recorded[group].cases[case].entries["numba"]
        step = found[group, case, "numba", "torch"]
        assert [step.ratio, *step.quartiles] == ours.over["torch"]
        assert step.seconds == ours.median
    whole = recorded["svd"].cases["top 100 of 784×60000"].entries
    over = whole["gpunet"].median / whole["numpy.linalg.svd"].median
    assert found["svd", "top 100 of 784×60000", "gpunet", "numpy.linalg.svd"].ratio == over


def test_rounds_that_both_were_timed_in_have_quartiles(tmp_path):
    """Ratios are taken inside the rounds; a rival that was timed once has the medians' ratio."""
    entries = {
        "graph": {"seconds": [1e-5, 2e-5, 4e-5]}, "torch": {"role": "rival", "seconds": [8e-5, 8e-5, 8e-5]},
        "torch.linalg.svd": {"role": "rival", "seconds": [2e-3]}, "torch.compile": {"role": "rival", "failed": "no"},
        "eager": {"role": "other", "seconds": [1.0]},
    }  # fmt: skip
    part = {"cases": {"batch 64": {"entries": entries}}, "provenance": {"cpu": "Xeon", "gpu": "H200"}}
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"sections": {"gpu train": part, "gpu svd": {"state": "not run", "provenance": {}}}}))
    measured = read(path)
    assert measured.machine == "Xeon + H200"
    assert [(*ratio.key[1:], ratio.ratio, ratio.quartiles) for ratio in measured.ratios] == [
        ("batch 64", "graph", "torch", 0.25, (0.1875, 0.375)), ("batch 64", "graph", "torch.linalg.svd", 0.01, None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read: No such file or directory"),
        ("nonsense", "is not JSON"),
        ("[1]", "is no file of benchmarks: expected what `pytest benchmarks --benchmark-only --benchmark-json FILE`"),
        ('{"rows": []}', "is no file of benchmarks"),
        ('{"benchmarks": [{"group": "a"}], "machine_info": {}}', "is damaged: Object missing required field"),
        ('{"benchmarks": []}', "is damaged: Object missing required field `machine_info`"),
        ('{"benchmarks": [], "machine_info": {"cpu": {"brand_raw": "x"}}}', "compares nothing"),
        (
            '{"sections": {"train": 3}}',
            "is damaged: Expected `object`, got `int` - at `$.sections[...]`",
        ),
        ('{"sections": {"train": {"cases": {}}}}', "is damaged: Object missing required field `provenance`"),
        ('{"sections": {}}', "compares nothing"),
    ],
)
def test_mistakes(tmp_path, compare, content, words):
    path, good = tmp_path / "a.json", sections(tmp_path / "good.json", a=(1.0,))
    if content is not None:
        path.write_text(content)
    for arguments in ((path, good), (good, path)):
        code, rows, _, said = compare(*arguments)
        assert (code, rows, said.count("\n")) == (2, [], 1)
        assert said.startswith(f"gpunet: '{path}' ")
        assert words in said
    with pytest.raises(InputError):
        read(path)
