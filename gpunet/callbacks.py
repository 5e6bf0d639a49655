"""What may happen between the steps of a training run."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from gpunet.errors import InputError, shown

if TYPE_CHECKING:
    from gpunet.train import Trainer


def settings(thing: Any) -> dict[str, Any]:
    """The arguments that an object was made with, as far as it has attributes of the same names."""
    given = inspect.signature(type(thing).__init__).parameters
    return {name: vars(thing)[name] for name in given if name in vars(thing)}


class Callback:
    """Base of all callbacks: override what you need. Time spent here is not counted as training time.

    A callback may read `trainer.plan`, what `fit` was asked to do, and end training early with `trainer.stop(reason)`.
    Raises InputError where something that cannot be called is set in place of a method.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if inspect.isfunction(getattr(type(self), name, None)) and not callable(value):
            raise InputError(f"{name} of a {type(self).__name__} is a method: expected a function, got {shown(value)}")
        super().__setattr__(name, value)

    def config(self) -> dict[str, Any]:
        """What a resumed run must share with the one it goes on from: `settings(self)` where all of them matter."""
        return {}

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Parameters are drawn, nothing has been trained. Ctrl-C waits for its end; a second one does not."""

    def steps(self, total: int) -> Iterable[int]:
        """Steps (0 … total − 1 of this fit) before which `on_step` is to be called; `total` steps are planned."""
        return ()

    def on_step(self, trainer: Trainer, step: int) -> None:
        """Called before each step that `steps` named."""

    def on_epoch_end(self, trainer: Trainer, epoch: int, logs: dict[str, float]) -> None:
        """The epoch's entry of the history, which may be added to; `epoch` counts from 0, over all fits."""

    def on_fit_end(self, trainer: Trainer) -> None:
        """Training has ended: all epochs are done, or `stop`, an error or Ctrl-C has ended it.

        Called once after each `on_fit_begin` that came to its end. Errors raised here are not in the others' way, and
        Ctrl-C waits for its end; a second one does not.
        """

    def state(self) -> dict[str, Any]:
        """What a checkpoint must keep so that `restore` can go on from here: arrays, and values that JSON can hold.

        Saving raises InputError for others, and for arrays of what is no real number.
        """
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned, after `on_fit_begin`; tuples come back as lists."""
