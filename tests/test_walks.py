"""How many files one has to open to follow what is done most: those of which a function runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import gpunet as gn

ROOT = Path(gn.__file__).parent


def files_of(work: Callable[[], object]) -> set[str]:
    """The package's files of which a function is called; importing aside."""
    found = set()

    def note(frame, event, _):
        path = Path(frame.f_code.co_filename)
        if event == "call" and frame.f_code.co_name != "<module>" and path.is_relative_to(ROOT):
            found.add(path.relative_to(ROOT).as_posix())

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("device", "most"), [("numpy", 9), ("cpu", 11)]
)  # numba's loops are one more, and who runs them another
def test_a_training_step(device, most):
    rng = np.random.default_rng(0)
    x, y = rng.random((100, 20), dtype="float32"), rng.integers(0, 10, 100)
    model = gn.Sequential([gn.Dense(16, "relu"), gn.Dense(10)])
    trainer = gn.Trainer(model, optimizer=gn.Adam(1e-3), device=device)
    trainer.fit(x, y)
    data, order = trainer.samples(x, y), trainer.upload_order(np.arange(100))
    trainer.tally.reset()
    trainer.step(data, order, 64)
    trainer.tally.reset()
    found = files_of(lambda: trainer.step(data, order, 64))
    assert {"nn/trainer.py", "nn/layers/dense.py", "backend/numpy_backend.py"} <= found
    assert len(found) <= most, sorted(found)
