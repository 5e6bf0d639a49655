"""Weights computed instead of trained: class-based PCA of what a layer sees (document 002, section 3)."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from gpunet.backend import Backend, get_backend
from gpunet.checks import (
    as_array,
    check_flag,
    check_integers,
    check_lengths,
    check_range,
    check_whole,
    on_host,
    real_array,
)
from gpunet.errors import InputError, shown
from gpunet.linalg import Certificate, deduplicate
from gpunet.linalg.classes import ClassPCA, rows_by_class
from gpunet.linalg.device import some_rows
from gpunet.linalg.patches import PatchDensities
from gpunet.nn.init import is_given
from gpunet.nn.layers import Conv2D, Dense, Layer
from gpunet.rng import check_seed

Floats = NDArray[np.float64]
BATCH = 1000  # images at a time, where a layer is given them all


@dataclass(frozen=True)
class Fit:
    """What a layer was fitted with.

    pca: the vectors of every class before any was dropped; kept: (r, 2), class and rank of the vectors that became the
    weight's rows; samples: how many of each class were used; seconds: densities, eigenvectors and choice.
    """

    pca: ClassPCA
    kept: NDArray[np.int64]
    samples: dict[int, int]
    seconds: float

    def __repr__(self) -> str:
        return f"<Fit: {len(self.kept)} vectors of {self.pca!r} kept, in {self.seconds:.3g} s>"

    @property
    def certificate(self) -> Certificate:
        """What is shown of every class's vectors: that of `pca`."""
        return self.pca.certificate

    @property
    def without(self) -> list[int]:
        """Classes of which no vector was kept: all theirs resemble those of other classes."""
        return sorted(set(self.pca.classes.tolist()) - set(self.pca.classes[self.kept[:, 0]].tolist()))


@dataclass(frozen=True)
class Thresholds:
    """variance: T_v, the share of each class's variance that its vectors explain; correlation: T_PC, of two vectors of
    different classes with a larger |cosine| one is kept; fraction: T_frac, the share of each class's samples that is
    used; center: whether the class's mean patch is subtracted; most: at most so many vectors, those of largest share.
    """  # noqa: D205

    variance: float
    correlation: float = 0.9
    fraction: float = 1.0
    center: bool = False
    most: int | None = None

    def __post_init__(self) -> None:
        for name in ("variance", "correlation", "fraction"):
            object.__setattr__(self, name, check_range(name, getattr(self, name), above=0, most=1))
        check_flag("center", self.center)
        if self.most is not None:
            check_whole("most", self.most)


def fit_class_pca(
    layer: Dense | Conv2D,
    x: Any,
    labels: Any,
    *,
    variance: float,
    correlation: float = 0.9,
    fraction: float = 1.0,
    center: bool = False,
    most: int | None = None,
    seed: int = 0,
    device: str | Backend = "cpu",
) -> Fit:
    """Compute a layer's weight from its inputs x (n, *input shape) and labels (n,), and freeze it; b = 0.

    The rows of the weight are the leading eigenvectors of each class's density ρ_c = ⟨hhᵀ⟩, h what a row multiplies: a
    sample, or a patch (document 002, section 3). device: where to compute; x may lie there, or on the host, from where
    it is copied 1000 samples at a time.

    The settings are `Thresholds`; fraction's samples are drawn from `seed`. How many rows the weight gets follows
    from them. x may be uint8, read as fractions of 255. The model is built afterwards. Moments are accumulated
    class by class, each block centred by its own mean; a class with no more rows than features is decomposed by its
    rows (`PatchDensities`).
    Raises InputError for another layer, thresholds outside (0, 1], for NaN, for a class with a single patch and for a
    layer that has weights already, given ones or those of an earlier fit; ConvergenceError where float32 products do
    not show as many vectors as `variance` takes: lower it, or give float64. Then the layer is as it was.
    """
    _check_layer(layer)
    thresholds, seed = Thresholds(variance, correlation, fraction, center, most), check_seed(seed)
    x, labels = real_array(x, "the layer's input"), on_host(as_array(labels, "labels"))
    check_lengths(x, labels, "the layer's input")
    check_integers(labels)
    rows = chosen_rows(labels, thresholds.fraction, seed)
    backend = get_backend(device)
    batches = ((some_rows(x, part, backend), labels[part]) for part in np.split(rows, range(BATCH, len(rows), BATCH)))
    return fit_batches(layer, batches, thresholds, backend)


def fit_batches(layer: Layer, batches: Iterable[tuple[Any, Any]], thresholds: Thresholds, backend: Backend) -> Fit:
    """As `fit_class_pca`, from batches of (inputs, labels); all of them are used."""
    layer = _check_layer(layer)
    densities = PatchDensities(backend, *((layer.kernel, layer.zeros) if isinstance(layer, Conv2D) else (1, 0)))
    samples: dict[int, int] = {}
    seconds = 0.0
    for x, labels in batches:
        began = time.perf_counter()  # computing the batches is not this layer's time
        labels = on_host(as_array(labels, "labels"))
        x = backend.asarray(real_array(x, "the layer's input"))
        densities.update(x.reshape(len(x), -1, 1, 1) if x.ndim == 2 else x, labels)  # features have one pixel
        for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
            samples[int(label)] = samples.get(int(label), 0) + int(count)
        seconds += time.perf_counter() - began
    few = [label for label, patches in densities.counts.items() if patches < 2]
    if few:
        raise InputError(
            f"class {few[0]} has {samples[few[0]]} sample and one patch: expected at least 2; raise fraction, or "
            "leave the class out"
        )
    began = time.perf_counter()
    pca = densities.components(variance=thresholds.variance, center=thresholds.center)
    vectors, kept = _most(*deduplicate(pca, thresholds.correlation), pca, thresholds.most)
    _take(layer, vectors)
    return Fit(pca, kept, samples, seconds + time.perf_counter() - began)


def _check_layer(layer: Layer) -> Dense | Conv2D:
    """The layer; InputError where it is none that can be fitted, or one that has weights."""
    if not can_fit(layer):
        raise InputError(f"layer is {shown(layer)}: expected a Dense or Conv2D layer")
    given = layer.given(("weight", "bias")) or any(map(is_given, layer._draw.values()))
    if given or hasattr(layer, "weight"):
        raise InputError(
            f"{layer.called} has weights already: fit it before its model is built, or make a new one without any"
        )
    return layer


def can_fit(layer: Layer) -> TypeGuard[Dense | Conv2D]:
    """Whether a layer has a weight that vectors may be the rows of."""
    return isinstance(layer, Dense | Conv2D)


def _take(layer: Dense | Conv2D, vectors: Floats) -> None:
    """Make the vectors (r, features) the layer's weight, with zero bias, and freeze it."""
    if isinstance(layer, Conv2D):
        vectors = vectors.reshape(len(vectors), -1, layer.kernel, layer.kernel)
    # In a model, too, which is not built yet: there a layer's size is not just set.
    object.__setattr__(layer, "filters" if isinstance(layer, Conv2D) else "units", len(vectors))
    layer.start = {"weight": np.array(vectors), "bias": np.zeros(len(vectors))}
    layer.trainable = False


def chosen_rows(labels: Any, fraction: float, seed: int) -> NDArray[np.intp]:
    """The share `fraction` of each class, at least one sample, drawn without replacement; ascending."""
    return np.sort(np.concatenate(rows_by_class(on_host(labels), fraction, seed)[1]))


def _most(
    vectors: Floats, kept: NDArray[np.int64], pca: ClassPCA, most: int | None
) -> tuple[Floats, NDArray[np.int64]]:
    """The `most` vectors that explain the largest shares of their class, in their order."""
    if most is None or len(kept) <= most:
        return vectors, kept
    shares = pca.explained_variance_ratio[kept[:, 0], kept[:, 1]]
    best = np.sort(np.argsort(-shares, kind="stable")[:most])
    return vectors[best], kept[best]
