"""What a sweep is asked to do, and what follows from it: every trial's parameters and seed.

A stage's parameters are drawn up front from the sweep's seed: in each parameter every n-th part of its scale holds one
of the n trials (a Latin hypercube), so that every value of a list is tried equally often. A later stage draws in the
smallest box that holds the best fifth (at least four) of the trials completed before it. Both are functions of the
sweep and of the finished trials alone: whoever computes them, in whatever order trials were run, finds the same.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpunet.addresses import cleaned, harmless
from gpunet.checks import is_whole
from gpunet.errors import InputError, RunError, shown
from gpunet.fingerprint import difference
from gpunet.rng import check_seed, stream
from gpunet.sweep.space import Parameter, Value, parse_parameter

FORMAT = 1
DRAW, TRIAL = 4000, 4001  # purposes of rng.stream, which has small numbers itself
BEST_SHARE, BEST_LEAST = 0.2, 4  # of the completed trials, that a finer stage is drawn around
MOST = 1_000_000  # trials of a stage, and stages
SEED = "trial_seed"  # under which a trial's own seed stands in the settings that the function is handed

Parameters = dict[str, Value]
Report = Callable[[int, float], bool]
Function = Callable[[Parameters, dict[str, Any], Report], float | dict[str, Any]]


@dataclass(frozen=True)
class Spec:
    """A sweep: two that are equal here have the same trials. `trials` is their number in each of the stages."""

    function: str
    settings: dict[str, Any]
    space: tuple[Parameter, ...]
    trials: int
    stages: int
    seed: int
    direction: str

    def __post_init__(self) -> None:
        for name in ("trials", "stages"):
            value = getattr(self, name)
            if not is_whole(value):
                raise InputError(f"{name} is a whole number ≥ 1, got {shown(value)}")
            object.__setattr__(self, name, int(value))
            if value > MOST:
                raise InputError(f"{name} is {value}: expected at most {MOST:,}, since all numbers are gone through")
        if self.direction not in ("maximize", "minimize"):
            raise InputError(f"direction is 'maximize' or 'minimize', got {self.direction!r}")
        if not self.space:
            raise InputError("no parameter is given: expected at least one to search")
        names = [parameter.name for parameter in self.space]
        if twice := [name for name in names if names.count(name) > 1]:
            raise InputError(f"the parameter {twice[0]} is given twice")
        if SEED in self.settings:
            raise InputError(f"the settings have {SEED!r}, which is where each trial finds its own seed: rename it")
        object.__setattr__(self, "seed", check_seed(self.seed))

    def to_json(self) -> dict[str, Any]:
        """As it stands in the storage."""
        return {
            "format": FORMAT, "function": self.function, "direction": self.direction, "seed": self.seed,
            "trials": self.trials, "stages": self.stages, "space": [parameter.text for parameter in self.space],
            "settings": self.settings,
        }  # fmt: skip

    @classmethod
    def from_json(cls, held: dict[str, Any]) -> Spec:
        """What `to_json` gave."""
        if held.get("format") != FORMAT:
            raise InputError(f"the sweep there has format {held.get('format')}, this gpunet reads {FORMAT}")
        space = tuple(parse_parameter(text) for text in held["space"])
        kept = {name: held[name] for name in ("function", "settings", "trials", "stages", "seed", "direction")}
        return cls(space=space, **kept)

    def difference(self, held: dict[str, Any]) -> str:
        """Where the sweep held by a storage first differs from this one, in words; "" where it does not."""
        return difference("", self.to_json(), held)

    def numbers(self, stage: int) -> range:
        """The trials of a stage, 1 … stages."""
        return range((stage - 1) * self.trials, stage * self.trials)

    def trial_seed(self, number: int) -> int:
        """A trial's own seed for training: a function of the sweep's seed and the trial's number."""
        return int(stream(self.seed, TRIAL, number).integers(2**31))

    def draw(self, space: Sequence[Parameter], stage: int) -> list[Parameters]:
        """The parameters of a stage's trials, in their order."""
        columns: dict[str, list[Value]] = {}
        for index, parameter in enumerate(space):
            rng = stream(self.seed, DRAW, stage * 1000 + index)
            places = (rng.permutation(self.trials) + rng.random(self.trials)) / self.trials
            columns[parameter.name] = [parameter.at(float(place)) for place in places]
        return [{name: column[i] for name, column in columns.items()} for i in range(self.trials)]

    def spaces(
        self, rows: Sequence[dict[str, Any]], errors: Mapping[int, str], stages: int
    ) -> list[tuple[Parameter, ...]]:
        """The boxes that the first `stages` stages draw from, given the finished trials of all but the last of them.

        errors: why trials failed. Raises RunError where none has completed that a finer stage could be drawn around.
        """
        found = [self.space]
        for stage in range(2, stages + 1):
            before = [row for row in rows if row["stage"] < stage]
            best = self.best(before)
            if not best:
                raise RunError(f"there is nothing to draw stage {stage} around: {none_completed(before, errors)}")
            best = best[: max(BEST_LEAST, round(BEST_SHARE * len(best)))]
            found.append(tuple(p.finer([row["parameters"][p.name] for row in best]) for p in found[-1]))
        return found

    def best(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The completed trials, best first; of equal ones the first."""
        sign = -1 if self.direction == "maximize" else 1
        complete = [row for row in rows if row["state"] == "complete"]
        return sorted(complete, key=lambda row: (sign * row["value"], row["number"]))


def plain_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings as JSON gives them back, so that every process has the same; InputError where JSON cannot."""
    try:
        plain = json.loads(json.dumps(settings, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InputError(f"the settings of a sweep are what JSON can hold: {error}") from None
    if not isinstance(plain, dict):
        raise InputError(f"the settings of a sweep are a dictionary, got {type(settings).__name__}")
    return plain


def prepare(name: str, settings: dict[str, Any]) -> Function:
    """The function "package.module:function", after its module's `before_sweep(settings)`, where there is one, looked.

    What that raises (data that is missing on this machine, say) is a mistake of whoever starts the worker: it fails no
    trial. InputError where there is no such function.
    """
    home, colon, attribute = name.partition(":")
    if not colon or not home or not attribute.isidentifier():
        raise InputError(f"the function {harmless(name)!r} is malformed: expected package.module:function")
    try:
        module = importlib.import_module(home)
        found = getattr(module, attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"the function {harmless(name)!r} cannot be imported: {cleaned(str(error))}") from None
    if not callable(found):
        raise InputError(f"{name!r} is a {type(found).__name__}, not a function")
    look = getattr(module, "before_sweep", None)
    if look is not None:
        look(settings)
    return found  # type: ignore[no-any-return]


def none_completed(rows: Sequence[dict[str, Any]], errors: Mapping[int, str]) -> str:
    """What became of trials of which none completed, in words."""
    counts = {state: sum(row["state"] == state for row in rows) for state in ("pruned", "failed")}
    told = " and ".join(f"{count} {state}" for state, count in counts.items() if count)
    reason = f", the first with: {errors[min(errors)]}" if errors else ""
    return f"of {len(rows)} trials none completed, {told}{reason}"
