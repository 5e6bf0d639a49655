"""What the stages of benchmarks/gpu_check.sh measure, with sizes that any CPU does in a second: no mistake waits."""

from __future__ import annotations

import importlib.util
import json

import pytest

from gpunet.backend import get_backend
from gpunet.bench import gpu_look, gpu_race, gpu_table
from gpunet.bench.gpu_setup import Setup, target
from gpunet.bench.gpu_stages import STAGES, fill
from gpunet.errors import RunError

SECTIONS = {name: section for stage in STAGES.values() for name, section in stage.items()}
# The pretend GPU takes seconds for a convolution, and minutes for an experiment: see test_experiments.py.
LONG = ("conv", "devices", *(name for name in SECTIONS if name.startswith("quick-")))


@pytest.fixture(autouse=True)
def _made_data(monkeypatch, tmp_path):
    monkeypatch.setenv("GPUNET_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(gpu_race, "LEAST", 1e-4)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name == "conv" else []) for name in SECTIONS
             if name == "conv" or name not in LONG]
)  # fmt: skip
def test_a_section(gpu, name, monkeypatch):
    """On the GPU, without PyTorch."""
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "torch" else found(name, *rest)
    )
    drawn: dict[str, str] = {}
    setup = Setup(gpu.backend(), rounds=1, small=True, draw=drawn.__setitem__)
    document = SECTIONS[name](setup)
    json.dumps(document, allow_nan=False)
    for contestant, row in walk(document["figures"]):
        assert not row.get("failed"), (contestant, row)
    page = gpu_table.page({name: document | {"state": "done", "seconds": 1.0}})
    assert page.startswith(f"== {name}: done")
    if name.startswith("step-"):
        assert {"graph", "eager"} <= document["figures"].keys()
        assert all("digraph" in dot for dot in drawn.values())
        assert drawn
        for recorded in document["figures"]["recordings"]:
            assert recorded["nodes"] == sum(recorded["kernels"].values()) + recorded["copies_and_fills"] > 3
        assert f"{recorded['nodes']} nodes" in page
    if name.startswith("train-") and name not in ("train-tf32", "train-host"):
        assert {"products", "eager", "graph"} <= document["figures"]["race"].keys()
        (same,) = (each for each in document["targets"] if "graph against eager" in each["what"])
        assert same["met"]
        assert same["value"] == 0
    if name == "train-host":
        assert {"numpy"} <= document["figures"]["batch 64"].keys()
    if name == "factorised":
        assert list(document["figures"]) == ["dense", "dimension", "break-even"]
        for net, row in document["figures"].items():
            assert 0 < row["seconds_per_epoch"] <= row["seconds"]
            assert (row["seconds_to_cut"] > 0) is (net != "dense")
            assert 0 <= row["test_accuracy"] <= 1
            assert f"\n{net} " in page
    if name.startswith("svd-"):
        assert "gpunet" in document["figures"]
        assert ("cupy.linalg.svd" in document["figures"]) is name.endswith("-cupy")
        assert all(each["met"] for each in document["targets"] if "energy" in each["what"])


def walk(figures, name=""):
    """Every dictionary in the figures that stands for a contestant."""
    for key, value in figures.items():
        if isinstance(value, dict):
            if "failed" in value or "microseconds_per_step" in value:
                yield f"{name} {key}", value
            yield from walk(value, f"{name} {key}")


def test_a_quick_run():
    document = SECTIONS["quick-toy"](Setup(get_backend("numpy"), small=True))
    assert document["figures"]["run_seconds"] > 0
    assert any(row["converged"] for row in document["figures"]["rows"].values())


def test_facts_fail_where_products_fell_back(gpu, monkeypatch):
    monkeypatch.setattr(gpu_look, "gpu_facts", lambda backend: {"products": "cupy.matmul, because", "graphs": "on"})
    saved: list[dict] = []
    with pytest.raises(RunError, match=r"products: cupy\.matmul, because; graphs: on"):
        SECTIONS["facts"](Setup(gpu.backend(), save=saved.append))
    assert saved[0]["figures"]["graphs"] == "on"


DOT = r"""digraph dot {
subgraph cluster_1 {
label="graph_1" graph[style="dashed"];
"graph_1_node_0"[style="bold" shape="record" label="{KERNEL
| {ID | 0 (topoId: 3) | gather_u8_f32\<\<\<1,128,0\>\>\>}
| {{node handle | func handle} | {0x000055E7277A5C20 | 0x000055E7270A5A90}}
}"];
"graph_1_node_1"[style="solid" shape="record" label="{
MEMSET
| {{ID | node handle} | {1 | 0x000055E7277A6370}}
}"];
"graph_1_node_2"[style="dashed" shape="record" label="{EMPTY
| {ID | 2 (topoId: 1)}
}"];
"graph_1_node_0" -> "graph_1_node_1" [headlabel=0];
"graph_1_node_1" -> "graph_1_node_2" [headlabel=0];
}
}
""".replace("\\\\", "\\")


def test_nodes_of_a_graph():
    """As CUDA 12.8 writes it: kernels, copies and fills count, empty nodes and edges do not."""
    assert gpu_look.nodes(DOT) == {"nodes": 2, "copies_and_fills": 1, "kernels": {"gather_u8_f32": 1}}


@pytest.fixture
def torch():
    """PyTorch on one thread: beside other busy processes two of them wait for each other."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["torch", "train-64", "svd-whole", "svd-classes", "svd-stack", "svd-square"])
def test_beside_pytorch_on_the_cpu(name, torch):
    """Everybody's first losses are one, and everybody's vectors are right."""
    document = SECTIONS[name](Setup(get_backend("numpy"), rounds=1, small=True, compiled=False))
    rows = dict(walk(document["figures"]))
    for contestant, row in rows.items():
        assert not row.get("failed"), (contestant, row)
    targets = {each["what"]: each for each in document["targets"]}
    if name == "torch":
        assert len(rows) == 3
    elif name == "train-64":
        assert targets["loss, eager against PyTorch"]["met"]
    else:
        rows = document["figures"]
        assert {"gpunet", "torch.linalg.svd", "torch.svd_lowrank"} <= rows.keys()
        for contestant, row in rows.items():
            if contestant != "torch.svd_lowrank":  # two power iterations miss the later vectors
                assert row["energy_missed"] < 1e-6, contestant
                assert row["angle"] is None or row["angle"] < 1e-3, contestant


@pytest.mark.filterwarnings("ignore")  # PyTorch's profiler warns of PyTorch
def test_the_profiler_hears_of_steps(gpu, torch):
    document = SECTIONS["kernels"](Setup(gpu.backend(), small=True))
    assert {"batch 64", "batch 256", "batch 2048"} == document["figures"].keys()
    assert not gpu.real or any(row["kernel"].startswith("adam") for row in document["figures"]["batch 64"])
    assert gpu_table.page({"kernels": document | {"state": "done"}})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # PyTorch's compiler warns of PyTorch
@pytest.mark.parametrize("name", ["compile-64", "compile-capturable"])
def test_beside_compiled_pytorch_on_the_cpu(name, torch):
    document = SECTIONS[name](Setup(get_backend("numpy"), rounds=1, small=True))
    (row,) = document["figures"]["race"].values()
    eager = SECTIONS["train-64"](Setup(get_backend("numpy"), rounds=1, small=True))["figures"]["race"]["eager"]
    assert "failed" not in row, row
    assert row["loss_at_first"] == pytest.approx(eager["loss_at_first"], rel=1e-3)


def test_convolutions_beside_pytorch(torch):
    document = SECTIONS["conv"](Setup(get_backend("numpy"), rounds=1, small=True))
    for name, row in walk(document["figures"]):
        assert not row.get("failed"), (name, row)
    checked = [each for each in document["targets"] if "PyTorch" in each["what"]]
    assert len(checked) == 4
    assert all(each["met"] for each in checked)


def test_sections_are_saved_as_they_come(tmp_path, capsys):
    """One that fails is told with its traceback, and the figures that it had; the next has its turn."""
    path, seen = tmp_path / "a.json", []

    def half(setup):
        setup.save({"figures": {"half": 1}})
        seen.append(json.loads(path.read_text())["sections"]["gpu half"])
        raise ValueError("no more")

    setup = Setup(get_backend("numpy"))
    assert fill({"half": half, "whole": lambda setup: {"figures": {"all": 2}}}, path, setup, {"cpu": "x"}) == ["half"]
    assert (seen[0]["state"], seen[0]["figures"]) == ("running", {"half": 1})
    sections = json.loads(path.read_text())["sections"]
    assert sections["gpu half"] == seen[0] | {
        "state": "failed", "why": "ValueError: no more", "seconds": sections["gpu half"]["seconds"],
    }  # fmt: skip

    def other(setup):
        setup.save({"figures": {"other": 2}})
        raise ValueError("again")

    fill({"half": other}, path, setup, {})  # what the first try had stays until the second one is whole
    assert json.loads(path.read_text())["sections"]["gpu half"]["figures"] == {"half": 1, "other": 2}
    assert (sections["gpu whole"]["state"], sections["gpu whole"]["provenance"]) == ("done", {"cpu": "x"})
    assert "in half\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        ("cudaErrorIllegalAddress: an illegal memory access was encountered", True),
        ("CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered", True),
        ("cudaErrorMisalignedAddress: misaligned address", True),
        ("CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure", True),
        ("cudaErrorLaunchFailure: unspecified launch failure", True),
        ("CUDA error: an illegal memory access was encountered", True),
        ("cudaErrorAssert: device-side assert triggered", True),
        ("cudaErrorMemoryAllocation: out of memory", False),
        ("cudaErrorStreamCaptureUnsupported: operation not permitted", False),
        ("CUDA_ERROR_INVALID_VALUE: invalid argument", False),
    ],
)
def test_errors_after_which_the_gpu_is_lost(error, lost):
    with pytest.raises(KeyError) as found:
        raise KeyError("what came of it") from RuntimeError(error)
    assert gpu_race.sticky(found.value) is lost

    def bad():
        raise RuntimeError(error)

    if lost:  # all later contestants would fail with it
        with pytest.raises(RuntimeError, match=error):
            gpu_race.race({"bad": bad}, rounds=1, first=1)
    else:
        assert "bad" in gpu_race.race({"bad": bad}, rounds=1, first=1).failed


def test_a_contestant_that_fails_costs_only_itself(capsys):
    def broken():
        raise RuntimeError("no\nkernel image")

    made = gpu_race.Contestant(lambda steps: None, lambda: 1.0)
    rising = iter([1.0, 3.0])
    found = gpu_race.race(
        {"good": lambda: made, "bad": broken, "astray": lambda: gpu_race.Contestant(made.run, lambda: next(rising))},
        rounds=2, first=1,
    )  # fmt: skip
    assert found.failed == {"bad": "RuntimeError: no kernel image", "astray": "its loss rose from 1 to 3"}
    assert "in broken\n" in capsys.readouterr().err  # the whole traceback, for the log
    assert found.figures()["good"]["steps_per_second"] > 0
    assert found.figures()["astray"] == {"failed": "its loss rose from 1 to 3"}
    assert found.speed_up("good", ["bad"]) is None
    assert found.speed_up("good", ["astray", "bad"]) is None


def test_the_page_says_what_failed_and_what_was_missed():
    sections = {
        "versions": {"state": "failed", "why": "exit code 2: no GPU", "figures": {}, "targets": []},
        "train-64": {
            "state": "stopped", "why": "after 90 s", "seconds": 90.0, "data": "mnist", "targets": [
                target("graph over PyTorch eager", 2.5, 3.0), target("seconds", None, 3.0, at_least=False),
                target("over ten", 7.0, 5.0),
            ],
            "figures": {"race": {
                "graph": {"microseconds_per_step": 20.0, "steps_per_second": 50_000.0, "loss_at_first": 0.5},
                "torch": {"microseconds_per_step": 50.0, "steps_per_second": 20_000.0, "loss_at_first": 0.5},
                "torch.compile": {"failed": "RuntimeError: no compiler"},
            }},
        },
        "svd-whole": {"state": "not run", "why": "of 465 s none were left"},
    }  # fmt: skip
    lines = gpu_table.page(sections).splitlines()
    assert lines[0] == "== versions: failed: exit code 2: no GPU"
    assert "== train-64: stopped (90 s), data: mnist: after 90 s" in lines
    (graph,) = (line.split() for line in lines if line.startswith("graph"))
    assert graph == ["graph", "20.0", "50,000", "0.400", "0.50000"]
    assert any("no compiler" in line for line in lines)
    assert "== svd-whole: not run: of 465 s none were left" in lines
    assert [line.split()[-2:] for line in lines[-3:]] == [["NOT", "met"], ["NOT", "met"], ["5", "met"]]
