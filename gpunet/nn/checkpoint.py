"""Checkpoints: everything a training run needs to go on, in one file that is whole or not there.

`FOLDER/checkpoint.safetensors` holds the parameters by PyTorch's names ("0.weight"), so that `gpunet.load` reads the
model from it; the optimiser's state by parameter ("optimizer/first/0.weight") and its clocks; the running totals of
the epoch; and as JSON in the metadata what the run was asked to do, where it stands, its history, and the state of its
callbacks. Orders of samples need no state: they are drawn from seed and epoch.

What callbacks may exchange in mid-training (loss, optimizer, seed) stands there twice: as it was when the run began,
and when it was saved. A run may be resumed with either, and must have the latter once its callbacks have begun.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpunet.backend import Backend
from gpunet.backend.base import N_SETTLED
from gpunet.backend.blas import pools, threads
from gpunet.checks import check_number, check_range, is_number, real_array
from gpunet.errors import DataError, InputError, OutputError, shown
from gpunet.files import alone, writable_folder, write_atomically, write_or_keep
from gpunet.fingerprint import comparable, difference, digest, named
from gpunet.limits import DAMAGE
from gpunet.nn.callbacks import Callback, Training
from gpunet.nn.model import Sequential
from gpunet.nn.optim import PLACES
from gpunet.nn.samples import Samples
from gpunet.nn.serialize import arrays_of, describe, put_back
from gpunet.reprs import settings
from gpunet.tensorfile import KEY as MODEL
from gpunet.tensorfile import read, seal

FILE, KEY, FORMAT = "checkpoint.safetensors", "checkpoint", 2
TALLY = ("totals", "cursor")  # arrays of a pass that runs
LOGGED = ("train_loss", "seconds")  # of every epoch
LOOKED_AT = 1 << 25  # bytes of a data set that go into its digest at most: 50 ms
# What stands beside the arrays of a checkpoint, and of what kind it is: a count is a whole number from zero on.
ENTRY = {
    "run": "table", "machine": "table", "step": "count", "epoch": "count", "seconds": "number", "stopped": "text",
    "model": "text", "optimizer": "table of number", "ages": "table of count", "history": "list of table",
    "callbacks": "list of table", "exchanged": "table",
}  # fmt: skip
KINDS: dict[str, Callable[[Any], bool]] = {
    "table": lambda value: isinstance(value, dict),  # whose keys are texts, as JSON's are
    "list": lambda value: isinstance(value, list),
    "text": lambda value: isinstance(value, str),
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "count": lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 0,
}


Saved = tuple[dict[str, Any], dict[str, Any]]  # arrays, and the rest


class Checkpoints(Callback):
    """Saves the run of `fit` every so many epochs, and takes one up again; without a folder it does nothing.

    It comes first among the callbacks: what it saves is the state before the others act on a step or on the end of the
    fit, and after resuming they do.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None,
        every: float,
        per_epoch: int,
        callbacks: Sequence[Callback],
        resume: bool,
    ) -> None:
        every = check_range("checkpoint_every", every, above=0)
        if resume and folder is None:
            raise InputError("resume=True needs the folder of the checkpoint: give checkpoint=FOLDER, too")
        self.folder, self.callbacks, self.resume = folder, callbacks, resume
        self.every = max(1, round(min(every * per_epoch, sys.maxsize)))
        self.saved: Saved | None = None
        self.restoring: Callback | None = None
        self.step = -1  # of the checkpoint in the file
        self.failed = False  # whether the one after it could not be written
        self.held = contextlib.ExitStack()

    def steps(self, total: int) -> Iterable[int]:
        """Those between which `every` steps lie; after the last one `on_fit_end` saves."""
        return () if self.folder is None else range(self.every, total, self.every)

    def on_fit_begin(self, trainer: Training) -> None:
        """Read and check what is to be resumed, before anything is changed."""
        if self.folder is None:
            return
        self.path = writable_folder(self.folder, FILE) / FILE
        self.held.enter_context(alone(self.path.parent, "training run", " for checkpoint"))
        self.run = json.loads(to_json(run_spec(trainer, self.callbacks)))
        self.machine = machine(trainer.backend, trainer.trained_in)
        self.optimizer, self.initial = trainer.optimizer, dict(trainer.optimizer.settings)
        if self.resume and self.path.exists():
            self.saved = load(self.path)
            run = self.saved[1]["run"]
            if difference("", self.run, run):
                self._compare(self.run, run | self.saved[1]["exchanged"])
            if found := difference("", self.machine, self.saved[1]["machine"]):
                warnings.warn(
                    f"'{self.path}' was written where other bits are computed: {found}; the run goes on from there, "
                    "but not bit for bit as it would have gone on there",
                    stacklevel=4,
                )

    def _compare(self, given: dict[str, Any], held: dict[str, Any]) -> None:
        """InputError naming where what is given differs from what the checkpoint holds."""
        if found := difference("", given, held):
            raise InputError(
                f"'{self.path}' is of another run: {found}; resume with what that run had, or choose another folder"
            )

    def _exchanged(self, trainer: Training) -> dict[str, Any]:
        """What callbacks may have exchanged by now; schedules that set the optimizer's rate exchange nothing."""
        same = trainer.optimizer is self.optimizer
        found = exchangeable(trainer, self.initial if same else trainer.optimizer.initial)
        return json.loads(to_json(found))  # type: ignore[no-any-return]

    def close(self) -> None:
        """Let go of the folder."""
        self.held.close()

    def take_up(self, trainer: Training) -> int:
        """Put trainer and callbacks where the checkpoint left them; how many steps lie behind."""
        if self.saved is None:
            return 0
        (arrays, found), self.saved = self.saved, None
        now = self._exchanged(trainer)
        self._compare(now, now | found["exchanged"])
        try:
            self._check(trainer, arrays, found)
            self._restore(trainer, arrays, found)
        except DAMAGE as error:
            if self.restoring is not None and type(self.restoring).__module__.partition(".")[0] != "gpunet":
                raise InputError(
                    f"{type(self.restoring).__name__}.restore() failed: {type(error).__name__}: {error}; "
                    f"'{self.path}' itself is whole"
                ) from error
            raise DataError(f"'{self.path}' is damaged ({error}): delete it to start afresh") from error
        return self.step

    def _check(self, trainer: Training, arrays: dict[str, Any], found: dict[str, Any]) -> None:
        """ValueError or a like error where the checkpoint is not one of such a run, before anything is changed."""
        model = Sequential.from_config(json.loads(found["model"])["layers"])
        shapes = model.parameter_shapes(trainer.model.input_shape)
        ages, clocks = found["ages"], arrays["optimizer/clocks"]
        wanted = shapes | {f"tally/{name}": getattr(trainer.tally, name).shape for name in TALLY}
        wanted |= {f"optimizer/{kind}/{name}": shapes[name] for kind in trainer.optimizer.states for name in ages}
        for name, shape in {**wanted, "optimizer/clocks": (len(clocks), N_SETTLED)}.items():
            array = arrays[name]
            if array.shape != shape or array.dtype.kind not in "if" or not np.isfinite(array).all():
                raise ValueError(f"{name} is {array.dtype} of shape {array.shape}")
        if any(age >= len(clocks) for age in ages.values()) or (clocks < 0).any():
            raise ValueError(f"ages {ages}, clocks {clocks.tolist()}")
        epochs, optimizer = found["history"], copy.copy(trainer.optimizer)
        if found["step"] > trainer.plan.total or len(epochs) != found["step"] // trainer.plan.per_epoch:
            raise ValueError(f"step {found['step']} after {len(epochs)} epochs")
        if found["optimizer"].keys() != trainer.optimizer.settings.keys():
            raise ValueError(f"optimizer {found['optimizer']}")
        check_range("seconds", found["seconds"], least=0)
        for name, value in found["optimizer"].items():
            setattr(optimizer, name, value)  # which has the bounds
            if (clocks[:, PLACES[name]] != value).any():
                raise ValueError(f"{name} {value}, of clocks {clocks.tolist()}")
        if not all(is_number(each.get(name)) for each in epochs for name in LOGGED):
            raise ValueError("a history without numbers")

    def _restore(self, trainer: Training, arrays: dict[str, Any], found: dict[str, Any]) -> None:
        for i, (callback, state) in enumerate(zip(self.callbacks, found["callbacks"], strict=True)):
            self.restoring = callback
            callback.restore(state | _below(f"callbacks/{i}/", arrays))
        self.restoring = None
        model = trainer.model
        put_back(model, json.loads(found["model"])["layers"], arrays)
        trainer.restore(found["optimizer"], _below("optimizer/", arrays), found["ages"])
        for name in TALLY:
            trainer.backend.copy(arrays[f"tally/{name}"], getattr(trainer.tally, name))
        trainer.epoch, trainer.seconds, trainer.stopped = found["epoch"], found["seconds"], found["stopped"]
        trainer.history.epochs.extend(found["history"])
        self.step = found["step"]

    def on_step(self, trainer: Training, step: int) -> None:
        """Save the state before `step`, unless the one before is worth more: this one has diverged, or has no order."""
        if trainer.tally.first_bad() < 0 and trainer.finite() and trainer._in_order():
            self._save(trainer, step)

    def on_fit_end(self, trainer: Training) -> None:
        """Save the state after the last step, before other callbacks have the last word on the model."""
        if self.folder is not None:
            self._save(trainer, len(trainer.history.epochs) * trainer.plan.per_epoch, last=True)

    def _save(self, trainer: Training, step: int, last: bool = False) -> None:
        """A full disk, or a folder that is gone, must not cost the training: that is said once, and at the end."""
        if step == self.step:
            return
        content = self._content(trainer, step)
        try:
            if last:
                write_or_keep(self.path, content)
            else:
                with contextlib.suppress(OSError):  # deleted meanwhile
                    self.path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(self.path, content)
        except OutputError as error:
            if last:
                warnings.warn(f"the last checkpoint is missing: {error}", RuntimeWarning, 2)
            elif not self.failed:
                warnings.warn(f"no checkpoint: {error}; training goes on, and the next is tried", RuntimeWarning, 2)
            self.failed = True
        else:
            self.step, self.failed = step, False

    def _content(self, trainer: Training, step: int) -> bytearray:
        optimizer, ages = trainer.export()
        tally = {name: trainer.backend.to_host(getattr(trainer.tally, name)) for name in TALLY}
        arrays = arrays_of(trainer.model) | _under("optimizer/", optimizer) | _under("tally/", tally)
        states = []
        for i, callback in enumerate(self.callbacks):
            kept, state = _state(callback)
            arrays |= _under(f"callbacks/{i}/", kept)
            states.append(state)
        model, epochs = describe(trainer.model), trainer.history.epochs
        for name in LOGGED:
            for logs in epochs:
                check_number(f"{name} in the history", logs.get(name))
        entry = {
            "format": FORMAT, "run": self.run, "exchanged": self._exchanged(trainer), "machine": self.machine,
            "step": step, "epoch": trainer.epoch,
            "seconds": trainer.seconds, "stopped": trainer.stopped, "model": model,
            "optimizer": dict(trainer.optimizer.settings), "ages": ages, "history": epochs,
            "callbacks": states,
        }  # fmt: skip
        return seal(arrays, {MODEL: model, KEY: to_json(entry)})


def load(path: Path) -> Saved:
    """Arrays, and what stands beside them; DataError where the file is no checkpoint, of another format or damaged."""
    arrays, metadata = read(path, "delete it to start afresh")
    if KEY not in metadata:
        raise DataError(f"'{path}' is no checkpoint of a training run: choose another folder")
    try:
        found = json.loads(metadata[KEY])
        if found["format"] != FORMAT:
            raise DataError(
                f"'{path}' has format {found['format']}, this gpunet reads {FORMAT}; delete it to start afresh"
            )
        found.setdefault("exchanged", {})  # which was not kept at first
        for name, kind in ENTRY.items():
            if not _is(found[name], kind):
                raise ValueError(f"{name} is {shown(found[name])}, not a {kind}")
    except DataError:
        raise
    except DAMAGE as error:
        raise DataError(f"'{path}' is damaged ({error}): delete it to start afresh") from error
    return arrays, found


def _is(value: Any, kind: str) -> bool:
    """Whether a value is of the kind, as "list of table" say."""
    outer, _, inner = kind.partition(" of ")
    if not KINDS[outer](value):
        return False
    return not inner or all(map(KINDS[inner], value.values() if outer == "table" else value))


def _state(callback: Callback) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a callback wants kept, its arrays and the rest; InputError naming it where a checkpoint cannot."""
    state, name = told(callback, "state"), f"{type(callback).__name__}.state()"
    arrays = {key: real_array(a, f"{name}[{key!r}]") for key, a in state.items() if isinstance(a, np.ndarray)}
    rest = {key: value for key, value in state.items() if key not in arrays}
    try:
        to_json(rest)
        "".join(arrays).encode()
    except (InputError, UnicodeEncodeError) as error:  # half a surrogate pair is no array's name
        raise InputError(f"{name} cannot be kept: {error}") from error
    return arrays, rest


def to_json(value: Any) -> str:
    """Numbers (NumPy's, too), text, lists and dictionaries as JSON; InputError for what a checkpoint cannot keep."""
    try:
        return json.dumps(value, default=_plain)
    except InputError:
        raise
    except (TypeError, ValueError, RecursionError) as error:  # keys that are no text, lists that hold themselves
        raise InputError(f"a checkpoint keeps what JSON can hold, and that is not: {error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise InputError(f"a checkpoint keeps numbers, text, lists and arrays, got {type(value).__name__}: {shown(value)}")


def _under(prefix: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    return {prefix + name: np.require(array, requirements="C") for name, array in arrays.items()}


def _below(prefix: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


# -- which run this is ------------------------------------------------------------------------------------------------


def run_spec(trainer: Training, callbacks: Sequence[Callback]) -> dict[str, Any]:
    """What a run was asked to do: two that agree here are the same, step by step."""
    plan = trainer.plan
    return {
        "layers": trainer.model.config(),
        "scale": trainer.model._scale_of(plan.train.x),
        **exchangeable(trainer, trainer.optimizer.settings),
        "dtype": trainer.dtype,
        **({} if trainer.precision == "float32" else {"precision": trainer.precision}),
        "epochs": plan.epochs,
        "batch_size": plan.batch_size,
        "shuffle": plan.shuffle,
        "data": _looked_at(trainer, plan.train),
        "validation_data": None if plan.validation is None else _looked_at(trainer, plan.validation),
        "callbacks": [_described(callback, told(callback, "config")) for callback in callbacks],
    }


def exchangeable(trainer: Training, initial: Mapping[str, float]) -> dict[str, Any]:
    """What callbacks may exchange in mid-training: the loss, the optimizer, by its `initial` settings, and the seed."""
    return {
        "loss": _described(trainer.loss, settings(trainer.loss)),
        "optimizer": _described(trainer.optimizer, initial),
        "seed": comparable(trainer.seed),
    }


def told(callback: Callback, method: str) -> Mapping[str, Any]:
    """What `config` or `state` of a callback returns; InputError where that is no dictionary."""
    found = getattr(callback, method)()
    if not named(found):
        name = f"{type(callback).__name__}.{method}()"
        raise InputError(f"{name} returned {shown(found)}: expected a dictionary whose keys are texts")
    return found  # type: ignore[no-any-return]


def machine(backend: Backend, precision: str = "float32") -> dict[str, Any]:
    """What a run's bits depend on beside what it was asked: where two agree here they are the same."""
    blas = {(pool["internal_api"], pool["version"], pool.get("architecture")) for pool in pools()}
    return {
        "device": backend.name,
        "kernels": backend.kernels,
        "blas": ", ".join(sorted(" ".join(map(str, each)) for each in blas)),
        "threads": threads(),
        "numpy": np.__version__,
        **({} if precision == "float32" else {"precision": f"{precision}, {backend.mixes_with}".rstrip(", ")}),
    }


def _described(thing: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """An object by its class and its settings, as JSON can hold them."""
    return {"class": type(thing).__name__, **{name: comparable(value) for name, value in settings.items()}}


def _looked_at(trainer: Training, data: Samples) -> dict[str, Any]:
    """Shape, dtype, and a digest of labels, weights and of the samples: all of them, or every k-th of a large set."""
    every = -(-int(data.x.nbytes) // LOOKED_AT) or 1
    arrays = [trainer.backend.to_host(a) for a in (data.x[::every], data.labels, data.weights) if a is not None]
    return {"shape": list(data.x.shape), "dtype": str(data.x.dtype), "digest": digest(*arrays)}
