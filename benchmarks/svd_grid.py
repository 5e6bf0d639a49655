"""Whether `auto` takes the right way: over a grid of shapes, beside each of its own routes and scikit-learn.

    python benchmarks/svd_grid.py                 # a table; --json FILE writes it too; --shape 60000x784 takes one

Twenty shapes, each with two pairs of k and dtype, make 40 cases. Each runs on a matrix whose singular values fall as
j^-0.7 and on noise, since an iteration depends on them and `auto` cannot know them. A shape takes a minute, of which
pauses between the contestants are most. Both sides: against the fastest route that passes. One side: against the
fastest of scikit-learn's exact solvers, which centre, and verify nothing: whether what it gives would pass the
tolerance that ours passes is measured beside, since a float32 `covariance_eigh` that does not has done less work.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Callable

import numpy as np
from sklearn.decomposition import PCA

from gpunet.bench.record import json_option, write_section
from gpunet.bench.svd import matrix
from gpunet.errors import ConvergenceError
from gpunet.linalg import svd
from gpunet.linalg.matrix import TallMatrix
from gpunet.linalg.svd import METHODS
from gpunet.linalg.verify import measure, tolerance
from gpunet.timing import interleave

# long, short, and two pairs of triples and dtype
GRID = [
    (500, 16, (16, "f8"), (1, "f4")),
    (500, 64, (64, "f8"), (10, "f4")),
    (500, 256, (10, "f8"), (100, "f4")),
    (500, 500, (1, "f4"), (500, "f8")),
    (2000, 16, (16, "f4"), (4, "f8")),
    (2000, 256, (256, "f8"), (10, "f4")),
    (2000, 1536, (10, "f4"), (100, "f8")),
    (5000, 64, (10, "f8"), (64, "f4")),
    (5000, 784, (100, "f8"), (784, "f4")),
    (20_000, 16, (1, "f8"), (16, "f4")),
    (20_000, 500, (500, "f8"), (100, "f4")),
    (60_000, 64, (64, "f8"), (10, "f4")),
    (60_000, 256, (10, "f8"), (100, "f4")),
    (60_000, 784, (100, "f4"), (10, "f8")),
    (60_000, 1536, (100, "f4"), (10, "f4")),
    (240_000, 16, (16, "f8"), (4, "f4")),
    (240_000, 64, (10, "f4"), (64, "f8")),
    (240_000, 256, (100, "f4"), (1, "f4")),
    (3072, 2000, (100, "f4"), (1, "f8")),
    (4096, 4096, (256, "f4"), (10, "f8")),
]
ROUTES = tuple(m for m in METHODS if m != "auto")
SLOW = (
    2e10  # long · short² beyond which LAPACK's SVD of the whole and QR are left out: they take minutes, and never win
)


def made(long: int, short: int, falling: bool, dtype: str) -> np.ndarray:
    """(long, short): noise, or σ_j ~ j^-0.7 after one large one."""
    if falling:
        return matrix((long, short))[1].astype(dtype)
    return np.random.default_rng(0).standard_normal((long, short), dtype=np.float32).astype(dtype)


def error(a: np.ndarray, found: PCA) -> float:
    """The larger of residual and orthogonality of scikit-learn's result, of the samples less their mean."""
    x = TallMatrix(a, tall=True, mean=found.mean_.astype(np.float64))
    return max(measure(x, None, found.singular_values_, found.components_.T.copy(), 0.0))


def passing(run: Callable[[], object]) -> bool:
    """Whether a route gets there at all."""
    try:
        run()
    except ConvergenceError:
        return False
    return True


def case(long: int, short: int, k: int, dtype: str, falling: bool) -> dict[str, object]:
    """Times of one case."""
    a = made(long, short, falling, dtype)
    whole = long * short**2 < SLOW
    own = {"auto": lambda: svd(a, k)}
    for route in ROUTES:
        if route in ("full", "qr") and not whole:
            continue
        own[route] = lambda route=route: svd(a, k, method=route)
    own = {name: run for name, run in own.items() if passing(run)}
    side = {"auto": lambda: svd(a, k, compute="right")}
    for solver in ("covariance_eigh", "full") if whole else ("covariance_eigh",):
        side[solver] = lambda solver=solver: PCA(k, svd_solver=solver).fit(a)
    rounds = 3 if long * short**2 > 1e9 else 9
    both, one = interleave(own, rounds), interleave(side, rounds)
    fastest = min((name for name in own if name != "auto"), key=both.median)
    rival = min((name for name in side if name != "auto"), key=one.median)
    reached = error(a, PCA(k, svd_solver=rival).fit(a)) / tolerance(a.dtype, short, k)
    return {
        "long": long, "short": short, "k": k, "dtype": dtype, "spectrum": "falling" if falling else "noise",
        "route": svd(a, k).route, "seconds": both.median("auto"), "fastest": fastest,
        "over_fastest": both.ratio("auto", fastest), "one_side_seconds": one.median("auto"), "rival": rival,
        "over_rival": one.ratio("auto", rival), "rival_error": reached,
        "routes": {name: both.median(name) for name in own},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    json_option(parser)
    shapes = [f"{long}x{short}" for long, short, *_ in GRID]
    parser.add_argument("--shape", help="only this one of " + ", ".join(shapes))
    options = parser.parse_args()
    if options.shape not in (None, *shapes):
        parser.error(f"--shape is {options.shape}: expected one of {', '.join(shapes)}")
    warnings.simplefilter("ignore")
    print(f"load average before: {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores")
    rows = []
    for long, short, *cases in GRID:
        if options.shape and options.shape != f"{long}x{short}":
            continue
        for (k, dtype), falling in ((each, falling) for each in cases for falling in (True, False)):
            row = case(long, short, k, dtype, falling)
            rows.append(row)
            print(f"{long:7}×{short:<5} k={k:<4} {dtype} {row['spectrum']:8} {row['route']:12} {row['seconds']:8.4f} s"
                  f"  {row['over_fastest']:5.2f}× {row['fastest']:12} one side {row['one_side_seconds']:8.4f} s"
                  f"  {row['over_rival']:5.2f}× {row['rival']}, at {row['rival_error']:.2g} of the tolerance",
                  flush=True)  # fmt: skip
    late = [row for row in rows if row["over_fastest"] > 1.15], [row for row in rows if row["over_rival"] > 1.1]
    same = [row for row in late[1] if row["rival_error"] <= 1]
    print(f"{len(rows)} cases: {len(late[0])} above 1.15 of the fastest route, {len(late[1])} above 1.1 of "
          f"scikit-learn, {len(same)} of them where its result passes our tolerance")  # fmt: skip
    if options.json:
        write_section(options.json, "svd_grid", {"rows": rows})


if __name__ == "__main__":
    main()
