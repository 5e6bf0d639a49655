"""Functions that are searched in these tests; workers in other processes import them by name."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any

from gpunet.errors import DivergedError
from gpunet.sweep import UnusableError, parse_parameter

BOWL = "tests.sweep.functions:bowl"
SPACE = [parse_parameter(text) for text in ("x=-1..2", "y=log:1e-3..10", "n=int:1..9", "kind=a,b,c")]


def note(settings: dict[str, Any], word: str) -> None:
    """Append a line that no other process' line can break."""
    if "log" in settings:
        file = os.open(settings["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, f"{word} {settings['trial_seed']} {os.getpid()}\n".encode())
        os.close(file)


def gather(settings: dict[str, Any]) -> None:
    """Wait for so many workers as `together` says, half a minute at most."""
    limit = time.monotonic() + 30
    while time.monotonic() < limit:
        with open(settings["log"]) as log:
            if len({line.split()[2] for line in log}) >= settings["together"]:
                return
        time.sleep(0.02)


class Slept:
    """An object that takes its time; one that an interruption leaves half made complains when it goes."""

    def __init__(self, seconds: float) -> None:
        time.sleep(seconds)
        self.seconds = seconds

    def __del__(self) -> None:
        assert self.seconds >= 0


def bowl(parameters, settings, report):
    """A smooth hill; some trials fail, some are pruned; `sleep` seconds each."""
    note(settings, "began")
    if "together" in settings:
        gather(settings)
    x, y, n = parameters["x"], parameters["y"], parameters["n"]
    report(0, 1.0)
    if x > 1.6 and report(1, 3.5 * y / y):
        return 1e9
    report(1, abs(x))
    Slept(settings.get("sleep", 0))
    if x < -0.9:
        raise ValueError("x is\ntoo small")
    value = -((x - 0.3) ** 2) - 0.1 * (n - 5) ** 2 + (0.5 if parameters["kind"] == "b" else 0)
    note(settings, "ended")
    return {"value": value, "seed": settings["trial_seed"], "word": parameters["kind"]}


def plain(parameters, settings, report):
    """The smallest function there is."""
    return parameters["x"]


def scripted(parameters, settings, report):
    """What settings['script'] says for the value of n."""
    does = settings["script"][str(parameters["n"])]
    note(settings, "began")
    if "together" in settings:
        gather(settings)
    if does == "nan":
        return float("nan")
    if does == "text":
        return "good"
    if does == "nothing":
        return None
    if does == "no value":
        return {"accuracy": 0.5}
    if does == "odd metric":
        return {"value": 1.0, "what": object()}
    if does == "raises":
        raise KeyError("hidden")
    if does == "diverges":
        raise DivergedError("the loss became NaN")
    if does == "unusable":
        raise UnusableError("nothing of this works here")
    if does == "deaf":
        while True:
            with contextlib.suppress(KeyboardInterrupt):
                time.sleep(60)
    if does == "interrupts":
        raise KeyboardInterrupt
    if isinstance(does, list):
        stops = [report(step, cost) for step, cost in enumerate(map(float, does))]
        return {"value": 1.0, "stops": stops}
    return does


def threads(parameters, settings, report):
    """How many threads a product of matrices has here; talks a lot."""
    import numpy as np
    from threadpoolctl import threadpool_info

    print(("x" * 99 + "\n") * 700)
    note(settings, "began")
    gather(settings) if "together" in settings else None
    assert np.ones((2, 2)).sum() == 4
    pools = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
    return {"value": parameters["x"], "threads": pools, "asked_for": os.environ.get("OPENBLAS_NUM_THREADS")}


def suicide(parameters, settings, report):
    """Kills its worker."""
    os.kill(os.getpid(), signal.SIGKILL)


def suicide_once(parameters, settings, report):
    """Kills the first worker that comes."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(settings["mark"], os.O_CREAT | os.O_EXCL))
        os.kill(os.getpid(), signal.SIGKILL)
    return parameters["x"]


not_callable = 3
