"""Which device to use, and why."""

from __future__ import annotations

import importlib.util
import re

from gpunet.backend.base import Backend
from gpunet.backend.numpy_backend import NumpyBackend
from gpunet.errors import DeviceError

INSTALL_CUPY = "pip install 'gpunet[cuda13]' (CUDA 12 drivers: 'gpunet[cuda12]')"
INSTALL_NUMBA = "pip install 'gpunet[fast]'"


def get_backend(device: str | Backend | None = "auto") -> Backend:
    """A new backend for `device`.

    "auto" is the first GPU where CuPy imports and a smoke test passes, else the CPU. "cpu" takes numba's element-wise
    passes where numba is installed, "numpy" never does. "cuda" and "cuda:N" name a GPU. A `Backend` is returned as is.

    Raises DeviceError for an unknown name, or for a GPU asked for by name that cannot be used.
    """
    if isinstance(device, Backend):
        return device
    name = "auto" if device is None else str(device).strip().lower()
    if name == "auto":
        return _cpu() if why_no_gpu(0) else _cuda(0)
    if name == "cpu":
        return _cpu()
    if name == "numpy":
        return NumpyBackend()
    match = re.fullmatch(r"cuda(?::(\d+))?", name)
    if match is None:
        raise DeviceError(f"unknown device '{device}': expected auto, cpu, numpy, cuda or cuda:N")
    index = int(match.group(1) or 0)
    reason = why_no_gpu(index)
    if reason:
        raise DeviceError(f"device '{name}' cannot be used: {reason}; without a GPU use --device cpu")
    return _cuda(index)


def why_no_gpu(index: int = 0) -> str | None:
    """Why GPU `index` cannot be used, in one line with what would help; None when it can."""
    if importlib.util.find_spec("cupy") is None:
        return f"CuPy is not installed; install it with: {INSTALL_CUPY}"
    from gpunet.backend import cupy_backend

    return cupy_backend.smoke_test(index)


def why_no_numba() -> str | None:
    """Why the CPU's element-wise passes run in plain NumPy; None when they run in numba."""
    if importlib.util.find_spec("numba") is None:
        return f"numba is not installed; install it with: {INSTALL_NUMBA}"
    try:
        from gpunet.backend import numba_backend  # noqa: F401
    except Exception as error:  # numba refuses NumPy versions newer than itself, in ways of its own
        return f"numba does not work here: {_first_line(error)}"
    return None


def _cpu() -> Backend:
    if why_no_numba():
        return NumpyBackend()
    from gpunet.backend.numba_backend import NumbaBackend

    return NumbaBackend()


def _cuda(index: int) -> Backend:
    from gpunet.backend.cupy_backend import CupyBackend

    return CupyBackend(index)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
