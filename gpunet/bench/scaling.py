"""How the gain of factored training grows with the net (document 001, future work 1 and 4).

Nets of wide square layers (width → width → … → 10 classes) are trained dense and with their wide layers factored, in
turn in one process. Two counts of multiplications say what to expect:

allowed: the document's, mn against l(m + n) for every product of a layer; the last layer stays dense.
allowed_step: that of the products which a step of this net runs (`counts.step_products`). It is lower where factoring
pays, since the first layer needs no gradient of the data: 2mn a sample dense, but l(2 in + 3 out) factored.

Neither counts what is done to elements (bias, activation, Adam).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np

import gpunet as gn
from gpunet.backend import Backend
from gpunet.bench.counts import allowed_step, merging_pays, step_total
from gpunet.bench.harness import enough, too_large
from gpunet.bench.results import Case, Entry, Section
from gpunet.bench.train import STILL, stepping
from gpunet.checks import check_range
from gpunet.errors import InputError, RunError
from gpunet.linalg import BreakEven, DimensionFraction
from gpunet.linalg.rank import RankRule
from gpunet.nn.trainer import Trainer
from gpunet.progress import Progress
from gpunet.rng import DATA, stream
from gpunet.spectral.factorise import speed_up
from gpunet.timing import PAUSE, interleave

CLASSES = 10
WIDEST = 1_000_000
LEAST = 0.05  # seconds that one timing lasts at least: many steps of a narrow net
DENSE = "dense"
RULES: dict[str, Callable[[float], RankRule]] = {"break-even": BreakEven, "dimension": DimensionFraction}


@dataclass(frozen=True)
class Settings:
    """What is compared; raises InputError for what cannot be."""

    widths: tuple[int, ...]
    alphas: tuple[float, ...] = (0.5, 0.25, 0.125)
    meaning: str = "break-even"
    batch: int = 512
    layers: int = 2
    rounds: int = 5

    def __post_init__(self) -> None:
        if not self.widths or not self.alphas:
            raise InputError("expected at least one width and one alpha")
        for width in self.widths:
            check_range("width", width, least=1, most=WIDEST)
        for alpha in self.alphas:
            check_range("alpha", alpha, above=0, most=1)
        if self.meaning not in RULES:
            raise InputError(f"meaning is {self.meaning!r}: expected one of {', '.join(RULES)}")
        for name in ("batch", "layers", "rounds"):
            check_range(name, getattr(self, name), least=1)

    @property
    def nets(self) -> dict[str, float | None]:
        """α by the net's name, None for the dense one, which is the first."""
        return {DENSE: None} | {f"alpha {alpha}": alpha for alpha in self.alphas}

    def shapes(self, width: int) -> list[tuple[int, int]]:
        """(out, in) of the layers' weights, front to back."""
        return [(width, width)] * self.layers + [(CLASSES, width)]

    def ranks(self, width: int, alpha: float | None) -> list[int | None]:
        """The layers' ranks, None where they stay dense."""
        wide = None if alpha is None else RULES[self.meaning](alpha)((width, width))
        return [wide] * self.layers + [None]


def compare(settings: Settings, backend: Backend, progress: Progress | None = None) -> Section:
    """Time dense and factored nets of each width in turn: a case each, an entry each net; a width may be "skipped".

    A factored net's entry notes its "alpha" and "rank", what the counts allow, "allowed" and "allowed_step", and the
    loss in the last timing. Raises RunError where a loss is not finite then.
    """
    notes = asdict(settings) | {"device": backend.name, "kernels": backend.kernels}
    bar, found = progress or Progress(), Section({}, notes=notes, rounds=settings.rounds)
    obstacles = {width: _does_not_fit(settings, width, backend) for width in settings.widths}
    rate = 0.0  # multiplications a second at the width before
    for place, width in enumerate(settings.widths):
        case = found.cases[f"width {width}"] = Case(_entries(settings, width), {"width": width})
        if obstacles[width]:
            case.notes["skipped"] = obstacles[width]
            continue
        ahead = [each for each in settings.widths[place:] if not obstacles[each]]
        left = sum(_seconds(settings, each, rate) for each in ahead) if rate else 0
        note = f", about {left:.0f} s left" if left >= 1 else ""
        what = f"bench scaling, width {width} ({place + 1} of {len(settings.widths)}{note})"
        bar.start(what, (settings.rounds + 1) * len(settings.nets))
        try:
            _time(settings, width, backend, bar, case.entries)
            rate = step_total(settings.shapes(width), settings.ranks(width, None), settings.batch)
            rate /= case.entries[DENSE].median or math.inf
        except MemoryError as error:
            case.notes["skipped"] = f"out of memory: {error}"
    return found


# -- one width ---------------------------------------------------------------------------------------------------------


def _entries(settings: Settings, width: int) -> dict[str, Entry]:
    """An entry for each net, without times."""
    shapes, found = settings.shapes(width), {DENSE: Entry("rival")}
    for name, alpha in settings.nets.items():
        if alpha is not None:
            ranks = settings.ranks(width, alpha)
            notes = {
                "alpha": alpha, "rank": ranks[0], "allowed": speed_up(shapes, ranks),
                "allowed_step": allowed_step(shapes, ranks, settings.batch),
            }  # fmt: skip
            found[name] = Entry("ours", notes=notes)
    return found


def _time(settings: Settings, width: int, backend: Backend, bar: Progress, entries: dict[str, Entry]) -> None:
    rng, batch = stream(0, DATA), settings.batch
    trainers = {
        name: Trainer(_net(width, settings.ranks(width, alpha)), optimizer=gn.Adam(STILL), device=backend)
        for name, alpha in settings.nets.items()
    }
    x, labels = rng.standard_normal((batch, width), np.float32), rng.integers(0, CLASSES, batch)
    data = trainers[DENSE].samples(x, labels)
    count = enough(stepping(trainers[DENSE], data, batch, lambda: np.arange(batch)), least=LEAST)
    order = rng.integers(0, batch, count * batch)
    runs = {name: stepping(trainer, data, batch, lambda: order) for name, trainer in trainers.items()}

    def noted(run: Callable[[], None]) -> None:
        run()
        bar.advance()

    times = interleave({name: partial(noted, run) for name, run in runs.items()}, settings.rounds)
    losses = {name: trainer.tally.means()[0] for name, trainer in trainers.items()}
    if not all(map(math.isfinite, losses.values())):
        raise RunError(f"a loss at width {width} became NaN or infinite, so its times mean nothing: {losses}")
    for name, entry in entries.items():
        entry.seconds = [each / count for each in times.seconds[name]]
        entry.notes["loss"] = losses[name]


def _net(width: int, ranks: Sequence[int | None]) -> gn.Sequential:
    wide = [gn.Dense(width, "relu") if rank is None else gn.LowRankDense(width, rank, "relu") for rank in ranks[:-1]]
    return gn.Sequential([*wide, gn.Dense(CLASSES)])


# -- estimates ---------------------------------------------------------------------------------------------------------


def memory_needed(settings: Settings, width: int) -> int:
    """Bytes that all nets of one width take together, in float32 with Adam, while the last is being drawn."""
    batch, shapes = settings.batch, settings.shapes(width)
    numbers = 2 * batch * width  # the data, and the copy that the samples keep
    for alpha in settings.nets.values():
        numbers += 3 * batch * width  # a batch of it, and two buffers of gradients
        for i, (shape, rank) in enumerate(zip(shapes, settings.ranks(width, alpha), strict=True)):
            numbers += batch * shape[0] + 4 * (math.prod(shape) if rank is None else rank * sum(shape))
            if rank is not None:
                merged = merging_pays(shape, batch, rank, needs_dx=i > 0)
                numbers += 2 * batch * rank + 2 * math.prod(shape) * merged
    return 4 * numbers + 12 * width * width  # a layer is drawn in float64, then cast


def _does_not_fit(settings: Settings, width: int, backend: Backend) -> str:
    return too_large(memory_needed(settings, width), backend.memory()["total"])


def _seconds(settings: Settings, width: int, rate: float) -> float:
    """About how long a width takes at `rate` multiplications a second."""
    shapes = settings.shapes(width)
    totals = [step_total(shapes, settings.ranks(width, alpha), settings.batch) for alpha in settings.nets.values()]
    return (settings.rounds + 1) * sum(max(LEAST * total / totals[0], total / rate) + PAUSE for total in totals)
