"""How many singular triples of a weight to keep.

A rule is called with the weight's shape (m, n) and its singular values, descending, and returns a rank between 1 and
min(m, n). Where `needs_spectrum` is False the spectrum may be left out, and no decomposition is needed to ask.

Shares are the numbers that were written (0.29 is 29/100, 1/3 is a third), squares are summed without rounding: at a
boundary the rank is what the equation says, not what float64 makes of it (⌊0.29·100⌋ is 28 there).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import accumulate
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gpunet.backend import Backend
from gpunet.checks import check_range, is_whole, on_host, real_array
from gpunet.errors import InputError, ShapeError, shown
from gpunet.linalg.svd import SVD, svd
from gpunet.reprs import as_call, settings


class RankRule(ABC):
    """A rank for a weight (m, n)."""

    needs_spectrum: ClassVar[bool] = False

    def __call__(self, shape: tuple[int, int], spectrum: Any = None) -> int:
        """The rank, from 1 to min(m, n).

        spectrum: (min(m, n),) on the host or a GPU; float16 and float32 count as computed in float32, all else in
        float64. Raises ShapeError for a shape that is none, InputError for a spectrum that is missing or is none.
        """
        m, n = _check_shape(shape)
        if not self.needs_spectrum:
            return max(1, min(self._rank(m, n, np.empty(0)), m, n))
        if spectrum is None:
            raise InputError(f"{self!r} needs the singular values of the weight {m}×{n}: pass svd(weight).s")
        s = on_host(real_array(spectrum, "spectrum"))
        s = s.astype(np.float32 if s.dtype in (np.float16, np.float32) else np.float64, copy=False)
        if s.shape != (min(m, n),) or not np.isfinite(s).all() or (s < 0).any() or (np.diff(s) > 0).any():
            raise InputError(
                f"spectrum has shape {s.shape}: expected the {min(m, n)} singular values of a {m}×{n} weight, "
                "finite, ≥ 0, descending; pass svd(weight).s"
            )
        return max(1, min(self._rank(m, n, s), m, n)) if s[0] else 1

    def __repr__(self) -> str:
        return as_call(self, settings(self))

    @abstractmethod
    def _rank(self, m: int, n: int, s: Any) -> int: ...


@dataclass(frozen=True)
class FixedRank(RankRule):
    """The same rank for every weight; InputError where it exceeds min(m, n)."""

    rank: int

    def __post_init__(self) -> None:
        if not is_whole(self.rank):
            raise InputError(f"rank is {shown(self.rank)}: expected an integer ≥ 1")

    def _rank(self, m: int, n: int, s: Any) -> int:
        if self.rank > min(m, n):
            raise InputError(f"rank {self.rank} exceeds min(m, n) = {min(m, n)} of a {m}×{n} weight: lower it")
        return int(self.rank)


@dataclass(frozen=True)
class DimensionFraction(RankRule):
    """l = round(α·min(m, n)), 0 < α ≤ 1, halves to the even number: document 001, the text's meaning of α.

    >>> DimensionFraction(0.5)((512, 784))
    256
    """

    alpha: float

    def __post_init__(self) -> None:
        _check_share("alpha", self.alpha)

    def _rank(self, m: int, n: int, s: Any) -> int:
        return round(_meant(self.alpha) * min(m, n))


@dataclass(frozen=True)
class BreakEven(RankRule):
    """l = ⌊α·mn/(m+n)⌋, 0 < α ≤ 1: document 001, the meaning of α in its authors' code.

    Two factors (m×l, l×n) cost l(m+n) multiplications, the dense weight mn: up to α = 1 factoring saves. Rounded
    down, as the ranks of the authors' runs are: 784-512-256-10 has (154, 85), (77, 42), (38, 21) at ½, ¼, ⅛.

    >>> BreakEven(0.5)((512, 784)), BreakEven(0.5)((256, 512))
    (154, 85)
    """

    alpha: float

    def __post_init__(self) -> None:
        _check_share("alpha", self.alpha)

    def _rank(self, m: int, n: int, s: Any) -> int:
        return math.floor(_meant(self.alpha) * m * n / (m + n))


@dataclass(frozen=True)
class Energy(RankRule):
    """The smallest l with Σ_{j≤l} σ_j² ≥ share·Σ σ_j²: by Eckart & Young 1936, ‖W − W_l‖_F² ≤ (1 − share)‖W‖_F²."""

    share: float
    needs_spectrum: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_share("share", self.share)

    def _rank(self, m: int, n: int, s: Any) -> int:
        squares, share = _squares(s), _meant(self.share)
        enough = share * sum(squares)
        return next(rank for rank, energy in enumerate(accumulate(squares), 1) if energy >= enough)


@dataclass(frozen=True)
class StableRank(RankRule):
    """l = ⌈‖W‖_F²/σ₁²⌉, the stable rank (Rudelson & Vershynin 2007).

    Values that are rounding noise, at most max(m, n)·ε·σ₁ as in `numpy.linalg.matrix_rank`, count as 0: else every
    computed spectrum of rank 1 would get 2. A heuristic on trained weights: the number says how fast the spectrum
    falls, not how many triples training needs.
    """

    needs_spectrum: ClassVar[bool] = True

    def _rank(self, m: int, n: int, s: Any) -> int:
        squares = _squares(s[s.astype(np.float64) > _noise(m, n, s)])
        return -(-sum(squares) // squares[0])


@dataclass(frozen=True)
class ScaledStableRank(RankRule):
    """l = ⌈ξ‖W‖_F²/σ₁²⌉, the stable rank, scaled so that the initial weight W⁰ has its full rank.

    ξ = min(m, n)/(‖W⁰‖_F²/σ₁(W⁰)²): Wang et al. 2023, *Cuttlefish: Low-Rank Model Training without All the Tuning*
    (arXiv 2305.02538). scale: ξ; left out, `gn.Factorise("auto")` finds each layer's own, and others raise InputError.

    epsilon: when `gn.Factorise("auto")` cuts. A number, 0.1 in the paper: all layers at once, as soon as no stable rank
    ‖W‖_F²/σ₁² has moved by more in an epoch. None: each layer when to wait for a smaller rank costs more than it saves.
    """

    scale: float | None = None
    epsilon: float | None = 0.1
    needs_spectrum: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.scale is not None:
            check_range("scale", self.scale, above=0)
        if self.epsilon is not None:
            check_range("epsilon", self.epsilon, least=0)

    def _rank(self, m: int, n: int, s: Any) -> int:
        if self.scale is None:
            raise InputError("scale is None, which Factorise('auto') alone can find: expected ξ > 0, see the docstring")
        squares = _squares(s[s.astype(np.float64) > _noise(m, n, s)])  # see StableRank
        return math.ceil(Fraction(self.scale) * sum(squares) / squares[0])


@dataclass(frozen=True)
class GavishDonoho(RankRule):
    """Singular values above ω(β)·median(σ), β = min/max of m, n: Gavish & Donoho 2014, the noise level unknown.

    ω(β) = λ(β)/√μ(β), λ(β)² = 2(β+1) + 8β/((β+1) + √(β² + 14β + 1)), μ(β) the median of the Marchenko–Pastur law.
    Optimal for a low-rank signal in white noise. Nothing at or below the rounding noise max(m, n)·ε·σ₁ is signal (as in
    `numpy.linalg.matrix_rank`): of a matrix without noise the median is rounding itself. A heuristic on trained
    weights: their noise is not white.
    """

    needs_spectrum: ClassVar[bool] = True

    def _rank(self, m: int, n: int, s: Any) -> int:
        beta = min(m, n) / max(m, n)
        lam = math.sqrt(2 * (beta + 1) + 8 * beta / (beta + 1 + math.sqrt(beta**2 + 14 * beta + 1)))
        threshold = lam / math.sqrt(marchenko_pastur_median(beta)) * float(np.median(s.astype(np.float64)))
        return int((s.astype(np.float64) > max(threshold, _noise(m, n, s))).sum())


def truncated_svd(weight: Any, rule: RankRule, device: str | Backend | None = None) -> SVD[Any]:
    """The leading triples of a weight (m, n), as many as the rule says; see `svd`.

    A rule that reads the spectrum reads that of the one decomposition which is then cut. Raises what `svd` and the rule
    raise.
    """
    shape = tuple(weight.shape)
    if not rule.needs_spectrum:
        return svd(weight, rule(shape), device=device)
    found = svd(weight, device=device)
    rank = rule(shape, found.s)
    return replace(found, u=found.u[:, :rank], s=found.s[:rank], vt=found.vt[:rank])


def marchenko_pastur_median(beta: float) -> float:
    """The median of the Marchenko–Pastur law with ratio 0 < β ≤ 1, density √((b−t)(t−a))/(2πβt), a, b = (1∓√β)².

    With c = √β and t = 1 + c² − 2c cos θ the mass below t is (2/π) ∫₀^θ sin²φ/(1 + c² − 2c cos φ) dφ. By the series of
    the Poisson kernel, sin φ/(1 + c² − 2c cos φ) = Σ c^(k−1) sin kφ, that is (θ + A − (A − c sin θ)/c²)/π, where
    A = Σ c^k sin(kθ)/k = arctan(c sin θ/(1 − c cos θ)). Bisected in θ, to some 1e-15: ω(1) is 2.85836. The 2.8582 of
    the paper's table comes from a bisection that stops at 1e-3. Raises InputError for β outside (0, 1].
    """
    beta = check_range("beta", beta, above=0, most=1)
    c = math.sqrt(beta)
    low, high = 0.0, math.pi
    for _ in range(60):
        theta = (low + high) / 2
        angle = math.atan2(c * math.sin(theta), 1 - c * math.cos(theta))
        if theta + angle - (angle - c * math.sin(theta)) / beta < math.pi / 2:
            low = theta
        else:
            high = theta
    return (1 - c) ** 2 + 4 * c * math.sin(low / 2) ** 2


def _noise(m: int, n: int, s: NDArray[Any]) -> float:
    """What singular values s (…,) of a matrix m×n are told from no better than from 0, in their own dtype."""
    return max(m, n) * float(np.finfo(s.dtype).eps) * float(s[0])


def _squares(s: NDArray[Any]) -> list[int]:
    """The squares of floats, times one power of 4 that makes all of them integers: no rounding, overflow, underflow."""
    ratios = [value.as_integer_ratio() for value in s.tolist()]
    scale = max(denominator for _, denominator in ratios)
    return [(numerator * (scale // denominator)) ** 2 for numerator, denominator in ratios]


def _meant(share: Any) -> Fraction:
    """The number that a float was written as: its shortest decimal, or a fraction such as 1/3 that rounds to it."""
    decimal = Fraction(str(share))
    simple = decimal.limit_denominator(1000)
    return simple if type(share)(float(simple)) == share else decimal


def _check_shape(shape: Any) -> tuple[int, int]:
    pair = tuple(shape) if np.iterable(shape) else ()
    if len(pair) != 2 or not all(map(is_whole, pair)):
        raise ShapeError(f"shape is {shown(shape)}: expected (m, n) of a weight, both integers ≥ 1; pass weight.shape")
    return int(pair[0]), int(pair[1])


def _check_share(name: str, value: Any) -> None:
    number = isinstance(value, Real) and not isinstance(value, (bool, np.bool_, np.timedelta64))
    if not (number and 0 < value <= 1):
        raise InputError(f"{name} is {shown(value)}: expected a number in (0, 1], say 0.5")
