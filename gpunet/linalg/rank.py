"""How many singular triples of a weight to keep.

A rule is called with the weight's shape (m, n) and its singular values, descending, and returns a rank between 1 and
min(m, n). Where `needs_spectrum` is False the spectrum may be left out, and no decomposition is needed to ask.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gpunet.errors import InputError, ShapeError


class RankRule(ABC):
    """A rank for a weight (m, n)."""

    needs_spectrum: ClassVar[bool] = False

    def __call__(self, shape: tuple[int, int], spectrum: Any = None) -> int:
        """The rank, from 1 to min(m, n). Raises InputError for a spectrum that is missing or is none."""
        m, n = _check_shape(shape)
        if not self.needs_spectrum:
            return max(1, min(self._rank(m, n, np.empty(0)), m, n))
        if spectrum is None:
            raise InputError(f"{self!r} needs the singular values of the weight {m}×{n}: pass svd(weight).s")
        s = np.asarray(spectrum, dtype=np.float64)
        if s.shape != (min(m, n),) or not np.isfinite(s).all() or (s < 0).any() or (np.diff(s) > 0).any():
            raise InputError(
                f"spectrum has shape {s.shape}: expected the {min(m, n)} singular values of a {m}×{n} weight, "
                "finite, ≥ 0, descending; pass svd(weight).s"
            )
        return max(1, min(self._rank(m, n, s), m, n)) if s[0] else 1

    @abstractmethod
    def _rank(self, m: int, n: int, s: Any) -> int: ...


@dataclass(frozen=True)
class FixedRank(RankRule):
    """The same rank for every weight; InputError where it exceeds min(m, n)."""

    rank: int

    def __post_init__(self) -> None:
        if isinstance(self.rank, bool) or not isinstance(self.rank, (int, np.integer)) or self.rank < 1:
            raise InputError(f"rank is {self.rank!r}: expected an integer ≥ 1")

    def _rank(self, m: int, n: int, s: Any) -> int:
        if self.rank > min(m, n):
            raise InputError(f"rank {self.rank} exceeds min(m, n) = {min(m, n)} of a {m}×{n} weight: lower it")
        return int(self.rank)


@dataclass(frozen=True)
class DimensionFraction(RankRule):
    """l = round(α·min(m, n)), 0 < α ≤ 1: document 001, the text's meaning of α.

    >>> DimensionFraction(0.5)((512, 784))
    256
    """

    alpha: float

    def __post_init__(self) -> None:
        _check_share("alpha", self.alpha)

    def _rank(self, m: int, n: int, s: Any) -> int:
        return round(self.alpha * min(m, n))


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
        return int(self.alpha * m * n / (m + n))


@dataclass(frozen=True)
class Energy(RankRule):
    """The smallest l with Σ_{j≤l} σ_j² ≥ share·Σ σ_j²: by Eckart & Young 1936, ‖W − W_l‖_F² ≤ (1 − share)‖W‖_F²."""

    share: float
    needs_spectrum: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_share("share", self.share)

    def _rank(self, m: int, n: int, s: Any) -> int:
        energy = np.cumsum((s / s[0]) ** 2)
        return int(np.searchsorted(energy, self.share * energy[-1] * (1 - 1e-12))) + 1


@dataclass(frozen=True)
class StableRank(RankRule):
    """l = ⌈‖W‖_F²/σ₁²⌉, the stable rank (Rudelson & Vershynin 2007).

    A heuristic on trained weights: the number says how fast the spectrum falls, not how many triples training needs.
    """

    needs_spectrum: ClassVar[bool] = True

    def _rank(self, m: int, n: int, s: Any) -> int:
        return int(np.ceil(((s / s[0]) ** 2).sum() * (1 - 1e-12)))


@dataclass(frozen=True)
class GavishDonoho(RankRule):
    """Singular values above ω(β)·median(σ), β = min/max of m, n: Gavish & Donoho 2014, the noise level unknown.

    ω(β) = λ(β)/√μ(β), λ(β)² = 2(β+1) + 8β/((β+1) + √(β² + 14β + 1)), μ(β) the median of the Marchenko–Pastur law.
    Optimal for a low-rank signal in white noise. A heuristic on trained weights: their noise is not white.
    """

    needs_spectrum: ClassVar[bool] = True

    def _rank(self, m: int, n: int, s: Any) -> int:
        beta = min(m, n) / max(m, n)
        lam = np.sqrt(2 * (beta + 1) + 8 * beta / (beta + 1 + np.sqrt(beta**2 + 14 * beta + 1)))
        return int((s > lam / np.sqrt(marchenko_pastur_median(beta)) * np.median(s)).sum())


def marchenko_pastur_median(beta: float) -> float:
    """The median of the Marchenko–Pastur law with ratio 0 < β ≤ 1, density √((b−t)(t−a))/(2πβt), a, b = (1∓√β)²."""
    a, b = (1 - np.sqrt(beta)) ** 2, (1 + np.sqrt(beta)) ** 2
    # t = mid − half·cos θ smooths both ends, so that the midpoint rule converges fast, also at β = 1.
    theta = (np.arange(20000) + 0.5) * (np.pi / 20000)
    t = (a + b) / 2 - (b - a) / 2 * np.cos(theta)
    mass = np.cumsum(np.sin(theta) ** 2 / t)
    return float(np.interp(0.5 * mass[-1], mass, t))


def _check_shape(shape: Any) -> tuple[int, int]:
    if len(shape) != 2 or not all(isinstance(d, (int, np.integer)) and d >= 1 for d in shape):
        raise ShapeError(f"shape is {tuple(shape)}: expected (m, n) of a weight, both integers ≥ 1")
    return int(shape[0]), int(shape[1])


def _check_share(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 < value <= 1:
        raise InputError(f"{name} is {value!r}: expected a number in (0, 1], say 0.5")
