"""Leading singular vectors: ours beside what its rivals' users call, each result held against float64 LAPACK.

"gpunet" gives both sides, as `numpy.linalg.svd` and the others do; "gpunet, one side" the vectors of the shorter one
alone, as scikit-learn's PCA fits them (it centres the data, and is held against the centred truth). All get the same
array, float32 but where something else is said; "gpunet, uint8" gets images as they lie in memory. Full decompositions
of large matrices by rivals take seconds and are timed once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunet.backend import Backend, get_backend
from gpunet.bench import data, rivals
from gpunet.bench.harness import Contender, Work, lacking, too_large
from gpunet.bench.results import Entry
from gpunet.errors import InputError
from gpunet.linalg import SVD, class_pca, svd
from gpunet.rng import DATA, stream

# Who may be asked for, and what its users call: those that decompose the whole, then those that approximate.
RIVALS = {
    "numpy": ("numpy.linalg.svd",),
    "sklearn": ("sklearn covariance_eigh", "sklearn randomized_svd"),
    "torch": ("torch.linalg.svd", "torch.svd_lowrank"),
    "scipy": ("scipy svds",),
}
FULL = ("numpy.linalg.svd", "torch.linalg.svd", "cupy.linalg.svd")
ROUGH = ("sklearn randomized_svd", "torch.svd_lowrank")  # randomised, and not checked by themselves
SLOW = 1e10  # long · short² beyond which a full decomposition takes seconds
ANGLE, ENERGY = 1e-3, 1e-6  # a result is right where it keeps to one of them: without a gap no angle says anything


@dataclass(frozen=True)
class Truth:
    """Of the shorter side (n of them) in float64: Gram matrix, σ descending, eigenvectors as columns."""

    gram: NDArray[np.float64]
    s: NDArray[np.float64]
    vectors: NDArray[np.float64]

    @classmethod
    def of(cls, a: NDArray[Any], wide: bool, center: bool = False) -> Truth:
        """By LAPACK, from the Gram matrix of the left side where `wide`; center: of the samples less their mean."""
        x = (a.T if wide else a).astype(np.float64)
        x -= x.mean(axis=0) if center else 0
        gram = x.T @ x
        values, vectors = np.linalg.eigh(gram)
        return cls(gram, np.sqrt(np.maximum(values[::-1], 0)), vectors[:, ::-1])

    def judge(self, s: NDArray[Any], v: NDArray[Any]) -> dict[str, float]:
        """Errors of s (k,) and v (n, k): the largest of σ over σ₁, the largest principal angle, the energy missed."""
        k, s = v.shape[1], s.astype(np.float64)
        v = np.linalg.qr(v.astype(np.float64))[0]
        best = self.vectors[:, :k]
        sine = float(np.linalg.norm(v - best @ (best.T @ v), 2))
        return {
            "sigma": float(np.abs(s - self.s[:k]).max() / self.s[0]),
            "angle": float(np.arcsin(min(1.0, sine))),
            "energy_missed": 1 - float(np.sum(v * (self.gram @ v))) / float((self.s[:k] ** 2).sum()),
        }


@dataclass(frozen=True)
class Problem:
    """Matrices of which the k leading triples are wanted, each by itself.

    stack: they are one array (…, m, n). images: the same as uint8; labels: the matrices are the classes' rows of it.
    known: the truth where it is known by construction. pieces: decompositions in a timed call, where one is short.
    against: rivals by name.
    """

    name: str
    parts: Sequence[NDArray[Any]]
    k: int | None
    against: Sequence[str] = tuple(name for names in RIVALS.values() for name in names)
    stack: NDArray[Any] | None = None
    images: NDArray[np.uint8] | None = None
    labels: NDArray[Any] | None = None
    known: Truth | None = None
    pieces: int = 1
    sides: bool = True  # one side alone is timed, too

    @property
    def wide(self) -> bool:
        """Whether the shorter side is the left one."""
        return self.parts[0].shape[0] <= self.parts[0].shape[1] and self.labels is None

    @property
    def rank(self) -> int:
        """How many triples."""
        return self.k or min(self.parts[0].shape)

    @cached_property
    def truths(self) -> list[Truth]:
        """One a matrix."""
        return [self.known] if self.known else [Truth.of(part, self.wide) for part in self.parts]

    @cached_property
    def centred(self) -> list[Truth]:
        """The same of centred samples."""
        return [Truth.of(part, self.wide, center=True) for part in self.parts]

    def judge(self, triples: Sequence[tuple[Any, Any]], center: bool = False) -> dict[str, float]:
        """The worst errors of (s, v) of the first so many matrices."""
        truths = self.centred if center else self.truths
        each = [truth.judge(np.asarray(s), np.asarray(v)) for truth, (s, v) in zip(truths, triples, strict=False)]
        return {name: max(found[name] for found in each) for name in each[0]}

    @property
    def gap(self) -> float:
        """(σ_k − σ_{k+1})/σ_k of the first matrix: where it is small no method can pin the subspace down."""
        s = self.truths[0].s
        return float((s[self.rank - 1] - s[self.rank]) / s[self.rank - 1]) if self.rank < len(s) else 1.0


def check(entries: Mapping[str, Entry]) -> None:
    """One whose angle and energy are both wrong has failed, randomised ones aside: those are shown as they are."""
    for name, entry in entries.items():
        angle, missed = entry.notes.get("angle", 0.0), entry.notes.get("energy_missed", 0.0)
        if name not in ROUGH and angle > ANGLE and missed > ENERGY:
            entry.failed, entry.seconds = f"it is wrong: angle {angle:.1e}, energy missed {missed:.1e}", []


# -- contenders -------------------------------------------------------------------------------------------------------


def contenders(problem: Problem, device: str | Backend) -> dict[str, Contender]:
    """Ours, and the rivals that the problem is timed against; on a GPU those that compute there."""
    backend = get_backend(device)
    cuda = backend.name.startswith("cuda")
    large = len(problem.parts) * max(problem.parts[0].shape) * min(problem.parts[0].shape) ** 2 > SLOW
    found = {"gpunet": Contender(partial(_ours, problem, backend))}
    if problem.sides and problem.labels is None:
        found["gpunet, one side"] = Contender(partial(_ours, problem, backend, one=True))
    if problem.images is not None:
        found["gpunet, uint8"] = Contender(partial(_ours, problem, backend, images=True))
        if problem.sides and problem.labels is None:
            found["gpunet, uint8, one side"] = Contender(partial(_ours, problem, backend, one=True, images=True))
    if problem.labels is not None:
        found["Grams alone"] = Contender(partial(_grams, problem, backend), "floor")
    for name in (*problem.against, *(["cupy.linalg.svd"] if cuda else [])):
        slow = name in FULL and (large or cuda)
        share = len(problem.parts) if slow and problem.stack is not None else 1
        package = re.split(r"\W", name)[0]
        why = "" if package in ("numpy", "cupy") else lacking(package)
        if name == "scipy svds" and problem.rank >= min(problem.parts[0].shape):
            why = "SciPy's svds finds fewer triples than there are: it takes no part"
        if name == "sklearn covariance_eigh" and problem.parts[0].shape == (1, 1):
            why = "scikit-learn's PCA centres a single sample to nothing: it takes no part"
        found[name] = Contender(partial(_rival, problem, backend, name, share), "rival", why, slow, share)
    return found


def _work(
    problem: Problem, backend: Backend, call: Callable[[], Any], triples: Callable[[Any], Sequence[tuple[Any, Any]]],
    center: bool = False, **notes: Any,
) -> Work:  # fmt: skip
    """A call whose latest result is judged: triples(result) are (s, v) of each matrix, on the host."""
    kept: list[Any] = []

    def run(pieces: int) -> None:
        for _ in range(pieces):
            kept.clear()  # room for the next result
            kept.append(call())
        backend.synchronize()

    def reached() -> dict[str, Any]:
        found = kept[-1]
        own = found.summary if isinstance(found, SVD) else {}
        return problem.judge(triples(found), center) | own | notes

    return Work(run, reached)


def _ours(problem: Problem, backend: Backend, one: bool = False, images: bool = False) -> Work:
    host, k, wide = backend.to_host, problem.rank, problem.wide
    whole = problem.images if images else problem.stack if problem.stack is not None else problem.parts[0]
    if problem.labels is not None:
        x = problem.images if images else _scaled(problem.images)
        x = backend.asarray(x) if backend.name.startswith("cuda") else x

        def by_class(found: Any) -> list[tuple[Any, Any]]:
            counts = np.bincount(problem.labels)  # type: ignore[arg-type]
            s = np.sqrt(np.asarray(host(found.explained_variance)) * counts[:, None]) / (255 if images else 1)
            return [(s[i], v.T) for i, v in enumerate(host(found.components))]

        return _work(problem, backend, lambda: class_pca(x, problem.labels, k), by_class)
    a = backend.asarray(whole) if backend.name.startswith("cuda") else whole
    compute: Any = ("left" if wide else "right") if one else "both"

    def triples(found: SVD[Any]) -> list[tuple[Any, Any]]:
        s, v = host(found.s), host(found.u if wide else np.swapaxes(host(found.vt), -1, -2))
        s = s / np.float32(255) if images else s
        return list(zip(s, v, strict=True)) if problem.stack is not None else [(s, v)]

    return _work(problem, backend, lambda: svd(a, problem.k, compute=compute, device=backend), triples)


def _scaled(x: Any) -> Any:
    return x.astype(np.float32) / np.float32(255)


def _grams(problem: Problem, backend: Backend) -> Work:
    """The classes' Gram matrices alone."""
    xs = [backend.asarray(part) for part in problem.parts]
    out = backend.empty((xs[0].shape[1],) * 2)

    def run(pieces: int) -> None:
        with backend.session():
            for _ in range(pieces):
                for x in xs:
                    backend.gemm(x, x, out, transpose_a=True)
            backend.synchronize()

    return Work(run)


def _rival(problem: Problem, backend: Backend, name: str, share: int) -> Work:
    """A rival's call for each matrix in turn, or for the stack; the first of `share` where that is more than one."""
    wide, k = problem.wide, problem.rank
    arrays: list[Any] = list(problem.parts)
    if problem.stack is not None:
        arrays = [problem.stack[: len(problem.stack) // share]] if name.startswith(("torch", "cupy")) else arrays
    center, call = False, _call(name, k, backend)
    if name.startswith("torch"):
        import torch

        where = rivals.place(backend.name)
        arrays = [torch.from_numpy(np.ascontiguousarray(a)).to(where) for a in arrays]
        # What a call's time must not hold: the loading of libraries, and on a GPU the choice of algorithms and memory.
        if backend.name.startswith("cuda"):
            call(arrays[0])
            rivals.wait(where)
        else:
            torch.linalg.svd(arrays[0][..., :8, :8])
    elif name.startswith("cupy"):
        arrays = [backend.asarray(a) for a in arrays]
    elif name == "sklearn covariance_eigh":
        center, arrays = True, [a.T if wide else a for a in arrays]

    def run() -> list[Any]:
        with backend.session() if name.startswith("cupy") else nullcontext():
            found = [call(a) for a in arrays]
        if name.startswith("torch"):
            rivals.wait(where)
        return found

    def triples(found: list[Any]) -> list[tuple[Any, Any]]:
        made: list[tuple[Any, Any]] = []
        for u, s, vt in found:
            u, s, vt = (part if isinstance(part, np.ndarray) else _host(backend, part) for part in (u, s, vt))
            v = (u if wide and not center else np.swapaxes(vt, -1, -2))[..., :k]
            made += list(zip(s[..., :k], v, strict=True)) if s.ndim > 1 else [(s[:k], v)]
        return made

    timed = {"timed": f"1/{share}, × {share}"} if share > 1 else {}
    return _work(problem, backend, run, triples, center, **timed)


def _host(backend: Backend, array: Any) -> NDArray[Any]:
    return np.asarray(array.cpu().numpy() if hasattr(array, "cpu") else backend.to_host(array))


def _call(name: str, k: int, backend: Backend) -> Callable[[Any], tuple[Any, Any, Any]]:
    """A rival's call: a -> (u, s, vt), as its users make it."""
    if name in ("numpy.linalg.svd", "cupy.linalg.svd"):
        return partial((np if name.startswith("numpy") else backend.xp).linalg.svd, full_matrices=False)
    if name.startswith("torch"):
        import torch

        if name == "torch.linalg.svd":
            return partial(torch.linalg.svd, full_matrices=False)

        def low(a: Any) -> tuple[Any, Any, Any]:
            u, s, v = torch.svd_lowrank(a, q=k)
            return u, s, v.mT

        return low
    if name == "sklearn covariance_eigh":
        from sklearn.decomposition import PCA

        def fit(samples: Any) -> tuple[Any, Any, Any]:
            found = PCA(k, svd_solver="covariance_eigh").fit(samples)
            return found.components_, found.singular_values_, found.components_

        return fit
    if name == "sklearn randomized_svd":
        from sklearn.utils.extmath import randomized_svd

        return lambda a: randomized_svd(a, k, random_state=0)
    if name == "scipy svds":
        from scipy.sparse.linalg import svds

        def leading(a: Any) -> tuple[Any, Any, Any]:
            u, s, vt = svds(a, k=k)
            order = np.argsort(-s)
            return u[:, order], s[order], vt[order]

        return leading
    raise InputError(f"unknown rival {name!r}: expected some of {', '.join(RIVALS)}")


# -- problems ---------------------------------------------------------------------------------------------------------


def made(shape: tuple[int, int]) -> NDArray[np.float32]:
    """A matrix of MNIST's kind of spectrum: one large value, then σ_j ∝ j^-0.7."""
    short, long = sorted(shape)
    rng = stream(0, DATA)
    decay = np.arange(1, short + 1) ** -0.7
    decay[0] = 3.0
    mix = np.linalg.qr(rng.standard_normal((short, short)))[0] * decay
    a = np.empty((short, long), np.float32)
    for start in range(0, long, 4096):
        stop = min(start + 4096, long)
        a[:, start:stop] = mix @ rng.standard_normal((short, stop - start))
    return a if shape[0] <= shape[1] else np.ascontiguousarray(a.T)


def pictures(x: NDArray[np.uint8], k: int, name: str = "", against: Sequence[str] | None = None) -> Problem:
    """Images as columns, (features, samples) with fewer features, pixels/255."""
    images = np.ascontiguousarray(x.T)
    name = name or f"top {k} of {images.shape[0]}×{images.shape[1]}"
    chosen = {} if against is None else {"against": against}
    return Problem(name, [_scaled(images)], k, images=images, **chosen)  # type: ignore[arg-type]


def classes(x: NDArray[np.uint8], y: NDArray[Any], k: int) -> Problem:
    """The k leading directions of each class of images, (samples, features)."""
    scaled = _scaled(x)
    parts = [scaled[y == label] for label in np.unique(y)]
    against = ("numpy.linalg.svd", "torch.linalg.svd", "torch.svd_lowrank")
    return Problem(f"{len(parts)} classes, top {k} each", parts, k, against, images=x, labels=y)


def stack(shape: tuple[int, int, int], k: int) -> Problem:
    """A stack of tall matrices, σ_j ~ j^-0.7, nearly."""
    rng = stream(0, DATA)
    decay = (np.arange(1, shape[-1] + 1) ** -0.7).astype(np.float32)
    mix = np.linalg.qr(rng.standard_normal((shape[-1], shape[-1])))[0].astype(np.float32)
    a = (rng.standard_normal(shape, dtype=np.float32) * decay) @ mix
    name = f"{'×'.join(map(str, shape))}, top {k} each"
    return Problem(name, list(a), k, RIVALS["torch"], stack=a, sides=False)


def square(n: int, k: int) -> Problem:
    """n × n with σ_j = j^-0.7, known by construction: with so small a gap at k that energy tells more than angles."""
    rng = stream(0, DATA)
    sides: list[NDArray[np.float64]] = [np.linalg.qr(rng.standard_normal((n, n)))[0] for _ in range(2)]
    u, v = sides
    s: NDArray[np.float64] = np.arange(1, n + 1, dtype=np.float64) ** -0.7
    a = (u * s) @ v.T
    truth = Truth((u * s**2) @ u.T, s, u)
    against = tuple(each for names in RIVALS.values() for each in names if "covariance" not in each)
    return Problem(f"{n}×{n} to rank {k}", [a.astype(np.float32)], k, against, known=truth, sides=False)


def plain(name: str, a: NDArray[Any], k: int | None, rival: str, pieces: int = 1) -> Problem:
    """A matrix beside one rival."""
    return Problem(name, [a], k, (rival,), pieces=pieces, sides=False)


def asked(shape: tuple[int, int] | None, k: int, against: Sequence[str]) -> tuple[str, Problem]:
    """(where from, problem): MNIST, or a made matrix of that shape, beside these of RIVALS.

    Raises InputError for a rival or a number of triples that there is not, and for a matrix larger than the memory.
    """
    for name in against:
        if name not in RIVALS:
            raise InputError(f"unknown rival {name!r}: expected some of {', '.join(RIVALS)}")
    rows, columns = shape or (784, 60_000)
    if not 1 <= k <= min(rows, columns):
        raise InputError(f"k is {k}: expected 1 to {min(rows, columns)}, the shorter side of {rows}×{columns}")
    label, callers = f"{rows}×{columns}, k = {k}", [each for name in against for each in RIVALS[name]]
    if not shape:
        where, x, _ = data.pictures("mnist", 60_000)
        return where, pictures(x, k, label, callers)
    if why := too_large(24 * (rows * columns + min(rows, columns) ** 2)):  # float64 copies for the truth, and results
        raise InputError(f"a matrix of {rows}×{columns} {why}: expected a smaller one")
    return "made, σ_j ~ j^-0.7", Problem(label, [made(shape)], k, callers)


PROBLEMS = 12


def problems(small: bool = False) -> Iterator[Problem]:
    """What README shows, and the small ones where calls count; each made when it is its turn. small: a look at all."""
    x, y = data.made(200, (8, 8)) if small else data.pictures("mnist", 60_000)[1:]
    yield pictures(x, 10 if small else 100)
    yield classes(x, y, 3 if small else 10)
    yield square(*((64, 8) if small else (4096, 256)))
    rng = np.random.default_rng(0)
    for dtype in ("float32", "float64"):
        for rows in (4000, 60_000):
            a = x[:rows].astype(dtype) / np.dtype(dtype).type(255)
            yield plain(f"all of {len(a)}×{a.shape[1]} {dtype}", a, None, "numpy.linalg.svd")
    size, k = (60, 6) if small else (1050, 100)
    noise = rng.standard_normal((size, size))
    yield plain(f"top {k} of noise {size}×{size} float64", noise, k, "scipy svds")
    for dtype in ("float32", "float64"):
        tall, two = (rng.standard_normal(shape).astype(dtype) for shape in ((1000, 10), (2, 2)))
        yield plain(f"1000×10 {dtype}", tall, None, "torch.linalg.svd", 10 if small else 1000)
        yield plain(f"2×2 {dtype}", two, None, "numpy.linalg.svd", 10 if small else 5000)
