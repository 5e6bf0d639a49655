"""Training: batches in, history out. The inner loop only runs operations of the backend."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from gpunet import losses
from gpunet.backend import Backend
from gpunet.backend.base import Array
from gpunet.callbacks import Callback
from gpunet.checkpoint import Checkpoints
from gpunet.errors import DivergedError, InputError, shown
from gpunet.evaluator import EVAL_BATCH, Evaluator
from gpunet.graph import Graphs
from gpunet.model import Sequential
from gpunet.optim import Adam, Optimizer
from gpunet.plan import Events, History, Plan, events
from gpunet.progress import Progress, progress
from gpunet.rng import BATCHES, stream
from gpunet.samples import Samples
from gpunet.tally import Tally

SERVED: weakref.WeakKeyDictionary[Optimizer, weakref.ref[Trainer]] = weakref.WeakKeyDictionary()
CHECK_EVERY = 64  # steps between looks at the loss on the CPU; a GPU is asked once an epoch


class Trainer(Evaluator):
    """Trains a model on one device.

    loss, optimizer: objects, or the loss's name; device: see `get_backend`; dtype "float32" or "float64"; seed ≥ 0
    decides initial weights and batches, the same on every device; graphs: "auto" records steps and replays them where
    the device can (`trainer.graphs.reason` says why not), "off" runs them operation by operation: the same bits either
    way, see `gpunet.graph`.

    An optimizer holds the state of one trainer: the trainer that attached it last.

    x is (samples, …) of floats, or uint8, which stays uint8 in memory and is divided by 255 as batches are gathered;
    bool and other integers are taken as the numbers they are, float16 is widened, big-endian converted; labels are
    integer classes (samples,). Raises InputError and its kin for data that does not fit the model, for masked arrays
    (see `.filled()`), sparse matrices (`.toarray()`) and longdouble, which would lose digits.

    >>> import gpunet as gn
    >>> data = gn.datasets.load("digits")
    >>> trainer = Trainer(gn.Sequential([gn.Dense(10)]), optimizer=gn.Adam(1e-2), device="cpu")
    >>> history = trainer.fit(data.x_train, data.y_train, epochs=5)
    >>> history["train_loss"][-1] < history["train_loss"][0]
    True
    >>> trainer.predict(data.x_test).shape == data.y_test.shape
    True
    """

    plan: Plan  # there while `fit` runs, for its callbacks

    def __init__(
        self,
        model: Sequential,
        loss: str | losses.Loss = "softmax_cross_entropy",
        optimizer: Optimizer | None = None,
        *,
        device: str | Backend = "auto",
        dtype: str = "float32",
        seed: int = 0,
        graphs: str = "auto",
    ) -> None:
        super().__init__(model, loss, device=device, dtype=dtype, seed=seed)
        self.optimizer = optimizer or Adam()
        self.graphs = Graphs(self.backend, graphs)
        self._order: Array = None
        self.epoch = 0  # epochs trained so far, over all calls of fit
        self.batch_size = 0  # samples a step of the fit that runs, or ran last; its history, and why it stopped early
        self.history, self.stopped = History(), ""
        self.seconds = 0.0  # training time of the epoch that runs, up to the last pause for callbacks

    def _attach(self) -> None:
        super()._attach()
        self.optimizer.attach(self.backend, *self.model.flat)
        SERVED[self.optimizer] = weakref.ref(self)
        self.followed = len(self.model.migrations)  # replacements that the optimiser knows of
        self.tally = Tally(self.backend)  # beside the evaluator's own: callbacks may evaluate in mid-epoch

    def fit(
        self,
        x: Any,
        y: Any = None,
        *,
        epochs: int = 1,
        batch_size: int = 64,
        validation_data: tuple[Any, Any] | Samples | None = None,
        callbacks: Sequence[Callback] = (),
        shuffle: bool = True,
        progress: bool | Progress = False,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: float = 1,
        resume: bool = False,
    ) -> History:
        """Train for `epochs` passes over the data; a last short batch is used as it is.

        shuffle: draw a new order of the samples for each epoch, from seed and epoch; else they come as they lie.
        checkpoint: a folder, one for each run, to save the whole state to every `checkpoint_every` epochs (0.1: ten
        times an epoch) and at the end; see `gpunet.checkpoint`. resume: go on from the checkpoint there, on the CPU
        bit for bit as if nothing had happened, or from the beginning where there is none; a run that is finished
        trains no more. A checkpoint that cannot be written ends no training: a warning says so, the next is tried, and
        the last is kept elsewhere, with a warning that says where.

        Returns a copy of the history with `train_loss` and `train_accuracy` (over the epoch, while it was learning),
        `seconds`, and `validation_loss`, `validation_accuracy` where validation data is given.
        Raises DivergedError when the loss becomes NaN or infinite, InputError for a checkpoint of another run, and
        DataError for a damaged one.
        """
        if not all(isinstance(n, (int, np.integer)) for n in (epochs, batch_size)) or epochs < 0 or batch_size < 1:
            raise InputError(
                f"expected whole numbers epochs ≥ 0 and batch_size ≥ 1, got {shown(epochs)} and {shown(batch_size)}"
            )
        callbacks = tuple(callbacks) if np.iterable(callbacks) else (callbacks,)
        if wrong := [each for each in callbacks if not isinstance(each, Callback)]:
            raise InputError(
                f"callbacks hold a {type(wrong[0]).__name__}: expected callbacks such as gn.EarlyStopping()"
            )
        pair = (validation_data, None) if isinstance(validation_data, Samples) else validation_data
        if pair is not None and not (isinstance(pair, (tuple, list)) and len(pair) == 2):
            raise InputError(f"validation_data is a {type(pair).__name__}: expected a pair (x, y), or Samples")
        train = self._labelled(x, y, "training data")
        held_out = None if pair is None else self._labelled(pair[0], pair[1], "validation data")
        if (served := SERVED.get(self.optimizer)) is not None and served() is not self:
            raise InputError("the optimizer was attached to another trainer since: give each trainer one of its own")
        self.plan = Plan(train, held_out, epochs, min(batch_size, len(train)), bool(shuffle))
        self.batch_size = self.plan.batch_size
        self._workspace(max(self.batch_size, min(EVAL_BATCH, len(held_out)) if held_out is not None else 0))
        self.history, self.stopped, self.seconds = History(), "", 0.0
        own, bar, saver = not isinstance(progress, Progress), _progress(progress), None
        try:
            saver = Checkpoints(checkpoint, checkpoint_every, self.plan.per_epoch, callbacks, resume)
            callbacks = [saver, *callbacks]  # first, so that what it saves is what the others have not touched yet
            asked = events(callbacks, self.plan.total)
            for callback in callbacks:
                callback.on_fit_begin(self)
            bar.start("training", self.plan.total) if own else None
            self._epochs(callbacks, asked, saver.take_up(self), bar)
            for callback in callbacks:
                callback.on_fit_end(self)
        finally:
            bar.close() if own else None
            saver.close() if saver else None
            self.graphs.look_again(self, self._order)  # callbacks may have replaced layers: let go of the old ones
            del self.plan  # and with it the data
        return History([dict(logs) for logs in self.history.epochs])

    def _epochs(self, callbacks: Sequence[Callback], asked: Events, done: int, bar: Progress) -> None:
        """The epochs of the plan, of which `done` steps are behind us."""
        first, start = divmod(done, self.plan.per_epoch)
        if done:
            bar.advance(done - start % self._look)
        for turn in range(first, self.plan.epochs):
            if self.stopped and not start:  # an epoch that has begun is finished
                break
            logs, start = self._epoch(asked, turn * self.plan.per_epoch, start, bar), 0
            if self.plan.validation is not None:
                looked = self.evaluate(self.plan.validation)
                logs |= {f"validation_{name}": value for name, value in looked.items()}
            self.history.epochs.append(logs)
            for callback in callbacks:
                callback.on_epoch_end(self, self.epoch - 1, logs)

    def _epoch(self, asked: Events, first: int, start: int, bar: Progress) -> dict[str, float]:
        """One pass over the data from its step `start` on, step `first + start` of all; its entry of the history."""
        train, batch, steps, look = self.plan.train, self.batch_size, self.plan.per_epoch, self._look
        n = len(train)
        order = stream(self.seed, BATCHES, self.epoch).permutation(n) if self.plan.shuffle else np.arange(n)
        order, take_step = self.line_up(order), self.stepper()
        if start == 0:
            self.tally.reset()
        with self.backend.session():
            self.backend.synchronize()
            began = time.perf_counter() - self.seconds
            for step in range(start, steps):
                if first + step in asked:
                    pause = time.perf_counter()
                    self.seconds = pause - began
                    for callback in asked[first + step]:
                        callback.on_step(self, first + step)
                    self.graphs.look_again(self, order)
                    began += time.perf_counter() - pause
                take_step(train, order, min(batch, n - step * batch))
                if (step + 1) % look == 0:
                    bar.advance(look, self._note(batch))
            self.backend.synchronize()
        seconds, self.seconds = time.perf_counter() - began, 0.0
        bar.advance(steps % look, self._note(batch))
        self.epoch += 1
        loss, accuracy = self.tally.means()
        return {"train_loss": loss, "train_accuracy": accuracy, "seconds": seconds}

    def step(self, train: Samples, order: Array, n: int) -> None:
        """One optimiser step on the next n samples of `order`: nothing here allocates, or waits for the device."""
        if self.followed != len(self.model.migrations):
            self._follow()
        self.model.use(n)
        x, labels, ops = self._x[:n], self._labels[:n], self.backend
        ops.gather(train.x, order, self.tally.cursor, train.scale, x)
        ops.gather(train.labels, order, self.tally.cursor, 1, labels)
        z = self.model.forward(x)
        self.loss(z, labels, self.model.d_scores, self.tally.totals)
        self.model.backward(self.model.d_scores)
        self.optimizer.step()
        ops.advance(self.tally.cursor, n)

    def stepper(self) -> Callable[[Samples, Array, int], None]:
        """`step`, or its recordings where the device replays; for steps with nothing between them but `line_up`."""
        if self.graphs.reason:
            return self.step
        self.graphs.look_again(self, self._order)
        return partial(self.graphs.step, self)

    def line_up(self, order: Any) -> Array:
        """An order of samples, int (N,), on the device: in one place, where recorded steps look for it."""
        if self._order is None or len(self._order) != len(order):
            self._order = self.backend.empty(len(order), "int64")
        self.backend.copy(order, self._order)
        return self._order

    def stop(self, reason: str) -> None:
        """For callbacks: end training after the epoch that runs; the reason stands in `stopped`."""
        self.stopped = reason

    @property
    def _look(self) -> int:
        """Steps between looks at the loss."""
        return CHECK_EVERY if self.backend.name == "cpu" else max(1, self.plan.per_epoch)

    def _follow(self) -> None:
        """Take the optimiser's state to where the model's replaced layers left their parameters."""
        params, grads, _ = self.model.flat
        self.optimizer.migrate(self.model.migrations[self.followed :], params, grads)
        self.followed = len(self.model.migrations)

    def _note(self, batch: int) -> str:
        """How training goes; raises DivergedError when it does not."""
        bad = self.tally.first_bad()
        if bad >= 0:
            raise DivergedError(
                f"the loss became NaN or infinite in epoch {self.epoch + 1}, step {bad // batch + 1}, at learning "
                f"rate {self.optimizer.learning_rate:g}: lower the learning rate, or look at the data's scale"
            )
        return f"epoch {self.epoch + 1}  loss {self.tally.means()[0]:.4g}"


_progress = progress  # `fit` has a parameter of that name
