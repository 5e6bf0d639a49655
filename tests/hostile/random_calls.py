"""Random calls of everything public, mostly right, with one or more values that nobody should have to expect.

    python -m tests.hostile.random_calls --count 1000 --seed 0

Each call either works or raises a GpunetError whose message is one printable line. Anything else is a finding: another
exception, a warning, a crash, more than ten seconds, more than a gigabyte. Estimators may say what scikit-learn says of
X and y, by ValueError, TypeError and its own warnings: its checks ask for these. They run in a child process, which is
started again after a crash. Every finding is printed with the options that make it again.

Doors are functions, constructors, the methods that users call, and every attribute that can be set, of objects that are
new and of such as are in use; what is set is used then. No doors are the calls between the library's own parts, which
are handed what a door has checked and do not look again: a backend's operations, the hooks of callbacks, the methods of
losses, a layer's spec, attach, bind, use, forward and backward, and `Trainer.restore`, a checkpoint's.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sklearn.base import BaseEstimator
from sklearn.exceptions import DataConversionWarning

from gpunet.errors import LONGEST, GpunetError
from tests.hostile.calls import Target, call, needed, targets, value
from tests.hostile.pool import TENSORS, VALUES

SECONDS, GROWTH = 10, 1 << 30
ROOM = 6 << 30  # of addresses beyond those in use when the calls begin, so that a mistake does not take the machine


class Slow(BaseException):
    """A call took too long."""


def wrong(target: Target, seed: int, number: int, light: bool = False) -> tuple[dict[str, Any], list[str]]:
    """The values of one call, and which of them are wrong, in words."""
    draw = random.Random(f"{target.name} {seed} {number}")
    names = [name for name in target.parameters if needed(target, name) or draw.random() < 0.3]
    spoilt = set(draw.sample(list(target.parameters), min(len(target.parameters), draw.choice([1, 1, 1, 1, 2, 2, 3]))))
    values, told = {}, []
    for name in target.parameters:
        if name in spoilt:
            kind = draw.choice(list(VALUES))
            if light and kind in TENSORS:
                kind = "what raises"
            values[name] = VALUES[kind]()
            told.append(f"{name} = {kind}")
        elif name in names:
            values[name] = value(target, name)
    return values, told


def outcome(target: Target, values: dict[str, Any], ready: bool = True) -> str:
    """What is wrong with how the call ended; "" where nothing is."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call(target, values, ready)
    except GpunetError as error:
        said = str(error)
        if not said or not said.isprintable() or len(said) > LONGEST:
            return f"{type(error).__name__}: its message is not a line: {said[:200]!r}"
    except Slow:
        return f"took more than {SECONDS} s"
    except Exception as error:
        if isinstance(error, (ValueError, TypeError)) and of_scikit_learn(target, error):
            return ""
        place = traceback.extract_tb(error.__traceback__)[-1]
        ours = [each for each in traceback.extract_tb(error.__traceback__) if "/tests/" not in each.filename]
        where = f"{Path(place.filename).name}:{place.lineno}"
        if ours:
            where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}, from " + " ".join(
                f"{Path(each.filename).name}:{each.lineno}" for each in ours[:-1][-4:]
            )
        try:
            return f"{type(error).__name__}: {str(error)[:150]!r} at {where}"
        except Exception:
            return f"{type(error).__name__} at {where}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    theirs = target.owner is not None and issubclass(target.owner, BaseEstimator)
    usual = (UserWarning, DataConversionWarning) if theirs else (UserWarning,)  # ours say what was left undone
    unexpected = [each for each in caught if each.category not in usual]
    if unexpected:
        return f"warned: {unexpected[0].category.__name__}: {str(unexpected[0].message)[:150]!r}"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    return f"took {grown / (1 << 30):.1f} GiB" if grown > GROWTH else ""


def of_scikit_learn(target: Target, error: BaseException) -> bool:
    """Whether it was raised while scikit-learn looked at what an estimator was given."""
    if target.owner is None or not issubclass(target.owner, BaseEstimator):
        return False
    return any("/sklearn/utils/" in each.filename for each in traceback.extract_tb(error.__traceback__))


def child(plan: Sequence[tuple[str, int]], seed: int, light: bool) -> None:
    """Make the calls, saying on standard output which comes next and what was found."""
    talk = os.fdopen(os.dup(1), "w", buffering=1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)

    def late(*args: Any) -> None:
        raise Slow

    def nowhere(*args: Any, **kwargs: Any) -> Any:
        raise OSError("no network here")

    signal.signal(signal.SIGALRM, late)
    socket.socket.connect = socket.getaddrinfo = nowhere  # type: ignore[method-assign, assignment]
    known = targets()
    used = (
        int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() if Path("/proc").exists() else 0
    )
    for place, (name, number) in enumerate(plan):
        if place == 0 and used:
            resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, used + ROOM))
        talk.write(json.dumps({"next": place}) + "\n")
        values, told = wrong(known[name], seed, number, light)
        if found := outcome(known[name], values, ready=number % 5 > 0):  # now and then on what is not ready
            talk.write(json.dumps({"finding": place, "what": found, "told": told}) + "\n")
    talk.write(json.dumps({"next": len(plan)}) + "\n")


def findings(plan: Sequence[tuple[str, int]], seed: int, light: bool = False) -> Iterator[tuple[str, int, str]]:
    """(target, number, what) of every finding, from as many children as it takes; light: without PyTorch's tensors."""
    start = 0
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([os.getcwd(), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "GPUNET_DATA": folder, "OPENBLAS_NUM_THREADS": "1",
        }  # fmt: skip
        while start < len(plan):
            with subprocess.Popen(
                [sys.executable, "-m", "tests.hostile.random_calls", "--child", "--seed", str(seed),
                 *(["--light"] if light else [])], env=environment,
                cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            ) as process:  # fmt: skip
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write(json.dumps(plan[start:]))
                process.stdin.close()
                at = -1
                for line in process.stdout:
                    told = json.loads(line)
                    if "next" in told:
                        at = told["next"]
                    else:
                        name, number = plan[start + told["finding"]]
                        yield name, number, f"{told['what']}   [{'; '.join(told['told'])}]"
            if start + at < len(plan):  # it did not come to the end
                if at < 0:
                    raise RuntimeError(f"the child ended with {process.returncode} before the first call")
                yield (*plan[start + at], f"the process ended with {process.returncode}")
                at += 1
            start += at


def planned(count: int, first: int = 0, only: str = "") -> list[tuple[str, int]]:
    """`count` calls of every target whose name begins with `only`."""
    chosen = {name: target for name, target in targets().items() if name.startswith(only)}
    most = {name: count if target.parameters else min(count, 10) for name, target in chosen.items()}
    return [(name, number) for name in chosen for number in range(first, first + most[name])]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="calls of each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first call")
    parser.add_argument("--only", default="", help="beginning of the targets' names")
    parser.add_argument("--light", action="store_true", help="without PyTorch's tensors")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child([tuple(each) for each in json.load(sys.stdin)], options.seed, options.light)
        return 0
    plan, count = planned(options.count, options.first, options.only), 0
    for name, number, what in findings(plan, options.seed, options.light):
        count += 1
        print(f"{name}: {what}\n    again: --only {name} --seed {options.seed} --first {number} --count 1", flush=True)
    print(f"{count} findings in {len(plan)} calls of {len({name for name, _ in plan})} targets")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
