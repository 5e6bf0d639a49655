"""Fixtures that every test may use."""

from __future__ import annotations

import os
import re
import signal
import types
from collections.abc import Iterator
from pathlib import Path

os.environ.pop("COLUMNS", None)  # readline gives it to what it starts: tables are as wide as where there is no window
if "PYTEST_XDIST_WORKER" in os.environ:  # as many processes as cores, so one thread each; BLAS looks when it is loaded
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest

from gpunet.backend import Backend, get_backend, why_no_gpu, why_no_numba
from gpunet.backend.cupy_backend import CupyBackend
from gpunet.testing import StrictBackend

# One table of tolerances, relative to the scale of the result; products of K terms multiply by √K.
RTOL = {"float32": 2e-6, "float64": 5e-15}


_asked: list[bool] = [False]  # whether -m asks for the tests marked gpu


def pytest_configure(config: pytest.Config) -> None:
    if (
        signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    ):  # of a process begun with `&` by a script, and of its children
        signal.signal(signal.SIGINT, signal.default_int_handler)
    _asked[0] = bool(re.search(r"(?<!not )\bgpu\b", config.option.markexpr))


def need_gpu() -> None:
    """Skip a test where no GPU can be used; where -m gpu has asked for such tests, it has failed."""
    if reason := why_no_gpu():
        if _asked[0]:
            pytest.fail(f"no GPU can be used: {reason}", pytrace=False)
        pytest.skip(reason)


def stand_in() -> types.ModuleType:
    """A pretend GPU in CuPy's place: CupyBackend's dispatch, and its kernels compiled for the host by g++."""
    from tests.cuda.host_module import why_not
    from tests.cuda.pretend import pretend

    if reason := why_not():
        pytest.skip(reason)
    return pretend()


def make_backend(name: str) -> Backend:
    if name == "numba" and (reason := why_no_numba()):
        pytest.skip(reason)
    if name == "cupy":
        need_gpu()
    return {
        "numpy": lambda: get_backend("numpy"),
        "numba": lambda: get_backend("cpu"),
        "strict": StrictBackend,
        "cuda-host": lambda: CupyBackend(module=stand_in()),
        "cupy": lambda: get_backend("cuda"),
    }[name]()


BACKENDS = ["numpy", "numba", "strict", "cuda-host", pytest.param("cupy", marks=pytest.mark.gpu)]
# For thousands of steps, where the pretend GPU takes seconds and a test beside it runs fewer there.
slow_on_the_stand_in = pytest.mark.parametrize(
    "backend",
    [pytest.param(each, marks=pytest.mark.slow) if each == "cuda-host" else each for each in BACKENDS],
    indirect=True,
)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Every backend that this machine can run; the others are skipped with the reason."""
    return make_backend(request.param)


@pytest.fixture
def session(backend: Backend) -> Iterator[None]:
    """The backend's session, for tests that call hot code themselves."""
    with backend.session():
        yield


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """As on a terminal, where whoever runs the tests ignores SIGINT, as nohup does."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


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
