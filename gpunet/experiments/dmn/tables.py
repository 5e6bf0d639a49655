"""The tables of dmn: DMN beside ConvNet, their times, and the sweeps."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate, pairwise
from statistics import fmean
from typing import NamedTuple

from gpunet.experiments.claims import paired
from gpunet.experiments.dmn import x
from gpunet.experiments.dmn.rivals import MAPS, OPTIMIZERS, convnet_row, dmn_row
from gpunet.experiments.result import Metric, NotMeasuredError, Result
from gpunet.report.table import NOTHING, Column, Table, cell, number, rows_table, seeds_told

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


class Pair(NamedTuple):
    """A DMN beside a ConvNet: its maps, the pixels of both, the optimisers of its head and of the ConvNet."""

    maps: str
    pixels: str
    head: str
    convnet: str

    @property
    def told(self) -> str:
        """In words."""
        return f"{self.head} / {self.convnet} ({self.maps}, {self.pixels})"

    def rows(self, result: Result) -> tuple[str, str]:
        """The names of their rows; NotMeasuredError where a run has no rivals."""
        if "rivals" not in result.notes:
            raise NotMeasuredError("this run trained no rivals: give --rivals 50")
        width = result.notes["rivals"]
        return dmn_row(width, self.maps, self.head, self.pixels), convnet_row(width, self.convnet, self.pixels)

    def gains(self, result: Result, metric: str) -> list[float]:
        """DMN less ConvNet, seed by seed; NotMeasuredError where one of them was not measured."""
        return paired(*(result.values(row, metric) for row in self.rows(result)))


# The fair pairs, of one optimiser, and beside the ConvNet of plain SGD the head that the document does not speak of.
PAIRS = [
    Pair(maps, pixels, head, convnet) for maps, every in MAPS.items() for pixels in every
    for head, convnet in [*zip(OPTIMIZERS, OPTIMIZERS, strict=True), ("Adam", "SGD")]
]  # fmt: skip
AFTER = ("test_accuracy", "test_accuracy_long")


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
def rivals(result: Result) -> Table:
    after = [result.settings[name] for name in ("epochs", "rivals")]
    columns = [
        Column(f"{what}\n{epochs}", "%") for epochs in after for what in ("DMN,", "ConvNet,", "DMN less\nConvNet,")
    ]
    lines = []
    for pair in PAIRS:
        found: list[Metric | None] = []
        for metric in AFTER:
            both = [result.metric(row, metric) if result.has(row, metric) else None for row in pair.rows(result)]
            found += [*both, Metric(pair.gains(result, metric)) if all(both) else None]
        lines.append((pair.told, *(cell(metric, AFTER[0]) for metric in found)))
    breaks = frozenset(i for i, (a, b) in enumerate(pairwise(PAIRS), 1) if a[:2] != b[:2])
    title = f"DMNs and ConvNets of {result.notes['rivals']} filters, after {after[0]} and {after[1]} epochs"
    return Table(title, tuple(columns), tuple(lines), breaks=breaks, corner="head / ConvNet by\n(maps, pixels)")


@x.table
def sweeps(result: Result) -> Table | None:
    rows = swept_rows(result)
    filters = {"filters": {row: f"{result.mean(row, 'filters_1'):.1f}" for row in rows}}
    made = rows_table(result, "One layer, one setting changed", rows, {"test_accuracy": "test"}, extra=filters)
    symbols = [row.partition("=")[0] for row in rows]
    breaks = frozenset(i for i, (a, b) in enumerate(pairwise(symbols), 1) if a != b)
    return replace(made, breaks=breaks) if rows else None
