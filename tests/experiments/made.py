"""Small data sets to run svd-init on, and its result held against the public schema of DESIGN.md."""

from __future__ import annotations

import json
import math
import statistics
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from gpunet.datasets.convert import from_arrays

KINDS = ("random", "orth-whole", "orth-each", "scale-whole", "scale-each")
SWEEP = ("orth-each dep=0", "orth-each dep=0.02", "orth-each dep=0.05", "orth-each dep=0.1")
ROWS = [*KINDS, *(f"{kind} frozen" for kind in KINDS), *(f"{kind} norm held" for kind in KINDS), *SWEEP]
FIGURES = ("curves.png", "dependency.png", "further.png", "table1.png")
VERDICTS = ("reproduced", "exceeded", "not reproduced", "not tested")
METRICS = {
    "train_loss", "train_accuracy", "test_loss", "test_accuracy", "dependency_initial", "dependency_final",
    "weight_mean_over_std", "hidden_square_independent", "hidden_square_linear", "hidden_square_measured",
}  # fmt: skip
CLAIM_KEYS = {"id", "statement", "where", "claimed", "measured", "verdict", "note"}
PROVENANCE = {
    "gpunet", "python", "numpy", "cupy", "blas", "cpu", "gpu", "git", "started", "seconds", "peak_memory_bytes",
}  # fmt: skip
BY_THE_CLOCK = {"svd-each-costs-same", "frozen-is-cheaper"}  # claims whose finding is a time


def arrays(
    dtype: str = "float32", classes: int = 3, features: int = 7, train: int = 60, test: int = 30
) -> dict[str, Any]:
    """Clusters, one a class; uint8 or floats."""
    rng = np.random.Generator(np.random.Philox(5))
    centres = rng.normal(size=(classes, features))
    made: dict[str, Any] = {}
    for split, n in (("train", train), ("test", test)):
        y = np.arange(n) % classes
        x = centres[y] + 0.5 * rng.normal(size=(n, features))
        made[f"x_{split}"] = np.clip(128 + 40 * x, 0, 255).astype("uint8") if dtype == "uint8" else x.astype(dtype)
        made[f"y_{split}"] = y
    return made


def dataset(name: str = "own", **kwargs: Any) -> Any:
    return from_arrays(name, **arrays(**kwargs), source=f"{name}.npz")


def write_npz(path: Path, dtype: str = "float32", **changes: Any) -> Path:
    np.savez(path, **(arrays(dtype) | changes))
    return path


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def read_result(text: str) -> dict[str, Any]:
    """Parse strictly (no NaN, no Infinity) and hold against the schema."""
    result = json.loads(text, parse_constant=_refuse)
    check_result(result)
    return result


def check_result(result: dict[str, Any]) -> None:
    assert list(result) == [
        "experiment", "dataset", "device", "settings", "seeds", "rows", "claims", "curves", "timings", "provenance",
    ]  # fmt: skip
    for key, kind in (
        ("experiment", str),
        ("dataset", str),
        ("device", str),
        ("settings", dict),
        ("seeds", list),
    ):
        assert type(result[key]) is kind, key
    seeds = len(result["seeds"])
    assert seeds
    assert all(type(seed) is int and seed >= 0 for seed in result["seeds"])
    _check_rows(result["rows"], seeds)
    _check_claims(result["claims"])
    _check_curves(result["curves"], seeds, result["settings"]["epochs"])
    _check_timings(result["timings"], seeds)
    _check_provenance(result["provenance"])


def _check_rows(rows: list[Any], seeds: int) -> None:
    assert [row["name"] for row in rows] == ROWS
    for row in rows:
        assert set(row) == {"name", "metrics"}
        assert set(row["metrics"]) == METRICS
        for name, metric in row["metrics"].items():
            assert set(metric) == {"mean", "std", "values"}
            values = metric["values"]
            assert len(values) == seeds
            assert all(type(v) is float for v in values), (row["name"], name, values)
            assert math.isclose(metric["mean"], statistics.fmean(values), rel_tol=1e-12, abs_tol=1e-15)
            if seeds == 1:
                assert metric["std"] is None
            else:
                assert math.isclose(metric["std"], statistics.stdev(values), rel_tol=1e-9, abs_tol=1e-12)
            if "accuracy" in name:
                assert all(0 <= v <= 1 for v in values)


def _check_claims(claims: list[Any]) -> None:
    assert claims
    assert len({claim["id"] for claim in claims}) == len(claims)
    for claim in claims:
        assert set(claim) == CLAIM_KEYS
        assert claim["verdict"] in VERDICTS
        assert all(type(claim[key]) is str and claim[key] for key in ("id", "statement", "where", "note"))
        assert type(claim["claimed"]) in (float, str)
        assert type(claim["measured"]) in (float, str, type(None))
        assert claim["measured"] is not None or claim["verdict"] == "not tested"


def _check_curves(curves: dict[str, Any], seeds: int, epochs: int) -> None:
    assert sorted(curves) == sorted(ROWS)
    for curve in curves.values():
        assert set(curve) == {"train_loss", "test_accuracy", "dependency_epoch", "dependency"}
        assert all(len(runs) == seeds for runs in curve.values())
        assert all(len(run) == epochs for name in ("train_loss", "test_accuracy") for run in curve[name])
        for at, ratio in zip(curve["dependency_epoch"], curve["dependency"], strict=True):
            assert len(at) == len(ratio) > epochs
            assert at == sorted(at)
            assert (at[0], at[-1]) == (0, epochs)
            assert all(type(r) is float for r in ratio)


def _check_timings(timings: dict[str, Any], seeds: int) -> None:
    assert set(timings) == {"svd-whole", "svd-each", "seconds_per_epoch"}
    assert timings["svd-whole"] > 0 < timings["svd-each"]
    assert sorted(timings["seconds_per_epoch"]) == sorted(ROWS)
    assert all(len(v) == seeds and min(v) > 0 for v in timings["seconds_per_epoch"].values())


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


def repeatable(result: dict[str, Any]) -> dict[str, Any]:
    """What the same seed must give again, bit for bit: all but times and provenance."""
    kept = {key: value for key, value in result.items() if key not in ("timings", "provenance")}
    kept["claims"] = [claim for claim in result["claims"] if claim["id"] not in BY_THE_CLOCK]
    return kept


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
