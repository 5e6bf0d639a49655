"""What `Classifier` and `Regressor` share: a network of layers, its data in its own units, and its training."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, Self

import numpy as np
from scipy.sparse import issparse
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from gpunet.backend import Backend
from gpunet.backend.base import Activation
from gpunet.checks import (
    DTYPES,
    Dtype,
    as_list,
    check_flag,
    check_one_of,
    check_range,
    check_whole,
    is_one_of,
    is_whole,
)
from gpunet.errors import DataError, DivergedError, InputError, shown
from gpunet.estimators.base import Estimator, check_room, chunks, target, told
from gpunet.interrupts import contextmanager
from gpunet.linalg.matrix import Floats
from gpunet.nn.callbacks import Callback, EarlyStopping
from gpunet.nn.history import History
from gpunet.nn.layers import Dense, Layer
from gpunet.nn.losses import LossName
from gpunet.nn.model import Sequential
from gpunet.nn.optim import SGD, AdamW, Optimizer, OptimizerName, resolve
from gpunet.nn.trainer import Precision, Trainer
from gpunet.progress import Progress

Units = int | Layer
Hidden = int | Sequence[Units] | Callable[[], Sequence[Units]]
SGD_RATE = 0.01  # of optimizer="sgd" where none is said


class Network(Estimator):
    """Base of the estimators that are networks; each says what the parameters are."""

    trainer_: Trainer
    history_: History
    mean_: Any
    scale_: Any

    def __init__(
        self,
        hidden_layers: Hidden = (128,),
        activation: Activation = "relu",
        *,
        optimizer: OptimizerName | Literal["sgd"] | Optimizer = "adam",
        learning_rate: float | None = None,
        l2: float | None = None,
        epochs: int = 100,
        batch_size: int = 64,
        standardize: bool = True,
        validation_split: float = 0.0,
        patience: int | None = 10,
        tol: float = 1e-4,
        callbacks: Sequence[Callback] = (),
        warm_start: bool = False,
        random_state: Any = 0,
        device: str | Backend = "auto",
        dtype: Dtype = "float32",
        precision: Precision = "float32",
        progress: bool | Progress = False,
    ) -> None:
        self.hidden_layers = hidden_layers
        self.activation = activation
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.l2 = l2
        self.epochs = epochs
        self.batch_size = batch_size
        self.standardize = standardize
        self.validation_split = validation_split
        self.patience = patience
        self.tol = tol
        self.callbacks = callbacks
        self.warm_start = warm_start
        self.random_state = random_state
        self.device = device
        self.dtype = dtype
        self.precision = precision
        self.progress = progress

    # -- training -----------------------------------------------------------------------------------------------------

    def _train(self, X: Any, targets: Any, outputs: int, loss: LossName, weights: Any, goes_on: bool) -> Self:
        """`epochs` over X with classes (n,) or values (n, outputs), in the units that `_begun` has learned.

        The weights' mean becomes 1, so that the learning rate means the same.
        """
        epochs = check_whole("epochs", self.epochs)
        fraction = check_range("validation_split", self.validation_split, least=0, below=1)
        patience = None if self.patience is None else check_whole("patience", self.patience, of=" of epochs")
        tol = check_range("tol", self.tol, least=0)
        callbacks = [copy.deepcopy(each) for each in as_list("callbacks", self.callbacks, "callbacks", Callback)]
        X = self._begun(X, targets, outputs, loss, weights, goes_on)
        if weights is not None:
            weights = weights / weights.max()  # whose sum stays in range
            weights = None if weights.min() == 1 else weights / weights.mean()
        if patience is not None:
            metric = "validation_loss" if fraction else "train_loss"
            stopping = EarlyStopping(metric, patience, least=tol, restore_best=fraction > 0)
            callbacks.insert(0, stopping)  # so that factors that `Factorise` made are merged last
        self.history_ = self._epochs(
            X, targets, weights, epochs, validation_split=fraction or None, callbacks=callbacks
        )
        self.n_iter_ = self.trainer_.epoch
        return self

    def _train_once(self, X: Any, targets: Any, outputs: int, loss: LossName, weights: Any, goes_on: bool) -> Self:
        """One epoch over a batch of data, after those before; its weights are as they are, beside other batches'."""
        X = self._begun(X, targets, outputs, loss, weights, goes_on)
        if not goes_on:
            self.history_ = History()
        self.history_.epochs += self._epochs(X, targets, weights, 1).epochs
        self.n_iter_ = self.trainer_.epoch
        return self

    def _epochs(self, X: Any, targets: Any, weights: Any, epochs: int, **options: Any) -> History:
        model, trainer = self.trainer_.model, self.trainer_
        batch = check_whole("batch_size", self.batch_size)
        given = {"epochs": epochs, "batch_size": batch, "sample_weight": weights, "progress": self.progress}
        history = trainer.fit(X, targets, **given, **options)
        model.scale = model.scale  # said by us, for samples of any dtype
        return history

    def _begun(self, X: Any, targets: Any, outputs: int, loss: LossName, weights: Any, goes_on: bool) -> Any:
        """X in the network's units; both are new unless it goes on."""
        if goes_on:
            return self._in_units(X)
        standardize, dtype = check_flag("standardize", self.standardize), check_one_of("dtype", self.dtype, DTYPES)
        if standardize or issparse(X):
            self._check_room(X, dtype)
        pixels = X.dtype == np.uint8 and standardize
        self.mean_ = self.scale_ = None
        if standardize and not pixels:
            self.mean_, self.scale_ = moments(X, weights)
        X = self._in_units(X, dtype)
        seed = self.random_state
        if not is_whole(seed, 0):
            try:
                state = check_random_state(seed)
            except ValueError:
                raise InputError(
                    f"random_state is {shown(seed)}: expected a whole number ≥ 0, a numpy.random.RandomState, or None"
                ) from None
            seed = int(state.randint(2**31 - 1))
        layers = self._layers(outputs)
        self._start(layers, X, targets)
        model = Sequential(layers, scale=1 / 255 if pixels else 1.0)
        self.trainer_ = Trainer(
            model, loss, self._optimizer(), device=self.device, dtype=dtype, seed=seed, precision=self.precision
        )  # fmt: skip
        return X

    def _layers(self, outputs: int) -> list[Layer]:
        hidden: Any = self.hidden_layers
        if callable(hidden):
            hidden = hidden()
        given = [hidden] if is_whole(hidden) else as_list("hidden_layers", hidden, "units such as 64, or layers")
        found: list[Layer] = []
        for each in given:
            if not (isinstance(each, Layer) or is_whole(each)):
                raise InputError(f"hidden_layers hold {shown(each)}: expected units such as 64, or layers")
            found.append(copy.deepcopy(each) if isinstance(each, Layer) else Dense(int(each), self.activation))
        return [*found, Dense(outputs)]

    def _start(self, layers: list[Layer], X: Any, targets: Any) -> None:
        """Give layers first weights of their own, perhaps."""

    def _optimizer(self) -> Optimizer:
        if is_one_of(self.optimizer, ("sgd", "SGD")):
            found: Optimizer = SGD(SGD_RATE)
        else:
            found = copy.deepcopy(resolve(self.optimizer))
        if self.learning_rate is not None:
            found.learning_rate = self.learning_rate
        if self.l2 is not None:
            if isinstance(found, AdamW):
                raise InputError(
                    f"l2 is {shown(self.l2)}, and AdamW has a decay in its place: give "
                    "optimizer=gn.AdamW(weight_decay=…), and leave l2 out"
                )
            found.l2 = self.l2
        return found

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """As of `Estimator`; but a network that was going on, and was stopped in mid-training, is given up."""
        trainer = vars(self).get("trainer_")
        history = trainer and trainer.history  # another one from the moment that training begins
        try:
            with super()._whole():
                yield
        except BaseException as error:
            if trainer and trainer.history is not history and not isinstance(error, InputError):
                for name in ("trainer_", "history_", "n_iter_"):
                    self.__dict__.pop(name, None)
            raise

    def _goes_on(self) -> bool:
        """Whether a fit begins with the network that there is."""
        return check_flag("warm_start", self.warm_start) and hasattr(self, "trainer_")

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "trainer_")

    # -- samples ------------------------------------------------------------------------------------------------------

    def _weighted(self, X: Any, y: Any, sample_weight: Any) -> tuple[Any, Any, Any]:
        """(X, y, weights (n,) float64 or None) of the samples that count: without those of weight 0."""
        if sample_weight is None:
            return X, y, None
        with told("sample_weight", sample_weight), np.errstate(over="ignore"):
            weights = _check_sample_weight(target(sample_weight, "sample_weight"), X, dtype=np.float64)
        if (bad := ~((weights >= 0) & np.isfinite(weights))).any():
            row = int(bad.argmax())
            raise DataError(f"sample_weight of row {row} is {weights[row]}: expected finite numbers ≥ 0")
        if not weights.any():
            raise DataError("sample_weight is 0 for all samples: expected at least one that counts")
        some = weights > 0
        return (X, y, weights) if some.all() else (X[some], y[some], weights[some])

    @staticmethod
    def _check_room(X: Any, dtype: str) -> None:
        needed = math.prod(X.shape) * np.dtype(dtype).itemsize
        check_room(f"X of shape {X.shape}, dense {dtype},", needed, "give some rows at a time to partial_fit")

    def _in_units(self, X: Any, dtype: str | None = None) -> Any:
        """X dense, as the network takes it: less `mean_`, over `scale_`, where those were learned."""
        if self.mean_ is None and not issparse(X):
            return X
        dtype = dtype or self.trainer_.dtype
        self._check_room(X, dtype)
        out = np.empty(X.shape, dtype)
        with np.errstate(over="ignore"):  # the trainer says which sample is beyond float32
            for where, rows in chunks(X):
                out[where] = rows if self.mean_ is None else (rows - self.mean_) / self.scale_
        return out

    def _outputs(self, X: Any) -> Floats:
        """(samples, outputs) of the network, float64."""
        check_is_fitted(self)
        X = self._read(X)
        parts = [self.trainer_.outputs(self._in_units(rows)) for _, rows in chunks(X)]
        found = np.concatenate(parts).astype(np.float64)
        if not np.isfinite(found).all():
            row = int(np.isfinite(found).all(axis=1).argmin())
            raise DivergedError(
                f"sample {row} has outputs that are not finite: the weights have diverged, or X is far from what was "
                "fitted; lower learning_rate"
            )
        return found

    @property
    def model_(self) -> Sequential:
        """The network, for `gn.save`, `gn.compress` and the like; it takes X less `mean_`, over `scale_`."""
        check_is_fitted(self)
        return self.trainer_.model

    @property
    def loss_(self) -> float:
        """The mean loss over the last epoch of training."""
        check_is_fitted(self)
        return self.history_["train_loss"][-1]


def moments(X: Any, weights: Any, what: str = "X") -> tuple[Any, Any]:
    """(mean, standard deviation) of each feature, float64 (features,), by chunks; 1 for features that do not vary.

    They are of X less its first row, over the largest difference from it, so that a constant feature is exactly 0 and
    no square leaves float64. Each chunk is taken about its own mean (Chan, Golub & LeVeque 1983, equation 2.1).
    """
    first = next(chunks(X[:1]))[1][0].astype(np.float64)
    largest = np.zeros(X.shape[1])
    with np.errstate(over="ignore"):
        for _, rows in chunks(X):
            np.maximum(largest, np.abs(rows - first).max(axis=0), out=largest)
    if not np.isfinite(largest).all():
        column = int(np.isfinite(largest).argmin())
        raise InputError(f"the differences in column {column} of {what} overflow float64: scale them down")
    size = np.where(largest == 0, 1.0, largest)
    total, mean, square = 0.0, np.zeros(X.shape[1]), np.zeros(X.shape[1])
    most = None if weights is None else weights.max()  # over which their sum stays in range
    for where, rows in chunks(X):
        rows = (rows - first) / size
        w = np.ones(len(rows)) if weights is None else weights[where] / most
        added = float(w.sum())
        if added == 0:  # beside weights 1e308 times as large
            continue
        own = w @ rows / added
        rows -= own
        away = own - mean
        square += w @ (rows * rows) + away * away * (total * added / (total + added))
        total += added
        mean += away * (added / total)
    mean, deviation = first + size * mean, size * np.sqrt(square / total)
    constant = deviation <= 10 * np.finfo(np.float64).eps * np.abs(mean)
    return mean, np.where(constant, 1.0, deviation)
