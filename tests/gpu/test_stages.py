"""What the stages of benchmarks/gpu_check.sh measure, with sizes that any CPU does in a second: no mistake waits."""

from __future__ import annotations

import importlib.util
import json

import pytest

from gpunet.backend import cupy_device, get_backend
from gpunet.bench import gpu as stages
from gpunet.bench import harness, svd, train
from gpunet.bench.gpu import STAGES, Setup, fill
from gpunet.bench.harness import Work
from gpunet.bench.results import Case, Entry, Section, Target, as_json, read_sections
from gpunet.errors import RunError
from gpunet.report.bench_tables import page

SECTIONS = {name: part for stage in STAGES.values() for name, part in stage.items()}
# The pretend GPU takes seconds for a convolution, and minutes for an experiment: see test_experiments.py.
AGAIN = ("step-256", "step-2048")  # which small are what step-64 is
LONG = ("conv", "jax-conv", "devices", *(name for name in SECTIONS if name.startswith("quick-")))


@pytest.fixture(autouse=True)
def _made_data(monkeypatch, tmp_path):
    monkeypatch.setenv("GPUNET_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(harness, "LEAST", 1e-4)


def filled(name, backend, **options):
    """The section, which is JSON as it stands, and whose contenders have times."""
    setup = Setup(backend, small=True, **{"rounds": 1} | options)
    SECTIONS[name](setup)
    json.loads(as_json(setup.section), parse_constant=pytest.fail)
    for label, case in setup.section.cases.items():
        for who, entry in case.entries.items():
            assert not entry.failed, (label, who, entry.failed)
            assert entry.seconds
    return setup.section


def without_torch(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "torch" else found(name, *rest)
    )


def entries(section):
    (case,) = section.cases.values()
    return case.entries


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in ("conv", *AGAIN))) for name in SECTIONS
             if name == "conv" or name not in LONG]
)  # fmt: skip
def test_a_section(gpu, name, monkeypatch):
    """On the GPU, without PyTorch."""
    without_torch(monkeypatch)
    drawn: dict[str, str] = {}
    section = filled(name, gpu.backend(), draw=drawn.__setitem__)
    text = page({name: section})
    assert text.startswith(f"== {name}: done")
    if name.startswith("step-"):
        assert {"graph", "eager"} <= entries(section).keys()
        assert all("digraph" in dot for dot in drawn.values())
        assert drawn
        for recorded in section.notes["recordings"]:
            assert recorded["nodes"] == sum(recorded["kernels"].values()) + recorded["copies_and_fills"] > 3
            assert recorded["microseconds_per_step"] > 0
            counted = recorded["kernels"]
            assert ("gather_u8_bf16" in counted) is ("to_bfloat16" in counted) is (recorded["name"] == "mixed")
        assert {"graph", "mixed"} <= {recorded["name"] for recorded in section.notes["recordings"]}
        assert f"nodes {recorded['nodes']}" in text
    if name.startswith("train-") and name not in ("train-tf32", "train-host"):
        assert {"products", "eager", "graph"} <= entries(section).keys()
        (same,) = (each for each in section.targets if "graph against eager" in each.what)
        assert same.met
        assert same.value == 0
    if name.startswith("mixed-") and not name.startswith("mixed-compile"):
        assert {"graph", "graph mixed", "graph tf32"} <= entries(section).keys()
        assert all(entries(section)[who].seconds for who in ("graph", "graph mixed", "graph tf32"))
        assert [each.what for each in section.targets] == ["mixed graph over torch bf16"]
    if name == "train-host":
        assert {"numpy"} <= section.cases["batch 64"].entries.keys()
    if name == "factorised":
        assert list(entries(section)) == ["dense", "dimension", "break-even"]
        for net, entry in entries(section).items():
            assert 0 < entry.notes["seconds_per_epoch"] <= entry.median
            assert (entry.notes["seconds_to_cut"] > 0) is (net != "dense")
            assert 0 <= entry.notes["accuracy"] <= 1
            assert f"\n{net} " in text
    if name.startswith("svd-"):
        assert "gpunet" in entries(section)
        assert ("cupy.linalg.svd" in entries(section)) is name.endswith("-cupy")
        assert all(each.met for each in section.targets if "energy" in each.what)


@pytest.mark.slow  # on the pretend GPU
def test_a_graph_that_cannot_be_drawn_costs_no_time(gpu, monkeypatch):
    def dot(recording):
        raise RuntimeError("cudaErrorInvalidValue: invalid argument")

    monkeypatch.setattr(cupy_device.Recording, "dot", dot)
    section = filled("step-64", gpu.backend())
    assert {"graph", "mixed", "forked", "eager"} == entries(section).keys()
    for row in section.notes["recordings"]:
        assert row["microseconds_per_step"] > 0
        assert row["not_drawn"] == "RuntimeError: cudaErrorInvalidValue: invalid argument"
    assert "not_drawn" in page({"step-64": section})


@pytest.mark.parametrize(
    "name", ["train-64", *(pytest.param(name, marks=pytest.mark.slow) for name in ("train-tf32", "conv"))]
)
def test_jax_comes_last_and_beside_ours_alone(name, monkeypatch):
    """What hangs or fails as it starts costs no other time."""
    monkeypatch.setattr(stages, "lacking", lambda package: "")
    monkeypatch.setattr(train, "lacking", lambda package: "" if package == "jax" else "not here")
    monkeypatch.setattr(train, "_rival", lambda *_: Work(lambda pieces: None))
    last = f"jax-{name.removeprefix('train-')}"
    found = {each: filled(each, get_backend("numpy")).cases for each in (name, last)}
    assert found[name].keys() == found[last].keys()
    for each, cases in found.items():
        assert all(("jax" in case.entries, "numpy" in case.entries) == (each == last, True) for case in cases.values())
    (places,) = ([each.startswith("jax") for each in parts] for parts in STAGES.values() if name in parts)
    assert places == sorted(places)


@pytest.mark.slow
def test_a_quick_run():
    section = filled("quick-toy", get_backend("numpy"))
    assert section.notes["run_seconds"] > 0
    assert any(row["converged"] for row in section.notes["rows"].values())


def test_facts_fail_where_products_fell_back(gpu, monkeypatch):
    monkeypatch.setattr(stages, "gpu_facts", lambda backend: {"products": "cupy.matmul, because", "graphs": "on"})
    setup = Setup(gpu.backend())
    with pytest.raises(RunError, match=r"products: cupy\.matmul, because; graphs: on"):
        SECTIONS["facts"](setup)
    assert setup.section.notes["graphs"] == "on"


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
    assert stages.nodes(DOT) == {"nodes": 2, "copies_and_fills": 1, "kernels": {"gather_u8_f32": 1}}


@pytest.fixture
def torch():
    """PyTorch on one thread: beside other busy processes two of them wait for each other."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["train-64", "svd-whole", "svd-classes", "svd-stack", "svd-square"])
def test_beside_pytorch_on_the_cpu(name, torch):
    """Everybody's first losses are one, and everybody's vectors are right."""
    section = filled(name, get_backend("numpy"), compiled=False)
    targets = {each.what: each for each in section.targets}
    if name == "train-64":
        assert targets["loss, ours against PyTorch"].met
    else:
        assert {"gpunet", "torch.linalg.svd", "torch.svd_lowrank"} <= entries(section).keys()
        for contender, entry in entries(section).items():
            if contender != "torch.svd_lowrank":  # two power iterations miss the later vectors
                assert entry.notes["energy_missed"] < 1e-6, contender
                assert entry.notes["angle"] < 1e-3, contender


def test_a_rival_that_is_timed_once_is_not_timed_cold(gpu, torch, monkeypatch):
    called, own = [], torch.linalg.svd
    monkeypatch.setattr(torch.linalg, "svd", lambda a, **how: called.append(tuple(a.shape)) or own(a, **how))
    them = svd.contenders(svd.square(40, 4), gpu.backend())
    (entry,) = harness.race({"torch.linalg.svd": them["torch.linalg.svd"]}, 3, pause=0).values()
    assert (called, len(entry.seconds)) == ([(40, 40)] * 2, 1)


@pytest.mark.filterwarnings("ignore")  # PyTorch's profiler warns of PyTorch
def test_the_profiler_hears_of_steps(gpu, torch):
    section = filled("kernels", gpu.backend())
    plain = ["batch 64", "batch 256", "batch 2048"]
    assert {*plain, *(f"{each}, mixed" for each in plain)} == section.notes.keys()
    assert not gpu.real or any(row["kernel"].startswith("adam") for row in section.notes["batch 64"])
    assert page({"kernels": section})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # PyTorch's compiler warns of PyTorch
@pytest.mark.parametrize("name", ["compile-64", "compile-capturable"])
def test_beside_compiled_pytorch_on_the_cpu(name, torch):
    (entry,) = entries(filled(name, get_backend("numpy"))).values()
    ours = entries(filled("train-64", get_backend("numpy")))["numpy"]
    assert entry.notes["first_loss"] == pytest.approx(ours.notes["first_loss"], rel=1e-3)


def test_convolutions_beside_pytorch(torch):
    section = filled("conv", get_backend("numpy"))
    checked = [each for each in section.targets if "PyTorch" in each.what]
    assert len(checked) == 4
    assert all(each.met for each in checked)


def test_sections_are_saved_as_they_come(tmp_path, capsys):
    """One that fails is told with its traceback, and the figures that it had; the next has its turn."""
    path, seen = tmp_path / "a.json", []

    def half(setup):
        setup.note(half=1)
        seen.append(read_sections(path)["gpu half"])
        raise ValueError("no more")

    setup = Setup(get_backend("numpy"))
    assert fill({"half": half, "whole": lambda setup: setup.note(all=2)}, path, setup, {"cpu": "x"}) == ["half"]
    assert (seen[0].state, seen[0].notes) == ("running", {"half": 1})
    sections = read_sections(path)
    failed = sections["gpu half"]
    assert (failed.state, failed.why, failed.notes) == ("failed", "ValueError: no more", {"half": 1})
    assert failed.took > 0

    def other(setup):
        setup.note(other=2)
        raise ValueError("again")

    fill({"half": other}, path, setup, {})  # what the first try had stays until the second one is whole
    assert read_sections(path)["gpu half"].notes == {"half": 1, "other": 2}
    fill({"half": lambda setup: setup.note(other=3)}, path, setup, {})
    assert read_sections(path)["gpu half"].notes == {"other": 3}
    assert (sections["gpu whole"].state, sections["gpu whole"].provenance) == ("done", {"cpu": "x"})
    assert "in half\n" in capsys.readouterr().err


def test_the_page_says_what_failed_and_what_was_missed():
    sections = {
        "facts": Section({}, state="failed", why="exit code 2: no GPU"),
        "train-64": Section(
            {}, state="stopped", why="after 90 s", took=90.0, data="mnist", targets=[
                Target.of("graph over PyTorch eager", 2.5, 3.0), Target.of("seconds", None, 3.0, at_least=False),
                Target.of("over ten", 7.0, 5.0),
            ],
            cases={"batch 64": Case({
                "graph": Entry(seconds=[20e-6], notes={"first_loss": 0.5}),
                "torch": Entry("rival", [50e-6], notes={"first_loss": 0.5}),
                "torch.compile": Entry("rival", failed="RuntimeError: no compiler"),
            })},
        ),
        "svd-whole": Section({}, state="not run", why="of 465 s none were left"),
    }  # fmt: skip
    lines = page(sections).splitlines()
    assert lines[0] == "== facts: failed: exit code 2: no GPU"
    assert "== train-64: stopped (90 s), data: mnist: after 90 s" in lines
    (graph,) = (line.split() for line in lines if line.startswith("graph"))
    assert graph == ["graph", "20.0", "µs", "0.400", "0.5"]
    assert any("no compiler" in line for line in lines)
    assert "== svd-whole: not run: of 465 s none were left" in lines
    assert [line.split()[-2:] for line in lines[-3:]] == [["NOT", "met"], ["NOT", "met"], ["5", "met"]]
