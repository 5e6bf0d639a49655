"""Hostile matrices by the hundred thousand at every door of the SVD and PCA engine, each judged by LAPACK in float64.

    python -m tests.linalg.fuzz --cases 100000 --jobs 2        # --seconds 600, --door svd, --seed 1, --json FILE
    python -m tests.linalg.fuzz --case 0:4711                   # one case again: every failure is told with this

A case is a function of (seed, index) alone. It fails as

* SILENT: a result that misses what is promised, by more than `slack` says; that is of another shape, dtype, order or
  sign than documented, or shares memory with the input; an input that was changed; two calls that differ in a bit;
* REFUSAL: an error from method="auto" where LAPACK's float64 result, rounded to the result's dtype, meets the tolerance
  itself; for patches, whose squares are summed: where perfect sums, rounded to float64, would have given it;
* CRASH: an exception that is not gpunet's, a warning, a message of more than one line, or no answer in a minute.

A certificate is SILENT where it is refuted (`tests.linalg.certified`): a singular value outside of its bounds, an angle
above its bound, `complete` where the next singular value is no smaller. How near its bounds are to the truth is told
by door and route.

Judged by normwise backward stability (Higham, Accuracy and Stability of Numerical Algorithms, 2002, ch. 19 and 21):
residual and orthogonality are at most tol = ε (128 + 3 √(k short)), so singular values are right to 2 tol σ₁ (Weyl),
and the span of the j leading vectors to tol σ₁/(σ_j − σ_j+1) (Wedin). Those who return one side alone, as PCA does,
are held to what follows from it: ‖AᵀA v − σ² v‖ ≤ 2 tol σ₁², the values and the spans.

The exit code is 1 when a case failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import re
import signal
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import scipy.sparse
from numpy.lib.stride_tricks import sliding_window_view

import gpunet as gn
from gpunet.backend import get_backend
from gpunet.errors import ConvergenceError, GpunetError, InputError
from gpunet.linalg import StreamingClassGram, StreamingGram, class_pca, svd
from gpunet.linalg.patches import PatchDensities

from .certified import WIDE, Bounds, Reference, lapack, shortened
from .certified import judge as judge_certificate

Found = list[tuple[str, str]]  # (SILENT, REFUSAL or CRASH, what it is)
Certified = list[tuple[list[str], Bounds]]  # of each matrix: what is refuted of its certificate, and how near it is
ROWS = 256  # of a partial sum: few enough that float64 sums them to a few ε
AGAIN = 4  # every so many cases are run twice
PATIENCE = 60  # seconds: a call that takes longer has lost its way
METHODS = ("full", "gram", "subspace", "randomized", "qr")


@dataclass
class Case:
    """One call and what it has to fulfil.

    judge: of what `run` returned, and strictly (without slack) of what `reference` would have. certified: the judgement
    of the certificate of every matrix decomposed. expected: an InputError "must" be raised, "may" be, or may "not".
    forced: a ConvergenceError is an honest answer.
    """

    what: str
    inputs: list[Any]
    run: Callable[[], Any]
    arrays: Callable[[Any], list[Any]] = lambda found: []
    judge: Callable[[Any, bool], Found] = lambda found, strict: []
    certified: Callable[[Any, Any], Certified] = lambda found, certificate: []
    reference: Callable[[], Any] | None = None
    expected: Callable[[], str] = lambda: "not"
    forced: bool = False
    notes: Found = field(default_factory=list)


@dataclass(frozen=True)
class Verdict:
    seed: int
    index: int
    door: str
    what: str
    size: int
    route: str
    seconds: float
    failures: tuple[tuple[str, str], ...]
    bounds: tuple[Bounds, ...] = ()

    def __str__(self) -> str:
        said = "; ".join(f"{kind}: {text}" for kind, text in self.failures) or "passed"
        told = f"{self.door} {self.what} -> {self.route or 'no result'}; {said}"
        return f"tests.linalg.fuzz --case {self.seed}:{self.index}  {told}"


# --- matrices -------------------------------------------------------------------------------------------------------


def _of_spectrum(rng: Any, m: int, n: int, s: Any) -> Any:
    u, v = (np.linalg.qr(rng.standard_normal((rows, len(s))))[0] for rows in (m, n))
    return (u * s) @ v.T


def _kahan(rng: Any, m: int, n: int) -> Any:
    c = rng.uniform(0.1, 0.99)
    return (1 - c * c) ** (0.5 * np.arange(m))[:, None] * (np.eye(m, n) - c * np.triu(np.ones((m, n)), 1))


def _spiked(rng: Any, m: int, n: int) -> Any:
    x = rng.standard_normal((m, n))
    x[rng.integers(m), rng.integers(n)] = 10.0 ** rng.integers(3, 17)
    return x


def _picture(rng: Any, m: int, n: int) -> Any:
    """A flat background with a few things on it."""
    x = np.full((m, n), float(rng.integers(1, 256)))
    x[rng.random((m, n)) < 0.05] = 17
    return x


def _repeated(rng: Any, m: int, n: int) -> Any:
    return _of_spectrum(rng, m, n, np.repeat([3.0, 2.0, 1.0, 0.5], -(-min(m, n) // 4))[: min(m, n)])


def _clustered(rng: Any, m: int, n: int) -> Any:
    near = 1 + 10.0 ** -rng.integers(3, 15) * rng.random(min(m, n))
    return _of_spectrum(rng, m, n, np.sort(rng.choice([1.0, 0.5, 1e-3], min(m, n)) * near)[::-1])


def _symmetric(rng: Any, m: int, n: int) -> Any:
    x, r = rng.standard_normal((m, n)), min(m, n)
    x[:r, :r] += x[:r, :r].T.copy()
    return x


CHEAP: dict[str, Callable[..., Any]] = {
    "noise": lambda rng, m, n: rng.standard_normal((m, n)),
    "mean": lambda rng, m, n: 10.0 ** rng.integers(1, 9) + rng.standard_normal((m, n)) * np.linspace(3, 1, n),
    "constant": lambda rng, m, n: np.full((m, n), rng.choice([0.1, 1.0, 255.0, -3e-5])),
    "integers": lambda rng, m, n: rng.integers(-9, 10, (m, n)).astype(float),
    "picture": _picture,
    "rank one": lambda rng, m, n: np.outer(rng.standard_normal(m), rng.standard_normal(n)),
}
SPECTRA = CHEAP | {
    "flat": lambda rng, m, n: _of_spectrum(rng, m, n, np.ones(min(m, n))),
    "graded": lambda rng, m, n: _of_spectrum(rng, m, n, np.logspace(0, -rng.uniform(1, 16), min(m, n))),
    "low rank": lambda rng, m, n: _of_spectrum(rng, m, n, np.linspace(2, 1, rng.integers(1, min(m, n) + 1))),
    "repeated": _repeated,
    "clustered": _clustered,
    "spiked": _spiked,
    "zero": lambda rng, m, n: np.zeros((m, n)),
    "zero rows": lambda rng, m, n: rng.standard_normal((m, n)) * (rng.random((m, 1)) < 0.5),
    "zero columns": lambda rng, m, n: rng.standard_normal((m, n)) * (rng.random(n) < 0.5),
    "Hilbert": lambda rng, m, n: 1 / (np.arange(m)[:, None] + np.arange(1, n + 1)),
    "Vandermonde": lambda rng, m, n: np.vander(np.linspace(-1, 1, m), n),
    "Kahan": _kahan,
    "triangular": lambda rng, m, n: np.triu(rng.standard_normal((m, n))),
    "identity": lambda rng, m, n: np.eye(m, n),
    "sparse": lambda rng, m, n: rng.standard_normal((m, n)) * (rng.random((m, n)) < 0.1),
    "duplicated": lambda rng, m, n: rng.standard_normal((m, n))[:, rng.integers(0, max(1, n // 2), n)],
    "symmetric": _symmetric,
    "heavy tails": lambda rng, m, n: rng.standard_cauchy((m, n)) ** 3,
}
DTYPES = {
    "float32": 30, "float64": 30, "uint8": 10, "float16": 5, "bool": 3, "int8": 2, "int16": 2, "uint16": 2, "int32": 2,
    "uint32": 2, "int64": 2, "uint64": 2, ">f4": 3, ">f8": 3, ">i2": 2,
}  # fmt: skip


def matrix(rng: Any, m: int, n: int) -> tuple[str, Any]:
    """(name, float64 matrix)."""
    name = str(rng.choice(list(CHEAP if m * n > 400_000 else SPECTRA)))
    return name, SPECTRA[name](rng, m, n)


def _pick(rng: Any, weights: dict[str, Any]) -> str:
    share = np.array([float(w) for w in weights.values()])
    return str(rng.choice(list(weights), p=share / share.sum()))


def rescaled(rng: Any, x: Any, dtype: Any) -> tuple[str, Any]:
    """x as a whole, its rows or its columns multiplied by powers of ten from the range of the float dtype."""
    low, high = {2: (-7, 4), 4: (-44, 38), 8: (-323, 308)}[dtype.itemsize]
    way = _pick(rng, {"": 10, "safe": 4, "edge": 2, "rows": 2, "columns": 2})
    if not way:
        return "", x
    if way in ("safe", "edge"):
        power = (
            rng.uniform(low / 2.2, high / 2.2)
            if way == "safe"
            else rng.choice([low + 1, low * 0.9, high * 0.9, high - 1])
        )
        x, told = _times_power(x, power), f"·1e{power:.0f}"
    else:
        reach = rng.uniform(0, 1) * np.array([low, high]) * 0.9
        power = rng.uniform(*reach, (*x.shape[-2:-1], 1) if way == "rows" else x.shape[-1:])
        x, told = _times_power(x, power), f" {way} ·1e{reach[0]:.0f}…1e{reach[1]:.0f}"
    return told, x


def _times_power(x: Any, power: Any) -> Any:
    with np.errstate(over="ignore", under="ignore"):
        half = 10.0 ** (np.asarray(power) / 2)
        return x * half * half


def as_dtype(rng: Any, x: Any, dtype: Any) -> Any:
    """x in the dtype: floats cut off at its range, integers and bools spread over theirs, rarely beyond 2**53."""
    if dtype.kind == "f":
        top = float(np.finfo(dtype).max)
        with np.errstate(under="ignore"):
            return np.clip(np.nan_to_num(x, nan=0.0, posinf=top, neginf=-top), -top, top).astype(dtype)
    if dtype.kind == "b":
        return x > x.mean()
    top = min(int(np.iinfo(dtype).max), 2**62 if rng.random() < 0.1 else 2**53)
    top = int(rng.integers(1, 10)) if rng.random() < 0.3 else top
    size = np.abs(x).max() or 1.0
    x = x / size * top
    return np.rint(np.abs(x) if dtype.kind == "u" else x).astype(dtype)


def laid_out(rng: Any, a: Any) -> tuple[str, Any]:
    """(name, a as a view of that kind; "zero stride" repeats its first row)."""
    way = _pick(
        rng,
        {"C": 8, "F": 3, "strided": 2, "reversed": 2, "read-only": 2, "inside": 2, "unaligned": 1, "zero stride": 1},
    )
    *lead, m, n = a.shape
    if way == "F":
        a = np.asfortranarray(a)
    elif way == "strided":
        base = np.full((*lead, 2 * m, 3 * n), 77, a.dtype)
        base[..., ::2, ::3] = a
        a = base[..., ::2, ::3]
    elif way == "reversed":
        a = a[..., ::-1, ::-1].copy()[..., ::-1, ::-1]
    elif way == "read-only":
        a = a.copy()
        a.flags.writeable = False
    elif way == "inside":
        base = np.full((*lead, m + 3, n + 2), 77, a.dtype)
        base[..., 2:-1, 1:-1] = a
        a = base[..., 2:-1, 1:-1]
    elif way == "unaligned":
        base = np.zeros(a.nbytes + 1, np.uint8)
        base[1:] = np.frombuffer(a.tobytes(), np.uint8)
        a = base[1:].view(a.dtype).reshape(a.shape)
    elif way == "zero stride":
        a = np.broadcast_to(a[..., :1, :], a.shape)
    return way, a


def _shape(rng: Any) -> tuple[int, int]:
    """(m, n), mostly small; around the sizes where routes change, thin, and rarely large."""
    way = _pick(rng, {"tiny": 26, "small": 30, "switch": 30, "narrow": 6, "one": 5, "long": 1, "large": 2})
    if way == "tiny":
        m, n = rng.integers(1, 10, 2)
    elif way == "small":
        m, n = rng.integers(2, 41, 2)
    elif way == "switch":
        n = int(rng.choice([8, 15, 16, 17, 31, 32, 33, 64, 65, 200], p=[0.12] * 7 + [0.07, 0.07, 0.02]))
        m = max(n, int(n * rng.choice([1, 1, 1.1, 1.6, 2, 4, 15, 16, 17, 33])) + int(rng.integers(-1, 2)))
        m = min(m, max(n, 60_000 // n))
    elif way == "narrow":
        m, n = int(10 ** rng.uniform(2.5, 4.7)), int(rng.integers(1, 13))
    elif way == "one":
        m, n = int(rng.choice([1, 2, 50, 1000, 5000])), 1
    elif way == "long":
        m, n = int(rng.integers(300_000, 1_000_001)), int(rng.integers(1, 4))
    else:
        n = int(rng.choice([200, 257, 400, 1024]))
        m = max(n, min(int(n * rng.choice([1, 1.5, 2, 6])), 1_200_000 // n))
    return (int(n), int(m)) if rng.random() < 0.5 else (int(m), int(n))


def _count(rng: Any, most: int) -> int:
    return int(rng.choice([1, most, rng.integers(1, most + 1), min(most, rng.integers(1, 9)), max(1, most // 30)]))


def _with_nan(rng: Any, a: Any) -> tuple[str, Any]:
    """Sometimes one value of floats is not a number."""
    if a.dtype.kind != "f" or rng.random() > 0.02:
        return "", a
    a = a.copy()
    value = rng.choice([np.nan, np.inf, -np.inf])
    a[tuple(int(rng.integers(n)) for n in a.shape)] = value
    return f" with {value}", a


# --- truth ----------------------------------------------------------------------------------------------------------


def slack(k: int) -> float:
    """What may lie between the tolerance and a residual found here.

    Up to 8 triples the engine measures ‖R‖_F itself, in the data's precision: rounding adds less than half. Beyond, it
    estimates from 8 random signs a row; that is off by a factor of 3 downwards once in millions.
    """
    return 1.5 if k <= 8 else 3.0


def promised(dtype: Any, short: int, k: int) -> float:
    return float(np.finfo(dtype).eps) * (128 + 3 * (k * short) ** 0.5)


def result_dtype(dtype: Any) -> Any:
    small = dtype.itemsize <= 2 if dtype.kind in "iu" else dtype.itemsize <= 4
    return np.dtype(np.float32 if small else np.float64)


def scaled(a: Any) -> tuple[Any, int]:
    """(a · 2⁻ᵉ in float64 with elements up to 1, e)."""
    wide = a.astype(np.float64)
    e = int(np.frexp(np.abs(wide).max(initial=0))[1])
    return np.ldexp(wide, -e), e


def across(x: Any, y: Any) -> Any:
    """Xᵀ Y: partial sums over few rows in float64, those in longdouble, so that no length adds to the rounding."""
    if len(x) <= 8 * ROWS:
        return x.T @ y
    whole = len(x) // ROWS * ROWS
    parts = np.matmul(x[:whole].reshape(-1, ROWS, x.shape[1]).swapaxes(1, 2), y[:whole].reshape(-1, ROWS, y.shape[1]))
    return (parts.sum(axis=0, dtype=np.longdouble) + x[whole:].T @ y[whole:]).astype(np.float64)


def truth(x: Any) -> tuple[Any, Any]:
    """(σ, V (n, r)) of a tall x, in float64."""
    _, s, vt = lapack(shortened(x, ROWS))
    return s, vt.T


def _orthonormal(v: Any) -> Any:
    """Gram–Schmidt of the columns, none of which changes its sign."""
    q, r = np.linalg.qr(v)
    return q * np.where(np.diagonal(r) < 0, -1, 1)


def _signs(v: Any, near: float = 1e-3) -> Any:
    """(k,): of each column's largest element, the first within one part in a thousand of it."""
    size = np.abs(v)
    return np.where(v[np.argmax(size >= (1 - near) * size.max(axis=0), axis=0), np.arange(v.shape[1])] < 0, -1, 1)


def _signs_wrong(v: Any) -> bool:
    """Whether a column's sign is wrong; rounding may decide which elements at the border are within."""
    return bool((np.maximum(_signs(v, 1e-3 - 1e-5), _signs(v, 1e-3 + 1e-5)) < 0).any())


def _beyond(what: str, found: float, allowed: float) -> Found:
    return [] if found <= allowed else [("SILENT", f"{what} {found:.2g}, allowed {allowed:.2g}")]


def judge_triples(b: Any, e: int, k: int, dtype: Any, compute: str, u: Any, s: Any, vt: Any, strict: bool) -> Found:
    """Of one matrix b · 2ᵉ."""
    m, n = b.shape
    wanted = {"u": (u, (m, k), compute != "right"), "s": (s, (k,), True), "vt": (vt, (k, n), compute != "left")}
    for name, (array, shape, there) in wanted.items():
        if (array is not None) != there:
            return [("SILENT", f"{name} is {'missing' if there else 'there'} after compute={compute}")]
        if there and (array.shape, array.dtype) != (shape, dtype):
            return [("SILENT", f"{name} is {array.dtype}{array.shape}, expected {dtype}{shape}")]
        if there and not np.isfinite(array).all():
            return [("SILENT", f"{name} holds NaN or infinity")]
    if k == 0:
        return []
    factor, tol = (1.0 if strict else slack(k)), promised(dtype, min(m, n), k)
    if (np.diff(s) > 0).any() or s[-1] < 0:
        return [("SILENT", f"s is not descending and ≥ 0: {s}")]
    # s itself is rounded where it is denormal
    floor = float(np.ldexp(float(np.finfo(dtype).smallest_subnormal), -e)) * k**0.5
    s = np.ldexp(s.astype(np.float64), -e)
    x, left, right = (b, u, vt) if m >= n else (b.T, vt, u)
    left, right = (None if w is None else w.astype(np.float64) for w in (left, right))
    if m >= n and right is not None:
        right = right.T
    if m < n and left is not None:
        left = left.T
    exact, vectors = truth(x)
    error = factor * tol * exact[0] + floor
    off = np.abs(s - exact[:k]).max()
    failures = _beyond("singular values, over σ₁, are off by", _over(off, exact[0]), _over(2 * error, exact[0]))
    if right is not None and _signs_wrong(right):
        failures.append(("SILENT", "a vector of the shorter side has the wrong sign"))
    for w in (left, right):
        if w is not None:
            failures += _beyond("orthogonality", float(np.linalg.norm(across(w, w) - np.eye(k))), factor * tol)
    if compute == "both":
        residual = max(np.linalg.norm(x @ right - left * s), np.linalg.norm(across(x, left) - right * s))
        failures += _beyond("residual", _over(residual, exact[0]), _over(error, exact[0]))
    elif right is not None:
        failures += judge_side(x, right, s**2, error, tol * factor, exact, vectors)
    else:
        image = x @ vectors  # its rounding, ε σ₁/σ_j, is far below what is allowed
        failures += judge_side(x.T, left, s**2, error, tol * factor, exact, image / np.where(exact > 0, exact, 1))
    return failures


def _over(a: Any, b: Any) -> float:
    return float(a) / (float(b) or 1.0)


def judge_side(a: Any, v: Any, squares: Any, error: float, tol: float, exact: Any, vectors: Any) -> Found:
    """Right singular vectors v (n, k) of a, known to `error` (absolute), and their σ²; true are exact and vectors."""
    top = exact[0] ** 2
    product = across(a, across(a.T, v)) - v * squares
    failures = _beyond(
        "‖AᵀA v − σ² v‖ over σ₁²", _over(np.linalg.norm(product), top), _over(2 * error * (exact[0] + error), top)
    )
    exact = np.append(exact, np.zeros(max(0, len(squares) + 1 - len(exact))))
    for j in sorted({*range(1, min(7, v.shape[1] + 1)), v.shape[1]}):
        gap = exact[j - 1] - exact[j]
        if j < len(v) and j <= vectors.shape[1] and 20 * error < gap:
            w, true = v[:, :j], vectors[:, :j]
            angle = np.linalg.norm(w - true @ across(true, w), 2)
            failures += _beyond(f"span of the {j} leading vectors is off by", float(angle), error / gap + tol)
    return failures


@dataclass
class Samples:
    """The samples of one class, in exact terms: x · 2ᵉ, their mean, and what is decomposed."""

    x: Any
    e: int
    center: bool
    mean_precision: Any = np.float64
    over: int = 1  # x · 2ᵉ are integers over this

    def __post_init__(self) -> None:
        wide = self.x.astype(np.longdouble)
        mean = wide.mean(axis=0)
        self.mean = mean = mean + (wide - mean).mean(axis=0)  # a sum of 10⁵ equal numbers is 10⁻¹⁵ off
        self.part = (wide - mean).astype(np.float64) if self.center else self.x
        # A mean rounded to float64 is what centring can know.
        self.floor = (
            4 * np.finfo(float).eps * float(np.linalg.norm(self.x, axis=1).max()) * len(self.x) ** 0.5 * self.center
        )
        if self.part.shape[0] >= self.part.shape[1]:
            self.exact, self.vectors = truth(self.part)
        else:
            _, self.exact, vt = lapack(self.part)
            self.vectors = vt.T

    @cached_property
    def wide(self) -> Reference:
        """Of the samples themselves in longdouble, less their mean when centred."""
        x, floor = self.x.astype(WIDE), 0.0
        if self.over > 1:
            x = np.ldexp(np.rint(np.ldexp(x, self.e) * self.over) / self.over, -self.e)
        if self.center:
            floor = float(np.abs(x).max()) * len(x) ** 0.5 * 2.0**-100
            for _ in range(3):  # of a sum of n, n 2⁻⁶⁴ is lost
                x = x - x.mean(axis=0)
        return Reference(x, floor)

    def certified(self, found: Any, certificate: Any) -> tuple[list[str], Bounds]:
        """Of the certificate of a PCA whose variances are float64: σ² = count · variance."""
        s = np.sqrt(np.ldexp(found.explained_variance.astype(WIDE), -2 * self.e) * len(self.x))
        sides = [(found.components.T, True)]
        return judge_certificate(self.wide, self.e, certificate, s, sides, found.components.dtype)

    def range(self, margin: int) -> str:
        """Whether the largest variance, and what rounding may make of it, are float64, by `margin` powers of two."""
        both = np.array([self.exact[0], max(self.exact[0], self.floor)])
        _, power = np.frexp(both**2 / len(self.x))
        inside = (margin - 1020 < power + 2 * self.e) & (power + 2 * self.e < 1023 - margin)
        return "not" if (inside | (both == 0)).all() else "may"

    def by_lapack(self, k: int, dtype: Any) -> Any:
        """The best that its own dtype can hold."""
        _, s, vt = np.linalg.svd(self.part, full_matrices=k > min(self.part.shape))
        return self._as_pca(np.append(s, np.zeros(max(0, k - len(s))))[:k] ** 2, vt[:k].astype(dtype).astype(float))

    def by_moments(self, k: int, dtype: Any) -> Any:
        """What exact sums give once they are float64; about the origin from A = [Λ^½ Wᵀ; √n mᵀ], AᵀA = Σ x xᵀ.

        It meets the tolerance only where its residual does: a σ_j below ε σ₁/tol does not show in sums of squares.
        """
        wide = self.x.astype(np.longdouble) - self.mean
        scatter = (wide.T @ wide).astype(np.float64)
        values, w = np.linalg.eigh(scatter)
        values, w = np.maximum(values[::-1], 0), w[:, ::-1]
        tol = promised(dtype, len(scatter), k)
        if self.center:
            return self._as_pca(values[:k], w[:, :k].T, tol)
        rows = np.vstack([np.sqrt(values)[:, None] * w.T, len(self.x) ** 0.5 * self.mean.astype(float)])
        _, s, vt = np.linalg.svd(rows, full_matrices=False)
        return self._as_pca(s[:k] ** 2, vt[:k], tol)

    def _as_pca(self, squares: Any, vectors: Any, residual: float | None = None) -> Any:
        with np.errstate(over="ignore", under="ignore"):
            return SimpleNamespace(
                components=vectors * _signs(vectors.T)[:, None],
                explained_variance=np.ldexp(squares / len(self.x), 2 * self.e),
                explained_variance_ratio=squares / (float((self.exact**2).sum()) or 1.0),
                mean=np.ldexp(self.mean.astype(float), self.e),
                count=len(self.x),
                residual=residual,
            )

    def judge(self, found: Any, k: int | None, variance: float | None, dtype: Any, strict: bool) -> Found:
        """A PCA promised to the precision of `dtype`."""
        count, features = self.x.shape
        v, values = found.components.astype(np.float64), found.explained_variance
        rank = len(v)
        if found.count != count or v.shape != (rank, features) or values.shape != (rank,) or rank != (k or rank):
            return [
                ("SILENT", f"count {found.count}, components {v.shape}, values {values.shape} of {self.x.shape}, k={k}")
            ]
        if not all(np.isfinite(each).all() for each in (v, values, found.explained_variance_ratio, found.mean)):
            return [("SILENT", "PCA holds NaN or infinity")]
        factor, tol = (1.0 if strict else slack(rank)), promised(dtype, features, rank)
        with np.errstate(over="ignore"):
            tiny = float(np.ldexp(np.finfo(float).smallest_subnormal * count, -2 * self.e))
        squares = np.ldexp(values, -2 * self.e) * count
        error = factor * tol * self.exact[0] + self.floor
        failures = []
        if (np.diff(values) > 0).any() or values[-1] < 0:
            failures.append(("SILENT", f"explained_variance is not descending and ≥ 0: {values}"))
        if self.exact[0] > self.floor and not values[0]:
            return [("SILENT", "explained_variance is 0: it lies below float64's range, which is not said")]
        failures += _beyond("orthogonality", float(np.linalg.norm(v @ v.T - np.eye(rank))), factor * tol)
        if _signs_wrong(v.T):
            failures.append(("SILENT", "a component has the wrong sign"))
        wide = 2 * error * (self.exact[0] + error) + tiny
        exact = np.append(self.exact, np.zeros(max(0, rank - len(self.exact)))) ** 2
        failures += _beyond(
            "explained_variance, over the largest, is off by",
            _over(np.abs(squares - exact[:rank]).max(), exact[0]),
            _over(wide, exact[0]),
        )
        failures += judge_side(self.part, v.T, squares, error + tiny**0.5, factor * tol, self.exact, self.vectors)
        mean_error = np.abs(np.ldexp(found.mean.astype(np.float64), -self.e) - self.mean.astype(float))
        failures += _beyond(
            "mean, over the largest element, is off by",
            _over(mean_error.max(), np.abs(self.x).max()),
            promised(self.mean_precision, features, 1) + float(np.ldexp(np.finfo(float).smallest_subnormal, -self.e)),
        )
        total = float(exact.sum())
        if total**0.5 > 10 * self.floor:
            share = np.cumsum(exact) / total
            unsure = 3 * wide * rank / total + 1e-12
            failures += _beyond(
                "explained_variance_ratio is off by",
                float(np.abs(found.explained_variance_ratio - exact[:rank] / total).max()),
                unsure,
            )
            if variance is not None and (
                share[rank - 1] < variance - unsure or (rank > 1 and share[rank - 2] > variance + unsure)
            ):
                failures.append(("SILENT", f"{rank} components explain {share[rank - 1]:.6g}, asked were {variance}"))
        if found.residual is not None:
            unsure = tiny**0.5 + self.floor + (0 if strict else 16 * np.finfo(float).eps * self.exact[0])
            failures += self._judge_residual(found.residual, v.T, squares, unsure)
        return failures

    def _judge_residual(self, said: float, v: Any, squares: Any, unsure: float) -> Found:
        """Whether with some unit u_j all of ‖X v_j − σ_j u_j‖ and ‖Xᵀu_j − σ_j v_j‖ are at most what is said, over σ₁.

        As `gpunet.linalg.PCA` has it. u_j: X v_j, with or without what it shares with those before, or where
        σ_j vanishes any orthogonal to X's range. v is made orthonormal to float64: its own orthogonality is another
        promise.
        """
        top, s, x = self.exact[0], np.sqrt(squares), shortened(self.part, 16)
        if top <= 10 * self.floor:
            return []
        v = _orthonormal(v)
        image = x @ v
        size = np.linalg.norm(image, axis=0)
        wrong = size + s
        for u in (_orthonormal(image), image / np.where(size > 0, size, 1)):
            wrong = np.minimum(
                wrong, np.maximum(*(np.linalg.norm(w, axis=0) for w in (image - u * s, x.T @ u - v * s)))
            )
        return _beyond("residual is told too small: it is", float(wrong.max() - unsure) / top, slack(len(s)) * said)


# --- doors ----------------------------------------------------------------------------------------------------------


def _drawn(rng: Any, shape: tuple[int, int], lead: tuple[int, ...] = ()) -> tuple[str, Any]:
    """A matrix, or a stack of as many different ones, in some dtype and layout."""
    dtype = np.dtype(_pick(rng, DTYPES))
    names, parts = [], []
    for _ in range(int(np.prod(lead, dtype=int))):
        name, x = matrix(rng, *shape)
        told, x = rescaled(rng, x, dtype) if dtype.kind == "f" else ("", x)
        names.append(name + told)
        parts.append(as_dtype(rng, x, dtype))
    a = np.stack(parts).reshape(*lead, *shape)
    bad, a = _with_nan(rng, a)
    layout, a = laid_out(rng, a)
    told = ", ".join(names[:3]) + ", …" * (len(names) > 3)
    return f"{'×'.join(map(str, a.shape))} {dtype.str} {layout} ({told}{bad})", a


def _svd_case(rng: Any, shape: tuple[int, int], lead: tuple[int, ...]) -> Case:
    what, a = _drawn(rng, shape, lead)
    m, n = shape
    k = None if rng.random() < 0.4 else 0 if rng.random() < 0.01 else _count(rng, min(m, n))
    compute = _pick(rng, {"both": 7, "left": 1.5, "right": 1.5})
    method = "auto" if rng.random() < 0.75 else str(rng.choice(METHODS))
    settings = {"compute": compute, "method": method} | ({"certify": True} if rng.random() < 0.3 else {})
    dtype, flat = result_dtype(a.dtype), a.reshape(-1, m, n)
    many = min(m, n) if k is None else k
    finite = bool(np.isfinite(a).all())
    truths = [scaled(one) for one in flat] if finite else []

    def judge(found: Any, strict: bool) -> Found:
        shaped = [
            None if w is None else w.reshape(len(flat), *w.shape[len(lead) :]) for w in (found.u, found.s, found.vt)
        ]
        failures: Found = []
        for i, (b, e) in enumerate(truths):
            sides = "both" if strict else compute  # an engine that asks for both sides' residual refuses rightly
            one = judge_triples(b, e, many, dtype, sides, *(None if w is None else w[i] for w in shaped), strict)
            failures += [(kind, f"[{i}] {text}" if lead else text) for kind, text in one]
            if failures:
                break
        return failures

    def certified(found: Any, certificate: Any) -> Certified:
        found_all = []
        for i, (b, e) in enumerate(truths if many else ()):
            u, s, vt = (
                None if w is None else w.reshape(len(flat), *w.shape[len(lead) :])[i]
                for w in (found.u, found.s, found.vt)
            )
            sides = [(w, right) for w, right in ((u, False), (None if vt is None else vt.T, True)) if w is not None]
            own = [np.reshape(part, (len(flat), *np.shape(part)[len(lead) :]))[i] for part in certificate]
            found_all.append(judge_certificate(Reference(b), e, own, np.ldexp(s.astype(WIDE), -e), sides, dtype))
        return found_all

    def reference() -> Any:
        sides = [[], [], []]
        for b, e in truths:
            u, s, vt = lapack(b)
            signs = _signs(vt.T if m >= n else u)[:many]
            with np.errstate(over="ignore", under="ignore"):
                for side, each in zip(
                    sides, (u[:, :many] * signs, np.ldexp(s[:many], e), vt[:many] * signs[:, None]), strict=True
                ):
                    side.append(each.astype(dtype))
        u, s, vt = (np.stack(side).reshape(*lead, *side[0].shape) for side in sides)
        return SimpleNamespace(u=u, s=s, vt=vt)

    def expected() -> str:
        if not finite:
            return "must" if many else "may"
        if a.dtype.kind in "iu" and max(abs(int(a.min())), int(a.max())) > 2**53:
            return "must"
        top = float(np.finfo(dtype).max) / (1 + promised(dtype, min(m, n), many))
        near = [(b, e) for b, e in truths if e + np.log2(m * n) / 2 >= np.finfo(dtype).maxexp - 1]
        return "may" if any(lapack(b, False)[0] >= np.ldexp(top, -e) for b, e in near) else "not"

    return Case(
        f"{what} k={k} {compute} {method}{' certify' * ('certify' in settings)}", [a], lambda: svd(a, k, **settings),
        lambda found: [w for w in (found.u, found.s, found.vt) if w is not None],
        judge, certified, reference, expected, method != "auto",
    )  # fmt: skip


def svd_door(rng: Any) -> Case:
    return _svd_case(rng, _shape(rng), ())


def stack_door(rng: Any) -> Case:
    most = int(rng.choice([4, 12, 40, 130], p=[0.4, 0.4, 0.15, 0.05]))
    shape = tuple(int(n) for n in rng.integers(1, most, 2))
    return _svd_case(rng, shape, tuple(int(n) for n in rng.integers(1, 3 if most > 12 else 5, rng.integers(1, 4))))


def _classes(rng: Any, dtype: Any) -> tuple[str, Any, Any, Any]:
    """(what, x (n, features), labels (n,)): ragged classes, some of another size or far from the others."""
    way = _pick(rng, {"small": 80, "long": 4, "wide": 10, "medium": 6})
    fewest, widest, most = {
        "small": (1, 25, 60),
        "long": (1, 5, 60_000),
        "wide": (20, 120, 15),
        "medium": (30, 100, 300),
    }[way]
    features = int(rng.integers(fewest, widest))
    counts = rng.integers(1, most, rng.integers(1, 4))
    names, parts = [], []
    for count in counts.tolist():
        name, x = matrix(rng, count, features)
        told = ""
        if dtype.kind == "f":
            told, x = rescaled(rng, x, dtype)
            if rng.random() < 0.25:
                far = 10.0 ** rng.uniform(0, 7)
                x, told = x + far * rng.standard_normal(features), f"{told} + 1e{np.log10(far):.0f}"
        names.append(name + told)
        parts.append(as_dtype(rng, x, dtype))
    labels = np.repeat(rng.choice(20, len(counts), replace=False) - 5, counts)
    order = rng.permutation(len(labels)) if rng.random() < 0.7 else np.arange(len(labels))
    bad, x = _with_nan(rng, np.concatenate(parts)[order])
    layout, x = laid_out(rng, x)
    return f"{'+'.join(map(str, counts))}×{features} {dtype.str} {layout} ({', '.join(names)}{bad})", x, labels[order]


def _settings(rng: Any, most: int) -> tuple[int | None, float | None, bool]:
    """(k, variance, center)."""
    center = bool(rng.random() < 0.5)
    if rng.random() < 0.3:
        return None, float(rng.choice([0.5, 0.9, 0.98, 1.0, rng.random() + 1e-9])), center
    return _count(rng, most), None, center


def _by_class(x: Any, labels: Any, *settings: Any) -> Callable[[], dict[int, Samples]]:
    """The samples of each class, prepared once they are asked for (finite ones are)."""
    return cache(lambda: {c: Samples(*scaled(x[labels == c]), *settings) for c in np.unique(labels).tolist()})


def _judge_classes(truths: Any, k: Any, variance: Any, dtype: Any, held: Any) -> Callable[[Any, bool], Found]:
    """Of a ClassPCA whose arrays are `held` in a dtype and promised to the precision of another."""

    def judge(found: Any, strict: bool) -> Found:
        known = truths()
        if found.classes.tolist() != sorted(known):
            return [("SILENT", f"classes {found.classes.tolist()}, expected {sorted(known)}")]
        if found.components.dtype != held and not strict:
            return [("SILENT", f"components are {found.components.dtype}, expected {held}")]
        failures: Found = []
        for i, label in enumerate(found.classes.tolist()):
            rank = int(found.ranks[i])
            if found.components[i, rank:].any() or found.explained_variance[i, rank:].any():
                failures.append(("SILENT", f"class {label}: rows beyond its rank are not zero"))
            one = SimpleNamespace(
                components=found.components[i, :rank], explained_variance=found.explained_variance[i, :rank],
                explained_variance_ratio=found.explained_variance_ratio[i, :rank], mean=found.mean[i],
                count=found.counts[i], residual=found.residual,
            )  # fmt: skip
            failures += [
                (kind, f"class {label}: {text}") for kind, text in known[label].judge(one, k, variance, dtype, strict)
            ]
        return failures

    return judge


def _certified_classes(truths: Any) -> Callable[[Any, Any], Certified]:
    """Of a ClassPCA, whose certificates are (C, …)."""

    def certified(found: Any, certificate: Any) -> Certified:
        sigma, *others = certificate
        return [
            truths()[label].certified(
                SimpleNamespace(
                    components=found.components[i, :rank], explained_variance=found.explained_variance[i, :rank]
                ),
                (sigma[i, :rank], *(part[i] for part in others)),
            )
            for i, (label, rank) in enumerate(zip(found.classes.tolist(), found.ranks.tolist(), strict=True))
        ]

    return certified


def _reference(one: Samples, k: int | None, variance: Any, way: str, dtype: Any) -> Any:
    """What `Samples.by_lapack` or `by_moments` give: k components, or those of the share `variance`."""
    shares = np.cumsum(one.exact**2) / (float((one.exact**2).sum()) or 1.0)
    rank = k or min(int(np.searchsorted(shares, variance * (1 - 1e-12))) + 1, one.x.shape[1], len(shares))
    return getattr(one, way)(rank, dtype)


def _reference_classes(truths: Any, *asked: Any) -> Callable[[], Any]:
    return lambda: _together(sorted(truths()), [_reference(one, *asked) for _, one in sorted(truths().items())])


def _together(classes: list[int], parts: list[Any]) -> Any:
    ranks = np.array([len(p.components) for p in parts])
    most = ranks.max()

    def padded(name: str) -> Any:
        arrays = [getattr(p, name) for p in parts]
        return np.stack([np.pad(a, [(0, most - len(a))] + [(0, 0)] * (a.ndim - 1)) for a in arrays])

    return SimpleNamespace(
        classes=np.array(classes), ranks=ranks, components=padded("components"),
        residual=None if parts[0].residual is None else min(p.residual for p in parts),
        explained_variance=padded("explained_variance"), explained_variance_ratio=padded("explained_variance_ratio"),
        mean=np.stack([p.mean for p in parts]), counts=np.array([p.count for p in parts]),
    )  # fmt: skip


def _range(x: Any, truths: Any, margin: int = 60, more: bool = False) -> Callable[[], str]:
    """Whether an InputError is due: for values that are not finite, or variances beyond float64.

    margin: sums of squares may be refused where their digits, or 2²⁴ samples together, would leave the range.
    """

    def expected() -> str:
        if not np.isfinite(x).all() or (x.dtype.kind in "iu" and max(abs(int(x.min())), int(x.max())) > 2**53):
            return "must"
        if margin and np.abs(x.astype(np.float64)).max() > 2.0**500:
            return "may"  # values that sums of squares refuse by themselves
        return "must" if more else "may" if any(one.range(margin) == "may" for one in truths().values()) else "not"

    return expected


def _pca_arrays(found: Any) -> list[Any]:
    return [getattr(found, name) for name in ("components", "explained_variance", "explained_variance_ratio", "mean")]


def class_pca_door(rng: Any) -> Case:
    what, x, labels = _classes(rng, np.dtype(_pick(rng, DTYPES)))
    least = min(np.unique(labels, return_counts=True)[1].min(), x.shape[1])
    k, variance, center = _settings(rng, least)
    if k and rng.random() < 0.03:
        k = int(least) + 1
    truths, dtype = _by_class(x, labels, center), result_dtype(x.dtype)
    return Case(
        f"{what} k={k} variance={variance} center={center}", [x, labels],
        lambda: class_pca(x, labels, k, variance=variance, center=center), _pca_arrays,
        _judge_classes(truths, k, variance, dtype, dtype), _certified_classes(truths),
        _reference_classes(truths, k, variance, "by_lapack", dtype),
        _range(x, truths, 0, k is not None and k > least),
    )  # fmt: skip


def _batches(rng: Any, n: int) -> list[slice]:
    cuts = np.unique(rng.integers(0, n + 1, rng.integers(0, 5)))
    return [slice(a, b) for a, b in zip([0, *cuts], [*cuts, n], strict=True)]


def _refused_batch(rng: Any, sums: Any, state: Callable[[Any], bytes], good: Any, *labels: Any) -> Found:
    """A batch that cannot be taken, now and then: it is refused whole, and changes nothing."""
    if len(good) < 1 or rng.random() > 0.1:
        return []
    if rng.random() < 0.5:
        bad = good.astype(np.float64)
        bad[-1, -1] = np.nan
    else:
        bad = np.hstack([good, good[:, :1]])
    before = state(sums)
    try:
        sums.update(bad, *labels)
    except InputError:
        return [] if state(sums) == before else [("SILENT", "a batch that was refused left something behind")]
    return [("SILENT", "a batch with NaN, or of another width, was taken")]


def streaming_door(rng: Any) -> Case:
    what, x, _ = _classes(rng, np.dtype(_pick(rng, DTYPES)))
    k, variance, center = _settings(rng, min(x.shape))
    truths = _by_class(x, np.zeros(len(x), int), center)
    parts, merged, again = _batches(rng, len(x)), bool(rng.random() < 0.4), int(rng.integers(2**31))
    reproducible = bool(rng.random() < 0.4)
    notes: Found = []

    def state(sums: Any) -> bytes:
        return sums.mean.tobytes() + bytes(sums.count)

    def run() -> Any:
        sums, other = (StreamingGram(center=center, reproducible=reproducible) for _ in range(2))
        chance = np.random.default_rng(again)
        for i, part in enumerate(parts):
            target = other if merged and i % 2 else sums
            target.update(x[part])
            if target.count:
                notes.extend(_refused_batch(chance, target, state, x[part]))
        sums.merge(other)
        if other.count:
            before = state(other)
            other.mean[:] = 0
            sums.update(x[:0])
            if state(other) != before:
                notes.append(("SILENT", "mean is the state itself"))
        try:
            sums.gram()[:] = 0
            sums.mean[:] = 0
            gram = sums.gram()
        except InputError:  # its true value may lie beyond float64 where the components do not
            gram = None
        found = sums.components(k, variance=variance)
        return SimpleNamespace(**vars(found), gram=gram)

    def judge(found: Any, strict: bool) -> Found:
        (one,) = truths().values()
        failures = one.judge(found, k, variance, result_dtype(x.dtype), strict)
        if not strict and found.components.dtype != np.float64:
            failures.append(("SILENT", f"components are {found.components.dtype}, expected float64"))
        return failures if strict else failures + _judge_gram(one, found.gram)

    return Case(
        f"{what} in {len(parts)}{' merged' if merged else ''} k={k} variance={variance} center={center}"
        f"{' reproducible' if reproducible else ''}", [x], run,
        lambda found: [*_pca_arrays(found), *([] if found.gram is None else [found.gram])], judge,
        lambda found, certificate: [truths()[0].certified(found, certificate)],
        lambda: _reference(truths()[0], k, variance, "by_lapack", result_dtype(x.dtype)), _range(x, truths),
        notes=notes,
    )  # fmt: skip


def _judge_gram(one: Samples, gram: Any) -> Found:
    """Σ x xᵀ (centred) to 1e-12 of its largest element, but for the rounding of the mean."""
    wide = one.x.astype(np.longdouble) - (one.mean if one.center else 0)
    exact = (wide.T @ wide).astype(np.float64)
    power = np.frexp(np.abs(exact).max())[1] + 2 * one.e
    inside = -960 < power < 960 or not exact.any()
    if gram is None:
        return [] if not inside else [("REFUSAL", "gram() raises where its values are float64s")]
    if not np.isfinite(gram).all():
        return [("SILENT", "gram() holds NaN or infinity")]
    if not inside:
        return []
    error = np.abs(np.ldexp(gram, -2 * one.e) - exact).max()
    return _beyond(
        "gram() is off by, over its largest element,",
        _over(error, exact.max()),
        _over(1e-12 * exact.max() + one.floor**2, exact.max()),
    )


def streaming_class_door(rng: Any) -> Case:
    what, x, labels = _classes(rng, np.dtype(_pick(rng, DTYPES)))
    least = min(np.unique(labels, return_counts=True)[1].min(), x.shape[1])
    k, variance, center = _settings(rng, least)
    truths = _by_class(x, labels, center)
    parts, merged, again = _batches(rng, len(x)), bool(rng.random() < 0.4), int(rng.integers(2**31))
    reproducible = bool(rng.random() < 0.4)
    notes: Found = []

    def state(sums: Any) -> bytes:
        return repr([(c, g.count, g.mean.tobytes()) for c, g in sorted(sums.classes.items())]).encode()

    def run() -> Any:
        sums, other = (StreamingClassGram(center=center, reproducible=reproducible) for _ in range(2))
        chance = np.random.default_rng(again)
        for i, part in enumerate(parts):
            if part.start < part.stop:
                target = other if merged and i % 2 else sums
                target.update(x[part], labels[part])
                notes.extend(_refused_batch(chance, target, state, x[part], labels[part]))
        return sums.merge(other).components(k, variance=variance)

    return Case(
        f"{what} in {len(parts)}{' merged' if merged else ''} k={k} variance={variance} center={center}"
        f"{' reproducible' if reproducible else ''}",
        [x, labels], run, _pca_arrays, _judge_classes(truths, k, variance, result_dtype(x.dtype), np.float64),
        _certified_classes(truths),
        _reference_classes(truths, k, variance, "by_lapack", result_dtype(x.dtype)), _range(x, truths), notes=notes,
    )  # fmt: skip


def _images(rng: Any, odd: bool = False) -> tuple[str, Any, Any, int, int]:
    """(what, images (n, channels, rows, columns), labels, kernel, padding)."""
    kernel, padding = int(rng.choice([1, 3] if odd else [1, 2, 3])), int(rng.integers(0, 2))
    dtype = np.dtype(str(rng.choice(["uint8", "float32", "float64"], p=[0.4, 0.5, 0.1])))
    channels, rows, columns = int(rng.integers(1, 4)), *(int(n) for n in rng.integers(kernel, 9, 2))
    parts, labels, names = [], [], []
    for label in range(int(rng.integers(1, 4))):
        count = int(rng.integers(2, 20))
        name, x = matrix(rng, count, channels * rows * columns)
        told = ""
        if dtype.kind == "f":
            told, x = rescaled(rng, x, np.dtype(np.float32))
            x, told = (x + 10.0 ** rng.uniform(0, 5), told + " + far") if rng.random() < 0.25 else (x, told)
        names.append(name + told)
        parts.append(as_dtype(rng, x, dtype).reshape(count, channels, rows, columns))
        labels += [label] * count
    order = rng.permutation(len(labels))
    bad, x = _with_nan(rng, np.concatenate(parts)[order])
    what = f"{'×'.join(map(str, x.shape))} {dtype.str} kernel={kernel} padding={padding} ({', '.join(names)}{bad})"
    return what, x, np.array(labels)[order], kernel, padding


def _patches(images: Any, kernel: int, padding: int) -> Any:
    x = np.pad(images, [(0, 0), (0, 0), (padding, padding), (padding, padding)])
    views = sliding_window_view(x, (kernel, kernel), axis=(2, 3)).transpose(0, 2, 3, 1, 4, 5)
    return views.reshape(-1, x.shape[1] * kernel**2)


def _patch_case(rng: Any, what: str, x: Any, labels: Any, kernel: int, padding: int, run: Any) -> Case:
    variance, center = float(rng.choice([0.5, 0.9, 0.98, 1.0])), bool(rng.random() < 0.5)
    bytes_ = x.dtype == np.uint8
    rows = _patches(x, kernel, padding)
    whose, over = np.repeat(labels, len(rows) // len(x)), 255 if bytes_ else 1
    truths = _by_class(rows / over, whose, center, np.float32, over)
    return Case(
        f"{what} variance={variance} center={center}", [x, labels],
        lambda: run(x, labels, variance, center), _pca_arrays,
        _judge_classes(truths, None, variance, np.float32, np.float64), _certified_classes(truths),
        _reference_classes(truths, None, variance, "by_moments", np.float32), _range(x, truths),
    )  # fmt: skip


def patches_door(rng: Any) -> Case:
    what, x, labels, kernel, padding = _images(rng)
    cuts = _batches(rng, len(x))

    def run(x: Any, labels: Any, variance: float, center: bool) -> Any:
        sums = PatchDensities(get_backend("numpy"), kernel, padding)
        for part in cuts:
            if part.start < part.stop:
                sums.update(x[part], labels[part])
        return sums.components(variance=variance, center=center)

    return _patch_case(rng, what, x, labels, kernel, padding, run)


def fit_door(rng: Any) -> Case:
    what, x, labels, kernel, padding = _images(rng, odd=True)
    if rng.random() < 0.5:
        x = x.reshape(len(x), -1)
        layer, rows, kernel, padding = (lambda: gn.Dense(3)), x[:, :, None, None], 1, 0
    else:
        layer, rows = (lambda: gn.Conv2D(3, kernel, padding="same" if padding and kernel == 3 else "valid")), x
        padding = int(bool(padding and kernel == 3))

    def run(_: Any, labels: Any, variance: float, center: bool) -> Any:
        return gn.fit_class_pca(layer(), x, labels, variance=variance, center=center, device="numpy").pca

    return _patch_case(
        rng, f"{'Dense' if kernel == 1 and x.ndim == 2 else 'Conv2D'} {what}", rows, labels, kernel, padding, run
    )


REFUSED: dict[str, Callable[[Any], Any]] = {
    "masked": lambda x: np.ma.masked_greater(x, 1.0),
    "sparse": scipy.sparse.csr_array,
    "longdouble": lambda x: x.astype(np.longdouble),
    "complex": lambda x: x + 1j,
    "object": lambda x: x.astype(object),
    "text": lambda x: x.astype(str),
    "dates": lambda x: x.astype("M8[s]"),
    "one axis": lambda x: x[0],
    "empty": lambda x: x[:, :0],
    "NaN": lambda x: np.where(x == x.max(), np.nan, x),
}
REFUSING: dict[str, Callable[[Any, Any], Any]] = {
    "svd": lambda x, y: svd(x),
    "class_pca": lambda x, y: class_pca(x, y, 1),
    "StreamingGram": lambda x, y: StreamingGram().update(x),
    "StreamingClassGram": lambda x, y: StreamingClassGram().update(x, y),
    "Dense.fit": lambda x, y: gn.fit_class_pca(gn.Dense(2), x, y, variance=0.9, device="numpy"),
}


def refused_door(rng: Any) -> Case:
    kind, door = str(rng.choice(list(REFUSED))), str(rng.choice(list(REFUSING)))
    x = REFUSED[kind](rng.standard_normal((int(rng.integers(4, 12)), int(rng.integers(2, 6)))))
    labels = np.arange(x.shape[0]) % 2
    return Case(f"{kind} at {door}", [], lambda: REFUSING[door](x, labels), expected=lambda: "must")


DOORS: dict[str, tuple[float, Callable[[Any], Case]]] = {
    "svd": (52, svd_door), "stack": (12, stack_door), "class_pca": (13, class_pca_door),
    "streaming": (8, streaming_door), "streaming_class": (4, streaming_class_door), "image_patches": (4, patches_door),
    "fit": (5, fit_door), "refused": (2, refused_door),
}  # fmt: skip


# --- running --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def impatient() -> Iterator[None]:
    """Raises TimeoutError after PATIENCE."""

    def late(*_: Any) -> None:
        raise TimeoutError(f"no answer in {PATIENCE} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def examine(seed: int, index: int, door: str | None = None) -> Verdict | None:
    """Run and judge one case; None where it is another door's."""
    rng = np.random.default_rng((seed, index))
    chosen = _pick(rng, {name: weight for name, (weight, _) in DOORS.items()})
    if door not in (None, chosen):
        return None
    case = DOORS[chosen][1](rng)
    before = [x.tobytes() for x in case.inputs]
    failures: Found = []
    began, error, found, certificate, again = time.perf_counter(), None, None, None, None
    with warnings.catch_warnings(), impatient():
        warnings.simplefilter("error")
        try:
            found = case.run()
            certificate = certificate_of(found)
            seconds = time.perf_counter() - began
            again = case.run() if index % AGAIN == 0 else None
        except Exception as raised:
            error, seconds = raised, time.perf_counter() - began
    bounds: list[Bounds] = []
    if error is not None:
        failures += _judge_error(case, error)
        route = type(error).__name__
    else:
        failures += _judge_found(case, found, again)
        for refuted, each in [] if certificate is None else case.certified(found, certificate):
            failures += [("SILENT", f"certificate: {text}") for text in refuted]
            bounds.append(each)
        route = getattr(found, "route", "done") + (" after others" if getattr(found, "rejected", ()) else "")
    if [x.tobytes() for x in case.inputs] != before:
        failures.append(("SILENT", "the input was changed"))
    size = sum(int(x.size) for x in case.inputs[:1])
    failures = list(dict.fromkeys([*failures, *case.notes]))
    return Verdict(seed, index, chosen, case.what, size, route, seconds, tuple(failures), tuple(bounds))


def certificate_of(found: Any) -> Any:
    """(σ's bounds, sine, complete, what none beyond k exceeds), or None of what has none."""
    given = getattr(found, "certificate", None) if getattr(found, "route", "") != "none" else None
    return None if given is None else (given.sigma, given.sine, given.complete, given.beyond)


def _judge_found(case: Case, found: Any, again: Any) -> Found:
    if case.expected() == "must":
        return [("SILENT", "no error where one is due")]
    failures = case.judge(found, False)
    arrays = case.arrays(found)
    if any(np.may_share_memory(a, x) and np.shares_memory(a, x) for a in arrays for x in case.inputs):
        failures.append(("SILENT", "a result shares memory with the input"))
    if again is not None and _bits(arrays, found) != _bits(case.arrays(again), again):
        failures.append(("SILENT", "two calls differ"))
    return failures


def _bits(arrays: list[Any], found: Any) -> list[bytes]:
    return [np.asarray(a).tobytes() for a in (*arrays, *(certificate_of(found) or ()))]


def _judge_error(case: Case, error: Exception) -> Found:
    text = str(error)
    if not isinstance(error, GpunetError):
        return [("CRASH", f"{type(error).__name__}: {text}".splitlines()[0])]
    if "\n" in text:
        return [("CRASH", f"a message of {len(text.splitlines())} lines: {text.splitlines()[0]}")]
    if isinstance(error, InputError):
        return [] if case.expected() != "not" else [("REFUSAL", f"{type(error).__name__}: {text}")]
    if not isinstance(error, ConvergenceError):
        return [("CRASH", f"{type(error).__name__}: {text}")]
    if case.forced or case.expected() == "may":
        return []
    if case.expected() == "must":
        return [("CRASH", f"ConvergenceError where an InputError is due: {text}")]
    assert case.reference is not None
    return [] if case.judge(case.reference(), True) else [("REFUSAL", f"ConvergenceError: {text}")]


def verdicts(
    cases: int, seed: int, *, seconds: float = np.inf, door: str | None = None, jobs: int = 1
) -> Iterator[Verdict]:
    """Of the cases 0 … cases − 1 of a seed, in any order where several processes work; fewer where time runs out."""
    until = time.monotonic() + seconds
    wanted = ((seed, index, door) for index in range(cases))
    if jobs == 1:
        for each in wanted:
            if time.monotonic() > until:
                return
            if (verdict := examine(*each)) is not None:
                yield verdict
        return
    with multiprocessing.Pool(jobs) as pool:
        for verdict in pool.imap_unordered(_examine, wanted, chunksize=16):
            if verdict is not None:
                yield verdict
            if time.monotonic() > until:
                return


def _examine(case: tuple[int, int, str | None]) -> Verdict | None:
    return examine(*case)


def classes_of_failures(failed: list[Verdict]) -> list[tuple[str, int, Verdict]]:
    """(class, cases, the smallest of them), most frequent first: failures that differ only in their numbers."""
    found: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in failed:
        for kind, text in verdict.failures:
            plain = re.sub(r"-?\d[\d.]*(e[-+]?\d+)?|nan|inf\b|\[.*?\]", "#", text)
            found[f"{kind} {verdict.door}: {plain[:120]}"].append(verdict)
    smallest = ((name, len(them), min(them, key=lambda v: v.size)) for name, them in found.items())
    return sorted(smallest, key=lambda each: -each[1])


def summary(done: list[Verdict], seconds: float) -> dict[str, Any]:
    failed = [v for v in done if v.failures]
    routes: dict[str, Counter[str]] = defaultdict(Counter)
    for v in done:
        routes[v.door][v.route] += 1
    return {
        "cases": len(done),
        "seconds": round(seconds, 1),
        "engine_seconds": round(sum(v.seconds for v in done), 1),
        "failed": {kind: sum(kind in dict(v.failures) for v in failed) for kind in ("SILENT", "REFUSAL", "CRASH")},
        "classes": [{"class": name, "cases": n, "smallest": str(v)} for name, n, v in classes_of_failures(failed)],
        "routes": {door: dict(counted.most_common()) for door, counted in routes.items()},
        "certificates": certificates(done),
        "slowest": [f"{v.seconds:.2f} s  {v}" for v in sorted(done, key=lambda v: -v.seconds)[:5]],
    }


def certificates(done: list[Verdict]) -> dict[str, dict[str, Any]]:
    """Of all, every door and every route: how many, and how near to the truth they are (`certified.Bounds`)."""
    told: dict[str, list[Bounds]] = defaultdict(list)
    for v in done:
        for name in ("all", v.door, f"{v.door}, {v.route}"):
            told[name] += v.bounds
    return {name: _nearness(each) for name, each in sorted(told.items(), key=lambda item: -len(item[1])) if each}


def _nearness(bounds: list[Bounds]) -> dict[str, Any]:
    found: dict[str, Any] = {"judged": len(bounds), "by LAPACK": sum(b.by == "lapack" for b in bounds)}
    for name in ("sigma", "sine"):
        ratios = np.array([r for b in bounds if (r := getattr(b, name)) is not None])
        if len(ratios):
            median, high = np.quantile(ratios, [0.5, 0.9], method="higher")
            found[name] = {"median": _short(median), "90 %": _short(high), "inf": _short(np.isinf(ratios).mean())}
    return found | {"complete": _short(np.mean([b.complete for b in bounds]))}


def _short(number: Any) -> float:
    return float(f"{number:.3g}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=1000, help="how many, from index 0")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=np.inf, help="stop after so long")
    parser.add_argument("--door", choices=list(DOORS), help="only this one's cases")
    parser.add_argument("--jobs", type=int, default=1, help="processes; set OPENBLAS_NUM_THREADS=1 beside it")
    parser.add_argument("--case", metavar="SEED:INDEX", help="one case alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the summary, and a line for every failed case")
    asked = parser.parse_args(arguments)
    if asked.cases < 1 or asked.jobs < 1:
        parser.error(f"--cases is {asked.cases}, --jobs is {asked.jobs}: expected at least 1")
    if asked.case:
        if not re.fullmatch(r"\d+:\d+", asked.case):
            parser.error(f"--case is {asked.case!r}: expected SEED:INDEX, as a failure is told, say 0:4711")
        seed, index = (int(part) for part in asked.case.split(":"))
        done = [v for v in (examine(seed, index),) if v is not None]
        print(done[0])
        return int(bool(done[0].failures))
    began, done = time.monotonic(), []
    for verdict in verdicts(asked.cases, asked.seed, seconds=asked.seconds, door=asked.door, jobs=asked.jobs):
        done.append(verdict)
        if verdict.failures:
            print(verdict, flush=True)
    found = summary(done, time.monotonic() - began)
    for name, value in found.items():
        if name == "certificates":
            print(f"{name}:", *(f"  {which}: {told}" for which, told in value.items()), sep="\n")
        elif name == "classes":
            print(*(f"{each['cases']} × {each['class']}\n    {each['smallest']}" for each in value), sep="\n")
        elif isinstance(value, list):
            print(f"{name}:", *(f"  {each}" for each in value), sep="\n")
        else:
            print(f"{name}: {value}")
    if asked.json:
        found["failures"] = sorted(str(v) for v in done if v.failures)
        asked.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    return int(any(v.failures for v in done))


if __name__ == "__main__":
    raise SystemExit(main())
