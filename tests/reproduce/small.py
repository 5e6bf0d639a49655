"""A small paper's runs in place of ours, and runs that only pretend to compute."""

from __future__ import annotations

import struct
import sys
import types
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gpunet.report
from gpunet.experiments.framework import Done, Experiment, Run
from gpunet.experiments.result import Result
from gpunet.progress import Progress
from gpunet.reproduce import plan

from . import paper

NAMES = ["line-near", "line-far", "stack"]  # those of `reproduce --quick`
SMALL = (paper.x, paper.stack)


def use_small(monkeypatch: Any, *every: Experiment) -> None:
    """These experiments are all there are."""
    monkeypatch.setattr(plan, "experiments", lambda: {x.name: x for x in every or SMALL})


def short_page(folder: Path) -> Path:
    """In place of the page, which draws all figures again."""
    from gpunet.files import write_atomically

    write_atomically(folder / "report.html", "<!doctype html>")
    return folder / "report.html"


def use_page(monkeypatch: Any, write: Callable[[Path], Path]) -> None:
    """No page but what this writes."""
    made = types.ModuleType("gpunet.report.page")
    made.write = write  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, made.__name__, made)
    monkeypatch.setattr(gpunet.report, "page", made, raising=False)


def png() -> bytes:
    """One white pixel."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0\xff\xff\xff")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


class Pretended:
    """Stands in for `Run.carry_out`: notes what was run; `hooks` are called in the middle of the run of that name."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.hooks: dict[str, Callable[[], Any]] = {}

    def carry_out(
        self, run: Run, folder: Path, device: str, bar: Progress, written: Callable[[Result], object]
    ) -> Done:
        self.ran.append(folder.name)
        folder.mkdir(exist_ok=True)
        bar.start("first", 4)
        bar.seed(run.seeds[0])
        bar.advance(3, "loss 1")
        self.hooks.get(folder.name, lambda: None)()
        bar.start("second", 2)
        bar.advance(2)
        result = Result(run.experiment.name, run.dataset, "cpu", {"epochs": len(self.ran)}, run.seeds)
        for seed in run.seeds:
            result.row("net").add(accuracy=0.75 + seed / 100)
        result.curves["net"] = {"loss": [[2.0, 1.5]]}
        result.provenance = {"started": "2026-01-02T03:04:05+00:00", "seconds": 1.5, "gpunet": "0"}
        path = result.write(folder)
        written(result)
        self.hooks.get(f"{folder.name} figures", lambda: None)()
        (folder / "figure.png").write_bytes(png())
        return Done(result, path, [folder / "figure.png"])
