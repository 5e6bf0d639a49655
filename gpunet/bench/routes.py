"""Whether `svd` takes the right way by itself: over a grid of shapes, beside its own routes and scikit-learn.

Twenty shapes, each with two pairs of k and dtype, make 40 cases, each on a matrix whose singular values fall as j^-0.7
and on noise, since an iteration depends on them and "auto" cannot know them. Both sides stand beside every route that
passes; one side beside scikit-learn's exact solvers, which centre, and verify nothing: whether what they give would
pass the tolerance that ours passes is noted as their "error", since a float32 `covariance_eigh` that does not has done
less work.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from gpunet.bench.harness import Contender, Work, lacking, race
from gpunet.bench.results import Case, Section
from gpunet.bench.svd import made
from gpunet.linalg import svd
from gpunet.linalg.matrix import TallMatrix
from gpunet.linalg.svd import METHODS, Method
from gpunet.linalg.verify import measure, tolerance
from gpunet.progress import Progress

# long, short, and two pairs of triples and dtype
GRID: list[tuple[int, int, tuple[int, str], tuple[int, str]]] = [
    (500, 16, (16, "f8"), (1, "f4")), (500, 64, (64, "f8"), (10, "f4")), (500, 256, (10, "f8"), (100, "f4")),
    (500, 500, (1, "f4"), (500, "f8")), (2000, 16, (16, "f4"), (4, "f8")), (2000, 256, (256, "f8"), (10, "f4")),
    (2000, 1536, (10, "f4"), (100, "f8")), (5000, 64, (10, "f8"), (64, "f4")), (5000, 784, (100, "f8"), (784, "f4")),
    (20_000, 16, (1, "f8"), (16, "f4")), (20_000, 500, (500, "f8"), (100, "f4")),
    (60_000, 64, (64, "f8"), (10, "f4")), (60_000, 256, (10, "f8"), (100, "f4")),
    (60_000, 784, (100, "f4"), (10, "f8")), (60_000, 1536, (100, "f4"), (10, "f4")),
    (240_000, 16, (16, "f8"), (4, "f4")), (240_000, 64, (10, "f4"), (64, "f8")),
    (240_000, 256, (100, "f4"), (1, "f4")), (3072, 2000, (100, "f4"), (1, "f8")),
    (4096, 4096, (256, "f4"), (10, "f8")),
]  # fmt: skip
SLOW = 2e10  # long · short² beyond which LAPACK's SVD of the whole and QR take minutes, and never win


def fill(section: Section, bar: Progress, save: Callable[[], object], grid: Any = None) -> None:
    """Two cases for each of the grid: both sides, and one side."""
    grid = GRID if grid is None else grid
    bar.start("routes", 4 * len(grid))
    for long, short, *pairs in grid:
        for k, dtype in pairs:
            for spectrum in ("falling", "noise"):
                name = f"{long}×{short} {dtype} {spectrum}, k={k}"
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    section.cases |= dict(_cases(name, long, short, k, dtype, spectrum))
                bar.advance(1, name)
                save()


def _cases(name: str, long: int, short: int, k: int, dtype: str, spectrum: str) -> Iterator[tuple[str, Case]]:
    noise = np.random.default_rng(0).standard_normal((long, short), dtype=np.float32)
    a = (made((long, short)) if spectrum == "falling" else noise).astype(dtype)
    whole, rounds = long * short**2 < SLOW, 3 if long * short**2 > 1e9 else 9
    routes = [route for route in METHODS if whole or route not in ("full", "qr")]
    both: dict[str, Contender] = {
        r: Contender(partial(_ours, a, k, r), "ours" if r == "auto" else "other") for r in routes
    }
    found = race(both, rounds, pieces=1)
    yield name, Case({route: entry for route, entry in found.items() if not entry.failed or route == "auto"})
    one = {"auto": Contender(partial(_ours, a, k, "auto", "right"))}
    for solver in ("covariance_eigh", "full") if whole else ("covariance_eigh",):
        one[f"sklearn {solver}"] = Contender(partial(_sklearn, a, k, solver), "rival", lacking("sklearn"))
    yield f"{name}, one side", Case(race(one, rounds, pieces=1))


def _ours(a: Any, k: int, method: Method, compute: Any = "both") -> Work:
    """A route that does not get there fails when it is made, and is left out."""
    route = svd(a, k, method=method, compute=compute).route
    return Work(lambda pieces: svd(a, k, method=method, compute=compute), lambda: {"route": route})


def _sklearn(a: Any, k: int, solver: str) -> Work:
    from sklearn.decomposition import PCA

    def error() -> dict[str, float]:
        """The larger of residual and orthogonality, of the samples less their mean, over the tolerance of ours."""
        found = PCA(k, svd_solver=solver).fit(a)
        x = TallMatrix(a, tall=True, mean=found.mean_.astype(np.float64))
        reached = max(measure(x, None, found.singular_values_, found.components_.T.copy(), 0.0))
        return {"error": reached / tolerance(a.dtype, a.shape[1], k)}

    return Work(lambda pieces: PCA(k, svd_solver=solver).fit(a), error)
