"""What a fit leaves of its epochs."""

from __future__ import annotations

import math
from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from typing import Any

from gpunet.checks import is_number, is_one_of
from gpunet.errors import InputError, shown
from gpunet.reprs import table_html

MOST_ROWS = 20  # of a table in a notebook; between the first and the last some are left out


class History(dict[str, list[float]]):
    """A dictionary of lists by name, one number an epoch in each: `history["train_loss"]`.

    `pandas.DataFrame(history)` has a row an epoch. An epoch that has no number of some name, as a callback may give one
    now and then, has NaN there. `seconds` is training time, validation not counted.

    epochs: what it is of, an entry an epoch; an entry that is added or changed is seen by the next look at the history.
    Raises InputError for entries that are none, for a name that no epoch has, and where the dictionary itself is set.
    """

    def __init__(self, epochs: list[dict[str, float]] | None = None) -> None:
        super().__init__()
        if epochs is not None and not (isinstance(epochs, list) and all(isinstance(each, dict) for each in epochs)):
            raise InputError(f"epochs is {shown(epochs)}: expected a list of entries such as {{'train_loss': 0.5}}")
        self.epochs: list[dict[str, float]] = [] if epochs is None else epochs
        self._look()

    def _look(self) -> None:
        """Have the lists that follow from the epochs of now: as a dictionary, so that whatever takes one takes it."""
        names = dict.fromkeys(name for epoch in self.epochs for name in epoch)
        for gone in [name for name in super().__iter__() if name not in names]:
            super().__delitem__(gone)
        super().update({name: [epoch.get(name, math.nan) for epoch in self.epochs] for name in names})

    def __getitem__(self, metric: str) -> list[float]:
        if metric in self:  # this list alone: callbacks look at one after every epoch
            return [epoch.get(metric, math.nan) for epoch in self.epochs]
        if not self.epochs:  # none was trained: there is nothing of anything
            return []
        raise InputError(f"the history has no {shown(metric)}: it has {', '.join(map(str, self))}")

    def __contains__(self, metric: object) -> bool:
        return any(is_one_of(metric, epoch) for epoch in self.epochs)

    def __iter__(self) -> Iterator[str]:
        self._look()
        return super().__iter__()

    def __len__(self) -> int:
        self._look()
        return super().__len__()

    def __eq__(self, other: object) -> bool:
        self._look()
        return self.epochs == other.epochs if isinstance(other, History) else super().__eq__(other)

    def __ne__(self, other: object) -> bool:  # a dictionary has its own
        return not self == other

    def keys(self) -> KeysView[str]:  # type: ignore[override]
        """The names, in the order in which they first came."""
        self._look()
        return super().keys()

    def values(self) -> ValuesView[list[float]]:  # type: ignore[override]
        """The lists."""
        self._look()
        return super().values()

    def items(self) -> ItemsView[str, list[float]]:  # type: ignore[override]
        """Names and lists."""
        self._look()
        return super().items()

    def get(self, metric: str, default: Any = None) -> Any:
        """The list of that name, or the default where no epoch has one."""
        if metric in self:
            return self[metric]
        return default

    def copy(self) -> History:
        """A history of its own: what becomes of this one's epochs does not change it."""
        return History([dict(epoch) for epoch in self.epochs])

    def __reduce__(self) -> tuple[Any, ...]:
        return History, (self.epochs,)

    def __repr__(self) -> str:
        self._look()
        last = ", ".join(f"{name} {_rounded(values[-1])}" for name, values in super().items())
        return f"<History of {len(self.epochs)} epochs{', the last: ' * bool(last)}{last}>"

    def _repr_html_(self) -> str:
        rows = [
            (str(number), *(_rounded(epoch.get(name, math.nan)) for name in self))
            for number, epoch in enumerate(self.epochs, 1)
        ]
        if len(rows) > MOST_ROWS:
            rows[MOST_ROWS // 4 : len(rows) - 3 * MOST_ROWS // 4] = [("…", *[""] * len(self))]
        return table_html(("epoch", *map(str, self)), rows)

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        raise InputError("a history is read, not set: take dict(history), or set what its epochs hold")

    __setitem__ = __delitem__ = __ior__ = _refuse
    update = pop = popitem = clear = setdefault = _refuse
    __hash__ = None


def _rounded(value: Any) -> str:
    return f"{value:.4g}" if is_number(value) else shown(value)
