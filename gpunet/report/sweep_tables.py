"""The tables of a sweep: the best trials, what each parameter explains, what became of the others."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.styled import Styled
from rich.table import Table

from gpunet.errors import printable
from gpunet.experiments.result import Result
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


def tables(result: Result) -> list[RenderableType]:
    """The best trials, and the importances where there are some."""
    names, order = searched(result), ranked(result)
    metric = measure(result)
    best = Table()
    for heading in ("", "stage", *names, metric, "seconds"):
        best.add_column(heading, justify="right" if heading else "left", no_wrap=heading == "")
    for row in order[:SHOWN]:
        parameters = result.notes["parameters"][row]
        seconds = result.timings.get(row, {}).get("trial", [None])[0]
        best.add_row(
            row, str(result.notes["stage"][row]), *(_short(parameters[name]) for name in names),
            f"{result.values(row, 'value')[0]:.6g}", "–" if seconds is None else f"{seconds:.2f}",
        )  # fmt: skip
    title = Styled(printable(_title(result, len(order))), "bold")
    titled = Group(title, best) if order else title
    importances = {name: importance(result, name) for name in names}
    if not importances or None in importances.values():
        return [titled]
    shares = Table()
    for heading in ("parameter", "share"):
        shares.add_column(heading, justify="right" if heading == "share" else "left")
    for name, share in importances.items():
        shares.add_row(name, f"{100 * (share or 0):.0f} %")
    return [titled, Group(Styled("Share of the variation explained (fANOVA)", "bold"), shares)]


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
