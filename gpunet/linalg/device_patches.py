"""Moments of image patches on a GPU: there the patches are written out.

A GPU multiplies so much faster than it reads that c² k⁴ multiplications a patch cost less than `patches`' small
products of lines would: 60,000 images of 28×28 are 1.5 GB of 3×3 patches, written and read in a millisecond.
"""

from __future__ import annotations

from typing import Any

from gpunet.linalg.moments import EXACT_ROWS, Centred, Sums, block, split_products

BLOCK_BYTES = 256 << 20  # of patches at a time, and of the products of EXACT_ROWS of them


def images_at_a_time(features: int, places: int) -> int:
    """How many images' patches BLOCK_BYTES hold: `places` of `features` float32 each."""
    return max(1, BLOCK_BYTES // (4 * places * features * max(1, features // EXACT_ROWS)))


def patch_sums(xp: Any, images: Any, kernel: int, padding: int) -> Sums:
    """(Σ p pᵀ, Σ p, patches) of bytes (n, channels, rows, columns) less 128, zeros around them; exact, in float64."""
    flat = _patches(xp, xp.astype(images, xp.float32) - 128, -128.0, kernel, padding)
    return split_products(xp, flat), xp.sum(flat, axis=0, dtype=xp.float64), flat.shape[0]


def patch_block(xp: Any, images: Any, kernel: int, padding: int, dtype: Any) -> Centred:
    """The moments of the patches of images (n, channels, rows, columns), zeros around them, multiplied in `dtype`."""
    return block(xp, _patches(xp, xp.astype(images, getattr(xp, dtype.name)), 0.0, kernel, padding), overwrite=True)


def _patches(xp: Any, inside: Any, around: float, kernel: int, padding: int) -> Any:
    """All patches as rows (n · places, features)."""
    n, channels, rows, columns = inside.shape
    padded = inside
    if padding:
        padded = xp.full((n, channels, rows + 2 * padding, columns + 2 * padding), around, dtype=inside.dtype)
        padded[:, :, padding : rows + padding, padding : columns + padding] = inside
    height, width = (size - kernel + 1 for size in padded.shape[2:])
    patches = xp.empty((n, height, width, channels, kernel, kernel), dtype=inside.dtype)
    for i in range(kernel):
        for j in range(kernel):
            patches[:, :, :, :, i, j] = xp.permute_dims(padded[:, :, i : i + height, j : j + width], (0, 2, 3, 1))
    return xp.reshape(patches, (n * height * width, channels * kernel**2))
