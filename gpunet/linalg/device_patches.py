"""Moments of image patches on a GPU: there the patches are written out.

A GPU multiplies so much faster than it reads that c² k⁴ multiplications a patch cost less than `patches`' small
products of lines would: 60,000 images of 28×28 are 1.5 GB of 3×3 patches, written and read in a millisecond.
"""

from __future__ import annotations

from typing import Any

from gpunet.linalg.device_moments import split_products
from gpunet.linalg.moments import EXACT_ROWS

BLOCK_BYTES = 256 << 20  # of patches at a time, and of the products of EXACT_ROWS of them


def images_at_a_time(features: int, places: int) -> int:
    """How many images' patches BLOCK_BYTES hold: `places` of `features` float32 each."""
    return max(1, BLOCK_BYTES // (4 * places * features * max(1, features // EXACT_ROWS)))


def patch_sums(xp: Any, images: Any, shift: Any, kernel: int, padding: int) -> tuple[Any, Any, int]:
    """(Σ p pᵀ, Σ p, patches) of images (n, channels, rows, columns) less the shift (channels,), zeros around them.

    float64; products in float32 of EXACT_ROWS patches each, so that of bytes (less 128) they are exact.
    """
    n, channels, rows, columns = images.shape
    shift = xp.reshape(shift, (1, channels, 1, 1))
    inside = xp.astype(images, xp.float32) - shift
    padded = inside
    if padding:
        shape = (n, channels, rows + 2 * padding, columns + 2 * padding)
        padded = xp.zeros(shape, dtype=xp.float32) - shift  # zeros around the image are shifted, too
        padded[:, :, padding : rows + padding, padding : columns + padding] = inside
    height, width = (size - kernel + 1 for size in padded.shape[2:])
    patches = xp.empty((n, height, width, channels, kernel, kernel), dtype=xp.float32)
    for i in range(kernel):
        for j in range(kernel):
            patches[:, :, :, :, i, j] = xp.permute_dims(padded[:, :, i : i + height, j : j + width], (0, 2, 3, 1))
    flat = xp.reshape(patches, (n * height * width, channels * kernel**2))
    return split_products(xp, flat), xp.sum(flat, axis=0, dtype=xp.float64), flat.shape[0]
