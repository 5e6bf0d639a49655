"""benchmarks/gpu_check.sh itself: one process a part, each with a time limit, and what is left of those that fail."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def gpu_process():
    spec = importlib.util.spec_from_file_location("gpu_process", ROOT / "benchmarks" / "gpu_process.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="this system has no /proc")
def test_a_process_that_hangs_is_stopped_with_its_children(tmp_path):
    log = tmp_path / "log"
    command = ["bash", "-c", "sleep 60 & echo $!; wait"]
    code, seconds = gpu_process()._limited(command, log, 1.0, dict(os.environ))
    assert code is None
    assert 0.9 < seconds < 10
    child = int(log.read_text())
    for _ in range(100):  # a killed process takes its time
        if not alive(child):
            break
        time.sleep(0.05)
    else:
        pytest.fail(f"process {child} lives on")


def test_counts_of_a_test_report(tmp_path):
    (tmp_path / "tests.xml").write_text(
        '<testsuites><testsuite><testcase classname="a" name="good"/>'
        '<testcase classname="a" name="bad"><failure message="assert&#10;1 == 2">…</failure></testcase>'
        '<testcase classname="a" name="lost"><error message="no module">…</error></testcase>'
        '<testcase classname="a" name="not"><skipped message="one GPU"/></testcase></testsuite></testsuites>'
    )
    assert gpu_process()._counts(tmp_path / "tests.xml") == {
        "passed": 1, "failed": 2, "skipped": 1, "skipped_because": ["one GPU"],
        "failures": ["a::bad: assert 1 == 2", "a::lost: no module"],
    }  # fmt: skip


def check(tmp_path, *options, **surroundings):
    command = ["bash", str(ROOT / "benchmarks" / "gpu_check.sh"), str(tmp_path / "out"), *options]
    environment = os.environ | {"PYTHON": sys.executable, "OPENBLAS_NUM_THREADS": "1"} | surroundings
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)


@pytest.mark.slow
def test_the_script_on_a_cpu(tmp_path):
    done = check(tmp_path, "--device", "numpy", "--small", "--rounds", "1", "--parts", "machine,svd-square,svd-stack")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["cpu.json"]
    sections = json.loads((tmp_path / "out" / "cpu.json").read_text())["sections"]
    assert list(sections) == ["gpu machine", "gpu svd-stack", "gpu svd-square"]
    for section in sections.values():
        assert section["state"] == "done"
        assert section["provenance"]["numpy"]
    assert done.stdout.index("machine: done") < done.stdout.index("== svd-square") < done.stdout.index("== targets")


@pytest.mark.slow
def test_the_script_goes_on_after_a_part_that_fails(tmp_path):
    """No GPU, no time left, tests that all are skipped: each is said, and the exit code tells."""
    done = check(tmp_path, "--device", "tpu", "--parts", "machine,svd-square")
    assert done.returncode == 1
    sections = json.loads((tmp_path / "out" / "gpu.json").read_text())["sections"]
    assert [section["state"] for section in sections.values()] == ["failed", "failed"]
    assert "unknown device 'tpu'" in sections["gpu svd-square"]["why"]
    assert "== svd-square: failed" in done.stdout
    done = check(tmp_path, "--device", "numpy", "--seconds", "1", "--parts", "svd-square")
    assert done.returncode == 1
    assert "svd-square: not run" in done.stdout


def test_mistakes_on_its_command_line(tmp_path):
    done = check(tmp_path, "--parts", "machine,everything")
    assert done.returncode == 2
    assert "unknown part everything" in done.stderr
