"""What a benchmark leaves behind: its section of the file of results of one kind of machine."""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gpunet.addresses import harmless
from gpunet.backend import Backend
from gpunet.backend.blas import threads
from gpunet.errors import InputError
from gpunet.experiments.provenance import versions
from gpunet.files import check_replaceable, write_or_keep
from gpunet.limits import read_json


def options(description: str | None, cases: Iterable[str]) -> argparse.Namespace:
    """The command line of a benchmark with cases: which of them, --rounds, --json."""
    parser, names = argparse.ArgumentParser(description=description), list(cases)
    parser.add_argument("cases", nargs="*", default=names, help=", ".join(names))
    parser.add_argument("--rounds", type=int, default=9)
    json_option(parser)
    return parser.parse_args()


def json_option(parser: argparse.ArgumentParser) -> None:
    """--json FILE, refused at once where it stands for something else than a file of results."""

    def section_file(text: str) -> Path:
        path = Path(text)
        try:
            check_replaceable(path)
            read_sections(path) if path.exists() else {}
        except InputError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
        return path

    parser.add_argument(
        "--json", type=section_file, metavar="FILE", help="its section of this file is written, the others stay"
    )


def torch_version() -> str | None:
    """PyTorch's, None where it is not installed."""
    if importlib.util.find_spec("torch") is None:
        return None
    import torch

    return str(torch.__version__)


def provenance(backend: Backend | None = None) -> dict[str, Any]:
    """Machine and packages, PyTorch among them, and the threads of the matrix products."""
    return versions(backend) | {"torch": torch_version(), "threads": threads()}


def read_sections(path: Path) -> dict[str, Any]:
    """The sections of a file of results by name; InputError where the file is something else."""
    try:
        document = read_json(path, nan=True)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else f"not JSON as it should be: {error}"
        raise InputError(
            f"'{harmless(str(path))}' cannot be read: {why}; expected a file of benchmarks/results"
        ) from error
    sections = document.get("sections") if isinstance(document, dict) else None
    if not isinstance(sections, dict) or not all(isinstance(section, dict) for section in sections.values()):
        raise InputError(f"'{path}' has no sections: expected a file of benchmarks/results, or none yet")
    return sections


def write_section(path: Path, name: str, figures: dict[str, Any], made: dict[str, Any] | None = None) -> None:
    """Write one section as JSON, with its provenance (`made`, or this process's), and keep the file's others.

    Raises InputError where the file is there and is no file of results.
    """
    sections = read_sections(path) if path.exists() else {}
    sections[name] = figures | {"provenance": provenance() if made is None else made}
    text = json.dumps({"sections": sections}, indent=1, ensure_ascii=False) + "\n"
    write_or_keep(path, text.encode(errors="replace"))  # half a surrogate pair, of a file's name say, could not be read
