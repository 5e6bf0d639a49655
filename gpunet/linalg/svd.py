"""Singular value decomposition: choose a route, verify what it returns, fall back, and say which it was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Generic, Literal, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from gpunet.backend import Backend
from gpunet.backend.blas import limited
from gpunet.checks import as_float, check_flag, is_number, is_one_of, is_whole, on_device, real_array
from gpunet.errors import ConvergenceError, InputError, shown
from gpunet.linalg import stacked
from gpunet.linalg.certificate import (
    KEPT,
    Certificate,
    Certified,
    Proof,
    certify,
    joined,
    later,
    of_its_gram,
    of_tall,
    reshaped,
    scaled,
)
from gpunet.linalg.device import computing_on, device_of, is_gpu
from gpunet.linalg.matrix import EPS, WHOLE_ELEMENTS, Array, Floats, TallMatrix, check_matrix, gram, result_dtype
from gpunet.linalg.solvers import (
    RATES,
    ROUTES,
    STAKE,
    NotConverged,
    Rates,
    block_width,
    eigh_seconds,
    few_of_many,
    good_blocks,
    iterates,
    krylov_seconds,
    pays,
)
from gpunet.linalg.sources import Source, opened
from gpunet.linalg.stacked import CUDA_METHODS, cuda_routes
from gpunet.linalg.verify import EPS32, Measured, fix_signs, identity, measured, norm, tolerance
from gpunet.reprs import sizes

A = TypeVar("A")
Compute = Literal["both", "left", "right"]
Method = Literal["auto", "full", "gram", "subspace", "randomized", "qr", "gesvdj", "gesvda", "gesvd"]
METHODS: tuple[Method, ...] = ("auto", "full", "gram", "subspace", "randomized", "qr")
SMALL = 64 * 64  # elements: below, a stack is decomposed in few calls, above matrix by matrix
STACK_BYTES = 4 << 20  # of float64 that one call is given
LATER = 1 << 30  # bytes on a GPU of which a copy is kept for the certificate
ONE_CALL = 256  # elements up to which LAPACK's gesdd takes less time than the calls of any other way would


@dataclass(frozen=True, repr=False)
class SVD(Certified, Generic[A]):
    """The k leading singular triples of a matrix (m, n), or of each of a stack (…, m, n): a ≈ u diag(s) vt.

    u: (…, m, k), orthonormal columns; s: (…, k), descending; vt: (…, k, n), orthonormal rows. After
    compute="left" vt is None, after compute="right" u is None. float32 for float32, uint8 and integers of up to 16
    bits, else float64. `u, s, vt = gn.svd(a)` takes the three apart, as NumPy's svd with full_matrices=False.

    Of each pair of vectors the sign is that which makes the largest element of the shorter one positive (u's column
    where m < n, else vt's row). Where singular values are equal, any orthonormal basis of their common subspace is
    right: which one is returned is the same on every call, and means nothing.

    route: which way it was computed; rejected: the ways tried before, and what they reached. residual:
    max(‖a v − u s‖_F, ‖aᵀu − v s‖_F)/σ₁; orthogonality: max(‖uᵀu − 1‖_F, ‖vᵀv − 1‖_F), beyond 8 triples both
    estimated from random signs; of a stack the worst. Both are at most `tol`.
    certificate: what is shown of them: intervals for σ, the angle of their span, and that none was missed. It is
    computed when it is read first, of what is kept till then: of matrices of up to 2¹⁸ elements, and on a GPU of up to
    1 GiB, a copy, of larger ones the Gram matrix; where that takes more than 64 MB, at once.
    """

    u: A
    s: A
    vt: A
    route: str
    residual: float
    orthogonality: float
    tol: float
    rejected: tuple[str, ...] = ()
    _proof: Proof = field(kw_only=True, repr=False, compare=False)

    def __iter__(self) -> Iterator[A]:
        """u, s, vt, as `u, s, vt = gn.svd(a)` takes them."""
        return iter((self.u, self.s, self.vt))

    def _told(self) -> dict[str, str]:
        s: Any = self.s
        told = {name: sizes(getattr(self, name)) for name in ("u", "s", "vt")}
        if getattr(s, "ndim", 0) == 1 and len(s):
            told["σ from"] = f"{float(s[0]):.4g} to {float(s[-1]):.4g}"
        how = {"residual": f"{self.residual:.2g}", "orthogonality": f"{self.orthogonality:.2g}"}
        return {**told, "dtype": str(s.dtype), "route": self.route, **how}

    @property
    def summary(self) -> dict[str, Any]:
        """How it was found, without the vectors: route, residual, orthogonality, tol, rejected."""
        names = ("route", "residual", "orthogonality", "tol", "rejected")
        return {name: getattr(self, name) for name in names}


@overload
def svd(
    a: NDArray[Any], k: int | None = None, *, method: Method = "auto", compute: Literal["both"] = "both",
    tol: float | None = None, device: Literal["cpu", "numpy"] | None = None, certify: bool = False,
) -> SVD[Floats]: ...  # fmt: skip
@overload
def svd(
    a: Any, k: int | None = None, *, method: Method = "auto", compute: Compute = "both",
    tol: float | None = None, device: str | Backend | None = None, certify: bool = False,
) -> SVD[Any]: ...  # fmt: skip
def svd(
    a: Any,
    k: int | None = None,
    *,
    method: Method = "auto",
    compute: Compute = "both",
    tol: float | None = None,
    device: str | Backend | None = None,
    certify: bool = False,
) -> SVD[Any]:
    """The k leading singular triples of `a`, (m, n) or a stack (…, m, n); all min(m, n) when k is None.

    `a` may be larger than memory: a path or anything else that `gn.gram` takes for a source, iterables aside. On the
    CPU it is read two or three times by rows, or by columns where it is wide, what comes next beside the products. u or
    vt, the longer side's vectors, are made in memory; compute="right", or "left" of a wide one, leaves them out.

    method: "auto" takes the route that is expected to be the fastest, verifies what it returns and falls back to the
    next where that is not good enough. The others force a route: "full" (LAPACK gesdd in float64), "gram" (eigenvectors
    of the smaller Gram matrix; where one is not enough, `gram-levels`), "subspace" (the same by block Lanczos),
    "randomized" (block Krylov on `a` itself), "qr" (tall-skinny QR); on a GPU "gram", "gesvdj" (up to 32×32), "gesvda",
    "gesvd".
    compute: "left" or "right" where one side's vectors suffice; it saves a product where that is the shorter side.
    tol: the largest residual and orthogonality (see `SVD`) to accept, by default ε (128 + 3 √(k min(m, n))).
    device: where to compute; by default where `a` lies. The results are arrays of that device. On a GPU Gram matrices
    are multiplied in float64.
    certify: of a large matrix on the CPU, multiply its Gram matrix in float64 where the route had no need of it, so
    that `SVD.certificate` shows as much as can be shown; else it says what follows from what was computed anyway.

    bool, float16, bfloat16 (of ml_dtypes) and integers of up to 16 bits are computed as float32, which holds them
    exactly, wider integers as float64; the order of bytes and of memory does not matter.

    Memory beyond the input and the results: on the CPU O(min(m, n)²) and less than 64 MB, except for "full" and for
    matrices nearly square, which are copied whole, and for the shorter side alone where the route is "gram-levels" or
    "qr" (of float64, singular values that fall below about 0.01 of the largest): they are judged by the longer side's
    vectors, which are made then. uint8 is never converted as a whole. On a GPU: O(min(m, n)²) for each matrix of a
    stack, the longer side's vectors once more, and chunks of half of what is free, or 4 GiB, at most; "gesvd",
    "gesvda" and "gesvdj" copy all.

    Raises InputError for NaN, infinities, dtypes that are not real numbers and settings that do not exist,
    ShapeError for empty arrays and fewer than two dimensions, DataError for files as `gn.gram` does, ConvergenceError
    where no route reached `tol`.

    >>> import numpy as np, gpunet as gn
    >>> found = gn.svd(np.arange(12.0).reshape(4, 3), k=2)
    >>> found.u.shape, found.s.round(3).tolist(), found.vt.shape
    ((4, 2), [22.447, 1.464], (2, 3))
    >>> found.residual < found.tol
    True
    """
    a = check_matrix(a if type(a) is np.ndarray else opened(a), narrow=True)
    m, n = a.shape[-2:]
    k = _check_k(k, m, n)
    if not is_one_of(compute, ("both", "left", "right")):
        raise InputError(f"compute is {shown(compute)}: expected 'both', 'left' or 'right'")
    if tol is not None and not (is_number(tol) and tol > 0):
        raise InputError(f"tol is {shown(tol)}: expected a number > 0, or None for the default of the dtype")
    backend = device_of(a, device)
    known, where = (CUDA_METHODS, "a GPU") if is_gpu(backend) else (METHODS, "the CPU")
    if not is_one_of(method, known):
        raise InputError(f"unknown method {shown(method)} on {where}: expected one of {', '.join(known)}")
    limit = tolerance(result_dtype(a.dtype), min(m, n), k) if tol is None else as_float(tol)
    if k == 0:
        return _empty(backend.xp, a, compute, limit)
    if is_gpu(backend):
        if isinstance(a, Source):
            raise InputError(
                f"{a.name} is read piece by piece, which is decomposed on the CPU: expected device='cpu', or use "
                "gn.gram(source, device='cuda').components(k)"
            )
        with computing_on(backend):
            found = _on_gpu(backend, real_array(a, "a"), k, method, limit)
    else:
        found = limited(a.size * min(m, n), _on_cpu, a, k, method, compute, limit, check_flag("certify", certify))
    return _one_sided(found, compute)


def _check_k(k: Any, m: int, n: int) -> int:
    if k is None:
        return min(m, n)
    if not is_whole(k, 0, min(m, n)):
        raise InputError(f"k is {shown(k)}: expected an integer from 0 to min(m, n) = {min(m, n)} of a matrix {m}×{n}")
    return int(k)


def _empty(xp: Any, a: Any, compute: Compute, limit: float) -> SVD[Any]:
    *lead, m, n = a.shape
    dtype = result_dtype(a.dtype)
    u, s, vt = (xp.empty(shape, dtype=dtype) for shape in ((*lead, m, 0), (*lead, 0), (*lead, 0, n)))
    none = Certificate(
        np.zeros((*lead, 0, 2)), *(np.full(lead, each) if lead else each for each in (0.0, True, np.inf))
    )
    return _one_sided(SVD(u, s, vt, "none", 0.0, 0.0, limit, _proof=none), compute)


def _one_sided(found: SVD[Any], compute: Compute) -> SVD[Any]:
    if compute == "both":
        return found
    return replace(found, vt=None) if compute == "left" else replace(found, u=None)


def _on_cpu(a: Array, k: int, method: str, compute: Compute, limit: float, sure: bool) -> SVD[Any]:
    """A matrix or a stack on the CPU."""
    m, n = a.shape[-2:]
    # BLAS sets this flag at times for lanes that it then drops; what is not finite indeed fails the verification.
    with np.errstate(invalid="ignore"):
        if method == "auto" and a.ndim == 2 and few_calls(m, n) and (small := _small(a, k, limit)) is not None:
            return small
        if a.ndim > 2:
            return _stack(a, k, method, compute, limit, sure)
        return _matrix(a, k, method, compute, limit, sure, f"the matrix {m}×{n}")


@dataclass(frozen=True)
class Triples:
    """X v = u diag(s) of a `TallMatrix`, verified: u (long, k) or None, s (k,) float64 and not scaled, v (short, k)."""

    u: Array | None
    s: Array
    v: Array
    route: str
    residual: float
    orthogonality: float
    rejected: tuple[str, ...]
    proof: Proof


def leading_triples(
    x: TallMatrix, k: int, *, long_side: bool = True, method: str = "auto", tol: float | None = None,
    sure: bool = False, name: str, room: int = KEPT,
) -> Triples:  # fmt: skip
    """The k leading singular triples of x on the CPU, by the first route that passes.

    sure: `svd`'s certify; room: bytes that may be kept for their certificate.
    """
    limit = tolerance(x.dtype, x.short, k) if tol is None else tol
    rejected: list[str] = []
    for route in cpu_routes(method, x, k, long_side, sure):
        try:
            gamble = {"patience": patience(x, k, long_side)} if (method, route) == ("auto", "randomized") else {}
            u, s, v = ROUTES[route](x, k, long_side, limit, **gamble)
        except (NotConverged, np.linalg.LinAlgError) as error:
            rejected.append(f"{route}: {error}")
            continue
        v = v.astype(x.dtype, copy=False)
        errors = measured(x, u, s.astype(x.dtype), v, limit, precise=sure)
        if errors.residual <= limit and errors.orthogonality <= limit:
            break
        rejected.append(f"{route}: residual {errors.residual:.2g}, orthogonality {errors.orthogonality:.2g}")
        u = None  # not beside that of the next route
    else:
        raise ConvergenceError(
            f"svd of {name} (k={k}, {x.dtype}) did not reach tol={limit:.2g}: {'; '.join(rejected)}; "
            f"{'raise tol' if method == 'auto' else 'try method=auto, or raise tol'}"
        )
    if sure and not x.small:
        gram(x, "float64")
    proof = _proof(x, u, s, v, errors, room)
    u = u if long_side else None
    return Triples(u, s, v, route, errors.residual, errors.orthogonality, tuple(rejected), proof)


def _proof(x: TallMatrix, u: Array | None, s: Array, v: Array, errors: Measured, room: int) -> Proof:
    """Of X's triples, without its scale; of a small one when it is asked for, by what is nobody else's."""
    if not x.small:
        return scaled(of_tall(x, u, s, v, errors, room), 1 / x.scale)
    v, kept = v.copy(), v.nbytes + 8 * x.short**2
    if u is None:
        made = of_its_gram(x, v)
    else:
        whole, u = x.whole(), u.copy()
        kept += whole.nbytes + u.nbytes
        if np.may_share_memory(whole, x.a):
            whole = whole.copy()
        held = x.grams["float64"][None] if "float64" in x.grams else None
        known = x.eigenvalues("float64")
        made = partial(certify, np, whole[None], u[None], s[None], v.T[None], x.dtype, held, known)
    return scaled(later(x.long * x.short**2, lambda: reshaped(made()), kept, room), 1 / x.scale)


def _matrix(
    a: Array, k: int, method: str, compute: Compute, limit: float, sure: bool, name: str, what: str = "a",
    room: int = KEPT,
) -> SVD[Any]:  # fmt: skip
    """One matrix on the CPU."""
    x = TallMatrix(a, what=what)
    long_side = compute == "both" or (compute == "right") == x.flipped
    found = leading_triples(x, k, long_side=long_side, method=method, tol=limit, sure=sure, name=name, room=room)
    v, signs = fix_signs(found.v)
    u = found.u
    if u is not None:
        u *= signs
    with np.errstate(over="ignore"):
        s = (found.s / x.scale).astype(x.dtype)
    if not np.isfinite(s[0]):
        raise InputError(f"a singular value of {name} exceeds the range of {x.dtype}: scale the matrix down")
    left, right = (v, u) if x.flipped else (u, v)
    vt = None if right is None else right.T
    return SVD(left, s, vt, found.route, found.residual, found.orthogonality, limit, found.rejected, _proof=found.proof)


def _small(a: Array, k: int, limit: float) -> SVD[Any] | None:
    """A matrix so small that calls count, not operations: few of them, and measured in the precision of the results.

    None where that is not good enough by far, or out of the ordinary: `_matrix` tells why.
    """
    m, n = a.shape
    single = result_dtype(a.dtype) == np.float32
    x = a if a.dtype == np.float64 else a.astype(np.float64)
    if not 1e-200 < np.vdot(x, x) < (1e76 if single else 1e200):  # NaN and infinities neither
        return None
    flipped, one_call = m < n, a.size <= ONE_CALL
    if flipped:
        x = x.T
    try:
        if one_call:
            u, s, vt = np.linalg.svd(x, full_matrices=False)
            v, signs = fix_signs(vt[:k].T)
            u, s = u[:, :k] * signs, s[:k]
        else:
            values, v = np.linalg.eigh(x.T @ x)
            if not values[0] > max(1e-6, 2 * EPS / limit) * values[-1]:  # to be straightened
                return None
            v, _ = fix_signs(v[:, : -k - 1 : -1])
            s = np.sqrt(values[: -k - 1 : -1])
            u = x @ (v / s)
    except np.linalg.LinAlgError:
        return None
    if single:
        u, s, v = u.astype(np.float32), s.astype(np.float32), v.astype(np.float32)
        x = x.astype(np.float32)
    residual = max(norm(x @ v - u * s), norm(x.T @ u - v * s)) / float(s[0])
    orthogonality = max(norm(u.T @ u - identity(k, u.dtype)), norm(v.T @ v - identity(k, u.dtype)))
    bound = limit
    if single:  # which float32 tells to one ε, and not beside the limit
        residual, orthogonality, bound = residual + EPS32, orthogonality + EPS32, limit / 4
    if not (residual <= bound and orthogonality <= bound):
        return None
    own = [each.copy()[None] for each in (x, u, s, v.T)]
    prove = partial(certify, np, dtype=u.dtype)
    left, right = (v, u) if flipped else (u, v)
    route = "full" if one_call else "gram"
    return SVD(left, s, right.T, route, residual, orthogonality, limit, _proof=lambda: reshaped(prove(*own)))


def _stack(a: Array, k: int, method: str, compute: Compute, limit: float, sure: bool) -> SVD[Any]:
    """A stack on the CPU: small matrices in one call, and one by one what is large or failed there."""
    m, n = a.shape[-2:]
    flat = a.reshape(-1, m, n)
    dtype = result_dtype(a.dtype)
    u, s, vt = np.empty((len(flat), m, k), dtype), np.empty((len(flat), k), dtype), np.empty((len(flat), k, n), dtype)
    reached, routes, rejected, proofs = np.zeros((len(flat), 2)), list[str](), list[str](), list[Proof]()
    todo = np.arange(len(flat))
    if m * n <= SMALL and method in ("auto", "full"):
        good = np.zeros(len(flat), bool)
        step = max(1, STACK_BYTES // (8 * m * n))
        for start in range(0, len(flat), step):
            part = slice(start, start + step)
            with contextlib.suppress(np.linalg.LinAlgError):  # of one matrix: those beside it go one by one too
                u[part], s[part], vt[part], reached[part] = stacked.solve(np, flat[part], k, "full", dtype, start)
                good[part] = (reached[part] <= limit).all(axis=1) & np.isfinite(s[part]).all(axis=1)
        todo = np.flatnonzero(~good)
        if good.any():
            routes.append("full")
    for i in todo.tolist():
        name, what = f"matrix {i} of the stack of {len(flat)}, {m}×{n}", f"matrix {i} of the stack of {len(flat)}"
        one = _matrix(flat[i], k, method, "both", limit, sure, name, what, KEPT // len(flat))
        u[i], s[i], vt[i], reached[i] = one.u, one.s, one.vt, (one.residual, one.orthogonality)
        routes.append(one.route)
        rejected += [f"[{i}] {each}" for each in one.rejected]
        if m * n > WHOLE_ELEMENTS:  # of small ones they would keep copies
            proofs.append(one._proof)
    residual, orthogonality = reached.max(axis=0, initial=0).tolist()
    lead = a.shape[:-2]
    proof = _of_stack(flat, u, s, vt, lead) if m * n <= WHOLE_ELEMENTS else lambda: reshaped(joined(proofs), lead)
    return SVD(
        u.reshape(*lead, m, k), s.reshape(*lead, k), vt.reshape(*lead, k, n),
        "+".join(dict.fromkeys(routes)), residual, orthogonality, limit, tuple(rejected), _proof=proof,
    )  # fmt: skip


def _of_stack(a: Array, u: Array, s: Array, vt: Array, lead: tuple[int, ...]) -> Proof:
    """Of a stack of small matrices (B, m, n), STACK_BYTES at a time; when it is asked for, where they are few."""
    few = a.size <= WHOLE_ELEMENTS
    own = [each.copy() if few else each for each in (a, u, s, vt)]
    step, prove = max(1, STACK_BYTES // (8 * a[0].size)), partial(certify, np, dtype=u.dtype)

    def made() -> Certificate:
        parts = [slice(start, start + step) for start in range(0, len(a), step)]
        return reshaped(joined([prove(*(each[part] for each in own)) for part in parts]), lead)

    return made if few else made()


def _on_gpu(backend: Backend, a: Any, k: int, method: str, limit: float) -> SVD[Any]:
    """A matrix or a stack on a GPU; those that fail a route take the next."""
    m, n = a.shape[-2:]
    xp, dtype, lead = backend.xp, result_dtype(a.dtype), a.shape[:-2]
    stack = xp.reshape(backend.asarray(a), (-1, m, n))
    todo, routes, rejected, worst = np.arange(stack.shape[0]), [], [], 0
    reached, kept = np.zeros((len(todo), 2)), list[Any]()
    for route in cuda_routes(method, max(m, n), min(m, n), k, len(todo)):
        part = stack if len(todo) == len(reached) else xp.stack([stack[int(i), ...] for i in todo])
        try:
            *found, errors = stacked.solve(xp, part, k, route, dtype)
        except np.linalg.LinAlgError as error:
            rejected.append(f"{route}: {error}")
            continue
        reached[todo] = errors
        good = (reached[todo] <= limit).all(axis=1)
        if good.any():
            routes.append(route)
        kept = found if len(todo) == len(reached) else _put_in(kept, found, todo)
        if good.all():
            break
        todo = todo[~good]
        worst = todo[np.argmax(np.where(np.isfinite(reached[todo]), reached[todo], np.inf).max(axis=1))]
        rejected.append(f"{route}: residual {reached[worst, 0]:.2g}, orthogonality {reached[worst, 1]:.2g}")
    else:
        raise ConvergenceError(
            f"svd of matrix {worst} of {len(reached)}, {m}×{n} (k={k}, {backend.name}) did not reach tol={limit:.2g}: "
            f"{'; '.join(rejected)}; {'raise tol' if method == 'auto' else 'try method=auto, or raise tol'}"
        )
    u, s, vt = kept
    residual, orthogonality = reached.max(axis=0).tolist()
    if a.size * dtype.itemsize <= LATER:  # what takes kernels of its own, and reads back, waits until it is asked for
        own = [xp.astype(each, each.dtype, copy=True) for each in ((stack, u, s, vt) if on_device(a) else (u, s, vt))]
        own = own if on_device(a) else [stack, *own]
        proof: Proof = partial(_on_device, backend, own, dtype, lead)
    else:
        proof = reshaped(certify(xp, stack, u, s, vt, dtype), lead)
    return SVD(
        xp.reshape(u, (*lead, m, k)), xp.reshape(s, (*lead, k)), xp.reshape(vt, (*lead, k, n)), "+".join(routes),
        residual, orthogonality, limit, tuple(rejected), _proof=proof,
    )  # fmt: skip


def _on_device(backend: Backend, own: list[Any], dtype: Any, lead: tuple[int, ...]) -> Certificate:
    """The certificate of a stack and its triples, all nobody else's."""
    with computing_on(backend) as xp:
        a, u, s, vt = own
        return reshaped(certify(xp, a, u, s, vt, dtype), lead)


def _put_in(kept: list[Any], found: list[Any], todo: Array) -> list[Any]:
    """The triples of a stack with those of some of its matrices put in."""
    for whole, part in zip(kept, found, strict=True):
        for j, i in enumerate(todo.tolist()):
            whole[i, ...] = part[j, ...]
    return kept


# -- which routes to try on the CPU, in which order -------------------------------------------------------------------


def few_calls(m: int, n: int) -> bool:
    """Whether a matrix is so small that the time goes into calls."""
    return min(m, n) <= 16 and m * n <= 1 << 15


def cpu_routes(method: str, x: TallMatrix, k: int, long_side: bool, sure: bool = False) -> tuple[str, ...]:
    """The routes to try in turn for the k leading triples of x, those that are expected to be the fastest first.

    sure: the Gram matrix in float64 is wanted anyway, of a large x. Then it is there to iterate on.

    Whether an iteration converges fast depends on the singular values, which are not known: it is tried where going
    well saves much, and stopped as soon as it is seen to go badly.
    """
    long, short, single = x.long, x.short, not x.float64_products
    sure = sure and not x.small
    gram: tuple[str, ...] = ("gram",) if not single else ("gram64",) if sure else ("gram", "gram64")
    if method == "gram":
        return (*gram, "gram-levels")
    if method != "auto":
        return (method,)
    if x.source:  # which is not copied as a whole
        return *gram, "gram-levels", "qr"
    by_gram, whole = gram_seconds(long, short, k, single and not sure, long_side), full_seconds(long, short)
    levels = levels_seconds(long, short, k, x.dtype == np.float32)
    if long_side and k == short:
        by_gram = levels
        if short > 64 or not x.small:
            gram = ()  # gram-levels does the same, for any singular values
    if whole < by_gram:
        return "full", *gram, "gram-levels", "qr"
    last = ("gram-levels", "full", "qr") if levels < whole else ("full", "gram-levels", "qr")
    if not sure and patience(x, k, long_side):
        return "randomized", *gram, *last
    return *gram, *last


def patience(x: TallMatrix, k: int, long_side: bool) -> float:
    """For how many more blocks it pays to iterate on X, in place of its Gram matrix; 0 where it never does.

    It is worth a try where X is read as it lies, and going well saves more than the two blocks that going badly costs:
    half as much again, by measurement. Where X can be iterated on well so can its Gram matrix; where not, that is left
    to LAPACK, and going on is weighed against it.
    """
    single = not x.float64_products
    if not x.as_it_lies(x.dtype) or not (few_of_many(x.short, k) or block_width(k) >= k):
        return 0.0
    sure = hoped = gram_seconds(x.long, x.short, k, single, long_side)
    block, fast = krylov_seconds(2 * x.long * x.short, x.short, k, single), x.dtype == np.float32
    if also := iterates(x.short, k):
        own = good_blocks(k, fast and block_width(k) >= k) * krylov_seconds(x.short**2, x.short, k, False)
        hoped -= max(0.0, eigh_seconds(x.short, k) - own)
    hoped -= RATES.product * x.long * x.short * k  # Xᵀu, in float64
    return STAKE * sure / block if pays(block, k, fast, hoped, sure, also) else 0.0


def gram_seconds(long: int, short: int, k: int, single: bool, both: bool, rates: Rates = RATES) -> float:
    """What the Gram matrix, its eigenvectors and, of both sides, X v are expected to take."""
    half = 0.5 if single else 1.0
    found = half * rates.square * long * short**2 + eigh_seconds(short, k, rates) + 4 * rates.call
    if both:
        found += half * rates.product * long * short * k
        if not single:  # X v is straightened
            found += rates.square * long * k**2 + rates.product * (long + 8 * k) * k**2
    return found


def levels_seconds(long: int, short: int, k: int, single: bool, rates: Rates = RATES) -> float:
    """What `solvers.by_levels` is expected to take with its Gram matrix in float64."""
    found = rates.square * long * short**2 + eigh_seconds(short, short, rates)
    found += rates.product * long * short * k + 8 * rates.call
    if k < short:  # passes over X
        found += rates.product * long * short**2
    if not single:  # X v is straightened, in part; and small matrices
        found += rates.square * long * k**2 + rates.product * (long / 2 + 4 * k) * k**2
    return found


def full_seconds(long: int, short: int, rates: Rates = RATES) -> float:
    """What LAPACK's SVD of the whole is expected to take; in float64, whatever the dtype."""
    cubes, squares, both = rates.gesdd
    return cubes * short**3 + squares * short**2 + both * long * short**2 + 4 * rates.call
