"""Where a result comes from: versions, machine, time, memory."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import gpunet
from gpunet.backend import Backend


class Stopwatch:
    """Started when made; gives the provenance of a run when it ends."""

    def __init__(self) -> None:
        self.started = datetime.now(UTC)
        self._began = time.perf_counter()

    def provenance(self, backend: Backend) -> dict[str, Any]:
        """Versions, machine, start, seconds since then, and the peak memory of the process or device in bytes."""
        return versions(backend) | {
            "started": self.started.isoformat(timespec="seconds"),
            "seconds": time.perf_counter() - self._began,
            "peak_memory_bytes": backend.memory()["peak"],
        }


def versions(backend: Backend | None = None) -> dict[str, Any]:
    """What computed: packages, BLAS, processor, GPU, and the commit when run from a checkout."""
    return {
        "gpunet": gpunet.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": _version("numba") if backend is None or backend.kernels == "numba" else None,
        "cupy": _version("cupy-cuda13x") or _version("cupy-cuda12x"),
        "blas": _blas(),
        "cpu": _cpu(),
        "gpu": _gpu(backend),
        "platform": platform.platform(terse=True),
        "git": _commit(),
    }


def _version(package: str) -> str | None:
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


def _gpu(backend: Backend | None) -> str | None:
    if backend is None or not backend.name.startswith("cuda"):
        return None
    properties = backend.xp.cuda.runtime.getDeviceProperties(int(backend.name.partition(":")[2]))
    name: str = properties["name"].decode()
    return name


def _commit() -> str | None:
    """The commit of the checkout this file lies in, with "+" when it has changes; None for an installed package."""
    folder = Path(__file__).resolve().parent
    if not (folder.parents[1] / ".git").exists():
        return None
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            cwd=folder, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()
