"""Density matrices of image patches, class by class (document 002), without ever making a patch.

Row i of the patches visits the image lines i … i + height − 1, so what rows i and i' of all patches have in common is
one product of whole lines, A_iᵀ A_i', summed along the diagonals that columns j and j' of the patches visit; and that
of rows i + 1 and i' + 1 differs by two lines. So k products of (c w)² multiplications a line, c channels and w columns,
stand for c² k⁴ w of patches written out: about as many for images of three planes, but a ninth of the memory traffic,
and no memory beside the images. On a GPU, and where there are few, the patches are made after all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunet.backend.base import Backend
from gpunet.backend.blas import product
from gpunet.checks import as_array, check_integers, on_host, real_array
from gpunet.errors import InputError, ShapeError
from gpunet.interrupts import contextmanager
from gpunet.linalg.certificate import KEPT, scaled
from gpunet.linalg.classes import ClassPCA, collect, pca_of_rows
from gpunet.linalg.device import computing_on, is_gpu
from gpunet.linalg.matrix import EXACT_ROWS, Floats, result_dtype
from gpunet.linalg.moments import (
    FLOAT32_SQUARES,
    Centred,
    Sums,
    block,
    diagonal,
    less,
    merge,
    split_products,
)  # fmt: skip
from gpunet.linalg.pca import PCA, VANISHING, class_parts, decompose_on

BLOCK_FLOATS = 1 << 22  # of the images that are multiplied at a time: 16 MB
BLOCK_IMAGES = 1 << 17  # whose values less 128 a float32 sums exactly
FEW = 1 << 20  # multiplications that float64 costs no time to speak of
FEW_LINES = 4.0  # times what a patch's lines have, from which rounding of the others may be seen
BLOCK_BYTES = 256 << 20  # of patches at a time, and of the products of EXACT_ROWS of them


@dataclass(frozen=True)
class Few:
    """Images of a class, in the blocks (n, channels, rows, columns) in which they came, and how many patches they have.

    There are no more patches than a patch has features, so that their squares would take more memory and time.
    """

    images: tuple[Any, ...]
    count: int


class PatchDensities:
    """Moments of all kernel × kernel patches p of images (n, channels, rows, columns), for every class.

    A patch is flattened as (channel, row, column), as a filter of `Conv2D` is. Rows of features are images of one
    pixel. uint8 less 128 is multiplied in float32 and summed exactly (and scaled by 1/255 at the end). Blocks of floats
    are centred before they are multiplied, each pixel by its own mean, and merged class by class (`moments.Centred`);
    products are float64 for float64 images and small blocks, and float32 for others, EXACT_ROWS lines at a time.
    Where a class has no more patches than a patch has features, its images are kept instead, and the patches decomposed
    as `class_pca` does it. An update that is refused changes nothing.

    padding: zeros around the images, as in `Conv2D`. On a GPU the sums are kept there, and decomposed there as one
    stack; what `density` and `components` return lies on the host.
    """

    def __init__(self, backend: Backend, kernel: int = 1, padding: int = 0) -> None:
        self.backend, self.kernel, self.padding = backend, kernel, padding
        self.on_gpu = is_gpu(backend)
        self.shape: tuple[int, ...] | None = None
        self.uint8: bool | None = None  # whether the images are bytes, whose sums are exact: `Sums`, not `Centred`
        self.classes: dict[int, Few | Centred | Sums] = {}

    @property
    def counts(self) -> dict[int, int]:
        """Patches of each class."""
        return {label: sums.count for label, sums in self.classes.items()}

    def update(self, images: Any, labels: Any) -> PatchDensities:
        """Add images (n, channels, rows, columns) of any real dtype, on the device, with their labels (n,), integers.

        Raises ShapeError for images of another shape than those before, InputError for NaN and infinities, and for
        uint8 beside other dtypes.
        """
        images, labels = real_array(images, "images"), on_host(as_array(labels, "labels"))
        self._check(images, labels)
        found: dict[int, Any] = {}
        with self._quietly() as xp:
            for label in np.unique(labels).tolist():
                found[label] = self.classes.get(label, Few((), 0))
                for rows in self._blocks(np.flatnonzero(labels == label), images):
                    own = xp.take(images, self.backend.asarray(rows), axis=0)
                    found[label] = self._added(label, found[label], own)
        self.shape, self.uint8 = tuple(images.shape[1:]), images.dtype == np.uint8
        self.classes |= found
        return self

    @contextmanager
    def _quietly(self) -> Iterator[Any]:
        """The device's namespace; what overflows there is found by its sums."""
        with computing_on(self.backend) as xp, np.errstate(over="ignore", invalid="ignore", under="ignore"):
            yield xp

    def _positions(self, images: Any) -> tuple[int, int]:
        """Of patches in an image, (rows, columns)."""
        rows, columns = (int(n) + 2 * self.padding - self.kernel + 1 for n in images.shape[2:])
        return rows, columns

    def _added(self, label: int, own: Any, images: Any) -> Any:
        """What is kept of the images before and of a block more."""
        if not isinstance(own, Few):
            return self._merged(label, own, images)
        xp, blocks = self.backend.xp, (*own.images, images)
        count = own.count + len(images) * math.prod(self._positions(images))
        if count > images.shape[1] * self.kernel**2:
            return self._moments_of(label, blocks)
        if images.dtype != np.uint8:
            values = xp.astype(images, xp.float64)
            _check_squares(label, float(xp.sum(values * values)))
        return Few(blocks, count)

    def _moments_of(self, label: int, blocks: tuple[Any, ...]) -> Any:
        """The moments, or the sums of bytes, of blocks of images."""
        return reduce(partial(self._merged, label), blocks, None)

    def _merged(self, label: int, own: Any, images: Any) -> Any:
        """The moments, or the sums of bytes, of those before and of a block of images."""
        xp, little = self.backend.xp, images.size * images.shape[1] * images.shape[3] <= FEW
        dtype = np.dtype(np.float64) if little else result_dtype(images.dtype)
        if images.dtype == np.uint8:
            dtype = images.dtype
        new = self._on_gpu(images, dtype) if self.on_gpu else self._moments(images, dtype)
        if not isinstance(new, Centred):
            return new if own is None else own + new
        trace = float(xp.sum(diagonal(xp, new.scatter)))
        _check_squares(label, trace)
        if trace < VANISHING:  # so that `decompose` knows whether there was nothing
            new = replace(new, largest=float(xp.max(xp.abs(images))))
        return merge(own, new, overwrite=True)

    def _check(self, images: Any, labels: Any) -> None:
        """Raises where images and labels do not fit each other, the patches, or those before."""
        if images.ndim != 4 or 0 in images.shape:
            raise ShapeError(f"images have shape {images.shape}: expected (n, channels, rows, columns), none of them 0")
        shape = tuple(int(n) for n in images.shape[1:])
        if self.shape not in (None, shape):
            raise ShapeError(f"images have shape {shape}, those before had {self.shape}")
        if min(shape[1:]) + 2 * self.padding < self.kernel:
            raise ShapeError(
                f"images of {shape[1]}×{shape[2]} are smaller than the {self.kernel}×{self.kernel} patch: take a "
                "smaller kernel, or pad them"
            )
        if labels.shape != images.shape[:1]:
            raise ShapeError(f"labels have shape {labels.shape}: expected ({len(images)},), one label an image")
        check_integers(labels)
        if self.uint8 not in (None, images.dtype == np.uint8):
            before = "uint8" if self.uint8 else "numbers of other dtypes"
            raise InputError(
                f"images are {images.dtype}, those before {before}: uint8 is read as fractions of 255, others as "
                "they are; convert the bytes first, with x.astype('float32') / 255"
            )

    def _blocks(self, rows: NDArray[np.intp], images: Any) -> list[NDArray[np.intp]]:
        channels, height, width = images.shape[1:]
        line = channels * (width + 2 * self.padding)
        size = min(BLOCK_IMAGES, max(1, BLOCK_FLOATS // ((height + 2 * self.padding) * line)))
        if self.on_gpu:
            positions, features = math.prod(self._positions(images)), channels * self.kernel**2
            size = max(1, BLOCK_BYTES // (4 * positions * features * max(1, features // EXACT_ROWS)))
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    def _on_gpu(self, images: Any, dtype: np.dtype[Any]) -> Centred | Sums:
        """`_moments` there, of patches that are written out.

        A GPU multiplies so much faster than it reads that c² k⁴ multiplications a patch cost less than small products
        of lines would: 60,000 images of 28×28 are 1.5 GB of 3×3 patches, written and read in a millisecond.
        """
        xp = self.backend.xp
        if dtype == np.uint8:
            flat = _patches(xp, xp.astype(images, xp.float32) - 128, -128.0, self.kernel, self.padding)
            return Sums(split_products(xp, flat), xp.sum(flat, axis=0, dtype=xp.float64), flat.shape[0])
        images = xp.astype(images, getattr(xp, dtype.name))
        return block(xp, _patches(xp, images, 0.0, self.kernel, self.padding), overwrite=True)

    def _moments(self, images: Any, dtype: np.dtype[Any]) -> Any:
        """The moments of a block's patches, or of bytes their sums less 128.

        Σ q qᵀ of patches q less the mean image s, over n images, and what the place of a patch in the image adds: with
        r the mean image of what is left, Σ (p−m)(p−m)ᵀ = Σ q qᵀ − n Σ_positions r rᵀ + n Σ_positions (s+r−m)(s+r−m)ᵀ.
        """
        n, positions = len(images), self._positions(images)
        count = n * math.prod(positions)
        if dtype == np.uint8:
            lines = self._lines(images, 128, np.dtype(np.float32))
            return Sums(self._gram(lines, positions, exact=True), self._patches(_line_sums(lines)).sum(axis=0), count)
        shift = images.mean(axis=0, dtype=np.float64).astype(dtype)
        lines = self._lines(images, shift, dtype)
        gram, rest = self._gram(lines, positions), _line_sums(lines) / n
        if dtype == np.float32 and not FLOAT32_SQUARES[0] < float(np.diagonal(gram).max()) < FLOAT32_SQUARES[1]:
            largest = float(np.abs(images).max())
            if 0 < largest < np.inf and not 0.25 < largest < 4:
                power = int(np.frexp(largest)[1])
                scaled = np.ldexp(images.astype(np.float64), -power).astype(np.float32)
                return self._moments(scaled, dtype).times(2.0**power)
        p, around = self.padding, np.zeros(rest.shape)
        around[p : len(rest) - p, :, p : rest.shape[2] - p] = shift.transpose(1, 0, 2)
        rounding = (EXACT_ROWS**0.5 + 4) * float(np.finfo(dtype).eps) / 2
        # What is left of the mean is most often nothing beside rounding.
        if count * float(np.square(rest).max()) > 1e-3 * rounding * float(np.diagonal(gram).min()):
            left = self._patches(rest) * n**0.5
            gram = less(np, gram, left, rounding)
        if count == n:  # the patches are the images
            mean, low = self._patches(around)[0], self._patches(rest)[0]
        else:
            between = block(np, self._patches(around + rest))
            gram += n * between.scatter
            mean, low = between.mean, between.mean_low
        return Centred(gram, 0.0, mean, low, count, rounding)

    def _lines(self, images: Any, shift: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
        """(rows, n, channels, columns), less the shift: line t of all images is one matrix. Zeros stand around them."""
        n, (channels, rows, columns), p = len(images), images.shape[1:], self.padding
        lines = np.empty((rows + 2 * p, n, channels, columns + 2 * p), dtype)
        inside = lines[p : rows + p, :, :, p : columns + p]
        if p:  # bytes less 128 are so everywhere; other shifts are zero around the image
            lines[...] = -128 if images.dtype == np.uint8 else 0
        inside[...] = images.transpose(2, 0, 1, 3)
        inside -= shift if np.isscalar(shift) else shift.transpose(1, 0, 2)[:, None]
        return lines

    def _patches(self, image: NDArray[np.float64]) -> NDArray[np.float64]:
        """All patches (positions, features) of one image (rows, channels, columns)."""
        found: NDArray[np.float64] = _patches(np, image.transpose(1, 0, 2)[None], 0.0, self.kernel, 0)
        return found

    def _gram(self, lines: NDArray[Any], positions: tuple[int, ...], exact: bool = False) -> NDArray[np.float64]:
        """Σ p pᵀ over the patches of a block.

        Lines that are taken away again leave their rounding behind. Where that could be seen, since a few lines have
        nearly all that there is, every product is made by itself.
        """
        found = self._products(lines, positions, False)
        sizes = np.diagonal(found).reshape(-1, self.kernel, self.kernel)
        if exact or not (sizes.max(axis=1, keepdims=True) > FEW_LINES * sizes).any():
            return found
        return self._products(lines, positions, True)

    def _products(self, lines: NDArray[Any], positions: tuple[int, ...], apart: bool) -> NDArray[np.float64]:
        """`_gram` by products of lines, each by itself when `apart`."""
        k, (height, width) = self.kernel, positions
        rows, n, channels, columns = lines.shape
        flat = lines.reshape(rows, n, channels * columns)
        visited = [flat[i : i + height].reshape(height * n, -1) for i in range(k)]  # A_i: views
        out = np.empty((channels, k, k, channels, k, k))
        part = np.empty((flat.shape[2],) * 2, lines.dtype)
        for d in range(k):
            product = np.zeros(part.shape)
            _add_products(product, visited[0], visited[d], part)
            for i in range(k - d):
                if i and apart:
                    product[...] = 0
                    _add_products(product, visited[i], visited[i + d], part)
                elif i:  # A_iᵀ A_i+d has lost a line of A_i-1ᵀ A_i-1+d and gained one
                    _add_products(product, flat[i - 1], flat[i - 1 + d], part, subtract=True)
                    _add_products(product, flat[i - 1 + height], flat[i - 1 + height + d], part)
                square = product.reshape(channels, columns, channels, columns)
                for j in range(k):
                    for jj in range(k):
                        band = square[:, j : j + width, :, jj : jj + width]
                        found = np.einsum("csds->cd", band) if width > 1 else band[:, 0, :, 0]
                        out[:, i, j, :, i + d, jj] = found
                        if d or j != jj:
                            out[:, i + d, jj, :, i, j] = found.T
        return out.reshape(channels * k * k, -1)

    def density(self, label: int, center: bool = False) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
        """(ρ, mean, patches) of one class: ρ = (1/n) Σ p pᵀ, or the covariance; uint8 as fractions of 255.

        Raises InputError for a class of which no images were added.
        """
        if label not in self.classes:
            raise InputError(f"no images of class {label} were added: expected one of {sorted(self.classes)}")
        found = self._centred(label)
        with computing_on(self.backend):
            return on_host(found.about(center)) / found.count, on_host(found.mean + found.mean_low), found.count

    def _centred(self, label: int) -> Centred:
        found = self.classes[label]
        with self._quietly() as xp:
            if isinstance(found, Few):
                found = self._moments_of(label, found.images)
            return found if isinstance(found, Centred) else found.centred(xp).times(1 / 255)

    def components(self, *, variance: float, center: bool = False) -> ClassPCA:
        """Of every class the leading eigenvectors up to the share `variance` of the trace of ρ, in float64.

        Raises ConvergenceError where the moments do not show so many: products of float32 are good to some 2e-6 of the
        variances (`PCA.residual`), those of float64 images and of bytes to far less.
        """
        if not self.classes:
            raise InputError("no images were added: call update(images, labels) first")
        parts = {c: self._of_few(c, own, variance, center) for c, own in self.classes.items() if isinstance(own, Few)}
        many = [label for label in self.classes if label not in parts]
        if many:
            # What is computed becomes float32 weights, whatever the images are.
            found, whose = [self._centred(label) for label in many], [f"class {label}" for label in many]
            room = KEPT * len(many) // len(self.classes)
            pcas = decompose_on(self.backend, found, whose, None, variance, center, np.float32, room)
            parts |= dict(zip(many, pcas, strict=True))
        labels = sorted(parts)
        return collect(np.array(labels), [parts[label] for label in labels], np.float64)

    def _of_few(self, label: int, own: Few, variance: float, center: bool) -> PCA:
        """The PCA of a class whose images were kept."""
        rows = np.arange(own.count)
        with self._quietly() as xp:
            x = xp.concat([_patches(xp, images, 0, self.kernel, self.padding) for images in own.images])
            if self.on_gpu:
                (found,) = class_parts(xp, x, [rows], None, variance, center)
            else:
                room = KEPT // len(self.classes)
                found = pca_of_rows(x.astype(np.float64), rows, label, None, variance, center, room)
        if not self.uint8:
            return found
        variances, proof = found.explained_variance / 255**2, scaled(found._proof, 1 / 255)
        return replace(found, explained_variance=variances, mean=found.mean / 255, _proof=proof)


def _check_squares(label: int, total: float) -> None:
    if not np.isfinite(total):
        raise InputError(
            f"images of class {label} hold NaN, infinity or numbers whose squares overflow: expected finite numbers; "
            "remove or replace such samples, or scale them down"
        )


def _line_sums(lines: NDArray[Any]) -> NDArray[np.float64]:
    """(rows, channels, columns), summed over the images; of bytes less 128 exactly."""
    rows, n, channels, columns = lines.shape
    found: NDArray[np.float64] = (np.ones(n, lines.dtype) @ lines.reshape(rows, n, -1)).astype(np.float64)
    return found.reshape(rows, channels, columns)


def _add_products(total: Floats, a: Floats, b: Floats, part: Floats, subtract: bool = False) -> None:
    """Add AᵀB to a float64 total as `split_products` multiplies it; part: memory that is warm, in their dtype.

    Cutting the rows up costs 15 % where they are 28 wide, and less than can be measured from 96.
    """
    for start in range(0, len(a), EXACT_ROWS):
        product(a[start : start + EXACT_ROWS].T, b[start : start + EXACT_ROWS], part)
        (np.subtract if subtract else np.add)(total, part, out=total)


def _patches(xp: Any, inside: Any, around: float, kernel: int, padding: int) -> Any:
    """All patches as rows (n · positions, features)."""
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
