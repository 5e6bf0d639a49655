"""Is training with `Factorise(policy="measured")` ever slower than dense? Asked of many shapes, batches and ranks.

A net features → hidden → 10 is timed as such a run leaves it after its first step, in turn with two dense nets. In a
round it is slower where it takes longer than both of them; a case is slower where it is so in three rounds of four,
and again, with new nets, in four times as many rounds. Nets that were left dense are put to the same test: how many of
them fail is what the noise of the machine does to it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

import gpunet as gn
from gpunet.backend import Backend
from gpunet.bench.steps import STILL, repeats, training
from gpunet.nn.trainer import Trainer
from gpunet.progress import Progress
from gpunet.rng import DATA, stream
from gpunet.spectral.factorise import Conversion, Factorise
from gpunet.timing import Times, interleave

SHAPES = (
    (64, 64), (256, 64), (64, 256), (256, 256), (1024, 64), (64, 1024), (512, 512), (1024, 256), (256, 1024),
    (1024, 1024),
)  # fmt: skip
BATCHES = (1, 16, 64, 512, 2048)
SHARES = (0.125, 0.5, 0.75, 0.9, 1.0, 1.25)  # of the break-even rank mn/(m + n)
CLASSES = 10
LEAST = 0.02  # seconds that one timing lasts at least
SLOWER = 0.75  # of the rounds
AGAIN = 4  # times as many rounds in the second look
PERCENT = (0, 5, 25, 50, 75, 95, 100)


@dataclass(frozen=True)
class Case:
    """A hidden layer (out, in), its rank, and the samples of a step."""

    shape: tuple[int, int]
    rank: int
    batch: int


@dataclass(frozen=True)
class Outcome:
    """What the policy chose, and what came of it.

    ratio: time of a step over the mean of the two dense nets', median over rounds, and its quartiles; noise: one dense
    net over the other; slower: share of rounds in which both dense nets are faster; seconds: for deciding and cutting.
    """

    case: Case
    converted: bool
    reason: str
    ratio: float
    quartiles: tuple[float, float]
    noise: float
    slower: float
    seconds: float

    @property
    def fails(self) -> bool:
        """Whether it is slower than dense in this look."""
        return self.slower >= SLOWER


@dataclass(frozen=True)
class Verdict:
    """Second looks at what failed twice, factored or left dense; spread of the factored nets' ratios, by per cent."""

    factored: int
    slower: list[Outcome]
    left_dense: int
    false_alarms: list[Outcome]
    ratios: dict[str, float]
    noise: dict[str, float]


def cases() -> Iterator[Case]:
    """The grid; ranks that a small shape has twice come once."""
    for out, inner in SHAPES:
        ranks = {max(1, min(round(share * out * inner / (out + inner)), out, inner)) for share in SHARES}
        for rank in sorted(ranks):
            for batch in BATCHES:
                yield Case((out, inner), rank, batch)


def run(
    chosen: Sequence[Case], backend: Backend, rounds: int = 7, progress: Progress | None = None
) -> tuple[list[Outcome], Verdict]:
    """Measure all cases, and those that fail once more."""
    bar = progress or Progress()
    outcomes: list[Outcome] = []
    bar.start("payoff grid", len(chosen))
    for case in chosen:
        outcomes.append(measure(case, backend, rounds))
        bar.advance(1, f"{outcomes[-1].ratio:.2f}×")
    failed = [each for each in outcomes if each.fails]
    if failed:
        bar.start("payoff grid, second look", len(failed))
    again: list[Outcome] = []
    for each in failed:
        again.append(measure(each.case, backend, AGAIN * rounds, each.converted))
        bar.advance(1, f"{again[-1].ratio:.2f}×")
    return outcomes, judge(outcomes, again)


def judge(outcomes: Sequence[Outcome], again: Sequence[Outcome]) -> Verdict:
    """What all first looks and the second looks at those that failed amount to."""

    def spread(values: list[float]) -> dict[str, float]:
        return {str(p): float(np.percentile(values, p)) for p in PERCENT} if values else {}

    factored = [each.ratio for each in outcomes if each.converted]
    return Verdict(
        len(factored), [each for each in again if each.fails and each.converted],
        len(outcomes) - len(factored), [each for each in again if each.fails and not each.converted],
        spread(factored), spread([each.noise for each in outcomes]),
    )  # fmt: skip


def measure(case: Case, backend: Backend, rounds: int, convert: bool | None = None) -> Outcome:
    """Let the policy decide about a new net, or convert it or not as told; time it and two dense ones in turn."""
    (out, inner), batch, rng = case.shape, case.batch, stream(0, DATA)
    cut = Factorise(0, case.rank, policy="measured" if convert is None else "always", merge=False)
    trainers = {
        name: Trainer(
            gn.Sequential([gn.Dense(out, "relu"), gn.Dense(CLASSES)]), optimizer=gn.Adam(STILL), device=backend
        )
        for name in ("dense", "again", "measured")
    }
    x, labels = rng.standard_normal((batch, inner), np.float32), rng.integers(0, CLASSES, batch)
    data = trainers["dense"].samples(x, labels)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "left dense", UserWarning)  # an answer, here
        for name, trainer in trainers.items():
            asked = name == "measured" and convert is not False
            trainer.fit(data, batch_size=batch, callbacks=[cut] if asked else [])
    count = repeats(training(trainers["dense"], data, batch, lambda: np.arange(batch)), LEAST)
    order = rng.integers(0, batch, count * batch)
    runs = {name: training(trainer, data, batch, lambda: order) for name, trainer in trainers.items()}
    done = cut.conversions[0] if cut.conversions else Conversion("0", case.shape, case.rank, False, "as told")
    return outcome(case, done, cut.seconds, interleave(runs, rounds, pause=0))


def outcome(case: Case, done: Conversion, seconds: float, times: Times) -> Outcome:
    """The times of "dense", "again" and "measured" as figures."""
    first, second, own = (np.array(times.seconds[name]) for name in ("dense", "again", "measured"))
    both = Times({"own": own.tolist(), "dense": ((first + second) / 2).tolist()})
    return Outcome(
        case, done.converted, done.reason, both.ratio("own", "dense"), both.spread("own", "dense"),
        times.ratio("again", "dense"), float(np.mean(own > np.maximum(first, second))), seconds,
    )  # fmt: skip


def as_dict(outcomes: Sequence[Outcome], verdict: Verdict) -> dict[str, Any]:
    """For JSON."""
    return {"verdict": asdict(verdict), "cases": [asdict(each) for each in outcomes]}
