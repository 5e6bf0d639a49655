"""The tables of a sweep: the best trials, what each parameter explains, what became of the others."""

from __future__ import annotations

from typing import Any

from gpunet.errors import printable
from gpunet.experiments.result import Result
from gpunet.report.table import NOTHING, Column, Table
from gpunet.sweep.show import IMPORTANCE
from gpunet.sweep.space import parse_parameter

SHOWN = 10  # trials


def searched(result: Result) -> list[str]:
    """The parameters that have more than one value, the most important first where that is known."""
    names = [p.name for p in map(parse_parameter, result.settings["space"]) if not p.fixed]
    weight = {name: importance(result, name) or 0.0 for name in names}
    return sorted(names, key=lambda name: -weight[name])


def importance(result: Result, name: str) -> float | None:
    """A parameter's share of the variation explained; None where that is not known."""
    return result.mean(IMPORTANCE, name) if result.has(IMPORTANCE, name) else None


def ranked(result: Result) -> list[str]:
    """The completed trials, best first."""
    sign = -1 if result.settings["direction"] == "maximize" else 1
    complete = [name for name, state in result.notes["state"].items() if state == "complete"]
    return sorted(complete, key=lambda name: sign * result.values(name, "value")[0])


def measure(result: Result) -> str:
    """What the value is; an experiment's test accuracy is measured on held-out samples here."""
    return str(result.settings["given"].get("metric", "value")).replace("test_", "validation_")


def tables(result: Result) -> list[Table]:
    """The best trials, and the importances where there are some."""
    names, order = searched(result), ranked(result)
    rows = []
    for row in order[:SHOWN]:
        parameters = result.notes["parameters"][row]
        seconds = result.timings.get(row, {}).get("trial", [None])[0]
        rows.append((
            row, str(result.notes["stage"][row]), *(_short(parameters[name]) for name in names),
            f"{result.values(row, 'value')[0]:.6g}", NOTHING if seconds is None else f"{seconds:.2f}",
        ))  # fmt: skip
    columns = tuple(map(Column, ("stage", *names, measure(result), "seconds")))
    best = Table(_title(result, len(order)), columns, tuple(rows))
    shares = {name: importance(result, name) for name in names}
    if not shares or None in shares.values():
        return [best]
    told = tuple((name, f"{100 * (share or 0):.0f} %") for name, share in shares.items())
    title = "Share of the variation explained (fANOVA)"
    return [best, Table(title, (Column("share"),), told, corner="parameter")]


def _title(result: Result, complete: int) -> str:
    states = list(result.notes["state"].values())
    others = [f"{states.count(state)} {state}" for state in ("pruned", "failed") if state in states]
    which = f"the best {min(SHOWN, complete)} of {complete} completed trials" if complete else "no trial completed"
    return f"{result.experiment} on {result.dataset}: {', '.join([which, *others])}"


def best_line(result: Result) -> str:
    """The best trial in one line, and what it was judged by."""
    best = result.notes["best"]
    if best is None:
        return "No trial completed."
    given = " ".join(f"{name}={_short(value)}" for name, value in result.notes["parameters"][best].items())
    judged = result.settings["judged_by"]
    return f"Best: {best}, {given}" + (f". Judged by {judged}." if judged else "")


def failures(result: Result) -> list[str]:
    """Why trials failed: each reason once, with how many there are."""
    errors: dict[str, Any] = result.notes["error"]
    first = {error: name for name, error in reversed(errors.items())}
    counts = {error: list(errors.values()).count(error) for error in first}
    return [printable(f"{counts[error]} failed, first {name}: {error}") for error, name in reversed(first.items())]


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
