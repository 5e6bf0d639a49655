from __future__ import annotations

import pytest

from gpunet.experiments.framework import Run

from .small import Pretended, use_page, use_small


@pytest.fixture(autouse=True)
def _no_surroundings(monkeypatch, tmp_path):
    """Nobody's data folder, no network, and a small paper's runs."""
    from gpunet import datasets

    def unwanted(name, **_):
        raise AssertionError(f"{name} was fetched")

    monkeypatch.setenv("GPUNET_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(datasets, "fetch", unwanted)
    use_small(monkeypatch)


@pytest.fixture
def pretended(monkeypatch) -> Pretended:
    """Nothing is computed and no page is written."""
    made = Pretended()
    monkeypatch.setattr(Run, "carry_out", lambda *arguments: made.carry_out(*arguments))
    use_page(monkeypatch, lambda folder: folder / "report.html")
    return made
