"""What all estimators share: samples and labels from wherever they come, checked as scikit-learn checks them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
from scipy.sparse import issparse
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from gpunet.checks import as_array, has, is_number, is_whole, on_device
from gpunet.errors import GpunetError, InputError, first_line, shown
from gpunet.estimators._sklearn import BaseEstimator
from gpunet.interrupts import contextmanager, undivided
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


def project(x: Any, vectors: Any, means: Any, out: Any) -> None:
    """Write (x − mean) vectorᵀ to `out` (samples, vectors) by chunks, in its dtype, for some vectors after others.

    vectors: matrices (k, features); means: (features,) for each of them, float64, or None. What a mean loses by being
    rounded to that dtype is made good; InputError where a score is beyond it.
    """
    dtype, end = out.dtype, np.cumsum([len(each) for each in vectors])
    parts = []
    for own, mean, last in zip(vectors, means, end, strict=True):
        held = None if mean is None else mean.astype(dtype)
        rest = 0 if mean is None else ((mean - held) @ own.T).astype(dtype)
        parts.append((slice(last - len(own), last), own.T.astype(dtype), held, rest))
    with np.errstate(over="ignore", invalid="ignore"):
        for where, rows in chunks(x):
            rows = rows.astype(dtype, copy=False)
            for columns, turned, held, rest in parts:
                out[where, columns] = (rows if held is None else rows - held) @ turned - rest
    check_range_of(out, "scores")


def check_range_of(found: Any, what: str) -> None:
    """InputError where a row of what was computed of finite numbers is not finite."""
    if not (finite := np.isfinite(found).all(axis=1)).all():
        advice = "scale X down" if found.dtype == np.float64 else "give X as float64, to fit as well"
        raise InputError(f"the {what} of row {int(finite.argmin())} of X are beyond {found.dtype}: {advice}")


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


class Estimator(BaseEstimator):
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
            with undivided():
                self.__dict__.clear()
                self.__dict__.update(before)
            raise

    def _read(self, X: Any, *, reset: bool = False, **options: Any) -> Any:
        """X as an array or a CSR matrix, of the dtype that it has; ValueError where it is not what was fitted."""
        return self._validated(X, reset=reset, **options)

    def _read_labelled(self, X: Any, y: Any, *, reset: bool = True) -> tuple[Any, Any]:
        """(X, labels (samples,) as they are). One-hot rows become the numbers, or names, of their columns."""
        y = of_one_hot(y)
        X, y = self._validated(X, y, reset=reset)
        with told("y", y):
            try:
                check_classification_targets(y)
            except ValueError as error:
                raise InputError(f"{first_line(error)} For values use gn.Regressor.") from None
        return X, y

    def _validated(self, X: Any, *y: Any, **options: Any) -> Any:
        """X, or (X, y), as scikit-learn's `validate_data` finds them."""
        with told("X", X), np.errstate(over="ignore", invalid="ignore"):  # its sums of finite numbers
            check_table(X)
            found = validate_data(self, plain(X, "X"), *y, accept_sparse="csr", **options)
        return (real(found[0]), found[1]) if y else real(found)


def check_table(X: Any) -> None:
    """InputError for images that are no rows, and for columns of times, which no array holds beside numbers."""
    if has(X, "ndim") and has(X, "shape") and is_whole(X.ndim, 3):
        raise InputError(
            f"X has shape {shown(tuple(X.shape))}: expected (samples, features); reshape it, X.reshape(len(X), -1); "
            "gn.Reshape as the first of hidden_layers gives layers of images their shape back"
        )
    if has(X, "columns") and has(X, "dtypes"):
        for column, dtype in zip(X.columns, X.dtypes, strict=False):
            if getattr(dtype, "kind", "") in ("m", "M"):
                raise InputError(
                    f"column {shown(column)} of X holds {dtype}: expected real numbers; leave it out, or convert it, "
                    "say to days as floats"
                )


def real(X: Any) -> Any:
    """X; InputError where it holds no real numbers, but times, say."""
    if X.dtype.kind not in "biuf":
        raise InputError(f"X has dtype {X.dtype}: expected real numbers; convert it, say with .astype('float64')")
    return X


def target(y: Any, what: str = "y") -> Any:
    """`plain` y; InputError for sparse ones, complex numbers, of which scikit-learn would drop a half, and gaps."""
    y = plain(y, what)
    if issparse(y):
        raise InputError(f"{what} is a sparse {type(y).__name__}: expected a dense array; convert it with .toarray()")
    with told(what, y, ()):
        rows = np.asarray(y)
    if rows.dtype.kind == "O" and rows.ndim:
        check_objects(rows, what)
    if rows.dtype.kind == "c":
        raise InputError(f"Complex data not supported: {what} is to hold real numbers, or labels; take {what}.real")
    return y


def check_objects(rows: Any, what: str) -> None:
    """InputError where values are missing, or texts stand beside other things, which have no order."""
    first = None
    for place, each in enumerate(rows.reshape(-1).tolist()):
        row = place // (rows.size // len(rows))
        first = each if place == 0 else first
        missing = type(each).__name__ in ("NoneType", "NAType", "NaTType")
        if missing or (isinstance(each, float | np.floating) and np.isnan(each)):
            raise InputError(
                f"{what} holds {shown(each)} in row {row}: expected a value for every sample; leave out samples that "
                "have none"
            )
        if isinstance(each, str) != isinstance(first, str):
            raise InputError(
                f"{what} holds {shown(first)} in row 0 and {shown(each)} in row {row}: expected values of one kind; "
                f"convert them, say with [str(each) for each in {what}]"
            )


def of_one_hot(y: Any) -> Any:
    """Labels (samples,) of rows (samples, classes) with a single one each, by the columns' names where they have some.

    A column without a one is no class. Other things are returned as they are. Raises InputError for rows with several
    ones, or none.
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
