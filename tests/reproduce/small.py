"""Three small runs, in place of the plan; and runs that only pretend to compute."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpunet.experiments.result import ClaimResult, Result
from gpunet.experiments.work import Done, Work
from gpunet.progress import Progress
from gpunet.reproduce import plan
from gpunet.reproduce.plan import Run

TINY = [
    Run("svd-init-digits", "svd-init", 3, 2, {"epochs": 1}, quick=True),
    Run("svd-dnn-xor", "svd-dnn", 2, 2, {"task": "xor", "epochs": 1, "speed": False}, quick=True),
    Run("toy", "toy", 1, 2, {"limit": 5}, quick=True),
]
NAMES = [run.name for run in TINY]


def use(runs: list[Run], monkeypatch) -> None:
    monkeypatch.setattr(plan, "QUICK", runs)


def png() -> bytes:
    """One white pixel."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0\xff\xff\xff")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


class Pretended:
    """Stands in for `Work.carry_out`: notes what was run; `hooks` are called in the middle of the run of that name."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.hooks: dict[str, Callable[[], Any]] = {}

    def carry_out(
        self, work: Work, folder: Path, device: str, bar: Progress, written: Callable[[Done], object]
    ) -> Done:
        self.ran.append(folder.name)
        folder.mkdir(exist_ok=True)
        bar.start("first", 4)
        bar.seed(work.seeds[0])
        bar.advance(3, "loss 1")
        self.hooks.get(folder.name, lambda: None)()
        bar.start("second", 2)
        bar.advance(2)
        claim = ClaimResult("speed", "it is fast", "Table 1", 2.0, 2.1, "reproduced", "within ±0.2")
        result = Result(work.experiment, work.dataset, "cpu", {"tries": len(self.ran)}, work.seeds, claims=[claim])
        result.claims += [ClaimResult("size", "it is small", "Table 2", "yes", None, "not tested", "not measured")]
        result.provenance = {"started": "2026-01-02T03:04:05+00:00", "seconds": 1.5, "gpunet": "0"}
        path = result.write(folder)
        written(Done(result, path, []))
        self.hooks.get(f"{folder.name} figures", lambda: None)()
        (folder / "figure.png").write_bytes(png())
        return Done(result, path, [folder / "figure.png"])
