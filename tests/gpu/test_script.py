"""benchmarks/gpu_check.sh itself: a process for each stage, and what is left of those that hang, die or are stopped."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import types
from pathlib import Path

import pytest

from gpunet.backend import why_no_gpu
from gpunet.backend.cupy_backend import CupyBackend
from gpunet.bench.results import Section, write_section
from gpunet.experiments import provenance
from gpunet.files import alone
from tests import conftest
from tests.cuda.case_list import CASES
from tests.cuda.cases import Bench
from tests.cuda.host_module import HostKernel, why_not
from tests.cuda.pretend import pretend
from tests.cuda.test_kernels import run

ROOT = Path(__file__).parents[2]
# What a machine with a GPU may lack; sitecustomize.py is the first that its interpreters read.
ABSENT = ("pooch", "platformdirs", "array_api_strict", "optuna", "sqlalchemy", "alembic", "pg8000")
BLOCK = f"import sys\nfor name in {ABSENT}: sys.modules[name] = None\n"
SANITIZER = """#!/bin/sh
while [ "${1#-}" != "$1" ] || [ "${1%check}" != "$1" ] || [ "${1#kns=}" != "$1" ]; do shift; done
"$@" && echo "========= ERROR SUMMARY: 0 errors"
"""
needs_compiler = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")


@pytest.fixture(autouse=True)
def _scripts(monkeypatch):
    """Scripts of benchmarks/ can be imported."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")


def environment(tmp_path, **more):
    (tmp_path / "site").mkdir(exist_ok=True)
    (tmp_path / "site" / "sitecustomize.py").write_text(BLOCK)
    path = os.pathsep.join(map(str, (tmp_path / "site", ROOT, ROOT / "benchmarks")))
    own = ("PYTEST_", "CUPY_", "TORCHINDUCTOR_", "TRITON_")  # PyTorch sets its own where it is imported
    found = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    return found | {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "GPUNET_DATA": "", "OUT": ""} | more


def pretended(tmp_path, *options, **more):
    """check.py, the script on the pretend GPU: what it said and its exit code, the sections."""
    out = tmp_path / "out"
    command = [
        sys.executable,
        str(Path(__file__).with_name("check.py")),
        str(out),
        "--small",
        "--rounds",
        "1",
        *options,
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env=environment(tmp_path, **more)
    )
    return done, read(out / "cuda.json")


def read(file):
    return {name.removeprefix("gpu "): each for name, each in json.loads(file.read_text())["sections"].items()}


@pytest.mark.slow  # each stage has tests of its own here and in test_stages.py
@needs_compiler
def test_every_stage(tmp_path):
    """Without the packages that a machine with a GPU may lack."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "compute-sanitizer").write_text(SANITIZER)
    (tmp_path / "bin" / "compute-sanitizer").chmod(0o755)
    done, sections = pretended(tmp_path, PATH=f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    assert done.returncode == 0, done.stdout + (tmp_path / "out" / "log.txt").read_text()[-4000:]
    assert {section.get("state", "done") for section in sections.values()} == {"done"}
    assert {"facts", "step-64", "tests", "train-64", "svd-stack", "factorised", "sanitizer", "other-tests",
            "train-tf32"} <= sections.keys()  # fmt: skip
    assert sections["facts"]["notes"]["graphs"] == "on"
    for recorded in sections["step-64"]["notes"]["recordings"]:
        assert recorded["batch"] == 20
        assert recorded["kernels"]["adam_f32"] == recorded["steps_per_launch"]
    assert "digraph" in (tmp_path / "out" / "graphs.txt").read_text()
    assert {"products", "eager", "graph"} <= sections["train-64"]["cases"]["batch 64"]["entries"].keys()
    assert sections["train-64"]["provenance"]["gpu"] == "Pretend GPU"
    assert all({"git", "cupy", "cuda", "driver"} <= each["provenance"].keys() for each in sections.values())
    assert sections["sanitizer"]["notes"]["memcheck"]["errors"] == 0
    outcomes = [json.loads(line) for line in (tmp_path / "out" / "tests.jsonl").read_text().splitlines()]
    assert [(each["stage"], each["test"].partition("::")[2], each["outcome"]) for each in outcomes] == [
        ("tests", "test_another_stream_is_in_order_too[pretend]", "passed"), ("tests", "test_facts[pretend]", "passed"),
        ("other-tests", "test_peak_memory_grows_with_what_is_held[pretend]", "passed"),
    ]  # fmt: skip
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names <= {"cuda.json", "log.txt", "tests.jsonl", "graphs.txt", "cupycache.tgz"}
    assert done.stdout.index("look facts: done") < done.stdout.index("== svd-stack") < done.stdout.index("== targets")


@pytest.mark.slow
@needs_compiler
def test_stages_that_go_wrong_cost_themselves(tmp_path):
    """They hang, and one of them where Python has no turn; going on, what was measured is kept."""
    began = time.monotonic()
    done, first = pretended(tmp_path, "--stages", "svd,experiments,rest", FAULTS="hang/hang_in_c")
    assert done.returncode == 1
    assert time.monotonic() - began < 40
    log = (tmp_path / "out" / "log.txt").read_text()
    for stage, fault, said in (("svd", "hang", "in hang\n"), ("experiments", "hang_in_c", "-- hang_in_c\n")):
        assert "state" not in first[f"before {stage}"]  # done
        assert (first[fault]["state"], first[fault]["notes"]) == ("stopped", {"half": 1})
        assert first[fault]["why"].startswith("after 7 s")
        assert first[f"after {stage}"]["state"] == "not run"
        assert said in log
    assert "state" not in first["later"]
    kernels_are_kept(tmp_path / "out")
    (tmp_path / "first").mkdir()
    for path in (tmp_path / "out").iterdir():
        path.rename(tmp_path / "first" / path.name)
    going_on = ("--stages", "svd,rest", "--continue", str(tmp_path / "first"))
    done, second = pretended(tmp_path, *going_on, FAULTS="hang", MENDED="1")
    assert done.returncode == 0, done.stdout
    assert {second[name].get("state", "done") for name in ("before svd", "hang", "after svd", "later")} == {"done"}
    assert second["before svd"] == first["before svd"]
    assert second["later"] == first["later"]
    assert second["after svd"]["notes"]["begun"] < second["hang"]["notes"]["begun"]  # where it was stopped comes last


@pytest.mark.slow
@needs_compiler
def test_sections_that_go_wrong_cost_themselves(tmp_path):
    """What comes after them is measured in another process."""
    done, sections = pretended(tmp_path, "--stages", "svd,rest", FAULTS="die,lose,shout")
    assert done.returncode == 1
    log = (tmp_path / "out" / "log.txt").read_text()
    for fault, why, half, said in (
        ("die", "died of SIGSEGV", {"half": 1}, "Segmentation fault"),
        ("lose", "RuntimeError: cudaErrorIllegalAddress", {}, "in lose\n"),
        ("shout", "exit code 1", {"half": 1}, "\n[...]\n"),
    ):
        assert sections[fault]["state"] == "failed"
        assert sections[fault]["why"].startswith(why)
        assert sections[fault].get("notes", {}) == half
        assert said in log
    assert not {"state"} & {*sections["before svd"], *sections["after svd"], *sections["later"]}  # done
    kernels_are_kept(tmp_path / "out")


def kernels_are_kept(out):
    with tarfile.open(out / "cupycache.tgz") as tar:
        assert tar.getnames() == ["cupy/kernel.cubin"]


TESTS = """
import os, pytest, signal, time
def test_good(): pass
def test_lost(): raise RuntimeError("outer") from RuntimeError("cudaErrorLaunchFailure: unspecified launch failure")
def test_after_it(): pass
@pytest.mark.xfail
def test_lost_as_is_expected(): raise RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS")
def test_after_that(): pass
def test_dead(): os.kill(os.getpid(), signal.SIGKILL)
def test_at_last(): assert 1 == 2, "and no more"
"""
KEEPING = """
import ctypes
def test_first(): pass
def test_keeps_the_interpreter(): ctypes.PyDLL(None).sleep(100)
def test_last(): pass
"""
HANGING = "import time\ndef test_first(): pass\ndef test_hangs(): time.sleep(100)\n"


def run_tests(tmp_path, monkeypatch, text, limit=30.0, workers=1):
    """The section of a stage of tests with this file, and the lines that it left."""
    import gpu_process

    (tmp_path / "test_made.py").write_text(text)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu\n")
    for name in ("out", "work"):
        (tmp_path / name).mkdir(exist_ok=True)
    monkeypatch.setattr(gpu_process, "CHOSEN", {"tests": [str(tmp_path / "test_made.py")]})
    monkeypatch.setattr(gpu_process, "EXPRESSION", "not gpu")
    monkeypatch.setattr(gpu_process, "WORKERS", workers)
    monkeypatch.setattr(gpu_process, "POLITE", 2.0)
    surroundings = environment(tmp_path) | gpu_process.surroundings() | {"PYTHONDONTWRITEBYTECODE": "1"}
    section = gpu_process.tests("tests", tmp_path / "out", tmp_path / "work", limit, surroundings)
    return section, gpu_process.read_outcomes(tmp_path / "out" / "tests.jsonl")


@pytest.mark.slow
def test_a_lost_gpu_and_a_dead_worker_cost_one_test_each(tmp_path, monkeypatch):
    pytest.importorskip("xdist")
    section, outcomes = run_tests(tmp_path, monkeypatch, TESTS)
    assert {name.partition("::")[2]: each["outcome"] for name, each in outcomes.items()} == {
        "test_good": "passed", "test_lost": "failed", "test_after_it": "passed",
        "test_lost_as_is_expected": "failed", "test_after_that": "passed", "test_dead": "failed",
        "test_at_last": "failed",
    }, (tmp_path / "out" / "log.txt").read_text()  # fmt: skip
    assert (section["state"], section["notes"]["passed"], section["notes"]["failed"]) == ("failed", 3, 4)
    lost, _, dead, last = (each["why"] for each in outcomes.values() if each["outcome"] == "failed")
    assert lost == "RuntimeError: outer"
    assert "crashed while running" in dead
    assert "and no more" in last
    assert (tmp_path / "out" / "log.txt").read_text().count("replacing crashed worker") == 3
    # Going on, what passed is not run again.
    section, outcomes = run_tests(tmp_path, monkeypatch, TESTS.replace("1 == 2", "True"), workers=0)
    assert len((tmp_path / "out" / "tests.jsonl").read_text().splitlines()) > len(outcomes)
    assert sum(line.count("test_good") for line in (tmp_path / "out" / "tests.jsonl").read_text().splitlines()) == 1


@pytest.mark.slow
def test_a_test_that_hangs_costs_its_worker(tmp_path, monkeypatch):
    pytest.importorskip("xdist")
    import gpu_process

    monkeypatch.setattr(gpu_process, "TEST_SECONDS", 1.0)
    section, outcomes = run_tests(tmp_path, monkeypatch, KEEPING)
    assert (section["state"], section["notes"]["passed"], section["notes"]["failed"]) == ("failed", 2, 1)
    assert "crashed while running" in outcomes["test_made.py::test_keeps_the_interpreter"]["why"]
    assert "in test_keeps_the_interpreter" in (tmp_path / "out" / "log.txt").read_text()


def test_outcomes_that_are_damaged_are_none(tmp_path):
    import gpu_process

    whole = '{"stage": "tests", "test": "a", "outcome": "passed"}'
    (tmp_path / "tests.jsonl").write_bytes(b"12\n[]\n{}\n\xff\n" + f"{whole}\n{whole[:30]}".encode())
    gpu_process.forget(tmp_path / "tests.jsonl", ["look"], False)
    (line,) = (tmp_path / "tests.jsonl").read_text().splitlines()
    assert json.loads(line) == json.loads(whole) | {"why": ""}


def test_how_a_process_ended():
    import gpu_process

    assert [gpu_process.ending(code) for code in (3, -9, -40)] == [
        "exit code 3",
        "died of SIGKILL",
        "died of signal 40",
    ]


@pytest.mark.slow
def test_tests_that_are_stopped_leave_what_they_told(tmp_path, monkeypatch):
    section, outcomes = run_tests(tmp_path, monkeypatch, HANGING, limit=8.0, workers=0)
    assert (section["state"], section["why"]) == ("stopped", "after 8 s")
    assert section["notes"]["passed"] == 1
    assert [name.partition("::")[2] for name in outcomes] == ["test_first"]
    assert "KeyboardInterrupt" in (tmp_path / "out" / "log.txt").read_text()  # and where it hung


@pytest.mark.parametrize(
    ("memcheck", "racecheck", "state", "why"),
    [
        ("echo ERROR SUMMARY: 0 errors", "echo RACECHECK SUMMARY: 0 hazards displayed", "done", ""),
        ("echo ERROR SUMMARY: 3 errors; exit 99", "echo RACECHECK SUMMARY: 0 hazards", "failed", "memcheck: 3 errors"),
        ("echo ERROR SUMMARY: 0 errors", "echo RACECHECK SUMMARY: 2 hazards; exit 99", "failed", "racecheck: 2 errors"),
        ("echo ERROR SUMMARY: 0 errors", "echo nothing", "failed", "racecheck: None errors"),
        ("echo ERROR SUMMARY: 0 errors; exit 1", "echo RACECHECK SUMMARY: 0 hazards", "failed", "memcheck: 0 errors"),
        ("sleep 60", "echo RACECHECK SUMMARY: 0 hazards", "stopped", "memcheck after 1 s"),
    ],
)  # fmt: skip
def test_the_sanitizers_verdict(tmp_path, monkeypatch, memcheck, racecheck, state, why):
    import gpu_process

    monkeypatch.setattr(gpu_process, "POLITE", 0.2)
    tool = tmp_path / "compute-sanitizer"
    tool.write_text(f"#!/bin/bash\nif [ $2 = memcheck ]; then {memcheck}; else {racecheck}; fi\n")
    tool.chmod(0o755)
    surroundings = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    section = gpu_process.sanitizer(tmp_path, tmp_path, 2.0, surroundings, {})
    assert section["state"] == state
    assert section["why"].startswith(why)
    assert section["notes"].keys() == {"memcheck", "racecheck"}
    tool.write_text("#!/bin/bash\necho ERROR SUMMARY: 7 errors; exit 99\n")  # going on: what found nothing stays
    again = gpu_process.sanitizer(tmp_path, tmp_path, 2.0, surroundings, section["notes"])
    for check, found in section["notes"].items():
        clean = (found["errors"], found["exit_code"]) == (0, 0)
        assert again["notes"][check]["errors"] == (0 if clean else 7)


def test_under_the_sanitizer_no_array_lies_in_a_pool(monkeypatch):
    import gpu_plugin

    cupy, chosen = pretend(), list[object]()
    monkeypatch.setattr(cupy.cuda, "set_allocator", chosen.append, raising=False)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    for stage in ("tests", "sanitizer"):
        gpu_plugin.pytest_configure(types.SimpleNamespace(option=types.SimpleNamespace(stage=stage, outcomes=None)))
    assert chosen == [None]


def test_racecheck_leaves_out_kernels_of_libraries_alone():
    import gpu_process

    table = json.loads((ROOT / "benchmarks" / "results" / "kernel-resources.json").read_text())
    names = {name for kernels in table["kernels"].values() for name in kernels}
    assert not [name for name in names if any(part in name for part in gpu_process.FOREIGN)]


def test_the_sanitizer_sees_a_kernel_of_every_kind(monkeypatch):
    """Named, not run: those that use shared memory, in float32, float64 and what is mixed."""
    import gpu_process

    launched, gpu = set(), CupyBackend(module=conftest.stand_in())
    monkeypatch.setattr(HostKernel, "__call__", lambda kernel, *_, **__: launched.add(kernel.name))
    for case in (case for case in CASES if case.name in gpu_process.CASES):
        for dtype in ("float32",) if case.mixed else ("float32", "float64"):
            run(case, Bench(gpu, dtype, mixed=case.mixed))
    kinds = ("chain_and_sum", "gather_u8", "affine_softmax_cross_entropy", "narrow_backward", "softmax_cross_entropy",
             "adam", "batch_statistics", "normalise", "normalise_backward", "conv", "conv_inputs", "conv_filters",
             "average_maps")  # fmt: skip
    assert launched >= {f"{kind}_{suffix}" for kind in kinds for suffix in ("f32", "f64")} | {"narrow_backward_bf16"}


@pytest.mark.slow  # pytest collects in a process of its own
def test_a_gpu_gets_a_dozen_tests_under_the_sanitizer_and_every_case_without(tmp_path, monkeypatch):
    import gpu_process

    assert "cuda/test_kernels.py" in gpu_process.CHOSEN["tests"]
    monkeypatch.setitem(gpu_process.CHOSEN, "tests", ["cuda/test_kernels.py"])
    surroundings, counts = environment(tmp_path) | gpu_process.surroundings(), []
    for stage in ("sanitizer", "tests"):
        command = [*gpu_process.pytest(stage, 0, 20.0), "--collect-only", "-qqq"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=surroundings, cwd=ROOT)
        assert done.returncode == 0, done.stdout[-3000:]
        counts.append(sorted(done.stdout.split("\n")[:2]))
    on_a_gpu, kernels = "tests/cuda/test_on_a_gpu.py", "tests/cuda/test_kernels.py"
    assert counts == [[f"{kernels}: 11", f"{on_a_gpu}: 1"], ["", f"{kernels}: {len(CASES)}"]]


def alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="this system has no /proc")
def test_a_process_that_hangs_is_stopped_with_its_children(tmp_path, monkeypatch):
    import gpu_process

    monkeypatch.setattr(gpu_process, "POLITE", 0.5)
    log = tmp_path / "log"
    command = ["bash", "-c", "trap '' INT; sleep 60 & echo $!; wait"]
    code, seconds = gpu_process.limited(command, log, 1.0, dict(os.environ))
    assert code is None
    assert 0.9 < seconds < 10
    child = int(log.read_text())
    for _ in range(100):  # a killed process takes its time
        if not alive(child):
            break
        time.sleep(0.05)
    else:
        pytest.fail(f"process {child} lives on")


def test_all_stages_end_in_eight_minutes():
    import gpu_check

    assert sum(gpu_check.LIMITS.values()) + gpu_check.BESIDES <= gpu_check.TOTAL == 480
    assert gpu_check.LIMITS["look"] <= 110
    assert gpu_check.LIMITS["tests"] <= 100
    assert {*gpu_check.STAGES} <= {*gpu_check.LIMITS}
    assert {*gpu_check.LIMITS} - {*gpu_check.STAGES} == {"tests", "sanitizer", "other-tests"}
    sections = [name for stage in gpu_check.LIMITS for name in gpu_check.sections_of(stage)]
    assert len(set(sections)) == len(sections)


def test_the_archive_of_caches_is_small_and_taken_up_again(tmp_path, monkeypatch):
    import gpu_check

    for variable in gpu_check.CACHES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.delenv("CUPY_NVRTC_USE_PCH", raising=False)
    found = gpu_check.surroundings(tmp_path)
    assert (found["CUPY_NVRTC_USE_PCH"], Path(found["CUPY_CACHE_DIR"]).parent) == ("1", tmp_path)
    monkeypatch.setenv("CUPY_NVRTC_USE_PCH", "0")
    (tmp_path / "again").mkdir()
    again = gpu_check.surroundings(tmp_path / "again")
    assert again["CUPY_NVRTC_USE_PCH"] == "0"
    monkeypatch.setattr(gpu_check, "CACHE_BYTES", 50_000)
    for name, size in (("small", 1000), ("large", 60_000)):
        Path(found["CUPY_CACHE_DIR"], name).write_bytes(os.urandom(size))
    assert gpu_check.pack(found, tmp_path / "cupycache.tgz") == 2
    written = (tmp_path / "cupycache.tgz").stat().st_mtime_ns
    assert gpu_check.pack(found, tmp_path / "cupycache.tgz", before=2) == 2
    assert (tmp_path / "cupycache.tgz").stat().st_mtime_ns == written  # nothing is new
    assert (tmp_path / "cupycache.tgz").stat().st_size < 50_000
    gpu_check.unpack(tmp_path / "cupycache.tgz", again)
    assert [path.name for path in Path(again["CUPY_CACHE_DIR"]).iterdir()] == ["small"]
    (tmp_path / "damaged.tgz").write_bytes(b"no archive")
    gpu_check.unpack(tmp_path / "damaged.tgz", again)


def packed(path, **members):
    """An archive with these texts by name; a Path is a link to it."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name.replace("_", "/"))
            if isinstance(content, Path):
                member.type, member.linkname = tarfile.SYMTYPE, str(content)
                content = b""
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def test_archives_that_are_none_of_ours_do_no_harm(tmp_path, monkeypatch, capsys):
    import gpu_check

    for variable in gpu_check.CACHES:
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / "work").mkdir()
    found, archive = gpu_check.surroundings(tmp_path / "work"), tmp_path / "cupycache.tgz"
    monkeypatch.setattr(gpu_check, "FILE_BYTES", 1 << 20)
    packed(archive, cupy_bomb=bytes(2 << 20))
    gpu_check.unpack(archive, found)
    assert "not taken up: it holds more than 1048576 bytes" in capsys.readouterr().out
    packed(archive, cupy_kernel=os.urandom(5000))
    whole = archive.read_bytes()
    for damaged in (whole[:2000], whole[:24] + b"\xff" * 9 + whole[33:]):
        archive.write_bytes(damaged)
        gpu_check.unpack(archive, found)
        assert "not taken up: " in capsys.readouterr().out
    packed(archive, cupy_a=Path("a"), cupy_b=Path("../cupy"), cupy_c=b"kept")  # links in circles
    gpu_check.unpack(archive, found)
    assert [path.name for path in Path(found["CUPY_CACHE_DIR"]).iterdir()] == ["c"]


@pytest.mark.skipif(why_no_gpu() is None, reason="this machine has a GPU")
def test_a_missing_gpu_fails_where_one_was_asked_for(monkeypatch):
    monkeypatch.setattr(conftest, "_asked", [True])
    with pytest.raises(pytest.fail.Exception, match="no GPU can be used"):
        conftest.make_backend("cupy")
    monkeypatch.setattr(conftest, "_asked", [False])
    with pytest.raises(pytest.skip.Exception):
        conftest.make_backend("cupy")


def script(tmp_path, *options):
    command = ["bash", str(ROOT / "benchmarks" / "gpu_check.sh"), str(tmp_path / "out"), *options]
    surroundings = environment(tmp_path, PYTHON=sys.executable, PYTHONPATH=str(tmp_path / "site"))
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=surroundings)


@pytest.mark.slow
def test_no_gpu_and_no_time_are_said(tmp_path):
    done = script(tmp_path, "--device", "cuda:7", "--stages", "svd")
    assert done.returncode == 1, done.stderr
    (path,) = (tmp_path / "out").glob("*.json")
    sections = read(path)
    assert {section["state"] for section in sections.values()} == {"failed"}
    assert "device 'cuda:7' cannot be used" in sections["svd-square"]["why"]
    assert "== svd-square: failed" in done.stdout
    done = script(tmp_path, "--device", "cuda:7", "--seconds", "1", "--stages", "svd")
    assert done.returncode == 1
    assert "== svd-square: not run: of 1 s none were left" in done.stdout
    for found in (sections, read(path)):
        assert all({"git", "cupy", "cuda", "driver"} <= each["provenance"].keys() for each in found.values())


def test_going_on_at_another_commit_is_told_and_tests_are_run_anew(tmp_path, monkeypatch, capsys):
    import gpu_check

    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--continue", str(tmp_path), "--device", "cpu"])
    check, outcomes = gpu_check.Check(gpu_check.options()), tmp_path / "tests.jsonl"
    check.environment, here = {}, check.made["git"]
    for commit, told in ((here, ""), ("abc", f"svd-whole is of commit abc, this is {here}: it stays\n")):
        outcomes.write_text('{"stage": "tests", "test": "a", "outcome": "passed"}\n')
        for name, state in (("tests", "done"), ("svd-whole", "done"), ("svd-square", "failed")):
            write_section(check.file, f"gpu {name}", Section({"git": commit}, state=state))
        check.begin()
        said = capsys.readouterr().out
        assert said == (told and f"{told}tests: of another commit than {here}, and run anew\n")
        assert ("tests" in check.sections(), outcomes.read_text() != "") == (
            (True, True) if not told else (False, False)
        )
        assert {"svd-whole", "svd-square"} <= check.sections().keys()


def test_the_commit_may_be_said_by_the_environment(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "gpunet" / "experiments" / "provenance.py"))
    monkeypatch.delenv("GPUNET_COMMIT", raising=False)
    assert provenance._commit() is None
    monkeypatch.setenv("GPUNET_COMMIT", "0123abc+")
    assert provenance._commit() == "0123abc+"


def refused(tmp_path, monkeypatch, capsys, *options):
    """What the script says on standard error of what it refuses; in this process."""
    import gpu_check

    monkeypatch.setattr(sys, "argv", ["gpu_check.py", str(tmp_path / "out"), *options])
    for owner, name in ((signal, "signal"), (gpu_check.resource, "setrlimit")):
        monkeypatch.setattr(owner, name, lambda *_: None)
    try:
        code = gpu_check.main()
    except SystemExit as stop:
        code = stop.code
    said, refusal = capsys.readouterr()
    assert (code, said) == (2, "")
    return refusal


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--device", "tpu"), "'tpu': expected cuda, cuda:N, cpu or numpy"),
        (("--rounds", "0"), "invalid rounds value: '0'"),
        (("--stages", "all"), "unknown stage all: expected some of look, tests"),
        (("--stages", "look,everything"), "unknown stage everything"),
        (("--seconds", "nan"), "--seconds"),
    ],
)
def test_mistakes_in_options(tmp_path, monkeypatch, capsys, options, words):
    assert words in refused(tmp_path, monkeypatch, capsys, *options).splitlines()[-1]


def test_an_interpreter_that_lacks_something_is_told_once(tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "msgspec.py").write_text("raise ModuleNotFoundError(\"No module named 'msgspec'\")")
    done = script(tmp_path, "--device", "numpy")
    assert done.returncode == 2
    assert "a benchmark needs msgspec, which cannot be imported: No module named 'msgspec'" in done.stderr
    assert "; PYTHON names another interpreter, WHEELS" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_without_a_gpu_tests_are_not_run_and_cost_nothing(tmp_path):
    done = script(tmp_path, "--device", "numpy", "--small", "--stages", "tests,sanitizer,other-tests")
    assert done.returncode == 0, done.stdout + done.stderr
    sections = read(tmp_path / "out" / "numpy.json")
    assert {section["why"] for section in sections.values()} == {"its tests need a GPU"}


def test_a_checkout_is_found_as_installed():
    """From its folder alone, without the import hook of an editable install."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); import gpunet.cli, gpunet.datasets; print(gpunet.cli.__file__)"
    done = subprocess.run(
        [sys.executable, "-S", "-I", "-c", code, str(ROOT)], capture_output=True, text=True, check=True, timeout=60
    )
    assert Path(done.stdout.strip()) == ROOT / "cli" / "__init__.py"


def test_a_log_without_end_is_cut(tmp_path, monkeypatch):
    import gpu_check

    monkeypatch.setattr(gpu_check, "LOG_BYTES", 300)
    (tmp_path / "log.txt").write_text("first" + "x" * 1000 + "last")
    gpu_check.shorten(tmp_path / "log.txt")
    said = (tmp_path / "log.txt").read_text()
    assert (len(said) < 300, said[:5], said[-4:]) == (True, "first", "last")


@pytest.mark.slow
def test_a_folder_that_cannot_be_used_is_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "out").write_text("a file")
    done = script(tmp_path, "--device", "cpu")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"cannot write to '{tmp_path / 'out'}': it is a file, no folder; choose another folder\n"
    (tmp_path / "out").unlink()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "cpu.json").write_text('{"sections": {"gpu look": {"st')
    (line,) = refused(tmp_path, monkeypatch, capsys, "--device", "cpu").splitlines()
    assert "cpu.json' is not JSON as it should be" in line
    assert (tmp_path / "out" / "cpu.json").read_text() == '{"sections": {"gpu look": {"st'
    with alone(tmp_path / "out"):
        (line,) = refused(tmp_path, monkeypatch, capsys, "--device", "cpu").splitlines()
    assert "another run is writing to" in line


@pytest.mark.slow
@needs_compiler
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="this system has no /proc")
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_a_signal_to_the_script_ends_all_of_it(tmp_path, sent):
    """Its stage hangs and ignores signals; a process in a session of its own outlives SIGKILL alone."""
    import gpu_process

    where = "cmdline" if sent == signal.SIGKILL else "environ"
    (tmp_path / "python").write_text(
        f'#!/bin/sh\nshift\nexec "{sys.executable}" "{Path(__file__).with_name("check.py")}" "$@"'
    )
    (tmp_path / "python").chmod(0o755)
    (tmp_path / "tmp").mkdir()
    more = {"PYTHON": str(tmp_path / "python"), "TMPDIR": str(tmp_path / "tmp"), "FAULTS": "hang_in_c"}
    command = ["bash", str(ROOT / "benchmarks" / "gpu_check.sh"), str(tmp_path / "out"), "--small", "--stages", "svd"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment(tmp_path, **more))
    try:
        until = time.monotonic() + 30
        while "half" not in (read(tmp_path / "out" / "cuda.json").get("hang_in_c", {}).get("notes", {})
                             if (tmp_path / "out" / "cuda.json").exists() else {}):  # fmt: skip
            assert time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(sent)
        said, _ = process.communicate(timeout=10)
        for _ in range(100):  # a killed process takes its time
            if not (left := [path for path in Path("/proc").glob(f"[0-9]*/{where}") if mentions(path, str(tmp_path))]):
                break
            time.sleep(0.05)
    finally:
        gpu_process.end_all(str(tmp_path))
    assert not left
    assert process.returncode == (128 + sent if sent != signal.SIGKILL else -sent)
    assert "state" not in read(tmp_path / "out" / "cuda.json")["before svd"]  # done
    if sent != signal.SIGKILL:
        assert said.endswith(
            f"stopped: what was measured is in {tmp_path / 'out' / 'cuda.json'}; --continue takes it up\n"
        )
        assert not list((tmp_path / "tmp").iterdir())


def mentions(path, text):
    try:
        return text.encode() in path.read_bytes()
    except OSError:
        return False


@pytest.mark.slow
def test_the_script_on_a_cpu(tmp_path):
    """With the rivals that are installed; torch.compile takes its time."""
    done = script(tmp_path, "--device", "numpy", "--small", "--rounds", "1", "--stages", "look,train,svd,rest")
    sections = read(tmp_path / "out" / "numpy.json")
    assert {name: section.get("state", "done") for name, section in sections.items()} == dict.fromkeys(sections, "done")
    assert done.returncode == 0, done.stdout + done.stderr
