"""What the SVD engine is meant to reach, measured in one process, interleaved, every result checked.

    python benchmarks/bench_svd.py                 # a table; --json FILE writes it too; --fast skips the slow rivals

Needs MNIST (gpunet data fetch mnist).

The slow rivals (numpy.linalg.svd of MNIST, of its ten classes, of 4096×4096; torch.linalg.svd) run once. OpenBLAS's
threads wait for each other in a loop: beside other busy processes all figures grow tenfold, and not evenly. Run it on
a quiet machine, or with OPENBLAS_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import os
import time

import numpy as np

from gpunet.bench.record import json_option, write_section
from gpunet.bench.svd import reference
from gpunet.datasets import load
from gpunet.errors import DataError
from gpunet.linalg import class_pca, svd
from gpunet.linalg.matrix import TallMatrix, gram
from gpunet.timing import interleave


def once(run):
    began = time.perf_counter()
    result = run()
    return time.perf_counter() - began, result


def line(name, ours, theirs, target, angle, energy, at_most=False):
    ratio = ours / theirs if at_most else theirs / ours
    met = ratio <= target if at_most else ratio >= target
    met = met and (angle < 1e-3 or energy < 1e-6)
    return {"what": name, "ours_s": ours, "theirs_s": theirs, "ratio": ratio, "target": target, "met": bool(met),
            "at_most": at_most, "angle": angle if np.isfinite(angle) else None,
            "energy_loss": energy if np.isfinite(energy) else None}  # fmt: skip


def whole(images, k, rounds, fast):
    """MNIST 784×60000: both sides against numpy and torch, one side against scikit-learn (which centres)."""
    from sklearn.decomposition import PCA

    a = images.reshape(len(images), -1).T.astype(np.float32, order="C") / np.float32(255)
    kept = {}
    times = interleave(
        {
            "both": lambda: kept.__setitem__("both", svd(a, k)),
            "left": lambda: kept.__setitem__("left", svd(a, k, compute="left")),
            "sklearn": lambda: PCA(k, svd_solver="covariance_eigh").fit(a.T),
        },
        rounds,
    )
    exact = reference(a, k)
    lines = []
    angle, energy = exact.judge(kept["left"].u)
    sklearn = times.ratio("sklearn", "left")
    lines.append(line("top 100 / sklearn covariance_eigh", times.median("left"), times.median("left") * sklearn, 1,
                      angle, energy))  # fmt: skip
    angle, energy = exact.judge(kept["both"].u)
    if not fast:
        seconds, _ = once(lambda: np.linalg.svd(a, full_matrices=False))
        lines.append(line("top 100 / numpy.linalg.svd", times.median("both"), seconds, 40, angle, energy))
        if (torch := _torch()) is not None:
            seconds, _ = once(lambda: torch.linalg.svd(torch.from_numpy(a), full_matrices=False))
            lines.append(line("top 100 / torch.linalg.svd", times.median("both"), seconds, 6, angle, energy))
    return lines


def classes(images, labels, rounds, fast):
    """Ten classes, top 10: against ten numpy.linalg.svd, and against the ten Gram matrices alone."""
    x = images.reshape(len(images), -1).astype(np.float32) / np.float32(255)
    rows = [np.flatnonzero(labels == c) for c in range(10)]
    kept = {}
    times = interleave(
        {
            "ours": lambda: kept.__setitem__("ours", class_pca(x, labels, 10)),
            "grams": lambda: [gram(TallMatrix(x, rows=r, tall=True), "float32") for r in rows],
            "plain grams": lambda: [(lambda z: z.T @ z)(x[r]) for r in rows],
        },
        rounds,
    )
    judged = [reference(x[r], 10).judge(kept["ours"].components[c].T) for c, r in enumerate(rows)]
    angle, energy = (max(j[i] for j in judged) for i in range(2))
    ours = times.median("ours")
    lines = [
        line(f"ten classes / {name}", ours, ours / times.ratio("ours", key), 1.5, angle, energy, at_most=True)
        for name, key in (("ten Grams alone", "grams"), ("ten x.T @ x of numpy", "plain grams"))
    ]
    if not fast:
        seconds, _ = once(lambda: [np.linalg.svd(x[r], full_matrices=False) for r in rows])
        lines.append(line("ten classes / ten numpy.linalg.svd", ours, seconds, 100, angle, energy))
    return lines


def every(images, rounds):
    """All triples, a square of noise, and matrices so small that calls count; judged by what `svd` measured."""
    from scipy.sparse.linalg import svds

    x, rng, lines = images.reshape(len(images), -1), np.random.default_rng(0), []

    def against(what, a, k, rival, run, target, calls=1):
        def repeat(call):
            return lambda: [call() for _ in range(calls)]

        times = interleave({"ours": repeat(lambda: svd(a, k)), "theirs": repeat(run)}, rounds)
        ours, found = times.median("ours") / calls, svd(a, k)
        lines.append(line(f"{what} {a.dtype} / {rival}", ours, ours / times.ratio("ours", "theirs"), target,
                          found.residual / found.tol * 1e-3, np.inf, at_most=True))  # fmt: skip

    for dtype in ("float32", "float64"):
        for rows in (4000, 60_000):
            a = x[:rows].astype(dtype) / np.dtype(dtype).type(255)
            against(f"all of {rows}×784", a, None, "numpy.linalg.svd",
                    lambda a=a: np.linalg.svd(a, full_matrices=False), 0.6)  # fmt: skip
    noise = rng.standard_normal((1050, 1050))
    against("top 100 of noise 1050×1050", noise, 100, "scipy svds", lambda: svds(noise, k=100), 1.5)
    torch = _torch()
    for dtype in ("float32", "float64"):
        a = rng.standard_normal((1000, 10)).astype(dtype)
        if torch is not None:
            tensor = torch.from_numpy(a)
            against("1000×10", a, None, "torch.linalg.svd",
                    lambda t=tensor: torch.linalg.svd(t, full_matrices=False), 2, 1000)  # fmt: skip
        a = rng.standard_normal((2, 2)).astype(dtype)
        against("2×2", a, None, "numpy.linalg.svd", lambda a=a: np.linalg.svd(a, full_matrices=False), 5, 5000)
    return lines


def truncation(n, k, fast):
    """n×n with σ_j = j^-0.7, float32, against a full SVD; without a gap, so judged by the energy it captures."""
    rng = np.random.default_rng(0)
    sides = [np.linalg.qr(rng.standard_normal((n, n)).astype(np.float32))[0] for _ in range(2)]
    s = np.arange(1, n + 1) ** -0.7
    a = np.ascontiguousarray((sides[0] * s.astype(np.float32)) @ sides[1].T)
    ours, found = once(lambda: svd(a, k))
    captured = float(np.sum((a.astype(float) @ found.vt.T) ** 2) / np.sum(s[:k] ** 2))
    theirs = float("nan") if fast else once(lambda: np.linalg.svd(a))[0]
    return [line(f"{n}×{n} to rank {k} ({found.route}) / full SVD", ours, theirs, 5, float("inf"), abs(1 - captured))]


def _torch():
    try:
        import torch
    except ImportError:
        return None
    return torch


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    json_option(parser)
    parser.add_argument("--fast", action="store_true", help="without the rivals that take more than a few seconds")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    try:
        mnist = load("mnist")
    except DataError as error:
        parser.error(str(error))
    print(f"load average before: {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores")
    lines = classes(mnist.x_train, mnist.y_train, options.rounds, options.fast)
    lines += whole(mnist.x_train, 100, options.rounds, options.fast)
    lines += truncation(4096, 256, options.fast)
    lines += every(mnist.x_train, options.rounds)
    for row in lines:
        sign = "≤" if row["at_most"] else "≥"
        angle = "none" if row["angle"] is None else f"{row['angle']:.1e}"
        print(f"{row['what']:48} ours {1e3 * row['ours_s']:9.3f} ms  theirs {1e3 * row['theirs_s']:10.3f} ms"
              f"  ratio {row['ratio']:7.2f}"
              f" (target {sign} {row['target']:g}: {'met' if row['met'] else 'NOT met'})"
              f"  angle {angle}  energy lost {row['energy_loss'] or 0:.1e}")  # fmt: skip
    if options.json:
        write_section(options.json, "svd", {"rounds": options.rounds, "rows": lines})


if __name__ == "__main__":
    main()
