"""One fixture, `gpu`: the pretend GPU in ordinary tests, and with `-m gpu` the real one, or the reason why not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from gpunet.backend import Backend, get_backend

from ..conftest import need_gpu


@dataclass(frozen=True)
class GPU:
    """GPUs that get_backend("cuda") finds; real: not the pretend ones, whose kernels g++ has compiled."""

    real: bool
    count: int

    def backend(self) -> Backend:
        """A new backend: of pretend GPUs the second, which what forgets to make it current does not find."""
        return get_backend("cuda" if self.real else f"cuda:{self.count - 1}")

    def size(self, real: int, pretended: int) -> int:
        """A size, or a smaller one where every thread of a kernel takes its turn on the CPU."""
        return real if self.real else pretended


@pytest.fixture(params=["pretend", pytest.param("real", marks=pytest.mark.gpu)])
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[GPU]:
    if request.param == "real":
        need_gpu()
        import cupy

        yield GPU(True, cupy.cuda.runtime.getDeviceCount())
        return
    from tests.cuda.host_module import why_not
    from tests.gpu.stand_in import install

    if reason := why_not():
        pytest.skip(reason)
    monkeypatch.setitem(sys.modules, "cupy", None)  # and as it was, at the end
    stand_in = install(monkeypatch.setattr)
    yield GPU(False, 2)
    stand_in.machine.check_guards()
