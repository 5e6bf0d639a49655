"""Class-based PCA (document 002): the leading vectors of every class's own density matrix; those that classes share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunet.backend import Backend
from gpunet.backend.blas import limited, product
from gpunet.checks import as_array, check_flag, check_integers, fixed, is_number, on_host, real_array
from gpunet.errors import InputError, ShapeError, shown
from gpunet.linalg.certificate import KEPT, Certificate, Certified, Proof, changed, made
from gpunet.linalg.device import computing_on, device_of, is_gpu, some_rows
from gpunet.linalg.executors import gather
from gpunet.linalg.gram import Accumulator, State, StreamingGram, check_alike, check_values
from gpunet.linalg.matrix import Array, Floats, TallMatrix, check_matrix, result_dtype
from gpunet.linalg.pca import PCA, check_count, class_parts, of_samples, reached, variances_of
from gpunet.linalg.solvers import eigen
from gpunet.linalg.sources import Source, opened, paths_opened
from gpunet.linalg.svd import leading_triples
from gpunet.linalg.verify import fix_signs
from gpunet.reprs import sizes
from gpunet.rng import LINALG, check_seed, stream


@dataclass(frozen=True, repr=False)
class ClassPCA(Certified):
    """The leading eigenvectors of each class's density matrix ρ_c = (1/n_c) Σ x xᵀ.

    classes: (C,) labels, ascending; counts: (C,) samples used of each; ranks: (C,) components of each;
    components: (C, k, features), k the largest rank, rows beyond a class's own rank are zero;
    explained_variance, explained_variance_ratio: (C, k), zero beyond the rank; mean: (C, features);
    residual: the largest of the classes', as `PCA` defines it, measured against the samples where they are at hand;
    route: the ways by which they were computed, as `PCA` names them, joined by "+".
    certificate: what is shown of each class's, as of `PCA`: sigma (C, k, 2), zero beyond the rank, and the rest (C,).
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
    _proof: Proof = field(kw_only=True, repr=False, compare=False)

    def _told(self) -> dict[str, str]:
        ranks, explained = np.asarray(self.ranks), np.sum(self.explained_variance_ratio, axis=1)
        return {
            "classes": str(len(self.classes)), "components": sizes(self.components),
            "ranks": f"{ranks.min()} to {ranks.max()}",
            "explain": f"{100 * explained.min():.4g} to {100 * explained.max():.4g} %",
            "samples": f"{int(np.sum(self.counts)):,}", "route": self.route, "residual": f"{self.residual:.2g}",
        }  # fmt: skip

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

    `x` may be larger than memory, and a path or anything else that `gn.gram` takes for a source, iterables aside;
    labels may be a path, too. It is then read once, as `gn.gram` does, and the result in float64, from the classes'
    sums, which are kept on the CPU as well.

    Raises InputError for a class with fewer samples than components, ConvergenceError where no route is good enough.

    >>> import gpunet as gn
    >>> data = gn.datasets.load("digits")
    >>> pca = gn.class_pca(data.x_train, data.y_train, components=3)
    >>> pca.components.shape
    (10, 3, 64)
    >>> bool(pca.explained_variance_ratio[0].sum() > 0.9)
    True
    """
    x = check_matrix(x if type(x) is np.ndarray else opened(x, "x"), "x")
    center, labels, seed = check_flag("center", center), check_labels(labels, x), check_seed(seed)
    if components is None and variance is None:
        raise InputError("neither components nor variance is given: say components=10 or variance=0.98")
    check_count(components, variance, x.shape[1])
    if not (is_number(fraction) and 0 < fraction <= 1):
        raise InputError(f"fraction is {shown(fraction)}: expected a share of the samples in (0, 1]")
    classes, chosen = rows_by_class(labels, float(fraction), seed)
    for label, rows in zip(classes, chosen, strict=True):
        if components is not None and components > min(len(rows), x.shape[1]):
            raise InputError(
                f"class {label} has {len(rows)} samples of {x.shape[1]} features: expected at least as many "
                f"as components={components}; ask for fewer, or raise fraction"
            )
    if isinstance(x, Source):
        used = np.zeros(len(labels), bool)
        used[np.concatenate(chosen)] = True
        sums = gather(x, labels, StreamingClassGram(center=center, device=device), chosen=used)
        return sums.components(components, variance=variance)  # type: ignore[no-any-return]
    backend = device_of(x, device, "x")
    if is_gpu(backend):
        with computing_on(backend) as xp:
            parts = class_parts(xp, backend.asarray(x), chosen, components, variance, center)
    else:
        parts = [
            pca_of_rows(x, rows, label, components, variance, center, KEPT // len(chosen))
            for label, rows in zip(classes, chosen, strict=True)
        ]
    return collect(classes, parts, result_dtype(x.dtype))


def rows_by_class(labels: NDArray[Any], fraction: float, seed: int) -> tuple[NDArray[Any], list[NDArray[np.intp]]]:
    """(the labels that there are, ascending; for each its rows, ascending: a share of them, at least one, drawn)."""
    order = np.argsort(labels, kind="stable")
    classes, starts = np.unique(labels[order], return_index=True)
    chosen = np.split(order, starts[1:])
    if fraction < 1:
        for index, rows in enumerate(chosen):
            size = max(1, round(fraction * len(rows)))
            chosen[index] = np.sort(stream(seed, LINALG, 2 + index).choice(rows, size, replace=False))
    return classes, chosen


def check_labels(labels: Any, x: Any) -> NDArray[Any]:
    """Labels (n,) of samples x (n, features), an array or a path of one; InputError where they are none."""
    array = on_host(paths_opened(labels, "labels"), "labels")
    if array.shape == (*x.shape[:1], 1):
        array = array[:, 0]
    if x.ndim != 2:
        raise ShapeError(f"x has shape {x.shape}: expected (samples, features); reshape it with x.reshape(len(x), -1)")
    if array.shape != x.shape[:1]:
        raise ShapeError(
            f"labels have shape {array.shape}: expected ({x.shape[0]},), one label a sample of x {x.shape}"
        )
    check_integers(array)
    return array


def pca_of_rows(
    x: Array, rows: NDArray[np.intp] | None, label: Any, k: int | None, variance: float | None, center: bool, room: int
) -> PCA:
    """PCA of x[rows] on the CPU, by the verified singular triples of those rows, less their mean when centred.

    rows: of the class `label`; None for all of x. room: bytes that the result may keep for its certificate.
    """
    count = len(x) if rows is None else len(rows)
    size = count * x.shape[1] * min(count, x.shape[1])
    return limited(size, _of_rows, x, rows, count, label, k, variance, center, room)


def _of_rows(
    x: Array, rows: NDArray[np.intp] | None, count: int, label: Any, k: int | None, variance: float | None,
    center: bool, room: int,
) -> PCA:  # fmt: skip
    part = TallMatrix(x, rows=rows, what="x")
    mean = part.row_mean()
    if center:
        if part.dtype == np.float64:  # a second time about the first, so that equal samples have no variance at all
            mean = mean + TallMatrix(x, rows=rows, what="x", mean=mean).row_mean()
        part = TallMatrix(x, rows=rows, what="x", mean=mean)
    name = f"{'x' if rows is None else f'class {label}'}, {count}×{x.shape[1]}"
    if variance is not None:
        try:
            values = eigen(part, "float64", part.short)[0]
        except np.linalg.LinAlgError:
            values = leading_triples(part, part.short, long_side=False, method="full", name=name).s ** 2
        k = min(count, reached(values, variance, float(values.sum())))
    assert k is not None
    found = leading_triples(part, k, long_side=part.flipped, name=name, room=room)
    vectors = found.u if part.flipped else found.v
    assert vectors is not None
    energy = part.energy()
    squares = found.s**2
    return PCA(
        components=fix_signs(vectors)[0].T,
        explained_variance=variances_of(squares, count, part.scale, name),
        explained_variance_ratio=squares / energy if energy else np.zeros(k),
        mean=mean,
        count=count,
        residual=found.residual,
        route=found.route,
        _proof=changed(found.proof, of_samples(mean, count, center)),
    )


def collect(classes: NDArray[Any], parts: Sequence[PCA], dtype: Any) -> ClassPCA:
    """One `ClassPCA` of the classes' results."""
    ranks = np.array([len(p.components) for p in parts])
    shape = (len(parts), int(ranks.max()))
    vectors = np.zeros((*shape, parts[0].components.shape[1]), dtype)
    values, shares = np.zeros(shape), np.zeros(shape)
    turned = np.zeros(len(parts))
    for c, p in enumerate(parts):
        vectors[c, : ranks[c]] = p.components
        values[c, : ranks[c]] = p.explained_variance
        shares[c, : ranks[c]] = p.explained_variance_ratio
        turned[c] = np.linalg.norm(vectors[c, : ranks[c]] - p.components)  # by rounding to the dtype
    proofs = [p._proof for p in parts]

    def prove() -> Certificate:
        found = [made(each) for each in proofs]
        sigma, sines = np.zeros((*shape, 2)), np.array([each.sine for each in found]) + 1.1 * turned
        for c, each in enumerate(found):
            sigma[c, : ranks[c]] = each.sigma
        others = (np.array([getattr(each, name) for each in found]) for name in ("complete", "beyond"))
        return Certificate(sigma, np.where(sines < 1, sines, np.inf), *others)

    return ClassPCA(
        classes,
        vectors,
        values,
        shares,
        np.stack([p.mean for p in parts]),
        np.array([p.count for p in parts]),
        ranks.copy(),
        max(p.residual for p in parts),
        "+".join(dict.fromkeys(p.route for p in parts)),
        _proof=prove,
    )


class StreamingClassGram(Accumulator):
    """A `StreamingGram` for every label that comes along; the same promises class by class, and all classes alike.

    center, reproducible, device: as in `StreamingGram`. classes: label -> StreamingGram, replaced by every update.
    """

    classes: dict[int, StreamingGram] = fixed("add to it with update or merge, or reset it")

    def __init__(
        self, *, center: bool = False, reproducible: bool = False, device: str | Backend | None = None
    ) -> None:
        super().__init__(center, reproducible, device)
        self.classes = {}

    def _holds(self) -> str:
        return f"{sum(each.count for each in self.classes.values()):,} samples of {len(self.classes)} classes"

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
        labels = check_labels(labels, x)
        device = device_of(x, self.device, "batch")
        if is_gpu(device):
            x = device.asarray(x)  # once for all classes
        with computing_on(device) as xp:
            check_values(xp, x, "batch")  # whose rows are numbered as the caller knows them
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
        room = KEPT // len(labels)
        return collect(np.array(labels), [classes[c]._components(k, variance, room) for c in labels], np.float64)

    def _of(self, label: int) -> StreamingGram:
        """A copy of a class's sums, to be added to."""
        copy = StreamingGram(center=self.center, reproducible=self.reproducible, device=self.device)
        return copy.merge(self.classes.get(label, StreamingGram()))

    def _add(self, new: dict[int, State], what: str = "batch", overwrite: bool = True) -> StreamingClassGram:
        """Add sums to their classes, to all of them or none."""
        with self._lock:
            changed = {label: self._of(label)._add(sums, what, overwrite) for label, sums in new.items()}
            check_alike([*self.classes.values(), *changed.values()])
            vars(self)["classes"] = self.classes | changed
        return self


def deduplicate(
    components: ClassPCA | Sequence[Any], threshold: float, weights: Any = None
) -> tuple[Floats, NDArray[np.int64]]:
    """Of two vectors of different classes with |cosine| > threshold (T_PC), one is kept.

    components: a `ClassPCA`, an array (C, k, features) or a list of (k_c, features), real numbers of any scale; zero
    rows are padding. weights: (C, k) or a list of (k_c,), higher is kept first; by default a ClassPCA's
    explained_variance_ratio, and else a class's earlier vectors come first.

    Returns the kept vectors (r, features), by class and then rank, and their (class, rank) indices (r, 2).

    The rule: go through all vectors by weight, highest first, equal ones by their elements; keep each that no kept
    vector of another class matches. So no two kept vectors of different classes match, every dropped one matches a
    kept one, and which vectors are kept does not depend on the order of the classes.
    A cosine counts as larger than the threshold where it is by more than float64 may round it, 2 (features + 8) ε
    (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1). So at 1 nothing is dropped, at 0 what is
    not orthogonal to that accuracy.

    Raises ShapeError for classes whose vectors differ in length and for weights that do not fit, InputError for a
    threshold outside [0, 1], for NaN and infinities, and where there is no vector.
    """
    if not (is_number(threshold) and 0 <= threshold <= 1):
        raise InputError(
            f"threshold is {shown(threshold)}: expected a |cosine| in [0, 1]; document 002 uses 0.8 to 0.9"
        )
    if isinstance(components, ClassPCA):
        weights = components.explained_variance_ratio if weights is None else weights
        blocks = _blocks(components.components)
    else:
        blocks = _blocks(components)
    index = np.array([(c, i) for c, b in enumerate(blocks) for i in np.flatnonzero(b.any(axis=1))]).reshape(-1, 2)
    if not len(index):
        raise InputError("components holds no vector: expected at least one that is not zero")
    vectors = np.stack([blocks[c][i] for c, i in index])
    if weights is None:
        order = index[:, 1].astype(np.float64)
    else:
        given = _weights(weights, blocks)
        order = np.array([-given[c][i] for c, i in index])
    unit = vectors.astype(np.float64)
    largest = np.abs(unit).max(axis=1, keepdims=True)
    unit = np.ldexp(unit, 1 - np.frexp(largest)[1])  # squares of 1e170 and 1e-170 leave float64
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    matches = np.abs(product(unit, unit.T)) > float(threshold) + 2 * (unit.shape[1] + 8) * np.finfo(np.float64).eps
    keep = np.zeros(len(index), bool)
    for i in np.lexsort((*vectors.T[::-1], order)):
        keep[i] = not np.any(matches[i] & keep & (index[:, 0] != index[i, 0]))
    return vectors[keep], index[keep]


def _blocks(components: Any) -> list[NDArray[Any]]:
    """Each class's vectors (k_c, features), all of one length and finite."""
    if not isinstance(components, (list, tuple)):
        components = as_array(components, "components")
        if components.ndim != 3:
            raise ShapeError(f"components has shape {components.shape}: expected (classes, vectors, features)")
    blocks = [on_host(real_array(block, f"class {c} of components")) for c, block in enumerate(components)]
    for c, block in enumerate(blocks):
        if block.ndim != 2:
            raise ShapeError(f"class {c} of components has shape {block.shape}: expected (vectors, features)")
        if block.shape[1] != blocks[0].shape[1]:
            raise ShapeError(
                f"class {c} of components has vectors of {block.shape[1]} features, class 0 of "
                f"{blocks[0].shape[1]}: expected the same in all"
            )
        bad = np.flatnonzero(~np.isfinite(block).all(axis=1))
        if len(bad):
            raise InputError(f"vector {bad[0]} of class {c} holds NaN or infinity: expected finite numbers")
    return blocks


def _weights(weights: Any, blocks: Sequence[NDArray[Any]]) -> list[NDArray[np.float64]]:
    """Each class's weights (k_c,)."""
    if not isinstance(weights, (list, tuple)):
        weights = np.atleast_1d(on_host(real_array(weights, "weights")))
    if len(weights) != len(blocks):
        raise ShapeError(f"there are weights of {len(weights)} classes and vectors of {len(blocks)}: expected as many")
    found = []
    for c, (each, block) in enumerate(zip(weights, blocks, strict=True)):
        own = on_host(real_array(each, f"class {c} of weights")).astype(np.float64)
        if own.shape != (len(block),):
            raise ShapeError(f"class {c} has weights of shape {own.shape} and {len(block)} vectors: expected one each")
        if np.isnan(own).any():
            raise InputError(f"weight {np.isnan(own).argmax()} of class {c} is NaN: expected a number")
        found.append(own)
    return found
