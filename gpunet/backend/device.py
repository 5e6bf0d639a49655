"""Which device to use, and why; and what there is to say about this machine's GPUs.

cupy is imported inside the functions: this module loads anywhere.
"""

from __future__ import annotations

import contextlib
import ctypes
import re
import sys
from pathlib import Path
from typing import Any

from gpunet.backend.base import Backend
from gpunet.backend.numpy_backend import NumpyBackend
from gpunet.errors import ON_CPU, DeviceError, GpunetError, first_line, shown
from gpunet.extras import install, lacking

WITHOUT = f"; without a GPU use {ON_CPU}"  # the end of the message for a GPU that cannot be used
DRIVER_FILE = Path("/proc/driver/nvidia/version")
MISSING = re.compile(r"lib\w+\.so|\.dll|nvrtc|CUDA headers|CUDA path|cuda_fp16", re.IGNORECASE)
SMOKE_KERNEL = 'extern "C" __global__ void smoke(float* x) { x[threadIdx.x] = 2.0f; }'


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
    if lacking("cupy"):
        return f"CuPy is not installed; install it with: {install_line(driver_cuda())}"
    reason = smoke_test(index)
    return reason and "; ".join(filter(None, (reason, advice(reason))))


def smoke_test(index: int) -> str | None:
    """Compile and run a kernel, multiply two matrices and wait: the reason why GPU `index` is unusable, or None."""
    try:
        import cupy as cp

        count = cp.cuda.runtime.getDeviceCount()
        if index >= count:
            return f"there is no GPU {index}: this machine has {count} (numbered from 0)"
        # On a stream that waits for no other: another thread may be recording, whom the legacy stream would stop. And
        # without CuPy's own element-wise kernels, each of which takes up to a second to compile on a new machine.
        with cp.cuda.Device(index), cp.cuda.Stream(non_blocking=True) as stream:
            x = cp.empty((2, 2), dtype=cp.float32)
            cp.RawKernel(SMOKE_KERNEL, "smoke")((1,), (4,), (x,))
            product = x @ x
            stream.synchronize()
            if not (cp.asnumpy(product) == 8).all():
                return f"GPU {index} computes wrong results (a 2×2 product): check the driver and the CuPy package"
    except Exception as error:  # CuPy raises its own classes, OSError for missing libraries, RuntimeError, …
        return f"CuPy found no working GPU ({first_line(error)}); check the NVIDIA driver with nvidia-smi"
    return None


def why_no_numba() -> str | None:
    """Why the CPU's element-wise passes run in plain NumPy; None when they run in numba."""
    if lacking("numba"):
        return f"numba is not installed; install it with: {install('fast')}"
    try:
        from gpunet.backend import numba_backend  # noqa: F401
    except Exception as error:  # numba refuses NumPy versions newer than itself, in ways of its own
        return f"numba does not work here: {first_line(error)}"
    return None


def _cpu() -> Backend:
    if why_no_numba():
        return NumpyBackend()
    from gpunet.backend.numba_backend import NumbaBackend

    return NumbaBackend()


def _cuda(index: int) -> Backend:
    from gpunet.backend.cupy_backend import CupyBackend

    return CupyBackend(index)


def gpus() -> list[dict[str, Any]]:
    """Every GPU that CuPy sees: the keys of `gpu_facts`, or "device" and "unusable"; [] without CuPy."""
    found = []
    for index in range(_count()):
        reason = why_no_gpu(index)
        try:
            facts = {"unusable": reason} if reason else gpu_facts(_cuda(index))
        except Exception as error:  # as when another process has filled its memory
            facts = {"unusable": first_line(error)}
        found.append({"device": f"cuda:{index}"} | facts)
    return found


def gpu_facts(backend: Any) -> dict[str, Any]:
    """One GPU that passed its smoke test: name, memory in bytes, and what its products and graphs run through."""
    with backend.session():
        properties = backend.cp.cuda.runtime.getDeviceProperties(backend.index)
        free, total = backend.cp.cuda.runtime.memGetInfo()
        products = backend.products
    graphs = why_no_graphs(backend)
    version = f"cublasLt {products.version}{', TF32' if products.tf32 else ''}"
    return {
        "device": backend.name,
        "name": backend.device_name(),
        "compute_capability": f"{properties['major']}.{properties['minor']}",
        "multiprocessors": int(properties["multiProcessorCount"]),
        "memory_bytes": int(total),
        "free_bytes": int(free),
        "products": f"cupy.matmul, because {products.reason}" if products.reason else version,
        "graphs": f"off, because {graphs}" if graphs else "on",
    }


def why_no_graphs(backend: Any) -> str | None:
    """Record one operation and one product, launch them twice and compare: why steps are not replayed, or None."""
    if backend.products.reason:
        return f"products run through cupy.matmul: {backend.products.reason}"
    a, x, y = backend.empty((2, 2)), backend.empty((2, 2)), backend.empty((2, 2))

    def work() -> None:
        backend.gemm(a, x, y)
        backend.activate("relu", y, x)

    try:
        with backend.session():
            backend.copy(2, a)
            backend.copy(1, x)
            work()
            replay = backend.record(work)
            replay()
            replay()
        found = backend.to_host(x).tolist()
    except GpunetError as error:
        return str(error)
    except Exception as error:  # a driver's words
        return first_line(error)
    return None if found == [[64, 64], [64, 64]] else f"a replayed step gave {found}, expected 64 everywhere"


def gpu_name(backend: Backend | None) -> str | None:
    """What the driver calls the backend's GPU; None on the CPU."""
    device: Any = backend  # a CupyBackend, whose module need not be imported to ask
    return device.device_name() if device is not None and device.name.startswith("cuda") else None


def cuda_versions() -> dict[str, str | None]:
    """{"driver", "cuda_driver", "cuda"}: NVIDIA's driver, the newest CUDA it runs, and the runtime that CuPy brings.

    None where there is no driver, or no CuPy.
    """
    driver = {"driver": driver_version(), "cuda_driver": spelt(driver_cuda())}
    cupy = _cupy()
    return driver | {"cuda": cupy and spelt(cupy.cuda.runtime.runtimeGetVersion())}


def _cupy() -> Any:
    if lacking("cupy"):
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


def driver_version() -> str | None:
    """The NVIDIA driver's version, as in "580.65.06"; None where Linux's driver does not say."""
    with contextlib.suppress(OSError):
        found = re.search(r"\b(\d{3,}\.\d+(?:\.\d+)?)\b", DRIVER_FILE.read_text())
        return found[1] if found else None
    return None


def driver_cuda() -> int | None:
    """The newest CUDA that the driver runs, as CUDA counts (13000 is 13.0); None without a driver. Needs no CuPy."""
    version = ctypes.c_int()
    try:
        library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        status = library.cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return None
    return version.value if status == 0 and version.value else None


def spelt(version: int | None) -> str | None:
    """A version as CUDA counts it, in the usual way: 12080 is 12.8."""
    return f"{version // 1000}.{version % 1000 // 10}" if version else None


def install_line(version: int | None) -> str:
    """The line that installs CuPy for a driver that runs this CUDA; both lines where nobody knows."""
    if version is None:
        return f"{install('cuda13')} (CUDA 12 drivers: 'gpunet[cuda12]')"
    if version < 12000:
        return f"a driver for CUDA 12 or newer (this one runs {spelt(version)}), then {install('cuda12')}"
    return install("cuda13" if version >= 13000 else "cuda12")


def advice(reason: str) -> str:
    """What else helps against this reason of CuPy's or CUDA's; "" where nothing is known."""
    version = driver_cuda()
    if "InsufficientDriver" in reason:
        if version is None:
            return "no NVIDIA driver is installed"
        return f"the driver runs CUDA {spelt(version)}: {install_line(version)}"
    if MISSING.search(reason):
        return f"NVIDIA's libraries come with: {install_line(version)}"
    return ""
