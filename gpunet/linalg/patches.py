"""Density matrices of image patches, class by class (document 002), without ever making a patch.

Row i of the patches visits the image lines i … i + height − 1, so what rows i and i' of all patches have in common is
one product of whole lines, A_iᵀ A_i', summed along the diagonals that columns j and j' of the patches visit; and that
of rows i + 1 and i' + 1 differs by two lines. So k products of (c w)² multiplications a line, c channels and w columns,
stand for c² k⁴ w of patches written out: about as many for images of three planes, but a ninth of the memory traffic,
and no memory beside the images. On a GPU the patches are made after all (`device_patches`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunet.backend.base import Backend
from gpunet.errors import InputError, ShapeError
from gpunet.linalg.decompose import decompose
from gpunet.linalg.device_patches import images_at_a_time, patch_sums
from gpunet.linalg.device_pca import decompose_stack
from gpunet.linalg.moments import Sums
from gpunet.linalg.pca import ClassPCA, collect
from gpunet.linalg.place import computing_on, on_host

BLOCK_FLOATS = 1 << 22  # of the images that are multiplied at a time: 16 MB


class PatchDensities:
    """Σ p pᵀ and Σ p over all kernel × kernel patches p of images (n, channels, rows, columns), for every class.

    A patch is flattened as (channel, row, column), as a filter of `Conv2D` is. Rows of features are images of one
    pixel. Products are float32, added up in float64, of values less a shift near their mean: uint8 less 128 (scaled by
    1/255 at the end), floats less the first batch's mean of each channel.

    padding: zeros around the images, as in `Conv2D`. On a GPU the sums are kept there, and decomposed there as one
    stack; what `density` and `components` return lies on the host.
    """

    def __init__(self, backend: Backend, kernel: int = 1, padding: int = 0) -> None:
        self.backend, self.kernel, self.padding = backend, kernel, padding
        self.on_gpu = backend.name.startswith("cuda")
        self.shape: tuple[int, ...] | None = None
        self.classes: dict[int, Sums] = {}

    def update(self, images: Any, labels: Any) -> PatchDensities:
        """Add images (n, channels, rows, columns), uint8 or floats, on the device, with their labels (n,).

        Raises ShapeError for images of another shape than those before, InputError for NaN and infinities.
        """
        shape = tuple(int(n) for n in images.shape[1:])
        if self.shape is None:
            self._begin(images, shape)
        elif shape != self.shape:
            raise ShapeError(f"images have shape {shape}, those before had {self.shape}")
        labels = on_host(labels)
        for label in np.unique(labels).tolist():
            for rows in self._blocks(np.flatnonzero(labels == label)):
                if self.on_gpu:
                    self._add_on_gpu(label, images, rows)
                else:
                    self._add(label, images[rows])
        return self

    def _begin(self, images: Any, shape: tuple[int, ...]) -> None:
        channels, rows, columns = shape
        height, width = (n + 2 * self.padding - self.kernel + 1 for n in (rows, columns))
        if min(height, width) < 1:
            raise ShapeError(f"images of {rows}×{columns} are smaller than the {self.kernel}×{self.kernel} patch")
        self.shape, self.places = (channels, rows, columns), (height, width)
        self.uint8 = images.dtype == np.uint8
        if self.uint8:
            shift = np.full(channels, 128.0)
        else:
            shift = np.asarray(self.backend.to_host(images.astype("float64").mean(axis=(0, 2, 3))))
        if not np.isfinite(shift).all():
            raise InputError("images hold NaN or infinity: expected finite numbers; remove or replace such samples")
        self._shift = shift.astype(np.float32)
        line = channels * (columns + 2 * self.padding)
        self._per_block = max(1, BLOCK_FLOATS // ((rows + 2 * self.padding) * line))
        if self.on_gpu:
            self._per_block = images_at_a_time(channels * self.kernel**2, height * width)

    def _blocks(self, rows: NDArray[np.intp]) -> list[NDArray[np.intp]]:
        return [rows[start : start + self._per_block] for start in range(0, len(rows), self._per_block)]

    def _add(self, label: int, images: Any) -> None:
        lines = self._lines(images)
        self._enter(label, self._gram(lines), self._sums(lines), len(images) * self.places[0] * self.places[1])

    def _add_on_gpu(self, label: int, images: Any, rows: NDArray[np.intp]) -> None:
        with computing_on(self.backend) as xp:
            own = xp.take(images, self.backend.asarray(rows), axis=0)
            self._enter(label, *patch_sums(xp, own, self.backend.asarray(self._shift), self.kernel, self.padding))

    def _enter(self, label: int, raw: Any, sums: Any, count: int) -> None:
        if not bool(self.backend.xp.isfinite(raw).all()):
            raise InputError(f"images of class {label} hold NaN, infinity, or values whose squares overflow float32")
        before = self.classes.get(label)
        if before is not None:
            raw, sums, count = before[0] + raw, before[1] + sums, before[2] + count
        self.classes[label] = raw, sums, count

    def _lines(self, images: Any) -> Any:
        """(rows, n, channels, columns) float32, less the shift: line t of all images is one matrix."""
        n, (channels, rows, columns), p = len(images), images.shape[1:], self.padding
        shift = self.backend.xp.asarray(self._shift)[:, None]
        lines = self.backend.empty((rows + 2 * p, n, channels, columns + 2 * p), "float32")
        if p:
            lines[...] = -shift  # zeros around the image are shifted, too
        inside = lines[p : rows + p, :, :, p : columns + p]
        inside[...] = images.transpose(2, 0, 1, 3)
        inside -= shift
        return lines

    def _gram(self, lines: Any) -> NDArray[np.float64]:
        """Σ p pᵀ over the patches of a block."""
        k, (height, width) = self.kernel, self.places
        rows, n, channels, columns = lines.shape
        flat = lines.reshape(rows, n, channels * columns)
        visited = [flat[i : i + height].reshape(height * n, -1) for i in range(k)]  # A_i: views
        out = np.empty((channels, k, k, channels, k, k))
        for d in range(k):
            product = self._product(visited[0], visited[d])
            for i in range(k - d):
                if i:  # A_iᵀ A_i+d has lost a line of A_i-1ᵀ A_i-1+d and gained one
                    product -= self._product(flat[i - 1], flat[i - 1 + d])
                    product += self._product(flat[i - 1 + height], flat[i - 1 + height + d])
                square = product.reshape(channels, columns, channels, columns)
                for j in range(k):
                    for jj in range(k):
                        found = np.einsum("csds->cd", square[:, j : j + width, :, jj : jj + width])
                        out[:, i, j, :, i + d, jj] = found
                        out[:, i + d, jj, :, i, j] = found.T
        return out.reshape(channels * k * k, -1)

    def _product(self, a: Any, b: Any) -> NDArray[np.float64]:
        """Aᵀ B in float64, multiplied in float32 (by half the work where A is B)."""
        return np.array(self.backend.to_host(a.T @ b), dtype=np.float64)

    def _sums(self, lines: Any) -> NDArray[np.float64]:
        """Σ p over the patches of a block."""
        k, (height, width) = self.kernel, self.places
        rows, n, channels, columns = lines.shape
        ones = self.backend.xp.ones(n, dtype="float32")
        total = np.asarray(self.backend.to_host(ones @ lines.reshape(rows, n, -1)), dtype=np.float64)
        total = total.reshape(rows, channels, columns).transpose(1, 0, 2)
        sums = [[total[:, i : i + height, j : j + width].sum(axis=(1, 2)) for j in range(k)] for i in range(k)]
        return np.array(sums).transpose(2, 0, 1).ravel()

    def density(self, label: int, center: bool = False) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
        """(ρ, mean, patches) of one class: ρ = (1/n) Σ p pᵀ, or the covariance; uint8 as fractions of 255."""
        raw, sums, count = on_host(self.classes[label][0]), on_host(self.classes[label][1]), self.classes[label][2]
        shift, scale = np.repeat(self._shift.astype(np.float64), self.kernel**2), 1 / 255 if self.uint8 else 1.0
        mean = sums / count
        scatter = raw / count - np.outer(mean, mean)
        mean = mean + shift
        if not center:
            scatter = scatter + np.outer(mean, mean)
        return scatter * scale**2, mean * scale, count

    def components(self, *, variance: float, center: bool = False) -> ClassPCA:
        """Of every class the leading eigenvectors up to the share `variance` of the trace of ρ."""
        if not self.classes:
            raise InputError("no images were added: call update(images, labels) first")
        labels = sorted(self.classes)
        found = [self.density(label, center) for label in labels]
        if self.on_gpu:
            with computing_on(self.backend) as xp:
                stack = self.backend.asarray(np.stack([rho * count for rho, _, count in found]))
                means, counts = [each[1] for each in found], [each[2] for each in found]
                parts = decompose_stack(xp, stack, means, counts, None, variance)
        else:
            parts = [decompose(rho * count, mean, count, None, variance) for rho, mean, count in found]
        return collect(np.array(labels), parts, np.float64)
