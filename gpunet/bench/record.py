"""What a benchmark leaves behind."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

from gpunet.experiments.provenance import versions
from gpunet.files import write_atomically


def write(path: Path, document: dict[str, Any]) -> None:
    """Write the document as JSON, with its provenance: machine, packages, PyTorch where it is installed."""
    torch_version = None
    if importlib.util.find_spec("torch"):
        import torch

        torch_version = torch.__version__
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(
        path, json.dumps(document | {"provenance": versions() | {"torch": torch_version}}, indent=1) + "\n"
    )
