"""Ctrl-C and worse, at any moment: whole files or none, and the same command goes on where it stopped."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ..experiments.schema import is_png, parse
from .small import NAMES

DRIVER = Path(__file__).with_name("driver.py")


def started(out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(DRIVER), "--device", "numpy", "--out", str(out), "--json"], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> tuple[int, str, list[str]]:
    """Exit code, standard output, and the lines on standard error that are not progress."""
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, out, [line for line in err.splitlines() if not line.startswith("reproduce ")]


def check_whatever_is_there(out: Path) -> dict[str, Any]:
    """No file is half-written; a finished run's files are all there. Returns when each finished run began."""
    for path in out.rglob("*"):
        if path.is_dir() or path.name.endswith(".part"):
            continue
        if path.suffix == ".png":
            assert is_png(path.read_bytes()), path
        elif path.name == "result.json":
            parse(path.read_text())
        else:
            assert path.relative_to(out).as_posix() in ("claims.json", "report.html"), path
    if not (out / "claims.json").exists():
        return {}
    made = json.loads((out / "claims.json").read_text())
    done = {run["name"]: run for run in made["runs"] if run["state"] == "finished"}
    assert {claim["run"] for claim in made["claims"]} == set(done)
    for name, run in done.items():
        assert (out / run["result"]).exists()
        assert all((out / name / figure).exists() for figure in run["figures"])
    return {name: run["provenance"] for name, run in done.items()}


def same_again(text: str) -> list[Any]:
    """What does not depend on the clock."""
    made = json.loads(text)
    assert made["complete"]
    return [made["claims"], [(run["name"], run["digest"], run["figures"]) for run in made["runs"]]]


@pytest.mark.slow
def test_ctrl_c_is_one_line_that_says_how_to_go_on(tmp_path):
    out = tmp_path / "my out"
    process = started(out)
    limit = time.monotonic() + 40
    while not (out / NAMES[0] / "result.json").exists() and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    code, printed, said = ended(process)
    assert (code, printed, len(said)) == (130, "", 1), said
    done = check_whatever_is_there(out)
    assert said == [
        f"gpunet: interrupted; {len(done)} of 3 runs are finished and kept in {out}, "
        f"`gpunet reproduce --quick --device numpy --out '{out}' --json` goes on"
    ]


@pytest.mark.slow
def test_kills_at_random_moments(tmp_path):
    code, undisturbed, _ = ended(started(tmp_path / "undisturbed"))
    assert code == 0
    moments, out = random.Random(8), tmp_path / "out"
    before: dict[str, Any] = {}
    for _ in range(12):
        process = started(out)
        time.sleep(moments.uniform(0.2, 4.0))
        process.kill()
        ended(process)
        after = check_whatever_is_there(out)
        assert after == after | before, "what was finished has been run again"
        before = after
    code, printed, said = ended(started(out))
    assert (code, said) == (0, [])
    made = json.loads(printed)
    assert {run["name"]: run["provenance"] for run in made["runs"]}.items() >= before.items()
    assert same_again(printed) == same_again(undisturbed)
