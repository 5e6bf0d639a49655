"""Products of bytes on the CPU's integer engines (AMX, VNNI, NEON's dot products), by NumKong where it is installed.

A float32 sums 1024 products of bytes less 128 exactly. An engine multiplies and adds 64 of them at once, into integers
of 32 bits that hold 131,071, and NumKong computes no more than half of a symmetric product. Seconds for
Σ (x−128)(x−128)ᵀ of 60,000×784 on one core of an EPYC with VNNI: 0.45 by BLAS in float32; 0.14 by NumKong 7.8, 0.02 of
them for laying out columns. `torch._int_mm` (oneDNN) takes 0.18 for the products alone. Over the time by BLAS, by rows:

    width      300    1000    4000   16,000   60,000
       16     2.08    2.13    2.13     2.15     1.89
       32     1.57    1.25    1.06     1.02     0.70
       64     1.16    0.77    0.59     0.56     0.41
      128     1.49    1.02    0.72     0.72     0.75
      256     1.77    1.04    0.56     0.54     0.52
      784     1.19    0.67    0.44     0.39     0.39
     3072     0.76    0.63    0.37
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunet.backend.blas import current_threads
from gpunet.extras import optional

# What NumKong calls the machines that have one, which its products of bytes are written for.
ENGINES = ("alder", "sierra", "icelake", "sapphireamx", "graniteamx", "diamond", "neonsdot", "svesdot", "sme")
LEAST_ROWS, LEAST_WIDTH = 2048, 64  # from which on it is faster
PER_THREAD = 64_000_000  # multiplications, 0.5 ms: starting a thread takes half of that
ROWS = 4096  # at a time: columns of a page, and sums of at most 2²⁶
PIECE = 64  # rows that are turned into columns at a time: a line of the cache of each
BAND = 10_000_000_000  # multiplications that Ctrl-C waits for, 0.1 s
CORNER = 256  # of a matrix, that lies in the cache

Bytes = NDArray[np.uint8]


@cache
def numkong() -> Any:
    """The library, where it is installed, knows an engine of this machine, and multiplies extremes exactly; else None.

    Engines that multiply bytes with a sign by bytes without one, as VNNI does, may saturate where a kernel forgets it.
    """
    if (numkong := optional("numkong")) is None:
        return None
    able = numkong.get_capabilities()
    if not any(able.get(name) for name in ENGINES):
        return None
    x = np.repeat(np.array([[-128, -128, 127, 127], [-128, 127, -128, 127]], np.int8), 77, axis=1)
    wanted = x.astype(np.int64) @ x.T.astype(np.int64)
    return numkong if (np.triu(np.asarray(numkong.dots_symmetric(x)) - wanted) == 0).all() else None


def pays(rows: int, width: int) -> bool:
    """Whether `byte_sums` of so many rows of so many bytes takes less time here than BLAS."""
    return rows >= LEAST_ROWS and width >= LEAST_WIDTH and numkong() is not None


def byte_sums(read: Callable[[slice], Bytes], rows: int, width: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Σ (x−128)(x−128)ᵀ (width, width) and Σ (x−128) (width,), exact integers in float64, of bytes (rows, width).

    read: some of the rows. It is called by as many threads as BLAS has now, fewer for small work.
    """
    count = max(1, min(current_threads(), rows * width * width // PER_THREAD))
    if count == 1:
        return _byte_sums(read, rows, width, 1, map)
    pool = ThreadPoolExecutor(count)
    try:
        return _byte_sums(read, rows, width, count, pool.map)
    finally:
        pool.shutdown(cancel_futures=True)


def _byte_sums(read: Any, rows: int, width: int, threads: int, run: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """run: map, on `threads` threads."""
    library: Any = numkong()
    columns = np.empty((width + 1, min(rows, ROWS)), np.int8)
    columns[width] = 1  # so that the last column of the products is the sums
    product = library.zeros((width + 1, width + 1), dtype="int32")
    found = np.asarray(product)
    products, sums = np.zeros((width, width)), np.zeros(width)
    share = -(-columns.shape[1] // (threads * PIECE)) * PIECE
    # Of an upper triangle, so that each has as many elements.
    bands = max(threads, ROWS * width * width // 2 // BAND)
    ends = [round(width * (1 - (1 - part / bands) ** 0.5) / 16) * 16 for part in range(bands)]

    def turn(first: int) -> None:
        for at in range(first, min(first + share, some.shape[1]), PIECE):
            end = min(at + PIECE, some.shape[1])
            part = read(slice(start + at, start + end))  # in two's complement x ^ 128 is x − 128
            np.bitwise_xor(part.T, np.uint8(128), out=some[:-1, at:end].view(np.uint8))

    def multiply(first: int, stop: int) -> None:
        library.dots_symmetric(some, out=product, start_row=first, end_row=stop)

    for start in range(0, rows, ROWS):
        some = columns[:, : min(ROWS, rows - start)]
        list(run(turn, range(0, some.shape[1], share)))
        list(run(multiply, ends, [*ends[1:], width + 1]))
        products += found[:-1, :-1]
        sums += found[:-1, -1]
    for start in range(0, width, CORNER):  # what lies below the diagonal was not computed
        stop = start + CORNER
        corner = products[start:stop, start:stop]
        corner[...] = np.triu(corner) + np.triu(corner, 1).T
        products[stop:, start:stop] = products[start:stop, stop:].T
    return products, sums
