"""`gpunet info`."""

from __future__ import annotations

from gpunet.cli import options


def info(json: options.Json = False) -> None:
    """What gpunet runs on here: devices, libraries, data folder, and what would make it faster."""
    from gpunet.backend import get_backend, why_no_gpu, why_no_numba
    from gpunet.datasets import data_dir
    from gpunet.experiments.provenance import versions

    backend = get_backend("auto")
    facts = {"device": f"{backend.name} ({backend.kernels})"} | versions(backend)
    facts |= {"no_gpu": why_no_gpu(), "no_numba": why_no_numba(), "data": str(data_dir())}
    if json:
        import json as json_module

        print(json_module.dumps(facts, indent=1))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None)
    labels = {"no_gpu": "no GPU because", "no_numba": "no numba because", "data": "data folder", "git": "commit"}
    for name, value in facts.items():
        if value is not None:
            table.add_row(labels.get(name, name), Text(str(value)))  # Text: brackets are not markup
    Console().print(table)
