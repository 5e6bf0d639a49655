"""Full disks without a disk that is full."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest


def filled(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders in which nothing can be written any more; more may be appended. Skips where nobody can tell."""
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux tells what a handle stands for")
    folders: list[Path] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        if any(os.readlink(f"/proc/self/fd/{handle}").startswith(f"{folder}/") for folder in folders):
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    return folders
