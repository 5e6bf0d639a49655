"""Timing rivals fairly on a machine that others use too: in turn, many rounds, ratios inside each round."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

PAUSE = 0.15  # seconds between contestants: threads of OpenBLAS spin for 2^28 cycles after their last work


@dataclass(frozen=True)
class Times:
    """Seconds of each contestant in each round."""

    seconds: Mapping[str, list[float]]

    def median(self, name: str) -> float:
        """Median seconds over rounds."""
        return float(np.median(self.seconds[name]))

    def ratio(self, name: str, to: str) -> float:
        """Median over rounds of name's time over `to`'s time in the same round."""
        return float(np.median(np.divide(self.seconds[name], self.seconds[to])))

    def spread(self, name: str, to: str) -> tuple[float, float]:
        """Quartiles of the ratio over rounds."""
        low, high = np.percentile(np.divide(self.seconds[name], self.seconds[to]), (25, 75))
        return float(low), float(high)


def interleave(
    contestants: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 1, pause: float = PAUSE
) -> Times:
    """Run all contestants once a round, each round in another order, so that none has always the same before it.

    Each call must wait for its device.
    """
    names, chance = list(contestants), np.random.default_rng(0)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(-warmup, rounds):
        for place in chance.permutation(len(names)).tolist():
            name = names[place]
            time.sleep(pause)
            began = time.perf_counter()
            contestants[name]()
            if turn >= 0:
                seconds[name].append(time.perf_counter() - began)
    return Times(seconds)
