"""What becomes of the optimiser's state when a layer is replaced in mid-training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from gpunet.layers.base import Shape, Transform
from gpunet.parameters import Parameters

State = Literal["restart", "carry"]
STATES: tuple[State, ...] = ("restart", "carry")


@dataclass(frozen=True)
class Move:
    """Where a trained parameter's optimiser state comes from.

    place: its range in the new flat arrays, shape: its own; source: the range of the parameter it comes from in the
    old ones, of source_shape, None to start afresh; carry: None to copy all of the state as it is, else the function
    that takes a state that is linear in the gradients, the rest starting afresh.
    """

    place: slice
    shape: Shape
    source: slice | None = None
    source_shape: Shape = ()
    carry: Transform | None = None


@dataclass(frozen=True)
class Migration:
    """From one layout of the trained parameters to the next."""

    moves: tuple[Move, ...]  # in the new layout's order
    size: int
    decayed: int


def migration(
    old: Parameters, new: Parameters, replaced: str, inherits: Mapping[str, tuple[str, Transform | None]], carry: bool
) -> Migration:
    """What becomes of the optimiser's state when the layer named `replaced` gives way to one that `inherits`."""
    moves = []
    for name in new.trained:
        place, shape = new.layout.places[name], new.layout.shapes[name]
        layer, _, short = name.rpartition(".")
        source, transform = (name, None) if layer != replaced else _source(layer, inherits.get(short), carry)
        if source not in old.trained:
            moves.append(Move(place, shape))
        else:
            moves.append(Move(place, shape, old.layout.places[source], old.layout.shapes[source], transform))
    return Migration(tuple(moves), new.n_trained, new.n_decayed)


def _source(layer: str, inherited: tuple[str, Transform | None] | None, carry: bool) -> tuple[str, Transform | None]:
    """(full name, transform) of what a replaced layer's parameter continues; "" where it starts afresh."""
    if inherited is None or (inherited[1] is not None and not carry):
        return "", None
    return f"{layer}.{inherited[0]}", inherited[1]


def places(moves: Sequence[Move]) -> list[slice]:
    """The moves' ranges, each stretched to where the next begins, the last open: padding belongs to what precedes."""
    starts: list[int | None] = [move.place.start for move in moves]
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], None], strict=True)]
