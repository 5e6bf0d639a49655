"""`gpunet info`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpunet.cli import options

if TYPE_CHECKING:
    from gpunet.backend import Backend

GIB = 1 << 30
LABELS = {
    "no_gpu": "no GPU because", "no_numba": "no numba because", "data": "data folder", "git": "commit",
    "driver": "NVIDIA driver", "cuda": "CUDA runtime", "cuda_driver": "driver's CUDA",
}  # fmt: skip


def info(json: options.Json = False) -> None:
    """Show what gpunet runs on here: devices, libraries, data folder, and what would make it faster.

    It is what a report of a fault should hold.

    For example:

        gpunet info --json
    """
    from gpunet.backend import get_backend, why_no_gpu, why_no_numba
    from gpunet.backend.device import cuda_versions, gpus
    from gpunet.datasets import data_dir
    from gpunet.errors import printable
    from gpunet.experiments.provenance import versions

    backend = get_backend("auto")
    found = gpus()
    facts: dict[str, Any] = {"device": f"{backend.name} ({backend.kernels})"} | versions(backend) | cuda_versions()
    facts |= {"bfloat16": _bfloat16(backend), "no_gpu": why_no_gpu(), "no_numba": why_no_numba()}
    facts |= {"data": str(data_dir()), "gpus": found}
    if json:
        import json as json_module

        print(json_module.dumps(facts, indent=1))
        return
    from rich.table import Table

    from gpunet.report.terminal import console

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(max_width=14, overflow="fold")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        if value is not None and name != "gpus":
            table.add_row(LABELS.get(name, name), printable(str(value)))
    for gpu in found:
        for place, line in enumerate(_lines(gpu)):
            table.add_row("" if place else gpu["device"], printable(line))
    console().print(table)


def _bfloat16(backend: Backend) -> str:
    """Whether its products, which precision="mixed" trains with, are faster here than float32's, and why not."""
    if backend.slow_bfloat16:
        return f"no faster than float32: {backend.slow_bfloat16}"
    return f"faster than float32{f', by {backend.mixes_with}' if backend.mixes_with else ''}"


def _lines(gpu: dict[str, Any]) -> list[str]:
    """One GPU, for people."""
    if "unusable" in gpu:
        return [f"cannot be used: {gpu['unusable']}"]
    return [
        f"{gpu['name']}, compute capability {gpu['compute_capability']}, {gpu['multiprocessors']} multiprocessors",
        f"{gpu['memory_bytes'] / GIB:.1f} GiB of memory, {gpu['free_bytes'] / GIB:.1f} GiB free",
        f"matrix products: {gpu['products']}",
        f"replayed steps: {gpu['graphs']}",
    ]
