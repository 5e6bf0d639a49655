"""Training and evaluation: batches in, history out. The inner loop only runs operations of the backend."""

from __future__ import annotations

import copy
import math
import os
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any, ClassVar, Literal, Self, cast, get_args

import numpy as np

from gpunet.backend import Backend, get_backend
from gpunet.backend.base import Array
from gpunet.checks import (  # fmt: skip
    DTYPES,
    Dtype,
    as_list,
    check_flag,
    check_number,
    check_one_of,
    check_range,
    check_rows,
    check_shape,
    check_text,
    check_whole,
    fixed,
    is_whole,
    setting,
)
from gpunet.errors import DataError, DivergedError, InputError, shown
from gpunet.files import check_path
from gpunet.interrupts import turns, undivided
from gpunet.nn import losses
from gpunet.nn.callbacks import Callback, EpochTotals, Plan, Schedule
from gpunet.nn.checkpoint import Checkpoints
from gpunet.nn.history import History
from gpunet.nn.model import Sequential, check_model
from gpunet.nn.optim import Optimizer, OptimizerName, resolve
from gpunet.nn.predict import EVAL_BATCH, check_place, check_row, outputs_of, passes, predicted
from gpunet.nn.replay import AT_ONCE, Graphs, Switch
from gpunet.nn.samples import Samples, check_samples, tell_pixels
from gpunet.progress import Progress
from gpunet.progress import progress as progress_of
from gpunet.reprs import indented
from gpunet.rng import HELD_OUT, stream


class Evaluator:
    """A model, its loss and a device; base of `Trainer`, which says what the arguments are."""

    model: Sequential = fixed("make another one for another model")
    backend: Backend = fixed("make another one for another device")
    dtype: Dtype = fixed("make another one for another dtype")
    seed: int = setting(check_whole, least=0)
    eval_batch: int = setting(check_whole)  # samples at a time where nothing is trained

    def __init__(
        self, model: Sequential, loss: losses.LossName | losses.Loss, *, device: str | Backend, dtype: Dtype, seed: int
    ) -> None:
        self.dtype = check_one_of("dtype", dtype, DTYPES)
        self.model = check_model(model)
        self.backend, self.seed = get_backend(device), seed
        self._life: object = None  # the model's, since it was built, that belongs to what is attached
        self._room = 0  # samples that the workspace holds
        self.eval_batch = EVAL_BATCH
        self.loss = losses.resolve(loss)

    def __repr__(self) -> str:
        lines = "".join(f"  {name}={indented(repr(value))},\n" for name, value in self._said().items())
        return f"{type(self).__name__}(\n{lines})"

    def _said(self) -> dict[str, Any]:
        """What a repr shows."""
        return {
            "model": self.model, "loss": self._loss, "device": self.backend.name, "dtype": self.dtype,
            "seed": self.seed,
        }  # fmt: skip

    @property
    def loss(self) -> losses.Loss:
        """A copy of the loss that was given, or set: it learns of this model and device."""
        return self._loss.held()  # of a trainer that was copied, too

    @loss.setter
    def loss(self, loss: losses.LossName | losses.Loss) -> None:
        own = losses.resolve(loss).given()
        if self._life is not None:
            own.attach(self.backend, self.model.layers[-1].activation)
        self._loss = own

    # -- preparation ------------------------------------------------------------------------------------------------

    def prepare(self, input_shape: tuple[int, ...]) -> None:
        """Draw the weights (unless the model has its own) and attach what belongs to it; later calls only check."""
        input_shape, model = check_shape("input_shape", input_shape), self.model
        if self._life is not model.migrations or not model.built:  # built, or built again, since the last look
            with model.alone():
                self._join(input_shape)
        model._check_input(input_shape)

    def _join(self, input_shape: tuple[int, ...]) -> None:
        """Build the model where that is to be done, and attach to it."""
        model = self.model
        if not model.built:
            model.build(input_shape, self.backend, dtype=self.dtype, seed=self.seed)
        if (model.dtype, model.backend.name) != (self.dtype, self.backend.name):
            raise InputError(
                f"the model holds {model.dtype} weights on {model.backend.name}, the trainer was asked "
                f"for {self.dtype} on {self.backend.name}: give both the same dtype and device"
            )
        self._attach()
        self._life, self._room = model.migrations, 0

    def _attach(self) -> None:
        """What is to be done once, when the model has its weights."""
        self.loss.attach(self.backend, self.model.layers[-1].activation)
        self._looking = EpochTotals(self.backend)

    def samples(self, x: Any, labels: Any = None, what: str = "data", *, sample_weight: Any = None) -> Samples:
        """Check a data set against the model and put it on the device; without labels it is for `predict` alone.

        sample_weight: (samples,) ≥ 0, what each counts in training, see `fit`.

        They are copies, on the CPU too: to change x afterwards changes no samples. `fit`, `evaluate` and `predict` read
        an x on their device where it lies, and do not keep it.
        """
        return self._samples(x, labels, what, keep=True, weights=sample_weight)

    def _samples(
        self, x: Any, labels: Any, what: str, *, keep: bool = False, labelled: bool = False, weights: Any = None,
        like: Samples | None = None, trains: bool = False,
    ) -> Samples:  # fmt: skip
        check_text("what", what)
        held = isinstance(x, Samples)
        if held and not (labels is None and weights is None):
            raise InputError(f"{what}: Samples hold their own labels, and others were given: leave those out")
        if labelled and (x.labels if held else labels) is None:
            raise InputError(f"{what} has no labels: give x and y, or Samples made of both")
        x = x if held else check_samples(x, what)
        shape = x.shape if held else tuple(x.shape[1:])
        outputs = self._outputs(shape)
        classes = self.loss.classes(outputs) if labelled or labels is not None else None
        if held:
            self._check_samples(x, classes, outputs, what)
        found: Samples = (
            x
            if held
            else Samples.of(
                self.backend, x, labels, classes, what, dtype=self.dtype, copy=keep, weights=weights,
                outputs=outputs if self._loss.takes_targets else None,
            )
        )  # fmt: skip
        if not held:
            tell_pixels(self.model.scale, found.x)
        self.model._check_alike(found, what, like, trains)
        self.prepare(shape)
        return found

    def _check_samples(self, data: Samples, classes: int | None, outputs: int, what: str) -> None:
        """That this model can take the samples, whoever made them; InputError or DataError otherwise."""
        check_place(data, self.backend, self.dtype, what)
        if data.valued and not (self._loss.takes_targets and data.labels.shape[1:] == (outputs,)):
            raise InputError(
                f"{what}: these Samples hold targets of shape {data.labels.shape}, and the model has {outputs} outputs "
                f"and the loss {type(self._loss).__name__}: give x and y"
            )
        if any(a is not None and a.dtype.kind == "f" and a.dtype != self.dtype for a in (data.labels, data.weights)):
            raise InputError(f"{what}: targets or weights of these Samples are not {self.dtype}: give x and y")
        if classes is not None and data.classes > classes:
            raise DataError(f"{what}: label {data.classes - 1} is out of range: expected 0 to {classes - 1}")

    def _outputs(self, shape: tuple[int, ...]) -> int:
        """How many outputs the model has for samples of that shape; what does not fit is refused before it is built."""
        if self.model.built:
            self.prepare(shape)
            return check_row(self.model.output_shape)
        return check_row(self.model.shapes(shape)[-1])  # not built: data that is refused leaves it open to others

    def _labelled(self, x: Any, y: Any, what: str, **options: Any) -> Samples:
        return self._samples(x, y, what, labelled=True, **options)

    def _workspace(self, batch: int) -> None:
        """Room for batches of `batch`; a larger one than before replaces it."""
        self.model.bind(batch)
        if batch <= self._room:
            return
        self._x = self.backend.empty((batch, *self.model.input_shape), self.dtype)
        self._labels = self.backend.empty(batch, "int64")
        self._targets = self.backend.empty((batch, *self.model.output_shape), self.dtype)
        self._weights = self.backend.empty(batch, self.dtype)
        self._room = batch  # now that it is there: memory may be full, or Ctrl-C come

    def _take_batch(self, data: Samples, order: Array, cursor: Array, n: int, clocks: Array = None) -> tuple[Any, Any]:
        """The next n samples of the order in the workspace: x times the model's scale, and their labels."""
        low = self.model._low_input if self.model.training else None
        x, labels = self._x[:n] if low is None else low, self._answers(data)[:n]
        scale = self.model._scale_of(data.x)
        self.backend.take_batch(data.x, data.labels, order, cursor, scale, x, labels, clocks)
        return x, labels

    def _answers(self, data: Samples) -> Array:
        """Room for the labels of a batch, or its targets; None where the data has none."""
        return None if data.labels is None else self._targets if data.classes == 0 else self._labels

    # -- use ----------------------------------------------------------------------------------------------------------

    def evaluate(self, x: Any, y: Any = None) -> dict[str, float]:
        """{"loss", "accuracy"} over a data set: means over its samples; of targets that are no classes the loss alone.

        Weights of the samples change neither.
        """
        with self.model.evaluating():
            data = self._labelled(x, y, "evaluation data")
            for z, labels in self._passes(data):
                self.loss(z, labels, self.model.d_scores, self._looking.totals)
            return self._told(self._looking, data)

    @staticmethod
    def _told(totals: EpochTotals, data: Samples) -> dict[str, float]:
        loss, accuracy = totals.means()
        return {"loss": loss} if data.valued else {"loss": loss, "accuracy": accuracy}

    def predict(self, x: Any) -> np.ndarray[Any, Any]:
        """The class of each sample, int64 (samples,): the largest output, or a lone output rounded.

        Of a model that was trained on values the outputs, (samples, outputs).
        Raises DivergedError where an output is NaN: it is of no class.
        """
        return predicted(self.outputs(x), self.model._gives_values)

    def outputs(self, x: Any) -> np.ndarray[Any, Any]:
        """The model's outputs f(z), (samples, outputs) on the host; logits where the last layer has no activation."""
        with self.model.evaluating():
            return outputs_of(self.model, self._passes(self._samples(x, None, "data")))

    def _passes(self, data: Samples) -> Iterator[tuple[Array, Array]]:
        """Scores of the data, and its labels, a batch at a time, in order."""
        batch = min(self.eval_batch, len(data))
        self._workspace(batch)
        self._looking.reset()
        return passes(self.model, data, batch, self._x, self._looking.cursor, self._answers(data))


Precision = Literal["float32", "mixed", "tf32"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
Events = dict[int, list[Callback]]
LOWER = "lower the learning rate, or look at the data's scale"  # what helps against divergence
MOST_EPOCHS = 10**9
CHECK_EVERY = 64  # steps between looks at the loss on the CPU; a GPU is asked once an epoch


class Trainer(Evaluator):
    """Trains a model on one device.

    loss, optimizer: objects or names ("adam" is gn.Adam(), as is None, and "adamw" gn.AdamW()); device: see
    `get_backend`; dtype "float32" or "float64"; seed ≥ 0 decides initial weights and batches, the same on every device;
    graphs: "auto" records steps and replays them where the device can (`trainer.graphs.reason` says why not), "off"
    runs them operation by operation: the same bits either way, see `gpunet.nn.replay`.

    precision: of a training step's matrix products. "mixed" has their operands in bfloat16, the upper half of a
    float32's bits, and adds up in float32; weights, gradients, the optimiser's state, losses and sums stay float32, as
    does all that nothing is trained by, `evaluate` and `predict` among it. "tf32" takes operands with 10 bits of
    mantissa, on NVIDIA's GPUs. Where a device, or a net with the batches of a `fit`, gains nothing by it, a UserWarning
    says why, and training is in float32; `trained_in` says which it was.

    An optimizer holds the state of one trainer: the trainer that attached it last; the one before raises InputError
    then. `loss`, `optimizer` and `graphs` may be set at any time, and take effect from the next step on; a new
    optimizer starts afresh. A copy (`copy.deepcopy`, pickle) has a model and an optimizer of its own, and goes on as
    this one would. One thread trains a model at a time.

    x is (samples, …) of floats, or uint8, which stays uint8 in memory and is multiplied by the model's `scale`, 1/255
    unless it says otherwise, as batches are gathered; bool and other integers are taken as the numbers they are,
    float16 is widened, big-endian converted. labels are integer classes (samples,), or, with the loss "squared_error",
    floats (samples, outputs) to be learned. Raises InputError and its kin for data that does not fit the model, for
    masked arrays (see `.filled()`), sparse matrices (`.toarray()`) and longdouble, which would lose digits.

    >>> import gpunet as gn
    >>> data = gn.datasets.load("digits")
    >>> trainer = Trainer(gn.Sequential([gn.Dense(10)], scale=1 / 255), optimizer=gn.Adam(1e-2), device="cpu")
    >>> history = trainer.fit(data.x_train, data.y_train, epochs=5)
    >>> history["train_loss"][-1] < history["train_loss"][0]
    True
    >>> trainer.predict(data.x_test).shape == data.y_test.shape
    True
    """

    plan: Plan  # there while `fit` runs, for its callbacks
    batch_size: int = fixed("it is fit's argument")  # of the fit that runs, or ran last
    history: History = fixed("each fit begins its own")  # of the fit that runs, or ran last
    precision: Precision = fixed("make another trainer")  # of a training step's products
    stopped: str = setting(check_text)  # why that stopped early
    seconds: float = setting(check_range, least=0)  # of the epoch that runs, up to the last pause for callbacks

    def __init__(
        self,
        model: Sequential,
        loss: losses.LossName | losses.Loss = "softmax_cross_entropy",
        optimizer: OptimizerName | Optimizer | None = None,
        *,
        device: str | Backend = "auto",
        dtype: Dtype = "float32",
        seed: int = 0,
        graphs: Switch = "auto",
        precision: Precision = "float32",
    ) -> None:
        super().__init__(model, loss, device=device, dtype=dtype, seed=seed)
        self._me = weakref.ref(self)
        vars(self)["precision"] = self._check_precision(precision)
        self._mixes = self._told_small = False
        self.optimizer = optimizer
        self.graphs = graphs
        self._stepped = 0  # id of the samples that were last seen to fit
        self._order: Array = None
        self._last_row = -1  # the largest number in it
        self.epoch = 0
        self.last_rate = 0.0  # the learning rate of the last step of the last epoch
        self.batch_size = 0
        self.history, self.stopped, self.seconds = History(), "", 0.0

    def _check_precision(self, precision: Precision) -> Precision:
        """The precision; where this device gains nothing by it, a UserWarning says why."""
        precision = check_one_of("precision", precision, PRECISIONS)
        if precision != "float32" and self.dtype != "float32":
            raise InputError(
                f"precision={shown(precision)} has float32 weights, and dtype is {shown(self.dtype)}: leave one out"
            )
        slow = {"float32": "", "mixed": self.backend.slow_bfloat16, "tf32": self.backend.slow_tf32}[precision]
        if slow:
            warnings.warn(f"training in float32, not {precision}: {slow}", stacklevel=3)
        self._gains = not slow
        return precision

    @property
    def epoch(self) -> int:
        """Epochs trained so far, over all calls of fit: the next one's batches and rate follow from it."""
        return self._epoch_now

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._epoch_now = check_whole("epoch", epoch, least=0)

    def _said(self) -> dict[str, Any]:
        said = super()._said()
        mixed = {} if self.precision == "float32" else {"precision": self.precision}
        return {"model": said.pop("model"), "loss": said.pop("loss"), "optimizer": self._optimizer, **said, **mixed,
                "epoch": self.epoch}  # fmt: skip

    @property
    def optimizer(self) -> Optimizer:
        """What updates the weights."""
        return self._optimizer

    @optimizer.setter
    def optimizer(self, optimizer: OptimizerName | Optimizer | None) -> None:
        given = resolve(optimizer)
        if given is vars(self).get("_optimizer") and given.owner is self._me:
            return  # it has its state already
        with undivided():
            self._optimizer = given
            if self._life is not None:
                self._attach_optimizer()

    @property
    def graphs(self) -> Graphs:
        """The recordings of its steps; set it to "auto" or "off"."""
        return self._graphs

    @graphs.setter
    def graphs(self, graphs: Switch) -> None:
        before, self._graphs = vars(self).get("_graphs"), Graphs(self.backend, graphs)
        if before is not None:
            before.drop()

    def _attach(self) -> None:
        super()._attach()
        self._attach_optimizer()
        self.tally = EpochTotals(self.backend)  # beside the evaluator's own: callbacks may evaluate in mid-epoch

    def _attach_optimizer(self) -> None:
        self._optimizer.attach(self.backend, *self.model.flat)
        self._optimizer.owner = self._me
        self._caught_up()

    def __getstate__(self) -> dict[str, Any]:
        """What a copy takes along: settings, model, the optimiser with its state; not the memory of batches."""
        gone = (
            "_me", "_life", "_room", "_x", "_labels", "_targets", "_weights", "_order", "_looking", "_stepped",
            "_store", "_followed", "_graphs", "tally", "plan",
        )  # fmt: skip
        state = {name: value for name, value in vars(self).items() if name not in gone}
        state["graphs"] = self.graphs.asked
        if self._life is None or self._life is not self.model.migrations:
            return state
        return state | {"exported": self.export()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        exported, graphs = state.pop("exported", None), state.pop("graphs")
        vars(self).update(state, _me=weakref.ref(self), _life=None, _room=0, _order=None, _stepped=0)
        self.graphs = graphs
        self._check_precision(self.precision)  # of this machine
        if exported is not None:
            self._join(self.model.input_shape)
            self.restore(self._optimizer.settings, *exported)

    def __copy__(self) -> Self:
        return copy.deepcopy(self)

    def fit(
        self,
        x: Any,
        y: Any = None,
        *,
        epochs: int = 1,
        batch_size: int = 64,
        validation_data: tuple[Any, Any] | Samples | None = None,
        validation_split: float | None = None,
        sample_weight: Any = None,
        callbacks: Callback | Sequence[Callback] = (),
        shuffle: bool = True,
        progress: bool | Progress = False,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: float = 1,
        resume: bool = False,
    ) -> History:
        """Train for `epochs` passes over the data; a last short batch is used as it is.

        validation_split: the share of the samples, in (0, 1), that is held out in place of validation_data. They are
        drawn from the trainer's seed and the number of samples alone, so each fit, and a run that is resumed, holds out
        the same; both parts are copies.
        sample_weight: (samples,) ≥ 0; the gradient is the mean over the batch's samples of weight times gradient, so
        weights of mean 1 keep the learning rate's meaning. What is reported stays the mean over samples as they are.
        shuffle: draw a new order of the samples for each epoch, from seed and epoch; else they come as they lie.
        checkpoint: a folder, one for each run, to save the whole state to every `checkpoint_every` epochs (0.1: ten
        times an epoch) and at the end; see `gpunet.nn.checkpoint`. resume: go on from the checkpoint there, on the CPU
        bit for bit as if nothing had happened, or from the beginning where there is none; a run that is finished
        trains no more. Settings, data and callbacks must be those of that run; a UserWarning says where the bits may
        differ, since the device, the kernels, NumPy or the number of its threads are others now. A checkpoint that
        cannot be written ends no training: a warning says so, the next is tried, and the last is kept elsewhere, with a
        warning that says where.

        Returns a copy of the history with `train_loss` and `train_accuracy` (over the epoch, while it was learning),
        `seconds`, and `validation_loss`, `validation_accuracy` where validation data is given, or held out; no
        accuracies where y holds values to be learned.
        Raises DivergedError when the loss becomes NaN or infinite, InputError for a checkpoint of another run, and
        DataError for a damaged one.
        """
        if not (is_whole(epochs, 0, MOST_EPOCHS) and is_whole(batch_size)):
            raise InputError(
                f"expected whole numbers epochs ≥ 0 (up to 10⁹) and batch_size ≥ 1, got {shown(epochs)} and "
                f"{shown(batch_size)}"
            )
        epochs, batch_size = int(epochs), int(batch_size)
        shuffle, resume = check_flag("shuffle", shuffle), check_flag("resume", resume)
        if not isinstance(progress, Progress):
            progress = check_flag("progress", progress)
        checkpoint = None if checkpoint is None else check_path("checkpoint", checkpoint)
        alone = not hasattr(type(callbacks), "__iter__")
        callbacks = as_list("callbacks", [callbacks] if alone else callbacks, "callbacks such as gn.EarlyStopping()")
        if wrong := [each for each in callbacks if not isinstance(each, Callback)]:
            raise InputError(
                f"callbacks hold a {type(wrong[0]).__name__}: expected callbacks such as gn.EarlyStopping()"
            )
        if (count := sum(isinstance(each, Schedule) for each in callbacks)) > 1:
            raise InputError(f"callbacks hold {count} schedules of the learning rate, and one can set it: give one")
        pair = (validation_data, None) if isinstance(validation_data, Samples) else validation_data
        if pair is not None and not (isinstance(pair, (tuple, list)) and len(pair) == 2):
            raise InputError(f"validation_data is a {type(pair).__name__}: expected a pair (x, y), or Samples")
        if validation_split is not None:
            validation_split = check_range("validation_split", validation_split, above=0, below=1)
            if pair is not None:
                raise InputError("both validation_data and validation_split are given: give one of them")
        own, bar = not isinstance(progress, Progress), progress_of(progress)
        fit = _Fit()
        with self.model.alone(fit):
            train = self._labelled(x, y, "training data", weights=sample_weight, trains=True)
            held_out = None if pair is None else self._labelled(pair[0], pair[1], "validation data", like=train)
            if validation_split is not None:
                train, held_out = self._split(train, validation_split)
            if self.behind:
                self.follow()
            plan = Plan(train, held_out, epochs, min(batch_size, len(train)), shuffle)
            with undivided() as signals:  # whatever ends it, all of it is cleaned up after, and the folder let go of
                try:
                    with signals.heard():
                        vars(self).update(plan=plan, batch_size=plan.batch_size, history=History())
                        self._mix(self.batch_size)
                        looked_at = 0 if held_out is None else min(self.eval_batch, len(held_out))
                        self._workspace(max(self.batch_size, looked_at))
                        self.stopped, self.seconds = "", 0.0
                        self._check_batches()
                        fit.take(callbacks)
                    keeping = Checkpoints(checkpoint, checkpoint_every, plan.per_epoch, callbacks, resume)
                    with closing(keeping) as saver, signals.heard():
                        self._run(saver, callbacks, bar, own)
                finally:
                    self.model.eval()
                    bar.close() if own else None
                    # Callbacks may have replaced layers: the old ones are let go of, and with the plan the data.
                    self.graphs.look_again(self, self._order)
                    vars(self).pop("plan", None)
                    del fit, plan
            return self.history.copy()

    def _split(self, data: Samples, share: float) -> tuple[Samples, Samples]:
        """What is trained on, and that share of the data, which is not; each in the data's order."""
        n, held = len(data), round(share * len(data))
        if not 0 < held < n:
            raise InputError(
                f"validation_split={share:g} of {n} samples holds out {held}: expected a share that leaves at least "
                "one sample on either side"
            )
        drawn = stream(self.seed, HELD_OUT).permutation(n)
        parts = (self.backend.asarray(np.sort(rows)) for rows in (drawn[held:], drawn[:held]))
        with self.backend.session():
            train, held_out = (data._take(rows) for rows in parts)
        return train, held_out

    def _check_batches(self) -> None:
        """InputError where a batch of the plan is too small for a layer, naming the nearest size that leaves none."""
        n, batch = len(self.plan.train), self.batch_size
        last = (n - 1) % batch + 1
        for layer in self.model.layers:
            if last < layer.least:
                sizes = (size for apart in range(n) for size in (batch - apart, batch + apart))
                better = next(
                    (size for size in sizes if layer.least <= size <= n and (n - 1) % size + 1 >= layer.least), 0
                )
                raise InputError(
                    f"{n} samples in batches of {batch} leave a last one of {last}, and {layer.called} takes no fewer "
                    f"than {layer.least}: {f'choose batch_size={better}' if better else 'give it more samples'}"
                )

    def _run(self, saver: Checkpoints, callbacks: Sequence[Callback], bar: Progress, start: bool) -> None:
        """What the plan says; whatever happens, the callbacks that have begun come to their end."""
        begun: list[Callback] = []
        # The saver comes first, so that what it saves is what the others have not touched yet.
        asked = _events([saver, *callbacks], self.plan.total)
        saver.on_fit_begin(self)
        try:
            for callback in callbacks:
                with undivided(), self.backend.session():  # it has begun, or it has not
                    callback.on_fit_begin(self)
                    begun.append(callback)
            bar.start("training", self.plan.total) if start else None
            done = saver.take_up(self)
            if done < self.plan.total:
                self.model._learn_from(self.plan.train)
            self._epochs([saver, *callbacks], asked, done, bar)
            if len(self.history.epochs) * self.plan.per_epoch > done:
                self._check_end()
            saver.on_fit_end(self)
            self._end(begun)
        except BaseException as error:
            self._end(begun, error)
            raise

    def _end(self, begun: list[Callback], failure: BaseException | None = None) -> None:
        """`on_fit_end` of all that have not had it; an error of one is raised after all, or added to `failure`."""
        errors: list[BaseException] = []
        while begun:
            callback = begun[0]
            try:
                with undivided(), self.backend.session():  # diverged weights warn of nothing
                    del begun[0]
                    callback.on_fit_end(self)
            except BaseException as error:  # Ctrl-C, too: the others have their turn all the same
                errors.append(error)
                if failure is not None:
                    failure.add_note(f"{type(callback).__name__}.on_fit_end failed, too: {error}")
        if errors and failure is None:
            raise errors[0]

    def _check_end(self) -> None:
        """DivergedError where the last update has left weights, or a loss of them, that are not finite.

        A step's loss is that before its update, so the last batch is looked at once more here.
        """
        validated = check_number("validation_loss in the history", self.history.epochs[-1].get("validation_loss", 0.0))
        if not (self.finite() and math.isfinite(self._last_loss()) and math.isfinite(validated)):
            raise DivergedError(
                f"the weights became NaN or infinite, or too large, in the last step of epoch {self.epoch}, at "
                f"learning rate {self.optimizer.learning_rate:g}: {LOWER}"
            )

    def finite(self) -> bool:
        """Whether no parameter is NaN or infinite."""
        with self.backend.session():
            return bool(self.backend.xp.isfinite(self.model._arenas.whole).all())

    def _last_loss(self) -> float:
        """The loss over the last batch of the last epoch, with the weights as they are."""
        train, ops = self.plan.train, self.backend
        n = len(train) - (self.plan.per_epoch - 1) * self.batch_size
        self._looking.reset()
        self.model.set_batch_size(n)
        with ops.session(), self.model.evaluating():
            x, labels = self._take_batch(train, self._order[len(train) - n :], self._looking.cursor, n)
            self._loss(self.model.forward(x), labels, self.model.d_scores, self._looking.totals)
        return self._looking.means()[0]

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
            with self.backend.session():
                for callback in callbacks:
                    callback.on_epoch_end(self, self.epoch - 1, logs)

    def _epoch(self, asked: Events, first: int, start: int, bar: Progress) -> dict[str, float]:
        """One pass over the data from its step `start` on, step `first + start` of all; its entry of the history."""
        train, batch, steps, look = self.plan.train, self.batch_size, self.plan.per_epoch, self._look
        n = len(train)
        order, take_steps = self._upload_order(self.plan.order(self.seed, self.epoch)), self.stepper()
        self._enter_training(start)
        if start == 0:
            self.tally.reset()
        with self.backend.session():
            self.backend.synchronize()
            began = time.perf_counter() - self.seconds
            step, replays = start, not self.graphs.reason
            while step < steps:
                if first + step in asked:
                    pause = time.perf_counter()
                    self.seconds = pause - began
                    for callback in asked[first + step]:
                        callback.on_step(self, first + step)
                    take_steps, replays = self.stepper(), not self.graphs.reason  # callbacks may have set `graphs`
                    self._enter_training(step)
                    began += time.perf_counter() - pause
                most = _until(asked, first + step, min(n // batch - step, look - step % look)) if replays else 1
                step += take_steps(train, order, min(batch, n - step * batch), most)
                if step % look == 0:
                    bar.advance(look, self._note(batch))
            self.backend.synchronize()
        seconds, self.seconds = time.perf_counter() - began, 0.0
        bar.advance(steps % look, self._note(batch))
        self.epoch += 1
        self.last_rate = self._optimizer.learning_rate
        return {f"train_{name}": value for name, value in self._told(self.tally, train).items()} | {"seconds": seconds}

    def _enter_training(self, step: int) -> None:
        """Before that step of the epoch, after whatever callbacks did: training mode, and masks that follow from it."""
        self.model.train()
        self._round()
        if self.model._drawing:
            self.model._begin_draws(self.seed, self.epoch, step)

    def step(self, train: Samples, order: Array, n: int, most: int = 1) -> int:
        """One optimiser step on the next n samples of `order`: nothing here allocates, or waits for the device.

        In training mode, inside `backend.session()`. Returns how many steps it made: 1, whatever `most` there may be,
        which is for recorded ones.
        """
        self._round()
        return self._step(train, order, n, most)

    @property
    def _plain_step(self) -> Callable[..., int]:
        """`step`, which a subclass may have its own of, for where nobody writes parameters between two: see `_step`."""
        return self._step if self.model._mixed else self.step

    def _step(self, train: Samples, order: Array, n: int, most: int = 1) -> int:
        """`step` where nobody has written parameters since the last one, or since `stepper`."""
        model = self.model
        if id(train) != self._stepped or order is not self._order or self.behind or model._mixed is not self._mixes:
            self.look_at(train, order)
        tally = self.tally
        if not model.training:
            model.train()
        model.set_batch_size(n)
        optimizer = self._optimizer
        own = type(optimizer).step is not Optimizer.step  # which counts, or does not
        weights = None
        if train.weights is not None:
            weights = self._weights[:n]
            self.backend.gather(train.weights, order, tally.cursor, 1, weights)
        x, labels = self._take_batch(train, order, tally.cursor, n, None if own else optimizer.clocks)
        if self._gains and self.precision == "tf32":
            self.backend.tf32 = True
            try:
                model._learn(x, labels, self._loss, tally.totals, weights)
            finally:
                self.backend.tf32 = False
        else:
            model._learn(x, labels, self._loss, tally.totals, weights)
        optimizer.step() if own else optimizer._descend()
        if model._mixed and not optimizer.rounds:
            self._round()
        return 1

    def look_at(self, train: Samples, order: Array) -> None:
        """Before a step: that it can be made on these, where they are new; and the model followed, where that moved."""
        if id(train) != self._stepped or order is not self._order:
            self._check_step(train, order)
        if self.behind:
            self.follow()
        self._take_turn()
        self._round()

    def _check_step(self, train: Samples, order: Array) -> None:
        if self._life is None:
            raise InputError("the trainer has seen no data yet: call prepare or fit before step")
        if not isinstance(train, Samples):
            raise InputError(f"train is {shown(train)}: expected what trainer.samples(x, y) returned")
        self._samples(train, None, "training data", labelled=True, trains=True)
        if not self.model.fitting:
            self.model._learn_from(train)
        if type(order) is not type(self.tally.cursor) or order.ndim != 1 or order.dtype != np.int64:
            raise InputError(
                f"order is {shown(order)}: expected what trainer.upload_order(numbers of samples) returned"
            )
        if order is self._order and self._last_row >= len(train):
            raise InputError(f"order names sample {self._last_row}: expected numbers from 0 to {len(train) - 1}")
        self._stepped = id(train)

    def _step_objects(self, order: Array) -> tuple[Any, ...]:
        """What holds the arrays of a step, beside its data; each is made anew where one of its arrays is."""
        return (  # and the thread, which has a stream and scratch memory of its own
            threading.current_thread(), order, self._x, self.tally, self._loss, self.optimizer.ranges,
            self.model._store, self.model._d_scores, self.model.scale,
        )  # fmt: skip

    def stepper(self) -> Callable[..., int]:
        """`step`, or its recordings where the device replays; for steps with nothing between them but `upload_order`.

        Called as `step` is. A recording may make several steps, up to `most`, and returns how many.
        """
        self._round()
        if self.graphs.reason:
            return self._plain_step
        self.graphs.look_again(self, self._order)
        return partial(self.graphs.step, self)

    def upload_order(self, order: Any) -> Array:
        """An order of samples, int (N,), on the device: in one place, where recorded steps look for it.

        Raises InputError for other numbers than a data set's rows have, of which the first step looks whether they are
        there, and while a fit runs, which has an order of its own.
        """
        with self.model.alone():
            if self.model.fitting:
                raise InputError("order cannot be lined up while a fit runs: it has one of its own")
            return self._upload_order(order)

    def _upload_order(self, order: Any) -> Array:
        order, self._last_row = check_rows(order, "order")
        self._stepped = 0
        if self._order is None or len(self._order) != len(order):
            self._order = self.backend.empty(len(order), "int64")
        self.backend.copy(order, self._order)
        return self._order

    def _in_order(self) -> bool:
        """Whether seed and epoch tell the epoch's order: not where a callback has set either since that was drawn."""
        return np.array_equal(self.backend.to_host(self._order), self.plan.order(self.seed, self.epoch))

    def stop(self, reason: str) -> None:
        """For callbacks: end training after the epoch that runs; the reason stands in `stopped`."""
        self.stopped = check_text("reason", reason)

    @property
    def _look(self) -> int:
        """Steps between looks at the loss."""
        return CHECK_EVERY if self.backend.name == "cpu" else max(1, self.plan.per_epoch)

    @property
    def behind(self) -> bool:
        """Whether the model's parameters have moved since the optimiser was attached to them, or it serves another."""
        return self.model._store is not self._store or self._optimizer.owner is not self._me

    def follow(self) -> None:
        """Take the optimiser's state to where replaced or frozen layers left the model's parameters."""
        if self._optimizer.owner is not self._me:
            raise InputError("the optimizer was attached to another trainer since: give each trainer one of its own")
        with undivided():
            params, grads, _ = self.model.flat
            self._optimizer.migrate(self.model.migrations[self._followed :], params, grads)
            self._caught_up()

    def _caught_up(self) -> None:
        self._store, self._followed = self.model._store, len(self.model.migrations)
        self._round_into()

    def _round_into(self) -> None:
        """Tell the optimiser where the parameters in bfloat16 lie."""
        self._optimizer.round_into(self.model._arenas.trained_rounded if self.model._mixed else None)

    def _mix(self, batch: int) -> None:
        """Before training by batches of so many: the model mixes precisions, or does not, as this trainer is to."""
        small = self.model._too_small(batch, self.model.input_shape, self.backend)
        wanted = self._gains and self.precision == "mixed"
        self._mixes = wanted and not small
        if wanted and small and not self._told_small:
            self._told_small = True
            warnings.warn(f"training in float32, not mixed: {small}", stacklevel=3)
        self._take_turn()

    def _take_turn(self) -> None:
        """Have the model mix precisions, or not, as this trainer's steps do: another one may train it as well."""
        self.model._mix(self._mixes)
        self._round_into()

    @property
    def trained_in(self) -> Precision:
        """The precision of the last fit's steps: float32, too, where device or net gain nothing by another."""
        return self.precision if self._mixes or (self._gains and self.precision == "tf32") else "float32"

    def _round(self) -> None:
        """After other code than steps: what it has written into the parameters counts in bfloat16, too."""
        if self.model._mixed:
            self.model._arenas.round()

    def export(self) -> tuple[dict[str, Any], dict[str, int]]:
        """The optimiser's state on the host, see `Optimizer.export`."""
        with self.model.alone():
            self.follow()
            return self._optimizer.export(self.model.trained_layout)

    def restore(self, settings: Mapping[str, float], arrays: Mapping[str, Any], ages: Mapping[str, int]) -> None:
        """Go on from what `export` returned; the model is what it was then."""
        self._optimizer.restore(settings, arrays, ages, self.model.trained_layout, self.model.flat)
        self._caught_up()

    def _note(self, batch: int) -> str:
        """How training goes; raises DivergedError when it does not."""
        bad = self.tally.first_bad()
        if bad >= 0:
            raise DivergedError(
                f"the loss became NaN or infinite in epoch {self.epoch + 1}, step {bad // batch + 1}, at learning "
                f"rate {self.optimizer.learning_rate:g}: {LOWER}"
            )
        return f"epoch {self.epoch + 1}  loss {self.tally.means()[0]:.4g}"


def _events(callbacks: Sequence[Callback], total: int) -> Events:
    """For each step of `total`, the callbacks that asked for it."""
    found: Events = {}
    for callback in callbacks:
        name, steps = f"{type(callback).__name__}.steps()", cast(Any, callback.steps(total))
        if not isinstance(steps, range):
            steps = as_list(name, steps, "whole numbers of steps")
        for step in (*steps[:1], *steps[-1:]) if isinstance(steps, range) else steps:  # of a range the ends tell all
            check_whole(f"a step of {name}", step, least=0, most=sys.maxsize)
        for step in steps:
            found.setdefault(int(step), []).append(callback)
    return found


def _until(asked: Events, at: int, most: int) -> int:
    """Of the next `most` steps from `at` on, how many come before a callback's turn, as far as a recording goes."""
    most = min(most, AT_ONCE[0])
    return next((ahead for ahead in range(1, most) if at + ahead in asked), most)


class _Fit:
    """One that runs; when it ends, however that is, what it has taken is free again."""

    _taken: ClassVar = weakref.WeakValueDictionary[int, "_Fit"]()
    _lock: ClassVar = turns()

    def take(self, callbacks: Sequence[Callback]) -> None:
        """What a callback keeps is of one fit: InputError for one that serves another, or stands here twice."""
        numbers = [id(each) for each in callbacks]
        if len(set(numbers)) < len(numbers):
            raise InputError("callbacks hold the same object twice: give each once")
        with self._lock:
            for each in callbacks:
                if id(each) in self._taken:
                    raise InputError(f"this {type(each).__name__} serves another fit: give each fit its own")
            self._taken.update(dict.fromkeys(numbers, self))
