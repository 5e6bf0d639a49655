"""Gram matrices that grow: data larger than memory, or split over processes, gives what one piece would."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunet.backend import Backend
from gpunet.errors import InputError, ShapeError
from gpunet.linalg import device_moments
from gpunet.linalg.decompose import PCA, check_count, decompose
from gpunet.linalg.device_pca import decompose_stack
from gpunet.linalg.matrix import Floats, TallMatrix, check_matrix, largest
from gpunet.linalg.moments import Sums, centred_sums, exact_sums, merge_centred, shifted_scatter
from gpunet.linalg.place import computing_on, gpu_for, on_device, on_host


class StreamingGram:
    """Σ x xᵀ and the mean of samples that arrive in batches (n, features).

    uint8 batches are summed exactly, so any order and any split give the same bits. Others are summed in float64,
    each batch centred by its own mean before it is multiplied (`moments.merge_centred`), so a mean far larger than
    the signal does no harm. It only ever adds: `reset()` is the one way back to zero.

    center: whether `gram`, `density` and `components` are taken about the mean.
    device: where the sums are kept; by default where the first batch lies. Batches on a GPU are not copied to the host,
    batches on the host are copied to the sums' GPU. What the properties and methods return lies on the host.

    >>> import numpy as np
    >>> x = np.random.default_rng(0).integers(0, 256, (100, 4), dtype=np.uint8)
    >>> whole, halves = StreamingGram().update(x), StreamingGram().update(x[60:]).update(x[:60])
    >>> bool((whole.gram() == halves.gram()).all())
    True
    """

    def __init__(self, *, center: bool = False, device: str | Backend | None = None) -> None:
        self.center = center
        self.device = device
        self.reset()

    def reset(self) -> StreamingGram:
        """Forget every sample."""
        self.features: int | None = None
        self._backend: Backend | None = None  # of a GPU
        self._exact: Sums | None = None  # Σ(x−128)(x−128)ᵀ, Σ(x−128), samples
        self._centred: Sums | None = None  # Σ(x−m)(x−m)ᵀ, m, samples
        return self

    @property
    def count(self) -> int:
        """Samples seen."""
        return sum(part[2] for part in (self._exact, self._centred) if part is not None)

    def update(self, batch: Any) -> StreamingGram:
        """Add samples (n, features); n = 0 adds nothing. Raises InputError for NaN, infinities and other widths."""
        if getattr(batch, "ndim", 0) == 2 and len(batch) == 0:
            return self
        array = check_matrix(batch, "batch")
        if array.ndim != 2:
            raise ShapeError(f"batch has shape {array.shape}: expected (samples, features); reshape it")
        self._place(array)
        self._fits(array.shape[1], "batch")
        if self._backend is None:
            self._add_on_host(array)
        else:
            with computing_on(self._backend) as xp:
                self._add_on_device(xp, self._backend.asarray(array))
        return self

    def _place(self, array: Any) -> None:
        """Decide where the sums are kept, by the first batch."""
        if not self.count:
            self._backend = gpu_for(array, self.device, "batch")
        elif self._backend is None and on_device(array):
            raise InputError(
                "batch lies on a GPU and the sums of those before on the host: make StreamingGram(device='cuda'), or "
                "copy it, with batch.get()"
            )

    def _add_on_host(self, array: Any) -> None:
        x = TallMatrix(array, tall=True)
        if array.dtype == np.uint8:
            self._exact = _add(self._exact, (*exact_sums(x), x.long))
        else:
            largest(array, "batch")
            with np.errstate(over="ignore", invalid="ignore"):  # `decompose` says what to do about it
                self._centred = merge_centred(self._centred, (*centred_sums(x), x.long))

    def _add_on_device(self, xp: Any, array: Any) -> None:
        if array.dtype == np.uint8:
            self._exact = _add(self._exact, device_moments.exact_sums(xp, array))
        else:
            device_moments.safe_scale(xp, array, "batch")  # looks for NaN
            self._centred = merge_centred(self._centred, device_moments.sums(xp, array, None, True))

    def merge(self, other: StreamingGram) -> StreamingGram:
        """Add everything `other` has seen; `other` stays as it is."""
        if other.features is not None:
            if not self.count:
                self._backend = other._backend if self.device is None else gpu_for(None, self.device)
            self._fits(other.features, "the other StreamingGram")
        if other._exact is not None:
            self._exact = _add(self._exact, self._moved(other._exact))
        if other._centred is not None:
            self._centred = merge_centred(self._centred, self._moved(other._centred))
        return self

    def _moved(self, sums: Sums) -> Sums:
        """Another's sums, where ours are kept."""
        if self._backend is None:
            return on_host(sums[0]), on_host(sums[1]), sums[2]
        return self._backend.asarray(sums[0]), self._backend.asarray(sums[1]), sums[2]

    @property
    def mean(self) -> Floats:
        """(features,), float64."""
        return on_host(self._total()[1])

    def gram(self) -> Floats:
        """Σ x xᵀ, or Σ (x − mean)(x − mean)ᵀ when centred; (features, features), float64."""
        return on_host(self._gram())

    def _gram(self) -> Floats:
        """`gram`, where the sums are kept."""
        if self._centred is None and self._exact is not None and not self.center:
            return shifted_scatter(*self._exact, 0.0)
        scatter, mean, count = self._total()
        with np.errstate(over="ignore", invalid="ignore"):
            return scatter if self.center else scatter + (mean * count)[:, None] * mean

    def density(self) -> Floats:
        """`gram` over the number of samples: document 002's ρ, or the covariance."""
        return self.gram() / self.count

    def components(self, k: int | None = None, *, variance: float | None = None) -> PCA:
        """The k leading eigenvectors, or as many as explain the share `variance` of the trace; all by default."""
        scatter = self._gram()
        check_count(k, variance, len(scatter))
        if self._backend is None:
            return decompose(scatter, self.mean, self.count, k, variance)
        with computing_on(self._backend) as xp:
            return decompose_stack(xp, scatter[None, :, :], [self.mean], [self.count], k, variance)[0]

    def _total(self) -> tuple[Floats, Floats, int]:
        exact = None
        if self._exact is not None:
            raw, sums, count = self._exact
            exact = shifted_scatter(raw, sums, count, None), sums / count + 128, count
        total = merge_centred(exact, self._centred) if self._centred is not None else exact
        if total is None:
            raise InputError("StreamingGram has seen no samples: call update(batch) first")
        return total

    def _fits(self, features: int, what: str) -> None:
        if self.features not in (None, features):
            raise ShapeError(f"{what} has {features} features: this StreamingGram holds {self.features}")
        self.features = features


def _add(a: Sums | None, b: Sums) -> Sums:
    return b if a is None else (a[0] + b[0], a[1] + b[1], a[2] + b[2])
