"""Routes for whole stacks of matrices, through the array API: on the CPU for small ones, on a GPU for all.

Read back to the host are each matrix's largest element, the eigenvalues, and what the triples measure; beside those
what an iteration or cuSOLVER asks for. Stacks are (B, m, n). On a GPU the Gram matrices are multiplied in float64
(`moments` says why), so that what squaring loses lies below √ε of float64, far below what float32 data can show.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpunet.checks import on_host
from gpunet.errors import InputError
from gpunet.linalg.matrix import EPS, Floats
from gpunet.linalg.solvers import HOPE, steps_left
from gpunet.linalg.verify import PROBES, probes, tolerance
from gpunet.rng import LINALG, stream

CUDA_METHODS = ("auto", "gesvdj", "gesvda", "gram", "gesvd")
CHUNK_BYTES = 48 << 20  # of the long side, converted to float64, on the CPU
GPU_CHUNK_BYTES = 1 << 30  # and at most on a GPU, …
GPU_SHARE = 8  # … where it is this part of the free memory: up to four of its size are alive at once
SAFE = {"float32": 1e4, "float64": 1e50}  # on a GPU what lies within [1/SAFE, SAFE] is not scaled: fourth powers fit
SPREAD = 1e-3  # σ_k/σ₁ below which X v is turned into u by QR: what one step corrects is ε σ₁/σ_k
JACOBI = 32  # up to which CuPy's stacked eigh and svd are Jacobi's method, which wins there
LOST = 1e-14  # a direction of which less than this share is left after projection is rounding alone
STRAIGHT = 1e-10  # how far vectors may be from orthonormal
STRETCH = 1e8  # of one direction beside another by one polynomial: that leaves float64 half of its digits
CONVERGED = 1e-2  # of the error that is let pass: where a vector is lowered, what it is wrong by goes into the others
ROUNDING = 4 * EPS  # ‖Gv − λv‖ over λ_1 that no iteration gets below
NOTHING = 1e-12  # of λ_1: what is smaller counts as so large, to be divided by
SURE = 5  # the round from which the pace tells: before, those that come last wait for the first to be lowered
DEGREES = (2, 24)  # of a filter, at least and at most
ROUNDS = 8  # of an iteration on a GPU, at most
GOOD_ROUNDS = 5  # that it takes of singular values that fall, or of noise: 3 to 6 were counted
ROUND_DEGREE = 8  # of its polynomials: 2 where values fall fast, 5 to 20 of noise


def cuda_routes(method: str, long: int, short: int, k: int, batch: int) -> tuple[str, ...]:
    """The routes to try in turn for a stack on a GPU. From cuSOLVER's documented limits and counts of multiplications.

    gesvdjBatched takes up to 32×32. gesvdaStridedBatched is made for stacks of tall matrices and few triples, but
    works on Gram matrices of float32 itself: it comes first only where we do not iterate (`filtered_stack`).
    """
    if method != "auto":
        return (method,)
    if long <= JACOBI:
        return "gesvdj", "gram", "gesvd"
    if batch > 1 and long >= 4 * short and 4 * k <= short < 200:
        return "gesvda", "gram", "gesvd"
    return "gram", "gesvd"


def solve(
    xp: Any, a: Any, k: int, route: str, precision: np.dtype[Any], first: int = 0
) -> tuple[Any, Any, Any, Floats]:
    """The k leading triples u (B, m, k), s (B, k), vt (B, k, n) and what they measure, errors (B, 2) on the host.

    route: "gram", cuSOLVER's "gesvda", or the namespace's own svd: "full" on the CPU, and on a GPU, where CuPy takes
    gesvdjBatched for stacks up to 32×32 and gesvd, one matrix after the other, above: "gesvdj" and "gesvd".
    precision: of the results. first: the number of the first matrix in its stack, for the InputError that names the
    matrix and the place of a NaN or infinity. On a GPU it is raised, too, for a σ beyond the range of `precision`.
    """
    dtype = getattr(xp, precision.name)
    own = xp.float64 if xp is np else dtype  # a CPU takes no longer for small ones in float64
    x = Stack(xp, a, precision, first)
    lost = None
    if route == "gram":
        u, s, v, values = _gram(x, k, own)
        lost = _lost(values, tolerance(precision, x.short, k)) if k < x.short else None
    elif route == "gesvda":
        from gpunet.backend import cusolver

        u, s, v = cusolver.gesvda(x.whole(own), k)
    else:
        if route == "gesvdj" and x.long > JACOBI:
            raise InputError(
                f"gesvdjBatched takes matrices up to 32×32, got {a.shape[1]}×{a.shape[2]}: use another method"
            )
        u, s, vt = xp.linalg.svd(x.whole(own), full_matrices=False)
        u, s, v = u[:, :, :k], s[:, :k], xp.permute_dims(vt[:, :k, :], (0, 2, 1))
    if route != "gram":
        signs = _signs(xp, v)
        u, v = u * signs, v * signs
    u, v, s = (xp.astype(each, dtype, copy=False) for each in (u, v, s))
    errors, top = _measure(x, u, s, v, tolerance(precision, x.short, k))
    if lost is not None:
        errors[lost] = np.inf
    if x.scale is not None:
        with np.errstate(over="ignore"):  # the CPU's caller looks, and names the matrix
            s, top = s / x.scale[:, :, 0], (top / x.factors).astype(precision)
        if xp is not np and np.isinf(top[np.isfinite(errors).all(axis=1)]).any():
            size = f"{a.shape[1]}×{a.shape[2]}"
            raise InputError(f"a singular value of {size} exceeds the range of {precision}: scale the matrix down")
    if x.flipped:
        u, v = v, u
    return u, s, xp.permute_dims(v, (0, 2, 1)), errors


class Stack:
    """Matrices (B, m, n) as X (B, long, short), times powers of two that bring largest elements near 1.

    scale: (B, 1, 1) in the precision of the results, or None where no matrix needs it. Raises InputError for NaN and
    infinities.
    """

    def __init__(self, xp: Any, a: Any, precision: np.dtype[Any], first: int) -> None:
        self.xp, self.a, self.flipped = xp, a, a.shape[1] < a.shape[2]
        self.long, self.short = max(a.shape[1:]), min(a.shape[1:])
        self.chunk = _chunk_bytes(xp)
        self.scale = None
        if "float" in str(a.dtype):  # float16, too: LAPACK never comes back from an infinity
            top = on_host(largest(xp, a)).astype(np.float64)
            if not np.isfinite(top).all():
                _refuse(xp, a, first)
            limit = 126.0 if precision == np.float32 else 1000.0
            scale = 2.0 ** -np.clip(np.floor(np.log2(np.where(top > 0, top, 1))) + 1, -limit, limit)
            safe = 1.0 if xp is np else SAFE[precision.name]
            scale[(1 / safe < top) & (top < safe)] = 1
            if xp is np or (scale != 1).any():
                self.factors: Floats = scale  # (B,), on the host
                self.scale = xp.asarray(scale[:, None, None].astype(precision))

    def parts(self, dtype: Any) -> Iterator[tuple[slice, Any]]:
        """Slices of the long side and those parts of X as `dtype`, laid out as the source is."""
        for where in self.slices(self.short):
            yield where, self._made(self.a[:, :, where] if self.flipped else self.a[:, where, :], dtype)

    def slices(self, columns: int) -> Iterator[slice]:
        """Of the long side: so much at a time that `columns` of float64 take the bytes of a chunk."""
        step = max(1, self.chunk // (8 * self.a.shape[0] * columns))
        for start in range(0, self.long, step):
            yield slice(start, min(start + step, self.long))

    def whole(self, dtype: Any) -> Any:
        """X in one piece, a copy."""
        return self._made(self.a, dtype, True)

    def _made(self, part: Any, dtype: Any, copy: bool = False) -> Any:
        xp = self.xp
        if self.scale is None:
            part = xp.astype(part, dtype, copy=copy)
        else:  # of floats no finer than dtype
            part = part * xp.astype(self.scale, dtype, copy=False)
        return xp.permute_dims(part, (0, 2, 1)) if self.flipped else part


def _chunk_bytes(xp: Any) -> int:
    """Of a GPU's free memory a share; what CuPy's pool holds and does not use is free, too."""
    if not hasattr(xp, "cuda"):
        return CHUNK_BYTES
    free = xp.cuda.runtime.memGetInfo()[0] + xp.get_default_memory_pool().free_bytes()
    return int(max(CHUNK_BYTES, min(GPU_CHUNK_BYTES, free // GPU_SHARE)))


def _refuse(xp: Any, a: Any, first: int) -> None:
    """InputError that names the first NaN or infinity."""
    matrix, row, column = (int(i[0]) for i in xp.nonzero(~xp.isfinite(a)))
    raise InputError(
        f"matrix {first + matrix} of the stack holds {float(a[matrix, row, column])} at [{row}, {column}]: "
        "expected finite numbers; remove or replace such values"
    )


def _lost(values: Floats, limit: float) -> Any:
    """(B,): where squares do not resolve the last λ, so that another σ may have been taken for it, with no residual.

    values: (B, k), fewer than all. As `solvers.by_gram` has it.
    """
    spread = values[:, :1] / np.maximum(values, np.maximum(1e-300 * values[:, :1], 1e-307))
    return HOPE * EPS * np.sqrt(np.sum(spread, axis=1)) > limit / 2


def _gram(x: Stack, k: int, dtype: Any) -> tuple[Any, Any, Any, Floats]:
    """Eigenvectors of XᵀX in float64, u from X v = u diag(s) as `solvers.finish` makes it, and the eigenvalues.

    X v is orthogonal but for rounding, of which the smaller σ has more: with O = (X v)ᵀ X v, s² its diagonal, later
    columns are made orthogonal to those before by (X v) diag(1/s) (1 − E), E the upper triangle of
    diag(1/s) O diag(1/s) − 1 and half of its diagonal. Signs are fixed before, in v.
    """
    xp = x.xp
    g = _summed(inner(xp, part, part) for _, part in x.parts(xp.float64))
    limit = tolerance("float64" if dtype == xp.float64 else "float32", x.short, k)
    found, v = leading_stack(xp, g, k, min(1e-7, limit / (4 * float(np.sqrt(k)))))
    values = on_host(found)
    v = xp.astype(v * _signs(xp, v), dtype, copy=False)
    u = _joined(xp, [product(xp, part, v) for _, part in x.parts(dtype)])
    if (values[:, k - 1] < SPREAD**2 * values[:, 0]).any():
        u, s, v = _finish_by_qr(xp, u, v)
        signs = _signs(xp, v)
        return u * signs, s, v * signs, values
    doubles = (xp.astype(u[:, where, :], xp.float64, copy=False) for where in x.slices(k))  # long sums: not in float32
    overlap = _summed(inner(xp, part, part) for part in doubles)
    s = xp.sqrt(xp.reshape(overlap, (-1, k * k))[:, :: k + 1])
    unit = 1 / (s + 8 * float(xp.finfo(dtype).smallest_normal))
    upper = xp.asarray(np.triu(np.ones((1, k, k)), 1) + np.eye(k) / 2)
    turn = xp.asarray(1.5 * np.eye(k)[None, :, :]) - upper * (overlap * unit[:, :, None] * unit[:, None, :])
    u = product(xp, u, xp.astype(turn * unit[:, :, None], dtype, copy=False))
    return u, xp.flip(xp.sort(s, axis=1), axis=1), v, values  # swaps only what rounding swapped


def _summed(terms: Iterator[Any]) -> Any:
    """Their sum, of one or more."""
    total = next(terms)
    for term in terms:
        total = total + term
    return total


def _joined(xp: Any, parts: list[Any]) -> Any:
    """(B, m, k) of parts of the rows."""
    return parts[0] if len(parts) == 1 else xp.concat(parts, axis=1)


def _finish_by_qr(xp: Any, u: Any, v: Any) -> tuple[Any, Any, Any]:
    """X v = Q R, R = P diag(s) Wᵀ: u = Q P and v W."""
    q, r = xp.linalg.qr(u)
    p, s, wt = xp.linalg.svd(r)
    return product(xp, q, p), s, product(xp, v, xp.permute_dims(wt, (0, 2, 1)))


def _measure(x: Stack, u: Any, s: Any, v: Any, limit: float) -> tuple[Floats, Floats]:
    """(B, 2) residual and orthogonality, as `verify.measure` defines them, in float64; and (B,) σ₁. On the host.

    What an estimate finds near the limit is measured triple by triple.
    """
    errors, top = _estimated(x, u, s, v, *probes(s.shape[1]))
    near = (limit / 2 < errors) & (errors < 10 * limit)
    if near.any() and s.shape[1] > PROBES:
        errors, top = _estimated(x, u, s, v, np.eye(s.shape[1]), 1.0)
    return errors, top


def _estimated(x: Stack, u: Any, s: Any, v: Any, signs: Floats, factor: float) -> tuple[Floats, Floats]:
    """`_measure` by the columns of `signs` (k, p)."""
    xp = x.xp
    w = xp.asarray(np.ascontiguousarray(signs)[None, :, :], dtype=xp.float64)
    s, v = xp.astype(s, xp.float64, copy=False), xp.astype(v, xp.float64, copy=False)
    sw, vw = s[:, :, None] * w, product(xp, v, w)

    def terms(where: slice, part: Any) -> list[Any]:
        own = xp.astype(u[:, where, :], xp.float64, copy=False)
        uw = product(xp, own, w)
        wrong = product(xp, part, vw) - product(xp, own, sw)
        return [squares(xp, wrong), inner(xp, part, uw), inner(xp, own, uw)]

    left, right, gram = totals(terms(*each) for each in x.parts(xp.float64))
    found = left, squares(xp, right - product(xp, v, sw)), squares(xp, gram - w), squares(xp, inner(xp, v, vw) - w)
    *wrong, top = on_host(xp.stack([*found, s[:, 0]]))
    residual, loss = np.sqrt(np.maximum(*wrong[:2])), np.sqrt(np.maximum(*wrong[2:]))
    return factor * np.stack([residual / np.where(top > 0, top, 1), loss], axis=1), top


def totals(lists: Iterable[list[Any]]) -> list[Any]:
    """The sums of one or more lists of arrays, place by place."""
    found: list[Any] = []
    for terms in lists:
        found = [before + term for before, term in zip(found, terms, strict=True)] if found else terms
    return found


def _signs(xp: Any, v: Any) -> Any:
    """(B, 1, k) of `verify.fix_signs`: the first of the largest elements becomes positive.

    v over 0.999 of the largest, cut off, is ±1 there and 0 elsewhere; of numbers that fall with the row the first of
    those is the largest.
    """
    peak = (1 - 1e-3) * xp.max(xp.abs(v), axis=1, keepdims=True)
    fall = xp.asarray(np.arange(v.shape[1], 0, -1.0)[None, :, None], dtype=v.dtype)
    marks = xp.trunc(v / peak) * fall
    return xp.sign(xp.max(marks, axis=1, keepdims=True) + xp.min(marks, axis=1, keepdims=True))


# -- leading eigenpairs of symmetric matrices (B, n, n), positive semi-definite, float64 ------------------------------


@dataclass(frozen=True)
class GpuRates:
    """The same for a GPU, float64. Assumed for an H200, not measured.

    product: 67 TFLOP/s of float64 tensor cores are 33e12 multiplications and additions; three quarters of that.
    syevd: of n and n³. Columns are reduced one after the other, a few kernels each, and 9 n³ operations run at about
    one TFLOP/s: 4096×4096 in 0.7 s. launch: of one small kernel.
    """

    product: float = 1 / 25e12
    syevd: tuple[float, float] = (3e-5, 8e-12)
    launch: float = 1e-5


GPU_RATES = GpuRates()


def gpu_width(n: int, k: int) -> int:
    """Columns of the block in which a GPU iterates for the k leading eigenvectors of n×n."""
    return min(n, max(3 * k, k + 32))


def gpu_iterates(n: int, k: int, batch: int = 1, rates: GpuRates = GPU_RATES) -> bool:
    """Whether a GPU iterates for the k leading eigenvectors of `batch` matrices n×n before cuSOLVER is asked.

    A round is two decompositions of the block's own small matrices, and products, which take far less: 4096×4096 to
    256 is expected to take 0.06 s a round, where eigh takes 0.7.
    """
    width, columns, cubes = gpu_width(n, k), *rates.syevd

    def syevd(size: int) -> float:
        return columns * size + batch * cubes * size**3

    products = batch * rates.product * (ROUND_DEGREE * n**2 * width + 8 * n * width**2)
    return GOOD_ROUNDS * (2 * syevd(width) + products + 60 * rates.launch) < syevd(n)


def leading_stack(xp: Any, g: Any, k: int, tol: float = 1e-12, sturdy: bool = False) -> tuple[Any, Any]:
    """The k largest eigenvalues (B, k), descending, and their vectors (B, n, k).

    By `filtered_stack` where `gpu_iterates` expects that to take less time, else by eigh.
    tol: of ‖Gv − λv‖ over λ_k, where it is by iteration. sturdy: by eigh of one matrix after the other, whatever it
    takes. What rounding left below 0 is returned so, for residuals to be right.
    """
    batch, n = g.shape[:2]
    if not sturdy and tol > ROUNDING and gpu_iterates(n, k, batch):
        found = filtered_stack(xp, g, k, tol)
        if found is not None:
            return found
    values, vectors = eigh_stack(xp, g, sturdy)
    return xp.flip(values[:, n - k :], axis=1), xp.flip(vectors[:, :, n - k :], axis=2)


def eigh_stack(xp: Any, g: Any, sturdy: bool = False) -> tuple[Any, Any]:
    """All eigenvalues (B, n), ascending, and vectors (B, n, n).

    Small ones go to CuPy's stacked Jacobi, a lone large one to cuSOLVER's syevd, others to syevBatched where this
    cuSOLVER has it, and one by one where it has not. None is asked how it fared: the caller looks at residuals.
    """
    batch, n = g.shape[:2]
    if not sturdy and (n <= JACOBI or xp is np):
        values, vectors = xp.linalg.eigh(g)
        return values, vectors
    if batch == 1:
        values, vectors = xp.linalg.eigh(g[0, ...])
        return values[None, ...], vectors[None, ...]
    if not sturdy and xp.__name__ == "cupy":
        from gpunet.backend import cusolver

        found = cusolver.syev_batched(g)
        if found is not None:
            return found
    pairs = [xp.linalg.eigh(g[i, ...]) for i in range(batch)]
    return xp.stack([pair[0] for pair in pairs]), xp.stack([pair[1] for pair in pairs])


def filtered_stack(xp: Any, g: Any, k: int, tol: float) -> tuple[Any, Any] | None:
    """As `leading_stack`, by subspace iteration with Chebyshev polynomials of G; None where one did not converge.

    (Rutishauser 1969; Zhou, Saad, Tiago & Chelikowsky 2006.) It stops when max_j ‖Gv_j − θ_j v_j‖ ≤ tol θ_k, and gives
    up where that lies below rounding. The block is three times as wide as k, since on a GPU products take next to no
    time beside eigenvectors: a polynomial of degree d that stays within ±1 on [0, a], a the smallest Ritz value of the
    block, grows like (4 λ/a)^d / 2 beyond. The degree is bounded by what float64 holds of one direction beside another;
    eigenvectors that have converged are lowered to λ_k before, or a large first one would leave no degree to the rest.

    Directions that a matrix of low rank has lost become zero columns, which stand behind everything in the Ritz
    values; where a zero column is among the k, that shows as missing orthonormality. The host is asked once a round.
    """
    batch, n = g.shape[:2]
    width = gpu_width(n, k)
    start = xp.asarray(stream(0, LINALG).random((1, n, width), dtype=np.float32) - np.float32(0.5))
    q = _orthonormal(xp, product(xp, g, xp.broadcast_to(xp.astype(start, g.dtype), (batch, n, width))))
    identity, seen = xp.eye(k, dtype=g.dtype), list[tuple[int, float]]()
    for round_ in range(ROUNDS):
        image = product(xp, g, q)
        theta, mix = _descending(xp, inner(xp, q, image))
        v, image = product(xp, q, mix), product(xp, image, mix)
        wrong = image - v * theta[:, None, :]
        loss = xp.abs(inner(xp, v[:, :, :k], v[:, :, :k]) - identity)
        facts = on_host(xp.concat([theta, xp.sum(wrong * wrong, axis=1), xp.max(loss, axis=2)], axis=1))
        values, errors, losses = np.split(facts, [width, 2 * width], axis=1)
        last = values[:, k - 1 : k]
        if not (tol * last > ROUNDING * values[:, :1]).all():  # NaN, too
            return None
        errors = np.sqrt(errors) / (tol * last)
        good = (errors[:, :k].max(axis=1) <= 1) & (losses.max(axis=1) < STRAIGHT)
        if good.all():
            return theta[:, :k], v[:, :, :k]
        seen.append((round_, float(errors[:, :k].max())))
        if round_ >= SURE and not steps_left(seen[-2:]) < ROUNDS - round_:
            return None
        cut = np.where(good[:, None], np.inf, np.maximum(values[:, -1:], NOTHING * values[:, :1]))  # stays as it is
        excess = np.where((errors <= CONVERGED) & (values > last), values - last, 0)
        spread = np.arccosh(np.maximum(2 * (values - excess).max(axis=1, keepdims=True) / cut - 1, 1.01)).max()
        degree = int(np.clip(math.log(2 * STRETCH) / spread, *DEGREES))
        lowered, step = v * xp.asarray(excess[:, None, :]), xp.asarray(2 / cut[:, :, None])
        q = _orthonormal(xp, _filtered(xp, g, v, image, lowered, step, degree))
    return None


def _filtered(xp: Any, g: Any, v: Any, image: Any, lowered: Any, step: Any, degree: int) -> Any:
    """T_d(step H − 1) v, T_d Chebyshev's polynomial and H = G − lowered vᵀ; image: G v."""
    before, last = v, (image - lowered) * step - v
    for _ in range(degree - 1):
        y = (product(xp, g, last) - product(xp, lowered, inner(xp, v, last))) * step - last
        before, last = last, y + y - before
    return last


def _orthonormal(xp: Any, y: Any) -> Any:
    """Columns that span those of y, from the eigenvectors of yᵀy (Stathopoulos & Wu 2002): products only, no QR.

    Columns are scaled first; directions of which only rounding is left become zero.
    """
    size = xp.sqrt(xp.sum(y * y, axis=1))[:, None, :]
    y = y / xp.where(size > 0, size, xp.ones_like(size))
    values, vectors = _descending(xp, inner(xp, y, y))
    kept = values > LOST * values[:, :1]
    scale = xp.where(kept, xp.abs(values), xp.full_like(values, xp.inf)) ** -0.5
    return product(xp, y, vectors * scale[:, None, :])


def _descending(xp: Any, a: Any) -> tuple[Any, Any]:
    """`eigh_stack` of (a + aᵀ)/2, the largest first."""
    values, vectors = eigh_stack(xp, (a + xp.permute_dims(a, (0, 2, 1))) / 2)
    return xp.flip(values, axis=1), xp.flip(vectors, axis=2)


# -- products and sums of stacks as a GPU does them fast; on NumPy what its own functions give, to the bit ------------
#
# CuPy 14.2 copies each operand of a product of stacks that is not C-contiguous, a transpose above all, but hands those
# of two matrices to cuBLAS as they lie (`_core/_routines_linalg.pyx`: `matmul`, `dot`). And it reduces each matrix of a
# stack in one block of threads, but a whole array in as many as the GPU holds (`cuda/cub.pyx`: `cub_reduction`).


def product(xp: Any, a: Any, b: Any) -> Any:
    """a b (B, m, p) of a (B, m, n) and b (B, n, p)."""
    if xp is np or max(a.shape[0], b.shape[0]) > 1:
        return xp.matmul(a, b)
    return xp.matmul(a[0, ...], b[0, ...])[None, ...]


def inner(xp: Any, a: Any, b: Any) -> Any:
    """aᵀb (B, m, p) of a (B, n, m) and b (B, n, p)."""
    return product(xp, xp.permute_dims(a, (0, 2, 1)), b)


def squares(xp: Any, a: Any) -> Any:
    """(B,): ‖a‖_F² of each matrix."""
    return _of_each(xp, xp.sum, a * a)


def largest(xp: Any, a: Any) -> Any:
    """(B,): max|a| of each matrix; NaN and infinities show. On a GPU nothing of the size of a is made."""
    if xp is np:
        return xp.max(xp.abs(a), axis=(1, 2))
    return xp.maximum(_of_each(xp, xp.max, a), -_of_each(xp, xp.min, a))


def _of_each(xp: Any, reduce: Any, a: Any) -> Any:
    """(B,): of each matrix; several of them line by line first, each line in a block of its own."""
    if xp is np:
        return reduce(a, axis=(1, 2))
    if a.shape[0] == 1:
        return xp.reshape(reduce(a), (1,))
    return reduce(reduce(a, axis=2), axis=1)
