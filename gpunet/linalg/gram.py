"""Gram matrices that grow: data larger than memory, or split over processes, gives what one piece would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from gpunet.backend import Backend
from gpunet.backend.blas import PER_THREAD, limited
from gpunet.checks import check_flag, fixed, on_device, on_host, real_array, setting
from gpunet.errors import InputError, ShapeError
from gpunet.interrupts import turns
from gpunet.linalg import moments
from gpunet.linalg.certificate import KEPT, Certificate
from gpunet.linalg.device import CPU, computing_on, device_of, is_gpu
from gpunet.linalg.matrix import Floats, check_matrix, largest, result_dtype, shifted_scatter
from gpunet.linalg.moments import Centred, Sums, merge
from gpunet.linalg.pca import PCA, check_count, check_trace, decompose_on
from gpunet.linalg.slices import Slices, slices

LARGEST = 2.0**500  # squares of more, summed over 2²⁴ samples, overflow


@dataclass(frozen=True)
class State:
    """All that a StreamingGram knows; replaced as a whole, so that no update is left half done."""

    features: int | None = None
    device: Backend = CPU
    exact: Sums | None = None
    centred: Centred | None = None
    bytes: bool | None = None  # whether uint8 came, or floats; None while neither did
    dtype: Any = np.float32  # the finest of the batches', as results have it
    reproducible: bool = False
    sliced: Slices | None = None  # of a reproducible one in place of `centred`

    @property
    def count(self) -> int:
        """Samples in all."""
        return sum(each.count for each in (self.exact, self.centred, self.sliced) if each is not None)

    def total(self) -> Centred:
        """Of all together; InputError where there is nothing."""
        with computing_on(self.device) as xp:
            total = None if self.exact is None else self.exact.centred(xp)
            if self.centred is not None:
                total = merge(total, self.centred)
            if self.sliced is not None:
                total = merge(total, self.sliced.centred())
        if total is None:
            raise InputError("StreamingGram has seen no samples: call update(batch) first")
        return total


class Accumulator:
    """Base of what threads add to: a lock for taking new sums over, which a copy has one of its own for."""

    center: bool = setting(check_flag)
    reproducible: bool = fixed("its sums are of one kind; make another one with reproducible=…")

    def __init__(self, center: bool, reproducible: bool, device: str | Backend | None) -> None:
        self.center, self.device, self._lock = center, device, turns()
        self.reproducible = check_flag("reproducible", reproducible)

    def __repr__(self) -> str:
        options = ", centred" * self.center + ", reproducible" * self.reproducible
        return f"<{type(self).__name__}: {self._holds()}{options}>"

    def _holds(self) -> str:
        """How much has been added, for a repr."""
        return "sums"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=turns())


class StreamingGram(Accumulator):
    """Σ x xᵀ and the mean of samples that arrive in batches (n, features).

    uint8 batches are summed exactly, so any order and any split give the same bits. Others are multiplied in float64,
    each block centred by its own mean before, and merged without loss (`moments.Centred`), so neither a mean far
    larger than the signal nor any number of batches does harm. Of float64 samples, and integers that need it, a
    triangular root is kept beside the sums, which shows what their squares do not; on a GPU, where that would take
    long, only of no more samples than features. It only ever adds: `reset()` is the one way back to zero. A batch that
    is refused changes nothing. uint8 and floats do not mix: bytes run from 0 to 255, fractions from 0 to 1. Threads may
    share one: each batch is multiplied beside the others, and counts once.

    center: whether `gram`, `density` and `components` are taken about the mean.
    reproducible: floats, too, are summed exactly (`slices`): the same bits for any order, split, number of threads and
    merges, on the CPU and on a GPU. The sums lie on the host, and `components` come from there and one thread of BLAS:
    the same bits, too, on one machine. A merge is of two that are. Bytes are exact anyway. 60,000×784 take three times
    as long on one core; 40 to 64 · features² bytes, as much again while a batch is added, and no root: exact sums have
    their own.
    device: where the sums are kept; by default where the first batch lies. Batches on a GPU are not copied to the host,
    batches on the host are copied to the sums' GPU. What the properties and methods return lies on the host, and is
    the caller's own.
    Memory: 2 · features² float64, with a root as much as 4096 or 4 · features samples more, beside a chunk of
    the batch.

    >>> import numpy as np
    >>> x = np.random.default_rng(0).integers(0, 256, (100, 4), dtype=np.uint8)
    >>> whole, halves = StreamingGram().update(x), StreamingGram().update(x[60:]).update(x[:60])
    >>> bool((whole.gram() == halves.gram()).all())
    True
    """

    def __init__(
        self, *, center: bool = False, reproducible: bool = False, device: str | Backend | None = None
    ) -> None:
        super().__init__(center, reproducible, device)
        self._state = State()

    def reset(self) -> StreamingGram:
        """Forget every sample."""
        with self._lock:
            self._state = State()
        return self

    def _holds(self) -> str:
        return f"{self.count:,} samples of {self.features} features" if self.count else "no samples yet"

    @property
    def features(self) -> int | None:
        """Of each sample; None before the first."""
        return self._state.features

    @property
    def count(self) -> int:
        """Samples seen."""
        return self._state.count

    def update(self, batch: Any) -> StreamingGram:
        """Add samples (n, features) of any real dtype; n = 0 adds nothing.

        Raises ShapeError for other widths, InputError for NaN, infinities, values above 2⁵⁰⁰, whose squares overflow,
        and for uint8 beside floats.
        """
        return self._add(self._sums(batch))

    def merge(self, other: StreamingGram) -> StreamingGram:
        """Add everything `other` has seen; `other` stays as it is. Raises as `update` does.

        The sums are the same whatever `center` is: that of this one decides what is read from them.
        """
        if not isinstance(other, StreamingGram):
            raise InputError(f"merge was given a {type(other).__name__}: expected another StreamingGram")
        return self._add(other._state, "the other StreamingGram", overwrite=False)

    def _sums(self, batch: Any) -> State:
        """Those of one batch alone, where ours are kept, or will be."""
        batch = real_array(batch, "batch")
        if batch.ndim == 2 and len(batch) == 0:
            return State()
        array = check_matrix(batch, "batch")
        if array.ndim != 2:
            raise ShapeError(f"batch has shape {array.shape}: expected (samples, features); reshape it")
        state = self._state
        if self.reproducible:  # whatever it is computed on, the sums lie on the host
            state = State()
        if state.count and not is_gpu(state.device) and on_device(array):
            raise InputError(
                "batch lies on a GPU and the sums of those before on the host: make StreamingGram(device='cuda'), or "
                "copy it, with batch.get()"
            )
        device = state.device if state.count else device_of(array, self.device, "batch")
        if not is_gpu(device):
            return limited(array.size * array.shape[1], _sums, np, device, array, self.reproducible)
        with computing_on(device) as xp:
            found = _sums(xp, device, device.asarray(array), self.reproducible)
            return moved(found, CPU) if self.reproducible else found

    def _add(self, new: State, what: str = "batch", overwrite: bool = True) -> StreamingGram:
        """Add sums; overwrite: they are nobody else's."""
        if not new.count:
            return self
        if new.reproducible != self.reproducible:
            raise InputError(
                f"{what} was made with reproducible={new.reproducible}, this one with reproducible="
                f"{self.reproducible}: sums of one kind say nothing of the other's bits; make both alike"
            )
        with self._lock:
            old = self._state
            if old.count:
                _check_fits(old, new, what)
                device = old.device
            elif self.reproducible:
                device = CPU
            else:
                device = new.device if self.device is None else device_of(None, self.device)
            if new.device is not device:
                new = moved(new, device)
            exact, centred, sliced = old.exact or new.exact, old.centred or new.centred, old.sliced or new.sliced
            quiet = np.errstate(over="ignore", invalid="ignore")  # `components` and `gram` say what to do about it
            with computing_on(device), quiet:
                if old.exact and new.exact:
                    exact = old.exact + new.exact
                if old.centred and new.centred:
                    centred = merge(old.centred, new.centred, overwrite)
                if old.sliced and new.sliced:
                    sliced = old.sliced + new.sliced
            self._state = State(
                new.features, new.device, exact, centred, new.bytes if old.bytes is None else old.bytes,
                np.result_type(old.dtype, new.dtype), self.reproducible, sliced,
            )  # fmt: skip
        return self

    @property
    def mean(self) -> Floats:
        """(features,), float64."""
        state = self._state
        total = state.total()
        with computing_on(state.device):
            return on_host(total.mean + total.mean_low)

    def gram(self) -> Floats:
        """Σ x xᵀ, or Σ (x − mean)(x − mean)ᵀ when centred; (features, features), float64.

        Raises InputError where the squares of the samples overflow or underflow float64.
        """
        return self._gram(self._state)

    def _gram(self, state: State) -> Floats:
        total = state.total()
        with computing_on(state.device), np.errstate(over="ignore", invalid="ignore"):
            if state.centred is None and state.exact is not None and not self.center:
                found = on_host(shifted_scatter(state.exact.products, state.exact.total, state.exact.count, 0.0))
            else:
                found = on_host(total.about(self.center))
        check_trace(total, float(np.trace(found)), "the samples")
        return found

    def density(self) -> Floats:
        """`gram` over the number of samples: document 002's ρ, or the covariance."""
        state = self._state
        return self._gram(state) / state.count

    def components(self, k: int | None = None, *, variance: float | None = None) -> PCA:
        """The k leading eigenvectors, or as many as explain the share `variance` of the trace; all by default.

        Float64. There are at most as many as samples, one fewer when centred.
        Raises InputError for fewer samples than k, ConvergenceError where sums of squares do not show so many and no
        root was kept: float64 samples on a GPU, or beside samples of other dtypes (`PCA.residual`).
        """
        return self._components(k, variance, KEPT)

    def _components(self, k: int | None, variance: float | None, room: int) -> PCA:
        """room: bytes that the result may keep for its certificate."""
        state = self._state
        total = state.total()
        check_count(k, variance, len(total.mean))
        if k is not None and k > state.count:
            raise InputError(f"StreamingGram has seen {state.count} samples: expected at least as many as k={k}")
        given = ([total], ["the samples"], k, variance, self.center, state.dtype, room)
        if not self.reproducible:
            return decompose_on(state.device, *given)[0]
        (found,) = limited(PER_THREAD, decompose_on, state.device, *given)
        proof = found._proof
        return found if isinstance(proof, Certificate) else replace(found, _proof=partial(limited, PER_THREAD, proof))


def check_alike(grams: Sequence[StreamingGram], what: str = "batch") -> None:
    """Raises where classes have samples of different kinds."""
    states = sorted((each._state for each in grams if each.count), key=lambda state: state.bytes is None)
    for each in states:
        _check_fits(states[0], each, what)  # whole numbers, which fit both bytes and floats, come last


def _check_fits(old: State, new: State, what: str) -> None:
    """Raises where samples of two kinds do not belong into one accumulator."""
    if old.features != new.features:
        raise ShapeError(f"{what} has {new.features} features: those before had {old.features}; expected as many")
    if None not in (old.bytes, new.bytes) and old.bytes != new.bytes:
        given, before = ("uint8", "floats") if new.bytes else ("floats", "uint8")
        raise InputError(
            f"{what} holds {given}, those before {before}: bytes run from 0 to 255, fractions from 0 to 1; convert "
            "the bytes first, with x.astype('float32'), divided by 255 where the others are fractions"
        )


def check_values(xp: Any, array: Any, what: str) -> float:
    """max|x| of an array. Raises InputError for NaN, infinities and squares that overflow."""
    top = largest(xp, array, what)
    if top > LARGEST:
        raise InputError(f"{what} holds values of {top:.2g}, whose squares overflow float64: scale the samples down")
    return top


def _sums(xp: Any, device: Backend, array: Any, reproducible: bool) -> State:
    """The sums of one batch."""
    if array.dtype == np.uint8:
        exact = moments.exact_sums(xp, array)
        return State(array.shape[1], device, exact, None, True, reproducible=reproducible)
    top, dtype = check_values(xp, array, "batch"), result_dtype(array.dtype)
    if reproducible:
        return State(array.shape[1], device, None, None, _bytes(array), dtype, True, slices(xp, array))
    # A root is kept where squares may hide what the tolerance of the samples' dtype asks for.
    centred = replace(moments.blocks(xp, array, root=bool(dtype == np.float64)), largest=top)
    return State(array.shape[1], device, None, centred, _bytes(array), dtype)


def _bytes(array: Any) -> bool | None:
    """`State.bytes` of a batch that is not uint8."""
    return False if array.dtype.kind == "f" else None


def moved(state: State, device: Backend) -> State:
    """Another's sums, where ours are kept."""
    put = device.asarray if is_gpu(device) else on_host
    exact, centred = state.exact, state.centred
    return replace(state, device=device, exact=exact and exact.moved(put), centred=centred and centred.moved(put))
