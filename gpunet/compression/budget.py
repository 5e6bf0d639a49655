"""One budget over all layers: the ranks whose errors add up to least at the cost that is allowed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from gpunet.errors import InputError


@dataclass(frozen=True)
class Choice:
    """What may become of a layer: a rank, None to leave it dense; what it costs, and the error that it makes."""

    rank: int | None
    cost: float
    error: float


def hull(choices: Sequence[Choice]) -> list[Choice]:
    """Those on the lower convex hull of error over cost, cheapest first: each step buys less for its cost than before.

    What costs more than another and errs no less is not among them.
    """
    kept: list[Choice] = []
    for each in sorted(choices, key=lambda choice: (choice.cost, choice.error)):
        if kept and each.error >= kept[-1].error:
            continue
        while len(kept) > 1 and _gain(kept[-2], kept[-1]) <= _gain(kept[-2], each):
            kept.pop()
        kept.append(each)
    return kept


def _gain(low: Choice, high: Choice) -> float:
    """How much less error a unit of cost buys."""
    return (low.error - high.error) / (high.cost - low.cost)


def allocate(layers: Sequence[Sequence[Choice]], budget: float) -> list[Choice]:
    """A choice for each layer whose costs add up to at most `budget`, by marginal error.

    Where the errors fall ever more slowly with the cost, as tails of a spectrum do, what is bought first is what lowers
    the sum of errors most for its cost, and no other choice of that cost has a smaller sum (Fox 1966, marginal
    analysis); what is left over, less than the step that no longer fits, goes to steps that do. InputError where the
    cheapest choices cost more than the budget.
    """
    hulls = [hull(choices) for choices in layers]
    at = [0] * len(hulls)
    left = budget - sum(each[0].cost for each in hulls)
    if left < 0:
        raise InputError(f"the least that these layers cost is {budget - left:.6g}, and the budget is {budget:.6g}")
    steps = [
        (-_gain(low, high), layer, place)
        for layer, choices in enumerate(hulls)
        for place, (low, high) in enumerate(pairwise(choices))
    ]
    for _, layer, place in sorted(steps):
        cost = hulls[layer][place + 1].cost - hulls[layer][place].cost
        if at[layer] == place and cost <= left:
            at[layer], left = place + 1, left - cost
    return [choices[place] for choices, place in zip(hulls, at, strict=True)]


def least(layers: Mapping[str, Sequence[Choice]]) -> float:
    """The smallest share of what all layers cost as they are, each one's last choice, that they can cost."""
    cheapest = sum(min(each.cost for each in choices) for choices in layers.values())
    return cheapest / sum(choices[-1].cost for choices in layers.values())


def spend(layers: Mapping[str, Sequence[Choice]], share: float, count: str) -> dict[str, int]:
    """The ranks that a share of what all layers cost as they are buys; layers that stay dense are left out.

    count: what costs are, for the InputError where the share is too small.
    """
    if (smallest := least(layers)) > share:
        raise InputError(
            f"a budget of {share:.3g} cannot be met: with the smallest ranks these layers take {smallest:.3g} of their "
            f"{count}; give a budget of at least {math.ceil(1000 * smallest) / 1000:g}"
        )
    whole = sum(choices[-1].cost for choices in layers.values())
    found = allocate(list(layers.values()), share * whole * (1 + 1e-12))
    return {name: each.rank for name, each in zip(layers, found, strict=True) if each.rank is not None}
