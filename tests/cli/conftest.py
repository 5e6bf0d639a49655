from __future__ import annotations

import pytest

from ..experiments.made import write_npz


@pytest.fixture(autouse=True)
def _no_surroundings(monkeypatch, tmp_path):
    """Nobody's data folder, nobody's runs/, no colours, and a terminal that is wide enough for a table."""
    monkeypatch.setenv("GPUNET_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "140")
    for name in ("FORCE_COLOR", "CLICOLOR_FORCE", "PYTHONWARNINGS", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def own(tmp_path):
    """An .npz of three classes and seven features."""
    return write_npz(tmp_path / "own.npz")
