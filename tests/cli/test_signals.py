"""Signals: one line, the right exit code, nothing left running, and the cursor is back."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time

import pytest

from .runner import command

BEGIN = """
import os, signal, sys, time
from gpunet.cli import process
number = int(sys.argv[1])
process.leave_when_told()
streams = process.Streams(json=False)
process.stop_when_told()
def stop(): os.kill(os.getpid(), number)
def end():
    code, line = process.interrupted()
    print(line)
    streams.lost()
    streams.end(code)
"""
SWALLOWED = """
try:
    stop()
except KeyboardInterrupt:  # what compiled code does that clears errors
    pass
try:
    time.sleep(20)
except KeyboardInterrupt:
    end()
"""
PRINTED = """
try:
    stop()
except KeyboardInterrupt:  # what NumPy's `import_array` does, which prints and raises an error of its own
    sys.excepthook(*sys.exc_info())
try:
    time.sleep(20)
except KeyboardInterrupt:
    end()
"""
IN_A_CALLBACK = """
class Thing:
    def __del__(self): stop()
Thing()
try:
    time.sleep(20)
except KeyboardInterrupt:
    end()
"""
HALF_MADE = """
class Half:
    def __init__(self):
        stop()
        self.made = True
    def __del__(self): self.made
try:
    Half()
    time.sleep(20)
except KeyboardInterrupt:
    end()
"""
WHILE_CLEANING_UP = """
try:
    try:
        stop()
        time.sleep(20)
    finally:
        for _ in range(3):
            stop()
            time.sleep(0.15)
        print("cleaned up")
except KeyboardInterrupt:
    stop()
    end()
"""
WHEN_IT_HAS_ENDED = """
class Late:
    def isatty(self): stop(); return False
    def write(self, text): pass
    flush = write
process.received, streams.stderr = number, Late()
end()
"""
SIGNALS = [
    (signal.SIGINT, 130, "interrupted;"),
    (signal.SIGTERM, 143, "interrupted by SIGTERM;"),
    (signal.SIGHUP, 129, "interrupted by SIGHUP;"),
]


def default() -> None:
    """As a shell starts what does not run in the background."""
    for number, _, _ in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def child(code: str, number: int, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, str(int(number))], capture_output=True, text=True, timeout=30, check=False,
        **({"preexec_fn": default} | options),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("what", "before"),
    [
        (SWALLOWED, ""),
        (PRINTED, ""),
        (IN_A_CALLBACK, ""),
        (HALF_MADE, ""),
        (WHILE_CLEANING_UP, "cleaned up\n"),
        (WHEN_IT_HAS_ENDED, ""),
    ],
    ids=["swallowed", "printed", "in a callback", "half made", "while cleaning up", "when it has ended"],
)
def test_no_interruption_is_lost_and_none_disturbs_another(what, before):
    number, code, line = SIGNALS[len(what) % 3]
    done = child(BEGIN + what, number)
    assert done.stdout == f"{before}{line} nothing half-written was left behind\n"
    assert (done.returncode, done.stderr) == (code, "")


@pytest.mark.parametrize(("number", "code", "line"), SIGNALS)
def test_before_the_command_has_begun(number, code, line):
    done = child(BEGIN.replace("process.stop_when_told()\n", "") + "stop()\ntime.sleep(20)", number)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr == f"gpunet: {line} nothing half-written was left behind\n"


def test_what_nohup_ignores_stays_ignored():
    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    done = child(BEGIN + "stop()\nprint('goes on')\nstreams.lost()", signal.SIGHUP, preexec_fn=ignore)
    assert (done.returncode, done.stdout, done.stderr) == (0, "goes on\n", "")


def on_a_terminal(arguments: list[object], numbers: list[int], begun: bytes) -> tuple[int, str, list[int]]:
    """Exit code, all that was shown, and the workers that it had; the signals come when `begun` is shown."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        command(*arguments), stdin=slave, stdout=slave, stderr=slave, start_new_session=True, preexec_fn=default,
        env=os.environ | {"TERM": "xterm", "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    os.close(slave)
    shown, workers, limit, left = b"", [], time.monotonic() + 60, list(numbers)
    try:
        while time.monotonic() < limit:
            if select.select([master], [], [], 0.05)[0]:
                try:
                    shown += os.read(master, 65536)
                except OSError:  # the other end is closed
                    break
            if left and begun in shown:
                with open(f"/proc/{process.pid}/task/{process.pid}/children") as children:
                    workers += map(int, children.read().split())
                process.send_signal(left.pop(0))
        return process.wait(30), shown.decode(errors="replace"), workers
    finally:
        process.kill()
        process.wait()
        os.close(master)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
@pytest.mark.parametrize("workers", [0, 2], ids=["run", "sweep"])
@pytest.mark.parametrize(("number", "code", "line"), SIGNALS)
def test_the_cursor_comes_back(own, tmp_path, number, code, line, workers):
    run = ["run", "svd-init", "-d", own, "-o", tmp_path / "out", "--device", "numpy", "--epochs", 100_000]
    if workers:
        run = ["sweep", "train", "-d", own, "-p", "hidden=int:2..9", "--epochs", 1_000_000, "--workers", workers,
               "-o", tmp_path / "out", "--device", "numpy"]  # fmt: skip
    ended, shown, children = on_a_terminal(run, [number] * 2, b"\x1b[?25l")
    assert ended == code, shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
    assert shown.count(f"gpunet: {line}") == 1
    assert "Traceback" not in shown
    assert len(children) >= workers
    for worker in children:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)


@pytest.mark.slow
def test_ctrl_c_while_all_is_imported(own, tmp_path):
    """From when our first line has run; what comes before, while Python itself starts, no package can catch."""
    arguments = command("run", "svd-init", "-d", own, "-o", tmp_path / "out", "--epochs", 100_000)
    code = (
        "import sys\nfrom gpunet.cli import main, process\nlisten = process.leave_when_told\n"
        "process.leave_when_told = lambda: (listen(), print(flush=True))\n"
        "sys.argv = sys.argv[1:]\nmain()"
    )
    for moment in range(0, 600, 40):
        process = subprocess.Popen([sys.executable, "-c", code, *arguments[1:]], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True, preexec_fn=default)  # fmt: skip
        try:
            assert process.stdout
            process.stdout.readline()
            time.sleep(moment / 1000)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
        finally:
            process.kill()
        said = [line for line in err.splitlines() if not line.startswith("svd-init ")]
        assert (process.returncode, len(said)) == (130, 1), (moment, err)
