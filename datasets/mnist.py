"""MNIST (LeCun, Cortes and Burges), from its four IDX files."""

from __future__ import annotations

from pathlib import Path

from gpunet.errors import DataError

from .base import Dataset
from .folder import load_parts, part_of
from .registry import REGISTRY


def load_mnist(folder: Path) -> Dataset:
    """Load MNIST: x (60000 and 10000, 784) uint8, shape (28, 28); DataError where files are missing."""
    files = REGISTRY["mnist"].files
    located = {file.path: file.locate(folder) for file in files}
    missing = [name for name, path in located.items() if path is None]
    if missing:
        raise DataError(
            f"mnist: not in {folder}: {', '.join(missing)}; run `gpunet data fetch mnist`, "
            "set GPUNET_DATA to "
            "the folder that has mnist/, or use `--dataset digits`, which is always there"
        )
    parts = {part: path for path in located.values() if path and (part := part_of(path.name))}
    return load_parts("mnist", parts, folder)
