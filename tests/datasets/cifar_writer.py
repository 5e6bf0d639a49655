"""Writes what gpunet.datasets.cifar reads; kept apart from it, so that a mistake is not made twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np

CIFAR10 = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")


def record(labels: tuple[int, ...], image: np.ndarray) -> bytes:
    """image: (32, 32, 3), as one looks at it."""
    return bytes(labels) + b"".join(image[:, :, colour].tobytes() for colour in range(3))


def photographs(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.Generator(np.random.Philox(seed))
    return rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def write_batch(path: Path, labels: list[tuple[int, ...]], images: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(record(label, image) for label, image in zip(labels, images, strict=True)))
    return path


def write_cifar10(folder: Path, count: int = 12) -> dict[str, np.ndarray]:
    """All six batches of `count` images, each of another seed; returns the images by batch."""
    images = {name: photographs(count, seed) for seed, name in enumerate(CIFAR10)}
    for name, batch in images.items():
        write_batch(folder / "cifar-10-batches-bin" / f"{name}.bin", [(i % 10,) for i in range(count)], batch)
    return images


def write_cifar100(folder: Path, count: int = 7) -> dict[str, np.ndarray]:
    images = {name: photographs(count, seed) for seed, name in enumerate(("train", "test"), 50)}
    for name, batch in images.items():
        write_batch(folder / "cifar-100-binary" / f"{name}.bin", [(i % 20, 99 - i % 100) for i in range(count)], batch)
    return images
