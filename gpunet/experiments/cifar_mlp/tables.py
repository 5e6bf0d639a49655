"""The tables of cifar-mlp."""

from __future__ import annotations

from dataclasses import asdict
from statistics import fmean
from typing import Any

from gpunet.experiments.cifar_mlp import x
from gpunet.experiments.cifar_mlp.claims import DATA, FINAL, GRADIENTS, RATES, diverged, rates
from gpunet.experiments.cifar_mlp.nets import Recipe
from gpunet.experiments.result import Result
from gpunet.report.table import NOTHING, Column, Table, cell, number, rows_table, seeds_told

NETS = {"test_accuracy": "test", "validation_accuracy": "validation", "train_cost": "train\ncost"}
BEST = 5  # trials of a search that are shown
# What a recipe has other than the document's final setting.
SAID = {
    "momentum": "μ {:g}", "batch_size": "batch {}", "init": "He", "decay": "decay {:.2g}", "cycle": "cyclical η",
    "shuffle": "fixed order", "patience": "patience {}",
}  # fmt: skip


def net_rows(result: Result) -> list[str]:
    """The rows that are single nets, not of the η table or the gradient check."""
    return [name for name in result.names if not name.startswith(("eta=", "gradient-check"))]


@x.table
def gradients(result: Result) -> Table:
    rows, stated = [], ["document"] if result.dataset == DATA else []
    for short, claimed in GRADIENTS.items():
        metrics = ("elementwise_error", "relative_error", "corners")
        by_element, relative, corners = (max(result.values(f"gradient-check {short}", metric)) for metric in metrics)
        cells = [f"{claimed:.1e}"] if stated else []
        rows.append((short, *cells, f"{by_element:.1e}", f"{relative:.1e}", f"{corners:.0f}"))
    checked = result.notes["gradient_check"]
    title = (
        f"Gradient check: {checked['samples']} samples of {checked['dimensions']} dimensions, float64, central "
        f"differences with step {checked['step']:g}; the largest over seeds"
    )
    headings = (
        *stated, "ours, element\nby element", "ours, relative to the\nparameter's largest",
        "elements near a\ncorner of ReLU",
    )  # fmt: skip
    note = "By element, differences that are nearly zero show their rounding, and corners of ReLU in between."
    return Table(title, tuple(map(Column, headings)), tuple(rows), note)


@x.table
def rate_table(result: Result) -> Table | None:
    settings, stated = result.settings, ["document"] if result.dataset == DATA else []
    title = f"Test accuracy by learning rate on {result.dataset}, %: λ = {settings['table_l2']:g}, {seeds_told(result)}"
    headings = [
        f"{kind},\n{epochs} epochs" for kind in (f"momentum {settings['momentum']:g}", "no momentum")
        for epochs in (result.notes["early"], settings["epochs"])
    ]  # fmt: skip
    rows = []
    for rate in rates(result):
        cells = [number(RATES[rate], "accuracy") if rate in RATES else NOTHING] if stated else []
        for row in (f"eta={rate:g}", f"eta={rate:g} no momentum"):
            diverged = sum(result.values(row, "diverged"))
            gone = f"\n{diverged:.0f} diverged" if diverged else ""
            cells += [cell(result.metric(row, m), m) + gone for m in ("test_accuracy_early", "test_accuracy")]
        rows.append((f"η = {rate:g}", *cells))
    return Table(title, tuple(map(Column, [*stated, *headings])), tuple(rows)) if rows else None


def _search(name: str, kind: str) -> None:
    """The best trials of a search, and how many each stage had."""

    @x.table
    def trials(result: Result) -> Table | None:
        if name not in result.curves:
            return None
        parameters = dict(result.curves[name])
        stages, values = parameters.pop("stage"), parameters.pop("validation_accuracy")
        order = sorted((i for i, value in enumerate(values) if value == value), key=lambda i: -values[i])
        rows = [
            (str(place), str(stages[i]), *(f"{tried[i]:.4g}" for tried in parameters.values()),
             number(values[i], "accuracy"))
            for place, i in enumerate(order[:BEST], 1)
        ]  # fmt: skip
        columns = Column("stage"), *(Column(key.replace("_", " ")) for key in parameters), Column("validation", "%")
        counts = " + ".join(str(stages.count(at)) for at in sorted(set(stages)))
        return Table(f"{kind}: {counts} nets, the best by validation accuracy", columns, tuple(rows))


_search("search", "The document's search")
_search("wide search", "A wider search: He's weights, η, λ, decay, batch size")


@x.table
def nets(result: Result) -> Table:
    title = f"Nets on {result.dataset}: {seeds_told(result)}; a cost includes the L2 term"
    if result.dataset == DATA:
        title += f"; final in the document: test {FINAL:.2%}"
    rows = net_rows(result)
    extra = {
        "epochs": {row: f"{round(result.mean(row, 'epochs'), 1):g}" for row in rows},
        "seconds": {row: f"{fmean(result.seconds(row, 'run')):.2g}" for row in rows},
        "setting": {row: described(result.notes["recipes"][row]) for row in rows},
    }
    label = {row: f"{row} (diverged)" if diverged(result, row) else row for row in rows}.__getitem__
    return rows_table(result, title, rows, NETS, extra=extra, words={"setting"}, label=label)


def described(recipe: dict[str, Any]) -> str:
    """What was trained, in a line."""
    plain = asdict(Recipe())
    words = [f"η {recipe['learning_rate']:.4g}", f"λ {recipe['l2']:.2g}"]
    words += [said.format(recipe[name]) for name, said in SAID.items() if recipe[name] != plain[name]]
    if recipe["hidden"] != plain["hidden"]:
        words.append(f"{recipe['hidden']} units" if recipe["hidden"] else "no hidden layer")
    return ", ".join(words)
