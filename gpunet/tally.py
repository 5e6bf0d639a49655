"""What one pass over a data set adds up, and how far it has come: small arrays on the device."""

from __future__ import annotations

import numpy as np

from gpunet.backend.base import CORRECT, FIRST_BAD, LOSS_SUM, N_TOTALS, SAMPLES, Backend

EMPTY = np.where(np.arange(N_TOTALS) == FIRST_BAD, -1.0, 0.0)


class Tally:
    """`totals` of the losses, and the `cursor` of the gather."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.totals = backend.zeros(N_TOTALS, "float64")
        self.cursor = backend.zeros(1, "int64")

    def reset(self) -> None:
        """Begin a pass."""
        self.backend.copy(EMPTY, self.totals)
        self.backend.copy(0, self.cursor)

    def means(self) -> tuple[float, float]:
        """(loss, accuracy) over the samples so far; waits for the device."""
        totals = self.backend.to_host(self.totals)
        return float(totals[LOSS_SUM] / totals[SAMPLES]), float(totals[CORRECT] / totals[SAMPLES])

    def first_bad(self) -> int:
        """Index of the first sample of the first batch whose loss was not finite, or −1; waits for the device."""
        return int(self.backend.to_host(self.totals)[FIRST_BAD])
