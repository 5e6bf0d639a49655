"""What all estimators share: samples and labels from wherever they come, checked as scikit-learn checks them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from gpunet.checks import as_array, has, is_number, is_whole, on_device
from gpunet.errors import GpunetError, InputError, first_line, shown
from gpunet.limits import physical_memory

Fit = TypeVar("Fit", bound=Callable[..., Any])
CHUNK_BYTES = 16 << 20  # of samples that are worked on at a time


def plain(a: Any, what: str) -> Any:
    """What scikit-learn can read of samples or labels: tensors of PyTorch and CuPy's arrays come to the host.

    Raises InputError for masked arrays, whose mask scikit-learn would lose.
    """
    if on_device(a):
        return a.get()
    if has(a, "detach") and has(a, "cpu"):
        with told(what, a, ()):
            a = a.detach().cpu()
            return a.float().numpy() if "bfloat16" in str(a.dtype) else a.numpy()
    return as_array(a, what) if isinstance(a, np.ma.MaskedArray) else a


@contextmanager
def told(what: str, a: Any, stay: tuple[type[Exception], ...] = (ValueError, TypeError)) -> Iterator[None]:
    """Has InputError raised in place of whatever an object's own code raises; what stays is scikit-learn's to say."""
    as_they_are: tuple[type[Exception], ...] = (GpunetError, MemoryError, *stay)
    try:
        yield
    except as_they_are:
        raise
    except Exception as error:
        raise InputError(
            f"{what} is a {type(a).__name__}, which is no array ({shown(first_line(error))}): pass NumPy's"
        ) from None


def chunks(x: Any) -> Iterator[tuple[slice, Any]]:
    """(where, rows) of a dense or sparse matrix, the rows dense, so many at a time as CHUNK_BYTES hold."""
    step = max(1, CHUNK_BYTES // (8 * x.shape[1]))
    for start in range(0, x.shape[0], step):
        where = slice(start, min(start + step, x.shape[0]))
        yield where, x[where].toarray() if issparse(x) else x[where]


def dense(x: Any) -> Any:
    """x as an array; InputError where a sparse matrix would take more than the machine's memory."""
    if issparse(x):
        check_room(f"a dense X of shape {x.shape}", math.prod(x.shape) * x.dtype.itemsize, "reduce its features first")
        return x.toarray()
    return x


def check_room(what: str, needed: int, advice: str) -> None:
    """InputError where so many bytes are more than the machine's memory."""
    room = physical_memory()
    if room is not None and needed > room:
        raise InputError(f"{what} takes {needed:,} bytes, and this machine has {room:,}: {advice}")


def whole(fit: Fit) -> Fit:
    """The method, which leaves the estimator as it was where it raises: see `Estimator._whole`."""

    @functools.wraps(fit)
    def method(self: Estimator, *args: Any, **kwargs: Any) -> Any:
        with self._whole():
            return fit(self, *args, **kwargs)

    return method  # type: ignore[return-value]


class Estimator(BaseEstimator):  # type: ignore[misc]
    """Base of all estimators.

    X is (samples, features) of real numbers: arrays, lists, DataFrames, PyTorch's tensors and CuPy's arrays (both are
    copied to the host), and scipy's sparse matrices, of which some rows at a time are made dense.
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Puts the attributes back as they were where what is done within raises."""
        before = dict(vars(self))
        try:
            yield
        except BaseException:  # Ctrl-C, too
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def _read(self, X: Any, *, reset: bool = False, **options: Any) -> Any:
        """X as an array or a CSR matrix, of the dtype that it has; ValueError where it is not what was fitted."""
        with told("X", X):
            found = validate_data(self, plain(X, "X"), reset=reset, accept_sparse="csr", **options)
        return real(found)

    def _read_labelled(self, X: Any, y: Any, *, reset: bool = True) -> tuple[Any, Any]:
        """(X, labels (samples,) as they are). One-hot rows become the numbers, or names, of their columns."""
        y = of_one_hot(y)
        with told("X", X):
            X, y = validate_data(self, plain(X, "X"), y, reset=reset, accept_sparse="csr")
            check_classification_targets(y)
        return real(X), y


def real(X: Any) -> Any:
    """X; InputError where it holds no real numbers, but times, say."""
    if X.dtype.kind not in "biuf":
        raise InputError(f"X has dtype {X.dtype}: expected real numbers; convert it, say with .astype('float64')")
    return X


def target(y: Any, what: str = "y") -> Any:
    """`plain` y; InputError for sparse ones, and complex numbers, of which scikit-learn would drop a half."""
    y = plain(y, what)
    if issparse(y):
        raise InputError(f"{what} is a sparse {type(y).__name__}: expected a dense array; convert it with .toarray()")
    with told(what, y, ()):
        kind = np.asarray(y).dtype.kind
    if kind == "c":
        raise InputError(f"Complex data not supported: {what} is to hold real numbers, or labels; take {what}.real")
    return y


def of_one_hot(y: Any) -> Any:
    """Labels (samples,) of rows (samples, classes) with a single one each, by the columns' names where they have some.

    Other things are returned as they are. Raises InputError for rows with several ones, or none.
    """
    if y is None:
        return y
    y = target(y)
    rows = np.asarray(y)
    if rows.ndim != 2 or rows.shape[1] < 2 or not np.isin(rows, (0, 1)).all():
        return y
    bad = np.flatnonzero((rows == 1).sum(axis=1) != 1)
    if len(bad):
        raise InputError(
            f"y has {int(rows[bad[0]].sum())} labels in row {bad[0]}: expected one label a sample; several at once "
            "(multilabel) need an estimator each, say sklearn.multiclass.OneVsRestClassifier"
        )
    return np.asarray(getattr(y, "columns", np.arange(rows.shape[1])))[rows.argmax(axis=1)]


def wanted(n_components: Any, most: int, of: str) -> tuple[int | None, float | None]:
    """(how many components, or None; the share of the variance that they are to explain, or None).

    None asks for all, `most`. Raises InputError for other things than None, whole numbers from 1 to `most` and shares
    between 0 and 1.
    """
    if n_components is None:
        return most, None
    if is_number(n_components) and not is_whole(n_components, -np.inf) and 0 < n_components < 1:
        return None, float(n_components)
    if not is_whole(n_components, 1, most):
        raise InputError(
            f"n_components is {shown(n_components)}: expected a whole number from 1 to {most}, {of}, a share of the "
            "variance such as 0.9, or None for all"
        )
    return int(n_components), None
