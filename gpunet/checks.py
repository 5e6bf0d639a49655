"""Checks of arrays that users hand in: each mistake is named with its place, before anything is computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any, Literal, TypeVar, cast, get_args

import numpy as np

from gpunet.errors import DataError, InputError, ShapeError, shown

Dtype = Literal["float32", "float64"]  # that models, and what is computed for them, have
DTYPES: tuple[Dtype, ...] = get_args(Dtype)
Word = TypeVar("Word", bound=str)
FLOAT32_MAX = float(np.finfo(np.float32).max)
MOST = 2**31 - 1  # numbers in one sample or one weight: what is beyond is a mistake
MOST_ITEMS = 100_000  # of a list of layers, callbacks or addresses
MOST_DIMENSIONS = 32  # of a sample, one fewer than some of CuPy's functions take
DEEPEST = 64  # dimensions that NumPy's arrays have at most
CHUNK_BYTES = 8 << 20  # looked at in one go, so that no mask as large as the data is made
LARGEST_INTEGER = 2**53  # float64 counts no further


class Fixed:
    """An attribute that its owner sets once: setting it again raises InputError, which says what to do instead.

    Reading it costs nothing, since it lies where attributes lie; the owner changes it through `vars(self)`.
    """

    def __init__(self, advice: str) -> None:
        self.advice = advice

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __set__(self, instance: Any, value: Any) -> None:
        if self.name in vars(instance) and value is not vars(instance)[self.name]:
            raise InputError(f"{self.name} of a {type(instance).__name__} cannot be set any more: {self.advice}")
        vars(instance)[self.name] = value


fixed: Any = Fixed  # of whatever type its attribute is said to be


class Setting:
    """An attribute that is checked whenever it is set: `check(name, value, **bounds)` gives what is kept, or raises.

    A bound may be a function of the instance, where another setting limits this one.
    """

    def __init__(self, check: Callable[..., Any], **bounds: Any) -> None:
        self.check, self.bounds = check, bounds

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __set__(self, instance: Any, value: Any) -> None:
        self._keep(instance, self.checked(instance, value))

    def checked(self, instance: Any, value: Any) -> Any:
        """What is kept of the value."""
        bounds = {name: bound(instance) if callable(bound) else bound for name, bound in self.bounds.items()}
        return self.check(f"{type(instance).__name__}'s {self.name}", value, **bounds)

    def _keep(self, instance: Any, value: Any) -> None:
        """Put a value that was checked where it is read."""
        vars(instance)[self.name] = value


setting: Any = Setting


def on_device(a: Any) -> bool:
    """Whether `a` lies on a GPU: CuPy's arrays know their device by number, and how to come back."""
    return has(a, "get") and has(a, "device") and has(a.device, "id") and isinstance(a.device.id, int)


def as_array(a: Any, what: str) -> Any:
    """What a user handed in as a plain numpy.ndarray of native byte order, or as it is where it lies on a GPU.

    Not copied where that is not needed: subclasses (matrix, memmap, recarray) become views, big-endian values are
    converted, lists and whatever NumPy can read become arrays. The dtype is not judged: `real_array` does that.
    Raises InputError for masked arrays, whose mask would be lost silently, and for sparse matrices, ShapeError for
    lists whose rows differ in length.
    """
    if type(a) is not np.ndarray:
        _refuse_mask_and_sparse(a, what)
        if on_device(a):
            return a
        try:
            a = np.asarray(a)
        except Exception as error:  # whatever a user's own __array__ raises, too
            if isinstance(a, (list, tuple)) and "inhomogeneous" in str(error):
                raise ShapeError(f"{what} has rows of different lengths: expected one array, all rows alike") from None
            reason = " ".join(shown(str(error)).strip("\"'").split())
            raise InputError(f"{what} is a {type(a).__name__}, which is no array ({reason}): pass NumPy's") from None
        if type(a) is not np.ndarray:  # of an __array__ that returns another kind
            return as_array(a, what)
    return a if a.dtype.isnative else a.astype(a.dtype.newbyteorder("="))


def on_host(a: Any, what: str = "the array") -> np.ndarray[Any, Any]:
    """`a` as numpy.ndarray: copied where it lies on a GPU, which NumPy itself refuses to do."""
    return np.asarray(a.get() if on_device(a) else as_array(a, what))


def is_bfloat16(dtype: Any) -> bool:
    """Whether a dtype is that of ml_dtypes, which NumPy takes for none of a number."""
    return str(dtype) == "bfloat16"


def real_array(a: Any, what: str) -> Any:
    """`as_array` of real numbers: bool, integers and floats of up to 64 bits; InputError for every other dtype.

    bfloat16 becomes float32, which holds it exactly and all else here can compute with.
    """
    array = as_array(a, what)
    if is_bfloat16(array.dtype):
        return array.astype(np.float32)
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        advice = ", whose digits would be lost" if array.dtype.kind == "f" else ""
        raise InputError(
            f"{what} has dtype {array.dtype}{advice}: expected real numbers (float32, float64, uint8, integers); "
            "convert it, say with .astype('float64')"
        )
    return array


def as_floats(
    a: Any, what: str, shape: tuple[int, ...] | None = None, dtype: str | None = None, *, given: bool = True
) -> Any:
    """`real_array` of floats, of that shape and as `dtype` where they are given: finite, after the cast as before.

    What lies on a GPU is copied to the host. given=False: what was NaN or infinite before the cast is not looked for.

    Lists may hold Python's integers; an array of integers is taken for a mistake. Raises InputError for other dtypes,
    ShapeError for another shape, DataError naming what is not finite.
    """
    array = real_array(on_host(a, what), what)
    if array.dtype.kind in "iu" and not hasattr(a, "dtype"):
        array = array.astype(np.float64)
    if array.dtype.kind != "f":
        raise InputError(f"{what} has dtype {array.dtype}: expected floats; convert it, say with .astype('float32')")
    if shape is not None and array.shape != shape:
        raise ShapeError(f"{what} has shape {array.shape}: expected {shape}")
    with np.errstate(over="ignore"):
        stored = array if dtype is None else array.astype(dtype)
    finite = np.isfinite(stored) if given else np.isfinite(stored) | ~np.isfinite(array)
    if not bool(finite.all()):
        place = np.unravel_index(int(finite.argmin()), array.shape)
        beyond = f", beyond {dtype}" if np.isfinite(float(array[place])) else ""
        where = ", ".join(map(str, place))
        raise DataError(f"{what} holds {array[place]}{beyond} at [{where}]: expected finite numbers")
    return stored


def is_number(value: Any) -> bool:
    """Whether a setting is a real number, as a share or a tolerance has to be: Python's or NumPy's, no bool."""
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, (bool, np.timedelta64))


def as_float(number: Any) -> float:
    """A number as Python's float, infinite where none is as large."""
    try:
        return float(number)
    except OverflowError:  # an integer of more than 308 digits
        return math.inf


def check_number(name: str, value: Any) -> float:
    """The number as Python's float, NaN and infinity too, of an array of one, as well; InputError for what is none."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
    if not is_number(value):
        raise InputError(f"{name} is {shown(value)}: expected a number")
    return as_float(value)


def is_whole(value: Any, least: float = 1, most: float = math.inf) -> bool:
    """Whether a setting is a whole number from `least` to `most`: Python's or NumPy's integer, no bool and no 2.0."""
    return is_number(value) and not isinstance(value, (float, np.floating)) and least <= int(value) <= most


def check_whole(name: str, value: Any, *, least: int = 1, most: int | None = None, of: str = "") -> int:
    """The whole number as Python's int; InputError where it is none, or out of range. of: " of units", say."""
    if not is_whole(value, least, math.inf if most is None else most):
        bounds = f"≥ {least}" if most is None else f"from {least} to {most}"
        raise InputError(f"{name} is {shown(value)}: expected a whole number{of} {bounds}")
    return int(value)


def check_flag(name: str, value: Any) -> bool:
    """A switch as Python's bool; InputError for other things, which would all count as on or off."""
    if not isinstance(value, (bool, np.bool_)):
        raise InputError(f"{name} is {shown(value)}: expected True or False")
    return bool(value)


def check_text(name: str, value: Any) -> str:
    """The text; InputError for what is none."""
    if not isinstance(value, str):
        raise InputError(f"{name} is {shown(value)}: expected a text")
    return str.__str__(value)  # of a class of its own, too, whose methods may be anything


def is_one_of(value: Any, known: Collection[str]) -> bool:
    """Whether a setting is one of the names, without a word from what cannot be compared with them."""
    try:
        return isinstance(value, str) and value in known
    except Exception:
        return False


def check_one_of(name: str, value: Any, known: Collection[Word]) -> Word:
    """The setting; InputError where it is none of the names."""
    if not is_one_of(value, known):
        raise InputError(f"{name} is {shown(value)}: expected one of {', '.join(known)}")
    return cast("Word", str.__str__(value))


def as_list(name: str, value: Any, of: str, kind: type | tuple[type, ...] = object) -> list[Any]:
    """The items of a list, tuple or generator, all of `kind`, `of` in words; InputError otherwise, at the first."""
    found: list[Any] = []
    try:
        for each in value:
            if not isinstance(each, kind):
                break
            if len(found) == MOST_ITEMS:  # of a generator that does not end, say
                raise InputError(f"{name} hold more than {MOST_ITEMS:,} items: expected a list of {of}")
            found.append(each)
        else:
            return found
    except InputError:
        raise
    except Exception as error:  # whatever a user's own iteration raises
        raise InputError(f"{name} is {shown(value)}: expected a list of {of}") from error
    raise InputError(f"{name} hold {shown(each)}: expected {of}")


def check_shape(name: str, shape: Any, least: int = 1) -> tuple[int, ...]:
    """A shape of at least so many sizes ≥ 1, as Python's integers; ShapeError otherwise."""
    sizes = tuple(as_list(name, shape, "sizes")) if isinstance(shape, (tuple, list)) else ()
    right = least <= len(sizes) <= MOST_DIMENSIONS and all(map(is_whole, sizes))
    if not right or math.prod(map(int, sizes)) > MOST:
        wanted = "(784,)" if least < 2 else "(10, 784)"
        raise ShapeError(f"{name} is {shown(shape)}: expected whole numbers ≥ 1 such as {wanted}, of a product < 2³¹")
    return tuple(map(int, sizes))


def _refuse_mask_and_sparse(a: Any, what: str, depth: int = 0) -> None:
    if isinstance(a, np.ma.MaskedArray):
        raise InputError(f"{what} is a masked array, whose mask would be lost: fill it first, say with .filled(0)")
    if isinstance(a, (list, tuple)):
        if depth == DEEPEST:
            raise ShapeError(f"{what} is a list of lists more than {DEEPEST} deep: expected an array")
        for each in a:
            if not isinstance(each, (float, int)):
                _refuse_mask_and_sparse(each, what, depth + 1)
    elif has(a, "nnz"):
        raise InputError(f"{what} is a sparse {type(a).__name__}: expected a dense array; convert it with .toarray()")


def check_finite(x: Any, what: str, dtype: str | None = None) -> None:
    """DataError naming the first row of x (rows, …) that holds NaN or infinity; NumPy's or CuPy's x, any real dtype.

    dtype: "float32" where x will be rounded to it: what that would make infinite is named as well.
    """
    if x.dtype.kind != "f" or x.size == 0:
        return
    flat = x.reshape(len(x), -1)
    rows = max(1, CHUNK_BYTES // (flat.itemsize * flat.shape[1]))
    narrow = x.dtype == np.float64 and dtype == "float32"
    for start in range(0, len(flat), rows):
        part = flat[start : start + rows]
        finite = abs(part) <= FLOAT32_MAX if narrow else np.isfinite(part)
        if not bool(finite.all()):
            row, column = divmod(int(finite.argmin()), flat.shape[1])
            beyond = ", beyond float32" if narrow and np.isfinite(float(part[row, column])) else ""
            raise DataError(
                f"{what} row {start + row}, feature {column}, is {flat[start + row, column]} in {x.dtype}{beyond}; "
                "remove or replace such samples"
            )


def check_labels(labels: Any, classes: int | None, what: str) -> np.ndarray[Any, Any]:
    """A copy of the labels, on the host as int64 (n,); DataError where they are not integers from 0 to classes − 1.

    classes: None where as many as there are labels of; they are from 0 to 2³¹ then.
    """
    given = as_array(labels, f"{what}: y")
    if on_device(given):
        given = given.get()
    if given.ndim != 1:
        column, rows = given.ndim == 2 and given.shape[1] == 1, given.ndim == 2
        advice = "; make it so with y.ravel()" if column else "; of one-hot rows take y.argmax(axis=1)" if rows else ""
        raise DataError(
            f"{what}: labels have shape {given.shape}, expected one class number a sample, shape (n,){advice}"
        )
    if given.dtype.kind not in "iub" and (given.dtype.kind != "f" or not np.all(given == np.floor(given))):
        raise DataError(f"{what}: labels are {given.dtype}, expected integer class numbers")
    classes = 2**31 if classes is None else classes
    with np.errstate(over="ignore"):  # of a long double
        number = given.astype(np.float64) if given.dtype.kind == "f" else given  # float16 has no 70000 to compare with
    bad = (number < 0) | (number >= classes)  # before the conversion: int64 would wrap 2**63 and warn of infinity
    if bad.any():
        row = int(bad.argmax())
        raise DataError(f"{what}: label {given[row]} in row {row} is out of range: expected 0 to {classes - 1}")
    out: np.ndarray[Any, Any] = given.astype(np.int64)
    return out


def check_rows(rows: Any, what: str) -> tuple[Any, int]:
    """Numbers of samples as an array (n,) of integers, on the host or a GPU, and the largest; InputError otherwise."""
    array = as_array(rows, what)
    if array.ndim != 1 or array.dtype.kind not in "iu" or len(array) == 0 or int(array.min()) < 0:
        raise InputError(f"{what} is {shown(rows)}: expected the numbers of samples, an array (n,) of integers ≥ 0")
    return array, int(array.max())


def check_integers(labels: Any) -> None:
    """InputError where an array of labels holds no integers."""
    if labels.dtype.kind not in "biu":
        raise InputError(f"labels have dtype {labels.dtype}: expected integers; convert them with .astype('int64')")


def check_lengths(x: Any, labels: Any, what: str) -> None:
    """DataError where samples and labels differ in number, or there are none."""
    if x.ndim == 0 or labels.ndim != 1:
        raise DataError(f"{what}: samples have shape {x.shape} and labels {labels.shape}: expected one label a sample")
    if len(x) != len(labels):
        raise DataError(f"{what}: {len(x)} samples and {len(labels)} labels: expected as many of each")
    if len(x) == 0:
        raise DataError(f"{what}: no samples: expected at least one")


def usual_scale(x: Any) -> float:
    """What makes numbers of about 1 of an array as people keep it: 1/255 of uint8, which pixels are, else 1."""
    return 1 / 255 if x.dtype == np.uint8 else 1.0


def check_range(
    name: str,
    value: Any,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    below: float = math.inf,
    most: float = math.inf,
) -> float:
    """The number as Python's float, since NumPy's small ones overflow in products; InputError where it is not finite.

    It is to be least ≤ value ≤ most and above < value < below.
    """
    number = as_float(value) if is_number(value) else math.nan
    if math.isfinite(number) and least <= number <= most and above < number < below:
        return number
    wanted = [
        f"{sign} {bound:g}"
        for sign, bound in (("≥", least), (">", above), ("≤", most), ("<", below))
        if math.isfinite(bound)
    ]
    raise InputError(f"{name} cannot be {shown(value)}: expected a finite number {' and '.join(wanted)}")


def check_exact(array: Any, what: str) -> None:
    """Raises InputError for integers that float64 cannot hold."""
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8 and array.size:
        furthest = max(-int(array.min()), int(array.max()))
        if furthest > LARGEST_INTEGER:
            raise InputError(
                f"{what} holds integers as large as {furthest}, beyond 2**53 where float64 rounds them: "
                "scale them down, or convert with .astype('float64') to accept the rounding"
            )


def has(a: Any, name: str) -> bool:
    """Whether an object has an attribute, whatever its own code does when it is asked."""
    try:
        return hasattr(a, name)
    except Exception:
        return False
