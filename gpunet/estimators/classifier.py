"""A network that tells classes apart, as an estimator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from gpunet.backend import Backend
from gpunet.backend.base import Activation
from gpunet.checks import Dtype, check_one_of, check_range, is_one_of
from gpunet.errors import InputError, shown
from gpunet.estimators._sklearn import ClassifierMixin
from gpunet.estimators.base import chunks, of_one_hot, plain, told, whole
from gpunet.estimators.network import Hidden, Network
from gpunet.linalg.matrix import Floats
from gpunet.nn.callbacks import Callback
from gpunet.nn.layers import Dense, Layer
from gpunet.nn.optim import Optimizer, OptimizerName
from gpunet.nn.trainer import Precision
from gpunet.progress import Progress
from gpunet.spectral.svd_weights import singular_rows

Init = Literal["random", "class-pca"]


class Classifier(ClassifierMixin, Network):
    """A network with an output a class, trained on the softmax's cross-entropy.

    hidden_layers: units of each hidden layer, of `activation`, or layers such as gn.Conv2D in their place, of which
    each fit takes copies; or a function that returns such a list. The layer of the outputs comes by itself.
    init: "random", or "class-pca": the first layer's rows are singular vectors of each class's samples, as many of one
    class as of another, scaled so that the layer's outputs have the mean square that random weights would give
    (document 000, equation 8, with dep = 0).
    optimizer: "adam", "adamw", "sgd", or an object such as gn.SGD(0.1, momentum=0.9), of which each fit takes a copy;
    learning_rate and l2 stand above its own; None: 1e-3 by those names, 0.01 for "sgd", and no L2 term.
    epochs, batch_size: passes over the data at most, and samples a step.
    standardize: features are taken less their mean, over their standard deviation; uint8, which pixels are, over 255
    instead. Else the network sees X as it is.
    validation_split: the share of the samples that is held out, drawn from random_state. Training ends when their
    loss, or that of training where none are held out, has not fallen by more than `tol` for `patience` epochs; the best
    weights by held-out loss are kept. patience=None: never.
    class_weight: what each class counts, {label: weight}, 1 where a label is left out; or "balanced": samples /
    (classes · samples of the class), of `fit` alone. Multiplied with sample_weight.
    callbacks: such as gn.Factorise("auto"), of which each fit takes copies. warm_start: a further fit goes on from the
    weights, the optimiser's state and the features' means and deviations of the one before, with the settings of the
    network that there is; the classes must be the same. random_state: the seed of weights and batches, an integer, a
    RandomState, or None for another one each time. device, dtype, precision: as of `gn.Trainer`; progress: whether to
    show it.

    y: one label a sample: numbers, texts, bools; a column (samples, 1), with scikit-learn's warning; or one-hot rows
    (samples, classes), whose labels are then the columns' numbers, or names of a DataFrame; a column without a one is
    no class. sample_weight: (samples,) ≥ 0; a sample of weight 0 is left out, and where the whole data is one batch one
    of weight 2 counts as two. `fit` divides weights by their mean, `partial_fit` takes them as they are: a step's
    gradient is the mean of weight times gradient. Losses that are reported, and looked at by `patience`, count every
    sample once.

    classes_: (C,), ascending; model_, the `gn.Sequential`; trainer_, the `gn.Trainer`; history_, of the last fit, loss
    and accuracy unweighted; n_iter_: epochs in all; loss_; mean_, scale_: (features,), or None where X is not
    standardised.
    Raises ValueError for X and y that are not what is expected, InputError for settings, DivergedError when the loss
    becomes NaN or infinite.

    >>> import gpunet as gn
    >>> data = gn.datasets.load("digits")
    >>> net = Classifier((32,), learning_rate=1e-2, epochs=10).fit(data.x_train, data.y_train)
    >>> net.score(data.x_test, data.y_test) > 0.9
    True
    >>> net.predict_proba(data.x_test).shape
    (355, 10)
    """

    classes_: NDArray[Any]

    def __init__(
        self,
        hidden_layers: Hidden = (128,),
        activation: Activation = "relu",
        *,
        init: Init = "random",
        optimizer: OptimizerName | Literal["sgd"] | Optimizer = "adam",
        learning_rate: float | None = None,
        l2: float | None = None,
        epochs: int = 100,
        batch_size: int = 64,
        standardize: bool = True,
        validation_split: float = 0.0,
        patience: int | None = 10,
        tol: float = 1e-4,
        class_weight: Any = None,
        callbacks: Sequence[Callback] = (),
        warm_start: bool = False,
        random_state: Any = 0,
        device: str | Backend = "auto",
        dtype: Dtype = "float32",
        precision: Precision = "float32",
        progress: bool | Progress = False,
    ) -> None:
        super().__init__(
            hidden_layers, activation, optimizer=optimizer, learning_rate=learning_rate, l2=l2, epochs=epochs,
            batch_size=batch_size, standardize=standardize, validation_split=validation_split, patience=patience,
            tol=tol, callbacks=callbacks, warm_start=warm_start, random_state=random_state, device=device, dtype=dtype,
            precision=precision, progress=progress,
        )  # fmt: skip
        self.init = init
        self.class_weight = class_weight

    @whole
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on X (samples, features) with labels y (samples,)."""
        goes_on = self._goes_on()
        X, y, weights = self._samples(X, y, sample_weight, reset=not goes_on)
        classes = np.unique(y)
        if goes_on and not np.array_equal(classes, self.classes_):
            raise InputError(
                f"warm_start goes on with the classes {shown(self.classes_.tolist())}, and y holds "
                f"{shown(classes.tolist())}: expected the same; set warm_start=False"
            )
        return self._learn(X, y, classes, weights, goes_on, self._train)

    @whole
    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """One epoch over a batch of data, going on from what there is; features keep the first batch's units.

        classes: all labels that will come, at the first call; by default those of this batch. sample_weight and
        class_weight count as they are, beside those of other batches. Raises as `fit`, and InputError for labels that
        were not named, and for class_weight="balanced", which one batch cannot tell.
        """
        if is_one_of(self.class_weight, ("balanced",)):
            raise InputError(
                "class_weight is 'balanced', and partial_fit does not know all samples: give {label: weight}, or call "
                "fit"
            )
        goes_on = hasattr(self, "trainer_")
        X, y, weights = self._samples(X, y, sample_weight, reset=not goes_on)
        with told("classes", classes, ()):
            named = np.unique(y) if classes is None else np.unique(plain(classes, "classes"))
        known = self.classes_ if goes_on else named
        if goes_on and classes is not None and not np.array_equal(named, known):
            raise InputError(
                f"classes are {shown(classes)}, and were {shown(known.tolist())} at the first call: expected the same"
            )
        return self._learn(X, y, known, weights, goes_on, self._train_once)

    def predict(self, X: Any) -> NDArray[Any]:
        """The label of each sample, (samples,), one of `classes_`."""
        best = self._outputs(X).argmax(axis=1)
        labels: NDArray[Any] = self.classes_[best]
        return labels

    def predict_proba(self, X: Any) -> Floats:
        """The softmax of the outputs, (samples, C) float64: the probability of each of `classes_`."""
        z: Floats = self._outputs(X)
        z = np.exp(z - z.max(axis=1, keepdims=True))
        z /= z.sum(axis=1, keepdims=True)
        return z

    def predict_log_proba(self, X: Any) -> Floats:
        """The logarithm of `predict_proba`, without underflow."""
        z: Floats = self._outputs(X)
        z = z - z.max(axis=1, keepdims=True)
        z -= np.log(np.exp(z).sum(axis=1, keepdims=True))
        return z

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The share of the samples, or of their weights, whose label is predicted; y as of `fit`."""
        with told("y", y):
            return float(super().score(X, of_one_hot(y), sample_weight))

    def _samples(self, X: Any, y: Any, sample_weight: Any, reset: bool) -> tuple[Any, Any, Any]:
        X, y = self._read_labelled(X, y, reset=reset)
        return self._weighted(X, y, sample_weight)

    def _of_classes(self, classes: Any, codes: Any) -> Any:
        """What a sample of each class counts, (C,)."""
        given = self.class_weight
        if is_one_of(given, ("balanced",)):
            return len(codes) / (len(classes) * np.bincount(codes, minlength=len(classes)))
        if not isinstance(given, Mapping):
            raise InputError(f"class_weight is {shown(given)}: expected {{label: weight}}, 'balanced' or None")
        places = {label: place for place, label in enumerate(classes.tolist())}
        found = np.ones(len(classes))
        for label, weight in given.items():
            if label not in places:
                raise InputError(
                    f"class_weight has the label {shown(label)}: expected some of the classes {shown(list(places))}"
                )
            found[places[label]] = check_range(f"class_weight of {shown(label)}", weight, least=0)
        return found

    def _learn(self, X: Any, y: Any, classes: Any, weights: Any, goes_on: bool, train: Any) -> Self:
        check_one_of("init", self.init, get_args(Init))
        if len(classes) < 2:
            one = f"1 class, {shown(classes.tolist()[0])}" if len(classes) else "no classes"
            raise InputError(f"y has {one}: expected at least 2 classes to tell apart")
        codes = np.minimum(np.searchsorted(classes, y), len(classes) - 1)
        if (unknown := classes[codes] != y).any():
            raise InputError(
                f"y holds {shown(y[unknown].tolist()[0])}: expected one of the classes {shown(classes.tolist())}; name "
                "all of them at the first call, partial_fit(X, y, classes=…)"
            )
        self.classes_ = classes
        if self.class_weight is not None:
            of_samples = self._of_classes(classes, codes)[codes]
            with np.errstate(over="ignore"):  # which is told of then
                X, codes, weights = self._weighted(X, codes, of_samples if weights is None else weights * of_samples)
        return train(X, codes, len(classes), "softmax_cross_entropy", weights, goes_on)  # type: ignore[no-any-return]

    def _start(self, layers: list[Layer], X: Any, targets: Any) -> None:
        if self.init == "random":
            return
        first = layers[0]
        if len(layers) < 2 or not isinstance(first, Dense):
            raise InputError(
                f"init is 'class-pca' and hidden_layers are {shown(self.hidden_layers)}: expected units of a Dense "
                "layer first; set init='random'"
            )
        rows = singular_rows(X, first.units, targets).vectors
        own = size = 0.0
        for _, part in chunks(X):  # of pixels the factor of both is the same
            part = part.astype(np.float64)
            own += float(np.square(part @ rows.T).sum())
            size += float(np.square(part).sum())
        drawn = len(rows) * 2 / (X.shape[1] + len(rows)) * size  # of Glorot's variance
        layers[0] = Dense(len(rows), first.activation, weight=rows * np.sqrt(drawn / own if own else 1.0))
