"""How many threads OpenBLAS takes: as few as pay, by the size of the work alone; and how Ctrl-C gets past LAPACK.

OpenBLAS takes all it has from 524,288 multiplications on, which one thread does in 8 µs. Where another process holds a
core, each such product waits for a thread that does not run: 1.8 ms for 15 µs of work (355×61×64 in float32, two
cores). The last bits depend on the number of threads, too, in float32 from there on; so they follow from the sizes,
and for large products from how many threads there are. Inner products of more than 10,000 numbers are left as they are.

Seconds with two threads over those with one, alone on two cores of an EPYC, OpenBLAS 0.3.31 with its kernels for
Haswell (`pytest benchmarks/test_products.py --benchmark-only` measures them anew):

    n × 64 × k    multiplications   float32   float64       eigh of n × n         n³
    128 × 128           1 million      1.20      0.60          200         8 million   0.95
    256 × 256           4 million      0.70      0.59          256        17 million   0.93
    256 × 512           8 million      0.69      0.57          400        64 million   0.72
    512 × 784          26 million      0.61      0.55          784       482 million   0.75

A smaller PER_THREAD helps nets with products of one to four million on a quiet machine, 64-256-128-10 by a third, and
costs them as much on one that is not: `gpunet reproduce --quick` took 64, 65, 58, 51 s with NumPy beside a busy process
for half a million, one, two and four.

A call of LAPACK or BLAS is one instruction to Python, which looks for Ctrl-C between two: `interruptible` calls of half
a second and more, and each `product` as long, run beside the main thread, which only waits. What NumPy lacks of LAPACK
is called in the OpenBLAS of NumPy's wheel, without the GIL and without SciPy. Where NumPy has another library SciPy is
asked, and where that is missing NumPy does what it can, in more time.
"""

from __future__ import annotations

import contextvars
import ctypes
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy import matmul

from gpunet.backend.base import In, Out
from gpunet.extras import install, optional
from gpunet.interrupts import undivided

PER_THREAD = 2_000_000  # multiplications, 33 µs in float32: a second thread saves 10 to 20 of twice as many
APART = 100_000_000  # multiplications, 2 ms of one thread: to start another one takes a tenth of a millisecond
ALONE = 450_000  # up to which OpenBLAS takes one thread by itself: 524,288, and 460,800 of a matrix times a vector

PTHREADS = 1  # what openblas_get_parallel tells of a library that starts its threads itself
LONG = 1_000_000_000  # m n min(m, n) of a matrix whose decomposition takes half a second on two cores
IN_PLACE = 1024  # rows from which a factorisation of 8 MB and more is made where its matrix lies
MIRRORED = 256  # rows of a matrix that are made symmetric at once
SLICE = 0.1  # seconds that are waited at a time, for systems on which a signal does not end a wait

P = ParamSpec("P")
T = TypeVar("T")
B = TypeVar("B")

_beside = contextvars.ContextVar("_beside", default=False)  # whether this thread works for one whose turn it is
_alone = contextvars.ContextVar("_alone", default=False)  # whether products have one thread, whatever their size
_turn = threading.RLock()  # the number of threads is the process's: whose work needs another one takes its turn
_waiting = set[int]()  # the threads that wait for theirs; 0 for one that forks


# A forked process has neither a lock that is held nor a number that is lowered, nor other threads. What is called is
# compiled: a signal that came while the process was copied would be raised in Python's code, and nobody would hear it.
if hasattr(os, "register_at_fork"):
    for _ in range(2):  # a signal ends one wait for the turn, and the process is forked all the same
        os.register_at_fork(before=_turn.acquire, after_in_parent=_turn.release, after_in_child=_turn.release)
    os.register_at_fork(  # who registers later is asked before the others
        before=partial(_waiting.add, 0), after_in_parent=partial(_waiting.discard, 0), after_in_child=_waiting.clear
    )


def multiply(size: int, a: In, b: In, out: Out) -> None:
    """out = a b as numpy.matmul, of `size` multiplications, or of stacks whose products have as many each."""
    if size <= ALONE:
        matmul(a, b, out)
    else:
        _within(size, True, matmul, a, b, out)


def limited(size: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """work(…), a decomposition of `size` = m n min(m, n), with a thread for each PER_THREAD of it, up to all there are.

    However it ends, there are as many as before then. Python threads take turns at products, and at work that gets
    fewer threads than there are; with one there is nothing to take turns at. Work that gets all of them waits for
    nobody: beside other Python threads that compute with fewer its last bits may differ.
    """
    return _within(size, False, work, *args, **kwargs)


def _within(size: int, turn: bool, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """turn: whether work that gets all threads takes its turn, too."""
    calls = _calls() if size > ALONE and not _beside.get() else None
    if calls is not None:
        count, set_count = calls
        fewer = 1 if _alone.get() else max(1, size // PER_THREAD)
        me = threading.get_ident()
        try:
            _waiting.add(me)
            with _turn:
                _waiting.discard(me)
                most = count()
                if fewer < most:
                    try:  # Ctrl-C comes when a call has returned, so that what was set is set back
                        set_count(fewer)
                        return work(*args, **kwargs)
                    finally:
                        set_count(most)
                if turn and most > 1:
                    return work(*args, **kwargs)
        finally:
            _waiting.discard(me)
    return work(*args, **kwargs)


def apart(size: int, blocks: Sequence[B], work: Callable[[B], None], most: int | None = None) -> None:
    """work(block) for each of the blocks, of `size` multiplications in all, by as many threads as a product has.

    Python's threads take the next block as soon as they are done with one, `most` of them at most; each product has one
    thread then, and the same bits however many there are. 729×108×512 on two cores of an EPYC: 163 GFLOP/s, 130 with
    two threads a product; beside another process that computes 80 and 5. Where another thread waits for its turn, the
    rest is done without those. What a block raises ends the others after theirs.
    """
    left, calls = iter(blocks), _calls()
    if size <= APART or len(blocks) < 2 or _beside.get() or calls is None:
        for block in left:
            work(block)
        return
    count, set_count = calls
    alone = _alone.get()
    try:
        _alone.set(True)  # in here: Ctrl-C may come as soon as it is set
        with _turn:
            before = count()
            if before > 1:
                try:
                    set_count(1)
                    _by_threads(min(before, len(blocks), most or before), left, work)
                finally:
                    set_count(before)
        for block in left:
            work(block)
    finally:
        _alone.set(alone)


def _by_threads(count: int, left: Iterator[B], work: Callable[[B], None]) -> None:
    """work(block) for what is left, by count − 1 threads and by who calls, until somebody waits for a turn."""
    errors: list[BaseException] = []
    ended = threading.Event()

    def take() -> None:
        for block in left:
            work(block)
            if ended.is_set() or _waiting:
                return

    def beside() -> None:
        _beside.set(True)
        try:
            take()
        except BaseException as error:
            errors.append(error)
            ended.set()

    others: list[threading.Thread] = []
    with undivided() as signals:
        try:
            with suppress(RuntimeError):  # no more threads to be had
                while len(others) < count - 1:  # in our context, which has NumPy's errstate
                    others.append(threading.Thread(target=contextvars.copy_context().run, args=(beside,)))
                    others[-1].start()
            with signals.heard():
                take()
        finally:
            ended.set()
            while others:  # here, since a thread that goes is a callback, too, which loses an interruption
                if others[-1].ident is not None:
                    others[-1].join()
                others.pop()
    for error in errors:
        raise error


def threads() -> int | None:
    """Threads that a large matrix product on the CPU has; None where nothing tells."""
    with _turn:
        return max((pool["num_threads"] for pool in pools()), default=None)


def current_threads() -> int:
    """Threads that a large product has now, which `limited` may have lowered; 1 where nothing tells."""
    calls = _calls()
    return calls[0]() if calls is not None else threads() or 1


def thread_rule() -> str | None:
    """How many threads a product has, in words, for what a result says of its machine; None where nothing tells."""
    most = threads()
    if most is None or most == 1 or _calls() is None:
        return None if most is None else str(most)
    return f"one for each {PER_THREAD:,} multiplications of a product, at most {most}"


def pools() -> list[dict[str, Any]]:
    """The libraries behind NumPy's products, as threadpoolctl tells of them; [] where nothing tells.

    The OpenBLAS that NumPy's wheels bring is asked itself. Other libraries are told where threadpoolctl is installed;
    SciPy's own, which may be loaded or not, only where nothing tells NumPy's.
    """
    if (path := _bundled()) is not None and (calls := _calls()) is not None:
        library = ctypes.CDLL(path)
        config, core = (_symbol(library, f"openblas_get_{name}") for name in ("config", "corename"))
        if config is not None and core is not None:
            config.restype = core.restype = ctypes.c_char_p
            version = re.match(rb"OpenBLAS (\S+)", config() or b"")
            found = {"num_threads": calls[0](), "version": version and version[1].decode(), "filepath": path}
            return [found | {"user_api": "blas", "internal_api": "openblas", "architecture": core().decode()}]
    if (threadpoolctl := optional("threadpoolctl")) is None:
        return []
    known = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    return [pool for pool in known if "numpy" in pool["filepath"]] or known


@cache
def _bundled() -> str | None:
    """The OpenBLAS in NumPy's wheel, which is loaded; None where NumPy was built otherwise."""
    home = Path(np.__file__).parent
    for folder in (home.with_name("numpy.libs"), home / ".dylibs"):
        for path in sorted(folder.glob("*openblas*")):
            return str(path)
    return None


def _symbol(library: Any, name: str) -> Any:
    """A function of OpenBLAS, whatever was put around its name when it was built; None where there is none."""
    names = (f"{prefix}{name}{suffix}" for prefix in ("scipy_", "") for suffix in ("64_", "_64", ""))
    return next((found for each in names if (found := getattr(library, each, None)) is not None), None)


@cache
def _calls() -> tuple[Callable[[], int], Callable[[int], None]] | None:
    """OpenBLAS's own calls that tell and set their number, 0.1 µs each; None where NumPy's products are another's."""
    path = _bundled()
    if path is None:
        path = next((pool["filepath"] for pool in pools() if pool["internal_api"] == "openblas"), None)
    if path is None:
        return None
    library = ctypes.PyDLL(path)  # that is loaded; keeps the GIL, which others would hold for 5 ms
    count, set_count = (_symbol(library, f"openblas_{verb}_num_threads") for verb in ("get", "set"))
    if count is None or set_count is None:
        return None
    set_count.argtypes, set_count.restype = [ctypes.c_int], None
    return count, set_count


def lends() -> bool:
    """Whether `lend` has threads to lend: OpenBLAS's own, where it starts them itself and has a call for it."""
    return _lender() is not None


def lend(count: int, function: int, arguments: bytes, stride: int) -> None:
    """Run a C function on the pointers arguments + i · stride, i < count, at once: on this thread and BLAS's others.

    count: `current_threads` at most. It takes its turn, as a product does, and waits for all of them without the GIL.
    """
    me = threading.get_ident()
    try:
        _waiting.add(me)
        with _turn:
            _lender()(count, function, arguments, stride)  # type: ignore[misc]
    finally:
        _waiting.discard(me)


@cache
def _lender() -> Callable[[int, int, bytes, int], object] | None:
    path = _bundled()
    if path is None or _calls() is None:
        return None
    library = ctypes.CDLL(path)
    kind, run = _symbol(library, "openblas_get_parallel"), _symbol(library, "gotoblas_pthread")
    if run is None or kind is None or kind() != PTHREADS:
        return None
    run.argtypes, run.restype = [ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int], ctypes.c_int
    return run  # type: ignore[no-any-return]


def one_thread() -> None:
    """From now on products have one thread in this process, for one that has others beside it."""
    if (calls := _calls()) is not None:
        calls[1](1)
    if (threadpoolctl := optional("threadpoolctl")) is not None:  # which knows SciPy's library too, and MKL
        threadpoolctl.threadpool_limits(1)


def interruptible(size: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """work(…), one call of LAPACK for m n min(m, n) = `size`; however long it takes, Ctrl-C comes at once.

    From LONG on what the main thread calls runs in a thread of its own. One that nobody waits for any more goes on to
    its end, which nobody sees: LAPACK cannot be stopped. A process that ends before does so without it.
    """
    if size < LONG or threading.current_thread() is not threading.main_thread():
        return work(*args, **kwargs)
    found: list[T] = []
    errors: list[BaseException] = []
    done = threading.Event()

    def call() -> None:
        try:
            found.append(work(*args, **kwargs))
        except BaseException as error:
            errors.append(error)
        done.set()

    # In our context, which has NumPy's errstate.
    thread = threading.Thread(target=contextvars.copy_context().run, args=(call,), daemon=True)
    try:
        with undivided():
            thread.start()
    except RuntimeError:  # no more threads to be had
        return work(*args, **kwargs)
    try:
        while not done.wait(SLICE):
            pass
    except BaseException:
        _end_without()
        raise
    for error in errors:
        raise error
    return found[0]


def product(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any], out: Out | None = None) -> np.ndarray[Any, Any]:
    """numpy.matmul of matrices; however long it takes, Ctrl-C comes at once, and nobody reads `out` any more.

    A multiplication takes a sixteenth of the time that it stands for in a decomposition.
    """
    return interruptible(a.size * b.shape[-1] // 16, matmul, a, b, out=out)


def compressed(a: np.ndarray[Any, Any]) -> Any:
    """SciPy's sparse rows of a matrix (rows, columns) that has next to nothing in it, or the matrix itself.

    Without SciPy always the latter: the products have the same values, and take up to ten times as long.
    """
    if np.count_nonzero(a) * 32 > a.size:
        return a
    if (sparse := optional("scipy.sparse")) is None:
        return a
    where = np.flatnonzero(a)
    starts = np.searchsorted(where, np.arange(len(a) + 1) * a.shape[1])
    return sparse.csr_array((a.ravel()[where], where % a.shape[1], starts), shape=a.shape)


def inner_of(a: Any, b: Any) -> np.ndarray[Any, Any]:
    """aᵀb of matrices that may be `compressed`, not itself."""
    if not isinstance(a, np.ndarray) and not isinstance(b, np.ndarray):
        return (a.T @ b).toarray()  # type: ignore[no-any-return]
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return product(a.T, b)
    return a.T @ b if isinstance(b, np.ndarray) else (b.T @ a).T  # type: ignore[no-any-return]


@cache
def _end_without() -> None:
    """Where LAPACK still computes for nobody, end the process without it: OpenBLAS, asked to go, waits for it for ever.

    Python's own end comes first, as always, with its exit code; then glibc calls `_exit` with that. Other systems wait.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "on_exit"):
        libc.on_exit(ctypes.cast(libc._exit, ctypes.c_void_p), None)


def leading_eigh(a: np.ndarray[Any, Any], k: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """(the k largest eigenvalues (k,), ascending, their vectors (n, k)) of a symmetric float64 matrix, by syevr.

    As scipy.linalg.eigh(a, subset_by_index=(n − k, n − 1), driver="evr"), from the lower triangle, without the GIL;
    where there is no such routine all of them by NumPy, which takes two to five times as long for a few.
    Raises LinAlgError where it does not converge.
    """
    n, routine = len(a), _lapack("dsyevr", 21)
    if routine is None:
        values, vectors = np.linalg.eigh(a)
        return values[n - k :], vectors[:, n - k :]
    syevr, integer = routine
    a, w, z = np.array(a, np.float64, order="F"), np.empty(n), np.empty((n, k), order="F")
    support, found, info = np.empty(2 * k, integer), integer(), integer()
    whole = [integer(number) for number in (n, n - k + 1, n)]
    real = [ctypes.c_double(0) for _ in range(3)]  # a range of values, not used; the tolerance: the best

    def solve(work: np.ndarray[Any, Any], size: int, whole_work: np.ndarray[Any, Any], whole_size: int) -> None:
        n_, first, last = map(ctypes.byref, whole)
        low, high, tolerance = map(ctypes.byref, real)
        syevr(
            b"V", b"I", b"L", n_, a.ctypes, n_, low, high, first, last, tolerance, ctypes.byref(found), w.ctypes,
            z.ctypes, n_, support.ctypes, work.ctypes, ctypes.byref(integer(size)), whole_work.ctypes,
            ctypes.byref(integer(whole_size)), ctypes.byref(info),
        )  # fmt: skip

    work, whole_work = np.empty(1), np.empty(1, integer)
    solve(work, -1, whole_work, -1)  # asks how much room it wants
    size, whole_size = int(work[0]), int(whole_work[0])
    solve(np.empty(size), size, np.empty(whole_size, integer), whole_size)
    if info.value or found.value != k:
        raise np.linalg.LinAlgError(f"syevr found {found.value} of {k} eigenvalues, info {info.value}")
    return w[:k], z


def definite_below(c: np.ndarray[Any, Any], shift: float) -> bool:
    """Whether shift − c, of a symmetric float64 c, has a Cholesky factorisation; c is as it was afterwards.

    From IN_PLACE rows on it is made in the lower triangle of c, and the upper one is what that is made again from:
    NumPy would take three more matrices of the size of c.
    """
    n = len(c)
    routine = _lapack("dpotrf", 5) if n >= IN_PLACE and c.flags.c_contiguous else None
    if routine is None:
        rest = -c
        rest.flat[:: n + 1] += shift
        try:
            np.linalg.cholesky(rest)
        except np.linalg.LinAlgError:
            return False
        return True
    potrf, integer = routine
    diagonal, info, size = c.diagonal().copy(), integer(), ctypes.byref(integer(n))
    np.negative(c, out=c)
    c.flat[:: n + 1] += shift
    potrf(b"U", size, c.ctypes, size, ctypes.byref(info))  # the upper one as LAPACK reads it, by columns
    for start in range(0, n, MIRRORED):
        part = slice(start, start + MIRRORED)
        c[part, :start] = c[:start, part].T
        c[part, part] = np.triu(c[part, part]) + np.triu(c[part, part], 1).T
    np.negative(c, out=c)
    c.flat[:: n + 1] = diagonal
    return bool(info.value == 0)


def solve_factored(lower: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Z (n, C) of L Lᵀ Z = right, of the lower triangle L (n, n) of a float64 matrix, by potrs.

    Where there is no such routine by NumPy, which factors the triangles anew: n³ multiplications more.
    """
    n, routine = len(lower), _lapack("dpotrs", 8)
    if routine is None:
        lower = np.tril(lower)
        return np.linalg.solve(lower.T, np.linalg.solve(lower, right))
    potrs, integer = routine
    lower, z = np.ascontiguousarray(lower, np.float64), np.array(right, np.float64, order="F")
    size, columns, info = ctypes.byref(integer(n)), ctypes.byref(integer(z.size // n)), integer()
    potrs(b"U", size, columns, lower.ctypes, size, z.ctypes, size, ctypes.byref(info))  # Lᵀ, as LAPACK reads it
    return z


def sturdy_svd(a: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], ...]:
    """(u (m, k), s (k,), vt (k, n)), k = min(m, n), of a float64 matrix, by gesvd: it converges where gesdd may not.

    As scipy.linalg.svd(a, full_matrices=False, lapack_driver="gesvd"), without the GIL. Raises LinAlgError, also where
    there is no such routine: NumPy has gesdd alone.
    """
    (m, n), k, routine = a.shape, min(a.shape), _lapack("dgesvd", 14)
    if routine is None:
        raise np.linalg.LinAlgError(f"gesdd did not converge, and gesvd comes with SciPy: {install('fast')}")
    gesvd, integer = routine
    a, u, s, vt = np.array(a, np.float64, order="C"), np.empty((m, k)), np.empty(k), np.empty((k, n))
    rows, columns, few = (ctypes.byref(integer(number)) for number in (n, m, k))
    info = integer()

    def solve(work: np.ndarray[Any, Any], size: int) -> None:  # of aᵀ, as LAPACK reads it by columns: vtᵀ s uᵀ
        gesvd(
            b"S", b"S", rows, columns, a.ctypes, rows, s.ctypes, vt.ctypes, rows, u.ctypes, few, work.ctypes,
            ctypes.byref(integer(size)), ctypes.byref(info),
        )  # fmt: skip

    work = np.empty(1)
    solve(work, -1)  # asks how much room it wants
    solve(np.empty(int(work[0])), int(work[0]))
    if info.value:
        raise np.linalg.LinAlgError(f"gesvd did not converge, info {info.value}")
    return u, s, vt


@cache
def _lapack(name: str, arguments: int) -> tuple[Any, Any] | None:
    """A routine of LAPACK and the C type of its integers: of NumPy's own OpenBLAS, else as SciPy hands it to Cython.

    None where neither is there, or SciPy's integers are not C's.
    """
    kind = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * arguments)
    path = _bundled()
    found = None if path is None else getattr(ctypes.CDLL(path), f"scipy_{name}_64_", None)
    if found is not None:
        return kind(ctypes.cast(found, ctypes.c_void_p).value or 0), ctypes.c_int64
    if (cython_lapack := optional("scipy.linalg.cython_lapack")) is None:
        return None
    capsule = cython_lapack.__pyx_capi__[name]
    signature, pointer = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    signature.restype, signature.argtypes = ctypes.c_char_p, [ctypes.py_object]
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    if b"char *, int *," not in (signature(capsule) or b""):
        return None
    return kind(pointer(capsule, signature(capsule))), ctypes.c_int
