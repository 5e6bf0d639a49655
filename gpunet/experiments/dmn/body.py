"""dmn: DMNs and ConvNets of the same filters (Figure 3, top), sweeps of three thresholds, and Figures 1 and 2.

Besides: a head solved in closed form, time to fit against time to train, and ConvNets trained for longer.

Not stated in the document, our choice beside those of the paper's page: He initial weights, which of two matching
vectors is kept, and how many samples the sweeps use; `chosen` looked at the learning rates and their decay.
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

from gpunet.experiments.dmn import Shares, x
from gpunet.experiments.dmn.dynamics import convergence, fluctuations
from gpunet.experiments.dmn.nets import KERNEL, filters, train_convnet, train_dmn
from gpunet.experiments.dmn.rivals import rivals
from gpunet.experiments.framework import Measured, Run
from gpunet.experiments.images import as_images, some_of
from gpunet.progress import Progress
from gpunet.spectral.fitted import Thresholds

# Chosen for filter counts like those of the document's Figure 3; digits' images are too small for more.
WIDTHS: dict[str, tuple[Shares, ...]] = {
    "mnist": ((0.9,), (0.98,), (0.95, 0.9), (0.98, 0.9)),
    "cifar10": ((0.99,), (0.998,), (0.99, 0.99), (0.998, 0.99)),
    "digits": ((0.95,), (0.95, 0.99)),
}
OTHERS: tuple[Shares, ...] = ((0.98,), (0.99,), (0.98, 0.95), (0.99, 0.98))
EPOCHS, LEAST_STEPS = 5, 1500
FRACTIONS = {"mnist": 0.4, "cifar10": 0.7}  # the document's T_frac; 1 for everything else
SWEPT = {
    "T_PC": ("correlation", (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)),
    "T_v": ("variance", (0.6, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999, 1.0)),
    "T_frac": ("fraction", (0.005, 0.02, 0.1, 0.2, 0.3, 0.4, 0.7, 1.0)),
}
SIGNS = "of each vector the largest element is positive"  # the first within 0.1 %, see `verify.fix_signs`
HELD = 0.98  # T_v while another setting is swept: where the document sees the peak


@x.run
def body(run: Run) -> None:
    """One dense layer, a DMN and the ConvNet of its filters for every width, the sweeps, the dynamics."""
    run.data, asked = as_images(run.data, "dmn", KERNEL), run.settings
    name, batches = run.dataset, math.ceil(len(run.data.x_train) / asked.batch_size)
    run.settings = settings = replace(
        asked, widths=asked.widths or WIDTHS.get(name, OTHERS), fraction=asked.fraction or FRACTIONS.get(name, 1.0),
        epochs=asked.epochs or max(EPOCHS, min(60, LEAST_STEPS // batches)),
    )  # fmt: skip
    _warm_up(run)
    run.each_seed("linear", _steps(run), lambda seed: train_convnet(run, [], seed))
    run.note(signs=SIGNS)
    for index, shares in enumerate(settings.widths):
        _pair(run, shares, f"{index + 1}/{len(settings.widths)}")
    if settings.rivals:
        rivals(run)
    if settings.sweeps:
        _sweeps(run)
    if settings.dynamics:
        convergence(run)
        fluctuations(run)


def _warm_up(run: Run) -> None:
    """One step of everything that is timed: what is compiled at the first call is not the method's cost."""
    few, once = some_of(run.data, 2 * run.settings.batch_size), replace(run.settings, epochs=1, long=1)
    apart = Run(x, few, once, [0])
    apart.backend, apart.bar = run.backend, Progress()
    for shares in ((0.9,), (0.9, 0.9)):  # few filters also of noise, of which a hundred classes would give thousands
        train_convnet(apart, filters(train_dmn(apart, [Thresholds(share, most=8) for share in shares], 0)), 0)


def _steps(run: Run) -> int:
    """Of one net and seed."""
    return int(math.ceil(len(run.data.x_train) / run.settings.batch_size) * run.settings.epochs)


def _dmns(run: Run, shares: Shares, closed_form: bool = True, **changed: Any) -> list[Measured]:
    """A DMN of each seed; `changed`: other thresholds than those of the settings."""
    s, found = run.settings, []
    thresholds = [replace(Thresholds(share, s.correlation, s.fraction, s.center), **changed) for share in shares]
    for seed in run.seeds:
        run.bar.seed(seed)
        found.append(train_dmn(run, thresholds, seed, closed_form))
    return found


def _pair(run: Run, shares: Shares, place: str) -> None:
    """A DMN, and the ConvNet of the same filters; the first seed's filter counts name the rows."""
    run.bar.start(f"dmn {place} T_v {', '.join(map(str, shares))}", _steps(run) * len(run.seeds))
    nets = dict(zip(run.seeds, _dmns(run, shares), strict=True))
    first = nets[run.seeds[0]]
    name = "+".join(map(str, filters(first)))
    row, known = f"dmn {name}", run.result.notes.get("shares", {}).get(f"dmn {name}", [])
    run.note(shares={row: [*known, list(shares)]})
    if known:
        return  # another share gave the same filters
    run.enter(row, list(nets.values()))
    without = [[label for label, kept in layer["filters"].items() if not kept] for layer in first.notes["svd"]]
    run.note(classes_without_filter={row: without})
    steps = _steps(run) * run.settings.long
    run.each_seed(f"convnet {name}", steps, lambda seed: train_convnet(run, filters(nets[seed]), seed), place)


def _sweeps(run: Run) -> None:
    """Rows "T_PC=0.8", "T_v=0.98", "T_frac=0.3" …: one layer, one of the thresholds changed; Figure 3, bottom."""
    part = copy.copy(run)
    part.data = some_of(run.data, run.settings.sweep_samples)
    for symbol, (setting, values) in SWEPT.items():
        run.bar.start(f"dmn sweep of {symbol}", _steps(part) * len(values) * len(run.seeds))
        for value in values:
            nets = _dmns(part, (HELD,), closed_form=False, **{setting: value})
            shown = [{name: net.metrics[name] for name in ("test_accuracy", "filters_1")} for net in nets]
            found = [Measured(each, notes=net.notes) for each, net in zip(shown, nets, strict=True)]
            run.enter(f"{symbol}={value:g}", found)
    run.note(sweep_training_samples=len(part.data.x_train))
