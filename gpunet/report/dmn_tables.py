"""The tables of dmn."""

from __future__ import annotations

from statistics import mean
from typing import Any

from rich.table import Table

from gpunet.experiments.dmn_sweeps import SYMBOLS
from gpunet.experiments.result import Result
from gpunet.report.table import NOTHING, Column, Sheet, cell, rows_sheet, seeds_told
from gpunet.report.terminal import claims_table, rich_tables

HEADINGS = {
    "test_accuracy": "test", "test_accuracy_long": "test, trained\nlonger",
    "ridge_test_accuracy": "test, head in\nclosed form", "train_accuracy": "train",
}  # fmt: skip


def nets(result: Result) -> list[str]:
    """Rows of Figure 3's upper half: linear, then DMN and ConvNet of each width."""
    return [row.name for row in result.rows if row.name == "linear" or row.name.startswith(("dmn ", "convnet "))]


def sheets(result: Result) -> list[Sheet]:
    """DMN beside ConvNet, their times, the sweeps."""
    settings = result.settings
    title = (
        f"dmn on {result.dataset}: {settings['epochs']} epochs (longer: {settings['epochs'] * settings['long']}), "
        f"{seeds_told(result)}, mean ± deviation"
    )
    shares = {name: _shares(found[0]) for name, found in settings["shares"].items()}
    shown = {m: h for m, h in HEADINGS.items() if any(m in row.metrics for row in result.rows)}
    listed = [rows_sheet(result, title, nets(result), shown, extra={"T_v": shares}), _times(result)]
    if settings["sweeps"]:
        listed.append(_sweeps(result))
    return listed


def tables(result: Result) -> list[Table]:
    """The sheets for the terminal, and on the document's data the claims."""
    known = result.dataset in ("mnist", "cifar10", "cifar100")
    return [*rich_tables(sheets(result)), *([claims_table(result)] if known else [])]


def _shares(shares: list[float]) -> str:
    return ", ".join(f"{share:g}" for share in shares)


def _times(result: Result) -> Sheet:
    """Seconds: what came before training, an epoch, and the time to the DMN's final accuracy."""
    headings = (
        "fit", "features", "an epoch", "head in\nclosed form", "to the DMN's\naccuracy", "classes without\na filter",
    )  # fmt: skip
    rows = []
    for name in nets(result):
        runs = result.timings[name]
        without = result.settings["classes_without_filter"].get(name)
        said = NOTHING if without is None else " | ".join(", ".join(map(str, each)) or "none" for each in without)
        rows.append((
            name, _seconds(runs, "fit"), _seconds(runs, "extract"),
            f"{mean(mean(run['per_epoch']) for run in runs):.2f}", _seconds(runs, "ridge"), reaching(result, name),
            said,
        ))  # fmt: skip
    return Sheet("Seconds, mean over seeds", tuple(Column(heading) for heading in headings), tuple(rows))


def reaching(result: Result, name: str) -> str:
    """Seconds until a net reached its DMN's final accuracy; for how many of the seeds, where not for all."""
    if name == "linear":
        return NOTHING
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
    return f"{mean(known):.2f}" if known else NOTHING


def _sweeps(result: Result) -> Sheet:
    """Figure 3, bottom: one line a value."""
    rows: list[tuple[str, ...]] = []
    breaks = set()
    for symbol in SYMBOLS.values():
        breaks.add(len(rows))
        for row in result.rows:
            if row.name.startswith(f"{symbol}="):
                accuracy = cell(row.metrics["test_accuracy"], "test_accuracy")
                rows.append((row.name, accuracy, f"{row.metrics['filters_1'].mean:.1f}"))
    columns = Column("test", "%"), Column("filters")
    return Sheet("One layer, one setting changed", columns, tuple(rows), breaks=frozenset(breaks - {0}))
