"""The device on which a decomposition computes, a `Backend`, and arrays that lie on it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunet.backend import Backend, get_backend
from gpunet.backend.cusolver import full_float32
from gpunet.backend.numpy_backend import NumpyBackend
from gpunet.checks import on_device
from gpunet.errors import InputError, MemoryFullError
from gpunet.interrupts import contextmanager

CPU: Backend = NumpyBackend()


def is_gpu(device: Backend) -> bool:
    """Whether the device is a GPU."""
    return device.name.startswith("cuda")


def device_of(a: Any, device: str | Backend | None = None, what: str = "a") -> Backend:
    """The device to compute on: the one that is given, as for `get_backend`, or where `a` lies.

    Raises InputError where `a` lies on a GPU and `device` is the CPU: data is never copied back unasked.
    """
    if device is None:
        return gpu(int(a.device.id)) if on_device(a) else CPU
    backend = get_backend(device)
    if on_device(a) and not is_gpu(backend):
        raise InputError(f"{what} lies on a GPU and device is {backend.name}: copy it first, with {what}.get()")
    return backend


@cache
def gpu(index: int) -> Backend:
    """GPU `index`, once it was found to work: nothing of it is kept between calls but the check."""
    return get_backend(f"cuda:{index}")


def some_rows(x: Any, which: NDArray[Any], device: Backend | None = None) -> Any:
    """x[which], wherever x lies; `which`, a mask or row numbers, lies on the host.

    device: that of x, where it is known.
    """
    if not on_device(x):
        return x[which]
    backend = device_of(x, device, "x")
    with backend.session():
        return backend.xp.take(x, backend.asarray(np.flatnonzero(which) if which.dtype == bool else which), axis=0)


@contextmanager
def computing_on(device: Backend) -> Iterator[Any]:
    """The array namespace of a device; of a GPU inside its session, with products of float32 at full precision.

    Waits for what was issued before: arrays may come from other streams. Raises MemoryFullError where CuPy, which says
    how much was asked for, finds no room.
    """
    if not is_gpu(device):
        yield device.xp
        return
    device.synchronize()
    try:
        with device.session(), full_float32(device.xp):
            yield device.xp
    except MemoryError as error:
        raise MemoryFullError(
            f"no room on {device.name} to decompose: {str(error).splitlines()[0]}; take fewer features or samples at "
            "a time, or device='cpu'"
        ) from None
