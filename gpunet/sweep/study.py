"""A sweep in an Optuna study: which trials are missing, which run, and what is finished.

A planned trial is a function of the sweep and its `number`, and may be begun several times: each attempt is a trial of
Optuna's that runs from its first moment on. Attempts that were broken off have failed without an `error` and are void;
of the others *the first counts*: who has begun a later one breaks it off. Optuna numbers attempts in the order in which
they become visible, and a failed one stays failed; so at any moment at most one worker runs a trial, none once it has
finished, and a worker may be killed between any two writes. A trial that it leaves running beats no more, and is void
after SILENCE seconds.

Optuna's own `ask` hands out what waits in a queue, which two workers may fill at the same moment; here a worker asks by
adding a trial that runs. Optuna's heartbeat is for databases only, and knows nothing of a worker that was killed before
its first beat.
"""

from __future__ import annotations

import contextlib
import math
import random
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from gpunet.errors import InputError
from gpunet.interrupts import contextmanager, undivided
from gpunet.sweep.plan import Parameters, Spec
from gpunet.sweep.show import Row, Table
from gpunet.sweep.storage import NO_SWEEP, understood

STUDY, SPEC = "gpunet-sweep", "sweep"  # the study's name, and the attribute that says what is searched
NUMBER, STAGE, WORKER, BEATS, OUTCOME, ERROR = "number", "stage", "worker", "beat", "outcome", "error"  # of trials
STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
BEAT, SILENCE = 10.0, 60.0  # seconds between heartbeats, and after the last that was seen until a worker counts as gone


class Look(Table):
    """The finished trials at one moment, the attempts that run, and the numbers that are missing in the stage."""

    running: list[FrozenTrial]
    missing: list[int]


class SweepStudy:
    """A sweep and the storage it is kept in; `worker` names who takes part in it here.

    Whatever looks into the storage raises what Optuna raises; `storage.understood` makes lines of it.
    """

    def __init__(self, storage: BaseStorage, spec: Spec, where: str = "the storage") -> None:
        self.storage, self.spec, self.where, self.worker = storage, spec, where, uuid.uuid4().hex
        self.study = optuna.load_study(study_name=STUDY, storage=storage)
        self.last = Look([], spec, 1, {}, {})
        self._kinds = {parameter.name: parameter.distribution() for parameter in spec.space}
        self._plans: dict[int, list[Parameters]] = {}
        self._heard: dict[tuple[int, Any], float] = {}
        self._beaten = False

    @classmethod
    def start(cls, storage: BaseStorage, spec: Spec, where: str) -> SweepStudy:
        """Begin the sweep, or go on with it; InputError where the storage holds another one."""
        with understood(where):
            way = StudyDirection[spec.direction.upper()]
            study = optuna.create_study(storage=storage, study_name=STUDY, direction=way, load_if_exists=True)
            if SPEC not in study.user_attrs:
                study.set_user_attr(SPEC, spec.to_json())
            if difference := spec.difference(study.user_attrs[SPEC]):
                raise InputError(
                    f"{where} holds another sweep: {difference}; give what that one began with, or choose "
                    "another storage (--storage or --out)"
                )
            return cls(storage, spec, where)

    @classmethod
    def join(cls, storage: BaseStorage, where: str) -> SweepStudy:
        """Take part in the sweep that is there; InputError where there is none."""
        with understood(where):
            try:
                held = optuna.load_study(study_name=STUDY, storage=storage).user_attrs[SPEC]
            except KeyError:
                raise InputError(f"{where} {NO_SWEEP}") from None
            return cls(storage, Spec.from_json(held), where)

    # -- looking ----------------------------------------------------------------------------------------------------

    def look(self) -> Look:
        """What there is to do; also kept in `last`. Raises ValueError for trials that no sweep has written."""
        attempts: dict[int, FrozenTrial] = {}
        for trial in self.study.get_trials(deepcopy=False):
            if NUMBER in trial.user_attrs and not void(trial):
                self._check(trial)
                attempts.setdefault(trial.user_attrs[NUMBER], trial)
        done = {number: attempts[number] for number in sorted(attempts) if attempts[number].state in STATES}
        errors = {number: trial.user_attrs[ERROR] for number, trial in done.items() if ERROR in trial.user_attrs}
        curves = {n: dict(sorted(t.intermediate_values.items())) for n, t in done.items() if t.intermediate_values}
        stages = ([n for n in self.spec.numbers(i + 1) if n not in done] for i in range(self.spec.stages))
        stage, unfinished = next(((i, left) for i, left in enumerate(stages, 1) if left), (0, []))
        look = Look([self._row(trial) for trial in done.values()], self.spec, stage, curves, errors)
        look.running = [attempts[number] for number in unfinished if number in attempts]
        look.missing = [number for number in unfinished if number not in attempts]
        self.last = look
        return look

    def _row(self, trial: FrozenTrial) -> Row:
        outcome = trial.user_attrs.get(OUTCOME, {})
        return {
            "number": trial.user_attrs[NUMBER],
            "stage": trial.user_attrs[STAGE],
            "state": STATES[trial.state],
            "parameters": {name: trial.params[name] for name in self._kinds},
            "value": trial.value if trial.state == TrialState.COMPLETE else None,
            "metrics": outcome.get("metrics", {}),
            "seconds": outcome.get("seconds"),
        }

    def _check(self, trial: FrozenTrial) -> None:
        """ValueError or a like error for an attempt that no sweep of this kind has written."""
        held = trial.user_attrs
        number, stage, outcome = held[NUMBER], held[STAGE], held.get(OUTCOME, {})
        if type(number) is not int or type(stage) is not int or number not in self.spec.numbers(stage):
            raise ValueError(f"trial {number} of stage {stage}")
        if any(isinstance(trial.params[name], float) and not math.isfinite(trial.params[name]) for name in self._kinds):
            raise ValueError(f"trial {number} has the parameters {trial.params}")
        if trial.state == TrialState.COMPLETE and not math.isfinite(trial.values[0]):
            raise ValueError(f"trial {number} has the value {trial.values[0]}")
        metrics, seconds = outcome.get("metrics", {}), outcome.get("seconds")
        if not isinstance(metrics, dict) or not (seconds is None or 0 <= seconds < math.inf):
            raise ValueError(f"trial {number} has the metrics {metrics} after {seconds} s")
        if not all(isinstance(held.get(name, ""), str) for name in (ERROR, WORKER)):
            raise ValueError(f"trial {number} is of {held.get(WORKER)} and failed with {held.get(ERROR)}")

    # -- changing ---------------------------------------------------------------------------------------------------

    def ask(self, look: Look) -> FrozenTrial | None:
        """Begin a missing trial of the stage; None where another worker was quicker with it."""
        number = look.missing[0]
        if self._beaten:  # by one of those who run trials now; they will not choose the same again and again
            number = random.choice(look.missing[: len(look.running) + 1])
        if look.stage not in self._plans:
            self._plans[look.stage] = self.spec.draw(look.spaces[-1], look.stage)
        parameters = self._plans[look.stage][number - self.spec.numbers(look.stage).start]
        attempt = optuna.create_trial(
            state=TrialState.RUNNING, params=parameters, distributions=self._kinds,
            user_attrs={NUMBER: number, STAGE: look.stage, WORKER: self.worker},
        )  # fmt: skip
        ours = self.storage.create_new_trial(self.study._study_id, attempt)
        first = [trial for trial in self.look().running if trial._trial_id == ours]
        self._beaten = not first
        if first:
            return first[0]
        self.give_back(self.storage.get_trial(ours))
        return None

    def tell(
        self, trial: FrozenTrial, state: TrialState, value: float | None = None, *,
        outcome: dict[str, Any] | None = None, error: str = "",
    ) -> None:  # fmt: skip
        """Write a result down, at once or not at all; nothing where the trial was taken away meanwhile."""
        with contextlib.suppress(UpdateFinishedTrialError):
            for name, attribute in {OUTCOME: outcome, ERROR: error}.items():
                if attribute:
                    self.storage.set_trial_user_attr(trial._trial_id, name, attribute)
            self.study.tell(trial.number, value, state, skip_if_finished=True)

    def give_back(self, trial: FrozenTrial) -> None:
        """Break an attempt off: the trial is missing again."""
        self.tell(trial, TrialState.FAIL)

    def free(self, look: Look) -> bool:
        """Break off the attempts of workers that are silent for too long; whether there were any."""
        lost = [trial for trial in look.running if self._silent(trial)]
        for trial in lost:
            self.give_back(trial)
        return bool(lost)

    def _silent(self, trial: FrozenTrial) -> bool:
        """By this process' own clock: machines need not agree on the time."""
        now = time.monotonic()
        return now - self._heard.setdefault((trial.number, trial.user_attrs.get(BEATS)), now) > SILENCE

    @contextmanager
    def beating(self, trial: FrozenTrial) -> Iterator[None]:
        """A block in which others hear that the trial runs."""
        ended = threading.Event()

        def beat() -> None:
            count = 0
            while not ended.wait(BEAT):
                count += 1
                with contextlib.suppress(Exception):  # it was taken away; or the storage is away, for a moment
                    self.storage.set_trial_user_attr(trial._trial_id, BEATS, count)
            self.storage.remove_session()

        thread = threading.Thread(target=beat, daemon=True)
        try:
            with undivided():
                thread.start()
            yield
        finally:
            ended.set()
            if thread.ident is not None:
                thread.join()


def void(trial: FrozenTrial) -> bool:
    """Whether an attempt was broken off, or never begun: it counts for nothing."""
    return trial.state == TrialState.WAITING or (trial.state == TrialState.FAIL and ERROR not in trial.user_attrs)
