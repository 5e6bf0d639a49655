"""Figure 3, bottom: accuracy against T_PC, T_v and T_frac, one layer, the other two settings held."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gpunet.backend import Backend
from gpunet.experiments.dmn_nets import Images, train_dmn
from gpunet.experiments.result import Result
from gpunet.layers.fitted import Thresholds
from gpunet.progress import Progress

if TYPE_CHECKING:
    from gpunet.experiments.dmn import Settings

VALUES = {
    "correlation": (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0),
    "variance": (0.6, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999, 1.0),
    "fraction": (0.005, 0.02, 0.1, 0.2, 0.3, 0.4, 0.7, 1.0),
}
SYMBOLS = {"correlation": "T_PC", "variance": "T_v", "fraction": "T_frac"}
HELD = 0.98  # T_v while another setting is swept: where the document sees the peak


def sweeps(
    result: Result, images: Images, settings: Settings, seeds: list[int], backend: Backend, bar: Progress
) -> None:
    """Rows "T_PC=0.8", "T_v=0.98", "T_frac=0.3" …: test accuracy and filters, a value a seed."""
    steps = -(-len(images.x_train) // settings.batch_size) * settings.training.epochs
    base = Thresholds(HELD, settings.correlation, settings.fraction or 1.0, settings.center)
    for setting, values in VALUES.items():
        bar.start(f"dmn sweep of {SYMBOLS[setting]}", steps * len(values) * len(seeds))
        for value in values:
            changed: Any = {setting: value}
            thresholds = [replace(base, **changed)]
            for seed in seeds:
                outcome = train_dmn(images, thresholds, settings.head_training, seed, backend, bar, closed_form=False)
                result.row(f"{SYMBOLS[setting]}={value:g}").add(
                    test_accuracy=outcome.course.test_accuracy[-1], filters_1=outcome.filters[0]
                )
    result.settings["sweep_training_samples"] = len(images.x_train)
