"""Any experiment's result held against the public schema of DESIGN.md."""

from __future__ import annotations

import json
import math
import statistics
from datetime import datetime
from typing import Any

PROVENANCE = {
    "gpunet", "python", "numpy", "cupy", "blas", "cpu", "gpu", "git", "started", "seconds", "peak_memory_bytes",
}  # fmt: skip


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def parse(text: str) -> dict[str, Any]:
    """Parse strictly (no NaN, no Infinity) and hold against the schema."""
    result = json.loads(text, parse_constant=_refuse)
    check_document(result)
    return result


def rows(result: dict[str, Any]) -> dict[str, Any]:
    """The metrics by the rows' names."""
    return {row["name"]: row["metrics"] for row in result["rows"]}


def check_document(result: dict[str, Any]) -> None:
    """What every experiment's result.json must be."""
    assert list(result) == [
        "format", "experiment", "dataset", "device", "settings", "seeds", "rows", "notes", "curves", "timings",
        "provenance",
    ]  # fmt: skip
    assert result["format"] == 2
    for key, kind in (
        ("experiment", str),
        ("dataset", str),
        ("device", str),
        ("settings", dict),
        ("seeds", list),
        ("notes", dict),
    ):
        assert type(result[key]) is kind, key
    seeds = len(result["seeds"])
    assert seeds
    assert all(type(seed) is int and seed >= 0 for seed in result["seeds"])
    for row in result["rows"]:
        assert set(row) == {"name", "metrics"}
        for name, metric in row["metrics"].items():
            _check_metric(name, metric, seeds)
    for times in result["timings"].values():
        for seconds in times.values():
            assert len(seconds) == seeds
            assert all(type(v) is float and v >= 0 for v in seconds)
    _check_provenance(result["provenance"])


def _check_metric(name: str, metric: dict[str, Any], seeds: int) -> None:
    assert set(metric) == {"mean", "std", "values"}
    values = metric["values"]
    assert len(values) == seeds
    assert all(type(v) is float for v in values), (name, values)
    assert math.isclose(metric["mean"], statistics.fmean(values), rel_tol=1e-12, abs_tol=1e-15)
    if seeds == 1:
        assert metric["std"] is None
    else:
        assert math.isclose(metric["std"], statistics.stdev(values), rel_tol=1e-9, abs_tol=1e-12)
    if "accuracy" in name:
        assert all(0 <= v <= 1 for v in values)


def _check_provenance(provenance: dict[str, Any]) -> None:
    assert set(provenance) >= PROVENANCE
    for key in ("gpunet", "python", "numpy", "cpu"):
        assert type(provenance[key]) is str
        assert provenance[key]
    for key in ("cupy", "blas", "gpu", "git"):
        assert type(provenance[key]) in (str, type(None))
    assert datetime.fromisoformat(provenance["started"]).tzinfo is not None
    assert provenance["seconds"] > 0
    assert type(provenance["peak_memory_bytes"]) is int
    assert provenance["peak_memory_bytes"] > 1_000_000


def is_png(content: bytes) -> bool:
    """Whole: signature, header, every chunk with its checksum, pixels that unpack to the header's size."""
    import struct
    import zlib

    if content[:8] != b"\x89PNG\r\n\x1a\n":
        return False
    place, kinds, pixels = 8, [], b""
    while place + 12 <= len(content):
        (length,), kind = struct.unpack(">I", content[place : place + 4]), content[place + 4 : place + 8]
        body, place = content[place + 4 : place + 8 + length], place + 12 + length
        if len(body) != 4 + length or zlib.crc32(body) != struct.unpack(">I", content[place - 4 : place])[0]:
            return False
        kinds.append(kind)
        pixels += body[4:] if kind == b"IDAT" else b""
    width, height, depth, colour = struct.unpack(">IIBB", content[16:26])
    line = 1 + width * depth * {2: 3, 6: 4}[colour] // 8
    return (kinds[0], kinds[-1]) == (b"IHDR", b"IEND") and len(zlib.decompress(pixels)) == height * line
