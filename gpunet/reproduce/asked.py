"""What a run is asked to do: experiment, settings, seeds, data, device and code. A run is kept while these stay."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

import gpunet
from gpunet.backend import Backend
from gpunet.experiments.work import Order
from gpunet.identity import difference

# Of the folders: what is in them changes no result but through settings and data, which are looked at themselves.
NOT_COMPUTING = ("bench", "cli", "datasets", "report", "reproduce")


def asked(order: Order, backend: Backend) -> dict[str, Any]:
    """What a run is asked to do, its data aside, as JSON; two that agree give the same result, times aside."""
    found = {
        "experiment": order.experiment, "settings": asdict(order.settings), "seeds": order.seeds,
        "device": f"{backend.name} {backend.kernels}", "code": code(),
    }  # fmt: skip
    plain: dict[str, Any] = json.loads(json.dumps(found))
    return plain


def changed(now: Mapping[str, Any], held: Mapping[str, Any]) -> str:
    """What of a run is asked for otherwise than before, in words; "" where nothing is. Only what `now` names counts."""
    for part in ("data", "code"):  # digests tell a reader nothing
        if part in now and now[part] != held.get(part):
            return f"its {part} changed"
    return difference("", dict(now), {part: held.get(part) for part in now})


def fingerprint(data: Any) -> str:
    """Sixteen hexadecimal digits that stand for every array, name and number of one data set, or of several."""
    digest = hashlib.sha256()
    for name, value in _walk("", data):
        digest.update(name.encode())
        if isinstance(value, np.ndarray):
            digest.update(f"{value.dtype.str}{value.shape}".encode())
            digest.update(np.ascontiguousarray(value).data)
        else:
            digest.update(repr(value).encode())
    return digest.hexdigest()[:16]


def _walk(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if is_dataclass(value):
        for each in fields(value):
            if each.name != "source":  # the same data may lie elsewhere
                yield from _walk(f"{name}.{each.name}", getattr(value, each.name))
    elif isinstance(value, (list, tuple)):
        for place, item in enumerate(value):
            yield from _walk(f"{name}.{place}", item)
    else:
        yield name, value


@functools.cache
def code() -> str:
    """The version of what is running, and what stands for its source files."""
    return f"{gpunet.__version__} {sources(Path(gpunet.__file__).parent)}"


def sources(root: Path) -> str:
    """Sixteen hexadecimal digits that stand for every source file of a package that may change a result."""
    digest = hashlib.sha256()
    for path in sorted(path for kind in ("*.py", "*.cu", "*.cuh") for path in root.rglob(kind)):
        place = path.relative_to(root)
        if place.parts[0] not in NOT_COMPUTING:
            digest.update(place.as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
