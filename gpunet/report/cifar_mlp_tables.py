"""The tables of cifar-mlp for the terminal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rich.markup import escape
from rich.table import Table

from gpunet.experiments.cifar_mlp_claims import DATASET, FINAL, GRADIENTS, RATES
from gpunet.experiments.cifar_mlp_nets import Recipe
from gpunet.experiments.schema import Result
from gpunet.report.tables import cell, claims_table, number, rows_table

NETS = {"test_accuracy": "test", "validation_accuracy": "validation", "train_cost": "train\ncost"}
BEST = 5  # trials of a search that are shown


def tables(result: Result) -> list[Table]:
    """The gradient check, the η table, the searches, the nets, the claims: what of them was run."""
    listed = []
    if "gradient" in result.settings["parts"]:
        listed.append(_gradients(result))
    if "rates" in result.settings["parts"]:
        listed.append(_rates(result))
    listed += [_trials(result, name) for name in ("search", "wide search") if name in result.curves]
    if nets := net_rows(result):
        listed.append(_nets(result, nets))
    tested = [claim for claim in result.claims if claim.measured is not None]
    if result.dataset == DATASET and tested:
        listed.append(claims_table(replace(result, claims=tested)))
    return listed


def net_rows(result: Result) -> list[str]:
    """The rows that are single nets, not of the η table or the gradient check."""
    return [row.name for row in result.rows if not row.name.startswith(("eta=", "gradient-check"))]


def _seeds(result: Result) -> str:
    return f"{len(result.seeds)} seed{'s' * (len(result.seeds) > 1)}"


def _table(title: str, *headings: str) -> Table:
    table = Table(title=escape(title), title_justify="left", title_style="bold")
    table.add_column("", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


def _gradients(result: Result) -> Table:
    """The document's relative errors beside ours; the largest over seeds."""
    kept = result.settings["gradient_check"]
    title = (
        f"Gradient check: {kept['samples']} samples of {kept['dimensions']} dimensions, float64, central differences "
        f"with step {kept['step']:g}; the largest of {_seeds(result)}"
    )
    stated = ["document"] if result.dataset == DATASET else []
    table = _table(
        title, *stated, "ours, element\nby element", "ours, relative to the\nparameter's largest",
        "elements near a\ncorner of ReLU",
    )  # fmt: skip
    table.caption = "By element, differences that are nearly zero show their rounding, and corners of ReLU in between."
    table.caption_justify = "left"
    for short, figure in GRADIENTS.values():
        row = f"gradient-check {short}"
        largest = [max(result.values(row, metric)) for metric in ("elementwise_error", "relative_error", "corners")]
        cells = [f"{figure:.1e}"] if stated else []
        table.add_row(short, *cells, f"{largest[0]:.1e}", f"{largest[1]:.1e}", f"{largest[2]:.0f}")
    return table


def _rates(result: Result) -> Table:
    """Test accuracy by learning rate, after the early epochs and all of them, with momentum and without."""
    settings = result.settings
    early, epochs, momentum = (settings[name] for name in ("early", "epochs", "momentum"))
    title = (
        f"Test accuracy by learning rate on {result.dataset}, %: λ = {settings['table_l2']:g}, {_seeds(result)}, "
        "mean ± deviation"
    )
    stated = ["document"] if result.dataset == DATASET else []
    table = _table(
        title, *stated, f"momentum {momentum:g},\n{early} epochs", f"\n{epochs} epochs",
        f"no momentum,\n{early} epochs", f"\n{epochs} epochs",
    )  # fmt: skip
    for rate in dict.fromkeys(settings["learning_rates"]):
        cells = [number(RATES[rate], "accuracy") if rate in RATES else "–"] if stated else []
        for kind in ("", " no momentum"):
            metrics = result.row(f"eta={rate:g}{kind}").metrics
            gone = f"\n{sum(metrics['diverged'].values):.0f} diverged" if any(metrics["diverged"].values) else ""
            cells += [cell(metrics[m], "accuracy") + gone for m in ("test_accuracy_early", "test_accuracy")]
        table.add_row(f"η = {rate:g}", *cells)
    return table


def _trials(result: Result, name: str) -> Table:
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
    table = _table(title, "stage", *parameters, "validation %")
    for place, i in enumerate(order[:BEST]):
        table.add_row(
            str(place + 1), str(curve["stage"][i]), *(f"{curve[key][i]:.4g}" for key in parameters),
            number(curve["validation_accuracy"][i], "accuracy"),
        )  # fmt: skip
    return table


def _nets(result: Result, rows: list[str]) -> Table:
    """Single nets: what was trained, and what they reached."""
    title = f"Nets on {result.dataset}: {_seeds(result)}, mean ± deviation; a cost includes the L2 term"
    extra: dict[str, dict[str, str]] = {"epochs": {}, "seconds": {}, "setting": {}}
    for row in rows:
        epochs = result.row(row).metrics["epochs"]
        extra["epochs"][row] = f"{epochs.mean:g}" if epochs.mean == round(epochs.mean) else f"{epochs.mean:.1f}"
        seconds = result.timings["seconds_per_run"][row]
        extra["seconds"][row] = f"{sum(seconds) / len(seconds):.2g}"
        extra["setting"][row] = described(result.settings["recipes"][row])
    if result.dataset == DATASET:
        title += f"; final in the document: test {FINAL:.2%}"
    return rows_table(result, title, rows, NETS, extra=extra)


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
