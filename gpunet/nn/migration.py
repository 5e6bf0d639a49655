"""What becomes of the optimiser's state when a layer is replaced in mid-training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from gpunet.nn.layers.base import Shape, Transform
from gpunet.nn.memory import Parameters

# What becomes of the optimiser's state where one parameter became two, W ≈ L R. "restart": it is zero. "carry": what is
# linear in the gradients (momentum, Adam's first moment) goes on, M to M Rᵀ and Lᵀ M, the rest restarts. "carry-both":
# Adam's second moment goes on, too, V to V (R∘R)ᵀ and (L∘L)ᵀ V. "carry" is dangerous with Adam: where a gradient is
# zero at first (a pixel not lit), a moment that went on is divided by one that did not: the weight is thrown far off.
State = Literal["restart", "carry", "carry-both"]
STATES: tuple[State, ...] = get_args(State)


@dataclass(frozen=True)
class Move:
    """Where a trained parameter's optimiser state comes from.

    place: its range in the new flat arrays, shape: its own; source: the range of the parameter it comes from in the
    old ones, of source_shape, None to start afresh; carry: None to copy all of the state as it is, else the function
    that carries it over; squares: whether it does so also for states of the squares, which else start afresh.
    """

    place: slice
    shape: Shape
    source: slice | None = None
    source_shape: Shape = ()
    carry: Transform | None = None
    squares: bool = False


@dataclass(frozen=True)
class Migration:
    """From one layout of the trained parameters to the next."""

    moves: tuple[Move, ...]  # in the new layout's order
    size: int
    decayed: int


def migration(
    old: Parameters, new: Parameters, replaced: str, inherits: Mapping[str, tuple[str, Transform | None]], state: State
) -> Migration:
    """What becomes of the optimiser's state when the layer named `replaced` gives way to one that `inherits`."""
    moves = []
    for name in new.trained:
        place, shape = new.layout.places[name], new.layout.shapes[name]
        layer, _, short = name.rpartition(".")
        source, transform = (
            (name, None) if layer != replaced else _source(layer, inherits.get(short), state != "restart")
        )
        if source not in old.trained:
            moves.append(Move(place, shape))
        else:
            found = old.layout.places[source], old.layout.shapes[source]
            moves.append(Move(place, shape, *found, transform, state == "carry-both"))
    return Migration(tuple(moves), new.n_trained, new.n_decayed)


def _source(layer: str, inherited: tuple[str, Transform | None] | None, carry: bool) -> tuple[str, Transform | None]:
    """(full name, transform) of what a replaced layer's parameter continues; "" where it starts afresh."""
    if inherited is None or (inherited[1] is not None and not carry):
        return "", None
    return f"{layer}.{inherited[0]}", inherited[1]


def places(moves: Sequence[Move]) -> list[slice]:
    """The moves' ranges, each stretched to where the next begins, the last open: padding belongs to what precedes."""
    starts: list[int | None] = [move.place.start for move in moves]
    stops = [*starts[1:], None][: len(starts)]  # none where every layer is frozen
    return [slice(start, stop) for start, stop in zip(starts, stops, strict=True)]
