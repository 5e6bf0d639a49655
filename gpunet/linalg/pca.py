"""Class-based PCA (document 002): the leading vectors of every class's own density matrix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunet.backend import Backend
from gpunet.errors import InputError, ShapeError
from gpunet.linalg.decompose import PCA, check_count, decompose
from gpunet.linalg.device_pca import class_parts
from gpunet.linalg.gram import StreamingGram
from gpunet.linalg.matrix import Floats, TallMatrix, check_matrix, result_dtype
from gpunet.linalg.moments import safe_sums
from gpunet.linalg.place import computing_on, gpu_for, on_device, on_host, some_rows
from gpunet.linalg.verify import fix_signs
from gpunet.rng import LINALG, stream


@dataclass(frozen=True)
class ClassPCA:
    """The leading eigenvectors of each class's density matrix ρ_c = (1/n_c) Σ x xᵀ.

    classes: (C,) labels, ascending; counts: (C,) samples used of each; ranks: (C,) components of each;
    components: (C, k, features), k the largest rank, rows beyond a class's own rank are zero;
    explained_variance, explained_variance_ratio: (C, k), zero beyond the rank; mean: (C, features);
    residual: the largest of the classes', relative to each class's largest eigenvalue.
    """

    classes: NDArray[Any]
    components: Floats
    explained_variance: Floats
    explained_variance_ratio: Floats
    mean: Floats
    counts: NDArray[np.int64]
    ranks: NDArray[np.int64]
    residual: float

    def __iter__(self) -> Iterator[Floats]:
        """The components of one class after the other, (rank, features) each, without padding."""
        return (block[:rank] for block, rank in zip(self.components, self.ranks, strict=True))


def class_pca(
    x: Any,
    labels: Any,
    components: int | None = None,
    *,
    variance: float | None = None,
    center: bool = False,
    fraction: float = 1.0,
    seed: int = 0,
    device: str | Backend | None = None,
) -> ClassPCA:
    """The leading vectors of every class's density matrix.

    x: (n, features), uint8 or float; labels: (n,), integers; each on the host or on a GPU. Either `components` a
    class, or as many as explain the share `variance` (T_v) of the class's trace. `center` subtracts each class's mean
    first. `fraction` (T_frac) uses that share of each class, at least one sample, drawn without replacement from
    `seed`.
    device: where to compute; by default where x lies. On a GPU a Gram matrix a class is kept, 8 features² bytes; the
    data is never copied back, uint8 is never converted as a whole, and all classes are decomposed at once. The result
    lies on the host wherever it was computed.

    Raises InputError for a class with fewer samples than components.

    >>> import gpunet as gn
    >>> data = gn.datasets.load("digits")
    >>> pca = gn.class_pca(data.x_train, data.y_train, components=3)
    >>> pca.components.shape
    (10, 3, 64)
    >>> bool(pca.explained_variance_ratio[0].sum() > 0.9)
    True
    """
    x = check_matrix(x, "x")
    labels = _check_labels(labels, x)
    if components is None and variance is None:
        raise InputError("neither components nor variance is given: say components=10 or variance=0.98")
    check_count(components, variance, x.shape[1])
    if not 0 < fraction <= 1:
        raise InputError(f"fraction is {fraction!r}: expected a share of the samples in (0, 1]")
    order = np.argsort(labels, kind="stable")
    classes, starts = np.unique(labels[order], return_index=True)
    chosen = []
    for index, rows in enumerate(np.split(order, starts[1:])):
        if fraction < 1:
            size = max(1, round(fraction * len(rows)))
            rows = np.sort(stream(seed, LINALG, 2 + index).choice(rows, size, replace=False))
        most = min(len(rows), x.shape[1])
        if components is not None and components > most:
            raise InputError(
                f"class {classes[index]} has {len(rows)} samples of {x.shape[1]} features: expected at least as many "
                f"as components={components}; ask for fewer, or raise fraction"
            )
        chosen.append(rows)
    backend, dtype = gpu_for(x, device, "x"), result_dtype(x.dtype)
    if backend is None:
        parts = [_one(x, rows, components, variance, center) for rows in chosen]
    else:
        with computing_on(backend) as xp:
            parts = class_parts(xp, backend.asarray(x), chosen, components, variance, center, _eigen_tol(dtype))
    return collect(classes, parts, dtype)


def collect(classes: NDArray[Any], parts: Sequence[PCA], dtype: Any) -> ClassPCA:
    """One `ClassPCA` of the classes' results."""
    ranks = np.array([len(p.components) for p in parts])
    shape = (len(parts), int(ranks.max()))
    vectors = np.zeros((*shape, parts[0].components.shape[1]), dtype)
    values, shares = np.zeros(shape), np.zeros(shape)
    for c, p in enumerate(parts):
        vectors[c, : ranks[c]] = p.components
        values[c, : ranks[c]] = p.explained_variance
        shares[c, : ranks[c]] = p.explained_variance_ratio
    return ClassPCA(
        classes,
        vectors,
        values,
        shares,
        np.stack([p.mean for p in parts]),
        np.array([p.count for p in parts]),
        ranks,
        max(p.residual for p in parts),
    )


class StreamingClassGram:
    """A `StreamingGram` for every label that comes along; the same promises class by class.

    center, device: as in `StreamingGram`.
    """

    def __init__(self, *, center: bool = False, device: str | Backend | None = None) -> None:
        self.center, self.device = center, device
        self.classes: dict[int, StreamingGram] = {}

    def reset(self) -> StreamingClassGram:
        """Forget every sample."""
        self.classes.clear()
        return self

    def update(self, batch: Any, labels: Any) -> StreamingClassGram:
        """Add samples (n, features) with their integer labels (n,)."""
        x = check_matrix(batch, "batch")
        labels = _check_labels(labels, x)
        if self.device is not None and not on_device(x) and (backend := gpu_for(x, self.device)) is not None:
            x = backend.asarray(x)  # once for all classes
        for label in np.unique(labels).tolist():
            self._of(label).update(some_rows(x, labels == label))
        return self

    def merge(self, other: StreamingClassGram) -> StreamingClassGram:
        """Add everything `other` has seen; `other` stays as it is."""
        for label, sums in other.classes.items():
            self._of(label).merge(sums)
        return self

    def components(self, k: int | None = None, *, variance: float | None = None) -> ClassPCA:
        """As `class_pca` of all samples in one piece would give, in float64."""
        for label, sums in self.classes.items():
            if k is not None and sums.count < k:
                raise InputError(f"class {label} has seen {sums.count} samples: expected at least as many as k={k}")
        labels = sorted(self.classes)
        if not labels:
            raise InputError("StreamingClassGram has seen no samples: call update(batch, labels) first")
        return collect(np.array(labels), [self.classes[c].components(k, variance=variance) for c in labels], np.float64)

    def _of(self, label: int) -> StreamingGram:
        return self.classes.setdefault(label, StreamingGram(center=self.center, device=self.device))


def deduplicate(
    components: ClassPCA | Sequence[Any], threshold: float, weights: Any = None
) -> tuple[Floats, NDArray[np.int64]]:
    """Of two vectors of different classes with |cosine| > threshold (T_PC), one is kept.

    components: a `ClassPCA`, an array (C, k, features) or a list of (k_c, features); zero rows are padding. weights:
    (C, k) or a list of (k_c,), higher is kept first; a ClassPCA brings its explained_variance_ratio; without any, a
    class's earlier vectors come first.

    Returns the kept vectors (r, features), by class and then rank, and their (class, rank) indices (r, 2).

    The rule: go through all vectors by weight, highest first, equal ones by their elements; keep each that no kept
    vector of another class matches. So no two kept vectors of different classes match, every dropped one matches a
    kept one, and which vectors are kept does not depend on the order of the classes.
    """
    if not 0 <= threshold <= 1:
        raise InputError(f"threshold is {threshold!r}: expected a |cosine| in [0, 1]; document 002 uses 0.8 to 0.9")
    if isinstance(components, ClassPCA):
        blocks = list(components)
        weights = [w[:r] for w, r in zip(components.explained_variance_ratio, components.ranks, strict=True)]
    else:
        blocks = [np.asarray(block) for block in components]
    index = np.array([(c, i) for c, b in enumerate(blocks) for i in range(len(b)) if np.any(b[i])]).reshape(-1, 2)
    if not len(index):
        raise InputError("components holds no vector: expected at least one that is not zero")
    vectors = np.stack([blocks[c][i] for c, i in index])
    rank_by = [-i for _, i in index] if weights is None else [weights[c][i] for c, i in index]
    unit = vectors.astype(np.float64) / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = np.abs(unit @ unit.T)
    keep = np.zeros(len(index), bool)
    for i in np.lexsort((*vectors.T[::-1], -np.asarray(rank_by, np.float64))):
        rivals = keep & (index[:, 0] != index[i, 0])
        keep[i] = not np.any(cosine[i, rivals] > threshold)
    return vectors[keep], index[keep]


def _eigen_tol(dtype: np.dtype[Any]) -> float:
    """Of ‖ρv − λv‖ over λ_k: float32 products are no better."""
    return 1e-6 if dtype == np.float32 else 1e-12


def _one(x: Floats, rows: NDArray[np.intp], k: int | None, variance: float | None, center: bool) -> PCA:
    """PCA of x[rows]; by the smaller of features and samples."""
    part = TallMatrix(x, rows=rows, tall=True, what="x")
    if len(rows) < x.shape[1]:
        return _few(part, k, variance, center)
    tol = _eigen_tol(part.dtype)
    scatter, mean = safe_sums(part, center)
    found = decompose(scatter, mean, len(rows), k, variance, tol, part.scale)
    values = found.explained_variance
    if part.dtype == np.float32 and x.dtype != np.uint8 and not center and values[-1] < 1e-4 * values[0]:
        scatter, mean = safe_sums(part, center, "float64")  # float32 products say little about so small a value
        found = decompose(scatter, mean, len(rows), k, variance, tol, part.scale)
    return found


def _few(part: TallMatrix, k: int | None, variance: float | None, center: bool) -> PCA:
    """PCA of fewer samples than features: from X Xᵀ w = n λ w, v = Xᵀw / √(nλ)."""
    part.rescale()
    dense = part.dense().astype(np.float64)
    mean = dense.mean(axis=0)
    if center:
        dense -= mean
    found = decompose(dense @ dense.T, mean, part.long, k, variance, scale=part.scale)
    # Orthonormal also where λ is too small to divide by: Xᵀw = Q R, R = P S Wᵀ, v = Q P.
    q, r = np.linalg.qr(dense.T @ found.components.T)
    return replace(found, components=fix_signs(q @ np.linalg.svd(r)[0])[0].T)


def _check_labels(labels: Any, x: NDArray[Any]) -> NDArray[Any]:
    array = on_host(labels)
    if x.ndim != 2:
        raise ShapeError(f"x has shape {x.shape}: expected (samples, features); reshape it with x.reshape(len(x), -1)")
    if array.shape != x.shape[:1]:
        raise ShapeError(f"labels have shape {array.shape}: expected ({len(x)},), one label a sample of x {x.shape}")
    if array.dtype.kind not in "biu":
        raise InputError(f"labels have dtype {array.dtype}: expected integers; convert them with .astype('int64')")
    return array
