"""What a sweep shows: its progress, and its trials as a table."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import optuna

from gpunet.errors import RunError
from gpunet.progress import Progress
from gpunet.sweep.plan import Spec, none_completed
from gpunet.sweep.space import Parameter
from gpunet.sweep.storage import quiet

Row = dict[str, Any]
IMPORTANCE = "importance"  # the row of importances in a result; all others are trials


def row_name(number: int) -> str:
    """A trial's row."""
    return f"trial {number}"


class Table(list[Row]):
    """Rows by number: {"number", "stage", "state", "parameters", "value", "metrics", "seconds"}.

    state is "complete", "pruned" or "failed"; value is None unless complete; stages are counted from 1. Beside the
    rows: `spec`, what was asked for; `spaces`, the box that each stage drew from; `curves`, the costs that a trial
    reported, by number and step; `errors`, why a trial failed, by number; and `stage`, the one that has trials to run,
    0 where all are finished.
    """

    def __init__(
        self, rows: list[Row], spec: Spec, stage: int, curves: dict[int, dict[int, float]], errors: dict[int, str]
    ) -> None:  # fmt: skip
        super().__init__(rows)
        self.spec, self.stage, self.curves, self.errors = spec, stage, curves, errors

    @cached_property
    def spaces(self) -> list[tuple[Parameter, ...]]:
        """One box a stage up to the present one; RunError where nothing completed that it could be drawn around."""
        return self.spec.spaces(self, self.errors, self.stage or self.spec.stages)

    @property
    def best(self) -> Row:
        """The row with the best value, of equal ones the first; RunError where no trial completed."""
        ranked = self.spec.best(self)
        if not ranked:
            raise RunError(f"there is no best trial: {none_completed(self, self.errors)}")
        return ranked[0]

    def ended(self, state: str) -> int:
        """How many trials ended so."""
        return sum(row["state"] == state for row in self)

    def importances(self) -> dict[str, float]:
        """How much of the value's variation each parameter explains, the largest first; they add up to 1.

        An estimate by Optuna's fANOVA, a forest of trees, from all completed trials. Empty where these do not differ,
        or are fewer than four, or where there is but one parameter.
        """
        searched = [parameter for parameter in self.spec.space if not parameter.fixed]
        complete = [row for row in self if row["state"] == "complete"]
        if len(searched) < 2 or len(complete) < 4 or len({row["value"] for row in complete}) == 1:
            return {}
        quiet()
        study = optuna.create_study(direction="maximize")
        kinds = {parameter.name: parameter.distribution() for parameter in searched}
        for row in complete:
            parameters = {name: row["parameters"][name] for name in kinds}
            study.add_trial(optuna.create_trial(params=parameters, distributions=kinds, value=row["value"]))
        forest = optuna.importance.FanovaImportanceEvaluator(seed=0)
        return {name: float(v) for name, v in optuna.importance.get_param_importances(study, evaluator=forest).items()}


class Display:
    """Progress, a bar for each stage, with the best trial so far."""

    def __init__(self, spec: Spec, bar: Progress) -> None:
        self._spec, self._bar = spec, bar
        self._stage, self._done = 0, 0

    def show(self, table: Table) -> None:
        """Bring the bar to where the sweep is."""
        now = table.stage or self._spec.stages
        while self._stage < now:
            if self._stage:
                self._advance(table, self._spec.trials)
            self._stage, self._done = self._stage + 1, 0
            self._bar.start(f"sweep stage {self._stage}/{self._spec.stages}", self._spec.trials)
        self._advance(table, sum(row["stage"] == now for row in table))

    def _advance(self, table: Table, done: int) -> None:
        if done > self._done:
            ranked = self._spec.best([row for row in table if row["stage"] <= self._stage])
            best = f"best {ranked[0]['value']:.6g} (trial {ranked[0]['number']})" if ranked else ""
            self._bar.advance(done - self._done, best)
            self._done = done
