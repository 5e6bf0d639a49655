"""Passes over large arrays on BLAS's own threads: one core need not fill the memory's bandwidth.

OpenBLAS's threads wait for the next product without letting go of their cores. Threads of our own had to share one core
with whoever trains: Adam's pass over 6.3 million parameters took 7 ms instead of 3.6, and a thread that had to be woken
came 0.1 ms late. So passes run on OpenBLAS's threads, which it lends by `gotoblas_pthread` within microseconds. What
runs there is compiled and never waits for the interpreter, whose lock somebody may hold who waits for BLAS.

The bits do not depend on the number of threads: the operations on an element are the same wherever it is computed, and
shares end at multiples of GRAIN, since what vectors of 16, four at a time, leave over is computed singly, where LLVM
may take another square root.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cache
from struct import Struct
from typing import Any

import numba
import numpy as np
from numba.core import ccallback
from numba.extending import intrinsic

from gpunet.backend import blas
from gpunet.backend.numba_cache import FASTMATH, cached

GRAIN = 64
_NUMBA: Any = ccallback
SOURCE = """
def {name}(job):
    job = carray(job, 1, JOB)[0]
    kernel({arguments})
"""


@intrinsic  # type: ignore[untyped-decorator]
def pointer(context: Any, address: Any) -> Any:
    """What lies at an address."""

    def cast(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], target.get_value_type(signature.return_type))

    return numba.types.voidptr(address), cast


def spread(least: int, kernel: Any, arrays: Sequence[Any], *numbers: Any) -> None:
    """kernel(*arrays, *numbers) of flat arrays of one length and NumPy's numbers, by as many threads as a product has.

    Each gets at least `least` elements, which is what pays. Ctrl-C comes when all are done.
    """
    size = len(arrays[0])
    threads = 1 if size < 2 * least else min(blas.current_threads(), size // least)
    if threads < 2 or not blas.lends() or not hasattr(kernel, "py_func"):  # as with NUMBA_DISABLE_JIT
        kernel(*arrays, *numbers)
        return
    routine, job = _routine(kernel, *(tuple(each.dtype for each in some) for some in (arrays, numbers)))
    share = -(-size // (threads * GRAIN)) * GRAIN
    addresses = [(a.ctypes.data, a.itemsize) for a in arrays]
    jobs = [
        job.pack(min(share, size - start), *(address + start * width for address, width in addresses), *numbers)
        for start in range(0, size, share)
    ]
    blas.lend(len(jobs), routine, b"".join(jobs), job.size)


@cache
def _routine(kernel: Any, arrays: tuple[Any, ...], numbers: tuple[Any, ...]) -> tuple[int, Struct]:
    """(address of a C function of a pointer that calls the kernel, what lies there)."""
    of_arrays, of_numbers = [f"a{i}" for i in range(len(arrays))], [f"n{i}" for i in range(len(numbers))]
    fields = [("size", np.dtype(np.intp)), *((each, np.dtype(np.intp)) for each in of_arrays)]
    fields += zip(of_numbers, numbers, strict=True)
    known = {"carray": numba.carray, "pointer": pointer, "kernel": kernel, "JOB": np.dtype(fields, align=True)}
    known |= dict(zip(map(str.upper, of_arrays), arrays, strict=True))
    parts = [f"carray(pointer(job.{each}), job.size, {each.upper()})" for each in of_arrays]
    # The cache knows a function by its file, which is the kernel's, by its name, and by its code without names.
    name = "_".join((kernel.__name__, "of", *(dtype.name for dtype in arrays + numbers)))
    source = SOURCE.format(name=name, arguments=", ".join((*parts, *(f"job.{each}" for each in of_numbers))))
    exec(compile(source, inspect.getfile(kernel.py_func), "exec"), known)
    function = known[name]
    function.__module__ = kernel.__module__
    compiled = _NUMBA.CFunc(
        function, ((numba.types.voidptr,), numba.types.void), {}, {"error_model": "numpy", "fastmath": FASTMATH}
    )
    cached(compiled)
    compiled.compile()
    # "0n" makes it as long as a multiple of a pointer's alignment, as the aligned dtype is.
    return compiled.address, Struct("".join(dtype.char for _, dtype in fields) + "0n")
