"""A network whose outputs are values, as an estimator."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.metrics import r2_score

from gpunet.errors import InputError
from gpunet.estimators._sklearn import RegressorMixin
from gpunet.estimators.base import target, told, whole
from gpunet.estimators.network import Network, moments
from gpunet.linalg.matrix import Floats


class Regressor(RegressorMixin, Network):
    """A network with an output a value, trained on the squared error.

    y: (samples,), or (samples, outputs) for several values at once, real numbers. They are learned less their mean,
    over their standard deviation, so that large and small ones count alike and learning rates mean the same; `predict`
    gives them in their own units. All parameters are as of `gn.Classifier`, and so are weights.

    model_, the `gn.Sequential`, and trainer_, the `gn.Trainer`: of X and y in those units; history_: of the last fit,
    losses unweighted, ½ Σ over outputs of squared errors; n_iter_: epochs in all; loss_; mean_, scale_: (features,),
    or None where X is not standardised; y_mean_, y_scale_: (outputs,).
    Raises ValueError for X and y that are not what is expected, InputError for settings, DivergedError when the loss
    becomes NaN or infinite.

    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(200, 3))
    >>> net = Regressor((32,), learning_rate=1e-2).fit(x, 100 * x[:, 0] + 7)
    >>> net.score(x, 100 * x[:, 0] + 7) > 0.95
    True
    """

    @whole
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on X (samples, features) with values y (samples,) or (samples, outputs)."""
        goes_on = self._goes_on()
        X, y, weights = self._samples(X, y, sample_weight, goes_on)
        return self._train(X, self._scaled(y, weights, goes_on), y.shape[1], "squared_error", weights, goes_on)

    @whole
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """One epoch over a batch of data, going on from what there is; X and y keep the first batch's units."""
        goes_on = hasattr(self, "trainer_")
        X, y, weights = self._samples(X, y, sample_weight, goes_on)
        return self._train_once(X, self._scaled(y, weights, goes_on), y.shape[1], "squared_error", weights, goes_on)

    def predict(self, X: Any) -> Floats:
        """The values, (samples,) or (samples, outputs) as those that were fitted, float64."""
        found: Floats = self._outputs(X) * self.y_scale_ + self.y_mean_
        return found[:, 0] if self._flat else found

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """R², the mean over outputs; y as of `fit`."""
        with told("y", y):
            y, found = np.asarray(target(y)), self.predict(X)
            if y.dtype.kind in "biuf":  # of others scikit-learn says what they are
                unit = self.y_scale_.max()  # in which squares stay in range
                y, found = y / unit, found / unit
            return float(r2_score(y, found, sample_weight=sample_weight))

    def _samples(self, X: Any, y: Any, sample_weight: Any, goes_on: bool) -> tuple[Any, Any, Any]:
        """(X, y (n, outputs) float64, weights)."""
        y = None if y is None else target(y)
        X, y = self._validated(X, y, reset=not goes_on, multi_output=True, y_numeric=True)
        if y.dtype.kind in "VmM":
            raise InputError(f"y has dtype {y.dtype}: expected real numbers; convert it, say with .astype('float64')")
        outputs = 1 if y.ndim == 1 else y.shape[1]
        if goes_on and outputs != len(self.y_mean_):
            raise InputError(f"y has {outputs} outputs, and those before {len(self.y_mean_)}: expected as many")
        self._flat = y.ndim == 1
        return self._weighted(X, y.reshape(len(y), outputs).astype(np.float64), sample_weight)

    def _scaled(self, y: Any, weights: Any, goes_on: bool) -> Any:
        if not goes_on:
            self.y_mean_, self.y_scale_ = moments(y, weights, "y")
        return (y - self.y_mean_) / self.y_scale_

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
