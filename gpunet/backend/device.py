"""Which device to use, and why."""

from __future__ import annotations

import importlib.util
import re
from typing import Any

from gpunet.backend import cuda_facts
from gpunet.backend.base import Backend
from gpunet.backend.numpy_backend import NumpyBackend
from gpunet.errors import DeviceError, shown

WITHOUT = "; without a GPU use --device cpu"  # the end of the message for a GPU that cannot be used
INSTALL_NUMBA = "pip install 'gpunet[fast]'"


def get_backend(device: str | Backend | None = "auto") -> Backend:
    """A new backend for `device`.

    "auto" is the first GPU where CuPy imports and a smoke test passes, else the CPU. "cpu" takes numba's element-wise
    passes where numba is installed, "numpy" never does. "cuda" and "cuda:N" name a GPU. A `Backend` is returned as is.

    On a GPU, GPUNET_TF32=1 in the environment lets products of float32 run in TF32: faster, with 10 bits of mantissa
    instead of 23. It is off otherwise. GPUNET_TUNING=off takes the algorithm that cublasLt advises for each kind of
    product; otherwise the first product of its kind on a machine times some of them, and all take the fastest from then
    on, in this and in other processes, as far as that can be kept in the user's cache folder.

    Raises DeviceError for an unknown name, or for a GPU asked for by name that cannot be used.
    """
    if isinstance(device, Backend):
        return device
    if not (device is None or isinstance(device, str)):
        raise DeviceError(f"device is {shown(device)}: expected 'auto', 'cpu', 'numpy', 'cuda' or 'cuda:N'")
    name = "auto" if device is None else device.strip().lower()
    if name == "auto":
        return _cpu() if why_no_gpu(0) else _cuda(0)
    if name == "cpu":
        return _cpu()
    if name == "numpy":
        return NumpyBackend()
    match = re.fullmatch(r"cuda(?::(\d{1,4}))?", name)
    if match is None:
        raise DeviceError(f"unknown device {shown(device)}: expected auto, cpu, numpy, cuda or cuda:N")
    index = int(match.group(1) or 0)
    reason = why_no_gpu(index)
    if reason:
        raise DeviceError(f"device '{name}' cannot be used: {reason}{WITHOUT}")
    return _cuda(index)


def why_no_gpu(index: int = 0) -> str | None:
    """Why GPU `index` cannot be used, in one line with what would help; None when it can."""
    if importlib.util.find_spec("cupy") is None:
        return f"CuPy is not installed; install it with: {cuda_facts.install_line(cuda_facts.driver_cuda())}"
    from gpunet.backend import cupy_backend

    reason = cupy_backend.smoke_test(index)
    return reason and "; ".join(filter(None, (reason, cuda_facts.advice(reason))))


def why_no_numba() -> str | None:
    """Why the CPU's element-wise passes run in plain NumPy; None when they run in numba."""
    if importlib.util.find_spec("numba") is None:
        return f"numba is not installed; install it with: {INSTALL_NUMBA}"
    try:
        from gpunet.backend import numba_backend  # noqa: F401
    except Exception as error:  # numba refuses NumPy versions newer than itself, in ways of its own
        return f"numba does not work here: {cuda_facts.first_line(error)}"
    return None


def gpus() -> list[dict[str, Any]]:
    """Every GPU that CuPy sees: the keys of `cuda_facts.gpu_facts`, or "device" and "unusable"; [] without CuPy."""
    found = []
    for index in range(_count()):
        reason = why_no_gpu(index)
        try:
            facts = {"unusable": reason} if reason else cuda_facts.gpu_facts(_cuda(index))
        except Exception as error:  # as when another process has filled its memory
            facts = {"unusable": cuda_facts.first_line(error)}
        found.append({"device": f"cuda:{index}"} | facts)
    return found


def cuda_versions() -> dict[str, str | None]:
    """{"driver", "cuda_driver", "cuda"}: NVIDIA's driver, the newest CUDA it runs, and the runtime that CuPy brings.

    None where there is no driver, or no CuPy.
    """
    driver = {"driver": cuda_facts.driver_version(), "cuda_driver": cuda_facts.spelt(cuda_facts.driver_cuda())}
    cupy = _cupy()
    return driver | {"cuda": cupy and cuda_facts.spelt(cupy.cuda.runtime.runtimeGetVersion())}


def gpu_name(backend: Backend | None) -> str | None:
    """What the driver calls the backend's GPU; None on the CPU."""
    device: Any = backend  # a CupyBackend, whose module need not be imported to ask
    return device.device_name() if device is not None and device.name.startswith("cuda") else None


def _cupy() -> Any:
    if importlib.util.find_spec("cupy") is None:
        return None
    try:
        import cupy
    except Exception:  # a damaged or mismatched package: why_no_gpu says so
        return None
    return cupy


def _count() -> int:
    cupy = _cupy()
    try:
        return int(cupy.cuda.runtime.getDeviceCount()) if cupy else 0
    except Exception:  # no driver: why_no_gpu says so
        return 0


def _cpu() -> Backend:
    if why_no_numba():
        return NumpyBackend()
    from gpunet.backend.numba_backend import NumbaBackend

    return NumbaBackend()


def _cuda(index: int) -> Backend:
    from gpunet.backend.cupy_backend import CupyBackend

    return CupyBackend(index)
