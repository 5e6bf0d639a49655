"""The Gram matrix of data of any size, by any executor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from itertools import chain
from os import PathLike
from typing import Any, overload

from numpy.typing import NDArray

from gpunet.backend import Backend
from gpunet.checks import as_array, check_flag, check_whole, has, on_device
from gpunet.errors import InputError, ShapeError, shown
from gpunet.linalg.classes import StreamingClassGram, check_labels
from gpunet.linalg.executors import check_executor, gather, gather_batches, in_groups
from gpunet.linalg.gram import StreamingGram
from gpunet.linalg.sources import source_of
from gpunet.progress import Progress, progress


@overload
def gram(
    source: NDArray[Any] | str | PathLike[str] | list[str], labels: None = None,
    *, center: bool = False, reproducible: bool = False,
    executor: Executor | None = None, in_flight: int | None = None, batch: int | None = None,
    device: str | Backend | None = None, progress: bool | Progress = False,
) -> StreamingGram: ...  # fmt: skip
@overload
def gram(
    source: NDArray[Any] | str | PathLike[str] | list[str], labels: Any,
    *, center: bool = False, reproducible: bool = False,
    executor: Executor | None = None, in_flight: int | None = None, batch: int | None = None,
    device: str | Backend | None = None, progress: bool | Progress = False,
) -> StreamingClassGram: ...  # fmt: skip
@overload
def gram(
    source: Any, labels: Any = None, *, center: bool = False, reproducible: bool = False,
    executor: Executor | None = None, in_flight: int | None = None, batch: int | None = None,
    device: str | Backend | None = None, progress: bool | Progress = False,
) -> Any: ...  # fmt: skip
def gram(
    source: Any,
    labels: Any = None,
    *,
    center: bool = False,
    reproducible: bool = False,
    executor: Executor | None = None,
    in_flight: int | None = None,
    batch: int | None = None,
    device: str | Backend | None = None,
    progress: bool | Progress = False,
) -> StreamingGram | StreamingClassGram:
    """Σ x xᵀ and the mean of data of any size: a `StreamingGram`, or class by class with labels.

    source: a path (FILE.npy, FILE.npz::MEMBER of what `numpy.savez` wrote, FILE.h5::DATASET, a Zarr folder, a folder
    of .npy shards, or a pattern such as "x-*.npy"), a list of .npy paths, anything with shape, dtype and slices of rows
    (NumPy's arrays and memory maps, HDF5's datasets, Zarr's and dask's arrays), or an iterable of batches, x (n,
    features) or (x, labels). Samples of more dimensions are flattened. labels: (n,) integers, an array or a path of
    one, held in memory; with an iterable they come with the batches.
    center, reproducible: as in `StreamingGram`; the variances of its components are over n, not n − 1.
    executor: a `concurrent.futures.Executor` that sums parts of it: threads, processes, mpi4py's, or Dask's
    `client.get_executor()`. Workers read files themselves, from where this process has them; what lies in memory is
    sent to them. The sums are merged as a tree that shape, dtype, labels and `batch` alone decide: the same bits
    however many workers there are, and the same as without an executor.
    in_flight: parts that are on their way at a time, twice the workers by default, or 32 where those are not known.
    batch: rows that are read and multiplied at a time, 16 MB by default. device: as in `StreamingGram`, on each
    worker where there are any, whose sums come to the host. progress: whether to show it; of an iterable, whose end
    nobody knows, there is none.

    What comes next is read while products are computed. Memory: 3 batches, and sums as large as the result for each
    power of two in the number of parts; with an executor for each part in flight, too.

    Raises InputError for what is no source, and as `StreamingGram.update` does, naming file and row of a NaN; DataError
    for files that are missing, damaged or do not fit each other, RunError where workers are lost for good. What is
    pending is cancelled then, and at Ctrl-C.

    >>> import numpy as np, gpunet as gn
    >>> x = np.random.default_rng(0).integers(0, 256, (1000, 8), dtype=np.uint8)
    >>> sums = gn.gram(x, center=True)
    >>> sums.count, sums.components(2).components.shape
    (1000, (2, 8))
    """
    center, reproducible = check_flag("center", center), check_flag("reproducible", reproducible)
    batch = None if batch is None else check_whole("batch", batch)
    kind: dict[str, Any] = {"center": center, "reproducible": reproducible, "device": device}
    many: dict[str, Any] = {"executor": check_executor(executor, device), "in_flight": in_flight}
    if not isinstance(progress, Progress):
        check_flag("progress", progress)
    with _shown(progress) as bar:
        found = source_of(source)
        if found is None and has(source, "shape") and not on_device(source):  # a DataFrame, another library's array
            found = source_of(as_array(source, "source"))
        if found is None:
            return _of_batches(source, labels, batch, kind, many)
        if not found.sample_shape:
            raise ShapeError(f"{found.name} has shape {found.shape[:1]}: expected samples (n, features)")
        if 0 in found.shape:
            raise ShapeError(f"{found.name} is empty, shape {found.shape}: expected at least one row and one column")
        own = None if labels is None else check_labels(labels, found)
        empty = StreamingGram(**kind) if labels is None else StreamingClassGram(**kind)
        return gather(found, own, empty, batch=batch, bar=bar, **many)  # type: ignore[no-any-return]


_shown = progress


def _of_batches(
    batches: Any, labels: Any, batch: int | None, kind: dict[str, Any], many: dict[str, Any]
) -> StreamingGram | StreamingClassGram:
    if not has(batches, "__iter__") or has(batches, "shape"):
        there = "; what lies on a GPU is for StreamingGram().update" if on_device(batches) else ""
        raise InputError(f"source is {shown(batches)}: expected a path, an array or an iterable of batches{there}")
    if isinstance(batches, (list, tuple)) and not batches:
        raise InputError("source is an empty list: expected paths or batches; look at the pattern that found none")
    if labels is not None:
        raise InputError("source is an iterable of batches: expected their labels with them, as pairs (x, labels)")
    if batch is not None:
        raise InputError("source is an iterable of batches: expected batch=None, since they have their sizes")
    pairs = (each if isinstance(each, tuple) else (each,) for each in batches)
    first = next(pairs, None)
    if first is None:
        return StreamingGram(**kind)
    empty = StreamingGram(**kind) if len(first) == 1 else StreamingClassGram(**kind)
    checked = _checked(chain([first], pairs), len(first))
    return gather_batches(in_groups(checked), empty, **many)  # type: ignore[no-any-return]


def _checked(pairs: Iterable[tuple[Any, ...]], parts: int) -> Iterator[tuple[Any, ...]]:
    """Batches as arrays, all with labels or none."""
    for number, each in enumerate(pairs):
        if len(each) != parts or parts > 2:
            raise InputError(
                f"batch {number} of the iterable has {len(each)} parts: expected x, or (x, labels), of all alike"
            )
        x = as_array(each[0], f"batch {number}")
        if x.ndim != 2:
            raise ShapeError(f"batch {number} has shape {x.shape}: expected (samples, features); reshape it")
        yield (x, *each[1:])
