"""A CPU backend that finds GPU mistakes on a machine without a GPU.

It computes as NumpyBackend does, and besides
- `empty` returns memory full of NaN (or a large integer), so that reading what nobody wrote shows;
- operands marked `In` in the contract are handed over read-only, so that writing to them raises;
- outputs are checked to be C-contiguous, as kernels that ignore strides need them;
- bfloat16 (uint16) is refused where the contract does not name it, and where one operand of a product is so and another
  is not: NumPy would take its bits for whole numbers;
- inside `capture()`, as inside a CUDA graph, allocating, copying from or to the host, drawing random numbers and
  decomposing raise. Run a step once first: operations may allocate their scratch memory at the first call;
- `record` keeps of operations what a CUDA graph does: the places of their arrays, not the arrays (to replay what has
  been freed raises), and their numbers of that time. An operation that has not run on such shapes before is refused, as
  it might allocate. What is no operation of the contract runs while recording, and is not replayed.
"""

from __future__ import annotations

import functools
import inspect
import weakref
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, get_type_hints
from unittest import mock

import numpy as np

from gpunet.backend.base import Array, Backend
from gpunet.backend.numpy_backend import NumpyBackend
from gpunet.errors import CaptureError
from gpunet.interrupts import contextmanager

NOT_HOT = {"copy"}  # writes from the host: allowed between steps, not inside a captured one
HOST_WORK = (
    "numpy.linalg.svd", "numpy.linalg.eigh", "numpy.linalg.qr", "numpy.linalg.eigvalsh", "numpy.empty", "numpy.zeros",
    "numpy.ones", "numpy.random.Generator", "numpy.random.Philox", "numpy.random.default_rng",
)  # fmt: skip


# Operands that may be bfloat16, by operation: those of a product are so together, the others one by one.
TOGETHER: dict[str, tuple[str, ...]] = {
    "gemm": ("a", "b"), "affine": ("x", "weight"), "affine_loss": ("x", "weight"),
    "affine_backward": ("dz", "x", "weight"),
}  # fmt: skip
ALONE: dict[str, tuple[str, ...]] = {
    "to_bfloat16": ("out",), "activation_backward": ("y", "dz"), "gather": ("dataset", "out"),
    "take_batch": ("data", "out"), "sgd": ("rounded",), "momentum": ("rounded",), "adam": ("rounded",),
    "copy": ("source", "out"),
}  # fmt: skip
WRITTEN: dict[str, tuple[str, ...]] = {  # of a product: only where its operands are
    "gemm": ("out",), "affine": ("out",), "affine_backward": ("weight_grad", "dx"),
}  # fmt: skip


class Place:
    """Where an array lies, without keeping its memory."""

    def __init__(self, array: Array) -> None:
        owner = array
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        self._keeps = owner.base  # what lent the memory, if not NumPy
        self._owner, self._view = weakref.ref(owner), (array.shape, array.dtype)
        self._strides, self._writeable = array.strides, array.flags.writeable
        self._offset = array.__array_interface__["data"][0] - owner.__array_interface__["data"][0]

    def array(self) -> Array:
        """The array; ReferenceError where its memory has been freed."""
        owner = self._owner()
        if owner is None:
            raise ReferenceError(f"a recording was replayed after its array of {self._view} had been freed")
        found: Array = np.ndarray(*self._view, owner, self._offset, self._strides)
        found.flags.writeable = self._writeable
        return found


Call = tuple[Callable[..., None], list[Any]]  # an operation, and its arguments but the backend


class StrictBackend(NumpyBackend):
    """NumpyBackend with the checks of this module; for tests."""

    kernels = "strict"
    records = True
    # Mixed precision on every machine, for nets of all sizes: products of bfloat16 numbers in float32.
    bfloat16, mixes_with, slow_bfloat16, least_bfloat16 = None, "", "", 0
    # Of all instances: a stream is captured, whoever works on it.
    capturing: ClassVar[bool] = False
    tape: ClassVar[list[Call] | None] = None  # what is being recorded

    def __init__(self) -> None:
        super().__init__()
        self.known: set[tuple[Any, ...]] = set()  # operations that have run, with the shapes and dtypes of their arrays

    @contextmanager
    def capture(self) -> Iterator[None]:
        """Raise CaptureError for whatever a graph capture would refuse."""
        patches = [mock.patch(name, _refuse(name)) for name in HOST_WORK]
        before, StrictBackend.capturing = StrictBackend.capturing, True
        try:
            for patch in patches:
                patch.start()
            yield
        finally:
            StrictBackend.capturing = before
            for patch in patches:
                patch.stop()

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        self._guard("a second recording")
        tape: list[Call] = []
        with self.capture():
            StrictBackend.tape = tape
            try:
                work()
            finally:
                StrictBackend.tape = None

        def replay() -> None:
            for operation, args in tape:
                operation(self, *(arg.array() if isinstance(arg, Place) else arg for arg in args))

        return replay

    def _guard(self, what: str) -> None:
        if self.capturing:
            raise CaptureError(f"{what} inside a captured step")

    def empty(self, shape: int | tuple[int, ...], dtype: Any = "float32") -> Array:
        self._guard("allocation")
        out = super().empty(shape, dtype)
        out.fill(np.nan if out.dtype.kind == "f" else np.iinfo(out.dtype).max if out.dtype.kind in "iu" else True)
        return out

    def asarray(self, host: Any, dtype: Any = None) -> Array:
        self._guard("copy from the host")
        return super().asarray(host, dtype)

    def to_host(self, array: Array) -> Any:
        self._guard("read back to the host")
        return super().to_host(array)

    def synchronize(self) -> None:
        self._guard("synchronisation")

    def constant(self, purpose: str, key: tuple[Any, ...], make: Callable[[], Array]) -> Array:
        if (purpose, key) not in self.pool.arrays:
            self._guard("allocation")
        return super().constant(purpose, key, make)


def _refuse(name: str) -> Callable[..., Any]:
    def refused(*args: Any, **kwargs: Any) -> Any:
        raise CaptureError(f"{name} inside a captured step")

    return refused


def operations() -> dict[str, dict[str, str]]:
    """The contract's operations, each with its array parameters marked "in" or "out"."""
    found = {}
    for name, method in inspect.getmembers(Backend, inspect.isfunction):
        hints = get_type_hints(method, include_extras=True)
        marks = {p: h.__metadata__[0] for p, h in hints.items() if getattr(h, "__metadata__", ())}
        if marks:
            found[name] = marks
    return found


def _check_halves(name: str, arrays: dict[str, Array]) -> None:
    """Raise ValueError for bfloat16 where the contract has none."""
    half = {parameter for parameter, array in arrays.items() if array.dtype == np.uint16}
    together = TOGETHER.get(name, ())
    mixed = bool(half.intersection(together))
    allowed = {*ALONE.get(name, ()), *together, *(WRITTEN.get(name, ()) if mixed else ())}
    if wrong := half - allowed:
        raise ValueError(f"{name}: {', '.join(sorted(wrong))} may not be bfloat16 here")
    if mixed and not half.issuperset(together):
        raise ValueError(f"{name}: all of {', '.join(together)} are bfloat16, or none, got {', '.join(sorted(half))}")


def _checked(name: str, marks: dict[str, str]) -> Callable[..., None]:
    original = getattr(NumpyBackend, name)
    signature = inspect.signature(original)

    @functools.wraps(original)
    def operation(self: StrictBackend, *args: Any, **kwargs: Any) -> None:
        if name in NOT_HOT:
            self._guard("copy from the host")
        bound = signature.bind(self, *args, **kwargs)
        for parameter, mark in marks.items():
            value = bound.arguments.get(parameter)
            if not isinstance(value, np.ndarray):
                continue
            if mark == "in":
                bound.arguments[parameter] = value.view()
                bound.arguments[parameter].flags.writeable = False
            elif not value.flags.c_contiguous:
                raise ValueError(f"{name}: {parameter} is not C-contiguous")
        _check_halves(name, {key: each for key, each in bound.arguments.items() if isinstance(each, np.ndarray)})
        arrays = (each for each in bound.arguments.values() if isinstance(each, np.ndarray))
        call = (name, *((each.shape, each.dtype) for each in arrays))
        if self.tape is None:
            original(*bound.args, **bound.kwargs)
            self.known.add(call)
        elif call in self.known:
            bound.apply_defaults()
            given = list(bound.arguments.values())[1:]
            self.tape.append((original, [Place(each) if isinstance(each, np.ndarray) else each for each in given]))
        else:
            raise CaptureError(f"{name} inside a captured step has not run on arrays of these shapes before")

    return operation


for _name, _marks in operations().items():
    setattr(StrictBackend, _name, _checked(_name, _marks))
