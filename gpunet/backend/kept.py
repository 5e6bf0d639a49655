"""Arrays that a backend keeps between calls: a step allocates at its first call only."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Self

from gpunet.backend.base import Array, Backend


class Own(threading.local):
    """What one thread keeps: threads that share a backend share no scratch memory."""

    def __init__(self) -> None:
        self.arrays: dict[Any, Array] = {}


class Kept(Backend):
    """The part of a backend that owns its scratch memory."""

    def __init__(self) -> None:
        self._own = Own()

    def scratch(self, purpose: str, shape: int | tuple[int, ...], dtype: Any) -> Array:
        """One uninitialised array for each purpose, shape and dtype."""
        key, kept = (purpose, shape, dtype), self._own.arrays
        found = kept.get(key)
        if found is None:
            found = kept[key] = self.empty(shape, dtype)
        return found

    def constant(self, purpose: str, key: tuple[Any, ...], make: Callable[[], Array]) -> Array:
        """An array that never changes, made by `make` at the first call."""
        full, kept = (purpose, key), self._own.arrays
        found = kept.get(full)
        if found is None:
            with self.session():
                found = kept[full] = make()
        return found

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Itself: a backend stands for a device, and a copied model stays there."""
        return self

    def __copy__(self) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by name: where it is read, the device is looked for again."""
        return type(self), ()
