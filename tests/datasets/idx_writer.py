"""Writes what gpunet.datasets.idx reads; kept apart from it, so that a mistake is not made twice."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np

CODES = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}


def idx_bytes(array: np.ndarray) -> bytes:
    header = struct.pack(f">HBB{array.ndim}I", 0, CODES[array.dtype.name], array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write_idx(path: Path, array: np.ndarray) -> Path:
    content = idx_bytes(array)
    path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)
    return path


def write_folder(folder: Path, arrays: dict[str, np.ndarray], suffix: str = "", test: str = "t10k") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for part, array in arrays.items():
        kind, split = part.split("_")
        name = f"{'train' if split == 'train' else test}-{'images' if kind == 'x' else 'labels'}"
        write_idx(folder / f"{name}-idx{array.ndim}-ubyte{suffix}", array)
    return folder


def small_arrays(shape: tuple[int, ...] = (3, 2), classes: int = 4, train: int = 20, test: int = 8) -> dict:
    rng = np.random.Generator(np.random.Philox(7))
    return {
        "x_train": rng.integers(0, 256, (train, *shape), dtype=np.uint8),
        "y_train": (np.arange(train) % classes).astype(np.uint8),
        "x_test": rng.integers(0, 256, (test, *shape), dtype=np.uint8),
        "y_test": (np.arange(test) % classes).astype(np.uint8),
    }
