"""Processes killed at random moments: nothing finished is lost, nothing is left over, and the end is the same.

`python -m tests.hostile.kills --count 20 [--what run,reproduce,sweep,fit,fetch] [--signals KILL,TERM,HUP,INT]`

Each job is killed `count` times by each signal: INT goes to the whole group, as from a terminal, the others to the
process alone. A fifth of the moments lies in the first 100 ms, two fifths where files are being written, the others
anywhere. Every few kills the job is left alone: then it must end well, with the same result and the same files as one
that nobody has disturbed. The table counts what went wrong; a line of each stands above it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.datasets.mirror import Mirror
from tests.hostile import jobs

ROOT = Path(__file__).parents[2]
SIGNALS = ("KILL", "TERM", "HUP", "INT")
EVERY = 10  # kills between two undisturbed ends
MARK = "GPUNET_TEST_KILLS"  # an environment variable by which a job's processes are known
ENDS, ORPHANS = 30.0, 15.0  # seconds for a killed process to end, and for those that it had started
Kept = dict[str, Any]


@dataclass
class Job:
    """How one is started, what is finished in its folder so far, and its result at the end."""

    command: Callable[[Path], list[str]]
    kept: Callable[[Path], Kept]
    result: Callable[[Path, str], Any]


def _gpunet(*arguments: object) -> list[str]:
    code = "import sys; from gpunet.cli import main; sys.exit(main())"
    return [sys.executable, "-c", code, *map(str, arguments)]


def _result_json(path: Path) -> dict[str, Any]:
    """Rows and verdicts, without what depends on the clock; raises where it is not whole."""
    made = json.loads(path.read_text())
    rows = {
        row["name"]: {name: each["values"] for name, each in row["metrics"].items() if "seconds" not in name}
        for row in made["rows"]
    }
    return {"rows": rows, "settings": {k: v for k, v in made["settings"].items() if k != "storage"}}


def _run() -> Job:
    def kept(folder: Path) -> Kept:
        path = folder / "result.json"
        return {"result": _result_json(path)} if path.exists() else {}

    return Job(
        lambda folder: _gpunet(
            "run", "svd-init", "--dataset", "digits", "--epochs", 1, "--device", "numpy", "--out", folder
        ),
        kept, lambda folder, _: _result_json(folder / "result.json"),
    )  # fmt: skip


def _reproduce() -> Job:
    def document(folder: Path) -> dict[str, Any]:
        path = folder / "claims.json"
        return json.loads(path.read_text()) if path.exists() else {"runs": []}

    def kept(folder: Path) -> Kept:
        done = {run["name"]: run["provenance"] for run in document(folder)["runs"] if run["state"] == "finished"}
        for name in done:
            _result_json(folder / name / "result.json")
        return done

    def result(folder: Path, _: str) -> Any:
        made = document(folder)
        names = [run["name"] for run in made["runs"]]
        return made["complete"], {name: _result_json(folder / name / "result.json")["rows"] for name in names}

    return Job(
        lambda folder: [sys.executable, "-m", "tests.hostile.jobs", "reproduce", str(folder)], kept, result
    )  # fmt: skip


def _sweep(journal: bool) -> Job:
    def url(folder: Path) -> str:
        return f"journal:///{folder}/sweep.log" if journal else f"sqlite:///{folder}/sweep.db"

    def kept(folder: Path) -> Kept:
        from gpunet.errors import InputError
        from gpunet.sweep.storage import opened
        from gpunet.sweep.study import SweepStudy

        if not any(folder.glob("sweep.*")):
            return {}
        try:
            with opened(url(folder)) as storage:
                return {str(row["number"]): row["value"] for row in SweepStudy.join(storage, "it").look()}
        except InputError as error:
            if "holds no sweep" in str(error):  # killed before there was one
                return {}
            raise

    return Job(
        lambda folder: _gpunet(
            "sweep", "train", "--param", "learning_rate=log:1e-4..1e-1", "--param", "hidden=int:4..32", "--trials", 8,
            "--stages", 1, "--epochs", 2, "--workers", 2, "--device", "numpy", "--storage", url(folder),
            "--out", folder,
        ),
        kept, lambda folder, _: _result_json(folder / "result.json"),
    )  # fmt: skip


def _fit() -> Job:
    def kept(folder: Path) -> Kept:
        from gpunet.nn.checkpoint import FILE, load

        return {"step": load(folder / FILE)[1]["step"]} if (folder / FILE).exists() else {}

    return Job(
        lambda folder: [sys.executable, "-m", "tests.hostile.jobs", "fit", str(folder)], kept, lambda _, said: said
    )  # fmt: skip


def _fetch(mirror: str) -> Job:
    def kept(folder: Path) -> Kept:
        found = (path for path in folder.rglob("*.bin") if not path.name.startswith("."))
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}

    def result(folder: Path, _: str) -> Any:
        contents = kept(folder)
        return {name: contents[f"{'boxed' if '/' in name else 'single'}/{name}"] == jobs.plain()[name]
                for name in jobs.plain()}  # fmt: skip

    return Job(
        lambda folder: [sys.executable, "-m", "tests.hostile.jobs", "fetch", str(folder), mirror], kept, result
    )  # fmt: skip


WHAT: dict[str, Callable[[str], list[Job]]] = {
    "run": lambda _: [_run()], "reproduce": lambda _: [_reproduce()], "sweep": lambda _: [_sweep(False), _sweep(True)],
    "fit": lambda _: [_fit()], "fetch": lambda mirror: [_fetch(mirror)],
}  # fmt: skip


@dataclass
class Row:
    """What was seen of one job and one signal."""

    what: str
    signal: str
    kills: int = 0
    ends: int = 0
    codes: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    traceback: int = 0

    def __str__(self) -> str:
        codes = ", ".join(f"{code}: {count}" for code, count in sorted(self.codes.items()))
        counts = f"{self.kills:>5} {self.ends:>5} {len(self.wrong):>5} {self.traceback:>10}"
        return f"{self.what:<10} {self.signal:<6} {counts}  {codes}"


@dataclass
class Process:
    """A started job."""

    popen: subprocess.Popen[str]
    mark: str

    def ended(self, seconds: float) -> tuple[int | None, str, str]:
        """Exit code (None: it did not end), standard output and standard error."""
        try:
            out, err = self.popen.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            out, err = self.popen.communicate()
            return None, out, err
        return self.popen.returncode, out, err

    def orphans(self) -> list[int]:
        """The processes that it started and that still run."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    if f"{MARK}={self.mark}\0".encode() in (entry / "environ").read_bytes():
                        found.append(int(entry.name))
                except OSError:
                    continue
        return found


def start(command: list[str]) -> Process:
    """In a group of its own, with Ctrl-C as a terminal gives it."""
    mark = f"{os.getpid()}-{time.time_ns()}"
    environment = os.environ | {MARK: mark, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    popen = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment,
        start_new_session=True, preexec_fn=_as_from_a_terminal,
    )  # fmt: skip
    return Process(popen, mark)


def _as_from_a_terminal() -> None:
    """No signal is ignored, whatever this process was started by: nohup, say."""
    for name in SIGNALS[1:]:
        signal.signal(getattr(signal, f"SIG{name}"), signal.SIG_DFL)


def files(folder: Path) -> list[str]:
    """All there are, and links and empty folders with them."""
    found = [path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink() or not any(path.iterdir())]
    return sorted(path.relative_to(folder).as_posix() for path in found)


def _wait(process: Process, folder: Path, moment: str, seconds: float, moments: random.Random) -> None:
    """Until the moment of the kill, or the end of the process."""
    limit = time.monotonic() + {"early": moments.uniform(0, 0.1), "any": moments.uniform(0, seconds)}.get(moment, 60.0)
    seen = files(folder)
    nth = moments.randrange(1, 6)  # which of its changes to the folder is waited for
    while time.monotonic() < limit and process.popen.poll() is None:
        if moment == "writing" and (now := _files_or(folder, seen)) != seen:
            seen, nth = now, nth - 1
            if not nth:
                time.sleep(moments.uniform(0, 0.02))
                return
        time.sleep(0.0005 if moment == "writing" else 0.002)


def _files_or(folder: Path, seen: list[str]) -> list[str]:
    try:
        return files(folder)
    except OSError:  # one was renamed meanwhile
        return seen


def campaign(what: str, name: str, count: int, seed: int, log: Callable[[str], None]) -> Row:
    """One job, killed `count` times by one signal."""
    row, moments = Row(what, name), random.Random(f"{what} {name} {seed}")
    with tempfile.TemporaryDirectory(prefix="gpunet-kills-") as base, _mirror(what) as mirror:
        variants = WHAT[what](mirror)
        undisturbed = [_undisturbed(what, i, job, Path(base) / "undisturbed") for i, job in enumerate(variants)]
        turn = 0
        while row.kills < count and turn < 10 * count:
            at = turn % len(variants)
            job, (seconds, result, there) = variants[at], undisturbed[at]
            folder = Path(base) / f"{at}" / str(turn // 2 if what == "run" else turn)
            folder.mkdir(parents=True, exist_ok=True)
            before: Kept = job.kept(folder)
            for _ in range(min(EVERY, count - row.kills)):
                moment = moments.choice(["early", "writing", "writing", "any", "any"])
                before = _kill(row, job, folder, moment, seconds, moments, before)
            _end(row, job, folder, result, there)
            turn += 1
    for line in row.wrong:
        log(f"{what} {name}: {line}")
    log(str(row))
    return row


@contextmanager
def _mirror(what: str) -> Iterator[str]:
    if what != "fetch":
        yield ""
        return
    mirror = Mirror(jobs.sent(), pause=0.02)
    try:
        yield mirror.url
    finally:
        mirror.close()


UNDISTURBED: dict[tuple[str, int], tuple[float, Any, list[str]]] = {}


def _undisturbed(what: str, variant: int, job: Job, folder: Path) -> tuple[float, Any, list[str]]:
    """Seconds, result and files; looked at once for all signals."""
    if (what, variant) not in UNDISTURBED:
        folder = folder / str(variant)
        folder.mkdir(parents=True)
        began = time.monotonic()
        code, out, err = start(job.command(folder)).ended(300)
        seconds = time.monotonic() - began
        assert code == 0, err
        UNDISTURBED[what, variant] = seconds, job.result(folder, out), files(folder)
    return UNDISTURBED[what, variant]


def _kill(
    row: Row, job: Job, folder: Path, moment: str, seconds: float, moments: random.Random, before: Kept
) -> Kept:  # fmt: skip
    process, number = start(job.command(folder)), getattr(signal, f"SIG{row.signal}")
    _wait(process, folder, moment, seconds, moments)
    if killed := process.popen.poll() is None:
        (os.killpg if row.signal == "INT" else os.kill)(process.popen.pid, number)
    code, _, err = process.ended(ENDS)
    if code is None:
        row.wrong.append(f"did not end within {ENDS:g} s ({moment})")
    if killed:
        row.kills += 1
        row.codes[code or 0] += 1
        row.traceback += "Traceback" in err
    limit = time.monotonic() + ORPHANS
    while (left := process.orphans()) and time.monotonic() < limit:
        time.sleep(0.05)
    if left:
        row.wrong.append(f"{len(left)} processes outlived it ({moment})")
        for pid in left:
            os.kill(pid, signal.SIGKILL)
    try:
        after = job.kept(folder)
    except Exception as error:
        row.wrong.append(f"what it left cannot be read: {type(error).__name__}: {error} ({moment})")
        return before
    lost = [key for key, value in before.items() if not _still(key, value, after)]
    if lost:
        row.wrong.append(f"lost: {', '.join(lost)} ({moment})")
    return after


def _still(key: str, value: Any, after: Kept) -> bool:
    if key not in after:
        return False
    return bool(after[key] >= value) if key == "step" else bool(after[key] == value)


def _end(row: Row, job: Job, folder: Path, result: Any, there: list[str]) -> None:
    """Left alone."""
    left = [name for name in files(folder) if name not in there]
    code, out, err = start(job.command(folder)).ended(300)
    row.ends += 1
    last = err.strip().splitlines()[-1:] or [""]
    if code != 0:
        row.wrong.append(f"did not go on: exit code {code}: {last[0]}; left by the kills: {left}")
        return
    if (found := job.result(folder, out)) != result:
        row.wrong.append(f"another result: {str(found)[:300]}, expected {str(result)[:300]}")
    if (now := files(folder)) != there:
        row.wrong.append(f"left over: {sorted(set(now) - set(there))}, missing: {sorted(set(there) - set(now))}")


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 1 where something went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20, help="kills of each job by each signal")
    parser.add_argument("--what", default=",".join(WHAT), help="jobs, by comma")
    parser.add_argument("--signals", default=",".join(SIGNALS), help="signals, by comma")
    parser.add_argument("--seed", type=int, default=0, help="decides the moments")
    parser.add_argument("--together", type=int, default=1, help="how many are killed side by side")
    options = parser.parse_args(arguments)
    lock = threading.Lock()

    def log(line: str) -> None:
        with lock:
            print(line, flush=True)

    pairs = [(what, name) for name in options.signals.split(",") for what in options.what.split(",")]
    with ThreadPoolExecutor(options.together) as pool:
        rows = list(pool.map(lambda pair: campaign(*pair, options.count, options.seed, log), pairs))
    print(f"{'job':<10} {'signal':<6} {'kills':>5} {'ends':>5} {'wrong':>5} {'tracebacks':>10}  exit codes")
    for row in rows:
        print(row)
    return int(any(row.wrong or row.kills < options.count for row in rows))


if __name__ == "__main__":
    sys.exit(main())
