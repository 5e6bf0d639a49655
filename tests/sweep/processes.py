"""Sweeps in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from .functions import BOWL, SPACE

ROOT = Path(__file__).parents[2]
PARAMS = [word for parameter in SPACE for word in ("--param", parameter.text)]


def gpunet(*arguments: object, stderr=subprocess.PIPE) -> subprocess.Popen[str]:
    """The command line, in a group of its own."""
    from ..cli.runner import SCRIPT

    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *map(str, arguments)], stdout=subprocess.PIPE, stderr=stderr, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip


def sweep(storage: str, *options: object, trials: int = 12, seed: int = 0, **kwargs) -> subprocess.Popen[str]:
    """A sweep over the bowl."""
    return gpunet(
        "sweep", "function", BOWL, *PARAMS, "--storage", storage, "--trials", trials, "--seed", seed, "--out", "out",
        *options, **kwargs,
    )  # fmt: skip


def children(process: subprocess.Popen[str]) -> list[int]:
    """The workers that it has started."""
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in found.read_text().split()] if found.exists() else []


def alive(pid: int) -> bool:
    """Whether a process runs; one that waits for its parent to look does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_until(true, seconds: float = 30.0) -> bool:
    """Whether it became true in time."""
    limit = time.monotonic() + seconds
    while not (found := true()) and time.monotonic() < limit:
        time.sleep(0.01)
    return bool(found)


def ended(process: subprocess.Popen[str], seconds: float = 60.0) -> tuple[int, str, str]:
    """Exit code, standard output, standard error; killed where it does not end."""
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        process.kill()
        process.wait()
    return process.returncode, out, err


def said(err: str) -> list[str]:
    """Lines on standard error that are no progress of a sweep."""
    return [line for line in err.splitlines() if not line.startswith("sweep stage ")]


def begun(log: Path) -> list[tuple[str, str, int]]:
    """What the function noted: word, the trial's seed, process."""
    lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
    return [(word, seed, int(pid)) for word, seed, pid in lines]
