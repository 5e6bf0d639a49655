from __future__ import annotations

import pytest

from gpunet.experiments.work import Work

from .small import TINY, Pretended, use


@pytest.fixture(autouse=True)
def _no_surroundings(monkeypatch, tmp_path):
    """Nobody's data folder, no network, and three small runs."""
    from gpunet import datasets

    def unwanted(name, **_):
        raise AssertionError(f"{name} was fetched")

    monkeypatch.setenv("GPUNET_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(datasets, "fetch", unwanted)
    use(TINY, monkeypatch)


@pytest.fixture
def pretended(monkeypatch) -> Pretended:
    """Nothing is computed and no page is written."""
    from gpunet.report import page

    made = Pretended()
    monkeypatch.setattr(Work, "carry_out", lambda *arguments: made.carry_out(*arguments))
    monkeypatch.setattr(page, "write", lambda folder: folder / "report.html")
    return made
