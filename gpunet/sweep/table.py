"""The trials of a sweep as a table."""

from __future__ import annotations

from typing import Any

import optuna

from gpunet.errors import RunError
from gpunet.sweep.parameters import Parameter
from gpunet.sweep.plan import Spec, none_completed
from gpunet.sweep.storage import quiet

Row = dict[str, Any]


class Table(list[Row]):
    """Rows by number: {"number", "stage", "state", "parameters", "value", "metrics", "seconds"}.

    state is "complete", "pruned" or "failed"; value is None unless complete; stages are counted from 1. Beside the
    rows: `spec`, what was asked for; `spaces`, the box that each stage drew from; `curves`, the costs that a trial
    reported, by number and step; `errors`, why a trial failed, by number.
    """

    def __init__(
        self,
        rows: list[Row],
        spec: Spec,
        spaces: list[tuple[Parameter, ...]],
        curves: dict[int, dict[int, float]],
        errors: dict[int, str],
    ) -> None:
        super().__init__(rows)
        self.spec, self.spaces, self.curves, self.errors = spec, spaces, curves, errors

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
