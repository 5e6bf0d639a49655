"""Where an array lies, and where a decomposition of it computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunet.backend import Backend, get_backend
from gpunet.backend.cusolver import full_float32
from gpunet.checks import on_device
from gpunet.errors import InputError, MemoryFullError


def some_rows(x: Any, which: NDArray[Any], device: Backend | None = None) -> Any:
    """x[which], wherever x lies; `which`, a mask or row numbers, lies on the host.

    device: the backend of x, where it is known.
    """
    if not on_device(x):
        return x[which]
    backend = gpu_for(x, device, "x")
    assert backend is not None
    with backend.session():
        return backend.xp.take(x, backend.asarray(np.flatnonzero(which) if which.dtype == bool else which), axis=0)


def gpu_for(a: Any, device: str | Backend | None = None, what: str = "a") -> Backend | None:
    """The GPU to compute on; None is the CPU, with `a` on it.

    device: as for `get_backend`, or None for where `a` lies. Raises InputError where `a` lies on a GPU and `device` is
    the CPU: data is never copied back unasked.
    """
    if device is None:
        return gpu(int(a.device.id)) if on_device(a) else None
    backend = get_backend(device)
    if backend.name.startswith("cuda"):
        return backend
    if on_device(a):
        raise InputError(f"{what} lies on a GPU and device is {backend.name}: copy it first, with {what}.get()")
    return None


@cache
def gpu(index: int) -> Backend:
    """GPU `index`, once it was found to work: nothing of it is kept between calls but the check."""
    return get_backend(f"cuda:{index}")


@contextmanager
def computing_on(backend: Backend) -> Iterator[Any]:
    """The namespace of a GPU, inside its session, with products of float32 at full precision.

    Waits for what was issued before: arrays may come from other streams. Raises MemoryFullError where CuPy, which says
    how much was asked for, finds no room.
    """
    backend.synchronize()
    try:
        with backend.session(), full_float32(backend.xp):
            yield backend.xp
    except MemoryError as error:
        raise MemoryFullError(
            f"no room on {backend.name} to decompose: {str(error).splitlines()[0]}; take fewer features or samples at "
            "a time, or device='cpu'"
        ) from None
