"""The sizes of a convolution on the CPU: planes of images, their windows, and how many images are taken at a time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from gpunet.backend.base import Array

COLUMNS = 196608  # elements of im2col at a time: they stay in the second-level cache (twice as many cost 10 %)


@dataclass(frozen=True)
class Windows:
    """Sizes of one convolution: c planes of height × width, k × k taps, `padding` zeros around, pools of `pool`."""

    c: int
    height: int
    width: int
    k: int
    padding: int
    pool: int

    @classmethod
    def of(cls, x: Array, weight: Array, padding: int, pool: int) -> Windows:
        """Sizes for images x (n, c, h, w) and filters (u, c, k, k)."""
        c, height, width = x.shape[1:]
        return cls(c, height, width, weight.shape[2], padding, pool)

    @cached_property
    def pitch(self) -> int:
        """Length of a padded row."""
        return self.width + 2 * self.padding

    @cached_property
    def padded(self) -> int:
        """Number of padded rows."""
        return self.height + 2 * self.padding

    @cached_property
    def rows(self) -> int:
        """Rows of output that a pool takes in."""
        return (self.padded - self.k + 1) // self.pool * self.pool

    @cached_property
    def columns(self) -> int:
        """Columns of output that a pool takes in."""
        return (self.pitch - self.k + 1) // self.pool * self.pool

    @cached_property
    def plane(self) -> int:
        """Positions of an output plane, junk included."""
        return self.rows * self.pitch

    @cached_property
    def run(self) -> int:
        """Positions of an output plane up to the last that is not junk."""
        return self.plane - self.pitch + self.columns

    @cached_property
    def taps(self) -> int:
        """Weights of one filter."""
        return self.c * self.k * self.k

    @cached_property
    def images(self) -> int:
        """Images to a block."""
        return max(1, COLUMNS // (self.plane * (self.taps + 1)))

    def blocks(self, n: int) -> list[slice]:
        """Slices of n images."""
        return [slice(start, min(start + self.images, n)) for start in range(0, n, self.images)]
