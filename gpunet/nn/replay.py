"""Training steps recorded once and replayed: on a GPU one launch instead of one for each operation.

A recording bakes in the places of its arrays in memory, and every number that is no array. So each belongs to one data
set and one batch size, and all are dropped when anything else that a step works on is another object than before: the
parameters (`Sequential.replace`), the workspace, the order of the samples, the optimiser or its state, the loss. Python
runs between the steps of a `fit` in callbacks only; after these, and before each epoch, the numbers that layers, loss
and optimiser hold are compared, too.

The first step of each kind runs operation by operation, since operations may allocate then; the second is recorded, and
from it on the recording runs. Where several steps of a kind follow each other with nothing between them, 4 to 8 of them
are one recording: what a step leaves for the next lies on the device. Results are the same, bit for bit. Steps that the
device cannot record all run operation by operation.
"""

from __future__ import annotations

import os
import warnings
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import is_
from typing import Any, Literal

import numpy as np

from gpunet.backend.base import Array, Backend
from gpunet.checks import is_one_of
from gpunet.errors import CaptureError, InputError, MemoryFullError, shown
from gpunet.nn.callbacks import Training
from gpunet.nn.samples import Samples

PATIENCE = 2  # steps that may change what a recording would bake in, as the first ones may; captures that others end
AT_ONCE = range(8, 3, -1)  # steps of one recording
MOST = 8  # kinds of steps whose recordings are kept: each holds device memory of its own
SWITCH = "GPUNET_GRAPHS"  # in the environment: "off" for all trainers
PLAIN = frozenset((bool, int, float, complex, str, type(None)))


class Attributes:
    """What an object holds: its numbers, and its arrays and other objects by identity."""

    def __init__(self, owner: Any) -> None:
        self._kind, self._now = type(owner).__name__, vars(owner)
        self._held, self._count = dict(self._now), len(self._now)

    def settle(self) -> str:
        """After a step: the first attribute that it changed, "" if none; other views of the same memory aside.

        So is `x`, a layer's input of the last pass, which may lie elsewhere when a model is looked at: below it Dropout
        hands on its own then.
        """
        for name, old in list(self._held.items()):
            new = self._now.get(name)
            if not _equal(old, new):
                if _place(old) is None or (name != "x" and _place(old) != _place(new)):
                    return f"{self._kind}.{name}"
                del self._held[name]  # a view of the workspace: there may be one for each batch size
        self._count = len(self._now)
        return ""

    def stand(self) -> bool:
        """Whether the object holds just these."""
        held = self._held.values()
        if len(self._now) != self._count:
            return False
        return all(map(is_, map(self._now.get, self._held), held)) or all(
            map(_equal, held, map(self._now.get, self._held))
        )


def _equal(old: Any, new: Any) -> bool:
    """Equal numbers or words, or the same object."""
    plain = type(old) in PLAIN or isinstance(old, np.generic)
    return old is new or (plain and type(new) is type(old) and bool(old == new))


def _place(array: Any) -> int | None:
    """Where in memory an array begins; None of what is no array."""
    found = getattr(array, "__cuda_array_interface__", None) or getattr(array, "__array_interface__", None)
    return None if found is None else int(found["data"][0])


def at_once(steps: int) -> int:
    """How many steps one recording takes: the number that leaves the fewest of an epoch's whole `steps` over."""
    return min((count for count in AT_ONCE if count <= steps), key=lambda count: steps % count, default=1)


@dataclass
class Kind:
    """Steps on one data set with one batch size: their recordings once there are some, and what these bake in."""

    train: weakref.ref[Samples]
    held: list[Attributes]
    at_once: int
    replays: dict[int, Callable[[], None]] = field(default_factory=dict)  # by how many steps they take
    sure: bool = False  # nothing but steps has run since we looked whether they fit


Switch = Literal["auto", "off"]


class Graphs:
    """The recordings of one trainer's steps.

    graphs: "auto", to record where the backend can, or "off"; the environment's GPUNET_GRAPHS=off stands for "off".
    `reason` says why steps run operation by operation; it is empty where they are replayed. Raises InputError for
    another word.

    A layer or loss of your own may hold numbers and arrays as attributes, and callbacks may change them. What lies
    deeper, in a list or a dictionary, is not looked at: `drop()` after changing it.
    """

    def __init__(self, backend: Backend, graphs: Switch = "auto") -> None:
        asked = graphs
        for where, word in (("graphs", graphs), (SWITCH, os.environ.get(SWITCH) or "auto")):
            if not is_one_of(word, ("auto", "off")):
                raise InputError(f"{where} is {shown(word)}: expected 'auto' or 'off'")
            graphs = "off" if word == "off" else graphs
        self.asked = asked
        self.reason = "graphs are switched off" if graphs == "off" else ""
        if not backend.records:
            self.reason = f"{backend.name} runs operations one by one: it has no graphs"
        self._backend = backend
        self._held: tuple[Any, ...] = ()  # holding them keeps their places in memory from being used again
        self._kinds: dict[tuple[int, int], Kind] = {}
        self._gone: list[Kind] = []  # of data that nobody holds any more; their recordings may still be running
        self._restless = 0  # steps in a row that changed what they would bake in
        self._broken = 0  # captures in a row that another thread's work has ended

    def __repr__(self) -> str:
        return f"<Graphs {self.asked!r}: {self.reason or f'{len(self.recordings)} recordings'}>"

    @property
    def recordings(self) -> list[tuple[int, int, Callable[[], None]]]:
        """(batch size, steps, recording) of each: a call of it is one launch that makes so many steps."""
        return [(n, count, each) for (_, n), kind in self._kinds.items() for count, each in kind.replays.items()]

    def step(self, trainer: Training, train: Samples, order: Array, n: int, most: int = 1) -> int:
        """What `trainer.step(train, order, n)` does, up to `most` times in one launch; returns how many times."""
        if not trainer.model.training:  # between steps somebody has looked
            trainer.model.train()
        kind = self._kinds.get((id(train), n))
        if kind is None or not kind.sure or not all(map(is_, trainer._step_objects(order), self._held)):
            return self._look_and_step(trainer, train, order, n, most)
        trainer.model.set_batch_size(n)  # views of the workspace that evaluating left at another size
        return self._replay(kind, trainer, train, order, n, most)

    def _replay(self, kind: Kind, trainer: Training, train: Samples, order: Array, n: int, most: int) -> int:
        """One launch of steps whose recording fits, recorded now if need be."""
        count = kind.at_once if most >= kind.at_once else 1
        replay = kind.replays.get(count) or self._record(kind, trainer, train, order, n, count)
        if replay is None:
            return trainer._plain_step(train, order, n)
        replay()
        kind.sure = True
        return count

    def look_again(self, trainer: Training, order: Array) -> None:
        """To be called where other code than steps has run: recordings that do not fit any more are dropped."""
        if not self.reason:
            self._renew(trainer._step_objects(order))
            for kind in self._kinds.values():
                kind.sure = False

    def drop(self) -> None:
        """Forget all recordings."""
        self._forget(*self._kinds)
        self._held = ()

    def _forget(self, *keys: tuple[int, int]) -> None:
        gone = [*self._gone, *(self._kinds.pop(key) for key in keys)]
        self._gone = []
        if any(kind.replays for kind in gone):
            self._backend.synchronize()  # one may still be running

    def _look_and_step(self, trainer: Training, train: Samples, order: Array, n: int, most: int) -> int:
        """A step that is not a mere replay: the first or second of its kind, or one after other code has run."""
        if self.reason:
            return trainer._plain_step(train, order, n)
        self._forget()
        trainer.look_at(train, order)
        trainer.model.set_batch_size(n)
        self._renew(trainer._step_objects(order))
        kind = self._kinds.get((id(train), n))
        if kind is not None and all(each.stand() for each in kind.held):
            return self._replay(kind, trainer, train, order, n, most)
        self._warm_up(trainer, train, order, n)
        return 1

    def _warm_up(self, trainer: Training, train: Samples, order: Array, n: int) -> None:
        """A step that runs operation by operation, after which its kind can be recorded."""
        key, model = (id(train), n), trainer.model
        if key in self._kinds:
            self._forget(key)
        held = [Attributes(owner) for owner in (*model.layers, trainer.loss, trainer.optimizer)]
        for layer in model.layers:
            layer.set_batch_size(n)  # new views of the workspace, which tells them from arrays that the layer keeps
        trainer._plain_step(train, order, n)
        if self.reason:
            return
        changed = next(filter(None, [each.settle() for each in held]), "")
        self._restless = self._restless + 1 if changed else 0
        if self._restless > PATIENCE:
            self._give_up(trainer, f"{changed} changes from step to step, and a recording would keep it as it is")
        elif not changed:
            if len(self._kinds) >= MOST:
                self._forget(next(iter(self._kinds)))
            self._kinds[key] = Kind(self._watch(train, key), held, at_once(len(train) // n))

    def _record(
        self, kind: Kind, trainer: Training, train: Samples, order: Array, n: int, count: int
    ) -> Callable[[], None] | None:
        """The recording of so many steps, not run yet; None where the device cannot, or not now."""

        def steps() -> None:
            for _ in range(count):
                trainer._plain_step(train, order, n)

        try:
            kind.replays[count] = trainer.backend.record(steps)
        except (CaptureError, MemoryFullError) as error:
            self._broken += 1
            if not getattr(error, "passing", False) or self._broken > PATIENCE:
                self._give_up(trainer, str(error))
            return None
        self._broken = 0
        return kind.replays[count]

    def _give_up(self, trainer: Training, reason: str) -> None:
        """Run operation by operation from now on, and say so once."""
        self.reason = reason
        self.drop()
        warnings.warn(
            f"training steps run operation by operation on {trainer.backend.name}, slower with the same results: "
            f"{reason}",
            stacklevel=2,
        )

    def _renew(self, objects: tuple[Any, ...]) -> None:
        """Drop all recordings if these are not the objects that they were made with."""
        if len(objects) != len(self._held) or not all(map(is_, objects, self._held)):
            self.drop()
            self._held, self._restless = objects, 0

    def _watch(self, train: Samples, key: tuple[int, int]) -> weakref.ref[Samples]:
        """A reference that does not keep the data; when it goes, so does its recording."""
        own = weakref.ref(self)

        def forget(_: Any) -> None:
            graphs = own()
            if graphs is not None and key in graphs._kinds:
                graphs._gone.append(graphs._kinds.pop(key))

        return weakref.ref(train, forget)
