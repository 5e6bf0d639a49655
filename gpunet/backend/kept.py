"""Arrays that a backend keeps between calls: a step allocates at its first call only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpunet.backend.base import Array, Backend


class Kept(Backend):
    """The part of a backend that owns its scratch memory."""

    def __init__(self) -> None:
        self._kept: dict[Any, Array] = {}

    def scratch(self, purpose: str, shape: int | tuple[int, ...], dtype: Any) -> Array:
        """One uninitialised array for each purpose, shape and dtype."""
        key = (purpose, shape, dtype)
        found = self._kept.get(key)
        if found is None:
            found = self._kept[key] = self.empty(shape, dtype)
        return found

    def constant(self, purpose: str, key: tuple[Any, ...], make: Callable[[], Array]) -> Array:
        """An array that never changes, made by `make` at the first call."""
        full = (purpose, key)
        found = self._kept.get(full)
        if found is None:
            with self.session():
                found = self._kept[full] = make()
        return found
