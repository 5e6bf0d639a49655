"""Class-based PCA (document 002): the leading vectors of every class's own density matrix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunet.backend import Backend
from gpunet.backend.blas import limited
from gpunet.checks import check_flag, check_integers, fixed, is_number, on_device, on_host, real_array
from gpunet.errors import InputError, ShapeError, shown
from gpunet.linalg.decompose import PCA, check_count, reached, variances_of
from gpunet.linalg.device_pca import class_parts
from gpunet.linalg.gram import Accumulator, State, StreamingGram, check_alike, check_values
from gpunet.linalg.matrix import Array, Floats, TallMatrix, check_matrix, result_dtype
from gpunet.linalg.place import computing_on, gpu_for, some_rows
from gpunet.linalg.routes import eigen
from gpunet.linalg.svd import leading_triples
from gpunet.linalg.verify import fix_signs
from gpunet.rng import LINALG, stream


@dataclass(frozen=True)
class ClassPCA:
    """The leading eigenvectors of each class's density matrix ρ_c = (1/n_c) Σ x xᵀ.

    classes: (C,) labels, ascending; counts: (C,) samples used of each; ranks: (C,) components of each;
    components: (C, k, features), k the largest rank, rows beyond a class's own rank are zero;
    explained_variance, explained_variance_ratio: (C, k), zero beyond the rank; mean: (C, features);
    residual: the largest of the classes', as `PCA` defines it, measured against the samples where they are at hand;
    route: the ways by which they were computed, as `PCA` names them, joined by "+".
    """

    classes: NDArray[Any]
    components: Floats
    explained_variance: Floats
    explained_variance_ratio: Floats
    mean: Floats
    counts: NDArray[np.int64]
    ranks: NDArray[np.int64]
    residual: float
    route: str

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

    On the CPU each class goes through the routes of `gn.svd`, by the smaller of its samples and its features, and is
    verified against its samples; less than 64 MB beside x and the results, and O(min(samples, features)²).

    Raises InputError for a class with fewer samples than components, ConvergenceError where no route is good enough.

    >>> import gpunet as gn
    >>> data = gn.datasets.load("digits")
    >>> pca = gn.class_pca(data.x_train, data.y_train, components=3)
    >>> pca.components.shape
    (10, 3, 64)
    >>> bool(pca.explained_variance_ratio[0].sum() > 0.9)
    True
    """
    x, center = check_matrix(x, "x"), check_flag("center", center)
    labels = _check_labels(labels, x)
    if components is None and variance is None:
        raise InputError("neither components nor variance is given: say components=10 or variance=0.98")
    check_count(components, variance, x.shape[1])
    if not (is_number(fraction) and 0 < fraction <= 1):
        raise InputError(f"fraction is {shown(fraction)}: expected a share of the samples in (0, 1]")
    order = np.argsort(labels, kind="stable")
    classes, starts = np.unique(labels[order], return_index=True)
    chosen = []
    for index, rows in enumerate(np.split(order, starts[1:])):
        if fraction < 1:
            size = max(1, round(float(fraction) * len(rows)))
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
        width = x.shape[1]
        parts = [
            limited(len(rows) * width * min(len(rows), width), _one, x, rows, label, components, variance, center)
            for label, rows in zip(classes, chosen, strict=True)
        ]
    else:
        with computing_on(backend) as xp:
            parts = class_parts(xp, backend.asarray(x), chosen, components, variance, center)
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
        "+".join(dict.fromkeys(p.route for p in parts)),
    )


class StreamingClassGram(Accumulator):
    """A `StreamingGram` for every label that comes along; the same promises class by class, and all classes alike.

    center, device: as in `StreamingGram`. classes: label -> StreamingGram, replaced by every update.
    """

    classes: dict[int, StreamingGram] = fixed("add to it with update or merge, or reset it")

    def __init__(self, *, center: bool = False, device: str | Backend | None = None) -> None:
        super().__init__(center, device)
        self.classes = {}

    def reset(self) -> StreamingClassGram:
        """Forget every sample."""
        with self._lock:
            vars(self)["classes"] = {}
        return self

    def update(self, batch: Any, labels: Any) -> StreamingClassGram:
        """Add samples (n, features) with their integer labels (n,); n = 0 adds nothing.

        Raises as `StreamingGram.update` does; then no class has changed.
        """
        batch = real_array(batch, "batch")
        labels = on_host(labels, "labels")
        if batch.ndim == 2 and len(batch) == 0 == labels.size:
            return self
        x = check_matrix(batch, "batch")
        labels = _check_labels(labels, x)
        if self.device is not None and not on_device(x) and (backend := gpu_for(x, self.device)) is not None:
            x = backend.asarray(x)  # once for all classes
        gpu = gpu_for(x, self.device, "batch") if on_device(x) else None
        check_values(x, "batch", gpu)  # whose rows are numbered as the caller knows them
        return self._add({c: self._of(c)._sums(some_rows(x, labels == c)) for c in np.unique(labels).tolist()})

    def merge(self, other: StreamingClassGram) -> StreamingClassGram:
        """Add everything `other` has seen; `other` stays as it is. Raises as `update` does."""
        if not isinstance(other, StreamingClassGram):
            raise InputError(f"merge was given a {type(other).__name__}: expected another StreamingClassGram")
        new = {label: sums._state for label, sums in other.classes.items()}
        return self._add(new, "the other StreamingGram", overwrite=False)

    def components(self, k: int | None = None, *, variance: float | None = None) -> ClassPCA:
        """As `class_pca` of all samples in one piece would give, in float64. Raises as `StreamingGram.components`."""
        classes = self.classes
        labels = sorted(classes)
        if not labels:
            raise InputError("StreamingClassGram has seen no samples: call update(batch, labels) first")
        check_count(k, variance, int(classes[labels[0]].features or 0))
        for label in labels:
            if k is not None and classes[label].count < k:
                raise InputError(
                    f"class {label} has seen {classes[label].count} samples: expected at least as many as k={k}"
                )
        return collect(np.array(labels), [classes[c].components(k, variance=variance) for c in labels], np.float64)

    def _of(self, label: int) -> StreamingGram:
        """A copy of a class's sums, to be added to."""
        return StreamingGram(center=self.center, device=self.device).merge(self.classes.get(label, StreamingGram()))

    def _add(self, new: dict[int, State], what: str = "batch", overwrite: bool = True) -> StreamingClassGram:
        """Add sums to their classes, to all of them or none."""
        with self._lock:
            changed = {label: self._of(label)._add(sums, what, overwrite) for label, sums in new.items()}
            check_alike([*self.classes.values(), *changed.values()])
            vars(self)["classes"] = self.classes | changed
        return self


def _one(x: Array, rows: NDArray[np.intp], label: Any, k: int | None, variance: float | None, center: bool) -> PCA:
    """PCA of x[rows], by the verified singular triples of those rows, less their mean when centred."""
    part = TallMatrix(x, rows=rows, what="x")
    mean = part.row_mean()
    if center:
        if part.dtype == np.float64:  # a second time about the first, so that equal samples have no variance at all
            mean = mean + TallMatrix(x, rows=rows, what="x", mean=mean).row_mean()
        part = TallMatrix(x, rows=rows, what="x", mean=mean)
    name = f"class {label}, {len(rows)}×{x.shape[1]}"
    if variance is not None:
        try:
            values = eigen(part, "float64", part.short)[0]
        except np.linalg.LinAlgError:
            values = leading_triples(part, part.short, long_side=False, method="full", name=name).s ** 2
        k = min(len(rows), reached(values, variance, float(values.sum())))
    assert k is not None
    found = leading_triples(part, k, long_side=part.flipped, name=name)
    vectors = found.u if part.flipped else found.v
    assert vectors is not None
    energy = part.energy()
    squares = found.s**2
    return PCA(
        components=fix_signs(vectors)[0].T,
        explained_variance=variances_of(squares, len(rows), part.scale, name),
        explained_variance_ratio=squares / energy if energy else np.zeros(k),
        mean=mean,
        count=len(rows),
        residual=found.residual,
        route=found.route,
    )


def _check_labels(labels: Any, x: NDArray[Any]) -> NDArray[Any]:
    array = on_host(labels, "labels")
    if x.ndim != 2:
        raise ShapeError(f"x has shape {x.shape}: expected (samples, features); reshape it with x.reshape(len(x), -1)")
    if array.shape != x.shape[:1]:
        raise ShapeError(f"labels have shape {array.shape}: expected ({len(x)},), one label a sample of x {x.shape}")
    check_integers(array)
    return array
