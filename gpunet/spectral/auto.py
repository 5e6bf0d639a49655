"""When a layer is to be cut, and to which rank, from the stable ranks that training takes its weight through.

A look is (step, ‖W‖_F²/σ₁²) before that step; a layer's looks begin with the one before the first step of a fit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gpunet.linalg import ScaledStableRank
from gpunet.nn.callbacks import Plan, Training

Look = tuple[int, float]
PARTS, LAST = 20, 15  # looks a twentieth of the steps apart; a cut in the last quarter saves little, and is not mended
AGAIN = 0.75  # of a rank that did not pay: from there on the clock is asked again
SHARE = 0.1  # of a fit's time that looking and measuring may have taken when more of it begins


def steps(total: int) -> list[int]:
    """The steps of a fit before which to look."""
    return sorted({total * part // PARTS for part in range(LAST + 1)})


def scaled_rank(shape: tuple[int, int], looks: Sequence[Look], scale: float | None = None) -> int:
    """⌈ξ‖W‖_F²/σ₁²⌉ at the last look; without a scale ξ gives the first look full rank, see `gn.ScaledStableRank`."""
    full, now = min(shape), looks[-1][1]
    wanted = full * (now / looks[0][1]) if scale is None else scale * now
    return math.ceil(min(full, wanted))


def change(looks: Sequence[Look], per_epoch: int) -> float:
    """What the stable rank has moved an epoch since the last look that is an epoch old; ∞ where none is."""
    at, now = looks[-1]
    moved = (abs(now - old) * per_epoch / (at - step) for step, old in looks[::-1] if at - step >= per_epoch)
    return next(moved, math.inf)


def worth_waiting(shape: tuple[int, int], looks: Sequence[Look], total: int, scale: float | None) -> bool:
    """Whether a cut at the next look is expected to save more multiplications than one now.

    A cut to rank l before step t saves (1 − l(m + n)/mn)(T − t) of the layer's T steps. The rank is expected to fall as
    fast as it fell since the look before; after the last look nothing is saved.
    """
    if len(looks) < 2:
        return True
    (m, n), (before, at) = shape, (step for step, _ in looks[-2:])
    rank = scaled_rank(shape, looks, scale)
    fell = scaled_rank(shape, looks[:-1], scale) - rank
    later = next((step for step in steps(total) if step > at), total)
    expected = max(1, rank - fell * (later - at) / (at - before))
    return (m * n - rank * (m + n)) * (total - at) < (m * n - expected * (m + n)) * (total - later)


class Watch:
    """The looks of one fit; `waiting` holds, of each layer that was not decided on, (shape, rank, why, step)."""

    def __init__(self) -> None:
        self.seen: dict[str, list[Look]] = {}
        self.waiting: dict[str, tuple[tuple[int, int], int, str, int]] = {}

    def due(
        self, plan: Plan, step: int, found: Mapping[str, tuple[tuple[int, int], float, ScaledStableRank]]
    ) -> dict[str, int]:
        """The layers to be cut before that step, and their ranks; of each layer its shape, stable rank and rule."""
        for name, (_, value, _) in found.items():
            self.seen.setdefault(name, []).append((step, value))
        moved = {name: change(self.seen[name], plan.per_epoch) for name in found}
        limits = {name: rule.epsilon for name, (_, _, rule) in found.items() if rule.epsilon is not None}
        settled = all(moved[name] <= limit for name, limit in limits.items())
        ranks = {}
        for name, (shape, _, rule) in found.items():
            rank = scaled_rank(shape, self.seen[name], rule.scale)
            if name in limits:
                ready, why = settled, f"its stable rank moves by {moved[name]:.3g} an epoch, or another layer's does"
            else:
                ready, why = (
                    not worth_waiting(shape, self.seen[name], plan.total, rule.scale),
                    "a smaller one was worth waiting for",
                )
            if ready:
                ranks[name] = rank
            self.waiting[name] = shape, rank, f"rank {rank}: {why}", step
        return ranks

    def affords(self, trainer: Training, step: int, spent: float, rounds: int, least: float) -> bool:
        """Whether there is time to look and to measure: by the pace of the fastest epoch, or the first as yet.

        spent: seconds that have gone there; measuring takes some `rounds` steps, and of `least` seconds each.
        """
        plan, epochs = trainer.plan, trainer.history.epochs
        first = trainer.seconds / max(1, step - len(epochs) * plan.per_epoch)
        pace = min((logs["seconds"] / plan.per_epoch for logs in epochs), default=first)
        enough = spent <= SHARE * pace * plan.total and rounds * max(least, pace) <= SHARE * pace * (plan.total - step)
        if not enough:
            why = "the fit is too short, or too far on, to measure whether factors pay"
            self.waiting = {name: (*each[:2], why, step) for name, each in self.waiting.items()}
        return enough

    def state(self) -> dict[str, Any]:
        """As `Callback.state`."""
        return {"seen": self.seen, "waiting": self.waiting}

    def restore(self, state: Mapping[str, Any]) -> None:
        """As `Callback.restore`."""
        self.seen = {name: [(int(at), float(value)) for at, value in looks] for name, looks in state["seen"].items()}
        self.waiting = {name: ((m, n), *rest) for name, ((m, n), *rest) in state["waiting"].items()}
