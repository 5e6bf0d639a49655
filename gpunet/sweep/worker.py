"""A worker: takes a waiting trial, runs the function, writes down what came of it, until none is left."""

from __future__ import annotations

import copy
import json
import math
import numbers
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from gpunet.errors import DivergedError, InputError, RunError
from gpunet.interrupts import undivided
from gpunet.sweep.board import Board, Look
from gpunet.sweep.lease import Heartbeat
from gpunet.sweep.plan import SEED, Function
from gpunet.sweep.storage import LOST

PAUSES = (0.05, 1.0)  # seconds between looks while others run the last trials, shortest and longest
PATIENCE = 5.0  # seconds that a trial has to notice that it is to stop; breaking it off then does no harm
# OpenBLAS' threads of several workers would fight for the same cores; and the number of threads can change the last
# bits of a product, so that a sweep by one worker would not be that by four. More workers is how to use more cores.
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


class UnusableError(InputError):
    """Raised by a function that can run none of the sweep's trials: no trial has failed, the worker ends with it."""


class Worker:
    """Runs the trials of one sweep in this process; `on_look` is told how things stand, again and again."""

    def __init__(
        self,
        board: Board,
        function: Function,
        *,
        keep_going: bool = True,
        on_look: Callable[[Look], None] | None = None,
    ) -> None:
        self.board, self.function, self.keep_going = board, function, keep_going
        self.on_look = on_look or (lambda look: None)

    def work(self) -> None:
        """Until every trial is finished, by whomever.

        Raises RunError where nothing completed that a finer stage could be drawn around; or, unless `keep_going`, what
        a trial failed with.
        """
        pause = PAUSES[0]
        with undivided() as signals:  # Ctrl-C comes to the function: what is taken is finished, or given back
            while (look := self.board.look()).stage:
                self.on_look(look)
                if self._moved(look, signals.heard):
                    pause = PAUSES[0]
                    continue
                with signals.heard():
                    time.sleep(pause)
                pause = min(2 * pause, PAUSES[1])
            self.on_look(look)

    def _moved(self, look: Look, heard: Callable[[], AbstractContextManager[None]] = nullcontext) -> bool:
        """Whether there was anything to do."""
        for trial in look.waiting:
            if self.board.take(trial):
                self._run(trial, heard)
                return True
        if look.waiting:
            return True  # others were quicker: look again
        if look.missing:
            self.board.fill(look)
            return True
        return self.board.free_lost(look)

    def _run(self, trial: FrozenTrial, heard: Callable[[], AbstractContextManager[None]]) -> None:
        spec, number = self.board.spec, trial.user_attrs["number"]
        settings = copy.deepcopy(spec.settings) | {SEED: spec.trial_seed(number)}
        parameters = {parameter.name: trial.params[parameter.name] for parameter in spec.space}
        began = time.perf_counter()
        with Heartbeat(self.board.storage, trial._trial_id) as heart:
            curve = Curve(self.board, trial, heart)
            try:
                with heard():
                    returned = self.function(parameters, settings, curve.report)
                value, metrics = _checked(returned)
                state, error = TrialState.COMPLETE, ""
            except DivergedError:
                curve.pruned, metrics = True, {}
            except UnusableError:
                self.board.give_back(trial)
                raise
            except LOST:  # by `report`, of the storage: no failure of the trial
                with suppress(*LOST):
                    self.board.give_back(trial)
                raise
            except Exception as failure:
                state, value, metrics, error = TrialState.FAIL, None, {}, told(failure)
                if not self.keep_going and not curve.pruned:
                    self.board.give_back(trial)
                    raise RunError(f"trial {number} {json.dumps(parameters)} failed: {error}") from failure
            except BaseException:
                self.board.give_back(trial)
                raise
        if curve.pruned:
            state, value, error = TrialState.PRUNED, None, ""
        outcome = {"metrics": metrics, "seconds": time.perf_counter() - began}
        self.board.end(trial, state, value, outcome=outcome, **({"error": error} if error else {}))


class Curve:
    """A trial's own curve, and whether it is to stop because of it."""

    def __init__(self, board: Board, trial: FrozenTrial, heart: Heartbeat) -> None:
        self.board, self.heart, self.pruned = board, heart, False
        self._id, self._seen = trial._trial_id, copy.deepcopy(trial)
        self._seen.intermediate_values = {}

    def report(self, step: int, cost: float) -> bool:
        """Record a cost; True when the trial should stop: it has diverged, or was taken away from this worker."""
        step, cost = int(step), float(cost)
        try:
            with undivided():
                self.board.storage.set_trial_intermediate_value(self._id, step, cost)
        except UpdateFinishedTrialError:
            self.heart.lost = True
        self._seen.intermediate_values[step] = cost
        self.pruned |= self.board.study.pruner.prune(self.board.study, self._seen)
        return self.pruned or self.heart.lost


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
