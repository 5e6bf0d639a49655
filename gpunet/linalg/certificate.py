"""What is shown of singular triples: where each σ lies, by what angle their span is off, and that none was missed.

A residual says that triples are some of the matrix's, not that they are the largest: what was overlooked leaves none.
So the rest of the matrix is bounded, too. Let X (n, d), n ≥ d, have the triples u, s, v, k of them, orthonormal but for
δ; R = X v − u s, Q = Xᵀu − v s, c ≥ ‖X (1 − v vᵀ)‖₂, and σ_1 ≥ σ_2 ≥ … the singular values of X. Then

* σ_i ≥ a_i and σ_i ≤ (a_i + c)/2 + √((a_i − c)²/4 + ρ²), ρ = max(‖R‖, ‖Q‖), for a_i the singular values of uᵀX v: those
  of a part are no larger (Cauchy), and of μ − [A B; Bᵀ C], C of norm c < μ, Schur's complement A + B (μ − C)⁻¹ Bᵀ says
  how many lie above μ. Where c < a_i the second is ρ²/(a_i − c) from the first (the quadratic residual bounds of Li &
  Li 2005, one-sided);
* with σ_{k+1} ≤ c < s_k, span(v) is off the leading right singular vectors by an angle whose sine is at most
  √Σ_j ((s_j ‖q_j‖ + c ‖r_j‖)/(s_j² − c²))², and span(u) by that with r and q exchanged: Wedin's theorem (1972) triple
  by triple, so that a large σ, far from c, adds next to nothing.

The same holds of XᵀX (Davis & Kahan 1970) with λ = σ², one residual XᵀX v − v λ and c² ≥ λ_{k+1}. How c is found:
‖X − (X v) vᵀ‖₂ from the Gram matrix of that difference, or of X's, v λ vᵀ subtracted: Cholesky's factorisation of
μ − C succeeds only where no eigenvalue of C exceeds μ but by (d + 2) u tr (Rump 2006), on a GPU ‖C‖₂ ≤ ‖C^p‖_F^(1/p)
by repeated squaring; where neither is at hand, c² = ‖X‖_F² − Σ σ_i².

Rounding is part of the bounds, by what cannot be exceeded (Higham 2002, ch. 3; √b u is likely, but equal numbers that
follow a large one all round the same way): a sum of b products in precision u is off by at most γ_b = (b + 4) u of
their sizes' sum, where BLAS adds them one after the other: up to SUMMED, and beyond in panels. A matrix product A B is
off by γ_b ‖A‖_F ‖B‖_F. Sums made for the certificate alone are made in parts, of 64 or √b, so that their γ is small.
Where all of a large matrix's residuals would take too long, norms come from 8 Gaussian vectors times 20, which is too
little for one matrix in two thousand million (χ² of 8, of a residual of rank 1; more rank makes it less).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np

from gpunet.backend.blas import definite_below, interruptible, limited
from gpunet.backend.blas import product as multiply
from gpunet.checks import on_host
from gpunet.linalg.matrix import EPS, Floats, TallMatrix
from gpunet.linalg.stacked import Stack, eigh_stack, product, squares, totals
from gpunet.linalg.verify import EPS32, Measured, norm
from gpunet.reprs import table_html
from gpunet.rng import LINALG, stream

SUMMED = 1024  # products that BLAS may sum one after the other, in its kernels for small matrices
PANEL = 448  # of a longer sum, that OpenBLAS adds up one after the other before it adds to those before, at most
PLAIN = 1e-8  # of ‖X‖_F²: from here on σ_k² is far above what products of float64 lose
SOLVED = 12 * EPS  # of λ_1: what LAPACK's eigenvalues are off by, 9 ε at most as measured (`solvers.ROUNDING`)
CROOKED = 0.1  # of vectors that are not orthonormal enough for any of this
SQUARINGS = 14  # of C, for its norm: to ln(d)/2¹⁵
FACTORED = 64  # rows from which a lone matrix's norm is shown by Cholesky's factorisation
SMALLEST = float(np.finfo(np.float64).tiny)
KEPT = 1 << 26  # bytes that a result may keep for the certificate, which takes up to a third of the time of the rest
SPENT = (4, 8)  # columns and steps of the Krylov space that guesses at what it will show

Parts = Callable[[], Iterable[tuple[slice, Any]]]  # of the long side, and X there (B, rows, d) in float64


@dataclass(frozen=True)
class Certificate:
    """Bounds that hold for the k leading singular triples of one matrix, or of each of a stack (…); on the host.

    sigma: (…, k, 2), float64: σ_i, the i-th largest singular value of the matrix, lies within.
    sine: the sine of the largest angle between the span of the k vectors returned and that of the k leading singular
    vectors is at most this, on either side; inf where none was shown, as where σ_k = σ_{k+1}.
    complete: True where it was shown that every other singular value is smaller than those k: none was missed.
    beyond: no singular value but the k largest exceeds this; inf where none was shown.

    Of PCA the matrix is that of the samples, their mean subtracted where it is centred, and σ² = count · variance.
    float and bool for one matrix, arrays (…) for a stack. How: `gpunet.linalg.certificate`, docs/svd-engine.md.
    """

    sigma: Floats
    sine: Any
    complete: Any
    beyond: Any

    def __post_init__(self) -> None:
        if isinstance(self.sigma, np.ndarray):
            self.sigma.setflags(write=False)

    def __repr__(self) -> str:
        return f"<Certificate: {self._in_words()}>"

    def _in_words(self) -> str:
        """What is shown, in a line; of a stack the worst."""
        sigma = np.asarray(self.sigma)
        low, high = sigma[..., 0], sigma[..., 1]
        # relative to σ₁, which an interval of an error is of
        width = float(np.max((high - low) / np.maximum(high.max(axis=-1, keepdims=True), SMALLEST), initial=0.0))
        missed = "none was missed" if np.all(self.complete) else "not shown that none was missed"
        return f"σ within {width:.2g} σ₁, sine of the angle ≤ {float(np.max(self.sine, initial=0.0)):.2g}, {missed}"


Proof = Certificate | Callable[[], Certificate]  # or how it is made, of what nobody else has


class Certified:
    """What has a certificate; it is made when it is read first."""

    _proof: Proof

    def __repr__(self) -> str:
        said = [f"{name} {value}" for name, value in self._told().items()]
        return f"<{type(self).__name__}: {', '.join(said)}>"

    def _repr_html_(self) -> str:
        certificate = self._proof._in_words() if isinstance(self._proof, Certificate) else "computed when it is read"
        rows = {**self._told(), "certificate": certificate}.items()
        return table_html((type(self).__name__, ""), rows)

    def _told(self) -> dict[str, str]:
        """What a repr shows: sizes and how it was found, and no numbers that a line has no room for."""
        raise NotImplementedError

    @property
    def certificate(self) -> Certificate:
        """`Certificate` of what was found."""
        object.__setattr__(self, "_proof", found := made(self._proof))
        return found

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_proof": self.certificate}


def made(proof: Proof) -> Certificate:
    """The certificate."""
    return proof if isinstance(proof, Certificate) else proof()


def later(size: int, prove: Callable[[], Certificate], kept: int, room: int) -> Proof:
    """How it is made, by the threads that `size` pays for (`limited`), which keeps so many bytes till then.

    The certificate itself where these are more than `room`.
    """
    return partial(limited, size, prove) if kept <= room else limited(size, prove)


def changed(proof: Proof, change: Callable[[Certificate], Certificate]) -> Proof:
    """`change` of it, now or later."""
    return change(proof) if isinstance(proof, Certificate) else lambda: change(proof())


def scaled(proof: Proof, factor: float) -> Proof:
    """That of the matrix times a factor."""
    return changed(proof, lambda found: times(found, factor))


def gamma(terms: int, unit: float = EPS / 2) -> float:
    """γ of a sum of so many products that BLAS makes: one after the other up to SUMMED, beyond them in panels."""
    return (terms + 4 if terms <= SUMMED else PANEL + min(terms, 1 << 20) / PANEL + 4) * unit


def parted(terms: int) -> float:
    """The same of `_times` and `_across`, on the CPU in float64."""
    step = _part(terms)
    return (min(terms, step) + -(-terms // step) + 4) * EPS / 2


def _part(terms: int) -> int:
    """Terms that are summed at a time, such that neither they nor their number is large."""
    return max(64, 1 << round(math.log2(max(1, terms)) / 2))


# -- of what was decomposed -------------------------------------------------------------------------------------------


def certify(
    xp: Any, a: Any, u: Any, s: Any, vt: Any, dtype: Any = np.float64, gram: Any | None = None,
    known: Floats | None = None,
) -> Certificate:  # fmt: skip
    """Of the triples u, s, vt, as `SVD` has them, in `dtype`, of the stack a (B, m, n). All products are in float64.

    gram: the Gram matrices (B, d, d) of the shorter sides, in float64, where they are at hand; known: of a lone
    matrix its eigenvalues, as LAPACK computed them: all, or the k largest and a next one.
    """
    x = Stack(xp, a, np.dtype(dtype), 0)
    v, long = xp.permute_dims(vt, (0, 2, 1)), u
    if x.flipped:
        v, long = u, v
    s = xp.astype(s, xp.float64, copy=False)
    factors = np.ones(a.shape[0]) if x.scale is None else x.factors
    way = of_narrow if dtype == np.float32 else of_triples
    if gram is not None:
        gram = gram * xp.asarray(factors**2)[:, None, None]
    known = None if known is None else known * factors[0] ** 2
    found = way(xp, lambda: x.parts(xp.float64), long, s * xp.asarray(factors)[:, None], v, x.long, gram, known)
    return times(found, 1 / factors)


def of_tall(x: TallMatrix, u: Floats | None, s: Floats, v: Floats, measured: Measured, room: int) -> Proof:
    """Of the triples u (long, k) or None, s (k,), v (short, k) of X as it is scaled, which is too large for `certify`.

    By its Gram matrix, where one was made, and by what was `measured` of u; u None: of v alone.
    """
    s, v = s.copy(), v.copy()
    long, short, k, one_side, narrow = x.long, x.short, len(s), u is None, x.dtype == np.float32
    by_gram = of_its_gram(x, v) if x.grams else None
    kept = v.nbytes + (x.grams[x.finest()].nbytes if x.grams else 0)
    unit, energy = float(np.finfo(measured.dtype).eps) / 2, 0.0 if one_side else x.energy()
    energy *= 1 + gamma(long, EPS32 / 2 if x.grams and "float64" not in x.grams and not x.exact else EPS / 2)

    def prove() -> Certificate:
        found = by_gram() if by_gram else None
        if one_side:
            return reshaped(found or _nothing(k))
        r = np.array([measured.left + gamma(short + k, unit) * math.sqrt(energy)])
        q = np.array([measured.right + gamma(long, unit) * math.sqrt(energy)])
        loss_u = np.array([measured.straight + gamma(long, unit) * k**0.5])
        if found is not None:
            with np.errstate(divide="ignore", invalid="ignore"):
                found = with_left(found, s[None], np.nan_to_num(r / s[-1], nan=np.inf), loss_u, k == long)
            if narrow:
                return reshaped(found)
        wide = v.astype(np.float64, copy=False)
        loss_v = np.array([norm(multiply(wide.T, wide) - np.eye(k)) + gamma(short) * k**0.5])
        nothing = np.zeros((1, k))

        def residuals(beyond: Floats) -> Certificate:
            return _of_residuals(s[None], (nothing, r), (nothing, q), loss_u, loss_v, beyond, k == short, k == long)

        other = residuals(np.zeros(1) if k == short else found.beyond if found else np.full(1, np.inf))
        if found is None and k < short:
            other = residuals(np.sqrt(np.maximum(energy - (other.sigma[..., 0] ** 2).sum(axis=1), 0)))
        return reshaped(other if found is None else _both(found, other))

    return later(short**3, prove, kept, room)


def of_its_gram(x: TallMatrix, v: Floats) -> Callable[[], Certificate]:
    """How v (short, k) is certified by the Gram matrix that X has: the best there is; X is not looked at again."""
    precise = "float64" in x.grams or x.float64_products
    g = x.grams[x.finest()]
    error = EPS if x.exact else gamma(x.long, (EPS if precise else EPS32) / 2)
    return partial(of_gram, np, g[None], np.array([error * np.trace(g)]), v[None], x.eigenvalues(x.finest()))


def joined(proofs: Sequence[Proof]) -> Certificate:
    """Of stacks as one."""
    parts = [made(each) for each in proofs]
    fields = ([np.asarray(getattr(each, name)) for each in parts] for name in ("sigma", "sine", "complete", "beyond"))
    sigma, *others = fields
    many = sigma[0].ndim > 2
    return Certificate(np.concatenate(sigma) if many else np.stack(sigma), *map(np.hstack, others))


def _both(one: Certificate, other: Certificate) -> Certificate:
    """What two certificates of the same triples (1, …) show together; where they disagree, what both allow."""
    low = np.maximum(one.sigma[..., 0], other.sigma[..., 0])
    high = np.minimum(one.sigma[..., 1], other.sigma[..., 1])
    low, high = np.minimum(low, high), np.maximum(low, high)
    beyond, sine = np.minimum(one.beyond, other.beyond), np.minimum(one.sine, other.sine)
    return Certificate(np.stack([low, high], axis=-1), sine, one.complete | other.complete, beyond)


def _nothing(k: int) -> Certificate:
    """Of a matrix of which nothing is shown."""
    sigma = np.stack([np.zeros((1, k)), np.full((1, k), np.inf)], axis=-1)
    return Certificate(sigma, np.full(1, np.inf), np.zeros(1, bool), np.full(1, np.inf))


# -- of other shapes, sizes and matrices nearby ------------------------------------------------------------------------


def reshaped(found: Certificate, lead: tuple[int, ...] = ()) -> Certificate:
    """Of a stack of that shape; of one matrix for ()."""
    sigma = found.sigma.reshape(*lead, *found.sigma.shape[-2:])
    each = (np.reshape(one, lead) for one in (found.sine, found.complete, found.beyond))
    sine, complete, beyond = each if lead else (one.item() for one in each)
    return Certificate(sigma, sine, complete, beyond)


def times(found: Certificate, factor: Any) -> Certificate:
    """Of the matrices times factor (…); the product, which falls among denormals at times, is rounded outwards."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        low, high = np.moveaxis(found.sigma * np.asarray(factor, np.float64)[..., None, None], -1, 0)
        beyond = _above(found.beyond * factor, found.beyond)
        sigma = np.stack([np.maximum(np.nextafter(low, -np.inf), 0), _above(high, found.sigma[..., 1])], axis=-1)
    return Certificate(sigma, found.sine, found.complete, beyond if np.ndim(factor) else beyond.item())


def of_nearby(found: Certificate, shape: tuple[int, int], away: float = 0.0, squared: float = 0.0) -> Certificate:
    """Of vectors (k, features) as those of another matrix (samples, features): one matrix, its right vectors.

    ‖X − X'‖₂ ≤ away, ‖XᵀX − X'ᵀX'‖₂ ≤ squared: so much σ and σ² differ (Weyl), and spans by that over the gap.
    """
    size = float(np.ldexp(1.0, int(np.frexp(min(found.sigma[0, 1], 1e300))[1])))  # so that squares stay in range
    away, squared, below = away / size, squared / size / size, found.beyond / size
    low, high = np.maximum(found.sigma[:, 0] / size - away, 0), found.sigma[:, 1] / size + away
    sigma = _outwards(np.stack([np.sqrt(np.maximum(low**2 - squared, 0)), np.hypot(high, squared**0.5)], axis=1))
    whole, last = len(sigma) >= min(shape), float(sigma[-1, 0])
    beyond = 0.0 if whole else math.hypot(below + away, squared**0.5)
    complete, sine = bool(found.complete and (whole or beyond < last)), math.inf
    if len(sigma) == shape[1]:
        sine = found.sine
    elif complete and last > beyond:
        sine = found.sine + away / (last - beyond) + squared / (last**2 - beyond**2)
    return times(Certificate(sigma, sine if sine < 1 else math.inf, complete, beyond), size)


# -- the bounds -------------------------------------------------------------------------------------------------------


def concluded(low: Floats, high: Floats, off: Any, beyond: Floats, sine: Floats, whole: bool) -> Certificate:
    """From bounds of a_i (B, k), ρ (B,), c (B,) and the sine (B,), of σ. whole: there are no others."""
    c = beyond[:, None]
    with np.errstate(invalid="ignore", over="ignore"):
        high = _risen(high, c, np.asarray(off)[:, None])
        sigma = _outwards(np.stack([low, np.where(np.isfinite(high), high, np.inf)], axis=2))
        complete = np.isfinite(sigma).all(axis=(1, 2)) & (whole | (beyond < sigma[:, -1, 0]))
    return Certificate(sigma, np.where(complete & (sine < 1), sine, np.inf), complete, beyond)


def _risen(a: Floats, c: Floats, off: Floats) -> Floats:
    """The larger eigenvalue of [a off; off c]."""
    return np.asarray((a + c) / 2 + np.hypot((a - c) / 2, off))


def _outwards(sigma: Floats) -> Floats:
    """Intervals (…, 2) of numbers ≥ 0, made wider by a rounding."""
    low, high = sigma[..., 0], sigma[..., 1]
    return np.stack([np.maximum(low * (1 - 4 * EPS), 0), high * (1 + 4 * EPS)], axis=-1)


def _above(value: Any, of: Any) -> Any:
    """The next larger number, but 0 where `of` is."""
    return np.where(np.asarray(of) > 0, np.nextafter(value, np.inf), 0.0)


def of_triples(
    xp: Any, parts: Parts, u: Any, s: Any, v: Any, long: int, gram: Any | None, known: Floats | None
) -> Certificate:
    """Of the triples u (B, n, k), s (B, k), v (B, d, k) of X itself, of up to the last digits of float64."""
    d, k = v.shape[1:]
    u, s, v = (xp.astype(each, xp.float64, copy=False) for each in (u, s, v))
    if gram is not None and (xp is not np or (s[:, -1] ** 2 < PLAIN * _trace(xp, gram)).any()):
        gram = None  # too little of it is left for σ_k

    def terms(where: slice, part: Any) -> list[Any]:
        own, image = u[:, where, :], _times(xp, part, v)
        wrong = image - own * s[:, None, :]
        found = [xp.sum(wrong * wrong, axis=1), _across(xp, part, own), _across(xp, own, own), squares(xp, part)]
        if k < d and gram is None:
            rest = part - _times(xp, image, xp.permute_dims(v, (0, 2, 1)))
            found.append(_across(xp, rest, rest))
        return found

    sums = totals(terms(*each) for each in parts())
    left, back, overlap = sums[:3]
    wrong = back - v * s[:, None, :]
    one = xp.eye(k, dtype=xp.float64)
    facts = [left, xp.sum(wrong * wrong, axis=1), s]
    losses = [squares(xp, overlap - one), squares(xp, _across(xp, v, v) - one), sums[3]]
    facts = [*np.split(on_host(xp.concat(facts, axis=1)), 3, axis=1), *on_host(xp.stack(losses))]
    r, q, s, loss_u, loss_v = (np.sqrt(each) if i != 2 else each for i, each in enumerate(facts[:5]))
    size = np.sqrt(facts[5])
    lose = parted if xp is np else gamma
    rounding = lose(d) * size, lose(long) * size  # of R, of Q
    loss_u, loss_v = loss_u + lose(long) * k**0.5, loss_v + lose(d) * k**0.5
    c = np.zeros(len(size))
    if k < d:
        if len(sums) < 5:
            rest = gram - product(xp, v * s[:, None, :] ** 2, xp.permute_dims(v, (0, 2, 1)))
            lost, more = (gamma(long) + gamma(k)) * size**2, 0.0
        else:
            rest, more = sums[4], (lose(d) + lose(k)) * size
            lost = lose(long) * on_host(_trace(xp, rest))
        c = np.sqrt(norms(xp, rest, s[:, -1] ** 2, _next(known, k)) + lost) + more
    return _of_residuals(s, (r, rounding[0]), (q, rounding[1]), loss_u, loss_v, c, k == d, k == long)


def _of_residuals(
    s: Floats, r: tuple[Floats, Floats], q: tuple[Floats, Floats], loss_u: Floats, loss_v: Floats, c: Floats,
    whole: bool, square: bool,
) -> Certificate:  # fmt: skip
    """The bounds from ‖r_j‖ and ‖q_j‖ (B, k), each with what is to be added to the norm of all (B,).

    whole: v spans all of its space; square: u does so, too.
    """
    left, right = (np.sqrt((each**2).sum(axis=1)) + all_ for each, all_ in (r, q))
    crooked = (loss_u > CROOKED) | (loss_v > CROOKED)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        shrunk, grown = np.sqrt(1 - loss_u)[:, None], np.sqrt(1 + loss_u)[:, None]
        low = np.maximum((s * shrunk - left[:, None]) / np.sqrt(1 + loss_v)[:, None], 0)
        high = (s * grown + left[:, None]) / np.sqrt(1 - loss_v)[:, None]
        off = np.maximum(left / np.sqrt(1 - loss_v), right / np.sqrt(1 - loss_u))
        apart = s**2 - c[:, None] ** 2

        def angle(near: tuple[Floats, Floats], far: tuple[Floats, Floats], loss: Floats) -> Floats:
            each = np.sqrt((((s * near[0] + c[:, None] * far[0]) / apart) ** 2).sum(axis=1))
            last = (s[:, -1] * near[1] + c * far[1]) / apart[:, -1]
            return np.asarray(np.where(apart[:, -1] > 0, (each + last) / np.sqrt(1 - loss), np.inf))

        sine = np.zeros(len(c))
        if not whole:
            sine = angle(q, r, loss_v)
        if not square:
            sine = np.maximum(sine, angle(r, q, loss_u))
    low[crooked], high[crooked] = 0, np.inf
    return concluded(low, high, off, c, sine, whole)


def of_gram(xp: Any, g: Any, error: Floats, v: Any, known: Floats | None = None) -> Certificate:
    """Of the vectors v (B, d, k) of X alone, by XᵀX = g (B, d, d), float64, to ‖error‖₂ (B,): σ above √error.

    v is made orthonormal, and turned within its span to the eigenvectors of vᵀ g v: what rounding to float32 mixed
    among those k is no matter for their span. It reads back the eigenvalues, and norms.
    """
    (d, k), lose = v.shape[1:], parted if xp is np else gamma
    one = xp.eye(k, dtype=xp.float64)
    if k == d:
        trace = on_host(_trace(xp, g))
        if known is not None and len(known) == d:
            values = known[None]
        else:
            values = on_host(eigh_stack(xp, g)[0])[:, ::-1] if xp is not np else np.linalg.eigvalsh(g)[:, ::-1]
        wrong, loss = np.zeros_like(values), np.zeros(len(trace))
        crooked = np.sqrt(on_host(squares(xp, _across(xp, v, v) - one))) > CROOKED
    else:
        steps = 2 if v.dtype == xp.float32 else 0  # Newton's to (vᵀv)^(-1/2): δ, δ², δ⁴
        v = xp.astype(v, xp.float64, copy=False)
        overlap = _across(xp, v, v)
        first = squares(xp, overlap - one)
        for _ in range(steps):
            v = product(xp, v, 1.5 * one - overlap / 2)
            overlap = _across(xp, v, v)
        image = _times(xp, g, v)
        inside = _across(xp, v, image)
        values, turn = eigh_stack(xp, (inside + xp.permute_dims(inside, (0, 2, 1))) / 2)
        values, turn = xp.flip(values, axis=1), xp.flip(turn, axis=2)
        v, image = _times(xp, v, turn), _times(xp, image, turn)
        scaled = v * values[:, None, :]
        wrong = image - scaled
        losses = xp.stack([squares(xp, overlap - one), first, _trace(xp, g)], axis=1)
        facts = on_host(xp.concat([values, xp.sum(wrong * wrong, axis=1), losses], axis=1))
        values, wrong, (loss, first, trace) = facts[:, :k], np.sqrt(facts[:, k:-3]), facts[:, -3:].T
        loss, crooked = np.sqrt(loss) + lose(d) * k**0.5, np.sqrt(first) > CROOKED
    rounding = 2 * (lose(d) + lose(k)) * trace + error
    c = np.zeros(len(trace))
    if k < d:
        rest = _times(xp, scaled, xp.permute_dims(v, (0, 2, 1)))
        rest = np.subtract(g, rest, out=rest) if xp is np else g - rest  # of 10,000 features each takes 0.8 GB
        c = norms(xp, rest, values[:, -1], _next(known, k)) + rounding
    spread = (rounding + 2 * loss * trace + SOLVED * np.abs(values[:, 0]))[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        apart = values - spread - c[:, None]
        sine = np.sqrt(((wrong / apart) ** 2).sum(axis=1)) + rounding / apart[:, -1] + lose(d) * k**0.5
        sine = np.where(apart[:, -1] > 0, sine / np.sqrt(1 - loss), np.inf) if k < d else np.zeros(len(c))
        off = np.sqrt((wrong**2).sum(axis=1)) + rounding
        high = np.maximum(values + spread, 0)
        high = _risen(high, c[:, None], off[:, None]) if k < d else high
    low = np.maximum(values - spread, 0)
    low[crooked], high[crooked] = 0, np.inf
    return concluded(np.sqrt(low), np.sqrt(high), np.zeros(len(c)), np.sqrt(c), sine, k == d)


def with_left(found: Certificate, s: Floats, r: Floats, loss: Floats, square: bool) -> Certificate:
    """A certificate of v alone, and of u too, X v = u diag(s) + R: r (B,) ≥ ‖R diag(1/s)‖, loss (B,) ≥ ‖uᵀu − 1‖.

    The part of u outside is as large as Σ₂ V₂ᵀv diag(1/s), at most c times the sine over s_k, and R's together.
    """
    if square:
        return found
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        ratio = np.where(found.beyond > 0, found.beyond / s[:, -1], 0)
        other = np.where(
            loss < CROOKED, (ratio * found.sine * 1.1 + r) / np.sqrt(1 - np.minimum(loss, CROOKED)), np.inf
        )
        sine = np.maximum(found.sine, other)
    return Certificate(found.sigma, np.where(sine < 1, sine, np.inf), found.complete, found.beyond)


def of_narrow(
    xp: Any, parts: Parts, u: Any, s: Any, v: Any, long: int, gram: Any | None, known: Floats | None
) -> Certificate:
    """Of triples in float32: by XᵀX in float64, and u by X v."""
    d, k = v.shape[1:]
    u, s, v = (xp.astype(each, xp.float64, copy=False) for each in (u, s, v))

    def terms(where: slice, part: Any) -> list[Any]:
        own = u[:, where, :]
        wrong = _times(xp, part, v) - own * s[:, None, :]
        found = [xp.sum(wrong * wrong, axis=1), _across(xp, own, own)]
        return found if gram is not None else [*found, _across(xp, part, part)]

    sums = totals(terms(*each) for each in parts())
    left, overlap, g = sums if gram is None else (*sums, gram)
    losses = [squares(xp, overlap - xp.eye(k, dtype=xp.float64)), _trace(xp, g)]
    loss, trace = on_host(xp.stack(losses))
    left, s = np.split(on_host(xp.concat([left, s], axis=1)), 2, axis=1)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        r = np.sqrt((left / s**2).sum(axis=1)) + gamma(d) * np.sqrt(trace) / s[:, -1]
    loss = np.sqrt(loss) + gamma(long) * k**0.5
    return with_left(
        of_gram(xp, g, gamma(long) * trace, v, known), s, np.where(np.isnan(r), np.inf, r), loss, k == long
    )


# -- norms ------------------------------------------------------------------------------------------------------------


def _times(xp: Any, a: Any, b: Any) -> Any:
    """a b (B, m, p); on the CPU in short sums, `_part` at a time."""
    step = _part(a.shape[2])
    if xp is not np or a.shape[2] <= step:
        return product(xp, a, b)
    total = product(xp, a[:, :, :step], b[:, :step])
    for start in range(step, a.shape[2], step):
        total += product(xp, a[:, :, start : start + step], b[:, start : start + step])
    return total


def _across(xp: Any, a: Any, b: Any) -> Any:
    """aᵀb (B, m, p), so too."""
    return _times(xp, xp.permute_dims(a, (0, 2, 1)), b)


def _next(known: Floats | None, k: int) -> float | None:
    """The largest eigenvalue but k, where it is among the known ones."""
    return None if known is None or len(known) <= k else float(known[k])


def _trace(xp: Any, g: Any) -> Any:
    """(B,)."""
    d = g.shape[1]
    return xp.sum(xp.reshape(g, (-1, d * d))[:, :: d + 1], axis=1)


def norms(xp: Any, c: Any, last: Floats, near: float | None = None) -> Floats:
    """(B,) ≥ the largest eigenvalue of each symmetric c (B, d, d), on the host; close to it, or well below `last` (B,).

    With C of Frobenius norm 1, ‖C‖₂ ≤ ‖C²‖_F^(1/2) ≤ … : the norms of its squares, of which each is scaled to 1, too.
    """
    if xp is np and c.shape[1] > FACTORED:
        return np.array([by_cholesky(one, float(own), near) for one, own in zip(c, last, strict=True)])
    sizes = [xp.sqrt(squares(xp, c))]
    for _ in range(SQUARINGS):
        c = c / xp.where(sizes[-1] > 0, sizes[-1], xp.ones_like(sizes[-1]))[:, None, None]
        c = product(xp, c, c)
        sizes.append(xp.sqrt(squares(xp, c)))
    first, *others = on_host(xp.stack(sizes))
    logs = sum(np.log(np.where(size > 0, size, 1)) / 2.0 ** (i + 1) for i, size in enumerate(others))
    return np.asarray(first * np.exp(logs) * (1 + 4 * c.shape[1] * EPS))


def by_cholesky(c: Floats, last: float, near: float | None = None) -> float:
    """`norms` of one matrix: numbers above `near`, or what a block Krylov space has from below, until one is shown."""
    size = math.sqrt(np.vdot(c, c))
    if near is not None and 0 < near < last and (found := _shown(c, near + (last - near) / 64)) is not None:
        return found
    guess = _ritz(c)
    above = [guess * factor for factor in (1 + 1e-6, 1.01, 1.1, 1.5)]
    if guess < last:
        nearer = (last - (last - guess) / 2**i for i in (1, 4, 9, 16, 24))
        above = [min(guess * 1.05, (guess + last) / 2), *nearer, *above]
    for shift in above:
        if 0 < shift < size and (found := _shown(c, shift)) is not None:
            return found
    return size


def _shown(c: Floats, shift: float) -> float | None:
    """A number slightly above shift that no eigenvalue exceeds, or None where one exceeds shift."""
    d = len(c)
    trace = d * shift - float(np.trace(c))
    if not interruptible(c.size * d // 16, definite_below, c, shift):
        return None
    return shift + (d + 2) * EPS * trace


def _ritz(c: Floats) -> float:
    """The largest eigenvalue of c, from below and mostly near."""
    block, basis = _some(len(c)), []
    for _ in range(SPENT[1]):
        block = multiply(c, block)
        size = np.linalg.norm(block, axis=0)
        block = block / np.where(size > 0, size, 1)
        basis.append(block)
    q = np.linalg.qr(np.concatenate(basis, axis=1))[0]
    return float(np.linalg.eigvalsh(q.T @ multiply(c, q))[-1])


@lru_cache(maxsize=16)
def _some(n: int) -> Floats:
    """Random columns (n, SPENT[0]); not to be written to."""
    return stream(0, LINALG, 4).standard_normal((n, SPENT[0]))
