"""Fixtures that every test may use."""

from __future__ import annotations

import os
import types
from pathlib import Path

import numpy as np
import pytest

from gpunet.backend import Backend, get_backend, why_no_gpu, why_no_numba
from gpunet.backend.cupy_backend import CupyBackend
from gpunet.backend.strict import StrictBackend

# One table of tolerances, relative to the scale of the result; products of K terms multiply by √K.
RTOL = {"float32": 2e-6, "float64": 5e-15}


def stand_in() -> types.ModuleType:
    """NumPy dressed as CuPy: the CuPy backend's own logic runs without a GPU, though not its kernels."""

    class Device:
        mem_info = (1 << 30, 2 << 30)

        def __init__(self, index: int) -> None:
            self.quiet = np.errstate(all="ignore")  # CuPy never warns

        def __enter__(self) -> Device:
            self.quiet.__enter__()
            return self

        def __exit__(self, *exc: object) -> None:
            self.quiet.__exit__(*exc)

        def synchronize(self) -> None:
            pass

    module = types.ModuleType("cupy stand-in")
    module.__dict__.update(np.__dict__)
    module.asnumpy, module.cuda = np.asarray, types.SimpleNamespace(Device=Device)
    return module


def make_backend(name: str) -> Backend:
    if name == "numba" and (reason := why_no_numba()):
        pytest.skip(reason)
    if name == "cupy" and (reason := why_no_gpu()):
        pytest.skip(reason)
    return {
        "numpy": lambda: get_backend("numpy"),
        "numba": lambda: get_backend("cpu"),
        "strict": StrictBackend,
        "cupy-logic": lambda: CupyBackend(module=stand_in()),
        "cupy": lambda: get_backend("cuda"),
    }[name]()


@pytest.fixture(params=["numpy", "numba", "strict", "cupy-logic", pytest.param("cupy", marks=pytest.mark.gpu)])
def backend(request: pytest.FixtureRequest) -> Backend:
    """Every backend that this machine can run; the others are skipped with the reason."""
    return make_backend(request.param)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20260101)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with the real data sets."""
    for folder in (os.environ.get("GPUNET_DATA"), Path(__file__).parents[2] / "shared" / "data"):
        if folder and (Path(folder) / "mnist").is_dir():
            return Path(folder)
    pytest.skip("no real data: set GPUNET_DATA to a folder with mnist/ (see `gpunet data path`)")
