"""Flat buffers with named views: sizes first, one allocation, and the optimiser is a loop over one array."""

from __future__ import annotations

import math
from collections.abc import Mapping

from gpunet.backend.base import Array, Backend

ALIGN = 16  # elements: every view of a float32 buffer starts on a 64-byte boundary


class Layout:
    """Where each named array lies in a flat buffer: names in order, each rounded up to ALIGN elements."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.shapes = dict(shapes)
        self.places: dict[str, slice] = {}
        self.size = 0
        for name, shape in self.shapes.items():
            count = math.prod(shape)
            self.places[name] = slice(self.size, self.size + count)
            self.size += -(-count // ALIGN) * ALIGN

    def end(self, names: set[str]) -> int:
        """Length of the leading part of the buffer that holds exactly `names`."""
        leading = list(self.shapes)[: len(names)]
        if set(leading) != names:
            raise ValueError(f"{sorted(names)} do not stand first in this layout: {list(self.shapes)}")
        rest = list(self.shapes)[len(names) :]
        return self.places[rest[0]].start if rest else self.size


class Arena:
    """One flat buffer, zeros at first, and a view of it for every name of a layout."""

    def __init__(self, backend: Backend, layout: Layout, dtype: str) -> None:
        self.layout = layout
        self.flat: Array = backend.zeros(layout.size, dtype)
        self.views: dict[str, Array] = {
            name: self.flat[place].reshape(layout.shapes[name]) for name, place in layout.places.items()
        }
