"""Processes with a time limit, for gpu_check.py: a part of the timings, and the tests marked gpu."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LEAST = 10  # seconds without which nothing is begun
# Folders without a test that needs a GPU; they import packages that a machine with one may lack.
WITHOUT = ("cli", "datasets", "report", "reproduce", "sweep")
STRICT = "linalg/test_stacked.py"  # needs array-api-strict
WORKERS = 6


def run_part(name: str, options: Sequence[str], work: Path, limit: float) -> dict[str, Any]:
    """The section of one part: what it saved, "state" (done, failed, stopped), seconds, and why if it is not done."""
    file, log = work / f"{name}.json", work / f"{name}.log"
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu_check.py"), "--part", name, "--file", str(file)]
    environment = os.environ | ({"GPUNET_TF32": "1"} if name.endswith("tf32") else {})
    code, seconds = _limited([*command, *options], log, limit, environment)
    section: dict[str, Any] = {"data": "", "figures": {}, "targets": [], "provenance": {}}
    with contextlib.suppress(OSError, ValueError):
        section |= json.loads(file.read_text())
    section |= {"state": "done" if code == 0 else "stopped" if code is None else "failed", "seconds": seconds}
    if code != 0:
        last = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        section["why"] = f"after {limit:.0f} s" if code is None else f"exit code {code}: {' '.join(last[-1:])[:400]}"
        print("\n".join(last[-12:])[-1500:], flush=True)
    return section


def run_tests(log: Path, work: Path, limit: float) -> dict[str, Any]:
    """The section of the tests: how many passed, failed and were skipped, which failed, and the slowest."""
    report = work / "tests.xml"
    plugins = [plugin for plugin, module in (("xdist", "xdist"), ("pytest_timeout", "pytest_timeout"))
               if importlib.util.find_spec(module)]  # fmt: skip
    command = [sys.executable, "-P", "-m", "pytest", "-m", "gpu", "-q", "--durations=10", "--tb=short"]
    command += ["--continue-on-collection-errors", "-p", "no:cacheprovider", f"--junitxml={report}"]
    # Errors, but for what libraries say of each other in versions newer than those that the tests were written with.
    filters = ["error", "default::DeprecationWarning", "default::FutureWarning", "default:::cupy", "default:::torch",
               "default:::numba"]  # fmt: skip
    command += ["-o", "filterwarnings=" + "\n".join(filters)]
    command += [word for plugin in plugins for word in ("-p", plugin)]
    command += ["-n", str(WORKERS)] if "xdist" in plugins else []
    command += ["--timeout=120"] if "pytest_timeout" in plugins else []
    left_out = [*WITHOUT] + ([] if importlib.util.find_spec("array_api_strict") else [STRICT])
    command += [str(ROOT / "tests"), *(f"--ignore={ROOT / 'tests' / name}" for name in left_out)]
    # Plugins that happen to be installed there stay out; workers with a thread a core each would wait for each other.
    surroundings = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "OPENBLAS_NUM_THREADS": "2"}
    code, seconds = _limited(command, log, limit, os.environ | surroundings)
    figures = (_counts(report) if report.exists() else {"failures": []}) | {"left_out": left_out}
    done = code == 0 and figures.get("passed", 0) > 0
    why = "" if done else f"after {limit:.0f} s" if code is None else f"exit code {code}; see {log.name}"
    if code == 0 and not done:
        why = f"none ran: {'; '.join(figures.get('skipped_because', []))[:200]}"
    state = "done" if done else "stopped" if code is None else "failed"
    if code is None:
        print(log.read_text(errors="replace")[-1500:], flush=True)
    return {
        "state": state, "seconds": seconds, "figures": figures, "targets": [], "why": why, "data": "", "provenance": {},
    }  # fmt: skip


def _counts(report: Path) -> dict[str, Any]:
    cases = list(ElementTree.parse(report).iter("testcase"))
    failures = []
    for case in cases:
        found = case.find("failure") if case.find("failure") is not None else case.find("error")
        if found is not None:
            message = " ".join((found.get("message") or "").split())
            failures.append(f"{case.get('classname')}::{case.get('name')}: {message}"[:300])
    skipped = [" ".join((case.find("skipped").get("message") or "").split()) for case in cases
               if case.find("skipped") is not None]  # fmt: skip
    return {
        "passed": len(cases) - len(failures) - len(skipped), "failed": len(failures), "skipped": len(skipped),
        "failures": failures, "skipped_because": sorted(set(skipped)),
    }  # fmt: skip


def _limited(command: list[str], log: Path, limit: float, environment: dict[str, str]) -> tuple[int | None, float]:
    """(exit code, None where it was stopped; seconds) of a process whose output goes to `log`, children included."""
    began = time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT, env=environment, start_new_session=True
        )
        try:
            code: int | None = process.wait(limit)
        except BaseException as error:  # stopped in any way, it takes what it started with it
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            code = None
    return code, time.monotonic() - began
