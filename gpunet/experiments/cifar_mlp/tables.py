"""The tables of cifar-mlp: the gradient check, the η table, the searches, the nets."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from gpunet.experiments.cifar_mlp import x
from gpunet.experiments.cifar_mlp.claims import DATA, FINAL, GRADIENTS, RATES, rates
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
    """The document's relative errors beside ours; the largest over seeds."""
    metrics = "elementwise_error", "relative_error", "corners"
    rows, stated = [], ["document"] if result.dataset == DATA else []
    for short, claimed in GRADIENTS.values():
        largest = [max(result.values(f"gradient-check {short}", metric)) for metric in metrics]
        cells = [f"{claimed:.1e}"] if stated else []
        rows.append((short, *cells, f"{largest[0]:.1e}", f"{largest[1]:.1e}", f"{largest[2]:.0f}"))
    checked = result.notes["gradient_check"]
    title = (
        f"Gradient check: {checked['samples']} samples of {checked['dimensions']} dimensions, float64, central "
        f"differences with step {checked['step']:g}; the largest of {seeds_told(result)}"
    )
    headings = (
        *stated, "ours, element\nby element", "ours, relative to the\nparameter's largest",
        "elements near a\ncorner of ReLU",
    )  # fmt: skip
    note = "By element, differences that are nearly zero show their rounding, and corners of ReLU in between."
    return Table(title, tuple(map(Column, headings)), tuple(rows), note)


@x.table
def rate_table(result: Result) -> Table | None:
    """Test accuracy by learning rate, after the early epochs and all of them, with momentum and without."""
    settings = result.settings
    title = (
        f"Test accuracy by learning rate on {result.dataset}, %: λ = {settings['table_l2']:g}, {seeds_told(result)}, "
        "mean ± deviation"
    )
    stated = ["document"] if result.dataset == DATA else []
    kinds = f"momentum {settings['momentum']:g}", "no momentum"
    columns = [Column(heading) for heading in stated]
    columns += [Column(f"{k},\n{count} epochs") for k in kinds for count in (result.notes["early"], settings["epochs"])]
    rows = []
    for rate in rates(result):
        cells = [number(RATES[rate], "accuracy") if rate in RATES else NOTHING] if stated else []
        for row in (f"eta={rate:g}", f"eta={rate:g} no momentum"):
            diverged = sum(result.values(row, "diverged"))
            gone = f"\n{diverged:.0f} diverged" if diverged else ""
            cells += [cell(result.metric(row, m), m) + gone for m in ("test_accuracy_early", "test_accuracy")]
        rows.append((f"η = {rate:g}", *cells))
    return Table(title, tuple(columns), tuple(rows)) if rows else None


def _declare_search(name: str, kind: str) -> None:
    @x.table
    def trials(result: Result) -> Table | None:
        return _trials(result.curves[name], kind) if name in result.curves else None


_declare_search("search", "The document's search")
_declare_search("wide search", "A wider search: He's weights, η, λ, decay, batch size")


def _trials(curve: dict[str, list[float]], kind: str) -> Table:
    """The best trials of a search, and how many each stage had."""
    values = curve["validation_accuracy"]
    order = sorted((i for i, value in enumerate(values) if value == value), key=lambda i: -values[i])
    parameters = [key for key in curve if key not in ("stage", "validation_accuracy")]
    rows = [
        (str(place + 1), str(curve["stage"][i]), *(f"{curve[key][i]:.4g}" for key in parameters),
         number(values[i], "accuracy"))
        for place, i in enumerate(order[:BEST])
    ]  # fmt: skip
    stages = " + ".join(str(curve["stage"].count(at)) for at in sorted(set(curve["stage"])))
    columns = Column("stage"), *(Column(key.replace("_", " ")) for key in parameters), Column("validation", "%")
    return Table(f"{kind}: {stages} nets, the best by validation accuracy", columns, tuple(rows))


@x.table
def nets(result: Result) -> Table | None:
    """Single nets: what was trained, and what they reached."""
    title = f"Nets on {result.dataset}: {seeds_told(result)}, mean ± deviation; a cost includes the L2 term"
    if result.dataset == DATA:
        title += f"; final in the document: test {FINAL:.2%}"
    rows, extra = net_rows(result), {"epochs": {}, "seconds": {}, "setting": {}}  # type: ignore[var-annotated]
    for row in rows:
        epochs, seconds = result.mean(row, "epochs"), result.seconds(row, "run")
        extra["epochs"][row] = f"{epochs:g}" if epochs == round(epochs) else f"{epochs:.1f}"
        extra["seconds"][row] = f"{sum(seconds) / len(seconds):.2g}"
        extra["setting"][row] = described(result.notes["recipes"][row])
    return rows_table(result, title, rows, NETS, extra=extra, words={"setting"}) if rows else None


def described(recipe: dict[str, Any]) -> str:
    """What was trained, in a line."""
    plain = asdict(Recipe())
    words = [f"η {recipe['learning_rate']:.4g}", f"λ {recipe['l2']:.2g}"]
    words += [said.format(recipe[name]) for name, said in SAID.items() if recipe[name] != plain[name]]
    if recipe["hidden"] != plain["hidden"]:
        words.append(f"{recipe['hidden']} units" if recipe["hidden"] else "no hidden layer")
    return ", ".join(words)
