"""Several workers on this machine, each in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpunet.errors import InputError, RunError
from gpunet.interrupts import undivided
from gpunet.sweep.board import Board, Look
from gpunet.sweep.worker import PATIENCE, THREADS

PROCESS = str(Path(__file__).with_name("process.py"))  # a file: with -m the current folder would come first
POLL = 0.3  # seconds between looks


def work(board: Board, url: str, workers: int, keep_going: bool, on_look: Callable[[Look], None]) -> None:
    """Start so many workers, watch them until every trial is finished, and leave none behind.

    Raises what a worker ended with, and RunError when the last one is gone before that.
    """
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(workers):
            with undivided():  # what has been started is stopped
                processes.append(_start(url, keep_going))
        killed = 0
        while True:
            ended = [process for process in processes if process.poll() is not None]
            with undivided():
                look = board.look()  # after: the workers that have ended by themselves have finished the last trial
            on_look(look)
            if not look.stage:
                return
            for process in ended:
                _raise_what_it_told(process)
            if len(ended) == len(processes):
                raise RunError(_all_gone(look, ended[-1].returncode))
            if len(ended) > killed:
                killed = len(ended)
                code = ended[-1].returncode
                warnings.warn(f"{killed} of {workers} workers {_ended(code)}; the others go on", RuntimeWarning, 2)
            time.sleep(POLL)
    finally:
        with undivided():
            _stop(processes)


def _start(url: str, keep_going: bool) -> subprocess.Popen[bytes]:
    environment = dict.fromkeys(THREADS, "1") | os.environ
    orders = {"storage": url, "keep_going": keep_going, "path": _path()}
    process = subprocess.Popen(
        [sys.executable, "-P", PROCESS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment,
        start_new_session=True,  # Ctrl-C reaches us alone, and we tell them
    )  # fmt: skip
    assert process.stdin
    with contextlib.suppress(BrokenPipeError):  # it has died already, which is seen later
        process.stdin.write(json.dumps(orders).encode() + b"\n")
        process.stdin.flush()
    return process


def _path() -> list[str]:
    """Where modules are looked for, last in the current folder: a random.py that lies there is not Python's.

    Not so where our own package lies there, in a checkout: a worker runs the same code as who starts it.
    """
    try:
        here = os.path.realpath(os.curdir)
    except OSError:  # it is gone
        return [each for each in sys.path if each]
    if Path(PROCESS).resolve().parents[2] == Path(here):
        return [each or here for each in sys.path]
    return sorted((each or here for each in sys.path), key=lambda each: os.path.realpath(each) == here)


def _raise_what_it_told(process: subprocess.Popen[Any]) -> None:
    assert process.stdout
    if process.stdout.closed:
        return
    with process.stdout:
        said = process.stdout.read()
    if said:
        error = json.loads(said)
        raise (InputError if error["input"] else RunError)(error["message"])


def _ended(code: int) -> str:
    return f"ended by signal {-code}" if code < 0 else f"ended with exit code {code}"


def _all_gone(look: Look, code: int) -> str:
    running = [f"trial {t.user_attrs['number']} {json.dumps(t.params)}" for t in look.running]
    ran = f" while running {', '.join(running)}" if running else ""
    return f"no worker is left, the last {_ended(code)}{ran}; the same command goes on where it stopped"


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """Tell them to stop, give them a moment to hand back what they run, and kill what has not heard."""
    for process in processes:
        assert process.stdin
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
    limit = time.monotonic() + PATIENCE + 1
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, limit - time.monotonic()))
        process.kill()
        process.wait()
        assert process.stdout
        process.stdout.close()
