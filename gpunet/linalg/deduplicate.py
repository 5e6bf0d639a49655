"""Vectors that several classes share, kept once (document 002, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunet.checks import as_array, is_number, on_host, real_array
from gpunet.errors import InputError, ShapeError, shown
from gpunet.linalg.matrix import Floats
from gpunet.linalg.pca import ClassPCA


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
    matches = np.abs(unit @ unit.T) > float(threshold) + 2 * (unit.shape[1] + 8) * np.finfo(np.float64).eps
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
