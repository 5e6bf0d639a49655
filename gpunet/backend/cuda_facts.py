"""What there is to say about this machine's GPUs: names, versions, memory, and what works on each of them.

cupy is imported inside the functions: this module loads anywhere.
"""

from __future__ import annotations

import contextlib
import ctypes
import re
import sys
from pathlib import Path
from typing import Any

from gpunet.errors import GpunetError

DRIVER_FILE = Path("/proc/driver/nvidia/version")
MISSING = re.compile(r"lib\w+\.so|\.dll|nvrtc|CUDA headers|CUDA path|cuda_fp16", re.IGNORECASE)


def first_line(error: BaseException) -> str:
    """Of what a library says: the rest of it is for those who know that library."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


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
        return "pip install 'gpunet[cuda13]' (CUDA 12 drivers: 'gpunet[cuda12]')"
    if version < 12000:
        return f"a driver for CUDA 12 or newer (this one runs {spelt(version)}), then pip install 'gpunet[cuda12]'"
    return f"pip install 'gpunet[cuda{13 if version >= 13000 else 12}]'"


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
