"""The tables of dmn: DMN beside ConvNet, their times, and the sweeps."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate, pairwise
from statistics import fmean

from gpunet.experiments.dmn import x
from gpunet.experiments.result import Result
from gpunet.report.table import NOTHING, Table, number, rows_table, seeds_told

HEADINGS = {
    "test_accuracy": "test", "test_accuracy_long": "test, trained\nlonger",
    "ridge_test_accuracy": "test, head in\nclosed form", "train_accuracy": "train",
}  # fmt: skip
TIMES = {"fit": "fit", "extract": "features", "epoch": "an epoch", "ridge": "head in\nclosed form"}


def nets(result: Result) -> list[str]:
    """Rows of Figure 3's upper half: linear, then DMN and ConvNet of each width."""
    return [name for name in result.names if name == "linear" or name.startswith(("dmn ", "convnet "))]


def widths(result: Result) -> list[str]:
    """Filter counts of the DMNs, which their ConvNets share."""
    return [name.removeprefix("dmn ") for name in result.names if name.startswith("dmn ")]


def swept_rows(result: Result, symbol: str = "") -> list[str]:
    """Rows of Figure 3's lower half, of all settings or of one."""
    return [name for name in result.names if "=" in name and name.startswith(symbol)]


def elapsed(result: Result, name: str) -> list[list[float]]:
    """Of each seed, seconds since the beginning at the end of every epoch, fitting and features included."""
    runs, timed = result.curves[name]["seconds"], result.timings.get(name, {})
    before = (timed.get(measure, [0.0] * len(runs)) for measure in ("fit", "extract"))
    return [list(accumulate(run, initial=a + b))[1:] for run, a, b in zip(runs, *before, strict=True)]


@x.table
def accuracies(result: Result) -> Table:
    shown = {metric: said for metric, said in HEADINGS.items() if any(result.has(row, metric) for row in nets(result))}
    epochs, times = result.settings["epochs"], result.settings["long"]
    title = f"dmn on {result.dataset}: {epochs} epochs (longer: {epochs * times}), {seeds_told(result)}"
    shares = {name: ", ".join(f"{share:g}" for share in found[0]) for name, found in result.notes["shares"].items()}
    return rows_table(result, title, nets(result), shown, extra={"T_v": shares})


@x.table
def times(result: Result) -> Table:
    extra = {
        said: {row: number(fmean(known[measure]), measure) for row, known in result.timings.items() if measure in known}
        for measure, said in TIMES.items()
    }
    extra["to the DMN's\naccuracy"] = {row: reaching(result, row) for row in nets(result)}
    extra["classes without\na filter"] = {
        row: " | ".join(", ".join(map(result.class_name, each)) or "none" for each in layers)
        for row, layers in result.notes["classes_without_filter"].items()
    }
    return rows_table(result, "Seconds, mean over seeds", nets(result), {}, extra=extra)


def reaching(result: Result, name: str) -> str:
    """Seconds until a net reached its DMN's final accuracy; for how many of the seeds, where not for all."""
    if name == "linear":
        return NOTHING
    goals = [run[-1] for run in result.curves["dmn " + name.partition(" ")[2]]["test_accuracy"]]
    found: list[float] = []
    for seconds, run, goal in zip(elapsed(result, name), result.curves[name]["test_accuracy"], goals, strict=True):
        found += [at for at, accuracy in zip(seconds, run, strict=True) if accuracy >= goal][:1]
    if not found:
        return "never"
    some = f" ({len(found)} of {len(goals)} seeds)" if len(found) < len(goals) else ""
    return number(fmean(found), "seconds") + some


@x.table
def sweeps(result: Result) -> Table | None:
    rows = swept_rows(result)
    filters = {"filters": {row: f"{result.mean(row, 'filters_1'):.1f}" for row in rows}}
    made = rows_table(result, "One layer, one setting changed", rows, {"test_accuracy": "test"}, extra=filters)
    symbols = [row.partition("=")[0] for row in rows]
    breaks = frozenset(i for i, (a, b) in enumerate(pairwise(symbols), 1) if a != b)
    return replace(made, breaks=breaks) if rows else None
