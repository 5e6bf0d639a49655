"""The figures of svd-init: Figure 2, the training curves, Table 1 as a picture, and the two further studies."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunet.experiments.framework import BANDS, WHISKERS
from gpunet.experiments.result import Result
from gpunet.experiments.svd_init import x
from gpunet.experiments.svd_init.claims import DATA, METRICS, TABLE_1
from gpunet.report.style import COLOURS, band, by_epoch, dots, legend_beside, stacked

KINDS = np.arange(len(TABLE_1))  # a row each, from above
HOLLOW = {"color": COLOURS[1], "mfc": "none", "mew": 1.8, "markersize": 7}


@x.figure(
    "dependency", "Figure 2: how much the first layer depends on the data (equation 7) while training.",
    "Line chart of the dependency ratio against epochs, one line for each kind of first-layer weights.", spread=BANDS,
)  # fmt: skip
def dependency(result: Result, axes: Any) -> None:
    for place, kind in enumerate(TABLE_1):
        curves = result.curves[kind]
        band(axes, curves["dependency_epoch"][0], curves["dependency"], kind, place)
    axes.set(xlabel="epochs", ylabel="dependency ratio (equation 7)", title="Dependency on the data")
    legend_beside(axes)


@x.figure(
    "curves", "Training loss and test accuracy by epoch.",
    "Two line charts against epochs, training loss and test accuracy, one line for each kind of weights.",
    spread=BANDS, panels=2,
)  # fmt: skip
def curves(result: Result, panels: Any) -> None:
    loss, accuracy = panels
    for place, kind in enumerate(TABLE_1):
        by_epoch(loss, result, kind, "train_loss", kind, place)
        by_epoch(accuracy, result, kind, "test_accuracy", kind, place)
    loss.set(ylabel="cross-entropy per sample", title="Training loss (mean over the epoch)")
    accuracy.set(ylabel="accuracy (%)", title="Test accuracy")
    accuracy.legend()


@x.figure(
    "table1", "Table 1 as a picture; where the data are the document's, its own number as a diamond.",
    "Three dot plots by kind of weights: loss, train accuracy, test accuracy.", spread=WHISKERS,
    panels=3, width=4.4, height=3.2,
)  # fmt: skip
def table1(result: Result, panels: Any) -> None:
    labels, known = ("loss", "train accuracy (%)", "test accuracy (%)"), result.dataset == DATA
    stated = np.transpose(list(TABLE_1.values()))
    for panel, metric, label, claimed in zip(panels, METRICS, labels, stated, strict=True):
        dots(panel, result, metric, dict(enumerate(TABLE_1)), across=True, color=COLOURS[0], label="ours")
        if known:
            panel.plot(claimed * (100 if "accuracy" in metric else 1), KINDS, "D", **HOLLOW, label="document")
        _kinds(panel, label, named=panel is panels[0])
    panels[0].legend(loc="upper left", ncols=2)
    panels[0].set_title("Table 1: ours and the document's" if known else "Table 1 on these data")


@x.figure(
    "further",
    "The further studies: accuracy with W¹ frozen or the norms held, and the mean square of the hidden outputs as the "
    "linearised sigmoid predicts it and as measured.",
    "Two dot plots by kind of weights: test accuracy in three variants, and the mean square norm of x¹.",
    spread=WHISKERS, panels=2,
)  # fmt: skip
def further(result: Result, panels: Any) -> None:
    variants = (("trained", "", -0.2), ("W¹ frozen", " frozen", 0.0), ("‖W‖ held", " norm held", 0.2))
    frozen, hidden = panels
    for (label, variant, shift), colour in zip(variants, COLOURS, strict=False):
        rows = {place + shift: kind + variant for place, kind in enumerate(TABLE_1)}
        dots(frozen, result, "test_accuracy", rows, across=True, color=colour, label=label)
    _kinds(frozen, "test accuracy (%)", named=True)
    frozen.set_title("With W¹ frozen, or its norm held")
    frozen.legend(loc="upper left", ncols=3, columnspacing=1, handletextpad=0.2)
    squares = [[result.mean(kind, f"hidden_square_{how}") for kind in TABLE_1] for how in ("linear", "measured")]
    hidden.plot(squares[0], KINDS, "D", **HOLLOW, label="x ≈ ¼z + ½")
    hidden.plot(squares[1], KINDS, "o", color=COLOURS[0], label="measured")
    _kinds(hidden, "mean ‖x¹‖² before training", named=False)
    hidden.set_title("Linearised sigmoid")
    hidden.legend(loc="upper left", ncols=2)


def _kinds(panel: Any, label: str, *, named: bool) -> None:
    """A row for each kind of weights from above, and room for the legend over them."""
    names = list(TABLE_1) if named or stacked() else []
    panel.set(xlabel=label, yticks=KINDS, yticklabels=names, ylim=(len(KINDS) - 0.5, -1.3))
