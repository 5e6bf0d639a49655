"""The figures of svd-init: Figure 2, the training curves, Table 1 as a picture, and the two further studies."""

from __future__ import annotations

from pathlib import Path

from gpunet.experiments.schema import Result
from gpunet.experiments.svd_init_claims import TABLE_1
from gpunet.report.style import COLOURS, band, figure


def draw(result: Result, folder: Path) -> list[Path]:
    """Write the figures as PNG; returns their paths."""
    paths = [folder / f"{name}.png" for name in ("dependency", "curves", "table1", "further")]
    _dependency(result, paths[0])
    _curves(result, paths[1])
    _table(result, paths[2])
    _further(result, paths[3])
    return paths


def _dependency(result: Result, path: Path) -> None:
    with figure(path) as axes:
        for place, kind in enumerate(TABLE_1):
            curves = result.curves[kind]
            band(axes, curves["dependency_epoch"][0], curves["dependency"], kind, place)
        axes.set(xlabel="epochs", ylabel="dependency ratio (equation 7)", title="Figure 2: dependency on the data")
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))


def _curves(result: Result, path: Path) -> None:
    with figure(path, 2) as (loss, accuracy):
        for place, kind in enumerate(TABLE_1):
            curves = result.curves[kind]
            epochs = range(1, len(curves["train_loss"][0]) + 1)
            band(loss, epochs, curves["train_loss"], kind, place)
            band(accuracy, epochs, [[100 * v for v in run] for run in curves["test_accuracy"]], kind, place)
        loss.set(xlabel="epoch", ylabel="cross-entropy per sample", title="Training loss (mean over the epoch)")
        accuracy.set(xlabel="epoch", ylabel="accuracy (%)", title="Test accuracy")
        accuracy.legend()


def _table(result: Result, path: Path) -> None:
    columns = (
        ("train_loss", "loss", 1),
        ("train_accuracy", "train accuracy (%)", 100),
        ("test_accuracy", "test accuracy (%)", 100),
    )
    with figure(path, 3, width=4.4, height=3.0) as panels:
        for panel, (metric, label, unit) in zip(panels, columns, strict=True):
            for y, (kind, claimed) in enumerate(TABLE_1.items()):
                values = [unit * v for v in result.values(kind, metric)]
                mean = sum(values) / len(values)
                panel.plot(values, [y] * len(values), "o", color=COLOURS[0], alpha=0.35, markersize=4)
                panel.plot(
                    mean, y, "o", color=COLOURS[0], markersize=8, label="ours, mean and seeds" if y == 0 else None
                )
                if result.dataset == "mnist":
                    stated = unit * claimed[columns.index((metric, label, unit))]
                    panel.plot(
                        stated,
                        y,
                        "D",
                        color=COLOURS[1],
                        markersize=7,
                        mfc="none",
                        mew=1.8,
                        label="document" if y == 0 else None,
                    )
            panel.set(xlabel=label, yticks=range(len(TABLE_1)), yticklabels=list(TABLE_1) if panel is panels[0] else [])
            panel.invert_yaxis()
        panels[0].legend(loc="best")
        panels[0].set_title(
            "Table 1: ours and the document's" if result.dataset == "mnist" else "Table 1 on these data"
        )


def _further(result: Result, path: Path) -> None:
    with figure(path, 2) as (frozen, hidden):
        for shift, variant, colour in (
            (-0.2, "", COLOURS[0]),
            (0.0, " frozen", COLOURS[1]),
            (0.2, " norm held", COLOURS[2]),
        ):
            rows = [result.row(kind + variant).metrics["test_accuracy"] for kind in TABLE_1]
            places = [y + shift for y in range(len(rows))]
            frozen.errorbar(
                [100 * m.mean for m in rows],
                places,
                xerr=[100 * (m.std or 0) for m in rows],
                fmt="o",
                color=colour,
                label={"": "trained", " frozen": "W¹ frozen", " norm held": "‖W‖ held"}[variant],
            )
        frozen.set(
            xlabel="test accuracy (%)",
            yticks=range(len(TABLE_1)),
            yticklabels=list(TABLE_1),
            title="With W¹ frozen, or its norm held",
        )
        frozen.invert_yaxis()
        frozen.legend()
        for y, kind in enumerate(TABLE_1):
            metrics = result.row(kind).metrics
            hidden.plot(
                metrics["hidden_square_linear"].mean,
                y,
                "D",
                color=COLOURS[1],
                mfc="none",
                mew=1.8,
                markersize=7,
                label="x ≈ ¼z + ½" if y == 0 else None,
            )
            hidden.plot(
                metrics["hidden_square_measured"].mean, y, "o", color=COLOURS[0], label="measured" if y == 0 else None
            )
        hidden.set(
            xlabel="mean ‖x¹‖² before training", yticks=range(len(TABLE_1)), yticklabels=[], title="Linearised sigmoid"
        )
        hidden.invert_yaxis()
        hidden.legend()
