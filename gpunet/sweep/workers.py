"""Who runs a sweep's trials: a worker in this process, or several on this machine in processes of their own."""

from __future__ import annotations

import contextlib
import copy
import json
import math
import numbers
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Container
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from gpunet.errors import DivergedError, InputError, RunError
from gpunet.interrupts import undivided
from gpunet.sweep.plan import SEED, Function
from gpunet.sweep.show import Table
from gpunet.sweep.storage import LOST
from gpunet.sweep.study import NUMBER, WORKER, Look, SweepStudy

PROCESS = str(Path(__file__).with_name("process.py"))  # a file: with -m the current folder would come first
POLL = 0.3  # seconds between looks at other processes
PAUSES = (0.05, 1.0)  # seconds between looks while others run the last trials, shortest and longest
PATIENCE = 5.0  # seconds that a trial has to notice that it is to stop; breaking it off then does no harm
TIMES = 3.0  # its first cost, above which a trial is pruned
# OpenBLAS' threads of several workers would fight for the same cores; and the number of threads can change the last
# bits of a product, so that a sweep by one worker would not be that by four. More workers is how to use more cores.
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
Show = Callable[[Table], None]
Heard = Callable[[], AbstractContextManager[None]]


class UnusableError(InputError):
    """Raised by a function that can run none of the sweep's trials: no trial has failed, the worker ends with it."""


# -- in this process --------------------------------------------------------------------------------------------------


def work(study: SweepStudy, function: Function, keep_going: bool, show: Show) -> None:
    """Run trials until every one is finished, by whomever; `show` is told how things stand, again and again.

    Raises RunError where nothing completed that a finer stage could be drawn around; or, unless `keep_going`, what a
    trial failed with.
    """
    pause = PAUSES[0]
    with undivided() as signals:  # Ctrl-C comes to the function: what is begun is finished, or given back
        while (look := study.look()).stage:
            show(look)
            if move(study, look, function, keep_going, signals.heard):
                pause = PAUSES[0]
                continue
            with signals.heard():
                time.sleep(pause)
            pause = min(2 * pause, PAUSES[1])
        show(look)


def move(
    study: SweepStudy, look: Look, function: Function, keep_going: bool = True, heard: Heard = nullcontext
) -> bool:
    """Do what there is to do next; False where there was nothing."""
    if not look.missing:
        return study.free(look)
    if trial := study.ask(look):
        _run(study, trial, function, keep_going, heard)
    return True


def _run(study: SweepStudy, trial: FrozenTrial, function: Function, keep_going: bool, heard: Heard) -> None:
    spec, number, curve = study.spec, trial.user_attrs[NUMBER], Curve(study, trial)
    settings = copy.deepcopy(spec.settings) | {SEED: spec.trial_seed(number)}
    parameters = {parameter.name: trial.params[parameter.name] for parameter in spec.space}
    state, value, error = TrialState.PRUNED, None, ""
    metrics: dict[str, Any] = {}
    began = time.perf_counter()
    try:
        with study.beating(trial):
            with heard():
                returned = function(parameters, settings, curve.report)
            checked, metrics = _checked(returned)
        if not curve.pruned:
            state, value = TrialState.COMPLETE, checked
    except DivergedError:
        pass
    except (UnusableError, *LOST):  # no failure of the trial
        with contextlib.suppress(*LOST):
            study.give_back(trial)
        raise
    except Exception as failure:
        if not keep_going and not curve.pruned:
            study.give_back(trial)
            raise RunError(f"trial {number} {json.dumps(parameters)} failed: {told(failure)}") from failure
        if not curve.pruned:
            state, error = TrialState.FAIL, told(failure)
    except BaseException:
        study.give_back(trial)
        raise
    outcome = {"metrics": metrics, "seconds": time.perf_counter() - began}
    study.tell(trial, state, value, outcome=outcome, error=error)


class Curve:
    """A trial's own curve, and whether it is to stop because of it."""

    def __init__(self, study: SweepStudy, trial: FrozenTrial) -> None:
        self._study, self._trial = study, trial
        self._costs: dict[int, float] = {}
        self.pruned = False

    def report(self, step: int, cost: float) -> bool:
        """Record a cost; True when the trial should stop: it has diverged, or was taken away from this worker.

        It has diverged when the cost is not finite, or above TIMES the first one, where that is above zero.
        """
        step, cost = int(step), float(cost)
        try:
            with undivided():
                self._study.storage.set_trial_intermediate_value(self._trial._trial_id, step, cost)
        except UpdateFinishedTrialError:
            return True
        self._costs[step] = cost
        first, last = self._costs[min(self._costs)], self._costs[max(self._costs)]
        self.pruned |= not math.isfinite(last) or 0 < TIMES * first < last
        return self.pruned


def _checked(given: Any) -> tuple[float, dict[str, Any]]:
    """The value and the other metrics; InputError where the function returned something else."""
    metrics = dict(given) if isinstance(given, dict) else {"value": given}
    if "value" not in metrics:
        raise InputError(f"the function returned {', '.join(map(str, metrics)) or 'nothing'}: expected a value, too")
    returned = metrics.pop("value")
    value = _plain(returned)
    if not isinstance(value, float):
        raise InputError(f"the function returned the value {returned!r}: expected a finite number")
    return value, {str(name): _plain(each) for name, each in metrics.items()}


def _plain(value: Any) -> Any:
    """As JSON holds it: NumPy's numbers as floats, those that are not finite as text."""
    if isinstance(value, (bool, str)):
        return value
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else str(float(value))
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        raise InputError(f"the function returned {value!r}: expected a number, or what JSON can hold") from None


def told(failure: BaseException) -> str:
    """An exception in one line; what is no mistake of the user's by its kind, too."""
    words = " ".join(str(failure).split())
    return words if isinstance(failure, InputError) and words else f"{type(failure).__name__}: {words}".rstrip(": ")


def one_thread() -> AbstractContextManager[Any]:
    """One thread for matrix products, see THREADS; unless the environment says how many."""
    if any(os.environ.get(name) for name in THREADS):
        return nullcontext()
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1)  # type: ignore[no-any-return]


# -- in processes of their own ----------------------------------------------------------------------------------------


def pool(study: SweepStudy, url: str, workers: int, keep_going: bool, show: Show) -> None:
    """Start so many workers, watch them until every trial is finished, and leave none behind.

    Raises what a worker ended with, and RunError when the last one is gone before that.
    """
    processes: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for index in range(workers):
            name = f"{study.worker}-{index}"
            with undivided():  # what has been started is stopped
                processes[name] = _start(url, name, keep_going)
        killed = 0
        while True:
            with undivided():
                ended = {name: process for name, process in processes.items() if process.poll() is not None}
                look = study.look()  # after: the workers that have ended by themselves have finished the last trial
                _give_back(study, look, ended)
            show(look)
            if not look.stage:
                return
            for process in ended.values():
                _raise_what_it_told(process)
            if len(ended) > killed:
                killed = len(ended)
                code = list(ended.values())[-1].returncode
                if killed == workers:
                    raise RunError(_all_gone(look, code))
                warnings.warn(f"{killed} of {workers} workers {_ended(code)}; the others go on", RuntimeWarning, 2)
            time.sleep(POLL)
    finally:
        with undivided():
            _stop(list(processes.values()))
            with contextlib.suppress(Exception):  # a storage that is lost
                _give_back(study, study.look(), processes)  # what a worker ran that had not heard


def _start(url: str, name: str, keep_going: bool) -> subprocess.Popen[bytes]:
    """A worker of that name, told on its standard input what it is to do."""
    environment = dict.fromkeys(THREADS, "1") | os.environ
    orders = {"storage": url, "worker": name, "keep_going": keep_going, "path": _path()}
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


def _give_back(study: SweepStudy, look: Look, workers: Container[str]) -> None:
    """Break off what these workers have left running, which others would wait for."""
    for trial in look.running:
        if trial.user_attrs.get(WORKER) in workers:
            study.give_back(trial)


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
    running = [f"trial {t.user_attrs[NUMBER]} {json.dumps(t.params)}" for t in look.running]
    ran = f" while running {', '.join(running)}" if running else ""
    return f"no worker is left, the last {_ended(code)}{ran}; the same command goes on where it stopped"


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """Tell them to stop, give them a moment to give back what they run, and kill what has not heard."""
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
