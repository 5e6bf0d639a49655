"""One fixture, `gpu`: the pretend GPU in ordinary tests, and with `-m gpu` the real one, or the reason why not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from gpunet.backend import Backend, cusolver, get_backend, why_no_gpu


@dataclass(frozen=True)
class GPU:
    """A GPU that get_backend("cuda") finds; real: not the pretend one, whose kernels g++ has compiled."""

    real: bool
    count: int

    def backend(self, device: str = "cuda") -> Backend:
        """A new backend."""
        return get_backend(device)

    def size(self, real: int, pretended: int) -> int:
        """A size, or a smaller one where every thread of a kernel takes its turn on the CPU."""
        return real if self.real else pretended


@pytest.fixture(params=["pretend", pytest.param("real", marks=pytest.mark.gpu)])
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[GPU]:
    if request.param == "real":
        if reason := why_no_gpu():
            pytest.skip(reason)
        import cupy

        yield GPU(True, cupy.cuda.runtime.getDeviceCount())
        return
    from tests.cuda.host_module import why_not
    from tests.cuda.pretend import pretend

    if reason := why_not():
        pytest.skip(reason)
    stand_in = pretend(devices=2)
    monkeypatch.setitem(sys.modules, "cupy", stand_in)
    # What cuSOLVER does beyond cupy.linalg: the same by LAPACK.
    monkeypatch.setattr(cusolver, "gesvda", lambda a, rank: [each[..., :rank] for each in _triples(stand_in, a)])
    monkeypatch.setattr(cusolver, "syev_batched", lambda a: None)
    yield GPU(False, 2)
    stand_in.machine.check_guards()


def _triples(cp, a):
    u, s, vt = cp.linalg.svd(a, full_matrices=False)
    return u, s, vt.swapaxes(-1, -2)
