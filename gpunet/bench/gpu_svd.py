"""Four decompositions on a GPU: ours beside torch.linalg.svd, torch.svd_lowrank and cupy.linalg.svd.

Everybody gets float32 on the device ("uint8": images as they lie in memory). Ours and the randomised rival are timed
over rounds; a full decomposition by a rival takes seconds and is timed once, after a small one that loads its library.
Vectors are judged afterwards by the largest principal angle to those of the Gram matrix in float64, computed by NumPy,
and by the share of the energy that they miss.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunet.backend import Backend
from gpunet.bench.gpu_entries import Entry, Judge, in_cupy, in_torch, judge_of, ours
from gpunet.linalg import class_pca, svd
from gpunet.rng import DATA, stream

Problem = tuple[dict[str, Entry], Judge]


def whole(backend: Backend, x: NDArray[np.uint8], k: int) -> Problem:
    """All images as columns, (features, samples) with fewer features: the k leading triples, both sides."""
    images = np.ascontiguousarray(x.T)
    a = images.astype(np.float32) / np.float32(255)
    on_device, as_bytes = backend.asarray(a), backend.asarray(images)
    entries = {
        "gpunet": ours(backend, lambda: svd(on_device, k, device=backend), lambda found: found.u),
        "gpunet, uint8": ours(backend, lambda: svd(as_bytes, k, device=backend), lambda found: found.u),
    }
    entries |= in_torch(backend, [a], k, left=True)
    entries |= in_cupy(backend, lambda xp: xp.linalg.svd(on_device, full_matrices=False), lambda r: r[0][:, :k])
    wide = a.astype(np.float64)
    return entries, judge_of((wide @ wide.T)[None])


def classes(backend: Backend, x: NDArray[np.uint8], y: NDArray[Any], k: int) -> Problem:
    """The k leading directions of each class of images, (samples, features)."""
    scaled = x.astype(np.float32) / np.float32(255)
    on_device, as_bytes = backend.asarray(scaled), backend.asarray(x)
    parts = [scaled[y == label] for label in np.unique(y)]
    entries = {
        "gpunet": ours(backend, lambda: class_pca(on_device, y, k), lambda f: f.components.swapaxes(-1, -2)),
        "gpunet, uint8": ours(backend, lambda: class_pca(as_bytes, y, k), lambda f: f.components.swapaxes(-1, -2)),
    }
    entries |= in_torch(backend, parts, k, once_only=False)
    on_gpu = [backend.asarray(part) for part in parts]
    entries |= in_cupy(
        backend,
        lambda xp: [xp.linalg.svd(part, full_matrices=False)[2] for part in on_gpu],
        lambda found: [vt[:k].T for vt in found],
    )
    return entries, judge_of(np.stack([part.T.astype(np.float64) @ part for part in parts]))


def stack(backend: Backend, shape: tuple[int, int, int], k: int) -> Problem:
    """A stack of tall matrices, the k leading triples of each; σ_j ~ j^-0.7, nearly.

    Rivals that take one matrix after the other are given one, and their time is multiplied.
    """
    many, _, short = shape
    rng = stream(0, DATA)
    decay = (np.arange(1, short + 1) ** -0.7).astype(np.float32)
    mix = np.linalg.qr(rng.standard_normal((short, short)))[0].astype(np.float32)
    a = (rng.standard_normal(shape, dtype=np.float32) * decay) @ mix
    on_device = backend.asarray(a)
    entries = {"gpunet": ours(backend, lambda: svd(on_device, k, device=backend), lambda f: f.vt.swapaxes(-1, -2))}
    entries |= in_torch(backend, [a], k, share=many)
    entries |= in_cupy(
        backend,
        lambda xp: xp.linalg.svd(on_device[:1], full_matrices=False),
        lambda found: found[2][:, :k].swapaxes(-1, -2),
        share=many,
    )
    grams = np.stack([one.T.astype(np.float64) @ one for one in a])
    return entries, judge_of(grams)


def square(backend: Backend, n: int, k: int) -> Problem:
    """n × n with σ_j = j^-0.7: without a gap at k, so that only the energy tells."""
    rng = stream(0, DATA)
    sides = [np.linalg.qr(rng.standard_normal((n, n), dtype=np.float32))[0] for _ in range(2)]
    s = np.arange(1, n + 1) ** -0.7
    a = np.ascontiguousarray((sides[0] * s.astype(np.float32)) @ sides[1].T)
    on_device = backend.asarray(a)
    entries = {"gpunet": ours(backend, lambda: svd(on_device, k, device=backend), lambda found: found.vt.T)}
    entries |= in_torch(backend, [a], k)
    entries |= in_cupy(backend, lambda xp: xp.linalg.svd(on_device), lambda found: found[2][:k].T)

    def judge(v: Any) -> tuple[float | None, float]:
        v = np.linalg.qr(v.astype(np.float64))[0]
        captured = float(np.sum((a.astype(np.float64) @ v) ** 2))
        return None, 1 - captured / float((s[:k] ** 2).sum())

    return entries, judge
