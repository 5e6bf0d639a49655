"""Many mutated files for every reader of the library, each of which has to be read rightly or refused in one line.

    python -m tests.hostile.mutated_files --count 40000 --seed 0 --jobs 2
    python -m tests.hostile.mutated_files --again 123 --seed 0      one case, with its traceback

Findings are: an error that is no `GpunetError` of one printable line that names the file; a process that died, took
more than 1 GB or more than 20 s; and data that is not what stands in the file.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SECONDS, GROWTH = 20.0, 1 << 30
ROOT = Path(__file__).parents[2]


def chosen(table: list[Any], seed: int, number: int) -> tuple[Any, random.Random]:
    """The reader of a case, and where it draws from."""
    rng = random.Random(f"{seed} {number}")
    return rng.choices(table, [each.weight for each in table])[0], rng


def examine(reader: Any, rng: random.Random, folder: Path, debug: bool = False) -> tuple[str, str]:
    """Mutate one file and read it: ("loaded" or "refused", "") or ("finding", what is wrong)."""
    from gpunet.errors import GpunetError

    from .mutations import REPAIRED
    from .readers import in_png, same

    files, other = _content(reader.name, reader.files)
    target, change = rng.choice(reader.targets), rng.choice(reader.changes)
    content = change(rng, files[target], [other[target]] if target in other else [])
    if content in (files[target], other.get(target)):
        return "unchanged", ""
    shutil.rmtree(folder, ignore_errors=True)
    for name, each in (files | {target: content}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(each)
    what = f"{reader.name}, {change.__name__} of {target}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", ResourceWarning)
            # Results that no experiment has written have no figures: that is one warning, as it should be.
            warnings.filterwarnings("ignore", ".*could not be drawn, all else is there", RuntimeWarning)
            loaded = reader.load(folder)
    except GpunetError as error:
        if debug:
            traceback.print_exc()
        return _judged(str(error), folder, target, what)
    except BaseException as error:
        if debug:
            traceback.print_exc()
        return "finding", f"{what}: {type(error).__name__}: {str(error)[:200]!r}"
    if loaded is None:
        return "loaded", ""
    repaired = change in (*REPAIRED, in_png)
    if reader.protected and not repaired:
        if not same(loaded, _original(reader, folder)):
            return "finding", f"{what}: loaded as other data than before"
    elif reader.expected is not None:
        try:
            expected = reader.expected(folder)
        except Exception as error:
            return "finding", f"{what}: loaded what another reader refuses: {type(error).__name__}: {error}"[:300]
        if not same(loaded, expected):
            return "finding", f"{what}: loaded as other data than stands there"
    return "loaded", ""


def _judged(text: str, folder: Path, target: str, what: str) -> tuple[str, str]:
    if not text or not text.isprintable() or len(text) > 1000:
        return "finding", f"{what}: the message is no line: {text[:200]!r}"
    names = (str(folder), *Path(target).parts)
    if not any(name in text for name in names):
        return "finding", f"{what}: the message names no file: {text[:200]!r}"
    return "refused", ""


_FILES: dict[str, Any] = {}
_ORIGINALS: dict[str, Any] = {}


def _content(name: str, files: Any) -> Any:
    if name not in _FILES:
        _FILES[name] = files(0), files(1)
    return _FILES[name]


def _original(reader: Any, folder: Path) -> Any:
    """What the reader makes of the files as they were."""
    if reader.name not in _ORIGINALS:
        shutil.rmtree(folder, ignore_errors=True)
        for name, each in _content(reader.name, reader.files)[0].items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(each)
        _ORIGINALS[reader.name] = reader.load(folder)
    return _ORIGINALS[reader.name]


# -- in processes of their own ----------------------------------------------------------------------------------------


def work(seed: int, numbers: range, only: str) -> None:
    """Examine these cases, and tell of each when it begins and how it ends."""
    from .readers import readers

    table = [each for each in readers() if only in each.name]
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory() as name:
        for reader in table:  # its files, before the memory is measured
            _original(reader, Path(name) / "case")
        base = _peak()
        for number in numbers:
            out.write(json.dumps(["begin", number]) + "\n")
            reader, rng = chosen(table, seed, number)
            kind, said = examine(reader, rng, Path(name) / "case")
            if _peak() > base + GROWTH:
                out.write(
                    json.dumps(
                        ["end", number, reader.name, "finding", f"{reader.name}: took {(_peak() - base) >> 20} MB"]
                    )
                    + "\n"
                )
                return
            out.write(json.dumps(["end", number, reader.name, kind, said]) + "\n")


def _peak() -> int:
    """The most memory that this process or one that it started has held."""
    return 1024 * max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def watched(seed: int, numbers: range, only: str) -> Iterator[list[Any]]:
    """The ends of all cases; what a process cannot tell, since it died or hangs, is told for it."""
    while numbers:
        command = [sys.executable, "-m", "tests.hostile.mutated_files", "--seed", str(seed), "--only", only]
        process = subprocess.Popen(
            [*command, "--worker", str(numbers.start), str(numbers.stop)], stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, cwd=ROOT, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )  # fmt: skip
        assert process.stdout
        at, hung = [time.monotonic() + 60], threading.Event()

        def watch(process: subprocess.Popen[str] = process, at: list[float] = at, hung: threading.Event = hung) -> None:
            while process.poll() is None:
                crowd = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))  # others that want the same cores
                if time.monotonic() > at[0] + SECONDS * crowd:
                    hung.set()
                    process.kill()
                time.sleep(0.5)

        threading.Thread(target=watch, daemon=True).start()
        last = numbers.start - 1
        begun = last
        for line in process.stdout:
            at[0] = time.monotonic()
            found = json.loads(line)
            if found[0] == "begin":
                begun = found[1]
            else:
                last = found[1]
                yield found
        process.stdout.close()
        code = process.wait()
        if begun > last or (code and last < numbers.stop - 1):
            last = max(begun, last + 1)
            how = f"took more than {SECONDS:.0f} s" if hung.is_set() else f"died with {code}"
            yield ["end", last, "?", "finding", f"the process {how}"]
        numbers = range(last + 1, numbers.stop)


def run(count: int, seed: int = 0, jobs: int = 1, only: str = "", say: Any = None) -> tuple[list[str], Counter[str]]:
    """The findings, each with the number that reproduces it, and how many cases ended how."""
    findings: list[str] = []
    counts: Counter[str] = Counter()
    parts = [range(count * i // jobs, count * (i + 1) // jobs) for i in range(jobs)]

    def go(part: range) -> None:
        for _, number, reader, kind, said in watched(seed, part, only):
            counts[f"{reader}: {kind}"] += 1
            counts[kind] += 1
            if kind == "finding":
                findings.append(f"{number}: {said}")
                if say:
                    say(findings[-1])

    threads = [threading.Thread(target=go, args=(part,)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return findings, counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=40000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="", help="readers whose name has this in it")
    parser.add_argument("--again", type=int, nargs="+", default=[])
    parser.add_argument("--worker", type=int, nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        work(asked.seed, range(*asked.worker), asked.only)
        return 0
    if asked.again:
        from .readers import readers

        table = [each for each in readers() if asked.only in each.name]
        for number in asked.again:
            reader, rng = chosen(table, asked.seed, number)
            print(number, reader.name, flush=True)
            print(*examine(reader, rng, Path(tempfile.mkdtemp()) / "case", debug=True))
        return 0
    began = time.monotonic()
    findings, counts = run(asked.count, asked.seed, asked.jobs, asked.only, print)
    for name, number in sorted(counts.items()):
        print(f"{number:8} {name}")
    print(f"{len(findings)} findings in {asked.count} files, {time.monotonic() - began:.0f} s, seed {asked.seed}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
