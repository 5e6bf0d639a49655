"""The tables of dmn: DMN beside ConvNet, their times, and the sweeps."""

from __future__ import annotations

from itertools import accumulate
from statistics import fmean

from gpunet.experiments.dmn import x
from gpunet.experiments.result import Result
from gpunet.report.table import NOTHING, Column, Table, cell, number, rows_table, seeds_told

HEADINGS = {
    "test_accuracy": "test", "test_accuracy_long": "test, trained\nlonger",
    "ridge_test_accuracy": "test, head in\nclosed form", "train_accuracy": "train",
}  # fmt: skip
TIMES = {"fit": "fit", "extract": "features", "epoch": "an epoch", "ridge": "head in\nclosed form"}
SWEPT = {"T_PC": "largest |cosine| kept", "T_v": "share of the variance", "T_frac": "share of the data"}


def nets(result: Result) -> list[str]:
    """Rows of Figure 3's upper half: linear, then DMN and ConvNet of each width."""
    return [name for name in result.names if name == "linear" or name.startswith(("dmn ", "convnet "))]


def elapsed(result: Result, name: str) -> list[list[float]]:
    """Of each seed, seconds since the beginning at the end of every epoch, fitting and features included."""
    runs = result.curves[name]["seconds"]
    before = [0.0] * len(runs)
    if name.startswith("dmn "):
        before = [sum(each) for each in zip(result.seconds(name, "fit"), result.seconds(name, "extract"), strict=True)]
    return [list(accumulate(run, initial=start))[1:] for run, start in zip(runs, before, strict=True)]


@x.table
def accuracies(result: Result) -> Table:
    epochs, shown = result.settings["epochs"], [m for m in HEADINGS if any(result.has(n, m) for n in nets(result))]
    longer = f"(longer: {epochs * result.settings['long']})"
    title = f"dmn on {result.dataset}: {epochs} epochs {longer}, {seeds_told(result)}, mean ± deviation"
    shares = {name: ", ".join(f"{share:g}" for share in found[0]) for name, found in result.notes["shares"].items()}
    return rows_table(result, title, nets(result), {m: HEADINGS[m] for m in shown}, extra={"T_v": shares})


@x.table
def times(result: Result) -> Table:
    headings = [*TIMES.values(), "to the DMN's\naccuracy", "classes without\na filter"]
    rows = []
    for name in nets(result):
        known = result.timings[name]
        cells = [number(fmean(known[measure]), measure) if measure in known else NOTHING for measure in TIMES]
        without = result.notes["classes_without_filter"].get(name)
        said = NOTHING if without is None else " | ".join(", ".join(map(str, each)) or "none" for each in without)
        rows.append((name, *cells, reaching(result, name), said))
    return Table("Seconds, mean over seeds", tuple(map(Column, headings)), tuple(rows))


def reaching(result: Result, name: str) -> str:
    """Seconds until a net reached its DMN's final accuracy; for how many of the seeds, where not for all."""
    if name == "linear":
        return NOTHING
    goals = [run[-1] for run in result.curves["dmn " + name.partition(" ")[2]]["test_accuracy"]]
    runs, found = list(zip(elapsed(result, name), result.curves[name]["test_accuracy"], goals, strict=True)), []
    for seconds, accuracies, goal in runs:
        found += [t for t, accuracy in zip(seconds, accuracies, strict=True) if accuracy >= goal][:1]
    if not found:
        return "never"
    return number(fmean(found), "seconds") + (
        "" if len(found) == len(runs) else f" ({len(found)} of {len(runs)} seeds)"
    )


@x.table
def sweeps(result: Result) -> Table | None:
    """Figure 3, bottom: one line a value."""
    rows: list[tuple[str, ...]] = []
    breaks = set()
    for symbol in SWEPT:
        breaks.add(len(rows))
        for name in result.names:
            if name.startswith(f"{symbol}="):
                accuracy = cell(result.metric(name, "test_accuracy"), "test_accuracy")
                rows.append((name, accuracy, f"{result.mean(name, 'filters_1'):.1f}"))
    columns = Column("test", "%"), Column("filters")
    made = Table("One layer, one setting changed", columns, tuple(rows), breaks=frozenset(breaks - {0}))
    return made if rows else None
