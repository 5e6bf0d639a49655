"""The tables of cifar-mlp."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rich.table import Table

from gpunet.experiments.cifar_mlp_claims import DATASET, FINAL, GRADIENTS, RATES
from gpunet.experiments.cifar_mlp_nets import Recipe
from gpunet.experiments.result import Result
from gpunet.report.table import NOTHING, Column, Sheet, cell, number, rows_sheet, seeds_told
from gpunet.report.terminal import claims_table, rich_tables

NETS = {"test_accuracy": "test", "validation_accuracy": "validation", "train_cost": "train\ncost"}
BEST = 5  # trials of a search that are shown


def sheets(result: Result) -> list[Sheet]:
    """The gradient check, the η table, the searches, the nets: what of them was run."""
    listed = []
    if "gradient" in result.settings["parts"]:
        listed.append(_gradients(result))
    if "rates" in result.settings["parts"]:
        listed.append(_rates(result))
    listed += [_trials(result, name) for name in ("search", "wide search") if name in result.curves]
    if nets := net_rows(result):
        listed.append(_nets(result, nets))
    return listed


def tables(result: Result) -> list[Table]:
    """The sheets for the terminal, and on the document's data the claims that were tested."""
    tested = [claim for claim in result.claims if claim.measured is not None]
    known = result.dataset == DATASET and tested
    return [*rich_tables(sheets(result)), *([claims_table(replace(result, claims=tested))] if known else [])]


def net_rows(result: Result) -> list[str]:
    """The rows that are single nets, not of the η table or the gradient check."""
    return [row.name for row in result.rows if not row.name.startswith(("eta=", "gradient-check"))]


def _gradients(result: Result) -> Sheet:
    """The document's relative errors beside ours; the largest over seeds."""
    kept = result.settings["gradient_check"]
    title = (
        f"Gradient check: {kept['samples']} samples of {kept['dimensions']} dimensions, float64, central differences "
        f"with step {kept['step']:g}; the largest of {seeds_told(result)}"
    )
    stated = ["document"] if result.dataset == DATASET else []
    headings = (
        *stated, "ours, element\nby element", "ours, relative to the\nparameter's largest",
        "elements near a\ncorner of ReLU",
    )  # fmt: skip
    rows = []
    for short, figure in GRADIENTS.values():
        row = f"gradient-check {short}"
        largest = [max(result.values(row, metric)) for metric in ("elementwise_error", "relative_error", "corners")]
        cells = [f"{figure:.1e}"] if stated else []
        rows.append((short, *cells, f"{largest[0]:.1e}", f"{largest[1]:.1e}", f"{largest[2]:.0f}"))
    note = "By element, differences that are nearly zero show their rounding, and corners of ReLU in between."
    return Sheet(title, tuple(map(Column, headings)), tuple(rows), note)


def _rates(result: Result) -> Sheet:
    """Test accuracy by learning rate, after the early epochs and all of them, with momentum and without."""
    settings = result.settings
    early, epochs, momentum = (settings[name] for name in ("early", "epochs", "momentum"))
    title = (
        f"Test accuracy by learning rate on {result.dataset}, %: λ = {settings['table_l2']:g}, {seeds_told(result)}, "
        "mean ± deviation"
    )
    stated = ["document"] if result.dataset == DATASET else []
    kinds = f"momentum {momentum:g}", "no momentum"
    columns = [Column(heading) for heading in stated]
    columns += [Column(f"{kind},\n{count} epochs") for kind in kinds for count in (early, epochs)]
    rows = []
    for rate in dict.fromkeys(settings["learning_rates"]):
        cells = [number(RATES[rate], "accuracy") if rate in RATES else NOTHING] if stated else []
        for kind in ("", " no momentum"):
            metrics = result.row(f"eta={rate:g}{kind}").metrics
            gone = f"\n{sum(metrics['diverged'].values):.0f} diverged" if any(metrics["diverged"].values) else ""
            cells += [cell(metrics[m], "accuracy") + gone for m in ("test_accuracy_early", "test_accuracy")]
        rows.append((f"η = {rate:g}", *cells))
    return Sheet(title, tuple(columns), tuple(rows))


def _trials(result: Result, name: str) -> Sheet:
    """The best trials of a search, and where each stage looked."""
    curve = result.curves[name]
    parameters = [key for key in curve if key not in ("stage", "validation_accuracy")]
    order = sorted(
        (i for i, value in enumerate(curve["validation_accuracy"]) if value == value),
        key=lambda i: -curve["validation_accuracy"][i],
    )
    stages = [sum(stage == at for at in curve["stage"]) for stage in sorted(set(curve["stage"]))]
    kind = "The document's search" if name == "search" else "A wider search: He's weights, η, λ, decay, batch size"
    title = f"{kind}: {' + '.join(map(str, stages))} nets, the best by validation accuracy"
    rows = [
        (str(place + 1), str(curve["stage"][i]), *(f"{curve[key][i]:.4g}" for key in parameters),
         number(curve["validation_accuracy"][i], "accuracy"))
        for place, i in enumerate(order[:BEST])
    ]  # fmt: skip
    columns = Column("stage"), *(Column(key.replace("_", " ")) for key in parameters), Column("validation", "%")
    return Sheet(title, columns, tuple(rows))


def _nets(result: Result, rows: list[str]) -> Sheet:
    """Single nets: what was trained, and what they reached."""
    title = f"Nets on {result.dataset}: {seeds_told(result)}, mean ± deviation; a cost includes the L2 term"
    extra: dict[str, dict[str, str]] = {"epochs": {}, "seconds": {}, "setting": {}}
    for row in rows:
        epochs = result.row(row).metrics["epochs"]
        extra["epochs"][row] = f"{epochs.mean:g}" if epochs.mean == round(epochs.mean) else f"{epochs.mean:.1f}"
        seconds = result.timings["seconds_per_run"][row]
        extra["seconds"][row] = f"{sum(seconds) / len(seconds):.2g}"
        extra["setting"][row] = described(result.settings["recipes"][row])
    if result.dataset == DATASET:
        title += f"; final in the document: test {FINAL:.2%}"
    return rows_sheet(result, title, rows, NETS, extra=extra, words={"setting"})


def described(recipe: dict[str, Any]) -> str:
    """What was trained, in a line."""
    plain = Recipe()
    words = [f"η {recipe['learning_rate']:.4g}", f"λ {recipe['l2']:.2g}"]
    words += [f"μ {recipe['momentum']:g}"] if recipe["momentum"] != plain.momentum else []
    words += [f"batch {recipe['batch_size']}"] if recipe["batch_size"] != plain.batch_size else []
    words += ["He"] if recipe["init"] == "he" else []
    words += [f"decay {recipe['decay']:.2g}"] if recipe["decay"] < 1 else []
    words += ["cyclical η"] if recipe["cycle"] else []
    words += ["fixed order"] if not recipe["shuffle"] else []
    words += [f"patience {recipe['patience']}"] if recipe["patience"] is not None else []
    words += ["no hidden layer"] if not recipe["hidden"] else []
    words += [f"{recipe['hidden']} units"] if recipe["hidden"] not in (0, plain.hidden) else []
    return ", ".join(words)
