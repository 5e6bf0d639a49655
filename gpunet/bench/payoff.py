"""Is training with `Factorise(policy="measured")` ever slower than dense? Asked of many shapes, batches and ranks.

A net features → hidden → 10 is timed as such a run leaves it after its first step, in turn with two dense nets. In a
round it is slower where it takes longer than both of them; a case is slower where it is so in three rounds of four,
and again, with new nets, in four times as many rounds. Nets that were left dense are put to the same test: how many of
them fail is what the noise of the machine does to it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import gpunet as gn
from gpunet.backend import Backend
from gpunet.bench.harness import enough
from gpunet.bench.results import Case, Entry, Section
from gpunet.bench.train import STILL, stepping
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
class Net:
    """A hidden layer (out, in), its rank, and the samples of a step."""

    shape: tuple[int, int]
    rank: int
    batch: int

    def __str__(self) -> str:
        return f"{self.shape[0]}×{self.shape[1]}, rank {self.rank}, batch {self.batch}"


def nets() -> Iterator[Net]:
    """The grid; ranks that a small shape has twice come once."""
    for out, inner in SHAPES:
        ranks = {max(1, min(round(share * out * inner / (out + inner)), out, inner)) for share in SHARES}
        for rank in sorted(ranks):
            for batch in BATCHES:
                yield Net((out, inner), rank, batch)


def measure(
    section: Section, chosen: Sequence[Net], backend: Backend, rounds: int, bar: Progress, save: Callable[[], object]
) -> None:
    """Fill in a case for each net, those that fail looked at once more, and the verdict among the notes."""
    bar.start("payoff", len(chosen))
    for net in chosen:
        found = look(net, backend, rounds)
        if fails(found):
            found.notes["again"] = (again := look(net, backend, AGAIN * rounds, found.notes["converted"])).over
            found.notes["fails"] = fails(again)
        section.cases[str(net)] = Case({"measured": found})
        save()
        bar.advance(1, f"{found.over['dense'][0]:.2f}×")
    section.notes["verdict"] = verdict([case.entries["measured"] for case in section.cases.values()])


def fails(found: Entry) -> bool:
    """Whether it is slower than dense in this look."""
    return bool(found.notes["slower"] >= SLOWER)


def verdict(found: Sequence[Entry]) -> dict[str, Any]:
    """How many failed twice, factored or left dense; spread of the factored nets' ratios, and of noise, by per cent."""

    def spread(values: list[float]) -> dict[str, float]:
        return {str(p): float(np.percentile(values, p)) for p in PERCENT} if values else {}

    factored = [each for each in found if each.notes["converted"]]
    failed = [each for each in found if each.notes.get("fails")]
    slower = sum(each.notes["converted"] for each in failed)
    return {
        "factored": len(factored), "slower": slower,
        "left_dense": len(found) - len(factored), "false_alarms": len(failed) - slower,
        "ratios": spread([each.over["dense"][0] for each in factored]),
        "noise": spread([each.notes["noise"] for each in found]),
    }  # fmt: skip


def look(net: Net, backend: Backend, rounds: int, convert: bool | None = None) -> Entry:
    """Let the policy decide about a new net, or convert it or not as told; time it and two dense ones in turn."""
    (out, inner), batch, rng = net.shape, net.batch, stream(0, DATA)
    cut = Factorise(0, net.rank, policy="measured" if convert is None else "always", merge=False)
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
    count = enough(stepping(trainers["dense"], data, batch, lambda: np.arange(batch)), least=LEAST)
    order = rng.integers(0, batch, count * batch)
    runs = {name: stepping(trainer, data, batch, lambda: order) for name, trainer in trainers.items()}
    done = cut.conversions[0] if cut.conversions else Conversion("0", net.shape, net.rank, False, "as told")
    return entry(done, cut.seconds, interleave(runs, rounds, pause=0), count)


def entry(done: Conversion, seconds: float, times: Times, count: int = 1) -> Entry:
    """The times of "dense", "again" and "measured" as figures.

    over "dense": the time of a step over the mean of the two dense nets', median over rounds, and quartiles; noise: one
    dense net over the other; slower: share of rounds in which both dense nets are faster.
    """
    first, second, own = (np.array(times.seconds[name]) for name in ("dense", "again", "measured"))
    both = Times({"own": own.tolist(), "dense": ((first + second) / 2).tolist()})
    notes = {
        "converted": done.converted, "reason": done.reason, "noise": times.ratio("again", "dense"),
        "slower": float(np.mean(own > np.maximum(first, second))), "seconds_to_decide": seconds,
    }  # fmt: skip
    over = {"dense": [both.ratio("own", "dense"), *both.spread("own", "dense")]}
    return Entry("ours", [float(each) / count for each in own], over, notes)
