"""The pretend GPU in the place of the module cupy, for tests and for whole processes (check.py beside this file)."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

from gpunet.backend import cusolver
from gpunet.linalg import device
from tests.cuda.pretend import pretend


def install(put: Any = setattr, devices: int = 2) -> Any:
    """The new stand-in; `put(owner, name, value)` as setattr or a MonkeyPatch's."""
    stand_in = pretend(devices=devices)
    sys.modules["cupy"] = stand_in
    put(device, "gpu", cache(device.gpu.__wrapped__))  # which knows the GPUs of another stand-in
    # What cuSOLVER does beyond cupy.linalg: the same by LAPACK.
    put(cusolver, "gesvda", lambda a, rank: [each[..., :rank] for each in _triples(stand_in, a)])
    put(cusolver, "syev_batched", lambda a: None)
    return stand_in


def _triples(cp: Any, a: Any) -> Any:
    u, s, vt = cp.linalg.svd(a, full_matrices=False)
    return u, s, vt.swapaxes(-1, -2)
