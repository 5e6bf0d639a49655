"""What a benchmark leaves behind."""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gpunet.experiments.provenance import versions
from gpunet.files import write_atomically


def options(description: str | None, cases: Iterable[str]) -> argparse.Namespace:
    """The command line of a benchmark with cases: which of them, --rounds, --json."""
    parser, names = argparse.ArgumentParser(description=description), list(cases)
    parser.add_argument("cases", nargs="*", default=names, help=", ".join(names))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


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
