"""Principal components on the SVD engine, whole or batch by batch."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from scipy.sparse import issparse
from sklearn.utils.validation import check_array, check_is_fitted

from gpunet import linalg
from gpunet.backend import Backend
from gpunet.checks import check_flag
from gpunet.errors import InputError
from gpunet.estimators._sklearn import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from gpunet.estimators.base import (
    Estimator,
    check_range_of,
    check_room,
    chunks,
    dense,
    plain,
    project,
    told,
    wanted,
    whole,
)
from gpunet.linalg.certificate import KEPT, Certificate
from gpunet.linalg.classes import pca_of_rows
from gpunet.linalg.device import computing_on, device_of, is_gpu
from gpunet.linalg.gram import StreamingGram
from gpunet.linalg.matrix import result_dtype
from gpunet.linalg.pca import class_parts

LEARNED = (
    "components_", "explained_variance_", "explained_variance_ratio_", "singular_values_", "mean_", "n_components_",
    "n_samples_", "noise_variance_", "residual_", "decomposition_",
)  # fmt: skip


class PCA(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Estimator):
    """Principal component analysis: the leading eigenvectors of the covariance, verified.

    n_components: how many, from 1 to min(samples, features); a number between 0 and 1: as many as explain that share
    of the variance; None: all. whiten: `transform` divides by the components' standard deviations, so that each has
    variance 1. device: where to compute, see `gn.get_backend`; None is the CPU.

    `fit` reads X where it lies, by the routes of `gn.svd`: uint8 stays uint8. `partial_fit` adds a batch to sums in
    float64 (`gn.StreamingGram`, features² numbers), from which the components are computed when they are read: the same
    as of all batches in one piece. So is a sparse X of many samples fitted, some rows at a time.

    components_: (n_components_, features), rows orthonormal, each row's largest element positive; float32 where X was
    float32 or integers of up to 16 bits, else float64. explained_variance_: (n_components_,), over n − 1 as in
    scikit-learn; explained_variance_ratio_; singular_values_, of X less its mean; mean_: (features,), float64;
    noise_variance_: the mean of the variances left out (Tipping & Bishop 1999, equation 8); n_samples_; residual_: of
    the singular triples, as `gn.linalg.PCA` says; decomposition_: that object, whose variances are over n.

    >>> import gpunet as gn
    >>> data = gn.datasets.load("digits")
    >>> pca = PCA(n_components=0.9).fit(data.x_train.reshape(-1, 64))
    >>> pca.n_components_, bool(pca.explained_variance_ratio_.sum() >= 0.9)
    (21, True)
    """

    _sums: StreamingGram | None = None  # where batches were added, or the samples were sparse

    def __init__(
        self, n_components: float | None = None, *, whiten: bool = False, device: str | Backend | None = None
    ) -> None:
        self.n_components = n_components
        self.whiten = whiten
        self.device = device

    @whole
    def fit(self, X: Any, y: Any = None) -> Self:
        """Find the components of X (samples, features), at least two samples; y is ignored.

        Raises ValueError for X that is no such matrix, or holds NaN or infinity, InputError for settings out of range,
        ConvergenceError where no route reached the tolerance.
        """
        X = self._read(X, reset=True, ensure_min_samples=2)
        count, share = self._wanted(min(X.shape))
        self.__dict__.pop("_sums", None)
        if issparse(X) and X.shape[0] > 2 * X.shape[1]:  # whose sums are smaller than a dense X
            self._sums = self._summed(X)
            self._learn(self._sums.components(count, variance=share), X.dtype)
            return self
        X = dense(X)
        device = device_of(X, self.device, "X")
        if is_gpu(device):
            with computing_on(device) as xp:
                held = device.asarray(X)
                self._learn(class_parts(xp, held, [np.arange(len(X))], count, share, True)[0], X.dtype)
        else:
            self._learn(pca_of_rows(X, None, None, count, share, True, KEPT), X.dtype)
        return self

    @whole
    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Add a batch (samples, features) of any size; the components of all of them are computed when they are read.

        After a `fit` of a dense X, which keeps no sums to add to, it begins anew, with a warning. Raises as `fit`.
        """
        if self._sums is None and hasattr(self, "components_"):
            warnings.warn(
                "partial_fit begins anew: fit keeps no sums that a batch could be added to; give all batches to "
                "partial_fit",
                stacklevel=3,
            )
        X = self._read(X, reset=self._sums is None)
        self._wanted(X.shape[1])
        sums = self._summed(X)  # before anything changes
        self._sums = sums if self._sums is None else self._sums.merge(sums)
        for name in LEARNED:
            self.__dict__.pop(name, None)
        return self

    def transform(self, X: Any) -> Any:
        """The scores (X − mean_) components_ᵀ, (samples, n_components_); with `whiten` each over its deviation."""
        self._ready()
        X = self._read(X)
        dtype = np.result_type(self.components_.dtype, result_dtype(X.dtype))
        scores = np.empty((X.shape[0], len(self.components_)), dtype)
        project(X, [self.components_], [self.mean_], scores)
        return (scores / self._deviations(dtype)).astype(dtype, copy=False) if self._whitened() else scores

    def inverse_transform(self, X: Any) -> Any:
        """The samples (samples, features) whose scores X (samples, n_components_) are: X components_ + mean_."""
        self._ready()
        with told("X", X):
            X = check_array(plain(X, "X"))
        if X.shape[1] != self.n_components_:
            raise InputError(f"X has shape {X.shape}: expected scores (samples, {self.n_components_})")
        dtype = np.result_type(self.components_.dtype, result_dtype(X.dtype))
        if self._whitened():
            X = X * self._deviations(dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            found = X.astype(dtype, copy=False) @ self.components_.astype(dtype, copy=False) + self.mean_.astype(dtype)
        check_range_of(found, "samples")
        return found

    @property
    def certificate_(self) -> Certificate:
        """What is shown of the singular triples of X less its mean, see `gn.linalg.Certificate`."""
        check_is_fitted(self)
        found: Certificate = self.decomposition_.certificate
        return found

    @property
    def _n_features_out(self) -> int:
        return len(self.components_)

    if not TYPE_CHECKING:  # to a type checker every name would exist

        def __getattr__(self, name: str) -> Any:
            """What batches have made out of date is computed when it is asked for."""
            sums = self.__dict__.get("_sums")
            if name not in LEARNED or sums is None:
                raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")
            try:
                self._ready()
            except InputError as error:  # of too few batches: hasattr is to say no
                raise AttributeError(f"there is no {name}: {error}") from None
            return self.__dict__[name]

    def _ready(self) -> None:
        """Compute what batches have made out of date; InputError where they hold too few samples."""
        check_is_fitted(self)
        if (sums := self._sums) is None or "components_" in self.__dict__:
            return
        count, share = self._wanted(self.n_features_in_)
        least = count if count is not None and self.n_components is not None else 2
        if sums.count < max(least, 2):
            seen = f"{sums.count} sample{'s' if sums.count > 1 else ''}"
            raise InputError(f"PCA has seen {seen}: expected at least {max(least, 2)}; call partial_fit again")
        count, share = self._wanted(min(sums.count, self.n_features_in_))
        self._learn(sums.components(count, variance=share), sums._state.dtype)

    def _wanted(self, most: int) -> tuple[int | None, float | None]:
        return wanted(self.n_components, most, "the smaller of samples and features")

    def _whitened(self) -> bool:
        return check_flag("whiten", self.whiten)

    def _summed(self, X: Any) -> StreamingGram:
        """The sums of one batch alone."""
        check_room(f"a sum over {X.shape[1]:,} features", 16 * X.shape[1] ** 2, "give all samples to fit, as a dense X")
        sums = StreamingGram(center=True, device=self.device)
        for _, rows in chunks(X):
            sums.update(rows)
        return sums

    def _deviations(self, dtype: Any) -> Any:
        """Standard deviations of the scores, float64; of what does not vary beside the rest, what rounding leaves."""
        found = np.sqrt(self.explained_variance_)
        return found.clip(np.finfo(dtype).eps * found[0]) if found[0] else np.ones_like(found)

    def _learn(self, found: linalg.PCA, dtype: Any) -> None:
        n, (count, features) = found.count, found.components.shape
        self.decomposition_ = found
        self.components_ = found.components.astype(result_dtype(dtype))
        self.explained_variance_ = found.explained_variance * (n / (n - 1))
        self.explained_variance_ratio_ = found.explained_variance_ratio
        self.singular_values_ = np.sqrt(n * found.explained_variance)
        self.mean_, self.n_components_, self.n_samples_, self.residual_ = found.mean, count, n, found.residual
        share, left = float(found.explained_variance_ratio.sum()), min(n, features) - count
        total = float(self.explained_variance_.sum())
        self.noise_variance_ = total * max(0.0, 1 / share - 1) / left if left and share else 0.0
