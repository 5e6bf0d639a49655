"""MNIST (LeCun, Cortes and Burges), from its four IDX files."""

from __future__ import annotations

from pathlib import Path

from .base import Dataset
from .folder import load_parts, part_of
from .registry import REGISTRY


def load_mnist(folder: Path) -> Dataset:
    """Load MNIST: x (60000 and 10000, 784) uint8, shape (28, 28); DataError where files are missing."""
    entry = REGISTRY["mnist"]
    found = zip(entry.files, entry.located(folder), strict=True)
    parts = {part: (path, file) for file, path in found if (part := part_of(path.name))}
    return load_parts("mnist", parts, folder)
