"""A weight, what its inputs look like, and the two factors that change its outputs least.

For y = W x + b and inputs of mean μ and covariance C = R Rᵀ, factors L (out, l) and F (l, in) with b' = b + (W − L F) μ
are off by E‖Δy‖² = ‖(W − L F) R‖_F². With the singular triples W R = U Σ Vᵀ no factors of rank l do better than
U_l U_lᵀ W, which leaves √Σ_{j>l} σ_j² (Eckart & Young 1936; the whitened weight of SVD-LLM, Wang et al. 2024, whose
inverse of R is not needed). A layer without bias cannot be mended by the mean: C is then the second moment. Without
inputs C is the identity: the plain SVD.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from gpunet.checks import as_floats
from gpunet.compression.budget import Choice
from gpunet.errors import DataError, ShapeError
from gpunet.extras import load
from gpunet.linalg import SVD, StreamingGram, svd
from gpunet.linalg.certificate import gamma
from gpunet.linalg.matrix import CHUNK_BYTES, Floats, result_dtype
from gpunet.linalg.rank import RankRule
from gpunet.linalg.sources import spans
from gpunet.linalg.verify import norm

SMALLEST, LARGEST = 1e-30, 1e30  # of a weight's largest number: the squares of float32 and their sums stay exact


@dataclass(frozen=True)
class Factors:
    """L F ≈ W: left (out, l), right (l, in), and what is to be added to the bias, None where there is none."""

    left: Any
    right: Any
    shift: Floats | None

    @property
    def rank(self) -> int:
        """l."""
        return int(self.left.shape[1])


@dataclass
class Weight:
    """A weight (out, in) that may be cut; of a convolution (filters, channels · kernel²), row by row.

    bias: whether something is added, which can mend the mean; offset: what that is, (out,). inputs: sums of what it was
    multiplied with, None where nobody looked. uses: how often a sample goes through it, as at each position of a
    convolution's maps. seen: the share of these whose inputs were summed.
    """

    name: str
    matrix: Any
    bias: bool = True
    offset: Any = None
    inputs: StreamingGram | None = None
    uses: float = 1.0
    seen: float = 1.0
    _found: SVD[Any] | None = field(default=None, repr=False)

    def check(self) -> None:
        """DataError where the numbers are none, or of a size at which squares are lost."""
        top = float(np.abs(as_floats(self.matrix, f"the weight of {self.name!r}")).max(initial=0))
        if top and not SMALLEST <= top <= LARGEST:
            raise DataError(
                f"the weight of {self.name!r} has numbers of up to {top:.3g}: expected them between {SMALLEST:g} and "
                f"{LARGEST:g}; scale the layer"
            )

    def look(self, inputs: StreamingGram, uses: float, seen: float = 1.0) -> None:
        """Take what it was multiplied with into account."""
        if inputs.features != self.matrix.shape[1]:
            raise ShapeError(
                f"the layer {self.name!r} has {self.matrix.shape[1]} inputs, and the data {inputs.features} features"
            )
        self.inputs, self.uses, self.seen, self._found = inputs, uses, seen, None

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        out, inner = self.matrix.shape
        return int(out), int(inner)

    @property
    def most(self) -> int:
        """The largest rank whose two factors have fewer numbers than the weight; 0 where none has."""
        m, n = self.shape
        return (m * n - 1) // (m + n)

    def numbers(self, rank: int | None) -> int:
        """Of the weight, or of two factors of that rank."""
        m, n = self.shape
        return m * n if rank is None else rank * (m + n)

    @cached_property
    def root(self) -> Floats | None:
        """R (in, r) of the inputs, float64; None for the identity."""
        if self.inputs is None:
            return None
        self.inputs.center = self.bias
        found = self.inputs.components()
        return np.asarray(found.components.T * np.sqrt(found.explained_variance))

    def found(self, rank: int | None = None) -> SVD[Any]:
        """At least so many singular triples of W R, all by default, of which the left vectors alone."""
        if self._found is None or len(self._found.s) < min(rank or self.most_triples, self.most_triples):
            self.check()
            k = None if rank is None else min(rank, self.most_triples)
            self._found = svd(self._whitened, k, compute="left", certify=True)
        return self._found

    @property
    def most_triples(self) -> int:
        """Singular values that W R has."""
        return min(self.shape if self.root is None else (self.shape[0], self.root.shape[1]))

    @property
    def _whitened(self) -> Any:
        """W R, in the precision that the engine gives W."""
        if self.root is None:
            return self.matrix
        return (self.matrix.astype(np.float64) @ self.root).astype(result_dtype(self.matrix.dtype))

    def _parts(self) -> Iterator[tuple[slice, Floats]]:
        """W in float64, some rows at a time: as a whole it would be larger than all else that is in memory."""
        m, n = self.shape
        for start, stop in spans(0, m, max(1, CHUNK_BYTES // (8 * n))):
            yield slice(start, stop), self.matrix[start:stop].astype(np.float64)

    @cached_property
    def errors(self) -> Floats:
        """(most + 1,): the share of E‖y − E y‖² that ranks 0, 1, … lose, and 1 at rank 0; zeros where y is constant."""
        squares = self.found().s.astype(np.float64) ** 2
        tails = np.append(np.cumsum(squares[::-1])[::-1], 0.0)[: self.most + 1]
        tails = np.append(tails, np.zeros(self.most + 1 - len(tails)))
        return np.asarray(tails / tails[0] if tails[0] else tails, np.float64)

    def choices(self, uses: float = 1) -> list[Choice]:
        """What may become of it, dense last; a rank costs its numbers, each so many times."""
        cut = [Choice(r, uses * self.numbers(r), self.loss(r)) for r in range(1, self.most + 1)]
        return [*cut, Choice(None, uses * self.numbers(None), 0.0)]

    def loss(self, rank: int) -> float:
        """−ln of the share of the outputs' variance that a rank keeps.

        Of layers one after the other the shares multiply, so that these add up; and to keep next to nothing of one, as
        errors themselves would allow where the others are good, costs more than it saves.
        """
        return -math.log1p(-min(float(self.errors[rank]), 1 - 1e-15))

    def rank(self, rule: RankRule) -> int:
        """What a rule makes of the spectrum of W R."""
        m, n = self.shape
        if not rule.needs_spectrum:
            return rule((m, n))
        s = self.found().s
        return rule((m, n), np.append(s, np.zeros(min(m, n) - len(s), s.dtype)))

    def cut(self, rank: int) -> Factors:
        """The best factors of that rank, columns and rows of the same norms, in W's dtype."""
        u = self.found(rank).u[:, :rank].astype(np.float64)
        right = sum(u[rows].T @ part for rows, part in self._parts())
        size = np.sqrt(np.linalg.norm(right, axis=1))
        size[size == 0] = 1
        left, right = (each.astype(self.matrix.dtype) for each in (u * size, right / size[:, None]))
        shift = None
        if self.bias and self.inputs is not None:
            pair = left.astype(np.float64), right.astype(np.float64)
            shift = np.concatenate([(w - pair[0][rows] @ pair[1]) @ self.inputs.mean for rows, w in self._parts()])
        return Factors(left, right, shift)

    def proof(self, factors: Factors) -> dict[str, float]:
        """What is shown of factors as they are stored.

        weight_error: ‖W − L F‖_F / ‖W‖_F is at most this. output_error, where inputs are known: √(E‖Δy‖² / E‖y − E y‖²)
        on them is at most this. least: no factors of this rank have less than this, of outputs, or of weights where no
        inputs are known. Rounding is part of these.
        """
        left, right = factors.left.astype(np.float64), factors.right.astype(np.float64)
        sizes = np.zeros(4)  # squared: of W, what it is off by, W R, and what that is off by
        for rows, part in self._parts():
            off = part - left[rows] @ right
            of_outputs = (part, off) if self.root is None else (part @ self.root, off @ self.root)
            sizes += [np.vdot(each, each) for each in (part, off, *of_outputs)]
        exact, off_by, total, outputs_off = np.sqrt(sizes).tolist()
        loose = gamma(factors.rank) * norm(left) * norm(right)
        many, unit, root = gamma(self.numbers(None)), 0.0, 1.0
        said = {"weight_error": _ratio((off_by + loose) * (1 + many), exact * (1 - many))}
        if self.root is not None:
            unit, root = gamma(len(self.root)), norm(self.root)
            rounding = (unit * off_by + loose) * root
            whole = total * (1 - many) - unit * exact * root
            apart = math.hypot(outputs_off * (1 + many) + rounding, self._shift_rounding(factors))
            said["output_error"] = _ratio(apart, whole)
        found = self.found(factors.rank)
        # The engine was given W R rounded, which moves no error of a rank by more than the rounding.
        rounded = (unit + float(np.finfo(found.s.dtype).eps)) * exact * root
        high = found.certificate.sigma[: factors.rank, 1]
        least = math.sqrt(max(0.0, (total * (1 - many)) ** 2 - float(high @ high))) - rounded
        said["least"] = _ratio(max(0.0, least), total * (1 + many))
        return said

    def _shift_rounding(self, factors: Factors) -> float:
        """How far at most the bias is from what it was to be, once it is stored in W's dtype."""
        if factors.shift is None:
            return 0.0
        dtype = self.matrix.dtype
        kind: Any = np.finfo(dtype) if dtype.kind == "f" else load(f"an array of {dtype}", "ml_dtypes").finfo(dtype)
        size = norm(factors.shift) + (0.0 if self.offset is None else norm(np.asarray(self.offset, np.float64)))
        return float(kind.eps) / 2 * size + float(kind.smallest_subnormal) * math.sqrt(len(factors.shift))


def _ratio(part: float, whole: float) -> float:
    """part / whole; 0 of nothing, and 1 at most where the whole is all lost in rounding."""
    return float(part / whole) if whole > 0 else float(part > 0)
