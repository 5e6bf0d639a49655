"""Who runs the kernels: the pretend GPU, and with `-m gpu` the real one."""

from __future__ import annotations

import pytest

from gpunet.backend.cupy_backend import CupyBackend

from ..conftest import need_gpu, stand_in


@pytest.fixture(scope="module")
def shim() -> CupyBackend:
    """The kernels as g++ compiles them: threads in any order, guards around every array."""
    return CupyBackend(module=stand_in())


@pytest.fixture(scope="module", params=["pretend", pytest.param("real", marks=pytest.mark.gpu)])
def gpu(request: pytest.FixtureRequest) -> CupyBackend:
    """The same, or a GPU."""
    if request.param == "real":
        need_gpu()
        return CupyBackend()
    return request.getfixturevalue("shim")
