"""Which routes to try, in which order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpunet.linalg.matrix import TallMatrix

ROUNDS = 8  # of an iteration on a GPU, at most
GOOD_ROUNDS = 5  # that it takes of singular values that fall, or of noise: 3 to 6 were counted
ROUND_DEGREE = 8  # of its polynomials: 2 where values fall fast, 5 to 20 of noise

METHODS = ("auto", "full", "gram", "subspace", "randomized", "qr")
CUDA_METHODS = ("auto", "gesvdj", "gesvda", "gram", "gesvd")


@dataclass(frozen=True)
class Rates:
    """Seconds for one operation of a kind; of products, one multiplication and addition.

    The defaults were fitted by hand to times of products, eigh and svd on two cores with OpenBLAS 0.3.31, the best of a
    few runs, good to a factor of 1.5. Only their ratios matter.
    """

    product: float = 1 / 60e9  # of large matrices in float64; float32 takes half of everything that is a product
    square: float = 1 / 85e9  # the same of AᵀA, of which BLAS computes half
    read: float = 1 / 4e9  # to read one number of a large matrix, in either precision
    eigh: tuple[float, float] = (8e-11, 4e-8)  # of n³ and n²: all eigenvectors of a symmetric matrix
    leading: tuple[float, float] = (3e-11, 2.5e-8)  # an eighth of them, or fewer
    gesdd: tuple[float, float, float] = (1e-10, 6e-8, 7e-11)  # of n³, n² and m n²: LAPACK's SVD of m×n
    call: float = 2e-5  # to start anything


RATES = Rates()
ONE_CALL = 256  # elements up to which LAPACK's gesdd takes less time than the calls of any other way would
GOOD = {True: 7, False: 13}  # blocks that an iteration takes where it goes well, of float32 and of float64
STAKE = 0.5  # of the sure way's time, that may still lie ahead of an iteration: what lies behind is spent either way


def few_of_many(n: int, k: int) -> bool:
    """Whether SciPy's syevr, which computes no eigenvectors but the k asked for, saves more than it costs.

    It has threads of its own, and those of NumPy still spin for 0.1 s after the last product: the two fight for cores.
    """
    return n >= 1024 and 8 * k <= n


def eigh_seconds(n: int, k: int, rates: Rates = RATES) -> float:
    """What LAPACK is expected to take for the k leading eigenvectors of a symmetric matrix n×n."""
    cubes, squares = rates.leading if few_of_many(n, k) else rates.eigh
    return cubes * n**3 + squares * n**2


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
    """What `routes.by_levels` is expected to take with its Gram matrix in float64."""
    found = rates.square * long * short**2 + eigh_seconds(short, short, rates)
    found += rates.product * long * short * k + 8 * rates.call
    if k < short:  # passes over X
        found += rates.product * long * short**2
    if not single:  # X v is straightened, in part; and small matrices
        found += rates.square * long * k**2 + rates.product * (long / 2 + 4 * k) * k**2
    return found


def krylov_seconds(elements: int, n: int, k: int, single: bool, rates: Rates = RATES) -> float:
    """What one block of a Krylov iteration is expected to take: `elements` are multiplied, and kept blocks of n rows.

    A mean of the eight after which it starts again.
    """
    width, steps = k + max(4, k // 8), 8
    product = (rates.read + (0.5 if single else 1.0) * rates.product * width) * elements
    inner = 5.5 * rates.product * n * steps * width**2 + rates.eigh[0] * steps**2 * width**3
    return product + inner + 6 * rates.call


def full_seconds(long: int, short: int, rates: Rates = RATES) -> float:
    """What LAPACK's SVD of the whole is expected to take; in float64, whatever the dtype."""
    cubes, squares, both = rates.gesdd
    return cubes * short**3 + squares * short**2 + both * long * short**2 + 4 * rates.call


def patience(x: TallMatrix, k: int, long_side: bool) -> float:
    """For how many more blocks it pays to iterate on X, in place of its Gram matrix; 0 where it never does.

    It is worth a try where X is read as it lies, and going well saves more than the two blocks that going badly costs:
    half as much again, by measurement. Where X can be iterated on well so can its Gram matrix; where not, that is left
    to LAPACK, and going on is weighed against it.
    """
    single = not x.float64_products
    if not x.as_it_lies(x.dtype):
        return 0.0
    sure = hoped = gram_seconds(x.long, x.short, k, single, long_side)
    block, good = krylov_seconds(2 * x.long * x.short, x.short, k, single), GOOD[x.dtype == np.float32]
    if iterates(x.short, k):
        hoped -= max(0.0, eigh_seconds(x.short, k) - good * krylov_seconds(x.short**2, x.short, k, False))
    return STAKE * sure / block if good * block * (1 + 3 * block / sure) < hoped else 0.0


def iterates(n: int, k: int) -> bool:
    """Whether the k leading eigenvectors of n×n are iterated for before LAPACK is asked."""
    return n >= 200 and 25 * k <= n


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


def few_calls(m: int, n: int) -> bool:
    """Whether a matrix is so small that the time goes into calls."""
    return min(m, n) <= 16 and m * n <= 1 << 15


def cpu_routes(method: str, x: TallMatrix, k: int, long_side: bool) -> tuple[str, ...]:
    """The routes to try in turn for the k leading triples of x, those that are expected to be the fastest first.

    Whether an iteration converges fast depends on the singular values, which are not known: it is tried where going
    well saves much, and stopped as soon as it is seen to go badly.
    """
    long, short, single = x.long, x.short, not x.float64_products
    gram: tuple[str, ...] = ("gram", "gram64") if single else ("gram",)
    if method == "gram":
        return (*gram, "gram-levels")
    if method != "auto":
        return (method,)
    sure, whole = gram_seconds(long, short, k, single, long_side), full_seconds(long, short)
    levels = levels_seconds(long, short, k, x.dtype == np.float32)
    if long_side and k == short:
        sure = levels
        if short > 64 or not x.small:
            gram = ()  # gram-levels does the same, for any singular values
    if whole < sure:
        return "full", *gram, "gram-levels", "qr"
    last = ("gram-levels", "full", "qr") if levels < whole else ("full", "gram-levels", "qr")
    if patience(x, k, long_side):
        return "randomized", *gram, *last
    return *gram, *last


def cuda_routes(method: str, long: int, short: int, k: int, batch: int) -> tuple[str, ...]:
    """The routes to try in turn for a stack on a GPU. From cuSOLVER's documented limits and counts of multiplications.

    gesvdjBatched takes up to 32×32. gesvdaStridedBatched is made for stacks of tall matrices and few triples, but works
    on Gram matrices of float32 itself: it comes first only where we have no iteration for few triples (`eigen_stack`).
    """
    if method != "auto":
        return (method,)
    if long <= 32:
        return "gesvdj", "gram", "gesvd"
    if batch > 1 and long >= 4 * short and 4 * k <= short < 200:
        return "gesvda", "gram", "gesvd"
    return "gram", "gesvd"
