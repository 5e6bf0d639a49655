"""benchmarks/compare.py on made files of results: worse, better, noisy, missing, new, not comparable."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest

from gpunet.bench.ratios import read
from gpunet.errors import InputError

ROOT = Path(__file__).parents[1]
main = runpy.run_path(str(ROOT / "benchmarks" / "compare.py"))["main"]
XEON = {"cpu": "Xeon", "gpu": None}


def train(**cases):
    """A section: for each case, time and ratio of numba, and where they are known its quartiles."""
    made = {}
    for name, (ratio, *quartiles) in cases.items():
        ours = {"microseconds_per_step": 100 * ratio, "over_torch": ratio, "over_torch_quartiles": quartiles or None}
        torch = {"microseconds_per_step": 100.0, "over_torch": 1.0, "over_torch_quartiles": [1.0, 1.0]}
        made[name.replace("_", "-")] = {"numba": ours, "torch": torch}
    return {"cases": made, "provenance": XEON}


def sections(path, provenance=XEON, **cases):
    path.write_text(json.dumps({"sections": {"train": train(**cases) | {"provenance": provenance}}}))
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
def compare(tmp_path, capsys):
    """(exit code, lines of the table, what was said beside it) of a comparison."""

    def run(*arguments):
        code = main([str(each) for each in arguments])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err

    return run


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
    found, lines, said = compare(sections(tmp_path / "a.json", a_case=old), sections(tmp_path / "b.json", a_case=new))
    assert (found, said) == (code, "")
    assert lines[1].startswith("train: a-case  numba / torch")
    assert lines[1].endswith(verdict)
    assert lines[-1] == f"1 {verdict}; the limit is 15 %"


def test_the_limit(tmp_path, compare):
    files = sections(tmp_path / "a.json", a=(1.0,)), sections(tmp_path / "b.json", a=(1.2,))
    assert compare(*files, "--limit", 25)[0] == 0
    assert compare(*files, "--limit", 0)[0] == 1
    for limit in ("-1", "nan"):
        with pytest.raises(SystemExit) as left:
            compare(*files, "--limit", limit)
        assert left.value.code == 2


def test_missing_and_new_are_shown_and_fail_nothing(tmp_path, compare):
    old = sections(tmp_path / "a.json", gone=(1.0,), both=(1.0,))
    new = sections(tmp_path / "b.json", both=(1.0,), fresh=(9.0,))
    code, lines, _ = compare(old, new)
    assert code == 0
    assert [line.split()[1] + " " + line.split()[-1] for line in lines[1:4]] == [
        "gone missing", "both same", "fresh new",
    ]  # fmt: skip
    assert lines[-1].startswith("1 missing, 1 same, 1 new;")


def test_nothing_in_common(tmp_path, compare):
    code, lines, said = compare(sections(tmp_path / "a.json", one=(1.0,)), sections(tmp_path / "b.json", two=(1.0,)))
    assert (code, lines) == (2, [])
    assert said == ("compare: 'a' and 'b' have no comparison in common: expected two files of the same benchmarks\n")


def test_another_machine_is_warned_of(tmp_path, compare):
    here = sections(tmp_path / "a.json", one=(1.0,))
    there = sections(tmp_path / "b.json", {"cpu": "Epyc", "gpu": "H200"}, one=(1.0,))
    code, _, said = compare(here, there)
    assert (code, said) == (0, "compare: warning: Xeon and Epyc + H200 are not the same kind of machine\n")


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
    code, lines, _ = compare(tmp_path / "a.json", pytest_json(tmp_path / "b.json", slower, torch))
    assert code == 1
    assert [line.split()[-1] for line in lines[1:3]] == ["worse", "missing"]
    assert compare(tmp_path / "b.json", tmp_path / "a.json")[0] == 0


def test_one_round_has_no_quartiles(tmp_path):
    path = pytest_json(tmp_path / "a.json", entry("numba", "ours", [1.0]), entry("torch", "rival", [2.0, 2.2]))
    (ratio,) = read(path).ratios
    assert ratio.quartiles is None
    assert (ratio.least, ratio.most) == (ratio.ratio, ratio.ratio) == pytest.approx((1 / 2.1, 1 / 2.1))


def test_the_recorded_results_are_read():
    path = ROOT / "benchmarks" / "results" / "xeon-2-cores.json"
    found = {ratio.key: ratio for ratio in read(path).ratios}
    recorded = json.loads(path.read_text())["sections"]
    assert {group for group, *_ in found} == {"train", "svd", "conv", "lowrank", "cifar-mlp"}
    for group, case, key in (
        ("train", "mnist-64", ("cases", "mnist-64", "numba")),
        ("lowrank", "break-even 1/2", ("nets", "break-even 1/2", "contestants", "gpunet")),
    ):
        figures = recorded[group]
        for name in key:
            figures = figures[name]
        step = found[group, case, key[-1], "torch"]
        assert (step.ratio, list(step.quartiles)) == (figures["over_torch"], figures["over_torch_quartiles"])
        unit = 1e6 if group == "train" else 1e3
        assert step.seconds * unit == pytest.approx(next(iter(v for k, v in figures.items() if "_per_step" in k)))
    rows = {row["what"]: row for row in recorded["svd"]["rows"]}
    whole = rows["top 100 / numpy.linalg.svd"]
    assert found["svd", "top 100", "gpunet", "numpy.linalg.svd"].ratio == whole["ours_s"] / whole["theirs_s"]
    assert ("svd", "4096×4096 to rank 256", "gpunet", "full SVD") in found  # the route is not part of the name


def test_quartiles_stand_with_the_better_of_pytorchs_ways(tmp_path):
    def figures(milliseconds, ratio, quartiles):
        return {"microseconds_per_batch": 1e3 * milliseconds, "over_best_torch": ratio,
                "over_best_torch_quartiles": quartiles}  # fmt: skip

    case = {"numba": figures(1, 0.4, [0.3, 0.6]), "torch": figures(4, 1.9, [1.8, 2.0]),
            "torch channels_last": figures(2, 1.0, [1.0, 1.0])}  # fmt: skip
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"sections": {"conv": {"cases": {"net": case}, "provenance": XEON}}}))
    other, best = read(path).ratios
    assert (best.rival, best.ratio, best.quartiles) == ("torch channels_last", 0.4, (0.3, 0.6))
    assert (other.rival, other.ratio, other.quartiles) == ("torch", 0.25, None)
    assert best.seconds == pytest.approx(1e-3)


def test_contestants_on_a_gpu(tmp_path):
    """As benchmarks/gpu_check.py leaves them: deeper down, some failed, some parts not run at all."""
    raced = {"eager": {"microseconds_per_step": 40.0}, "graph": {"microseconds_per_step": 10.0},
             "torch": {"microseconds_per_step": 80.0}, "torch.compile": {"failed": "RuntimeError: no"}}  # fmt: skip
    part = {"state": "done", "figures": {"batch 64": raced}, "provenance": {"cpu": "Xeon", "gpu": "H200"}}
    document = {"sections": {"gpu train": part, "gpu svd": {"state": "not run", "provenance": {}}}}
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document))
    measured = read(path)
    assert measured.machine == "Xeon + H200"
    assert [(*ratio.key[1:], ratio.ratio) for ratio in measured.ratios] == [
        ("batch 64", "eager", "torch", 0.5), ("batch 64", "graph", "torch", 0.125),
    ]  # fmt: skip


def test_a_rival_that_was_left_out_has_no_ratio(tmp_path):
    rows = [{"what": f"top 5 / {name}", "ours_s": 1.0, "theirs_s": time} for name, time in
            (("a", 2.0), ("b", float("nan")), ("c", None))]  # fmt: skip
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"sections": {"svd": {"rows": rows, "provenance": XEON}}}))
    assert [ratio.key for ratio in read(path).ratios] == [("svd", "top 5", "gpunet", "a")]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read: No such file or directory"),
        ("nonsense", "is not JSON"),
        ("[1]", "is no file of benchmarks: expected what `pytest benchmarks --benchmark-only --benchmark-json FILE`"),
        ('{"rows": []}', "is no file of benchmarks"),
        ('{"benchmarks": [{"group": "a"}], "machine_info": {}}', "is damaged: KeyError at 'extra_info'"),
        ('{"benchmarks": []}', "is damaged: KeyError at 'machine_info'"),
        ('{"benchmarks": [], "machine_info": {"cpu": {"brand_raw": "x"}}}', "compares nothing"),
        ('{"sections": {"train": 3}}', "is damaged: TypeError"),
        ('{"sections": {"train": {"cases": {}}}}', "is damaged: KeyError at 'provenance'"),
        ('{"sections": {}}', "compares nothing"),
    ],
)
def test_mistakes(tmp_path, compare, content, words):
    path, good = tmp_path / "a.json", sections(tmp_path / "good.json", a=(1.0,))
    if content is not None:
        path.write_text(content)
    for arguments in ((path, good), (good, path)):
        code, lines, said = compare(*arguments)
        assert (code, lines, said.count("\n")) == (2, [], 1)
        assert said.startswith(f"compare: '{path}' ")
        assert words in said
    with pytest.raises(InputError):
        read(path)
