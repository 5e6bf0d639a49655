"""Where a result comes from: versions, machine, time, memory."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import gpunet
from gpunet.backend import Backend
from gpunet.backend.device import cuda_versions, gpu_name
from gpunet.backend.numpy_backend import NumpyBackend


class Stopwatch:
    """Started when made; gives the provenance of a run when it ends."""

    def __init__(self) -> None:
        self.started = datetime.now(UTC)
        self._began = time.perf_counter()

    def provenance(self, backend: Backend) -> dict[str, Any]:
        """Versions, machine, start, seconds since then, and peak memory in bytes.

        `peak_memory_bytes` is that of the process, or on a GPU of its arrays there; then the process's own is
        `host_peak_memory_bytes`. A GPU's driver and CUDA runtime stand there, too.
        """
        facts = versions(backend) | {
            "started": self.started.isoformat(timespec="seconds"),
            "seconds": time.perf_counter() - self._began,
            "peak_memory_bytes": backend.memory()["peak"],
        }
        if facts["gpu"] is None:
            return facts
        return facts | cuda_versions() | {"host_peak_memory_bytes": NumpyBackend().memory()["peak"]}


def versions(backend: Backend | None = None) -> dict[str, Any]:
    """What computed: packages, BLAS, processor, GPU, and the commit when run from a checkout."""
    return {
        "gpunet": gpunet.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": version("numba") if backend is None or backend.kernels == "numba" else None,
        "cupy": version("cupy-cuda13x") or version("cupy-cuda12x") or version("cupy"),
        "blas": _blas(),
        "cpu": _cpu(),
        "gpu": gpu_name(backend),
        "platform": platform.platform(terse=True),
        "git": _commit(),
    }


def version(package: str) -> str | None:
    """Of what is installed by that name; None where nothing is. Nothing is imported."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _blas() -> str | None:
    config: dict[str, Any] = np.show_config(mode="dicts")  # type: ignore[assignment]
    blas = config.get("Build Dependencies", {}).get("blas", {})
    return f"{blas.get('name')} {blas.get('version')}" if blas else None


def _cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The commit of the checkout this file lies in, with "+" when it has changes; None for an installed package.

    GPUNET_COMMIT in the environment says it where the checkout came without its history.
    """
    folder = Path(__file__).resolve().parent
    if (folder.parents[1] / ".git").exists():
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            described = subprocess.run(
                ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
                cwd=folder, capture_output=True, text=True, timeout=10, check=True,
            )  # fmt: skip
            return described.stdout.strip()
    return os.environ.get("GPUNET_COMMIT") or None
