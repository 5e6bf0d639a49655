"""dmn: DMNs and ConvNets of the same filters (Figure 3, top), sweeps of three thresholds, and Figures 1 and 2.

Besides: a head solved in closed form, time to fit against time to train, and ConvNets trained for longer.

Not stated in the document, our choice: Adam at 1e-3 with 5 epochs of batch 64 for heads and ConvNets, the rate of heads
falling to a sixth and that of ConvNets constant (each what is best for it on a validation split, see `chosen`), He
initial weights, the shares T_v (the document shows filter counts), which of two matching vectors is kept, and how many
samples the sweeps use.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from gpunet.experiments.dmn import Settings, Shares, x
from gpunet.experiments.dmn.dynamics import convergence, fluctuations
from gpunet.experiments.dmn.nets import KERNEL, Outcome, Training, train_convnet, train_dmn
from gpunet.experiments.framework import Measured, Run
from gpunet.experiments.images import as_images, some_of
from gpunet.layers.fitted import Thresholds
from gpunet.progress import Progress

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
HELD = 0.98  # T_v while another setting is swept: where the document sees the peak


@x.run
def body(run: Run) -> None:
    """One dense layer, a DMN and the ConvNet of its filters for every width, the sweeps, the dynamics."""
    images = as_images(run.data, "dmn", KERNEL)
    run.settings = settings = _resolved(run.settings, images)
    _warm_up(run, images)

    def linear(seed: int) -> Measured:
        return train_convnet(images, [], _training(settings), seed, run.backend, run.bar).measured(settings.epochs)

    run.each_seed("linear", _steps(run, images), linear)
    for index, shares in enumerate(settings.widths):
        _pair(run, images, shares, f"{index + 1}/{len(settings.widths)}")
    if settings.sweeps:
        _sweeps(run, some_of(images, settings.sweep_samples))
    if settings.dynamics:
        convergence(run, images)
        fluctuations(run, images)


def _resolved(settings: Settings, images: Any) -> Any:
    """With the data set's own values in place of None."""
    name, fraction, steps = images.name, settings.fraction, math.ceil(len(images.x_train) / settings.batch_size)
    return replace(
        settings, widths=settings.widths or WIDTHS.get(name, OTHERS),
        fraction=FRACTIONS.get(name, 1.0) if fraction is None else fraction,
        epochs=settings.epochs or max(EPOCHS, min(60, LEAST_STEPS // steps)),
    )  # fmt: skip


def _training(settings: Any, times: int = 1) -> Training:
    """Of ConvNets, for so many times the epochs that heads have."""
    return Training(times * settings.epochs, settings.batch_size, settings.learning_rate)


def _steps(run: Run, images: Any) -> int:
    """Of one net and seed."""
    return int(math.ceil(len(images.x_train) / run.settings.batch_size) * run.settings.epochs)


def _warm_up(run: Run, images: Any) -> None:
    """One step of everything that is timed: what is compiled at the first call is not the method's cost."""
    few, once = some_of(images, 2 * run.settings.batch_size), replace(_training(run.settings), epochs=1)
    for shares in ((0.9,), (0.9, 0.9)):
        filters = train_dmn(few, [Thresholds(share) for share in shares], once, 0, run.backend, Progress()).filters
        train_convnet(few, filters, once, 0, run.backend, Progress())


def _thresholds(settings: Any, share: float) -> Thresholds:
    return Thresholds(share, settings.correlation, settings.fraction, settings.center)


def _dmns(run: Run, images: Any, thresholds: list[Thresholds], closed_form: bool = True) -> list[Outcome]:
    """A DMN of each seed."""
    settings, found = run.settings, []
    heads = replace(_training(settings), decay=settings.head_decay ** (1 / settings.epochs))
    for seed in run.seeds:
        run.bar.seed(seed)
        found.append(train_dmn(images, thresholds, heads, seed, run.backend, run.bar, closed_form))
    return found


def _pair(run: Run, images: Any, shares: Shares, place: str) -> None:
    """A DMN, and the ConvNet of the same filters; the first seed's filter counts name the rows."""
    settings, steps = run.settings, _steps(run, images)
    run.bar.start(f"dmn {place} T_v {', '.join(map(str, shares))}", steps * len(run.seeds))
    nets = _dmns(run, images, [_thresholds(settings, share) for share in shares])
    name = "+".join(map(str, nets[0].filters))
    row, known = f"dmn {name}", run.result.notes.get("shares", {}).get(f"dmn {name}", [])
    run.note(shares={row: [*known, list(shares)]})
    if known:
        return  # another share gave the same filters
    run.enter(row, [net.measured(settings.epochs) for net in nets])
    run.note(classes_without_filter={row: [fit.without for fit in nets[0].fits]}, svd={row: [n.found for n in nets]})
    training, filters = _training(settings, settings.long), dict(zip(run.seeds, (n.filters for n in nets), strict=True))

    def convnet(seed: int) -> Measured:
        found = train_convnet(images, filters[seed], training, seed, run.backend, run.bar)
        return found.measured(settings.epochs)

    run.each_seed(f"convnet {name}", steps * settings.long, convnet, place)


def _sweeps(run: Run, images: Any) -> None:
    """Rows "T_PC=0.8", "T_v=0.98", "T_frac=0.3" …: one layer, one of the thresholds changed; Figure 3, bottom."""
    base, seeds = _thresholds(run.settings, HELD), len(run.seeds)
    for symbol, (setting, values) in SWEPT.items():
        run.bar.start(f"dmn sweep of {symbol}", _steps(run, images) * len(values) * seeds)
        for value in values:
            changed: Any = {setting: value}
            nets, row = _dmns(run, images, [replace(base, **changed)], closed_form=False), f"{symbol}={value:g}"
            for net in nets:
                run.result.row(row).add(test_accuracy=net.curves["test_accuracy"][-1], filters_1=net.filters[0])
            run.note(svd={row: [net.found for net in nets]})
    run.note(sweep_training_samples=len(images.x_train))
