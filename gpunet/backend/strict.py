"""A CPU backend that finds GPU mistakes on a machine without a GPU.

It computes as NumpyBackend does, and besides
- `empty` returns memory full of NaN (or a large integer), so that reading what nobody wrote shows;
- operands marked `In` in the contract are handed over read-only, so that writing to them raises;
- outputs are checked to be C-contiguous, as kernels that ignore strides need them;
- inside `capture()`, as inside a CUDA graph, allocating, copying from or to the host, drawing random numbers and
  decomposing raise. Run a step once first: operations may allocate their scratch memory at the first call.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, get_type_hints
from unittest import mock

import numpy as np

from gpunet.backend.base import Array, Backend
from gpunet.backend.numpy_backend import NumpyBackend
from gpunet.errors import CaptureError

NOT_HOT = {"copy"}  # writes from the host: allowed between steps, not inside a captured one
HOST_WORK = (
    "numpy.linalg.svd", "numpy.linalg.eigh", "numpy.linalg.qr", "numpy.linalg.eigvalsh", "numpy.empty", "numpy.zeros",
    "numpy.ones", "numpy.random.Generator", "numpy.random.Philox", "numpy.random.default_rng",
)  # fmt: skip


class StrictBackend(NumpyBackend):
    """NumpyBackend with the checks of this module; for tests."""

    kernels = "strict"

    def __init__(self) -> None:
        super().__init__()
        self.capturing = False

    @contextmanager
    def capture(self) -> Iterator[None]:
        """Raise CaptureError for whatever a graph capture would refuse."""
        patches = [mock.patch(name, _refuse(name)) for name in HOST_WORK]
        self.capturing = True
        try:
            for patch in patches:
                patch.start()
            yield
        finally:
            self.capturing = False
            for patch in patches:
                patch.stop()

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
        if (purpose, key) not in self._kept:
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
        original(*bound.args, **bound.kwargs)

    return operation


for _name, _marks in operations().items():
    setattr(StrictBackend, _name, _checked(_name, _marks))
