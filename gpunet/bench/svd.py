"""The leading singular vectors of one matrix: ours beside NumPy, scikit-learn and PyTorch, each result checked.

Each rival is asked for what its users would call, and ours for the same work beside it: "gpunet" is both sides (as
`numpy.linalg.svd` and `torch.linalg.svd` give them), "gpunet, one side" the vectors of the shorter side alone (as
scikit-learn's PCA fits them; it centres the data, and is held against the centred reference). All get the same
float32 array except "gpunet, uint8", where the data is images.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunet.backend import get_backend
from gpunet.errors import InputError
from gpunet.linalg import SVD, svd
from gpunet.rng import DATA, stream
from gpunet.timing import interleave

RIVALS = {"numpy": "numpy", "sklearn": "sklearn", "torch": "torch"}
PACKAGES = {"numpy": "numpy", "sklearn": "scikit-learn", "torch": "torch"}
SLOW = ("numpy", "torch")  # timed once: seconds against our tenths


@dataclass(frozen=True)
class Row:
    """One contestant: route, seconds (median), ratio to ours of the same work, and what its vectors are worth.

    angle: largest principal angle (rad) between its k vectors of the shorter side and the float64 reference's;
    energy_loss: 1 − ‖X V‖_F²/Σ_{j≤k} σ_j². skipped: why there is no figure.
    """

    name: str
    route: str = ""
    seconds: float = float("nan")
    ratio: float = float("nan")
    angle: float = float("nan")
    energy_loss: float = float("nan")
    skipped: str = ""


@dataclass(frozen=True)
class Report:
    """A comparison; gap: (σ_k − σ_{k+1})/σ_k, where it is small no method can pin the subspace down."""

    data: str
    shape: tuple[int, int]
    k: int
    device: str
    gap: float
    rows: list[Row]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Reference:
    """The float64 truth about the shorter side: vectors (short, k), σ (short,), Gram matrix (short, short)."""

    vectors: NDArray[np.float64]
    s: NDArray[np.float64]
    gram: NDArray[np.float64]

    def judge(self, v: NDArray[Any]) -> tuple[float, float]:
        """(largest principal angle, energy loss) of v (short, k), columns."""
        v = np.linalg.qr(v.astype(np.float64))[0]
        outside = v - self.vectors @ (self.vectors.T @ v)
        sine = float(np.linalg.norm(outside, 2))
        energy = float(np.sum(v * (self.gram @ v)))
        return float(np.arcsin(min(1.0, sine))), 1 - energy / float((self.s[: v.shape[1]] ** 2).sum())


def reference(a: NDArray[Any], k: int, center: bool = False) -> Reference:
    """By LAPACK in float64: R of the tall matrix's QR, then the SVD of R. center: less the mean of its rows."""
    x = (a.T if a.shape[0] < a.shape[1] else a).astype(np.float64)
    if center:
        x -= x.mean(axis=0)
    r = np.asarray(np.linalg.qr(x, mode="r"))
    _, s, vt = np.linalg.svd(r)
    return Reference(vt[:k].T, s, r.T @ r)


def matrix(shape: tuple[int, int] | None) -> tuple[str, NDArray[Any], NDArray[np.uint8] | None]:
    """(name, float32 matrix, the same as uint8 or None): MNIST where no shape is asked for, else a made one.

    The made matrix has MNIST's kind of spectrum: one large value, then σ_j ∝ j^-0.7.
    """
    if shape is None:
        from gpunet.datasets import load

        try:
            images = np.ascontiguousarray(load("mnist").x_train.reshape(-1, 784).T)
            return "MNIST, pixels/255", images.astype(np.float32) / np.float32(255), images
        except InputError:
            shape = (784, 60_000)
    short, long = sorted(shape)
    rng = stream(0, DATA)
    decay = np.arange(1, short + 1) ** -0.7
    decay[0] = 3.0
    mix = np.linalg.qr(rng.standard_normal((short, short)))[0] * decay
    made = np.empty((short, long), np.float32)
    for start in range(0, long, 4096):
        stop = min(start + 4096, long)
        made[:, start:stop] = mix @ rng.standard_normal((short, stop - start))
    return "made, σ_j ~ j^-0.7", made if shape[0] <= shape[1] else np.ascontiguousarray(made.T), None


def compare(
    shape: tuple[int, int] | None = None,
    k: int = 100,
    against: Sequence[str] = tuple(RIVALS),
    device: str = "cpu",
    rounds: int = 5,
) -> Report:
    """Time ours and the rivals in turn on one matrix, then check every result against the float64 reference.

    Raises InputError for a rival that is not known.
    """
    for name in against:
        if name not in RIVALS:
            raise InputError(f"unknown rival {name!r}: expected some of {', '.join(RIVALS)}")
    backend = get_backend(device)
    label, a, images = matrix(shape)
    if not 1 <= k <= min(a.shape):
        raise InputError(f"k is {k}: expected 1 to {min(a.shape)}, the shorter side of {a.shape[0]}×{a.shape[1]}")
    short = "left" if a.shape[0] <= a.shape[1] else "right"
    results: dict[str, Any] = {}

    def ours(data: Any, compute: Any) -> Callable[[], SVD]:
        def run() -> SVD:
            found = svd(data, k, compute=compute)
            backend.synchronize()
            return found

        return run

    cuda = backend.name.startswith("cuda")
    place = backend.asarray if cuda else np.asarray
    contestants: dict[str, Callable[[], Any]] = {
        "gpunet": ours(place(a), "both"),
        "gpunet, one side": ours(place(a), short),
    }
    if images is not None:
        contestants["gpunet, uint8"] = ours(place(images), "both")
    missing = {name: why for name in against if (why := _why_not(name))}
    rivals = {name: _rival(name, a, k) for name in against if name not in missing}
    quick = contestants | {name: run for name, run in rivals.items() if name not in SLOW}
    times = interleave(_keeping(quick, results), rounds)
    slow = interleave(_keeping({n: r for n, r in rivals.items() if n in SLOW}, results), 1, warmup=0)
    plain, centred = reference(a, k), reference(a, k, center=True) if "sklearn" in rivals else None
    rows = []
    for name in [*contestants, *rivals]:
        timed = slow if name in slow.seconds else times
        seconds = timed.median(name)
        ratio = seconds / times.median("gpunet, one side" if name == "sklearn" else "gpunet")
        found = results[name]
        v = found if not isinstance(found, SVD) else _host(backend, found.u if short == "left" else found.vt.T)
        angle, loss = (centred if name == "sklearn" and centred else plain).judge(v)
        rows.append(Row(name, getattr(found, "route", "its own"), seconds, ratio, angle, loss))
    rows += [Row(name, skipped=why) for name, why in missing.items()]
    gap = float((plain.s[k - 1] - plain.s[k]) / plain.s[k - 1]) if k < len(plain.s) else 1.0
    return Report(label, (a.shape[0], a.shape[1]), k, backend.name, gap, rows)


def _host(backend: Any, array: Any) -> Any:
    return backend.to_host(array)


def _keeping(contestants: Mapping[str, Callable[[], Any]], results: dict[str, Any]) -> dict[str, Callable[[], None]]:
    """The same, each keeping its latest result."""

    def keep(name: str) -> Callable[[], None]:
        return lambda: results.__setitem__(name, contestants[name]())

    return {name: keep(name) for name in contestants}


def _why_not(rival: str) -> str:
    module = RIVALS[rival]
    return "" if importlib.util.find_spec(module) else f"{module} is not installed; pip install {PACKAGES[module]}"


def _rival(name: str, a: NDArray[Any], k: int) -> Callable[[], NDArray[Any]]:
    """A call that returns the k leading vectors of the shorter side, (short, k)."""
    wide = a.shape[0] <= a.shape[1]
    if name == "numpy":

        def by_numpy() -> NDArray[Any]:
            u, _, vt = np.linalg.svd(a, full_matrices=False)
            return u[:, :k] if wide else vt[:k].T

        return by_numpy
    if name == "torch":
        import torch

        tensor = torch.from_numpy(a)

        def by_torch() -> NDArray[Any]:
            u, _, vt = torch.linalg.svd(tensor, full_matrices=False)
            return np.asarray(u[:, :k].numpy() if wide else vt[:k].T.numpy())

        return by_torch
    from sklearn.decomposition import PCA

    samples = a.T if wide else a

    def by_sklearn() -> NDArray[Any]:
        return np.asarray(PCA(k, svd_solver="covariance_eigh").fit(samples).components_.T)

    return by_sklearn
