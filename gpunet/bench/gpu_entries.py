"""Contestants of the decompositions on a GPU, what is measured of them, and how their vectors are judged."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunet.backend import Backend
from gpunet.bench import torch_rival
from gpunet.bench.gpu_race import told

Judge = Callable[[Any], tuple[float | None, float]]
Save = Callable[[dict[str, Any]], None]
QUICK, LOOPING = ("gpunet", "torch"), ("gpunet", "cupy")  # how the names begin of those that take a call, or many


@dataclass(frozen=True)
class Entry:
    """run() computes and waits; vectors(result): those to be judged, as columns, on the host; ready(): once, before.

    repeat: timed over rounds; else once, as is right for what takes seconds. share: it does so many times less than the
    others, the first matrices of a stack that a library goes through one by one, and its time is multiplied.
    """

    run: Callable[[], Any]
    vectors: Callable[[Any], Any]
    repeat: bool = False
    share: int = 1
    ready: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Row:
    """seconds (median), route, largest principal angle in rad, share of the energy missed; or why there is none.

    route: of one that did a share alone, that it did.
    """

    seconds: float | None = None
    route: str = ""
    angle: float | None = None
    energy_missed: float | None = None
    failed: str = ""


def measure(entries: Mapping[str, Entry], judge: Judge, rounds: int, save: Save) -> dict[str, Any]:
    """A row for each entry, saved as it comes: one that hangs does not take the others with it."""
    rows: dict[str, Any] = {}
    for name, entry in entries.items():
        try:
            entry.ready()
            found, seconds = None, []
            for turn in range(rounds + 1 if entry.repeat else 1):
                found = None  # room for the next result
                began = time.perf_counter()
                found = entry.run()
                seconds += [time.perf_counter() - began] if turn or not entry.repeat else []
            angle, missed = judge(entry.vectors(found))
            route = f"timed 1/{entry.share}, × {entry.share}" if entry.share > 1 else getattr(found, "route", "")
            row = Row(entry.share * float(np.median(seconds)), route, angle, missed)
        except Exception as error:  # whatever a rival raises
            row = Row(failed=told(error))
        rows[name] = asdict(row)
        save(rows)
    return rows


def ours(backend: Backend, compute: Callable[[], Any], side: Callable[[Any], Any]) -> Entry:
    """One of ours, or of the backend's own namespace; side picks the judged columns, an array or a list of them."""

    def run() -> Any:
        found = compute()
        backend.synchronize()
        return found

    def vectors(found: Any) -> NDArray[Any]:
        chosen = side(found)
        parts = [backend.to_host(each) for each in chosen] if isinstance(chosen, list) else backend.to_host(chosen)
        return np.asarray(parts)

    return Entry(run, vectors, repeat=True)


def in_cupy(
    backend: Backend, compute: Callable[[Any], Any], side: Callable[[Any], Any], share: int = 1
) -> dict[str, Entry]:
    """cupy.linalg.svd where the backend is CuPy's: gesvd, of a stack one after the other. Timed once, see `Entry`."""
    if not backend.name.startswith("cuda"):
        return {}
    entry = ours(backend, lambda: compute(backend.xp), side)
    return {"cupy.linalg.svd": replace(entry, repeat=False, share=share)}


def in_torch(
    backend: Backend, arrays: Sequence[NDArray[Any]], k: int, left: bool = False, once_only: bool = True, share: int = 1
) -> dict[str, Entry]:
    """torch.svd_lowrank and torch.linalg.svd of each array; judged are the k leading right (left) vectors.

    share: torch.linalg.svd gets the first of so many matrices of a stack, through which cuSOLVER goes one by one.
    """
    if importlib.util.find_spec("torch") is None:
        return {}
    import torch

    place = torch_rival.place(backend.name)
    tensors: list[Any] = []

    def ready() -> None:
        """What the time of a call must not hold: the way to the device, and the loading of libraries."""
        if not tensors:
            tensors.extend(torch.from_numpy(array).to(place) for array in arrays)
            torch.linalg.svd(tensors[0][..., :8, :8])

    def full(tensor: Any) -> Any:
        u, _, vt = torch.linalg.svd(tensor, full_matrices=False)
        return u[..., :k] if left else vt.mT[..., :k]

    def low(tensor: Any) -> Any:
        u, _, v = torch.svd_lowrank(tensor, q=k)
        return u if left else v

    def entry(one: Callable[[Any], Any], repeat: bool, share: int = 1) -> Entry:
        def run() -> list[Any]:
            found = [one(tensor if share == 1 else tensor[: len(tensor) // share]) for tensor in tensors]
            torch_rival.wait(place)
            return found

        def vectors(found: list[Any]) -> Any:
            parts = [each.cpu().numpy() for each in found]
            return np.stack(parts) if len(parts) > 1 else parts[0]

        return Entry(run, vectors, repeat, share, ready)

    return {"torch.svd_lowrank": entry(low, repeat=True), "torch.linalg.svd": entry(full, not once_only, share)}


# -- the truth --------------------------------------------------------------------------------------------------------


def judge_of(grams: NDArray[np.float64]) -> Judge:
    """A judge of columns (n, k), or (≤ B, n, k), by the Gram matrices (B, n, n): (largest angle, energy missed)."""
    values, vectors = np.linalg.eigh(grams)

    def one(place: int, v: NDArray[np.float64]) -> tuple[float, float]:
        k = v.shape[1]
        best = vectors[place][:, ::-1][:, :k]
        v = np.linalg.qr(v)[0]
        sine = float(np.linalg.norm(v - best @ (best.T @ v), 2))
        missed = 1 - float(np.sum(v * (grams[place] @ v))) / float(values[place][::-1][:k].sum())
        return float(np.arcsin(min(1.0, sine))), missed

    def judge(v: Any) -> tuple[float, float]:
        columns = v.reshape(-1, *v.shape[-2:]).astype(np.float64)
        judged = [one(place, each) for place, each in enumerate(columns)]
        return max(angle for angle, _ in judged), max(missed for _, missed in judged)

    return judge
