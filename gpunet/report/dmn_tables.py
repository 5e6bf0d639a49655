"""The tables of dmn for the terminal."""

from __future__ import annotations

from statistics import mean
from typing import Any

from rich.table import Table

from gpunet.experiments.dmn_sweeps import SYMBOLS
from gpunet.experiments.schema import Result
from gpunet.report.tables import cell, claims_table, rows_table

HEADINGS = {
    "test_accuracy": "test", "test_accuracy_long": "test, trained\nlonger",
    "ridge_test_accuracy": "test, head in\nclosed form", "train_accuracy": "train",
}  # fmt: skip


def nets(result: Result) -> list[str]:
    """Rows of Figure 3's upper half: linear, then DMN and ConvNet of each width."""
    return [row.name for row in result.rows if row.name == "linear" or row.name.startswith(("dmn ", "convnet "))]


def tables(result: Result) -> list[Table]:
    """DMN beside ConvNet, their times, the sweeps, the claims."""
    settings, seeds = result.settings, len(result.seeds)
    title = (
        f"dmn on {result.dataset}: {settings['epochs']} epochs (longer: {settings['epochs'] * settings['long']}), "
        f"{seeds} seed{'s' * (seeds > 1)}, mean ± deviation"
    )
    shares = {name: _shares(found[0]) for name, found in settings["shares"].items()}
    shown = {m: h for m, h in HEADINGS.items() if any(m in row.metrics for row in result.rows)}
    listed = [rows_table(result, title, nets(result), shown, extra={"T_v": shares}), _times(result)]
    if settings["sweeps"]:
        listed.append(_sweeps(result))
    if result.dataset in ("mnist", "cifar10", "cifar100"):
        listed.append(claims_table(result))
    return listed


def _shares(shares: list[float]) -> str:
    return ", ".join(f"{share:g}" for share in shares)


def _times(result: Result) -> Table:
    """Seconds: what came before training, an epoch, and the time to the DMN's final accuracy."""
    table = Table(title="Seconds, mean over seeds", title_justify="left", title_style="bold")
    table.add_column("", no_wrap=True)
    for heading in (
        "fit",
        "features",
        "an epoch",
        "head in\nclosed form",
        "to the DMN's\naccuracy",
        "classes without\na filter",
    ):
        table.add_column(heading, justify="right")
    for name in nets(result):
        runs = result.timings[name]
        without = result.settings["classes_without_filter"].get(name)
        said = "–" if without is None else " | ".join(", ".join(map(str, each)) or "none" for each in without)
        table.add_row(
            name, _seconds(runs, "fit"), _seconds(runs, "extract"),
            f"{mean(mean(run['per_epoch']) for run in runs):.2f}", _seconds(runs, "ridge"), reaching(result, name),
            said,
        )  # fmt: skip
    return table


def reaching(result: Result, name: str) -> str:
    """Seconds until a net reached its DMN's final accuracy; for how many of the seeds, where not for all."""
    if name == "linear":
        return "–"
    goals = result.curves["dmn " + name.partition(" ")[2]]["test_accuracy"]
    times = times_to(result, name, [goal[-1] for goal in goals])
    found = [t for t in times if t is not None]
    if not found:
        return "never"
    return f"{mean(found):.2f}" + ("" if len(found) == len(times) else f" ({len(found)} of {len(times)} seeds)")


def times_to(result: Result, name: str, goals: list[float]) -> list[float | None]:
    """Of each seed, seconds until the test accuracy was first at least its goal at the end of an epoch."""
    times = []
    for run, accuracies, goal in zip(result.timings[name], result.curves[name]["test_accuracy"], goals, strict=True):
        reached = [t for t, accuracy in zip(run["seconds"], accuracies, strict=True) if accuracy >= goal]
        times.append(reached[0] if reached else None)
    return times


def _seconds(runs: list[dict[str, Any]], key: str) -> str:
    values = [run.get(key) for run in runs]
    known = [v for v in values if v is not None]
    return f"{mean(known):.2f}" if known else "–"


def _sweeps(result: Result) -> Table:
    """Figure 3, bottom: one line a value."""
    table = Table(title="One layer, one setting changed", title_justify="left", title_style="bold")
    for heading in ("", "test %", "filters"):
        table.add_column(heading, justify="right")
    for symbol in SYMBOLS.values():
        for row in result.rows:
            if row.name.startswith(f"{symbol}="):
                accuracy = cell(row.metrics["test_accuracy"], "test_accuracy")
                table.add_row(row.name, accuracy, f"{row.metrics['filters_1'].mean:.1f}")
        table.add_section()
    return table
