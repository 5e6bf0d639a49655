"""The principal components of every class by itself, as a transformer."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from scipy.sparse import issparse
from sklearn.utils.validation import check_is_fitted

from gpunet.backend import Backend
from gpunet.checks import check_flag
from gpunet.errors import shown
from gpunet.estimators._sklearn import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from gpunet.estimators.base import Estimator, chunks, dense, project, wanted, whole
from gpunet.linalg.certificate import Certificate
from gpunet.linalg.classes import StreamingClassGram, class_pca
from gpunet.linalg.matrix import result_dtype


class ClassPCA(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Estimator):
    """Projections on the leading vectors of every class's own density matrix (document 002, section 3).

    n_components: how many vectors a class, at most as many as the smallest class has samples, and as there are
    features; a number between 0 and 1: of each class as many as explain that share of its trace; None: all. center:
    whether each class's mean is subtracted first, which makes the density its covariance. device: where to compute, see
    `gn.get_backend`; None is the CPU.

    y: one label a sample: numbers, texts, bools; a column (samples, 1), with scikit-learn's warning; or one-hot rows
    (samples, classes), whose labels are the columns' numbers, or names of a DataFrame; a column without a one is no
    class.

    classes_: (C,), ascending; counts_: (C,) samples of each; ranks_: (C,) vectors of each; components_: (C, k,
    features), k the largest rank, zero beyond a class's own; explained_variance_ and explained_variance_ratio_: (C, k),
    over n; mean_: (C, features); n_components_: columns that `transform` gives; residual_; decomposition_: the
    `gn.linalg.ClassPCA`, whose classes are numbered.

    >>> import gpunet as gn
    >>> data = gn.datasets.load("digits")
    >>> pca = ClassPCA(n_components=3).fit(data.x_train, data.y_train)
    >>> pca.components_.shape, pca.transform(data.x_test).shape
    ((10, 3, 64), (355, 30))
    """

    def __init__(
        self, n_components: float | None = 0.9, *, center: bool = False, device: str | Backend | None = None
    ) -> None:
        self.n_components = n_components
        self.center = center
        self.device = device

    @whole
    def fit(self, X: Any, y: Any) -> Self:
        """Find the vectors of each class of X (samples, features) with labels y (samples,).

        Raises ValueError for X or y that is not what is expected, InputError for settings out of range and for a class
        with too few samples, ConvergenceError where no route reached the tolerance.
        """
        X, y = self._read_labelled(X, y)
        classes, codes, counts = np.unique(y, return_inverse=True, return_counts=True)
        smallest = int(counts.argmin())
        most = min(int(counts[smallest]), X.shape[1])
        of = f"the smaller of the features and the samples of class {shown(classes.tolist()[smallest])}"
        count, share = wanted(self.n_components, most, of)
        center = check_flag("center", self.center)
        if issparse(X) and X.shape[0] > 2 * len(classes) * X.shape[1]:  # whose sums are smaller than a dense X
            sums = StreamingClassGram(center=center, device=self.device)
            for where, rows in chunks(X):
                sums.update(rows, codes[where])
            found = sums.components(count, variance=share)
        else:
            found = class_pca(dense(X), codes, count, variance=share, center=center, device=self.device)
        self.classes_, self.counts_, self.ranks_ = classes, counts, found.ranks
        self.components_ = found.components.astype(result_dtype(X.dtype), copy=False)
        self.explained_variance_, self.explained_variance_ratio_ = (
            found.explained_variance,
            found.explained_variance_ratio,
        )
        self.mean_, self.residual_, self.decomposition_ = found.mean, found.residual, found
        self.n_components_ = int(found.ranks.sum())
        return self

    def transform(self, X: Any) -> Any:
        """The projections on all classes' vectors, (samples, n_components_): first those of the first class.

        Column j of class c is v_cj·x, or v_cj·(x − mean of c) where `center` is set.
        """
        check_is_fitted(self)
        X = self._read(X)
        dtype = np.result_type(self.components_.dtype, result_dtype(X.dtype))
        used = np.arange(self.components_.shape[1]) < self.ranks_[:, None]
        scores = np.empty((X.shape[0], int(used.sum())), dtype)
        if check_flag("center", self.center):
            vectors = [own[:rank] for own, rank in zip(self.components_, self.ranks_, strict=True)]
            project(X, vectors, self.mean_, scores)
        else:
            project(X, [self.components_[used]], [None], scores)
        return scores

    @property
    def certificate_(self) -> Certificate:
        """What is shown of each class's vectors, see `gn.linalg.ClassPCA`."""
        check_is_fitted(self)
        return self.decomposition_.certificate

    @property
    def _n_features_out(self) -> int:
        return int(self.n_components_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags
