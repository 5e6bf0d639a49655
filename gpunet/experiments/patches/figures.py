"""The figure of patches: accuracy by dictionary and by whitening."""

from __future__ import annotations

from typing import Any

from gpunet.experiments.framework import WHISKERS
from gpunet.experiments.patches import x
from gpunet.experiments.result import Result
from gpunet.report.style import COLOURS, dots, label_rows


@x.figure(
    "accuracy", "Test accuracy by the number of patches, and by ε of the whitening on fewer images.",
    "Two charts of test accuracy: against the dictionary's size, and against ε.", spread=WHISKERS, panels=2,
)  # fmt: skip
def accuracy(result: Result, panels: Any) -> None:
    for panel, kind in zip(panels, ("patches", "whitening"), strict=True):
        rows = [name for name in result.names if kind in name]
        dots(panel, result, "test_accuracy", dict(enumerate(rows)), color=COLOURS[0])
        panel.set_xticks(range(len(rows)), [name.replace(kind, "").strip(" =") for name in rows])
        panel.margins(x=0.15, y=0.15)
    panels[0].set(xlabel="patches of the dictionary", title=result.dataset)
    panels[1].set(xlabel="ε of the whitening", title=f"{result.notes['sweep_training_samples']:,} training images")
    label_rows(panels, "test accuracy (%)")
