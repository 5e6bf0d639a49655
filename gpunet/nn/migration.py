"""What becomes of the optimiser's state when a layer is replaced in mid-training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from gpunet.nn.layers.base import Inherits
from gpunet.nn.memory import Layout, Parameters

# What becomes of the optimiser's state where one parameter became two, W ≈ L R. "restart": it is zero. "carry": what is
# linear in the gradients (momentum, Adam's first moment) goes on, M to M Rᵀ and Lᵀ M, the rest restarts. "carry-both":
# Adam's second moment goes on, too, V to V (R∘R)ᵀ and (L∘L)ᵀ V. "carry" is dangerous with Adam: where a gradient is
# zero at first (a pixel not lit), a moment that went on is divided by one that did not: the weight is thrown far off.
State = Literal["restart", "carry", "carry-both"]
STATES: tuple[State, ...] = get_args(State)


@dataclass(frozen=True)
class Migration:
    """From one layout of the trained parameters to the next.

    sources: which of the old parameters one continues in the optimiser's state, and the function that carries that
    over, None to copy all of it as it is; what is not named starts afresh. squares: whether the function is for states
    of the squares, too, which else start afresh.
    """

    old: Layout
    new: Layout
    decayed: int
    sources: Inherits
    squares: bool


def migration(old: Parameters, new: Parameters, replaced: str, inherits: Inherits, state: State) -> Migration:
    """What becomes of the optimiser's state when the layer named `replaced` gives way to one that `inherits`."""
    sources = {}
    for name in new.trained:
        layer, _, short = name.rpartition(".")
        source, carry = inherits.get(short, ("", None)) if layer == replaced else (short, None)
        if f"{layer}.{source}" in old.trained and (carry is None or state != "restart"):
            sources[name] = f"{layer}.{source}", carry
    return Migration(old.trained_layout, new.trained_layout, new.n_decayed, sources, state == "carry-both")
