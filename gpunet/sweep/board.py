"""A sweep in an Optuna study: which trial is to be run next, and what is finished.

A planned trial, known by its `number`, may be tried several times: each attempt is a trial of Optuna's. Attempts that
were broken off have failed without an `error` and are void; of the others *the first counts*, and later ones, which two
workers may queue at the same moment, are never run. Optuna numbers attempts in the order in which they become visible,
a failed one stays failed, and WAITING becomes RUNNING for one worker only; so at any moment at most one attempt of a
trial runs, none once one has finished, and a worker may be killed between any two writes: what it leaves is seen, and
mended, by whoever looks next.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

import optuna
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from gpunet.errors import InputError
from gpunet.sweep.lease import WORKER, Watch, me
from gpunet.sweep.parameters import Parameter
from gpunet.sweep.plan import Spec
from gpunet.sweep.storage import NO_SWEEP, understood
from gpunet.sweep.table import Row, Table

P = ParamSpec("P")
T = TypeVar("T")
STUDY, SPEC = "gpunet-sweep", "sweep"  # the study's name, and the attribute that says what is searched
NUMBER, STAGE, QUEUED_BY, OUTCOME, ERROR = "number", "stage", "queued_by", "outcome", "error"  # attributes of trials
LOOK_EVERY = 8  # queued trials, for somebody else who queues the same ones
STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
TIMES = 3.0


class OwnCurve(optuna.pruners.BasePruner):
    """Prunes a trial by its own curve alone: the last cost is not a number, or infinite, or above `times` its first."""

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether to stop it. A curve that starts at or below zero is only stopped by what is not finite."""
        costs = [cost for _, cost in sorted(trial.intermediate_values.items())]
        if not costs:
            return False
        first, last = costs[0], costs[-1]
        return not math.isfinite(last) or bool(first > 0 and last > TIMES * first)


def _guarded(method: Callable[P, T]) -> Callable[P, T]:
    """A method of `Board` that looks into the storage: what it trips over there is one line."""

    @functools.wraps(method)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        board: Any = args[0]
        with understood(board.where):
            return method(*args, **kwargs)

    return guarded


@dataclass
class Look:
    """The sweep at one moment: the attempts that count by number, and the stage that is being run (0: all are done)."""

    attempts: dict[int, FrozenTrial]
    rows: list[Row]
    errors: dict[int, str]
    stage: int = 0
    waiting: list[FrozenTrial] = field(default_factory=list)
    running: list[FrozenTrial] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)


class Board:
    """A sweep and the storage it is kept in. Raises InputError where that holds another one."""

    def __init__(self, storage: BaseStorage, spec: Spec, where: str = "the storage") -> None:
        self.storage, self.spec, self.where = storage, spec, where
        with understood(where):
            self.study = optuna.load_study(study_name=STUDY, storage=storage, pruner=OwnCurve())
        self._kinds = {parameter.name: parameter.distribution() for parameter in spec.space}
        self._spaces: list[tuple[Parameter, ...]] = []
        self._watch = Watch()
        self.last = Look({}, [], {}, stage=1)

    @classmethod
    def start(cls, storage: BaseStorage, spec: Spec, where: str) -> Board:
        """Begin the sweep, or go on with it."""
        direction = StudyDirection.MAXIMIZE if spec.direction == "maximize" else StudyDirection.MINIMIZE
        with understood(where):
            with contextlib.suppress(DuplicatedStudyError):
                storage.create_new_study([direction], STUDY)
            study = storage.get_study_id_from_name(STUDY)
            if SPEC not in storage.get_study_user_attrs(study):
                storage.set_study_user_attr(study, SPEC, spec.to_json())
            difference = spec.difference(storage.get_study_user_attrs(study)[SPEC])
        if difference:
            raise InputError(
                f"{where} holds another sweep: {difference}; give what that one began with, or choose "
                "another storage (--storage or --out)"
            )
        return cls(storage, spec, where)

    @classmethod
    def join(cls, storage: BaseStorage, where: str) -> Board:
        """Take part in the sweep that is there."""
        with understood(where):
            try:
                held = storage.get_study_user_attrs(storage.get_study_id_from_name(STUDY))[SPEC]
            except KeyError:
                raise InputError(f"{where} {NO_SWEEP}") from None
            spec = Spec.from_json(held)
        return cls(storage, spec, where)

    # -- looking ----------------------------------------------------------------------------------------------------

    @_guarded
    def look(self) -> Look:
        """What there is to do; also kept in `last`. Raises DataError for trials that no sweep has written."""
        attempts: dict[int, FrozenTrial] = {}
        for trial in self.study.get_trials(deepcopy=False):
            if NUMBER in trial.user_attrs and not _void(trial):
                self._check(trial)
                attempts.setdefault(trial.user_attrs[NUMBER], trial)
        done = {number: trial for number, trial in attempts.items() if trial.state in STATES}
        errors = {number: trial.user_attrs[ERROR] for number, trial in done.items() if ERROR in trial.user_attrs}
        look = Look(attempts, [self._row(done[number]) for number in sorted(done)], errors)
        for stage in range(1, self.spec.stages + 1):
            unfinished = [number for number in self.spec.numbers(stage) if number not in done]
            if unfinished:
                look.stage = stage
                there = [attempts[number] for number in unfinished if number in attempts]
                look.waiting = [trial for trial in there if trial.state == TrialState.WAITING]
                look.running = [trial for trial in there if trial.state == TrialState.RUNNING]
                look.missing = [number for number in unfinished if number not in attempts]
                break
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
        if not all(isinstance(held.get(name, ""), str) for name in (ERROR, QUEUED_BY, WORKER)):
            raise ValueError(f"trial {number} is of {held.get(WORKER)} and failed with {held.get(ERROR)}")

    @_guarded
    def spaces(self, look: Look, stages: int) -> list[tuple[Parameter, ...]]:
        """The boxes of the first `stages` stages, of which all but the last are finished."""
        if len(self._spaces) < stages:
            self._spaces = self.spec.spaces(look.rows, look.errors, stages)
        return self._spaces[:stages]

    @_guarded
    def table(self, look: Look | None = None) -> Table:
        """All finished trials; those of that look."""
        look = look or self.look()
        costs = {row["number"]: look.attempts[row["number"]].intermediate_values for row in look.rows}
        curves = {number: dict(sorted(curve.items())) for number, curve in costs.items() if curve}
        return Table(look.rows, self.spec, self.spaces(look, look.stage or self.spec.stages), curves, look.errors)

    # -- changing ---------------------------------------------------------------------------------------------------

    @_guarded
    def fill(self, look: Look) -> None:
        """Queue the stage's missing trials, unless somebody else is seen to do it."""
        plan = self.spec.draw(self.spaces(look, look.stage)[-1], look.stage)
        for count, number in enumerate(look.missing):
            attributes = {NUMBER: number, STAGE: look.stage, QUEUED_BY: me()}
            self.study.add_trial(
                optuna.create_trial(
                    state=TrialState.WAITING, params=plan[number - self.spec.numbers(look.stage).start],
                    distributions=self._kinds, user_attrs=attributes,
                )
            )  # fmt: skip
            if count % LOOK_EVERY == 0 and self.look().attempts[number].user_attrs[QUEUED_BY] != me():
                return

    @_guarded
    def take(self, trial: FrozenTrial) -> bool:
        """Whether a waiting trial is ours to run."""
        try:
            # Before it is taken: a worker that is killed in between is known. And after, as two may have come so far.
            self.storage.set_trial_user_attr(trial._trial_id, WORKER, me())
            if not self.storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
                return False
            self.storage.set_trial_user_attr(trial._trial_id, WORKER, me())
        except UpdateFinishedTrialError:
            return False
        return True

    @_guarded
    def end(self, trial: FrozenTrial, state: TrialState, value: float | None, **attributes: Any) -> bool:
        """Write a result down, at once or not at all; False where the trial was taken away meanwhile."""
        try:
            for name, attribute in attributes.items():
                self.storage.set_trial_user_attr(trial._trial_id, name, attribute)
            self.storage.set_trial_state_values(trial._trial_id, state, None if value is None else [value])
        except UpdateFinishedTrialError:
            return False
        return True

    def give_back(self, trial: FrozenTrial) -> None:
        """Break an attempt off: the trial is to be run again."""
        self.end(trial, TrialState.FAIL, None)

    @_guarded
    def free_lost(self, look: Look) -> bool:
        """Break off the attempts whose workers are gone; whether there were any."""
        lost = [trial for trial in look.running if self._watch.lost(trial)]
        for trial in lost:
            self.give_back(trial)
        return bool(lost)

    @_guarded
    def tidy(self) -> None:
        """After the end: attempts that were queued twice are no longer waiting."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            if NUMBER in trial.user_attrs:
                self.give_back(trial)


def _void(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.FAIL and ERROR not in trial.user_attrs
