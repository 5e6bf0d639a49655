"""Processes with a time limit, for gpu_check.py: pytest over the tests marked gpu, and compute-sanitizer over some."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpunet.files import write_atomically

ROOT = Path(__file__).resolve().parents[1]
DIES_WITH_PARENT = 1  # prctl's PR_SET_PDEATHSIG
POLITE = 6.0  # seconds that a process has to end itself before it is killed
WORKERS = 6
TEST_SECONDS = 60.0  # of one test at most
LOST = 86  # exit code of a process that can do no more on its GPU
NO_TOOL = "no compute-sanitizer"
FOUND = 99  # compute-sanitizer's exit code where it found errors
SUMMARY = re.compile(r"(?:ERROR SUMMARY: (\d+) error|RACECHECK SUMMARY: (\d+) hazard)")
# What the tests stages run: the ones that matter most, and all others that need a GPU.
FIRST = [
    "cuda/test_on_a_gpu.py", "cuda/test_kernels.py", "gpu/test_training.py", "gpu/test_device.py", "backend",
    "linalg/test_on_gpu.py", "gpu/test_decompositions.py",
]  # fmt: skip
# Under the sanitizer a kernel takes a hundred times as long: a dozen tests, with sizes that no block divides.
KERNELS = "cuda/test_kernels.py::test_kernels_compute_what_numpy_does"
CASES = (
    "backward relu (33, 10) bias=True in_place=True", "gather uint8 (26, 3, 4, 2)", "affine softmax (9, 31, 10)",
    "affine backward relu weight_grad dx bias_grad (600, 70, 16)", "softmax 33x100", "adam 33 17",
    "batch norm (33, 10) of_batch=True parameters dx", "batch norm (2, 5, 30, 17) of_batch=True parameters dx",
    "conv (2, 3, 9, 8, 8, 3, 0, 2, 'relu')", "conv average (2, 3, 9, 8, 4, 3, 1, 4, 3, 'relu')",
    "mixed affine backward relu weight_grad dx bias_grad to dx (9, 31, 10)",
)  # fmt: skip
REPLAYED = "cuda/test_on_a_gpu.py::test_replayed_training_gives_the_bits_of_eager_training[cupy-mixed]"
CHOSEN = {
    "tests": FIRST, "other-tests": [""], "sanitizer": [REPLAYED, *(f"{KERNELS}[real-{case}]" for case in CASES)],
}  # fmt: skip
EXPRESSION = "gpu"
# Parts of the names of kernels of cuBLAS and CuPy, whose use of shared memory is not ours to answer for.
FOREIGN = ("cublas", "cutlass", "gemm", "gemv", "nvjet", "xmma", "splitK", "cupy_")
CHECKS = {
    "memcheck": [], "racecheck": [word for part in FOREIGN for word in ("--kernel-name-exclude", f"kns={part}")],
}  # fmt: skip
# Places without a test that needs a GPU, whose imports take seconds or are not to be had there.
WITHOUT = ("cli", "datasets", "hostile/test_secrets.py", "report", "reproduce", "sweep")


def limited(command: Sequence[str], log: Path, limit: float, environment: dict[str, str]) -> tuple[int | None, float]:
    """(exit code, None where it was stopped at the limit; seconds) of a process whose output is added to `log`.

    It is interrupted POLITE seconds before the limit, and what is left of it and its children then is killed. It dies
    with this process, too.
    """
    began, prctl = time.monotonic(), getattr(ctypes.CDLL(None), "prctl", None)  # of Linux
    with log.open("a") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT, env=environment,
            start_new_session=True, preexec_fn=prctl and (lambda: prctl(DIES_WITH_PARENT, signal.SIGKILL)),
        )  # fmt: skip
        try:
            code: int | None = process.wait(max(0.1, limit - POLITE))
        except subprocess.TimeoutExpired:
            code = None
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(min(limit, POLITE))
        finally:  # whatever it started goes with it
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):  # a driver that hangs holds it whatever is sent
                process.wait(5)
    return code, time.monotonic() - began


def end_all(marker: str) -> None:
    """Kill the processes that have this text in their environment: those that left their group, which is killed."""
    for each in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if marker.encode() in each.read_bytes():
                os.kill(int(each.parent.name), signal.SIGKILL)


def tests(stage: str, out: Path, work: Path, limit: float, environment: dict[str, str]) -> dict[str, Any]:
    """What is in the section of a stage of tests: how many passed, failed and were skipped, and which failed."""
    outcomes, left_out = out / "tests.jsonl", work / "left-out"
    before = read_outcomes(outcomes)
    left_out.write_text(
        "\n".join(test for test, each in before.items() if stage != "tests" or each["outcome"] == "passed")
    )
    command = [*pytest(stage, WORKERS, limit), "--outcomes", str(outcomes), "--stage", stage]
    command += ["--leave-out", str(left_out), "--died", str(work / f"{stage}-died")]
    code, seconds = limited(command, out / "log.txt", limit, environment)
    figures = counted([each for each in read_outcomes(outcomes).values() if each["stage"] == stage])
    nothing_left = code == 5 and before  # pytest's code for no tests
    done = (code == 0 or nothing_left) and not figures["failed"] and (figures["passed"] or before)
    why = "" if done else f"after {limit:.0f} s" if code is None else f"{ending(code)}; see log.txt"
    if code in (0, 5) and not done:
        why = f"none ran: {'; '.join(figures['skipped_because'])[:200]}"
    state = "done" if done else "stopped" if code is None else "failed"
    return {"state": state, "took": seconds, "notes": figures, "why": why}


def pytest(stage: str, workers: int, limit: float) -> list[str]:
    """The command for the tests of a stage."""
    command = [sys.executable, "-m", "pytest", "-m", EXPRESSION, "-v", "--tb=short", "-p", "no:cacheprovider"]
    command += ["-p", "gpu_plugin", "--continue-on-collection-errors", "-o", "filterwarnings=default"]
    if workers and importlib.util.find_spec("xdist"):
        command += ["-p", "xdist", "-n", str(workers), "--dist", "loadfile"]
    # A test that hangs costs its worker: by a thread of Python's, and where a call keeps the interpreter by one of C's.
    command += ["-o", f"faulthandler_timeout={TEST_SECONDS + 2}", "-o", "faulthandler_exit_on_timeout=true"]
    if importlib.util.find_spec("pytest_timeout"):
        command += ["-p", "pytest_timeout", f"--timeout={TEST_SECONDS}", "--timeout-method=thread"]
        command += [f"--session-timeout={max(5, limit - POLITE - 2):.0f}"]
    command += [f"--ignore={ROOT / 'tests' / name}" for name in WITHOUT]
    return command + [str(ROOT / "tests" / name) for name in CHOSEN[stage]]


def surroundings() -> dict[str, str]:
    """For pytest: installed plugins stay out, and workers with a thread a core each would wait for each other."""
    path = os.pathsep.join(filter(None, (str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH"))))
    # Workers that share the GPU would time algorithms wrong, and their choices would be kept.
    switches = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "OPENBLAS_NUM_THREADS": "2", "GPUNET_TUNING": "off"}
    return switches | {"PYTHONPATH": path}


def read_outcomes(path: Path) -> dict[str, dict[str, Any]]:
    """The worst line of each test; one that was cut short, or is damaged, is none."""
    found: dict[str, dict[str, Any]] = {}
    for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError, TypeError, KeyError):
            each = {"why": "", **json.loads(line)}
            if {"test", "outcome", "stage"} <= each.keys() and found.get(each["test"], {}).get("outcome") != "failed":
                found[each["test"]] = each
    return found


def forget(path: Path, stages: Sequence[str], but_passed: bool) -> None:
    """Remove the lines of these stages, those of tests that passed aside, so that the tests are run again."""
    left = [json.dumps(each) for each in read_outcomes(path).values()
            if each["stage"] not in stages or (but_passed and each["outcome"] == "passed")]  # fmt: skip
    if path.exists():
        write_atomically(path, "".join(f"{line}\n" for line in left))


def counted(outcomes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Figures of the section of a stage of tests."""
    by = {name: [each for each in outcomes if each["outcome"] == name] for name in ("passed", "failed", "skipped")}
    return {name: len(each) for name, each in by.items()} | {
        "failures": [f"{each['test']}: {each['why']}" for each in by["failed"]],
        "skipped_because": sorted({each["why"] for each in by["skipped"]}),
    }


def sanitizer(
    out: Path, work: Path, limit: float, environment: dict[str, str], before: Mapping[str, Any]
) -> dict[str, Any]:
    """The section of compute-sanitizer: errors that memcheck and racecheck found in some tests of the kernels.

    before: the notes of an earlier run, of which a tool that found nothing stays.
    """
    section: dict[str, Any] = {"state": "done", "took": 0.0, "notes": {}, "why": ""}
    tool, log = shutil.which("compute-sanitizer", path=environment.get("PATH")), out / "log.txt"
    tool = tool or next((str(path) for path in sorted(Path("/usr/local").glob("cuda*/bin/compute-sanitizer"))), None)
    if tool is None:
        return section | {"state": "not run", "why": NO_TOOL}
    for check, options in CHECKS.items():
        if before.get(check, {}).get("exit_code") == 0 == before[check]["errors"]:
            section["notes"][check] = before[check]
            continue
        left, begins = limit - section["took"], log.stat().st_size if log.exists() else 0
        share = left / 2 if check == "memcheck" else left
        command = [tool, "--tool", check, f"--error-exitcode={FOUND}", "--report-api-errors=no", *options]
        command += [*pytest("sanitizer", 0, share), "--outcomes", str(work / check), "--stage", "sanitizer"]
        code, seconds = limited(command, log, share, environment)
        with log.open("rb") as said:
            said.seek(begins)
            summaries = SUMMARY.findall(said.read().decode(errors="replace"))
        errors = sum(int(first or second) for first, second in summaries) if summaries else None
        section["notes"][check] = {"errors": errors, "exit_code": code, "took": seconds}
        section["took"] += seconds
        if code is None and section["state"] == "done":
            section |= {"state": "stopped", "why": f"{check} after {share:.0f} s"}
        if code or errors or (code == 0 and errors is None):
            section |= {"state": "failed", "why": f"{check}: {errors} errors, {ending(code or 0)}; see log.txt"}
    return section


def ending(code: int) -> str:
    """How a process ended."""
    names = {number.value: number.name for number in signal.Signals}
    return f"died of {names.get(-code, f'signal {-code}')}" if code < 0 else f"exit code {code}"
